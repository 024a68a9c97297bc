"""The process that reads, for a stream with ``isolated=True``.

It holds one connection at a time, cuts lines and hands them over through a pipe. It does not share
Python's interpreter lock with handlers: beside one busy thread, a reader that does falls from
100,000 tweets a second to a few thousand. See `rxtweets.streams._isolated` for the other end.

Started with its pipes as standard input and output. It ends when it is told to, and with its
standard input, so also when the program that started it is killed.
"""

from __future__ import annotations

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
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal, NamedTuple

from rxtweets._messages.lookup import Known, look_up, quick_look_up
from rxtweets._support.workers import start_thread, unexpected
from rxtweets.api._connection import Connection, ConnectionOptions
from rxtweets.api._options import Token
from rxtweets.errors import RxTweetsError
from rxtweets.errors._redaction import without_secrets
from rxtweets.streams._buffer import Block, Handoff, Overflow
from rxtweets.streams._lines import Framed, LineFramer, Oversized
from rxtweets.streams._records import read_records, record, write_all

__all__ = ["END", "LINES", "OPENED", "OVER", "QUIET", "Authorities", "Order", "main"]

OPENED, LINES, QUIET, OVER = range(4)
"""Kinds of records that come from here."""

END = 0
"""The number of no order: the process is to end."""

MOST = 256
"""Lines in a record at most, give or take a network read."""

TOGETHER = 0.1
"""Seconds: lines that were read within so many may share a record, and so a time."""

ORPHAN = 2.0
"""Seconds between looks whether the program that started this process is still there."""


class Authorities(NamedTuple):
    """What can be told to another process of an `ssl.SSLContext`."""

    certificates: bytes
    checks_host: bool
    mode: int
    flags: int
    options: int
    least: int
    most: int

    def context(self) -> ssl.SSLContext:
        """A context that trusts whom the other one trusts."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = self.checks_host
        context.verify_mode = ssl.VerifyMode(self.mode)
        context.verify_flags = ssl.VerifyFlags(self.flags)
        context.options = ssl.Options(self.options)
        context.minimum_version = ssl.TLSVersion(self.least)
        context.maximum_version = ssl.TLSVersion(self.most)
        if self.certificates:
            context.load_verify_locations(cadata=self.certificates)
        return context


@dataclass(frozen=True, slots=True)
class Order:
    """A connection to make; goes through the pipe, with the token, and nowhere else.

    Attributes:
        number: of the order; alone it is the order to close that connection.
        token: itself.
        settings: the other fields of `ConnectionOptions`.
        verify: ``True`` for the usual authorities.
        path: of the endpoint.
        params: of the query.
        max_line: bytes.
        buffer_size: lines that may wait for the pipe.
        overflow: what happens when there are more.
        tweets: that is what the lines are.
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


@dataclass(slots=True)
class Ledger:
    """What happened since the last record beside the lines in it.

    Attributes:
        size: bytes that were read.
        keep_alives: empty lines.
        oversized: lines that were too long.
        dropped: lines that were dropped because the pipe and the buffer were full.
        bursts: of drops, as `Handoff` tells them.
    """

    size: int = 0
    keep_alives: int = 0
    oversized: tuple[Oversized, ...] = ()
    dropped: int = 0
    bursts: tuple[tuple[Literal["began", "ended"], int], ...] = ()

    def plain(self) -> tuple[Any, ...]:
        """The same, of types that are the interpreter's own."""
        oversized = tuple(tuple(each) for each in self.oversized)
        return self.size, self.keep_alives, oversized, self.dropped, self.bursts


class Outlet:
    """Hands lines to the pipe: at once while it has room, else through a bounded hand-off.

    Writing at once saves waking another thread for every read, which costs more than all the rest.

    Args:
        pipe: its descriptor; writing to it does not wait.
        order: how much may wait, and what happens then.
    """

    def __init__(self, pipe: int, order: Order) -> None:
        self._pipe = pipe
        self._state = threading.Condition()
        self._writing = threading.Lock()
        self._books = threading.Lock()
        self._ledger = Ledger()
        self._latest = time.time()
        self._rest = memoryview(b"")
        self._is_free = True
        self._is_putting = False
        self._is_over = False
        self._tweets = order.tweets
        quick = quick_look_up() if order.settings.get("fast_paths", True) else None
        self._find = quick or look_up
        self._turn = False
        self._handoff = Handoff(
            order.buffer_size, order.overflow, self._dropped, self._burst, longest=order.max_line
        )
        self._thread = start_thread("rxtweets-outlet", self._work, _crash)

    def put(self, framed: Framed, size: int, now: float, held: int = 0) -> None:
        """Hand over what one read completed; waits only if the policy is ``block``."""
        with self._books:
            self._ledger.size += size
            self._ledger.keep_alives += framed.keep_alives
            self._ledger.oversized += framed.oversized
            self._latest = now
        block = Block(framed.lines, now, 0, self._look_up(framed.lines), held)
        with self._state:
            if self._is_free:
                self._write_now(self._record(block.lines, now, block.known))
                return
            if not block.lines:
                return  # what the ledger says of it goes with the next record
            self._is_putting = True
        self._handoff.put(block)
        with self._state:
            self._is_putting = False
            self._state.notify_all()

    def _look_up(self, lines: list[bytes]) -> Known | None:
        """Decoding is half of all work of the two processes, so each does half of it.

        More of it is done here while the other one does not keep up.
        """
        self._turn = not self._turn
        is_ours = self._turn or not self._is_free
        return self._find(lines) if is_ours and self._tweets else None

    def tell(self, kind: int, content: bytes = b"") -> None:
        """Write another record, after whatever is being written."""
        with self._writing:
            self._finish_record()
            write_all(self._pipe, record(kind, content))

    def close(self, size: int = 0) -> None:
        """Wait until everything is written, what was counted since the last line as well.

        Args:
            size: bytes that are counted beside those of the lines.
        """
        with self._state:
            self._state.wait_for(lambda: self._is_free)
            self._is_over = True
            self._state.notify_all()
        self._handoff.close()
        self._thread.join()
        self._ledger.size += size
        with self._writing:
            write_all(self._pipe, self._record([], self._latest, None))

    def _write_now(self, data: bytes) -> None:
        with self._writing:
            try:
                written = os.write(self._pipe, data)
            except BlockingIOError:
                written = 0
            if written < len(data):
                self._rest = memoryview(data)[written:]
                self._is_free = False
                self._state.notify_all()

    def _work(self) -> None:
        while self._wait_for_work():
            with self._writing:
                self._finish_record()
            while not self._has_caught_up():
                self._send(self._handoff.get(MOST))

    def _wait_for_work(self) -> bool:
        with self._state:
            self._state.wait_for(lambda: not self._is_free or self._is_over)
            return not self._is_free

    def _has_caught_up(self) -> bool:
        with self._state:
            # Not while a block is on its way: it may be the one that was taken just now, and
            # another may not come.
            self._state.wait_for(lambda: len(self._handoff) or not self._is_putting)
            if len(self._handoff):
                return False
            self._is_free = True
            self._state.notify_all()
            return True

    def _finish_record(self) -> None:
        """Half a record may be in the pipe: whoever writes next writes the other half first."""
        rest, self._rest = self._rest, memoryview(b"")
        write_all(self._pipe, rest)

    def _send(self, blocks: list[Block]) -> None:
        for _, group in groupby(blocks, key=lambda block: block.received_at // TOGETHER):
            together = list(group)
            lines = [line for block in together for line in block.lines]
            known: Known = []
            for block in together:
                known += block.known or [None] * len(block.lines)
            with self._writing:
                write_all(self._pipe, self._record(lines, together[-1].received_at, known))

    def _record(self, lines: list[bytes], now: float, known: Known | None) -> bytes:
        with self._books:
            ledger, self._ledger = self._ledger, Ledger()
        # Its lines come back three times as fast as those that are joined and split, what was found
        # in them faster than by pickle; version 2 is the last without references, for which it
        # would search. Both ends are the same interpreter.
        return record(LINES, marshal.dumps((now, lines, known, ledger.plain()), 2))

    def _dropped(self, lines: int) -> None:
        with self._books:
            self._ledger.dropped += lines

    def _burst(self, phase: Literal["began", "ended"], dropped: int) -> None:
        with self._books:
            self._ledger.bursts += ((phase, dropped),)


class _Reading:
    """One connection, on a thread of its own."""

    def __init__(self, pipe: int, order: Order) -> None:
        self.number = order.number
        self._order = order
        self._outlet = Outlet(pipe, order)
        self._connection = Connection(
            ConnectionOptions(
                token=Token(order.token),
                verify=order.verify if order.verify is True else order.verify.context(),
                **order.settings,
            ),
            order.path,
            order.params,
            lambda: self._outlet.tell(QUIET),
        )
        self.close = self._connection.close
        self._thread = start_thread("rxtweets-reading", self._work, _crash)

    def join(self) -> None:
        self._thread.join()

    def _work(self) -> None:
        framer = LineFramer(self._order.max_line)
        error: Exception | None = None
        connection, put = self._connection, self._outlet.put
        try:
            connection.open()
            head = connection.http_version, dict(connection.headers)
            self._outlet.tell(OPENED, pickle.dumps(head))
            for data in connection.blocks():
                put(framer.feed(data), len(data), time.time(), framer.held)
        except RxTweetsError as raised:
            error = raised
        except BaseException as raised:  # noqa: BLE001 - a fault of ours or of httpx must be seen
            error = unexpected("reading", without_secrets(raised))
        finally:
            connection.release()
        tail = framer.finish()
        if isinstance(tail, Oversized):
            put(Framed([], 0, (tail,)), 0, time.time())
            tail = b""
        # Whoever gets the tail counts its bytes again.
        self._outlet.close(-len(tail))
        self._outlet.tell(OVER, pickle.dumps((error, tail)))


def main() -> None:
    """Do what comes in through standard input: make a connection, or close it."""
    # These are for the program, which drains; a terminal or systemd sends them to us as well.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    pipe = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what is printed by mistake spoils no record
    os.set_blocking(pipe, False)
    parent = os.getppid()
    start_thread("rxtweets-parent", lambda: _end_with_parent(parent), _crash)
    reading: _Reading | None = None
    for _, content in read_records(sys.stdin.fileno()):
        order = pickle.loads(content)  # noqa: S301 - from the process that started this one
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
    """A thread died: end the process, as the other one would wait for it in vain."""
    traceback.print_exception(error)
    os._exit(1)


def _end_with_parent(parent: int) -> None:
    """A copy of the parent made by fork can hold the other end of the pipe open after its death."""
    while os.getppid() == parent:
        select.select([], [], [], ORPHAN)
    os._exit(1)
