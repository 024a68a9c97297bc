"""A watchdog that detects a silent connection on a separate thread."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from time import monotonic

from rxtweets._support.workers import Died, start_thread

__all__ = ["Watchdog"]

SUSPICIOUS = 0.75
"""Share of the time until the first callback: of 30 s, more than the 20 s between X's keep-alives.
"""


class Watchdog:
    """Calls back once after a time without a `touch`; it has a thread while it runs.

    Args:
        seconds: of silence until the callback.
        on_silence: called once, on the thread of the watchdog.
        on_suspicion: called on the same thread each time three quarters of the time have passed.
        died: called with the error of a callback, which ends the watchdog.
    """

    def __init__(
        self,
        seconds: float,
        on_silence: Callable[[], None],
        on_suspicion: Callable[[], None] = lambda: None,
        died: Died | None = None,
    ) -> None:
        self._seconds = seconds
        self._on_silence = on_silence
        self._on_suspicion = on_suspicion
        self._died = died
        self._touched = 0.0
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        self.touch()
        start_thread("rxtweets-watchdog", self._run, self._died)

    def touch(self) -> None:
        """Restart the time of silence."""
        self._touched = monotonic()

    def hold(self) -> None:
        """Pause until the next `touch`, because no thread reads."""
        self._touched = math.inf

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()

    def _run(self) -> None:
        suspected, first = -1.0, self._seconds * SUSPICIOUS
        rest = first
        while not self._stopped.wait(rest):
            touched = self._touched
            silent = max(0.0, monotonic() - touched)
            if silent >= self._seconds:
                self._on_silence()
                return
            if silent >= first and touched != suspected:
                suspected = touched
                self._on_suspicion()
            rest = (self._seconds if silent >= first else first) - silent
