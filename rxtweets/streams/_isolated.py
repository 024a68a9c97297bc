"""Connections that a child process reads, so that handlers cannot delay reading.

This is the parent process; see `rxtweets.streams._reader_process` for the child. To a stream,
`IsolatedConnection` looks like `rxtweets.api._connection.Connection`.
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
from dataclasses import fields
from pathlib import Path
from typing import Literal

import httpx

from rxtweets._core.telemetry import Telemetry
from rxtweets._support.workers import start_thread
from rxtweets.api._connection import url_of
from rxtweets.api._options import TOKEN_VARIABLES
from rxtweets.api._watchdog import Watchdog
from rxtweets.errors import ConfigurationError, ReaderCrashed, StreamError
from rxtweets.streams._buffer import overflow_event
from rxtweets.streams._config import StreamConfig
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
    encode_record,
    read_records,
)

__all__ = ["Isolated", "IsolatedConnection"]

PIPE = 2**20
"""Bytes of the pipe, if the system allows it: fewer and larger reads."""

PATIENCE = 5.0
"""Seconds until a process that does not exit is killed."""

START = """\
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program ends this process
sys.path[:] = sys.argv[1:]
from rxtweets.streams._reader_process import follow_orders
follow_orders()
"""

CONTEXT_SETTINGS = (
    "check_hostname",
    "verify_mode",
    "verify_flags",
    "options",
    "minimum_version",
    "maximum_version",
)
"""Attributes of an `ssl.SSLContext` that are sent to the process."""


class Isolated:
    """Creates the connections of one stream, all in one child process.

    The process does not share the interpreter lock, so handlers that compute do not delay reading.
    The first connection starts it; a later one starts it again if it has exited. It works on POSIX
    systems. Of a ``verify=`` context, the process gets the authorities, but not a client
    certificate. Up to ``buffer_size`` lines wait there, and as many again in the program.

    On Linux, ``reader_cores={0}`` keeps the process on core 0. ``os.sched_setaffinity(0, {1})``
    before subscribing keeps the program on core 1. This saves wake-ups across cores, unless
    handlers compute outside the interpreter lock.

    Args:
        config: of the stream.
        fixed: query parameters of every connection.
        telemetry: where to count and report the lines that the process drops.

    Raises:
        ConfigurationError: the system is not POSIX, or the `ssl.SSLContext` cannot be sent to
            another process.
    """

    def __init__(
        self, config: StreamConfig, fixed: Mapping[str, str], telemetry: Telemetry
    ) -> None:
        if os.name != "posix":
            raise ConfigurationError("isolated=True works on POSIX systems only, so far")
        self._config = config
        self._fixed = dict(fixed)
        self._telemetry = telemetry
        self._verify = _authorities_of(config.connection.verify)
        self._process: _Process | None = None
        self._numbers = itertools.count(1)

    def __call__(
        self, params: Mapping[str, str], on_quiet: Callable[[], None]
    ) -> IsolatedConnection:
        """Create a connection without opening it.

        Args:
            params: further query parameters.
            on_quiet: called when the connection is silent for long.
        """
        config, options = self._config, self._config.connection
        separate = {"token", "verify"}
        order = Order(
            number=next(self._numbers),
            token=options.token.header().removeprefix("Bearer "),
            settings={
                option.name: getattr(options, option.name)
                for option in fields(options)
                if option.name not in separate
            },
            verify=self._verify,
            path=config.endpoint.path,
            params={**self._fixed, **params},
            max_line=config.max_line,
            buffer_size=config.buffer_size,
            overflow=config.overflow,
            tweets=config.carries_tweets,
        )
        url = url_of(options, order.path)
        return IsolatedConnection(order, url, self._running_process, on_quiet, self._telemetry)

    def finish(self) -> None:
        """End the process, after its last connection was released."""
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def _running_process(self) -> _Process:
        if self._process is None or not self._process.is_alive:
            self.finish()
            self._process = _Process(self._config.reader_cores)
        return self._process


class IsolatedConnection:
    """The same as `Connection`, except that `blocks` yields lines.

    Args:
        order: for the process.
        url: of the connection.
        process: returns a running process.
        on_quiet: called when the connection is silent for long.
        telemetry: where to count and report the lines that the process drops.

    Attributes:
        url: of the connection.
        http_version: of the answer; empty before it.
        headers: of the answer.
        closed: `close` was called without a reason.
    """

    def __init__(
        self,
        order: Order,
        url: httpx.URL,
        process: Callable[[], _Process],
        on_quiet: Callable[[], None],
        telemetry: Telemetry,
    ) -> None:
        self.url = url
        self.http_version = ""
        self.headers: Mapping[str, str] = {}
        self.closed = False
        self._order = order
        self._start = process
        self._on_quiet = on_quiet
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self._reason: StreamError | None = None
        self._has_ended = False
        self._killing: threading.Event | None = None
        # The process reports silence of the server; this watches over the process.
        self._longest = order.settings["stall_timeout"] + PATIENCE
        self._watchdog = Watchdog(self._longest, self._on_silence, died=self._on_watchdog_failure)

    def open(self) -> None:
        """Let the process connect, and wait for the head of the answer.

        Raises:
            StreamError: as for `Connection.open`, or `ReaderCrashed`.
        """
        process = self._start()
        with self._lock:
            self._process = process
            unwanted = self.closed or self._reason is not None
        process.send(self._order)
        if unwanted:
            process.send(self._order.number)
        for kind, content in self._records(process):
            if kind == OPENED:
                self.http_version, self.headers = pickle.loads(content)  # noqa: S301 - our process
                return
            if kind == OVER:
                self._end(content)

    def blocks(self) -> Iterator[Arrived | bytes]:
        """Yield whole lines as they arrive, and at last the bytes of a line that was cut off.

        Raises:
            StreamError: as for `Connection.blocks`, or `ReaderCrashed`.
        """
        process = self._process
        if process is None:
            raise RuntimeError("open() comes first")
        self._watchdog.start()
        for kind, content in self._records(process):
            self._watchdog.hold()  # the caller may have to wait
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
        """End the connection from any thread; lines that the process has read still arrive.

        Args:
            reason: raised by `open` or `blocks`; without it they return.
        """
        with self._lock:
            if reason is None:
                self.closed = True
            elif self._reason is None:
                self._reason = reason
            process = self._process
            if process is None or self._has_ended or self._killing is not None:
                return
            self._killing = obeyed = threading.Event()
            start_thread(
                "rxtweets-kill",
                lambda: None if obeyed.wait(PATIENCE) else process.kill(),
                repeats=True,
            )
        process.send(self._order.number)

    def release(self) -> None:
        """Release the connection; the process stays for the next one."""
        self._watchdog.stop()
        with self._lock:
            killing = self._killing
            if self._process is not None and not self._has_ended:
                self._process.kill()  # its next records would belong to this connection
        if killing is not None:
            killing.set()

    def _on_silence(self) -> None:
        # The process hangs or was halted, unless its records wait for a thread of this process.
        if self._process is not None and self._process.has_more():
            self._watchdog.start()
        else:
            self.close(ReaderCrashed(f"the reader process sent nothing for {self._longest:g} s"))

    def _on_watchdog_failure(self, error: BaseException) -> None:
        self.close(StreamError(f"the watchdog of the connection failed unexpectedly: {error!r}"))

    def _records(self, process: _Process) -> Iterator[tuple[int, bytes]]:
        for record in process.records:  # noqa: UP028 - `yield from` would close them with this one
            yield record
        self._has_ended = True
        crashed = ReaderCrashed(f"the reader process ended unexpectedly ({process.how_it_ended()})")
        if self._reason is not None:
            raise self._reason from crashed
        if not self.closed:
            raise crashed

    def _end(self, content: bytes) -> None:
        """Raise the reason or the error of a closed connection, unless `close` caused it."""
        with self._lock:
            self._has_ended = True
        error = pickle.loads(content)[0]  # noqa: S301 - from our own process
        if self._reason is not None:
            raise self._reason from error
        if error is not None and not (self.closed and self.http_version):
            raise error

    def _arrived(self, content: bytes) -> Arrived:
        now, lines, known, counts = marshal.loads(content)  # noqa: S302 - from our own process
        size, keep_alives, oversized, dropped, bursts = counts
        if dropped:
            self._telemetry.add(received=dropped, dropped=dropped)
        policy, capacity = self._order.overflow, self._order.buffer_size
        for phase, lines_dropped in bursts:
            self._telemetry.publish(overflow_event(phase, policy, capacity, lines_dropped))
        too_long = tuple(Oversized(*line) for line in oversized)
        return Arrived(Framed(lines, keep_alives, too_long), size, now, known, len(content))


class _Process:
    """The child process and its two pipes."""

    def __init__(self, cores: Cores = None) -> None:
        environment = {
            name: value for name, value in os.environ.items() if name not in TOKEN_VARIABLES
        }
        # Last: directories beside this package may have the names of standard modules.
        path = [*sys.path, str(Path(__file__).parents[1])]
        try:
            # Not multiprocessing, which runs the user's program a second time in the child.
            self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-c", START, *path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                bufsize=0,
            )
        except OSError as error:
            raise ReaderCrashed(f"the reader process cannot be started: {error}") from error
        if cores is not None:
            # Later threads inherit the cores. If the process has exited, reading its records shows
            # that; if a core has gone, the process runs on any.
            with contextlib.suppress(OSError):
                os.sched_setaffinity(self._child.pid, cores)
        assert self._child.stdin is not None  # noqa: S101 - for mypy; it is a pipe
        assert self._child.stdout is not None  # noqa: S101 - for mypy; it is a pipe
        self._orders, self._pipe = self._child.stdin, self._child.stdout
        self._sending = threading.Lock()
        with contextlib.suppress(ImportError, OSError, AttributeError):
            import fcntl  # noqa: PLC0415 - not on every system

            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, PIPE)
        self.records = read_records(self._pipe.fileno())

    @property
    def is_alive(self) -> bool:
        return self._child.poll() is None

    def send(self, order: Order | int) -> None:
        """Send an order, the number of one to close, or `END`; a dead process ignores it."""
        data = encode_record(0, pickle.dumps(order))
        with self._sending, contextlib.suppress(OSError, ValueError):
            self._orders.write(data)

    def has_more(self) -> bool:
        """Return whether unread records wait in the pipe."""
        poll = select.poll()  # unlike `select.select`, accepts descriptors of any number
        with contextlib.suppress(ValueError):  # the pipe is closed
            poll.register(self._pipe, select.POLLIN)
        return bool(poll.poll(0))

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self._child.kill()

    def end(self) -> None:
        self.send(END)  # closing is not enough: a fork of this process can hold the pipe open
        with self._sending:
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


def _authorities_of(verify: bool | ssl.SSLContext) -> Authorities | Literal[True]:
    if not isinstance(verify, ssl.SSLContext):
        return True
    certificates = b"".join(verify.get_ca_certs(binary_form=True))
    if verify.verify_mode is not ssl.CERT_NONE and not certificates:
        raise ConfigurationError(
            "isolated=True with this verify=: the context names no authorities that could be sent "
            "to another process; make it by ssl.create_default_context(cafile=...)"
        )
    return Authorities(certificates, {name: getattr(verify, name) for name in CONTEXT_SETTINGS})
