"""SQLite: one row a message in a table that is there when it is asked for."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from rxtweets._messages.batch import Batch
from rxtweets._messages.rows import COLUMNS, Row, row_of
from rxtweets._support.file_lock import Identity, identity_of
from rxtweets._support.validation import file_path
from rxtweets.errors import ConfigurationError
from rxtweets.subscribers._store import Store, each_alone

__all__ = ["SQLiteSubscriber"]

log = logging.getLogger("rxtweets")

TYPES = {"text": "TEXT", "json": "TEXT", "time": "TEXT", "integer": "INTEGER", "texts": "TEXT"}
HEADER = b"SQLite format 3\x00"
"""What every database begins with (https://sqlite.org/fileformat.html)."""

REFUSALS = (sqlite3.IntegrityError, sqlite3.DataError)
"""What is about one row: a constraint, a trigger, a size."""

KEYS = ("kind", "id")
OTHERS = [name for name in COLUMNS if name not in KEYS]

TABLE = f"""
CREATE TABLE IF NOT EXISTS tweets (
    {", ".join(f"{name} {TYPES[kind]}" for name, kind in COLUMNS.items())},
    PRIMARY KEY ({", ".join(KEYS)})
);
CREATE INDEX IF NOT EXISTS tweets_created_at ON tweets (created_at);
"""

# A row that comes again as it is changes nothing, not even the index of the texts.
UPSERT = f"""
INSERT INTO tweets ({", ".join(COLUMNS)}) VALUES ({", ".join("?" * len(COLUMNS))})
ON CONFLICT ({", ".join(KEYS)}) DO UPDATE
SET {", ".join(f"{name} = excluded.{name}" for name in OTHERS)}
WHERE (text, data, raw) IS NOT (excluded.text, excluded.data, excluded.raw)
"""  # noqa: S608 - the names are those of our columns

SEARCH = """
CREATE VIRTUAL TABLE IF NOT EXISTS tweets_search
USING fts5(text, content='tweets', content_rowid='rowid');
CREATE TRIGGER IF NOT EXISTS tweets_inserted AFTER INSERT ON tweets BEGIN
    INSERT INTO tweets_search (rowid, text) VALUES (new.rowid, new.text);
END;
CREATE TRIGGER IF NOT EXISTS tweets_deleted AFTER DELETE ON tweets BEGIN
    INSERT INTO tweets_search (tweets_search, rowid, text) VALUES ('delete', old.rowid, old.text);
END;
CREATE TRIGGER IF NOT EXISTS tweets_updated AFTER UPDATE ON tweets BEGIN
    INSERT INTO tweets_search (tweets_search, rowid, text) VALUES ('delete', old.rowid, old.text);
    INSERT INTO tweets_search (rowid, text) VALUES (new.rowid, new.text);
END;
INSERT INTO tweets_search (tweets_search) VALUES ('rebuild');
"""


class SQLiteSubscriber(Store):
    """Stores messages in the table ``tweets`` of a database, one transaction a batch.

    The columns are those of `rxtweets.subscribers.Row`; times are text in UTC, lists are JSON.
    A message
    whose kind and id are there already replaces that row, so that a batch that comes again
    changes nothing. Where SQLite has FTS5, ``tweets_search`` finds words::

        SELECT author, text FROM tweets WHERE rowid IN
            (SELECT rowid FROM tweets_search WHERE tweets_search MATCH 'rust OR python')

    The database is in WAL mode: others can read while it is written. A batch that is acknowledged
    survives the death of the process, and with ``sync=True`` that of the machine.

    A database that is removed, or has another in its place, is noticed with the next batch: it is
    closed, and the batch is stored in the one that is there now, or in a new one.

    Args:
        path: of the database, in a directory that is there.
        search: keep ``tweets_search``; it doubles the work.
        sync: have the disk confirm every batch.

    Raises:
        ConfigurationError: it cannot be written there, or the file is no database.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, search: bool = True, sync: bool = False
    ) -> None:
        super().__init__()
        self._path = file_path("path", path)
        if _is_foreign(self._path):
            raise ConfigurationError(f"path={os.fspath(path)!r}: this file is no SQLite database")
        self._search = search
        self._sync = sync
        self._connection: sqlite3.Connection | None = None
        self._files: list[Identity] = []

    def on_next(self, batch: Batch[Any]) -> Any:
        """Store the batch, but for rows that the database refuses.

        Returns:
            The batch with the messages of those rows failed; ``None`` if there are none.

        Raises:
            sqlite3.Error: nothing of the batch is stored.
        """
        rows = [_values(row_of(message)) for message in batch]
        with self._alone:
            try:
                return self._store(batch, rows)
            except sqlite3.Error as error:
                self.close()  # what was wrong with it may be mended when it is opened again
                error.args = (f"{self._path}: {error}",)
                raise

    def close(self) -> None:
        """Close the database."""
        with self._alone:
            connection, self._connection = self._connection, None
            if connection is None:
                return
            if self._files != self._identities():
                log.warning("%s was removed or replaced while it was open", self._path)
                # Closing leaves the log of a renamed database behind, and another would take it for
                # its own (https://sqlite.org/howtocorrupt.html, on mispaired and renamed files).
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()

    def __repr__(self) -> str:
        return f"SQLiteSubscriber({os.fspath(self._path)!r})"

    def _store(self, batch: Batch[Any], rows: list[list[Any]]) -> Batch[Any] | None:
        try:
            with self._open() as connection:  # which commits, or rolls back
                connection.executemany(UPSERT, rows)
        except REFUSALS:
            with self._open() as connection:
                return each_alone(batch, rows, partial(_store_one, connection), REFUSALS)
        return None

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._files != self._identities():
            self.close()
        if self._connection is None:
            # Batches come from several threads, and are kept apart by our lock.
            connection = sqlite3.connect(self._path, timeout=30.0, check_same_thread=False)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(f"PRAGMA synchronous = {'FULL' if self._sync else 'NORMAL'}")
                connection.executescript(TABLE)
                if self._search and _lacks_search(connection):
                    connection.executescript(f"BEGIN;{SEARCH}COMMIT;")
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            self._files = self._identities()
        return self._connection

    def _identities(self) -> list[Identity]:
        """The files of the database; what is committed is in the second one at first."""
        return [identity_of(self._path), identity_of(f"{self._path}-wal")]


def _store_one(connection: sqlite3.Connection, row: list[Any]) -> None:
    try:
        connection.execute(UPSERT, row)
    except REFUSALS as error:
        if connection.in_transaction:
            raise
        # A trigger can roll back the whole transaction.
        raise sqlite3.DatabaseError(f"the transaction was rolled back: {error}") from error


def _is_foreign(path: Path) -> bool:
    """Whether there is something else in the file than a database."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(HEADER)) not in {b"", HEADER}


def _lacks_search(connection: sqlite3.Connection) -> bool:
    """Whether there is no index of the texts, and there can be one."""
    [(available,)] = connection.execute("SELECT sqlite_compileoption_used('ENABLE_FTS5')")
    there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'tweets_search'")
    return bool(available) and there.fetchone() is None


def _values(row: Row) -> list[Any]:
    return [
        value.isoformat(" ", "milliseconds")
        if isinstance(value, datetime)
        else orjson.dumps(value).decode()
        if isinstance(value, list)
        else value
        for value in row
    ]
