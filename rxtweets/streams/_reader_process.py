"""The child process of a stream with ``isolated=True``: reads one connection at a time.

It cuts bytes into lines and sends them through a pipe. It does not share the interpreter lock with
handlers, so handlers that compute do not slow down reading. See `rxtweets.streams._isolated` for
the parent process.

Orders arrive on standard input, records leave on standard output. The process exits at `END`, when
its standard input closes, and when its parent process is killed.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import pickle
import select
import signal
import ssl
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, groupby
from struct import Struct
from typing import Any, Literal, NamedTuple

from rxtweets._messages.decoding import Decoder
from rxtweets._messages.lookup import LookedUp
from rxtweets._support.workers import start_thread, unexpected
from rxtweets.api._connection import Connection, ConnectionOptions
from rxtweets.api._options import Token
from rxtweets.errors import RxTweetsError
from rxtweets.errors._redaction import without_secrets
from rxtweets.streams._buffer import Block, Buffer, Overflow
from rxtweets.streams._lines import Framed, LineFramer, Oversized

__all__ = [
    "END",
    "LINES",
    "OPENED",
    "OVER",
    "QUIET",
    "Authorities",
    "Order",
    "Outlet",
    "encode_record",
    "follow_orders",
    "read_records",
]

OPENED, LINES, QUIET, OVER = range(4)
"""Kinds of records: a connection is open, its lines, it is silent, it is closed."""

END = 0
"""The number that no order has: the process exits."""

MOST = 256
"""Lines in a record at most, give or take a network read."""

TOGETHER = 0.1
"""Seconds. Lines received within this time may share a record, and so a time of arrival."""

ORPHAN = 2.0
"""Seconds between checks whether the parent process runs."""

# Records on the pipe.

HEAD = Struct(">BI")
"""The kind and the length of a record."""

READ = 2**18


def encode_record(kind: int, content: bytes = b"") -> bytes:
    """Return the bytes of a record.

    Args:
        kind: below 256.
        content: of the record.
    """
    return HEAD.pack(kind, len(content)) + content


def read_records(pipe: int) -> Iterator[tuple[int, bytes]]:
    """Yield kind and content of records until the pipe is closed; half a record is left out."""
    # The buffer gets many small records by one read, and assembles a large one in place.
    with open(pipe, "rb", buffering=READ, closefd=False) as source:
        while len(head := source.read(HEAD.size)) == HEAD.size:
            kind, length = HEAD.unpack(head)
            content = source.read(length)
            if len(content) < length:
                return
            yield kind, content


# Orders of the parent process.


class Authorities(NamedTuple):
    """The part of an `ssl.SSLContext` that can be sent to another process.

    Attributes:
        certificates: trusted, in DER form.
        settings: attributes of the context, in the order in which they can be set.
    """

    certificates: bytes
    settings: Mapping[str, Any]

    def context(self) -> ssl.SSLContext:
        """Return a context with the same trusted authorities."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for name, value in self.settings.items():
            setattr(context, name, value)
        if self.certificates:
            context.load_verify_locations(cadata=self.certificates)
        return context


@dataclass(frozen=True, slots=True)
class Order:
    """A connection to open. It contains the token, and travels through the pipe only.

    Attributes:
        number: of the order; the number alone is the order to close this connection.
        token: the bearer token.
        settings: the other fields of `ConnectionOptions`.
        verify: ``True`` for the default authorities.
        path: of the endpoint.
        params: of the query.
        max_line: bytes.
        buffer_size: lines that may wait for the pipe.
        overflow: the policy for further lines.
        tweets: the stream carries tweets.
    """

    number: int
    token: str = field(repr=False)
    settings: Mapping[str, Any] = field(repr=False)
    verify: Authorities | Literal[True]
    path: str
    params: Mapping[str, str]
    max_line: int
    buffer_size: int
    overflow: Overflow
    tweets: bool


# Sending.


class Outlet:
    """Sends lines through the pipe, and buffers them while it is full.

    The thread that reads writes to the pipe, too: waking another thread for each read costs more
    (benchmark row 1). A second thread writes the rest as soon as a full pipe has room.

    Args:
        pipe: descriptor of a pipe that does not block.
        order: has the buffer's size and overflow policy.
    """

    def __init__(self, pipe: int, order: Order) -> None:
        self._pipe = pipe
        self._state = threading.Condition()
        self._rest = memoryview(b"")  # encoded records that wait for room in the pipe
        self._has_ended = False
        self._is_turn = False
        self._counting = threading.Lock()
        self._counts = _Counts()
        self._latest = time.time()
        self._decoder = (
            Decoder(fast=order.settings.get("fast_paths", True)) if order.tweets else None
        )
        self._buffer = Buffer(
            order.buffer_size, order.overflow, self._dropped, self._burst, longest=order.max_line
        )
        self._thread = start_thread("rxtweets-outlet", self._work, _crash)

    def put(self, framed: Framed, size: int, now: float, held: int = 0) -> None:
        """Send the result of one read; waits only if the overflow policy is ``block``.

        Args:
            framed: the lines.
            size: bytes of the read.
            now: when it happened, in seconds since 1970.
            held: bytes of the lines, at most.
        """
        with self._counting:
            self._counts.size += size
            self._counts.keep_alives += framed.keep_alives
            self._counts.oversized += framed.oversized
            self._latest = now
        # The look-up is a large share of the work, so the two processes take turns. This one does
        # all of it while the other one is behind (benchmark row 1).
        self._is_turn = not self._is_turn
        known = None
        if self._decoder is not None and (self._is_turn or self._rest):
            known = self._decoder.look_up(framed.lines)
        with self._state:
            if not self._rest:
                self._write(self._lines_record(framed.lines, now, known))
                return
        if not framed.lines:
            return  # the counts go with the next lines
        self._buffer.put(Block(framed.lines, now, 0, known, held))
        with self._state:
            if not self._rest:  # the pipe had room meanwhile
                self._write(b"")

    def send_record(self, kind: int, content: bytes = b"") -> None:
        """Send another record, before the lines in the buffer."""
        with self._state:
            self._write(encode_record(kind, content))

    def close(self, content: bytes, size: int = 0) -> None:
        """Send all lines, the counts since the last of them, and a record `OVER`.

        Args:
            content: of the last record.
            size: bytes to count besides.
        """
        self._buffer.close()
        with self._state:
            self._state.wait_for(lambda: not self._rest)
            self._counts.size += size
            last_counts = self._lines_record([], self._latest, None)
            self._write(last_counts + encode_record(OVER, content))
            self._has_ended = True
            self._state.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while self._wait_for_rest():
            select.select([], [self._pipe], [])
            with self._state:
                self._write(b"")

    def _wait_for_rest(self) -> bool:
        with self._state:
            self._state.wait_for(lambda: self._rest or self._has_ended)
            return bool(self._rest)

    def _write(self, data: bytes) -> None:
        """Write the rest, the data and the buffered lines, until the pipe is full.

        The caller holds the lock.
        """
        self._rest = memoryview(b"".join((self._rest, data)) if self._rest else data)
        while self._rest or len(self._buffer):
            if not self._rest:
                self._rest = memoryview(self._buffered_records())
            with contextlib.suppress(BlockingIOError):
                self._rest = self._rest[os.write(self._pipe, self._rest) :]
            if self._rest:
                break
        self._state.notify_all()

    def _buffered_records(self) -> bytes:
        records = []
        for _, group in groupby(self._buffer.get(MOST), key=_shared_record):
            blocks = list(group)
            lines = [line for block in blocks for line in block.lines]
            known = None
            if blocks[0].known is not None:
                known = list(chain.from_iterable(block.known or () for block in blocks))
            records.append(self._lines_record(lines, blocks[-1].received_at, known))
        return b"".join(records)

    def _lines_record(self, lines: list[bytes], now: float, known: LookedUp | None) -> bytes:
        with self._counting:
            counts, self._counts = self._counts, _Counts()
        # marshal decodes lines faster than a split of joined lines, and tuples faster than pickle.
        # Version 2 does not search for references. Both ends are one interpreter.
        return encode_record(LINES, marshal.dumps((now, lines, known, counts.as_tuple()), 2))

    def _dropped(self, lines: int) -> None:
        with self._counting:
            self._counts.dropped += lines

    def _burst(self, phase: Literal["began", "ended"], dropped: int) -> None:
        with self._counting:
            self._counts.bursts += ((phase, dropped),)


@dataclass(slots=True)
class _Counts:
    """The counts since the last record of lines.

    Attributes:
        size: bytes that were read.
        keep_alives: empty lines.
        oversized: lines that were too long.
        dropped: lines that the buffer dropped.
        bursts: starts and ends of dropping, as `Buffer` reports them.
    """

    size: int = 0
    keep_alives: int = 0
    oversized: tuple[Oversized, ...] = ()
    dropped: int = 0
    bursts: tuple[tuple[Literal["began", "ended"], int], ...] = ()

    def as_tuple(self) -> tuple[Any, ...]:
        """Return the counts as types that marshal encodes."""
        oversized = tuple(map(tuple, self.oversized))
        return self.size, self.keep_alives, oversized, self.dropped, self.bursts


def _shared_record(block: Block) -> tuple[float, bool]:
    return block.received_at // TOGETHER, block.known is None


# Reading.


class _Reading:
    def __init__(self, pipe: int, order: Order) -> None:
        self.number = order.number
        self._max_line = order.max_line
        self._outlet = Outlet(pipe, order)
        self._connection = Connection(
            ConnectionOptions(
                token=Token(order.token),
                verify=order.verify if order.verify is True else order.verify.context(),
                **order.settings,
            ),
            order.path,
            order.params,
            lambda: self._outlet.send_record(QUIET),
        )
        self.close = self._connection.close
        self._thread = start_thread("rxtweets-reading", self._work, _crash)

    def join(self) -> None:
        self._thread.join()

    def _work(self) -> None:
        framer = LineFramer(self._max_line)
        error: Exception | None = None
        connection, put = self._connection, self._outlet.put
        try:
            connection.open()
            head = connection.http_version, dict(connection.headers)
            self._outlet.send_record(OPENED, pickle.dumps(head))
            for data in connection.blocks():
                put(framer.feed(data), len(data), time.time(), framer.held)
        except RxTweetsError as raised:
            error = raised
        except BaseException as raised:  # noqa: BLE001 - a fault of ours or of httpx
            error = unexpected("reading", without_secrets(raised))
        finally:
            connection.release()
        tail = framer.finish()
        if isinstance(tail, Oversized):
            put(Framed([], 0, (tail,)), 0, time.time())
            tail = b""
        # The receiver of the tail counts its bytes again.
        self._outlet.close(pickle.dumps((error, tail)), -len(tail))


def follow_orders() -> None:
    """Open and close connections by the orders on standard input."""
    # A terminal or systemd sends these to this process, too; only the parent must handle them.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    pipe = os.dup(sys.stdout.fileno())
    os.set_blocking(pipe, False)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a stray print must not corrupt a record
    parent = os.getppid()
    start_thread("rxtweets-parent", lambda: _end_with_parent(parent), _crash)
    reading: _Reading | None = None
    for _, content in read_records(sys.stdin.fileno()):
        order = pickle.loads(content)  # noqa: S301 - from the parent process
        if order == END:
            break
        if isinstance(order, Order):
            if reading is not None:
                reading.join()
            reading = _Reading(pipe, order)
        elif reading is not None and reading.number == order:
            reading.close()
    os._exit(0)


def _crash(error: BaseException) -> None:
    """Exit after a thread died, since the parent process would wait forever."""
    traceback.print_exception(error)
    os._exit(1)


def _end_with_parent(parent: int) -> None:
    # A fork of the parent can hold the other end of standard input open.
    while os.getppid() == parent:
        select.select([], [], [], ORPHAN)
    os._exit(1)
