"""Plays one part of a script to one client: paced, chunked, perhaps compressed, kept alive."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Literal

import orjson

from rxtweets.simulator._timeline import Tape
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

__all__ = ["Chunking", "Delivery", "Playing"]

Chunking = Literal["frame", "read"] | int | Callable[[bytes], Iterable[bytes]]

BLOCK = 16_384
"""Bytes that ``read`` puts together: a TLS record, and HTTP/2's usual frame."""

LATE = (0.000_25, 0.000_5, 0.000_6, 0.000_35)
"""Shares of its time by which a keep-alive comes late: X's were seen after 20.005, 20.010, 20.012
and 20.007 s."""


@dataclass(frozen=True)
class Delivery:
    """How frames go out; see `rxtweets.simulator.serve` for each."""

    chunking: Chunking
    keep_alive: float
    time_scale: float
    line_end: bytes
    buffer: int | None
    patience: float | None
    packet: int


class Playing:
    """One response.

    Args:
        transport: of the client; the response has begun.
        tape: what there is to say.
        delivery: how.
        compress: whether the body is gzip.
        on_sent: told the number of tweets after they were sent.

    Attributes:
        reason: why it is over, as X names it; empty while it is not.
        is_unnoticed: whether X would not have noticed yet that it is.
    """

    def __init__(
        self,
        transport: Transport,
        tape: Tape,
        delivery: Delivery,
        *,
        compress: bool,
        on_sent: Callable[[int], None],
    ) -> None:
        self._transport = transport
        self._tape = tape
        self._delivery = delivery
        # Flushed with every piece, as X does: what was sent can be read at once.
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, 31) if compress else None
        self._cut = _cutter(delivery.chunking)
        self._on_sent = on_sent
        self._late = cycle(LATE)
        self._spoken()
        self.reason = ""
        self.is_unnoticed = False
        self._is_over = False
        transport.packet = delivery.packet
        if delivery.patience is not None:
            transport.give_up_after(delivery.patience)

    def play(self, steps: Sequence[Step]) -> bool:
        """Play the steps, and stream for ever after them.

        Returns:
            Whether the connection is over; else only the response is.

        Raises:
            Gone: the client has left.
        """
        step: Step = Serve()
        try:
            for step in (*steps, Serve()):
                if isinstance(step, (Close, Abort, Fin, GoAway, ResetStream)):
                    self._end(step)
                    break
                self._say(step)
                if self._is_over:
                    break
        except TooSlow:
            self.reason = "SlowReader"
            raise
        return not isinstance(step, ResetStream)

    def _end(self, step: Step) -> None:
        self.reason = self.reason or "closed"
        match step:
            case Close():
                self._close()
            case Abort(mid_frame, noticed):
                self._abort(mid_frame=mid_frame, noticed=noticed)
            case Fin():
                self._transport.fin()
            case GoAway(error_code):
                self._transport.go_away(error_code)
            case ResetStream(error_code):
                self._transport.reset_stream(error_code)

    def _say(self, step: Step) -> None:
        end = self._delivery.line_end
        match step:
            case Serve():
                self._serve(step)
            case Line(data):
                self._send([data + end])
            case Raw(data):
                self._send([data])
            case KeepAlive():
                self._send([end])
            case Disconnect(disconnect_type, wrapped):
                self.reason = disconnect_type
                self._send([_announcement(disconnect_type, wrapped=wrapped) + end])
            case Stall(seconds):
                self._stall(seconds)
            case _:
                raise TypeError(
                    f"{step!r} cannot stand here: a Reply is the first step of its part"
                )

    def _close(self) -> None:
        if self._deflate is not None:
            self._transport.send([self._deflate.flush(zlib.Z_FINISH)])
        self._transport.end()

    def _abort(self, *, mid_frame: bool, noticed: bool) -> None:
        if mid_frame:
            while not (frames := self._tape.take(1)) and not self._tape.ended:
                self._pause(self._tape.rest())
            self._send([frame[: len(frame) // 2] for frame in frames])
        self.is_unnoticed = not noticed
        self._transport.abort()

    def _stall(self, seconds: float | None) -> None:
        # Nothing gets through, so neither does the client's goodbye.
        self.is_unnoticed = True
        if seconds is None:
            while True:
                self._transport.wait(3600.0)
        self._transport.wait(seconds * self._delivery.time_scale)
        self.is_unnoticed = False

    def _serve(self, step: Serve) -> None:
        tape = self._tape
        left = math.inf if step.count is None else step.count
        tape.pace(step.rate)
        while left > 0:
            frames = tape.take(left)
            if frames:
                end = self._delivery.line_end
                self._send([frame + end for frame in frames])
                self._on_sent(len(frames))
                left -= len(frames)
            if tape.ended and tape.is_replay:
                self.reason, self._is_over = "replayed", True
                self._close()
                return
            if self._is_too_slow():
                # What waited is lost, and the message that says so as well, as X warns.
                self.reason, self._is_over = "SlowReader", True
                self._transport.abort()
                return
            if tape.ended and step.count is not None:
                return
            self._pause(tape.rest())

    def _is_too_slow(self) -> bool:
        return self._delivery.buffer is not None and self._tape.behind() > self._delivery.buffer

    def _pause(self, seconds: float) -> None:
        """Pass time, with keep-alives."""
        until = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            if now >= self._next_alive:
                self._send([self._delivery.line_end])
                continue
            self._transport.wait(min(until, self._next_alive) - now)
            if time.monotonic() >= until:
                self._transport.look()
                return

    def _send(self, frames: Sequence[bytes]) -> None:
        pieces: Iterable[bytes] = frames
        if self._deflate is not None:
            pieces = self._deflated(frames)
        self._transport.send(list(self._cut(pieces)))
        self._spoken()

    def _spoken(self) -> None:
        """The next keep-alive is due when nothing is said until then."""
        self._next_alive = time.monotonic() + self._delivery.keep_alive * (1 + next(self._late))

    def _deflated(self, frames: Sequence[bytes]) -> Iterator[bytes]:
        deflate = self._deflate
        if deflate is None:
            return
        for frame in frames:
            yield deflate.compress(frame) + deflate.flush(zlib.Z_SYNC_FLUSH)


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
