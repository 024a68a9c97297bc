"""`batch`: collects messages into batches, by size or by time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from reactivex import Observable, abc
from reactivex.scheduler import VirtualTimeScheduler

from rxtweets._core.acknowledgement import OnFailed
from rxtweets._core.observable import BatchStream, subscribe_in_chunks, telemetry_of
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets._support.validation import function, seconds, whole_number
from rxtweets.errors import ConfigurationError, HandlerError
from rxtweets.operators._batching_observer import (
    BatchingObserver,
    BatchOptions,
    SplitFunction,
    Verdict,
)

__all__ = ["BatchSize", "batch", "batch_options", "batching"]

T = TypeVar("T")

BatchSize = int | tuple[Any, SplitFunction]


def batch(
    size: BatchSize = 100,
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
    """Collect messages into batches, and settle each batch when its subscriber returns or raises.

    A batch ends when it has ``size`` messages, or ``timeout`` seconds after its first message. It
    also ends with a message in the batch mode ``flush`` (`Message.put_batch_mode`), and when the
    source ends. It is like ``buffer_with_time_or_count``, with three differences: it emits no empty
    batch, its time starts with the first message, as Broadway's does, and one thread keeps the time
    of all batches.

    ::

        source        --1--2--3--4------------5--|
        batch(3, 2.0) --------[1,2,3]-----[4]----[5]|

    Each batch key (`Message.put_batch_key`) has separate batches, with their own size and time.

    ::

        source        --a1-b1-a2-a3-----------|
        batch(2, 2.0) --------[a1,a2]-[b1]----[a3]|

    The subscriber of the result decides the outcome of each batch:

    - It returns: the messages are acknowledged as successful.
    - It raises: the batch fails. It is counted, reported (`events.BatchFailed`) and acknowledged as
      failed, and the next batch follows.
    - It returns a list of the messages: each is acknowledged by its status.

    Messages that failed earlier are acknowledged immediately, and are not batched. If the source
    ends with an error, the last batch is emitted before the error.

    Args:
        size: most messages in a batch; or ``(accumulator, function)`` for batches that end by
            another measure. The function takes each message and the accumulator. It returns
            ``("continue", accumulator)``, ``("emit", ...)`` to end the batch with this message, or
            ``("before", ...)`` to end the batch before it. Every batch starts with the given
            accumulator.
        timeout: most seconds from the first message of a batch to its emission.
        name: of the batcher, for `BatchInfo`.
        max_bytes: most bytes in a batch. The message that would exceed it begins the next batch.
            A message that exceeds it alone is a batch of one.
        bytes_of: gives the size of a message; by default of its line, or of its data if that is
            text.
        partition_by: gives each message a whole number from 0. Messages share a batch only if
            their numbers are equal modulo ``partitions``; see `BatchInfo.partition`.
        partitions: number of partitions.
        on_failed: takes the messages on which ``size``, ``bytes_of`` or ``partition_by`` raised,
            before they are acknowledged as failed, and returns the same number of messages.
        scheduler: keeps the time instead of a thread of the operator. A scheduler of virtual time
            that is passed to ``subscribe`` does so too.

    Returns:
        An operator from messages to batches.

    Raises:
        ConfigurationError: an argument is invalid.
    """
    options = batch_options(
        size, timeout, name, max_bytes, bytes_of, partition_by, partitions, on_failed
    )
    return batching(options, scheduler)


def batching(
    options: BatchOptions, scheduler: abc.SchedulerBase | None = None
) -> Callable[[Observable[Message[T]]], BatchStream[T]]:
    """Return the operator of `batch` for validated options."""

    def operator(source: Observable[Message[T]]) -> BatchStream[T]:
        telemetry = telemetry_of(source)

        def subscribe(
            observer: abc.ObserverBase[Batch[Any]], given: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            virtual = given if isinstance(given, VirtualTimeScheduler) else None
            batching = BatchingObserver(options, scheduler or virtual, observer, telemetry)
            batching.source.disposable = subscribe_in_chunks(source, batching, given)
            return batching

        return BatchStream(subscribe, telemetry)

    return operator


def batch_options(
    size: Any,
    timeout: Any,
    name: str,
    max_bytes: Any,
    bytes_of: Any,
    partition_by: Any,
    partitions: Any,
    on_failed: OnFailed | None,
) -> BatchOptions:
    """Validate the options of `batch`.

    Raises:
        ConfigurationError: one is invalid, or two exclude each other.
    """
    split = None
    if isinstance(size, tuple):
        if len(size) != 2 or not callable(size[1]):
            raise ConfigurationError(
                f"size={size!r}: give a whole number, or "
                "(accumulator, function(message, accumulator))"
            )
        if max_bytes is not None:
            raise ConfigurationError(
                f"max_bytes={max_bytes!r}: a size that is a function decides alone; leave it out"
            )
        size, split = 1, size
    else:
        whole_number("size", size)
    if max_bytes is not None:
        measure = _bytes_of if bytes_of is None else bytes_of
        function("bytes_of", measure)
        split = _split_by_bytes(size, whole_number("max_bytes", max_bytes), measure)
    if partition_by is not None:
        function("partition_by", partition_by)
    return BatchOptions(
        size,
        split,
        seconds("timeout", timeout),
        name,
        partition_by,
        whole_number("partitions", partitions),
        on_failed,
    )


def _bytes_of(message: Message[Any]) -> int:
    line, data = message.raw, message.data
    if line:
        return len(line)
    if isinstance(data, str):
        return len(data.encode())
    if isinstance(data, bytes):
        return len(data)
    raise HandlerError(f"{type(data).__name__} has no size in bytes: give bytes_of=")


def _split_by_bytes(
    most_messages: int, most_bytes: int, measure: Callable[[Message[Any]], int]
) -> tuple[Any, SplitFunction]:
    def split(message: Message[Any], so_far: tuple[int, int]) -> tuple[Verdict, tuple[int, int]]:
        count, size = so_far[0] + 1, so_far[1] + measure(message)
        if size > most_bytes:
            return "before", (count, size)
        is_full = count == most_messages or size == most_bytes
        return "emit" if is_full else "continue", (count, size)

    return (0, 0), split
