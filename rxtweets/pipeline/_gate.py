"""What stands between a source and the pipeline, so that it ends in order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from reactivex import abc

from rxtweets.events import Abandoned
from rxtweets.message import Message
from rxtweets.observable import ChunkGate, demand_of
from rxtweets.telemetry import Telemetry

__all__ = ["EndGate"]

Chunk = list[Message[Any]]


class EndGate(abc.ObserverBase[Chunk]):
    """Lets the end wait for chunks that are being passed on: a source is ended by any thread."""

    def __init__(self, observer: abc.ObserverBase[Chunk], telemetry: Telemetry) -> None:
        self._observer = ChunkGate(observer)
        self._downstream = observer
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._passing = 0
        self._end: Callable[[], None] | None = None

    def demand(self, most: int) -> int:
        """How many messages are wanted."""
        return 0 if self._end is not None else demand_of(self._downstream, most)

    def on_next(self, chunk: Chunk) -> None:
        """Pass the chunk on; after the end it is counted abandoned."""
        if not self.offer(chunk):
            self._telemetry.add(abandoned=len(chunk))
            self._telemetry.publish(Abandoned(len(chunk), "source"))

    def offer(self, chunk: Chunk) -> bool:
        """Pass the chunk on; ``False`` after the end."""
        with self._lock:
            if self._end is not None:
                return False
            self._passing += 1
        try:
            self._observer.on_next(chunk)
        finally:
            with self._lock:
                self._passing -= 1
                end = None if self._passing else self._end
        if end is not None:
            end()
        return True

    def on_error(self, error: Exception) -> None:
        """Pass the error on when nothing else is on its way."""
        self._end_with(lambda: self._observer.on_error(error))

    def on_completed(self) -> None:
        """Pass the end on when nothing else is on its way."""
        self._end_with(self._observer.on_completed)

    def _end_with(self, end: Callable[[], None]) -> None:
        with self._lock:
            if self._end is not None:
                return
            self._end = end
            waits = bool(self._passing)
        if not waits:
            end()
