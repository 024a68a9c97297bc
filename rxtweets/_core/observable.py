"""Observables of messages and of batches: RxPY's Observable, and chunks inside.

RxPY costs between one and a hundred microseconds for each item and operator, a list costs a tenth
of one. So our operators ask their source for lists of messages where it can give them
(`MessageStream.subscribe_chunks`), and for single messages where a stock operator stands between.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakMethod

from reactivex import ConnectableObservable, Observable, abc
from reactivex import operators as stock
from reactivex.disposable import CompositeDisposable, Disposable, SingleAssignmentDisposable
from reactivex.scheduler import CurrentThreadScheduler
from reactivex.scheduler.eventloop import AsyncIOThreadSafeScheduler

from rxtweets._core.events import Abandoned, Event, Span
from rxtweets._core.failures import Failure
from rxtweets._core.log import EventLog, keep_log_out_of_cells
from rxtweets._core.subscriber import Contained, FunctionSubscriber, Settlement, as_exception
from rxtweets._core.telemetry import StageStats, Stats, Telemetry
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets._support.validation import no_class
from rxtweets._support.workers import is_interrupt
from rxtweets.errors import HandlerError, SubscriberError

__all__ = [
    "BatchStream",
    "ChunkGate",
    "Drain",
    "MessageStream",
    "SettledStream",
    "SourceSubscription",
    "current_drain",
    "demand_of",
    "name_of",
    "new_telemetry",
    "share",
    "subscribe_in_chunks",
    "subscribing_for",
    "telemetry_of",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Chunk = list[Message[T]]
ChunkObserver = abc.ObserverBase[list[Message[T]]]
SubscribeChunks = Callable[[ChunkObserver[T], abc.SchedulerBase | None], abc.DisposableBase]


class _Measured(Observable[T_co]):
    """An Observable that knows where the stages before it count and report."""

    _items = "items"
    _lost: type[Any] | tuple[()] = Message
    """Items that nobody has counted yet: after a disposal they are counted as abandoned."""

    def __init__(self, telemetry: Telemetry) -> None:
        super().__init__()
        self.telemetry = telemetry

    def __repr__(self) -> str:
        source = self.telemetry.source
        return f"<{self._items} of {source}>" if source else f"<{self._items}>"

    @property
    def events(self) -> Observable[Event]:
        """What happens in the stream and the stages before this point; hot, never completes."""
        return self.telemetry.bus.events

    @property
    def spans(self) -> Observable[Span]:
        """Where the work of the stages begins and ends; hot, never completes.

        Two or more for every message, so they are made only while somebody has subscribed.
        """
        return self.telemetry.bus.spans

    @property
    def errors(self) -> tuple[Failure, ...]:
        """The latest 30 things that went wrong in the stream and in all stages that hang on it."""
        return tuple(self.telemetry.failures)

    def stats(self) -> Stats:
        """A snapshot of the counters of the stream and of all stages that hang on it."""
        return self.telemetry.stats()

    def stages(self) -> tuple[StageStats, ...]:
        """A snapshot of each stage: what is in it, how busy it is."""
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

        If what is subscribed raises, that is counted, reported as an event and logged, and the
        stream goes on. An error that ends the stream for good comes to ``on_error``; where there
        is none it is logged.

        Args:
            on_next: called with each item, or an observer.
            on_error: called with the error that ended the stream.
            on_completed: called when the stream is over.
            scheduler: passed up to the operators before this point.

        Returns:
            What ends the subscription, by ``dispose()`` or at the end of a ``with`` block.

        Raises:
            ConfigurationError: an observer's class was given instead of an observer.
        """
        observer = _as_observer(on_next, on_error, on_completed)
        if (drain := current_drain()) is not None:
            observer = _Successor(observer, drain)
        return self._attach(observer, scheduler)

    if not TYPE_CHECKING:  # type checkers know the overloads of RxPY, which say the same

        def pipe(self, *operators: Callable[[Any], Any]) -> Any:
            """Apply operators in turn; what stock ones make keeps the events and the counters.

            The fluent methods of RxPY come here too.
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
        return share(self)

    def __await__(self) -> Generator[Any, None, T_co]:
        """Await the last item, on the event loop that runs.

        RxPY would complete its future on the stream's thread, where a loop does not notice it.

        Raises:
            SequenceContainsNoElementsError: there was none.
        """
        loop = asyncio.get_running_loop()
        on_loop = stock.observe_on(AsyncIOThreadSafeScheduler(loop))
        last: asyncio.Future[T_co] = self.pipe(
            stock.last(), on_loop, stock.to_future(loop.create_future)
        )
        return last.__await__()

    def _attach(
        self, observer: abc.ObserverBase[T_co], scheduler: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        """Subscribe an observer whose exceptions stop here.

        `Observable.subscribe` puts an observer between that drops items after a disposal, without
        a trace. The gate counts them.
        """
        gate = _ItemGate(self._contain(observer), self.telemetry, self._lost)

        def connect(*_: Any) -> None:
            try:
                gate.source.disposable = _as_disposable(self._subscribe_core(gate, scheduler))
            except Exception as error:
                if gate.closed:
                    raise
                gate.on_error(error)

        trampoline = CurrentThreadScheduler.singleton()
        if trampoline.schedule_required():
            trampoline.schedule(connect)
        else:
            connect()
        return Disposable(gate.dispose)

    def _contain(self, observer: abc.ObserverBase[Any]) -> abc.ObserverBase[Any]:
        return Contained(observer, self.telemetry)


class Derived(_Measured[T_co]):
    """What a stock operator made of a stream; it still knows where the stream counts and reports.

    Args:
        source: what the operator returned.
        telemetry: of the stream.
    """

    def __init__(self, source: Observable[T_co], telemetry: Telemetry) -> None:
        super().__init__(telemetry)
        self._source = source

    def _subscribe_core(
        self, observer: abc.ObserverBase[T_co], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        drain = current_drain()
        if drain is not None:
            drain.expect(self.telemetry)
        # Not by its subscribe(): that puts an observer between which drops without a trace.
        return self._source._subscribe_core(observer, scheduler)  # noqa: SLF001


class MessageStream(_Measured[Message[T_co]], Generic[T_co]):
    """An Observable of messages that can also deliver them in lists.

    Args:
        subscribe_chunks: how to subscribe an observer of lists.
        telemetry: where the stages up to here count and report.
    """

    _items = "messages"

    def __init__(self, subscribe_chunks: SubscribeChunks[T_co], telemetry: Telemetry) -> None:
        super().__init__(telemetry)
        self._subscribe_chunks = subscribe_chunks

    def share(self) -> MessageStream[T_co]:
        """Subscribe once for several subscribers; see `operators.share`."""
        sharing = _Sharing(self.subscribe_chunks, self.telemetry)
        return MessageStream(sharing.join, self.telemetry)

    def subscribe_chunks(
        self, observer: ChunkObserver[Any], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        """Subscribe an observer whose ``on_next`` takes a list of messages, never empty.

        For authors of operators. The observer must not raise and must not keep the list.
        """
        drain = current_drain()
        if drain is not None and drain.is_over:
            return drain.refuse(observer)
        return self._subscribe_chunks(observer, scheduler)

    def _subscribe_core(
        self,
        observer: abc.ObserverBase[Message[T_co]],
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        single = _OneByOne(observer, self.telemetry)
        upstream = self.subscribe_chunks(single, scheduler)
        return CompositeDisposable(Disposable(single.close), upstream)


class BatchStream(_Measured[Batch[T_co]], Generic[T_co]):
    """An Observable of batches that settles each when its subscriber has returned or raised.

    Args:
        subscribe: how to subscribe an observer of batches.
        telemetry: where the stages up to here count and report.
    """

    _items = "batches"
    _lost = Batch

    def __init__(
        self,
        subscribe: Callable[
            [abc.ObserverBase[Batch[Any]], abc.SchedulerBase | None], abc.DisposableBase
        ],
        telemetry: Telemetry,
    ) -> None:
        super().__init__(telemetry)
        self._subscribe_batches = subscribe

    def subscribe_batches(
        self, observer: abc.ObserverBase[Batch[Any]], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        """Subscribe an observer that settles the batches itself, or passes them on unsettled.

        For authors of operators. The observer must not raise.
        """
        return self._subscribe_batches(observer, scheduler)

    def _subscribe_core(
        self,
        observer: abc.ObserverBase[Batch[T_co]],
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        return self._subscribe_batches(observer, scheduler)

    def _contain(self, observer: abc.ObserverBase[Any]) -> abc.ObserverBase[Any]:
        return Settlement(observer, self.telemetry)


class SettledStream(_Measured[Batch[T_co]], Generic[T_co]):
    """An Observable of batches that were delivered and acknowledged, each message with its status.

    Args:
        subscribe: how to subscribe an observer of batches.
        telemetry: where the stages up to here count and report.
    """

    _items = "settled batches"
    _lost = ()

    def __init__(
        self,
        subscribe: Callable[
            [abc.ObserverBase[Batch[Any]], abc.SchedulerBase | None], abc.DisposableBase
        ],
        telemetry: Telemetry,
    ) -> None:
        super().__init__(telemetry)
        self._subscribe_settled = subscribe

    def _subscribe_core(
        self,
        observer: abc.ObserverBase[Batch[T_co]],
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        return self._subscribe_settled(observer, scheduler)


class ChunkGate(abc.ObserverBase[T]):
    """Keeps the grammar for one observer: one end at most, and silence after it or after `close`.

    RxPY does this for single items in `Observable.subscribe`; lists pass beside that. The end
    waits for values that are being passed on, so any thread may end a subscription.

    Args:
        observer: of the values.
        telemetry: where to count messages that come too late; ``None`` where others count them.
        where: they were abandoned, for the event.

    Attributes:
        closed: nothing passes any more.
    """

    def __init__(
        self,
        observer: abc.ObserverBase[T],
        telemetry: Telemetry | None = None,
        where: str = "source",
    ) -> None:
        self._observer = observer
        self._telemetry = telemetry
        self._where = where
        self._lock = threading.Lock()
        self._passing = 0
        self._end: Callable[[], None] | None = None
        self.closed = False

    def demand(self, most: int) -> int:
        """How many messages are wanted."""
        return 0 if self.closed else demand_of(self._observer, most)

    def on_next(self, value: T) -> None:
        """Pass the value on while open; count its messages as abandoned after that."""
        if not self.pass_on(value) and self._telemetry is not None:
            abandon(value, self._telemetry, self._where)

    def pass_on(self, value: T) -> bool:
        """Pass the value on while open; whether it was."""
        with self._lock:
            if self.closed:
                return False
            self._passing += 1
        drain = current_drain()
        try:
            if drain is None:
                self._observer.on_next(value)
            else:  # the observer subscribes on its own behalf
                with subscribing_for(None):
                    self._observer.on_next(value)
        finally:
            with self._lock:
                self._passing -= 1
                end = None
                if not self._passing:
                    end, self._end = self._end, None
            if end is not None:
                end()
        return True

    def on_error(self, error: Exception) -> None:
        """Pass the error on, as the last thing."""
        self._end_with(lambda: self._observer.on_error(error))

    def on_completed(self) -> None:
        """Pass the end on, as the last thing."""
        self._end_with(self._observer.on_completed)

    def close(self) -> bool:
        """Let nothing through any more; whether it was open until now."""
        with self._lock:
            was_open, self.closed = not self.closed, True
            self._end = None
            return was_open

    def _end_with(self, end: Callable[[], None]) -> None:
        def finish() -> None:
            with subscribing_for(None):
                end()

        with self._lock:
            if self.closed:
                return
            self.closed = True
            if self._passing:
                self._end = finish
                return
        finish()


class _ItemGate(abc.ObserverBase[Any]):
    """Keeps the grammar for the items of one subscription; its end disposes of the source.

    Args:
        observer: of the items.
        telemetry: where to count those that come after a disposal.
        lost: the type of items to count.

    Attributes:
        source: the subscription that leads here.
        closed: nothing passes any more.
    """

    def __init__(
        self,
        observer: abc.ObserverBase[Any],
        telemetry: Telemetry,
        lost: type[Any] | tuple[()],
    ) -> None:
        self._observer = observer
        self._telemetry = telemetry
        self._lost = lost
        self._lock = threading.Lock()
        self.source = SingleAssignmentDisposable()
        self.closed = False

    def on_next(self, value: Any) -> None:
        """Pass the item on while open; count what would be lost after that."""
        if not self.closed:
            self._observer.on_next(value)
        elif isinstance(value, self._lost):
            abandon(value, self._telemetry, "subscription")

    def on_error(self, error: Exception) -> None:
        """Pass the error on, as the last thing."""
        if self._close():
            try:
                self._observer.on_error(error)
            finally:
                self.source.dispose()

    def on_completed(self) -> None:
        """Pass the end on, as the last thing."""
        if self._close():
            try:
                self._observer.on_completed()
            finally:
                self.source.dispose()

    def dispose(self) -> None:
        """Let nothing through any more, and end the source."""
        self._close()
        self.source.dispose()

    def _close(self) -> bool:
        with self._lock:
            was_open, self.closed = not self.closed, True
            return was_open


class _OneByOne(abc.ObserverBase[list[Message[Any]]]):
    """Gives the messages of lists to an observer of single ones.

    Those of a list that the observer does not get any more are counted. For that, the thread that
    delivers and the one that disposes take messages from the same iterator; a check for each
    message would cost more.
    """

    def __init__(self, observer: abc.ObserverBase[Any], telemetry: Telemetry) -> None:
        self._observer = observer
        self._telemetry = telemetry
        self._rest: Iterator[Message[Any]] = iter(())
        self._thread = 0
        self._closed = False

    def on_next(self, chunk: list[Message[Any]]) -> None:
        on_next = self._observer.on_next
        self._thread = threading.get_ident()
        self._rest = rest = iter(chunk)
        if self._closed:
            self.close()
        for message in rest:
            on_next(message)

    def on_error(self, error: Exception) -> None:
        self._observer.on_error(error)

    def on_completed(self) -> None:
        self._observer.on_completed()

    def close(self) -> None:
        """Give nothing any more."""
        self._closed = True
        left = sum(1 for _ in self._rest)
        if not left:
            return
        self._telemetry.add(abandoned=left)
        if threading.get_ident() != self._thread:  # else the observer wanted no more of them
            self._telemetry.publish(Abandoned(left, "subscription"))


class _Successor(abc.ObserverBase[Any]):
    """Stands before an observer that may subscribe to another source when this one ends.

    Such as ``concat``, ``retry`` and ``repeat``: what they subscribe to belongs to the same drain.
    """

    def __init__(self, observer: abc.ObserverBase[Any], drain: Drain) -> None:
        self._observer = observer
        self._drain = drain
        self.on_next = observer.on_next  # type: ignore[method-assign]  # costs nothing for an item

    def on_next(self, value: Any) -> None:
        """Pass the item on."""

    def on_error(self, error: Exception) -> None:
        """Pass the error on."""
        with subscribing_for(self._drain):
            self._observer.on_error(error)

    def on_completed(self) -> None:
        """Pass the end on."""
        with subscribing_for(self._drain):
            self._observer.on_completed()


class SourceSubscription(Disposable):
    """One observer's part in a source that several may share; the current drain can end it.

    Args:
        gate: of the observer.
        leave: ends it at once; called with the gate.
        finish: ends it in order; called with this gate, and others of the same drain.
        telemetry: of the source.
        shared: those who share the source, where it has sources of its own.
    """

    def __init__(
        self,
        gate: ChunkGate[Any],
        leave: Callable[[ChunkGate[Any]], object],
        finish: Callable[..., None],
        telemetry: Telemetry,
        shared: _Shared | None = None,
    ) -> None:
        def dispose() -> None:
            leave(gate)

        super().__init__(dispose)
        self.gate = gate
        self.finish = finish
        self.telemetry = telemetry
        self.shared = shared
        drain = current_drain()
        if drain is not None:
            drain.add(self)


MOST_REFUSALS = 100
"""So many sources are completed in turn after the end of a drain; ``repeat()`` has no last one."""


class Drain:
    """The sources that are subscribed to for one consumer, so that they can be ended in order.

    A stock operator keeps the subscription to its source to itself. So each source registers with
    the drain that is current on the thread that subscribes, whatever operators stand between. A
    source that is subscribed to on another thread is not found.

    Args:
        give_up: called when sources follow one another without end.

    Attributes:
        is_over: `finish` was called: no source begins any more.
        heir: takes the sources that are found from now on, see `apart`.
    """

    def __init__(self, give_up: Callable[[], None] = lambda: None) -> None:
        self._give_up = give_up
        self._lock = threading.Lock()
        self._sources: list[SourceSubscription] = []
        self._lifts: list[WeakMethod[Callable[[], None]]] = []
        self._expected: set[Telemetry] = set()
        self._found: set[Telemetry] = set()
        self.heir: Drain | None = None
        self._refused = 0
        self.is_over = False

    def expect(self, telemetry: Telemetry) -> None:
        """Say that a source that counts here stands behind stock operators."""
        if self.heir is not None:
            self.heir.expect(telemetry)
        elif telemetry.source:
            self._expected.add(telemetry)

    def add(self, source: SourceSubscription) -> None:
        """Take a source; it ends at once if this is over."""
        if self.heir is not None and source.shared is None:
            self.heir.add(source)
            return
        with self._lock:
            if source.shared is None:
                self._found.add(source.telemetry)
            self._sources = [each for each in self._sources if not each.gate.closed]
            self._sources.append(source)
            is_over = self.is_over
        if is_over:
            source.finish(source.gate)

    def lift(self, lift: Callable[[], None]) -> None:
        """Call this method first at the end: it lets messages through that are held back.

        It is forgotten with its object: ``retry`` and ``repeat`` make another each time.
        """
        with self._lock:
            self._lifts = [each for each in self._lifts if each() is not None]
            self._lifts.append(WeakMethod(lift))
            is_over = self.is_over
        if is_over:
            lift()

    def misses(self) -> bool:
        """Whether a source is out of reach."""
        expected, found = set[Telemetry](), set[Telemetry]()
        open_drains, seen = [self], set[Drain]()
        while open_drains:
            drain = open_drains.pop()
            if drain in seen:
                continue
            seen.add(drain)
            expected |= drain._expected  # noqa: SLF001
            found |= drain._found  # noqa: SLF001
            if drain.heir is not None:
                open_drains.append(drain.heir)
            for shared in drain._shares():  # noqa: SLF001
                if shared.is_connected:
                    open_drains.append(shared.drain)
                else:
                    found.add(shared.telemetry)
        return not expected <= found

    def reaches(self) -> bool:
        """Whether there is a source to end."""
        with self._lock:
            gates = {each.gate for each in self._sources}
        return bool(self._found) or any(shared.is_reached(gates) for shared in self._shares())

    def finish(self) -> bool:
        """End the sources in order; ``False`` if there is none."""
        if not self.reaches():
            return False
        with self._lock:
            self.is_over = True
            together: dict[Callable[..., None], list[ChunkGate[Any]]] = {}
            for source in self._sources:
                if not source.gate.closed:
                    together.setdefault(source.finish, []).append(source.gate)
            lifts = [lift for each in self._lifts if (lift := each()) is not None]
        for lift in lifts:
            lift()
        for finish, gates in together.items():
            finish(*gates)
        return True

    def refuse(self, observer: abc.ObserverBase[Any]) -> abc.DisposableBase:
        """Complete the observer of a source that would begin after the end."""
        self._refused += 1
        if self._refused <= MOST_REFUSALS:
            observer.on_completed()
        else:
            self._give_up()
        return Disposable()

    def apart(self, subscribe: Callable[[], Any]) -> Any:
        """Subscribe to sources for this drain, and not for the current one.

        RxPY defers some subscriptions (those of ``merge``) on the thread's trampoline: what the
        current drain finds after this is meant for this one.
        """
        outer = current_drain()
        if outer is not None and outer.is_over:
            self.is_over = True
        with subscribing_for(self):
            result = subscribe()
        heir = self.heir if self._sources else self
        if outer is not None and heir is not None:
            outer.heir = heir
        return result

    def _shares(self) -> list[_Shared]:
        with self._lock:
            return [each.shared for each in self._sources if each.shared is not None]


_here = threading.local()


def current_drain() -> Drain | None:
    """The drain that this thread subscribes for."""
    drain: Drain | None = getattr(_here, "drain", None)
    return drain


@contextmanager
def subscribing_for(drain: Drain | None) -> Iterator[None]:
    """Make this the current drain of the thread; ``None`` for none."""
    outer = current_drain()
    _here.drain = drain
    try:
        yield
    finally:
        _here.drain = outer


class _Shared:
    """Those who share one subscription to a source.

    Args:
        telemetry: where to count and report.
        cut: ends the subscription to the source at once.
    """

    def __init__(self, telemetry: Telemetry, cut: Callable[[], None]) -> None:
        self.telemetry = telemetry
        self.is_connected = False
        self._cut = cut
        self._lock = threading.Lock()
        self.gates: tuple[ChunkGate[Any], ...] = ()
        self.is_over = False
        self.drain = Drain(self._give_up)

    def begin(self) -> Drain:
        """The drain of another subscription to the source."""
        self.is_connected, self.is_over = True, False
        self.drain = Drain(self._give_up)
        return self.drain

    def add(self, gate: ChunkGate[Any]) -> bool:
        """Take part; ``False`` if it is over."""
        with self._lock:
            if not self.is_over:
                self.gates += (gate,)
            return not self.is_over

    def part(self, gate: ChunkGate[Any]) -> SourceSubscription:
        """The subscription of one of them."""
        return SourceSubscription(gate, self.leave, self.finish, self.telemetry, self)

    def leave(self, gate: ChunkGate[Any]) -> None:
        """Leave at once."""
        gate.close()
        with self._lock:
            self.gates = _without(self.gates, gate)

    def finish(self, *gates: ChunkGate[Any]) -> None:
        """Complete some of them in order: the source too, if there are no others."""
        with self._lock:
            others = _without(self.gates, *gates)
            if others:
                self.gates = others
            else:
                self.is_over = True  # who comes now begins another one
        if others:
            for gate in gates:
                gate.on_completed()
        else:
            self.drain.finish()

    def is_reached(self, gates: set[ChunkGate[Any]]) -> bool:
        """Whether these can be completed in order: alone, or with the source."""
        return bool(_without(self.gates, *gates)) or self.drain.reaches()

    def end(self) -> tuple[ChunkGate[Any], ...]:
        """Nobody takes part any more; who did until now."""
        with self._lock:
            self.is_over = True
            gates, self.gates = self.gates, ()
            return gates

    def _give_up(self) -> None:
        self._cut()
        for gate in self.end():
            gate.on_completed()


def _without(
    gates: tuple[ChunkGate[Any], ...], *others: ChunkGate[Any]
) -> tuple[ChunkGate[Any], ...]:
    return tuple(gate for gate in gates if gate not in others)


class _Run(_Shared, abc.ObserverBase[Any]):
    """One subscription of `share`: from the first subscriber to the last, or to the end."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._upstream = SingleAssignmentDisposable()
        super().__init__(telemetry, self._upstream.dispose)

    def connect(
        self, subscribe: Callable[[Any, Any], Any], scheduler: abc.SchedulerBase | None
    ) -> None:
        """Subscribe to the source."""
        self.is_connected = True
        self._upstream.disposable = self.drain.apart(lambda: subscribe(self, scheduler))

    def demand(self, most: int) -> int:
        """How many messages all of them want."""
        for gate in self.gates:
            most = min(most, gate.demand(most))
        return most

    def on_next(self, value: Any) -> None:
        is_taken = False
        for gate in self.gates:
            is_taken |= gate.pass_on(value)
        if is_taken:
            return
        if isinstance(value, Batch):  # it must not be acknowledged as delivered
            raise SubscriberError("all subscribers of share() have left")
        if isinstance(value, Message | list):
            abandon(value, self.telemetry, "share")

    def on_error(self, error: Exception) -> None:
        for gate in self.end():
            gate.on_error(error)

    def on_completed(self) -> None:
        for gate in self.end():
            gate.on_completed()

    def leave(self, gate: ChunkGate[Any]) -> None:
        """Leave at once; the last one ends the subscription to the source."""
        gate.close()
        with self._lock:
            self.gates = _without(self.gates, gate)
            self.is_over = is_over = self.is_over or not self.gates
        if is_over:
            self._upstream.dispose()


class _Sharing:
    """Subscribes once for several, and again when somebody comes after the end.

    Args:
        subscribe: to the source.
        telemetry: where to count and report.
    """

    def __init__(self, subscribe: Callable[[Any, Any], Any], telemetry: Telemetry) -> None:
        self._subscribe = subscribe
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._run: _Run | None = None

    def join(
        self, observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        """Take part in what runs, or begin it."""
        drain = current_drain()
        if drain is not None and drain.is_over:
            return drain.refuse(observer)
        gate: ChunkGate[Any] = ChunkGate(observer)
        with self._lock:
            run = self._run
            if run is None or not run.add(gate):
                run = self._run = _Run(self._telemetry)
                run.add(gate)
                is_new = True
            else:
                is_new = False
        part = run.part(gate)
        if is_new:
            try:
                run.connect(self._subscribe, scheduler)
            except BaseException as error:
                run.on_error(as_exception(error))  # else who comes later would join it
                if is_interrupt(error):
                    raise
        return part


def share(source: Observable[T]) -> Observable[T]:
    """An Observable that subscribes to the source once for all its subscribers."""
    if isinstance(source, MessageStream):
        shared: Observable[Any] = source.share()
        return shared
    telemetry = telemetry_of(source)

    def subscribe(observer: Any, scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
        return source.subscribe(observer, scheduler=scheduler)

    return Derived(Observable(_Sharing(subscribe, telemetry).join), telemetry)


class _Connectable(_Measured[Any], ConnectableObservable[Any]):
    """What ``publish`` and its kin made of a stream: RxPY's, with subscribers that can be drained.

    Args:
        made: by RxPY.
        telemetry: of the stream.
    """

    def __init__(self, made: ConnectableObservable[Any], telemetry: Telemetry) -> None:
        ConnectableObservable.__init__(self, made.source, made.subject)
        self.telemetry = telemetry
        self._shared = _Shared(telemetry, self._cut)

    def connect(self, scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase | None:
        """Connect, unless it is connected."""
        if self.has_subscription:
            return self.subscription
        drain = self._shared.begin()
        connected: abc.DisposableBase = drain.apart(
            lambda: ConnectableObservable.connect(self, scheduler)
        )
        return connected

    def _subscribe_core(
        self, observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        gate: ChunkGate[Any] = ChunkGate(observer)
        self._shared.add(gate)
        part = self._shared.part(gate)
        return CompositeDisposable(part, self.subject.subscribe(gate, scheduler=scheduler))

    def _cut(self) -> None:
        if self.subscription is not None:
            self.subscription.dispose()


def subscribe_in_chunks(
    source: Observable[Message[Any]],
    observer: ChunkObserver[Any],
    scheduler: abc.SchedulerBase | None,
) -> abc.DisposableBase:
    """Subscribe to lists of messages where the source has them, else to lists of one.

    What is no message is not passed on: the source's ``on_next`` raises a `HandlerError`.
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

    return source.subscribe(
        pass_on,
        observer.on_error,
        observer.on_completed,
        scheduler=scheduler,
    )


def demand_of(observer: abc.ObserverBase[Any], most: int) -> int:
    """How many messages an observer wants now: a source that can wait asks before it takes any.

    An observer says so by a method ``demand(most)``, which may wait until it wants some, and
    answers 0 when it wants none any more. One without it wants as many as there are; if it is
    full, it makes its source wait in ``on_next``.
    """
    ask: Callable[[int], int] | None = getattr(observer, "demand", None)
    return most if ask is None else ask(most)


def abandon(value: Any, telemetry: Telemetry, where: str) -> None:
    """Count the messages of a value that nobody takes any more: a list, a batch, or one message."""
    count = 1 if isinstance(value, Message) else len(value)
    telemetry.add(abandoned=count)
    telemetry.publish(Abandoned(count, where))


def name_of(source: Observable[Any]) -> str:
    """What a source is called in pictures: the function that made it, or its class."""
    name = source.telemetry.source if isinstance(source, _Measured) else ""
    return name or type(source).__name__


def telemetry_of(source: Observable[Any]) -> Telemetry:
    """Where the source counts and reports; a new place if it is a stock Observable."""
    return source.telemetry if isinstance(source, _Measured) else new_telemetry()


def new_telemetry(parts: Sequence[Telemetry] = (), source: str = "") -> Telemetry:
    """A place to count and report, that also writes the log and keeps the latest failures.

    Args:
        parts: those of the streams that it is for together.
        source: see `Telemetry`.
    """
    keep_log_out_of_cells()
    telemetry = Telemetry(parts, source)
    log = EventLog()
    telemetry.bus.tap(log)
    telemetry.failures = log.failures
    return telemetry


def _as_disposable(subscription: Any) -> abc.DisposableBase:
    """A function of an operator of the user's may return a disposable, a function or nothing."""
    return subscription if hasattr(subscription, "dispose") else Disposable(subscription)


def _as_observer(
    on_next: Any, on_error: abc.OnError | None, on_completed: abc.OnCompleted | None
) -> abc.ObserverBase[Any]:
    if isinstance(on_next, type) and issubclass(on_next, abc.ObserverBase):
        no_class("on_next", on_next)
    if callable(getattr(on_next, "on_next", None)):
        observer: abc.ObserverBase[Any] = on_next
        return observer
    # Without on_error an Observer of RxPY throws; the end of a stream is an event and in the log.
    return FunctionSubscriber(on_next, on_error, on_completed)
