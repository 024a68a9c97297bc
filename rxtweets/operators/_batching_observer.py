"""The observer of `batch`: one open batch for each batch key and partition."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal

from reactivex import abc
from reactivex.disposable import SingleAssignmentDisposable

from rxtweets._core.acknowledgement import OnFailed, acknowledge, fail
from rxtweets._core.gates import abandon
from rxtweets._core.stats import StageStats
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.batch import Batch, Trigger
from rxtweets._messages.message import DEFAULT_ROUTE, Message, are_plain
from rxtweets._support.rate_meter import Throughput
from rxtweets._support.timers import SchedulerTimers, ThreadTimers, Timers
from rxtweets._support.workers import unexpected
from rxtweets.errors import HandlerError

__all__ = ["BatchOptions", "BatchingObserver", "SplitFunction", "Verdict", "partition_number"]

Verdict = Literal["continue", "emit", "before"]
SplitFunction = Callable[[Message[Any], Any], tuple[Verdict, Any]]
BatchId = tuple[Hashable, int | None]

DEFAULT_BATCH: BatchId = (DEFAULT_ROUTE.batch_key, None)
CLOCK_TOLERANCE = 1e-6
"""Seconds. Schedulers round their clocks, so a deadline this close has passed."""


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """The validated options of `batch`.

    Attributes:
        split: the initial accumulator and the function; ``None`` splits by ``size`` alone.
    """

    size: int
    split: tuple[Any, SplitFunction] | None
    timeout: float
    name: str
    partition_by: Callable[[Message[Any]], int] | None
    partitions: int
    on_failed: OnFailed | None


@dataclass(slots=True, eq=False)
class _OpenBatch:
    messages: list[Message[Any]]
    due: float
    accumulator: Any = None


class BatchingObserver(abc.ObserverBase[list[Message[Any]]], abc.DisposableBase):
    """Fills batches, and emits one at a time.

    The lock is held while the observer takes a batch. So a slow subscriber blocks the source,
    which bounds the memory in front of it.

    Attributes:
        source: the subscription to the source.
    """

    def __init__(
        self,
        options: BatchOptions,
        scheduler: abc.SchedulerBase | None,
        observer: abc.ObserverBase[Batch[Any]],
        telemetry: Telemetry,
    ) -> None:
        self._options = options
        self._size = options.size
        self._splits_by_size = options.split is None and options.partition_by is None
        self._observer = observer
        self._telemetry = telemetry
        self._lock = threading.RLock()
        # All batches have the same timeout, so this order is the order of their deadlines.
        self._open: dict[BatchId, _OpenBatch] = {}
        self._timers: Timers = (
            ThreadTimers("rxtweets-batch", self._timer_died)
            if scheduler is None
            else SchedulerTimers(scheduler)
        )
        self._timer_is_set = False
        self.source = SingleAssignmentDisposable()
        self._over = False
        self._meter = Throughput(self._timers.now)
        self._emitted = 0
        self._failed = 0
        self._forget_stage = telemetry.stage(self._stage)

    def on_next(self, chunk: list[Message[Any]]) -> None:
        self._meter.add(len(chunk))
        is_plain = self._splits_by_size and are_plain(chunk)
        good = chunk if is_plain else self._without_failed(chunk)
        with self._lock:
            if self._over:
                self._abandon(good)
            elif is_plain:
                self._add_plain(good)
            else:
                for message in good:
                    self._add(message)
        if self._over:
            self._abandon_open()

    def on_error(self, error: Exception) -> None:
        self._end(lambda: self._observer.on_error(error))

    def on_completed(self) -> None:
        self._end(self._observer.on_completed)

    def dispose(self) -> None:
        # Not under the lock: an observer that blocks holds it, and a disposal must not block.
        self._over = True
        self._timers.stop()
        self.source.dispose()
        self._abandon_open()
        self._forget_stage()

    def _without_failed(self, chunk: list[Message[Any]]) -> list[Message[Any]]:
        good = [message for message in chunk if message.status == "ok"]
        failed = [message for message in chunk if message.status != "ok"]
        self._failed += len(failed)
        acknowledge([], failed, self._telemetry)
        return good

    def _add_plain(self, good: list[Message[Any]]) -> None:
        batch = self._open.get(DEFAULT_BATCH) or self._begin(DEFAULT_BATCH)
        batch.messages += good
        size, messages = self._size, batch.messages
        if len(messages) < size:
            return
        del self._open[DEFAULT_BATCH]
        full = len(messages) - len(messages) % size
        if full < len(messages):
            self._begin(DEFAULT_BATCH).messages += messages[full:]
        for start in range(0, full, size):
            self._emit(DEFAULT_BATCH, messages[start : start + size], "size")

    def _add(self, message: Message[Any]) -> None:
        try:
            batch_id = (message.batch_key, self._partition_of(message))
            batch = self._open.get(batch_id)
            begins_next, is_full, accumulator = self._split(message, batch)
        except BaseException as error:  # noqa: BLE001 - functions of the user may raise anything
            self._failed += 1
            fail([message.failed(error)], self._options.on_failed, self._telemetry)
            return
        if begins_next:
            self._emit(batch_id, self._open.pop(batch_id).messages, "size")
        batch = self._open.get(batch_id) or self._begin(batch_id)
        batch.accumulator = accumulator
        batch.messages.append(message)
        if is_full or message.batch_mode == "flush":
            del self._open[batch_id]
            self._emit(batch_id, batch.messages, "size" if is_full else "flush")

    def _partition_of(self, message: Message[Any]) -> int | None:
        by = self._options.partition_by
        if by is None:
            return None
        return partition_number("partition_by", by(message)) % self._options.partitions

    def _split(self, message: Message[Any], batch: _OpenBatch | None) -> tuple[bool, bool, Any]:
        """Return (does it begin the next batch, is it the last of its batch, the accumulator)."""
        if self._options.split is None:
            count = 0 if batch is None else len(batch.messages)
            return False, count + 1 >= self._size, None
        initial, split = self._options.split
        verdict, accumulator = split(message, initial if batch is None else batch.accumulator)
        begins_next = verdict == "before" and batch is not None
        if begins_next:
            verdict, accumulator = split(message, initial)
        if verdict not in {"continue", "emit", "before"}:
            raise HandlerError(f"size: {verdict!r} is none of continue, emit, before")
        return begins_next, verdict != "continue", accumulator

    def _begin(self, batch_id: BatchId) -> _OpenBatch:
        timeout = self._options.timeout
        batch = _OpenBatch([], self._timers.now() + timeout)
        self._open[batch_id] = batch
        if not self._timer_is_set:
            self._set_timer(timeout)
        return batch

    def _set_timer(self, delay: float) -> None:
        """Set the one timer; it runs on when its batch is full, and is set again when it fires."""
        self._timer_is_set = True
        self._timers.after(delay, self._expired)

    def _expired(self) -> None:
        with self._lock:
            self._emit_due()
        if self._over:
            self._abandon_open()

    def _emit_due(self) -> None:
        self._timer_is_set = False
        now = self._timers.now()
        while self._open and not self._over:
            batch_id, batch = next(iter(self._open.items()))
            if batch.due > now + CLOCK_TOLERANCE:
                if not self._timer_is_set:
                    self._set_timer(batch.due - now)
                return
            del self._open[batch_id]
            self._emit(batch_id, batch.messages, "timeout")

    def _timer_died(self, error: BaseException) -> None:
        # Without a timer the next batches would wait for ever.
        self.source.dispose()
        self.on_error(unexpected("emitting a batch after its timeout", error))

    def _emit(self, batch_id: BatchId, messages: list[Message[Any]], trigger: Trigger) -> None:
        if self._over:
            self._abandon(messages)
            return
        self._emitted += len(messages)
        self._observer.on_next(Batch(messages, trigger, self._options.name, *batch_id))

    def _end(self, end: Callable[[], None]) -> None:
        with self._lock:
            while self._open and not self._over:
                batch_id = next(iter(self._open))
                self._emit(batch_id, self._open.pop(batch_id).messages, "flush")
            if not self._over:
                self._over = True
                self._timers.stop()
                self._forget_stage()
                end()
        self._abandon_open()

    def _abandon_open(self) -> None:
        """Count open batches; a thread that holds the lock does so when it releases the lock."""
        if self._lock.acquire(blocking=False):
            try:
                left, self._open = self._open, {}
                self._abandon([message for batch in left.values() for message in batch.messages])
            finally:
                self._lock.release()

    def _abandon(self, messages: list[Message[Any]]) -> None:
        if messages:
            abandon(messages, self._telemetry, "batcher")

    def _stage(self) -> StageStats:
        waiting = sum(len(batch.messages) for batch in list(self._open.values()))
        return StageStats(
            self._options.name,
            concurrency=1,
            running=0,
            in_flight=waiting,
            busy_seconds=0.0,
            capacity_seconds=0.0,
            kind="batcher",
            received=self._meter.total,
            done=self._emitted,
            failed=self._failed,
            queued=waiting,
            rate=self._meter.rate(),
        )


def partition_number(option: str, number: Any) -> int:
    """Return the number of a partition as a function of the user gave it.

    Raises:
        HandlerError: it is no whole number from 0.
    """
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise HandlerError(f"{option} returned {number!r}; return a whole number from 0")
    return number
