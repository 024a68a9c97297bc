"""What is special about Google Cloud Pub/Sub, over Google's emulator."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from google.api_core.exceptions import Forbidden
from google.cloud import pubsub_v1

from rxtweets import brokers
from rxtweets.brokers import Envelope, Queue, Subscription
from rxtweets.errors import (
    BrokerError,
    BrokerUnavailable,
    ConfigurationError,
    QueueSettingsError,
)
from tests.brokers.engine_contract import envelopes, publish, receiving, take
from tests.brokers.engines import UrlOf, pubsub_emulator
from tests.brokers.waiting import eventually, free_port

ENGINE = "pubsub"
TOPIC = "projects/project/topics/"
SUBSCRIPTION = "projects/project/subscriptions/"


@pytest.fixture
def publisher(url_of: UrlOf) -> Iterator[Any]:
    """Return the client of another program."""
    del url_of  # has set the environment
    client = pubsub_v1.PublisherClient()
    yield client
    client.transport.close()


@pytest.fixture
def subscriber(url_of: UrlOf) -> Iterator[Any]:
    """Return the client of another program."""
    del url_of  # has set the environment
    with pubsub_v1.SubscriberClient() as client:
        yield client


# URLs.


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("pubsub://me:hidden@project/tweets", "credentials in the environment"),
        ("pubsub://127.0.0.1:8085/tweets", "PUBSUB_EMULATOR_HOST"),
        ("pubsub:tweets", "give a project"),
        ("pubsub://project/google", "name a topic"),
        ("pubsub://project/a/b", "name a topic"),
        ("pubsub://project/tweets?retention=32", "a whole number from 1 to 31"),
        ("pubsub://project/tweets?order=1", "unknown option"),
        ("pubsub://project/tweets?ordered=yes", "a whole number from 0 to 1"),
    ],
)
def test_invalid_url_is_refused(url: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text) as raised:
        brokers.connect(url)
    assert "hidden" not in str(raised.value)


def test_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.pubsub_v1", None)
    with pytest.raises(ConfigurationError, match=r"rxtweets\[pubsub\]"):
        brokers.connect("pubsub://project/tweets")


def test_unreachable_broker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{port}")
    queue = brokers.connect("pubsub://project/tweets")
    with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{port}"):
        queue.engine.ensure(["workers"])
    queue.close()


def test_missing_credentials_are_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent")
    queue = brokers.connect("pubsub://project/tweets")
    with pytest.raises(BrokerError, match="/nonexistent") as raised:
        queue.engine.ensure()
    assert not isinstance(raised.value, BrokerUnavailable)
    queue.close()


# Subscriptions.


def test_message_without_any_group_is_refused(url: str) -> None:
    queue = brokers.connect(url)
    queue.engine.ensure()
    sender = queue.engine.sender()
    [error] = sender.put(envelopes(1))
    assert isinstance(error, BrokerError)
    assert "groups=[...]" in str(error)
    queue.engine.ensure(["workers"])
    assert sender.put(envelopes(1)) == [None]
    queue.close()


def test_subscription_never_expires(subscriber: Any, queue: Queue) -> None:
    found = subscriber.get_subscription(subscription=f"{SUBSCRIPTION}{queue.engine.queue}-workers")
    assert "expiration_policy" in found
    assert not found.expiration_policy.ttl
    assert found.message_retention_duration.days == 7
    assert not found.enable_exactly_once_delivery


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "expiration_policy"),
        (
            {"expiration_policy": {}, "message_retention_duration": {"seconds": 86_400}},
            "message_retention_duration=86400 s",
        ),
        ({"expiration_policy": {}, "filter": 'attributes.a = "b"'}, "filter"),
        (
            {"expiration_policy": {}, "push_config": {"push_endpoint": "https://127.0.0.1/"}},
            "push_config",
        ),
    ],
)
def test_settings_that_lose_messages_are_refused(
    publisher: Any, subscriber: Any, url: str, settings: dict[str, Any], text: str
) -> None:
    name = url.rpartition("/")[2]
    publisher.create_topic(name=TOPIC + name)
    subscriber.create_subscription(
        request={"name": f"{SUBSCRIPTION}{name}-workers", "topic": TOPIC + name, **settings}
    )
    queue = brokers.connect(url)
    with pytest.raises(QueueSettingsError, match=text):
        queue.engine.ensure(["workers"])
    queue.close()


def test_subscription_of_another_topic_is_refused(url: str) -> None:
    owner = brokers.connect(f"{url}-eu")
    owner.engine.ensure(["workers"])
    owner.close()
    intruder = brokers.connect(url)
    with pytest.raises(QueueSettingsError, match="topic="):
        intruder.engine.ensure(["eu-workers"])
    intruder.close()


def test_deliveries_are_limited_two_above_ours(subscriber: Any, queue: Queue) -> None:
    name = f"{SUBSCRIPTION}{queue.engine.queue}-workers"

    def policy() -> Any:
        return subscriber.get_subscription(subscription=name).dead_letter_policy

    assert policy().dead_letter_topic == f"{TOPIC}{queue.engine.queue}.dead"
    assert policy().max_delivery_attempts == 100
    for max_deliver, most in ((2, 5), (9, 11), (5, 11)):
        queue.engine.receiver(Subscription("workers", 30.0, 10, max_deliver)).close()
        assert policy().max_delivery_attempts == most
    with pytest.raises(ConfigurationError, match="98 at most"):
        queue.engine.receiver(Subscription("workers", 30.0, 10, 99))


def test_broker_makes_the_dead_letter_as_a_net(queue: Queue) -> None:
    publish(queue, [Envelope("poison", b"body", {"rxt-n": "1"})])
    with receiving(queue) as receiver:
        for _ in range(7):
            receiver.release(take(receiver, 1))

        def is_dead() -> bool:
            assert receiver.take(1, 1.0) == []
            return any(letter.body == b"body" for letter in queue.dead_letters)

        eventually(is_dead, lambda: list(queue.dead_letters))


def test_refused_creation_says_so(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise Forbidden("pubsub.topics.create")  # type: ignore[no-untyped-call]

    queue = brokers.connect(url)
    monkeypatch.setattr(
        "google.pubsub_v1.PublisherClient.create_topic", refuse
    )  # the emulator permits all
    with pytest.raises(BrokerError, match=r"create_topic: 403 pubsub\.topics\.create") as raised:
        queue.engine.ensure(["workers"])
    assert not isinstance(raised.value, BrokerUnavailable)
    queue.close()


def test_lease_beyond_ten_minutes_is_refused(queue: Queue) -> None:
    with pytest.raises(ConfigurationError, match="600 s"):
        queue.engine.receiver(Subscription("workers", 601.0, 10, 5))


def test_deleted_topic_is_made_again(publisher: Any, subscriber: Any, queue: Queue) -> None:
    sender = queue.engine.sender()
    assert sender.put(envelopes(2)) == [None, None]
    publisher.delete_topic(topic=TOPIC + queue.engine.queue)
    errors = sender.put(envelopes(2))
    assert all(isinstance(error, BrokerUnavailable) for error in errors)
    with pytest.raises(QueueSettingsError, match="_deleted-topic_"):
        sender.put(envelopes(2))
    subscriber.delete_subscription(subscription=f"{SUBSCRIPTION}{queue.engine.queue}-workers")
    assert sender.put(envelopes(2)) == [None, None]


# Messages.


def test_message_of_another_program_is_taken(publisher: Any, queue: Queue) -> None:
    publisher.publish(TOPIC + queue.engine.queue, b"by hand", source="console").result(10)
    with receiving(queue) as receiver:
        [taken] = take(receiver, 1)
        assert (taken.body, taken.key, taken.headers) == (b"by hand", "", {"source": "console"})


def test_too_large_message_fails_alone(queue: Queue) -> None:
    large = Envelope("large", b"x" * 9_000_000, {})
    header = Envelope("header", b"x", {"rxt-n": "x" * 1025})
    sender = queue.engine.sender()
    first, second, third, fourth = sender.put([*envelopes(1), large, header, *envelopes(1, 1)])
    assert (first, fourth) == (None, None)
    assert "10 MB at most" in str(second)
    assert "'rxt-n' has more than 1024 bytes" in str(third)


def test_batches_keep_the_limits_of_a_request(queue: Queue) -> None:
    publish(queue, envelopes(1500))
    publish(queue, [Envelope(f"k{number}", b"x" * 3_500_000, {}) for number in range(5)])
    with receiving(queue) as receiver:
        receiver.acknowledge(take(receiver, 1505))


def test_ack_after_the_lease_is_returned_as_lost(queue: Queue) -> None:
    publish(queue, envelopes(2))
    with receiving(queue, lease=1.0) as receiver:
        first, second = take(receiver, 2)
        eventually(lambda: bool(receiver.take(1, 1.0)), lambda: None)
        assert set(receiver.acknowledge([first, second])) == {first, second}


def test_delay_is_cut_to_the_limit_of_pubsub(queue: Queue) -> None:
    publish(queue, envelopes(1))
    with receiving(queue) as receiver:
        assert receiver.retry(take(receiver, 1), 100_000.0) == []


# Losses. The emulator forgets its topics when it ends.


def test_killed_broker_is_noticed_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{port}")
    queue = brokers.connect("pubsub://project/tweets", groups=["workers"])
    sender = queue.engine.sender()
    results: list[Exception | None] = []
    stopped = threading.Event()

    def publish_on() -> None:
        while not stopped.is_set():
            results.extend(sender.put(envelopes(20)))

    with pubsub_emulator(port) as server:
        queue.engine.ensure(["workers"])
        old = queue.engine.receiver(Subscription("workers", 30.0, 100, 5))
        thread = threading.Thread(target=publish_on)
        thread.start()
        taken = take(old, 20)
        server.kill()
        server.wait()
        with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{port}"):
            old.acknowledge(taken)
        with pytest.raises(BrokerUnavailable):
            old.take(1, 1.0)
        stopped.set()
        thread.join(30)
        assert not thread.is_alive()
    assert results.count(None) > 0
    assert all(isinstance(one, BrokerUnavailable) for one in results if one is not None)
    with pubsub_emulator(port):
        eventually(lambda: sender.put(envelopes(20, 100)) == [None] * 20, lambda: None)
        old.acknowledge(taken)
        keys = {one.key for one in take(old, 20)}
        assert keys == {f"key{number}" for number in range(100, 120)}
        old.close()
    queue.close()


def test_stopped_broker_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{port}")
    with pubsub_emulator(port) as server:
        queue = brokers.connect("pubsub://project/tweets", groups=["workers"])
        queue.engine.ensure(["workers"])
        sender = queue.engine.sender()
        with receiving(queue) as receiver:
            assert sender.put(envelopes(50)) == [None] * 50
            server.send_signal(signal.SIGSTOP)
            errors = sender.put(envelopes(3000, 100))
            assert all(isinstance(error, BrokerUnavailable) for error in errors)
            with pytest.raises(BrokerUnavailable):
                receiver.take(1, 60.0)
            server.send_signal(signal.SIGCONT)
            receiver.acknowledge(take(receiver, 50))
        queue.close()


def test_subscription_without_ordering_is_refused(url: str) -> None:
    unordered = brokers.connect(url)
    unordered.engine.ensure(["workers"])
    unordered.close()
    ordered = brokers.connect(f"{url}?ordered=1")
    with pytest.raises(QueueSettingsError, match="-workers has enable_message_ordering=false"):
        ordered.engine.ensure(["workers"])
    ordered.close()


def test_worker_without_the_option_keeps_the_order(url: str) -> None:
    ordered = brokers.connect(f"{url}?ordered=1")
    ordered.engine.ensure(["workers"])
    publish(ordered, [Envelope(f"key{n}", b"%d" % n, {"rxt-shard": "a"}) for n in range(2)])
    with receiving(brokers.connect(url)) as receiver:
        assert [one.body for one in take(receiver, 1)] == [b"0"]
        assert receiver.take(10, 0.5) == []
    ordered.close()
