"""Durable queues between an ingesting process and any number of workers.

::

    queue = brokers.connect("sqlite:tweets.queue")
    ingest = Pipeline(stream, batchers={"default": Batcher(queue.publisher(), size=200)})
    work = Pipeline(queue.source("sentiment"), handle_message=handler)

One process runs ``ingest``, any number of others run ``work``. ::

    =====================================  =========  ======================================
    URL                                    extra      keeps messages in
    =====================================  =========  ======================================
    sqlite:tweets.queue                               a file, for processes of one machine
    nats://host:4222/TWEETS                jetstream  a stream of NATS JetStream
    amqp://user:password@host/tweets       rabbitmq   quorum queues of RabbitMQ
    redis://host:6379/tweets               redis      a stream of Redis
    kafka://host:9092/tweets               kafka      a topic of Kafka
    sqs://eu-west-1/tweets                 sqs        queues of Amazon SQS
    pubsub://project/tweets                pubsub     a topic of Google Cloud Pub/Sub
    memory:tweets                                     this process, for tests
    =====================================  =========  ======================================

``help(type(brokers.connect(URL).engine))`` says what an engine guarantees, and which options its
URL takes.

A message is acknowledged when its pipeline has handled it. So each is handled at least once: make
writes idempotent, as the stores of `rxtweets.subscribers` do.

An engine of your own is one file that implements `Engine`, `Sender` and `Receiver`, and is used as
``Queue(MyEngine(...))``; see `rxtweets.brokers._engine`.
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
