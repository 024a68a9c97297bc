"""Queues on brokers, by their URL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from importlib import import_module
from typing import Any, get_args, overload

import tenacity

from rxtweets._support.validation import (
    choice,
    function,
    iterable,
    no_class,
    seconds,
    whole_number,
)
from rxtweets.brokers._address import Address
from rxtweets.brokers._dead_letters import DeadLetters, check_exists
from rxtweets.brokers._engine import Backlog, Engine, Subscription
from rxtweets.brokers._publisher import Publisher, ShardBy
from rxtweets.brokers._source import RECONNECT, OnFailure, QueueSource, Settling
from rxtweets.errors import ConfigurationError
from rxtweets.subscribers._spooled import Spooled

__all__ = ["Queue", "connect"]

ENGINES: dict[str, tuple[str, str]] = {
    "amqp": ("rabbitmq", "RabbitMQEngine"),
    "amqps": ("rabbitmq", "RabbitMQEngine"),
    "kafka": ("kafka", "KafkaEngine"),
    "memory": ("memory", "MemoryEngine"),
    "redis": ("redis", "RedisEngine"),
    "rediss": ("redis", "RedisEngine"),
    "sqlite": ("sqlite", "SQLiteEngine"),
    "nats": ("jetstream", "JetStreamEngine"),
    "pubsub": ("pubsub", "PubSubEngine"),
    "sqs": ("sqs", "SqsEngine"),
}
"""Module and class of each engine, by the scheme of its URLs."""

GROUP = "default"

WITH_SHARDS = "kafka, memory, pubsub with ?ordered=1, sqlite, and sqs for names that end with .fifo"
"""Engines that order messages by key."""


class Queue:
    """A queue on a broker: where to publish, and where to take from.

    Made by `connect`, or from an engine of your own: ``Queue(MyEngine(...))``.

    Args:
        engine: speaks to the broker.
        groups: groups that get every message, even those published before their first worker.

    Attributes:
        dead_letters: messages that failed for good.
    """

    def __init__(self, engine: Engine, groups: Iterable[str] = ()) -> None:
        self.engine = engine
        self._groups = _group_names(groups)
        self.dead_letters: DeadLetters = DeadLetters(engine)

    @overload
    def publisher(
        self, *, pack: int = 1, shard_by: ShardBy | None = None, spool: None = None
    ) -> Publisher: ...

    @overload
    def publisher(
        self,
        *,
        pack: int = 1,
        shard_by: ShardBy | None = None,
        spool: str | os.PathLike[str],
        spool_bytes: int = 2**30,
    ) -> Spooled: ...

    def publisher(
        self,
        *,
        pack: int = 1,
        shard_by: ShardBy | None = None,
        spool: str | os.PathLike[str] | None = None,
        spool_bytes: int = 2**30,
    ) -> Publisher | Spooled:
        """Return a subscriber that publishes batches; with a spool, a `Spooled` one.

        Args:
            pack: messages of the pipeline in one message of the broker, 50 tweets at most. Packs
                are much faster, and each message is still acknowledged on its own. A pack is
                delivered to one worker, after a crash as a whole. Two publishers of the same
                tweets are not deduplicated. Bodies have one line for each message.
            shard_by: gives each message a key, a whole number or text, such as the id of its
                author. Each group gets the messages of a key in the order of their publication,
                one at a time: a worker gets the next one when the last one is settled. A failed
                message that is retried blocks its key until it is acknowledged, dropped or a dead
                letter. So a batch of a worker has one message of a key at most, and a long
                ``timeout`` of a batcher delays the next one. Messages on which the function raises
                fail. A worker that dies or loses its lease may still run its handler when another
                one gets the message again. Engines: kafka, memory, pubsub with ``?ordered=1``,
                sqlite, and sqs for names that end with ``.fifo``; their classes say what breaks the
                order. Not with ``pack``. Publish in order too: one publisher for a key, and
                ``partition_by`` in its pipeline if that has concurrent batches.
            spool: a directory for batches while the broker is away, which are published when it is
                back; by default they fail. See `rxtweets.subscribers.Spooled`.
            spool_bytes: of the batches that wait; a batch beyond it fails.

        Raises:
            ConfigurationError: the directory cannot be used, or another process uses it; or the
                engine cannot order messages by key.
        """
        whole_number("pack", pack)
        if shard_by is not None:
            self._check_shards(shard_by, pack)
        publisher = Publisher(self.engine, self._groups, pack, shard_by)
        if spool is None:
            return publisher
        return Spooled(publisher, spool, max_bytes=spool_bytes, wait=RECONNECT)

    def source(
        self,
        group: str = GROUP,
        *,
        on_failure: OnFailure = "retry",
        wait: Callable[[tenacity.RetryCallState], float] | None = None,
        max_deliver: int = 5,
        lease: float | timedelta = 30.0,
        max_lease: float | timedelta = 1800.0,
        max_in_flight: int = 1000,
    ) -> QueueSource:
        """Return a source of the messages of the queue.

        It takes messages as they are requested. It connects again after each error of the broker,
        and ends when it is stopped, or if the settings of the queue can lose messages. Workers of
        one group share the messages. Stopping waits for a take, for a second at most while the
        broker answers.

        Each message needs an outcome. One that a stock operator drops, such as ``filter``, is
        delivered again after ``max_lease``; call `rxtweets.ack_immediately` for it before.

        Args:
            group: name of the group: letters, digits, ``-`` and ``_``.
            on_failure: ``retry`` failed messages later, the default; or make them dead letters
                (``dead_letter``), acknowledge them (``drop``), or give them back immediately
                (``release``). ``message.configure_ack(on_failure=…, delay=…)`` overrides it.
            wait: seconds before a failed message is delivered again, as in `tenacity.wait`; by
                default 1 s, doubled each time, up to 60 s. If it raises, 1 s.
            max_deliver: deliveries of a message, after which it becomes a dead letter.
            lease: seconds after which the broker delivers the messages of a dead worker again. It
                is extended while a handler runs.
            max_lease: seconds after which a lease is not extended: a message that is not settled is
                given up. It holds on brokers without leases too.
            max_in_flight: messages given to the pipeline and not settled, at most. Beyond it,
                messages of packs wait in the worker: the rest of one pack as a rule; the rest of
                100 packs when the queue turns from single messages to packs. RabbitMQ and Kafka
                send messages ahead, and count a pack as one: a worker holds up to ``max_in_flight``
                packs, each of 256 KB at most. On RabbitMQ no other worker gets them, so give less
                for packs.

        Raises:
            ConfigurationError: an argument is invalid.
        """
        no_class("wait", wait)
        if wait is not None and not callable(wait):
            raise ConfigurationError(f"wait={wait!r}: give a strategy of tenacity")
        settling = Settling(
            choice("on_failure", on_failure, get_args(OnFailure)),
            wait or tenacity.wait_exponential(multiplier=1.0, max=60.0),
            whole_number("max_deliver", max_deliver),
            seconds("max_lease", max_lease),
        )
        [name] = _group_names([group])
        subscription = Subscription(
            name,
            seconds("lease", lease),
            whole_number("max_in_flight", max_in_flight),
            settling.max_deliver,
        )
        return QueueSource(self.engine, self._groups, subscription, settling)

    def ensure(self) -> None:
        """Create the queue and the groups of `connect`, as far as they are missing.

        The first batch of a publisher and the first take of a worker do so too.

        Raises:
            QueueSettingsError: the queue exists with settings that can lose messages.
            BrokerUnavailable: the broker cannot be reached.
        """
        self.engine.ensure(self._groups)

    def backlog(self) -> dict[str, Backlog]:
        """Return the backlog of each group; of the group ``""`` if there is no group yet.

        Nothing is created.

        Raises:
            QueueMissing: there is no such queue, or not each group of `connect`.
            BacklogUnknown: the broker does not tell it.
            BrokerUnavailable: the broker cannot be reached.
        """
        check_exists(self.engine, self._groups)
        return self.engine.backlog()

    def close(self) -> None:
        """Close connections that publishers and sources share."""
        self.engine.close()

    def _check_shards(self, shard_by: ShardBy, pack: int) -> None:
        function("shard_by", shard_by)
        if self.engine.no_shards:
            raise ConfigurationError(
                f"shard_by: {self.engine.name} cannot order the messages of {self.engine.queue!r} "
                f"by key: {self.engine.no_shards}; engines that can: {WITH_SHARDS}"
            )
        if pack > 1:
            raise ConfigurationError(
                f"shard_by with pack={pack}: a failed message of a pack is published again, after "
                "later ones of its key; leave out one of them"
            )

    def __repr__(self) -> str:
        return f"<Queue {self.engine.queue!r} on {self.engine.name}>"


def connect(url: str, *, groups: Iterable[str] = ()) -> Queue:
    """Return the queue of a URL; the connection is made by its first use.

    ::

        queue = brokers.connect("memory:tweets")
        ingest = Pipeline(stream, batchers={"default": Batcher(queue.publisher(), size=200)})
        work = Pipeline(queue.source("sentiment"), handle_message=handler)

    Args:
        url: its path names the stream, queue or topic, which is created when it is missing.
        groups: groups that get every message, even those published before their first worker.

    Raises:
        ConfigurationError: there is no engine for this URL, or its client is not installed.
    """
    address = Address.parse(url)
    if address.scheme not in ENGINES:
        raise ConfigurationError(
            f"no engine for {address.scheme}:…; there are {', '.join(sorted(ENGINES))}"
        )
    module, name = ENGINES[address.scheme]
    make: Any = getattr(import_module(f"rxtweets.brokers._engines.{module}"), name)
    return Queue(make(address), groups)


def _group_names(groups: Iterable[str]) -> tuple[str, ...]:
    names = tuple(iterable("groups", groups, '["sentiment"]'))
    for name in names:
        if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum():
            raise ConfigurationError(f"group={name!r}: give letters, digits, - and _")
        if not name.isascii():
            raise ConfigurationError(f"group={name!r}: give letters without accents")
    return names
