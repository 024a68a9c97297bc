"""Measure this machine, in a minute.

Run the main job against a simulator at full speed, and print a table.
"""

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
from collections.abc import Iterator
from typing import Any, NamedTuple

from rxtweets import operators as ops
from rxtweets._messages.batch import Batch
from rxtweets._messages.lookup import quick_look_up
from rxtweets._messages.message import Message
from rxtweets._support.validation import seconds
from rxtweets.cli._command import ENDED, add_option, log_to, write
from rxtweets.errors import RxTweetsError
from rxtweets.streams._sources import StreamOptions, sample_stream

__all__ = ["add_arguments"]

PATIENCE = 20.0
"""Seconds until the first tweet."""

WARM_UP = 0.1
"""Share of the time of a row that does not count, as the processors adapt to their handler."""


class BenchRow(NamedTuple):
    """A row of the table.

    Attributes:
        title: in the table.
        options: of the stream.
        size: of the simulated tweets.
        every_field: the handler reads all of the tweet.
    """

    title: str
    options: StreamOptions = StreamOptions()
    size: str = "small"
    every_field: bool = False


HTTP1 = StreamOptions(http2=False)
ROWS = (
    BenchRow("1 KB tweets", HTTP1),
    BenchRow("1 KB, every field read", HTTP1, every_field=True),
    BenchRow("2.5 KB tweets", HTTP1, "large"),
    BenchRow("1 KB over HTTP/2", StreamOptions(http1=False)),
    BenchRow("1 KB, isolated reader", StreamOptions(http2=False, isolated=True)),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_option(parser, "--seconds", 10.0, "seconds of each row")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure, and print a table; return the exit code.

    Raises:
        ConfigurationError: an option is invalid.
    """
    duration = seconds("--seconds", options.seconds)
    write(
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores; a simulator of X's stream shares them, a tweet a chunk.",
        f"{'With' if quick_look_up() else 'Without'} the extra [fast].",
        "stream → 50 processors that upcase the text → batches of 20 → counted",
        "",
        f"{'':<24}{'tweets/s':>12}{'CPU s per million':>20}",
    )
    for row in ROWS:
        # Each row ends with messages in flight, which would be a warning in the table.
        with log_to(sys.stderr, logging.ERROR):
            rate, cost = _measure(row, duration)
        write(f"{row.title:<24}{rate:>12,.0f}{cost:>20.1f}")
    write("", "CPU is of this process, without that of an isolated reader.")
    return ENDED


def _measure(row: BenchRow, duration: float) -> tuple[float, float]:
    """Return tweets a second, and the CPU seconds of a million tweets."""
    count = 0
    started = threading.Event()

    def upcase(message: Message[str]) -> Message[str]:
        if row.every_field:
            message.metadata  # noqa: B018 - reading it is measured
        return message.update_data(str.upper)

    def add(batch: Batch[Any]) -> None:
        nonlocal count
        count += len(batch)
        started.set()

    with _simulator(row.size) as url:
        own = StreamOptions(token="simulated", base_url=url, overflow="block", compress=False)  # noqa: S106 - any does
        stream = sample_stream(**(own | row.options))
        batches = stream.pipe(ops.process(upcase, concurrency=50), ops.batch(20, 2.0))
        with batches.subscribe(add):
            if not started.wait(PATIENCE):
                raise RxTweetsError(f"no tweet came from the simulator within {PATIENCE:g} s")
            time.sleep(duration * WARM_UP)
            start, cpu, before = time.perf_counter(), time.process_time(), count
            time.sleep(duration)
            done, passed = count - before, time.perf_counter() - start
            spent = time.process_time() - cpu
    return done / passed, spent / max(1, done) * 1e6


@contextlib.contextmanager
def _simulator(size: str) -> Iterator[str]:
    arguments = ("simulate", "--port", "0", "--json", "--rate", "max")
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
