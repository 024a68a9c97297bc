"""What is special about RabbitMQ: its settings, its errors, and its failures."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from rxtweets import Batcher, Pipeline, brokers, from_iterable
from rxtweets.brokers import Backlog, Envelope, Receiver, Subscription, Taken
from rxtweets.brokers._engines import amqp
from rxtweets.brokers._engines import rabbitmq as engine_of_rabbitmq
from rxtweets.brokers._engines.amqp import Consumer
from rxtweets.errors import (
    BacklogUnknown,
    BrokerError,
    BrokerUnavailable,
    ConfigurationError,
    QueueMissing,
    QueueSettingsError,
)
from tests.brokers import rabbitmq
from tests.brokers.engine_contract import envelopes, publish, receiving, take
from tests.brokers.engines import absent
from tests.brokers.waiting import eventually, free_port

MakeQueue = Callable[..., brokers.Queue]


@pytest.fixture(scope="module")
def node() -> Iterator[rabbitmq.Node]:
    """A node of this module."""
    if not rabbitmq.has_server():
        absent("RabbitMQ is not installed")
    with rabbitmq.running_node() as node:
        yield node


@pytest.fixture
def make_queue(node: rabbitmq.Node) -> Iterator[MakeQueue]:
    made: list[brokers.Queue] = []

    def make_queue(*groups: str, name: str = "") -> brokers.Queue:
        queue = brokers.connect(node.url(name or f"t{uuid4().hex[:12]}"), groups=groups)
        queue.engine.ensure(groups)
        made.append(queue)
        return queue

    yield make_queue
    for queue in made:
        queue.close()


@pytest.fixture
def queue(make_queue: MakeQueue) -> brokers.Queue:
    return make_queue("workers")


@pytest.fixture
def own_node(_nothing_outlives_a_test: None) -> Iterator[rabbitmq.Node]:
    """A node of one test, which may kill it: a restarted node is a new process."""
    if not rabbitmq.has_server():
        absent("RabbitMQ is not installed")
    with rabbitmq.running_node() as node:
        yield node


@pytest.fixture
def own_queue(own_node: rabbitmq.Node) -> Iterator[brokers.Queue]:
    queue = brokers.connect(own_node.url("tweets"), groups=["workers"])
    queue.engine.ensure(["workers"])
    yield queue
    queue.close()


# Settings.


def test_queue_of_another_type_is_refused(node: rabbitmq.Node) -> None:
    with rabbitmq.channel_to(node.port) as channel:
        channel.queue_declare("classic.workers", durable=True)
    engine = brokers.connect(node.url("classic")).engine
    with pytest.raises(QueueSettingsError, match=r"'x-queue-type' .*'classic\.workers'.* delete"):
        engine.ensure(["workers"])
    engine.ensure()  # it connects again
    engine.close()


@pytest.mark.parametrize("limit", [{"x-max-length": 10}, {"x-message-ttl": 9}, {"x-expires": 9000}])
def test_queue_that_drops_messages_is_refused(node: rabbitmq.Node, limit: dict[str, int]) -> None:
    [setting] = limit
    with rabbitmq.channel_to(node.port) as channel:
        arguments = engine_of_rabbitmq.QUORUM | limit
        channel.queue_declare(f"{setting}.workers", durable=True, arguments=arguments)
    engine = brokers.connect(node.url(setting)).engine
    with pytest.raises(QueueSettingsError, match=setting):
        engine.ensure(["workers"])
    engine.close()


def test_exchange_of_another_type_is_refused(node: rabbitmq.Node) -> None:
    with rabbitmq.channel_to(node.port) as channel:
        channel.exchange_declare("direct", "direct", durable=True)
    engine = brokers.connect(node.url("direct")).engine
    with pytest.raises(QueueSettingsError, match="'type' for exchange 'direct'"):
        engine.ensure(["workers"])
    engine.close()


# Errors.


def test_wrong_password_is_an_error_without_the_password(node: rabbitmq.Node) -> None:
    url = f"amqp://guest:hunter2@127.0.0.1:{node.port}/tweets"
    engine = brokers.connect(url).engine
    with pytest.raises(BrokerError, match=f"127.0.0.1:{node.port}.*ACCESS_REFUSED") as caught:
        engine.ensure()
    assert not isinstance(caught.value, BrokerUnavailable)
    shown = (str(caught.value), repr(caught.value), repr(engine), repr(vars(engine)))
    assert not any("hunter2" in text for text in shown)


def test_missing_broker_is_unavailable() -> None:
    port = free_port()
    engine = brokers.connect(f"amqp://guest:hunter2@127.0.0.1:{port}/tweets").engine
    with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{port}.* refused") as caught:
        engine.ensure()
    assert "hunter2" not in str(caught.value)


def test_second_host_is_tried_when_the_first_is_missing(node: rabbitmq.Node) -> None:
    hosts = f"127.0.0.1:{free_port()},127.0.0.1:{node.port}"
    engine = brokers.connect(f"amqp://{hosts}/t{uuid4().hex}").engine
    engine.ensure(["workers"])
    engine.close()


def test_unknown_vhost_is_an_error(node: rabbitmq.Node) -> None:
    engine = brokers.connect(node.url("tweets?vhost=none")).engine
    with pytest.raises(BrokerError, match="vhost none not found") as caught:
        engine.ensure()
    assert not isinstance(caught.value, BrokerUnavailable)


@pytest.mark.parametrize(
    "url", ["amqp:tweets", "amqp://h/tweets?vhosts=/", f"amqp://h/{'x' * 151}"]
)
def test_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        brokers.connect(url)


def test_missing_certificates_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="ca=/nowhere"):
        brokers.connect("amqps://127.0.0.1/tweets?ca=/nowhere")


def test_message_without_a_group_is_an_error(make_queue: MakeQueue) -> None:
    sender = make_queue().engine.sender()
    errors = sender.put(envelopes(3))
    sender.close()
    assert all(type(error) is BrokerError for error in errors)
    assert "name the groups" in str(errors[0])


def test_one_bad_message_does_not_fail_the_others(queue: brokers.Queue) -> None:
    sender = queue.engine.sender()
    long = Envelope("k" * 300, b"{}", {})
    first, bad, last = sender.put([envelopes(1)[0], long, envelopes(2)[1]])
    sender.close()
    assert (first, last) == (None, None)
    assert isinstance(bad, BrokerError)
    assert not isinstance(bad, BrokerUnavailable)
    with receiving(queue) as receiver:
        receiver.acknowledge(take(receiver, 2))


def test_messages_travel_over_tls(node: rabbitmq.Node) -> None:
    url = f"amqps://guest:guest@127.0.0.1:{node.tls_port}/tls?ca={node.ca}"
    queue = brokers.connect(url)
    queue.engine.ensure(["workers"])
    publish(queue, envelopes(300))
    with receiving(queue) as receiver:
        receiver.acknowledge(take(receiver, 300))
    queue.close()


def test_certificate_of_a_stranger_is_refused(node: rabbitmq.Node) -> None:
    engine = brokers.connect(f"amqps://guest:guest@127.0.0.1:{node.tls_port}/tls").engine
    with pytest.raises(BrokerError, match="CERTIFICATE_VERIFY_FAILED") as caught:
        engine.ensure()
    assert not isinstance(caught.value, BrokerUnavailable)


def test_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pika", None)
    with pytest.raises(ConfigurationError, match=r"rxtweets\[rabbitmq\]"):
        brokers.connect("amqp://127.0.0.1/tweets")


# Encoding.


@pytest.fixture(params=[amqp.OUTPUT, "_missing"])
def output(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of pika's method that writes frames, or one that pika does not have."""
    monkeypatch.setattr(amqp, "OUTPUT", request.param)
    return str(request.param)


def test_pika_has_the_method_that_writes_frames() -> None:
    assert callable(getattr(pytest.importorskip("pika").SelectConnection, amqp.OUTPUT, None))


@pytest.mark.usefixtures("output")
def test_bodies_of_all_sizes_keep_their_order(queue: brokers.Queue) -> None:
    frame = 131_072 - 8  # of RabbitMQ's largest frame, a body has all but eight bytes
    sizes = [0, 1, frame - 1, frame, frame + 1, 0, 2 * frame, 3 * frame + 7, 1]
    bodies = [bytes([48 + number]) * size for number, size in enumerate(sizes)]
    sent = [Envelope(f"k{number}", body, {"n": "é"}) for number, body in enumerate(bodies)]
    publish(queue, sent)
    with receiving(queue) as receiver:
        taken = take(receiver, len(sent))
        receiver.acknowledge(taken)
    assert [(one.key, one.body, one.headers) for one in taken] == [
        (one.key, one.body, one.headers) for one in sent
    ]


@pytest.mark.usefixtures("output")
def test_bad_message_among_large_ones_fails_alone(queue: brokers.Queue) -> None:
    sent = [
        Envelope(f"k{number}" if number % 3 else "k" * 300, b"x" * 30_000, {})
        for number in range(12)
    ]
    sender = queue.engine.sender()
    errors = sender.put(sent)
    sender.close()
    assert [error is None for error in errors] == [number % 3 > 0 for number in range(12)]
    with receiving(queue) as receiver:
        taken = take(receiver, 8)
        receiver.acknowledge(taken)
    assert [one.key for one in taken] == [one.key for one in sent if len(one.key) < 300]


# Retries.


def test_delay_longer_than_each_queue_takes_several(
    queue: brokers.Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_of_rabbitmq, "DELAYS", (1,))
    publish(queue, envelopes(1))
    with receiving(queue) as receiver:
        [taken] = take(receiver, 1)
        started = time.time()
        receiver.retry([taken], 3.0)
        [again] = take(receiver, 1)
        assert time.time() >= int(started + 3.0)
        assert (again.attempt, again.headers) == (2, taken.headers)
        receiver.acknowledge([again])


def test_prefetched_messages_are_not_counted_after_close(queue: brokers.Queue) -> None:
    publish(queue, envelopes(50))
    for _ in range(3):
        with receiving(queue) as receiver:
            receiver.release(take(receiver, 1))
    with receiving(queue) as receiver:
        taken = take(receiver, 50)
        assert {one.attempt for one in taken} == {1}
        receiver.acknowledge(taken)


def test_delayed_message_counts_as_pending(queue: brokers.Queue) -> None:
    publish(queue, envelopes(1))
    with receiving(queue) as receiver:
        receiver.retry(take(receiver, 1), 60.0)
        backlog = queue.engine.backlog
        eventually(lambda: backlog()["workers"] == brokers.Backlog(1, 0), backlog)
    assert queue.engine.purge() == 1


def test_backlog_needs_the_names_of_groups(queue: brokers.Queue, node: rabbitmq.Node) -> None:
    publish(queue, envelopes(3))
    reader = brokers.connect(node.url(queue.engine.queue))
    with pytest.raises(BacklogUnknown, match="--group workers"):
        reader.backlog()
    assert reader.engine.exists(["workers"])
    assert reader.backlog() == {"workers": brokers.Backlog(3, 0)}
    reader.close()


def test_message_of_another_program_is_taken(queue: brokers.Queue, node: rabbitmq.Node) -> None:
    with rabbitmq.channel_to(node.port) as channel:
        channel.basic_publish(queue.engine.queue, "", b"{}")
    with receiving(queue) as receiver:
        [taken] = take(receiver, 1)
        assert (taken.key, taken.headers, taken.enqueued_at) == ("", {}, None)
        receiver.retry([taken], 0.5)
        [again] = take(receiver, 1)
        assert again.attempt == 2
        receiver.acknowledge([again])


def test_failed_message_is_rejected(queue: brokers.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    methods: list[str] = []
    settle = Consumer.settle

    def recording(self: Consumer, tags: Collection[int], method: str) -> set[int]:
        methods.append(method)
        return settle(self, tags, method)

    monkeypatch.setattr(Consumer, "settle", recording)
    publish(queue, envelopes(1))
    with receiving(queue) as receiver:
        receiver.retry(take(receiver, 1), 0.0)
        assert methods == ["basic_reject"]  # newer brokers do not count what is given back
        receiver.acknowledge(take(receiver, 1))


# Losses.


def test_message_settled_twice_is_lost_the_second_time(queue: brokers.Queue) -> None:
    publish(queue, envelopes(3))
    with receiving(queue) as receiver:
        taken = take(receiver, 3)
        assert receiver.acknowledge(taken[1:2]) == []
        assert receiver.acknowledge(taken[1:2]) == taken[1:2]
        assert receiver.retry(taken[1:2], 0.0) == taken[1:2]
        assert receiver.acknowledge(taken) == taken[1:2]
    with receiving(queue) as receiver:
        assert receiver.take(1, 0.5) == []


def test_deleted_queue_is_created_again(queue: brokers.Queue, node: rabbitmq.Node) -> None:
    with receiving(queue) as receiver:
        assert isinstance(receiver, engine_of_rabbitmq._RabbitMQReceiver)
        assert receiver.take(1, 0.1) == []
        link = receiver._consuming.link
        assert link is not None
        # RabbitMQ 4.3 cancels the consumer before it answers; a take after that reconnects.
        with rabbitmq.channel_to(node.port) as channel:
            channel.queue_delete(f"{queue.engine.queue}.workers")
        eventually(lambda: link.lost is not None, link.counts)
        assert "deleted" in str(link.lost)
        assert receiver.take(1, 0.1) == []
        publish(queue, envelopes(1))
        receiver.acknowledge(take(receiver, 1))


def test_message_wakes_a_waiting_take(queue: brokers.Queue) -> None:
    with receiving(queue) as receiver:
        assert isinstance(receiver, engine_of_rabbitmq._RabbitMQReceiver)
        assert receiver.take(1, 0.0) == []
        link = receiver._consuming.link
        assert link is not None
        found: list[Taken] = []
        thread = threading.Thread(
            target=lambda: found.extend(receiver.take(1, 3600.0)), daemon=True
        )
        thread.start()
        waiters: Any = link._changed
        eventually(lambda: waiters._waiters, lambda: thread)
        publish(queue, envelopes(1))
        eventually(lambda: found, lambda: thread)
        receiver.acknowledge(found)


def test_backlog_uses_the_connection_that_is_there(
    queue: brokers.Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.backlog()

    def connect(*_: object) -> None:
        raise AssertionError("another connection")

    monkeypatch.setattr(queue.engine, "_connect", connect)
    assert queue.backlog() == {"workers": Backlog(0, 0)}


def test_known_group_that_was_deleted_is_missing(queue: brokers.Queue, node: rabbitmq.Node) -> None:
    with rabbitmq.channel_to(node.port) as channel:
        channel.queue_delete(f"{queue.engine.queue}.workers")
    with pytest.raises(QueueMissing, match="no group workers"):
        queue.backlog()
    queue.ensure()
    assert queue.backlog() == {"workers": Backlog(0, 0)}


def test_work_until_empty_handles_what_other_workers_hold(
    queue: brokers.Queue, node: rabbitmq.Node, tmp_path: Path
) -> None:
    tweets = from_iterable(range(24))
    Pipeline(tweets, batchers={"default": Batcher(queue.publisher(), size=24)}).run()
    # Each worker holds messages for seconds while none waits at the broker.
    (tmp_path / "slow.py").write_text(
        "import time\ndef slow(message):\n    time.sleep(0.3)\n    return message\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "rxtweets", "work", node.url(queue.engine.queue), "slow:slow",
         "--group", "workers", "--processes", "2", "--concurrency", "1", "--max-in-flight", "12",
         "--until-empty"],
        capture_output=True, text=True, timeout=50.0, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert queue.backlog()["workers"] == Backlog(0, 0)


def test_suspended_broker_is_unavailable(queue: brokers.Queue, node: rabbitmq.Node) -> None:
    publish(queue, envelopes(2))
    sender = queue.engine.sender()
    with receiving(queue) as receiver:
        [stale, _] = take(receiver, 2)
        assert sender.put(envelopes(1, 2)) == [None]
        receiver.acknowledge(take(receiver, 1))
        node.suspend()
        try:
            [error] = sender.put(envelopes(1, 3))
            assert isinstance(error, BrokerUnavailable)
            with pytest.raises(BrokerUnavailable, match=str(node.port)):
                receiver.take(1, 60.0)
            with pytest.raises(BrokerUnavailable, match=str(node.port)):
                receiver.take(1, 60.0)
            assert receiver.acknowledge([stale]) == [stale]
        finally:
            node.resume()
        assert {b'{"number":0', b'{"number":1'} <= {one.body[:11] for one in drained(receiver, 2)}
    sender.close()


def drained(receiver: Receiver, least: int) -> list[Taken]:
    """Take and acknowledge until nothing arrives, over losses of the broker."""
    found: list[Taken] = []
    deadline = time.monotonic() + 40.0
    while time.monotonic() < deadline:
        try:
            taken = receiver.take(100, 1.0)
        except BrokerUnavailable:
            time.sleep(0.1)  # the node is starting
            continue
        receiver.acknowledge(taken)
        found += taken
        if not taken and len(found) >= least:
            break
    return found


class Publishing:
    """A thread that publishes until it is stopped, and keeps the bodies that were confirmed."""

    def __init__(self, queue: brokers.Queue) -> None:
        self.confirmed: set[bytes] = set()
        self.failures = 0
        self._sender = queue.engine.sender()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._publish, daemon=True)
        self._thread.start()

    def wait_for(self, more: int) -> None:
        count = len(self.confirmed) + more
        eventually(lambda: len(self.confirmed) >= count, self.confirmed.__len__)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(30.0)
        assert not self._thread.is_alive()
        self._sender.close()

    def _publish(self) -> None:
        number = 0
        while not self._stopped.is_set():
            batch = envelopes(20, number)
            try:
                errors: list[Any] = self._sender.put(batch)
            except BrokerUnavailable as error:
                errors = [error] * len(batch)
            if any(errors):
                self.failures += 1
                self._stopped.wait(0.1)
            number += 20
            self.confirmed |= {
                one.body for one, error in zip(batch, errors, strict=True) if error is None
            }


def take_until_lost(receiver: Receiver) -> None:
    while True:
        receiver.take(1, 20.0)


def test_killed_broker_keeps_what_it_confirmed(
    own_node: rabbitmq.Node, own_queue: brokers.Queue
) -> None:
    publishing = Publishing(own_queue)
    with receiving(own_queue, max_in_flight=50) as receiver:
        for _ in range(2):
            publishing.wait_for(200)
            taken = receiver.take(50, 5.0)
            own_node.kill()
            with pytest.raises(BrokerUnavailable):
                take_until_lost(receiver)
            assert receiver.acknowledge(taken) == taken
            assert receiver.retry(taken, 1.0) == taken
            receiver.release(taken)
            own_node.start()
        publishing.wait_for(1)
        publishing.stop()
        assert publishing.failures > 0
        assert publishing.confirmed <= {one.body for one in drained(receiver, 1)}


def test_delayed_retry_survives_a_killed_broker(
    own_node: rabbitmq.Node, own_queue: brokers.Queue
) -> None:
    publish(own_queue, envelopes(10))
    with receiving(own_queue) as receiver:
        assert receiver.retry(take(receiver, 10), 2.0) == []
        own_node.kill()
        own_node.start()
        assert {one.body for one in drained(receiver, 10)} == {one.body for one in envelopes(10)}


def test_close_is_bounded_while_the_broker_is_suspended(
    queue: brokers.Queue, node: rabbitmq.Node
) -> None:
    publish(queue, envelopes(5))
    receiver = queue.engine.receiver(Subscription("workers", 30.0, 10, 5))
    take(receiver, 1)
    node.suspend()
    try:
        closing = threading.Thread(target=receiver.close, daemon=True)
        closing.start()
        closing.join(40.0)
        assert not closing.is_alive()
        queue.close()
    finally:
        node.resume()
