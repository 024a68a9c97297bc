"""One deadline at a time, kept by a scheduler or by a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from reactivex import abc
from reactivex.disposable import SerialDisposable
from reactivex.scheduler import VirtualTimeScheduler

from rxtweets._support.workers import Died, start_thread

__all__ = ["SchedulerTimer", "ThreadTimer", "Timer"]


class Timer:
    """Calls a function once a deadline has passed; a function that finds it is early waits again.

    Times are seconds of a clock of the timer's own, `now`.
    """

    def now(self) -> float:
        """The time."""
        raise NotImplementedError

    def start(self, due: float) -> None:
        """Call the function at this time, in place of an earlier deadline."""
        raise NotImplementedError

    def cancel(self) -> None:
        """There is no deadline for now."""
        raise NotImplementedError

    def stop(self) -> None:
        """There will be no deadline any more."""
        raise NotImplementedError


class SchedulerTimer(Timer):
    """Kept by a scheduler."""

    def __init__(self, expired: Callable[[], None], scheduler: abc.SchedulerBase) -> None:
        self._expired = expired
        self._scheduler = scheduler
        self._scheduled = SerialDisposable()

    def now(self) -> float:
        if isinstance(self._scheduler, VirtualTimeScheduler):
            return float(self._scheduler.clock)  # as a date it would be rounded
        return self._scheduler.to_seconds(self._scheduler.now)

    def start(self, due: float) -> None:
        self._scheduled.disposable = self._scheduler.schedule_relative(
            max(0.0, due - self.now()), lambda *_: self._expired()
        )

    def cancel(self) -> None:
        self._scheduled.disposable = None

    def stop(self) -> None:
        self._scheduled.dispose()


class ThreadTimer(Timer):
    """One thread, started with the first deadline, that ends with `stop`.

    By the monotonic clock: RxPY's own timers follow the wall clock and its jumps.

    Args:
        expired: called when a deadline has passed.
        name: of the thread.
        died: takes what the function raised; the thread waits for the next deadline.
    """

    def __init__(self, expired: Callable[[], None], name: str, died: Died) -> None:
        self._expired = expired
        self._name = name
        self._died = died
        self._changed = threading.Condition()
        self._due: float | None = None
        self._wakes_at: float | None = None
        self._running = False
        self._stopped = False

    def now(self) -> float:
        return monotonic()

    def start(self, due: float) -> None:
        with self._changed:
            self._due = due
            if not self._running and not self._stopped:
                start_thread(self._name, self._run, self._died, goes_on=True)
                self._running = True
            elif self._wakes_at is None or self._wakes_at > due:
                self._changed.notify()

    def cancel(self) -> None:
        # The thread is not woken for this: it finds out when its time is over.
        with self._changed:
            self._due = None

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _run(self) -> None:
        while self._wait():
            self._expired()

    def _wait(self) -> bool:
        """Until a deadline has passed; ``False`` when it is time to end."""
        with self._changed:
            while not self._stopped:
                rest = None if self._due is None else self._due - monotonic()
                if rest is not None and rest <= 0:
                    self._due = None
                    return True
                self._wakes_at = self._due
                self._changed.wait(rest)
            return False
