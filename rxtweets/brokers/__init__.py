"""Durable queues between an ingesting process and any number of workers.

::

    from rxtweets import brokers

    queue = brokers.connect("memory:tweets")
    Pipeline(stream, batchers={"default": Batcher(queue.publisher(), size=200)}).run()
    Pipeline(queue.source("sentiment"), handle_message=score).run()

A message is acknowledged when its pipeline has handled it. So each is handled at least once: make
writes idempotent, as the stores of `rxtweets.subscribers` do.

An engine is one file that implements `Engine`, `Sender` and `Receiver`.
May import: `rxtweets.subscribers`, `rxtweets.streams` and below.
"""

from rxtweets.brokers._address import Address
from rxtweets.brokers._dead_letters import DeadLetters, QueuedDeadLetter
from rxtweets.brokers._engine import (
    Backlog,
    Engine,
    Envelope,
    Receiver,
    Sender,
    Subscription,
    Taken,
)
from rxtweets.brokers._publisher import Publisher
from rxtweets.brokers._queue import Queue, connect
from rxtweets.brokers._source import Delivery, delivery_of

__all__ = [
    "Address",
    "Backlog",
    "DeadLetters",
    "Delivery",
    "Engine",
    "Envelope",
    "Publisher",
    "Queue",
    "QueuedDeadLetter",
    "Receiver",
    "Sender",
    "Subscription",
    "Taken",
    "connect",
    "delivery_of",
]
