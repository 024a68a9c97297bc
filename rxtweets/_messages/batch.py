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
    """How a batch came to be.

    Attributes:
        batcher: the name of the batcher.
        size: how many messages the batch has.
        trigger: what ended it: its ``size``, its ``timeout``, or ``flush``: the end of the stream,
            or a message that asked for it.
        batch_key: what its messages have in common.
        partition: of its messages, where the batcher has partitions.
    """

    batcher: str
    size: int
    trigger: Trigger
    batch_key: Hashable = "default"
    partition: int | None = None


class Batch(Sequence[Message[T_co]]):
    """Messages that go to a subscriber together; a sequence, never empty."""

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
        self.info = BatchInfo(batcher, len(self._messages), trigger, batch_key, partition)

    def replaced(self, messages: Iterable[Message[Any]]) -> Batch[Any]:
        """The same batch with other messages: for what became of them."""
        info = self.info
        return Batch(messages, info.trigger, info.batcher, info.batch_key, info.partition)

    @overload
    def __getitem__(self, index: int) -> Message[T_co]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message[T_co]]: ...
    def __getitem__(self, index: int | slice) -> Message[T_co] | Sequence[Message[T_co]]:
        return self._messages[index]

    def __iter__(self) -> Iterator[Message[T_co]]:
        # That of Sequence asks for each message by its index: eight times slower.
        return iter(self._messages)

    def __len__(self) -> int:
        return len(self._messages)

    def to_arrow(self) -> Any:
        """A ``pyarrow.Table``, one row a message, columns of `Row`; extra ``parquet``."""
        return tables.to_arrow(self)

    def to_polars(self) -> Any:
        """A ``polars.DataFrame``, one row a message, columns of `Row`; extra ``polars``."""
        return tables.to_polars(self)

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``, one row a message, columns of `Row`; extra ``pandas``."""
        return tables.to_pandas(self)

    def __repr__(self) -> str:
        first = repr(self._messages[0].data) if self._messages else ""
        more = ", …" if len(self._messages) > 1 else ""
        return f"Batch({self.info.size} messages, trigger={self.info.trigger!r}: {first}{more})"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return representation(self)
