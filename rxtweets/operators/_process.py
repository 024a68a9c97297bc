"""`process`: a concurrent call of a handler for every message."""

from __future__ import annotations

import pickle
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from datetime import timedelta
from typing import Any, TypeVar

from reactivex import Observable, abc

from rxtweets._core.concurrency import Concurrency
from rxtweets._core.observable import MessageStream, subscribe_in_chunks, telemetry_of
from rxtweets._core.retry import Retry
from rxtweets._messages.message import Message
from rxtweets._support.validation import function, seconds, whole_number
from rxtweets.errors import ConfigurationError
from rxtweets.operators._assembly import Plan, assemble
from rxtweets.operators._calls import NOT_GIVEN, is_async, name_of, with_context
from rxtweets.operators._processor import Demand

__all__ = ["process"]

T = TypeVar("T")
U = TypeVar("U")

Handler = Callable[..., Message[U] | Awaitable[Message[U]]]
OfChunk = Callable[..., Sequence[Message[Any]]]


def process(
    handler: Handler[U],
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
    """Call a handler for every message, many at once, and pass on what it returns.

    This is ``flat_map`` over a thread-pool scheduler, made bounded and safe: at most
    ``concurrency`` handlers run at once, up to ten messages for each of them are taken from the
    source in advance, and then the source waits (for X's stream that means the hand-off fills,
    and its overflow policy decides). Results are emitted one at a time, never from two threads.

    ::

        source       --1--2--3--4------|
        process(f)   -----2'-1'-4'-3'--|     f takes longer for 1 and 3
        … ordered    --------1'2'---3'4'|

    A handler that raises, returns something else than a message, or returns
    ``message.failed(reason)``, fails its message: that message is counted, reported
    (`events.HandlerFailed`), acknowledged as failed, and not emitted. The stream goes on.

    As long as handlers return at once, one thread calls them in turn; as soon as they block, more
    threads come, up to ``concurrency``, and no message waits behind a slow neighbour. An
    ``async def`` handler runs on one event loop, in a thread of the operator's own, which is there
    while there is a subscription.

    When the source ends, by completion or by error, messages in flight are handled first.

    Args:
        handler: takes a message and returns a message, usually ``message.update_data(...)``; a
            function or an ``async def``.
        concurrency: handlers running at once at most, 1 or more; a `Concurrency` can be changed
            while they run. With an ``executor``: chunks of messages in its hands at most.
        ordered: emit in the order of the source; a slow message then holds back those after it,
            while their handlers run.
        partition_by: gives each message a key: messages of one key are handled one at a time, in
            order, those of different keys at once. Called on the source's thread; if it raises,
            its message fails.
        prepare: called with a list of up to 100 messages that wait, before their handlers; gives
            all of them back, in order. If it raises or gives back others, all of them fail, and
            those that it has failed get no handler. So many calls at once as ``concurrency``.
        context: the last argument of ``handler``, ``prepare`` and ``on_failed``, if given.
        on_failed: called with each list of failed messages before they are acknowledged, one list
            at a time; gives as many back, and these are acknowledged, as failed. If it does not,
            they are acknowledged as they were (`events.FailureHandlerFailed`).
        retry: when a message that failed is handled again. No thread waits meanwhile, but the
            message is in flight.
        time_limit: seconds for one call of the handler; then the message fails with
            `HandlerTimeout`. An async handler is cancelled. A thread cannot be: what it returns is
            discarded, and another takes its place, as long as not more than ``concurrency`` hang
            (``stats().threads_lost``). Not with an ``executor``.
        deadline: seconds after ``message.received_at`` (or after its coming here, where that is
            not known), or a function that gives the time itself, in seconds since 1970, or
            ``None``. Messages past it fail with `DeadlineExceeded`, and get no handler.
        executor: runs handlers there: in processes, on a cluster. Messages go in chunks, pickled
            unless it is a ``ThreadPoolExecutor``; their acknowledgers stay here. It is not shut
            down. If it breaks, the messages in its hands fail, and the stream ends with
            `ExecutorBroken`. Give a function that makes an executor, and another is made instead;
            the last one is shut down.
        max_demand: messages that are taken from the source for each of the ``concurrency``,
            those in its hands included. A source that is asked gives no more; one that pushes
            waits with the next list of messages. With an ``executor``, long chunks need more.
        min_demand: the source goes on when there are so few left for each, less than
            ``max_demand``; by default half of it.
        scheduler: run handlers on this scheduler instead of on threads of the operator's own; a
            scheduler of virtual time given to ``subscribe`` is taken as well.

    Raises:
        ConfigurationError: an argument cannot work.
    """
    function("handler", handler)
    for name, value in (("partition_by", partition_by), ("prepare", prepare)):
        _plain_function(name, value)
    _plain_function("on_failed", on_failed)
    if retry is not None and not isinstance(retry, Retry):
        raise ConfigurationError(f"retry={retry!r}: give a rxtweets.Retry")
    plan = Plan(
        handler=with_context(handler, context),
        name=name_of(handler),
        is_async=is_async(handler),
        concurrency=concurrency
        if isinstance(concurrency, Concurrency)
        else Concurrency(whole_number("concurrency", concurrency)),
        ordered=ordered,
        partition_by=partition_by,
        prepare=None if prepare is None else with_context(prepare, context),
        on_failed=None if on_failed is None else with_context(on_failed, context),
        retry=retry,
        time_limit=None if time_limit is None else seconds("time_limit", time_limit),
        deadline=_deadline(deadline),
        executor=executor,
        scheduler=scheduler,
        demand=_demand(max_demand, min_demand),
    )
    _refuse_contradictions(plan)

    def operator(source: Observable[Message[T]]) -> MessageStream[U]:
        telemetry = telemetry_of(source)

        def subscribe(
            observer: abc.ObserverBase[list[Message[Any]]], given: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            return assemble(
                plan,
                observer,
                telemetry,
                given,
                lambda chunks: subscribe_in_chunks(source, chunks, given),
            )

        return MessageStream(subscribe, telemetry)

    return operator


def _plain_function(name: str, value: Any) -> None:
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


def _deadline(value: Any) -> Any:
    return value if value is None or callable(value) else seconds("deadline", value)


def _refuse_contradictions(plan: Plan) -> None:
    executor = plan.executor
    if plan.scheduler is not None and (plan.is_async or executor is not None):
        raise ConfigurationError("scheduler= is for handlers on threads: leave it out")
    if executor is None:
        return
    if not isinstance(executor, Executor) and not callable(executor):
        raise ConfigurationError(
            f"executor={executor!r}: give an Executor of concurrent.futures, or a function that "
            "makes one"
        )
    if plan.is_async:
        raise ConfigurationError("an executor calls plain functions: leave executor= out, or async")
    if plan.time_limit is not None:
        raise ConfigurationError(
            "time_limit= cannot be kept in an executor, whose calls are not ours: limit them there"
        )
    if isinstance(executor, ProcessPoolExecutor) or executor is ProcessPoolExecutor:
        _refuse_unpicklable(plan)


def _refuse_unpicklable(plan: Plan) -> None:
    try:
        pickle.dumps(plan.handler)
    except Exception as error:
        raise ConfigurationError(
            f"handler {plan.name} cannot be pickled, so it cannot go to another process; "
            f"define it at the top of a module: {error}"
        ) from error
