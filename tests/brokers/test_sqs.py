"""What is special about Amazon SQS, over an emulator."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from rxtweets import brokers
from rxtweets.brokers import Envelope, Queue, Subscription
from rxtweets.brokers._engines.sqs_client import SqsClient
from rxtweets.errors import (
    BrokerError,
    BrokerUnavailable,
    ConfigurationError,
    QueueSettingsError,
)
from tests.brokers.engine_contract import envelopes, publish, receiving, take
from tests.brokers.engines import moto
from tests.brokers.waiting import eventually, free_port

ENGINE = "sqs"


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    """Return the client of another program."""
    host = url.removeprefix("sqs://").partition("/")[0]
    client = boto3.client("sqs", endpoint_url=f"http://{host}", region_name="us-east-1")
    yield client
    client.close()


def queue_url(client: Any, queue: Queue, group: str = "workers") -> str:
    return str(client.get_queue_url(QueueName=f"{queue.engine.queue}-{group}")["QueueUrl"])


# URLs.


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("sqs://me:hidden@eu-west-1/tweets", "credentials in the environment"),
        ("sqs://localhost/tweets", "give a region"),
        ("sqs:tweets", "give a region"),
        ("sqs://eu-west-1/tweets?region=us-east-1", "give a region"),
        ("sqs://eu-west-1/tweets.dead", "letters, digits"),
        ("sqs://eu-west-1/tweets?retention=15", "a whole number from 1 to 14"),
        ("sqs://eu-west-1/tweets?delay=1", "unknown option"),
    ],
)
def test_invalid_url_is_refused(url: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text) as raised:
        brokers.connect(url)
    assert "hidden" not in str(raised.value)


def test_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigurationError, match=r"rxtweets\[sqs\]"):
        brokers.connect("sqs://eu-west-1/tweets")


@pytest.mark.usefixtures("url_of")
def test_credentials_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    port = free_port()
    queue = brokers.connect(f"sqs://127.0.0.1:{port}/tweets")
    with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{port}") as raised:
        queue.engine.ensure(["workers"])
    assert "hidden" not in f"{raised.value!r} {queue!r} {queue.engine!r}"
    queue.close()


def test_missing_credentials_are_no_loss(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    queue = brokers.connect(url)
    with pytest.raises(BrokerError, match="credentials") as raised:
        queue.engine.ensure(["workers"])
    assert not isinstance(raised.value, BrokerUnavailable)
    queue.close()


# Queues.


def test_message_without_any_group_is_refused(url: str) -> None:
    queue = brokers.connect(url)
    queue.engine.ensure()
    [error] = queue.engine.sender().put(envelopes(1))
    assert isinstance(error, BrokerError)
    assert "groups=[...]" in str(error)
    queue.close()


def test_group_of_another_process_is_found(queue: Queue, url: str) -> None:
    publisher = brokers.connect(url)
    publish(publisher, envelopes(3))
    publisher.close()
    with receiving(queue) as receiver:
        take(receiver, 3)


def test_backlog_has_a_new_group_at_once(url: str) -> None:
    queue = brokers.connect(url)
    queue.engine.sender().put(envelopes(1))  # it looks for groups, and finds none
    worker = brokers.connect(url, groups=["workers"])
    worker.ensure()
    assert set(queue.backlog()) == {"workers"}
    worker.close()
    queue.close()


@pytest.fixture
def without_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the permission ListQueues away."""
    call = SqsClient.call

    def refuse(client: SqsClient, operation: str, **parameters: Any) -> Any:
        if operation == "list_queues":
            raise BrokerError("SQS: list_queues: AccessDenied")
        return call(client, operation, **parameters)

    monkeypatch.setattr(SqsClient, "call", refuse)


@pytest.mark.usefixtures("without_list")
def test_named_groups_are_found_without_a_list(queue: Queue) -> None:
    publish(queue, envelopes(1))
    assert queue.backlog()["workers"].pending == 1
    assert len(queue.dead_letters) == 0
    dead = queue.engine.dead_letters()
    dead.ensure(("dead",))
    publish(Queue(dead, ()), envelopes(2))
    assert len(queue.dead_letters) == 2


@pytest.mark.usefixtures("without_list")
def test_backlog_of_unnamed_groups_needs_the_list(url: str) -> None:
    with pytest.raises(BrokerError, match="AccessDenied"):
        brokers.connect(url).backlog()


def test_queue_of_a_similar_name_is_no_group(queue: Queue, url: str) -> None:
    similar = brokers.connect(f"{url}-eu", groups=["workers"])
    similar.engine.ensure(["workers"])
    publish(queue, envelopes(1))
    assert set(brokers.connect(url).backlog()) == {"workers"}
    assert similar.backlog()["workers"].pending == 0
    similar.close()


def test_queue_of_another_queue_is_refused(url: str) -> None:
    owner = brokers.connect(f"{url}-eu", groups=["workers"])
    owner.engine.ensure(["workers"])
    owner.close()
    intruder = brokers.connect(url)
    with pytest.raises(QueueSettingsError, match="choose another name"):
        intruder.engine.ensure(["eu-workers"])
    intruder.close()


def test_short_retention_is_refused(client: Any, url: str) -> None:
    name = f"{url.rpartition('/')[2]}-workers"
    client.create_queue(QueueName=name, Attributes={"MessageRetentionPeriod": "345600"})
    queue = brokers.connect(url)
    with pytest.raises(QueueSettingsError, match=r"MessageRetentionPeriod=345600.*retention=4"):
        queue.engine.ensure(["workers"])
    queue.close()
    queue = brokers.connect(f"{url}?retention=4")
    queue.engine.ensure(["workers"])
    queue.close()


def test_deliveries_are_limited_two_above_ours(client: Any, queue: Queue) -> None:
    def limit() -> dict[str, Any]:
        found = client.get_queue_attributes(
            QueueUrl=queue_url(client, queue), AttributeNames=["RedrivePolicy"]
        )
        policy: dict[str, Any] = json.loads(found["Attributes"]["RedrivePolicy"])
        return policy

    for max_deliver, most in ((5, 7), (9, 11), (3, 11)):
        queue.engine.receiver(Subscription("workers", 30.0, 10, max_deliver)).close()
        assert int(limit()["maxReceiveCount"]) == most
    assert limit()["deadLetterTargetArn"].endswith("_dead-dead")


def test_lower_limit_of_deliveries_is_refused(client: Any, queue: Queue) -> None:
    other = client.create_queue(QueueName=f"{queue.engine.queue}_other")["QueueUrl"]
    found = client.get_queue_attributes(QueueUrl=other, AttributeNames=["QueueArn"])
    policy = {
        "deadLetterTargetArn": found["Attributes"]["QueueArn"],
        "maxReceiveCount": "3",
    }
    client.set_queue_attributes(
        QueueUrl=queue_url(client, queue), Attributes={"RedrivePolicy": json.dumps(policy)}
    )
    with pytest.raises(QueueSettingsError, match="maxReceiveCount=3"):
        queue.engine.receiver(Subscription("workers", 30.0, 10, 5))


def test_deleted_queue_is_made_again(client: Any, queue: Queue) -> None:
    sender = queue.engine.sender()
    assert sender.put(envelopes(2)) == [None, None]
    client.delete_queue(QueueUrl=queue_url(client, queue))
    errors = sender.put(envelopes(2))
    assert all(isinstance(error, BrokerUnavailable) for error in errors)
    assert sender.put(envelopes(2)) == [None, None]
    sender.close()


def test_lease_beyond_twelve_hours_is_refused(queue: Queue) -> None:
    with pytest.raises(ConfigurationError, match="12 hours"):
        queue.engine.receiver(Subscription("workers", 43_201.0, 10, 5))


# Messages.


def test_text_travels_as_it_is(client: Any, queue: Queue) -> None:
    publish(queue, [Envelope("a", '{"a": "\\u0000 …"}'.encode(), {}), Envelope("b", b"\xff", {})])
    found = client.receive_message(
        QueueUrl=queue_url(client, queue), MaxNumberOfMessages=10, MessageAttributeNames=["All"]
    )["Messages"]
    assert {message["Body"] for message in found} == {'{"a": "\\u0000 …"}', "/w=="}


@pytest.mark.parametrize("body", [b"\x00", b"\x0b", b"\xed\xa0\x80", "\ufffe".encode(), b"\r\n\t "])
def test_body_returns_with_odd_characters(queue: Queue, body: bytes) -> None:
    publish(queue, [Envelope("odd", body, {"rxt-n": "1"})])
    with receiving(queue) as receiver:
        [taken] = take(receiver, 1)
        assert (taken.body, taken.key, taken.headers) == (body, "odd", {"rxt-n": "1"})


def test_message_of_another_program_is_taken(client: Any, queue: Queue) -> None:
    client.send_message(
        QueueUrl=queue_url(client, queue),
        MessageBody="by hand",
        MessageAttributes={
            "source": {"DataType": "String", "StringValue": "console"},
            "rxtweets": {"DataType": "String", "StringValue": "no JSON"},
        },
    )
    with receiving(queue) as receiver:
        [taken] = take(receiver, 1)
        assert (taken.body, taken.key, taken.headers) == (b"by hand", "", {"source": "console"})


def test_too_large_message_fails_alone(queue: Queue) -> None:
    large = Envelope("large", b"x" * 262_144, {})
    empty = Envelope("empty", b"", {})
    sender = queue.engine.sender()
    first, second, third, fourth = sender.put([*envelopes(1), large, empty, *envelopes(1, 1)])
    sender.close()
    assert (first, fourth) == (None, None)
    assert "stores 262144 at most" in str(second)
    assert "no empty messages" in str(third)


def test_batches_keep_the_limit_of_bytes(queue: Queue) -> None:
    publish(queue, [Envelope(f"k{number}", b"x" * 100_000, {}) for number in range(7)])
    with receiving(queue) as receiver:
        take(receiver, 7)


def test_refused_receipt_is_returned_as_lost(queue: Queue) -> None:
    publish(queue, envelopes(3))
    with receiving(queue) as receiver:
        first, second, third = take(receiver, 3)
        second.receipt.handle = "of no message"
        assert receiver.extend([first, second, third]) == [second]
        assert receiver.acknowledge([first, second]) == [second]
        assert receiver.retry([second, third], 0.0) == [second]


def test_ack_after_the_lease_is_returned_as_lost(queue: Queue) -> None:
    publish(queue, envelopes(2))
    with receiving(queue, lease=1.0) as receiver:
        first, second = take(receiver, 2)
        eventually(lambda: bool(receiver.take(1, 1.0)), queue.backlog)
        assert set(receiver.acknowledge([first, second])) == {first, second}


def test_delay_is_cut_to_the_limit_of_sqs(queue: Queue) -> None:
    publish(queue, envelopes(2))
    with receiving(queue) as receiver:
        taken = take(receiver, 2)
        taken[0].receipt.taken_at -= 3600  # taken an hour ago
        assert taken[0].receipt.cut(43_200) == 43_200 - 3600 - 1 - 1
        assert receiver.retry(taken[1:], 100_000.0) == []


# Losses. The emulator forgets its queues when it ends.


@pytest.mark.usefixtures("url_of")
def test_killed_broker_is_noticed_and_found_again() -> None:
    port = free_port()
    queue = brokers.connect(f"sqs://127.0.0.1:{port}/tweets", groups=["workers"])
    sender = queue.engine.sender()
    results: list[Exception | None] = []
    stopped = threading.Event()

    def publish_on() -> None:
        while not stopped.is_set():
            results.extend(sender.put(envelopes(20)))

    with moto(port) as (_, server):
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
    with moto(port):
        eventually(lambda: sender.put(envelopes(20, 100)) == [None] * 20, queue.backlog)
        assert set(old.acknowledge(taken)) == set(taken)
        assert {one.key for one in take(old, 20)} == {f"key{n}" for n in range(100, 120)}
        old.close()
    sender.close()
    queue.close()


@pytest.mark.usefixtures("url_of")
def test_stopped_broker_is_noticed() -> None:
    with moto() as (host, server):
        queue = brokers.connect(f"sqs://{host}/tweets", groups=["workers"])
        queue.engine.ensure(["workers"])
        sender = queue.engine.sender()
        with receiving(queue) as receiver:
            assert sender.put(envelopes(50)) == [None] * 50
            server.send_signal(signal.SIGSTOP)
            errors = sender.put(envelopes(300, 100))
            assert all(isinstance(error, BrokerUnavailable) for error in errors)
            with pytest.raises(BrokerUnavailable):
                receiver.take(1, 60.0)
            server.send_signal(signal.SIGCONT)
            take(receiver, 50)
        sender.close()
        queue.close()


def test_no_message_follows_a_lost_one_of_its_shard(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """SQS stores a part of a request: the second message of a shard must not be in it."""
    queue = brokers.connect(f"{url}.fifo", groups=["workers"])
    queue.engine.ensure(["workers"])
    client = queue.engine._client  # type: ignore[attr-defined]
    call, sent = client.call, list[str]()

    def lose_first(operation: str, **parameters: Any) -> dict[str, Any]:
        if operation != "send_message_batch":
            return dict(call(operation, **parameters))
        sent.extend(entry["MessageBody"] for entry in parameters["Entries"])
        lost = [one for one in parameters["Entries"] if one["MessageBody"] == "0"]
        return {"Failed": [{"Id": one["Id"], "Code": "InternalError"} for one in lost]}

    monkeypatch.setattr(client, "call", lose_first)
    sender = queue.engine.sender()
    errors = sender.put(
        [Envelope(f"key{n}", b"%d" % n, {"rxt-shard": f"s{n % 2}"}) for n in range(6)]
    )
    assert [isinstance(error, BrokerUnavailable) for error in errors] == 3 * [True, False]
    assert sorted(sent) == ["0", "1", "3", "5"]
    sender.close()
    queue.close()
