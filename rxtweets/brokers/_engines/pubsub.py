"""Queues on Google Cloud Pub/Sub."""

from __future__ import annotations

import contextlib
import math
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from rxtweets.brokers._address import Address
from rxtweets.brokers._engine import (
    Backlog,
    Engine,
    Envelope,
    Receiver,
    Sender,
    Subscription,
    Taken,
)
from rxtweets.brokers._engines.pubsub_client import Missing, PubSubClient
from rxtweets.brokers._envelopes import batches_of
from rxtweets.brokers._shards import ShardReceiver
from rxtweets.errors import (
    BacklogUnknown,
    BrokerError,
    BrokerUnavailable,
    ConfigurationError,
    QueueSettingsError,
)

__all__ = ["PubSubEngine"]

POLL = 2.0
"""Seconds of one pull; `close` waits for its end."""

SILENCE = 2.5
"""Seconds without an answer to pulls, until another request tests whether the server is there."""

NEWS = 60.0
"""Seconds until a sender tests again whether the topic has a subscription."""

LONGEST_LEASE = 600
USUAL_LEASE = 30
"""Seconds of a new subscription; a receiver with another lease pays a request for each take."""

MESSAGES, BYTES = 1000, 9_000_000
"""Limits of a request to publish: 1000 messages, 10 MB with all that is around them."""

ATTRIBUTE_BYTES = 1024
ACKS = 1000
"""Acknowledgements of a request, which has 512 KB at most."""

DAYS = 7
"""Days for which a new subscription retains messages."""

KEY = "rxtweets-key"
"""Attribute with the key of the envelope."""

PARALLEL = 8
"""Requests of a sender at the same time, each for one shard."""

DEAD = ".dead"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9._~+-]{2,254}")


class PubSubEngine(Engine):
    """Queues on Google Cloud Pub/Sub: ``pubsub://PROJECT/topic``.

    ::

        queue = brokers.connect("pubsub://my-project/tweets", groups=["sentiment"])

    Credentials are Google's application default credentials. An emulator is used if the environment
    has PUBSUB_EMULATOR_HOST.

    A group is a subscription, named ``topic-group``. Pub/Sub drops messages of a topic without any
    subscription, and a new one gets only later messages. So without any group, messages are
    refused: name the groups in `connect` where messages are published.

    Guarantees and limits:

    - At least once, in no order, without deduplication: Pub/Sub knows no keys.
    - By Google's documentation, a confirmed message is stored in several zones of a region.
    - A subscription deletes messages after ``retention`` days (option, 1 to 31, default 7), even
      those that are not acknowledged. It never expires itself.
    - The lease is 600 s at most, in whole seconds; so is the delay of a retry: a longer one is cut.
    - Pub/Sub does not tell whether an acknowledgement came in time. Those after the end of the
      lease, by the clock of this process, are returned as lost, though they may be accepted.
    - A release counts as an attempt. Attempts are estimates of Pub/Sub.
    - A take waits a second at least, as Pub/Sub answers early with nothing.
    - Pub/Sub tells no backlog: see ``num_undelivered_messages`` in Cloud Monitoring.
    - The order by key (``shard_by``) needs ``ordered=1`` in the URLs of publishers and workers.
      Then new subscriptions have message ordering, and one that has not is refused. Each shard has
      an ordering key, and requests of its own, eight at a time. Retries wait in the memory of the
      worker, so their attempts are forgotten when it ends. It holds the next messages of the shard
      too, whose deliveries count as attempts. The order holds until a worker exceeds its lease. By
      Google's documentation, it needs publishers in one region, a redelivery repeats later messages
      of the shard, even acknowledged ones, and forwarding of dead letters by Google can change it.
    - A message has 10 MB at most, a header 1024 bytes.
    - Pub/Sub counts deliveries only for a dead-letter policy. So subscriptions have one, for 100
      deliveries at first and ``max_deliver + 2`` when a worker comes, 5 to 100. Its topic is
      ``topic.dead``, with the subscription ``topic.dead-dead``. Google forwards dead letters only
      if its service agent may: grant service-NUMBER@gcp-sa-pubsub.iam.gserviceaccount.com the
      roles pubsub.publisher on that topic, and pubsub.subscriber on the subscription of the group.
      Without them, messages stay in the subscription, and this library's own dead letters work.

    Permissions: of the roles pubsub.publisher, pubsub.subscriber and pubsub.viewer; pubsub.editor
    to create and update what is missing.
    """

    name = "pubsub"
    listing = "gcloud pubsub topics list"

    def __init__(self, address: Address, client: PubSubClient | None = None) -> None:
        address.check_options(("ordered", "retention"))
        if not NAME.fullmatch(address.path) or address.path.startswith("goog"):
            raise ConfigurationError(
                f"{address}: name a topic of 3 letters or more, which may be digits and -._~+ too"
            )
        self.queue = address.path
        self._project = _project(address)
        self.topic = f"projects/{self._project}/topics/{self.queue}"
        self._is_ordered = bool(address.number("ordered", 0, 0, 1))
        self.no_shards = "" if self._is_ordered else "its URL has no ?ordered=1"
        self._retention = address.number("retention", DAYS, most=31) * 86400
        self._address = address
        self._client = client or PubSubClient()
        self._lock = threading.Lock()
        self._has_topic = False
        self._named: set[str] = set()
        self._ensured: set[str] = set()

    def exists(self, groups: Sequence[str] = ()) -> bool:
        """Return whether the topic and the subscriptions of groups exist."""
        try:
            self._client.publisher("get_topic", topic=self.topic)
            return set(map(self.subscription, groups)) <= set(self.subscriptions())
        except Missing:
            return False

    def ensure(self, groups: Sequence[str] = ()) -> None:
        """Create the topic, the subscriptions of the groups, and the dead-letter topic.

        Raises:
            BrokerError: there is no permission for it.
        """
        with self._lock:
            self._named.update(groups)
            if not self._has_topic:
                self._client.create("create_topic", {"name": self.topic})
                self._has_topic = True
            for group in sorted(self._named - self._ensured):
                self._ensure_group(group)
                self._ensured.add(group)

    def sender(self) -> Sender:
        """Return a sender."""
        return _PubSubSender(self, self._client, self.topic)

    def receiver(self, subscription: Subscription) -> Receiver:
        """Return a receiver; Pub/Sub gets the limit of deliveries.

        Raises:
            ConfigurationError: the lease is longer than 600 s, or ``max_deliver`` above 98.
            QueueSettingsError: the limit of deliveries of another dead-letter policy is too low.
        """
        if subscription.lease > LONGEST_LEASE:
            raise ConfigurationError(f"lease={subscription.lease:g}: Pub/Sub has 600 s at most")
        if subscription.max_deliver > 98 and not self.queue.endswith(DEAD):
            raise ConfigurationError(
                f"max_deliver={subscription.max_deliver}: Pub/Sub moves messages away after 100 "
                "deliveries, so give 98 at most"
            )
        self.ensure((subscription.group,))
        name = self.subscription(subscription.group)
        present = self._client.subscriber("get_subscription", subscription=name)
        self._limit_deliveries(present, subscription.max_deliver + 2)
        lease = max(1, math.ceil(subscription.lease))
        receiver = _PubSubReceiver(self._client, name, lease, present.ack_deadline_seconds)
        if not present.enable_message_ordering:
            return receiver
        return ShardReceiver(receiver, subscription.max_in_flight)

    def backlog(self) -> dict[str, Backlog]:
        """Raise an error: Pub/Sub tells none.

        Raises:
            BacklogUnknown: always.
        """
        raise BacklogUnknown(
            f"Pub/Sub tells no backlog of {self.queue!r}: see the metric "
            "subscription/num_undelivered_messages in Cloud Monitoring"
        )

    def dead_letters(self) -> PubSubEngine:
        """Return the topic of the same name with ``.dead`` at its end."""
        options = {key: text for key, text in self._address.options.items() if key != "ordered"}
        address = replace(self._address, path=self.queue + DEAD, options=options)
        return PubSubEngine(address, self._client)

    def purge(self) -> int:
        """Acknowledge all messages published by now; return 0, as Pub/Sub tells no number."""
        for name in self.subscriptions():
            request = {"subscription": name, "time": datetime.now(UTC)}
            self._client.subscriber("seek", request=request)
        return 0

    def close(self) -> None:
        """Close the connection of this topic, and of its dead letters."""
        self._client.close()

    def subscription(self, group: str) -> str:
        """Return the full name of a group's subscription."""
        return f"projects/{self._project}/subscriptions/{self.queue}-{group}"

    def subscriptions(self) -> list[str]:
        """Return the full names of all subscriptions of the topic, whoever has made them."""
        request = {"topic": self.topic, "page_size": 1000}
        return list(self._client.publisher("list_topic_subscriptions", request=request))

    def forget(self) -> None:
        """Make the topic and the subscriptions again at the next `ensure`."""
        with self._lock:
            self._has_topic = False
            self._ensured.clear()

    def policy(self, most: int) -> dict[str, Any]:
        """Return the policy that moves messages to this topic after ``most`` deliveries."""
        return {"dead_letter_topic": self.topic, "max_delivery_attempts": most}

    # Subscriptions.

    def _ensure_group(self, group: str) -> None:
        name = self.subscription(group)
        wanted: dict[str, Any] = {
            "name": name,
            "topic": self.topic,
            "ack_deadline_seconds": USUAL_LEASE,
            "message_retention_duration": {"seconds": self._retention},
            "expiration_policy": {},  # never; by default, 31 days without a worker
        }
        if not self.queue.endswith(DEAD):
            dead = self.dead_letters()
            dead.ensure(("dead",))
            wanted["dead_letter_policy"] = dead.policy(100)
            wanted["enable_message_ordering"] = self._is_ordered
        if not self._client.create("create_subscription", {"request": wanted}):
            self._check(self._client.subscriber("get_subscription", subscription=name))

    def _check(self, present: Any) -> None:
        expires = present.expiration_policy.ttl if "expiration_policy" in present else "31 days"
        retention = present.message_retention_duration.total_seconds()
        faults = {
            "topic": present.topic != self.topic and f"{present.topic}: delete it",
            "enable_message_ordering": self._is_ordered
            and not present.enable_message_ordering
            and "false, which ?ordered=1 needs: name another group, or delete it when it is empty",
            "filter": present.filter and f"{present.filter!r}: it drops messages, so remove it",
            "push_config": present.push_config.push_endpoint and "an endpoint: remove it",
            "expiration_policy": expires and f"{expires}: set it to never",
            "message_retention_duration": retention < self._retention
            and f"{retention:g} s: raise it to {self._retention} s, or lower ?retention=DAYS",
        }
        for setting, fault in faults.items():
            if fault:
                raise QueueSettingsError(f"{present.name} has {setting}={fault}")

    def _limit_deliveries(self, present: Any, wanted: int) -> None:
        if self.queue.endswith(DEAD):
            return
        most, dead = max(wanted, 5), self.dead_letters()
        policy = present.dead_letter_policy
        if policy.dead_letter_topic not in {"", dead.topic}:
            if policy.max_delivery_attempts < wanted:
                raise QueueSettingsError(
                    f"{present.name} has a dead_letter_policy with max_delivery_attempts="
                    f"{policy.max_delivery_attempts}, so Pub/Sub moves messages away before "
                    f"max_deliver={wanted - 2}: raise it to {wanted}, or lower max_deliver"
                )
            return
        # 100 is of `ensure`. Another worker's limit is raised, and never lowered.
        if policy.max_delivery_attempts == 100 or policy.max_delivery_attempts < most:
            changed = {"name": present.name, "dead_letter_policy": dead.policy(most)}
            mask = {"paths": ["dead_letter_policy"]}
            request = {"subscription": changed, "update_mask": mask}
            self._client.subscriber("update_subscription", request=request)


class _PubSubSender(Sender):
    def __init__(self, engine: PubSubEngine, client: PubSubClient, topic: str) -> None:
        self._engine = engine
        self._client = client
        self._topic = topic
        self._checked_at = -math.inf
        self._pool = ThreadPoolExecutor(PARALLEL, "rxtweets-pubsub")

    def put(self, envelopes: Sequence[Envelope]) -> list[Exception | None]:
        if not self._has_group():
            refused = BrokerError(
                f"Pub/Sub topic {self._engine.queue!r} has no subscription, so it would drop the "
                "messages: name the groups in connect(url, groups=[...])"
            )
            return [refused] * len(envelopes)
        errors = [_refusal(envelope) for envelope in envelopes]
        shards: dict[str, list[int]] = {}
        for number, envelope in enumerate(envelopes):
            if errors[number] is None:
                shards.setdefault(envelope.shard, []).append(number)
        lost: list[BrokerUnavailable] = []

        def publish(numbers: list[int]) -> None:
            sized = batches_of(numbers, lambda at: _size(envelopes[at]), MESSAGES, BYTES)
            for batch in sized:
                error = lost[0] if lost else self._publish([envelopes[one] for one in batch])
                if isinstance(error, BrokerUnavailable):  # it would time out for each batch
                    lost.append(error)
                for number in batch:
                    errors[number] = error

        each: Any = map if len(shards) == 1 else self._pool.map
        list(each(publish, shards.values()))
        return list(errors)

    def close(self) -> None:
        self._pool.shutdown(wait=False)

    def _has_group(self) -> bool:
        if time.monotonic() - self._checked_at >= NEWS:
            self._engine.ensure()
            if not self._engine.subscriptions():
                return False
            self._checked_at = time.monotonic()
        return True

    def _publish(self, envelopes: Sequence[Envelope]) -> BrokerError | None:
        messages = [
            {
                "data": one.body,
                "attributes": dict(one.headers) | {KEY: one.key},
                "ordering_key": one.shard,
            }
            for one in envelopes
        ]
        try:
            self._client.publisher("publish", topic=self._topic, messages=messages)
        except Missing as error:
            self._engine.forget()
            self._checked_at = -math.inf
            return BrokerUnavailable(f"{error} The next batch makes it.")
        except BrokerError as error:
            return error
        return None


class _PubSubReceiver(Receiver):
    def __init__(self, client: PubSubClient, name: str, lease: int, usual_lease: int) -> None:
        self._client = client
        self._name = name
        self._lease = lease
        self._usual_lease = usual_lease
        self._closed = threading.Event()
        self._heard_at = time.monotonic()

    def take(self, most: int, wait: float) -> list[Taken]:
        deadline = time.monotonic() + max(1.0, wait)
        while not self._closed.is_set() and (rest := deadline - time.monotonic()) > 0:
            if taken := self._pulled(min(most, 1000), max(0.2, min(rest, POLL))):
                if not self._closed.is_set():
                    return taken
                self.release(taken)
        return []

    def acknowledge(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        late = set(taken) - set(_unexpired(taken))
        self._send("acknowledge", taken)
        return [one for one in taken if one in late]

    def retry(self, taken: Sequence[Taken], delay: float) -> Sequence[Taken]:
        return self._modify(taken, min(math.ceil(delay), LONGEST_LEASE))

    def release(self, taken: Sequence[Taken]) -> None:
        with contextlib.suppress(BrokerError):
            self._modify(taken, 0)

    def extend(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        until = time.monotonic() + self._lease
        lost = set(self._modify(taken, self._lease))
        for one in taken:
            if one not in lost:
                one.receipt.until = until
        return [one for one in taken if one in lost]

    def close(self) -> None:
        self._closed.set()

    def _pulled(self, most: int, wait: float) -> list[Taken]:
        now = time.monotonic()
        # The server answers an empty pull a second before the deadline of the request, or not.
        answer = self._client.pull(self._name, most, wait + 1.0)
        if answer is None:
            self._test_silence()
            return []
        self._heard_at = time.monotonic()
        taken = [_taken(one, now + self._usual_lease) for one in answer]
        if taken and self._lease != self._usual_lease:
            self.extend(taken)
        return taken

    def _test_silence(self) -> None:
        """Raise an error if the server is silent because it is gone, not because of no message."""
        if time.monotonic() - self._heard_at >= SILENCE:
            self._client.subscriber("get_subscription", subscription=self._name)
            self._heard_at = time.monotonic()

    def _modify(self, taken: Sequence[Taken], seconds: int) -> list[Taken]:
        ours = _unexpired(taken)
        self._send("modify_ack_deadline", ours, ack_deadline_seconds=seconds)
        held = set(ours)
        return [one for one in taken if one not in held]

    def _send(self, operation: str, taken: Sequence[Taken], **parameters: Any) -> None:
        for start in range(0, len(taken), ACKS):
            ids = [one.receipt.ack_id for one in taken[start : start + ACKS]]
            request = {"subscription": self._name, "ack_ids": ids, **parameters}
            self._client.subscriber(operation, request=request)


@dataclass(slots=True)
class _Receipt:
    ack_id: str
    until: float


def _project(address: Address) -> str:
    if address.user or address.password:
        raise ConfigurationError(
            f"{address}: give credentials in the environment, as application default credentials"
        )
    if len(address.hosts) != 1 or address.hosts[0][1] is not None:
        raise ConfigurationError(
            f"{address}: give a project, as pubsub://my-project/tweets; an emulator is given by "
            "PUBSUB_EMULATOR_HOST in the environment"
        )
    return address.hosts[0][0]


def _refusal(envelope: Envelope) -> BrokerError | None:
    for name, text in ((KEY, envelope.key), *envelope.headers.items()):
        if len(text.encode()) > ATTRIBUTE_BYTES:
            return BrokerError(f"the header {name!r} has more than {ATTRIBUTE_BYTES} bytes")
    if _size(envelope) > BYTES:
        return BrokerError(f"a message of {_size(envelope)} bytes: Pub/Sub stores 10 MB at most")
    return None


def _size(envelope: Envelope) -> int:
    headers = sum(len(name) + len(text) for name, text in envelope.headers.items())
    return len(envelope.body) + len(envelope.key) + headers + 100


def _taken(received: Any, until: float) -> Taken:
    message = received.message
    headers, sent = dict(message.attributes), message.publish_time
    return Taken(
        headers.pop(KEY, ""),
        message.data,
        headers,
        max(1, received.delivery_attempt),  # 0 without a dead-letter policy
        sent.seconds + sent.nanos / 1e9 if sent.seconds else None,
        message.message_id,
        _Receipt(received.ack_id, until),
    )


def _unexpired(taken: Sequence[Taken]) -> list[Taken]:
    now = time.monotonic()
    return [one for one in taken if now < one.receipt.until]
