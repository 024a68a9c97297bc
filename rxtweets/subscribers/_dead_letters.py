"""Where batches go that could not be delivered: a file of JSON Lines, to look at and to replay."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from rxtweets._messages.batch import Batch
from rxtweets._messages.jsonl import from_line, to_line
from rxtweets._messages.line_files import check_path, lines_in
from rxtweets._messages.message import Message, payload_of
from rxtweets._support.file_lock import name_path
from rxtweets.errors import ConfigurationError, DecodeError

__all__ = ["DeadLetter", "DeadLetterFile", "read_dead_letters"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A batch that could not be delivered.

    Attributes:
        batch: the batch; its messages are as the subscriber got them.
        error: the last exception, as text, with its type.
        attempts: how often it was tried.
        at: when it was given up, in UTC.
    """

    batch: Batch[Any]
    error: str
    attempts: int
    at: datetime


class DeadLetterFile:
    """Appends the messages of dead letters to a file; the disk confirms each letter.

    One message a line, in the format of recordings, with why it is here::

        {"id":"212…","received_at":1764028461.25,"data":"TEXT",
         "failed":{"batch":"5f0c…","at":1764028463.5,"attempts":5,"error":"TimeoutError: …",
                   "batcher":"default","trigger":"size"},
         "raw":{"data":{…},…}}

    So `read_dead_letters` gives the batches back, and `rxtweets.replay` plays the messages.
    Several processes can write to one file. A file that was dealt with is deleted or renamed.

    Args:
        path: of the file, in a directory that is there.

    Raises:
        ConfigurationError: it cannot be written there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = check_path(path)
        if self.path.suffix in {".gz", ".zst"}:
            raise ConfigurationError(f"path={os.fspath(path)!r}: dead letters are not compressed")

    def __call__(self, letter: DeadLetter) -> None:
        """Append one.

        Raises:
            OSError: it cannot be written.
        """
        why = _why(letter)
        lines = b"".join(to_line(message, why) for message in letter.batch)
        try:
            with self.path.open("ab+") as file:
                if file.seek(0, os.SEEK_END) and _is_torn(file):
                    lines = b"\n" + lines  # a process was killed while it wrote here
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            name_path(error, self.path)
            raise

    def __repr__(self) -> str:
        return f"DeadLetterFile({os.fspath(self.path)!r})"


def read_dead_letters(path: str | os.PathLike[str]) -> Iterator[DeadLetter]:
    """The dead letters of a file, in their order.

    ::

        for letter in read_dead_letters("dead-letters.jsonl"):
            subscriber.on_next(letter.batch)

    A line that was cut off, when a process was killed in the middle of it, is left out: its batch
    was not acknowledged.

    Raises:
        OSError: the file cannot be read.
        DecodeError: a line is JSON, but of something else.
    """
    for _, found in groupby(_letters_in(Path(path)), key=lambda each: each[0]["batch"]):
        lines = list(found)
        why = lines[0][0]
        yield DeadLetter(
            batch=Batch([message for _, message in lines], why["trigger"], why["batcher"]),
            error=why["error"],
            attempts=why["attempts"],
            at=datetime.fromtimestamp(why["at"], UTC),
        )


def _letters_in(path: Path) -> Iterator[tuple[dict[str, Any], Message[Any]]]:
    for _, line, _ in lines_in(path):
        try:
            value = payload_of(line)
        except (ValueError, RecursionError):
            continue  # cut off
        why = value.get("failed") if isinstance(value, dict) else None
        if not isinstance(why, dict) or not why.keys() >= KEYS:
            raise DecodeError("this line is no dead letter", line)
        yield why, _message(line, value)


def _message(line: bytes, value: dict[str, Any]) -> Message[Any]:
    try:
        return from_line(line)
    except ValueError:  # what was written as its line is no JSON
        raw = str(value.get("raw") or "").encode(errors="replace")
        identifier = str(value.get("id") or "")
        return Message.from_event(value.get("data"), identifier, raw, value.get("received_at"))


KEYS = {"batch", "at", "attempts", "error", "batcher", "trigger"}


def _why(letter: DeadLetter) -> dict[str, Any]:
    info = letter.batch.info
    value = {
        "batch": uuid4().hex,
        "at": letter.at.timestamp(),
        "attempts": letter.attempts,
        "error": letter.error.encode(errors="replace").decode(),
        "batcher": info.batcher,
        "trigger": info.trigger,
    }
    return {"failed": value}


def _is_torn(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"
