"""JSON Lines: one message a line, in files that rotate and are complete or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from rxtweets._messages.batch import Batch
from rxtweets._messages.jsonl import from_line, key_of, to_lines
from rxtweets._messages.line_files import LineWriter, files_of, lines_in
from rxtweets._support.validation import seconds, whole_number
from rxtweets.subscribers._seen import WINDOW, Seen
from rxtweets.subscribers._store import Store

__all__ = ["JSONLinesSubscriber"]


class JSONLinesSubscriber(Store):
    """Writes every message as a line of JSON: a recording, which `rxtweets.replay` plays.

    ::

        {"id":"212…","received_at":1764028461.25,"data":"TEXT","raw":{"data":{…},"includes":{…}}}

    The file is ``NAME.part`` while it is written, and is renamed when it is complete; further
    ones are ``NAME-2``, ``NAME-3`` … before the suffix. A batch is acknowledged when the system
    has all its lines: they survive the death of the process, and with ``sync=True`` that of the
    machine. What a killed process left behind is cut after its last whole line, and completed
    with the first batch of the next. If the part is removed, renamed or truncated while it is
    written, the next batch begins another file.

    A message whose key (`rxtweets.subscribers`) is among the last ``window`` is not written
    again; those of the last run are known from its files. Events are written as tweets are, with
    their dataclass as an object in ``data``.

    Args:
        path: of the file, in a directory that is there; ``.gz`` and ``.zst`` (extra ``zstd``) at
            its end compress.
        rotate_size: bytes on the disk, 1 or more, after which a file is complete.
        rotate_after: seconds after which a file is complete, looked at when a batch comes.
        sync: have the disk confirm every batch.
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
        window: int = WINDOW,
    ) -> None:
        super().__init__()
        self._writer = LineWriter(
            path,
            rotate_size=None if rotate_size is None else whole_number("rotate_size", rotate_size),
            rotate_after=None if rotate_after is None else seconds("rotate_after", rotate_after),
            sync=sync,
        )
        self._window = whole_number("window", window)
        self._seen: Seen | None = None

    def on_next(self, batch: Batch[Any]) -> None:
        """Append the messages that were not written before."""
        with self._alone:
            if self._writer.open():
                self._seen = None  # what was stored is what is there now
            if self._seen is None:
                self._seen = Seen.in_files(self._window, self._keys())
            fresh = self._seen.fresh(batch)
            if fresh:
                self._writer.append(to_lines(fresh.values()))
                self._seen.remember(fresh)

    def close(self) -> None:
        """Complete the file."""
        with self._alone:
            self._writer.close()

    def __repr__(self) -> str:
        return f"JSONLinesSubscriber({os.fspath(self._writer.path)!r})"

    def _keys(self) -> Iterator[Iterator[str]]:
        """Those in the files of earlier runs, the newest file first."""
        for path in reversed(files_of(self._writer.path)):
            yield (key for line in lines_in(path) if (key := _key_in(line.content)))


def _key_in(line: bytes) -> str:
    try:
        return key_of(from_line(line))
    except Exception:  # noqa: BLE001 - a file of others can hold anything
        return ""  # somebody else wrote it; it stays as it is
