"""Silence on a connection: noticed by a thread that waits for it, not by the one that reads."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from time import monotonic

from rxtweets._support.workers import Died, start_thread

__all__ = ["Watchdog"]

SUSPICIOUS = 0.75
"""Share of the time after which silence is remarked upon: with 30 s, past the 20 s at which X
sends a keep-alive."""


class Watchdog:
    """Calls back once if nobody touches it for a while; a thread while it is running.

    Args:
        seconds: of silence until then.
        on_silence: called once, on the thread of the watchdog.
        on_suspicion: called on the same thread each time three quarters of it have passed.
        died: takes what one of these raised; then nobody watches any more.
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
        """Begin to watch."""
        self.touch()
        start_thread("rxtweets-watchdog", self._run, self._died)

    def touch(self) -> None:
        """Note a sign of life; costs next to nothing."""
        self._touched = monotonic()

    def hold(self) -> None:
        """Look away until the next touch: nobody listens, so silence says nothing."""
        self._touched = math.inf

    def stop(self) -> None:
        """Watch no more; the thread ends."""
        self._stopped.set()

    def _run(self) -> None:
        suspected = -1.0
        rest = self._seconds * SUSPICIOUS
        while not self._stopped.wait(rest):
            touched = self._touched
            silent = max(0.0, monotonic() - touched)
            if silent >= self._seconds:
                self._on_silence()
                return
            if silent >= self._seconds * SUSPICIOUS:
                if touched != suspected:
                    suspected = touched
                    self._on_suspicion()
                rest = self._seconds - silent
            else:
                rest = self._seconds * SUSPICIOUS - silent
