"""The posts that X bills, counted by day, and limits to them.

X bills each delivered post once in a UTC day ("pricing"), so duplicates cost nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rxtweets._messages.message import Message
from rxtweets._support.validation import seconds, whole_number

__all__ = ["Limit", "PostMeter", "Quota", "checked_limit"]

DAY = 86_400
REMEMBERED = 50_000
"""Ids of a generation; two are kept. One holds twice the five minutes of backfill at 250 posts a
second. Duplicates come from backfill or from a second connection at the same time."""


class PostMeter:
    """Counts the distinct posts of the current UTC day; thread-safe.

    A post that returns after more than 50,000 others counts again.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._day = 0
        self._count = 0
        self._recent: set[str | bytes] = set()
        self._before: set[str | bytes] = set()

    def count(self, messages: list[Message[Any]]) -> None:
        """Add the posts."""
        ids: set[str | bytes] = {message.id or message.raw for message in messages}
        with self._lock:
            self._start_day()
            ids -= self._recent
            ids -= self._before
            self._count += len(ids)
            self._recent |= ids
            if len(self._recent) > REMEMBERED:
                self._before, self._recent = self._recent, set()

    def today(self) -> int:
        """Return the number of distinct posts since midnight UTC."""
        with self._lock:
            self._start_day()
            return self._count

    def _start_day(self) -> None:
        day = int(self._clock() // DAY)
        if day != self._day:
            self._day, self._count = day, 0
            self._recent, self._before = set(), set()


@dataclass(frozen=True, slots=True)
class Limit:
    """The limit at which a stream completes.

    Attributes:
        messages: after this many delivered messages; ``None`` for no such limit.
        seconds: this long after the first subscription; ``None`` for no such limit.
    """

    messages: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"{self.seconds:g} s"
        return "" if self.messages is None else f"{self.messages:,} messages"


@dataclass(slots=True)
class Quota:
    """The rest of a limit of messages; the connections of a merged stream share one.

    Attributes:
        left: messages that the limit still admits.
    """

    left: int


def checked_limit(value: Any) -> Limit:
    """Return the option ``limit=`` as a limit: a whole number of messages, or a timedelta.

    Raises:
        ConfigurationError: it is neither.
    """
    if value is None:
        return Limit()
    if isinstance(value, timedelta):
        return Limit(seconds=seconds("limit", value))
    return Limit(messages=whole_number("limit", value))
