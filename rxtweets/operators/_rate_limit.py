"""`rate_limit`: so many messages in so much time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Any, TypeVar

from reactivex import Observable, abc
from reactivex.scheduler import VirtualTimeScheduler

from rxtweets._core.events import Abandoned
from rxtweets._core.observable import (
    MessageStream,
    current_drain,
    demand_of,
    subscribe_in_chunks,
    telemetry_of,
)
from rxtweets._core.rate_limit import RateLimit
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import Message
from rxtweets.errors import ConfigurationError
from rxtweets.operators._timer import SchedulerTimer

__all__ = ["Limiting", "limiting", "rate_limit"]

T = TypeVar("T")

Chunk = list[Message[Any]]


def rate_limit(
    allowed: int | RateLimit,
    interval: float | timedelta | None = None,
    *,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[Message[T]]], MessageStream[T]]:
    """Let at most so many messages through in each interval; the others wait, in order.

    ::

        source               --1-2-3-4--------------|
        rate_limit(2, 1.0)   --1-2-------3-4--------|     the interval begins with message 1

    It is the source that waits: X's stream fills its hand-off and its overflow policy decides, a
    source that is asked (`rxtweets.polling_source`) is asked for what may go, and one that emits
    on a thread of yours makes that thread wait. With a scheduler nothing can be made to wait, and
    messages queue.

    Args:
        allowed: messages in an interval at most; or a `RateLimit`, which several streams can
            share, and which can be changed and lifted while they run.
        interval: seconds; not with a `RateLimit`.
        scheduler: keeps the time; a scheduler of virtual time given to ``subscribe`` is taken as
            well.

    Raises:
        ConfigurationError: an argument cannot work.
    """
    if isinstance(allowed, RateLimit):
        if interval is not None:
            raise ConfigurationError(f"interval={interval!r}: the RateLimit has one already")
        limit = allowed
    else:
        limit = RateLimit(allowed, interval)  # type: ignore[arg-type]  # None is refused there

    def operator(source: Observable[Message[T]]) -> MessageStream[T]:
        telemetry = telemetry_of(source)

        def subscribe(
            observer: abc.ObserverBase[Chunk], given: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            chosen = scheduler
            if chosen is None and isinstance(given, VirtualTimeScheduler):
                chosen = given
            limited = limiting(observer, limit, telemetry, chosen)
            if (drain := current_drain()) is not None:
                drain.lift(limited.lift)
            limited.listen(lambda chunks: subscribe_in_chunks(source, chunks, given))
            return limited

        return MessageStream(subscribe, telemetry)

    return operator


def limiting(
    observer: abc.ObserverBase[Chunk],
    limit: RateLimit,
    telemetry: Telemetry,
    scheduler: abc.SchedulerBase | None,
) -> Limiting:
    """What holds messages back: on the source's thread, or in a queue on a scheduler.

    Args:
        observer: of what may go.
        limit: says what may.
        telemetry: where to count and report.
        scheduler: ``None`` makes the source's thread wait.
    """
    if scheduler is None:
        return _Limited(observer, limit, telemetry)
    return _Queued(observer, limit, telemetry, scheduler)


class Limiting(abc.ObserverBase[Chunk], abc.DisposableBase):
    """Passes on what may go, and keeps the rest until it may."""

    def __init__(
        self, observer: abc.ObserverBase[Chunk], limit: RateLimit, telemetry: Telemetry
    ) -> None:
        self._observer = observer
        self._limit = limit
        self._telemetry = telemetry
        self._disposed = False
        self._lifted = False
        self._source: abc.DisposableBase | None = None

    def listen(self, subscribe: Callable[[abc.ObserverBase[Chunk]], abc.DisposableBase]) -> None:
        """Subscribe to the source; what it gives before that returns is taken too."""
        source = subscribe(self)
        self._source = source
        if self._disposed:
            source.dispose()

    def dispose(self) -> None:
        """Stop at once; what waits is counted abandoned."""
        self._disposed = True
        if self._source is not None:
            self._source.dispose()
        self._limit.wake()

    def lift(self) -> None:
        """Let everything through from now on: what was received must not hold up a drain."""
        self._lifted = True
        self._limit.wake()

    def _abandon(self, count: int) -> None:
        if count:
            self._telemetry.add(abandoned=count)
            self._telemetry.publish(Abandoned(count, "rate limit"))


class _Limited(Limiting):
    """Makes the source's thread wait."""

    def __init__(
        self, observer: abc.ObserverBase[Chunk], limit: RateLimit, telemetry: Telemetry
    ) -> None:
        super().__init__(observer, limit, telemetry)
        self._waiting = threading.RLock()

    def demand(self, most: int) -> int:
        """Wait until a message may go; how many may, at most ``most``."""
        room = self._limit.wait_for_room(lambda: self._disposed or self._lifted)
        if self._disposed:
            return 0
        if room is None or self._lifted:
            return demand_of(self._observer, most)
        return demand_of(self._observer, min(most, room))

    def on_next(self, chunk: Chunk) -> None:
        """Pass on what may go, wait, and pass on the rest."""
        with self._waiting:  # one after the other, so that the order is kept
            at = 0
            while at < len(chunk) and not self._lifted and not self._disposed:
                taken, _ = self._limit.take(len(chunk) - at, monotonic())
                if taken:
                    self._observer.on_next(chunk[at : at + taken])
                    at += taken
                else:
                    self._limit.wait_for_room(lambda: self._disposed or self._lifted)
            if self._disposed:
                self._abandon(len(chunk) - at)
            elif at < len(chunk):
                self._observer.on_next(chunk[at:])

    def on_error(self, error: Exception) -> None:
        """Pass the error on."""
        self._observer.on_error(error)

    def on_completed(self) -> None:
        """Pass the end on."""
        self._observer.on_completed()


class _Queued(Limiting):
    """Keeps what may not go yet, for a scheduler on which nothing can be made to wait."""

    def __init__(
        self,
        observer: abc.ObserverBase[Chunk],
        limit: RateLimit,
        telemetry: Telemetry,
        scheduler: abc.SchedulerBase,
    ) -> None:
        super().__init__(observer, limit, telemetry)
        self._lock = threading.RLock()
        self._queue: deque[Message[Any]] = deque()
        self._end: Callable[[], None] | None = None
        self._timer = SchedulerTimer(self._pump, scheduler)
        self._forget = limit.listen(self._pump)

    def on_next(self, chunk: Chunk) -> None:
        with self._lock:
            self._queue.extend(chunk)
        self._pump()

    def on_error(self, error: Exception) -> None:
        self._end = lambda: self._observer.on_error(error)
        self._pump()

    def on_completed(self) -> None:
        self._end = self._observer.on_completed
        self._pump()

    def dispose(self) -> None:
        super().dispose()
        self._timer.stop()
        self._forget()
        with self._lock:
            count = len(self._queue)
            self._queue.clear()
        self._abandon(count)

    def _pump(self) -> None:
        with self._lock:
            while self._queue and not self._disposed:
                taken, more_at = len(self._queue), 0.0
                if not self._lifted:
                    taken, more_at = self._limit.take(taken, self._timer.now())
                if not taken:
                    self._timer.start(more_at)
                    return
                self._observer.on_next([self._queue.popleft() for _ in range(taken)])
            end, self._end = self._end, None
            if end is not None and not self._disposed:
                self._timer.stop()
                self._forget()
                end()
