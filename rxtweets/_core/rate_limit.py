"""`RateLimit`: messages in an interval, shared by streams and changed while they run."""

from __future__ import annotations

from datetime import timedelta

from rxtweets._core.valve import Permit
from rxtweets._support.validation import seconds, whole_number

__all__ = ["RateLimit"]


class RateLimit(Permit):
    """At most ``allowed`` messages in each ``interval``, over all streams that share it.

    The first interval starts with the first message, and intervals do not overlap. Room that is not
    used in one interval is not kept for the next. All methods are thread-safe.

    Args:
        allowed: most messages in an interval; ``None`` for no limit.
        interval: seconds.

    Raises:
        ConfigurationError: an argument is invalid.
    """

    def __init__(self, allowed: int | None, interval: float | timedelta) -> None:
        super().__init__()
        self._allowed = None if allowed is None else whole_number("allowed", allowed)
        self._interval = seconds("interval", interval)
        self._next = (self._allowed, self._interval)
        self._ends: float | None = None
        self._used = 0

    @property
    def allowed(self) -> int | None:
        """Most messages in an interval, from the next interval on; ``None`` for no limit."""
        return self._next[0]

    @property
    def interval(self) -> float:
        """Seconds, from the next interval on."""
        return self._next[1]

    def update(
        self,
        *,
        allowed: int | None = None,
        interval: float | timedelta | None = None,
        reset: bool = False,
    ) -> None:
        """Change the limit at the end of the running interval, or immediately.

        Args:
            allowed: most messages in an interval; ``None`` keeps it.
            interval: seconds; ``None`` keeps it.
            reset: start a new interval now.

        Raises:
            ConfigurationError: an argument is invalid.
        """
        most = self.allowed if allowed is None else whole_number("allowed", allowed)
        length = self.interval if interval is None else seconds("interval", interval)
        with self._changed:
            self._next = (most, length)
            if self._allowed is None:  # without a limit no interval runs that could end
                self._allowed, self._interval = self._next
            if reset:
                self._ends = None
        self.wake()

    def lift(self) -> None:
        """Remove the limit now, until `update` sets one."""
        with self._changed:
            self._next = (None, self._interval)
        self.reset()

    def reset(self) -> None:
        """Start a new interval now."""
        with self._changed:
            self._ends = None
        self.wake()

    def room(self, now: float) -> tuple[int | None, float | None]:
        """Return how many messages may pass, and when the interval ends."""
        with self._changed:
            if self._ends is None or now >= self._ends:
                self._allowed, self._interval = self._next
                self._ends, self._used = None, 0
            room = None if self._allowed is None else max(0, self._allowed - self._used)
            return room, now if self._ends is None else self._ends

    def take(self, wanted: int, now: float) -> tuple[int, float | None]:
        """Take room for messages; the first ones start an interval."""
        with self._changed:
            taken, ends = super().take(wanted, now)
            if taken and self._ends is None and self._allowed is not None:
                self._ends = now + self._interval
            self._used += taken
            return taken, ends

    def __repr__(self) -> str:
        return f"RateLimit({self.allowed!r}, {self.interval!r})"
