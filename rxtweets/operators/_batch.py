"""`batch`: messages become batches, by size or by time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from reactivex import Observable, abc
from reactivex.scheduler import VirtualTimeScheduler

from rxtweets._core.observable import BatchStream, subscribe_in_chunks, telemetry_of
from rxtweets._core.subscriber import OnFailed
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets._support.validation import function, seconds, whole_number
from rxtweets.operators._batcher import Batcher, BatchOptions
from rxtweets.operators._splitting import Size, splitter_for

__all__ = ["batch"]

T = TypeVar("T")


def batch(
    size: Size = 100,
    timeout: float | timedelta = 1.0,
    *,
    name: str = "default",
    max_bytes: int | None = None,
    bytes_of: Callable[[Message[Any]], int] | None = None,
    partition_by: Callable[[Message[Any]], int] | None = None,
    partitions: int = 1,
    on_failed: OnFailed | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[Message[T]]], BatchStream[T]]:
    """Collect messages into batches, and settle each when its subscriber is done with it.

    A batch is emitted when it has ``size`` messages, or ``timeout`` seconds after its first
    message came, or with a message that asks for it (`Message.put_batch_mode`), or when the source
    ends. This is ``buffer_with_time_or_count``, but it never emits an empty batch, its time begins
    with the first message, as Broadway's does, and one thread keeps the time for the operator
    instead of one for every buffer.

    ::

        source        --1--2--3--4------------5--|
        batch(3, 2.0) --------[1,2,3]-----[4]----[5]|

    Messages of different keys (`Message.put_batch_key`) never share a batch: each key has its own
    batch, with its own size and its own time, as long as that has a message.

    ::

        source        --a1-b1-a2-a3-----------|
        batch(2, 2.0) --------[a1,a2]-[b1]----[a3]|

    What is subscribed to the result is a subscriber: if it returns, the messages of the batch are
    acknowledged; if it raises, the batch is failed, counted, reported (`events.BatchFailed`) and
    acknowledged as failed, and the next batch comes; if it returns a list of the messages, each is
    acknowledged by its status. Messages that are failed already are not batched; they are
    acknowledged at once.

    If the source ends with an error, the last batch is emitted before the error is.

    Args:
        size: messages in a batch at most, 1 or more; or ``(accumulator, function)``, for batches
            that end by something else than their number. The function is given each message and
            the accumulator, and returns ``("continue", accumulator)``, ``("emit", ...)`` if the
            batch ends with this message, or ``("before", ...)`` if it ends before it. Every batch
            begins with the accumulator that was given here.
        timeout: seconds from the first message of a batch to its emission at the latest.
        name: of the batcher, for `BatchInfo`.
        max_bytes: a batch is never larger than this: the message that would make it so begins the
            next one. Only a message that is too large by itself is a batch by itself.
        bytes_of: how large a message is; by default its line, or its data if that is text.
        partition_by: gives each message a whole number from 0; messages share a batch only if
            that is the same, modulo ``partitions``. See `BatchInfo.partition`.
        partitions: how many there are.
        on_failed: is given messages on which ``size``, ``bytes_of`` or ``partition_by`` raised,
            before they are acknowledged as failed; returns as many.
        scheduler: keeps the time instead of a thread of the operator's own; a scheduler of
            virtual time given to ``subscribe`` is taken as well.

    Raises:
        ConfigurationError: an argument cannot work.
    """
    count, split = splitter_for(size, max_bytes, bytes_of)
    if partition_by is not None:
        function("partition_by", partition_by)
    options = BatchOptions(
        count,
        split,
        seconds("timeout", timeout),
        name,
        partition_by,
        whole_number("partitions", partitions),
        on_failed,
    )

    def operator(source: Observable[Message[T]]) -> BatchStream[T]:
        telemetry = telemetry_of(source)

        def subscribe(
            observer: abc.ObserverBase[Batch[Any]], given: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            chosen = scheduler
            if chosen is None and isinstance(given, VirtualTimeScheduler):
                chosen = given
            batcher = Batcher(options, chosen, observer, telemetry)
            batcher.listen(lambda chunks: subscribe_in_chunks(source, chunks, given))
            return batcher

        return BatchStream(subscribe, telemetry)

    return operator
