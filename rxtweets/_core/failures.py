"""The latest things that went wrong, kept where they can be looked at."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from rxtweets._core.events import Event
from rxtweets._core.log import line_for

__all__ = ["KEPT", "Failure", "Failures"]

SHOWN = 100
"""Characters of the text in a repr; all of them are in ``str(failure)``."""

KEPT = 30
"""Failures that are kept; older ones are only counted, as a failed batch holds all its messages."""


@dataclass(frozen=True, slots=True, repr=False)
class Failure:
    """Something that went wrong in a stream or in a stage behind it.

    Attributes:
        at: when, in seconds since 1970.
        text: what, as in the log.
        event: with everything that is known: the message, the batch, the bytes, the exception.
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
    """Keeps the latest events that the log would call warnings or errors.

    Attributes:
        count: of all there were.
    """

    def __init__(self) -> None:
        self._latest: deque[Failure] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self.count = 0

    def __call__(self, event: Event) -> None:
        """Keep the event if something went wrong with it."""
        level, text = line_for(event)
        if level < logging.WARNING:
            return
        where = f"{event.part}: " if event.part else ""
        with self._lock:
            self.count += 1
            self._latest.append(Failure(time.time(), where + " ".join(text.split()), event))

    def __iter__(self) -> Iterator[Failure]:
        with self._lock:
            return iter(tuple(self._latest))
