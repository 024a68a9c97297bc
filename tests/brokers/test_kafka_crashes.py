"""Crashes of workers on Kafka: their cause becomes a dead letter, and no other message does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from rxtweets import Batch, brokers
from rxtweets.brokers import Envelope, Queue, Taken
from rxtweets.brokers._engines.kafka import KafkaEngine
from rxtweets.brokers._engines.kafka_crashes import Crashes
from rxtweets.brokers._engines.kafka_receiver import KafkaReceiver
from tests.brokers._killed import messages
from tests.brokers.engine_contract import publish, receiving, take
from tests.brokers.mock_kafka import MockKafka, mock_kafka, take_and_die
from tests.brokers.waiting import eventually

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def broker() -> Iterator[MockKafka]:
    with mock_kafka() as broker:
        yield broker


@pytest.fixture
def queue(broker: MockKafka, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    monkeypatch.setattr(KafkaEngine, "_check", lambda *_: None)  # the mock shows no settings
    name = f"t{uuid4().hex[:12]}"
    broker.create(name, f"{name}.workers.retry", f"{name}.dead", f"{name}.dead.dead.retry")
    queue = brokers.connect(broker.url(name), groups=["workers"])
    yield queue
    queue.close()


def in_one_partition(count: int, shard: str = "") -> list[Envelope]:
    headers = {"rxt-shard": shard} if shard else {}
    return [Envelope("key", b"%d" % number, headers) for number in range(count)]


def publish_after_crashes(
    broker: MockKafka, queue: Queue, sent: list[Envelope], at: int = 0, **changes: Any
) -> None:
    """Publish messages to a partition; its worker had the first three, and crashed again."""
    broker.put(queue.engine.queue, at, sent)
    broker.commit(group_of(queue), queue.engine.queue, at, CRASHED | changes)


CRASHED = {
    "worker": "a",
    "in_a_row": 1,
    "until": 3,
    "suspect": None,
    "cause": None,
    "of_message": {},
}


def group_of(queue: Queue) -> str:
    return f"{queue.engine.queue}.workers"


def noted(broker: MockKafka, queue: Queue) -> dict[str, Any]:
    """Return the metadata of the one partition that has some."""
    [found] = broker.metadata(group_of(queue), queue.engine.queue)
    return found


WORKER = """
import sys
from rxtweets.brokers._engines.kafka import KafkaEngine
from tests.brokers import _killed

KafkaEngine._check = lambda *_: None
_killed.work(*sys.argv[1:])
"""


def test_message_that_kills_workers_becomes_a_dead_letter(
    broker: MockKafka, queue: Queue, tmp_path: Path
) -> None:
    sent = messages(100)
    publisher = queue.publisher()
    assert publisher.on_next(Batch(sent)) is None
    publisher.on_completed()
    poison, record, codes = sent[50].id, tmp_path / "record", list[int]()
    options = {"source": {"max_deliver": 2}, "poison": {poison: "exit"}}
    command = [sys.executable, "-c", WORKER, broker.url(queue.engine.queue), str(record)]

    def worker() -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, json.dumps(options)], cwd=ROOT, stdout=subprocess.PIPE)

    running = worker()

    def is_over() -> bool:
        nonlocal running
        if (code := running.poll()) is not None:
            codes.append(code)
            running.communicate()
            running = worker()
        backlog = queue.backlog()["workers"]
        return backlog.pending == backlog.in_flight == 0

    try:
        eventually(is_over, lambda: (codes, record.read_text()), 120.0)
    finally:
        running.kill()
        running.communicate()
    [letter] = queue.dead_letters
    assert (letter.key, letter.attempts, letter.error[:11]) == (poison, 3, "Redelivered")
    handled = {line.split()[0] for line in record.read_text().splitlines()}
    assert handled == {message.id for message in sent} - {poison}
    assert set(codes) == {3}
    assert 4 <= len(codes) <= 8


def test_one_killed_worker_changes_nothing(broker: MockKafka, queue: Queue) -> None:
    publish(queue, in_one_partition(20))
    take_and_die(broker.url(queue.engine.queue), 20)
    with receiving(queue) as receiver:
        taken = take(receiver, 20)
        assert {one.attempt for one in taken} == {1}
        assert (noted(broker, queue)["in_a_row"], noted(broker, queue)["suspect"]) == (1, None)
        assert receiver.acknowledge(taken) == []
    assert (noted(broker, queue)["in_a_row"], noted(broker, queue)["worker"]) == (0, "")


def test_worker_is_noted_before_its_first_message(
    broker: MockKafka, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, commit = list[list[Taken]](), KafkaReceiver._commit

    def watched(receiver: KafkaReceiver, *arguments: Any) -> bool:
        ready.append([] if ready else receiver.take(1, 0.0))
        return commit(receiver, *arguments)

    monkeypatch.setattr(KafkaReceiver, "_commit", watched)
    publish(queue, in_one_partition(5))
    with receiving(queue) as receiver:
        take(receiver, 1)
        assert ready[0] == []
        assert noted(broker, queue)["worker"]
        assert noted(broker, queue)["until"] >= 1
    assert noted(broker, queue)["worker"] == ""


def test_second_crash_lets_one_message_at_a_time_be_taken(broker: MockKafka, queue: Queue) -> None:
    publish_after_crashes(broker, queue, in_one_partition(20))
    with receiving(queue) as receiver:
        for offset in range(3):
            [taken] = take(receiver, 1)
            assert (taken.body, taken.attempt) == (b"%d" % offset, 1)
            assert noted(broker, queue)["suspect"] == offset
            assert receiver.take(100, 0.2) == []
            assert receiver.acknowledge([taken]) == []
        taken_later = take(receiver, 17)
        assert receiver.acknowledge(taken_later) == []
    assert (noted(broker, queue)["in_a_row"], noted(broker, queue)["suspect"]) == (0, None)


@pytest.mark.parametrize("shard", ["", "key"])
def test_released_message_is_taken_alone_again(broker: MockKafka, queue: Queue, shard: str) -> None:
    publish_after_crashes(broker, queue, in_one_partition(5, shard))
    with receiving(queue) as receiver:
        [taken] = take(receiver, 1)
        receiver.release([taken])
        [again] = take(receiver, 1)
        assert (again.body, again.attempt) == (b"0", 1)
        assert receiver.retry([again], 0.0) == []
        if shard:
            [again] = take(receiver, 1)
            assert (again.body, again.attempt) == (b"0", 2)
            assert receiver.acknowledge([again]) == []
        [following] = take(receiver, 1)
        assert receiver.acknowledge([following]) == []


def test_crash_counts_as_an_attempt_of_the_message_alone(broker: MockKafka, queue: Queue) -> None:
    publish_after_crashes(broker, queue, in_one_partition(4), suspect=1, of_message={"1": 2})
    with receiving(queue) as receiver:
        attempts = []
        for _ in range(2):
            [taken] = take(receiver, 1)
            attempts.append(taken.attempt)
            assert receiver.acknowledge([taken]) == []
        assert attempts == [1, 4]
        assert [one.attempt for one in take(receiver, 2)] == [1, 1]  # the cause is settled


def test_message_of_an_earlier_crash_is_not_the_cause(broker: MockKafka, queue: Queue) -> None:
    publish_after_crashes(broker, queue, in_one_partition(4), suspect=1, of_message={"0": 2})
    with receiving(queue) as receiver:
        [first] = take(receiver, 1)
        assert (first.attempt, receiver.acknowledge([first])) == (3, [])
        [second] = take(receiver, 1)
        assert (second.attempt, receiver.take(100, 0.2)) == (2, [])
        assert receiver.acknowledge([second]) == []
        assert receiver.acknowledge(take(receiver, 2)) == []


def test_crash_counts_as_an_attempt_of_a_retry(broker: MockKafka, queue: Queue) -> None:
    retry = Envelope("key", b"0", {"rxt-attempt": "3", "rxt-not-before": "0.0"})
    topic = f"{queue.engine.queue}.workers.retry"
    broker.put(topic, 0, [retry])
    broker.commit(group_of(queue), topic, 0, CRASHED | {"suspect": 0})
    with receiving(queue) as receiver:
        [taken] = take(receiver, 1)
        assert taken.attempt == 4
        assert receiver.acknowledge([taken]) == []


def test_suspects_of_two_partitions_are_taken_in_turn(broker: MockKafka, queue: Queue) -> None:
    for partition in range(2):
        publish_after_crashes(broker, queue, in_one_partition(2), partition)
    seen = list[Taken]()
    with receiving(queue) as receiver:
        for _ in range(4):
            [taken] = take(receiver, 1)
            assert receiver.take(100, 0.2) == []
            assert receiver.acknowledge([taken]) == []
            seen.append(taken)
    assert len({one.native_id for one in seen}) == 4


def test_partition_without_messages_is_not_careful(broker: MockKafka, queue: Queue) -> None:
    publish_after_crashes(broker, queue, [])
    with receiving(queue) as receiver:
        inner: Any = receiver
        eventually(inner._is_positioned, lambda: vars(receiver))
        broker.put(queue.engine.queue, 0, in_one_partition(5))
        assert receiver.acknowledge(take(receiver, 5)) == []


def test_metadata_stays_below_the_limit_of_kafka() -> None:
    crashes = Crashes(9, 10**15, None, dict.fromkeys(range(10**14, 10**14 + 500), 9))
    text = crashes.metadata(0, "a" * 12, 0, suspect=10**14)
    assert len(text) < 4096
    assert min(Crashes.from_metadata(text, "a" * 12).of_message) == 10**14


UNHASHABLE = json.dumps(CRASHED | {"suspect": [1]})


@pytest.mark.parametrize(
    "text", [None, "", "words", "[]", "{}", '{"worker": "a"}', '"text"', UNHASHABLE]
)
def test_metadata_of_another_program_is_ignored(text: str | None) -> None:
    assert Crashes.from_metadata(text, "b") == Crashes()


@pytest.mark.parametrize(
    ("worker", "known"), [("a", Crashes(2, 9, None, {5: 1})), ("b", Crashes(3, 9, 5, {5: 2}))]
)
def test_worker_that_gets_its_partition_back_did_not_crash(worker: str, known: Crashes) -> None:
    text = Crashes(2, 9, None, {4: 1, 5: 1}).metadata(5, "a", 0, suspect=5)
    assert Crashes.from_metadata(text, worker) == known
