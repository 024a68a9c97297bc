"""The rate of messages over the last seconds."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

__all__ = ["Throughput"]

WINDOW = 10
"""Seconds of which a rate is the average."""


class Throughput:
    """A counter with a rate; from any thread.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._started = clock()
        self._recent: deque[list[float]] = deque()  # seconds and their counts

    def add(self, count: int) -> None:
        with self._lock:
            second = self._clock() // 1
            self.total += count
            if self._recent and self._recent[-1][0] == second:
                self._recent[-1][1] += count
            else:
                self._recent.append([second, count])
                self._forget(second)

    def rate(self) -> float:
        """Return the count per second over the last ten, or since the start."""
        now = self._clock()
        with self._lock:
            self._forget(now // 1)
            recent = sum(count for _, count in self._recent)
        # The current second is not complete.
        return recent / min(WINDOW - 1 + now % 1, max(1.0, now - self._started))

    def _forget(self, second: float) -> None:
        while self._recent and self._recent[0][0] <= second - WINDOW:
            self._recent.popleft()
