"""SQLite: one row a message in a table that is there when it is asked for."""

from __future__ import annotations

import os
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from rxtweets.errors import ConfigurationError
from rxtweets.message import Batch
from rxtweets.rows import COLUMNS, Row, row_of
from rxtweets.subscribers._store import Store

__all__ = ["SQLiteSubscriber"]

TYPES = {"text": "TEXT", "json": "TEXT", "time": "TEXT", "integer": "INTEGER", "texts": "TEXT"}
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

    The columns are those of `rxtweets.rows.Row`; times are text in UTC, lists are JSON. A message
    whose kind and id are there already replaces that row, so that a batch that comes again
    changes nothing. Where SQLite has FTS5, ``tweets_search`` finds words::

        SELECT author, text FROM tweets WHERE rowid IN
            (SELECT rowid FROM tweets_search WHERE tweets_search MATCH 'rust OR python')

    The database is in WAL mode: others can read while it is written. A batch that is acknowledged
    survives the death of the process, and with ``sync=True`` that of the machine.

    Args:
        path: of the database, in a directory that is there.
        search: keep ``tweets_search``; it doubles the work.
        sync: have the disk confirm every batch.

    Raises:
        ConfigurationError: it cannot be written there.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, search: bool = True, sync: bool = False
    ) -> None:
        super().__init__()
        self._path = Path(path)
        if self._path.is_dir() or not os.access(self._path.absolute().parent, os.W_OK):
            raise ConfigurationError(
                f"path={os.fspath(path)!r}: give a file in a directory that can be written to"
            )
        self._search = search
        self._sync = sync
        self._connection: sqlite3.Connection | None = None

    def on_next(self, batch: Batch[Any]) -> None:
        """Store the batch, or nothing of it."""
        rows = [_values(row_of(message)) for message in batch]
        with self._alone, self._open() as connection:  # which commits, or rolls back
            connection.executemany(UPSERT, rows)

    def close(self) -> None:
        """Close the database."""
        with self._alone:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def __repr__(self) -> str:
        return f"SQLiteSubscriber({os.fspath(self._path)!r})"

    def _open(self) -> sqlite3.Connection:
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
        return self._connection


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
