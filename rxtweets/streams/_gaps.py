"""Gaps between connections: the backfill to request, and the rest that stays missing.

X repeats up to five minutes before a connection (``backfill_minutes``) for accounts that have
backfill. Older messages are lost and reported.

Source: X's documentation, "recovery and redundancy".
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

__all__ = [
    "MOST_MINUTES",
    "Backfill",
    "GapTracker",
    "Interval",
    "SharedGaps",
    "overlap",
    "subtract",
]

Backfill = int | Literal["auto"] | None

MOST_MINUTES = 5
MINUTE = 60.0
MARGIN = 30.0
"""Seconds requested beyond the gap: connecting takes time, and X delivers some tweets late. X says
that 99 of 100 are late by less than 7 s."""

LATENESS = 10.0
"""Seconds of the margin that cover late tweets."""

OLDEST = (MOST_MINUTES + 1) * MINUTE
"""Seconds. Older messages come from a recording, not from a backfill."""

KEPT = 1_000
"""Intervals that `SharedGaps` keeps for each connection."""


class Interval(NamedTuple):
    """A time without messages, in seconds since 1970."""

    start: float
    end: float


def overlap(interval: Interval, others: Iterable[Interval]) -> list[Interval]:
    """Return the pieces of the interval that lie in one of the others."""
    pieces = [Interval(max(interval.start, a), min(interval.end, b)) for a, b in others]
    return [piece for piece in pieces if piece.start < piece.end]


def subtract(interval: Interval, others: Iterable[Interval]) -> list[Interval]:
    """Return the pieces of the interval that lie in none of the others."""
    pieces = [interval]
    for start, end in others:
        sides = [(Interval(a, min(b, start)), Interval(max(a, end), b)) for a, b in pieces]
        pieces = [side for pair in sides for side in pair if side.start < side.end]
    return pieces


class SharedGaps:
    """Finds the gaps that all redundant connections have in common; thread-safe.

    Args:
        names: of the connections. A connection misses everything until it opens.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._missed = {name: [Interval(-math.inf, math.inf)] for name in names}
        self._reported: list[Interval] = []
        self._lock = threading.Lock()
        self.count = 0

    def opened(self, name: str, now: float) -> None:
        """End the current gap of a connection."""
        with self._lock:
            self._missed[name] = [Interval(a, min(b, now)) for a, b in self._missed[name]]

    def ended(self, name: str, now: float) -> None:
        """Begin a gap without an end: the connection does not return."""
        with self._lock:
            self._missed[name] = _bounded(self._missed[name], [Interval(now, math.inf)])

    def add(self, name: str, gap: Interval) -> list[Interval]:
        """Add a gap of one connection; return the new gaps of all connections together."""
        with self._lock:
            pieces = [gap]
            for other, missed in self._missed.items():
                if other != name:
                    pieces = [part for piece in pieces for part in overlap(piece, missed)]
            self._missed[name] = _bounded(self._missed[name], [gap])
            # A connection that does not return reports its gap, too: the pieces may be known.
            new = [part for piece in pieces for part in subtract(piece, self._reported)]
            self._reported = _bounded(self._reported, new)
            self.count += len(new)
            return new


def _bounded(intervals: Sequence[Interval], more: Sequence[Interval]) -> list[Interval]:
    return [*intervals, *more][-KEPT:]


class GapTracker:
    """Tracks one stream over its connections; used by one thread.

    Args:
        backfill: minutes to request on every connection, ``"auto"`` for as many as the gap needs,
            ``None`` for none.
        alive_until: time up to which an earlier run has read the stream, in seconds since 1970.
        scale: factor for all times, to rehearse minutes in seconds.
    """

    def __init__(
        self, backfill: Backfill, alive_until: float | None = None, scale: float = 1.0
    ) -> None:
        self._backfill = backfill
        self._scale = scale
        self.alive_until = alive_until

    def lagging(self, written: float, received: float) -> None:
        """Move `alive_until` back after a connection whose last message was late.

        Late messages come from an unfinished backfill or a slow server: later messages are still
        missing, although bytes arrived until now. Three cases prove nothing: lateness within
        `LATENESS`, messages older than `OLDEST`, and a message that only keep-alives followed.

        Args:
            written: when the message was written, in seconds since 1970.
            received: when it was read.
        """
        alive, lateness = self.alive_until, LATENESS * self._scale
        if alive is None or alive - received > lateness:
            return
        if lateness < received - written < OLDEST * self._scale:
            self.alive_until = min(alive, written + lateness)

    def minutes(self, now: float) -> int:
        """Return the minutes of backfill to request on the next connection; 0 for none."""
        if self._backfill != "auto":
            return self._backfill or 0
        if self.alive_until is None:
            return 0
        # A clock that was set back makes no negative gap.
        elapsed = max(0.0, now - self.alive_until) / self._scale
        return min(MOST_MINUTES, math.ceil((elapsed + MARGIN) / MINUTE))

    def refuse(self) -> None:
        """Request no more backfill: the server refuses it."""
        self._backfill = None

    def gap(self, connected: float, minutes: int) -> Interval | None:
        """Return the time before a connection that stays missing, if any.

        A backfill that reaches the last message, but not the late ones before it, leaves the
        last `LATENESS` seconds.

        Args:
            connected: when the server answered.
            minutes: requested backfill.
        """
        since = self.alive_until
        if since is None or connected <= since:
            return None
        if not minutes:
            return Interval(since, connected)
        reached = connected - minutes * MINUTE * self._scale
        late = since - LATENESS * self._scale
        if reached <= late:
            return None
        return Interval(since, reached) if reached > since else Interval(late, since)
