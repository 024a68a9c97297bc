"""`Concurrency`: a limit of concurrent calls that can be changed while they run."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rxtweets._support.validation import whole_number

__all__ = ["Concurrency"]


class Concurrency:
    """A limit of concurrent calls, for one or several operators; from any thread.

    ::

        concurrency = rxtweets.Concurrency(10)
        stream.pipe(ops.process(handler, concurrency))
        concurrency.limit = 50            # forty more calls may start now

    A smaller limit interrupts no call: running calls end, and no others start in their place. The
    limit applies to each operator separately.

    Args:
        limit: concurrent calls, 1 or more.

    Raises:
        ConfigurationError: the limit is not a whole number of 1 or more.
    """

    def __init__(self, limit: int = 50) -> None:
        self._limit = whole_number("limit", limit)
        self._lock = threading.Lock()
        self._watchers: tuple[Callable[[], None], ...] = ()

    @property
    def limit(self) -> int:
        """Concurrent calls; can be set from any thread, with immediate effect."""
        return self._limit

    @limit.setter
    def limit(self, value: int) -> None:
        with self._lock:
            self._limit = whole_number("limit", value)
            watchers = self._watchers
        for changed in watchers:
            changed()

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call the function after every change, until the returned function is called."""

        def remove() -> None:
            with self._lock:
                self._watchers = tuple(other for other in self._watchers if other is not changed)

        with self._lock:
            self._watchers += (changed,)
        return remove

    def __repr__(self) -> str:
        return f"Concurrency(limit={self._limit})"
