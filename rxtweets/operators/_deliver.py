"""`deliver`: gives batches to a subscriber, and passes them on settled."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import SingleAssignmentDisposable
from reactivex.scheduler import VirtualTimeScheduler

from rxtweets._core.acknowledgement import OnFailed
from rxtweets._core.gates import abandon
from rxtweets._core.observable import BatchStream, SettledStream
from rxtweets._core.stats import StageStats
from rxtweets._core.subscriber import FunctionSubscriber, Settled, Settlement
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import DEFAULT_ROUTE
from rxtweets._support.rate_meter import Throughput
from rxtweets._support.validation import function, no_class, whole_number
from rxtweets._support.workers import WorkerPool, unexpected
from rxtweets.errors import ConfigurationError
from rxtweets.operators._event_loop import AsyncSubscriber, is_awaited

__all__ = ["SubscriberOrFunction", "deliver", "delivering", "subscriber_of"]

if TYPE_CHECKING:  # type checkers bring typing_extensions
    from typing_extensions import TypeVar as TypeVarWithDefault

    # A subscriber of any object, such as print, leaves T open; mypy would then refuse it.
    T = TypeVarWithDefault("T", default=Any)
else:
    T = TypeVar("T")

SubscriberOrFunction = abc.ObserverBase[Batch[Any]] | Callable[[Batch[Any]], object]


def deliver(
    subscriber: abc.ObserverBase[Batch[T]] | Callable[[Batch[T]], object],
    concurrency: int | None = None,
    *,
    waiting: int | None = None,
    name: str = "default",
    on_failed: OnFailed | None = None,
) -> Callable[[Observable[Batch[T]]], SettledStream[T]]:
    """Give batches to a subscriber, settle them, and pass them on with the status of each message.

    It is ``batches.subscribe(subscriber)`` as an operator. So several batches can be delivered
    concurrently, and other operators can follow.

    ::

        batches            --[1,2]--[3,4]---[5]-----|
        deliver(f)         ---[1,2]--[3,4✗]--[5]----|     f failed message 4
        … concurrency=2    ----[3,4✗]-[1,2]--[5]----|     f takes longer for the first

    With ``concurrency``, batches of one partition (`batch` with ``partition_by``) or of one batch
    key (`Message.put_batch_key`) are still delivered one after another, in order.

    Args:
        subscriber: a `Subscriber`, any observer, or a function of one batch. It may be ``async
            def``; then it runs on an event loop in a thread of the operator. If it returns, the
            batch succeeds; if it raises, the batch fails; if it returns a list of the messages,
            each is settled by its status. Its ``on_completed`` or ``on_error`` is called after the
            last batch.
        concurrency: most batches that are delivered concurrently, on threads of the operator. By
            default, and on a scheduler of virtual time, a batch is delivered on the thread that
            brings it.
        waiting: most batches that wait for these threads; then the source blocks. Behind `route`
            the source is that of all branches, so this is how far one branch may fall behind the
            others. By default the same as ``concurrency``.
        name: of the stage.
        on_failed: takes messages that failed, before they are acknowledged, and returns the same
            number of messages.

    Returns:
        An operator from batches to settled batches.

    Raises:
        ConfigurationError: an argument is invalid, or the operator before it is not `batch`.
    """
    return delivering(subscriber, concurrency, waiting, name, on_failed, None)


def delivering(
    subscriber: SubscriberOrFunction,
    concurrency: int | None,
    waiting: int | None,
    name: str,
    on_failed: OnFailed | None,
    on_settled: Settled | None,
) -> Callable[[Observable[Batch[T]]], SettledStream[Any]]:
    """Return the operator of `deliver`, which calls ``on_settled`` with each settled batch."""
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
            awaiting = AsyncSubscriber(observer, telemetry) if is_awaited(observer) else None
            settlement = Settlement(awaiting or observer, telemetry, on_failed, on_settled)
            is_virtual = isinstance(given, VirtualTimeScheduler)
            threads = 0 if concurrency is None or is_virtual else concurrency
            delivery = DeliveringObserver(settlement, settled, telemetry, name, threads, waiting)
            if awaiting is not None:
                delivery.at_end = awaiting.close
            delivery.source.disposable = source.subscribe_batches(delivery, given)
            return delivery

        return SettledStream(subscribe, telemetry)

    return operator


def subscriber_of(subscriber: Any) -> abc.ObserverBase[Batch[Any]]:
    """Return the subscriber as an observer.

    Raises:
        ConfigurationError: it is neither an observer nor a function, or it is a class.
    """
    no_class("subscriber", subscriber)
    if callable(getattr(subscriber, "on_next", None)):
        observer: abc.ObserverBase[Batch[Any]] = subscriber
        return observer
    function("subscriber", subscriber)
    return FunctionSubscriber(subscriber)


class DeliveringObserver(abc.ObserverBase[Batch[Any]], abc.DisposableBase):
    """Delivers batches on the thread that brings them, or on its own threads.

    On its threads, batches of one lane (a partition, or a batch key) are delivered in order; a
    batch without a lane goes to the first free thread.

    Args:
        settlement: of the subscriber.
        observer: of the settled batches; must not raise.
        telemetry: counts and reports.
        name: of the stage.
        threads: 0 delivers on the thread that brings a batch.
        waiting: most batches that wait; the number of threads by default.

    Attributes:
        source: the subscription to the source.
        at_end: called after the last batch.
    """

    def __init__(
        self,
        settlement: Settlement,
        observer: abc.ObserverBase[Batch[Any]],
        telemetry: Telemetry,
        name: str,
        threads: int,
        waiting: int | None,
    ) -> None:
        self._settlement = settlement
        self._observer = observer
        self._telemetry = telemetry
        self._name = name
        self._threads = threads
        self._most_waiting = waiting or threads
        self.source = SingleAssignmentDisposable()
        self.at_end: Callable[[], None] = lambda: None
        self._pool = WorkerPool("rxtweets-subscriber")
        self._inside = threading.local()
        self._emitting = threading.RLock()
        # The rest is guarded by this condition.
        self._changed = threading.Condition()
        self._waiting: list[Batch[Any]] = []
        self._busy_lanes: set[Hashable] = set()
        self._workers = 0
        self._disposed = False
        self._source_ended = False
        self._finished = False
        self._error: Exception | None = None
        self._meter = Throughput()
        self._done = 0
        self._failed = 0
        self._busy_seconds = 0.0
        self._delivering = 0
        self._messages_delivering = 0
        self._partitions: Counter[int] = Counter()
        self._started = perf_counter()
        self._forget_stage = telemetry.stage(self._stage)

    def on_next(self, batch: Batch[Any]) -> None:
        self._meter.add(len(batch))
        if batch.info.partition is not None:
            with self._changed:
                self._partitions[batch.info.partition] += len(batch)
        if self._threads:
            self._enqueue(batch)
        elif self._disposed:
            abandon(batch, self._telemetry, "subscribers")
        else:
            self._deliver(batch)

    def on_error(self, error: Exception) -> None:
        self._end(error)

    def on_completed(self) -> None:
        self._end(None)

    def dispose(self) -> None:
        """Stop immediately: waiting batches are abandoned, those being delivered are settled."""
        with self._changed:
            self._disposed = True
            left, self._waiting = self._waiting, []
            self._changed.notify_all()
        if left:
            messages = [message for batch in left for message in batch]
            abandon(messages, self._telemetry, "subscribers")
        self.source.dispose()
        self._forget_stage()
        self.at_end()
        self._pool.close()

    def _enqueue(self, batch: Batch[Any]) -> None:
        with self._changed:
            # A subscriber that feeds its own source would wait for itself.
            if not getattr(self._inside, "is_worker", False):
                self._changed.wait_for(
                    lambda: self._disposed or len(self._waiting) < self._most_waiting
                )
            is_lost = self._disposed
            needs_worker = not is_lost and self._workers < self._threads
            if not is_lost:
                self._waiting.append(batch)
            self._workers += needs_worker
        if is_lost:
            abandon(batch, self._telemetry, "subscribers")
        elif needs_worker:
            self._start_worker()

    def _deliver(self, batch: Batch[Any]) -> None:
        with self._changed:
            self._delivering += 1
            self._messages_delivering += len(batch)
        started = perf_counter()
        settled = self._settlement.settle(batch)
        took = perf_counter() - started
        failed = sum(message.status != "ok" for message in settled)
        with self._changed:
            self._busy_seconds += took
            self._failed += failed
            self._done += len(settled) - failed
            self._delivering -= 1
            self._messages_delivering -= len(batch)
        with self._emitting:
            if not self._disposed:
                self._observer.on_next(settled)

    def _end(self, error: Exception | None) -> None:
        with self._changed:
            self._source_ended, self._error = True, self._error or error
            is_idle = not self._workers and not self._waiting
        if is_idle:
            self._finish()

    def _finish(self) -> None:
        with self._changed:
            if self._finished or self._disposed:
                return
            self._finished = True
        error = self._error
        self._forget_stage()
        with self._telemetry.working():
            if error is None:
                self._settlement.on_completed()
            else:
                self._settlement.on_error(error)
        self.at_end()
        with self._emitting:
            if self._disposed:
                pass
            elif error is None:
                self._observer.on_completed()
            else:
                self._observer.on_error(error)
        self._pool.close()

    # The threads.

    def _start_worker(self) -> None:
        try:
            self._pool.submit(self._work)
        except RuntimeError:  # the system starts no more threads: deliver here if no worker is left
            with self._changed:
                is_alone = self._workers == 1
                self._workers -= not is_alone
            if is_alone:
                self._work()

    def _work(self) -> None:
        self._inside.is_worker = True
        lane: Hashable = None
        while (taken := self._next_batch(lane)) is not None:
            batch, lane = taken
            try:
                self._deliver(batch)
            except BaseException as error:  # noqa: BLE001 - a SystemExit would end the thread silently
                self._give_up(batch, error)
        self._inside.is_worker = False

    def _give_up(self, batch: Batch[Any], error: BaseException) -> None:
        """Take no more batches, deliver those that wait, and end with the error."""
        with self._changed:
            self._source_ended = True
            self._error = self._error or unexpected("delivering", error)
        abandon(batch, self._telemetry, "subscribers")  # its outcome is unknown
        self.source.dispose()

    def _next_batch(self, done: Hashable) -> tuple[Batch[Any], Hashable] | None:
        """Return the first batch whose lane is free, or ``None`` to end this worker."""
        with self._changed:
            self._busy_lanes.discard(done)
            for position, batch in enumerate(self._waiting):
                lane = _lane_of(batch)
                if lane is None or lane not in self._busy_lanes:
                    del self._waiting[position]
                    if lane is not None:
                        self._busy_lanes.add(lane)
                    self._changed.notify_all()
                    return batch, lane
            self._workers -= 1
            is_last = self._source_ended and not self._workers and not self._waiting
        if is_last:
            self._finish()
        return None

    def _stage(self) -> StageStats:
        with self._changed:
            threads, partitions = self._threads or 1, self._partitions
            return StageStats(
                self._name,
                concurrency=threads,
                running=self._delivering,
                in_flight=self._messages_delivering,
                busy_seconds=self._busy_seconds,
                capacity_seconds=(perf_counter() - self._started) * threads,
                kind="subscribers",
                received=self._meter.total,
                done=self._done,
                failed=self._failed,
                queued=sum(map(len, self._waiting)),
                rate=self._meter.rate(),
                partitions=tuple(
                    partitions[number] for number in range(max(partitions, default=-1) + 1)
                ),
            )


def _lane_of(batch: Batch[Any]) -> Hashable:
    info = batch.info
    if info.partition is not None:
        return ("partition", info.partition)
    return None if info.batch_key == DEFAULT_ROUTE.batch_key else ("key", info.batch_key)
