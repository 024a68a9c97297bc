"""Whether handlers are quick: then one thread is faster than fifty."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from time import perf_counter

from rxtweets._support.workers import Died, start_thread

__all__ = ["QUICK", "Pace", "Watch"]

QUICK = 0.000_2
"""Seconds. Waking a thread for a call shorter than this costs more than the call."""

STREAK = 200
"""Quick calls, nearly in a row, after which one thread does it all."""

SETBACK = 50
"""Quick calls that one slow call takes back."""

PATIENCE = 0.015
"""Seconds that the one thread may spend in slow calls, each counted as a hundredth at most, before
the others come back. A quick call seems slow when another thread takes the interpreter away from
it, for 5 ms at a time, but that happens once in hundreds of calls."""

FORGIVEN = 0.000_02
"""Seconds of these that every quick call makes good for."""

WATCH = 0.005
"""Seconds between two looks at whether the one thread is stuck in a call."""

LOOKS = 3
"""Looks in a row that find it so: a thread that waits for the interpreter seems stuck as well."""

FIRST_HOLD, LAST_HOLD = 0.1, 30.0
"""Seconds before one thread may do it all again, doubled each time that proved wrong."""


class Pace:
    """Learns whether handlers are quick."""

    def __init__(self) -> None:
        self.is_quick = False
        self._streak = 0
        self._lost = 0.0
        self._since = 0.0
        self._not_before = 0.0
        self._hold = FIRST_HOLD

    def note(self, seconds: float) -> None:
        """A call that one of many threads has made."""
        if seconds > QUICK:
            self._streak = max(0, self._streak - SETBACK)
            return
        self._streak += 1
        if self._streak >= STREAK and perf_counter() >= self._not_before:
            self._streak, self._lost = 0, 0.0
            self._since = perf_counter()
            self.is_quick = True

    def was_slow(self, seconds: float) -> bool:
        """A call of the one thread that was not quick; whether its time is over."""
        self._lost += min(seconds, 0.01)
        if self._lost > PATIENCE:
            self.leave()
        return not self.is_quick

    def were_quick(self, calls: int) -> None:
        """Calls of the one thread, most of them quick."""
        self._lost = max(0.0, self._lost - calls * FORGIVEN)

    def leave(self) -> None:
        """Handlers block: many threads again, for a while that grows if this happens often."""
        self.is_quick = False
        now = perf_counter()
        lasted = now - self._since > LAST_HOLD
        self._hold = FIRST_HOLD if lasted else min(LAST_HOLD, self._hold * 2)
        self._not_before = now + self._hold


class Watch:
    """Looks after the one thread: if it is stuck in a call, the others are brought in.

    A thread of its own, since nobody else may come by: the source can be silent, and the stuck
    call can take for ever. It runs only while there is one thread at work.
    """

    def __init__(
        self,
        pace: Pace,
        is_stuck: Callable[[int], tuple[bool, int]],
        wake: Callable[[], None],
        died: Died | None = None,
    ) -> None:
        self._pace = pace
        self._is_stuck = is_stuck
        self._wake = wake
        self._died = died
        self._needed = threading.Event()
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._started = False

    def look(self) -> None:
        """The one thread has something to do."""
        if not self._started:
            self._start()
        if not self._needed.is_set():  # asking costs a tenth of setting it
            self._needed.set()

    def stop(self) -> None:
        self._stopped.set()
        self._needed.set()

    def _start(self) -> None:
        with self._lock:
            if self._started or self._stopped.is_set():
                return
            with contextlib.suppress(RuntimeError):  # no more threads can be started: later, then
                start_thread("rxtweets-watch", self._run, self._fail)
                self._started = True

    def _fail(self, error: BaseException) -> None:
        """Nobody looks after the one thread any more, so all are brought in."""
        self._pace.leave()
        try:
            if self._died is not None:
                self._died(error)
        finally:
            self._wake()

    def _run(self) -> None:
        taken, quiet, looks = -1, 0, 0
        while self._needed.wait() and not self._stopped.wait(WATCH):
            before = taken
            stuck, taken = self._is_stuck(taken)
            looks = looks + 1 if stuck else 0
            if looks >= LOOKS and self._pace.is_quick:
                self._pace.leave()
                self._wake()
            quiet = quiet + 1 if taken == before else 0
            if quiet > 1 and not stuck:
                self._needed.clear()
                quiet = 0
                # Work has come since the look, or the end.
                if self._stopped.is_set() or self._is_stuck(taken) != (False, taken):
                    self._needed.set()
