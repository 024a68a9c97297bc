"""Observables of messages and batches: those of RxPY, with messages in lists inside.

RxPY costs time for each item and operator, a list costs much less. So operators of rxtweets
subscribe to lists of messages where the source has them (`MessageStream.subscribe_chunks`), and to
single messages after a stock operator.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from reactivex import ConnectableObservable, Observable, abc
from reactivex import operators as stock
from reactivex.disposable import CompositeDisposable, Disposable
from reactivex.observer import AutoDetachObserver
from reactivex.scheduler import CurrentThreadScheduler
from reactivex.scheduler.eventloop import AsyncIOThreadSafeScheduler

from rxtweets._core.async_items import AsyncItems, Feed
from rxtweets._core.draining import (
    SharedSource,
    Successor,
    current_drain,
)
from rxtweets._core.events import Abandoned, Event, Span
from rxtweets._core.failures import Failure
from rxtweets._core.gates import ChunkGate, abandon
from rxtweets._core.log import EventLog, keep_log_out_of_cells
from rxtweets._core.sharing import Sharing
from rxtweets._core.stats import StageStats, Stats
from rxtweets._core.subscriber import Contained, FunctionSubscriber, Settlement
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Chunk, Message
from rxtweets._support.validation import no_class
from rxtweets.errors import HandlerError

__all__ = [
    "BatchStream",
    "MessageStream",
    "SettledStream",
    "async_items",
    "new_telemetry",
    "share_source",
    "source_name",
    "subscribe_in_chunks",
    "telemetry_of",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

AnyObserver = abc.ObserverBase[Any]
Scheduler = abc.SchedulerBase | None
Subscription = abc.DisposableBase
Subscribe = Callable[[Any, Scheduler], Subscription]


class _Stream(Observable[T_co]):
    # An Observable that knows the telemetry of its source.

    _items = "items"
    _uncounted: type[Any] | tuple[()] = Message
    # Items that no stage has counted: after a disposal they are counted as abandoned.

    def __init__(self, subscribe: Subscribe, telemetry: Telemetry) -> None:
        super().__init__()
        self.telemetry = telemetry
        self._subscribe_to_source = subscribe

    def __repr__(self) -> str:
        source = self.telemetry.source
        return f"<{self._items} of {source}>" if source else f"<{self._items}>"

    @property
    def events(self) -> Observable[Event]:
        """Events of the stream and of its stages, see `rxtweets.events`; hot, never completes."""
        return self.telemetry.bus.events

    @property
    def spans(self) -> Observable[Span]:
        """Starts and stops of handlers and processors; hot, never completes.

        Each message has two or more, so they are published only while an observer is subscribed.
        """
        return self.telemetry.bus.spans

    @property
    def errors(self) -> tuple[Failure, ...]:
        """The latest 30 failures of the stream and of all stages downstream, with their events."""
        return tuple(self.telemetry.failures)

    def stats(self) -> Stats:
        """Return the counters of the stream and of all stages downstream."""
        return self.telemetry.stats()

    def stages(self) -> tuple[StageStats, ...]:
        """Return a snapshot of each stage: its messages, its calls, and how busy it is."""
        return self.telemetry.stages()

    def subscribe(
        self,
        on_next: abc.ObserverBase[T_co] | abc.OnNext[T_co] | None = None,
        on_error: abc.OnError | None = None,
        on_completed: abc.OnCompleted | None = None,
        *,
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        """Subscribe a function, three functions, or an observer.

        An exception of the subscriber is counted, reported as an event and logged; the stream
        continues. The final error of the stream is passed to ``on_error``; without it, it is
        logged.

        Args:
            on_next: called with each item, or an observer.
            on_error: called with the error that ended the stream.
            on_completed: called when the stream completed.
            scheduler: passed to the operators upstream.

        Returns:
            The subscription; ``dispose()`` or the end of a ``with`` block ends it immediately.
            Messages in flight, such as those of an incomplete batch, count in
            ``stats().abandoned``. `HotStream.stop` delivers them instead.

        Raises:
            ConfigurationError: the class of an observer was given instead of an observer.
        """
        observer = _as_observer(on_next, on_error, on_completed)
        if (drain := current_drain()) is not None:
            observer = Successor(observer, drain)
        return self._attach(observer, scheduler)

    if not TYPE_CHECKING:  # type checkers know the overloads of RxPY

        def pipe(self, *operators: Callable[[Any], Any]) -> Any:
            """Apply operators in turn; the results of stock ones keep the events and counters.

            The fluent methods of RxPY call this as well.
            """
            result = self
            for operator in operators:
                result = operator(result)
                if type(result) is Observable:
                    result = Derived(result, self.telemetry)
                elif type(result) is ConnectableObservable:
                    result = _Connectable(result, self.telemetry)
            return result

    def share(self) -> Observable[T_co]:
        """Subscribe once for several subscribers; see `operators.share`."""

        def subscribe(observer: Any, scheduler: Scheduler) -> Subscription:
            return self.subscribe(observer, scheduler=scheduler)

        return Derived(Observable(Sharing(subscribe, self.telemetry).join), self.telemetry)

    def __await__(self) -> Generator[Any, None, T_co]:
        """Await the last item, on the running event loop.

        RxPY would complete its future on the thread of the stream, which does not wake the loop.

        Raises:
            SequenceContainsNoElementsError: the stream had no item.
        """
        loop = asyncio.get_running_loop()
        on_loop = stock.observe_on(AsyncIOThreadSafeScheduler(loop))
        last: asyncio.Future[T_co] = self.pipe(
            stock.last(), on_loop, stock.to_future(loop.create_future)
        )
        return last.__await__()

    def __aiter__(self) -> AsyncItems[T_co]:
        """Subscribe for an ``async for``, and give the items to the event loop in turn.

        The loop slows the stream down as a subscriber that blocks does, so the overflow policy of a
        hot stream applies. A source that can wait is asked for more when the loop waits. An error
        that ends the stream is raised in the loop. Leaving the loop ends the subscription; items
        that wait for the loop count in ``stats().abandoned``.

        A batch succeeds when the loop requests the next one, and fails if the loop is left while it
        has the batch, by ``break`` or by an error. Single messages are not acknowledged, as with
        `subscribe`: see `operators.acknowledge`.
        """
        return AsyncItems(Feed(self._feed, self.telemetry))

    def _feed(self, feed: Feed[Any]) -> Subscription:
        return self.subscribe(FunctionSubscriber(feed.take_item, feed.on_error, feed.on_completed))

    def _subscribe_core(self, observer: AnyObserver, scheduler: Scheduler = None) -> Subscription:
        return self._subscribe_to_source(observer, scheduler)

    def _attach(self, observer: AnyObserver, scheduler: Scheduler) -> Subscription:
        # As Observable.subscribe, with a gate and a boundary of our own.
        gate = _ItemGate(self._contain(observer), self.telemetry, self._uncounted)

        def connect(*_: Any) -> None:
            try:
                subscription: Any = self._subscribe_core(gate, scheduler)
                # An operator of the user may return a disposable, a function or nothing.
                is_disposable = hasattr(subscription, "dispose")
                gate.subscription = subscription if is_disposable else Disposable(subscription)
            except Exception as error:
                if gate.is_stopped:
                    raise
                gate.on_error(error)

        trampoline = CurrentThreadScheduler.singleton()
        if trampoline.schedule_required():
            trampoline.schedule(connect)
        else:
            connect()
        return Disposable(gate.dispose)

    def _contain(self, observer: AnyObserver) -> AnyObserver:
        return Contained(observer, self.telemetry)


class Derived(_Stream[T_co]):
    """The result of a stock operator on a stream, with the telemetry of the stream."""

    def __init__(self, source: Observable[T_co], telemetry: Telemetry) -> None:
        # Not source.subscribe, whose observer drops items without a trace.
        super().__init__(source._subscribe_core, telemetry)  # noqa: SLF001 - see above

    def _subscribe_core(self, observer: AnyObserver, scheduler: Scheduler = None) -> Subscription:
        if (drain := current_drain()) is not None:
            drain.expect(self.telemetry)
        return super()._subscribe_core(observer, scheduler)


class MessageStream(_Stream[Message[T_co]], Generic[T_co]):
    """An Observable of messages that can also emit them in lists.

    Args:
        subscribe_chunks: subscribes an observer of lists of messages.
        telemetry: of the source.
    """

    _items = "messages"

    def __init__(self, subscribe_chunks: Subscribe, telemetry: Telemetry) -> None:
        super().__init__(subscribe_chunks, telemetry)

    def share(self) -> MessageStream[T_co]:
        """Subscribe once for several subscribers; see `operators.share`."""
        return MessageStream(Sharing(self.subscribe_chunks, self.telemetry).join, self.telemetry)

    def subscribe_chunks(self, observer: AnyObserver, scheduler: Scheduler = None) -> Subscription:
        """Subscribe an observer whose ``on_next`` takes a list of messages, never empty.

        For authors of operators. The observer must not raise and must not keep the list.
        """
        drain = current_drain()
        if drain is not None and drain.has_ended:
            return drain.refuse(observer)
        return self._subscribe_to_source(observer, scheduler)

    def _feed(self, feed: Feed[Any]) -> Subscription:
        return self.subscribe_chunks(feed)

    def _subscribe_core(self, observer: AnyObserver, scheduler: Scheduler = None) -> Subscription:
        single = _OneByOne(observer, self.telemetry)
        upstream = self.subscribe_chunks(single, scheduler)
        return CompositeDisposable(Disposable(single.close), upstream)


class BatchStream(_Stream[Batch[T_co]], Generic[T_co]):
    """An Observable of batches; each is settled when its subscriber has returned or raised."""

    _items = "batches"
    _uncounted = Batch

    def subscribe_batches(
        self, observer: abc.ObserverBase[Batch[Any]], scheduler: Scheduler = None
    ) -> Subscription:
        """Subscribe an observer that settles the batches, or passes them on unsettled.

        For authors of operators. The observer must not raise.
        """
        return self._subscribe_to_source(observer, scheduler)

    def _contain(self, observer: AnyObserver) -> AnyObserver:
        return Settlement(observer, self.telemetry)


class SettledStream(_Stream[Batch[T_co]], Generic[T_co]):
    """An Observable of delivered and acknowledged batches, each message with its status."""

    _items = "settled batches"
    _uncounted = ()


class _Connectable(_Stream[Any], ConnectableObservable[Any]):
    # The result of publish and its like, with subscribers that can be drained.

    def __init__(self, made: ConnectableObservable[Any], telemetry: Telemetry) -> None:
        ConnectableObservable.__init__(self, made.source, made.subject)
        self.telemetry = telemetry
        self._shared = SharedSource(telemetry, self._cut)
        self._shared.drain.found.add(telemetry)  # nothing is missing before connect()

    def connect(self, scheduler: Scheduler = None) -> Subscription | None:
        """Connect, unless it is connected."""
        if self.has_subscription:
            return self.subscription
        connected: Subscription = self._shared.restart().capture(
            lambda: ConnectableObservable.connect(self, scheduler)
        )
        return connected

    def ref_count(self) -> Observable[Any]:
        """Connect for the first subscriber, and disconnect after the last."""
        return Derived(super().ref_count(), self.telemetry)  # RxPY's does not use pipe

    def auto_connect(self, subscriber_count: int = 1) -> Observable[Any]:
        """Connect for the first subscribers, and stay connected."""
        return Derived(super().auto_connect(subscriber_count), self.telemetry)

    def _subscribe_core(self, observer: AnyObserver, scheduler: Scheduler = None) -> Subscription:
        gate: ChunkGate[Any] = ChunkGate(observer)
        self._shared.add(gate)
        subscription = self._shared.subscription(gate)
        return CompositeDisposable(subscription, self.subject.subscribe(gate, scheduler=scheduler))

    def _cut(self) -> None:
        if self.subscription is not None:
            self.subscription.dispose()


class _ItemGate(AutoDetachObserver[Any]):
    # The observer of Observable.subscribe drops items after a disposal; this one counts them.

    def __init__(
        self,
        observer: AnyObserver,
        telemetry: Telemetry,
        uncounted: type[Any] | tuple[()],
    ) -> None:
        super().__init__(observer.on_next, observer.on_error, observer.on_completed)
        self._telemetry = telemetry
        self._uncounted = uncounted

    def on_next(self, value: Any) -> None:
        if not self.is_stopped:
            self._on_next(value)
        elif isinstance(value, self._uncounted):
            abandon(value, self._telemetry, "subscription")


class _OneByOne(abc.ObserverBase[Chunk]):
    # Passes the messages of lists on one by one, and counts the rest of a list after a disposal.
    # For that, the delivering and the disposing thread take messages from the same reversed list:
    # without the GIL, a shared iterator would give some messages to both.

    def __init__(self, observer: AnyObserver, telemetry: Telemetry) -> None:
        self._observer = observer
        self._telemetry = telemetry
        self._rest: Chunk = []
        self._thread = 0
        self._closed = False

    def on_next(self, chunk: Chunk) -> None:
        on_next = self._observer.on_next
        self._thread = threading.get_ident()
        self._rest = rest = chunk[::-1]
        if self._closed:
            self.close()
        take = rest.pop
        while True:
            try:
                message = take()
            except IndexError:  # a check before it would race with `close`
                break
            on_next(message)

    def on_error(self, error: Exception) -> None:
        self._observer.on_error(error)

    def on_completed(self) -> None:
        self._observer.on_completed()

    def close(self) -> None:
        self._closed = True
        rest, left = self._rest, 0
        with contextlib.suppress(IndexError):
            while True:
                rest.pop()
                left += 1
        if not left:
            return
        self._telemetry.add(abandoned=left)
        if threading.get_ident() != self._thread:  # else the observer itself disposed
            self._telemetry.publish(Abandoned(left, "subscription"))


def share_source(source: Observable[T]) -> Observable[T]:
    """Return an Observable that subscribes to the source once for all its subscribers."""
    return (source if isinstance(source, _Stream) else Derived(source, new_telemetry())).share()


def async_items(source: Observable[T]) -> AsyncItems[T]:
    """Return the items of any Observable for an ``async for``."""
    return aiter(source if isinstance(source, _Stream) else Derived(source, new_telemetry()))


def subscribe_in_chunks(
    source: Observable[Message[Any]],
    observer: abc.ObserverBase[Chunk],
    scheduler: Scheduler,
) -> Subscription:
    """Subscribe to lists of messages where the source has them, else to lists of one.

    Other values are not passed on: the source's ``on_next`` raises a `HandlerError`.
    """
    if isinstance(source, MessageStream):
        return source.subscribe_chunks(observer, scheduler)

    def pass_on(message: Message[Any]) -> None:
        if not isinstance(message, Message):
            raise HandlerError(
                f"a {type(message).__name__} came where a Message was expected: "
                "keep messages (message.update_data(...)) up to the last operator of rxtweets"
            )
        observer.on_next([message])

    return source.subscribe(pass_on, observer.on_error, observer.on_completed, scheduler=scheduler)


def source_name(source: Observable[Any]) -> str:
    """Return the name of a source: the function that made it, or its class."""
    name = source.telemetry.source if isinstance(source, _Stream) else ""
    return name or type(source).__name__


def telemetry_of(source: Observable[Any]) -> Telemetry:
    """Return the telemetry of a source; a new one for a stock Observable."""
    return source.telemetry if isinstance(source, _Stream) else new_telemetry()


def new_telemetry(parts: Sequence[Telemetry] = (), source: str = "") -> Telemetry:
    """Make a `Telemetry` that writes the log and keeps the latest failures."""
    keep_log_out_of_cells()
    telemetry = Telemetry(parts, source)
    log = EventLog()
    telemetry.bus.tap(log)
    telemetry.failures = log.failures
    return telemetry


def _as_observer(
    on_next: Any, on_error: abc.OnError | None, on_completed: abc.OnCompleted | None
) -> AnyObserver:
    if isinstance(on_next, type) and issubclass(on_next, abc.ObserverBase):
        no_class("on_next", on_next)
    if callable(getattr(on_next, "on_next", None)):
        observer: AnyObserver = on_next
        return observer
    return FunctionSubscriber(on_next, on_error, on_completed)
