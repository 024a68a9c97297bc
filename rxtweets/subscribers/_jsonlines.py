"""JSON Lines: one message a line, in files that rotate and that a crash leaves readable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from rxtweets._messages.jsonl import from_line, key_of, to_lines
from rxtweets._messages.line_files import LineWriter, files_of, lines_in
from rxtweets._messages.message import Message
from rxtweets._support.validation import seconds, whole_number
from rxtweets.subscribers._store import REMEMBERED_MESSAGES, FileStore


class JSONLinesSubscriber(FileStore):
    """Writes every message as a line of JSON: a recording, which `rxtweets.replay` plays.

    ::

        {"id":"212…","received_at":1764028461.25,"data":"TEXT","raw":{"data":{…},"includes":{…}}}

    The file is ``NAME.part`` while it is written, and is renamed when it is complete; further
    files are ``NAME-2``, ``NAME-3`` … before the suffix. A batch is acknowledged when the system
    has all its lines. They survive the death of the process, and with ``sync=True`` a crash of
    the machine. The part of a killed process is cut after its last whole line, and completed with
    the first batch of the next process. If the part is removed, renamed or truncated while it is
    written, the next batch starts another file.

    A message is left out if its key (`rxtweets.subscribers`) is among the last ``window`` keys;
    the files of the last run are read for theirs. A message that is redelivered later is written
    again. Events are written as tweets are, with their dataclass as an object in ``data``.

    Args:
        path: the file, in an existing directory; the suffix ``.gz`` or ``.zst`` (extra ``zstd``)
            compresses it.
        rotate_size: bytes on the disk, 1 or more, that complete a file; by default no limit.
        rotate_after: seconds that complete a file, checked when a batch arrives; by default no
            limit.
        sync: whether the disk confirms every batch.
        window: messages that are remembered, 100,000 by default.

    Raises:
        ConfigurationError: an argument cannot work, or ``zstandard`` is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rotate_size: int | None = None,
        rotate_after: float | timedelta | None = None,
        sync: bool = False,
        window: int = REMEMBERED_MESSAGES,
    ) -> None:
        super().__init__(window)
        self._writer = LineWriter(
            path,
            rotate_size=None if rotate_size is None else whole_number("rotate_size", rotate_size),
            rotate_after=None if rotate_after is None else seconds("rotate_after", rotate_after),
            sync=sync,
        )

    def close(self) -> None:
        """Complete the file."""
        with self._alone:
            self._writer.close()

    def __repr__(self) -> str:
        return f"JSONLinesSubscriber({os.fspath(self._writer.path)!r})"

    def _is_replaced(self) -> bool:
        return self._writer.open()

    def _keys_in_files(self) -> Iterator[Iterator[str]]:
        for path in reversed(files_of(self._writer.path)):
            yield (key for line in lines_in(path) if (key := _key_in(line.content)))

    def _write(self, messages: dict[str, Message[Any]]) -> None:
        self._writer.append(to_lines(messages.values()))
        self._remember(messages)


def _key_in(line: bytes) -> str:
    try:
        return key_of(from_line(line))
    except Exception:  # noqa: BLE001 - a line of another program has any shape
        return ""
