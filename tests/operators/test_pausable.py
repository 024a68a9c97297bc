"""`pausable`: messages wait while a valve is paused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
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


# demand


@pytest.fixture(params=["acknowledge", "deduplicate", "partition", "record", "route"])
def gated_by(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Valve], list[Any]]:
    """Return operators that end in a valve."""

    def operators(valve: Valve) -> list[Any]:
        gate = ops.pausable(valve)
        return {
            "acknowledge": [ops.acknowledge(), gate],
            "deduplicate": [ops.deduplicate(), gate],
            "partition": [ops.partition(lambda message: message.data, 2, gate)],
            "record": [rxtweets.record(tmp_path / "recording.jsonl"), gate],
            "route": [ops.route({"default": ops.acknowledge(), "slow": gate})],
        }[request.param]

    return operators


def test_demand_passes_operators_before_the_valve(
    gated_by: Callable[[Valve], list[Any]],
) -> None:
    scheduler, valve = TestScheduler(), Valve()
    asked: list[tuple[float, int]] = []

    def poll(wanted: int) -> list[Message[int]] | None:
        asked.append((scheduler.clock, wanted))
        return [Message(len(asked))] if len(asked) < 3 else None

    valve.pause()
    scheduler.schedule_absolute(450, _doing(valve.resume))
    source = rxtweets.polling_source(poll, interval=100.0, most=4)
    observed = scheduler.start(lambda: source.pipe(*gated_by(valve)))
    assert asked == [(500, 4), (500, 4), (500, 4)]
    assert [item.time for item in observed.messages] == [500, 500, 500]


def test_source_of_paused_pipeline_is_not_polled(gated_by: Callable[[Valve], list[Any]]) -> None:
    scheduler = TestScheduler()
    asked: list[float] = []

    def poll(_: int) -> list[Message[int]] | None:
        asked.append(scheduler.clock)
        return None

    source = rxtweets.polling_source(poll, interval=100.0).pipe(*gated_by(Valve()))
    pipeline = rxtweets.Pipeline(source, handle_message=lambda message: message)
    pipeline.pause()
    pipeline.start(scheduler=scheduler)
    scheduler.advance_to(250)
    assert asked == []
    pipeline.resume()
    scheduler.advance_to(350)
    assert len(asked) == 1
