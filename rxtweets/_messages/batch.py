"""Batches of messages."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

from rxtweets._messages import tables
from rxtweets._messages.message import Message
from rxtweets._messages.representation import representation

__all__ = ["Batch", "BatchInfo", "Trigger"]

T_co = TypeVar("T_co", covariant=True)

Trigger = Literal["size", "timeout", "flush"]


@dataclass(frozen=True, slots=True)
class BatchInfo:
    """The origin of a batch.

    Attributes:
        batcher: the name of the batcher.
        size: number of messages.
        trigger: the reason for its end: ``size``, ``timeout``, or ``flush`` (the end of the stream,
            or a message with this batch mode).
        batch_key: of its messages.
        partition: of its messages, if the batcher has partitions.
    """

    batcher: str
    size: int
    trigger: Trigger
    batch_key: Hashable = "default"
    partition: int | None = None


class Batch(Sequence[Message[T_co]]):
    """A sequence of messages that a subscriber gets together; a stream emits no empty ones.

    Args:
        messages: of the batch.
        trigger: the reason for its end.
        batcher: the name of the batcher.
        batch_key: of its messages.
        partition: of its messages, if the batcher has partitions.

    Attributes:
        info: the origin of the batch.

    Example:
        >>> Batch([Message("hola", {"id": "1"}), Message("hello")])
        Batch(2 messages, trigger='size': 'hola', …)
    """

    __slots__ = ("_messages", "info")

    def __init__(
        self,
        messages: Iterable[Message[T_co]],
        trigger: Trigger = "size",
        batcher: str = "default",
        batch_key: Hashable = "default",
        partition: int | None = None,
    ) -> None:
        self._messages = tuple(messages)
        self.info: BatchInfo = BatchInfo(
            batcher, len(self._messages), trigger, batch_key, partition
        )

    def replaced(self, messages: Iterable[Message[Any]]) -> Batch[Any]:
        """Return a batch with the same info and other messages: their outcomes."""
        info = self.info
        return Batch(messages, info.trigger, info.batcher, info.batch_key, info.partition)

    @overload
    def __getitem__(self, index: int) -> Message[T_co]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message[T_co]]: ...
    def __getitem__(self, index: int | slice) -> Message[T_co] | Sequence[Message[T_co]]:
        return self._messages[index]

    def __iter__(self) -> Iterator[Message[T_co]]:
        # Sequence.__iter__ gets each message by its index, which is slower.
        return iter(self._messages)

    def __len__(self) -> int:
        return len(self._messages)

    def to_arrow(self) -> Any:
        """Return a ``pyarrow.Table``: a row per message, columns of `Row`; extra ``parquet``."""
        return tables.to_arrow(self)

    def to_polars(self) -> Any:
        """Return a ``polars.DataFrame``: a row per message, columns of `Row`; extra ``polars``."""
        return tables.to_polars(self)

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame``: a row per message, columns of `Row`; extra ``pandas``."""
        return tables.to_pandas(self)

    def __repr__(self) -> str:
        first = repr(self._messages[0].data) if self._messages else ""
        more = ", …" if len(self._messages) > 1 else ""
        return f"Batch({self.info.size} messages, trigger={self.info.trigger!r}: {first}{more})"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return representation(self)
