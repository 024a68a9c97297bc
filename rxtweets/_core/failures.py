"""The latest failures of a stream."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from rxtweets._core.events import Event

__all__ = ["KEPT", "Failure", "Failures"]

KEPT = 30
"""Failures kept; older ones are dropped, as a failed batch holds all its messages."""

SHOWN = 100
"""Characters of the text in a repr; ``str(failure)`` has all of them."""


@dataclass(frozen=True, slots=True, repr=False)
class Failure:
    """A failure in a stream or in a stage downstream of it, as in ``stream.errors``.

    Attributes:
        at: seconds since 1970.
        text: the line of the log.
        event: the event, with its message, batch, bytes or exception.
    """

    at: float
    text: str
    event: Event

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        when = datetime.fromtimestamp(self.at, UTC)
        text = self.text if len(self.text) <= SHOWN else self.text[: SHOWN - 1] + "…"
        return f"Failure({when:%Y-%m-%dT%H:%M:%SZ}, {text!r})"


class Failures:
    def __init__(self) -> None:
        self._latest: deque[Failure] = deque(maxlen=KEPT)
        self._lock = threading.Lock()

    def add(self, failure: Failure) -> None:
        with self._lock:
            self._latest.append(failure)

    def __iter__(self) -> Iterator[Failure]:
        with self._lock:
            return iter(tuple(self._latest))
