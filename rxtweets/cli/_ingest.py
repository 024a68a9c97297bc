"""Store a stream in a durable queue.

Read a stream, and store its tweets in a queue until Ctrl-C, which stores the tweets in flight. Any
number of workers take them from there: see rxtweets work.

  rxtweets ingest sqlite:tweets.queue --limit 2000
  rxtweets ingest sqlite:tweets.queue --source x --group store --group alerts --spool spool

The last line says how many messages are stored. The exit code is 0 only if all that were read are
stored. It is 1 if one was dropped, failed, was cut off or undecodable, or waits in the spool.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from typing import NamedTuple

from rxtweets._core.stats import Stats
from rxtweets.brokers import Publisher, Queue
from rxtweets.cli._command import ABANDONED, ENDED, FAILED, add_flag, add_option, complain, log_to
from rxtweets.cli._dashboard import add_dashboard, dashboard, pipeline_cards
from rxtweets.cli._queues import add_groups, add_queue, queue_of
from rxtweets.cli._screen import Screen, summaries
from rxtweets.cli._sources import add_source, add_stream_options, ending, source_of
from rxtweets.display._text import summary_line
from rxtweets.errors import BrokerUnavailable
from rxtweets.pipeline import Batcher, Pipeline
from rxtweets.subscribers import Spooled

__all__ = ["add_arguments"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_queue(parser, creates=True)
    add_source(parser, recordings=True, name="--source")
    add_stream_options(parser)
    queue = parser.add_argument_group("queue")
    text = "a group that gets every message, also before its first worker; may be repeated"
    add_groups(queue, text)
    add_option(queue, "--batch-size", 200, "messages that are stored at a time")
    add_option(queue, "--batch-timeout", 0.05, "seconds until an incomplete batch is stored")
    text = "keep batches in this directory while the broker is away"
    add_option(queue, "--spool", None, text, metavar="DIR")
    output = parser.add_argument_group("output")
    add_flag(output, "--json", "print a JSON object at the end, and no summaries")
    add_dashboard(output)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Store until a signal or the end of the options; return the exit code.

    Raises:
        RxTweetsError: an option is invalid, the queue cannot be used, or the stream failed for
            good.
    """
    screen = Screen(sys.stdout, sys.stderr)
    with log_to(screen), queue_of(options, options.groups) as queue, source_of(options) as source:
        publisher: Publisher | Spooled = queue.publisher(spool=options.spool)
        waiting = _spooled(publisher)
        _reach(queue, publisher)
        batcher = Batcher(publisher, size=options.batch_size, timeout=options.batch_timeout)
        pipeline = Pipeline(source, batchers={"default": batcher})
        page = dashboard(options.dashboard, screen, pipeline_cards(pipeline))
        with page, ending(pipeline, options.duration):
            try:
                with summaries(
                    pipeline, screen, is_json=options.json, spooled=lambda: _spooled(publisher)
                ):
                    pipeline.run()
            finally:
                stats = pipeline.stats()
                outcome = _outcome(stats, publisher, waiting)
                _report(screen, options, queue, stats, outcome)
    if stats.abandoned:
        return ABANDONED
    return FAILED if outcome.losses else ENDED


class Outcome(NamedTuple):
    """What became of the messages.

    Attributes:
        stored: messages in the queue, of the spool of earlier runs too.
        losses: numbers of messages that are not there, by the reason.
    """

    stored: int
    losses: dict[str, int]


def _reach(queue: Queue, publisher: Publisher | Spooled) -> None:
    """Create the queue before tweets arrive; with a spool, the broker may be away.

    Raises:
        BrokerError: tweets could not be stored.
    """
    try:
        queue.ensure()
    except BrokerUnavailable as error:
        if not isinstance(publisher, Spooled):
            raise
        complain(f"rxtweets: batches go to the spool: {error}")


def _outcome(stats: Stats, publisher: Publisher | Spooled, waiting: int) -> Outcome:
    spooled = _spooled(publisher)
    refused = publisher.dead_lettered if isinstance(publisher, Spooled) else 0
    losses = {
        "dropped": stats.dropped,
        "unsubscribed": stats.unsubscribed,
        "undecodable": stats.undecodable,
        "failed": stats.batched_failed,
        "abandoned": stats.abandoned,
        "refused": refused,
        "in the spool": spooled,
    }
    stored = stats.batched + waiting - spooled - refused
    return Outcome(stored, {reason: count for reason, count in losses.items() if count})


def _spooled(publisher: Publisher | Spooled) -> int:
    return publisher.spooled if isinstance(publisher, Spooled) else 0


def _report(
    screen: Screen, options: argparse.Namespace, queue: Queue, stats: Stats, outcome: Outcome
) -> None:
    with contextlib.suppress(BrokenPipeError):
        if options.json:
            end = {"stored": outcome.stored, "not_stored": outcome.losses, "stats": stats.as_dict()}
            screen.print(json.dumps(end))
            return
        lost = ", ".join(f"{count:,} {reason}" for reason, count in outcome.losses.items())
        place = f"{queue.engine.name} queue {queue.engine.queue!r}"
        screen.write(
            f"{summary_line(stats)}\n"
            f"stored {outcome.stored:,} in the {place}{lost and f'; not stored: {lost}'}\n"
        )
