"""An engine for RabbitMQ 3.10 or newer, over AMQP 0-9-1 with pika."""

from __future__ import annotations

import copy
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, TypeVar
from weakref import WeakSet

from rxtweets._support.optional_imports import needed
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
from rxtweets.brokers._engines.amqp import (
    LIMIT,
    Confirms,
    Consumer,
    Letter,
    Link,
    Pushed,
    Reconnecting,
)
from rxtweets.errors import BacklogUnknown, BrokerError, BrokerUnavailable, ConfigurationError

__all__ = ["RabbitMQEngine"]

HEARTBEAT = 4
"""Seconds; the broker sends something after half of them at the latest."""

DELAYS = (1, 2, 5, 15, 60)
"""Seconds of the queues for delayed retries."""

MOST_PREFETCHED = 65_535
"""A field of two bytes."""

QUORUM = {
    "x-queue-type": "quorum",
    # The shared code ends retries. RabbitMQ 4 would drop messages after 20 deliveries.
    "x-delivery-limit": 1_000_000,
    "x-consumer-timeout": 86_400_000,  # milliseconds; from RabbitMQ 3.12 on
}

DELIVERIES = "rxt-deliveries"
"""Header: deliveries of the message before it was published again; a number."""

DUE = "rxt-due"
"""Header: when a retry with a long delay is due, in seconds since 1970; a number."""

BROKERS_HEADERS = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-")
"""Headers that the broker adds."""

L = TypeVar("L", bound=Link)


class RabbitMQEngine(Engine):
    """A queue on RabbitMQ: ``amqp://user:password@host:5672/tweets``, or ``amqps`` for TLS.

    The path names a durable fanout exchange. Each group has a quorum queue that is bound to it,
    such as ``tweets.workers``, and queues for its delayed retries. The hosts of a cluster are tried
    in their order: ``amqp://one,two/tweets``.

    Options of the URL: ``vhost``, by default ``/``; and ``ca``, a file of certificates that
    ``amqps`` trusts instead of those of the system.

    - At least once. A message is published when a majority of the nodes of each queue has stored
      it; losing this majority for good loses messages. Those published before a group's queue
      exists do not reach the group; a message that reaches no queue at all is an error.
    - No deduplication: a message that is published again after a loss is delivered again.
    - One worker gets messages in their order, except for retries and releases. A retry waits in
      another queue, and later messages overtake it, so ``shard_by`` is refused.
    - No leases. The broker delivers messages again when their connection ends. RabbitMQ before 3.12
      ends it if a message is not settled for its ``consumer_timeout``, by default 30 minutes.
    - Releases are no attempts. But when a worker is killed, or loses its connection, all messages
      that it had prefetched count as delivered: ``max_in_flight`` of them at most. A pack is one.
    - Delays are rounded up to 1, 2, 5, 15 or 60 s. Longer ones end only while a worker runs. The
      broker moves delayed messages safely if its feature flag ``stream_queue`` is enabled, as it is
      on new brokers.
    - The broker does not confirm acknowledgements: the last ones before a loss may be lost.
    - The backlog has the groups that this process knows. Messages that other processes hold are not
      in it: AMQP does not tell their number.
    - AMQP does not show policies. One that limits the length or the age of a queue, or its
      deliveries, loses messages.
    - Each group has several quorum queues, which keep files open. At its limit of open files (often
      1,024, see ``ulimit -n``) the broker accepts connections and never answers; raise it before
      you have a hundred groups.
    - pika logs each loss with a traceback; ``logging.getLogger("pika")`` sets its level.
    """

    name = "rabbitmq"
    listing = "rabbitmqctl list_exchanges"
    no_shards = "a retry waits in another queue, and later messages overtake it"

    def __init__(self, address: Address) -> None:
        address.check_options(("vhost", "ca"))
        if not address.hosts or len(address.path.encode()) > 150:
            raise ConfigurationError(
                f"{address}: give a host, and a path of 150 bytes at most, as "
                "amqp://127.0.0.1/tweets"
            )
        self._address = address
        self._pika = needed("pika", "rabbitmq")
        self._parameters = [_parameters(self._pika, address, *host) for host in address.hosts]
        self.queue = address.path
        self.has_retries = True
        """``True`` if groups have queues for delayed retries; those of dead letters have none."""
        self._lock = threading.Lock()
        self._admin = self._new_admin()
        self._groups: dict[str, None] = {}
        self._receivers: WeakSet[_RabbitMQReceiver] = WeakSet()
        self._dead: RabbitMQEngine | None = None

    def exists(self, groups: Sequence[str] = ()) -> bool:
        """Return whether the exchange and the queues of groups exist."""
        with self._lock:
            is_known = bool(groups) and set(groups) <= self._groups.keys()
        # The broker closes the connection if one is missing.
        link = self._admin.get() if is_known else self._connect(Link)
        try:
            link.ask("exchange_declare", exchange=self.queue, passive=True)
            for group in groups:
                link.ask("queue_declare", queue=self.queue_of(group), passive=True)
        except BrokerError as error:
            if "NOT_FOUND" not in str(error):
                raise
            return False
        finally:
            if not is_known:
                link.close()
        with self._lock:
            self._groups |= dict.fromkeys(groups)
        return True

    def ensure(self, groups: Sequence[str] = ()) -> None:
        """Create the exchange, and the queues of the groups."""
        link = self._admin.get()
        link.ask("exchange_declare", exchange=self.queue, exchange_type="fanout", durable=True)
        for group in groups:
            queue = self.queue_of(group)
            link.ask("queue_declare", queue=queue, durable=True, arguments=QUORUM)
            for delay, name in self.delays_of(group).items():
                arguments = _delaying(delay, queue)
                link.ask("queue_declare", queue=name, durable=True, arguments=arguments)
            link.ask("queue_bind", queue=queue, exchange=self.queue)
            with self._lock:
                self._groups[group] = None

    def sender(self) -> Sender:
        """Return a sender."""
        return _RabbitMQSender(self)

    def receiver(self, subscription: Subscription) -> Receiver:
        """Return a receiver."""
        receiver = _RabbitMQReceiver(self, subscription)
        with self._lock:
            self._receivers.add(receiver)
        return receiver

    def backlog(self) -> dict[str, Backlog]:
        """Return the backlog of each group that this process knows.

        Raises:
            BacklogUnknown: it knows none.
        """
        with self._lock:
            groups, receivers = list(self._groups), list(self._receivers)
        if not groups:
            raise BacklogUnknown(
                f"RabbitMQ does not list the groups of {self.queue!r}: name them, as in "
                "connect(url, groups=['workers']) and `rxtweets backlog URL --group workers`"
            )
        found: dict[str, Backlog] = {}
        for group in groups:
            held = [receiver.counts() for receiver in receivers if receiver.group == group]
            prefetched, taken = (sum(numbers) for numbers in zip((0, 0), *held, strict=True))
            waiting = self._messages("queue_declare", [group], passive=True)
            found[group] = Backlog(waiting + prefetched, taken)
        return found

    def dead_letters(self) -> Engine:
        """Return the queue of the same name with ``.dead`` at its end."""
        with self._lock:
            if self._dead is None:
                self._dead = RabbitMQEngine(replace(self._address, path=f"{self.queue}.dead"))
                self._dead.has_retries = False
            return self._dead

    def purge(self) -> int:
        """Remove the messages that no worker holds, from the groups that this process knows."""
        with self._lock:
            groups = list(self._groups)
        return self._messages("queue_purge", groups)

    def close(self) -> None:
        """Close the connection; a later call opens another one."""
        with self._lock:
            admin, self._admin = self._admin, self._new_admin()
            dead = self._dead
        admin.close()
        if dead is not None:
            dead.close()

    # For senders and receivers.

    def connect(self, kind: Callable[..., L], *args: Any) -> L:
        """Return a link to the first host that answers; the queue and its groups exist."""
        self.ensure(list(self._groups))
        return self._connect(kind, *args)

    def queue_of(self, group: str) -> str:
        """Return the name of the group's queue."""
        return f"{self.queue}.{group}"

    def delays_of(self, group: str) -> dict[int, str]:
        """Return the names of the group's queues for delayed retries, by their seconds."""
        delays = DELAYS if self.has_retries else ()
        return {delay: f"{self.queue_of(group)}.after-{delay}s" for delay in delays}

    def properties_of(self, envelope: Envelope) -> Any:
        """Return the properties with which a message is published."""
        return self._pika.BasicProperties(
            message_id=envelope.key,
            headers=dict(envelope.headers),
            timestamp=int(time.time()),
            delivery_mode=2,  # on disk, also in a queue of another program
        )

    def _new_admin(self) -> Reconnecting[Link]:
        return Reconnecting(lambda: self._connect(Link))

    def _connect(self, kind: Callable[..., L], *args: Any) -> L:
        for parameters in self._parameters[:-1]:
            try:
                return kind(self._pika, parameters, *args)
            except BrokerUnavailable:
                continue
        return kind(self._pika, self._parameters[-1], *args)

    def _messages(self, request: str, groups: Sequence[str], **arguments: Any) -> int:
        """Return the sum of the message counts that the broker answers for all queues of groups."""
        link = self._admin.get()
        names = [
            name
            for group in groups
            for name in (self.queue_of(group), *self.delays_of(group).values())
        ]
        answers = [link.ask(request, queue=name, **arguments) for name in names]
        return sum(answer.method.message_count for answer in answers)


def _parameters(pika: Any, address: Address, host: str, port: int | None) -> Any:
    tls = None
    if address.scheme == "amqps":
        try:
            tls = pika.SSLOptions(
                ssl.create_default_context(cafile=address.options.get("ca")), host
            )
        except OSError as error:  # an SSLError is one
            raise ConfigurationError(f"{address}: ca={address.options['ca']}: {error}") from error
    return pika.ConnectionParameters(
        host,
        port or (5671 if tls else 5672),
        address.options.get("vhost", "/"),
        pika.PlainCredentials(address.user or "guest", address.password or "guest"),
        heartbeat=HEARTBEAT,
        ssl_options=tls,
        socket_timeout=LIMIT - 1,
        stack_timeout=LIMIT - 0.5,
        client_properties={"connection_name": f"rxtweets {address.path}"},
    )


def _delaying(delay: int, queue: str) -> dict[str, Any]:
    """Return the arguments of a queue whose messages go to another queue after a delay."""
    return {
        "x-queue-type": "quorum",
        "x-message-ttl": delay * 1000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": queue,
        # A message is kept until the other queue has stored it; this needs the overflow.
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


class _RabbitMQSender(Sender):
    def __init__(self, engine: RabbitMQEngine) -> None:
        self._engine = engine
        self._publishing = Reconnecting(lambda: engine.connect(Confirms))

    def put(self, envelopes: Sequence[Envelope]) -> list[Exception | None]:
        name, properties_of = self._engine.queue, self._engine.properties_of
        letters = [Letter(name, "", one.body, properties_of(one)) for one in envelopes]
        return self._publishing.get().put(letters)

    def close(self) -> None:
        self._publishing.close()


class _Receipt(NamedTuple):
    """Consumer, tag and properties of a delivery; a tag is valid on its own connection only."""

    consumer: Consumer
    tag: int
    properties: Any


class _RabbitMQReceiver(Receiver):
    has_leases: ClassVar[bool] = False

    def __init__(self, engine: RabbitMQEngine, subscription: Subscription) -> None:
        self.group = subscription.group
        self._engine = engine
        self._queue = engine.queue_of(self.group)
        prefetch = min(subscription.max_in_flight, MOST_PREFETCHED)
        self._consuming = Reconnecting(lambda: engine.connect(Consumer, self._queue, prefetch))
        # A broker without memory stops those who publish; acknowledgements must still reach it.
        self._publishing = Reconnecting(lambda: engine.connect(Confirms))

    def take(self, most: int, wait: float) -> list[Taken]:
        try:
            consumer = self._consuming.get()
            pushed = consumer.take(most, wait)
        except BrokerUnavailable:
            if self._consuming.is_closed:
                return []
            raise
        return self._without_early([_taken(consumer, one) for one in pushed])

    def acknowledge(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        return _settle(taken, "basic_ack")

    def retry(self, taken: Sequence[Taken], delay: float) -> Sequence[Taken]:
        # Newer versions of the broker count only rejected messages as delivered.
        if delay <= 0 or not self._engine.has_retries:
            return _settle(taken, "basic_reject")
        return self._publish_again(taken, delay, 0, "basic_reject")

    def release(self, taken: Sequence[Taken]) -> None:
        # Before RabbitMQ 4.3, a message that is given back natively counts as delivered.
        if self._engine.has_retries:
            self._publish_again(taken, 0.0, 1, "basic_nack")
        else:
            _settle(taken, "basic_nack")

    def extend(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        return [one for one in taken if not _is_held(one)]

    def close(self) -> None:
        consumer = self._consuming.link
        if consumer is not None:
            self.release([_taken(consumer, one) for one in consumer.stop()])
        self._consuming.close()
        self._publishing.close()

    def counts(self) -> tuple[int, int]:
        """Return the numbers of messages that are prefetched, and that are taken."""
        consumer = self._consuming.link
        return (0, 0) if consumer is None else consumer.counts()

    def _without_early(self, taken: list[Taken]) -> list[Taken]:
        """Delay messages again whose delay is longer than that of each queue."""
        now = time.time()
        due = {one: _number(one.receipt.properties, DUE) for one in taken}
        early = [one for one in taken if due[one] > now]
        for one in early:
            self._publish_again([one], due[one] - now, 1, "basic_nack")
        return [one for one in taken if one not in early] if early else taken

    def _publish_again(
        self, taken: Sequence[Taken], delay: float, uncounted: int, otherwise: str
    ) -> list[Taken]:
        """Publish messages to the group alone, then acknowledge them; return those that are lost.

        Those that cannot be published are given back with the method ``otherwise``.
        """
        ours = [one for one in taken if _is_held(one)]
        queue, due = self._queue_after(delay)
        letters = [
            Letter("", queue, one.body, _properties_again(one, one.attempt - uncounted, due))
            for one in ours
        ]
        errors: Sequence[Exception | None] = [None] * len(ours)
        if letters:
            try:
                errors = self._publishing.get().put(letters)
            except BrokerError as error:
                errors = [error] * len(letters)
        results = list(zip(ours, errors, strict=True))
        return [
            *(one for one in taken if one not in ours),
            *_settle([one for one, error in results if error is None], "basic_ack"),
            *_settle([one for one, error in results if error is not None], otherwise),
        ]

    def _queue_after(self, delay: float) -> tuple[str, int]:
        """Return the queue for a delay, and the due time if the delay is longer than its own."""
        if delay <= 0:
            return self._queue, 0
        queues = self._engine.delays_of(self.group)
        for seconds, name in queues.items():
            if delay <= seconds:
                return name, 0
        return queues[DELAYS[-1]], int(time.time() + delay)


def _taken(consumer: Consumer, pushed: Pushed) -> Taken:
    properties = pushed.properties
    attempt = _number(properties, DELIVERIES) + _number(properties, "x-delivery-count") + 1
    headers = {
        name: text for name, text in _own_headers(properties).items() if isinstance(text, str)
    }
    return Taken(
        properties.message_id or "",
        pushed.body,
        headers,
        attempt,
        properties.timestamp,
        str(pushed.tag),
        _Receipt(consumer, pushed.tag, properties),
    )


def _properties_again(taken: Taken, deliveries: int, due: int) -> Any:
    properties = copy.copy(taken.receipt.properties)
    numbers = {DELIVERIES: deliveries} | ({DUE: due} if due else {})
    properties.headers = _own_headers(properties) | numbers
    properties.delivery_mode = 2
    properties.expiration = None  # it would end the delay
    properties.user_id = None  # the broker would refuse another user's
    return properties


def _own_headers(properties: Any) -> dict[str, Any]:
    """Return the headers of the publisher; ``CC`` would send a copy to more queues."""
    headers = properties.headers or {}
    ours = (DELIVERIES, DUE, "CC")
    return {
        name: value
        for name, value in headers.items()
        if name not in ours and not name.startswith(BROKERS_HEADERS)
    }


def _number(properties: Any, header: str) -> int:
    value = (properties.headers or {}).get(header)
    return int(value) if isinstance(value, int) else 0


def _is_held(taken: Taken) -> bool:
    receipt: _Receipt = taken.receipt
    return receipt.consumer.holds(receipt.tag)


def _settle(taken: Sequence[Taken], method: str) -> list[Taken]:
    """Settle messages on the connections that they are from; return those that are lost."""
    lost: list[Taken] = []
    for consumer in {one.receipt.consumer for one in taken}:
        ours = {one.receipt.tag: one for one in taken if one.receipt.consumer is consumer}
        lost += [ours[tag] for tag in consumer.settle(ours, method)]
    return lost
