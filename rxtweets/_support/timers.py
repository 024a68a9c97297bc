"""Functions that are called after a while, by one thread for all of them."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from reactivex import abc

from rxtweets._support.workers import Died, start_thread

__all__ = ["SchedulerTimers", "ThreadTimers", "Timers"]


class Timers(Protocol):
    """Calls functions when their time has come."""

    def after(self, delay: float, function: Callable[[], None]) -> None:
        """Call the function in so many seconds; it must be short and not raise."""

    def stop(self) -> None:
        """Forget all that is still to come."""


class ThreadTimers:
    """By the monotonic clock, on a thread that is started with the first and ends with `stop`.

    Args:
        name: of the thread.
        died: takes what a function raised all the same; the others are still called.
    """

    def __init__(self, name: str, died: Died | None = None) -> None:
        self._name = name
        self._died = died
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._running = False
        self._stopped = False

    def after(self, delay: float, function: Callable[[], None]) -> None:
        """Call the function in so many seconds."""
        with self._changed:
            if self._stopped:
                return
            heapq.heappush(self._due, (monotonic() + delay, next(self._numbers), function))
            if not self._running:
                start_thread(self._name, self._run, self._died, goes_on=True)
                self._running = True
            elif self._due[0][2] is function:
                self._changed.notify()

    def stop(self) -> None:
        """Forget all that is still to come, and let the thread end."""
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
    """On a scheduler of the user's, virtual time included."""

    def __init__(self, scheduler: abc.SchedulerBase) -> None:
        self._scheduler = scheduler
        self._stopped = False

    def after(self, delay: float, function: Callable[[], None]) -> None:
        """Call the function in so many seconds of the scheduler."""
        self._scheduler.schedule_relative(delay, lambda *_: None if self._stopped else function())

    def stop(self) -> None:
        """Call nothing any more."""
        self._stopped = True
