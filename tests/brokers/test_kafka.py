"""What is special about Kafka: partitions, positions, retries, and a broker that is lost."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any
from uuid import uuid4

import confluent_kafka as kafka
import pytest

from rxtweets import brokers
from rxtweets.brokers import Envelope, Queue, Receiver, Subscription, Taken
from rxtweets.brokers._engines.kafka_crashes import Crashes
from rxtweets.errors import BrokerUnavailable, ConfigurationError, QueueSettingsError
from tests.brokers.engine_contract import bodies, envelopes, publish, receiving, take
from tests.brokers.mock_kafka import take_and_die
from tests.brokers.tansu import Tansu, tansu
from tests.brokers.waiting import PATIENCE, eventually, free_port

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def broker() -> Iterator[Tansu]:
    with tansu() as broker:
        yield broker


@pytest.fixture
def queue(broker: Tansu) -> Iterator[Queue]:
    queue = opened(broker)
    yield queue
    queue.close()


def opened(broker: Tansu) -> Queue:
    queue = brokers.connect(broker.url(f"t{uuid4().hex[:12]}"), groups=["workers"])
    queue.engine.ensure(["workers"])
    return queue


def create_topic(broker: Tansu, config: dict[str, str]) -> str:
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    name = f"t{uuid4().hex[:12]}"
    admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{broker.port}"})
    for future in admin.create_topics([NewTopic(name, 1, 1, config=config)]).values():
        future.result(PATIENCE)
    return name


@pytest.mark.parametrize(
    "config",
    [
        {"cleanup.policy": "compact"},
        {"cleanup.policy": "compact,delete"},
        {"retention.ms": "60000"},
        {"retention.bytes": "1000000"},
    ],
    ids=str,
)
def test_topic_that_can_lose_messages_is_refused(broker: Tansu, config: dict[str, str]) -> None:
    queue = brokers.connect(broker.url(create_topic(broker, config)))
    [(name, value)] = config.items()
    with pytest.raises(QueueSettingsError, match=f"{name}={value}"):
        queue.engine.ensure()
    queue.close()


def test_topic_with_fewer_replicas_is_refused(broker: Tansu) -> None:
    queue = brokers.connect(f"{broker.url(create_topic(broker, {}))}&replication=3")
    with pytest.raises(QueueSettingsError, match="1 replicas; add replicas up to 3"):
        queue.engine.ensure()
    queue.close()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("min.insync.replicas", "1"), ("unclean.leader.election.enable", "true")],
)
def test_replicas_that_can_lose_messages_are_a_risk(setting: str, value: str) -> None:
    from rxtweets.brokers._engines.kafka import _risks

    assert [risk for risk, _ in _risks({setting: value}, 3, 0, 1)] == [f"{setting}={value}"]
    assert list(_risks({setting: value}, 1, 0, 1)) == []  # there is one copy anyway


def test_topic_kept_for_long_enough_is_accepted(broker: Tansu) -> None:
    name = create_topic(broker, {"retention.ms": str(3_600_000), "cleanup.policy": "delete"})
    queue = brokers.connect(f"{broker.url(name)}&retention_hours=1")
    queue.engine.ensure(["workers"])
    queue.close()


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("kafka:topic", "give a host"),
        ("kafka://host/to/pic", "the name of a topic"),
        ("kafka://host/topic?partitions=0", "partitions='0'"),
        ("kafka://host/topic?retention_hours=week", "retention_hours='week'"),
        ("kafka://host/topic?acks=0", "unknown option 'acks'"),
    ],
)
def test_invalid_url_is_refused(url: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        brokers.connect(url)


def test_invalid_setting_of_the_client_is_refused() -> None:
    queue = brokers.connect("kafka://127.0.0.1:9/topic?security.protocol=nonsense")
    with pytest.raises(ConfigurationError, match="nonsense"):
        queue.engine.ensure()


def test_missing_client_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(ConfigurationError, match=r"rxtweets\[kafka\]"):
        brokers.connect("kafka://127.0.0.1/topic")


def test_absent_broker_is_named_without_the_password() -> None:
    at = f"127.0.0.1:{free_port()}"
    url = f"kafka://user:pa55word@{at}/topic?security.protocol=SASL_PLAINTEXT"
    queue = brokers.connect(url)
    subscription = Subscription("workers", 30.0, 10, 5)
    attempts: list[Callable[[], object]] = [
        queue.engine.ensure,
        queue.engine.backlog,
        lambda: queue.engine.receiver(subscription),
    ]
    texts = [repr(queue), repr(queue.engine), str(queue.engine.__dict__["_client"])]
    for attempt in attempts:
        with pytest.raises(BrokerUnavailable, match=at) as caught:
            attempt()
        texts.append(repr(caught.value))
    sender = queue.engine.sender()
    [error] = sender.put(envelopes(1))
    sender.close()
    queue.close()
    assert isinstance(error, BrokerUnavailable)
    assert "pa55word" not in "".join([*texts, repr(error)])


def test_message_of_another_program_has_no_key(broker: Tansu, queue: Queue) -> None:
    producer = kafka.Producer({"bootstrap.servers": f"127.0.0.1:{broker.port}"})
    producer.produce(queue.engine.queue, b"body", headers=[("text", b"yes"), ("bytes", b"\xff")])
    assert producer.flush(PATIENCE) == 0
    producer.close()
    with receiving(queue) as receiver:
        [taken] = take(receiver, 1)
        assert (taken.key, taken.body, taken.headers) == ("", b"body", {"text": "yes"})
        assert taken.enqueued_at == pytest.approx(time.time(), abs=60.0)
        receiver.acknowledge([taken])


def test_message_that_is_too_large_is_refused_alone(queue: Queue) -> None:
    sender = queue.engine.sender()
    large = Envelope("large", bytes(2_000_000), {})
    first, refused, last = sender.put([*envelopes(1), large, *envelopes(1, start=1)])
    sender.close()
    assert (first, last) == (None, None)
    assert refused is not None
    assert not isinstance(refused, BrokerUnavailable)


def test_close_keeps_acks_behind_an_unsettled_message(queue: Queue) -> None:
    publish(queue, [Envelope("one-partition", b"%d" % number, {}) for number in range(10)])
    with receiving(queue) as receiver:
        taken = take(receiver, 10)
        assert receiver.acknowledge(taken[3:]) == []
    with receiving(queue) as receiver:
        again = take(receiver, 3)
        assert bodies(again) == bodies(taken[:3])
        assert [one.attempt for one in again] == [1, 1, 1]
        assert receiver.take(10, 0.5) == []
        receiver.acknowledge(again)


def test_retry_keeps_key_headers_and_time(queue: Queue) -> None:
    publish(queue, [Envelope("key", b"body", {"rxt-n": "1"})])
    with receiving(queue) as receiver:
        [first] = take(receiver, 1)
        receiver.retry([first], 0.0)
        [second] = take(receiver, 1)
        assert (second.key, second.body, second.headers) == ("key", b"body", {"rxt-n": "1"})
        assert second.enqueued_at == first.enqueued_at
        assert (second.attempt, receiver.acknowledge([first])) == (2, [first])
        receiver.acknowledge([second])


def test_delayed_retry_survives_its_receiver(queue: Queue) -> None:
    publish(queue, envelopes(1))
    with receiving(queue) as receiver:
        receiver.retry(take(receiver, 1), 3.0)
        eventually(lambda: queue.engine.backlog()["workers"].pending == 1, queue.engine.backlog)
    with receiving(queue) as receiver:
        [taken] = take(receiver, 1)
        assert taken.attempt == 2
        receiver.acknowledge([taken])


def test_retry_that_is_not_stored_is_kept(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(queue, envelopes(1))
    with receiving(queue) as receiver:
        taken = take(receiver, 1)
        with monkeypatch.context() as patch:
            sender = vars(receiver)["_retries"]
            patch.setattr(sender, "put", lambda all_: [BrokerUnavailable("away")] * len(all_))
            assert receiver.retry(taken, 0.2) == []
        [again] = take(receiver, 1)
        assert (again.body, again.attempt) == (taken[0].body, 2)
        assert receiver.acknowledge(taken) == taken
        assert receiver.acknowledge([again]) == []


def test_full_receiver_pauses_and_continues(queue: Queue) -> None:
    publish(queue, envelopes(50))
    with receiving(queue, max_in_flight=5) as receiver:
        taken = take(receiver, 5)
        eventually(lambda: is_paused(receiver), lambda: vars(receiver))
        assert receiver.acknowledge(taken) == []
        assert bodies(taken) | settle(receiver, 45) == bodies_of(envelopes(50))
        assert receiver.take(10, 0.5) == []


def test_paused_receiver_continues_after_a_rebalance(queue: Queue) -> None:
    publish(queue, envelopes(50))
    with receiving(queue, max_in_flight=5) as first:
        taken = take(first, 5)
        eventually(lambda: is_paused(first), lambda: vars(first))
        with receiving(queue, max_in_flight=5):
            eventually(lambda: len(first.extend(taken)) == 5, lambda: taken)
        assert settle(first, 50) == bodies_of(envelopes(50))


def is_paused(receiver: Receiver) -> bool:
    partitions, paused = vars(receiver)["_partitions"], vars(receiver)["_paused"]
    return len(partitions) == 8 and set(partitions.values()) == paused and full(receiver)


def full(receiver: Receiver) -> bool:
    return bool(vars(receiver)["_taken"] == vars(receiver)["_most"])


def settle(receiver: Receiver, count: int) -> set[bytes]:
    """Take and acknowledge until this many different messages were settled."""
    seen, deadline = set[bytes](), time.monotonic() + 2 * PATIENCE
    while len(seen) < count:
        assert time.monotonic() < deadline, len(seen)
        taken = receiver.take(100, 0.5)
        seen |= bodies(taken) - bodies(receiver.acknowledge(taken))
    return seen


def test_partition_pauses_behind_an_unsettled_message(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rxtweets.brokers._engines.kafka_receiver.LEAST_TRACKED", 10)
    publish(queue, [Envelope("one-partition", b"%d" % number, {}) for number in range(50)])
    with receiving(queue, max_in_flight=5) as receiver:
        oldest, *others = take(receiver, 5)
        seen = {oldest.body}
        while others:
            assert receiver.acknowledge(others) == []
            seen |= bodies(others)
            others = receiver.take(5, 2.0)
        assert 10 <= len(seen) < 20
        assert receiver.acknowledge([oldest]) == []
        assert len(settle(receiver, 50 - len(seen)) | seen) == 50


class Found:
    """A message after a gap; Tansu cannot delete records, so the gap is made here."""

    def offset(self) -> int:
        return 9

    def timestamp(self) -> tuple[int, int]:
        return 1, 0

    def nothing(self) -> None:
        return None

    headers = key = value = topic = nothing


def test_messages_deleted_by_retention_are_logged(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    from rxtweets.brokers._engines.kafka_receiver import _Partition

    with receiving(queue) as receiver:
        entry: Callable[..., Any] = receiver.__class__.__dict__["_entry"]
        entry(receiver, _Partition("topic", 0, is_retry=False, committed=9), Found())
        assert "missing" not in caplog.text
        entry(receiver, _Partition("topic", 0, is_retry=False, committed=5), Found())
        assert "offsets 5 to 8 are missing" in caplog.text


def test_revoked_messages_are_lost_and_redelivered(queue: Queue) -> None:
    publish(queue, envelopes(100))
    with receiving(queue) as first:
        taken = take(first, 100)
        settled, held = taken[::2], taken[1::2]
        assert first.acknowledge(settled) == []
        with receiving(queue) as second:
            eventually(lambda: len(first.extend(held)) == len(held), lambda: held)
            assert set(first.acknowledge(held)) == set(held)
            again = dict[Receiver, list[Taken]]({first: [], second: []})

            def all_are_back() -> bool:
                for receiver in again:
                    again[receiver] += receiver.take(100, 0.2)
                return bodies(again[first] + again[second]) >= bodies(held)

            eventually(all_are_back, lambda: again)
            assert all(again.values())  # both have partitions
            for receiver, messages in again.items():
                assert receiver.acknowledge(messages) == []


def test_rebalance_is_no_crash(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Tansu keeps no metadata, and the mock accepts no commit while a worker joins."""
    holders, metadata = list[str](), Crashes.metadata

    def recorded(crashes: Crashes, position: int, worker: str, *rest: Any) -> str:
        holders.append(worker)
        return metadata(crashes, position, worker, *rest)

    monkeypatch.setattr(Crashes, "metadata", recorded)
    publish(queue, [Envelope("one-partition", b"%d" % number, {}) for number in range(5)])
    with receiving(queue) as first:
        held = take(first, 5)
        before = len(holders)
        assert all(holders)
        with receiving(queue):
            eventually(lambda: len(first.extend(held)) == 5, lambda: held)
    assert holders[before] == ""
    assert "delivered again" not in caplog.text


def test_messages_of_a_killed_worker_are_redelivered(broker: Tansu, queue: Queue) -> None:
    publish(queue, envelopes(20))
    take_and_die(broker.url(queue.engine.queue), 20)
    with receiving(queue) as receiver:
        again = take(receiver, 20)
        assert bodies(again) == bodies_of(envelopes(20))
        assert {one.attempt for one in again} == {1}  # the first crash has no known cause
        receiver.acknowledge(again)


def bodies_of(sent: list[Envelope]) -> set[bytes]:
    return {one.body for one in sent}


def test_frozen_broker_is_reported_and_keeps_messages() -> None:
    with tansu() as broker:
        queue = opened(broker)
        sender = queue.engine.sender()
        assert sender.put(envelopes(20)) == [None] * 20
        with receiving(queue) as receiver:
            held = take(receiver, 5)
            with broker.frozen():
                errors = sender.put(envelopes(5, start=20))
                assert all(isinstance(error, BrokerUnavailable) for error in errors)
                with suppress(BrokerUnavailable):  # until the session ends
                    assert receiver.acknowledge(held[:1]) == held[:1]
                with pytest.raises(BrokerUnavailable, match=str(broker.port)):
                    queue.engine.backlog()
                drain_until_lost(receiver)
            receiver.acknowledge(held)  # perhaps lost: harmless
        put_until_stored(sender, envelopes(5, start=20))
        with receiving(queue) as receiver:
            missing = bodies_of(envelopes(25))
            deadline = time.monotonic() + PATIENCE
            missing -= bodies(held)
            while missing and time.monotonic() < deadline:
                taken = receiver.take(100, 0.5)
                receiver.acknowledge(taken)
                missing -= bodies(taken)
            assert missing == set()
        sender.close()
        queue.close()


def drain_until_lost(receiver: Receiver) -> None:
    """Take without an acknowledgement until the receiver notices that the broker is lost."""
    deadline = time.monotonic() + PATIENCE
    with suppress(BrokerUnavailable):
        while time.monotonic() < deadline:
            receiver.take(100, 1.0)
        pytest.fail("the receiver does not notice that the broker is lost")


def put_until_stored(sender: brokers.Sender, items: list[Envelope]) -> None:
    """Publish what is not confirmed until the broker, which is back, has confirmed all messages."""
    deadline = time.monotonic() + 2 * PATIENCE
    while items:
        assert time.monotonic() < deadline
        errors = sender.put(items)
        items = [item for item, error in zip(items, errors, strict=True) if error is not None]


def test_killed_broker_hangs_nothing_and_returns() -> None:
    # Tansu loses all messages when it ends, so this shows that all parts recover, not durability.
    with tansu() as broker:
        queue = opened(broker)
        sender = queue.engine.sender()
        stopped, confirmed = threading.Event(), set[bytes]()

        def publish_on() -> None:
            number = 0
            while not stopped.is_set():
                items = envelopes(20, start=number)
                errors = sender.put(items)
                confirmed.update(
                    item.body for item, error in zip(items, errors, strict=True) if not error
                )
                number += 20
                stopped.wait(0.05)

        thread = threading.Thread(target=publish_on)
        thread.start()
        try:
            with receiving(queue) as receiver:
                stale = take(receiver, 20)
                broker.kill()
                drain_until_lost(receiver)
                broker.start()
                eventually(lambda: is_ready(queue), lambda: "ensure fails")
                confirmed.clear()
                taken = set[bytes]()

                def goes_on() -> bool:
                    found = take_if_there(receiver)
                    taken.update(bodies(found))
                    return len(taken & confirmed) >= 100

                eventually(goes_on, lambda: (len(taken), len(confirmed)))
                assert set(receiver.acknowledge(stale)) == set(stale)
        finally:
            stopped.set()
            thread.join(PATIENCE)
            assert not thread.is_alive()
            sender.close()
            queue.close()


def is_ready(queue: Queue) -> bool:
    try:
        queue.engine.ensure(["workers"])
    except BrokerUnavailable:
        return False
    return True


def take_if_there(receiver: Receiver) -> list[Taken]:
    try:
        taken = receiver.take(100, 0.5)
        receiver.acknowledge(taken)
    except BrokerUnavailable:
        return []
    return taken


def sharded(count: int) -> list[Envelope]:
    return [Envelope(f"key{n}", b"%d" % n, {"rxt-shard": "a"}) for n in range(count)]


def test_messages_of_a_shard_have_one_partition(queue: Queue) -> None:
    publish(queue, sharded(20))
    places, keys = set[str](), list[str]()
    with receiving(queue) as receiver:
        for _ in range(20):
            [one] = take(receiver, 1)
            places.add(one.native_id.rpartition("/")[0])
            keys.append(one.key)
            receiver.acknowledge([one])
    assert len(places) == 1
    assert keys == [f"key{n}" for n in range(20)]


def test_rebalance_waits_for_the_handler_of_a_shard(queue: Queue) -> None:
    publish(queue, sharded(3))
    with receiving(queue) as first, ExitStack() as stack:
        [held] = take(first, 1)
        inner: Any = first
        joined: list[Receiver] = []
        thread = threading.Thread(
            target=lambda: joined.append(stack.enter_context(receiving(queue)))
        )
        thread.start()
        eventually(lambda: inner._is_leaving, lambda: "no rebalance")
        assert first.take(10, 0.0) == []
        assert first.acknowledge([held]) == []
        thread.join(PATIENCE)
        seen: list[bytes] = []
        for receiver in itertools.islice(itertools.cycle((first, *joined)), 100):
            for one in receiver.take(1, 0.1):
                seen.append(one.body)
                receiver.acknowledge([one])
            if len(seen) == 2:
                break
        assert seen == [b"1", b"2"]


def test_closed_worker_leaves_a_shard_in_its_place(queue: Queue) -> None:
    """Messages without a shard are moved to the topic of retries; that changes their order."""
    publish(queue, [*sharded(2), *envelopes(40)])
    with receiving(queue) as receiver:
        taken = take(receiver, 41)
        [blocked] = [one for one in taken if one.shard]
        receiver.acknowledge([one for one in taken if not one.shard])
    with receiving(queue) as receiver:
        seen: list[Taken] = []
        while len(seen) < 2:
            for one in take(receiver, 1):
                seen += [one] if one.shard else []
                receiver.acknowledge([one])
        assert [one.body for one in seen] == [b"0", b"1"]
        assert seen[0].native_id == blocked.native_id
