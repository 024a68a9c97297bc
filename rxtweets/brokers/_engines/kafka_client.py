"""Connections to Kafka, and the sender."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from rxtweets._support.optional_imports import needed
from rxtweets.brokers._address import Address
from rxtweets.brokers._engine import Envelope, Sender
from rxtweets.brokers._envelopes import KEY, quoted
from rxtweets.errors import BrokerError, BrokerUnavailable, ConfigurationError

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer

__all__ = ["SETTINGS", "WAIT", "KafkaClient", "KafkaSender"]

log = logging.getLogger("rxtweets")

WAIT = 5.0
"""Seconds that one request waits for the broker."""

COMMON = (
    "security.protocol",
    "sasl.mechanism",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
)
OF_KIND = {
    "Producer": ("batch.num.messages", "compression.type"),
    "Consumer": ("session.timeout.ms",),
}
SETTINGS = (*COMMON, *OF_KIND["Producer"], *OF_KIND["Consumer"])
"""Settings of librdkafka that are options of a URL."""

REFUSALS = {
    "CLUSTER_AUTHORIZATION_FAILED",
    "GROUP_AUTHORIZATION_FAILED",
    "INVALID_CONFIG",
    "INVALID_MSG_SIZE",
    "INVALID_PARTITIONS",
    "INVALID_RECORD",
    "INVALID_REPLICATION_FACTOR",
    "MSG_SIZE_TOO_LARGE",
    "NON_EMPTY_GROUP",
    "POLICY_VIOLATION",
    "TOPIC_AUTHORIZATION_FAILED",
    "TOPIC_EXCEPTION",
    "UNKNOWN_MEMBER_ID",
}
"""Names of errors that another attempt does not mend."""


class KafkaClient:
    """Makes the clients of an address, and translates their errors."""

    def __init__(self, address: Address) -> None:
        self.kafka = needed("confluent_kafka", "kafka")
        self.admin = needed("confluent_kafka.admin", "kafka")
        self.hosts = ",".join(f"{host}:{port or 9092}" for host, port in address.hosts)
        self._address = address
        self._last_error = ""

    def new(self, kind: str, settings: Mapping[str, Any]) -> Any:
        """Return a new ``Producer``, ``Consumer`` or ``AdminClient``; it connects later."""
        options = self._address.options
        names = COMMON + OF_KIND.get(kind, ())
        config = {
            "bootstrap.servers": self.hosts,
            "client.id": "rxtweets",
            "log_level": 0,  # failures are raised
            "logger": log,  # librdkafka would print fatal ones
            "error_cb": self._note,
            "socket.timeout.ms": int(WAIT * 1000),
            "socket.connection.setup.timeout.ms": int(WAIT * 1000),
            "socket.keepalive.enable": True,
            "reconnect.backoff.max.ms": 1000,
            **settings,
            **self._login(),
            **{name: options[name] for name in names if name in options},
        }
        module = self.admin if kind == "AdminClient" else self.kafka
        try:
            return getattr(module, kind)(config)
        except self.kafka.KafkaException as error:
            raise ConfigurationError(f"{self._address}: {error.args[0].str()}") from None

    def error(self, doing: str, error: KafkaError) -> BrokerError:
        """Return the error of rxtweets for one of the client."""
        if error.name() in REFUSALS:
            return BrokerError(f"{self._place()}: cannot {doing}: {error.str()}")
        return self.unavailable(doing, error.str())

    def unavailable(self, doing: str, reason: str) -> BrokerUnavailable:
        """Return the error for a broker that does not answer."""
        last = f" (last error: {self._last_error})" if self._last_error else ""
        return BrokerUnavailable(f"{self._place()}: cannot {doing}: {reason}{last}")

    def _place(self) -> str:
        return f"kafka at {self.hosts}, topic {self._address.path!r}"

    def _note(self, error: KafkaError) -> None:
        self._last_error = error.str()

    def _login(self) -> dict[str, Any]:
        if not self._address.user:
            return {}
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.username": self._address.user,
            "sasl.password": self._address.password,
        }


class KafkaSender(Sender):
    """Publishes to one topic with an idempotent producer."""

    def __init__(self, client: KafkaClient, topic: str) -> None:
        self._client = client
        self._topic = topic
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self._is_closed = False

    def put(self, envelopes: Sequence[Envelope]) -> list[Exception | None]:
        """Publish messages in one wave, and wait for the reports of their delivery."""
        producer = self._connected()
        deadline = time.monotonic() + WAIT + 1.0  # librdkafka looks for late messages each second
        late = self._client.unavailable("publish", f"no confirmation within {WAIT:g} s")
        results: list[Exception | None] = [late] * len(envelopes)
        reported: list[int] = []  # appended by any thread that polls

        def report(number: int, error: KafkaError | None, _: Message | None) -> None:
            if error is not None:
                self._forget(producer)
                results[number] = self._client.error("publish", error)
            elif self._producer is producer:
                results[number] = None
            reported.append(number)

        for number, envelope in enumerate(envelopes):
            refusal = self._produce(producer, envelope, partial(report, number), deadline)
            if refusal is not None:
                results[number] = refusal
                reported.append(number)
        while len(reported) < len(envelopes) and time.monotonic() < deadline:
            self._poll(producer)
        if len(reported) < len(envelopes):
            self._forget(producer)
        return list(results)  # later reports change the other list

    def close(self) -> None:
        """Forget what is not confirmed, and disconnect."""
        with self._lock:
            self._is_closed = True
            producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            with suppress(self._client.kafka.KafkaException):  # a fatal error of earlier
                producer.flush(1.0)

    def _connected(self) -> Producer:
        with self._lock:
            if self._is_closed:
                raise self._client.unavailable("publish", "the sender is closed")
            if self._producer is None:
                settings = {
                    "enable.idempotence": True,
                    "acks": "all",
                    "delivery.timeout.ms": int(WAIT * 1000),
                    "linger.ms": 1,
                    "partitioner": "murmur2_random",  # as Java's: one key, one partition
                }
                self._producer = self._client.new("Producer", settings)
            return self._producer

    def _produce(
        self,
        producer: Producer,
        envelope: Envelope,
        report: Callable[[KafkaError | None, Message | None], None],
        deadline: float,
    ) -> BrokerError | None:
        """Enqueue a message; return the error for which the client does not take it."""
        headers: Any = list(envelope.headers.items())
        body, key = envelope.body, envelope.shard or envelope.key or None
        if envelope.shard and KEY not in envelope.headers:
            headers.append((KEY, quoted(envelope.key)))
        while True:
            try:
                producer.produce(self._topic, body, key, headers=headers, on_delivery=report)
            except BufferError:
                if time.monotonic() > deadline:
                    return self._client.unavailable("publish", "the client's queue is full")
                self._poll(producer)
            except self._client.kafka.KafkaException as error:
                failure = self._client.error("publish", error.args[0])
                if isinstance(failure, BrokerUnavailable):
                    self._forget(producer)
                return failure
            else:
                return None

    def _poll(self, producer: Producer) -> None:
        try:
            producer.poll(0.02)
        except self._client.kafka.KafkaException:  # a fatal error; reports of messages follow
            self._forget(producer)

    def _forget(self, producer: Producer) -> None:
        """Make another producer for the next messages.

        After a lost message its sequence has a gap: a broker took later messages for copies, and
        confirmed them without storing them. So its later confirmations do not count either.
        """
        with self._lock:
            if self._producer is producer:
                self._producer = None
