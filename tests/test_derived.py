from __future__ import annotations

import asyncio
import threading
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
from rxtweets.observable import MessageStream, new_telemetry
from rxtweets.testing import RecordingAcknowledger


def stream_of(*texts: str) -> MessageStream[Any]:
    """A cold stream of messages, as the sources of the library are made."""
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


def test_stock_operators_in_pipe_do_the_same() -> None:
    stream = stream_of("good", "bad")
    stream.pipe(stock.map(lambda message: message), ops.process(picky), stock.to_list()).run()
    assert stream.stats().processed == 1


def test_what_a_stock_operator_made_can_be_asked_for_figures() -> None:
    lengths: Any = stream_of("a", "bb").map(lambda message: len(message.data))
    assert lengths.to_list().run() == [1, 2]
    assert lengths.stats().state == "idle"


def test_a_raising_subscriber_behind_stock_operators_gets_the_next_items() -> None:
    stream = stream_of("a", "b", "c")
    got = []

    def raising(text: str) -> None:
        got.append(text)
        raise ValueError(text)

    stream.map(lambda message: message.data).subscribe(raising)
    assert got == ["a", "b", "c"]
    assert stream.stats().subscriber_errors == 3


def test_a_batch_fails_if_one_of_those_who_share_it_raises() -> None:
    acks = RecordingAcknowledger()
    got: list[Any] = []
    message = rxtweets.Message("a").with_acknowledger(acks)

    def raising(_: Any) -> None:
        raise OSError("full")

    together: Subject[Any] = Subject()
    shared: Any = together.pipe(ops.batch(1), stock.share())
    shared.subscribe(raising)
    shared.subscribe(got.append)
    shared.subscribe(raising)
    together.on_next(message)
    together.on_completed()
    assert [len(batch) for batch in got] == [1]
    assert [each.data for each in acks.failed] == ["a"]
    stats = shared.stats()
    assert (stats.batches, stats.batches_failed, stats.subscriber_errors) == (0, 1, 2)


def test_the_class_of_an_observer_is_refused() -> None:
    with pytest.raises(rxtweets.ConfigurationError, match=r"give an instance, Subscriber\("):
        stream_of("a").subscribe(rxtweets.Subscriber)  # type: ignore[arg-type]  # what is tested


def test_what_is_no_message_is_reported_where_one_is_expected() -> None:
    stream, over = stream_of("a", "b"), threading.Event()
    texts: Any = stream.map(lambda message: message.data)
    texts.pipe(ops.process(picky)).subscribe(on_completed=over.set)
    assert over.wait(10)
    assert stream.stats().subscriber_errors == 2
    assert stream.telemetry.bus.flush()
    assert "a str came where a Message was expected" in str(stream.errors[-1])


def test_the_last_item_can_be_awaited_on_an_event_loop() -> None:
    async def last() -> Any:
        slow = rxtweets.from_iterable("abc").map(lambda message: message.data)
        return await asyncio.wait_for(slow, 10)

    assert asyncio.run(last()) == "c"


def test_awaiting_a_stream_without_an_item_raises() -> None:
    async def last() -> Any:
        return await rxtweets.from_iterable("")

    with pytest.raises(SequenceContainsNoElementsError):
        asyncio.run(last())


def test_an_error_of_a_stock_operator_comes_to_on_error() -> None:
    errors: list[Exception] = []
    stream_of("a").map(lambda message: {}[message.data]).subscribe(on_error=errors.append)
    assert isinstance(errors[0], KeyError)


def test_connectable_observables_stay_what_they_are() -> None:
    shared: Any = stream_of("a").publish()
    got: list[Any] = []
    shared.subscribe(got.append)
    shared.connect()
    assert len(got) == 1


def test_virtual_time_passes_through_stock_operators() -> None:
    scheduler = TestScheduler()
    batches: list[Any] = []
    delayed = stream_of("a", "b").delay(5.0).pipe(ops.batch(2, 1.0))
    delayed.subscribe(lambda batch: batches.append((scheduler.clock, batch)), scheduler=scheduler)
    scheduler.start()
    assert [(clock, len(batch)) for clock, batch in batches] == [(5.0, 2)]
