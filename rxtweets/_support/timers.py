"""Delayed calls of functions: on one thread, or on a scheduler of RxPY."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from time import monotonic

from reactivex import abc
from reactivex.disposable import CompositeDisposable, SingleAssignmentDisposable
from reactivex.scheduler import VirtualTimeScheduler

from rxtweets._support.workers import Died, start_thread

__all__ = ["SchedulerTimers", "ThreadTimers", "Timers", "scheduler_seconds"]


class ThreadTimers:
    """Timers of the monotonic clock, on a thread that runs from the first delay to `stop`.

    RxPY's own timers follow the wall clock, and its jumps.

    Args:
        name: of the thread.
        died: takes an exception of a function; the thread continues with the next function.
    """

    def __init__(self, name: str, died: Died | None = None) -> None:
        self._name = name
        self._died = died
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._running = False
        self._stopped = False

    def now(self) -> float:
        """Return monotonic seconds."""
        return monotonic()

    def after(self, delay: float, function: Callable[[], None]) -> None:
        """Call the function after ``delay`` seconds; it must be short and not raise."""
        with self._changed:
            if self._stopped:
                return
            heapq.heappush(self._due, (monotonic() + delay, next(self._numbers), function))
            if not self._running:
                start_thread(self._name, self._run, self._died, repeats=True)
                self._running = True
            elif self._due[0][2] is function:
                self._changed.notify()

    def stop(self) -> None:
        """Cancel all calls and end the thread."""
        with self._changed:
            self._stopped = True
            self._due.clear()
            self._changed.notify()

    def _run(self) -> None:
        while (function := self._next()) is not None:
            function()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._stopped:
                rest = self._due[0][0] - monotonic() if self._due else None
                if rest is not None and rest <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(rest)
            return None


class SchedulerTimers:
    """Timers of a scheduler of RxPY, virtual time included."""

    def __init__(self, scheduler: abc.SchedulerBase) -> None:
        self._scheduler = scheduler
        self._scheduled = CompositeDisposable()

    def now(self) -> float:
        """Return the seconds of the scheduler."""
        return scheduler_seconds(self._scheduler)

    def after(self, delay: float, function: Callable[[], None]) -> None:
        """Call the function after ``delay`` seconds of the scheduler."""
        if self._scheduled.is_disposed:
            return
        one = SingleAssignmentDisposable()
        self._scheduled.add(one)

        def call(*_: object) -> None:
            self._scheduled.remove(one)
            function()

        one.disposable = self._scheduler.schedule_relative(max(0.0, delay), call)

    def stop(self) -> None:
        """Cancel all calls."""
        self._scheduled.dispose()


Timers = ThreadTimers | SchedulerTimers


def scheduler_seconds(scheduler: abc.SchedulerBase) -> float:
    """Return the scheduler's time; that of virtual time without the rounding of a date."""
    if isinstance(scheduler, VirtualTimeScheduler):
        return float(scheduler.clock)
    return scheduler.to_seconds(scheduler.now)
