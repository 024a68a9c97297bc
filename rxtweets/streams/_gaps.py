"""Whether anything is missing between one connection and the next, and what is asked for then.

X sends again what came up to five minutes before a connection (``backfill_minutes``), to accounts
that have this. What that does not reach is lost, and is said to be.

Source: X's documentation, "recovery and redundancy".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["MOST_MINUTES", "Backfill", "Continuity", "Interval"]

Backfill = int | Literal["auto"] | None

MOST_MINUTES = 5
MINUTE = 60.0
MARGIN = 30.0
"""Seconds asked for beyond the gap: for making the connection, and for tweets that X delivers
late, which 99 of 100 are by less than 7 s."""

LATENESS = 10.0
"""Seconds of that which are for late tweets."""

OLDEST = (MOST_MINUTES + 1) * MINUTE
"""Seconds; what X sends is no older than its backfill reaches, and a little for the way."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A time of which nothing is known, in seconds since 1970."""

    start: float
    end: float


class Continuity:
    """Follows one stream over its connections; used by one thread.

    Args:
        backfill: minutes to ask for on every connection; ``"auto"`` for as many as the gap needs,
            ``None`` for none.
        alive_until: until when an earlier run has read the stream, in seconds since 1970.
        scale: length of a minute, in minutes, to rehearse minutes in seconds.
    """

    def __init__(
        self, backfill: Backfill, alive_until: float | None = None, scale: float = 1.0
    ) -> None:
        self._backfill = backfill
        self._scale = scale
        self.alive_until = alive_until

    def alive(self, now: float) -> None:
        """The stream spoke: whatever there was until now has been read."""
        self.alive_until = now

    def lagging(self, written: float, received: float) -> None:
        """A connection ended, and its last message was late.

        What comes late, or out of a backfill, was read long after it was written: then what was
        written since is not known yet, although the stream spoke until now. X itself delivers 99
        of 100 tweets within 7 seconds, so as much as `LATENESS` says nothing; what is older than
        any backfill comes from a recording; and if only keep-alives came for a while since then,
        there was nothing more to be late.

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
        """How many minutes of backfill the next connection has to ask for; 0 for none."""
        if self._backfill != "auto":
            return self._backfill or 0
        if self.alive_until is None:
            return 0
        # A clock that was set back makes no gap of less than nothing.
        elapsed = max(0.0, now - self.alive_until) / self._scale
        return min(MOST_MINUTES, math.ceil((elapsed + MARGIN) / MINUTE))

    def refuse(self) -> None:
        """The server does not give backfill: ask for none any more."""
        self._backfill = None

    def gap(self, connected: float, minutes: int) -> Interval | None:
        """What stays unknown before a connection, if anything does.

        Where backfill reaches what was read last, but not the tweets that were late by then, it
        is those last seconds.

        Args:
            connected: when the server answered.
            minutes: of backfill that were asked for.
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
