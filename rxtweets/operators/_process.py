"""`process`: a concurrent call of a handler for every message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable, abc
from reactivex.scheduler import NewThreadScheduler, VirtualTimeScheduler

from rxtweets.checks import function, whole_number
from rxtweets.message import Message
from rxtweets.observable import MessageStream, subscribe_in_chunks, telemetry_of
from rxtweets.operators._processor import OrderedProcessor, Processor
from rxtweets.workers import WorkerPool

__all__ = ["process"]

T = TypeVar("T")
U = TypeVar("U")

Handler = Callable[[Message[T]], Message[U]]


def process(
    handler: Handler[T, U],
    concurrency: int = 50,
    *,
    ordered: bool = False,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[Message[T]]], MessageStream[U]]:
    """Call a handler for every message, many at once, and pass on what it returns.

    This is ``flat_map`` over a thread-pool scheduler, made bounded and safe: at most
    ``concurrency`` handlers run at once, about ten messages for each of them are taken from the
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
    threads come, up to ``concurrency``, and no message waits behind a slow neighbour.

    When the source ends, by completion or by error, messages in flight are handled first.

    Args:
        handler: takes a message and returns a message, usually ``message.update_data(...)``.
        concurrency: handlers running at once at most, 1 or more.
        ordered: emit in the order of the source; a slow message then holds back those after it,
            while their handlers run.
        scheduler: run handlers on this scheduler instead of on threads of the operator's own; a
            scheduler of virtual time given to ``subscribe`` is taken as well.

    Raises:
        ConfigurationError: an argument cannot work.
    """
    function("handler", handler)
    whole_number("concurrency", concurrency)
    kind = OrderedProcessor if ordered else Processor

    def operator(source: Observable[Message[T]]) -> MessageStream[U]:
        telemetry = telemetry_of(source)

        def subscribe(
            observer: abc.ObserverBase[list[Message[Any]]], given: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            chosen = scheduler
            if chosen is None and isinstance(given, VirtualTimeScheduler):
                chosen = given
            spawn, close, may_wait = _threads() if chosen is None else _on(chosen)
            processor = kind(handler, concurrency, observer, telemetry, spawn, close, may_wait)
            processor.listen(lambda chunks: subscribe_in_chunks(source, chunks, given))
            return processor

        return MessageStream(subscribe, telemetry)

    return operator


Spawn = Callable[[Callable[[], None]], None]


def _threads() -> tuple[Spawn, Callable[[], None], bool]:
    pool = WorkerPool("rxtweets-processor")
    return pool.submit, pool.close, True


def _on(scheduler: abc.SchedulerBase) -> tuple[Spawn, Callable[[], None], bool]:
    """On a scheduler that runs everything on one thread, the source must not be made to wait."""

    def spawn(work: Callable[[], None]) -> None:
        scheduler.schedule(lambda *_: work())

    return spawn, lambda: None, isinstance(scheduler, NewThreadScheduler)
