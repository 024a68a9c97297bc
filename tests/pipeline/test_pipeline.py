from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import chain
from typing import Any

import pytest
import reactivex
from reactivex import Observable, Observer, abc
from reactivex import operators as ops
from reactivex.disposable import Disposable
from reactivex.subject import Subject

import rxtweets
from rxtweets import (
    Acknowledger,
    Batch,
    Batcher,
    CallerAcknowledger,
    ConfigurationError,
    Failed,
    Message,
    Pipeline,
    Restart,
    Subscriber,
    events,
    simulator,
)
from rxtweets.errors import (
    ConnectionLost,
    HandlerError,
    PipelineError,
    SourceError,
    SubscriberError,
)
from rxtweets.subscribers import Buffered
from rxtweets.testing import DummySource
from tests.pipeline.held import Held

PATIENCE = 20.0
NEVER = 600.0
NAN = float("nan")

Handler = Callable[[Message[Any]], Message[Any]]


class Recorder(Subscriber[Any]):
    """Keeps its calls; it does not call the constructor of its base, on purpose."""

    def __init__(self) -> None:
        self.batches: list[Batch[Any]] = []
        self.ends: list[Exception | None] = []
        self.over = threading.Event()

    def on_next(self, batch: Batch[Any]) -> None:
        self.batches.append(batch)

    def on_error(self, error: Exception) -> None:
        self.ends.append(error)
        self.over.set()

    def on_completed(self) -> None:
        self.ends.append(None)
        self.over.set()

    @property
    def texts(self) -> list[list[Any]]:
        return [[message.data for message in batch] for batch in self.batches]


def messages(count: int) -> list[Message[Any]]:
    return [Message(f"text {number}") for number in range(count)]


def finite(count: int) -> Observable[Message[Any]]:
    return reactivex.from_iterable(messages(count))


def endless(count: int, closed: threading.Event | None = None) -> Observable[Message[Any]]:
    """Emit ``count`` messages and no end; ``closed`` is set when the source is disposed of."""
    return finite(count).pipe(
        ops.concat(reactivex.never()),
        ops.finally_action(lambda: closed.set() if closed else None),
    )


def failing(count: int, error: Exception) -> Observable[Message[Any]]:
    return finite(count).pipe(ops.concat(reactivex.throw(error)))


def named(acknowledger: Acknowledger) -> Callable[[Message[Any]], Message[Any]]:
    return lambda message: message.with_acknowledger(acknowledger)


def pipeline_of(
    source: Observable[Message[Any]],
    subscriber: abc.ObserverBase[Batch[Any]] | Callable[[Batch[Any]], object],
    handler: Handler | None = None,
    *,
    size: int = 10,
    concurrency: int = 4,
    ordered: bool = False,
    restart: Restart | None = Restart(),  # noqa: B008 - it has no state
) -> Pipeline:
    batchers = {"default": Batcher(subscriber, size=size, timeout=NEVER)}
    return Pipeline(
        source,
        handle_message=handler,
        concurrency=concurrency,
        ordered=ordered,
        restart=restart,
        batchers=batchers,
    )


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def stray_signals() -> Iterator[list[int]]:
    """Signals that were not handled; without this, one of them would end the test run."""
    strays: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {
        number: signal.signal(number, lambda got, _: strays.append(got)) for number in numbers
    }
    yield strays
    for number, handler in before.items():
        signal.signal(number, handler)


def test_run_handles_all_messages_of_source(recorder: Recorder) -> None:
    pipeline = pipeline_of(finite(25), recorder, lambda message: message.update_data(str.upper))
    stats = pipeline.run()
    assert [len(batch) for batch in recorder.batches] == [10, 10, 5]
    assert sorted(chain.from_iterable(recorder.texts)) == sorted(
        f"TEXT {number}" for number in range(25)
    )
    assert recorder.ends == [None]
    assert (stats.processed, stats.batches, stats.batched, stats.abandoned) == (25, 3, 25, 0)


def test_messages_are_batched_unchanged_without_handler(recorder: Recorder) -> None:
    stats = pipeline_of(finite(3), recorder, size=2).run()
    assert recorder.texts == [["text 0", "text 1"], ["text 2"]]
    assert [batch.info.trigger for batch in recorder.batches] == ["size", "flush"]
    assert (stats.processed, stats.batches) == (0, 2)


def test_empty_source_completes_without_batch(recorder: Recorder) -> None:
    pipeline_of(reactivex.empty(), recorder, lambda message: message).run()
    assert (recorder.batches, recorder.ends) == ([], [None])


def test_ordered_pipeline_keeps_order_of_source(recorder: Recorder) -> None:
    second_done = threading.Event()

    def handler(message: Message[Any]) -> Message[Any]:
        if message.data == "text 0":
            assert second_done.wait(PATIENCE)
        elif message.data == "text 1":
            second_done.set()
        return message

    pipeline_of(finite(3), recorder, handler, ordered=True).run()
    assert recorder.texts == [["text 0", "text 1", "text 2"]]


def test_handlers_run_concurrently(recorder: Recorder) -> None:
    together = threading.Barrier(3)

    def handler(message: Message[Any]) -> Message[Any]:
        together.wait(PATIENCE)
        return message

    stats = pipeline_of(finite(3), recorder, handler, concurrency=3).run()
    assert (stats.processed, stats.failed) == (3, 0)


def test_start_takes_messages_that_follow_immediately(recorder: Recorder) -> None:
    source: Subject[Message[Any]] = Subject()
    pipeline = pipeline_of(source, recorder)
    assert pipeline.start() is pipeline
    source.on_next(Message("right after"))
    pipeline.stop()
    assert recorder.texts == [["right after"]]


def test_stop_drains_and_completes_subscriber(recorder: Recorder) -> None:
    source: Subject[Message[Any]] = Subject()
    pipeline = pipeline_of(source, recorder, lambda message: message).start()
    for message in messages(3):
        source.on_next(message)
    stats = pipeline.stop()
    assert sorted(recorder.texts[0]) == ["text 0", "text 1", "text 2"]
    assert recorder.batches[0].info.trigger == "flush"
    assert recorder.ends == [None]
    assert (stats.processed, stats.in_flight, stats.abandoned) == (3, 0, 0)


def test_stop_waits_for_running_handler(recorder: Recorder) -> None:
    closed = threading.Event()
    held = Held()
    pipeline = pipeline_of(endless(1, closed), recorder, held).start()
    assert held.entered.wait(PATIENCE)
    stopper = threading.Thread(target=pipeline.stop)
    stopper.start()
    assert closed.wait(PATIENCE)
    assert stopper.is_alive()
    held.released.set()
    stopper.join(PATIENCE)
    assert (recorder.texts, recorder.ends) == ([["text 0"]], [None])


def test_stats_add_up_in_flight_of_sources(recorder: Recorder) -> None:
    held = Held()
    subjects: list[Subject[Message[Any]]] = [Subject(), Subject()]
    sources = [subject.pipe(rxtweets.operators.process(held)) for subject in subjects]
    batchers = {"default": Batcher(recorder, size=16, timeout=NEVER)}
    with Pipeline(sources, handle_message=lambda message: message, batchers=batchers) as pipeline:
        for subject in subjects:
            for message in messages(8):
                subject.on_next(message)
        before = pipeline.stats().in_flight
        held.released.set()
    assert (before, pipeline.stats().in_flight) == (16, 0)


def test_stats_have_state_and_lag_of_a_derived_stream() -> None:
    arrived = threading.Event()
    with simulator.serve(rate=500) as x:
        tweets = rxtweets.sample_stream(token="any", base_url=x.url)
        sources = [tweets.filter(lambda _: True), reactivex.never()]
        batchers = {"default": Batcher(lambda _: arrived.set(), size=1)}
        with Pipeline(sources, batchers=batchers) as pipeline:
            assert arrived.wait(PATIENCE)
            stats = pipeline.stats()
    assert stats.state == "connected"
    assert stats.lag is not None


def test_stats_count_a_stream_of_two_sources_once() -> None:
    with simulator.serve(rate=None) as x:
        tweets = rxtweets.sample_stream(token="any", base_url=x.url, limit=50)
        sources = [tweets.filter(lambda _: True), tweets.filter(lambda _: False)]
        stats = Pipeline(sources, batchers={"default": Batcher(lambda _: None)}).run()
    assert stats.received == tweets.stats().received > 0


def test_stats_are_idle_without_a_connection(recorder: Recorder) -> None:
    stats = Pipeline([DummySource(), finite(1)], batchers={"default": Batcher(recorder)}).stats()
    assert (stats.state, stats.lag) == ("idle", None)


def test_state_ignores_sources_without_a_connection(recorder: Recorder) -> None:
    tweets = rxtweets.sample_stream(token="any", base_url="http://127.0.0.1:1")
    tweets.telemetry.show("state", lambda: "connected")
    tweets.telemetry.show("lag", lambda: 1.5)
    sources = [tweets.filter(lambda _: True), DummySource()]
    stats = Pipeline(sources, batchers={"default": Batcher(recorder)}).stats()
    assert (stats.state, stats.lag) == ("connected", 1.5)


def test_state_is_furthest_from_connected_of_derived_streams(recorder: Recorder) -> None:
    url = "http://127.0.0.1:1"
    streams = [rxtweets.sample_stream(token="any", base_url=url) for _ in range(2)]
    streams[0].telemetry.show("state", lambda: "connected")
    streams[0].telemetry.show("lag", lambda: 1.5)
    streams[1].telemetry.show("state", lambda: "stalled")
    streams[1].telemetry.show("lag", lambda: 0.5)
    sources = [stream.filter(lambda _: True) for stream in streams]
    stats = Pipeline(sources, batchers={"default": Batcher(recorder)}).stats()
    assert (stats.state, stats.lag) == ("stalled", 1.5)


def test_stop_disposes_of_source(recorder: Recorder) -> None:
    source: Subject[Message[Any]] = Subject()
    pipeline = pipeline_of(source, recorder).start()
    assert len(source.observers) == 1
    pipeline.stop()
    assert source.observers == []
    source.on_next(Message("too late"))
    assert recorder.batches == []


def test_stop_without_drain_abandons_handled_message(recorder: Recorder) -> None:
    held = Held()
    pipeline = pipeline_of(endless(1), recorder, held).start()
    seen: list[events.Event] = []
    pipeline.events.subscribe(seen.append)
    assert held.entered.wait(PATIENCE)
    stats = pipeline.stop(drain=False)
    held.released.set()
    assert (stats.abandoned, stats.in_flight, stats.processed) == (1, 0, 0)
    assert [item for item in seen if isinstance(item, events.Abandoned)] == [
        events.Abandoned(1, "processors")
    ]
    assert (recorder.batches, recorder.ends) == ([], [])
    assert pipeline.wait(PATIENCE)


def test_stop_without_drain_abandons_unfinished_batch(recorder: Recorder) -> None:
    source: Subject[Message[Any]] = Subject()
    pipeline = pipeline_of(source, recorder).start()
    for message in messages(3):
        source.on_next(message)
    assert pipeline.stop(drain=False).abandoned == 3
    assert (recorder.batches, recorder.ends) == ([], [])


def test_drain_abandons_rest_after_timeout(recorder: Recorder) -> None:
    held = Held()
    pipeline = pipeline_of(endless(1), recorder, held).start()
    assert held.entered.wait(PATIENCE)
    stats = pipeline.stop(timeout=0.05)
    held.released.set()
    assert stats.abandoned == 1
    assert recorder.batches == []


def test_second_stop_changes_nothing(recorder: Recorder) -> None:
    pipeline = pipeline_of(endless(2), recorder, lambda message: message).start()
    first = pipeline.stop()
    assert pipeline.stop() == first
    assert pipeline.stop(drain=False) == first
    assert recorder.ends == [None]


def test_threads_can_stop_simultaneously(recorder: Recorder) -> None:
    pipeline = pipeline_of(endless(20), recorder, lambda message: message).start()
    start = threading.Barrier(8)
    done: list[int] = []

    def stop() -> None:
        start.wait(PATIENCE)
        done.append(pipeline.stop(timeout=PATIENCE).abandoned)

    threads = [threading.Thread(target=stop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert done == [0] * 8
    assert recorder.ends == [None]


def test_stop_before_start_does_nothing(recorder: Recorder) -> None:
    pipeline = pipeline_of(finite(1), recorder)
    assert pipeline.stop().batches == 0
    assert pipeline.run().batches == 1


def test_start_is_refused_twice(recorder: Recorder) -> None:
    pipeline = pipeline_of(endless(0), recorder).start()
    with pytest.raises(PipelineError, match="runs once"):
        pipeline.start()
    pipeline.stop()
    with pytest.raises(PipelineError, match="runs once"):
        pipeline.start()


def test_run_is_refused_after_start(recorder: Recorder) -> None:
    source: Subject[Message[Any]] = Subject()
    pipeline = pipeline_of(source, recorder).start()
    with pytest.raises(PipelineError, match="runs once"):
        pipeline.run()
    source.on_next(Message("still there"))
    pipeline.stop()
    assert recorder.texts == [["still there"]]


def test_with_block_drains_at_end(recorder: Recorder) -> None:
    source: Subject[Message[Any]] = Subject()
    with pipeline_of(source, recorder, lambda message: message) as pipeline:
        assert isinstance(pipeline, Pipeline)
        source.on_next(Message("inside"))
    assert (recorder.texts, recorder.ends) == ([["inside"]], [None])


def test_with_block_stops_immediately_on_error(recorder: Recorder) -> None:
    source: Subject[Message[Any]] = Subject()
    pipeline = pipeline_of(source, recorder)

    def block() -> None:
        with pipeline:
            source.on_next(Message("inside"))
            raise RuntimeError("in the block")

    with pytest.raises(RuntimeError, match="in the block"):
        block()
    assert (pipeline.stats().abandoned, recorder.batches) == (1, [])


def test_wait_before_start_is_refused(recorder: Recorder) -> None:
    with pytest.raises(PipelineError, match="after start"):
        pipeline_of(finite(1), recorder).wait(1)


def test_wait_returns_whether_pipeline_has_ended(recorder: Recorder) -> None:
    source: Subject[Message[Any]] = Subject()
    pipeline = pipeline_of(source, recorder).start()
    assert pipeline.wait(0.01) is False
    source.on_completed()
    assert pipeline.wait(timedelta(seconds=PATIENCE)) is True
    assert pipeline.wait() is True


def test_wait_raises_error_of_source(recorder: Recorder) -> None:
    error = ConnectionLost("gone for good")
    pipeline = pipeline_of(failing(3, error), recorder, lambda message: message).start()
    with pytest.raises(ConnectionLost) as caught:
        pipeline.wait(PATIENCE)
    assert caught.value is error


def test_run_raises_error_of_source_after_last_batch(recorder: Recorder) -> None:
    error = ConnectionLost("gone for good")
    pipeline = pipeline_of(failing(3, error), recorder, lambda message: message)
    with pytest.raises(ConnectionLost) as caught:
        pipeline.run()
    assert caught.value is error
    assert [len(batch) for batch in recorder.batches] == [3]
    assert recorder.ends == [error]


def test_failing_subscription_is_an_error_of_source(recorder: Recorder) -> None:
    def subscribe(_observer: object, _scheduler: object) -> Disposable:
        raise OSError("no such source")

    pipeline = pipeline_of(Observable(subscribe), recorder, restart=None)
    with pytest.raises(SourceError, match="no such source") as caught:
        pipeline.run()
    assert isinstance(caught.value.__cause__, OSError)
    assert recorder.ends == [caught.value]


def test_message_fails_when_handler_raises(recorder: Recorder) -> None:
    outcomes: list[tuple[Sequence[Message[Any]], Sequence[Message[Any]]]] = []
    acknowledger = CallerAcknowledger(lambda good, bad: outcomes.append((good, bad)))
    fault = ValueError("cannot read this")

    def handler(message: Message[Any]) -> Message[Any]:
        if message.data == "text 1":
            raise fault
        return message

    source = finite(3).pipe(ops.map(named(acknowledger)))
    pipeline = pipeline_of(source, recorder, handler)
    seen: list[events.Event] = []
    pipeline.events.subscribe(seen.append)
    stats = pipeline.run()
    assert (stats.processed, stats.failed, stats.batched) == (2, 1, 2)
    assert sorted(recorder.texts[0]) == ["text 0", "text 2"]
    failures = [event.message for event in seen if isinstance(event, events.HandlerFailed)]
    assert [message.status for message in failures] == [Failed(fault)]
    assert sorted(message.data for good, _ in outcomes for message in good) == ["text 0", "text 2"]
    assert [message.data for _, bad in outcomes for message in bad] == ["text 1"]


def test_message_fails_when_handler_returns_none(recorder: Recorder) -> None:
    handler: Any = lambda _message: None  # noqa: E731
    pipeline = pipeline_of(finite(1), recorder, handler)
    seen: list[events.Event] = []
    pipeline.events.subscribe(seen.append)
    assert pipeline.run().failed == 1
    (failure,) = [event for event in seen if isinstance(event, events.HandlerFailed)]
    assert isinstance(failure.message.status, Failed)
    assert isinstance(failure.message.status.reason, HandlerError)


def test_batch_fails_when_subscriber_raises() -> None:
    outcomes: list[Message[Any]] = []
    acknowledger = CallerAcknowledger(lambda _good, bad: outcomes.extend(bad))
    taken: list[Batch[Any]] = []
    fault = ValueError("disk full")

    def subscriber(batch: Batch[Any]) -> None:
        taken.append(batch)
        if len(taken) == 1:
            raise fault

    source = finite(4).pipe(ops.map(named(acknowledger)))
    pipeline = pipeline_of(source, subscriber, size=2)
    seen: list[events.Event] = []
    pipeline.events.subscribe(seen.append)
    stats = pipeline.run()
    assert len(taken) == 2
    assert (stats.batches, stats.batches_failed) == (1, 1)
    assert (stats.batched, stats.batched_failed, stats.subscriber_errors) == (2, 2, 1)
    assert [event.error for event in seen if isinstance(event, events.BatchFailed)] == [fault]
    reasons = [message.status.reason for message in outcomes if isinstance(message.status, Failed)]
    assert [type(reason) for reason in reasons] == [SubscriberError, SubscriberError]


def failing_at(*numbers: int) -> Callable[[Batch[Any]], None]:
    """A subscriber that fails the batches of these numbers, from 1."""
    count = iter(range(1, 10**9))

    def take(_: Batch[Any]) -> None:
        if next(count) in numbers:
            raise ValueError("disk full")

    return take


def limited(source: Observable[Message[Any]], subscriber: Any, most: int) -> Pipeline:
    return Pipeline(
        source, batchers={"default": Batcher(subscriber, size=1)}, max_failed_batches=most
    )


def test_run_raises_when_too_many_batches_fail_in_a_row() -> None:
    pipeline = limited(endless(4), failing_at(2, 3, 4), 3)
    with pytest.raises(SubscriberError, match="3 batches of the batcher 'default'") as caught:
        pipeline.run(timeout=PATIENCE)
    assert isinstance(caught.value.__cause__, ValueError)
    stats = pipeline.stats()
    assert (stats.batches, stats.batches_failed, stats.abandoned) == (1, 3, 0)


def test_pipeline_continues_when_failures_are_not_in_a_row() -> None:
    stats = limited(finite(9), failing_at(1, 2, 4, 5, 7, 8), 3).run()
    assert (stats.batches, stats.batches_failed) == (3, 6)


def test_failed_batches_are_counted_for_each_batcher() -> None:
    stats = Pipeline(
        finite(6),
        handle_message=lambda message: message.put_batcher("ab"[int(message.data[-1]) % 2]),
        ordered=True,
        batchers={"a": Batcher(failing_at(1, 3), size=1), "b": Batcher(print, size=1)},
        max_failed_batches=2,
    ).run()
    assert (stats.batches, stats.batches_failed) == (4, 2)


def test_batch_fails_when_all_its_messages_fail() -> None:
    def refuse(batch: Batch[Any]) -> list[Message[Any]]:
        return [message.failed("refused") for message in batch]

    with pytest.raises(SubscriberError, match="all of its messages"):
        limited(finite(3), refuse, 2).run()


def test_failed_batches_are_counted_when_a_queue_is_between() -> None:
    with pytest.raises(SubscriberError, match="2 batches"):
        limited(finite(5), Buffered(failing_at(1, 2)), 2).run()


@pytest.mark.parametrize("most", [0, -1, 1.5, True, "3"])
def test_max_failed_batches_is_refused_when_invalid(most: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_failed_batches"):
        limited(finite(1), print, most)


def test_max_failed_batches_is_refused_without_batchers() -> None:
    with pytest.raises(ConfigurationError, match="give batchers="):
        Pipeline(finite(1), handle_message=lambda message: message, max_failed_batches=3)


@pytest.mark.parametrize("error", [None, ConnectionLost("gone for good")])
def test_pipeline_ends_when_subscriber_raises_at_end(
    error: Exception | None,
) -> None:
    class Clumsy(Recorder):
        def on_completed(self) -> None:
            raise ValueError("cannot close")

        def on_error(self, error: Exception) -> None:
            raise ValueError("cannot close") from error

    source = finite(1) if error is None else failing(1, error)
    pipeline = pipeline_of(source, Clumsy()).start()
    if error is None:
        assert pipeline.wait(PATIENCE)
    else:
        with pytest.raises(ConnectionLost):
            pipeline.wait(PATIENCE)
    assert pipeline.stop().subscriber_errors == 1


def test_function_can_subscribe() -> None:
    taken: list[Batch[Any]] = []
    pipeline_of(finite(1), taken.append).run()
    assert len(taken) == 1


def test_rxpy_observer_can_subscribe() -> None:
    taken: list[Batch[Any]] = []
    ends: list[str] = []
    observer = Observer(
        taken.append, lambda _: ends.append("error"), lambda: ends.append("completed")
    )
    pipeline_of(finite(1), observer).run()
    assert (len(taken), ends) == (1, ["completed"])


def test_rxpy_subject_can_subscribe() -> None:
    subject: Subject[Batch[Any]] = Subject()
    sizes: list[int] = []
    subject.pipe(ops.map(len)).subscribe(sizes.append)
    pipeline_of(finite(3), subject, size=2).run()
    assert sizes == [2, 1]
    assert subject.is_stopped


def test_callable_observer_is_ended() -> None:
    class Both(Recorder):
        def __call__(self, batch: Batch[Any]) -> None:
            raise AssertionError(batch)

    both = Both()
    pipeline_of(finite(1), both).run()
    assert (both.texts, both.ends) == ([["text 0"]], [None])


@pytest.mark.parametrize("drain", [True, False])
def test_handler_can_stop_its_pipeline(recorder: Recorder, *, drain: bool) -> None:
    started = threading.Event()
    returned = threading.Event()

    def handler(message: Message[Any]) -> Message[Any]:
        assert started.wait(PATIENCE)
        pipeline.stop(drain=drain)
        returned.set()
        return message

    pipeline = pipeline_of(endless(1), recorder, handler)
    pipeline.start()
    started.set()
    assert pipeline.wait(PATIENCE)
    assert returned.wait(PATIENCE)
    assert (recorder.texts, recorder.ends) == (([["text 0"]], [None]) if drain else ([], []))
    assert pipeline.stats().abandoned == (0 if drain else 1)


@pytest.mark.parametrize("handler", [None, lambda message: message])
def test_subscriber_can_stop_its_pipeline(handler: Handler | None) -> None:
    class Stopper(Recorder):
        def on_next(self, batch: Batch[Any]) -> None:
            super().on_next(batch)
            pipeline.stop()

    stopper = Stopper()
    pipeline = pipeline_of(endless(1), stopper, handler, size=1)
    pipeline.start()
    assert pipeline.wait(PATIENCE)
    assert (stopper.texts, stopper.ends) == ([["text 0"]], [None])


def test_subscriber_can_stop_pipeline_while_it_starts() -> None:
    closed = threading.Event()
    inside: list[abc.ObserverBase[Message[Any]]] = []

    def subscribe(
        observer: abc.ObserverBase[Message[Any]], _scheduler: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        inside.append(observer)
        observer.on_next(Message("first"))
        return Disposable(closed.set)

    class Stopper(Recorder):
        def on_next(self, batch: Batch[Any]) -> None:
            super().on_next(batch)
            pipeline.stop(drain=False)

    stopper = Stopper()
    pipeline = pipeline_of(Observable(subscribe), stopper, size=1)
    pipeline.start()
    assert pipeline.wait(PATIENCE)
    inside[0].on_next(Message("too late"))
    assert stopper.texts == [["first"]]
    assert closed.is_set()


def test_subscriber_can_stop_pipeline_on_thread_of_source() -> None:
    class Stopper(Recorder):
        def on_next(self, batch: Batch[Any]) -> None:
            super().on_next(batch)
            pipeline.stop(timeout=1)

    stopper = Stopper()
    source: Subject[Message[Any]] = Subject()
    pipeline = pipeline_of(source, stopper, size=1)
    pipeline.start()
    source.on_next(Message("from here"))
    assert pipeline.wait(PATIENCE)
    assert (stopper.texts, stopper.ends) == ([["from here"]], [None])


def test_stop_of_other_pipeline_in_handler_waits(recorder: Recorder) -> None:
    held = Held()
    other = pipeline_of(endless(1), recorder, held).start()
    assert held.entered.wait(PATIENCE)
    returned = threading.Event()

    def handler(message: Message[Any]) -> Message[Any]:
        other.stop()
        returned.set()
        return message

    pipeline = pipeline_of(endless(1), Recorder(), handler).start()
    came_back_early = returned.wait(0.3)
    held.released.set()
    assert other.wait(PATIENCE)
    assert returned.wait(PATIENCE)
    pipeline.stop()
    assert not came_back_early


def test_threads_end_with_pipeline(recorder: Recorder) -> None:
    before = set(threading.enumerate())
    pipeline_of(endless(100), recorder, lambda message: message).start().stop()
    mine = [thread for thread in threading.enumerate() if thread not in before]
    for thread in mine:
        thread.join(PATIENCE)
    assert [thread.name for thread in mine if thread.is_alive()] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_drains(
    recorder: Recorder, stray_signals: list[int], number: signal.Signals
) -> None:
    def handler(message: Message[Any]) -> Message[Any]:
        if message.data == "text 2":
            os.kill(os.getpid(), number)
        return message

    stats = pipeline_of(endless(3), recorder, handler).run(timeout=PATIENCE)
    assert sorted(recorder.texts[0]) == ["text 0", "text 1", "text 2"]
    assert (recorder.ends, stats.abandoned, stray_signals) == ([None], 0, [])


def test_second_signal_stops_immediately(recorder: Recorder, stray_signals: list[int]) -> None:
    closed = threading.Event()
    released = threading.Event()

    def handler(message: Message[Any]) -> Message[Any]:
        os.kill(os.getpid(), signal.SIGINT)
        assert closed.wait(PATIENCE)
        os.kill(os.getpid(), signal.SIGINT)
        released.wait(PATIENCE)
        return message

    stats = pipeline_of(endless(1, closed), recorder, handler).run(timeout=NEVER)
    released.set()
    assert (stats.abandoned, recorder.batches, recorder.ends) == (1, [], [])
    assert stray_signals == []


def test_signal_drain_abandons_rest_after_timeout(
    recorder: Recorder, stray_signals: list[int]
) -> None:
    released = threading.Event()

    def handler(message: Message[Any]) -> Message[Any]:
        os.kill(os.getpid(), signal.SIGINT)
        released.wait(PATIENCE)
        return message

    stats = pipeline_of(endless(1), recorder, handler).run(timeout=0.05)
    released.set()
    assert (stats.abandoned, recorder.batches, stray_signals) == (1, [], [])


def test_signal_drains_all_sources_and_batchers(stray_signals: list[int]) -> None:
    got: dict[str, list[str]] = {"a": [], "b": []}

    def handler(message: Message[Any]) -> Message[Any]:
        if message.data == "text 2":
            os.kill(os.getpid(), signal.SIGTERM)
        return message.put_batcher("a" if message.data == "text 0" else "b")

    def subscriber(batch: Batch[Any]) -> None:
        got[batch.info.batcher] += [message.data for message in batch]

    stats = Pipeline(
        [endless(3), endless(2)],
        handle_message=handler,
        batchers={name: Batcher(subscriber, size=100, timeout=NEVER) for name in got},
    ).run(timeout=PATIENCE)
    assert got["a"] == ["text 0", "text 0"]
    assert sorted(got["b"]) == ["text 1", "text 1", "text 2"]
    assert (stats.abandoned, stray_signals) == (0, [])


def test_second_signal_reports_abandoned_of_all_stages(stray_signals: list[int]) -> None:
    held = threading.Event()
    delivering = threading.Event()

    def handler(message: Message[Any]) -> Message[Any]:
        if message.data == "text 2":
            assert delivering.wait(PATIENCE)
            os.kill(os.getpid(), signal.SIGINT)
            while not pipeline._intake._is_shut:
                held.wait(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            held.wait(PATIENCE)
        return message.put_batcher("stuck" if message.data == "text 0" else "b")

    def stuck(_: Batch[Any]) -> None:
        delivering.set()
        held.wait(PATIENCE)

    pipeline = Pipeline(
        endless(3),
        handle_message=handler,
        batchers={"stuck": Batcher(stuck, size=1), "b": Batcher(print, size=9, timeout=NEVER)},
    )
    stats = pipeline.run(timeout=NEVER)
    held.set()
    # One in the handler, one in a batch; the subscriber settles the one being delivered.
    assert stats.abandoned == 2
    assert stray_signals == []


def test_run_restores_signal_handlers(recorder: Recorder, stray_signals: list[int]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    pipeline_of(finite(1), recorder).run()
    with pytest.raises(ConnectionLost):
        pipeline_of(reactivex.throw(ConnectionLost("gone")), recorder).run()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    signal.raise_signal(signal.SIGINT)
    assert stray_signals == [signal.SIGINT]


def test_run_on_other_thread_keeps_signal_handlers(
    recorder: Recorder, stray_signals: list[int]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    held = Held()
    pipeline = pipeline_of(endless(1), recorder, held)
    runner = threading.Thread(target=pipeline.run)
    runner.start()
    assert held.entered.wait(PATIENCE)
    assert signal.getsignal(signal.SIGINT) is before
    held.released.set()
    pipeline.stop()
    runner.join(PATIENCE)
    assert (runner.is_alive(), recorder.ends, stray_signals) == (False, [None], [])


def test_started_pipeline_does_not_handle_signals(
    recorder: Recorder, stray_signals: list[int]
) -> None:
    with pipeline_of(endless(1), recorder) as pipeline:
        signal.raise_signal(signal.SIGINT)
        assert pipeline.wait(0.01) is False
    assert stray_signals == [signal.SIGINT]


REFUSED_BY_PIPELINE: dict[str, list[Any]] = {
    "source": [None, [Message("text")], iter([]), "stream", Pipeline],
    "handle_message": [5, "upcase", Message("text")],
    "concurrency": [0, -1, 1.5, True, "50", None],
    "batchers": [
        None,
        {},
        [Batcher(print)],
        Batcher(print),
        {"default": print},
        {"default": None},
        {"default": Batcher(print), "other": print},
        {5: Batcher(print)},
        {"": Batcher(print)},
    ],
}
REFUSED_BY_BATCHER: dict[str, list[Any]] = {
    "subscriber": [None, 5, "print", [print]],
    "size": [0, -1, 2.0, NAN, True, "20", None],
    "timeout": [0, -1.0, NAN, float("inf"), True, "2", None, timedelta(0)],
    "concurrency": [0, 1.5],
    "waiting": [0, 1.5],
}


def pairs(refused: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(option, value) for option, values in refused.items() for value in values]


@pytest.mark.parametrize(("option", "value"), pairs(REFUSED_BY_PIPELINE))
def test_pipeline_refuses_invalid_argument(option: str, value: Any) -> None:
    options: dict[str, Any] = {"source": finite(1), "batchers": {"default": Batcher(print)}}
    with pytest.raises(ConfigurationError, match=option.removesuffix("_message")):
        Pipeline(**{**options, option: value})


@pytest.mark.parametrize(("option", "value"), pairs(REFUSED_BY_BATCHER))
def test_batcher_refuses_invalid_argument(option: str, value: Any) -> None:
    options: dict[str, Any] = {"subscriber": print, option: value}
    with pytest.raises(ConfigurationError, match=option):
        Batcher(**options)


def test_batchers_without_default_are_refused_for_streams() -> None:
    tweets = rxtweets.sample_stream(token="any")
    with pytest.raises(ConfigurationError, match=r"none of 'a', 'b'.*put_batcher"):
        Pipeline(tweets, batchers={"a": Batcher(print), "b": Batcher(print)})


def test_source_may_name_batchers_without_a_handler() -> None:
    taken: list[str] = []
    source = reactivex.just(Message("hello")).pipe(
        rxtweets.operators.process(lambda message: message.put_batcher("a"))
    )
    Pipeline(source, batchers={"a": Batcher(lambda batch: taken.append(batch[0].data))}).run()
    assert taken == ["hello"]


def test_message_fails_naming_batchers_when_none_is_its_own() -> None:
    reasons: list[str] = []

    def note(failed: list[Message[Any]]) -> list[Message[Any]]:
        reasons.extend(
            str(item.status.reason) for item in failed if isinstance(item.status, Failed)
        )
        return failed

    stats = Pipeline(
        reactivex.just(Message("hello")),
        handle_message=lambda message: message,
        handle_failed=note,
        batchers={"a": Batcher(print), "b": Batcher(print)},
    ).run()
    assert stats.failed == 1
    [reason] = reasons
    assert "no batcher 'default'; known: 'a', 'b'" in reason
    assert "put_batcher" in reason


@pytest.mark.parametrize("timeout", [0, -1, NAN, True, "30"])
def test_timeout_is_refused_while_pipeline_continues(recorder: Recorder, timeout: Any) -> None:
    source: Subject[Message[Any]] = Subject()
    pipeline = pipeline_of(source, recorder)
    with pytest.raises(ConfigurationError, match="timeout"):
        pipeline.run(timeout=timeout)
    pipeline.start()
    with pytest.raises(ConfigurationError, match="timeout"):
        pipeline.wait(timeout)
    with pytest.raises(ConfigurationError, match="timeout"):
        pipeline.stop(timeout=timeout)
    source.on_next(Message("still there"))
    pipeline.stop()
    assert recorder.texts == [["still there"]]


def test_subscriber_is_refused_when_class() -> None:
    class Store(Subscriber[Any]):
        pass

    with pytest.raises(ConfigurationError, match=r"give an instance, Store\(...\)"):
        Batcher(Store)  # type: ignore[arg-type]  # refused


def test_pipeline_repr_names_stages_without_credentials() -> None:
    class Store(Subscriber[Any]):
        def __repr__(self) -> str:
            return "Store(password='secret')"

    def upcase(message: Message[Any]) -> Message[Any]:
        return message.update_data(str.upper)

    pipeline = Pipeline(
        [rxtweets.sample_stream(token="secret"), finite(1)],
        handle_message=upcase,
        concurrency=7,
        batchers={"default": Batcher(Store(), 20, 2.0), "awaited": Batcher.awaited(size=5)},
    )
    assert repr(pipeline) == (
        "<Pipeline of sample_stream, Observable; 7 processors upcase; "
        "default=Batcher(Store, size=20, timeout=2, concurrency=1); "
        "awaited=Batcher(abatches, size=5, timeout=1, concurrency=1)>"
    )
