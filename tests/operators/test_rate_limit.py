from __future__ import annotations

import threading
from typing import Any

import pytest
import reactivex
from reactivex.subject import Subject
from reactivex.testing import ReactiveTest, TestScheduler

import rxtweets
from rxtweets import Message, RateLimit
from rxtweets import operators as ops

PATIENCE = 20.0
NEVER = 600.0
on_next, on_error, on_completed = (
    ReactiveTest.on_next,
    ReactiveTest.on_error,
    ReactiveTest.on_completed,
)


def limited(limit: Any, *notes: Any, disposed: float = 1000.0) -> list[tuple[float, Any]]:
    scheduler = TestScheduler()
    source: Any = scheduler.create_hot_observable(*notes)
    observer: Any = scheduler.start(lambda: source.pipe(ops.rate_limit(*limit)), disposed=disposed)
    return [
        (note.time, note.value.value.data if note.value.kind == "N" else note.value.kind)
        for note in observer.messages
    ]


def test_interval_starts_with_first_message() -> None:
    notes = [on_next(210 + number, Message(number)) for number in range(5)]
    assert limited((2, 50.0), *notes) == [(210, 0), (211, 1), (260, 2), (260, 3), (310, 4)]


def test_unused_room_is_not_kept() -> None:
    notes = [on_next(time, Message(time)) for time in (210, 400, 401, 402)]
    assert [time for time, _ in limited((2, 50.0), *notes)] == [210, 400, 401, 450]


def test_end_waits_for_messages() -> None:
    fault = ValueError("source")
    notes = [on_next(210, Message(1)), on_next(211, Message(2)), on_error(212, fault)]
    assert limited((1, 50.0), *notes) == [(210, 1), (260, 2), (260, "E")]


def test_rate_limit_emits_nothing_after_disposal() -> None:
    notes = [on_next(210, Message(1)), on_next(211, Message(2))]
    assert limited((1, 50.0), *notes, disposed=250.0) == [(210, 1)]


def test_rate_limit_is_shared_by_streams() -> None:
    scheduler = TestScheduler()
    limit = RateLimit(3, 50.0)
    sources: Any = [
        scheduler.create_hot_observable(*[on_next(210 + n, Message(n)) for n in range(3)])
        for _ in range(2)
    ]
    observer: Any = scheduler.start(
        lambda: reactivex.merge(*[source.pipe(ops.rate_limit(limit)) for source in sources])
    )
    assert [note.time for note in observer.messages] == [210, 210, 211, 260, 260, 260]


def test_emitting_thread_blocks_until_limit_is_lifted() -> None:
    limit = RateLimit(2, NEVER)
    source: Subject[Message[int]] = Subject()
    got: list[int] = []
    second = threading.Event()

    def take(message: Message[int]) -> None:
        got.append(message.data)
        if message.data == 1:
            second.set()

    source.pipe(ops.rate_limit(limit)).subscribe(take)

    def emit() -> None:
        for number in range(5):
            source.on_next(Message(number))

    emitter = threading.Thread(target=emit)
    emitter.start()
    assert second.wait(PATIENCE)
    emitter.join(0.05)
    assert (emitter.is_alive(), got) == (True, [0, 1])
    limit.lift()
    emitter.join(PATIENCE)
    assert got == [0, 1, 2, 3, 4]


def test_disposal_unblocks_thread_and_counts_its_messages() -> None:
    source: Subject[Message[int]] = Subject()
    stream = source.pipe(ops.rate_limit(1, NEVER))
    subscription = stream.subscribe()
    source.on_next(Message(0))
    emitter = threading.Thread(target=lambda: source.on_next(Message(1)))
    emitter.start()
    emitter.join(0.05)
    subscription.dispose()
    emitter.join(PATIENCE)
    assert not emitter.is_alive()
    assert stream.stats().abandoned == 1


def test_observer_can_feed_its_source() -> None:
    source: Subject[Message[int]] = Subject()
    got: list[int] = []

    def take(message: Message[int]) -> None:
        got.append(message.data)
        if message.data < 3:
            source.on_next(Message(message.data + 1))

    source.pipe(ops.rate_limit(10, NEVER)).subscribe(take)
    source.on_next(Message(0))
    assert got == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 1.0), "allowed"),
        ((5,), "interval"),
        ((5, 0.0), "interval"),
        ((RateLimit(1, 1.0), 2.0), "interval"),
        ((None, None), "interval"),
    ],
)
def test_rate_limit_refuses_invalid_arguments(arguments: Any, words: str) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match=words):
        ops.rate_limit(*arguments)


def test_rate_limit_repr_shows_limit() -> None:
    assert repr(RateLimit(5, 2)) == "RateLimit(5, 2.0)"
