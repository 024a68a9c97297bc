"""Arguments, output, log and exit codes of all commands."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from rxtweets._support.workers import start_thread

__all__ = [
    "ABANDONED",
    "ENDED",
    "EXIT_CODES",
    "FAILED",
    "USAGE",
    "add_flag",
    "add_option",
    "complain",
    "log_to",
    "repeating",
    "write",
]

ENDED, FAILED, USAGE, ABANDONED = 0, 1, 2, 130
"""Exit codes."""

EXIT_CODES = """\
exit codes:
  0    the run ended as asked: by Ctrl-C, --limit or --duration
  1    the stream failed for good: a refused token, no access, a used-up cap; or X refused a rule;
       or every batch failed
  2    an option, the environment, a rule or the URL of a queue is wrong; nothing was read
  130  a second Ctrl-C stopped the run immediately; the summary counts the abandoned messages
"""


def add_option(
    arguments: argparse._ActionsContainer, name: str, default: Any, description: str, **options: Any
) -> None:
    """Add an option with a value, of the type of its default."""
    if default is not None:
        options.setdefault("type", type(default))
        shown = f"{default:g}" if isinstance(default, float) else default
        description = f"{description} (default {shown})"
    arguments.add_argument(name, default=default, help=description, **options)


def add_flag(
    arguments: argparse._ActionsContainer, name: str, description: str, *, clears: str = ""
) -> None:
    """Add an option without a value; it sets its own name, or clears another one."""
    if clears:
        arguments.add_argument(name, dest=clears, action="store_false", help=description)
    else:
        arguments.add_argument(name, action="store_true", help=description)


def write(*lines: str) -> None:
    """Write lines to standard output.

    Raises:
        SystemExit: the program that reads them has ended, as ``head`` does.
    """
    try:
        sys.stdout.writelines(f"{line}\n" for line in lines)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes the rest at its exit, and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(ENDED) from None


def complain(*lines: str) -> None:
    """Write lines to standard error, as long as a program reads it."""
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.writelines(f"{line}\n" for line in lines)


@contextlib.contextmanager
def log_to(stream: Any, level: int = logging.WARNING, name: str = "rxtweets") -> Iterator[None]:
    """Write the log to a stream, by this name; without errors, which `main` prints."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(f"{name}: %(message)s"))
    handler.addFilter(lambda record: record.levelno < logging.ERROR)
    log = logging.getLogger("rxtweets")
    handlers, propagate, before = log.handlers, log.propagate, log.level
    log.handlers, log.propagate = [handler], False
    log.setLevel(level)
    try:
        yield
    finally:
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(before)


@contextlib.contextmanager
def repeating(name: str, interval: float, work: Callable[[], object]) -> Iterator[None]:
    """Call a function every ``interval`` seconds on a thread, until the end of the block."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(interval):
            work()

    thread = start_thread(name, repeat, repeats=True)
    try:
        yield
    finally:
        ended.set()
        thread.join()
