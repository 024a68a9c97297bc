"""Handle the messages of a queue, in any number of processes.

Take messages from a queue, handle them, and store them, until Ctrl-C, which drains. A message is
acknowledged when it is stored. A message that fails is delivered again, and becomes a dead letter
after --max-deliver deliveries: see rxtweets dead.

  rxtweets work sqlite:tweets.queue --store jsonl:tweets.jsonl
  rxtweets work sqlite:tweets.queue tweets:score --store sqlite:scores.db --processes 2
  rxtweets work sqlite:tweets.queue tweets:pipeline --group alerts

MODULE:NAME is a function of a message that returns a message, as handle_message of a Pipeline. If
its one parameter is called source, it makes a Pipeline of the source and returns it:

  def pipeline(source):
      return rxtweets.Pipeline(source, handle_message=score, batchers={...})

Several processes store in one place, except for jsonl:PATH: tweets.jsonl becomes tweets-w1.jsonl,
tweets-w2.jsonl and so on. A message that is delivered again can be in two of these files. A worker
process that dies is replaced, and its messages are delivered again after --lease seconds.

A message that ends its process counts as a delivery of all messages that the process had taken, so
they can become dead letters together. Replayed, each can be handled alone:

  rxtweets dead sqlite:tweets.queue replay
  rxtweets work sqlite:tweets.queue tweets:score --processes 2 --max-in-flight 1

The line of figures counts all processes: messages delivered, processed by the handler, failed and
redelivered; batches stored, dead letters, lost acknowledgements, and restarts. It lacks the last
half second of a process that was killed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rxtweets._core.subscriber import Subscriber
from rxtweets._support.validation import whole_number
from rxtweets.brokers import Queue
from rxtweets.cli._command import (
    ABANDONED,
    ENDED,
    FAILED,
    USAGE,
    add_flag,
    add_option,
    log_to,
    repeating,
)
from rxtweets.cli._dashboard import add_dashboard, dashboard, pipeline_cards
from rxtweets.cli._figures import figures_line, figures_of
from rxtweets.cli._handlers import SOURCE, load_handler, makes_pipeline
from rxtweets.cli._queues import add_queue, queue_of
from rxtweets.cli._screen import Screen, showing
from rxtweets.cli._sources import all_failed
from rxtweets.cli._stores import STORE_NAMES, report_spools_left, spooled, store_of
from rxtweets.cli._worker import Place, run_watched
from rxtweets.cli._workers import Workers
from rxtweets.errors import BrokerUnavailable, ConfigurationError, QueueMissing
from rxtweets.pipeline import Batcher, Pipeline

__all__ = ["add_arguments"]

MOST_FAILED = 10
"""Batches in a row that a store fails before the process ends, lest all messages become dead."""

IN_FLIGHT = 1000
"""Messages taken and not settled, unless a batch or an option needs another number."""

CHECK = 0.5
"""Seconds between two looks at the backlog."""

PIPELINE_OPTIONS = {"concurrency": 50, "batch_size": 100, "batch_timeout": 1.0}
"""Options of the pipeline of the command, and their defaults."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_queue(parser, creates=True)
    text = "a handler, or a function that makes a pipeline; by default messages are only stored"
    parser.add_argument("handler", nargs="?", metavar="MODULE:NAME", help=text)
    work = parser.add_argument_group("work")
    texts = {
        "concurrency": "number of processors of a process",
        "batch_size": "messages of a batch; parquet:DIR makes a file of each",
        "batch_timeout": "seconds until an incomplete batch is stored",
    }
    for name, default in PIPELINE_OPTIONS.items():
        add_option(work, f"--{name.replace('_', '-')}", default, texts[name])
    add_option(work, "--store", None, f"one of {STORE_NAMES}")
    text = "keep batches in this directory while the store is away"
    add_option(work, "--spool", None, text, metavar="DIR")
    queue = parser.add_argument_group("queue")
    add_option(queue, "--group", "default", "the workers of a group share its messages")
    add_option(queue, "--max-deliver", 5, "deliveries until a message becomes a dead letter")
    text = "seconds until the messages of a dead process are delivered again"
    add_option(queue, "--lease", 30.0, text)
    text = "seconds until a message whose handler still runs is delivered again"
    add_option(queue, "--max-lease", 1800.0, text)
    text = f"messages that a process takes and has not settled (default {IN_FLIGHT} or more)"
    add_option(queue, "--max-in-flight", None, text, type=int, metavar="N")
    choices = ("retry", "dead_letter", "drop", "release")
    text = "what becomes of a message that fails"
    add_option(queue, "--on-failure", "retry", text, choices=choices)
    run_ = parser.add_argument_group("processes")
    add_option(run_, "--processes", 1, "number of worker processes", metavar="N")
    add_flag(run_, "--until-empty", "end when the group has no messages, pending or in flight")
    add_dashboard(run_)
    run_.add_argument("--watched", type=Place.parse, help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Work until a signal or the end of the options; return the exit code.

    Raises:
        RxTweetsError: an option is invalid, or the queue cannot be used.
    """
    _check(options)
    if options.watched is not None:
        number = options.watched.number
        name = f"rxtweets: worker {number}"
        with log_to(sys.stderr, name=name), queue_of(options, [options.group]) as queue:
            pipeline = _pipeline(options, queue, number)
            stats = run_watched(
                options.watched,
                pipeline,
                with_card=options.dashboard is not None,
                is_idle=lambda: options.until_empty and _is_empty(options, queue),
            )
        return ABANDONED if stats.abandoned else FAILED if all_failed(stats) else ENDED
    screen = Screen(sys.stdout, sys.stderr)
    with log_to(screen), queue_of(options, [options.group]) as queue:
        queue.ensure()  # or fail before workers start
        if options.until_empty:
            queue.backlog()  # or fail, where the broker tells none
        if options.spool is not None:
            report_spools_left(options.spool, options.processes)
        several = options.processes > 1
        return (_run_processes if several else _run_here)(options, queue, screen)


def _check(options: argparse.Namespace) -> None:
    whole_number("--processes", options.processes)
    if options.spool is not None and options.store is None:
        raise ConfigurationError("--spool keeps batches of a store: give --store too")
    if options.handler is None and options.store is None:
        raise ConfigurationError("give MODULE:NAME, --store, or both")
    if options.processes > 1 and os.name != "posix":
        raise ConfigurationError("--processes above 1 works on POSIX systems only, so far")
    if options.processes > 1 and options.url.startswith("memory:"):
        raise ConfigurationError("a queue in memory is in one process: leave out --processes")


def _run_here(options: argparse.Namespace, queue: Queue, screen: Screen) -> int:
    pipeline = _pipeline(options, queue)

    def line() -> str:
        return figures_line(figures_of(pipeline.stats()), 1)

    with (
        dashboard(options.dashboard, screen, pipeline_cards(pipeline)),
        _until_empty(options, queue, pipeline.stop),
        showing(screen, line),
    ):
        stats = pipeline.run()
    screen.write(line() + "\n")
    return ABANDONED if stats.abandoned else FAILED if all_failed(stats) else ENDED


def _run_processes(options: argparse.Namespace, queue: Queue, screen: Screen) -> int:
    def say(line: str) -> None:
        screen.write(line + "\n")

    workers = Workers(options.arguments, options.processes, say, relays=screen.is_live)

    def line() -> str:
        return figures_line(workers.figures(), workers.running, workers.restarts)

    with (
        dashboard(options.dashboard, screen, workers.cards()),
        # RabbitMQ tells the parent nothing of the messages that the workers hold.
        _until_empty(options, queue, workers.drain, workers.are_idle),
        showing(screen, line),
    ):
        code = workers.run()
    if code != USAGE:
        say(line())
    return code


@contextlib.contextmanager
def _until_empty(
    options: argparse.Namespace,
    queue: Queue,
    drain: Callable[[], object],
    is_idle: Callable[[], bool] = lambda: True,
) -> Iterator[None]:
    """Drain once the group has no messages, if the options ask for it."""
    empty = 0

    def check() -> None:
        nonlocal empty
        empty = empty + 1 if is_idle() and _is_empty(options, queue) else 0
        if empty == 2:  # some brokers estimate the numbers
            drain()

    if not options.until_empty:
        yield
        return
    with repeating("rxtweets-backlog", CHECK, check):
        yield


def _is_empty(options: argparse.Namespace, queue: Queue) -> bool:
    try:
        backlog = queue.backlog()[options.group]
    except (BrokerUnavailable, QueueMissing):
        return False  # the workers report it, connect again, and create the queue
    return not (backlog.pending or backlog.in_flight)


def _pipeline(options: argparse.Namespace, queue: Queue, worker: int | None = None) -> Pipeline:
    """Return the pipeline of one process; `worker` is its number, if there are several."""
    handler = None if options.handler is None else load_handler(options.handler)
    most = options.max_in_flight
    if most is None:
        most = max(IN_FLIGHT, options.concurrency + 2 * options.batch_size)
    source = queue.source(
        options.group,
        on_failure=options.on_failure,
        max_deliver=options.max_deliver,
        lease=options.lease,
        max_lease=options.max_lease,
        max_in_flight=most,
    )
    if handler is not None and makes_pipeline(handler):
        return _made(handler, source, options)
    store = _store(options, worker)
    size = min(options.batch_size, most)  # a larger batch would wait for its timeout
    return Pipeline(
        source,
        handle_message=handler,
        concurrency=options.concurrency,
        batchers=None
        if store is None
        else {"default": Batcher(store, size=size, timeout=options.batch_timeout)},
        max_failed_batches=None if store is None else MOST_FAILED,
    )


def _made(handler: Callable[..., Any], source: Any, options: argparse.Namespace) -> Pipeline:
    """Return the pipeline that a function of the user makes."""
    unset: dict[str, Any] = {**PIPELINE_OPTIONS, "store": None, "spool": None}
    unused = [name for name, default in unset.items() if getattr(options, name) != default]
    if unused:
        raise ConfigurationError(
            f"--{unused[0].replace('_', '-')}: {options.handler!r} makes the pipeline itself, as "
            f"its parameter is called {SOURCE!r}; leave the option out"
        )
    pipeline = handler(source)
    if not isinstance(pipeline, Pipeline):
        raise ConfigurationError(
            f"{options.handler!r} returned {type(pipeline).__name__}; as its parameter is called "
            f"{SOURCE!r}, return a Pipeline"
        )
    return pipeline


def _store(options: argparse.Namespace, worker: int | None) -> Subscriber[Any] | None:
    if options.store is None:
        return None
    store = store_of(options.store, worker)
    return store if options.spool is None else spooled(store, options.spool, worker or 1)
