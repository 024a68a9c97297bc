"""Silence on a connection: noticed by a thread that waits for it, not by the one that reads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Watchdog"]


class Watchdog:
    """Calls back once if nobody touches it for a while; a thread while it is running.

    Args:
        seconds: of silence until then.
        on_silence: called once, on the thread of the watchdog.
    """

    def __init__(self, seconds: float, on_silence: Callable[[], None]) -> None:
        self._seconds = seconds
        self._on_silence = on_silence
        self._touched = 0.0
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin to watch."""
        self.touch()
        threading.Thread(target=self._run, name="rxtweets-watchdog", daemon=True).start()

    def touch(self) -> None:
        """Note a sign of life; costs next to nothing."""
        self._touched = time.monotonic()

    def stop(self) -> None:
        """Watch no more; the thread ends."""
        self._stopped.set()

    def _run(self) -> None:
        rest = self._seconds
        while not self._stopped.wait(rest):
            rest = self._touched + self._seconds - time.monotonic()
            if rest <= 0:
                self._on_silence()
                return
