"""`batch`: messages become batches, by size or by time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import SerialDisposable
from reactivex.scheduler import VirtualTimeScheduler

from rxtweets.checks import seconds, whole_number
from rxtweets.events import Abandoned
from rxtweets.message import Batch, Message, Trigger
from rxtweets.observable import BatchStream, subscribe_in_chunks, telemetry_of
from rxtweets.subscriber import acknowledge
from rxtweets.telemetry import Telemetry

__all__ = ["batch"]

T = TypeVar("T")


def batch(
    size: int = 100,
    timeout: float | timedelta = 1.0,
    *,
    name: str = "default",
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[Message[T]]], BatchStream[T]]:
    """Collect messages into batches, and settle each when its subscriber is done with it.

    A batch is emitted when it has ``size`` messages, or ``timeout`` seconds after its first
    message came, or when the source ends. This is ``buffer_with_time_or_count``, but it never
    emits an empty batch, its time begins with the first message, as Broadway's does, and one
    thread keeps the time for the operator instead of one for every buffer.

    ::

        source        --1--2--3--4------------5--|
        batch(3, 2.0) --------[1,2,3]-----[4]----[5]|

    What is subscribed to the result is a subscriber: if it returns, the messages of the batch are
    acknowledged; if it raises, the batch is failed, counted, reported (`events.BatchFailed`) and
    acknowledged as failed, and the next batch comes. Messages that are failed already are not
    batched; they are acknowledged at once.

    If the source ends with an error, the last batch is emitted before the error is.

    Args:
        size: messages in a batch at most, 1 or more.
        timeout: seconds from the first message of a batch to its emission at the latest.
        name: of the batcher, for `BatchInfo`.
        scheduler: keeps the time instead of a thread of the operator's own; a scheduler of
            virtual time given to ``subscribe`` is taken as well.

    Raises:
        ConfigurationError: an argument cannot work.
    """
    whole_number("size", size)
    wait = seconds("timeout", timeout)

    def operator(source: Observable[Message[T]]) -> BatchStream[T]:
        telemetry = telemetry_of(source)

        def subscribe(
            observer: abc.ObserverBase[Batch[Any]], given: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            chosen = scheduler
            if chosen is None and isinstance(given, VirtualTimeScheduler):
                chosen = given
            batcher = _Batcher(size, wait, name, chosen, observer, telemetry)
            batcher.listen(lambda chunks: subscribe_in_chunks(source, chunks, given))
            return batcher

        return BatchStream(subscribe, telemetry)

    return operator


class _Batcher(abc.ObserverBase[list[Message[Any]]], abc.DisposableBase):
    """Holds the batch that is being filled; its lock makes emission serial.

    The lock is held while the observer takes a batch: a slow subscriber makes the source wait,
    which is what bounds the memory in front of it.
    """

    def __init__(
        self,
        size: int,
        timeout: float,
        name: str,
        scheduler: abc.SchedulerBase | None,
        observer: abc.ObserverBase[Batch[Any]],
        telemetry: Telemetry,
    ) -> None:
        self._size = size
        self._timeout = timeout
        self._name = name
        self._observer = observer
        self._telemetry = telemetry
        self._lock = threading.RLock()
        self._buffer: list[Message[Any]] = []
        self._timer: _ThreadTimer | _SchedulerTimer = (
            _ThreadTimer(self._expired)
            if scheduler is None
            else _SchedulerTimer(self._expired, scheduler)
        )
        self._source: abc.DisposableBase | None = None
        self._over = False

    def listen(
        self, subscribe: Callable[[abc.ObserverBase[list[Message[Any]]]], abc.DisposableBase]
    ) -> None:
        """Subscribe to the source; what it gives before that returns is taken too."""
        source = subscribe(self)
        self._source = source
        if self._over:
            source.dispose()

    def on_next(self, chunk: list[Message[Any]]) -> None:
        good = [message for message in chunk if message.status == "ok"]
        if len(good) < len(chunk):
            failed = [message for message in chunk if message.status != "ok"]
            acknowledge([], failed, self._telemetry)
        with self._alone():
            if self._over:
                self._abandon(len(good))
            elif good:
                self._take(good)

    def on_error(self, error: Exception) -> None:
        with self._alone():
            if self._end():
                self._observer.on_error(error)

    def on_completed(self) -> None:
        with self._alone():
            if self._end():
                self._observer.on_completed()

    def dispose(self) -> None:
        """Stop at once; the messages of the unfinished batch are counted abandoned."""
        # Not under the lock: an observer that blocks holds it, and disposing must not wait.
        self._over = True
        self._timer.stop()
        if self._source is not None:
            self._source.dispose()
        self._give_up()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock:
            yield
        if self._over:
            self._give_up()

    def _give_up(self) -> None:
        """Count what is left; whoever holds the lock comes here himself when he has released it."""
        if self._lock.acquire(blocking=False):
            try:
                left, self._buffer = self._buffer, []
                self._abandon(len(left))
            finally:
                self._lock.release()

    def _abandon(self, count: int) -> None:
        if count:
            self._telemetry.add(abandoned=count)
            self._telemetry.publish(Abandoned(count, "batcher"))

    def _take(self, good: list[Message[Any]]) -> None:
        starts_anew = not self._buffer
        self._buffer += good
        if len(self._buffer) >= self._size:
            starts_anew = True
            self._emit_full()
        if self._buffer and starts_anew:
            self._timer.start(self._timeout)

    def _end(self) -> bool:
        """Emit what is left; ``False`` if it was over already."""
        if self._over:
            return False
        if self._buffer:
            self._emit(self._buffer, "flush")
        was_over, self._over = self._over, True
        self._buffer = []
        self._timer.stop()
        return not was_over

    def _emit_full(self) -> None:
        size, buffer = self._size, self._buffer
        full = len(buffer) - len(buffer) % size
        self._timer.cancel()
        self._buffer = buffer[full:]
        for start in range(0, full, size):
            self._emit(buffer[start : start + size], "size")

    def _emit(self, messages: list[Message[Any]], trigger: Trigger) -> None:
        if self._over:
            self._abandon(len(messages))
        else:
            self._observer.on_next(Batch(messages, trigger, self._name))

    def _expired(self, is_current: Callable[[], bool]) -> None:
        with self._alone():
            if self._buffer and is_current():
                messages, self._buffer = self._buffer, []
                self._emit(messages, "timeout")


class _SchedulerTimer:
    """One deadline on a scheduler of the user's."""

    def __init__(
        self, expired: Callable[[Callable[[], bool]], None], scheduler: abc.SchedulerBase
    ) -> None:
        self._expired = expired
        self._scheduler = scheduler
        self._scheduled = SerialDisposable()
        self._generation = 0

    def start(self, delay: float) -> None:
        self._generation += 1
        mine = self._generation
        self._scheduled.disposable = self._scheduler.schedule_relative(
            delay, lambda *_: self._expired(lambda: mine == self._generation)
        )

    def cancel(self) -> None:
        self._generation += 1
        self._scheduled.disposable = None

    def stop(self) -> None:
        self._generation += 1
        self._scheduled.dispose()


class _ThreadTimer:
    """One deadline, kept by one thread that is started with the first and ends with `stop`.

    By the monotonic clock: RxPY's own timers follow the wall clock and its jumps.
    """

    def __init__(self, expired: Callable[[Callable[[], bool]], None]) -> None:
        self._expired = expired
        self._changed = threading.Condition()
        self._generation = 0
        self._due: float | None = None
        self._wakes_at: float | None = None
        self._running = False
        self._stopped = False

    def start(self, delay: float) -> None:
        with self._changed:
            self._generation += 1
            self._due = monotonic() + delay
            if not self._running and not self._stopped:
                self._running = True
                threading.Thread(target=self._run, name="rxtweets-batch", daemon=True).start()
            elif self._wakes_at is None or self._wakes_at > self._due:
                self._changed.notify()

    def cancel(self) -> None:
        # The thread is not woken for this: it finds out when its time is over.
        with self._changed:
            self._generation += 1
            self._due = None

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _run(self) -> None:
        while (mine := self._wait()) is not None:
            self._expired(partial(self._is_current, mine))

    def _is_current(self, generation: int) -> bool:
        return generation == self._generation

    def _wait(self) -> int | None:
        """Until a deadline passes: its generation; ``None`` when it is time to end."""
        with self._changed:
            while not self._stopped:
                rest = None if self._due is None else self._due - monotonic()
                if rest is not None and rest <= 0:
                    self._due = None
                    return self._generation
                self._wakes_at = self._due
                self._changed.wait(rest)
            return None
