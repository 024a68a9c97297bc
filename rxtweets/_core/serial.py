"""One call at a time: an observer of several sources, and a task of several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from reactivex import abc

__all__ = ["SerialObserver", "SerialTask"]


class SerialObserver:
    """Passes on the values of several sources, one call at a time; thread-safe.

    A call from inside a call is passed on immediately. The first error is passed on when all
    sources have ended.

    Args:
        observer: takes the values.
        sources: number of sources.
    """

    def __init__(self, observer: abc.ObserverBase[Any], sources: int) -> None:
        self._observer = observer
        self._left = sources
        self._error: Exception | None = None
        self.lock = threading.RLock()

    def on_next(self, value: Any) -> None:
        """Pass a value on."""
        with self.lock:
            self._observer.on_next(value)

    def source_ended(self, error: Exception | None = None) -> None:
        """Note the end of a source; end the observer with the last."""
        with self.lock:
            self._left -= 1
            self._error = self._error or error
            if self._left:
                return
            if self._error is None:
                self._observer.on_completed()
            else:
                self._observer.on_error(self._error)


class SerialTask:
    """Repeats a step while it is due, on one thread at a time.

    A thread that finds another thread at the step returns immediately. The other thread checks
    again after it released the lock, so no work is left.

    Args:
        is_due: whether there is work; called without a lock.
        step: does the work that is due.
        spawn: runs a task on another thread.
    """

    def __init__(
        self,
        is_due: Callable[[], object],
        step: Callable[[], None],
        spawn: Callable[[Callable[[], None]], None],
    ) -> None:
        self._is_due = is_due
        self._step = step
        self._spawn = spawn
        self._lock = threading.Lock()
        self._is_spawned = False

    def run(self) -> None:
        """Do the work that is due on this thread, unless another thread does."""
        while self._is_due() and self._lock.acquire(blocking=False):
            try:
                self._step()
            finally:
                self._lock.release()

    def spawn(self) -> None:
        """Do the work that is due on another thread, unless a thread does."""
        if self._is_spawned or self._lock.locked():
            return
        self._is_spawned = True
        try:
            self._spawn(self._run_spawned)
        except RuntimeError:  # the system starts no more threads
            self._run_spawned()

    def _run_spawned(self) -> None:
        self._is_spawned = False  # before the check: a later caller spawns again
        self.run()
