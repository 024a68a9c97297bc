"""A connection that another process reads, so that no handler can keep the reader waiting.

To whom it belongs it looks like any other connection: `Connection` names what it can do.
"""

from __future__ import annotations

import contextlib
import itertools
import marshal
import os
import pickle
import select
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import httpx

from rxtweets._support.workers import start_thread
from rxtweets.api._connection import ConnectionOptions, url_of
from rxtweets.api._options import TOKEN_VARIABLES
from rxtweets.api._watchdog import Watchdog
from rxtweets.errors import ConfigurationError, ReaderCrashed, StreamError
from rxtweets.streams._buffer import Overflow
from rxtweets.streams._cores import Cores
from rxtweets.streams._lines import Arrived, Framed, Oversized
from rxtweets.streams._reader_process import (
    END,
    LINES,
    OPENED,
    OVER,
    QUIET,
    Authorities,
    Order,
)
from rxtweets.streams._records import read_records, record

__all__ = ["Isolated", "IsolatedConnection"]

PIPE = 2**20
"""Bytes that the pipe holds, where the system can be asked for so many."""

PATIENCE = 5.0
"""Seconds that the process has to do as it is told, before it is killed."""

START = """\
import sys
sys.path[:] = sys.argv[1:]
from rxtweets.streams._reader_process import main
main()
"""


@dataclass(frozen=True, slots=True)
class Buffer:
    """How much may wait in the process, and who is told of what had to be dropped."""

    size: int
    overflow: Overflow
    max_line: int
    tweets: bool
    on_drop: Callable[[int], None]
    on_burst: Callable[[Literal["began", "ended"], int], None]


class Isolated:
    """Makes the connections of one stream, all in one process of their own.

    The process is started for the first of them, and again if it has ended in between.

    Args:
        options: where and how.
        path: of the endpoint.
        fixed: of the query, on every connection.
        buffer: what waits in the process.
        cores: that the process keeps to.

    Raises:
        ConfigurationError: the `ssl.SSLContext` cannot be told to another process.
    """

    def __init__(
        self,
        options: ConnectionOptions,
        path: str,
        fixed: Mapping[str, str],
        buffer: Buffer,
        cores: Cores = None,
    ) -> None:
        self._options = options
        self._path = path
        self._fixed = dict(fixed)
        self._buffer = buffer
        self._cores = cores
        if os.name != "posix":
            raise ConfigurationError("isolated=True works on POSIX systems only, so far")
        self._verify = _told(options.verify)
        self._process: _Process | None = None
        self._numbers = itertools.count(1)

    def __call__(
        self, params: Mapping[str, str], on_quiet: Callable[[], None]
    ) -> IsolatedConnection:
        """One more connection, not opened yet."""
        return IsolatedConnection(
            self._order(params),
            url_of(self._options, self._path),
            self._ready,
            on_quiet,
            self._buffer,
        )

    def finish(self) -> None:
        """End the process; there is no connection any more."""
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def _ready(self) -> _Process:
        if self._process is None or not self._process.is_alive:
            self.finish()
            self._process = _Process(self._cores)
        return self._process

    def _order(self, params: Mapping[str, str]) -> Order:
        options, buffer = self._options, self._buffer
        own = {"token", "verify", "url"}
        return Order(
            number=next(self._numbers),
            token=options.token.header().removeprefix("Bearer "),
            settings={
                each.name: getattr(options, each.name)
                for each in fields(options)
                if each.name not in own
            },
            verify=self._verify,
            path=self._path,
            params={**self._fixed, **params},
            max_line=buffer.max_line,
            buffer_size=buffer.size,
            overflow=buffer.overflow,
            tweets=buffer.tweets,
        )


class IsolatedConnection:
    """The same as `Connection`, but what it gives is cut into lines already."""

    def __init__(
        self,
        order: Order,
        url: httpx.URL,
        process: Callable[[], _Process],
        on_quiet: Callable[[], None],
        buffer: Buffer,
    ) -> None:
        self.url = url
        self.http_version = ""
        self.headers: Mapping[str, str] = {}
        self.closed = False
        self._order = order
        self._start = process
        self._on_quiet = on_quiet
        self._buffer = buffer
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self._reason: StreamError | None = None
        self._is_over = False
        self._killing: threading.Event | None = None
        # A process that lives tells of silence by itself.
        self._longest = order.settings["stall_timeout"] + PATIENCE
        self._watchdog = Watchdog(self._longest, self._silent, died=self._unwatched)

    def open(self) -> None:
        """Let the process connect, and wait for the head of the answer.

        Raises:
            StreamError: as for `Connection.open`, or `ReaderCrashed`.
        """
        process = self._start()
        with self._lock:
            self._process = process
            unwanted = self.closed or self._reason is not None
        process.tell(self._order)
        if unwanted:
            process.tell(self._order.number)
        for kind, content in self._records(process):
            if kind == OPENED:
                self.http_version, self.headers = pickle.loads(content)  # noqa: S301 - our process
                return
            if kind == OVER:
                self._end(content)

    def blocks(self) -> Iterator[Arrived | bytes]:
        """What arrives, in whole lines; at last perhaps the bytes of a line that was cut off.

        Raises:
            StreamError: as for `Connection.blocks`, or `ReaderCrashed`.
        """
        process = self._process
        if process is None:
            raise RuntimeError("open() comes first")
        self._watchdog.start()
        for kind, content in self._records(process):
            self._watchdog.hold()  # who takes the lines may have to wait
            if kind == LINES:
                yield self._arrived(content)
            elif kind == QUIET:
                self._on_quiet()
            elif kind == OVER:
                tail = pickle.loads(content)[1]  # noqa: S301 - from our own process
                if tail:
                    yield tail
                self._end(content)
                return
            self._watchdog.touch()

    def close(self, reason: StreamError | None = None) -> None:
        """End it from any thread; what the process has read before still comes."""
        with self._lock:
            if reason is None:
                self.closed = True
            elif self._reason is None:
                self._reason = reason
            process = self._process
            if process is None or self._is_over or self._killing is not None:
                return
            self._killing = obeyed = threading.Event()
            start_thread(
                "rxtweets-kill",
                lambda: None if obeyed.wait(PATIENCE) else process.kill(),
                goes_on=True,
            )
        process.tell(self._order.number)

    def release(self) -> None:
        """Nothing to give back; the process waits for the next connection."""
        self._watchdog.stop()
        with self._lock:
            killing = self._killing
            if self._process is not None and not self._is_over:
                self._process.kill()  # left in the middle: what it still says is for nobody
        if killing is not None:
            killing.set()

    def _silent(self) -> None:
        """The process hangs, or was halted; not if what it says waits for a thread of ours."""
        if self._process is not None and self._process.has_more():
            self._watchdog.start()
        else:
            self.close(ReaderCrashed(f"the reader's process said nothing for {self._longest:g} s"))

    def _unwatched(self, error: BaseException) -> None:
        """Nobody would notice its silence any more."""
        self.close(StreamError(f"the watch over the connection failed unexpectedly: {error!r}"))

    def _records(self, process: _Process) -> Iterator[tuple[int, bytes]]:
        for each in process.records:  # noqa: UP028 - `yield from` would close them with this one
            yield each
        self._is_over = True
        crashed = ReaderCrashed(f"the reader's process ended by itself ({process.how_it_ended()})")
        if self._reason is not None:
            raise self._reason from crashed
        if not self.closed:
            raise crashed

    def _end(self, content: bytes) -> None:
        """The connection is over: raise why, unless that is as it was wanted."""
        with self._lock:
            self._is_over = True
        error = pickle.loads(content)[0]  # noqa: S301 - from our own process
        if self._reason is not None:
            raise self._reason from error
        if error is not None and not (self.closed and self.http_version):
            raise error

    def _arrived(self, content: bytes) -> Arrived:
        now, lines, known, ledger = marshal.loads(content)  # noqa: S302 - from our own process
        size, keep_alives, oversized, dropped, bursts = ledger
        if dropped:
            self._buffer.on_drop(dropped)
        for phase, so_many in bursts:
            self._buffer.on_burst(phase, so_many)
        framed = Framed(lines, keep_alives, tuple(Oversized(*each) for each in oversized))
        return Arrived(framed, size, now, known, len(content))


class _Process:
    """The process and its two pipes."""

    def __init__(self, cores: Cores = None) -> None:
        environment = {
            name: value for name, value in os.environ.items() if name not in TOKEN_VARIABLES
        }
        # At the end: beside this package may lie others that have the names of standard modules.
        path = [*sys.path, str(Path(__file__).parents[1])]
        try:
            # Not by multiprocessing: that runs the user's program a second time in the child.
            self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-c", START, *path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                bufsize=0,
            )
        except OSError as error:
            raise ReaderCrashed(f"the reader's process cannot be started: {error}") from error
        if cores is not None:
            # Its threads will be kept where the one is that starts them. If it has gone already, or
            # the cores have, reading shows the one, and nothing is lost by the other.
            with contextlib.suppress(OSError):
                os.sched_setaffinity(self._child.pid, cores)
        assert self._child.stdin is not None  # noqa: S101 - for mypy; it is a pipe
        assert self._child.stdout is not None  # noqa: S101 - for mypy; it is a pipe
        self._orders, self._pipe = self._child.stdin, self._child.stdout
        self._telling = threading.Lock()
        _widen(self._pipe.fileno())
        self.records = read_records(self._pipe.fileno())

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        return self._child.poll() is None

    def tell(self, order: Order | int) -> None:
        """An order, the number of one to end, or `END`; whether it lives, what it says shows."""
        data = record(0, pickle.dumps(order))
        with self._telling, contextlib.suppress(OSError, ValueError):
            self._orders.write(data)

    def has_more(self) -> bool:
        """Whether it has said something that was not read yet."""
        looking = select.poll()  # unlike `select.select`, of descriptors of any number
        with contextlib.suppress(ValueError):  # it is closed
            looking.register(self._pipe, select.POLLIN)
        return bool(looking.poll(0))

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(OSError):
            self._child.kill()

    def end(self) -> None:
        """End it, and wait until it is gone."""
        self.tell(END)  # a copy of this process made by fork can hold its standard input open
        with self._telling:
            self._orders.close()
        try:
            self._child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._pipe.close()

    def how_it_ended(self) -> str:
        code = self._child.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"


def _widen(pipe: int) -> None:
    """Few large reads instead of many small ones, where the system grants that."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import fcntl  # noqa: PLC0415 - not on every system

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE)


def _told(verify: bool | ssl.SSLContext) -> Authorities | Literal[True]:
    """What can be told of a context; a client's own certificate cannot."""
    if not isinstance(verify, ssl.SSLContext):
        return True
    certificates = b"".join(verify.get_ca_certs(binary_form=True))
    if verify.verify_mode is not ssl.CERT_NONE and not certificates:
        raise ConfigurationError(
            "isolated=True with this verify=: the context names no authorities that could be told "
            "to another process; make it by ssl.create_default_context(cafile=...)"
        )
    return Authorities(
        certificates,
        verify.check_hostname,
        verify.verify_mode,
        verify.verify_flags,
        verify.options,
        verify.minimum_version,
        verify.maximum_version,
    )
