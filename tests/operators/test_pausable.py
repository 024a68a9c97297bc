"""`pausable`: messages wait while a valve is paused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from reactivex.subject import Subject
from reactivex.testing import ReactiveTest, TestScheduler

import rxtweets
from rxtweets import Message, Valve
from rxtweets import operators as ops

PATIENCE = 20.0
on_next, on_completed = ReactiveTest.on_next, ReactiveTest.on_completed


class Sink:
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.data: list[Any] = []
        self.over = threading.Event()

    def take(self, message: Message[Any]) -> None:
        with self.changed:
            self.data.append(message.data)
            self.changed.notify_all()

    def wait_for(self, *data: Any) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.data == list(data), PATIENCE)


def _doing(turn: Callable[[], object]) -> Callable[..., None]:
    def action(*_: Any) -> None:
        turn()

    return action


def test_messages_and_end_wait_while_paused() -> None:
    scheduler, valve = TestScheduler(), Valve()
    source = scheduler.create_hot_observable(
        *(on_next(210 + 10 * n, Message(n)) for n in range(6)), on_completed(270)
    )
    for time, turn in ((225, valve.pause), (255, valve.resume), (265, valve.pause)):
        scheduler.schedule_absolute(time, _doing(turn))
    scheduler.schedule_absolute(300, _doing(valve.resume))
    observed = scheduler.start(
        lambda: source.pipe(ops.pausable(valve)).map(lambda message: message.data)
    )
    assert observed.messages == [
        on_next(210, 0),
        on_next(220, 1),
        on_next(255, 2),
        on_next(255, 3),
        on_next(255, 4),
        on_next(260, 5),
        on_completed(270),
    ]


def test_polled_source_is_not_polled_while_paused() -> None:
    asked: list[int] = []
    sink, valve = Sink(), Valve()

    def poll(wanted: int) -> list[Message[int]] | None:
        asked.append(wanted)
        return [Message(len(asked))] if len(asked) < 3 else None

    valve.pause()
    stream = rxtweets.polling_source(poll, most=4).pipe(ops.pausable(valve))
    stream.subscribe(sink.take, on_completed=sink.over.set)
    assert not sink.over.wait(0.05)
    assert asked == []
    valve.resume()
    assert sink.over.wait(PATIENCE)
    assert (asked, sink.data) == ([4, 4, 4], [1, 2])


def test_emitting_thread_blocks_until_resumed_or_disposed() -> None:
    source: Subject[Message[int]] = Subject()
    sink, valve = Sink(), Valve()
    stream = source.pipe(ops.pausable(valve))
    subscription = stream.subscribe(sink.take)
    valve.pause()
    emitting = threading.Thread(target=lambda: source.on_next(Message(1)))
    emitting.start()
    emitting.join(0.05)
    assert emitting.is_alive()
    valve.resume()
    assert sink.wait_for(1)
    emitting.join(PATIENCE)
    valve.pause()
    emitting = threading.Thread(target=lambda: source.on_next(Message(2)))
    emitting.start()
    emitting.join(0.05)
    assert emitting.is_alive()
    subscription.dispose()
    emitting.join(PATIENCE)
    assert not emitting.is_alive()
    assert sink.data == [1]
    assert stream.stats().abandoned == 1


def test_valve_is_shared_by_streams() -> None:
    valve = Valve()
    sources = [Subject[Message[int]]() for _ in range(2)]
    sinks = [Sink() for _ in sources]
    scheduler = TestScheduler()
    for source, sink in zip(sources, sinks, strict=True):
        source.pipe(ops.pausable(valve)).subscribe(sink.take, scheduler=scheduler)
    assert valve.pause()
    assert not valve.pause()  # it was paused already
    for source in sources:
        source.on_next(Message(1))
    assert [sink.data for sink in sinks] == [[], []]
    assert valve.resume()
    assert [sink.data for sink in sinks] == [[1], [1]]


def test_pausable_refuses_other_than_valve() -> None:
    with pytest.raises(rxtweets.ConfigurationError, match="valve=None"):
        ops.pausable(None)  # type: ignore[arg-type]  # that is the point
