"""How many tweets are due by now."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

__all__ = ["TAKEN", "TICK", "Due"]

TAKEN = 64
"""Tweets taken at once when there is no rate."""

TICK = 0.002
"""Seconds that a paced stream sleeps at least; tweets due meanwhile go out together."""

DEBT = 1.0
"""Seconds of tweets that are caught up after the client kept the server waiting."""


class Due:
    """How many tweets are due by now, at a rate, in bursts."""

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._since = clock()
        self._paid = 0

    def now(self) -> int:
        """Tweets that are due."""
        if math.isinf(self._rate):
            return TAKEN
        if not self._rate:
            return 0
        passed = self._clock() - self._since
        owed = int(passed * self._rate) // self._burst * self._burst + self._burst - self._paid
        limit = max(self._burst, int(self._rate * DEBT))
        if owed > limit:
            self._paid += owed - limit
        return min(owed, limit)

    def paid(self, count: int) -> None:
        """So many were sent."""
        self._paid += count

    def rest(self) -> float:
        """Seconds until more are due."""
        if math.isinf(self._rate):
            return 0.0
        if not self._rate:
            return 3600.0
        return max(TICK, self._paid / self._rate - (self._clock() - self._since))
