from __future__ import annotations

import asyncio
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import reactivex
from reactivex import operators as stock
from reactivex.internal.exceptions import SequenceContainsNoElementsError
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

import rxtweets
from rxtweets import events
from rxtweets import operators as ops
from rxtweets._core.observable import MessageStream, new_telemetry
from rxtweets.testing import DummySource, RecordingAcknowledger

PATIENCE = 20.0


def stream_of(*texts: str) -> MessageStream[Any]:
    """A cold stream of messages."""
    messages = [rxtweets.Message(text) for text in texts]

    def subscribe(observer: Any, _scheduler: Any) -> reactivex.abc.DisposableBase:
        observer.on_next(messages)
        observer.on_completed()
        return reactivex.disposable.Disposable()

    return MessageStream(subscribe, new_telemetry())


def picky(message: rxtweets.Message[str]) -> rxtweets.Message[str]:
    if message.data == "bad":
        raise ValueError(message.data)
    return message


def test_counters_and_events_reach_through_stock_operators() -> None:
    stream = stream_of("good", "bad", "good", "good")
    failed = threading.Event()

    def look(event: events.Event) -> None:
        if isinstance(event, events.HandlerFailed):
            failed.set()

    stream.events.subscribe(look)
    kept = stream.take(3).filter(bool).pipe(ops.process(picky)).to_list().run()
    assert len(kept) == 2
    assert stream.stats().failed == 1
    assert failed.wait(10)


def test_counters_reach_through_stock_operators_in_pipe() -> None:
    stream = stream_of("good", "bad")
    stream.pipe(stock.map(lambda message: message), ops.process(picky), stock.to_list()).run()
    assert stream.stats().processed == 1


def test_stock_operators_keep_the_stats() -> None:
    lengths: Any = stream_of("a", "bb").map(lambda message: len(message.data))
    assert lengths.to_list().run() == [1, 2]
    assert lengths.stats().state == "idle"


def test_subscriber_that_raises_gets_the_next_items() -> None:
    stream = stream_of("a", "b", "c")
    got = []

    def raising(text: str) -> None:
        got.append(text)
        raise ValueError(text)

    stream.map(lambda message: message.data).subscribe(raising)
    assert got == ["a", "b", "c"]
    assert stream.stats().subscriber_errors == 3


@pytest.mark.parametrize("share", [ops.share, stock.share], ids=["ours", "RxPY's"])
def test_shared_batch_fails_when_one_subscriber_raises(share: Any) -> None:
    acks = RecordingAcknowledger()
    got: list[Any] = []
    message = rxtweets.Message("a").with_acknowledger(acks)

    def raising(_: Any) -> None:
        raise OSError("full")

    together: Subject[Any] = Subject()
    shared: Any = together.pipe(ops.batch(1), share())
    shared.subscribe(raising)
    shared.subscribe(got.append)
    shared.subscribe(raising)
    together.on_next(message)
    together.on_completed()
    assert [len(batch) for batch in got] == [1]
    assert data_of(acks.failed) == ["a"]
    stats = shared.stats()
    assert (stats.batches, stats.batches_failed, stats.subscriber_errors) == (0, 1, 2)


def test_subscribe_refuses_the_class_of_an_observer() -> None:
    with pytest.raises(rxtweets.ConfigurationError, match=r"give an instance, Subscriber\("):
        stream_of("a").subscribe(rxtweets.Subscriber)  # type: ignore[arg-type]  # the tested error


def test_value_that_is_no_message_is_reported() -> None:
    stream, over = stream_of("a", "b"), threading.Event()
    texts: Any = stream.map(lambda message: message.data)
    texts.pipe(ops.process(picky)).subscribe(on_completed=over.set)
    assert over.wait(10)
    assert stream.stats().subscriber_errors == 2
    assert stream.telemetry.bus.flush()
    assert "a str came where a Message was expected" in str(stream.errors[-1])


def test_await_returns_the_last_item() -> None:
    async def last() -> Any:
        slow = rxtweets.from_iterable("abc").map(lambda message: message.data)
        return await asyncio.wait_for(slow, 10)

    assert asyncio.run(last()) == "c"


def test_await_raises_without_an_item() -> None:
    async def last() -> Any:
        return await rxtweets.from_iterable("")

    with pytest.raises(SequenceContainsNoElementsError):
        asyncio.run(last())


def test_error_of_a_stock_operator_is_passed_to_on_error() -> None:
    errors: list[Exception] = []
    stream_of("a").map(lambda message: {}[message.data]).subscribe(on_error=errors.append)
    assert isinstance(errors[0], KeyError)


def test_publish_is_connectable() -> None:
    shared: Any = stream_of("a").publish()
    got: list[Any] = []
    shared.subscribe(got.append)
    shared.connect()
    assert len(got) == 1


def test_publish_delivers_to_others_when_an_observer_raises() -> None:
    stream, got = stream_of("a"), list[Any]()
    shared: Any = stream.publish()
    shared.subscribe(lambda message: {}[message])
    shared.subscribe(got.append)
    shared.connect()
    assert [message.data for message in got] == ["a"]
    assert stream.stats().subscriber_errors == 1


def test_virtual_time_passes_through_stock_operators() -> None:
    scheduler = TestScheduler()
    batches: list[Any] = []
    delayed = stream_of("a", "b").delay(5.0).pipe(ops.batch(2, 1.0))
    delayed.subscribe(lambda batch: batches.append((scheduler.clock, batch)), scheduler=scheduler)
    scheduler.start()
    assert [(clock, len(batch)) for clock, batch in batches] == [(5.0, 2)]


class Hot:
    """A hot source that emits on demand and counts its subscriptions."""

    def __init__(self) -> None:
        self.observers: list[Any] = []
        self.begun = 0
        self.stream: MessageStream[Any] = MessageStream(self._subscribe, new_telemetry())

    def _subscribe(self, observer: Any, _: Any) -> reactivex.abc.DisposableBase:
        self.begun += 1
        self.observers.append(observer)
        return reactivex.disposable.Disposable(lambda: self.observers.remove(observer))

    def give(self, *texts: str) -> None:
        for observer in tuple(self.observers):
            observer.on_next([rxtweets.Message(text) for text in texts])


def data_of(found: list[Any]) -> list[Any]:
    return [message.data for message in found]


def test_share_subscribes_once_and_disposes_with_the_last() -> None:
    hot, one, two = Hot(), list[Any](), list[Any]()
    shared = hot.stream.pipe(ops.share())
    first, second = shared.subscribe(one.append), shared.subscribe(two.append)
    hot.give("a", "b")
    first.dispose()
    hot.give("c")
    assert (hot.begun, len(hot.observers)) == (1, 1)
    second.dispose()
    assert hot.observers == []
    assert (data_of(one), data_of(two)) == (["a", "b"], ["a", "b", "c"])


def test_share_subscribes_again_after_the_last_disposed() -> None:
    hot, got = Hot(), list[Any]()
    shared = hot.stream.share()
    for text in ("a", "b"):
        with shared.subscribe(got.append):
            hot.give(text)
    assert hot.begun == 2
    assert data_of(got) == ["a", "b"]


@pytest.mark.parametrize("end", ["on_completed", "on_error"])
def test_share_subscribes_again_after_the_end(end: str) -> None:
    hot, got, ends = Hot(), list[Any](), list[Any]()
    shared = hot.stream.share()
    shared.subscribe(got.append, lambda error: ends.append(str(error)), lambda: ends.append("over"))
    getattr(hot.observers[0], end)(*([ValueError("no")] if end == "on_error" else []))
    assert ends == ["no" if end == "on_error" else "over"]
    shared.subscribe(got.append)
    hot.give("again")
    assert data_of(got) == ["again"]


def test_share_subscribes_again_after_subscribe_raised() -> None:
    hot, got, errors = Hot(), list[Any](), list[str]()

    def subscribe(observer: Any, scheduler: Any) -> Any:
        if not errors:
            raise RuntimeError("can't start new thread")
        return hot.stream.subscribe_chunks(observer, scheduler)

    shared = MessageStream[Any](subscribe, hot.stream.telemetry).share()
    shared.subscribe(on_error=lambda error: errors.append(str(error)))
    shared.subscribe(got.append)
    hot.give("a")
    assert errors == ["can't start new thread"]
    assert data_of(got) == ["a"]


def test_share_passes_lists_to_operators() -> None:
    hot, chunks = Hot(), list[Any]()
    shared: Any = hot.stream.pipe(ops.share())
    shared.subscribe_chunks(reactivex.Observer(chunks.append))
    hot.give("a", "b")
    assert [data_of(chunk) for chunk in chunks] == [["a", "b"]]


def test_share_accepts_any_observable() -> None:
    numbers: Subject[int] = Subject()
    one, two = list[int](), list[int]()
    shared = numbers.pipe(ops.share())
    shared.subscribe(one.append)
    shared.take(1).subscribe(two.append)
    numbers.on_next(1)
    numbers.on_next(2)
    assert (one, two) == ([1, 2], [1])


def test_share_delivers_to_others_when_a_subscriber_raises() -> None:
    hot, got = Hot(), list[Any]()
    shared = hot.stream.map(lambda message: message.data).share()

    def raising(_: Any) -> None:
        raise ValueError("no")

    shared.subscribe(raising)
    shared.subscribe(got.append)
    hot.give("a", "b")
    assert got == ["a", "b"]


class Pulled:
    """An observer with a fixed demand."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted

    def demand(self, most: int) -> int:
        return min(most, self.wanted)

    def on_next(self, _: Any) -> None:
        """Take it."""

    on_error = on_completed = on_next


def test_share_requests_the_least_demand() -> None:
    hot = Hot()
    shared: Any = hot.stream.share()
    shared.subscribe_chunks(Pulled(5))
    shared.subscribe_chunks(Pulled(3))
    assert hot.observers[0].demand(10) == 3


@pytest.fixture
def _threads_switch_all_the_time() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Ticking:
    """A hot source: each subscription has a thread that emits messages until it is disposed."""

    def __init__(self) -> None:
        self.running = 0
        self._lock = threading.Lock()
        self.stream: MessageStream[Any] = MessageStream(self._subscribe, new_telemetry())

    def _subscribe(self, observer: Any, _: Any) -> reactivex.abc.DisposableBase:
        over = threading.Event()

        def give() -> None:
            while not over.wait(0.0001):
                observer.on_next([rxtweets.Message("a"), rxtweets.Message("b")])
            with self._lock:
                self.running -= 1

        with self._lock:
            self.running += 1
        threading.Thread(target=give, daemon=True).start()
        return reactivex.disposable.Disposable(over.set)


@pytest.mark.usefixtures("_threads_switch_all_the_time")
@pytest.mark.parametrize("kind", ["messages", "items"])
def test_share_delivers_to_subscribers_that_come_as_others_leave(kind: str) -> None:
    ticking = Ticking()
    source: Any = ticking.stream
    shared = (source if kind == "messages" else source.map(lambda message: message)).share()
    silent: list[int] = []

    def come_and_leave(number: int) -> None:
        for turn in range(30):
            done = threading.Event()
            subscription = shared.take(1 + turn % 3).subscribe(on_completed=done.set)
            if not done.wait(PATIENCE):
                silent.append(number)
                return
            subscription.dispose()

    threads = [threading.Thread(target=come_and_leave, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert silent == []
    while ticking.running:
        threading.Event().wait(0.001)


def test_messages_after_a_disposal_are_counted() -> None:
    hot, got = Hot(), list[Any]()
    hot.stream.take(1).subscribe(got.append)
    hot.give("a", "b", "c")
    assert data_of(got) == ["a"]
    assert hot.stream.stats().abandoned == 2


@pytest.mark.usefixtures("_threads_switch_all_the_time")
def test_messages_of_a_list_at_disposal_are_counted_once() -> None:
    counts = []
    for _ in range(200):
        hot, got = Hot(), list[Any]()
        inside = threading.Event()

        def take(message: Any, got: list[Any] = got, inside: threading.Event = inside) -> None:
            got.append(message)
            inside.set()

        subscription = hot.stream.subscribe(take)
        giving = threading.Thread(target=hot.give, args=("a",) * 500)
        giving.start()
        assert inside.wait(PATIENCE)
        subscription.dispose()
        giving.join(PATIENCE)
        counts.append(len(got) + hot.stream.stats().abandoned)
    assert counts == [500] * 200


def test_messages_in_stock_operators_at_disposal_are_counted() -> None:
    hot, got = Hot(), list[Any]()
    inside, leave = threading.Event(), threading.Event()

    def wait(message: Any) -> Any:
        inside.set()
        assert leave.wait(PATIENCE)
        return message

    subscription = hot.stream.map(wait).filter(bool).subscribe(got.append)
    giving = threading.Thread(target=hot.give, args=("a", "b", "c"))
    giving.start()
    assert inside.wait(PATIENCE)
    subscription.dispose()
    leave.set()
    giving.join(PATIENCE)
    assert got == []
    assert hot.stream.stats().abandoned == 3


def test_stream_repr_names_function_server_and_state() -> None:
    tweets = rxtweets.sample_stream(token="secret", base_url="http://127.0.0.1:8080/path")
    assert repr(tweets) == "<sample_stream of http://127.0.0.1:8080: idle>"
    assert repr(tweets.map(str)) == "<items of sample_stream>"
    assert repr(tweets.publish()) == "<items of sample_stream>"
    assert repr(tweets.pipe(ops.process(picky))) == "<messages of sample_stream>"
    assert repr(tweets.pipe(ops.batch(1))) == "<batches of sample_stream>"
    assert repr(tweets.pipe(ops.batch(1), ops.deliver(print))) == (
        "<settled batches of sample_stream>"
    )


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda token: rxtweets.firehose_stream(lang="en", token=token), "firehose_stream"),
        (lambda token: rxtweets.likes_stream(token=token), "likes_stream"),
        (lambda token: rxtweets.compliance_stream(token=token), "compliance_stream"),
        (lambda token: rxtweets.labels_stream(token=token), "labels_stream"),
        (lambda token: rxtweets.filtered_stream(token=token), "filtered_stream"),
    ],
)
def test_stream_is_named_after_its_function(make: Any, name: str) -> None:
    stream = make("secret")
    assert repr(stream) == f"<{name} of https://api.x.com: idle>"
    assert {part.telemetry.source for part in stream.parts} == {name}


def test_source_is_named_after_its_function() -> None:
    sources = [
        rxtweets.from_iterable([]),
        rxtweets.from_queue(queue.Queue()),
        rxtweets.polling_source(lambda _: None),
        DummySource(),
    ]
    assert [repr(source) for source in sources] == [
        "<from_iterable>",
        "<from_queue>",
        "<polling_source>",
        "<DummySource>",
    ]
    assert repr(reactivex.never().pipe(ops.process(picky))) == "<messages>"
