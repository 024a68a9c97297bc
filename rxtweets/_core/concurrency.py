"""How many calls may run at once: a number that can be changed while they run."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rxtweets._support.validation import whole_number

__all__ = ["Concurrency"]


class Concurrency:
    """A limit that several operators may share the reading of, and anybody may change.

    ::

        hands = rxtweets.Concurrency(10)
        stream.pipe(ops.process(handler, hands))
        hands.limit = 50                  # forty more may begin at once

    A smaller limit interrupts no call: those above it end, and no other begins in their place.
    Each operator that is given it may run so many calls of its own.

    Args:
        limit: calls at once at most, 1 or more.

    Raises:
        ConfigurationError: the limit is no such number.
    """

    def __init__(self, limit: int = 50) -> None:
        self._limit = whole_number("limit", limit)
        self._lock = threading.Lock()
        self._watchers: tuple[Callable[[], None], ...] = ()

    @property
    def limit(self) -> int:
        """Calls at once at most; set it from any thread, and it holds when that returns."""
        return self._limit

    @limit.setter
    def limit(self, value: int) -> None:
        with self._lock:
            self._limit = whole_number("limit", value)
            watchers = self._watchers
        for changed in watchers:
            changed()

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` after every change, until the returned function is called."""
        with self._lock:
            self._watchers += (changed,)

        def remove() -> None:
            with self._lock:
                self._watchers = tuple(each for each in self._watchers if each is not changed)

        return remove

    def __repr__(self) -> str:
        return f"Concurrency(limit={self._limit})"
