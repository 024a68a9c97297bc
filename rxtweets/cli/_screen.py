"""A terminal with a last line that is redrawn."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from rxtweets.cli._command import repeating
from rxtweets.display._text import summary_line
from rxtweets.pipeline import Pipeline

__all__ = ["Screen", "showing", "summaries"]

LIVE_INTERVAL, INTERVAL = 0.5, 5.0
"""Seconds between two summaries: in a terminal, and elsewhere."""


class Screen:
    """Standard output and standard error of a terminal, with a last line that is redrawn."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self._lock = threading.Lock()
        self.is_live = err.isatty()
        self._status = ""

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return shutil.get_terminal_size((120, 24)).columns

    def print(self, line: str) -> None:
        """Write a line to standard output."""
        self._write(self._out, line + "\n", self._status)

    def write(self, text: str) -> None:
        """Write text to standard error."""
        self._write(self._err, text, self._status)

    def show(self, status: str) -> None:
        """Redraw the last line."""
        self._write(self._err, "", status)

    def _write(self, stream: TextIO, text: str, status: str) -> None:
        with self._lock:
            if self._status:
                self._err.write("\r\x1b[K")
                self._err.flush()
            stream.write(text)
            stream.flush()
            self._status = status
            if status:
                self._err.write(status)
                self._err.flush()


@contextlib.contextmanager
def showing(screen: Screen, line: Callable[[], str], *, only_live: bool = False) -> Iterator[None]:
    """Show a line again and again until the end of the block.

    Args:
        screen: the line is the last one of a terminal; elsewhere it is written every 5 s.
        line: returns the line of this moment.
        only_live: write nothing where there is no terminal.
    """

    def show() -> None:
        if screen.is_live:
            screen.show(line()[: screen.width - 1])
        elif not only_live:
            screen.write(line() + "\n")

    try:
        with repeating("rxtweets-summary", LIVE_INTERVAL if screen.is_live else INTERVAL, show):
            yield
    finally:
        screen.show("")


@contextlib.contextmanager
def summaries(
    pipeline: Pipeline, screen: Screen, *, is_json: bool, spooled: Callable[[], int] = lambda: 0
) -> Iterator[None]:
    """Show summaries until the end of the block: in the last line of a terminal, else as lines.

    Args:
        pipeline: whose counters are shown.
        screen: the place.
        is_json: only show them in a terminal.
        spooled: returns the number of messages that wait in a spool.
    """
    delivered, since = 0, time.monotonic()

    def summary() -> str:
        nonlocal delivered, since
        stats, now = pipeline.stats(), time.monotonic()
        rate = (stats.delivered - delivered) / (now - since)
        delivered, since = stats.delivered, now
        waiting = spooled()
        spool = f" · in the spool {waiting:,}" if waiting else ""
        width = screen.width - 1 - len(spool) if screen.is_live else None
        return summary_line(stats, rate, width) + spool

    with showing(screen, summary, only_live=is_json):
        yield
