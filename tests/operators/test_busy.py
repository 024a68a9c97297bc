"""Busy time and spans of the processors of `process`."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import reactivex

from rxtweets import Concurrency, Message, StageStats, events, from_iterable
from rxtweets import operators as ops

PATIENCE = 20.0


class Clock:
    """A clock that only handlers advance."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        with self.lock:
            self.now += seconds

    def sync(self, message: Message[Any]) -> Message[Any]:
        """A handler that takes a second."""
        self.advance(1.0)
        return message

    async def asynchronous(self, message: Message[Any]) -> Message[Any]:
        await asyncio.sleep(0)
        return self.sync(message)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for name, module in list(sys.modules.items()):
        if name.startswith("rxtweets.operators.") and hasattr(module, "perf_counter"):
            monkeypatch.setattr(module, "perf_counter", made)
    in_executors = SimpleNamespace(perf_counter=made, time=time.time)
    monkeypatch.setattr("rxtweets.operators._executor.time", in_executors)
    return made


def same(message: Message[Any]) -> Message[Any]:
    return message


def test_stage_tells_running_and_queued_messages(process: Any) -> None:
    go, begun = threading.Event(), threading.Semaphore(0)

    def wait(message: Message[int]) -> Message[int]:
        begun.release()
        assert go.wait(PATIENCE)
        return message

    watched = process(wait, concurrency=2)
    watched.feed(1, 2, 3)
    for _ in range(2):
        assert begun.acquire(timeout=PATIENCE)
    [stage] = watched.stream.stages()
    assert (stage.name, stage.concurrency, stage.running) == ("processors", 2, 2)
    assert (stage.in_flight, stage.queued) == (3, 1)
    go.set()
    watched.complete()


def test_stage_counts_received_done_and_failed_messages(process: Any) -> None:
    watched = process(failing)
    watched.feed("good", "bad", "good")
    watched.complete()
    [stage] = watched.stream.stages()
    assert (stage.received, stage.done, stage.failed) == (3, 2, 1)
    assert (stage.in_flight, stage.queued) == (0, 0)


def test_stage_has_a_rate_until_it_ends(process: Any) -> None:
    watched = process(same)
    watched.feed(1, 2, 3)
    [stage] = watched.stream.stages()
    assert stage.rate > 0.0
    watched.complete()
    [stage] = watched.stream.stages()
    assert stage.rate == 0.0


def test_running_call_counts_as_busy(process: Any, clock: Clock) -> None:
    go, begun = threading.Event(), threading.Event()

    def wait(message: Message[int]) -> Message[int]:
        begun.set()
        assert go.wait(PATIENCE)
        return message

    watched = process(wait, concurrency=2)
    watched.feed(1)
    assert begun.wait(PATIENCE)
    [first] = watched.stream.stages()
    clock.advance(3.0)
    [second] = watched.stream.stages()
    assert second.busy_seconds == first.busy_seconds + 3.0
    assert second.busy_since(first) == 0.5, "one of two calls runs"
    go.set()
    watched.complete()


@pytest.mark.parametrize("name", ["sync", "asynchronous"])
@pytest.mark.parametrize("options", [{}, {"ordered": True}, {"time_limit": 10_000.0}])
def test_busy_time_is_the_sum_of_all_calls(
    process: Any, clock: Clock, name: str, options: dict[str, Any]
) -> None:
    watched = process(getattr(clock, name), range(50), concurrency=5, **options)
    watched.until_end()
    [stage] = watched.stream.stages()
    assert stage.busy_seconds >= 50.0, "those that run meanwhile take as long"
    assert stage.running == stage.in_flight == 0
    assert 0.0 < stage.busy <= 1.0


def test_busy_time_includes_calls_in_an_executor(process: Any, clock: Clock) -> None:
    with ThreadPoolExecutor(1) as executor:
        watched = process(clock.sync, range(20), executor=executor)
        watched.until_end()
    [stage] = watched.stream.stages()
    assert stage.busy_seconds == 20.0


def test_busy_time_includes_quick_calls(process: Any) -> None:
    watched = process(same, range(20_000))
    watched.until_end()
    [stage] = watched.stream.stages()
    assert stage.busy_seconds > 0.0


def test_capacity_follows_the_concurrency(process: Any, clock: Clock) -> None:
    limit = Concurrency(1)
    watched = process(same, concurrency=limit)
    [first] = watched.stream.stages()
    clock.advance(2.0)
    limit.limit = 1000
    clock.advance(3.0)
    [second] = watched.stream.stages()
    assert second.capacity_seconds - first.capacity_seconds == 1 * 2.0 + 1000 * 3.0
    watched.complete()


def test_stages_list_two_process_operators() -> None:
    source: reactivex.Subject[Message[Any]] = reactivex.Subject()
    stream = source.pipe(ops.process(same, 3), ops.process(same, 7))
    with stream.subscribe():
        assert sorted(stage.concurrency for stage in stream.stages()) == [3, 7]


def test_stages_of_all_branches_stay_when_they_have_ended() -> None:
    messages = from_iterable([Message(number) for number in range(10)])
    branch = (ops.process(same), ops.batch(3, 1.0))
    stream = messages.pipe(ops.partition(lambda message: int(message.data >= 7), 2, *branch))
    stream.to_list().run()
    stages = stream.stages()
    assert sorted(stage.done for stage in stages if stage.kind == "batcher") == [3, 7]
    stream.to_list().run()  # again: these take the places of those
    assert len(stream.stages()) == len(stages) == 4


def test_busy_share_is_between_zero_and_one() -> None:
    assert StageStats("processors", 1, 0, 0, 0.0, 0.0).busy == 0.0
    assert StageStats("processors", 1, 0, 0, 1.0, 4.0).busy == 0.25
    assert StageStats("processors", 1, 0, 0, 5.0, 4.0).busy == 1.0


# Spans.


def failing(message: Message[Any]) -> Message[Any]:
    if message.data == "bad":
        raise ValueError("bad")
    return message


async def failing_async(message: Message[Any]) -> Message[Any]:
    await asyncio.sleep(0)
    return failing(message)


@pytest.mark.parametrize(
    ("handler", "options"), [(failing, {}), (failing, {"ordered": True}), (failing_async, {})]
)
def test_handler_span_is_within_a_processor_span(
    process: Any, handler: Any, options: dict[str, Any]
) -> None:
    watched = process(handler, **options)
    spans: list[events.Span] = []
    watched.stream.spans.subscribe(spans.append)
    watched.feed("good", "bad")
    watched.complete()
    assert watched.stream.telemetry.bus.flush()

    def of(kind: type[events.Span]) -> list[Any]:
        return [span for span in spans if isinstance(span, kind)]

    begun = {span.number: span for span in of(events.HandlerStarted)}
    assert sorted(span.message.data for span in begun.values()) == ["bad", "good"]
    [stopped], [raised] = of(events.HandlerStopped), of(events.HandlerRaised)
    assert stopped.message.data == "good"
    assert (raised.message.data, repr(raised.error)) == ("bad", "ValueError('bad')")
    for over in (stopped, raised):
        assert begun[over.number].started == over.started
        assert over.duration >= 0.0
    processors = {span.number for span in of(events.ProcessorStarted)}
    assert {stopped.parent, raised.parent} <= processors
    assert processors == {span.number for span in of(events.ProcessorStopped)}
    ended = of(events.ProcessorStopped)
    assert [message.data for span in ended for message in span.successful] == ["good"]
    assert [message.data for span in ended for message in span.failed] == ["bad"]


def test_no_spans_are_made_for_event_subscribers(process: Any) -> None:
    watched = process(failing, ["good", "bad"])
    watched.until_end()
    assert watched.happened(events.Span) == []
    assert len(watched.happened(events.HandlerFailed)) == 1


def test_no_spans_are_made_when_their_subscriber_has_left(process: Any) -> None:
    watched = process(failing)
    subscription = watched.stream.spans.subscribe()
    assert watched.stream.telemetry.bus.is_traced
    subscription.dispose()
    assert not watched.stream.telemetry.bus.is_traced


def test_quick_calls_have_spans(process: Any) -> None:
    watched = process(lambda message: message)
    stopped: list[int] = []

    def note(span: events.Span) -> None:
        if isinstance(span, events.HandlerStopped):
            stopped.append(span.message.data)

    watched.stream.spans.subscribe(note)
    for start in range(0, 2000, 100):
        watched.feed(*range(start, start + 100))
        watched.until(lambda start=start: len(watched.data) == start + 100)
        assert watched.stream.telemetry.bus.flush()
    assert sorted(stopped) == list(range(2000))
    assert watched.stats().events_lost == 0


def test_chunk_in_an_executor_is_a_span(process: Any) -> None:
    spans: list[events.Span] = []
    with ThreadPoolExecutor(1) as executor:
        watched = process(failing, executor=executor)
        watched.stream.spans.subscribe(spans.append)
        watched.feed("good", "bad")
        watched.complete()
    assert watched.stream.telemetry.bus.flush()
    over = [span for span in spans if isinstance(span, events.ProcessorStopped)]
    assert [message.data for span in over for message in span.failed] == ["bad"]
