"""A file of JSON Lines for batches that could not be delivered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import uuid4

from rxtweets._messages.batch import Batch
from rxtweets._messages.jsonl import from_line, to_line
from rxtweets._messages.lenient_json import payload_of
from rxtweets._messages.line_files import check_path, lines_in
from rxtweets._messages.message import Message
from rxtweets._support.file_lock import name_path
from rxtweets._support.json_objects import object_in
from rxtweets.errors import ConfigurationError, DecodeError


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A batch that could not be delivered.

    Attributes:
        batch: the batch, with its messages as the subscriber got them.
        error: type and text of the last exception.
        attempts: the number of attempts.
        at: time of the last attempt, in UTC.
    """

    batch: Batch[Any]
    error: str
    attempts: int
    at: datetime


class DeadLetterFile:
    """Appends the messages of dead letters to a file; the disk confirms each letter.

    A line is a message in the format of recordings, with the failure of its batch::

        {"id":"212…","received_at":1764028461.25,"data":"TEXT",
         "failed":{"batch":"5f0c…","at":1764028463.5,"attempts":5,"error":"TimeoutError: …",
                   "batcher":"default","trigger":"size"},
         "raw":{"data":{…},…}}

    `read_dead_letters` returns the batches, and `rxtweets.replay` plays the messages. Several
    processes can write to one file. Delete or rename it when its letters are delivered.

    Args:
        path: the file, in an existing directory; it cannot be compressed.

    Raises:
        ConfigurationError: it cannot be written there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = check_path(path)
        if self.path.suffix in {".gz", ".zst"}:
            raise ConfigurationError(f"path={os.fspath(path)!r}: dead letters are not compressed")

    def __call__(self, letter: DeadLetter) -> None:
        """Append a dead letter.

        Raises:
            OSError: it cannot be written.
        """
        failure = {
            "batch": uuid4().hex,
            "at": letter.at.timestamp(),
            "attempts": letter.attempts,
            "error": letter.error.encode(errors="replace").decode(),
            "batcher": letter.batch.info.batcher,
            "trigger": letter.batch.info.trigger,
        }
        lines = b"".join(to_line(message, {"failed": failure}) for message in letter.batch)
        try:
            with self.path.open("ab+") as file:
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":  # a process was killed during a write
                        lines = b"\n" + lines
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            name_path(error, self.path)
            raise

    def __repr__(self) -> str:
        return f"DeadLetterFile({os.fspath(self.path)!r})"


def read_dead_letters(path: str | os.PathLike[str]) -> Iterator[DeadLetter]:
    """Yield the dead letters of a file in their order.

    ::

        for letter in read_dead_letters("dead-letters.jsonl"):
            subscriber.on_next(letter.batch)

    A line that a killed process left incomplete is left out: its batch was not acknowledged.

    Args:
        path: the file.

    Raises:
        OSError: the file cannot be read.
        DecodeError: a line is JSON, but no dead letter.
    """
    for _, found in groupby(_letter_lines(Path(path)), key=lambda line: line[0]["batch"]):
        lines = list(found)
        failure = lines[0][0]
        yield DeadLetter(
            batch=Batch([message for _, message in lines], failure["trigger"], failure["batcher"]),
            error=failure["error"],
            attempts=failure["attempts"],
            at=datetime.fromtimestamp(failure["at"], UTC),
        )


def _letter_lines(path: Path) -> Iterator[tuple[dict[str, Any], Message[Any]]]:
    for _, line, _ in lines_in(path):
        try:
            value = payload_of(line)
        except (ValueError, RecursionError):
            continue  # incomplete
        failure = object_in(value, "failed")
        needed = {"batch", "at", "attempts", "error", "batcher", "trigger"}
        if not failure.keys() >= needed:
            raise DecodeError("this line is no dead letter", line)
        yield failure, recorded_message(line, value)


def text_of(reason: object) -> str:
    """Return type and text of the reason of a failure."""
    name = type(reason).__name__
    try:
        return f"{name}: {reason}"
    except Exception:  # noqa: BLE001 - the text of a user's exception may raise anything
        return name


def recorded_message(line: bytes, value: dict[str, Any]) -> Message[Any]:
    """Return the message of a line that `to_line` wrote, and that is decoded already."""
    try:
        return from_line(line)
    except ValueError:  # the raw line of this message is no JSON
        raw = str(value.get("raw") or "").encode(errors="replace")
        identifier = str(value.get("id") or "")
        return Message.from_event(value.get("data"), identifier, raw, value.get("received_at"))
