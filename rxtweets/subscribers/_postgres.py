"""PostgreSQL: the same rows as in SQLite, sent in a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rxtweets.errors import ConfigurationError
from rxtweets.extras import needed
from rxtweets.message import Batch
from rxtweets.rows import COLUMNS, Row, row_of
from rxtweets.subscribers._store import Store

__all__ = ["PostgresSubscriber"]

TYPES = {
    "text": "text",
    "json": "json",
    "time": "timestamptz",
    "integer": "bigint",
    "texts": "text[]",
}
KEYS = ("kind", "id")
OTHERS = [name for name in COLUMNS if name not in KEYS]


class PostgresSubscriber(Store):
    """Stores messages in a table, one transaction a batch; makes the table if there is none.

    The columns are those of `rxtweets.rows.Row`: times are ``timestamptz``, lists ``text[]``,
    ``data`` and ``raw`` are ``json``. A message whose kind and id are there already replaces that
    row where it differs, so a batch that comes again changes nothing. PostgreSQL cannot hold the
    character NUL in text; it is stored as U+FFFD there, and unchanged in ``raw``.

    A connection that has ended since the last batch is made again, and the batch sent again,
    once; what fails then fails the batch.

    Args:
        conninfo: a URI or ``key=value`` pairs, as libpq reads them; it is shown nowhere, as it
            can hold a password. What it leaves out comes from ``PGHOST`` and its kin.
        table: its name; may have a schema before it.

    Raises:
        ConfigurationError: an argument cannot work, or psycopg is not installed.
    """

    def __init__(self, conninfo: str = "", *, table: str = "tweets") -> None:
        super().__init__()
        self._psycopg = needed("psycopg", "postgres")
        try:
            needed("psycopg.conninfo", "postgres").conninfo_to_dict(conninfo)
        except self._psycopg.ProgrammingError:
            raise ConfigurationError(
                "conninfo: libpq cannot read it; give postgresql://user@host/database or "
                "key=value pairs"
            ) from None
        if not all(part.isidentifier() for part in table.split(".")):
            raise ConfigurationError(f"table={table!r}: give a name, or schema.name")
        self._conninfo = conninfo
        self._table = table
        self._upsert = _upsert(table)
        self._connection: Any = None

    def on_next(self, batch: Batch[Any]) -> None:
        """Store the batch, or nothing of it."""
        rows = [_values(row_of(message)) for message in batch]
        with self._alone:
            was_open = self._connection is not None
            try:
                self._store(rows)
            except self._psycopg.OperationalError:
                self.close()
                if not was_open:
                    raise
                self._store(rows)

    def close(self) -> None:
        """Close the connection."""
        with self._alone:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def __repr__(self) -> str:
        return f"PostgresSubscriber(table={self._table!r})"

    def _store(self, rows: list[Sequence[Any]]) -> None:
        if self._connection is None:
            self._connection = self._connect()
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany(self._upsert, rows)

    def _connect(self) -> Any:
        connection = self._psycopg.connect(
            self._conninfo, autocommit=True, fallback_application_name="rxtweets"
        )
        try:
            # Of two who make a table at once, one would fail.
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(hashtext('rxtweets'))")
                connection.execute(_definition(self._table))
        except BaseException:
            connection.close()
            raise
        return connection


def _definition(table: str) -> str:
    columns = ", ".join(
        f"{name} {TYPES[kind]}{' NOT NULL' if name in KEYS else ''}"
        for name, kind in COLUMNS.items()
    )
    return f"CREATE TABLE IF NOT EXISTS {table} ({columns}, PRIMARY KEY ({', '.join(KEYS)}))"


def _upsert(table: str) -> str:
    name = table.rsplit(".", 1)[-1]
    values = ", ".join(["%s"] * len(COLUMNS))
    sets = ", ".join(f"{column} = excluded.{column}" for column in OTHERS)
    differs = " OR ".join(
        f"{name}.{column}::text IS DISTINCT FROM excluded.{column}::text"
        for column in ("text", "data", "raw")
    )
    return (
        f"INSERT INTO {table} ({', '.join(COLUMNS)}) VALUES ({values}) "  # noqa: S608 - checked names
        f"ON CONFLICT ({', '.join(KEYS)}) DO UPDATE SET {sets} WHERE {differs}"
    )


def _values(row: Row) -> Sequence[Any]:
    # What came from the line is escaped in the line; what handlers made is in the text.
    if "\\u0000" in row.raw or "\x00" in (row.text or ""):
        return [_value(value) for value in row]
    return row


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd")
    if isinstance(value, list):
        return [each.replace("\x00", "\ufffd") for each in value]
    return value
