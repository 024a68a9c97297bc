"""Partitions: calls of the same key one after the other, those of different keys at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable

from rxtweets.operators._calls import Call

__all__ = ["Lanes"]


class Lanes:
    """A queue for each key that has a call under way, and nothing for the others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, deque[Call]] = {}

    def enter(self, calls: list[Call]) -> list[Call]:
        """Put calls behind those of their keys; which of them may begin now."""
        begin: list[Call] = []
        with self._lock:
            for call in calls:
                queue = self._waiting.get(call.key)
                if queue is None:
                    self._waiting[call.key] = deque()
                    begin.append(call)
                else:
                    queue.append(call)
        return begin

    def leave(self, calls: list[Call]) -> list[Call]:
        """These are over; which may begin in their places."""
        begin: list[Call] = []
        with self._lock:
            for call in calls:
                queue = self._waiting.get(call.key)
                if queue:
                    begin.append(queue.popleft())
                elif queue is not None:
                    del self._waiting[call.key]
        return begin

    def clear(self) -> None:
        """Forget all that wait."""
        with self._lock:
            self._waiting.clear()
