"""SQLite: a row for each message."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from rxtweets._messages.batch import Batch
from rxtweets._messages.rows import Row, row_of
from rxtweets._support.file_lock import Identity, identity_of
from rxtweets._support.validation import file_path
from rxtweets.errors import ConfigurationError
from rxtweets.subscribers._sql import SQLStore, Values, create_table_sql, upsert_sql

log = logging.getLogger("rxtweets")

HEADER = b"SQLite format 3\x00"
"""The first bytes of every database (https://sqlite.org/fileformat.html)."""

SETUP = f"""
{create_table_sql("tweets", {"integer": "integer"})};
CREATE INDEX IF NOT EXISTS tweets_created_at ON tweets (created_at);
"""
UPSERT = upsert_sql(
    "tweets", "?", "(tweets.text, tweets.data, tweets.raw) IS NOT "
    "(excluded.text, excluded.data, excluded.raw)",
)  # fmt: skip
SEARCH = """
BEGIN;
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
COMMIT;
"""


class SQLiteSubscriber(SQLStore):
    """Stores messages in the table ``tweets`` of a database, one transaction a batch.

    The columns are those of `rxtweets.subscribers.Row`; times are text in UTC, lists are JSON. A
    message replaces the stored row of its kind and id, however old that is. So a redelivered
    batch changes nothing. Where SQLite has FTS5, ``tweets_search`` finds words::

        SELECT author, text FROM tweets WHERE rowid IN
            (SELECT rowid FROM tweets_search WHERE tweets_search MATCH 'rust OR python')

    The database is in WAL mode: other programs can read during a write. An acknowledged batch
    survives the death of the process, and with ``sync=True`` a crash of the machine.

    If the database is removed or replaced, the next batch closes it. That batch is stored in the
    database that is there now, or in a new one.

    Args:
        path: the database, in an existing directory.
        search: whether to keep ``tweets_search``; it doubles the work.
        sync: whether the disk confirms every batch.

    Raises:
        ConfigurationError: it cannot be written there, or the file is no database.
    """

    refusals: tuple[type[Exception], ...] = (sqlite3.IntegrityError, sqlite3.DataError)

    def __init__(
        self, path: str | os.PathLike[str], *, search: bool = True, sync: bool = False
    ) -> None:
        super().__init__()
        self._path = file_path("path", path)
        if not _may_be_database(self._path):
            raise ConfigurationError(f"path={os.fspath(path)!r}: this file is no SQLite database")
        self._search = search
        self._sync = sync
        self._files: list[Identity] = []

    def on_next(self, batch: Batch[Any]) -> Any:
        """Store the batch, without the rows that the database refuses.

        Returns:
            The batch with the messages of those rows failed; ``None`` if there are none.

        Raises:
            sqlite3.Error: no row of the batch is stored.
        """
        rows = [_sqlite_values(row_of(message)) for message in batch]
        with self._alone:
            try:
                return self._store(batch, rows)
            except sqlite3.Error as error:
                self.close()  # opening it again may repair the fault
                error.args = (f"{self._path}: {error}",)
                raise

    def close(self) -> None:
        """Close the database."""
        with self._alone:
            if self._connection is not None and self._files != self._identities():
                log.warning("%s was removed or replaced while it was open", self._path)
                # Closing leaves the log of a renamed database behind, and a new database would
                # read it (https://sqlite.org/howtocorrupt.html, mispaired and renamed files).
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            super().close()

    def __repr__(self) -> str:
        return f"SQLiteSubscriber({os.fspath(self._path)!r})"

    def _transaction(self) -> sqlite3.Connection:
        if self._connection is not None and self._files != self._identities():
            self.close()
        if self._connection is None:
            self._connection = self._connect()
            self._files = self._identities()
        connection: sqlite3.Connection = self._connection
        return connection

    def _insert_all(self, rows: list[Values]) -> None:
        self._connection.executemany(UPSERT, rows)

    def _insert_one(self, row: Values) -> None:
        try:
            self._connection.execute(UPSERT, row)
        except self.refusals as error:
            if self._connection.in_transaction:
                raise
            # A trigger can roll back the whole transaction.
            raise sqlite3.DatabaseError(f"the transaction was rolled back: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        # Several threads bring batches; the store's lock keeps them apart.
        connection = sqlite3.connect(self._path, timeout=30.0, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._sync else 'NORMAL'}")
            connection.executescript(SETUP)
            if self._search and _lacks_search(connection):
                connection.executescript(SEARCH)
        except BaseException:
            connection.close()
            raise
        return connection

    def _identities(self) -> list[Identity]:
        # A commit is first in the write-ahead log, the second file.
        return [identity_of(self._path), identity_of(f"{self._path}-wal")]


def _may_be_database(path: Path) -> bool:
    if not path.is_file():
        return True
    with path.open("rb") as file:
        return file.read(len(HEADER)) in {b"", HEADER}


def _lacks_search(connection: sqlite3.Connection) -> bool:
    [(available,)] = connection.execute("SELECT sqlite_compileoption_used('ENABLE_FTS5')")
    there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'tweets_search'")
    return bool(available) and there.fetchone() is None


def _sqlite_values(row: Row) -> Values:
    return [
        value.isoformat(" ", "milliseconds")
        if isinstance(value, datetime)
        else orjson.dumps(value).decode()
        if isinstance(value, list)
        else value
        for value in row
    ]
