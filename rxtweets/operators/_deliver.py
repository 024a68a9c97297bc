"""`deliver`: a subscriber as an operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable, abc
from reactivex.scheduler import VirtualTimeScheduler

from rxtweets._core.observable import BatchStream, SettledStream
from rxtweets._core.subscriber import FunctionSubscriber, OnFailed, Settled, Settlement
from rxtweets._messages.batch import Batch
from rxtweets._support.validation import function, no_class, whole_number
from rxtweets.errors import ConfigurationError
from rxtweets.operators._delivery import Delivery, InlineDelivery
from rxtweets.operators._event_loop import AsyncSubscriber, is_awaited

__all__ = ["AnySubscriber", "deliver", "delivering", "subscriber_of"]

T = TypeVar("T")

AnySubscriber = abc.ObserverBase[Batch[Any]] | Callable[..., object]


def deliver(
    subscriber: AnySubscriber,
    concurrency: int | None = None,
    *,
    waiting: int | None = None,
    name: str = "default",
    on_failed: OnFailed | None = None,
) -> Callable[[Observable[Batch[T]]], SettledStream[Any]]:
    """Give batches to a subscriber, settle them, and pass them on with what became of each message.

    What ``batches.subscribe(subscriber)`` does at the end of a stream, this does on its way, so
    that batches can be delivered several at once, and something can follow.

    ::

        batches            --[1,2]--[3,4]---[5]-----|
        deliver(f)         ---[1,2]--[3,4✗]--[5]----|     f failed message 4
        … concurrency=2    ----[3,4✗]-[1,2]--[5]----|     f takes longer for the first

    With ``concurrency``, batches of one partition (`batch` with ``partition_by``), or of one key
    (`Message.put_batch_key`), are still delivered one after the other, in order.

    Args:
        subscriber: a `Subscriber`, any observer, or a function of one batch, which may be
            ``async``: then it runs on an event loop in a thread of the operator's own. Returning
            means that the batch was taken, raising fails it, and returning a list of its messages
            settles each by its status. It is told of the end when everything was delivered.
        concurrency: batches at once at most, on threads of the operator's own. ``None`` delivers
            on the thread that brings the batch, as does every stream under a scheduler of virtual
            time.
        waiting: batches that may wait for these threads; then the source waits. Behind `route`
            that means all branches, so this is how far one may fall behind the others. By default
            as many as ``concurrency``.
        name: of the stage.
        on_failed: is given messages that failed before they are acknowledged; returns as many.

    Raises:
        ConfigurationError: an argument cannot work, or what comes before is not `batch`.
    """
    return delivering(subscriber, concurrency, waiting, name, on_failed, None)


def delivering(
    subscriber: AnySubscriber,
    concurrency: int | None,
    waiting: int | None,
    name: str,
    on_failed: OnFailed | None,
    told_of: Settled | None,
) -> Callable[[Observable[Batch[T]]], SettledStream[Any]]:
    """The same as `deliver`, for a pipeline that is told of each batch when it is settled."""
    observer = subscriber_of(subscriber)
    if concurrency is not None:
        whole_number("concurrency", concurrency)
    if waiting is not None:
        whole_number("waiting", waiting)

    def operator(source: Observable[Batch[T]]) -> SettledStream[Any]:
        if not isinstance(source, BatchStream):
            raise ConfigurationError(
                f"deliver comes right after batch, not after {type(source).__name__}"
            )
        telemetry = source.telemetry

        def subscribe(
            settled: abc.ObserverBase[Batch[Any]], given: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            told, close = observer, _nothing
            if is_awaited(observer):
                told = awaiting = AsyncSubscriber(observer, telemetry)
                close = awaiting.close
            settlement = Settlement(told, telemetry, on_failed, told_of)
            args = (settlement, told, settled, telemetry, name, close)
            is_inline = concurrency is None or isinstance(given, VirtualTimeScheduler)
            threads = concurrency or 1
            delivery = (
                InlineDelivery(*args) if is_inline else Delivery(threads, waiting or threads, *args)
            )
            delivery.listen(lambda batches: source.subscribe_batches(batches, given))
            return delivery

        return SettledStream(subscribe, telemetry)

    return operator


def _nothing() -> None:
    """There is nothing to close."""


def subscriber_of(subscriber: Any) -> abc.ObserverBase[Batch[Any]]:
    """The subscriber as an observer.

    Raises:
        ConfigurationError: it is none, and no function; or it is a class.
    """
    no_class("subscriber", subscriber)
    if callable(getattr(subscriber, "on_next", None)):
        observer: abc.ObserverBase[Batch[Any]] = subscriber
        return observer
    function("subscriber", subscriber)
    return FunctionSubscriber(subscriber)
