"""How the parts of `process` are put together for one subscription."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from reactivex import abc
from reactivex.scheduler import NewThreadScheduler, VirtualTimeScheduler

from rxtweets._core.concurrency import Concurrency
from rxtweets._core.retry import Retry
from rxtweets._core.subscriber import OnFailed
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import Message
from rxtweets._support.timers import SchedulerTimers, ThreadTimers, Timers
from rxtweets._support.workers import WorkerPool
from rxtweets.operators._calls import Runner, calling
from rxtweets.operators._executors import AnyExecutor, ExecutorRunner
from rxtweets.operators._flow import Flow
from rxtweets.operators._loop import LoopRunner, OwnLoop
from rxtweets.operators._preparing import Prepare
from rxtweets.operators._processor import Demand, Processor
from rxtweets.operators._results import AsTheyCome, InOrder
from rxtweets.operators._threads import ThreadRunner
from rxtweets.operators._time_limits import LimitedThreadRunner

__all__ = ["Plan", "assemble"]


@dataclass(frozen=True)
class Plan:
    """What `process` was asked for, checked; functions take one argument, the context is in them.

    Attributes:
        handler: the user's.
        name: of it, for errors.
        is_async: whether calling it gives a coroutine.
        concurrency: calls at once at most.
        ordered: keep the order of the source.
        partition_by: the key of a message.
        prepare: for chunks, before handlers.
        on_failed: for failed messages, before they are acknowledged.
        retry: when a failed message is handled again.
        time_limit: seconds for a call.
        deadline: seconds after ``received_at``, or a function that gives seconds since 1970.
        executor: where calls run, if not here.
        scheduler: the user's, if not threads of our own.
        demand: how many messages are taken in advance.
    """

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
    deadline: float | Callable[[Message[Any]], float | None] | None
    executor: AnyExecutor | None
    scheduler: abc.SchedulerBase | None
    demand: Demand

    @property
    def is_plain(self) -> bool:
        """Whether a message is one call on a thread and nothing else, which is quicker."""
        return (
            not self.ordered
            and not self.is_async
            and all(
                option is None
                for option in (
                    self.partition_by,
                    self.prepare,
                    self.retry,
                    self.time_limit,
                    self.deadline,
                    self.executor,
                )
            )
        )


def assemble(
    plan: Plan,
    observer: abc.ObserverBase[list[Message[Any]]],
    telemetry: Telemetry,
    given: abc.SchedulerBase | None,
    subscribe: Callable[[abc.ObserverBase[list[Message[Any]]]], abc.DisposableBase],
) -> Processor:
    """Build what was asked for, and subscribe it to the source.

    Args:
        plan: what was asked for.
        observer: of the results.
        telemetry: where to count and report.
        given: the scheduler that was given to ``subscribe``.
        subscribe: subscribes an observer of chunks to the source.
    """
    scheduler = plan.scheduler
    if scheduler is None and isinstance(given, VirtualTimeScheduler):
        scheduler = given
    spawn, close, may_wait = _threads() if scheduler is None else _on(scheduler)
    processor = Processor(
        observer,
        telemetry,
        plan.concurrency,
        InOrder() if plan.ordered else AsTheyCome(),
        spawn,
        close,
        may_wait=may_wait,
        on_failed=plan.on_failed,
        demand=plan.demand,
    )
    if plan.is_plain:
        job = _Plain(processor, plan)
        runner = ThreadRunner(job, plan.concurrency, telemetry, processor.spawn, may_wait=may_wait)
        processor.listen(runner, subscribe)
    else:
        processor.listen(_flow(plan, processor, telemetry, scheduler, may_wait), subscribe)
    return processor


class _Plain:
    """The job of runners where an item is a message, and an outcome another one."""

    def __init__(self, processor: Processor, plan: Plan) -> None:
        self.handle = calling(plan.handler, plan.name)
        self.done = processor.emit
        self.break_off = processor.break_off

    def fail(self, item: Message[Any], error: BaseException) -> Message[Any]:
        """The outcome of a message whose call was lost."""
        return item.failed(error)

    def message_of(self, outcome: Message[Any]) -> Message[Any]:
        """The outcome is a message."""
        return outcome


def _flow(
    plan: Plan,
    processor: Processor,
    telemetry: Telemetry,
    scheduler: abc.SchedulerBase | None,
    may_wait: bool,
) -> Flow:
    loop = OwnLoop(processor.working, telemetry, processor.died)
    processor.at_end(loop.stop)
    in_virtual_time = isinstance(scheduler, VirtualTimeScheduler)
    timers: Timers = ThreadTimers("rxtweets-retry", processor.died)
    clock = time.time
    handler = plan.handler
    if scheduler is not None and isinstance(scheduler, VirtualTimeScheduler):
        timers, clock = SchedulerTimers(scheduler), lambda: scheduler.to_seconds(scheduler.now)
        if plan.is_async:  # in virtual time a call takes no time: it is waited for
            handler = lambda message: loop.wait_for(plan.handler(message))  # noqa: E731 - a line
    flow = Flow(
        processor,
        calling(handler, plan.name),
        telemetry,
        deadline=_deadline(plan, clock),
        clock=clock,
        partition_by=plan.partition_by,
        prepare=plan.prepare,
        concurrency=plan.concurrency,
        retry=plan.retry,
        timers=timers,
        may_race=plan.time_limit is not None,
    )
    flow.runner = _runner(plan, flow, processor, telemetry, loop, may_wait, in_virtual_time)
    return flow


def _runner(
    plan: Plan,
    flow: Flow,
    processor: Processor,
    telemetry: Telemetry,
    loop: OwnLoop,
    may_wait: bool,
    in_virtual_time: bool,
) -> Runner:
    if plan.executor is not None:
        return ExecutorRunner(
            plan.handler, plan.name, plan.executor, flow, processor, plan.concurrency, telemetry
        )
    if plan.is_async and not in_virtual_time:
        return LoopRunner(
            plan.handler, plan.name, flow, plan.concurrency, telemetry, loop, plan.time_limit
        )
    threads = flow, plan.concurrency, telemetry, processor.spawn
    if plan.time_limit is None or in_virtual_time:
        return ThreadRunner(*threads, may_wait=may_wait)
    return LimitedThreadRunner(*threads, may_wait=may_wait, time_limit=plan.time_limit)


def _deadline(
    plan: Plan, clock: Callable[[], float]
) -> Callable[[Message[Any]], float | None] | None:
    deadline = plan.deadline
    if deadline is None or callable(deadline):
        return deadline
    seconds = deadline

    def after(message: Message[Any]) -> float:
        received = message.received_at
        return (clock() if received is None else received) + seconds

    return after


Spawn = Callable[[Callable[[], None]], None]


def _threads() -> tuple[Spawn, Callable[[], None], bool]:
    pool = WorkerPool("rxtweets-processor")
    return pool.submit, pool.close, True


def _on(scheduler: abc.SchedulerBase) -> tuple[Spawn, Callable[[], None], bool]:
    """On a scheduler that runs everything on one thread, the source must not be made to wait."""

    def spawn(work: Callable[[], None]) -> None:
        scheduler.schedule(lambda *_: work())

    return spawn, lambda: None, isinstance(scheduler, NewThreadScheduler)
