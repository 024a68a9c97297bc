"""Queues on Kafka, and on brokers that speak its protocol."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from rxtweets.brokers._address import Address
from rxtweets.brokers._engine import Backlog, Engine, Receiver, Sender, Subscription
from rxtweets.brokers._engines.kafka_client import SETTINGS, WAIT, KafkaClient, KafkaSender
from rxtweets.brokers._engines.kafka_receiver import KafkaReceiver
from rxtweets.errors import BrokerError, BrokerUnavailable, ConfigurationError, QueueSettingsError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from confluent_kafka.admin import AdminClient

__all__ = ["KafkaEngine"]

T = TypeVar("T")
Place = tuple[str, int]
"""A topic, and the number of a partition."""

log = logging.getLogger("rxtweets")

LIMIT = {"request_timeout": WAIT}

REBALANCE = 15.0
"""Seconds. A group answers after its rebalance, which waits for dead members for ten seconds."""


class KafkaEngine(Engine):
    """A topic on Kafka: ``kafka://user:password@host:9092,host2:9092/topic``; extra ``kafka``.

    Options:
        partitions: of a new topic, 8 by default; at most that many workers of a group get messages.
        replication: copies of a new topic; by default 3, or one for each broker if there are fewer.
        retention_hours: how long a new topic keeps messages; 168 by default.
        security.protocol, sasl.mechanism, ssl.ca.location, ssl.certificate.location,
        ssl.key.location, compression.type, batch.num.messages, session.timeout.ms: see librdkafka.
            With a user, ``SASL_SSL`` and ``PLAIN`` are the defaults.

    Names: a group's id on the broker is ``<topic>.<group>``, its retries are in the topic
    ``<topic>.<group>.retry``, and dead letters are in ``<topic>.dead``.

    Guarantees:
        - At least once. A message counts as published when all in-sync replicas have it. Kafka
          knows no keys: a message that is published twice is delivered twice.
        - Kafka leaves the flush to the operating system: confirmed messages are lost if all
          replicas lose power at once. With one copy, that is one machine.
        - Kafka deletes by age, not by acknowledgement. A group that is behind by more than the
          retention loses messages; the worker that meets the gap logs it. Topics that are
          compacted, limited in bytes or kept shorter than ``retention_hours`` are refused.
        - The order by key (``shard_by``): messages of a key are in one partition. Their retries
          wait in the memory of the worker, so their attempts are forgotten after a rebalance. A
          rebalance waits five seconds for their handlers; one that takes longer may run beside the
          next worker's. A key that is retried stops its partition after ``max_in_flight`` or 1000
          later messages, whichever is more. Other numbers of partitions change the places of keys,
          so add none while messages wait. Messages without a shard have no order.
        - Kafka stores one position for each partition. Acknowledgements behind an unsettled message
          are kept in memory until it is settled. After a crash or a rebalance such messages are
          delivered again: up to ``max_in_flight`` or 1000 of a partition, whichever is more, and
          10,000 of a partition of retries.
        - When a worker comes or goes, Kafka takes the partitions from all workers of its group for
          a moment. Their unsettled messages are delivered again, perhaps while handlers still run.
        - Kafka does not count deliveries: the attempt counts retries, and crashes whose cause is
          known. After two crashes in a row, a worker takes one message at a time, and each needs a
          commit before. So the next crash shows its cause, which alone is delivered as the next
          attempt. A message that kills each of its workers becomes a dead letter after
          ``max_deliver`` + 2 crashes, sometimes a few more.
        - The worker is slow until the cause is settled, or all messages that workers had at the
          second crash. A batch then waits for its timeout. A worker that is killed, or loses its
          session in a long outage, counts as crashed; one that leaves its group does not.
        - Crashes are stored in the metadata of positions. A broker that keeps none has no dead
          letters for messages that kill their workers.
        - A retry is stored in the retry topic before its original is settled. Its delay is as exact
          as the clocks of the workers agree, while fewer than 10,000 retries wait at its worker.
        - A dead worker is noticed after ``session.timeout.ms``, 10 s by default. Kafka forgets the
          position of a group that has had no worker for a week (``offsets.retention.minutes``);
          then the group gets all messages again that the topic still has.
        - `Backlog.in_flight` counts the receivers of this engine; messages of other workers count
          as pending. `Backlog.oldest_age` is unknown.
        - `purge` leaves out messages that workers have fetched.
    """

    name = "kafka"
    listing = "kafka-topics.sh --list"
    no_shards = ""

    def __init__(self, address: Address) -> None:
        address.check_options(("partitions", "replication", "retention_hours", *SETTINGS))
        if not address.hosts:
            raise ConfigurationError(f"{address}: give a host, as kafka://127.0.0.1:9092/topic")
        if not re.fullmatch(r"[a-zA-Z0-9._-]{1,200}", address.path):
            raise ConfigurationError(
                f"{address}: the name of a topic has letters, digits, '.', '_' and '-', up to 200"
            )
        self.queue = address.path
        self._address = address
        self._partitions = address.number("partitions", 8)
        self._replication = address.number("replication", 0)
        self._retention = address.number("retention_hours", 168) * 3_600_000
        self._client = KafkaClient(address)
        self._lock = threading.Lock()
        self._admin: AdminClient | None = None
        self._dead: KafkaEngine | None = None
        self._checked: set[str] = set()
        self._groups: set[str] = set()
        self._receivers: WeakSet[KafkaReceiver] = WeakSet()

    def exists(self, groups: Sequence[str] = ()) -> bool:
        """Return whether the topic exists, and those for the retries of groups."""
        found = self._ask("list topics", lambda admin: admin.list_topics(timeout=WAIT))
        if not {self.queue, *map(self._retries_of, groups)} <= found.topics.keys():
            return False
        self._groups.update(groups)
        return True

    def ensure(self, groups: Sequence[str] = ()) -> None:
        """Create the topic, and one for the retries of each group."""
        topics = [self.queue, *map(self._retries_of, groups)]
        found = self._ask("list topics", lambda admin: admin.list_topics(timeout=WAIT))
        missing = [topic for topic in topics if topic not in found.topics]
        if missing:
            self._create(missing, len(found.brokers))
        for topic in topics:
            if topic not in missing and topic not in self._checked:
                self._check(topic, found.topics[topic])
        self._checked.update(topics)
        self._groups.update(groups)

    def sender(self) -> Sender:
        """Return a sender."""
        return KafkaSender(self._client, self.queue)

    def receiver(self, subscription: Subscription) -> Receiver:
        """Return a receiver that has its partitions, unless the group takes longer than 10 s.

        Raises:
            BrokerUnavailable: the broker cannot be reached.
        """
        retries = self._retries_of(subscription.group)
        group_id = f"{self.queue}.{subscription.group}"
        receiver = KafkaReceiver(self._client, self.queue, retries, group_id, subscription)
        self._receivers.add(receiver)
        receiver.wait_for_partitions()
        return receiver

    def backlog(self) -> dict[str, Backlog]:
        """Return the backlog of each group; see the class for ``in_flight``."""
        return {group: self._backlog(group) for group in self._known_groups() or [""]}

    def dead_letters(self) -> Engine:
        """Return the topic of the same name with ``.dead`` at its end."""
        with self._lock:
            if self._dead is None:
                self._dead = KafkaEngine(replace(self._address, path=f"{self.queue}.dead"))
            return self._dead

    def purge(self) -> int:
        """Delete all records; return their number, those included that groups have acknowledged.

        Where the broker refuses that, the groups skip all records, which needs groups without
        workers.
        """
        groups = self._known_groups()
        topics = [self.queue, *map(self._retries_of, groups)]
        starts, ends = self._ends(topics)
        records = [self._client.kafka.TopicPartition(*at, end) for at, end in ends.items()]
        try:
            self._ask(
                "delete records", lambda admin: _results(admin.delete_records(records, **LIMIT))
            )
        except BrokerError as error:
            log.info("%r: its groups skip the records, which cannot be deleted: %s", self, error)
            for group in groups:
                self._skip(group, ends)
        return sum(ends.values()) - sum(starts.values())

    def close(self) -> None:
        """Close the connection that is used for administration."""
        with self._lock:
            self._admin, dead = None, self._dead
        if dead is not None:
            dead.close()

    def __repr__(self) -> str:
        return f"<KafkaEngine {self._address}>"

    def _retries_of(self, group: str) -> str:
        return f"{self.queue}.{group}.retry"

    def _ask(self, doing: str, request: Callable[[AdminClient], T]) -> T:
        with self._lock:
            if self._admin is None:
                self._admin = self._client.new("AdminClient", {})
            admin = self._admin
        try:
            return request(admin)
        except self._client.kafka.KafkaException as error:
            raise self._client.error(doing, error.args[0]) from None
        except TimeoutError:
            raise self._client.unavailable(doing, f"no answer within {WAIT:g} s") from None

    # Topics.

    def _create(self, topics: Iterable[str], brokers: int) -> None:
        copies = self._replication or max(1, min(3, brokers))
        config = {
            "cleanup.policy": "delete",
            "retention.ms": str(self._retention),
            "retention.bytes": "-1",
            "min.insync.replicas": str(min(2, copies)),
            "unclean.leader.election.enable": "false",
        }
        new = [
            self._client.admin.NewTopic(topic, self._partitions, copies, config=config)
            for topic in topics
        ]

        def create(admin: AdminClient) -> None:
            for future in admin.create_topics(new, operation_timeout=WAIT, **LIMIT).values():
                try:
                    _result(future)
                except self._client.kafka.KafkaException as error:
                    if error.args[0].name() != "TOPIC_ALREADY_EXISTS":  # another process was first
                        raise

        self._ask("create topics", create)

    def _check(self, topic: str, found: Any) -> None:
        """Refuse settings that can lose messages, as far as the broker shows them."""
        copies = min((len(part.replicas) for part in found.partitions.values()), default=1)
        for setting, remedy in _risks(
            self._settings(topic), copies, self._replication, self._retention
        ):
            raise QueueSettingsError(
                f"topic {topic!r} on kafka at {self._client.hosts} can lose messages: it has "
                f"{setting}; {remedy}, or name another topic"
            )

    def _settings(self, topic: str) -> dict[str, str]:
        resource = self._client.admin.ConfigResource("topic", topic)
        try:
            [shown] = self._ask(
                "read settings", lambda admin: _results(admin.describe_configs([resource], **LIMIT))
            )
        except BrokerUnavailable:
            raise
        except BrokerError as error:
            log.warning("%r: the settings of topic %s are not checked: %s", self, topic, error)
            return {}
        return {name: str(entry.value) for name, entry in shown.items()}

    # Groups and positions.

    def _known_groups(self) -> list[str]:
        """Return the groups of `ensure`, and those whose position the broker knows."""
        listed = self._ask(
            "list groups", lambda admin: _result(admin.list_consumer_groups(**LIMIT))
        )
        before, dot, names = self.queue, ".", {one.group_id for one in listed.valid}
        pairs = (name.rpartition(dot) for name in names)
        return sorted(self._groups | {group for queue, _, group in pairs if queue == before})

    def _backlog(self, group: str) -> Backlog:
        ours = [receiver.held() for receiver in list(self._receivers) if receiver.group == group]
        in_flight, settled = (sum(one[index] for one in ours) for index in (0, 1))
        starts, ends = self._ends([self.queue, self._retries_of(group)] if group else [self.queue])
        positions = self._positions(group, ends) if group else {}
        behind = sum(end - max(starts[at], positions.get(at, 0)) for at, end in ends.items())
        return Backlog(max(0, behind - in_flight - settled), in_flight)

    def _ends(self, topics: Sequence[str]) -> tuple[dict[Place, int], dict[Place, int]]:
        """Return the first offset of each partition, and the one after its last."""
        found = self._ask("list topics", lambda admin: admin.list_topics(timeout=WAIT)).topics
        places = [
            (topic, at) for topic in topics if topic in found for at in found[topic].partitions
        ]
        spec, partition = self._client.admin.OffsetSpec, self._client.kafka.TopicPartition

        def offsets(which: Any) -> dict[Place, int]:
            asked = {partition(*place): which for place in places}
            results = self._ask(
                "list offsets",
                lambda admin: {
                    at: _result(one) for at, one in admin.list_offsets(asked, **LIMIT).items()
                },
            )
            return {(at.topic, at.partition): one.offset for at, one in results.items()}

        return offsets(spec.earliest()), offsets(spec.latest())

    def _positions(self, group: str, places: Iterable[Place]) -> dict[Place, int]:
        asked = self._group_offsets(group, dict.fromkeys(places, -1001))
        [found] = self._ask(
            "read positions",
            lambda admin: _results(admin.list_consumer_group_offsets([asked], **LIMIT)),
        )
        return {(at.topic, at.partition): at.offset for at in found.topic_partitions}

    def _skip(self, group: str, ends: Mapping[Place, int]) -> None:
        topics = self.queue, self._retries_of(group)
        moved = self._group_offsets(group, {at: end for at, end in ends.items() if at[0] in topics})
        self._ask(
            "move the group",
            lambda admin: _results(
                admin.alter_consumer_group_offsets([moved], request_timeout=REBALANCE)
            ),
        )

    def _group_offsets(self, group: str, offsets: Mapping[Place, int]) -> Any:
        kafka = self._client.kafka
        partitions = [kafka.TopicPartition(*place, offset) for place, offset in offsets.items()]
        return kafka.ConsumerGroupTopicPartitions(f"{self.queue}.{group}", partitions)


def _risks(
    settings: Mapping[str, str], copies: int, least: int, retention: int
) -> Iterator[tuple[str, str]]:
    """Yield settings that can lose messages, and the remedy."""
    policy = settings.get("cleanup.policy", "delete")
    if "compact" in policy:
        yield f"cleanup.policy={policy}", "set cleanup.policy=delete"
    kept = int(settings.get("retention.ms", -1))
    if 0 <= kept < retention:
        yield f"retention.ms={kept}", f"set it to {retention}, or lower the option retention_hours"
    size = int(settings.get("retention.bytes", -1))
    if size >= 0:
        yield f"retention.bytes={size}", "set it to -1"
    if copies < least:
        yield f"{copies} replicas", f"add replicas up to {least}, or lower the option replication"
    in_sync = int(settings.get("min.insync.replicas", 2))
    if copies > 1 and in_sync < 2:
        yield f"min.insync.replicas={in_sync}", "set it to 2"
    if copies > 1 and settings.get("unclean.leader.election.enable") == "true":
        yield "unclean.leader.election.enable=true", "set it to false"


def _result(future: Future[T]) -> T:
    return future.result(WAIT + 1.0)


def _results(futures: Mapping[Any, Future[T]]) -> list[T]:
    return [_result(future) for future in futures.values()]
