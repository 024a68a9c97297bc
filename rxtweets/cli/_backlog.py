"""Show how many messages of a queue wait.

Show for each group of a queue the messages that wait, those that workers have taken, and the age of
the oldest one; and the number of dead letters.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict

from rxtweets.brokers import Backlog
from rxtweets.cli._command import ENDED, add_flag, write
from rxtweets.cli._queues import add_groups, add_queue, queue_of
from rxtweets.display._text import clean, duration

__all__ = ["add_arguments"]

NO_GROUP = "(no group yet)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_queue(parser)
    add_groups(parser, "a group to show, for RabbitMQ, which lists none; may be repeated")
    add_flag(parser, "--json", "print a JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the backlog; return the exit code.

    Raises:
        BrokerUnavailable: the broker cannot be reached.
    """
    with queue_of(options, options.groups) as queue:
        backlog, dead = queue.backlog(), len(queue.dead_letters)
    if options.json:
        groups = {group: asdict(counts) for group, counts in backlog.items()}
        write(json.dumps({"groups": groups, "dead_letters": dead}))
    else:
        write(*_table(backlog), f"dead letters {dead:,}")
    return ENDED


def _table(backlog: Mapping[str, Backlog]) -> list[str]:
    names = [clean(group) or NO_GROUP for group in backlog]
    width = max(map(len, ("group", *names)))
    lines = [f"{'group':<{width}}  {'pending':>10}  {'in flight':>10}  {'oldest':>10}"]
    for name, counts in zip(names, backlog.values(), strict=True):
        age = "–" if counts.oldest_age is None else duration(counts.oldest_age)
        lines.append(f"{name:<{width}}  {counts.pending:>10,}  {counts.in_flight:>10,}  {age:>10}")
    return lines
