"""PostgreSQL: a row for each message, sent in a pipeline."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import tenacity

from rxtweets._messages.batch import Batch
from rxtweets._messages.rows import Row, row_of
from rxtweets._support.optional_imports import needed
from rxtweets.errors import ConfigurationError, SubscriberError, SubscriberUnavailable
from rxtweets.subscribers._retrying import retry_policy
from rxtweets.subscribers._sql import SQLStore, Values, create_table_sql, upsert_sql

POSTGRES_TYPES = {"json": "json", "time": "timestamptz", "integer": "bigint", "texts": "text[]"}

CONNECT_TIMEOUT = 10
"""Seconds, unless ``conninfo`` or the environment gives another."""


class PostgresSubscriber(SQLStore):
    """Stores messages in a table, one transaction a batch; makes the table if there is none.

    The columns are those of `rxtweets.subscribers.Row`: times are ``timestamptz``, lists are
    ``text[]``, ``data`` and ``raw`` are ``json``. A message replaces the stored row of its kind
    and id where it differs, however old that is. So a redelivered batch changes nothing.
    PostgreSQL cannot hold the character NUL in text: it is stored as U+FFFD there, and unchanged in
    ``raw``.

    A connection that has ended since the last batch is replaced, and the batch is sent again
    immediately. While the database cannot be reached, the batch is retried by ``stop`` and
    ``wait``, for about 10 s by default. Further batches wait. Then the batch fails. For longer
    outages, write
    ``Retrying(PostgresSubscriber(…, stop=tenacity.stop_after_attempt(1)))``.

    Args:
        conninfo: a URI or ``key=value`` pairs, as libpq reads them. It is never shown, as it can
            hold a password. ``PGHOST`` and the like give the rest. Without a
            ``connect_timeout``, connecting takes 10 s at most.
        table: name of the table, ``tweets`` by default; a schema may precede it.
        stop: when to give up, as in `tenacity.stop`; by default after 5 attempts.
        wait: seconds between attempts, as in `tenacity.wait`; by default 0.5 s, doubled each
            time, up to 30 s, plus up to 1 s by chance.
        sleep: function that waits for a number of seconds; by default ``time.sleep``.

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
        self._conninfo = conninfo
        has_timeout = "connect_timeout" in given or "PGCONNECT_TIMEOUT" in os.environ
        self._defaults = {} if has_timeout else {"connect_timeout": CONNECT_TIMEOUT}
        self._table = table
        stored = table.rsplit(".", 1)[-1]
        self._upsert = upsert_sql(
            table,
            "%s",
            " OR ".join(
                f"{stored}.{column}::text IS DISTINCT FROM excluded.{column}::text"
                for column in ("text", "data", "raw")
            ),
        )
        errors = self._psycopg.errors
        # A new connection repairs these; it also makes a missing table.
        self._lost = (self._psycopg.OperationalError, errors.UndefinedTable)
        # These concern one row: its values, a constraint, a trigger, the limits of an index.
        self.refusals: tuple[type[Exception], ...] = (
            *(self._psycopg.DataError, self._psycopg.IntegrityError, errors.RaiseException),
            *(errors.ProgramLimitExceeded, errors.StatementTooComplex),
        )
        self._policy = retry_policy(
            tenacity.retry_if_exception(self._is_lost), stop=stop, wait=wait, sleep=sleep
        )

    def on_next(self, batch: Batch[Any]) -> Any:
        """Store the batch, without the rows that the database refuses.

        Returns:
            The batch with the messages of those rows failed; ``None`` if there are none.

        Raises:
            SubscriberError: no row of the batch is stored; a `SubscriberUnavailable` if the
                database cannot be reached.
        """
        rows = [_postgres_values(row_of(message)) for message in batch]
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
                kind = SubscriberUnavailable if self._is_lost(error) else SubscriberError
                raise kind(
                    f"PostgreSQL did not store the batch in {self._table}: "
                    f"{type(error).__name__}: {error}"
                ) from error

    def __repr__(self) -> str:
        return f"PostgresSubscriber(table={self._table!r})"

    def _store(self, batch: Batch[Any], rows: list[Values]) -> Batch[Any] | None:
        try:
            return super()._store(batch, rows)
        except self._lost:
            self.close()
            raise

    def _is_lost(self, error: BaseException) -> bool:
        return isinstance(error, self._lost) and not isinstance(error, self.refusals)

    def _transaction(self) -> AbstractContextManager[Any]:
        if self._connection is None:
            self._connection = self._connect()
        transaction: AbstractContextManager[Any] = self._connection.transaction()
        return transaction

    def _insert_all(self, rows: list[Values]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(self._upsert, rows)

    def _insert_one(self, row: Values) -> None:
        with self._connection.transaction():  # within another one it is a savepoint
            self._connection.execute(self._upsert, row)

    def _connect(self) -> Any:
        connection = self._psycopg.connect(
            self._conninfo, autocommit=True, fallback_application_name="rxtweets", **self._defaults
        )
        try:
            # Of two connections that make a table concurrently, one would fail.
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(hashtext('rxtweets'))")
                connection.execute(create_table_sql(self._table, POSTGRES_TYPES))
        except BaseException:
            connection.close()
            raise
        return connection


def _postgres_values(row: Row) -> Values:
    # NUL is escaped in a line; text, author and id may hold it as it is.
    has_nul = "\\u0000" in row.raw or any(
        "\x00" in (text or "") for text in (row.text, row.author_id, row.id)
    )
    return [_without_nul(value) for value in row] if has_nul else list(row)


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd")
    if isinstance(value, list):
        return [text.replace("\x00", "\ufffd") for text in value]
    return value
