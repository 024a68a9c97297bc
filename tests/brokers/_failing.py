"""Processes of a round of `tests.brokers.failures`: one publishes, and others handle messages.

Each writes lines to a file: the name of an event, the time by the clock that all processes share,
and details.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import tenacity

from rxtweets import Batch, Batcher, Message, Pipeline, brokers
from rxtweets._core import event_bus
from rxtweets._core.events import AcknowledgementsLost, BrokerLost, Event
from rxtweets.brokers import Envelope, Publisher, Queue, delivery_of
from rxtweets.errors import BrokerUnavailable
from rxtweets.simulator._tweets import Tweets
from rxtweets.subscribers import Spooled
from tests.brokers._killed import RECEIVED, ignore, take_poison

__all__ = ["SIZE", "run", "tweets_from"]

SIZE = 20
"""Messages of a batch."""

PAUSE = 0.1
"""Seconds between two batches, so that traffic lasts as long as a failure."""

WORK = 0.03
"""Seconds of a handler, so that workers often have messages in flight."""

ENDS = 20.0
"""Seconds for threads to end after the last stop."""

Record = Callable[..., None]


def tweets_from(first: int, start: float = RECEIVED) -> Callable[[], list[Message[str]]]:
    """Return a function that returns the next batch; the same ones after each call."""
    tweets = Tweets(seed=9, clock=lambda: start - 1)
    tweets.frames(0, first)
    starts = count(first, SIZE)
    return lambda: [Message.from_line(frame, start) for frame in tweets.frames(next(starts), SIZE)]


def ingest(queue: Queue, record: Record, ended: threading.Event, first: int, spool: str) -> None:
    """Publish batches, each until it is acknowledged; begin with the ``first`` message."""
    record_puts(record)
    publisher = queue.publisher(spool=spool or None)
    next_batch = tweets_from(first)
    while not ended.wait(PAUSE):
        publish(publisher, next_batch(), record)
    publisher.on_completed()
    record("left", publisher.spooled if isinstance(publisher, Spooled) else 0)


def publish(publisher: Publisher | Spooled, batch: Sequence[Message[str]], record: Record) -> None:
    while batch:
        try:
            returned = publisher.on_next(Batch(batch)) or ()
        except BrokerUnavailable:
            time.sleep(PAUSE)  # the broker is away
            continue
        failed = {message.id for message in returned if message.is_failed}
        record("acked", *(message.id for message in batch if message.id not in failed))
        batch = [message for message in batch if message.id in failed]


def record_puts(record: Record) -> None:
    """Record what publishers put to the broker, and what it has stored."""
    put = Publisher._put

    def recorded(self: Publisher, envelopes: Sequence[Envelope]) -> list[Exception | None]:
        keys = [envelope.key for envelope in envelopes]
        record("put", *keys)
        try:
            errors = put(self, envelopes)
        except BrokerUnavailable:
            record("failed", len(keys))
            raise
        record("stored", *(key for key, error in zip(keys, errors, strict=True) if error is None))
        if any(errors):
            record("failed", sum(map(bool, errors)))
        return errors

    Publisher._put = recorded  # type: ignore[method-assign]  # of this process alone


def work(
    queue: Queue,
    record: Record,
    ended: threading.Event,
    source: dict[str, Any],
    poison: dict[str, str],
) -> None:
    """Handle messages, in batches that ``max_in_flight`` allows."""
    size = min(SIZE, source["max_in_flight"])

    def handle(message: Message[str]) -> Message[str]:
        take_poison(poison.get(message.id))
        time.sleep(WORK)
        record("handled", message.id, delivery_of(message).attempt)
        return message

    def report(event: Event) -> None:
        if isinstance(event, BrokerLost):
            record("lost", event.attempt, round(event.delay, 3))
        elif isinstance(event, AcknowledgementsLost):
            record("unacked", event.messages)

    pipeline = Pipeline(
        queue.source("workers", wait=tenacity.wait_none(), **source),
        handle_message=handle,
        concurrency=5,
        batchers={"default": Batcher(ignore, size=size, timeout=0.05)},
    )
    pipeline.events.subscribe(report)
    with pipeline:
        ended.wait()
    record("redelivered", pipeline.stats().redelivered)


def run(role: str, url: str, path: Path, options: dict[str, Any], end: Connection) -> None:
    """Run a process until the other side of a connection says that it ends."""
    errors = os.open(path.with_suffix(".err"), os.O_WRONLY | os.O_CREAT)
    os.dup2(errors, 2)
    faulthandler.enable(errors)
    faulthandler.register(signal.SIGUSR1, errors)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def record(event: str, *details: object) -> None:
        os.write(file, f"{event} {time.monotonic()} {' '.join(map(str, details))}\n".encode())

    ended = threading.Event()

    def await_end() -> None:
        end.poll(None)
        ended.set()

    threading.Thread(target=await_end, daemon=True).start()
    event_bus.LINGER = 0.01  # its threads are to end soon
    queue = brokers.connect(url, groups=["workers"])
    if role == "ingest":
        ingest(queue, record, ended, **options)
    else:
        work(queue, record, ended, **options)
    queue.close()
    record("threads", *threads_left())


def threads_left() -> list[str]:
    gives_up = time.monotonic() + ENDS
    while True:
        left = [one.name for one in threading.enumerate() if one.name.startswith("rxtweets-")]
        if not left or time.monotonic() > gives_up:
            return left
        time.sleep(0.01)  # a thread sends no signal when it has ended
