"""The engine for NATS JetStream: settings, secrets, and a server that crashes or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import nats
import pytest

from rxtweets import brokers
from rxtweets.brokers import Envelope, Queue, Receiver, Subscription, Taken
from rxtweets.brokers._engines import jetstream_link
from rxtweets.brokers._engines.jetstream import _JetStreamSender
from rxtweets.brokers._engines.jetstream_settings import check_consumer
from rxtweets.errors import (
    BrokerError,
    BrokerUnavailable,
    ConfigurationError,
    QueueSettingsError,
)
from tests.brokers.engine_contract import envelopes, publish, take
from tests.brokers.nats_server import NatsServer, nats_server
from tests.brokers.waiting import PATIENCE, eventually

THREAD = "rxtweets-jetstream"


@pytest.fixture(scope="module")
def shared() -> Iterator[NatsServer]:
    with nats_server() as server:
        yield server


@pytest.fixture
def own() -> Iterator[NatsServer]:
    with nats_server() as server:
        yield server


def queue_on(server: NatsServer, name: str, groups: tuple[str, ...] = ("workers",)) -> Queue:
    queue = brokers.connect(f"nats://127.0.0.1:{server.port}/{name}", groups=groups)
    queue.engine.ensure(groups)
    return queue


@contextmanager
def receiving(queue: Queue, group: str = "workers") -> Iterator[Receiver]:
    receiver = queue.engine.receiver(Subscription(group, 30.0, 1000, 5))
    try:
        yield receiver
    finally:
        receiver.close()


def administer(server: NatsServer, work: Callable[[Any], Awaitable[Any]]) -> Any:
    """Do something with the bare client."""

    async def connected() -> Any:
        client = await nats.connect(f"nats://127.0.0.1:{server.port}")
        try:
            return await work(client.jetstream())
        finally:
            await client.close()

    return asyncio.run(connected())


def stored(server: NatsServer, name: str) -> int:
    async def count(jetstream: Any) -> int:
        return int((await jetstream.stream_info(name)).state.messages)

    return int(administer(server, count))


def connections() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("nats:TWEETS", "give a host"),
        ("nats://127.0.0.1/a.b", "without spaces"),
        ("nats://127.0.0.1/TWEETS?colour=red", "unknown option 'colour'"),
        ("nats://127.0.0.1/TWEETS?replicas=none", "replicas='none'"),
        ("nats://127.0.0.1/TWEETS?dedupe=0", "dedupe='0'"),
    ],
)
def test_invalid_url_is_refused(url: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        brokers.connect(url)


def test_missing_client_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nats", None)
    with pytest.raises(ConfigurationError, match=r"rxtweets\[jetstream\]"):
        brokers.connect("nats://127.0.0.1/TWEETS")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"retention": "limits"}, "retention=limits"),
        ({"storage": "memory"}, "storage=memory"),
        ({"max_age": 3600.0, "duplicate_window": 60.0}, "max_age=3600"),
        ({"max_msgs": 10, "discard": "old"}, "discard=old"),
        ({"max_msgs_per_subject": 10}, "discard=new"),
        ({"no_ack": True}, "no_ack=True"),
        ({"subjects": ["other.>"]}, "?subject=..."),
    ],
)
def test_stream_that_can_lose_messages_is_refused(
    shared: NatsServer, settings: dict[str, Any], text: str, request: pytest.FixtureRequest
) -> None:
    name = f"unsafe-{abs(hash(request.node.name))}"
    defaults = {"subjects": [name], "retention": "workqueue", "discard": "new", "storage": "file"}
    administer(shared, lambda jetstream: jetstream.add_stream(name=name, **(defaults | settings)))
    with pytest.raises(QueueSettingsError) as error:
        queue_on(shared, name)
    assert text in str(error.value)


def test_stream_with_fewer_replicas_is_refused(shared: NatsServer) -> None:
    queue_on(shared, "replicated")
    with pytest.raises(QueueSettingsError, match="num_replicas=1"):
        queue_on(shared, "replicated?replicas=3")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"max_deliver": 5}, "max_deliver=5"),
        ({"ack_policy": "all"}, "ack_policy=all"),
        ({"inactive_threshold": 60.0}, "inactive_threshold=60"),
    ],
)
def test_consumer_that_can_lose_messages_is_refused(
    shared: NatsServer, settings: dict[str, Any], text: str
) -> None:
    name = f"consumer-{text.partition('=')[0]}"
    queue_on(shared, name, ("workers", "others"))
    administer(
        shared, lambda jetstream: jetstream.add_consumer(name, durable_name="odd", **settings)
    )
    with pytest.raises(QueueSettingsError, match=text):
        queue_on(shared, name, ("odd",))


@pytest.mark.parametrize("pattern", ["", "tweets.en", "tweets.*", "*.en", "tweets.>", ">"])
def test_consumer_whose_filter_passes_all_is_used(pattern: str) -> None:
    check_consumer(filtering(pattern), "the group", "tweets.en")


@pytest.mark.parametrize("pattern", ["tweets", "tweets.de", "*", "tweets.en.>", "tweetsXen"])
def test_consumer_whose_filter_drops_messages_is_refused(pattern: str) -> None:
    with pytest.raises(QueueSettingsError, match=r"add 'tweets\.en'"):
        check_consumer(filtering(pattern), "the group", "tweets.en")


def filtering(pattern: str) -> Any:
    api = nats.js.api
    return api.ConsumerConfig(ack_policy=api.AckPolicy.EXPLICIT, filter_subject=pattern)


def test_second_group_is_refused_where_one_was_named(shared: NatsServer) -> None:
    queue_on(shared, "onegroup", ("a",))
    with pytest.raises(QueueSettingsError, match=r"not a, b.*connect\(groups=\[...\]\)"):
        queue_on(shared, "onegroup", ("b",))


def test_stream_that_lost_its_groups_is_refused(shared: NatsServer) -> None:
    queue_on(shared, "deserted", ("a", "b"))

    async def desert(jetstream: Any) -> None:
        for group in ("a", "b"):
            await jetstream.delete_consumer("deserted", group)

    administer(shared, desert)
    with pytest.raises(QueueSettingsError, match="drops all messages"):
        queue_on(shared, "deserted", ())


def test_worker_creates_a_group_that_was_deleted(shared: NatsServer) -> None:
    queue = queue_on(shared, "ungrouped")
    with receiving(queue) as receiver:
        assert receiver.take(1, 0.1) == []

        async def delete(jetstream: Any) -> None:
            await jetstream.delete_consumer("ungrouped", "workers")

        administer(shared, delete)
        publish(queue, envelopes(3))
        taken: list[Taken] = []
        for _ in range(3):
            with contextlib.suppress(BrokerUnavailable):
                taken += receiver.take(3, 0.5)
        assert [one.key for one in taken] == [one.key for one in envelopes(3)]
        assert receiver.acknowledge(taken) == []


@pytest.mark.parametrize("groups", [("a",), ("a", "b")])
def test_message_is_removed_after_its_last_group(
    shared: NatsServer, groups: tuple[str, ...]
) -> None:
    name = f"removed-{len(groups)}"
    queue = queue_on(shared, name, groups)
    publish(queue, envelopes(10))
    for group in groups:
        assert stored(shared, name) == 10
        with receiving(queue, group) as receiver:
            receiver.acknowledge(take(receiver, 10))
    eventually(lambda: stored(shared, name) == 0, lambda: stored(shared, name))


def test_oldest_age_is_of_the_oldest_message(shared: NatsServer) -> None:
    queue = queue_on(shared, "aged")
    assert queue.backlog()["workers"].oldest_age is None
    publish(queue, envelopes(2))
    age = queue.backlog()["workers"].oldest_age
    assert age is not None
    assert 0.0 <= age < PATIENCE


def test_oversize_message_is_refused_alone(shared: NatsServer) -> None:
    queue = queue_on(shared, "oversize")
    sender = queue.engine.sender()
    good = envelopes(2)
    first, refused, last = sender.put([good[0], Envelope("big", b"x" * 1_048_560, {}), good[1]])
    sender.close()
    assert (first, last) == (None, None)
    assert isinstance(refused, BrokerError)
    assert not isinstance(refused, BrokerUnavailable)
    assert "max_payload" in str(refused)


def test_refused_message_does_not_wait(shared: NatsServer) -> None:
    queue = queue_on(shared, "small")

    async def limit(jetstream: Any) -> None:
        config = (await jetstream.stream_info("small")).config
        await jetstream.update_stream(config.evolve(max_msg_size=500))

    administer(shared, limit)
    sender = queue.engine.sender()
    stored_one, refused = sender.put([envelopes(1)[0], Envelope("big", b"x" * 1000, {})])
    sender.close()
    assert stored_one is None
    assert type(refused) is BrokerError
    assert "message size exceeds" in str(refused)


def test_full_stream_refuses_messages_and_keeps_others(shared: NatsServer) -> None:
    queue = queue_on(shared, "full")

    async def limit(jetstream: Any) -> None:
        config = (await jetstream.stream_info("full")).config
        await jetstream.update_stream(config.evolve(max_msgs=3))

    administer(shared, limit)
    queue.engine.ensure(["workers"])  # a limit that refuses is safe
    sender = queue.engine.sender()
    errors = sender.put(envelopes(5))
    assert errors[:3] == [None] * 3
    assert all(isinstance(error, BrokerUnavailable) for error in errors[3:])
    with receiving(queue) as receiver:
        receiver.acknowledge(take(receiver, 3))
    eventually(lambda: stored(shared, "full") == 0, lambda: stored(shared, "full"))
    assert sender.put(envelopes(5)[3:]) == [None] * 2
    sender.close()


def refusal_of(url: str) -> BrokerError:
    """Return the error of a refused user; the server may cut the connection off before it."""
    refusals: list[BrokerError] = []

    def is_refused() -> list[BrokerError]:
        try:
            brokers.connect(url).engine.ensure()
        except BrokerUnavailable:
            pass
        except BrokerError as error:
            refusals.append(error)
        return refusals

    eventually(is_refused, lambda: "the user is not refused")
    return refusals[0]


def test_password_is_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with nats_server('authorization { user: "me", password: "s3cret" }') as server:
        refused = refusal_of(f"nats://me:wr0ng@127.0.0.1:{server.port}/TWEETS")
        assert "refuses the user or the password" in str(refused)
        queue = brokers.connect(f"nats://me:s3cret@127.0.0.1:{server.port}/TWEETS")
        queue.engine.ensure(["workers"])
        sender = queue.engine.sender()
        assert sender.put(envelopes(1)) == [None]
        server.kill()
        with pytest.raises(BrokerUnavailable) as lost:
            sender.put(envelopes(1, 1))
        with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{server.port}") as down:
            queue.engine.ensure(["workers"])
        sender.close()
    shown = [caplog.text, *map(repr, (queue, queue.engine, sender))]
    shown += [str(error) for error in (refused, lost.value, down.value)]
    assert not any("s3cret" in text or "wr0ng" in text for text in shown)


def test_token_is_a_user_without_a_password() -> None:
    with nats_server('authorization { token: "t0ken" }') as server:
        queue = brokers.connect(f"nats://t0ken@127.0.0.1:{server.port}/TWEETS")
        queue.engine.ensure(["workers"])
        publish(queue, envelopes(1))


def test_other_host_is_used_when_one_is_down(shared: NatsServer) -> None:
    with nats_server() as gone:
        pass
    url = f"nats://127.0.0.1:{gone.port},127.0.0.1:{shared.port}/hosts"
    queue = brokers.connect(url, groups=["workers"])
    for number in range(5):  # their order is random
        queue.engine.ensure(["workers"])
        publish(queue, envelopes(1, number))
    assert stored(shared, "hosts") == 5


def test_call_does_not_wait_for_a_thread_that_connects(
    shared: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_link, "TURN", 0.01)
    sender = queue_on(shared, "busy").engine.sender()
    assert isinstance(sender, _JetStreamSender)
    with sender._link._lock, pytest.raises(BrokerUnavailable, match="still connecting"):
        sender.put(envelopes(1))
    assert sender.put(envelopes(1)) == [None]
    sender.close()


def test_closed_senders_and_receivers_leave_no_thread(shared: NatsServer) -> None:
    queue = queue_on(shared, "threads")
    sender = queue.engine.sender()
    sender.put(envelopes(1))
    with receiving(queue) as receiver:
        receiver.release(take(receiver, 1))
        assert len(connections()) == 2
    sender.close()
    sender.close()
    assert connections() == []
    with pytest.raises(BrokerUnavailable, match="closed"):
        sender.put(envelopes(1))
    assert receiver.take(1, 0.1) == []


def test_ack_after_a_restart_counts(own: NatsServer) -> None:
    queue = queue_on(own, "restarted")
    publish(queue, envelopes(10))
    with receiving(queue) as receiver:
        taken = take(receiver, 10)
        own.kill()
        with pytest.raises(BrokerUnavailable, match=str(own.port)):
            receiver.acknowledge(taken)
        own.start()
        assert receiver.acknowledge(taken) == []
        eventually(lambda: stored(own, "restarted") == 0, lambda: stored(own, "restarted"))


def test_known_key_is_published_once_after_a_restart(own: NatsServer) -> None:
    queue = queue_on(own, "known")
    sender = queue.engine.sender()
    assert sender.put(envelopes(10)) == [None] * 10
    own.kill()
    own.start()
    assert sender.put(envelopes(15)) == [None] * 15
    sender.close()
    assert stored(own, "known") == 15


def positions(server: NatsServer, name: str) -> list[int]:
    async def delivered(jetstream: Any) -> list[int]:
        return [one.delivered.stream_seq for one in await jetstream.consumers_info(name)]

    found: list[int] = administer(server, delivered)
    return found


def lose_messages(server: NatsServer) -> None:
    """Let the sequences of streams begin anew, and keep the positions of groups."""
    server.stop()
    server.lose_messages()
    server.start()


def test_messages_are_delivered_after_the_server_lost_some(
    own: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    queue = queue_on(own, "reset")
    publish(queue, envelopes(10))
    with receiving(queue) as receiver:
        receiver.acknowledge(take(receiver, 10))
    lose_messages(own)
    [position] = positions(own, "reset")
    assert position in (0, 10)  # NATS 2.15 resets it when it starts
    with receiving(queue) as receiver:
        publish(queue, envelopes(5, 10))
        taken = take(receiver, 5)
        assert [one.key for one in taken] == [one.key for one in envelopes(5, 10)]
        assert receiver.acknowledge(taken) == []
    is_logged = "the server has lost messages, and group 'workers'" in caplog.text
    assert is_logged is (position == 10)


class Hammer:
    """Publishes in one thread, and takes and acknowledges in another, until it is told to end."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.confirmed: set[str] = set()
        self.taken: set[str] = set()
        self.errors: list[BaseException] = []
        self.losses = 0
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), daemon=True)
            for work in (self._publish, self._take)
        ]
        for thread in self._threads:
            thread.start()

    def wait_for_more(self) -> None:
        count = len(self.confirmed) + 500
        eventually(lambda: len(self.confirmed) >= count, lambda: self.errors)

    def wait_for_losses(self) -> None:
        losses = self.losses
        eventually(lambda: self.losses > losses, lambda: self.errors)

    def finish(self) -> None:
        """Publish no more, and wait until all that is confirmed is taken."""
        self._ending.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert self.errors == []

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            self.errors.append(error)

    def _publish(self) -> None:
        sender, start = self.queue.engine.sender(), 0
        while not self._ending.is_set():
            batch = envelopes(50, start)
            try:
                errors = sender.put(batch)
            except BrokerUnavailable:
                self.losses += 1
                self._ending.wait(0.05)
                continue
            self.confirmed |= {
                one.key for one, error in zip(batch, errors, strict=True) if error is None
            }
            start += 0 if any(errors) else len(batch)
        sender.close()

    def _take(self) -> None:
        with receiving(self.queue) as receiver:
            while not (self._ending.is_set() and self.confirmed <= self.taken):
                taken: list[Taken] = []
                try:
                    taken = receiver.take(100, 0.2)
                    self.taken |= {one.key for one in taken}
                    receiver.acknowledge(taken)
                except BrokerUnavailable:
                    self.losses += 1
                    self._ending.wait(0.05)


def test_confirmed_messages_survive_crashes(own: NatsServer) -> None:
    hammer = Hammer(queue_on(own, "crashed"))
    for _ in range(3):
        hammer.wait_for_more()
        own.kill()
        hammer.wait_for_losses()
        own.start()
    hammer.wait_for_more()
    hammer.finish()
    assert hammer.confirmed <= hammer.taken
    assert connections() == []


def test_server_that_hangs_is_noticed(own: NatsServer) -> None:
    queue = queue_on(own, "hung")
    publish(queue, envelopes(10))
    sender = queue.engine.sender()
    sender.put(envelopes(1, 10))
    with receiving(queue) as receiver:
        taken = take(receiver, 5)
        own.suspend()
        outcomes: list[object] = []
        calls: list[Callable[[], object]] = [
            lambda: sender.put([Envelope(f"h{n}", b"x" * 20_000, {}) for n in range(400)]),
            lambda: receiver.take(10, 60.0),
            lambda: receiver.acknowledge(taken),
            lambda: receiver.extend(taken),
            queue.backlog,
        ]
        threads = [
            threading.Thread(target=lambda call=call: outcomes.append(outcome(call)), daemon=True)
            for call in calls
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        own.resume()
        assert [type(one) for one in outcomes] == [BrokerUnavailable] * len(calls), outcomes
        assert sender.put(envelopes(1, 11)) == [None]
        assert receiver.acknowledge(taken) == []
    sender.close()
    assert connections() == []


def test_close_ends_a_take_while_the_server_hangs(own: NatsServer) -> None:
    queue = queue_on(own, "hungclose")
    with receiving(queue) as receiver:
        receiver.take(1, 0.01)
        own.suspend()
        ended = threading.Event()

        def wait() -> None:
            receiver.take(1, 60.0)
            ended.set()

        threading.Thread(target=wait, daemon=True).start()
        receiver.close()
        assert ended.wait(PATIENCE)
    own.resume()
    assert connections() == []


def outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except BrokerError as error:
        return error
