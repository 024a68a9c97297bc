"""Observables of messages and of batches: RxPY's Observable, and chunks inside.

RxPY costs between one and a hundred microseconds for each item and operator, a list costs a tenth
of one. So our operators ask their source for lists of messages where it can give them
(`MessageStream.subscribe_chunks`), and for single messages where a stock operator stands between.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from reactivex import Observable, Observer, abc
from reactivex import operators as stock
from reactivex.disposable import Disposable, SingleAssignmentDisposable
from reactivex.scheduler import CurrentThreadScheduler
from reactivex.scheduler.eventloop import AsyncIOThreadSafeScheduler

from rxtweets.checks import no_class
from rxtweets.display.notebook import keep_log_out_of_cells
from rxtweets.errors import HandlerError
from rxtweets.events import Abandoned, Event, Span
from rxtweets.instrumentation.failures import Failure, Failures
from rxtweets.instrumentation.logging import EventLog
from rxtweets.message import Batch, Message
from rxtweets.subscriber import Contained, FunctionSubscriber, Settlement
from rxtweets.telemetry import StageStats, Stats, Telemetry

__all__ = [
    "BatchStream",
    "ChunkGate",
    "MessageStream",
    "SettledStream",
    "demand_of",
    "new_telemetry",
    "subscribe_in_chunks",
    "telemetry_of",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Chunk = list[Message[T]]
ChunkObserver = abc.ObserverBase[list[Message[T]]]
SubscribeChunks = Callable[[ChunkObserver[T], abc.SchedulerBase | None], abc.DisposableBase]


class _Measured(Observable[T_co]):
    """An Observable that knows where the stages before it count and report."""

    def __init__(self, telemetry: Telemetry) -> None:
        super().__init__()
        self.telemetry = telemetry

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
        return self._attach(_as_observer(on_next, on_error, on_completed), scheduler)

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
            return result

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
        """Subscribe the user's observer, whose exceptions stop here."""
        return super().subscribe(Contained(observer, self.telemetry), scheduler=scheduler)


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
        return self._source.subscribe(observer, scheduler=scheduler)


class MessageStream(_Measured[Message[T_co]], Generic[T_co]):
    """An Observable of messages that can also deliver them in lists.

    Args:
        subscribe_chunks: how to subscribe an observer of lists.
        telemetry: where the stages up to here count and report.
    """

    def __init__(self, subscribe_chunks: SubscribeChunks[T_co], telemetry: Telemetry) -> None:
        super().__init__(telemetry)
        self._subscribe_chunks = subscribe_chunks

    def subscribe_chunks(
        self, observer: ChunkObserver[Any], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        """Subscribe an observer whose ``on_next`` takes a list of messages, never empty.

        For authors of operators. The observer must not raise and must not keep the list.
        """
        return self._subscribe_chunks(observer, scheduler)

    def _subscribe_core(
        self,
        observer: abc.ObserverBase[Message[T_co]],
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        def on_next(chunk: list[Message[Any]]) -> None:
            for message in chunk:
                observer.on_next(message)

        chunks = Observer(on_next, observer.on_error, observer.on_completed)
        return self.subscribe_chunks(chunks, scheduler)


class BatchStream(_Measured[Batch[T_co]], Generic[T_co]):
    """An Observable of batches that settles each when its subscriber has returned or raised.

    Args:
        subscribe: how to subscribe an observer of batches.
        telemetry: where the stages up to here count and report.
    """

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

    def _attach(
        self, observer: abc.ObserverBase[Batch[T_co]], scheduler: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        # RxPY would put an observer of its own between, which drops without a trace what is on
        # its way when somebody disposes; a batch must be settled, or counted.
        gate = BatchGate(Settlement(observer, self.telemetry), self.telemetry)

        def connect(*_: Any) -> None:
            try:
                gate.source.disposable = self._subscribe_core(gate, scheduler)
            except Exception as error:  # noqa: BLE001 - whatever a source of the user raises
                gate.on_error(error)

        trampoline = CurrentThreadScheduler.singleton()
        if trampoline.schedule_required():
            trampoline.schedule(connect)
        else:
            connect()
        return Disposable(gate.dispose)


class SettledStream(_Measured[Batch[T_co]], Generic[T_co]):
    """An Observable of batches that were delivered and acknowledged, each message with its status.

    Args:
        subscribe: how to subscribe an observer of batches.
        telemetry: where the stages up to here count and report.
    """

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

    RxPY does this for single items in `Observable.subscribe`; lists pass beside that.
    """

    def __init__(self, observer: abc.ObserverBase[T]) -> None:
        self._observer = observer
        self._lock = threading.Lock()
        self.closed = False

    def on_next(self, value: T) -> None:
        """Pass the value on while open."""
        if not self.closed:
            self._observer.on_next(value)

    def on_error(self, error: Exception) -> None:
        """Pass the error on, as the last thing."""
        if self.close():
            self._observer.on_error(error)

    def on_completed(self) -> None:
        """Pass the end on, as the last thing."""
        if self.close():
            self._observer.on_completed()

    def close(self) -> bool:
        """Let nothing through any more; whether it was open until now."""
        with self._lock:
            was_open, self.closed = not self.closed, True
            return was_open


class BatchGate(ChunkGate[Batch[Any]]):
    """The same for batches: what comes after the disposal is counted, and the end disposes.

    Attributes:
        source: the subscription that leads here.
    """

    def __init__(self, observer: abc.ObserverBase[Batch[Any]], telemetry: Telemetry) -> None:
        super().__init__(observer)
        self._telemetry = telemetry
        self.source = SingleAssignmentDisposable()

    def on_next(self, value: Batch[Any]) -> None:
        """Pass the batch on while open."""
        if self.closed:
            self._telemetry.add(abandoned=len(value))
            self._telemetry.publish(Abandoned(len(value), "batcher"))
        else:
            self._observer.on_next(value)

    def on_error(self, error: Exception) -> None:
        """Pass the error on, as the last thing."""
        super().on_error(error)
        self.source.dispose()

    def on_completed(self) -> None:
        """Pass the end on, as the last thing."""
        super().on_completed()
        self.source.dispose()

    def dispose(self) -> None:
        """Let nothing through any more, and end the source."""
        self.close()
        self.source.dispose()


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


def telemetry_of(source: Observable[Any]) -> Telemetry:
    """Where the source counts and reports; a new place if it is a stock Observable."""
    return source.telemetry if isinstance(source, _Measured) else new_telemetry()


def new_telemetry(parts: Sequence[Telemetry] = ()) -> Telemetry:
    """A place to count and report, that also writes the log and keeps the latest failures.

    Args:
        parts: those of the streams that it is for together.
    """
    keep_log_out_of_cells()
    telemetry = Telemetry(parts)
    telemetry.bus.tap(EventLog())
    telemetry.failures = Failures()
    telemetry.bus.tap(telemetry.failures)
    return telemetry


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
