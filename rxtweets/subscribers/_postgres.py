"""PostgreSQL: the same rows as in SQLite, sent in a pipeline."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import tenacity

from rxtweets._messages.batch import Batch
from rxtweets._messages.rows import COLUMNS, Row, row_of
from rxtweets._support.optional_imports import needed
from rxtweets.errors import ConfigurationError, SubscriberError
from rxtweets.subscribers._policy import STOP, WAIT, check_strategies
from rxtweets.subscribers._store import Store, each_alone

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

    The columns are those of `rxtweets.subscribers.Row`: times are ``timestamptz``, lists are
    ``text[]``,
    ``data`` and ``raw`` are ``json``. A message whose kind and id are there already replaces that
    row where it differs, so a batch that comes again changes nothing. PostgreSQL cannot hold the
    character NUL in text; it is stored as U+FFFD there, and unchanged in ``raw``.

    A connection that has ended since the last batch is replaced, and the batch is sent again at
    once. While the database cannot be reached, the batch is retried by ``stop`` and ``wait``, and
    further batches wait; then it fails. For longer outages, write
    ``Retrying(PostgresSubscriber(…, stop=tenacity.stop_after_attempt(1)))``.

    Args:
        conninfo: a URI or ``key=value`` pairs, as libpq reads them; it is shown nowhere, as it
            can hold a password. What it leaves out comes from ``PGHOST`` and its kin; without a
            ``connect_timeout``, connecting takes 10 s at most.
        table: its name; may have a schema before it.
        stop: when to give up, as in `tenacity.stop`; by default after 5 attempts.
        wait: how long to wait, as in `tenacity.wait`; by default 0.5 s, doubled each time, to
            30 s, and up to a second more by chance.
        sleep: waits for the seconds that it is given.

    Raises:
        ConfigurationError: an argument cannot work, or psycopg is not installed.
    """

    def __init__(
        self,
        conninfo: str = "",
        *,
        table: str = "tweets",
        stop: tenacity.stop.stop_base | None = None,
        wait: tenacity.wait.wait_base | None = None,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        super().__init__()
        self._psycopg = needed("psycopg", "postgres")
        if not isinstance(conninfo, str):
            raise ConfigurationError("conninfo: give a text")
        try:
            given = needed("psycopg.conninfo", "postgres").conninfo_to_dict(conninfo)
        except self._psycopg.ProgrammingError:
            raise ConfigurationError(
                "conninfo: libpq cannot read it; give postgresql://user@host/database or "
                "key=value pairs"
            ) from None
        if not all(part.isidentifier() for part in table.split(".")):
            raise ConfigurationError(f"table={table!r}: give a name, or schema.name")
        check_strategies(stop=stop, wait=wait, sleep=sleep)
        self._conninfo = conninfo
        self._defaults = {} if "connect_timeout" in given else _patience()
        self._table = table
        self._upsert = _upsert(table)
        self._connection: Any = None
        errors = self._psycopg.errors
        # What another connection can mend; it also makes a table that is gone.
        self._lost = (self._psycopg.OperationalError, errors.UndefinedTable)
        # What is about one row: its values, a constraint, a trigger, what the index can hold.
        self._refusals = (
            *(self._psycopg.DataError, self._psycopg.IntegrityError, errors.RaiseException),
            *(errors.ProgramLimitExceeded, errors.StatementTooComplex),
        )
        self._policy = tenacity.Retrying(
            stop=stop or STOP,
            wait=wait or WAIT,
            retry=tenacity.retry_if_exception(self._is_lost),
            sleep=sleep or tenacity.nap.sleep,
            reraise=True,
        )

    def on_next(self, batch: Batch[Any]) -> Any:
        """Store the batch, but for rows that the database refuses.

        Returns:
            The batch with the messages of those rows failed; ``None`` if there are none.

        Raises:
            SubscriberError: nothing of the batch is stored.
        """
        rows = [_values(row_of(message)) for message in batch]
        with self._alone:
            try:
                if self._connection is not None:
                    try:
                        return self._store(batch, rows)
                    except self._psycopg.Error as error:
                        if not self._is_lost(error):
                            raise
                return self._policy(self._store, batch, rows)
            except self._psycopg.Error as error:
                raise SubscriberError(
                    f"PostgreSQL did not store the batch in {self._table}: "
                    f"{type(error).__name__}: {error}"
                ) from error

    def close(self) -> None:
        """Close the connection."""
        with self._alone:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def __repr__(self) -> str:
        return f"PostgresSubscriber(table={self._table!r})"

    def _store(self, batch: Batch[Any], rows: list[Row]) -> Batch[Any] | None:
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        try:
            try:
                with connection.transaction(), connection.cursor() as cursor:
                    cursor.executemany(self._upsert, rows)
            except self._refusals:
                with connection.transaction():
                    return each_alone(batch, rows, self._store_one, self._refusals)
        except self._lost:
            self.close()
            raise
        return None

    def _is_lost(self, error: BaseException) -> bool:
        return isinstance(error, self._lost) and not isinstance(error, self._refusals)

    def _store_one(self, row: Row) -> None:
        with self._connection.transaction():  # a savepoint, as it is within another
            self._connection.execute(self._upsert, row)

    def _connect(self) -> Any:
        connection = self._psycopg.connect(
            self._conninfo,
            autocommit=True,
            fallback_application_name="rxtweets",
            **self._defaults,
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


def _patience() -> dict[str, int]:
    return {} if "PGCONNECT_TIMEOUT" in os.environ else {"connect_timeout": 10}


def _values(row: Row) -> Row:
    # What came from the line is escaped in the line; what others gave is in text, author and id.
    if "\\u0000" in row.raw or any(
        "\x00" in (each or "") for each in (row.text, row.author_id, row.id)
    ):
        return Row._make(map(_value, row))
    return row


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd")
    if isinstance(value, list):
        return [each.replace("\x00", "\ufffd") for each in value]
    return value
