"""Batches on disk, in order and bounded, until a subscriber takes them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import orjson

from rxtweets._messages.batch import Batch
from rxtweets._messages.jsonl import to_lines
from rxtweets._messages.lenient_json import payload_of
from rxtweets._support.file_lock import lock
from rxtweets.errors import ConfigurationError, SubscriberError
from rxtweets.subscribers._dead_letters import recorded_message

__all__ = ["Spool"]

SCHEMA = """
create table if not exists batches (
    number integer primary key autoincrement,
    messages integer not null,
    bytes integer not null,
    info text not null,
    lines blob not null
)
"""


class Spool:
    """A queue of batches in a directory; one process at a time, from any thread.

    Args:
        directory: created if it is missing.
        max_bytes: of the lines of all batches.

    Attributes:
        messages: in the batches that wait.
        bytes: of their lines.

    Raises:
        ConfigurationError: the directory cannot be used, or another process uses it.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = (directory / "lock").open("ab")
            if not lock(self._file):
                raise ConfigurationError(
                    f"directory={os.fspath(directory)!r}: another process uses this spool; give "
                    "each process its own"
                )
            self._database = sqlite3.connect(directory / "spool.db", check_same_thread=False)
            self._database.execute("pragma journal_mode=wal")
            self._database.execute("pragma synchronous=full")
            self._database.execute(SCHEMA)
            query = "select coalesce(sum(messages), 0), coalesce(sum(bytes), 0) from batches"
            self.messages: int
            self.bytes: int
            self.messages, self.bytes = self._database.execute(query).fetchone()
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(
                f"directory={os.fspath(directory)!r}: no spool can be kept there: {error}"
            ) from error

    def put(self, batch: Batch[Any]) -> None:
        """Append a batch; it survives a loss of power.

        Raises:
            SubscriberError: the spool is full.
            OSError: it cannot be written.
        """
        lines = to_lines(batch)
        with self._lock:
            if self.bytes + len(lines) > self._max_bytes:
                raise SubscriberError(
                    f"the spool in {os.fspath(self._directory)!r} is full: {self.bytes} bytes "
                    f"wait, and the batch of {len(batch)} messages has {len(lines)}; the limit is "
                    f"max_bytes={self._max_bytes}"
                )
            info = orjson.dumps([batch.info.trigger, batch.info.batcher]).decode()
            self._execute(
                "insert into batches (messages, bytes, info, lines) values (?, ?, ?, ?)",
                (len(batch), len(lines), info, lines),
            )
            self.messages += len(batch)
            self.bytes += len(lines)

    def first(self) -> tuple[int, Batch[Any]] | None:
        """Return the number of the oldest batch and the batch; ``None`` if none waits.

        Raises:
            OSError: it cannot be read.
        """
        with self._lock:
            found = self._execute(
                "select number, info, lines from batches order by number limit 1", ()
            )
        if not found:
            return None
        [(number, info, lines)] = found
        trigger, batcher = orjson.loads(info)
        messages = [recorded_message(line, payload_of(line)) for line in lines.split(b"\n") if line]
        return number, Batch(messages, trigger, batcher)

    def replace(self, number: int, batch: Batch[Any]) -> None:
        """Leave these messages of a batch in its place.

        Raises:
            OSError: the file cannot be written.
        """
        lines = to_lines(batch)
        query = "select messages, bytes from batches where number = ?"
        update = "update batches set messages = ?, bytes = ?, lines = ? where number = ?"
        with self._lock:
            [(messages, size)] = self._execute(query, (number,))
            self._execute(update, (len(batch), len(lines), lines, number))
            self.messages += len(batch) - messages
            self.bytes += len(lines) - size

    def remove(self, number: int) -> None:
        """Remove a batch.

        Raises:
            OSError: the file cannot be written.
        """
        query = "delete from batches where number = ? returning messages, bytes"
        with self._lock:
            for messages, size in self._execute(query, (number,)):
                self.messages -= messages
                self.bytes -= size

    def close(self) -> None:
        """Let another process use the directory; may be called twice."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._database.close()
            self._file.close()

    def _execute(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        try:
            with self._database:
                return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise OSError(
                f"the spool in {os.fspath(self._directory)!r} cannot be used: {error}"
            ) from error
