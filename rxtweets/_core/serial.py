"""Several sources, one observer: one call at a time, and one end after the last source."""

from __future__ import annotations

import threading
from typing import Any

from reactivex import abc

__all__ = ["SerialObserver"]


class SerialObserver:
    """Passes on the values of several sources, one call at a time; thread-safe.

    A call from inside a call is passed on immediately. The first error is passed on when all
    sources have ended.

    Args:
        observer: takes the values.
        sources: number of sources.
    """

    def __init__(self, observer: abc.ObserverBase[Any], sources: int) -> None:
        self._observer = observer
        self._left = sources
        self._error: Exception | None = None
        self.lock = threading.RLock()

    def on_next(self, value: Any) -> None:
        """Pass a value on."""
        with self.lock:
            self._observer.on_next(value)

    def source_ended(self, error: Exception | None = None) -> None:
        """Note the end of a source; end the observer with the last."""
        with self.lock:
            self._left -= 1
            self._error = self._error or error
            if self._left:
                return
            if self._error is None:
                self._observer.on_completed()
            else:
                self._observer.on_error(self._error)
