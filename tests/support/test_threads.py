"""Every thread that the library starts, and the report of its death.

Each row makes an inner step of one thread raise. The observers that wait for the thread get the
error; without them, it is logged and the thread continues.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import io
import logging
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partialmethod
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest
import reactivex
import tenacity
import uvicorn
from reactivex import Observable
from reactivex.subject import Subject

import rxtweets
from rxtweets import (
    Backoff,
    Batch,
    Batcher,
    ConfigurationError,
    Message,
    Pipeline,
    Restart,
    Retry,
    brokers,
    dashboard,
    events,
    simulator,
)
from rxtweets import operators as ops
from rxtweets._core.async_items import Feed
from rxtweets._core.event_bus import EventBus
from rxtweets._messages.decoding import Decoder
from rxtweets._support.workers import start_thread, unexpected
from rxtweets.api._connection import Connection
from rxtweets.api._watchdog import Watchdog
from rxtweets.brokers import _source
from rxtweets.brokers._engines import amqp, jetstream_link, kafka_receiver
from rxtweets.cli import _screen, _work, _worker
from rxtweets.cli import _sources as commands
from rxtweets.cli import _tail as tail
from rxtweets.cli._queues import queue_of
from rxtweets.display import _live as live
from rxtweets.errors import BrokerUnavailable
from rxtweets.operators import _batching_observer, _deliver, _event_loop, _threads
from rxtweets.pipeline import _intake
from rxtweets.streams import _isolated as isolated
from rxtweets.streams import _reader_process as reader_process
from rxtweets.streams._lines import LineFramer
from rxtweets.streams._pull_sources import _Puller
from rxtweets.streams._reader import Reader
from rxtweets.streams._reader_process import Order, Outlet
from rxtweets.streams._replay import _Play
from rxtweets.streams._run import StreamRun
from rxtweets.subscribers import Buffered, Spooled

PATIENCE = 20.0
PACKAGE = Path(rxtweets.__file__).parent

Patch = pytest.MonkeyPatch


class Raising:
    """Replaces a function: raises the error ``times`` times, then calls the function."""

    def __init__(self, error: type[BaseException], real: Any = None, times: int = 10**9) -> None:
        self._error = error
        self._real = real
        self._left = times

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self._left:
            self._left -= 1
            raise self._error("a fault")
        return self._real(*args, **options)

    def __get__(self, instance: Any, owner: Any) -> Any:
        return (
            self if instance is None else lambda *args, **options: self(instance, *args, **options)
        )


class End:
    """How a subscription ends."""

    def __init__(self, stream: Observable[Any]) -> None:
        self.items: list[Any] = []
        self.error: BaseException | None = None
        self._over = threading.Event()
        self.subscription = stream.subscribe(self.items.append, self._fail, self._over.set)

    def _fail(self, error: Exception) -> None:
        self.error = error
        self._over.set()

    def is_of(self, kind: type[BaseException]) -> bool:
        """Whether it ends with an error of this kind, or with one caused by it."""
        assert self._over.wait(PATIENCE), "the stream did not end"
        self.subscription.dispose()
        return came_of(self.error, kind)


def came_of(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind) or kind.__name__ in str(error):
            return True
        error = error.__cause__
    return False


class Log(logging.Handler):
    """The errors in the log."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: queue.Queue[BaseException] = queue.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self.errors.put(record.exc_info[1])

    def says(self, kind: type[BaseException]) -> bool:
        """Whether the next error in it is of this kind."""
        return isinstance(self.errors.get(timeout=PATIENCE), kind)


@pytest.fixture(autouse=True)
def log() -> Iterator[Log]:
    handler = Log()
    logging.getLogger("rxtweets").addHandler(handler)
    yield handler
    logging.getLogger("rxtweets").removeHandler(handler)


def happened(stream: Any, kind: type[events.Event]) -> queue.Queue[Any]:
    found: queue.Queue[Any] = queue.Queue()
    stream.events.subscribe(lambda event: found.put(event) if isinstance(event, kind) else None)
    return found


def numbers(count: int = 5) -> Observable[Message[Any]]:
    return rxtweets.from_iterable(range(count))


def tweets(x: simulator.Simulator, **options: Any) -> Any:
    fast = Backoff(scale=0.001, proved_after=1e6)
    return rxtweets.sample_stream(base_url=x.url, token="any", backoff=fast, **options)


ORDER = Order(
    number=1,
    token="any",
    settings={"stall_timeout": 1.0},
    verify=True,
    path="/",
    params={},
    max_line=2**20,
    buffer_size=9,
    overflow="block",
    tweets=True,
)


# The streams.


def reader(kind: type[BaseException], patch: Patch, _: Log) -> None:
    patch.setattr(LineFramer, "feed", Raising(kind))
    with simulator.serve(rate=100) as x:
        assert End(tweets(x)).is_of(kind)


def deliver(kind: type[BaseException], patch: Patch, _: Log) -> None:
    decode = partialmethod(Raising(kind, Decoder.decode, times=1))
    patch.setattr(Decoder, "decode", decode)
    with simulator.serve(rate=None) as x:
        stream = tweets(x)
        assert End(stream).is_of(kind)
        stats = stream.stats()
    # The reader may be between two counts yet.
    assert stats.dropped > 0


def limit(kind: type[BaseException], patch: Patch, _: Log) -> None:
    patch.setattr(StreamRun, "_end_in_time", Raising(kind))
    with simulator.serve(rate=100) as x:
        assert End(tweets(x, limit=timedelta(hours=1))).is_of(kind)


def limit_of_several(kind: type[BaseException], patch: Patch, _: Log) -> None:
    patch.setattr(StreamRun, "_end_in_time", Raising(kind))
    with simulator.serve(rate=100) as x:
        stream = rxtweets.firehose_stream(
            (1, 2), base_url=x.url, token="any", limit=timedelta(hours=1)
        )
        assert End(stream).is_of(kind)


def watchdog(kind: type[BaseException], patch: Patch, _: Log) -> None:
    patch.setattr(Watchdog, "_run", Raising(kind, Watchdog._run, times=1))
    with simulator.serve(rate=100) as x:
        stream = tweets(x)
        again = happened(stream, events.Reconnecting)
        with stream.subscribe():
            assert came_of(again.get(timeout=PATIENCE).error, kind)


def kill(kind: type[BaseException], patch: Patch, log: Log) -> None:
    patch.setattr(isolated, "PATIENCE", 0.01)

    class Process:
        def __init__(self) -> None:
            self.killed = threading.Event()
            self.kill = Raising(kind, self.killed.set, times=1)

        def send(self, order: object) -> None:
            """It ignores the order."""

    url, process = httpx.URL("http://127.0.0.1"), Process()
    connection = isolated.IsolatedConnection(
        ORDER, url, cast("Any", None), print, cast("Any", None)
    )
    connection._process = cast("Any", process)
    connection.close()
    assert log.says(kind)
    assert process.killed.wait(PATIENCE)


def replay(kind: type[BaseException], patch: Patch, _: Log, tmp_path: Path) -> None:
    recording = tmp_path / "tweets.jsonl"
    recording.write_bytes(b'{"data":{"id":"1","text":"hello"}}\n')
    patch.setattr(_Play, "_emit", Raising(kind))
    assert End(rxtweets.replay(recording, None)).is_of(kind)


def pull(kind: type[BaseException], patch: Patch, _: Log) -> None:
    patch.setattr(_Puller, "_take", Raising(kind))
    assert End(numbers()).is_of(kind)


def collect(kind: type[BaseException], _patch: Patch, _: Log) -> None:
    stream: Observable[Any] = Observable(Raising(kind))
    with pytest.raises(Exception, match="fault") as caught:
        rxtweets.collect(stream, timeout=PATIENCE)
    assert came_of(caught.value, kind)


# Pipelines and operators.


def ends(pipeline: Pipeline, kind: type[BaseException]) -> bool:
    with pytest.raises(Exception, match="fault") as caught:
        pipeline.start().wait(PATIENCE)
    return came_of(caught.value, kind)


def source(kind: type[BaseException], patch: Patch, _: Log) -> None:
    patch.setattr(_intake._RunningSource, "_subscribe", Raising(kind))
    assert ends(Pipeline(numbers(), batchers={"default": Batcher(print)}), kind)


def restart(kind: type[BaseException], patch: Patch, _: Log) -> None:
    patch.setattr(_intake._RunningSource, "_start_again", Raising(kind))
    failing: Observable[Message[Any]] = reactivex.throw(ValueError("at first"))
    policy = Restart(wait=tenacity.wait_none())
    assert ends(Pipeline(failing, batchers={"default": Batcher(print)}, restart=policy), kind)


def processor(kind: type[BaseException], patch: Patch, _: Log) -> None:
    patch.setattr(_threads.ThreadRunner, "_handle_run", Raising(kind))
    stream = numbers().pipe(ops.process(lambda message: message))
    assert End(stream).is_of(kind)
    assert stream.stats().abandoned == 5


def retry(kind: type[BaseException], patch: Patch, _: Log) -> None:
    submit = _threads.ThreadRunner.submit
    again = Raising(kind)
    calls: list[int] = []

    def first_only(self: Any, items: Any) -> None:
        calls.append(1)
        (submit if len(calls) == 1 else again)(self, items)

    patch.setattr(_threads.ThreadRunner, "submit", first_only)
    policy = Retry(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none())
    stream = numbers(1).pipe(ops.process(lambda message: message.failed("no"), retry=policy))
    assert End(stream).is_of(kind)


def limits(kind: type[BaseException], patch: Patch, _: Log) -> None:
    patch.setattr(_threads.ThreadRunner, "_check_limits", Raising(kind))
    source: Subject[Message[Any]] = Subject()
    end = End(source.pipe(ops.process(lambda message: message, time_limit=0.01)))
    source.on_next(Message("good"))
    assert end.is_of(kind)
    assert [message.data for message in end.items] == ["good"]


def watch(kind: type[BaseException], patch: Patch, _: Log) -> None:
    patch.setattr(_threads.ThreadRunner, "_check_stuck", Raising(kind))
    source: Subject[Message[Any]] = Subject()
    patch.setattr(_threads.Pace, "note", lambda pace, *_: setattr(pace, "is_quick", True))
    end = End(source.pipe(ops.process(lambda message: message)))
    for number in range(100):
        source.on_next(Message(number))
    assert end.is_of(kind)
    assert [message.data for message in end.items] == list(range(100))


async def kept(message: Message[Any]) -> Message[Any]:
    await asyncio.sleep(0)
    return message


def loop(kind: type[BaseException], patch: Patch, _: Log) -> None:
    patch.setattr(_event_loop.LoopThread, "_run_until_stopped", Raising(kind))
    assert End(numbers().pipe(ops.process(kept))).is_of(kind)


def loop_of_a_subscriber(kind: type[BaseException], patch: Patch, _: Log) -> None:
    real = _event_loop.LoopThread._run_until_stopped
    patch.setattr(_event_loop.LoopThread, "_run_until_stopped", Raising(kind, real, times=1))

    async def take(_: Any) -> None:
        await asyncio.sleep(0)

    stream = numbers(2).pipe(ops.batch(1, 1.0), ops.deliver(take))
    end = End(stream)
    assert not end.is_of(kind)
    assert [batch[0].status == "ok" for batch in end.items] == [False, True]


def batch(kind: type[BaseException], patch: Patch, _: Log) -> None:
    patch.setattr(_batching_observer.BatchingObserver, "_emit_due", Raising(kind))
    source: Subject[Message[Any]] = Subject()
    end = End(source.pipe(ops.batch(20, 0.01)))
    source.on_next(Message("good"))
    assert end.is_of(kind)
    assert [len(batch) for batch in end.items] == [1]


def subscriber(kind: type[BaseException], patch: Patch, _: Log) -> None:
    deliver = _deliver.DeliveringObserver._deliver
    patch.setattr(_deliver.DeliveringObserver, "_deliver", Raising(kind, deliver, times=1))
    stream = numbers(3).pipe(ops.batch(1, 1.0), ops.deliver(print, 1, waiting=3))
    assert End(stream).is_of(kind)
    assert stream.stats().abandoned >= 1


def buffered(kind: type[BaseException], patch: Patch, log: Log) -> None:
    patch.setattr(Buffered, "_next", Raising(kind, Buffered._next, times=1))
    taken: list[Any] = []
    end = End(numbers(3).pipe(ops.batch(1, 1.0), ops.deliver(Buffered(taken.append))))
    assert not end.is_of(kind)
    assert len(taken) == 3
    assert log.says(kind)


def bus(kind: type[BaseException], _patch: Patch, log: Log) -> None:
    events_bus, got = EventBus(), queue.Queue[events.Event]()
    events_bus.events.subscribe(Raising(kind, times=1, real=print))
    events_bus.events.subscribe(got.put)
    events_bus.publish(events.Paused())
    events_bus.publish(events.Resumed())
    assert isinstance(got.get(timeout=PATIENCE), events.Paused)
    assert isinstance(got.get(timeout=PATIENCE), events.Resumed)
    assert log.says(kind)


# What shows them.


def display(kind: type[BaseException], patch: Patch, log: Log) -> None:
    drawn = threading.Event()
    patch.setattr(live, "PERIOD", 0.01)
    patch.setattr(live._Refresher, "_listen", lambda _: None)
    refresh = Raising(kind, live._Refresher.refresh, times=1)
    patch.setattr(live._Refresher, "refresh", refresh)
    picture = live.Live(drawn.set, until=drawn.is_set)
    live._Refresher().add(picture)
    assert log.says(kind)
    assert drawn.wait(PATIENCE)


def summary(kind: type[BaseException], patch: Patch, log: Log) -> None:
    class Screen:
        is_live, width = True, 80

        def __init__(self) -> None:
            self.shown = threading.Event()

        def show(self, line: str) -> None:
            if line:
                self.shown.set()

    patch.setattr(_screen, "LIVE_INTERVAL", 0.01)
    screen = Screen()
    pipeline = Pipeline(numbers(), batchers={"default": Batcher(print)})
    patch.setattr(pipeline, "stats", Raising(kind, pipeline.stats, times=1))
    with _screen.summaries(pipeline, cast("Any", screen), is_json=False):
        assert log.says(kind)
        assert screen.shown.wait(PATIENCE)


def view(kind: type[BaseException], patch: Patch, log: Log) -> None:
    patch.setattr(tail, "REFRESH", 100)
    patch.setattr("sys.stdout", io.StringIO())
    drawn, real = threading.Event(), tail.picture_of
    raising = Raising(kind, lambda *_: drawn.set(), times=1)

    def picture(*args: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            raising()
        return real(*args)

    patch.setattr(tail, "picture_of", picture)
    pipeline = Pipeline(numbers(), batchers={"default": Batcher(print)})
    with tail.live_view(pipeline, tail.TweetPrinter(argparse.Namespace(limit=None))):
        assert log.says(kind)
        assert drawn.wait(PATIENCE)


class Stoppable:
    """A pipeline whose first stop raises."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.stopped = threading.Event()
        self.stop = Raising(kind, self.stopped.set, times=1)


def drain(kind: type[BaseException], _patch: Patch, log: Log) -> None:
    pipeline = Stoppable(kind)
    _worker._drain(cast("Any", pipeline))
    assert log.says(kind)
    assert pipeline.stopped.wait(PATIENCE)


def report(kind: type[BaseException], patch: Patch, log: Log) -> None:
    patch.setattr(_worker, "REPORT", 0.01)
    pipeline = Pipeline(numbers(), batchers={"default": Batcher(print)})
    reading, writing = os.pipe()
    with os.fdopen(reading) as lines, _worker._reports(writing, pipeline):
        assert lines.readline()
        patch.setattr(pipeline, "stats", Raising(kind, pipeline.stats, times=1))
        assert log.says(kind)
        assert lines.readline()


def backlog(kind: type[BaseException], patch: Patch, log: Log) -> None:
    patch.setattr(_work, "CHECK", 0.01)
    drained = threading.Event()
    with queue_of(argparse.Namespace(url=f"memory:{kind.__name__}"), ["g"]) as waiting:
        waiting.ensure()
        patch.setattr(waiting, "backlog", Raising(kind, waiting.backlog, times=1))
        options = argparse.Namespace(until_empty=True, group="g")
        with _work._until_empty(options, waiting, drained.set):
            assert log.says(kind)
            assert drained.wait(PATIENCE)


def duration(kind: type[BaseException], _patch: Patch, log: Log) -> None:
    pipeline = Stoppable(kind)
    with commands.ending(cast("Any", pipeline), 0.01):
        assert log.says(kind)
        assert pipeline.stopped.wait(PATIENCE)


def of_the_simulator(kind: type[BaseException], _patch: Patch, log: Log) -> None:
    with simulator.serve(rate=100, script=Raising(kind, lambda _: [], times=1)) as x:
        stream = tweets(x)
        lost = happened(stream, events.Disconnected)
        arrived = threading.Event()
        with stream.subscribe(lambda _: arrived.set()):
            assert lost.get(timeout=PATIENCE).error is not None
            assert log.says(kind)
            assert arrived.wait(PATIENCE)


# The process of an isolated reader exits, and the stream reports it.


def outlet(kind: type[BaseException], patch: Patch, _: Log) -> None:
    patch.setattr(Outlet, "_work", Raising(kind))
    assert exits(patch, lambda: Outlet(1, ORDER), kind)


def reading(kind: type[BaseException], patch: Patch, _: Log) -> None:
    patch.setattr(Outlet, "__init__", lambda *_: None)
    patch.setattr(Connection, "__init__", lambda *_: None)
    patch.setattr(Connection, "close", None)
    patch.setattr(reader_process, "ConnectionOptions", lambda **_: None)
    patch.setattr(reader_process._Reading, "_work", Raising(kind))
    assert exits(patch, lambda: reader_process._Reading(1, ORDER), kind)


def exits(patch: Patch, begin: Callable[[], object], kind: type[BaseException]) -> bool:
    exit_codes: queue.Queue[int] = queue.Queue()
    said: list[BaseException] = []
    patch.setattr("os._exit", exit_codes.put)
    patch.setattr("traceback.print_exception", said.append)
    begin()
    return exit_codes.get(timeout=PATIENCE) == 1 and isinstance(said[0], kind)


def parent(kind: type[BaseException], _patch: Patch, _log: Log) -> None:
    program = (
        "import builtins, rxtweets.streams._reader_process as process\n"
        f"def fail(*_): raise builtins.{kind.__name__}('a fault')\n"
        "process._end_with_parent = fail\n"
        "process.follow_orders()\n"
    )
    command = [sys.executable, "-c", program]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.wait(PATIENCE) == 1
        assert process.stderr is not None
        assert kind.__name__.encode() in process.stderr.read()


# Queues on brokers. The servers need not be there: the threads die before they connect.


def spool(kind: type[BaseException], patch: Patch, log: Log, directory: Path) -> None:
    patch.setattr(Spooled, "_has_more", Raising(kind, Spooled._has_more, times=1))
    away, taken = [ConnectionError("away")], list[Any]()

    def take(batch: Batch[Any]) -> None:
        if away:
            raise away.pop()
        taken.extend(message.data for message in batch)

    store = Spooled(take, directory)
    store.on_next(Batch([Message(1)]))
    store.on_completed()
    assert taken == [1]
    assert log.says(kind)


def backlog_of_a_source(kind: type[BaseException], patch: Patch, log: Log) -> None:
    queued = brokers.connect(f"memory:{uuid4().hex}")
    patch.setattr(queued.engine, "backlog", Raising(kind, queued.engine.backlog, times=1))
    with queued.source().subscribe():
        assert log.says(kind)


def lease(kind: type[BaseException], patch: Patch, log: Log) -> None:
    session = _source._Session
    once = Raising(kind, session._keep_leases_once, times=1)
    patch.setattr(session, "_keep_leases_once", once)
    queued = brokers.connect(f"memory:{uuid4().hex}")
    with queued.source(lease=0.03).subscribe():
        assert log.says(kind)


def subscribe(kind: type[BaseException], patch: Patch, _: Log) -> None:
    patch.setattr(Feed, "_connect", Raising(kind))

    async def main() -> None:
        await anext(aiter(rxtweets.from_iterable([1])))

    with pytest.raises((kind, RuntimeError), match="fault"):
        asyncio.run(main())


def leave(kind: type[BaseException], patch: Patch, log: Log) -> None:
    patch.setattr(Feed, "_release", Raising(kind, Feed._release, times=1))

    async def main() -> None:
        items = aiter(rxtweets.from_iterable([1]))
        await anext(items)
        items._feed.leave()
        assert log.says(kind)
        await items.aclose()

    asyncio.run(main())


def stop(kind: type[BaseException], patch: Patch, log: Log) -> None:
    pipeline = Pipeline(reactivex.never(), batchers={"default": Batcher(print)}).start()
    patch.setattr(Pipeline, "stop", Raising(kind, Pipeline.stop, times=1))
    pipeline._stop_on_a_thread()
    assert log.says(kind)
    pipeline.stop(drain=False)


def connection(url: str) -> None:
    """Connect, and find the broker unavailable."""
    with pytest.raises(BrokerUnavailable, match="fault"):
        brokers.connect(url).engine.ensure(["group"])


def jetstream(kind: type[BaseException], patch: Patch, _: Log) -> None:
    patch.setattr(jetstream_link.Connection, "_live", Raising(kind))
    connection("nats://127.0.0.1:1/TWEETS")


def rabbitmq(kind: type[BaseException], patch: Patch, _: Log) -> None:
    patch.setattr(amqp.Link, "_watch", Raising(kind))
    connection("amqp://127.0.0.1:1/tweets")


def kafka(kind: type[BaseException], patch: Patch, _: Log) -> None:
    patch.setattr(kafka_receiver.KafkaReceiver, "_consume", Raising(kind))
    engine = brokers.connect("kafka://127.0.0.1:1/tweets").engine
    with pytest.raises(BrokerUnavailable, match="fault"):
        engine.receiver(brokers.Subscription("group", 30.0, 10, 5)).take(1, PATIENCE)


def page(kind: type[BaseException], patch: Patch, log: Log) -> None:
    patch.setattr(uvicorn.Server, "run", Raising(kind))
    with dashboard.serve(Pipeline(numbers(), batchers={"default": Batcher(print)}), port=0):
        assert log.says(kind)


def action(kind: type[BaseException], patch: Patch, log: Log) -> None:
    pipeline = Pipeline(numbers(), batchers={"default": Batcher(print)})
    patch.setattr(pipeline, "pause", Raising(kind))
    with dashboard.serve(pipeline, port=0, controls=True) as served:
        address, _, token = served.url.partition("#")
        httpx.post(f"{address}cards/0/pause", headers={"X-Rxtweets-Token": token})
        assert log.says(kind)


ROWS: dict[str, tuple[Callable[..., None], ...]] = {
    "rxtweets-backlog": (backlog, backlog_of_a_source),
    "rxtweets-batch": (batch,),
    "rxtweets-buffered": (buffered,),
    "rxtweets-collect": (collect,),
    "rxtweets-dashboard": (page,),
    "rxtweets-dashboard-action": (action,),
    "rxtweets-deliver": (deliver,),
    "rxtweets-display": (display,),
    "rxtweets-drain": (drain,),
    "rxtweets-duration": (duration,),
    "rxtweets-events": (bus,),
    "rxtweets-jetstream": (jetstream,),
    "rxtweets-kafka": (kafka,),
    "rxtweets-kill": (kill,),
    "rxtweets-lease": (lease,),
    "rxtweets-leave": (leave,),
    "rxtweets-limit": (limit, limit_of_several),
    "rxtweets-loop": (loop, loop_of_a_subscriber),
    "rxtweets-outlet": (outlet,),
    "rxtweets-parent": (parent,),
    "rxtweets-processor": (processor,),
    "rxtweets-pull": (pull,),
    "rxtweets-rabbitmq": (rabbitmq,),
    "rxtweets-reader": (reader,),
    "rxtweets-reading": (reading,),
    "rxtweets-replay": (replay,),
    "rxtweets-report": (report,),
    "rxtweets-restart": (restart,),
    "rxtweets-retry": (retry,),
    "rxtweets-source": (source,),
    "rxtweets-spool": (spool,),
    "rxtweets-stop": (stop,),
    "rxtweets-subscribe": (subscribe,),
    "rxtweets-subscriber": (subscriber,),
    "rxtweets-summary": (summary,),
    "rxtweets-view": (view,),
    "rxtweets-watch": (watch, limits),
    "rxtweets-watchdog": (watchdog,),
    "simulator": (of_the_simulator,),
}
"""By the name of the thread."""

FAULTS = [ValueError, MemoryError, RecursionError, SystemExit, KeyboardInterrupt]


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize(
    "row", [row for rows in ROWS.values() for row in rows], ids=lambda row: row.__name__
)
def test_thread_is_seen_when_it_dies(
    row: Callable[..., None],
    kind: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    log: Log,
    tmp_path: Path,
) -> None:
    more = (tmp_path,) if row in {replay, spool} else ()
    row(kind, monkeypatch, log, *more)


STARTERS = {"start_thread", "WorkerPool", "ThreadTimer", "ThreadTimers", "repeating"}


def started_names() -> set[str]:
    """Names of the threads of the package."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in STARTERS:
                texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
                found |= {text for text in texts if isinstance(text, str)}
    return found


def test_every_thread_has_a_row() -> None:
    assert started_names() == set(ROWS)


OTHER_WAYS = re.compile(
    r"\bThread\(|threading\.Timer|import _thread|ThreadPoolExecutor\(|run_in_executor"
    r"|(Thread|Timeout|Pool)Scheduler\("
)


def test_one_file_starts_all_threads() -> None:
    others = {
        path.name
        for path in PACKAGE.rglob("*.py")
        if OTHER_WAYS.search(path.read_text(encoding="utf-8"))
    }
    # The futures of requests to SQS and Pub/Sub, and of takes in order, carry their errors.
    assert others == {"workers.py", "sqs.py", "pubsub.py", "_shards.py"}


# The one place.


def test_thread_death_is_logged_when_its_callback_raises(log: Log) -> None:
    def cannot(_: BaseException) -> None:
        raise LookupError

    start_thread("rxtweets-test", Raising(ValueError), cannot).join(PATIENCE)
    assert log.says(LookupError)


def test_unexpected_returns_errors_of_rxtweets_unchanged() -> None:
    ours = ConfigurationError("ours")
    assert unexpected("reading", ours) is ours
    other = ValueError("another's")
    made = unexpected("reading", other)
    assert (str(made), made.__cause__) == (f"reading failed unexpectedly: {other!r}", other)


def test_stream_can_be_subscribed_again_when_no_thread_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = threading.Thread.start
    refusals = iter([True])

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "rxtweets-deliver" and next(refusals, False):
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    arrived = threading.Event()
    with simulator.serve(rate=100) as x:
        stream = tweets(x)
        assert End(stream).is_of(RuntimeError)
        with stream.subscribe(lambda _: arrived.set()):
            assert arrived.wait(PATIENCE)


def test_messages_are_delivered_before_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    feed, calls = LineFramer.feed, iter(range(10**9))

    def fail_later(framer: LineFramer, data: bytes) -> Any:
        if next(calls) == 3:
            raise SystemExit
        return feed(framer, data)

    monkeypatch.setattr(LineFramer, "feed", fail_later)
    with simulator.serve(rate=100) as x:
        stream = tweets(x)
        end = End(stream)
        assert end.is_of(SystemExit)
    stats = stream.stats()
    assert len(end.items) == stats.delivered == stats.received > 0


def test_stream_continues_for_others_when_one_subscriber_breaks() -> None:
    broken = threading.Event()
    observer = reactivex.Observer(Raising(SystemExit), lambda _: broken.set())
    with simulator.serve(rate=100) as x:
        stream = tweets(x)
        arrived = threading.Semaphore(0)
        with (
            stream.subscribe_chunks(observer),
            stream.subscribe(lambda _: arrived.release()),
        ):
            assert broken.wait(PATIENCE)
            for _ in range(5):
                assert arrived.acquire(timeout=PATIENCE)
        assert stream.stats().subscriber_errors == 1


def test_pipeline_ends_when_its_restart_policy_raises() -> None:
    failing: Observable[Message[Any]] = reactivex.throw(ValueError("at first"))
    policy = Restart(wait=Raising(LookupError))
    assert ends(
        Pipeline(failing, batchers={"default": Batcher(print)}, restart=policy), LookupError
    )


def test_stream_ends_when_the_end_of_its_reader_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reader, "_last_gap", Raising(SystemExit))
    with simulator.serve(rate=100) as x:
        stream = tweets(x, limit=1)
        assert End(stream).is_of(SystemExit)


def test_state_file_failure_is_reported_when_unforeseen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("rxtweets.streams._state_file.StateFile.save", Raising(ValueError))
    with simulator.serve(rate=100) as x:
        stream = tweets(x, state_file=tmp_path / "state")
        failures = happened(stream, events.StateFileFailed)
        with stream.subscribe():
            assert isinstance(failures.get(timeout=PATIENCE).error, ValueError)


def test_picture_is_redrawn_when_its_end_is_unknown() -> None:
    picture = live.Live(lambda: "drawn", until=Raising(SystemExit))
    caught: list[Any] = []
    start_thread("rxtweets-test", lambda: caught.append(picture._look())).join(PATIENCE)
    [(over, drawn)] = caught
    assert not over
    assert "SystemExit" in str(drawn)
