"""Draining a stream through composed sources."""

from __future__ import annotations

import gc
import queue
import random
import threading
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import reactivex
from reactivex import operators as stock
from reactivex.scheduler import EventLoopScheduler, NewThreadScheduler
from reactivex.subject import BehaviorSubject

import rxtweets
from rxtweets import Batcher, Message, Pipeline, events, simulator
from rxtweets import operators as ops
from rxtweets._core.draining import Drain
from rxtweets._core.gates import subscribing_for
from rxtweets.simulator.script import Serve, Stall

PATIENCE = 20.0
SENT = 300
SCRIPT = [[Serve(SENT), Stall()]] * 2

Compose = Callable[[Any], Any]


def same(message: Message[Any]) -> Message[Any]:
    return message


def nothing(_: Any) -> None:
    """Do nothing."""


def number_of(message: Message[Any]) -> int:
    return int(message.id)


def is_odd(message: Message[Any]) -> bool:
    return bool(number_of(message) % 2)


def is_even(message: Message[Any]) -> bool:
    return not is_odd(message)


def halves(stream: Any) -> Any:
    return reactivex.merge(stream.filter(is_odd), stream.filter(is_even))


REACHED: dict[str, Compose] = {
    "map": lambda s: s.map(same),
    "several in pipe": lambda s: s.pipe(
        stock.map(same), stock.filter(bool), stock.do_action(nothing)
    ),
    "take_while": lambda s: s.take_while(bool),
    "take_until": lambda s: s.take_until(reactivex.never()),
    "observe_on": lambda s: s.observe_on(EventLoopScheduler(exit_if_empty=True)),
    "delay": lambda s: s.delay(0.05),
    "group_by": lambda s: s.group_by(is_odd).flat_map(lambda group: group),
    "flat_map": lambda s: s.flat_map(reactivex.of),
    "flat_map to a source": lambda s: s.flat_map(lambda message: rxtweets.from_iterable([message])),
    "buffer": lambda s: s.buffer_with_count(7).flat_map(reactivex.from_iterable),
    "with_latest_from": lambda s: s.with_latest_from(BehaviorSubject(0)).map(lambda both: both[0]),
    "materialize": lambda s: s.materialize().dematerialize(),
    "share": lambda s: s.map(same).share().map(same),
    "share of RxPY": lambda s: s.map(same).pipe(stock.share()).map(same),
    "publish": lambda s: s.pipe(stock.publish(), stock.ref_count()),
    "publish with a function": lambda s: s.publish(lambda published: published.map(same)),
    "replay": lambda s: s.pipe(stock.replay(10), stock.ref_count()),
    "merge": lambda s: s.merge(reactivex.empty()),
    "merge of two": halves,
    "merge and share": lambda s: halves(s).pipe(ops.share()),
    "concat": lambda s: s.concat(s),
    "plus": lambda s: s + s,
    "concat behind observe_on": lambda s: s.observe_on(
        EventLoopScheduler(exit_if_empty=True)
    ).concat(s),
    "start_with": lambda s: s.start_with(),
    "retry": lambda s: s.map(same).retry(),
    "repeat": lambda s: s.map(same).repeat(),
    "share and repeat": lambda s: s.share().repeat(),
    "share of RxPY and repeat": lambda s: s.pipe(stock.share()).repeat(),
    "defer": lambda s: reactivex.defer(lambda _: s),
    "switch_latest": lambda s: reactivex.of(s).pipe(stock.switch_latest()),
    "process": lambda s: s.pipe(ops.process(same, 2)),
    "process between stock ones": lambda s: s.map(same).pipe(ops.process(same, 2), stock.map(same)),
    "rate_limit": lambda s: s.map(same).pipe(ops.rate_limit(200, 60.0)),
}

UNREACHED: dict[str, Compose] = {
    "subscribe_on": lambda s: s.map(same).pipe(stock.subscribe_on(NewThreadScheduler())),
    "delay_subscription": lambda s: s.pipe(stock.delay_subscription(0.01)),
    "share": lambda s: s.pipe(stock.subscribe_on(NewThreadScheduler()), ops.share()),
}


class Held:
    """A pipeline whose handlers wait for the stream to stop, while its buffer fills."""

    def __init__(self, stream: Any, source: Any) -> None:
        self.stream = stream
        self.stored: list[str] = []
        self.events: list[events.Event] = []
        self._going = threading.Event()
        self._ends = stream.states.filter(lambda state: state.name == "stopped").subscribe(
            lambda _: self._going.set()
        )
        self.pipeline = Pipeline(
            source,
            handle_message=self._handle,
            concurrency=2,
            max_demand=1,
            batchers={"default": Batcher(self._store, size=20, timeout=0.1)},
        )
        self.pipeline.events.subscribe(self.events.append)

    def _handle(self, message: Message[Any]) -> Message[Any]:
        assert self._going.wait(PATIENCE)
        return message

    def _store(self, batch: Any) -> None:
        self.stored += [message.id for message in batch]

    def unavailable(self) -> list[events.Event]:
        return [event for event in self.events if isinstance(event, events.DrainUnavailable)]

    def stop(self) -> Any:
        """Start, wait until all messages are received, and drain."""
        self.pipeline.start()
        received = threading.Event()
        while self.stream.stats().received < SENT:
            received.wait(0.01)
        stats = self.pipeline.stop(timeout=PATIENCE)
        self._ends.dispose()
        return stats


def lost(stream: Any) -> int:
    stats = stream.stats()
    return int(stats.unsubscribed + stats.abandoned)


def stream_of(x: simulator.Simulator, **options: Any) -> Any:
    return rxtweets.sample_stream(token="any", base_url=x.url, **options)


@pytest.mark.parametrize("name", REACHED)
def test_drain_delivers_all_through_stock_operators(name: str) -> None:
    with simulator.serve(rate=None, script=SCRIPT) as x:
        stream = stream_of(x)
        held = Held(stream, REACHED[name](stream))
        held.stop()
        stats = stream.stats()
        assert len(held.stored) == len(set(held.stored)) == SENT
        assert (stats.unsubscribed, stats.abandoned) == (0, 0)
        assert held.unavailable() == []
        assert stream.state.name == "stopped"
        assert len(x.requests) == 1


def test_drain_reaches_through_a_recording(tmp_path: Path) -> None:
    with simulator.serve(rate=None, script=SCRIPT) as x:
        stream = stream_of(x)
        recorded = stream.map(same).pipe(rxtweets.record(tmp_path / "all.jsonl"), stock.map(same))
        held = Held(stream, recorded)
        held.stop()
    assert len(held.stored) == SENT
    assert len((tmp_path / "all.jsonl").read_text(encoding="utf-8").splitlines()) == SENT


def test_drain_opens_a_paused_valve() -> None:
    valve = rxtweets.Valve()
    with simulator.serve(rate=None, script=SCRIPT) as x:
        stream = stream_of(x)
        held = Held(stream, stream.map(same).pipe(ops.pausable(valve), stock.map(same)))
        valve.pause()
        held.stop()
    assert len(held.stored) == SENT


def test_drain_forgets_collected_sources() -> None:
    class Holding:
        def lift(self) -> None:
            """Do nothing."""

    drain = Drain()
    references: list[weakref.ref[Holding]] = []
    for _ in range(3):
        holding = Holding()
        drain.lift(holding.lift)
        references.append(weakref.ref(holding))
    del holding
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


def test_drain_gives_up_a_stopped_subject_that_repeats() -> None:
    gave_up = threading.Event()
    drain = Drain(gave_up.set)
    source = rxtweets.from_queue(queue.Queue[Message[Any]](), wait=0.001)
    with subscribing_for(drain):
        subscription = source.pipe(stock.share()).repeat().subscribe()
    with subscription:
        assert drain.finish()
        assert gave_up.wait(PATIENCE)


@pytest.mark.parametrize("name", UNREACHED)
def test_unreachable_source_is_reported_and_counted(name: str) -> None:
    with simulator.serve(rate=None, script=SCRIPT) as x:
        stream = stream_of(x)
        held = Held(stream, UNREACHED[name](stream))
        held.stop()
        while len(held.stored) + lost(stream) < SENT or not held.unavailable():
            threading.Event().wait(0.01)  # RxPY disposes on a thread that `stop` cannot wait for
    assert held.unavailable() == [events.DrainUnavailable(0, "sample_stream")]
    assert lost(stream) > 0
    assert len(held.stored) + lost(stream) == SENT


def test_stop_without_drain_counts_the_rest() -> None:
    with simulator.serve(rate=None, script=SCRIPT) as x:
        stream = stream_of(x)
        going, begun = threading.Event(), threading.Event()

        def handle(message: Message[Any]) -> Message[Any]:
            begun.set()
            going.wait(PATIENCE)
            return message

        pipeline = Pipeline(
            stream.map(same).filter(bool),
            handle_message=handle,
            concurrency=2,
            max_demand=1,
            batchers={"default": Batcher(lambda _: None)},
        ).start()
        assert begun.wait(PATIENCE)
        while stream.stats().received < SENT:
            begun.wait(0.01)
        pipeline.stop(drain=False)
        going.set()
        while lost(stream) < SENT:
            threading.Event().wait(0.01)
    assert lost(stream) == SENT


@pytest.mark.parametrize(
    "compose",
    [
        lambda s: s.map(same),
        lambda s: s.map(same).share(),
        lambda s: s.map(same).pipe(stock.share()),
        lambda s: halves(s).pipe(ops.share()),
        lambda s: s.pipe(ops.process(same, 2), ops.share()).map(same),
    ],
    ids=["map", "share", "share of RxPY", "share of a merge", "share of process"],
)
def test_drain_leaves_other_pipelines_running(compose: Compose) -> None:
    with simulator.serve(rate=2000) as x:
        stream = stream_of(x)
        source = compose(stream)
        counts = [threading.Semaphore(0), threading.Semaphore(0)]
        pipelines = [
            Pipeline(
                source,
                batchers={
                    "default": Batcher(
                        lambda batch, count=count: count.release(len(batch)), size=5, timeout=0.05
                    )
                },
            ).start()
            for count in counts
        ]
        for count in counts:
            assert count.acquire(timeout=PATIENCE)
        pipelines[0].stop()
        assert pipelines[0].wait(PATIENCE)
        for _ in range(2 * int(counts[1]._value) + 200):
            assert counts[1].acquire(timeout=PATIENCE)
        assert not pipelines[1].wait(0.001)
        pipelines[1].stop()
        stats = stream.stats()
        assert (stats.unsubscribed, stats.abandoned) == (0, 0)
        assert len(x.requests) == 1


def test_drain_completes_when_other_subscribers_leave() -> None:
    with simulator.serve(rate=2000) as x:
        stream = stream_of(x)
        got = threading.Event()
        watching = stream.subscribe(lambda _: got.set())
        pipeline = Pipeline(
            stream.map(same), batchers={"default": Batcher(lambda _: None, size=5)}
        ).start()
        assert got.wait(PATIENCE)
        pipeline.stop()
        watching.dispose()
        while stream.state.name != "stopped":
            got.wait(0.01)
        assert pipeline.wait(PATIENCE)


def test_merged_stream_drains_through_stock_operators() -> None:
    stored: list[Message[Any]] = []
    seen: list[bool] = []  # by the first half, which subscribes first
    passed: list[bool] = []

    def passes(half: Callable[[Message[Any]], bool], message: Message[Any]) -> bool:
        if half is is_odd:
            seen.append(True)
        if half(message):
            passed.append(True)
        return half(message)

    with simulator.serve(rate=2000) as x:
        stream = rxtweets.sample10_stream(token="any", base_url=x.url)
        enough = threading.Event()

        def store(batch: Any) -> None:
            stored.extend(batch)
            if len(stored) > 200:
                enough.set()

        source = reactivex.merge(
            stream.filter(partial(passes, is_odd)), stream.filter(partial(passes, is_even))
        )
        pipeline = Pipeline(source, batchers={"default": Batcher(store, size=5)}).start()
        assert enough.wait(PATIENCE)
        pipeline.stop()
        stats = stream.stats()
    assert len(stored) == len(passed)
    assert len(seen) == stats.received - stats.control
    assert (stats.unsubscribed, stats.abandoned) == (0, 0)


def test_drain_of_repeat_delivers_messages_in_flight() -> None:
    stored: list[Message[Any]] = []
    entered, released = threading.Event(), threading.Event()

    def hold(message: Message[Any]) -> Message[Any]:
        entered.set()
        released.wait(PATIENCE)
        return message

    with simulator.serve(rate=500) as x:
        stream = stream_of(x)
        ended = threading.Event()
        stream.events.filter(lambda event: isinstance(event, events.StreamEnded)).subscribe(
            lambda _: ended.set()
        )
        source = stream.repeat().pipe(ops.process(hold))
        pipeline = Pipeline(source, batchers={"default": Batcher(stored.extend, size=5)}).start()
        assert entered.wait(PATIENCE)
        stopping = threading.Thread(target=pipeline.stop)
        stopping.start()
        assert ended.wait(PATIENCE)
        released.set()
        stopping.join(PATIENCE)
        stats = stream.stats()
    assert len(stored) == stats.received - stats.control
    assert (stats.unsubscribed, stats.abandoned) == (0, 0)


STEPS: list[Compose] = [
    lambda s: s.map(same),
    lambda s: s.filter(bool),
    lambda s: s.pipe(stock.do_action(nothing)),
    lambda s: s.observe_on(EventLoopScheduler(exit_if_empty=True)),
    lambda s: s.pipe(ops.process(same, 3)),
    lambda s: s.pipe(ops.process(same, 3, ordered=True)),
    lambda s: s.pipe(ops.deduplicate()),
    lambda s: s.share(),
    lambda s: s.pipe(ops.share()),
    lambda s: s.pipe(stock.share()),
    lambda s: s.pipe(stock.publish(), stock.ref_count()),
    lambda s: s.publish(lambda published: published.map(same)),
    lambda s: s.group_by(is_odd).flat_map(lambda group: group),
    lambda s: s.concat(s),
    lambda s: s.retry(),
    lambda s: s.repeat(),
    lambda s: s.start_with(),
    lambda s: s.merge(reactivex.empty()),
    lambda s: s.take_while(bool),
    lambda s: s.with_latest_from(BehaviorSubject(0)).map(lambda both: both[0]),
    lambda s: s.pipe(ops.rate_limit(100_000, 1.0)),
    lambda s: s.pipe(ops.pausable(rxtweets.Valve())),
    lambda s: s.pipe(ops.partition(number_of, 2, ops.process(same, 2))),
]


def drain_of_random_chain(seed: int) -> None:
    rng = random.Random(seed)
    steps = rng.choices(range(len(STEPS)), k=rng.randint(1, 5))
    stored: list[str] = []
    enough = threading.Event()
    goal = rng.randint(1, 300)

    def store(batch: Any) -> None:
        stored.extend(message.id for message in batch)
        if len(stored) >= goal:
            enough.set()

    with simulator.serve(rate=1500, seed=seed) as x:
        stream = stream_of(x)
        source: Any = stream
        for step in steps:
            source = STEPS[step](source)
        pipeline = Pipeline(
            source, handle_message=same, batchers={"default": Batcher(store, size=20, timeout=0.1)}
        ).start()
        assert enough.wait(PATIENCE), steps
        pipeline.stop(timeout=PATIENCE)
        stats = stream.stats()
    received = stats.received - stats.control
    assert (len(stored), len(set(stored)), stats.unsubscribed + stats.abandoned) == (
        received,
        received,
        0,
    ), steps


@pytest.mark.parametrize("seed", range(10))
def test_drain_of_random_chains_delivers_all(seed: int) -> None:
    drain_of_random_chain(seed)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(10, 160))
def test_drain_of_many_random_chains_delivers_all(seed: int) -> None:
    drain_of_random_chain(seed)
