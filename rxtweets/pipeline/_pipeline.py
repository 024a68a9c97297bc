"""`Pipeline`: sources, processors, batchers and subscribers, started and stopped as one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import reactivex
from reactivex import Observable, Observer, abc
from reactivex import operators as stock
from reactivex.disposable import SingleAssignmentDisposable
from reactivex.scheduler import VirtualTimeScheduler

from rxtweets._core.concurrency import Concurrency
from rxtweets._core.events import Event, PipelineEnded, PipelineStarted, Span
from rxtweets._core.failures import Failure
from rxtweets._core.observable import MessageStream, new_telemetry, telemetry_of
from rxtweets._core.rate_limit import RateLimit
from rxtweets._core.retry import Retry
from rxtweets._core.telemetry import StageStats, Stats, Telemetry
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets._support.validation import function, seconds, whole_number
from rxtweets.display import _live as live
from rxtweets.display._notebook import started
from rxtweets.errors import ConfigurationError, PipelineError, SubscriberError
from rxtweets.operators._calls import NOT_GIVEN
from rxtweets.pipeline._asynchronous import LoopSubscriber
from rxtweets.pipeline._batcher import Batcher
from rxtweets.pipeline._intake import Intake
from rxtweets.pipeline._plan import Plan, batchers_of, sources_of
from rxtweets.pipeline._restart import Restart
from rxtweets.pipeline._signals import signals
from rxtweets.pipeline._topology import Topology
from rxtweets.streams._base import HotStream
from rxtweets.streams._merged import furthest

__all__ = ["Pipeline"]

DRAIN_TIMEOUT = 30.0
MAX_DEMAND = 10
DEFAULT_RESTART = Restart()
STAGES = ("source", "processors", "batcher", "subscribers")

Handler = Callable[..., Message[Any] | Awaitable[Message[Any]]]


class Pipeline:
    """One or more sources, concurrent processors, and named batchers with their subscribers.

    ::

        pipeline = rxtweets.Pipeline(
            rxtweets.sample_stream(),
            handle_message=upcase,
            concurrency=50,
            batchers={
                "default": Batcher(database, size=20, timeout=2.0),
                "alerts": Batcher(post_to_chat, size=1),
            },
        )
        pipeline.run()                    # until Ctrl-C, which drains

    It is made of `operators.process`, `operators.route`, `operators.batch` and
    `operators.deliver`, or `operators.acknowledge` without batchers, and behaves as they do. A
    pipeline runs once; make another to run again.

    Args:
        source: of messages; X's stream, or any Observable, or a list of them.
        handle_message: called for every message, ``concurrency`` at once; without it, messages
            are batched as they are. ``message.put_batcher(name)`` chooses the batcher.
        concurrency: handlers at once at most; a `Concurrency` can be changed while they run.
        ordered: keep the order of the source.
        partition_by: gives each message a whole number from 0; messages of one number are handled
            one at a time, in order, and batched and delivered in order too, unless a batcher has
            its own.
        prepare_messages: called with each list of messages before their handlers; returns all.
        handle_failed: called with each list of messages that failed, in the processors or in a
            subscriber, before they are acknowledged; returns as many.
        batchers: by name; messages go to ``default`` unless they name another. Without batchers,
            messages are acknowledged when they were handled.
        context: the last argument of every function here, if given.
        rate_limit: how many messages are taken from the sources, over all of them.
        restart: when a source that failed is subscribed to again; ``None`` for never.
        retry: see `operators.process`.
        time_limit: see `operators.process`.
        deadline: see `operators.process`.
        executor: see `operators.process`.
        max_demand: see `operators.process`.
        min_demand: see `operators.process`.
        max_failed_batches: how many batches of one batcher may fail in a row; then the pipeline
            drains, and ends with a `SubscriberError`. ``None``, the default, for any number. A
            batch has failed if its subscriber raised, or failed all of its messages.

    Raises:
        ConfigurationError: an argument cannot work.
    """

    def __init__(
        self,
        source: Observable[Message[Any]] | Sequence[Observable[Message[Any]]],
        *,
        handle_message: Handler | None = None,
        concurrency: int | Concurrency = 50,
        ordered: bool = False,
        partition_by: Callable[[Message[Any]], int] | None = None,
        prepare_messages: Callable[..., Sequence[Message[Any]]] | None = None,
        handle_failed: Callable[..., Sequence[Message[Any]]] | None = None,
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
        processing = {
            "ordered": ordered,
            "partition_by": partition_by,
            "prepare": prepare_messages,
            "retry": retry,
            "time_limit": time_limit,
            "deadline": deadline,
            "executor": executor,
            "max_demand": max_demand,
            "min_demand": min_demand,
        }
        self._plan = Plan(
            sources_of(source),
            handle_message,
            concurrency
            if isinstance(concurrency, Concurrency)
            else Concurrency(whole_number("concurrency", concurrency)),
            processing,
            batchers_of(batchers),
            partition_by,
            handle_failed,
            () if context is NOT_GIVEN else (context,),
            None if max_failed_batches is None else self._note_batch,
        )
        if max_failed_batches is not None:
            whole_number("max_failed_batches", max_failed_batches)
            if not self._plan.batchers:
                raise ConfigurationError("max_failed_batches= is for batchers: give batchers= too")
        self._max_failed = max_failed_batches
        self._failed_in_row: Counter[str] = Counter()
        self._gave_up: SubscriberError | None = None
        _refuse_contradictions(self._plan, rate_limit, restart)
        self._telemetry = _telemetry_of(self._plan.sources)
        self._intake = Intake(self._plan.sources, restart, rate_limit, self._telemetry)
        self._plan.stream(self._intake.stream, {})  # whatever is wrong is found now
        self._subscription: SingleAssignmentDisposable | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._error: Exception | None = None
        self._started = 0.0
        self._virtual: VirtualTimeScheduler | None = None
        self.rate_limit = rate_limit

    # What it is, and how it does.

    @property
    def events(self) -> Observable[Event]:
        """What happens in the pipeline and its sources; hot, never completes."""
        own = self._telemetry.bus.events
        parts = [
            telemetry_of(source).bus.events.pipe(stock.map(_named(str(number))))
            for number, source in enumerate(self._plan.sources)
            if hasattr(source, "telemetry") and telemetry_of(source) is not self._telemetry
        ]
        return reactivex.merge(own, *parts) if parts else own

    @property
    def sources(self) -> tuple[Observable[Message[Any]], ...]:
        """Those that were given, in their order; X's streams among them have a ``state``."""
        return tuple(self._plan.sources)

    @property
    def errors(self) -> tuple[Failure, ...]:
        """The latest things that went wrong, thirty at most of each source and of the stages."""
        sources = [each for each in self._plan.sources if hasattr(each, "telemetry")]
        every = (self._telemetry, *map(telemetry_of, sources))
        places = {id(each): each for each in every}
        found = [failure for each in places.values() for failure in each.failures]
        return tuple(sorted(found, key=lambda failure: failure.at))

    def _ipython_display_(self) -> None:
        live.show(self)

    @property
    def spans(self) -> Observable[Span]:
        """Where the work of the processors begins and ends; hot, never completes.

        Two or more for every message, so they are made only while somebody has subscribed.
        """
        return self._telemetry.bus.spans

    @property
    def concurrency(self) -> Concurrency:
        """How many handlers may run at once; its ``limit`` can be changed while they do."""
        return self._plan.concurrency

    def topology(self) -> Topology:
        """The stages."""
        return self._plan.topology()

    def stats(self) -> Stats:
        """A snapshot of all counters."""
        return self._telemetry.stats()

    def stages(self) -> tuple[StageStats, ...]:
        """A snapshot of each stage: what waits, what is in flight, how fast, how busy."""
        found = self._telemetry.stages()
        return tuple(sorted(found, key=lambda stage: STAGES.index(stage.kind)))

    # Its life.

    def start(self, *, scheduler: abc.SchedulerBase | None = None) -> Self:
        """Start in the background and return at once.

        Args:
            scheduler: of virtual time, for tests: then everything runs on it, and nothing waits.

        Raises:
            PipelineError: it was started before, or a batcher has no subscriber.
        """
        missing = [name for name, each in self._plan.batchers.items() if each.is_awaited]
        if missing:
            raise PipelineError(
                f"batcher {missing[0]!r} has no subscriber: its batches are taken with abatches()"
            )
        return self._start({}, scheduler)

    def stop(self, *, drain: bool = True, timeout: float | timedelta = DRAIN_TIMEOUT) -> Stats:
        """Stop, and wait until it has; from any thread, also from a handler or a subscriber.

        A drain closes the sources, handles what was received, delivers the last batches and
        completes the subscribers; neither a pause nor a rate limit holds it up. Called on a thread
        that works for the pipeline or its source, where waiting would be for itself, it returns at
        once.

        Args:
            drain: ``False`` abandons what is in flight, and counts it.
            timeout: seconds for the drain; then what is left is abandoned.

        Returns:
            The last figures.
        """
        limit = seconds("timeout", timeout)
        if self._subscription is None:
            return self.stats()
        if drain:
            self._intake.shut()
            if self._virtual is not None:
                self._virtual.start()  # nobody else would let what is left happen
            if self._telemetry.is_working() or self._over.wait(limit):
                return self._last_stats()
        self._subscription.dispose()
        self._finish(None)
        return self._last_stats()

    def wait(self, timeout: float | timedelta | None = None) -> bool:
        """Wait for the end.

        Args:
            timeout: seconds; ``None`` waits for ever.

        Returns:
            Whether it is over.

        Raises:
            PipelineError: it was not started.
            RxTweetsError: what ended the stream for good.
        """
        if self._subscription is None:
            raise PipelineError("wait() comes after start()")
        over = self._over.wait(None if timeout is None else seconds("timeout", timeout))
        if over and self._error is not None:
            raise self._error
        return over

    def run(self, *, timeout: float | timedelta = DRAIN_TIMEOUT) -> Stats:
        """Start and wait for the end: of the sources, or by SIGINT or SIGTERM, which drain.

        A second signal stops at once. Off the main thread, where Python takes no signals, only
        `stop` and the sources end it.

        Args:
            timeout: seconds for the drain.

        Returns:
            The last figures.

        Raises:
            RxTweetsError: what ended the stream for good.
        """
        limit = seconds("timeout", timeout)
        asked = threading.Event()
        with signals(asked):
            self.start()
            try:
                while not self._over.wait(0.1) and not asked.is_set() and self._gave_up is None:
                    pass
                self._drain(asked, limit)
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

    # On an event loop of the caller's.

    async def astop(
        self,
        *,
        drain: bool = True,
        timeout: float | timedelta = DRAIN_TIMEOUT,  # noqa: ASYNC109 - that of the drain
    ) -> Stats:
        """The same as `stop`, while the event loop goes on."""
        return await asyncio.to_thread(self.stop, drain=drain, timeout=timeout)

    async def abatches(self, name: str = "default") -> AsyncGenerator[Batch[Any], None]:
        """Start, and take the batches of a batcher in an ``async for``; leaving the loop drains.

        ::

            pipeline = Pipeline(tweets, batchers={"default": Batcher.awaited(size=20)})
            async for batch in pipeline.abatches():
                await store(batch)

        A batch is taken when the loop asks for the next one; meanwhile the pipeline waits. If the
        loop is left, by ``break`` or by an error, the batch in its hands has failed, and the
        pipeline drains. Python does that when it gets round to closing the iterator; to have it
        done at once, loop over ``contextlib.aclosing(pipeline.abatches())``.

        Args:
            name: of a batcher that was made by `Batcher.awaited`.

        Raises:
            PipelineError: there is no such batcher, another one has no subscriber, or the pipeline
                was started before.
            RxTweetsError: what ended the stream for good.
        """
        for other, batcher in self._plan.batchers.items():
            if batcher.is_awaited is not (other == name):
                raise PipelineError(
                    f"batcher {other!r}: {name!r} must be Batcher.awaited(...), and no other"
                )
        if name not in self._plan.batchers:
            raise PipelineError(f"there is no batcher {name!r}")
        subscriber = LoopSubscriber()
        self._start({name: subscriber}, None)
        batches = subscriber.batches(self._over.is_set)
        try:
            async for batch in batches:
                yield batch
        finally:
            await batches.aclose()
            subscriber.leave()
            await self.astop()
        if self._error is not None:
            raise self._error

    # While it runs.

    def pause(self) -> None:
        """Take nothing from the sources until `resume`; what was taken goes on its way.

        A source that can wait is not asked any more, X's stream fills its hand-off until its
        overflow policy decides, and a thread of yours that emits has to wait.
        """
        self._intake.pause()

    def resume(self) -> None:
        """Take from the sources again."""
        self._intake.resume()

    @property
    def is_paused(self) -> bool:
        """Whether it takes nothing from the sources now."""
        return self._intake.is_paused

    def push(self, messages: Sequence[Message[Any]]) -> None:
        """Bring messages in beside the sources, whatever the rate limit, and also while paused.

        Raises:
            PipelineError: the pipeline does not run.
        """
        if messages and not self._intake.push(list(messages)):
            raise PipelineError("messages can be pushed from start() until the end")

    def _start(
        self,
        subscribers: Mapping[str, abc.ObserverBase[Batch[Any]]],
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
        stream = self._plan.stream(self._intake.stream, subscribers)
        end = Observer[Any](lambda _: None, self._finish, lambda: self._finish(None))
        # Lists where there are lists: nobody takes single messages here.
        subscription.disposable = (
            stream.subscribe_chunks(end, scheduler)
            if isinstance(stream, MessageStream)
            else stream.subscribe(end, scheduler=scheduler)
        )
        return self

    def _drain(self, asked: threading.Event, limit: float) -> None:
        asked.clear()
        self._intake.shut()
        deadline = time.monotonic() + limit
        while not self._over.wait(0.05) and not asked.is_set() and time.monotonic() < deadline:
            pass

    def _note_batch(self, batch: Batch[Any], error: BaseException | None) -> None:
        """Give up after too many failed batches of one batcher in a row."""
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

    def _finish(self, error: Exception | None) -> None:
        with self._lock:
            if self._over.is_set():
                return
            error = self._gave_up or error
            self._error = error
            self._over.set()
        self._telemetry.publish(PipelineEnded(error, time.monotonic() - self._started))

    def _last_stats(self) -> Stats:
        self._telemetry.bus.flush()
        return self.stats()


def _telemetry_of(sources: Sequence[Observable[Message[Any]]]) -> Telemetry:
    """That of the one source, or a new one that adds up those of several."""
    if len(sources) == 1:
        return telemetry_of(sources[0])
    telemetry = new_telemetry(
        [telemetry_of(each) for each in sources if hasattr(each, "telemetry")]
    )
    streams = [each for each in sources if isinstance(each, HotStream)]
    if streams:
        telemetry.show("state", lambda: furthest([each.state for each in streams]).name)
        telemetry.show("lag", lambda: _longest([each.stats().lag for each in streams]))
    return telemetry


def _longest(lags: Sequence[float | None]) -> float | None:
    return max((lag for lag in lags if lag is not None), default=None)


def _refuse_contradictions(plan: Plan, rate_limit: Any, restart: Any) -> None:
    if plan.handler is None and not plan.batchers:
        raise ConfigurationError(
            "batchers: without handle_message= and without batchers= there is nothing to do"
        )
    for name, value in (("handle_failed", plan.handle_failed), ("partition_by", plan.partition_by)):
        if value is not None:
            function(name, value)
    if rate_limit is not None and not isinstance(rate_limit, RateLimit):
        raise ConfigurationError(f"rate_limit={rate_limit!r}: give a rxtweets.RateLimit")
    if restart is not None and not isinstance(restart, Restart):
        raise ConfigurationError(f"restart={restart!r}: give a rxtweets.Restart, or None")
    given = {**plan.processing, "partition_by": None}  # which is for batchers as well
    if given["max_demand"] == MAX_DEMAND:
        del given["max_demand"]
    unused = [name for name, value in given.items() if value]
    if plan.handler is None and unused:
        raise ConfigurationError(f"{unused[0]}= is for handlers: give handle_message= too")
    # A source that is composed of operators, or is the user's own, may name batchers itself.
    is_unrouted = all(isinstance(source, HotStream) for source in plan.sources)
    has_no_default = bool(plan.batchers) and "default" not in plan.batchers
    if plan.handler is None and is_unrouted and has_no_default:
        raise ConfigurationError(
            f"batchers: without handle_message= every message goes to 'default', which is none of "
            f"{', '.join(map(repr, plan.batchers))}: name one of them so, or give a "
            "handle_message= that calls message.put_batcher(name)"
        )


def _named(part: str) -> Callable[[Event], Event]:
    return lambda event: replace(event, part=f"{part}/{event.part}" if event.part else part)
