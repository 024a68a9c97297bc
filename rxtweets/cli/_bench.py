"""The command ``rxtweets bench``: what this machine can do, in a minute."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rxtweets import operators as ops
from rxtweets._messages.batch import Batch
from rxtweets._messages.lookup import quick_look_up
from rxtweets._messages.message import Message
from rxtweets._support.validation import seconds
from rxtweets.errors import RxTweetsError
from rxtweets.streams._sources import StreamOptions, sample_stream

__all__ = ["add_arguments", "run"]

PATIENCE = 20.0
WARM_UP = 0.1
"""Share of the time of a row that does not count: handlers are found to be quick in it."""


class _Row(NamedTuple):
    """What is measured.

    Attributes:
        title: in the table.
        options: of the stream.
        size: of the simulated tweets.
        every_field: handlers read all of the tweet.
    """

    title: str
    options: StreamOptions = StreamOptions()
    size: str = "small"
    every_field: bool = False


HTTP1 = StreamOptions(http2=False)
ROWS = (
    _Row("1 KB tweets", HTTP1),
    _Row("1 KB, every field read", HTTP1, every_field=True),
    _Row("2.5 KB tweets", HTTP1, "large"),
    _Row("1 KB over HTTP/2", StreamOptions(http1=False)),
    _Row("1 KB, isolated reader", StreamOptions(http2=False, isolated=True)),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--seconds", type=float, default=10.0, help="of each row (default 10)")


def run(options: argparse.Namespace) -> int:
    """Measure and print a table; the exit code.

    Raises:
        ConfigurationError: an option cannot work.
    """
    duration = seconds("--seconds", options.seconds)
    _print(
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores; a simulator of X's stream shares them, a tweet a chunk.\n"
        f"{'With' if quick_look_up() else 'Without'} the extra [fast].\n"
        f"stream → 50 processors that upcase the text → batches of 20 → counted\n"
    )
    _print(f"{'':<24}{'tweets/s':>12}{'CPU s per million':>20}")
    for row in ROWS:
        with _without_warnings():
            rate, cost = _measure(row, duration)
        _print(f"{row.title:<24}{rate:>12,.0f}{cost:>20.1f}")
    _print("\nCPU is that of this process; an isolated reader's own comes on top.")
    return 0


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """A row ends at once, with messages in flight; a warning of that would be in the table."""
    log = logging.getLogger("rxtweets")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _print(text: str) -> None:
    print(text, flush=True)


def _measure(row: _Row, duration: float) -> tuple[float, float]:
    """Tweets a second, and CPU seconds for a million of them."""
    meter = _Meter()

    def upcase(message: Message[str]) -> Message[str]:
        if row.every_field:
            message.metadata  # noqa: B018 - reading it is what is measured
        return message.update_data(str.upper)

    with _simulator(row.size) as url:
        own = StreamOptions(token="simulated", base_url=url, overflow="block", compress=False)  # noqa: S106 - any does
        stream = sample_stream(**(own | row.options))
        batches = stream.pipe(ops.process(upcase, concurrency=50), ops.batch(20, 2.0))
        with batches.subscribe(meter):
            if not meter.started.wait(PATIENCE):
                raise RxTweetsError(f"no tweet came from the simulator within {PATIENCE:g} s")
            time.sleep(duration * WARM_UP)
            started, cpu, count = time.perf_counter(), time.process_time(), meter.count
            time.sleep(duration)
            done, passed = meter.count - count, time.perf_counter() - started
            spent = time.process_time() - cpu
    return done / passed, spent / max(1, done) * 1e6


class _Meter:
    """Counts the messages of batches."""

    def __init__(self) -> None:
        self.count = 0
        self.started = threading.Event()

    def __call__(self, batch: Batch[Any]) -> None:
        self.count += len(batch)
        self.started.set()


@contextlib.contextmanager
def _simulator(size: str) -> Iterator[str]:
    """A simulator in a process of its own, as fast as it can; its URL."""
    arguments: Sequence[str] = ("simulate", "--port", "0", "--json", "--rate", "max")
    with subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", "rxtweets", *arguments, "--size", size],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None  # noqa: S101 - for mypy; it is a pipe
        try:
            yield json.loads(server.stdout.readline())["url"]
        finally:
            server.terminate()
