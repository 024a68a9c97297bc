from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
import reactivex
from reactivex import operators as stock
from reactivex.disposable import Disposable
from reactivex.subject import Subject
from reactivex.testing import ReactiveTest, TestScheduler

import rxtweets
from rxtweets import Batch, Message, events
from rxtweets import operators as ops
from rxtweets._core.observable import MessageStream, new_telemetry

PATIENCE = 20.0
on_next, on_error, on_completed = (
    ReactiveTest.on_next,
    ReactiveTest.on_error,
    ReactiveTest.on_completed,
)


def message(data: Any) -> Message[Any]:
    return Message(data)


def batches_of(
    source_events: Sequence[tuple[int, str]],
    size: int,
    timeout: float,
    end: Any = None,
    disposed: float = 1000.0,
) -> list[tuple[float, Any]]:
    """What comes out of a hot source in virtual time: (time, texts and trigger, or the end)."""
    scheduler = TestScheduler()
    notes = [on_next(time, message(text)) for time, text in source_events]
    source: Any = scheduler.create_hot_observable(*notes, *([end] if end else []))
    observer: Any = scheduler.start(
        lambda: source.pipe(ops.batch(size, timeout)), disposed=disposed
    )
    return [(each.time, _shown(each.value)) for each in observer.messages]


def _shown(note: Any) -> Any:
    if note.kind == "N":
        batch: Batch[str] = note.value
        return "".join(each.data for each in batch), batch.info.trigger
    return "completed" if note.kind == "C" else note.exception


# In virtual time.


def test_a_batch_is_emitted_when_it_is_full() -> None:
    source = [(210, "a"), (220, "b"), (230, "c"), (240, "d")]
    assert batches_of(source, 2, 100.0) == [(220, ("ab", "size")), (240, ("cd", "size"))]


def test_the_time_of_a_batch_begins_with_its_first_message() -> None:
    source = [(350, "a"), (380, "b"), (500, "c")]
    assert batches_of(source, 10, 100.0) == [(450, ("ab", "timeout")), (600, ("c", "timeout"))]


def test_silence_gives_no_batches() -> None:
    assert batches_of([], 10, 50.0) == []


def test_a_full_batch_takes_its_time_with_it() -> None:
    source = [(210, "a"), (220, "b"), (280, "c")]
    assert batches_of(source, 2, 100.0) == [(220, ("ab", "size")), (380, ("c", "timeout"))]


def test_completion_flushes() -> None:
    shown = batches_of([(210, "a")], 10, 500.0, on_completed(250))
    assert shown == [(250, ("a", "flush")), (250, "completed")]


def test_an_error_comes_after_the_batch_that_was_being_filled() -> None:
    fault = ValueError("source")
    shown = batches_of([(210, "a")], 10, 500.0, on_error(250, fault))
    assert shown == [(250, ("a", "flush")), (250, fault)]


def test_an_empty_source_gives_no_batch() -> None:
    assert batches_of([], 10, 10.0, on_completed(250)) == [(250, "completed")]


def test_nothing_comes_after_the_disposal() -> None:
    assert batches_of([(210, "a"), (220, "b")], 10, 100.0, disposed=300.0) == []


def test_a_batch_that_fills_at_its_very_deadline_is_emitted_once() -> None:
    source = [(210, "a"), (310, "b"), (320, "c")]
    shown = batches_of(source, 2, 100.0)
    assert [texts for _, (texts, _) in shown] in (["ab", "c"], ["a", "bc"])


def test_batches_are_those_of_the_stock_buffer_where_that_emits_any() -> None:
    source = [(210 + 7 * at, chr(97 + at)) for at in range(20)]

    def stock_batches() -> list[tuple[float, str]]:
        scheduler = TestScheduler()
        notes = [on_next(time, text) for time, text in source]
        hot: Any = scheduler.create_hot_observable(*notes, on_completed(500))
        observer: Any = scheduler.start(
            lambda: hot.pipe(stock.buffer_with_time_or_count(1000.0, 3))
        )
        return [
            (each.time, "".join(each.value.value))
            for each in observer.messages
            if each.value.kind == "N"
        ]

    ours = batches_of(source, 3, 1000.0, on_completed(500))
    assert [(time, texts) for time, (texts, _) in ours[:-1]] == stock_batches()


# Chunks.


def in_one_chunk(*texts: str) -> MessageStream[Any]:
    def subscribe(observer: Any, _scheduler: Any) -> reactivex.abc.DisposableBase:
        observer.on_next([message(text) for text in texts])
        observer.on_completed()
        return Disposable()

    return MessageStream(subscribe, new_telemetry())


def test_a_long_chunk_becomes_several_batches_in_order() -> None:
    batches: list[Batch[str]] = []
    in_one_chunk(*"abcdefg").pipe(ops.batch(3, 5.0)).subscribe(batches.append)
    assert [[each.data for each in batch] for batch in batches] == [
        ["a", "b", "c"],
        ["d", "e", "f"],
        ["g"],
    ]


def test_a_batch_knows_its_batcher_size_and_trigger() -> None:
    batches: list[Batch[str]] = []
    in_one_chunk("a", "b", "c").pipe(ops.batch(2, 5.0, name="mine")).subscribe(batches.append)
    assert [batch.info for batch in batches] == [
        rxtweets.BatchInfo("mine", 2, "size"),
        rxtweets.BatchInfo("mine", 1, "flush"),
    ]


class Acks:
    def __init__(self) -> None:
        self.calls: list[tuple[list[Any], list[Any]]] = []

    def ack(self, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        self.calls.append(([each.data for each in successful], [each.data for each in failed]))


def test_messages_that_failed_before_are_acknowledged_and_not_batched() -> None:
    acks = Acks()
    source: Subject[Message[Any]] = Subject()
    batches: list[Batch[Any]] = []
    source.pipe(ops.batch(2, 60.0)).subscribe(batches.append)
    source.on_next(message("bad").with_acknowledger(acks).failed("before"))
    assert acks.calls == [([], ["bad"])]
    source.on_next(message("a").with_acknowledger(acks))
    source.on_next(message("b").with_acknowledger(acks))
    assert [[each.data for each in batch] for batch in batches] == [["a", "b"]]
    assert acks.calls[1:] == [(["a", "b"], [])]
    source.on_completed()


# On the clock of the machine.


def test_the_time_passes_by_itself() -> None:
    source: Subject[Message[Any]] = Subject()
    batches: list[Batch[Any]] = []
    came = threading.Event()

    def take(batch: Batch[Any]) -> None:
        batches.append(batch)
        came.set()

    subscription = source.pipe(ops.batch(100, 0.05)).subscribe(take)
    source.on_next(message("a"))
    assert came.wait(PATIENCE)
    assert batches[0].info.trigger == "timeout"
    came.clear()
    source.on_next(message("b"))
    assert came.wait(PATIENCE)
    assert [each.data for batch in batches for each in batch] == ["a", "b"]
    subscription.dispose()


def test_one_thread_keeps_the_time_of_a_thousand_batches() -> None:
    source: Subject[Message[Any]] = Subject()
    subscription = source.pipe(ops.batch(2, 60.0)).subscribe(lambda _: None)
    for number in range(2001):
        source.on_next(message(number))
    timers = [each for each in threading.enumerate() if each.name == "rxtweets-batch"]
    assert len(timers) == 1
    subscription.dispose()


def test_disposing_abandons_the_unfinished_batch_and_counts_it() -> None:
    source: Subject[Message[Any]] = Subject()
    stream = source.pipe(ops.batch(10, 60.0))
    reported: list[events.Event] = []
    stream.events.subscribe(reported.append)
    subscription = stream.subscribe(lambda _: None)
    for number in range(3):
        source.on_next(message(number))
    subscription.dispose()
    assert stream.stats().abandoned == 3
    assert stream.telemetry.bus.flush()
    assert reported == [events.Abandoned(3, "batcher")]


def test_disposing_from_inside_a_batch_ends_it() -> None:
    source: Subject[Message[Any]] = Subject()
    stream = source.pipe(ops.batch(2, 60.0))
    got: list[Batch[Any]] = []
    holder: list[reactivex.abc.DisposableBase] = []

    def once(batch: Batch[Any]) -> None:
        got.append(batch)
        holder[0].dispose()

    holder.append(stream.subscribe(once))
    for number in range(10):
        source.on_next(message(number))
    assert len(got) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0,), "size=0"),
        ((2.5,), "size=2.5"),
        ((10, 0), "timeout=0"),
        ((10, -1.0), "timeout=-1"),
        ((10, float("nan")), "timeout=nan"),
        ((10, "soon"), "timeout='soon'"),
        ((10, timedelta(0)), "timeout="),
    ],
)
def test_arguments_that_cannot_work_are_refused_at_once(arguments: Any, words: str) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match=words):
        ops.batch(*arguments)


def test_a_timeout_may_be_a_timedelta() -> None:
    scheduler = TestScheduler()
    source: Any = scheduler.create_hot_observable(on_next(210, message("a")))
    observer: Any = scheduler.start(
        lambda: source.pipe(ops.batch(9, timedelta(seconds=30))), disposed=1000.0
    )
    assert [each.time for each in observer.messages] == [240]
