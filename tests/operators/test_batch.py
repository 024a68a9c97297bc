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
    """Return the batches of a hot source in virtual time: (time, texts and trigger, or the end)."""
    scheduler = TestScheduler()
    notes = [on_next(time, message(text)) for time, text in source_events]
    source: Any = scheduler.create_hot_observable(*notes, *([end] if end else []))
    observer: Any = scheduler.start(
        lambda: source.pipe(ops.batch(size, timeout)), disposed=disposed
    )
    return [(note.time, _shown(note.value)) for note in observer.messages]


def _shown(note: Any) -> Any:
    if note.kind == "N":
        batch: Batch[str] = note.value
        return "".join(message.data for message in batch), batch.info.trigger
    return "completed" if note.kind == "C" else note.exception


# In virtual time.


def test_batch_is_emitted_when_full() -> None:
    source = [(210, "a"), (220, "b"), (230, "c"), (240, "d")]
    assert batches_of(source, 2, 100.0) == [(220, ("ab", "size")), (240, ("cd", "size"))]


def test_batch_time_starts_with_first_message() -> None:
    source = [(350, "a"), (380, "b"), (500, "c")]
    assert batches_of(source, 10, 100.0) == [(450, ("ab", "timeout")), (600, ("c", "timeout"))]


def test_batch_emits_nothing_without_messages() -> None:
    assert batches_of([], 10, 50.0) == []


def test_timeout_ends_with_full_batch() -> None:
    source = [(210, "a"), (220, "b"), (280, "c")]
    assert batches_of(source, 2, 100.0) == [(220, ("ab", "size")), (380, ("c", "timeout"))]


def test_batch_is_flushed_on_completion() -> None:
    shown = batches_of([(210, "a")], 10, 500.0, on_completed(250))
    assert shown == [(250, ("a", "flush")), (250, "completed")]


def test_batch_is_flushed_before_error() -> None:
    fault = ValueError("source")
    shown = batches_of([(210, "a")], 10, 500.0, on_error(250, fault))
    assert shown == [(250, ("a", "flush")), (250, fault)]


def test_batch_is_not_emitted_for_empty_source() -> None:
    assert batches_of([], 10, 10.0, on_completed(250)) == [(250, "completed")]


def test_batch_emits_nothing_after_disposal() -> None:
    assert batches_of([(210, "a"), (220, "b")], 10, 100.0, disposed=300.0) == []


def test_batch_is_emitted_once_when_full_at_deadline() -> None:
    source = [(210, "a"), (310, "b"), (320, "c")]
    shown = batches_of(source, 2, 100.0)
    assert [texts for _, (texts, _) in shown] in (["ab", "c"], ["a", "bc"])


def test_batches_equal_non_empty_stock_buffers() -> None:
    source = [(210 + 7 * at, chr(97 + at)) for at in range(20)]

    def stock_batches() -> list[tuple[float, str]]:
        scheduler = TestScheduler()
        notes = [on_next(time, text) for time, text in source]
        hot: Any = scheduler.create_hot_observable(*notes, on_completed(500))
        observer: Any = scheduler.start(
            lambda: hot.pipe(stock.buffer_with_time_or_count(1000.0, 3))
        )
        return [
            (note.time, "".join(note.value.value))
            for note in observer.messages
            if note.value.kind == "N"
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


def test_long_chunk_becomes_several_batches() -> None:
    batches: list[Batch[str]] = []
    in_one_chunk(*"abcdefg").pipe(ops.batch(3, 5.0)).subscribe(batches.append)
    assert [[message.data for message in batch] for batch in batches] == [
        ["a", "b", "c"],
        ["d", "e", "f"],
        ["g"],
    ]


def test_batch_info_has_batcher_size_and_trigger() -> None:
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
        self.calls.append(
            ([message.data for message in successful], [message.data for message in failed])
        )


def test_failed_messages_are_acknowledged_and_not_batched() -> None:
    acks = Acks()
    source: Subject[Message[Any]] = Subject()
    batches: list[Batch[Any]] = []
    source.pipe(ops.batch(2, 60.0)).subscribe(batches.append)
    source.on_next(message("bad").with_acknowledger(acks).failed("before"))
    assert acks.calls == [([], ["bad"])]
    source.on_next(message("a").with_acknowledger(acks))
    source.on_next(message("b").with_acknowledger(acks))
    assert [[item.data for item in batch] for batch in batches] == [["a", "b"]]
    assert acks.calls[1:] == [(["a", "b"], [])]
    source.on_completed()


# In real time.


def test_batch_is_emitted_by_thread_after_timeout() -> None:
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
    assert [item.data for batch in batches for item in batch] == ["a", "b"]
    subscription.dispose()


def test_thousand_batches_share_one_timer_thread() -> None:
    source: Subject[Message[Any]] = Subject()
    subscription = source.pipe(ops.batch(2, 60.0)).subscribe(lambda _: None)
    for number in range(2001):
        source.on_next(message(number))
    timers = [thread for thread in threading.enumerate() if thread.name == "rxtweets-batch"]
    assert len(timers) == 1
    subscription.dispose()


def test_unfinished_batch_is_abandoned_on_disposal() -> None:
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


def test_batch_ends_when_disposed_by_its_observer() -> None:
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
def test_batch_refuses_invalid_arguments(arguments: Any, words: str) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match=words):
        ops.batch(*arguments)


def test_batch_timeout_accepts_timedelta() -> None:
    scheduler = TestScheduler()
    source: Any = scheduler.create_hot_observable(on_next(210, message("a")))
    observer: Any = scheduler.start(
        lambda: source.pipe(ops.batch(9, timedelta(seconds=30))), disposed=1000.0
    )
    assert [note.time for note in observer.messages] == [240]
