"""The machine inside `process`, without the calls: what comes in, the books, what goes out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from reactivex import abc

from rxtweets._core.concurrency import Concurrency
from rxtweets._core.events import Abandoned, HandlerFailed, SubscriberFailed
from rxtweets._core.subscriber import OnFailed, acknowledge, handle_failed
from rxtweets._core.telemetry import StageStats, Telemetry, Working
from rxtweets._messages.message import Message, are_plain
from rxtweets._support.rate_meter import Throughput
from rxtweets._support.workers import is_interrupt, unexpected
from rxtweets.operators._results import Results

__all__ = ["Demand", "Entry", "Processor"]


class Demand(NamedTuple):
    """Messages in flight for each processor.

    Attributes:
        most: so many, and the source waits.
        least: so few, and it goes on.
    """

    most: int
    least: int


class Entry(Protocol):
    """Where the processor hands messages in; their results come back through `Processor.emit`."""

    def submit(self, messages: list[Message[Any]]) -> None:
        """Take messages; returns at once."""

    def resize(self) -> None:
        """The concurrency is another."""

    def stop(self) -> None:
        """Begin nothing any more."""

    def load(self) -> tuple[int, float]:
        """How many calls run now, and the seconds that calls have taken so far."""


class Processor(abc.ObserverBase[list[Message[Any]]], abc.DisposableBase):
    """Takes chunks of messages, has them handled, and passes chunks of results on.

    Args:
        observer: of the results; must not raise.
        telemetry: where to count and report.
        concurrency: calls at once at most.
        results: in which order they leave.
        spawn: runs a task on some thread.
        close: gives the threads back.
        may_wait: whether the source's thread may be made to wait for room.
        on_failed: the user's, for failed messages before they are acknowledged.
        demand: how many messages are taken in advance.
    """

    def __init__(
        self,
        observer: abc.ObserverBase[list[Message[Any]]],
        telemetry: Telemetry,
        concurrency: Concurrency,
        results: Results,
        spawn: Callable[[Callable[[], None]], None],
        close: Callable[[], None],
        *,
        may_wait: bool,
        on_failed: OnFailed | None,
        demand: Demand,
    ) -> None:
        self._observer = observer
        self._telemetry = telemetry
        self._concurrency = concurrency
        self._spawn = spawn
        self._closing = [close]
        self._may_wait = may_wait
        self._on_failed = on_failed
        self._demand = demand
        self._limit = demand.most * concurrency.limit
        self._enough = demand.least * concurrency.limit
        self._capacity = _Capacity(concurrency)
        self._entry: Entry | None = None

        self.results = results
        self._emitting = threading.Lock()
        self._is_called = False
        self._books = threading.Lock()
        self._room = threading.Condition(self._books)
        self._waiting = 0
        self._submitted = 0
        self._settled = 0
        self._failed = 0
        self._meter = Throughput()

        self._source: abc.DisposableBase | None = None
        self._ended = False
        self._error: Exception | None = None
        self._finished = False
        self._disposed = False
        self.is_broken = False
        self._is_lossy = False
        self._inside = threading.local()
        self._forget: list[Callable[[], None]] = [
            telemetry.gauge("in_flight", self._in_flight),
            telemetry.stage(self._stage),
            concurrency.watch(self._resize),
        ]

    def listen(
        self,
        entry: Entry,
        subscribe: Callable[[abc.ObserverBase[list[Message[Any]]]], abc.DisposableBase],
    ) -> None:
        """Subscribe to the source; what it gives before that returns is taken too."""
        self._entry = entry
        source = subscribe(self)
        self._source = source
        if self._disposed or self.is_broken:
            source.dispose()

    def at_end(self, close: Callable[[], None]) -> None:
        """Call this as well when all is over."""
        self._closing.append(close)

    # The source's side.

    def demand(self, most: int) -> int:
        """Wait until there is room; how many messages a source that can wait should take now."""
        if self._may_wait and self._in_flight() >= self._limit:
            self._wait_for_room()
        if self._disposed or self.is_broken:
            return 0
        return max(0, min(most, self._limit - self._in_flight()))

    def on_next(self, chunk: list[Message[Any]]) -> None:
        """Take messages; wait first while there are too many in flight."""
        if self._may_wait and self._in_flight() >= self._limit:
            self._wait_for_room()
        with self._books:
            if self._disposed or self.is_broken:
                self._abandon(len(chunk))
                return
            self._submitted += len(chunk)
            self._meter.add(len(chunk))
        self._entry.submit(chunk)  # type: ignore[union-attr]  # there before the source is

    def on_error(self, error: Exception) -> None:
        """Handle what is in flight, then pass the error on."""
        if not self.is_broken:
            self._error = error
        self._ended = True
        self._emit_ready()

    def on_completed(self) -> None:
        """Handle what is in flight, then complete."""
        self._ended = True
        self._emit_ready()

    def dispose(self) -> None:
        """Stop at once: nothing is emitted any more, what is in flight is counted abandoned."""
        with self._books:
            if self._disposed:
                return
            self._abandon(self._in_flight())
            self._disposed = True
            self._room.notify_all()
        if self._source is not None:
            self._source.dispose()
        self._release()

    def break_off(self, error: Exception) -> None:
        """Take nothing any more, and end with this error when what is in flight has its result."""
        with self._books:
            if self.is_broken:
                return
            self.is_broken = True
            self._error = error
            self._ended = True
            self._room.notify_all()
        if self._source is not None:
            self._source.dispose()
        self.emit([], elsewhere=True)

    def died(self, error: BaseException) -> None:
        """A thread died, and messages perhaps with it: pass on what is ready, and end with this.

        What is still in flight is counted abandoned, as nothing says which of it still comes.
        """
        self._is_lossy = True
        self.break_off(unexpected("handling", error))
        self._emit_ready()

    def _wait_for_room(self) -> None:
        if getattr(self._inside, "working", False):
            return  # a handler's result came round to the source: waiting would be for ourselves
        with self._books:
            self._waiting += 1
            self._room.wait_for(
                lambda: self._disposed or self.is_broken or self._in_flight() <= self._enough
            )
            self._waiting -= 1

    def _in_flight(self) -> int:
        return 0 if self._disposed else self._submitted - self._settled

    def _abandon(self, count: int) -> None:
        if count:
            self._telemetry.add(abandoned=count)
            self._telemetry.publish(Abandoned(count, "processors"))

    # The workers' side.

    def spawn(self, task: Callable[[], None]) -> None:
        """Run a task on some thread, which is then known as one that works for this stream."""

        def work() -> None:
            try:
                with self.working():
                    task()
            except BaseException as error:
                self.died(error)
                if is_interrupt(error):
                    raise

        self._spawn(work)

    def working(self) -> _AtWork:
        """Mark this thread as one that must not be made to wait for the stream, nor for room."""
        return _AtWork(self._telemetry.working(), self._inside)

    def _resize(self) -> None:
        self._capacity.changed()
        with self._books:
            self._limit = self._demand.most * self._concurrency.limit
            self._enough = self._demand.least * self._concurrency.limit
            self._room.notify_all()
        if self._entry is not None:
            self._entry.resize()

    def _stage(self) -> StageStats:
        running, busy = (0, 0.0) if self._entry is None else self._entry.load()
        return StageStats(
            "processors",
            self._concurrency.limit,
            running,
            self._in_flight(),
            busy,
            self._capacity.seconds(),
            received=self._submitted,
            done=self._settled - self._failed,
            failed=self._failed,
            queued=max(0, self._in_flight() - running),
            rate=self._meter.rate(),
        )

    # The observer's side.

    def emit(self, results: list[Message[Any]], *, elsewhere: bool = False) -> None:
        """Pass results on: from this thread, or from another, where this one must not wait."""
        if results:
            self.results.put(results)
        if not elsewhere:
            self._emit_ready()
        elif not self._is_called and not self._emitting.locked():
            self._is_called = True
            try:
                self.spawn(self._emit_called)
            except RuntimeError:  # no more threads can be started: then this one has to wait
                self._emit_called()

    def _emit_called(self) -> None:
        self._is_called = False  # before the look: who comes after it calls again
        self._emit_ready()

    def _emit_ready(self) -> None:
        """Pass results on, one thread at a time; a thread that finds another at it just leaves.

        So a slow observer keeps one worker, not all of them. The one that is at it looks again
        after it let go, so that nothing is left lying.
        """
        results = self.results
        while (results.is_ready() or self._is_due()) and self._emitting.acquire(blocking=False):
            try:
                while results.is_ready():
                    self._pass_on(results.take())
                if self._is_due():
                    self._finish()
            finally:
                self._emitting.release()

    def _pass_on(self, results: list[Message[Any]]) -> None:
        good, failed = results, []
        if not are_plain(results):
            good = [message for message in results if message.status == "ok"]
            failed = [message for message in results if message.status != "ok"]
        if not self._settle(len(good), len(failed)):
            return
        if failed:
            for message in failed:
                self._telemetry.publish(HandlerFailed(message))
            handled = handle_failed(failed, self._on_failed, self._telemetry)
            acknowledge([], handled, self._telemetry)
        if good:
            self._give(good)

    def _give(self, good: list[Message[Any]]) -> None:
        try:
            self._observer.on_next(good)
        except BaseException as error:
            # It must not raise; but nobody stops a SystemExit before it comes here, and what is
            # still to be passed on would be left lying.
            self._telemetry.add(subscriber_errors=1)
            self._telemetry.publish(SubscriberFailed(good, error))
            if isinstance(error, KeyboardInterrupt) and not self._may_wait:
                raise  # the user's own thread, and their own Ctrl-C

    def _settle(self, good: int, failed: int) -> bool:
        """Count results, before they are passed on; ``False`` if they were abandoned before."""
        with self._books:
            if self._disposed or self._finished:
                return False
            self._settled += good + failed
            self._failed += failed
            self._telemetry.add(processed=good, failed=failed)
            # Waking the source's thread when there is much room, not at every message.
            if self._waiting and self._in_flight() <= self._enough:
                self._room.notify_all()
            return True

    def _is_due(self) -> bool:
        return (
            self._ended
            and (self._settled == self._submitted or self._is_lossy)
            and not self._finished
            and not self._disposed
        )

    def _finish(self) -> None:
        self._finished = True
        with self._books:
            self._abandon(self._in_flight())
            self._settled = self._submitted
        try:
            self._release()
        finally:
            if self._error is None:
                self._observer.on_completed()
            else:
                self._observer.on_error(self._error)

    def _release(self) -> None:
        for forget in self._forget:
            forget()
        self._capacity.stop()
        if self._entry is not None:
            self._entry.stop()
        for close in self._closing:
            close()


class _AtWork:
    """Two marks on a thread for the time of a block; a generator would cost more than the marks."""

    __slots__ = ("_inside", "_outside", "_telemetry")

    def __init__(self, telemetry: Working, inside: threading.local) -> None:
        self._telemetry = telemetry
        self._inside = inside
        self._outside = False

    def __enter__(self) -> None:
        self._outside = getattr(self._inside, "working", False)
        self._inside.working = True
        self._telemetry.__enter__()

    def __exit__(self, *about: object) -> None:
        self._telemetry.__exit__(*about)
        self._inside.working = self._outside


class _Capacity:
    """The concurrency, added up over time."""

    def __init__(self, concurrency: Concurrency) -> None:
        self._concurrency = concurrency
        self._lock = threading.Lock()
        self._limit = concurrency.limit
        self._since = perf_counter()
        self._before = 0.0

    def seconds(self) -> float:
        with self._lock:
            return self._before + self._limit * (perf_counter() - self._since)

    def changed(self, limit: int | None = None) -> None:
        with self._lock:
            now = perf_counter()
            self._before += self._limit * (now - self._since)
            self._since = now
            self._limit = self._concurrency.limit if limit is None else limit

    def stop(self) -> None:
        self.changed(0)
