"""The order in which results leave: as they come, or that of the source."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from rxtweets._messages.message import Message
from rxtweets.operators._calls import Call

__all__ = ["AsTheyCome", "InOrder", "Results"]


class Results(Protocol):
    """Where results wait until one thread passes them on; from any thread."""

    def expect(self, calls: list[Call]) -> None:
        """These were taken, in this order."""

    def put(self, results: list[Message[Any]]) -> None:
        """These are there."""

    def is_ready(self) -> int:
        """Whether something may leave."""

    def take(self) -> list[Message[Any]]:
        """What leaves next; for one thread at a time."""


class AsTheyCome:
    """Results leave when they are there."""

    def __init__(self) -> None:
        self._chunks: deque[list[Message[Any]]] = deque()
        self.put = self._chunks.append
        self.take = self._chunks.popleft
        self.is_ready = self._chunks.__len__

    def expect(self, calls: list[Call]) -> None:
        """Nothing waits for anything."""


class InOrder:
    """Results leave in the order of the source: they wait, in their calls, for those before."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque()
        self.expect = self._calls.extend

    def put(self, results: list[Message[Any]]) -> None:
        """The calls have them already."""

    def is_ready(self) -> bool:
        """Whether the first of those that are left is there."""
        try:
            return self._calls[0].result is not None
        except IndexError:  # none there, or another thread has just passed it on
            return False

    def take(self) -> list[Message[Any]]:
        """All from the first on that are there without a hole."""
        ready: list[Message[Any]] = []
        while self._calls and (result := self._calls[0].result) is not None:
            self._calls.popleft()
            ready.append(result)
        return ready
