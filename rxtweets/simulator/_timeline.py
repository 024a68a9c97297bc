"""What one connection is told, and when: frames on demand, or by the clock as on X."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from rxtweets.simulator._feed import Feed, Frames
from rxtweets.simulator._pace import TAKEN, TICK, Due

__all__ = ["LiveTape", "OnDemandTape", "Select", "Tape", "Timeline"]

Select = Callable[[int, bytes], bytes | None]
"""From a position and its frame to what a connection gets of it; ``None`` for nothing."""

NEVER = 3600.0

LOOKED_AT = 2_048
"""Positions looked at in one go: where few are chosen, the client is seen to in between."""


class Tape(ABC):
    """What one connection is told."""

    ended = False
    """Nothing more will come."""

    is_replay = False
    """Of the past only: at its end the connection ends."""

    @abstractmethod
    def take(self, most: float) -> list[bytes]:
        """The frames that are due by now, so many at most."""

    @abstractmethod
    def rest(self) -> float:
        """Seconds until it is worth asking again."""

    def behind(self) -> int:
        """How many frames wait, beyond those that lay in the past when the tape began."""
        return 0

    def pace(self, rate: float | None) -> None:  # noqa: B027 - the clock paces itself
        """Go on at another rate, from now on; ``None`` for that of the server."""


class OnDemandTape(Tape):
    """Frames come as they are asked for: nothing happens while nobody listens.

    Args:
        feed: the frames.
        rate: a second.
        burst: frames that come together.
        select: which of them, and how.
    """

    def __init__(self, feed: Feed, rate: float, burst: int, select: Select) -> None:
        self._feed = feed
        self._rate = rate
        self._burst = burst
        self._select = select
        self._due = Due(rate, burst)
        self._is_idle = False

    def pace(self, rate: float | None) -> None:
        """See `Tape`."""
        self._due = Due(self._rate if rate is None else rate, self._burst)

    def take(self, most: float) -> list[bytes]:
        """See `Tape`."""
        count = int(min(self._due.now(), most))
        frames = self._feed.take(count) if count else []
        self.ended = self._feed.ended
        self._due.paid(len(frames))
        kept = [self._select(position, frame) for position, frame in frames]
        chosen = [frame for frame in kept if frame is not None]
        self._is_idle = not chosen
        return chosen

    def rest(self) -> float:
        """See `Tape`."""
        if self.ended:
            return NEVER
        return max(self._due.rest(), self._feed.rest(), TICK if self._is_idle else 0.0)


class Timeline:
    """Positions and their times: something happens so many times a second, listened to or not.

    Args:
        rate: positions a second.
        history: seconds of it that lie in the past already.
        clock: monotonic seconds.
        wall: seconds since 1970, asked once.
    """

    def __init__(
        self,
        rate: float,
        history: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._began = clock() - history
        self.start = wall() - history

    def now(self) -> float:
        """Seconds since 1970."""
        return self.start + self._clock() - self._began

    def until(self, moment: float) -> int:
        """The first position that is later than the moment."""
        if not self.rate or moment < self.start:
            return 0
        return math.floor((moment - self.start) * self.rate) + 1

    def since(self, moment: float) -> int:
        """The first position that is not earlier than the moment."""
        if not self.rate or moment < self.start:
            return 0
        return math.ceil((moment - self.start) * self.rate)

    def time_of(self, position: int) -> float:
        """When it happened, or will."""
        return self.start + position / self.rate


class LiveTape(Tape):
    """What happens by the clock, from some time on.

    Args:
        timeline: when what happens.
        frames: what it is.
        select: which of it, and how.
        since: position to begin with.
        until: position to end before; ``None`` for never.
        share: of so many positions one is the connection's, its stream being partitioned.
    """

    def __init__(
        self,
        timeline: Timeline,
        frames: Frames,
        select: Select,
        since: int,
        until: int | None,
        share: int = 1,
    ) -> None:
        self._timeline = timeline
        self._frames = frames
        self._select = select
        self._next = since
        self._until = until
        self._share = share
        # What lay in the past already was not missed by being slow.
        self._backlog = max(0, timeline.until(timeline.now()) - since)
        self.is_replay = until is not None

    def take(self, most: float) -> list[bytes]:
        """See `Tape`."""
        timeline = self._timeline
        due = timeline.until(timeline.now())
        last = due if self._until is None else min(due, self._until)
        chosen: list[bytes] = []
        looked_at_last = min(last, self._next + LOOKED_AT)
        while self._next < looked_at_last and len(chosen) < min(most, TAKEN) and not self.ended:
            position = self._next
            self._next += 1
            frame = self._frames.at(position, timeline.time_of(position))
            self.ended = frame is None
            kept = None if frame is None else self._select(position, frame)
            if kept is not None:
                chosen.append(kept)
        if self._next >= due:
            self._backlog = 0
        self.ended = self.ended or (self._until is not None and self._next >= self._until)
        return chosen

    def rest(self) -> float:
        """See `Tape`."""
        timeline = self._timeline
        if self.ended or not timeline.rate:
            return NEVER
        if self._next < timeline.until(timeline.now()):
            return 0.0
        return max(TICK, timeline.time_of(self._next) - timeline.now())

    def behind(self) -> int:
        """See `Tape`."""
        if self.is_replay:
            return 0
        timeline = self._timeline
        waiting = timeline.until(timeline.now()) - self._next - self._backlog
        return max(0, waiting) // self._share
