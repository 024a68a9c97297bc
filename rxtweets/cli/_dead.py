"""The dead letters of a queue.

The dead letters of a queue: messages that failed for good. A message that is replayed returns to
the group whose workers failed it.

  rxtweets dead sqlite:tweets.queue list
  rxtweets dead sqlite:tweets.queue replay       after the fault is mended
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime

from rxtweets.brokers import QueuedDeadLetter
from rxtweets.cli._command import ENDED, add_flag, write
from rxtweets.cli._queues import add_queue, queue_of
from rxtweets.display._text import clean
from rxtweets.errors import ConfigurationError

__all__ = ["add_arguments"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands below this one."""
    add_queue(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = commands.add_parser("list", help="list them", description="List the dead letters.")
    add_flag(listing, "--json", "print a JSON object a line, with the body")
    listing.set_defaults(run=_list)
    text = "Publish all dead letters to the queue again, and print their number."
    replaying = commands.add_parser("replay", help="publish them again", description=text)
    add_flag(replaying, "--to-all-groups", "deliver them to all groups of the queue")
    replaying.set_defaults(run=_replay)
    text = "Remove all dead letters, and print their number."
    purging = commands.add_parser("purge", help="remove them", description=text)
    add_flag(purging, "--yes", "do not ask")
    purging.set_defaults(run=_purge)


def _list(options: argparse.Namespace) -> int:
    with queue_of(options) as queue:
        for letter in queue.dead_letters:
            write(json.dumps(_record(letter)) if options.json else _as_line(letter))
    return ENDED


def _replay(options: argparse.Namespace) -> int:
    with queue_of(options) as queue:
        write(f"{queue.dead_letters.replay(to_all_groups=options.to_all_groups):,} replayed")
    return ENDED


def _purge(options: argparse.Namespace) -> int:
    if not (options.yes or sys.stdin.isatty()):
        raise ConfigurationError("purge removes messages for good: give --yes")
    with queue_of(options) as queue:
        letters = queue.dead_letters
        count = 0
        if options.yes or _is_confirmed(f"remove {len(letters):,} dead letters for good? [y/N] "):
            count = letters.purge()
    write(f"{count:,} removed")
    return ENDED


def _is_confirmed(question: str) -> bool:
    write(question)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _as_line(letter: QueuedDeadLetter) -> str:
    at = f"{datetime.fromtimestamp(letter.at, UTC):%Y-%m-%d %H:%M:%S}"
    parts = [letter.key, f"attempts {letter.attempts}", letter.error, letter.worker, at]
    return "\t".join(map(clean, parts))


def _record(letter: QueuedDeadLetter) -> dict[str, object]:
    names = ("key", "attempts", "error", "group", "worker", "at")
    # A byte that is no UTF-8 becomes half a surrogate pair, which JSON escapes.
    body = letter.body.decode(errors="surrogateescape")
    return {**{name: getattr(letter, name) for name in names}, "body": body}
