"""Where commands read: X, another server, a recording, or a simulator of their own."""

from __future__ import annotations

import argparse
import contextlib
import threading
from collections.abc import Iterator
from typing import cast

from rxtweets import simulator
from rxtweets._core.telemetry import Stats
from rxtweets._support.validation import seconds
from rxtweets._support.workers import start_thread
from rxtweets.cli._server import STAND_IN, stand_in_token
from rxtweets.errors import ConfigurationError
from rxtweets.pipeline import Pipeline
from rxtweets.streams._base import HotStream
from rxtweets.streams._replay import replay
from rxtweets.streams._sources import StreamOptions, sample_stream

__all__ = ["add_source", "ending", "exit_code", "source_of", "speed_of"]


def add_source(parser: argparse.ArgumentParser, *, recordings: bool) -> None:
    """Declare the options of `source_of`, and of `ending`."""
    more = ", or a recording" if recordings else ""
    parser.add_argument(
        "source",
        nargs="?",
        default="simulator",
        metavar="SOURCE",
        help=f"simulator (the default), x, the URL of a server{more}; the token for X comes from "
        "X_BEARER_TOKEN or TWITTER_BEARER_TOKEN",
    )
    parser.add_argument(
        "--rate", type=float, default=50.0, help="tweets a second of the simulator (default 50)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the simulator (default 0)")
    if recordings:
        parser.add_argument(
            "--speed", default="1", help="of a recording: 10 is ten times as fast, or max"
        )
    end = parser.add_argument_group("end")
    end.add_argument("--limit", type=int, metavar="N", help="stop after N messages")
    end.add_argument("--duration", type=float, metavar="S", help="stop after S seconds")


@contextlib.contextmanager
def source_of(options: argparse.Namespace) -> Iterator[HotStream[object]]:
    """The stream that was asked for; a simulator lives as long as the block.

    Raises:
        ConfigurationError: there is no such source.
    """
    name = options.source
    limit = StreamOptions() if options.limit is None else StreamOptions(limit=options.limit)
    if name == "x":
        yield sample_stream(**limit)
    elif name == "simulator":
        with simulator.serve(rate=options.rate, seed=options.seed) as x:
            yield sample_stream(**(StreamOptions(base_url=x.url, token=STAND_IN) | limit))
    elif "://" in name:
        stand_in = cast("StreamOptions", stand_in_token())
        yield sample_stream(**(StreamOptions(base_url=name) | stand_in | limit))
    elif hasattr(options, "speed"):
        yield replay(name, speed_of(options.speed), hot=True)
    else:
        raise ConfigurationError(f"{name!r} is no source: give simulator, x, or a URL")


def speed_of(text: str) -> float | None:
    """The option ``--speed``.

    Raises:
        ConfigurationError: it is neither a number nor ``max``.
    """
    if text == "max":
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigurationError(f"--speed {text}: give a number, or max") from None


def exit_code(stats: Stats) -> int:
    """1 if no line of a recording could be read, or if all batches failed; else 0."""
    left_out = stats.undecodable + stats.control
    is_unread = left_out and not (stats.delivered or stats.connects)
    is_in_vain = stats.batched_failed and not stats.batched
    return 1 if is_unread or is_in_vain else 0


@contextlib.contextmanager
def ending(pipeline: Pipeline, duration: float | None) -> Iterator[None]:
    """Stop after the time, if one was given.

    Raises:
        ConfigurationError: it is no time.
    """
    if duration is None:
        yield
        return
    limit = seconds("--duration", duration)
    over = threading.Event()

    def work() -> None:
        if not over.wait(min(limit, threading.TIMEOUT_MAX)):
            pipeline.stop()

    start_thread("rxtweets-duration", work, goes_on=True)
    try:
        yield
    finally:
        over.set()
