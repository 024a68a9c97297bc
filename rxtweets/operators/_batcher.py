"""The machine inside `batch`: one open batch for each key and partition."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from reactivex import abc

from rxtweets._core.events import Abandoned
from rxtweets._core.subscriber import OnFailed, acknowledge, fail
from rxtweets._core.telemetry import StageStats, Telemetry
from rxtweets._messages.batch import Batch, Trigger
from rxtweets._messages.message import DEFAULT_ROUTE, Message, are_plain
from rxtweets._support.rate_meter import Throughput
from rxtweets._support.workers import unexpected
from rxtweets.errors import HandlerError
from rxtweets.operators._splitting import Split
from rxtweets.operators._timer import SchedulerTimer, ThreadTimer, Timer

__all__ = ["BatchOptions", "Batcher"]

Key = tuple[Hashable, int | None]
PLAIN: Key = (DEFAULT_ROUTE.batch_key, None)
CLOSE = 1e-6
"""Seconds. A deadline that is so near has come: clocks are rounded."""


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How messages are batched; see `batch` for each."""

    size: int
    split: tuple[Any, Split] | None
    timeout: float
    name: str
    partition_by: Callable[[Message[Any]], int] | None
    partitions: int
    on_failed: OnFailed | None


class _Open:
    """A batch that is being filled."""

    __slots__ = ("accumulated", "due", "messages")

    def __init__(self, due: float, accumulated: Any) -> None:
        self.messages: list[Message[Any]] = []
        self.due = due
        self.accumulated = accumulated


class Batcher(abc.ObserverBase[list[Message[Any]]], abc.DisposableBase):
    """Holds the batches that are being filled; its lock makes emission serial.

    The lock is held while the observer takes a batch: a slow subscriber makes the source wait,
    which is what bounds the memory in front of it.
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
        self._is_plain = options.split is None and options.partition_by is None
        self._observer = observer
        self._telemetry = telemetry
        self._lock = threading.RLock()
        # All wait equally long, so their order here is that of their deadlines.
        self._open: dict[Key, _Open] = {}
        self._timer: Timer = (
            ThreadTimer(self._expired, "rxtweets-batch", self._timer_died)
            if scheduler is None
            else SchedulerTimer(self._expired, scheduler)
        )
        self._source: abc.DisposableBase | None = None
        self._over = False
        self._meter = Throughput(self._timer.now)
        self._emitted = 0
        self._failed = 0
        self._forget = telemetry.stage(self._stage)

    def listen(
        self, subscribe: Callable[[abc.ObserverBase[list[Message[Any]]]], abc.DisposableBase]
    ) -> None:
        """Subscribe to the source; what it gives before that returns is taken too."""
        source = subscribe(self)
        self._source = source
        if self._over:
            source.dispose()

    def on_next(self, chunk: list[Message[Any]]) -> None:
        self._meter.add(len(chunk))
        is_plain = self._is_plain and are_plain(chunk)
        good = chunk if is_plain else self._without_failed(chunk)
        with self._lock:
            if self._over:
                self._abandon(len(good))
            elif is_plain:
                self._add_plain(good)
            else:
                for message in good:
                    self._add(message)
        if self._over:
            self._give_up()

    def on_error(self, error: Exception) -> None:
        with self._lock:
            if self._end():
                self._observer.on_error(error)
        self._give_up()

    def on_completed(self) -> None:
        with self._lock:
            if self._end():
                self._observer.on_completed()
        self._give_up()

    def dispose(self) -> None:
        """Stop at once; the messages of the unfinished batches are counted abandoned."""
        # Not under the lock: an observer that blocks holds it, and disposing must not wait.
        self._over = True
        self._timer.stop()
        if self._source is not None:
            self._source.dispose()
        self._give_up()
        self._forget()

    def _give_up(self) -> None:
        """Count what is left; whoever holds the lock comes here himself when he has released it."""
        if self._lock.acquire(blocking=False):
            try:
                left, self._open = self._open, {}
                self._abandon(sum(len(each.messages) for each in left.values()))
            finally:
                self._lock.release()

    def _abandon(self, count: int) -> None:
        if count:
            self._telemetry.add(abandoned=count)
            self._telemetry.publish(Abandoned(count, "batcher"))

    def _without_failed(self, chunk: list[Message[Any]]) -> list[Message[Any]]:
        good = [message for message in chunk if message.status == "ok"]
        failed = [message for message in chunk if message.status != "ok"]
        self._failed += len(failed)
        acknowledge([], failed, self._telemetry)
        return good

    def _add_plain(self, good: list[Message[Any]]) -> None:
        batch = self._open.get(PLAIN) or self._begin(PLAIN)
        batch.messages += good
        size, messages = self._size, batch.messages
        if len(messages) < size:
            return
        full = len(messages) - len(messages) % size
        if full < len(messages):
            del self._open[PLAIN]  # the next one sets the timer anyway
            self._begin(PLAIN).messages += messages[full:]
        else:
            self._finish(PLAIN)
        for start in range(0, full, size):
            self._emit(PLAIN, messages[start : start + size], "size")

    def _add(self, message: Message[Any]) -> None:
        try:
            key = (message.batch_key, self._partition_of(message))
        except BaseException as error:  # noqa: BLE001 - whatever a user's code raises
            self._refuse(message, error)
            return
        batch = self._open.get(key) or self._begin(key)
        try:
            trigger = self._include(key, batch, message)
        except BaseException as error:  # noqa: BLE001 - whatever a user's code raises
            if not batch.messages and self._open.get(key) is batch:
                self._finish(key)
            self._refuse(message, error)
            return
        if trigger is not None:
            self._emit(key, self._finish(key), trigger)

    def _refuse(self, message: Message[Any], error: BaseException) -> None:
        self._failed += 1
        fail([message.failed(error)], self._options.on_failed, self._telemetry)

    def _include(self, key: Key, batch: _Open, message: Message[Any]) -> Trigger | None:
        """Put the message into its batch; what ends the batch with it, if something does."""
        options = self._options
        is_full = False
        if options.split is None:
            is_full = len(batch.messages) + 1 >= self._size
        else:
            initial, split = options.split
            verdict, accumulated = split(message, batch.accumulated)
            if verdict == "before" and batch.messages:
                verdict, accumulated = split(message, initial)
                self._emit(key, self._finish(key), "size")
                batch = self._begin(key)
            if verdict not in {"continue", "emit", "before"}:
                raise HandlerError(f"size: {verdict!r} is none of continue, emit, before")
            is_full = verdict != "continue"
            batch.accumulated = accumulated
        batch.messages.append(message)
        if is_full:
            return "size"
        return "flush" if message.batch_mode == "flush" else None

    def _partition_of(self, message: Message[Any]) -> int | None:
        by = self._options.partition_by
        if by is None:
            return None
        number = by(message)
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise HandlerError(f"partition_by returned {number!r}; return a whole number from 0")
        return number % self._options.partitions

    def _begin(self, key: Key) -> _Open:
        """A new batch, whose time begins now."""
        split = self._options.split
        due = self._timer.now() + self._options.timeout
        if not self._open:
            self._timer.start(due)
        batch = self._open[key] = _Open(due, None if split is None else split[0])
        return batch

    def _finish(self, key: Key) -> list[Message[Any]]:
        """The messages of a batch, which is not open any more."""
        messages = self._open.pop(key).messages
        self._wait_for_next()
        return messages

    def _wait_for_next(self) -> None:
        first = next(iter(self._open.values()), None)
        if first is None:
            self._timer.cancel()
        else:
            self._timer.start(first.due)

    def _end(self) -> bool:
        """Emit what is left; ``False`` if it was over already."""
        if self._over:
            return False
        while self._open and not self._over:
            key = next(iter(self._open))
            self._emit(key, self._open.pop(key).messages, "flush")
        was_over, self._over = self._over, True
        self._timer.stop()
        if not was_over:
            self._forget()
        return not was_over

    def _emit(self, key: Key, messages: list[Message[Any]], trigger: Trigger) -> None:
        if self._over:
            self._abandon(len(messages))
        else:
            self._emitted += len(messages)
            batch_key, partition = key
            self._observer.on_next(
                Batch(messages, trigger, self._options.name, batch_key, partition)
            )

    def _expired(self) -> None:
        with self._lock:
            self._emit_due()
        if self._over:
            self._give_up()

    def _timer_died(self, error: BaseException) -> None:
        """Emit what is left, and end: the next batches would wait for ever."""
        if self._source is not None:
            self._source.dispose()
        self.on_error(unexpected("emitting a batch after its timeout", error))

    def _emit_due(self) -> None:
        now = self._timer.now() + CLOSE
        while self._open and not self._over:
            key, first = next(iter(self._open.items()))
            if first.due > now:
                self._timer.start(first.due)
                return
            del self._open[key]
            self._emit(key, first.messages, "timeout")

    def _stage(self) -> StageStats:
        waiting = sum(len(each.messages) for each in list(self._open.values()))
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
