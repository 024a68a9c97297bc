"""What is special about the engine on Redis: settings, memory, restarts, its keys."""

from __future__ import annotations

import itertools
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme

from rxtweets import brokers
from rxtweets.brokers import Backlog, Envelope, Queue, Receiver, Sender, Taken
from rxtweets.errors import (
    BrokerError,
    BrokerUnavailable,
    ConfigurationError,
    QueueSettingsError,
)
from tests.brokers.engine_contract import envelopes, publish, receiving, take
from tests.brokers.engines import absent
from tests.brokers.redis_server import RedisServer, is_installed, redis_server
from tests.brokers.waiting import eventually

PATIENCE = 40.0
PASSWORD = "hush-7Kq"


@pytest.fixture(autouse=True)
def _server_is_installed() -> None:
    if not is_installed():
        absent("redis-server is not installed")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@contextmanager
def connected(url: str, *groups: str) -> Iterator[Queue]:
    queue = brokers.connect(url, groups=groups)
    try:
        yield queue
    finally:
        queue.close()


@contextmanager
def ready(url: str, *groups: str) -> Iterator[Queue]:
    with connected(url, *groups) as queue:
        queue.engine.ensure(groups or ("workers",))
        yield queue


def put(queue: Queue, items: Sequence[Envelope]) -> list[Exception | None]:
    sender = queue.engine.sender()
    try:
        return sender.put(items)
    finally:
        sender.close()


def drained(receiver: Receiver) -> list[Taken]:
    """Take and acknowledge until there is no message."""
    found: list[Taken] = []
    while taken := receiver.take(100, 0.1):
        found += taken
        assert receiver.acknowledge(taken) == []
    return found


def take_all(queue: Queue) -> list[Taken]:
    """Take and acknowledge until nothing waits and nothing is leased."""
    found: list[Taken] = []
    with receiving(queue) as receiver:

        def is_done() -> bool:
            found.extend(drained(receiver))
            return is_empty(queue)

        eventually(is_done, queue.backlog)
    return found


def is_empty(queue: Queue) -> bool:
    return queue.backlog()["workers"] == Backlog(0, 0)


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


# The address.


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://h/q?db=first", "db='first'"),
        ("redis://h/q?dedupe=-1", "dedupe='-1'"),
        ("redis://h/q?unsafe=yes", "unsafe='yes'"),
        ("redis://h/q?replicas=3", "'replicas'"),
        ("redis://h,i/q", "one host"),
        ("redis://h/%7Bq%7D", "braces"),
    ],
)
def test_address_is_refused_when_an_option_is_invalid(url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        brokers.connect(url)


def test_missing_client_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match=r"rxtweets\[redis\]"):
        brokers.connect("redis://127.0.0.1/q")


def test_databases_are_apart(server: RedisServer) -> None:
    with ready(server.url("q", "?db=1")) as first, ready(server.url("q", "?db=2")) as second:
        publish(first, envelopes(3))
        assert first.backlog()["workers"].pending == 3
        assert second.backlog()["workers"].pending == 0


def test_password_is_used_and_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with redis_server(password="right") as server:
        right, wrong = server.url("q"), server.url("q").replace("right", PASSWORD)
        with ready(right) as queue:
            publish(queue, envelopes(1))
        with connected(wrong) as queue, pytest.raises(BrokerError) as refused:
            queue.engine.ensure()
        assert not isinstance(refused.value, BrokerUnavailable)
        server.kill()
        with connected(wrong) as queue, pytest.raises(BrokerUnavailable) as unavailable:
            queue.engine.ensure()
    assert f"127.0.0.1:{server.port}" in str(refused.value)
    assert f"127.0.0.1:{server.port}" in str(unavailable.value)
    shown = [queue, queue.engine, queue.dead_letters, refused.value, unavailable.value, caplog.text]
    assert not [one for one in shown if PASSWORD in f"{one!r} {one}"]


def test_tls_server_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    pair, root = tmp_path / "pair.pem", tmp_path / "root.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(pair)
    authority.cert_pem.write_to_path(root)
    tls = ["--tls-cert-file", pair, "--tls-key-file", pair, "--tls-ca-cert-file", root]
    port = RedisServer(tmp_path, (), "").port
    tls += ["--tls-port", port, "--tls-auth-clients", "no", "--appendonly", "yes"]
    with redis_server(*map(str, tls)):
        url = f"rediss://127.0.0.1:{port}/q"
        with connected(url) as queue, pytest.raises(BrokerUnavailable, match="certificate"):
            queue.engine.ensure()
        monkeypatch.setenv("SSL_CERT_FILE", str(root))
        with ready(url) as queue:
            publish(queue, envelopes(2))
            with receiving(queue) as receiver:
                receiver.acknowledge(take(receiver, 2))


# Settings that can lose messages.


def test_evicting_policy_is_refused_unless_unsafe() -> None:
    with redis_server("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as server:
        with (
            connected(server.url("q")) as queue,
            pytest.raises(QueueSettingsError, match="maxmemory-policy=allkeys-lru"),
        ):
            queue.engine.ensure()
        with ready(server.url("q", "?unsafe=1")) as queue:
            publish(queue, envelopes(1))
        server.client().config_set("maxmemory-policy", "volatile-lru")
        with ready(server.url("q")) as queue:
            publish(queue, envelopes(1))


def test_missing_persistence_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with redis_server("--appendonly", "no") as server, ready(server.url("q")) as queue:
        queue.engine.ensure()
        assert len(queue.dead_letters) == 0
    [record] = caplog.records
    assert "appendonly=no" in record.getMessage()


def test_persistent_server_logs_nothing(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with ready(server.url("q")):
        pass
    assert not caplog.records


def test_key_of_another_type_is_refused(server: RedisServer) -> None:
    with server.client() as client:
        client.rpush("q", "item")
    with connected(server.url("q")) as queue:
        with pytest.raises(QueueSettingsError, match="'q' is of type list"):
            queue.engine.ensure(["workers"])
        [error] = put(queue, envelopes(1))
        assert type(error) is BrokerError


# Storage.


def test_message_is_deleted_when_all_groups_have_it(server: RedisServer) -> None:
    with ready(server.url("q"), "a", "b") as queue, server.client() as client:
        publish(queue, envelopes(30))
        with receiving(queue, group="a") as first, receiving(queue, group="b") as second:
            for_a = take(first, 30)
            first.acknowledge(for_a[::2])
            assert client.xlen("q") == 30
            second.acknowledge(take(second, 30)[::-1])
            assert client.xlen("q") == 15
            backlog = queue.backlog()
            assert (backlog["a"].pending, backlog["a"].in_flight) == (0, 15)
            assert backlog["b"] == Backlog(0, 0)
            first.acknowledge(for_a[1::2])
        assert client.xlen("q") == 0
        assert client.keys("*due*") == []


def test_any_number_is_settled_at_once_in_any_order(server: RedisServer) -> None:
    sent = 8100  # a script passes 7,999 values to a command
    with ready(server.url("q"), "workers") as queue, receiving(queue) as receiver:
        publish(queue, envelopes(sent))
        taken: list[Taken] = []
        while len(taken) < sent:
            taken += receiver.take(sent, 0.1)
        taken.sort(key=lambda one: one.key)
        assert receiver.extend(taken) == []
        assert receiver.acknowledge(taken) == []
        assert receiver.acknowledge(taken[:3]) == taken[:3]
        assert is_empty(queue)


def test_messages_of_a_destroyed_group_alone_are_deleted(server: RedisServer) -> None:
    url = server.url("q")
    with ready(url, "a", "b", "gone") as queue, server.client() as client:
        publish(queue, envelopes(30))
        with receiving(queue, group="a") as first, receiving(queue, group="b") as second:
            first.acknowledge(take(first, 30))
            waiting = take(second, 20)
            second.acknowledge(waiting[:10])
            client.xgroup_destroy("q", "gone")
            with ready(url, "a", "b") as other:
                assert client.xlen("q") == 20
                assert other.backlog()["b"].in_flight == 10
            second.acknowledge([*waiting[10:], *take(second, 10)])
            client.xgroup_destroy("q", "b")
            with ready(url, "a") as other:
                assert other.backlog() == {"a": Backlog(0, 0)}


def test_backlog_counts_delayed_messages_as_pending(server: RedisServer) -> None:
    with ready(server.url("q")) as queue, receiving(queue) as receiver:
        publish(queue, envelopes(5))
        taken = take(receiver, 3)
        receiver.retry(taken[:2], 600.0)
        backlog = queue.backlog()["workers"]
        assert (backlog.pending, backlog.in_flight) == (4, 1)
        assert backlog.oldest_age is not None


def test_keys_are_known_for_the_window(server: RedisServer) -> None:
    with ready(server.url("q", "?dedupe=77")) as queue, server.client() as client:
        publish(queue, envelopes(2))
        ends = [client.ttl(key) for key in client.keys("*:key:*")]
        assert len(ends) == 2
        assert all(0 < end <= 77 for end in ends)
        with connected(server.url("q", "?dedupe=0")) as other:
            publish(other, envelopes(2))
        assert client.xlen("q") == 4


def test_message_of_another_program_has_no_key(server: RedisServer) -> None:
    with ready(server.url("q")) as queue, server.client() as client:
        client.xadd("q", {"body": "text", "lang": "en"})
        client.xadd("q", {"other": "text"})
        with receiving(queue) as receiver:
            first, second = take(receiver, 2)
    assert (first.key, first.body, first.headers) == ("", b"text", {"lang": "en"})
    assert (second.key, second.body, second.headers) == ("", b"", {"other": "text"})


def test_closed_receiver_leaves_no_consumer(server: RedisServer) -> None:
    with ready(server.url("q")) as queue, server.client() as client:
        publish(queue, envelopes(3))
        with receiving(queue) as receiver:
            stale = take(receiver, 3)
            [name] = [consumer["name"] for consumer in client.xinfo_consumers("q", "workers")]
        names = [consumer["name"] for consumer in client.xinfo_consumers("q", "workers")]
        assert name not in names
        assert receiver.acknowledge(stale) == stale
        with receiving(queue) as receiver:
            taken = take(receiver, 3)
            assert [one.attempt for one in taken] == [2, 2, 2]
            receiver.acknowledge(taken)


def test_full_memory_refuses_to_publish_and_is_emptied() -> None:
    with (
        redis_server("--maxmemory", "6mb", "--appendonly", "yes") as server,
        ready(server.url("q")) as queue,
        server.client() as client,
    ):
        stored: set[str] = set()
        batches = ([Envelope(f"{n}-{i}", b"x" * 5000, {}) for i in range(50)] for n in range(100))
        for refused in batches:
            errors = put(queue, refused)
            stored |= {one.key for one, error in zip(refused, errors, strict=True) if not error}
            if any(errors):
                break
        assert {type(error) for error in errors} - {type(None)} == {BrokerUnavailable}
        with receiving(queue) as receiver:
            first, *rest = take(receiver, 100)
            assert receiver.retry([first], 0.0) == []
            assert receiver.extend(rest) == []
            assert receiver.acknowledge(rest) == []
            found = drained(receiver)
            eventually(lambda: put(queue, refused) == [None] * 50, lambda: "refused")
            found += drained(receiver)
        assert {one.key for one in [first, *rest, *found]} == stored | {one.key for one in refused}
        assert client.xlen("q") == 0


# Losses.


class Traffic:
    """Publishes and takes in two threads until it is stopped."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.stored: list[str] = []
        self.taken: list[Taken] = []
        self._stopped = threading.Event()
        self._threads = [in_thread(self._publish), in_thread(self._take)]

    def counts(self) -> tuple[int, int]:
        return len(self.stored), len(self.taken)

    def wait_for_more(self) -> None:
        stored, taken = self.counts()
        eventually(
            lambda: len(self.stored) >= stored + 200 and len(self.taken) >= taken + 200, self.counts
        )

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def _publish(self) -> None:
        sender = self.queue.engine.sender()
        for start in itertools.count(0, 20):
            if self._stopped.is_set():
                break
            self._publish_all(sender, envelopes(20, start))
        sender.close()

    def _publish_all(self, sender: Sender, batch: list[Envelope]) -> None:
        """Send again under the same keys until all is confirmed."""
        while batch:
            pairs = list(zip(batch, sender.put(batch), strict=True))
            self.stored += [one.key for one, error in pairs if error is None]
            batch = [one for one, error in pairs if error is not None]

    def _take(self) -> None:
        with receiving(self.queue, lease=2.0) as receiver:
            while not self._stopped.is_set():
                with suppress(BrokerUnavailable):
                    some = receiver.take(50, 0.2)
                    self.taken += some
                    receiver.acknowledge(some)


def test_confirmed_messages_survive_kills(server: RedisServer) -> None:
    with ready(server.url("q")) as queue, server.client() as client:
        traffic = Traffic(queue)
        for _ in range(3):
            traffic.wait_for_more()
            server.kill()
            server.start()
        traffic.stop()
        taken = traffic.taken
        taken += take_all(queue)
        assert client.xlen("q") == 0
    assert {one.key for one in taken} >= set(traffic.stored)
    # Each key was stored once, although some batches were sent twice.
    assert len({one.native_id for one in taken}) == len({one.key for one in taken})


def test_message_is_settled_after_a_kill(server: RedisServer) -> None:
    with ready(server.url("q")) as queue, receiving(queue) as receiver:
        publish(queue, envelopes(4))
        taken = take(receiver, 4)
        server.kill()
        with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{server.port}"):
            receiver.acknowledge(taken)
        receiver.release(taken)  # raises nothing
        server.start()
        assert receiver.acknowledge(taken[:2]) == []
        assert receiver.acknowledge(taken[:2]) == taken[:2]
        assert receiver.retry(taken[2:], 0.0) == []
        assert [one.attempt for one in drained(receiver)] == [2, 2]


def test_stopped_server_is_noticed(server: RedisServer) -> None:
    errors: list[BrokerUnavailable] = []

    def noticed(function: Callable[[], object]) -> None:
        try:
            outcome = function()
        except BrokerUnavailable as error:
            outcome = [error]
        errors.extend(one for one in outcome if isinstance(one, BrokerUnavailable))  # type: ignore[attr-defined]

    with ready(server.url("q")) as queue, receiving(queue, lease=2.0) as receiver:
        publish(queue, envelopes(1))
        taken = take(receiver, 1)
        server.suspend()
        calls: list[Callable[[], object]] = [
            lambda: put(queue, envelopes(1, 1)),
            lambda: receiver.take(1, 60.0),
            lambda: receiver.acknowledge(taken),
            queue.backlog,
        ]
        threads = [in_thread(lambda call=call: noticed(call)) for call in calls]  # type: ignore[misc]
        for thread in threads:
            thread.join(PATIENCE)
        server.resume()
        assert len(errors) == len(calls)
        publish(queue, envelopes(2))
        keys: set[str] = set()

        def all_came() -> bool:
            keys.update(one.key for one in drained(receiver))
            return "key1" in keys and is_empty(queue)

        eventually(all_came, queue.backlog)


def test_lost_queue_is_created_again_with_its_groups(caplog: pytest.LogCaptureFixture) -> None:
    with (
        redis_server("--appendonly", "no") as server,
        ready(server.url("q"), "a", "b") as queue,
        receiving(queue, group="a") as first,
        receiving(queue, group="b") as second,
    ):
        publish(queue, envelopes(2))
        lost = take(first, 2)
        server.kill()
        server.start()
        with suppress(BrokerUnavailable):
            assert first.acknowledge(lost) == lost
        assert first.take(1, 0.1) == []
        publish(queue, envelopes(3))
        assert len(drained(first)) == 3
        assert len(drained(second)) == 3
        server.kill()
        server.start()
        publish(queue, envelopes(4))
        with connected(server.url("q")) as other, receiving(other, group="a") as stranger:
            assert len(drained(stranger)) == 4  # it does not know of the other group
        assert len(drained(second)) == 4
    assert "created again" in caplog.text
