"""The options of one batcher."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Self

from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets._support.validation import function, seconds, whole_number
from rxtweets.errors import PipelineError
from rxtweets.operators._deliver import AnySubscriber, subscriber_of
from rxtweets.operators._splitting import Size, splitter_for

__all__ = ["Batcher"]


def AWAITED(batch: Batch[Any]) -> None:  # noqa: N802 - a value, not a function to call
    """Stands for the subscriber of a batcher whose batches are taken with `Pipeline.abatches`."""
    raise PipelineError(f"nobody awaits the batches of {batch.info.batcher!r}")


class Batcher:
    """How messages are batched, and who gets the batches.

    Args:
        subscriber: a `Subscriber`, any observer, or a plain function of one batch (and of the
            pipeline's context, if it has one). Returning means that the batch was taken, raising
            fails it, returning a list of its messages settles each by its status.
        size: messages in a batch at most, or ``(accumulator, function)``: see `operators.batch`.
        timeout: seconds from the first message of a batch to its emission at the latest.
        concurrency: batches that are delivered at once at most. Batches of one partition, or of
            one key that messages were given, still follow each other.
        waiting: batches that may wait for delivery, before the processors wait, and with them
            the other batchers: how far this one may fall behind. By default as many as
            ``concurrency``.
        max_bytes: a batch is never larger than this.
        bytes_of: how large a message is; by default its line, or its data if that is text.
        partition_by: gives each message a whole number from 0; the same number modulo
            ``concurrency`` means the same batches, which are delivered in order. By default that
            of the pipeline.

    Raises:
        ConfigurationError: an argument cannot work.
    """

    def __init__(
        self,
        subscriber: AnySubscriber,
        size: Size = 100,
        timeout: float | timedelta = 1.0,
        *,
        concurrency: int = 1,
        waiting: int | None = None,
        max_bytes: int | None = None,
        bytes_of: Callable[[Message[Any]], int] | None = None,
        partition_by: Callable[[Message[Any]], int] | None = None,
    ) -> None:
        subscriber_of(subscriber)
        if partition_by is not None:
            function("partition_by", partition_by)
        splitter_for(size, max_bytes, bytes_of)
        self.subscriber = subscriber
        self.is_awaited = subscriber is AWAITED
        self.size = size
        self.timeout = seconds("timeout", timeout)
        self.concurrency = whole_number("concurrency", concurrency)
        self.waiting = None if waiting is None else whole_number("waiting", waiting)
        self.max_bytes = max_bytes
        self.bytes_of = bytes_of
        self.partition_by = partition_by

    @classmethod
    def awaited(
        cls,
        size: Size = 100,
        timeout: float | timedelta = 1.0,
        *,
        max_bytes: int | None = None,
        bytes_of: Callable[[Message[Any]], int] | None = None,
    ) -> Self:
        """A batcher whose batches are taken with `Pipeline.abatches`, on an event loop of yours.

        Args:
            size: as above.
            timeout: as above.
            max_bytes: as above.
            bytes_of: as above.

        Raises:
            ConfigurationError: an argument cannot work.
        """
        return cls(AWAITED, size, timeout, max_bytes=max_bytes, bytes_of=bytes_of)
