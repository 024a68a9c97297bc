"""`process`: concurrent calls of a handler, one for each message."""

from __future__ import annotations

import pickle
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from reactivex import Observable, abc
from reactivex.scheduler import NewThreadScheduler, VirtualTimeScheduler

from rxtweets._core.acknowledgement import OnFailed
from rxtweets._core.concurrency import Concurrency
from rxtweets._core.observable import MessageStream, subscribe_in_chunks, telemetry_of
from rxtweets._core.retry import Retry
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import Message
from rxtweets._support.timers import SchedulerTimers, ThreadTimers, Timers
from rxtweets._support.validation import function, seconds, whole_number
from rxtweets._support.workers import WorkerPool
from rxtweets.errors import ConfigurationError
from rxtweets.operators._calls import (
    NOT_GIVEN,
    Prepare,
    Runner,
    calling,
    is_async,
    name_of,
    with_context,
)
from rxtweets.operators._event_loop import LoopRunner, LoopThread
from rxtweets.operators._executor import AnyExecutor, ExecutorRunner
from rxtweets.operators._processor import CallFlow, Demand, Processor
from rxtweets.operators._threads import ThreadRunner

__all__ = ["Handler", "OfChunk", "process"]

T = TypeVar("T")
U = TypeVar("U")

Result = Message[U] | Awaitable[Message[U]]
Handler = Callable[[Message[T]], Result[U]] | Callable[[Message[T], Any], Result[U]]
Messages = list[Message[Any]]
OfChunk = (
    Callable[[Messages], Sequence[Message[Any]]] | Callable[[Messages, Any], Sequence[Message[Any]]]
)
Deadline = Callable[[Message[Any]], float | None]


def process(
    handler: Handler[T, U],
    concurrency: int | Concurrency = 50,
    *,
    ordered: bool = False,
    partition_by: Callable[[Message[T]], Hashable] | None = None,
    prepare: OfChunk | None = None,
    context: Any = NOT_GIVEN,
    on_failed: OfChunk | None = None,
    retry: Retry | None = None,
    time_limit: float | timedelta | None = None,
    deadline: float | timedelta | Callable[[Message[T]], float | None] | None = None,
    executor: Executor | Callable[[], Executor] | None = None,
    max_demand: int = 10,
    min_demand: int | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[Message[T]]], MessageStream[U]]:
    """Call a handler for every message, many concurrently, and emit the results.

    This is ``flat_map`` over a thread-pool scheduler, with bounds. At most ``concurrency``
    handlers run concurrently. At most ten messages for each of them are in flight; then the source
    waits. For X's stream that means: the buffer fills, and its overflow policy decides. Results
    are emitted one at a time, never from two threads concurrently.

    ::

        source       --1--2--3--4------|
        process(f)   -----2'-1'-4'-3'--|     f takes longer for 1 and 3
        … ordered    --------1'2'---3'4'|

    A message fails if its handler raises, returns something else than a message, or returns
    ``message.failed(reason)``. A failed message is counted, reported (`events.HandlerFailed`),
    acknowledged as failed, and not emitted. The stream continues.

    One thread calls the handlers while they return immediately. When they block, more threads join,
    up to ``concurrency``; no message waits behind a slow one. ``async def`` handlers run on one
    event loop in a thread of the operator, also in a notebook and in a web app. The
    thread starts with the first message and ends with the subscription.

    When the source ends, by completion or by error, the messages in flight are handled first.

    ``stages()`` of the result says how many handlers run, how many messages are in flight, and
    which share of the time is used (`StageStats.busy`, `StageStats.busy_since`). Its ``spans`` is
    an Observable of the start and end of each call; spans are made only while it has subscribers.

    Args:
        handler: takes a message and returns a message, usually ``message.update_data(...)``; a
            function or an ``async def``.
        concurrency: concurrent handlers at most, 1 or more, by default 50. A `Concurrency` can be
            changed while handlers run. With an ``executor``: concurrent chunks at most.
        ordered: emit in the order of the source. A slow message then holds back the results of
            later messages, whose handlers run meanwhile.
        partition_by: returns the key of a message. Messages of one key are handled one at a time,
            in order; messages of different keys concurrently. It runs on the source's thread; if
            it raises, its message fails.
        prepare: called with a list of up to 100 waiting messages before their handlers, by up to
            ``concurrency`` threads. It returns all of them, in order. If it raises or
            returns others, all of them fail. Messages that it has failed get no handler.
        context: the last argument of ``handler``, ``prepare`` and ``on_failed``, if given.
        on_failed: called with each list of failed messages before they are acknowledged, one list
            at a time: the place for dead letters. It returns the same number, which are
            acknowledged as failed. If it does not, the original ones are acknowledged
            (`events.FailureHandlerFailed`).
        retry: when to handle a failed message again. No thread waits meanwhile, but the message
            stays in flight.
        time_limit: seconds for one call of the handler; then the message fails with
            `HandlerTimeout`. A coroutine is cancelled. A thread cannot be stopped: its result is
            discarded, and another thread takes its place, while at most ``concurrency`` threads
            hang (``stats().threads_lost``). A handler that never returns keeps its thread until the
            program ends; the threads are daemons. Not with an ``executor``.
        deadline: seconds after ``message.received_at``, or after the arrival here if that is
            unknown; or a function of the message that returns seconds since 1970, or ``None``.
            A message past its deadline fails with `DeadlineExceeded` and gets no handler.
        executor: runs the handlers: any `concurrent.futures.Executor`, such as a process pool, or
            dask's ``client.get_executor()``. Messages go in chunks, pickled unless it is a
            ``ThreadPoolExecutor``; acknowledgers stay here. A handler for a process pool
            is a function at the top of a module. The executor is not shut down. If it breaks, its
            messages fail, and the stream ends with `ExecutorBroken`. Give a function that makes
            one, such as ``ProcessPoolExecutor``: then it is replaced if it breaks, and shut down at
            the end. Ctrl-C also reaches the processes of a pool; for processes that must continue
            while a pipeline drains, use
            ``ProcessPoolExecutor(initializer=signal.signal, initargs=(signal.SIGINT,
            signal.SIG_IGN))``.
        max_demand: messages in flight for each of the ``concurrency``, by default 10. A pull source
            is asked for no more; a push source waits with its next list of messages. With an
            ``executor``, long chunks need more.
        min_demand: messages in flight for each of the ``concurrency`` at which the source
            continues; less than ``max_demand``, by default half of it.
        scheduler: runs the handlers instead of the operator's own threads. A scheduler of virtual
            time that is given to ``subscribe`` is used as well.

    Raises:
        ConfigurationError: an argument is wrong, or two of them contradict each other.

    Example::

        enriched = ops.process(
            enrich,                                  # async def enrich(message, session)
            rxtweets.Concurrency(10),
            context=session,
            partition_by=lambda message: message.metadata["author_id"],
            retry=rxtweets.Retry(stop=tenacity.stop_after_attempt(5)),
            time_limit=5.0,
        )
    """
    function("handler", handler)
    for name, value in (("partition_by", partition_by), ("prepare", prepare)):
        _check_plain_function(name, value)
    _check_plain_function("on_failed", on_failed)
    if retry is not None and not isinstance(retry, Retry):
        raise ConfigurationError(f"retry={retry!r}: give a rxtweets.Retry")
    options = _Options(
        handler=with_context(handler, context),
        name=name_of(handler),
        is_async=is_async(handler),
        concurrency=concurrency
        if isinstance(concurrency, Concurrency)
        else Concurrency(whole_number("concurrency", concurrency)),
        ordered=ordered,
        partition_by=partition_by,
        prepare=with_context(prepare, context),
        on_failed=with_context(on_failed, context),
        retry=retry,
        time_limit=None if time_limit is None else seconds("time_limit", time_limit),
        deadline=deadline
        if deadline is None or callable(deadline)
        else seconds("deadline", deadline),
        executor=executor,
        scheduler=scheduler,
        demand=_demand(max_demand, min_demand),
    )
    _check_contradictions(options)

    def operator(source: Observable[Message[T]]) -> MessageStream[U]:
        telemetry = telemetry_of(source)

        def subscribe(
            observer: abc.ObserverBase[list[Message[Any]]], given: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            processor, flow = _assemble(options, observer, telemetry, given)
            processor.connect(flow, lambda chunks: subscribe_in_chunks(source, chunks, given))
            return processor

        return MessageStream(subscribe, telemetry)

    return operator


@dataclass(frozen=True)
class _Options:
    """Checked arguments of `process`; functions take one argument, the context is bound."""

    handler: Callable[[Message[Any]], Any]
    name: str
    is_async: bool
    concurrency: Concurrency
    ordered: bool
    partition_by: Callable[[Message[Any]], Hashable] | None
    prepare: Prepare | None
    on_failed: OnFailed | None
    retry: Retry | None
    time_limit: float | None
    deadline: float | Deadline | None
    executor: AnyExecutor | None
    scheduler: abc.SchedulerBase | None
    demand: Demand


def _check_plain_function(name: str, value: Any) -> None:
    if value is None:
        return
    function(name, value)
    if is_async(value):
        raise ConfigurationError(f"{name} is called on a thread: give a plain function, not async")


def _demand(most: Any, least: Any) -> Demand:
    whole_number("max_demand", most)
    if least is None:
        return Demand(most, most // 2)
    whole_number("min_demand", least, least=0)
    if least >= most:
        raise ConfigurationError(f"min_demand={least}: it is less than max_demand, here {most}")
    return Demand(most, least)


def _check_contradictions(options: _Options) -> None:
    executor = options.executor
    if options.scheduler is not None and (options.is_async or executor is not None):
        raise ConfigurationError("scheduler= is for handlers on threads: leave it out")
    if executor is None:
        return
    if not isinstance(executor, Executor) and not callable(executor):
        raise ConfigurationError(
            f"executor={executor!r}: give an Executor of concurrent.futures, or a function that "
            "makes one"
        )
    if options.is_async:
        raise ConfigurationError("an executor calls plain functions: leave executor= out, or async")
    if options.time_limit is not None:
        raise ConfigurationError(
            "time_limit= cannot be kept in an executor, whose calls are not ours: limit them there"
        )
    if isinstance(executor, ProcessPoolExecutor) or executor is ProcessPoolExecutor:
        try:
            pickle.dumps(options.handler)
        except Exception as error:
            raise ConfigurationError(
                f"handler {options.name} cannot be pickled, so it cannot go to another process; "
                f"define it at the top of a module: {error}"
            ) from error


# One subscription.


def _assemble(
    options: _Options,
    observer: abc.ObserverBase[list[Message[Any]]],
    telemetry: Telemetry,
    given: abc.SchedulerBase | None,
) -> tuple[Processor, CallFlow]:
    scheduler = options.scheduler
    if scheduler is None and isinstance(given, VirtualTimeScheduler):
        scheduler = given
    virtual = scheduler if isinstance(scheduler, VirtualTimeScheduler) else None
    pool = WorkerPool("rxtweets-processor")
    processor = Processor(
        observer,
        telemetry,
        options.concurrency,
        pool.submit if scheduler is None else _spawner(scheduler),
        # A scheduler that runs everything on one thread must not wait for itself.
        may_wait=scheduler is None or isinstance(scheduler, NewThreadScheduler),
        on_failed=options.on_failed,
        demand=options.demand,
    )
    processor.at_end(pool.close)
    loop = LoopThread(processor.working, telemetry, processor.died)
    processor.at_end(loop.stop)
    handler, clock = options.handler, time.time
    timers: Timers = ThreadTimers("rxtweets-retry", processor.died)
    if virtual is not None:
        timers, clock = SchedulerTimers(virtual), lambda: virtual.to_seconds(virtual.now)
        if options.is_async:  # in virtual time a call takes no time: the thread waits for it
            handler = lambda message: loop.wait_for(options.handler(message))  # noqa: E731
    flow = CallFlow(
        processor,
        calling(handler, options.name),
        telemetry,
        ordered=options.ordered,
        deadline=_deadline(options.deadline, clock),
        clock=clock,
        partition_by=options.partition_by,
        prepare=options.prepare,
        concurrency=options.concurrency,
        retry=options.retry,
        timers=timers,
    )
    flow.runner = _runner(options, flow, processor, telemetry, None if virtual else loop)
    return processor, flow


def _runner(
    options: _Options,
    flow: CallFlow,
    processor: Processor,
    telemetry: Telemetry,
    loop: LoopThread | None,
) -> Runner:
    stage = flow, processor, options.concurrency, telemetry
    if options.executor is not None:
        return ExecutorRunner(options.handler, options.name, options.executor, *stage)
    if loop is None:  # in virtual time
        return ThreadRunner(*stage)
    if options.is_async:
        return LoopRunner(options.handler, options.name, *stage, loop, options.time_limit)
    return ThreadRunner(*stage, options.time_limit)


def _spawner(scheduler: abc.SchedulerBase) -> Callable[[Callable[[], None]], None]:
    def spawn(task: Callable[[], None]) -> None:
        scheduler.schedule(lambda *_: task())

    return spawn


def _deadline(deadline: float | Deadline | None, clock: Callable[[], float]) -> Deadline | None:
    if deadline is None or callable(deadline):
        return deadline

    def after_receipt(message: Message[Any]) -> float:
        received = message.received_at
        return (clock() if received is None else received) + deadline

    return after_receipt
