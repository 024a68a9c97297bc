"""A broker that speaks Kafka's protocol and keeps the metadata of positions: librdkafka's mock."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import confluent_kafka as kafka

from rxtweets.brokers import Envelope
from tests.brokers.waiting import PATIENCE

__all__ = ["MockKafka", "mock_kafka", "take_and_die"]

OPTIONS = "session.timeout.ms=4000"
"""The first worker of a group waits for others for three seconds."""

PROGRAM = """
import sys
import confluent_kafka as kafka

producer = kafka.Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
[broker] = producer.list_topics(timeout=20.0).brokers.values()
print(f"{broker.host}:{broker.port}", flush=True)
sys.stdin.read()
"""


class MockKafka:
    """A broker whose topics have four partitions; it creates them when a client asks for them."""

    def __init__(self, address: str) -> None:
        self._address = address

    def url(self, name: str) -> str:
        return f"kafka://{self._address}/{name}?{OPTIONS}"

    def create(self, *topics: str) -> None:
        producer = kafka.Producer({"bootstrap.servers": self._address})
        for topic in topics:
            producer.list_topics(topic, timeout=PATIENCE)
        producer.close()

    def put(self, topic: str, partition: int, envelopes: Sequence[Envelope]) -> None:
        producer = kafka.Producer({"bootstrap.servers": self._address})
        for one in envelopes:
            headers: Any = list(one.headers.items())
            producer.produce(topic, one.body, one.shard or one.key, partition, headers=headers)
        assert producer.flush(PATIENCE) == 0
        producer.close()

    def metadata(self, group: str, topic: str) -> list[dict[str, Any]]:
        """Return the metadata of committed positions, in the order of their partitions."""
        asked = [kafka.TopicPartition(topic, number) for number in range(4)]
        with self._consumer(group) as consumer:
            found = consumer.committed(asked, timeout=PATIENCE)
        return [json.loads(one.metadata) for one in found if one.metadata]

    def commit(self, group: str, topic: str, partition: int, metadata: dict[str, Any]) -> None:
        """Commit the position of a partition's first message."""
        place = kafka.TopicPartition(topic, partition, 0, json.dumps(metadata))
        with self._consumer(group) as consumer:
            consumer.commit(offsets=[place], asynchronous=False)

    @contextmanager
    def _consumer(self, group: str) -> Iterator[kafka.Consumer]:
        consumer = kafka.Consumer({"bootstrap.servers": self._address, "group.id": group})
        try:
            yield consumer
        finally:
            consumer.close()


@contextmanager
def mock_kafka() -> Iterator[MockKafka]:
    """Run a broker for the length of a block."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield MockKafka(process.stdout.readline().strip())
        finally:
            process.kill()


TAKER = """
import sys
from rxtweets import brokers
from rxtweets.brokers import Subscription

queue = brokers.connect(sys.argv[1], groups=["workers"])
receiver = queue.engine.receiver(Subscription("workers", 30.0, 1000, 5))
while True:
    for taken in receiver.take(100, 1.0):
        print("taken", flush=True)
"""


def take_and_die(url: str, count: int) -> None:
    """Run a worker that takes so many messages, settles none, and is killed."""
    command = [sys.executable, "-c", TAKER, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        try:
            assert worker.stdout is not None
            for _ in range(count):
                assert worker.stdout.readline() == b"taken\n"
        finally:
            worker.kill()
