"""Sources of the commands: X, another server, a recording, or a simulator for the run."""

from __future__ import annotations

import argparse
import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any, Literal, cast

from rxtweets import simulator
from rxtweets._core.stats import Stats
from rxtweets._support.validation import seconds
from rxtweets._support.workers import start_thread
from rxtweets.api._options import BASE_URL_VARIABLE, TOKEN_VARIABLES, ServerOptions
from rxtweets.cli._command import add_option
from rxtweets.errors import ConfigurationError
from rxtweets.pipeline import Pipeline
from rxtweets.streams._base import HotStream
from rxtweets.streams._replay import replay
from rxtweets.streams._sources import StreamOptions, sample_stream

__all__ = [
    "TOKEN_NAMES",
    "add_end",
    "add_server",
    "add_simulator",
    "add_source",
    "add_speed",
    "add_stream_options",
    "all_failed",
    "ending",
    "server_of",
    "server_options",
    "source_of",
    "speed_of",
    "stream_options",
]

TOKEN_NAMES = " or ".join(TOKEN_VARIABLES)
"""The variables of the token, for a help text."""

ANY_TOKEN = "simulated"  # noqa: S105 - servers that are not X need a token, and take any


def add_server(parser: argparse._ActionsContainer) -> None:
    """Add ``--base-url``; see `server_options`."""
    text = f"ask this server instead of X; it gets the token of {TOKEN_NAMES}, or a placeholder"
    add_option(parser, "--base-url", None, text, metavar="URL")


def add_source(parser: argparse.ArgumentParser, *, recordings: bool, name: str = "source") -> None:
    """Add the options of `source_of` and `ending`.

    Args:
        parser: of the command.
        recordings: are sources too.
        name: of the argument, or ``--source`` for an option.
    """
    recording = ", or a recording" if recordings else ""
    optional: dict[str, Any] = {} if name.startswith("-") else {"nargs": "?"}
    parser.add_argument(
        name,
        metavar="SOURCE",
        **optional,
        help=f"simulator, x, the URL of a server{recording}; by default the server in "
        f"{BASE_URL_VARIABLE}, else simulator; the token for X comes from {TOKEN_NAMES}",
    )
    add_simulator(parser)
    if recordings:
        add_speed(parser)
    add_end(parser)


def add_simulator(parser: argparse._ActionsContainer) -> None:
    """Add the options of a simulator."""
    add_option(parser, "--rate", 50.0, "tweets a second of the simulator")
    add_option(parser, "--seed", 0, "seed of the simulator")


def add_speed(parser: argparse._ActionsContainer) -> None:
    """Add ``--speed``; see `speed_of`."""
    add_option(parser, "--speed", "1", "of a recording: 10 is ten times as fast, or max")


def add_stream_options(parser: argparse._ActionsContainer) -> None:
    """Add the options of the buffer of a stream; see `stream_options`."""
    add_option(parser, "--buffer-size", 10_000, "tweets that may wait in the program")
    text = "drop_oldest, drop_newest or block, when the buffer is full"
    add_option(parser, "--overflow", "drop_oldest", text)


def stream_options(options: argparse.Namespace) -> StreamOptions:
    """Return the options of a stream, as far as the command has them."""
    names = ("limit", "buffer_size", "overflow")
    given = {name: getattr(options, name, None) for name in names}
    known = {name: value for name, value in given.items() if value is not None}
    return cast("StreamOptions", known)


def add_end(parser: argparse.ArgumentParser) -> None:
    """Add ``--limit`` and ``--duration``."""
    end = parser.add_argument_group("end")
    add_option(end, "--limit", None, "stop after N messages", type=int, metavar="N")
    add_option(end, "--duration", None, "stop after S seconds", type=float, metavar="S")


def server_options(options: argparse.Namespace) -> ServerOptions:
    """Return the options of the named server; empty for X with the token of the environment."""
    url = options.base_url or os.environ.get(BASE_URL_VARIABLE)
    return _server(url) if url else ServerOptions()


def _server(url: str) -> ServerOptions:
    if any(os.environ.get(name) for name in TOKEN_VARIABLES):
        return ServerOptions(base_url=url)
    return ServerOptions(base_url=url, token=ANY_TOKEN)


@contextlib.contextmanager
def server_of(
    options: argparse.Namespace,
    name: Literal["x", "simulator"] | None = None,
    url: str | None = None,
) -> Iterator[tuple[str, StreamOptions]]:
    """The place and the stream options of a server; a simulator runs until the end of the block.

    Args:
        options: those of `add_simulator`.
        name: ``None`` for the server of `url`, or for a simulator if there is no URL.
        url: by default from ``RXTWEETS_BASE_URL``.
    """
    url = url or os.environ.get(BASE_URL_VARIABLE)
    if name == "x":
        yield url or "X", StreamOptions()
    elif url and name is None:
        yield url, cast("StreamOptions", _server(url))
    else:
        with simulator.serve(rate=options.rate, seed=options.seed) as x:
            own = StreamOptions(base_url=x.url, token=ANY_TOKEN)
            yield f"a simulation of X's stream on {x.url}", own


@contextlib.contextmanager
def source_of(options: argparse.Namespace) -> Iterator[HotStream[object]]:
    """The stream of the options; a simulator runs until the end of the block.

    Raises:
        ConfigurationError: the source is unknown.
    """
    name = options.source
    own = stream_options(options)
    if name in {None, "x", "simulator"}:
        with server_of(options, name) as (_, server):
            yield sample_stream(**(server | own))
    elif "://" in name:
        with server_of(options, url=name) as (_, server):
            yield sample_stream(**(server | own))
    elif hasattr(options, "speed"):
        yield replay(name, speed_of(options.speed), hot=True, limit=options.limit)
    else:
        raise ConfigurationError(f"{name!r} is no source: give simulator, x, or a URL")


def speed_of(text: str) -> float | None:
    """Return the value of ``--speed``; ``None`` for max.

    Raises:
        ConfigurationError: it is neither a number nor ``max``.
    """
    if text == "max":
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigurationError(f"--speed {text}: give a number, or max") from None


def all_failed(stats: Stats) -> bool:
    """Return whether no line of a recording could be read, or every batch failed."""
    left_out = stats.undecodable + stats.control
    is_unread = left_out and not (stats.delivered or stats.connects)
    return bool(is_unread or (stats.batched_failed and not stats.batched))


@contextlib.contextmanager
def ending(pipeline: Pipeline, duration: float | None) -> Iterator[None]:
    """Stop the pipeline after ``duration`` seconds; ``None`` for no limit.

    Raises:
        ConfigurationError: the duration is invalid.
    """
    if duration is None:
        yield
        return
    limit = seconds("--duration", duration)
    ended = threading.Event()

    def stop() -> None:
        if not ended.wait(min(limit, threading.TIMEOUT_MAX)):
            pipeline.stop()

    start_thread("rxtweets-duration", stop, repeats=True)
    try:
        yield
    finally:
        ended.set()
