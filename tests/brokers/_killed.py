"""Processes of a queue, which tests kill.

Arguments: ``publish URL COUNT``, or ``work URL RECORD OPTIONS``. Standard output has ``ready``, and
then a line for each confirmed batch: the number of its messages. RECORD is a file that gets a line
with id and attempt for each message, at the end of its handler. OPTIONS are the fields of `Work`
as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import tenacity

from rxtweets import Batch, Batcher, CallerAcknowledger, Message, Pipeline, brokers, from_iterable
from rxtweets.brokers import delivery_of
from rxtweets.simulator._tweets import Tweets

RECEIVED = 1_764_028_461.25


@dataclass
class Work:
    """The work of a process.

    Attributes:
        source: options of `Queue.source`.
        poison: ids of messages, and what they do to their handler: raise, exit or hang.
    """

    source: dict[str, Any]
    poison: dict[str, str] = field(default_factory=dict)

    def handler(self, record: int) -> Callable[[Message[str]], Message[str]]:
        """Return a handler that writes to a file."""

        def handle(message: Message[str]) -> Message[str]:
            take_poison(self.poison.get(message.id))
            time.sleep(0.01)  # the work of the handler
            os.write(record, f"{message.id} {delivery_of(message).attempt}\n".encode())
            return message

        return handle


def take_poison(kind: str | None) -> None:
    """Do what a message does to its handler: raise, exit or hang; nothing for ``None``."""
    match kind:
        case "raise":
            raise ValueError("poison")
        case "exit":
            os._exit(3)
        case "hang":
            threading.Event().wait()


def frames(count: int) -> list[bytes]:
    """Return tweets, the same for each call."""
    return Tweets(seed=9, clock=lambda: RECEIVED - 1).frames(0, count)


def messages(count: int) -> list[Message[str]]:
    """Return the messages of these tweets."""
    return [Message.from_line(frame, RECEIVED) for frame in frames(count)]


def publish(url: str, count: int) -> None:
    """Publish messages, and report the confirmed ones."""

    def report(good: Sequence[Message[Any]], bad: Sequence[Message[Any]]) -> None:
        assert not bad
        os.write(1, b"%d\n" % len(good))

    acknowledger = CallerAcknowledger(report)
    queue = brokers.connect(url, groups=["workers"])
    source = from_iterable([one.with_acknowledger(acknowledger) for one in messages(count)])
    os.write(1, b"ready\n")
    Pipeline(source, batchers={"default": Batcher(queue.publisher(), size=20)}).run()


def work(url: str, path: str, options: str) -> None:
    """Handle messages until this process is killed."""
    record = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    plan = Work(**json.loads(options))
    queue = brokers.connect(url, groups=["workers"])
    pipeline = Pipeline(
        queue.source("workers", wait=tenacity.wait_none(), **plan.source),
        handle_message=plan.handler(record),
        concurrency=5,
        batchers={"default": Batcher(ignore, size=20, timeout=0.05)},
    )
    with pipeline:
        os.write(1, b"ready\n")
        pipeline.wait()


def ignore(batch: Batch[Any]) -> None:
    """Take a batch."""


if __name__ == "__main__":
    if sys.argv[1] == "publish":
        publish(sys.argv[2], int(sys.argv[3]))
    else:
        work(*sys.argv[2:])
