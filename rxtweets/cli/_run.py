"""Stream → processors → batches, printed.

Read the sample stream, upcase every text in concurrent processors, collect batches, print them.

Batches go to standard output, the live summary and the log to standard error. Ctrl-C closes the
connection, processes the messages in flight and delivers the last batch. A second Ctrl-C stops
immediately.

Without --live, --base-url or RXTWEETS_BASE_URL, the command starts a simulator for the run, on
this machine only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
from collections.abc import Callable
from typing import Any, Literal

from rxtweets._core.subscriber import Subscriber
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets.api._options import BASE_URL_VARIABLE
from rxtweets.cli._command import (
    ABANDONED,
    ENDED,
    EXIT_CODES,
    FAILED,
    add_flag,
    add_option,
    log_to,
)
from rxtweets.cli._dashboard import add_dashboard, dashboard, pipeline_cards
from rxtweets.cli._screen import Screen, summaries
from rxtweets.cli._sources import (
    TOKEN_NAMES,
    add_end,
    add_simulator,
    add_stream_options,
    all_failed,
    ending,
    server_of,
    stream_options,
)
from rxtweets.display._text import batch_line, summary_line
from rxtweets.errors import ConfigurationError
from rxtweets.pipeline import Batcher, Pipeline
from rxtweets.streams._sources import sample_stream

__all__ = ["EPILOG", "add_arguments"]

EPILOG = EXIT_CODES

MOST_FAILED = 10
"""Batches in a row that cannot be printed, as on a full disk, before the run fails."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    source = parser.add_argument_group("source")
    add_flag(
        source,
        "--live",
        f"read X, or the server in {BASE_URL_VARIABLE}; the token comes from {TOKEN_NAMES}",
    )
    add_option(source, "--base-url", None, "read this server instead", metavar="URL")
    add_simulator(source)
    work = parser.add_argument_group("work")
    add_option(work, "--concurrency", 50, "number of processors")
    add_option(work, "--batch-size", 20, "messages of a batch")
    add_option(work, "--batch-timeout", 2.0, "seconds until an incomplete batch is delivered")
    add_stream_options(work)
    add_end(parser)
    output = parser.add_argument_group("output")
    add_flag(output, "--json", "print a JSON object for each batch, and one for the end")
    add_flag(output, "--quiet", "print the summary only")
    add_dashboard(output)
    output.add_argument("-v", "--verbose", action="store_true", help="log connections too")
    parser.set_defaults(run=run)


def upcase(message: Message[str]) -> Message[str]:
    """Upcase the text of a message."""
    return message.update_data(str.upper)


def run(options: argparse.Namespace) -> int:
    """Run until a signal or the end of the options; return the exit code.

    Raises:
        RxTweetsError: an option is invalid, or the stream failed for good.
    """
    if options.limit is not None and options.limit < 1:
        raise ConfigurationError(f"--limit {options.limit}: give 1 or more")
    if options.live and options.base_url:
        raise ConfigurationError("--live reads X itself; leave out --base-url")
    screen = Screen(sys.stdout, sys.stderr)
    level = logging.INFO if options.verbose else logging.WARNING
    name: Literal["x"] | None = "x" if options.live else None
    server = server_of(options, name, options.base_url)
    with log_to(screen, level), server as (place, source):
        printer = BatchPrinter(screen, options)
        batcher = Batcher(printer, size=options.batch_size, timeout=options.batch_timeout)
        pipeline = Pipeline(
            sample_stream(**(source | stream_options(options))),
            handle_message=upcase,
            concurrency=options.concurrency,
            batchers={"default": batcher},
            max_failed_batches=MOST_FAILED,
        )
        printer.on_closed = pipeline.stop
        if screen.is_live:
            screen.write(f"reading {place}; Ctrl-C stops and delivers the messages in flight\n")
        with (
            dashboard(options.dashboard, screen, pipeline_cards(pipeline)),
            ending(pipeline, options.duration),
            summaries(pipeline, screen, is_json=options.json),
        ):
            stats = pipeline.run()
    with contextlib.suppress(BrokenPipeError):
        if options.json:
            screen.print(json.dumps({"stats": stats.as_dict()}))
        else:
            screen.write(summary_line(stats) + "\n")
    if stats.abandoned:
        return ABANDONED
    return FAILED if all_failed(stats) else ENDED


class BatchPrinter(Subscriber[Any]):
    """Prints batches."""

    def __init__(self, screen: Screen, options: argparse.Namespace) -> None:
        super().__init__()
        self._screen = screen
        self._is_quiet = options.quiet
        self._is_json = options.json
        self._batches = 0
        self.on_closed: Callable[[], object] = lambda: None
        """Called when no program reads the output."""

    def on_next(self, batch: Batch[Any]) -> None:
        """Print a batch."""
        self._batches += 1
        if self._is_quiet:
            return
        try:
            if self._is_json:
                self._screen.print(_batch_json(self._batches, batch))
            else:
                self._screen.print(batch_line(self._batches, batch, self._screen.width))
        except BrokenPipeError:
            self._is_quiet = True
            self.on_closed()


def _batch_json(number: int, batch: Batch[Any]) -> str:
    messages = [{"id": message.id, "data": message.data} for message in batch]
    record = {"batch": number, "trigger": batch.info.trigger, "messages": messages}
    return json.dumps(record, ensure_ascii=False)
