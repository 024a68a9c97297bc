"""`Pipeline`: sources, processors, batchers and subscribers, started and stopped as one."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Any, Self

import reactivex
from reactivex import Observable, Observer, abc
from reactivex import operators as stock
from reactivex.disposable import Disposable, SingleAssignmentDisposable
from reactivex.scheduler import VirtualTimeScheduler

from rxtweets._core.async_items import AsyncItems, Feed
from rxtweets._core.concurrency import Concurrency
from rxtweets._core.connection_state import ConnectionState, StateName
from rxtweets._core.events import Event, PipelineEnded, PipelineStarted, Span
from rxtweets._core.failures import Failure
from rxtweets._core.observable import MessageStream, new_telemetry, source_name, telemetry_of
from rxtweets._core.rate_limit import RateLimit
from rxtweets._core.retry import Retry
from rxtweets._core.stats import StageStats, Stats
from rxtweets._core.subscriber import FunctionSubscriber
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets._support.caller_loop import CallerLoop, LoopEvent, call_in_thread
from rxtweets._support.validation import seconds, whole_number
from rxtweets._support.workers import start_thread
from rxtweets.display import _live as live
from rxtweets.display._notebook import started
from rxtweets.errors import ConfigurationError, PipelineError, SubscriberError
from rxtweets.operators._calls import NOT_GIVEN
from rxtweets.operators._process import Handler, OfChunk
from rxtweets.pipeline._batcher import Batcher, name_of_part
from rxtweets.pipeline._intake import Intake, Restart
from rxtweets.pipeline._plan import MAX_DEMAND, PipelinePlan, batchers_of, sources_of
from rxtweets.pipeline._topology import Topology
from rxtweets.streams._merged import furthest

__all__ = ["Pipeline"]

DRAIN_TIMEOUT = 30.0
DEFAULT_RESTART = Restart()
STAGES = ("source", "processors", "batcher", "subscribers")

HandleMessage = Handler[Any, Any]


class Pipeline:
    """One or more sources, concurrent processors, and named batchers with their subscribers.

    ::

        pipeline = rxtweets.Pipeline(
            rxtweets.sample_stream(),         # or a list of sources
            handle_message=upcase,
            concurrency=50,
            batchers={
                "default": Batcher(database, size=20, timeout=2.0),
                "alerts": Batcher(post_to_chat, size=1),
            },
        )
        pipeline.run()                        # until Ctrl-C, which drains

    A ``with`` block starts the pipeline and drains it at its end; after an exception in the block,
    the pipeline stops immediately.

    It behaves as the operators that it consists of: `operators.process`, `operators.route`,
    `operators.batch` and `operators.deliver`, or `operators.acknowledge` without batchers. A
    pipeline runs once.

    **Outcomes.** Every message has one outcome and is acknowledged once. It succeeds, or it fails:

    - its handler fails it, raises, or returns something else than a message;
    - it names a batcher that does not exist;
    - its subscriber raises, or returns the batch with this message failed.

    Failed messages pass ``handle_failed`` before they are acknowledged.

    **Batches** end by ``size``, by ``timeout``, by ``max_bytes``, by a function
    (``size=(accumulator, function)``), or with a message in the batch mode ``flush``
    (`Message.put_batch_mode`). Each batch key (`Message.put_batch_key`) has separate batches.

    **Order.** ``partition_by`` keeps it for each number: through handlers, batches and subscribers.

    **Sources that fail** are subscribed to again by the policy ``restart``, while the other
    sources continue. Errors of X's streams are final, since these streams reconnect themselves. The
    error of a source that is not restarted drains and ends the pipeline, and `run` raises it: a
    `SourceError`, or the error of the stream.

    **Draining** reaches the streams through operators of RxPY, fluent or in ``pipe``: several in a
    row, ``merge``, ``concat``, ``share``, ``publish``, ``repeat``, ``observe_on``, with operators
    of rxtweets between them. It does not reach a stream that is subscribed to later or on another
    thread (``subscribe_on``, ``delay_subscription``; ``merge`` or ``concat`` before an operator
    that takes time, such as ``delay``). Then the pipeline warns when it starts
    (`events.DrainUnavailable`), and a stop counts the messages that it leaves in the stream.
    Draining ignores rate limits and pauses. Three cases need care:

    - A merge with a source that never completes (``tweets.merge(subject)``) drains until the time
      limit. Give both to the pipeline instead: ``Pipeline([tweets, subject])``.
    - Behind ``share`` of ``reactivex.operators`` over a merge, or a ``share`` of a merge of shares,
      the pipeline that stops first completes the others.
    - A stream that follows a shared merge (``merge(a, b).share().concat(c)``) is not reached; the
      drain ends at its time limit.

    **Event loops.** An ``async def`` handler or subscriber runs on an event loop in a thread of
    the pipeline. On an event loop of the user (a notebook, a web app), use ``async with``,
    `run_async`, `astop` and `abatches`. They never block the loop, of asyncio or of trio.

    Args:
        source: of messages: a stream of X, any other Observable, or a list of them.
        handle_message: called with every message, ``concurrency`` calls concurrently. Without it,
            messages are batched unchanged. ``message.put_batcher(name)`` chooses the batcher.
        concurrency: most handlers that run concurrently; a `Concurrency` can be changed meanwhile.
        ordered: keep the order of the source.
        partition_by: gives each message a whole number from 0. Messages of one number are handled
            one at a time, in order. They are batched and delivered in order too, unless a batcher
            has its own ``partition_by``.
        prepare_messages: called with each list of messages before their handlers; returns all.
        handle_failed: called with each list of failed messages before they are acknowledged;
            returns the same number of messages.
        batchers: by name. A message goes to ``default`` unless it names another. Without batchers,
            messages are acknowledged after their handlers.
        context: the last argument, if given, of ``handle_message``, ``prepare_messages``,
            ``handle_failed`` and functions that are subscribers.
        rate_limit: bounds the messages from all sources together. Its ``update``, ``lift`` and
            ``reset`` work while the pipeline runs.
        restart: when a source that failed is subscribed to again: three times in five seconds by
            default; ``None`` for never.
        retry: see `operators.process`.
        time_limit: see `operators.process`.
        deadline: see `operators.process`.
        executor: see `operators.process`.
        max_demand: see `operators.process`.
        min_demand: see `operators.process`.
        max_failed_batches: most batches of one batcher that fail in a row. Then the pipeline drains
            and ends with a `SubscriberError`. A batch fails if its subscriber raises, or fails all
            of its messages. No limit by default.

    Attributes:
        rate_limit: as given.

    Raises:
        ConfigurationError: an argument is invalid.
    """

    def __init__(
        self,
        source: Observable[Message[Any]] | Sequence[Observable[Message[Any]]],
        *,
        handle_message: HandleMessage | None = None,
        concurrency: int | Concurrency = 50,
        ordered: bool = False,
        partition_by: Callable[[Message[Any]], int] | None = None,
        prepare_messages: OfChunk | None = None,
        handle_failed: OfChunk | None = None,
        batchers: Mapping[str, Batcher] | None = None,
        context: Any = NOT_GIVEN,
        rate_limit: RateLimit | None = None,
        restart: Restart | None = DEFAULT_RESTART,
        retry: Retry | None = None,
        time_limit: float | timedelta | None = None,
        deadline: float | timedelta | Callable[[Message[Any]], float | None] | None = None,
        executor: Executor | Callable[[], Executor] | None = None,
        max_demand: int = MAX_DEMAND,
        min_demand: int | None = None,
        max_failed_batches: int | None = None,
    ) -> None:
        if not isinstance(concurrency, Concurrency):
            concurrency = Concurrency(whole_number("concurrency", concurrency))
        self._plan = PipelinePlan(
            sources_of(source),
            handle_message,
            concurrency,
            {
                "ordered": ordered,
                "partition_by": partition_by,
                "prepare": prepare_messages,
                "retry": retry,
                "time_limit": time_limit,
                "deadline": deadline,
                "executor": executor,
                "max_demand": max_demand,
                "min_demand": min_demand,
            },
            batchers_of(batchers),
            partition_by,
            handle_failed,
            context,
            None if max_failed_batches is None else self._note_batch,
        )
        if max_failed_batches is not None:
            whole_number("max_failed_batches", max_failed_batches)
            if not self._plan.batchers:
                raise ConfigurationError("max_failed_batches= is for batchers: give batchers= too")
        self._max_failed = max_failed_batches
        self._failed_in_row: Counter[str] = Counter()
        self._gave_up: SubscriberError | None = None
        self._telemetry = _telemetry_of(self._plan.sources)
        self._intake = Intake(self._plan.sources, restart, rate_limit, self._telemetry)
        self._plan.stream(self._intake.stream, {})  # validates the options of the operators
        self._subscription: SingleAssignmentDisposable | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._error: Exception | None = None
        self._started = 0.0
        self._virtual: VirtualTimeScheduler | None = None
        self._watchers: list[Callable[[], None]] = []  # of the end, and of the giving up
        self.rate_limit = rate_limit

    def __repr__(self) -> str:
        plan = self._plan
        parts = [f"Pipeline of {', '.join(map(source_name, plan.sources))}"]
        if plan.handler is not None:
            parts.append(f"{plan.concurrency.limit} processors {name_of_part(plan.handler)}")
        parts += [f"{name}={batcher!r}" for name, batcher in plan.batchers.items()]
        return f"<{'; '.join(parts)}>"

    # Observation.

    @property
    def events(self) -> Observable[Event]:
        """The events of the pipeline and its sources; hot, never completes.

        With several sources, the ``part`` of an event starts with the number of its source.
        """
        own = self._telemetry.bus.events
        parts = [
            telemetry_of(source).bus.events.pipe(stock.map(_named(str(number))))
            for number, source in enumerate(self._plan.sources)
            if hasattr(source, "telemetry") and telemetry_of(source) is not self._telemetry
        ]
        return reactivex.merge(own, *parts) if parts else own

    @property
    def sources(self) -> tuple[Observable[Message[Any]], ...]:
        """The sources, in the given order; streams of X have a ``state``."""
        return self._plan.sources

    @property
    def errors(self) -> tuple[Failure, ...]:
        """The latest failures, at most thirty of each source and of the stages, by time."""
        sources = [source for source in self._plan.sources if hasattr(source, "telemetry")]
        places = {id(place): place for place in (self._telemetry, *map(telemetry_of, sources))}
        failures = [failure for place in places.values() for failure in place.failures]
        return tuple(sorted(failures, key=lambda failure: failure.at))

    def _ipython_display_(self) -> None:
        live.show(self)

    @property
    def spans(self) -> Observable[Span]:
        """Starts and ends of the calls of the processors; hot, never completes.

        Each message has two or more, so they are published only while an observer is subscribed.
        """
        return self._telemetry.bus.spans

    @property
    def concurrency(self) -> Concurrency:
        """The number of handlers that run concurrently; its ``limit`` can be changed meanwhile."""
        return self._plan.concurrency

    def topology(self) -> Topology:
        """Return the stages."""
        return self._plan.topology()

    def stats(self) -> Stats:
        """Return a snapshot of all counters."""
        return self._telemetry.stats()

    def stages(self) -> tuple[StageStats, ...]:
        """Return a snapshot of each stage: its queue, its messages in flight, its rate and load."""
        stages = self._telemetry.stages()
        return tuple(sorted(stages, key=lambda stage: STAGES.index(stage.kind)))

    # Start and stop.

    def start(self, *, scheduler: abc.SchedulerBase | None = None) -> Self:
        """Start in the background, and return immediately.

        Args:
            scheduler: of virtual time, for tests: everything runs on it, and no thread waits.

        Raises:
            PipelineError: it was started before, or a batcher has no subscriber.
        """
        for name, batcher in self._plan.batchers.items():
            if batcher.is_awaited:
                raise PipelineError(
                    f"batcher {name!r} has no subscriber: its batches are taken with abatches()"
                )
        return self._start({}, scheduler)

    def stop(self, *, drain: bool = True, timeout: float | timedelta = DRAIN_TIMEOUT) -> Stats:
        """Stop, and wait for the end; from any thread, also from a handler or a subscriber.

        A drain closes the sources, handles the messages that were received, delivers the last
        batches, and completes the subscribers. It ignores pauses and rate limits. On a thread of
        the pipeline or its source, which would wait for itself, `stop` returns immediately.

        Abandoned messages are counted and not acknowledged, so a broker redelivers them. Messages
        inside of RxPY's operators (``delay``, ``observe_on``, ``buffer``) are abandoned uncounted.

        Args:
            drain: ``False`` abandons the messages in flight.
            timeout: most seconds for the drain; then the rest is abandoned.

        Returns:
            The counters. After a complete drain they are final. Otherwise threads of the source may
            count abandoned messages later.
        """
        limit = seconds("timeout", timeout)
        if self._subscription is None:
            return self.stats()
        if drain:
            self._intake.shut()
            if self._virtual is not None:
                self._virtual.start()  # runs the rest: nothing else advances virtual time
            if self._telemetry.is_working() or self._over.wait(limit):
                return self._last_stats()
        self._subscription.dispose()
        self._finish(None)
        return self._last_stats()

    def wait(self, timeout: float | timedelta | None = None) -> bool:
        """Wait for the end.

        Args:
            timeout: most seconds; ``None`` for no limit.

        Returns:
            Whether it has ended.

        Raises:
            PipelineError: it was not started.
            RxTweetsError: the error that ended the stream.
        """
        if self._subscription is None:
            raise PipelineError("wait() comes after start()")
        has_ended = self._over.wait(None if timeout is None else seconds("timeout", timeout))
        if has_ended and self._error is not None:
            raise self._error
        return has_ended

    def run(self, *, timeout: float | timedelta = DRAIN_TIMEOUT) -> Stats:
        """Start, and wait for the end of the sources; SIGINT and SIGTERM drain.

        A second signal stops immediately. Off the main thread, where Python delivers no signals,
        only `stop` and the sources end it.

        Args:
            timeout: most seconds for the drain.

        Returns:
            The final counters.

        Raises:
            RxTweetsError: the error that ended the stream.
        """
        limit = seconds("timeout", timeout)
        signalled = threading.Event()
        with _signals_handled(signalled.set):
            self.start()
            try:
                while not self._over.wait(0.1) and not signalled.is_set() and self._gave_up is None:
                    pass
                signalled.clear()
                self._intake.shut()
                deadline = time.monotonic() + limit
                while (
                    not self._over.wait(0.05)
                    and not signalled.is_set()
                    and time.monotonic() < deadline
                ):
                    pass
            finally:
                self.stop(drain=False)
        if self._error is not None:
            raise self._error
        return self.stats()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(drain=kind is None)

    # For an event loop of the user.

    async def run_async(
        self,
        *,
        timeout: float | timedelta = DRAIN_TIMEOUT,  # noqa: ASYNC109 - that of the drain
    ) -> Stats:
        """Start, and wait for the end of the sources as `run` does, without blocking the loop.

        SIGINT and SIGTERM drain, and a second signal stops immediately, if the loop runs on the
        main thread. The signal handlers of before return at the end. A cancellation stops
        immediately.

        Args:
            timeout: most seconds for the drain.

        Returns:
            The final counters.

        Raises:
            RxTweetsError: the error that ended the stream.
        """
        limit = seconds("timeout", timeout)
        noticed, is_first = LoopEvent(CallerLoop()), iter((True,))

        def handle_signal() -> None:
            if next(is_first, False):
                noticed.set()
            else:
                self._stop_on_a_thread()

        self._watchers += [noticed.set]
        with _signals_handled(handle_signal):
            await self.__aenter__()
            try:
                await noticed.wait()
            except BaseException:  # a cancellation
                self._stop_on_a_thread()
                raise
            stats = await self.astop(timeout=limit)
        if self._error is not None:
            raise self._error
        return stats

    async def __aenter__(self) -> Self:
        is_cancelled = threading.Event()

        def start() -> None:
            self.start()
            if is_cancelled.is_set():
                self.stop(drain=False)

        def cancel() -> None:
            is_cancelled.set()
            self._stop_on_a_thread()

        await call_in_thread("rxtweets-start", start, cancel)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.astop(drain=kind is None)

    async def astop(
        self,
        *,
        drain: bool = True,
        timeout: float | timedelta = DRAIN_TIMEOUT,  # noqa: ASYNC109 - that of the drain
    ) -> Stats:
        """Stop as `stop` does, without blocking the event loop.

        A cancellation meanwhile ends the drain: the pipeline stops immediately.
        """
        return await call_in_thread(
            "rxtweets-stop",
            lambda: self.stop(drain=drain, timeout=timeout),
            self._stop_on_a_thread,
        )

    def abatches(self, name: str = "default") -> AsyncItems[Batch[Any]]:
        """Start, and give the batches of a batcher to an ``async for``; leaving the loop drains.

        ::

            pipeline = Pipeline(tweets, batchers={"default": Batcher.awaited(size=20)})
            async for batch in pipeline.abatches():
                await store(batch)

        A batch succeeds when the loop requests the next one; until then the pipeline waits. If the
        loop is left, by ``break`` or by an error, its batch fails, and the pipeline drains in the
        background: the batches that follow fail too. To wait for that drain, use
        ``contextlib.aclosing(pipeline.abatches())``; see `AsyncItems`. To stop, leave the loop:
        `astop` inside it waits for the batch that the loop has, until its timeout.

        Args:
            name: of a batcher made by `Batcher.awaited`.

        Raises:
            PipelineError: there is no such batcher, or another batcher has no subscriber. In the
                loop: the pipeline was started before.
            RxTweetsError: in the loop: the error that ended the stream.
        """
        self._check_awaited(name)
        has_started = threading.Event()

        def start(feed: Feed[Batch[Any]]) -> abc.DisposableBase:
            def end() -> None:  # of the pipeline, not of the batcher, since it may raise an error
                if not self._over.is_set():
                    return
                if self._error is None:
                    feed.on_completed()
                else:
                    feed.on_error(self._error)

            def drain() -> None:
                self.stop()

            self._watchers += [end]
            self._start({name: FunctionSubscriber(feed.take_item)}, None)
            has_started.set()
            return Disposable(drain)

        def shut() -> None:
            if has_started.is_set():  # else another loop may have started the pipeline
                self._intake.shut()

        return AsyncItems(Feed(start, self._telemetry, shut))

    def _check_awaited(self, name: str) -> None:
        for other, batcher in self._plan.batchers.items():
            if batcher.is_awaited is not (other == name):
                raise PipelineError(
                    f"batcher {other!r}: {name!r} must be Batcher.awaited(...), and no other"
                )
        if name not in self._plan.batchers:
            raise PipelineError(f"there is no batcher {name!r}")

    def _stop_on_a_thread(self) -> None:
        start_thread("rxtweets-stop", lambda: self.stop(drain=False))

    # While it runs.

    def pause(self) -> None:
        """Take no messages from the sources until `resume`; messages in flight continue.

        A source that can wait is not asked. X's stream fills its buffer until its overflow policy
        applies. A source that emits on a thread of the user blocks that thread.
        """
        self._intake.pause()

    def resume(self) -> None:
        """Take messages from the sources again."""
        self._intake.resume()

    @property
    def is_paused(self) -> bool:
        """Whether the pipeline is paused."""
        return self._intake.valve.is_paused

    def push(self, messages: Sequence[Message[Any]]) -> None:
        """Bring messages in beside the sources, also beyond the rate limit and while paused.

        Raises:
            PipelineError: the pipeline does not run.
        """
        if messages and not self._intake.push(list(messages)):
            raise PipelineError("messages can be pushed from start() until the end")

    def _start(
        self,
        awaited: Mapping[str, abc.ObserverBase[Batch[Any]]],
        scheduler: abc.SchedulerBase | None,
    ) -> Self:
        with self._lock:
            if self._subscription is not None:
                raise PipelineError("a pipeline runs once; make another one")
            self._subscription = subscription = SingleAssignmentDisposable()
        self._started = time.monotonic()
        started(self)
        self._virtual = scheduler if isinstance(scheduler, VirtualTimeScheduler) else None
        self._telemetry.publish(PipelineStarted(self.topology()))
        stream = self._plan.stream(self._intake.stream, awaited)
        end = Observer[Any](lambda _: None, self._finish, lambda: self._finish(None))
        # In lists where it has lists, which costs less than single messages.
        subscription.disposable = (
            stream.subscribe_chunks(end, scheduler)
            if isinstance(stream, MessageStream)
            else stream.subscribe(end, scheduler=scheduler)
        )
        return self

    def _note_batch(self, batch: Batch[Any], error: BaseException | None) -> None:
        name, most = batch.info.batcher, self._max_failed
        has_failed = all(message.status != "ok" for message in batch)
        with self._lock:
            in_row = self._failed_in_row[name] = (self._failed_in_row[name] + 1) * has_failed
            if most is None or in_row < most or self._gave_up is not None:
                return
            reason = "all of its messages" if error is None else repr(error)
            self._gave_up = SubscriberError(
                f"{in_row} batches of the batcher {name!r} failed in a row, the last with "
                f"{reason}: the pipeline ends (max_failed_batches)"
            )
            self._gave_up.__cause__ = error
        self._intake.shut()
        self._notify()

    def _finish(self, error: Exception | None) -> None:
        with self._lock:
            if self._over.is_set():
                return
            self._error = error = self._gave_up or error
            self._over.set()
        self._telemetry.publish(PipelineEnded(error, time.monotonic() - self._started))
        self._notify()

    def _notify(self) -> None:
        for notice in self._watchers:
            notice()

    def _last_stats(self) -> Stats:
        self._telemetry.bus.flush()
        return self.stats()


@contextlib.contextmanager
def _signals_handled(function: Callable[[], None]) -> Iterator[None]:
    """Let SIGINT and SIGTERM call the function inside the block; on the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        function()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _telemetry_of(sources: Sequence[Observable[Message[Any]]]) -> Telemetry:
    if len(sources) == 1:
        return telemetry_of(sources[0])
    known = (telemetry_of(source) for source in sources if hasattr(source, "telemetry"))
    parts = list(dict.fromkeys(known))  # sources that derive from one stream count it once
    telemetry = new_telemetry(parts)
    telemetry.show("state", lambda: _furthest([part.shown("state") for part in parts]))
    telemetry.show("lag", lambda: _longest([part.shown("lag") for part in parts]))
    return telemetry


def _furthest(names: Sequence[StateName | None]) -> StateName:
    # A source without a connection has no state.
    states = [ConnectionState(name) for name in names if name is not None]
    return furthest(states or [ConnectionState("idle")]).name


def _longest(lags: Sequence[float | None]) -> float | None:
    return max((lag for lag in lags if lag is not None), default=None)


def _named(part: str) -> Callable[[Event], Event]:
    return lambda event: replace(event, part=f"{part}/{event.part}" if event.part else part)
