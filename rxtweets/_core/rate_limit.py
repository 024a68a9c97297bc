"""`RateLimit`: so many messages in so much time, shared and changed while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

from rxtweets._support.validation import seconds, whole_number

__all__ = ["RateLimit"]


class RateLimit:
    """At most ``allowed`` messages in each ``interval``, over all that share it; thread-safe.

    Intervals follow each other without overlap, the first begins with the first message. What is
    not used in one is not saved for the next.

    Args:
        allowed: messages in an interval at most; ``None`` for no limit.
        interval: seconds.

    Raises:
        ConfigurationError: an argument cannot work.
    """

    def __init__(self, allowed: int | None, interval: float | timedelta) -> None:
        self._allowed = None if allowed is None else whole_number("allowed", allowed)
        self._interval = seconds("interval", interval)
        self._next = (self._allowed, self._interval)
        self._changed = threading.Condition(threading.RLock())
        self._listeners: list[Callable[[], None]] = []
        self._ends: float | None = None
        self._used = 0

    @property
    def allowed(self) -> int | None:
        """Messages in an interval at most, from the next interval on; ``None`` for no limit."""
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
        """Change it: when the running interval ends, or at once.

        Args:
            allowed: messages in an interval at most; ``None`` leaves it as it is.
            interval: seconds; ``None`` leaves it as it is.
            reset: begin a new interval now.

        Raises:
            ConfigurationError: an argument cannot work.
        """
        most = self.allowed if allowed is None else whole_number("allowed", allowed)
        length = self.interval if interval is None else seconds("interval", interval)
        with self._changed:
            self._next = (most, length)
            if self._allowed is None:  # there is no interval that could end
                self._allowed, self._interval = self._next
        if reset:
            self.reset()
        else:
            self.wake()

    def lift(self) -> None:
        """There is no limit any more, from now on, until `update` sets one."""
        with self._changed:
            self._next = (None, self._interval)
        self.reset()

    def reset(self) -> None:
        """Begin a new interval now."""
        with self._changed:
            self._ends = None
        self.wake()

    def wake(self) -> None:
        """Let those who wait look again."""
        with self._changed:
            self._changed.notify_all()
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()

    def take(self, wanted: int, now: float) -> tuple[int, float]:
        """Take what may go now of so many messages; and the time at which more may.

        Args:
            wanted: messages, 1 or more.
            now: seconds of a clock that all who share the limit use.
        """
        with self._changed:
            room, ends = self._room(now)
            taken = wanted if room is None else min(wanted, room)
            if taken and self._ends is None and room is not None:
                self._ends = ends = now + self._interval
            self._used += taken
            return taken, ends

    def wait_for_room(
        self, until: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> int | None:
        """Wait until a message may go, or until something else has come true.

        Returns:
            How many may go; ``None`` for any number.
        """
        with self._changed:
            while not until():
                now = clock()
                room, ends = self._room(now)
                if room is None or room > 0:
                    return room
                self._changed.wait(max(0.0, ends - now))
            return 0

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call this whenever the limit was changed, until the returned function is called."""
        with self._changed:
            self._listeners.append(listener)

        def remove() -> None:
            with self._changed:
                self._listeners = [each for each in self._listeners if each is not listener]

        return remove

    def __repr__(self) -> str:
        return f"RateLimit({self.allowed!r}, {self.interval!r})"

    def _room(self, now: float) -> tuple[int | None, float]:
        """How many may go now, and when the interval ends."""
        if self._ends is None or now >= self._ends:
            self._allowed, self._interval = self._next
            self._ends, self._used = None, 0
        room = None if self._allowed is None else max(0, self._allowed - self._used)
        return room, now if self._ends is None else self._ends
