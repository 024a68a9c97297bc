"""Subscribers of all kinds, and how every batch is settled."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import reactivex
from reactivex.subject import Subject

import rxtweets
from rxtweets import Batch, Message, events
from rxtweets import operators as ops
from rxtweets._core.observable import BatchStream

PATIENCE = 20.0


def texts_of(messages: Sequence[Message[Any]]) -> str:
    return "".join(message.data for message in messages)


class Acks:
    """Remembers every call."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.calls: list[tuple[str, str]] = []
        self.reasons: list[object] = []
        self._fault = fault

    def ack(self, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        self.calls.append((texts_of(successful), texts_of(failed)))
        self.reasons += [message.status for message in failed]
        if self._fault is not None:
            raise self._fault


class Stage:
    """A subject, batched by two."""

    def __init__(self) -> None:
        self.source: Subject[Message[Any]] = Subject()
        self.batches: BatchStream[Any] = self.source.pipe(ops.batch(2, 60.0))
        self.events: list[events.Event] = []
        self.batches.events.subscribe(self.events.append)

    def send(self, texts: str, acknowledger: rxtweets.Acknowledger | None = None) -> None:
        for text in texts:
            message = Message(text)
            self.source.on_next(
                message.with_acknowledger(acknowledger) if acknowledger else message
            )

    def of(self, kind: type[events.Event]) -> list[Any]:
        assert self.batches.telemetry.bus.flush()
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.source.on_completed()


# Kinds of subscribers.


def test_function_gets_batches(stage: Stage) -> None:
    got: list[str] = []
    stage.batches.subscribe(lambda batch: got.append(texts_of(batch)))
    stage.send("abc")
    stage.source.on_completed()
    assert got == ["ab", "c"]


def test_three_functions_get_batches_and_the_end(stage: Stage) -> None:
    got: list[object] = []
    stage.batches.subscribe(
        lambda batch: got.append(texts_of(batch)), got.append, lambda: got.append("end")
    )
    stage.send("ab")
    stage.source.on_completed()
    assert got == ["ab", "end"]


def test_subscriber_gets_batches_and_the_end(stage: Stage) -> None:
    class Kept(rxtweets.Subscriber[str]):
        def __init__(self) -> None:  # without super().__init__(), as people write
            self.got: list[object] = []

        def on_next(self, batch: Batch[str]) -> None:
            self.got.append(texts_of(batch))

        def on_completed(self) -> None:
            self.got.append("end")

    kept = Kept()
    stage.batches.subscribe(kept)
    stage.send("ab")
    stage.source.on_completed()
    assert kept.got == ["ab", "end"]


def test_rxpy_observer_gets_batches_and_the_error(stage: Stage) -> None:
    got: list[object] = []
    fault = ValueError("source")
    stage.batches.subscribe(
        reactivex.Observer(lambda batch: got.append(texts_of(batch)), got.append)
    )
    stage.send("abc")
    stage.source.on_error(fault)
    assert got == ["ab", "c", fault]


def test_subscriber_without_on_next_fails_its_batches(stage: Stage) -> None:
    stage.batches.subscribe(rxtweets.Subscriber())
    stage.send("ab")
    [event] = stage.of(events.BatchFailed)
    assert "write on_next" in str(event.error)


def test_error_without_on_error_is_not_raised(stage: Stage) -> None:
    stage.batches.subscribe(lambda _: None)
    stage.source.on_error(ValueError("source"))


# Settlement.


def test_delivered_batch_is_counted_reported_and_acknowledged(stage: Stage) -> None:
    acks = Acks()
    stage.batches.subscribe(lambda _: None)
    stage.send("ab", acks)
    assert acks.calls == [("ab", "")]
    stats = stage.batches.stats()
    assert (stats.batches, stats.batched, stats.batches_failed) == (1, 2, 0)
    [event] = stage.of(events.BatchDelivered)
    assert texts_of(event.batch) == "ab"


def test_batch_fails_when_its_subscriber_raises(stage: Stage) -> None:
    acks = Acks()
    got: list[str] = []
    fault = ValueError("no ab")

    def picky(batch: Batch[Any]) -> None:
        got.append(texts_of(batch))
        if got == ["ab"]:
            raise fault

    stage.batches.subscribe(picky)
    stage.send("abcd", acks)
    assert got == ["ab", "cd"]
    assert acks.calls == [("", "ab"), ("cd", "")]
    stats = stage.batches.stats()
    assert (stats.batches, stats.batches_failed, stats.batched_failed) == (1, 1, 2)
    [event] = stage.of(events.BatchFailed)
    assert event.error is fault
    for status in (*acks.reasons, *(message.status for message in event.batch)):
        assert isinstance(status, rxtweets.Failed)
        assert isinstance(status.reason, rxtweets.errors.SubscriberError)
        assert status.reason.__cause__ is fault


def test_each_acknowledger_gets_its_messages_once(stage: Stage) -> None:
    one, two = Acks(), Acks()
    stage.batches.subscribe(lambda _: None)
    stage.send("a", one)
    stage.send("b", two)
    stage.send("c", one)
    stage.source.on_completed()
    assert one.calls == [("a", ""), ("c", "")]
    assert two.calls == [("b", "")]


def test_acknowledger_that_raises_does_not_stop_the_others(stage: Stage) -> None:
    fault = ValueError("ack")
    bad, good = Acks(fault), Acks()
    stage.batches.subscribe(lambda _: None)
    stage.send("a", bad)
    stage.send("b", good)
    assert good.calls == [("b", "")]
    assert stage.batches.stats().acknowledger_errors == 1
    [event] = stage.of(events.AcknowledgerFailed)
    assert (event.error, [message.data for message in event.messages]) == (fault, ["a"])


def test_messages_are_acknowledged_after_the_subscriber_returned(stage: Stage) -> None:
    acks = Acks()
    stage.batches.subscribe(lambda _: acks.calls.append(("subscriber", "")))
    stage.send("ab", acks)
    assert acks.calls == [("subscriber", ""), ("ab", "")]


def test_messages_kept_after_their_batch_are_not_acknowledged(stage: Stage) -> None:
    acks = Acks()
    kept: list[Message[Any]] = []
    stage.batches.subscribe(kept.extend)
    stage.send("ab", acks)
    rxtweets.ack_immediately([message.failed("too late").put_data("x") for message in kept])
    assert acks.calls == [("ab", "")]
    assert stage.batches.stats().late_acknowledgements == 2


def test_batch_acknowledges_messages_not_yet_acknowledged(stage: Stage) -> None:
    acks = Acks()

    def take(batch: Batch[Any]) -> None:
        rxtweets.ack_immediately(batch[0].put_data("A"))
        raise ValueError("no room")

    stage.batches.subscribe(take)
    stage.send("ab", acks)
    assert acks.calls == [("A", ""), ("", "b")]
    assert stage.batches.stats().late_acknowledgements == 0


def test_messages_are_acknowledged_once_when_two_stages_do() -> None:
    acks = Acks()
    source: Subject[Message[Any]] = Subject()
    batches: BatchStream[Any] = source.pipe(ops.acknowledge(), ops.batch(1, 60.0))
    batches.subscribe(lambda _: None)
    source.on_next(Message("a").with_acknowledger(acks))
    source.on_completed()
    assert acks.calls == [("a", "")]
    assert batches.stats().late_acknowledgements == 1


@pytest.mark.parametrize("end", ["on_completed", "on_error"])
def test_subscriber_that_raises_at_the_end_is_counted(stage: Stage, end: str) -> None:
    def raising(*_: object) -> None:
        raise ValueError("end")

    stage.batches.subscribe(lambda _: None, raising, raising)
    if end == "on_completed":
        stage.source.on_completed()
    else:
        stage.source.on_error(ValueError("source"))
    assert stage.batches.stats().subscriber_errors == 1
    [event] = stage.of(events.SubscriberFailed)
    assert str(event.error) == "end"


def test_source_that_raises_on_subscribe_ends_the_stream() -> None:
    fault = ValueError("subscribe")

    def refuse(*_: object) -> reactivex.abc.DisposableBase:
        raise fault

    source: reactivex.Observable[Message[Any]] = reactivex.create(refuse)
    errors: list[Exception] = []
    source.pipe(ops.batch(2, 60.0)).subscribe(on_error=errors.append)
    assert errors == [fault]


def test_subscriber_calls_never_overlap() -> None:
    source: Subject[Message[Any]] = Subject()
    inside = threading.Lock()
    overlaps = 0

    def take(_: object) -> None:
        nonlocal overlaps
        if not inside.acquire(blocking=False):
            overlaps += 1
            return
        threading.Event().wait(0.001)  # time for another call to come in, if one could
        inside.release()

    source.pipe(ops.process(lambda message: message, 8), ops.batch(3, 0.001)).subscribe(take)

    def feed() -> None:
        for _ in range(50):
            source.on_next(Message("x"))

    threads = [threading.Thread(target=feed) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    source.on_completed()
    assert overlaps == 0
