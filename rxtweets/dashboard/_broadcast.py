"""`Broadcast`: one snapshot of all cards each second, for all viewers of a page."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence

import orjson

from rxtweets.dashboard._cards import Card, Point, problem_of
from rxtweets.display._html import sanitized

__all__ = ["Broadcast"]

PERIOD = 1.0
"""Seconds between two moments."""

KEPT_POINTS = 300


class Broadcast:
    """Takes a moment once a second: the values of all cards, as one server-sent event.

    A slow viewer delays nothing: after each moment it gets the latest one, and skips the others.

    Args:
        cards: the parts of the page.

    Attributes:
        viewers: number of open pages; without any, moments have no values.
    """

    def __init__(self, cards: Sequence[Card]) -> None:
        self._cards = cards
        self._points: list[deque[Point]] = [deque(maxlen=KEPT_POINTS) for _ in cards]
        self._number = 0
        self._latest = b""
        self._changed = asyncio.Condition()
        self._over = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.viewers = 0

    async def run(self) -> None:
        """Take moments until `end`, and a last one after it."""
        self._loop = asyncio.get_running_loop()
        while not self._over.is_set():
            await self._take()
            try:
                await asyncio.wait_for(self._over.wait(), PERIOD)
            except TimeoutError:
                continue
        await self._take()

    def end(self) -> None:
        """End `run`, then all viewers after the last moment; from any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # a second end: the loop is closed
                self._loop.call_soon_threadsafe(self._over.set)

    async def moments(self) -> AsyncIterator[bytes]:
        """Yield server-sent events: all points first, then the new points of each moment."""
        seen = self._number
        yield _event("whole", self._moment(whole=True))
        while not self._over.is_set():
            await self._after(seen)
            missed = self._number - seen > 1  # this viewer is slow
            seen = self._number
            yield _event("whole", self._moment(whole=True)) if missed else self._latest

    async def _after(self, number: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._number > number)

    async def _take(self) -> None:
        for card, points in zip(self._cards, self._points, strict=True):
            with contextlib.suppress(BaseException):  # `values` says what is wrong
                points.append(card.point())
        if self.viewers:
            self._latest = _event("moment", self._moment(whole=False))
        async with self._changed:
            self._number += 1
            self._changed.notify_all()

    def _moment(self, *, whole: bool) -> list[bytes]:
        moment = []
        for card, points in zip(self._cards, self._points, strict=True):
            moment.append(_encoded(card, list(points) if whole else list(points)[-1:]))
        return moment


def _encoded(card: Card, points: list[Point]) -> bytes:
    try:
        return orjson.dumps(card.values() | {"points": points}, default=str)
    except BaseException as error:  # noqa: BLE001 - the page outlives what it shows
        name = sanitized(card.name)
        return orjson.dumps(problem_of(error) | {"name": name, "points": points})


def _event(name: str, moment: list[bytes]) -> bytes:
    # JSON has no raw line ends, so a line of data holds it.
    return b"event: %b\ndata: [%b]\n\n" % (name.encode(), b",".join(moment))
