"""Plays one part of a script to one client: paced, chunked, perhaps compressed, kept alive."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import orjson

from rxtweets.simulator.feed import Feed
from rxtweets.simulator.script import (
    Abort,
    Close,
    Disconnect,
    KeepAlive,
    Line,
    Raw,
    Reply,
    Serve,
    Stall,
    Step,
)
from rxtweets.simulator.transport import Transport

__all__ = ["Chunking", "Delivery", "Due", "Playing"]

Chunking = Literal["frame", "read"] | int | Callable[[bytes], Iterable[bytes]]

BLOCK = 16_384
"""Bytes that ``read`` puts together: a TLS record, and HTTP/2's usual frame."""

TAKEN = 64
"""Tweets taken from the feed at once when there is no rate."""

TICK = 0.002
"""Seconds that a paced stream sleeps at least; tweets due meanwhile go out together."""

DEBT = 1.0
"""Seconds of tweets that are caught up after the client kept the server waiting."""


@dataclass(frozen=True)
class Delivery:
    """How frames go out; see `rxtweets.simulator.serve` for each."""

    rate: float
    burst: int
    chunking: Chunking
    keep_alive: float
    time_scale: float
    line_end: bytes


class Playing:
    """One response.

    Args:
        transport: of the client; the response has begun.
        feed: what there is to say.
        delivery: how.
        compress: whether the body is gzip.
        on_sent: told the number of tweets after they were sent.
    """

    def __init__(
        self,
        transport: Transport,
        feed: Feed,
        delivery: Delivery,
        *,
        compress: bool,
        on_sent: Callable[[int], None],
    ) -> None:
        self._transport = transport
        self._feed = feed
        self._delivery = delivery
        # Flushed with every piece, as X does: what was sent can be read at once.
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, 31) if compress else None
        self._cut = _cutter(delivery.chunking)
        self._on_sent = on_sent
        self._spoke = time.monotonic()

    def play(self, steps: Sequence[Step]) -> bool:
        """Play the steps, and stream for ever after them.

        Returns:
            Whether the connection is over; else only the response is.

        Raises:
            Gone: the client has left.
        """
        for step in (*steps, Serve()):
            if isinstance(step, Close):
                return self._end()
            if isinstance(step, Abort):
                return self._break(mid_frame=step.mid_frame)
            self._play(step)
        return self._end()

    def _play(self, step: Step) -> None:
        if isinstance(step, Serve):
            self._serve(step)
        elif isinstance(step, Line):
            self._send([step.data + self._delivery.line_end])
        elif isinstance(step, Raw):
            self._send([step.data])
        elif isinstance(step, KeepAlive):
            self._send([self._delivery.line_end])
        elif isinstance(step, Disconnect):
            self._send([_announcement(step.disconnect_type) + self._delivery.line_end])
        elif isinstance(step, Stall):
            self._stall(step.seconds)
        elif isinstance(step, Reply):
            raise TypeError("a Reply is the first step of its part, or it is none")

    def _end(self) -> bool:
        if self._deflate is not None:
            self._transport.send([self._deflate.flush(zlib.Z_FINISH)])
        self._transport.end()
        return True

    def _break(self, *, mid_frame: bool) -> bool:
        if mid_frame:
            for frame in self._feed.take(1):
                self._send([frame[: len(frame) // 2]])
        self._transport.abort()
        return True

    def _stall(self, seconds: float | None) -> None:
        if seconds is not None:
            self._transport.wait(seconds * self._delivery.time_scale)
            return
        while True:
            self._transport.wait(3600.0)

    def _serve(self, step: Serve) -> None:
        left = math.inf if step.count is None else step.count
        rate = self._delivery.rate if step.rate is None else step.rate
        due = Due(rate, self._delivery.burst)
        while left > 0:
            count = int(min(due.now(), left))
            frames = self._feed.take(count) if count else []
            if frames:
                end = self._delivery.line_end
                self._send([frame + end for frame in frames])
                self._on_sent(len(frames))
                due.paid(len(frames))
                left -= len(frames)
            over = len(frames) < count
            if over and step.count is not None:
                return
            self._pause(3600.0 if over else due.rest())

    def _pause(self, seconds: float) -> None:
        """Pass time, with keep-alives."""
        until = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            next_alive = self._spoke + self._delivery.keep_alive
            if now >= next_alive:
                self._send([self._delivery.line_end])
                continue
            self._transport.wait(min(until, next_alive) - now)
            if time.monotonic() >= until:
                self._transport.look()
                return

    def _send(self, frames: Sequence[bytes]) -> None:
        pieces: Iterable[bytes] = frames
        if self._deflate is not None:
            pieces = self._deflated(frames)
        self._transport.send(list(self._cut(pieces)))
        self._spoke = time.monotonic()

    def _deflated(self, frames: Sequence[bytes]) -> Iterator[bytes]:
        deflate = self._deflate
        if deflate is None:
            return
        for frame in frames:
            yield deflate.compress(frame) + deflate.flush(zlib.Z_SYNC_FLUSH)


class Due:
    """How many tweets are due by now, at a rate, in bursts."""

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._since = clock()
        self._paid = 0

    def now(self) -> int:
        """Tweets that are due."""
        if math.isinf(self._rate):
            return TAKEN
        if not self._rate:
            return 0
        passed = self._clock() - self._since
        owed = int(passed * self._rate) // self._burst * self._burst + self._burst - self._paid
        limit = max(self._burst, int(self._rate * DEBT))
        if owed > limit:
            self._paid += owed - limit
        return min(owed, limit)

    def paid(self, count: int) -> None:
        """So many were sent."""
        self._paid += count

    def rest(self) -> float:
        """Seconds until more are due."""
        if math.isinf(self._rate):
            return 0.0
        if not self._rate:
            return 3600.0
        return max(TICK, self._paid / self._rate - (self._clock() - self._since))


def _announcement(disconnect_type: str) -> bytes:
    upstream = "upstream " if disconnect_type.startswith("Upstream") else ""
    problem = {
        "title": "operational-disconnect",
        "disconnect_type": disconnect_type,
        "detail": f"This stream has been disconnected {upstream}for operational reasons.",
        "type": "https://api.x.com/2/problems/operational-disconnect",
    }
    return orjson.dumps({"errors": [problem]})


def _cutter(chunking: Chunking) -> Callable[[Iterable[bytes]], Iterable[bytes]]:
    """How pieces of the body become chunks."""
    if chunking == "frame":
        return lambda pieces: pieces
    if callable(chunking):
        cut = chunking
        return lambda pieces: [part for piece in pieces for part in cut(piece) if part]
    size = BLOCK if chunking == "read" else int(chunking)
    return lambda pieces: _in_blocks(b"".join(pieces), size)


def _in_blocks(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]
