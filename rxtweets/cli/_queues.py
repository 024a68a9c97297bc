"""The queue of a command, by its URL."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence

from rxtweets.brokers import Queue, connect
from rxtweets.brokers._queue import ENGINES

__all__ = ["add_groups", "add_queue", "queue_of"]


def add_queue(parser: argparse.ArgumentParser, *, creates: bool = False) -> None:
    """Add the URL; see `queue_of`.

    Args:
        parser: of the command.
        creates: the command creates the queue.
    """
    schemes = ", ".join(f"{scheme}:" for scheme in ENGINES)
    created = ", which is created when it is missing" if creates else ""
    text = f"of the queue{created}; it begins with {schemes}"
    parser.add_argument("url", metavar="URL", help=text)


def add_groups(arguments: argparse._ActionsContainer, description: str) -> None:
    """Add an option for names of groups."""
    arguments.add_argument(
        "--group", dest="groups", action="append", default=[], metavar="NAME", help=description
    )


@contextlib.contextmanager
def queue_of(options: argparse.Namespace, groups: Sequence[str] = ()) -> Iterator[Queue]:
    """The queue of the URL, until the end of the block.

    Args:
        options: those of `add_queue`.
        groups: that get every message.

    Raises:
        ConfigurationError: there is no engine for this URL, or its client is not installed.
    """
    queue = connect(options.url, groups=groups)
    try:
        yield queue
    finally:
        queue.close()
