"""Base of the SQL stores: a row for each message, keyed by kind and id."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets._messages.rows import COLUMNS
from rxtweets.subscribers._store import Store

PRIMARY_KEY = "kind, id"

Values = list[Any]
"""The values of one row, as the database's driver takes them."""


class SQLStore(Store):
    """A store that writes each batch in one transaction, without the rows that are refused.

    Attributes:
        refusals: errors of the driver that concern one row; the other rows can be stored.
    """

    refusals: tuple[type[Exception], ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self._connection: Any = None

    def close(self) -> None:
        """Close the connection."""
        with self._alone:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[Any]:
        """Connect if needed; begin a transaction that commits, or rolls back on an error."""

    @abstractmethod
    def _insert_all(self, rows: list[Values]) -> None:
        """Insert or replace rows."""

    @abstractmethod
    def _insert_one(self, row: Values) -> None:
        """Insert or replace a row; the transaction can continue after a refusal."""

    def _store(self, batch: Batch[Any], rows: list[Values]) -> Batch[Any] | None:
        """Store rows; return the batch with refused messages failed, ``None`` without any.

        Raises:
            Exception: the last refusal, if the database refused all rows.
        """
        try:
            with self._transaction():
                self._insert_all(rows)
        except self.refusals:
            with self._transaction():
                return self._store_separately(batch, rows)
        return None

    def _store_separately(self, batch: Batch[Any], rows: list[Values]) -> Batch[Any]:
        outcome: list[Message[Any]] = []
        last: Exception | None = None
        for message, row in zip(batch, rows, strict=True):
            try:
                self._insert_one(row)
                outcome.append(message)
            except self.refusals as error:
                last = error
                outcome.append(message.failed(error))
        if last is not None and all(message.is_failed for message in outcome):
            raise last
        return batch.replaced(outcome)


def create_table_sql(table: str, types: Mapping[str, str]) -> str:
    """Return the statement that makes a table of rows.

    Args:
        table: name of the table.
        types: the database's names of the types of columns that are not ``text``.
    """
    columns = ", ".join(f"{name} {types.get(kind, 'text')}" for name, kind in COLUMNS.items())
    return f"CREATE TABLE IF NOT EXISTS {table} ({columns}, PRIMARY KEY ({PRIMARY_KEY}))"


def upsert_sql(table: str, placeholder: str, differs: str) -> str:
    """Return the statement that inserts a row, or replaces the stored one where it differs.

    Args:
        table: name of the table.
        placeholder: a parameter, as the driver writes it.
        differs: the condition that the stored row and ``excluded`` differ.
    """
    values = ", ".join([placeholder] * len(COLUMNS))
    sets = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in ("kind", "id"))
    return (
        f"INSERT INTO {table} ({', '.join(COLUMNS)}) VALUES ({values}) "  # noqa: S608 - our names
        f"ON CONFLICT ({PRIMARY_KEY}) DO UPDATE SET {sets} WHERE {differs}"
    )
