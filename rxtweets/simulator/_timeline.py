"""Which frames a connection gets next: on demand, or by the clock as on X."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from rxtweets.simulator._frames import FrameSource

__all__ = ["Cursor", "LiveCursor", "OnDemandCursor", "Select", "Timeline"]

Select = Callable[[int, bytes], bytes | None]
"""From a position and its frame to the frame that a connection gets; ``None`` for none."""

NEVER = 3600.0

TICK = 0.002
"""Seconds that a paced stream sleeps at least; frames that become due meanwhile go together."""

MOST_AT_ONCE = 64

MOST_OVERDUE = 1.0
"""Seconds of frames that are sent together after the client kept the server waiting."""

MOST_EXAMINED = 2_048
"""Positions examined in one call. Where a selection is sparse, the client is served in between."""


class Cursor(ABC):
    """The place of one connection in a stream."""

    ended = False
    """Nothing more will come."""

    is_replay = False
    """The end of the frames ends the connection."""

    @abstractmethod
    def take(self, most: float) -> list[bytes]:
        """Return the frames that are due, at most ``most`` of them."""

    @abstractmethod
    def delay(self) -> float:
        """Return the seconds until the next `take`."""

    def backlog(self) -> int:
        """Return how many frames wait for the client, without those from before it connected."""
        return 0

    def set_rate(self, rate: float | None) -> None:  # noqa: B027 - the clock has its own rate
        """Change the rate, in frames a second; ``None`` for the rate of the server."""


class OnDemandCursor(Cursor):
    """Frames at a rate, as the client takes them.

    Args:
        source: the frames.
        rate: frames a second.
        burst: frames sent together.
        select: which of the frames, and how.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        source: FrameSource,
        rate: float,
        burst: int,
        select: Select,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._usual_rate = rate
        self._burst = burst
        self._select = select
        self._clock = clock
        self._is_idle = False
        self.set_rate(None)

    def set_rate(self, rate: float | None) -> None:
        self._rate = self._usual_rate if rate is None else rate
        self._since = self._clock()
        self._sent = 0

    def take(self, most: float) -> list[bytes]:
        count = int(min(self._due(), most))
        frames = self._source.take(count) if count else []
        self._sent += len(frames)
        self.ended = self._source.ended
        selected = [self._select(position, frame) for position, frame in frames]
        chosen = [frame for frame in selected if frame is not None]
        self._is_idle = not chosen
        return chosen

    def delay(self) -> float:
        if self.ended or not self._rate:
            return NEVER
        until_due = self._sent / self._rate - (self._clock() - self._since)
        is_paced = self._is_idle or not math.isinf(self._rate)
        return max(until_due, self._source.delay(), TICK if is_paced else 0.0)

    def _due(self) -> int:
        if math.isinf(self._rate):
            return MOST_AT_ONCE
        if not self._rate:
            return 0
        bursts = int((self._clock() - self._since) * self._rate) // self._burst + 1
        due = bursts * self._burst - self._sent
        limit = max(self._burst, int(self._rate * MOST_OVERDUE))
        self._sent += max(0, due - limit)
        return min(due, limit)


class Timeline:
    """Positions of a stream and their times, which pass even if no client reads.

    Args:
        rate: positions a second.
        history: seconds of it that lie before the start.
        clock: monotonic seconds.
        wall: seconds since 1970, read once.
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
        self._started = clock() - history
        self.start: float = wall() - history

    def now(self) -> float:
        """Return the time, in seconds since 1970."""
        return self.start + self._clock() - self._started

    def due(self) -> int:
        """Return the first position that is not due yet."""
        return self.position_after(self.now())

    def position_after(self, moment: float) -> int:
        """Return the first position later than the moment."""
        if not self.rate or moment < self.start:
            return 0
        return math.floor((moment - self.start) * self.rate) + 1

    def position_at(self, moment: float) -> int:
        """Return the first position not earlier than the moment."""
        if not self.rate or moment < self.start:
            return 0
        return math.ceil((moment - self.start) * self.rate)

    def time_of(self, position: int) -> float:
        """Return the time of a position."""
        return self.start + position / self.rate


class LiveCursor(Cursor):
    """Frames by the clock, from a position on.

    Args:
        timeline: the times of the positions.
        source: the frames.
        select: which of the frames, and how.
        start: the first position.
        end: the position behind the last one; ``None`` for no end.
        partitions: into how many parts the stream is divided; the connection gets one of them.
    """

    def __init__(
        self,
        timeline: Timeline,
        source: FrameSource,
        select: Select,
        start: int,
        end: int | None,
        partitions: int = 1,
    ) -> None:
        self._timeline = timeline
        self._source = source
        self._select = select
        self._next = start
        self._end = end
        self._partitions = partitions
        # The client is not slow because of frames from before it connected.
        self._past = max(0, timeline.due() - start)
        self.is_replay = end is not None

    def take(self, most: float) -> list[bytes]:
        due = self._timeline.due()
        last = min(due, self._next + MOST_EXAMINED)
        if self._end is not None:
            last = min(last, self._end)
        chosen: list[bytes] = []
        while self._next < last and len(chosen) < min(most, MOST_AT_ONCE) and not self.ended:
            position = self._next
            self._next += 1
            frame = self._source.at(position, self._timeline.time_of(position))
            self.ended = frame is None
            selected = None if frame is None else self._select(position, frame)
            if selected is not None:
                chosen.append(selected)
        if self._next >= due:
            self._past = 0
        self.ended = self.ended or (self._end is not None and self._next >= self._end)
        return chosen

    def delay(self) -> float:
        timeline = self._timeline
        if self.ended or not timeline.rate:
            return NEVER
        if self._next < timeline.due():
            return 0.0
        return max(TICK, timeline.time_of(self._next) - timeline.now())

    def backlog(self) -> int:
        if self.is_replay:
            return 0
        return max(0, self._timeline.due() - self._next - self._past) // self._partitions
