"""Plays the steps of a script to one client: paced, chunked, compressed, with keep-alives."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Literal

import orjson

from rxtweets.simulator._timeline import Cursor
from rxtweets.simulator._transport import TooSlow, Transport
from rxtweets.simulator.script import (
    Abort,
    Close,
    Disconnect,
    Fin,
    GoAway,
    KeepAlive,
    Line,
    Raw,
    ResetStream,
    Serve,
    Stall,
    Step,
)

__all__ = ["Chunking", "Player", "PlayerOptions"]

Chunking = Literal["frame", "read"] | int | Callable[[bytes], Iterable[bytes]]

BLOCK = 16_384
"""Bytes that ``read`` puts together: a TLS record, and HTTP/2's usual frame."""

LATE = (0.000_25, 0.000_5, 0.000_6, 0.000_35)
"""How late a keep-alive is, as shares of its interval: X sent them after 20.005 to 20.012 s."""


@dataclass(frozen=True)
class PlayerOptions:
    """Options for sending frames; see `rxtweets.simulator.serve`.

    Attributes:
        patience: seconds that a client may take to make room for more; ``None`` for no limit.
    """

    chunking: Chunking
    keep_alive: float
    time_scale: float
    line_end: bytes
    buffer: int | None
    patience: float | None
    packet: int


class Player:
    """One response.

    Args:
        transport: of the client; the response has begun.
        cursor: the frames.
        options: how they are sent.
        compress: whether the body is gzip.
        on_sent: called with the number of tweets after they were sent.

    Attributes:
        reason: why the response ended, in X's words; empty before the end.
        is_unnoticed: whether X would not have noticed the end yet.
    """

    def __init__(
        self,
        transport: Transport,
        cursor: Cursor,
        options: PlayerOptions,
        *,
        compress: bool,
        on_sent: Callable[[int], None],
    ) -> None:
        self._transport = transport
        self._cursor = cursor
        self._options = options
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, 31) if compress else None
        self._cut = _cutter(options.chunking)
        self._on_sent = on_sent
        self._late = cycle(LATE)
        self._schedule_keep_alive()
        self.reason = ""
        self.is_unnoticed = False
        self._has_ended = False
        transport.packet = options.packet
        if options.patience is not None:
            transport.set_patience(options.patience)

    def play(self, steps: Sequence[Step]) -> bool:
        """Play the steps, then stream without end.

        Returns:
            Whether the connection has ended; else only the response has.

        Raises:
            Gone: the client has left.
        """
        step: Step = Serve()
        try:
            for step in (*steps, Serve()):
                self._play(step)
                if self._has_ended:
                    break
        except TooSlow:
            self.reason = "SlowReader"
            raise
        return not isinstance(step, ResetStream)

    def _play(self, step: Step) -> None:
        line_end = self._options.line_end
        match step:
            case Serve():
                self._serve(step)
            case Line(data):
                self._send([data + line_end])
            case Raw(data):
                self._send([data])
            case KeepAlive():
                self._send([line_end])
            case Disconnect(disconnect_type, wrapped):
                self.reason = disconnect_type
                self._send([_announcement(disconnect_type, wrapped=wrapped) + line_end])
            case Stall(seconds):
                self._stall(seconds)
            case Close() | Abort() | Fin() | GoAway() | ResetStream():
                self._has_ended = True
                self.reason = self.reason or "closed"
                self._end(step)
            case _:
                raise TypeError(f"{step!r}: a Reply must be the first step of its part")

    def _end(self, step: Close | Abort | Fin | GoAway | ResetStream) -> None:
        match step:
            case Close():
                self._close()
            case Abort(mid_frame, noticed):
                if mid_frame:
                    self._send_half_frame()
                self.is_unnoticed = not noticed
                self._transport.abort()
            case Fin():
                self._transport.fin()
            case GoAway(error_code):
                self._transport.go_away(error_code)
            case ResetStream(error_code):
                self._transport.reset_stream(error_code)

    def _close(self) -> None:
        if self._deflate is not None:
            self._transport.send([self._deflate.flush(zlib.Z_FINISH)])
        self._transport.end()

    def _send_half_frame(self) -> None:
        while not (frames := self._cursor.take(1)) and not self._cursor.ended:
            self._pause(self._cursor.delay())
        self._send([frame[: len(frame) // 2] for frame in frames])

    def _stall(self, seconds: float | None) -> None:
        # A stalled network does not carry the client's goodbye either.
        self.is_unnoticed = True
        self._transport.wait(math.inf if seconds is None else seconds * self._options.time_scale)
        self.is_unnoticed = False

    def _serve(self, step: Serve) -> None:
        cursor, line_end, buffer = self._cursor, self._options.line_end, self._options.buffer
        left = math.inf if step.count is None else step.count
        cursor.set_rate(step.rate)
        while left > 0:
            frames = cursor.take(left)
            if frames:
                self._send([frame + line_end for frame in frames])
                self._on_sent(len(frames))
                left -= len(frames)
            if cursor.ended and cursor.is_replay:
                self.reason, self._has_ended = "replayed", True
                self._close()
                return
            if buffer is not None and cursor.backlog() > buffer:
                # X warns that the message about the disconnect is lost too.
                self.reason, self._has_ended = "SlowReader", True
                self._transport.abort()
                return
            if cursor.ended and step.count is not None:
                return
            self._pause(cursor.delay())

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            if now >= self._next_alive:
                self._send([self._options.line_end])
                continue
            self._transport.wait(min(until, self._next_alive) - now)
            if time.monotonic() >= until:
                return

    def _send(self, frames: Sequence[bytes]) -> None:
        pieces: Iterable[bytes] = frames
        if deflate := self._deflate:
            # Flushed after every piece, as by X, so that the client can decode it immediately.
            pieces = [deflate.compress(f) + deflate.flush(zlib.Z_SYNC_FLUSH) for f in frames]
        self._transport.send(list(self._cut(pieces)))
        self._schedule_keep_alive()

    def _schedule_keep_alive(self) -> None:
        interval = self._options.keep_alive * (1 + next(self._late))
        self._next_alive = time.monotonic() + interval


def _announcement(disconnect_type: str, *, wrapped: bool) -> bytes:
    upstream = "upstream " if disconnect_type.startswith("Upstream") else ""
    problem = {
        "title": "operational-disconnect",
        "disconnect_type": disconnect_type,
        "detail": f"This stream has been disconnected {upstream}for operational reasons.",
        "type": "https://api.x.com/2/problems/operational-disconnect",
    }
    return orjson.dumps({"errors": [problem]} if wrapped else problem)


def _cutter(chunking: Chunking) -> Callable[[Iterable[bytes]], Iterable[bytes]]:
    """Return a function from frames to chunks of the body."""
    if chunking == "frame":
        return lambda pieces: pieces
    if callable(chunking):
        cut = chunking
        return lambda pieces: [part for piece in pieces for part in cut(piece) if part]
    size = BLOCK if chunking == "read" else int(chunking)

    def blocks(pieces: Iterable[bytes]) -> list[bytes]:
        data = b"".join(pieces)
        return [data[start : start + size] for start in range(0, len(data), size)]

    return blocks
