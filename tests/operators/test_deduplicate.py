from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
import reactivex
from reactivex.testing import ReactiveTest, TestScheduler

import rxtweets
from rxtweets import CallerAcknowledger, ConfigurationError, Message, events
from rxtweets import operators as ops
from rxtweets._core.observable import MessageStream, new_telemetry

on_next, on_completed = ReactiveTest.on_next, ReactiveTest.on_completed
on_error = ReactiveTest.on_error


def message(identifier: object, **metadata: Any) -> Message[str]:
    return Message(f"tweet {identifier}", {"id": identifier, **metadata})


def stream_of(*chunks: Sequence[Message[Any]]) -> MessageStream[Any]:
    """Return a cold stream of these chunks."""

    def subscribe(observer: Any, _scheduler: Any) -> reactivex.abc.DisposableBase:
        for chunk in chunks:
            observer.on_next(list(chunk))
        observer.on_completed()
        return reactivex.disposable.Disposable()

    return MessageStream(subscribe, new_telemetry())


def ids(messages: Sequence[Message[Any]]) -> list[str]:
    return [message.id for message in messages]


def test_deduplicate_keeps_order() -> None:
    stream = stream_of([message(1), message(2), message(1)], [message(2), message(3)])
    assert ids(stream.pipe(ops.deduplicate()).to_list().run()) == ["1", "2", "3"]
    assert stream.stats().duplicates == 2


def test_deduplicate_emits_at_time_of_source() -> None:
    scheduler = TestScheduler()
    one, two = message(1), message(2)
    source = scheduler.create_hot_observable(
        on_next(210, one), on_next(220, two), on_next(230, one), on_next(240, two),
        on_completed(250),
    )  # fmt: skip
    result = scheduler.start(lambda: source.pipe(ops.deduplicate()))
    assert result.messages == [on_next(210, one), on_next(220, two), on_completed(250)]


def test_deduplicate_passes_error_as_last() -> None:
    scheduler = TestScheduler()
    one, error = message(1), ValueError("the end")
    source = scheduler.create_hot_observable(
        on_next(210, one), on_error(220, error), on_next(230, message(2))
    )
    result = scheduler.start(lambda: source.pipe(ops.deduplicate()))
    assert result.messages == [on_next(210, one), on_error(220, error)]


def test_deduplicate_leaves_source_on_disposal() -> None:
    scheduler = TestScheduler()
    source = scheduler.create_hot_observable(on_next(210, message(1)), on_next(310, message(2)))
    result = scheduler.start(lambda: source.pipe(ops.deduplicate()), disposed=300)
    assert len(result.messages) == 1
    assert [(item.subscribe, item.unsubscribe) for item in source.subscriptions] == [(200, 300)]


def test_deduplicate_is_exact_within_window() -> None:
    stream = stream_of([message(item) for item in "abacba"])
    assert ids(stream.pipe(ops.deduplicate(window=2)).to_list().run()) == ["a", "b", "c", "a"]


def test_deduplicate_accepts_any_key() -> None:
    stream = stream_of([message(1, lang="ja"), message(2, lang="en"), message(3, lang="ja")])
    once = ops.deduplicate(by=lambda item: item.metadata["lang"])
    assert ids(stream.pipe(once).to_list().run()) == ["1", "2"]


def test_deduplicate_has_window_per_subscription() -> None:
    once = stream_of([message(1), message(1)]).pipe(ops.deduplicate())
    assert ids(once.to_list().run()) == ["1"]
    assert ids(once.to_list().run()) == ["1"]


def test_deduplicate_omits_chunk_of_duplicates() -> None:
    chunks: list[Any] = []

    class Taker(reactivex.Observer[Any]):
        def _on_next_core(self, value: Any) -> None:
            chunks.append(value)

    stream = stream_of([message(1)], [message(1)], [message(2)])
    once = stream.pipe(ops.deduplicate())
    assert isinstance(once, MessageStream)
    once.subscribe_chunks(Taker())
    assert [ids(chunk) for chunk in chunks] == [["1"], ["2"]]


def test_deduplicate_keeps_different_plain_items() -> None:
    once = rxtweets.from_iterable([*range(5), 3, "3"]).pipe(ops.deduplicate())
    kept = once.to_list().run()
    assert [item.data for item in kept] == [0, 1, 2, 3, 4, "3"]
    assert once.stats().duplicates == 1


class Failing:
    """Raise for one message, and return an unhashable key for another."""

    def __call__(self, message: Message[Any]) -> Any:
        if message.id == "bad":
            raise KeyError(message.id)
        return [] if message.id == "unhashable" else message.id


@pytest.mark.parametrize(("identifier", "kind"), [("bad", KeyError), ("unhashable", TypeError)])
def test_deduplicate_fails_message_when_key_raises(identifier: str, kind: type[Exception]) -> None:
    reported: list[events.Event] = []
    seen = threading.Event()

    def look(event: events.Event) -> None:
        reported.append(event)
        seen.set()

    stream = stream_of([message(1), message(identifier), message(2)])
    stream.events.subscribe(look)
    assert ids(stream.pipe(ops.deduplicate(by=Failing())).to_list().run()) == ["1", "2"]
    assert (stream.stats().failed, stream.stats().duplicates) == (1, 0)
    assert seen.wait(10)
    (event,) = reported
    assert isinstance(event, events.HandlerFailed)
    assert isinstance(event.message.status, rxtweets.Failed)
    assert isinstance(event.message.status.reason, kind)


def test_deduplicate_acknowledges_only_duplicates() -> None:
    outcomes: list[tuple[list[str], list[str]]] = []
    acknowledger = CallerAcknowledger(lambda good, bad: outcomes.append((ids(good), ids(bad))))
    several = [
        message(item).with_acknowledger(acknowledger) for item in ("1", "1", "bad", "2", "1")
    ]
    kept = stream_of(several).pipe(ops.deduplicate(by=Failing())).to_list().run()
    assert ids(kept) == ["1", "2"]
    assert outcomes == [(["1", "1"], ["bad"])]


def test_deduplicate_leaves_settlement_to_batches() -> None:
    outcomes: list[str] = []
    acknowledger = CallerAcknowledger(lambda good, _: outcomes.extend(ids(good)))
    several = [message(item).with_acknowledger(acknowledger) for item in "1213"]
    stream = stream_of(several)
    stream.pipe(ops.deduplicate(), ops.batch(10, 1.0)).subscribe(lambda _: None)
    assert sorted(outcomes) == ["1", "1", "2", "3"]
    assert stream.stats().batched == 3


def test_deduplicate_removes_copies_of_merge() -> None:
    one, two = (stream_of([message(item) for item in range(100)]) for _ in range(2))
    once = reactivex.merge(one, two).pipe(ops.deduplicate(window=200))
    assert ids(once.to_list().run()) == [str(item) for item in range(100)]


@pytest.mark.parametrize(
    ("options", "name"),
    [({"window": 0}, "window"), ({"window": 1.5}, "window"), ({"window": True}, "window"),
     ({"by": "id"}, "by")],
)  # fmt: skip
def test_deduplicate_refuses_invalid_arguments(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}="):
        ops.deduplicate(**options)
