from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from reactivex.testing import TestScheduler

import rxtweets
from rxtweets import Message
from rxtweets._support.workers import start_thread
from rxtweets.streams import _pull_sources as sources
from rxtweets.testing import RecordingAcknowledger

PATIENCE = 20.0


def collect(source: Any) -> tuple[list[Any], list[Exception]]:
    """Return the data of all messages of a source, and its error."""
    over = threading.Event()
    got: list[Any] = []
    errors: list[Exception] = []

    def failed(error: Exception) -> None:
        errors.append(error)
        over.set()

    source.subscribe(lambda message: got.append(message.data), failed, over.set)
    assert over.wait(PATIENCE)
    return got, errors


def test_iterable_emits_messages_in_order() -> None:
    assert collect(rxtweets.from_iterable(range(25))) == (list(range(25)), [])


def test_iterable_keeps_messages() -> None:
    message = Message("x", {"lang": "ja"})
    got: list[Any] = []
    over = threading.Event()
    rxtweets.from_iterable([message]).subscribe(got.append, on_completed=over.set)
    assert over.wait(PATIENCE)
    assert got == [message]


def test_iterable_starts_again_for_each_subscription() -> None:
    source = rxtweets.from_iterable([1, 2])
    assert collect(source) == collect(source) == ([1, 2], [])


def test_iterator_error_follows_the_items_before_it() -> None:
    fault = ValueError("no more")

    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise fault

    assert collect(rxtweets.from_iterable(items())) == ([1, 2], [fault])


def test_iterable_error_ends_the_source() -> None:
    class Broken:
        def __iter__(self) -> Iterator[int]:
            raise OSError("no file")

    got, (error,) = collect(rxtweets.from_iterable(Broken()))
    assert (got, str(error)) == ([], "no file")


def test_iterable_takes_only_wanted_items() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    enough = threading.Event()

    def take(message: Message[int]) -> None:
        if message.data == 4:
            subscription.dispose()
            enough.set()
        else:
            ready.wait(PATIENCE)

    ready = threading.Event()
    subscription = rxtweets.from_iterable(items(), most=2).subscribe(take)
    ready.set()
    assert enough.wait(PATIENCE)
    assert len(taken) <= 6


def test_poll_error_ends_the_source() -> None:
    def poll(_: int) -> list[Message[Any]]:
        raise OSError("no broker")

    got, (error,) = collect(rxtweets.polling_source(poll))
    assert (got, type(error)) == ([], OSError)


def test_poll_must_return_messages() -> None:
    poll: Any = lambda _: ["text"]  # noqa: E731 - invalid on purpose
    _, (error,) = collect(rxtweets.polling_source(poll))
    assert isinstance(error, rxtweets.errors.HandlerError)
    assert "list with str" in str(error)


def test_poll_follows_a_virtual_clock() -> None:
    scheduler = TestScheduler()
    times: list[float] = []

    def poll(_: int) -> list[Message[Any]]:
        times.append(scheduler.clock)
        return [Message("x")] if len(times) == 2 else []

    source = rxtweets.polling_source(poll, interval=100.0)
    observer = scheduler.start(lambda: source, disposed=700.0)
    # The poll at 300 returned a message, so the next one follows immediately.
    assert times == [200, 300, 300, 400, 500, 600]
    assert [recorded.time for recorded in observer.messages] == [300]


def test_messages_after_a_disposal_are_abandoned() -> None:
    asked, answer = threading.Event(), threading.Event()

    def poll(_: int) -> list[Message[Any]]:
        asked.set()
        answer.wait(PATIENCE)
        return [Message(1), Message(2)]

    source = rxtweets.polling_source(poll)
    reported = threading.Event()
    source.events.subscribe(lambda _: reported.set())
    subscription = source.subscribe()
    assert asked.wait(PATIENCE)
    subscription.dispose()
    answer.set()
    assert reported.wait(PATIENCE)
    assert source.stats().abandoned == 2


def test_drain_during_a_subscription_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    polling_again, stopped = threading.Event(), threading.Event()

    def start_slowly(*work: Any) -> None:
        start_thread(*work)
        assert stopped.wait(PATIENCE)  # so long the pipeline subscribes

    def polls() -> Iterator[list[Message[Any]] | None]:
        yield [Message("first")]
        polling_again.set()
        assert stopped.wait(PATIENCE)
        yield [Message("polled meanwhile")]
        yield None

    def handle(message: Message[Any]) -> Message[Any]:
        if message.data == "first":
            assert polling_again.wait(PATIENCE)
            pipeline.stop()
            stopped.set()
        return message

    monkeypatch.setattr(sources, "start_thread", start_slowly)
    answers = polls()
    source = rxtweets.polling_source(lambda _: next(answers))
    pipeline = rxtweets.Pipeline(source, handle_message=handle)
    pipeline.start()
    assert pipeline.wait(PATIENCE)
    stats = pipeline.stats()
    assert (stats.received, stats.processed, stats.abandoned) == (2, 2, 0)


def test_queue_joins_when_items_are_acknowledged() -> None:
    items: queue.Queue[Any] = queue.Queue()
    source = rxtweets.from_queue(items, wait=0.01)
    items.put("a")
    items.put(Message("b"))
    got: list[Message[Any]] = []
    both = threading.Event()

    def take(message: Message[Any]) -> None:
        got.append(message)
        if len(got) == 2:
            both.set()

    with source.subscribe(take):
        assert both.wait(PATIENCE)
    assert items.unfinished_tasks == 2
    rxtweets.ack_immediately(got)
    items.join()


def test_queue_item_can_be_requeued() -> None:
    items: queue.Queue[Any] = queue.Queue()
    items.put("a")
    item = items.get()
    acknowledger = rxtweets.streams.QueueAcknowledger(items)
    message = Message(item).with_acknowledger(acknowledger, data=(item, "discard"))
    rxtweets.ack_immediately(message.configure_ack(on_failure="requeue").failed("later"))
    assert items.get() == "a"
    with pytest.raises(rxtweets.ConfigurationError, match="on_failure='keep'"):
        message.configure_ack(on_failure="keep")
    with pytest.raises(rxtweets.ConfigurationError, match="on_success"):
        message.configure_ack(on_success="keep")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: rxtweets.polling_source(5), "poll"),  # type: ignore[arg-type]  # on purpose
        (lambda: rxtweets.polling_source(lambda _: None, interval=0), "interval"),
        (lambda: rxtweets.polling_source(lambda _: None, most=0), "most"),
        (lambda: rxtweets.from_iterable(5), "items"),  # type: ignore[call-overload]  # on purpose
        (lambda: rxtweets.from_queue([]), "items"),  # type: ignore[call-overload]  # on purpose
        (lambda: rxtweets.from_queue(queue.Queue(), on_failure="keep"), "on_failure"),  # type: ignore[call-overload]  # on purpose
    ],
)
def test_sources_refuse_invalid_arguments(make: Any, words: str) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match=words):
        make()


@pytest.mark.parametrize("seed", range(20))
def test_calls_follow_the_observable_grammar(seed: int) -> None:
    """With very frequent thread switches."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        inside = threading.Lock()
        breaches: list[str] = []
        over = threading.Event()
        acks = RecordingAcknowledger()

        def enter(call: str) -> None:
            if not inside.acquire(blocking=False):
                breaches.append(f"{call} while another call was running")
                return
            if over.is_set():
                breaches.append(f"{call} after the end")
            inside.release()

        def take(message: Message[int]) -> None:
            enter("on_next")
            if seed % 2 and message.data == seed:
                subscription.dispose()
                over.set()

        def end() -> None:
            enter("on_completed")
            over.set()

        ready = threading.Event()
        items = (number for number in range(100) if ready.wait(PATIENCE))
        source = rxtweets.from_iterable(items, acknowledger=acks, most=1 + seed % 3)
        subscription = source.subscribe(take, on_completed=end)
        ready.set()
        assert over.wait(PATIENCE)
        assert breaches == []
    finally:
        sys.setswitchinterval(before)
