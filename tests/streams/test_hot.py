"""Single streams over the simulator: subscriptions, stops, overflow, requests."""

from __future__ import annotations

import copy
import logging
import random
import socket
import threading
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import reactivex
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rxtweets
from rxtweets import Backoff, events, simulator
from rxtweets import operators as ops
from rxtweets._support.workers import start_thread
from rxtweets.display._snapshot import has_ended
from rxtweets.simulator.script import Close, Line, Raw, Serve, Stall

PATIENCE = 20.0
SECRET = "AAAA-very-secret-token"


def when(stream: Any, kind: type[events.Event]) -> threading.Event:
    """Return an event that the first stream event of this kind sets."""
    happened = threading.Event()

    def look(event: events.Event) -> None:
        if isinstance(event, kind):
            happened.set()

    stream.events.subscribe(look)
    return happened


class Collector:
    """Collects messages, and waits for a number of them."""

    def __init__(self) -> None:
        self.messages: list[rxtweets.Message[Any]] = []
        self.changed = threading.Condition()

    def __call__(self, message: rxtweets.Message[Any]) -> None:
        with self.changed:
            self.messages.append(message)
            self.changed.notify_all()

    def wait(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.messages) >= count, PATIENCE)


@pytest.fixture
def x() -> Iterator[simulator.Simulator]:
    with simulator.serve(rate=2000) as server:
        yield server


def stream_of(x: simulator.Simulator, **options: Any) -> Any:
    return rxtweets.sample_stream(**({"token": SECRET, "base_url": x.url} | options))


def test_stream_connects_on_the_first_subscription(x: simulator.Simulator) -> None:
    stream = stream_of(x).pipe(ops.process(lambda message: message), ops.batch(20, 2.0))
    assert x.requests == []
    assert stream.stats().state == "idle"


def test_stream_is_connecting_before_its_reader_runs(
    x: simulator.Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, held = stream_of(x), list[Any]()
    names, got = list[str](), Collector()
    stream.states.subscribe(lambda state: names.append(state.name))
    monkeypatch.setattr("rxtweets.streams._reader.start_thread", lambda *work: held.append(work))
    with stream.subscribe(got):
        state, is_over = stream.state.name, has_ended(stream)
        start_thread(*held.pop())
        got.wait(1)
        stream.telemetry.bus.flush()
    assert (state, is_over) == ("connecting", False)
    assert names[:3] == ["idle", "connecting", "connected"]


def test_stream_is_idle_when_its_reader_cannot_start(
    x: simulator.Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    stream, errors = stream_of(x), list[Exception]()
    monkeypatch.setattr("rxtweets.streams._reader.start_thread", refuse)
    stream.subscribe(on_error=errors.append)
    assert [str(error) for error in errors] == ["can't start new thread"]
    assert stream.state.name == "idle"


def test_subscribers_share_one_connection(x: simulator.Simulator) -> None:
    stream = stream_of(x)
    first, second = Collector(), Collector()
    with stream.subscribe(first):
        first.wait(5)
        with stream.subscribe(second):
            second.wait(50)
        first.wait(len(first.messages) + 5)
    assert len(x.requests) == 1
    shared = {message.id for message in first.messages}
    assert {message.id for message in second.messages} <= shared


def test_connection_ends_with_the_last_subscription(x: simulator.Simulator) -> None:
    stream = stream_of(x)
    ended = when(stream, events.Disconnected)
    first, second = Collector(), Collector()
    one, two = stream.subscribe(first), stream.subscribe(second)
    first.wait(1)
    one.dispose()
    second.wait(len(second.messages) + 20)
    assert not ended.is_set()
    two.dispose()
    assert ended.wait(PATIENCE)


def test_later_subscription_connects_again(x: simulator.Simulator) -> None:
    stream = stream_of(x)
    for number in (1, 2, 3):
        collector = Collector()
        with stream.subscribe(collector):
            collector.wait(5)
        assert len(x.requests) == number
    stats = stream.stats()
    assert (stats.connects, stats.reconnects) == (3, 0)


def test_lines_are_unsubscribed_when_the_last_subscriber_leaves() -> None:
    left = threading.Event()
    with simulator.serve(rate=None) as x:
        stream = stream_of(x, overflow="block", buffer_size=50)
        full = threading.Event()

        def hold(_: rxtweets.Message[Any]) -> None:
            full.set()
            assert left.wait(PATIENCE)

        ended = when(stream, events.Disconnected)
        subscription = stream.subscribe(hold)
        assert full.wait(PATIENCE)
        while stream.stats().queued < 50:
            left.wait(0.001)
        subscription.dispose()
        left.set()
        assert ended.wait(PATIENCE)
    stats = stream.stats()
    assert stats.dropped == 0
    assert stats.unsubscribed >= 50
    assert stats.received == stats.delivered + stats.unsubscribed + stats.control


def test_runs_never_hold_two_connections(x: simulator.Simulator) -> None:
    stream = stream_of(x)
    for _ in range(10):
        collector = Collector()
        with stream.subscribe(collector):
            collector.wait(1)
    assert {request.status for request in x.requests} == {200}


def test_stop_delivers_received_messages_and_completes(x: simulator.Simulator) -> None:
    stream = stream_of(x)
    collector, completed = Collector(), threading.Event()
    stream.subscribe(collector, on_completed=completed.set)
    collector.wait(20)
    stream.stop()
    assert completed.wait(PATIENCE)
    stats = stream.stats()
    assert stats.delivered == len(collector.messages)
    assert stats.received == stats.delivered + stats.control + stats.undecodable
    assert stats.dropped == 0


def test_stock_operators_apply(x: simulator.Simulator) -> None:
    got: list[str] = []
    done = threading.Event()
    stream_of(x).filter(lambda message: message.metadata["lang"] == "ja").map(
        lambda message: message.data
    ).take(3).subscribe(got.append, on_completed=done.set)
    assert done.wait(PATIENCE)
    assert len(got) == 3


def test_take_closes_the_connection(x: simulator.Simulator) -> None:
    stream = stream_of(x)
    ended = when(stream, events.Disconnected)
    stream.take(3).subscribe()
    assert ended.wait(PATIENCE)


def test_subscriber_can_dispose_in_its_own_call(x: simulator.Simulator) -> None:
    stream = stream_of(x)
    got: list[object] = []
    left = threading.Event()
    holder: list[reactivex.abc.DisposableBase] = []
    subscribed = threading.Event()

    def take(message: object) -> None:
        subscribed.wait(PATIENCE)
        got.append(message)
        holder[0].dispose()
        left.set()

    holder.append(stream.subscribe(take))
    subscribed.set()
    assert left.wait(PATIENCE)
    assert len(got) == 1


def test_raising_subscriber_does_not_affect_others(x: simulator.Simulator) -> None:
    stream = stream_of(x)
    good, seen = Collector(), threading.Event()
    calls = 0

    def bad(_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            seen.set()
        raise ValueError("no")

    with stream.subscribe(bad), stream.subscribe(good):
        assert seen.wait(PATIENCE)
        good.wait(5)
    assert stream.stats().subscriber_errors >= 5


@pytest.mark.parametrize("situation", ["reading", "connecting", "waiting to reconnect"])
@pytest.mark.parametrize("http", [{"http2": False}, {"http1": False}], ids=["HTTP/1.1", "HTTP/2"])
def test_dispose_ends_every_wait(situation: str, http: dict[str, bool]) -> None:
    """Without the disposal, the reader would end after hours."""
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        simulator.serve(rate=0, script=[Close()] if "waiting" in situation else []) as x,
    ):
        url = f"http://127.0.0.1:{mute.getsockname()[1]}" if situation == "connecting" else x.url
        hours = Backoff(scale=1e6)
        stream = stream_of(
            x, base_url=url, stall_timeout=7200, connect_timeout=7200, backoff=hours, **http
        )
        reached = {
            "reading": events.Connected,
            "connecting": events.Connecting,
            "waiting to reconnect": events.Reconnecting,
        }
        there = when(stream, reached[situation])
        subscription = stream.subscribe()
        assert there.wait(PATIENCE)
        subscription.dispose()
        for thread in threading.enumerate():
            if thread.name == "rxtweets-reader":
                thread.join(PATIENCE)
                assert not thread.is_alive()


def test_blocking_subscriber_does_not_stop_the_reader() -> None:
    with simulator.serve(rate=None) as x:
        stream = stream_of(x, buffer_size=100)
        began, go = when(stream, events.OverflowStarted), threading.Event()
        with stream.subscribe(lambda _: go.wait(PATIENCE)):
            assert began.wait(PATIENCE)
            read = stream.stats().received
            while stream.stats().received < read + 5000:
                threading.Event().wait(0.01)
            go.set()
        assert stream.stats().dropped > 1000


def test_overflow_is_reported_once_with_its_count() -> None:
    burst = [Serve(1), Stall(0.3), Serve(500), Stall()]
    with simulator.serve(rate=None, script=[burst]) as x:
        stream = stream_of(x, buffer_size=50)
        seen: list[events.Event] = []
        ended = threading.Event()

        def note(event: events.Event) -> None:
            if isinstance(event, (events.OverflowStarted, events.OverflowEnded)):
                seen.append(event)
            if isinstance(event, events.OverflowEnded):
                ended.set()

        stream.events.subscribe(note)
        go = threading.Event()

        with stream.subscribe(lambda _: go.wait(PATIENCE)):
            while stream.stats().received < 501:
                threading.Event().wait(0.01)
            go.set()
            assert ended.wait(PATIENCE)
        assert [type(event) for event in seen] == [events.OverflowStarted, events.OverflowEnded]
        assert isinstance(seen[1], events.OverflowEnded)
        assert seen[1].dropped == stream.stats().dropped > 0


ODD = [
    b'{"data":{"id":"%d","text":"fine"}}',
    b'{"data":{"id":%d,"text":"\xe2\x98\x95"},"matching_rules":[{"id":1,"tag":null}]}',
    b'{"data":{"id":"%d"',
    b'{"data":{"id":"%d","text":"\xff"}}',
    b'{"errors":[{"title":"x","n":%d}]}',
    b"[%d]",
]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kinds=st.lists(st.sampled_from([*ODD, b""]), max_size=120),
    seed=st.integers(0, 2**32),
    policy=st.sampled_from(["drop_oldest", "drop_newest", "block"]),
    buffer_size=st.sampled_from([1, 7, 10_000]),
    http1=st.booleans(),
    compress=st.booleans(),
    tail=st.sampled_from([b"", b'{"data":', ODD[0] % 1]),
)
def test_counters_of_lines_add_up(
    kinds: list[bytes],
    seed: int,
    policy: str,
    buffer_size: int,
    http1: bool,
    compress: bool,
    tail: bytes,
) -> None:
    rng = random.Random(seed)
    lines = [kind % number if b"%d" in kind else kind for number, kind in enumerate(kinds)]

    def at_random(data: bytes) -> Iterator[bytes]:
        while data:
            size = rng.choice((1, 2, 3, 50, 1000))
            yield data[:size]
            data = data[size:]

    script = [[*map(Line, lines), Raw(tail), Close()]]
    with simulator.serve(rate=0, script=script, chunking=at_random) as x:
        stream = stream_of(
            x,
            overflow=policy,
            buffer_size=buffer_size,
            http1=http1,
            compress=compress,
            backoff=Backoff(scale=1e6),
        )
        over = when(stream, events.Disconnected)
        collector, completed = Collector(), threading.Event()
        stream.subscribe(collector, on_completed=completed.set)
        assert over.wait(PATIENCE)
        stream.stop()
        assert completed.wait(PATIENCE)
    stats = stream.stats()
    sent = len(lines) + bool(tail)
    assert stats.received == sent
    assert stats.received == stats.delivered + stats.dropped + stats.undecodable + stats.control
    assert stats.delivered == len(collector.messages)
    assert stats.keep_alives == lines.count(b"")
    if policy == "block" or buffer_size > len(lines):
        good = [line for line in [*lines, tail] if is_tweet(line)]
        assert sorted(message.raw for message in collector.messages) == sorted(good)
        assert stats.dropped == 0


def is_tweet(line: bytes) -> bool:
    try:
        return "text" in orjson.loads(line)["data"]
    except (ValueError, KeyError, TypeError):
        return False


# Requests.


def test_request_follows_the_options(x: simulator.Simulator) -> None:
    stream = stream_of(x, tweet_fields=("lang",), expansions=(), backfill_minutes=2)
    collector = Collector()
    with stream.subscribe(collector):
        collector.wait(1)
    [request] = x.requests
    assert (request.method, request.path) == ("GET", "/2/tweets/sample/stream")
    assert request.query == {"tweet.fields": "lang", "backfill_minutes": "2"}
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    assert request.headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize("http", [{"http2": False}, {"http1": False}], ids=["HTTP/1.1", "HTTP/2"])
def test_token_is_in_no_output(http: dict[str, bool], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    with simulator.serve(rate=None, script=[[Serve(1), Close()]], token="another-token") as x:
        stream = stream_of(x, **http)
        failed = threading.Event()
        errors: list[Exception] = []

        def fail(error: Exception) -> None:
            errors.append(error)
            failed.set()

        stream.events.subscribe(lambda event: said.append(repr(event)))
        stream.subscribe(on_error=fail)
        assert failed.wait(PATIENCE)
        said += [repr(stream), str(vars(stream)), repr(errors), str(x.requests), caplog.text]
    assert isinstance(errors[0], rxtweets.errors.AuthenticationError)
    assert SECRET not in "".join(said)


def test_proxy_of_the_environment_is_used(
    x: simulator.Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "")
        subscription = stream_of(x, base_url="http://stream.example").subscribe()
        connection, _ = proxy.accept()
        with connection:
            asked.append(connection.recv(4096))
        subscription.dispose()
    assert asked[0].startswith(b"GET http://stream.example/2/tweets/sample/stream")


def test_messages_can_be_copied(x: simulator.Simulator) -> None:
    collector = Collector()
    with stream_of(x).subscribe(collector):
        collector.wait(1)
    message = collector.messages[0]
    again = copy.deepcopy(message)
    assert (again.id, again.data, again.metadata) == (message.id, message.data, message.metadata)


def test_lag_is_known(x: simulator.Simulator) -> None:
    collector = Collector()
    stream = stream_of(x)
    with stream.subscribe(collector):
        collector.wait(1)
    message = collector.messages[0]
    assert message.lag is not None
    assert message.created_at is not None
    assert stream.stats().lag is not None


def test_reader_thread_runs_no_user_code(x: simulator.Simulator) -> None:
    names: set[str] = set()

    def note(value: Any) -> Any:
        names.add(threading.current_thread().name)
        return value

    stream = stream_of(x)
    stream.events.subscribe(note)
    collector = Collector()
    batches = stream.map(note).pipe(ops.process(note), ops.batch(5, 1.0))
    with batches.subscribe(lambda batch: [note(collector)(message) for message in batch]):
        collector.wait(200)
    assert names
    assert "rxtweets-reader" not in names
