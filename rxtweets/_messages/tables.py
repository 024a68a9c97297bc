"""Messages as tables of Arrow, polars or pandas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rxtweets._messages.message import Message
from rxtweets._messages.rows import COLUMNS, ColumnType, Row, row_of
from rxtweets._support.optional_imports import needed

__all__ = ["arrow_schema", "arrow_table", "to_arrow", "to_pandas", "to_polars"]


def to_arrow(messages: Iterable[Message[Any]]) -> Any:
    """Return a ``pyarrow.Table``: columns of `rxtweets.subscribers.Row`, times in microseconds.

    Raises:
        ConfigurationError: pyarrow is not installed.
    """
    return arrow_table([row_of(message) for message in messages])


def to_polars(messages: Iterable[Message[Any]]) -> Any:
    """Return a ``polars.DataFrame`` with the columns of `rxtweets.subscribers.Row`.

    Raises:
        ConfigurationError: polars is not installed.
    """
    polars = needed("polars", "polars")
    types: dict[ColumnType, Any] = {
        "text": polars.String,
        "json": polars.String,
        "integer": polars.Int64,
        "time": polars.Datetime("us", "UTC"),
        "texts": polars.List(polars.String),
    }
    columns = _columns([row_of(message) for message in messages])
    schema = {name: types[kind] for name, kind in COLUMNS.items()}
    return polars.DataFrame(columns, schema=schema)


def to_pandas(messages: Iterable[Message[Any]]) -> Any:
    """Return a ``pandas.DataFrame`` with the columns of `rxtweets.subscribers.Row`, by Arrow.

    Raises:
        ConfigurationError: pandas or pyarrow is not installed.
    """
    needed("pandas", "pandas")
    return to_arrow(messages).to_pandas()


def arrow_schema() -> Any:
    """Return the ``pyarrow.Schema`` of the columns."""
    arrow = needed("pyarrow", "parquet")
    types: Mapping[ColumnType, Callable[[], Any]] = {
        "text": arrow.string,
        "json": arrow.string,
        "integer": arrow.int64,
        "time": lambda: arrow.timestamp("us", "UTC"),
        "texts": lambda: arrow.list_(arrow.string()),
    }
    return arrow.schema([(name, types[kind]()) for name, kind in COLUMNS.items()])


def arrow_table(rows: list[Row]) -> Any:
    """Return rows as a ``pyarrow.Table``."""
    arrow = needed("pyarrow", "parquet")
    return arrow.table(_columns(rows), schema=arrow_schema())


def _columns(rows: list[Row]) -> dict[str, Any]:
    if not rows:
        return {name: [] for name in COLUMNS}
    return dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
