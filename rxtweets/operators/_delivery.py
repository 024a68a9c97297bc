"""The machine inside `deliver`: batches wait in a short line, and are taken by lane."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from time import perf_counter
from typing import Any

from reactivex import abc

from rxtweets._core.events import Abandoned
from rxtweets._core.subscriber import Contained, Settlement
from rxtweets._core.telemetry import StageStats, Telemetry
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import DEFAULT_ROUTE
from rxtweets._support.rate_meter import Throughput
from rxtweets._support.workers import WorkerPool, unexpected

__all__ = ["Delivery", "InlineDelivery"]

DEFAULT_KEY = DEFAULT_ROUTE.batch_key


class InlineDelivery(abc.ObserverBase[Batch[Any]], abc.DisposableBase):
    """Delivers on the thread that brings the batch.

    Args:
        settlement: the subscriber, and what settles its batches.
        subscriber: told of the end.
        observer: of the settled batches; must not raise.
        telemetry: where to count and report.
        name: of the stage.
        close: called when nothing is delivered any more.
    """

    def __init__(
        self,
        settlement: Settlement,
        subscriber: abc.ObserverBase[Batch[Any]],
        observer: abc.ObserverBase[Batch[Any]],
        telemetry: Telemetry,
        name: str,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self._close = close
        self._settlement = settlement
        self._subscriber = Contained(subscriber, telemetry)
        self._observer = observer
        self._telemetry = telemetry
        self._name = name
        self._source: abc.DisposableBase | None = None
        self._disposed = False
        self._finished = False
        self._books = threading.Condition()
        self._emitting = threading.RLock()
        self._meter = Throughput()
        self._done = 0
        self._failed = 0
        self._busy = 0.0
        self._in_hand = 0
        self._running_now = 0
        self._threads = 1
        self._partitions: dict[int, int] = {}
        self._since = perf_counter()
        self._forget = telemetry.stage(self._stage)

    def listen(
        self, subscribe: Callable[[abc.ObserverBase[Batch[Any]]], abc.DisposableBase]
    ) -> None:
        """Subscribe to the source; what it gives before that returns is taken too."""
        source = subscribe(self)
        self._source = source
        if self._disposed or self._finished:
            source.dispose()

    def on_next(self, batch: Batch[Any]) -> None:
        """Deliver the batch, and pass it on settled."""
        self._count(batch)
        if self._disposed:
            self._abandon(len(batch))
        else:
            self._deliver(batch)

    def on_error(self, error: Exception) -> None:
        """Tell the subscriber, and pass the error on."""
        self._end(error)

    def on_completed(self) -> None:
        """Tell the subscriber, and complete."""
        self._end(None)

    def dispose(self) -> None:
        """Stop at once; what waits is counted abandoned, what is being delivered is settled."""
        self._disposed = True
        if self._source is not None:
            self._source.dispose()
        self._forget()
        self._close()

    def _end(self, error: Exception | None) -> None:
        with self._books:
            if self._finished or self._disposed:
                return
            self._finished = True
        self._forget()
        with self._telemetry.working():
            if error is None:
                self._subscriber.on_completed()
            else:
                self._subscriber.on_error(error)
        self._close()
        with self._emitting:
            if self._disposed:
                return
            if error is None:
                self._observer.on_completed()
            else:
                self._observer.on_error(error)

    def _deliver(self, batch: Batch[Any]) -> None:
        with self._books:
            self._in_hand += len(batch)
            self._running_now += 1
        started = perf_counter()
        settled = self._settlement.settle(batch)
        took = perf_counter() - started
        failed = sum(message.status != "ok" for message in settled)
        with self._books:
            self._busy += took
            self._failed += failed
            self._done += len(settled) - failed
            self._in_hand -= len(batch)
            self._running_now -= 1
        with self._emitting:
            if not self._disposed:
                self._observer.on_next(settled)

    def _count(self, batch: Batch[Any]) -> None:
        self._meter.add(len(batch))
        partition = batch.info.partition
        if partition is not None:
            with self._books:
                self._partitions[partition] = self._partitions.get(partition, 0) + len(batch)

    def _abandon(self, count: int) -> None:
        if count:
            self._telemetry.add(abandoned=count)
            self._telemetry.publish(Abandoned(count, "subscribers"))

    def _waiting(self) -> int:
        return 0

    def _stage(self) -> StageStats:
        with self._books:
            partitions = self._partitions
            most = max(partitions, default=-1)
            return StageStats(
                self._name,
                concurrency=self._threads,
                running=self._running_now,
                in_flight=self._in_hand,
                busy_seconds=self._busy,
                capacity_seconds=(perf_counter() - self._since) * self._threads,
                kind="subscribers",
                received=self._meter.total,
                done=self._done,
                failed=self._failed,
                queued=self._waiting(),
                rate=self._meter.rate(),
                partitions=tuple(partitions.get(number, 0) for number in range(most + 1)),
            )


class Delivery(InlineDelivery):
    """Delivers on threads of its own, several batches at once.

    Batches of one partition, or of one key that a message was given, are delivered one after the
    other, in order; those without either go to whoever is free.

    Args:
        concurrency: batches at once at most.
        waiting: batches that may wait; then the source does.
        args: see `InlineDelivery`.
    """

    def __init__(self, concurrency: int, waiting: int, *args: Any) -> None:
        super().__init__(*args)
        self._most = waiting
        self._threads = concurrency
        self._pool = WorkerPool("rxtweets-subscriber", self._died)
        self._pending: list[Batch[Any]] = []
        self._lanes: set[Hashable] = set()
        self._running = 0
        self._ended = False
        self._error: Exception | None = None
        self._inside = threading.local()

    def on_next(self, batch: Batch[Any]) -> None:
        """Line the batch up; wait first while too many are there."""
        self._count(batch)
        with self._books:
            if not getattr(self._inside, "working", False):  # it would wait for itself
                self._books.wait_for(lambda: self._disposed or self._has_room())
            is_lost = self._disposed
            is_needed = not is_lost and self._running < self._threads
            if not is_lost:
                self._pending.append(batch)
            self._running += is_needed
        if is_lost:
            self._abandon(len(batch))
        elif is_needed:
            self._begin_work()

    def dispose(self) -> None:
        """Stop at once; what waits is counted abandoned, what is being delivered is settled."""
        with self._books:
            self._disposed = True  # before what is being delivered ends, and asks for more
            left, self._pending = self._pending, []
            self._books.notify_all()
        self._abandon(sum(map(len, left)))
        super().dispose()
        self._pool.close()

    def _end(self, error: Exception | None) -> None:
        with self._books:
            self._ended, self._error = True, self._error or error
            is_last = not self._running and not self._pending
        if is_last:
            self._finish()

    def _finish(self) -> None:
        super()._end(self._error)
        self._pool.close()

    def _has_room(self) -> bool:
        return len(self._pending) < self._most

    def _waiting(self) -> int:
        return sum(map(len, self._pending))

    def _work(self) -> None:
        self._inside.working = True
        lane: Hashable = None
        while (taken := self._next(lane)) is not None:
            batch, lane = taken
            try:
                self._deliver(batch)
            except BaseException as error:
                self._lose(batch, lane, error)
                raise
        self._inside.working = False

    def _lose(self, batch: Batch[Any], lane: Hashable, error: BaseException) -> None:
        """The thread dies with this batch, whose outcome nobody knows."""
        with self._books:
            self._error = self._error or unexpected("delivering", error)
            self._running -= 1
            self._lanes.discard(lane)
        self._abandon(len(batch))

    def _died(self, _: BaseException) -> None:
        """Take no more batches, deliver those that wait, and end with the error."""
        if self._source is not None:
            self._source.dispose()
        with self._books:
            self._ended = True
            is_last = not self._running and not self._pending
            is_needed = not self._running and not is_last
            self._running += is_needed
        if is_last:
            self._finish()
        elif is_needed:
            self._begin_work()

    def _begin_work(self) -> None:
        try:
            self._pool.submit(self._work)
        except RuntimeError:  # no more threads can be started
            with self._books:
                is_alone = self._running == 1
                self._running -= not is_alone
            if is_alone:
                self._work()

    def _next(self, done: Hashable) -> tuple[Batch[Any], Hashable] | None:
        """The first batch whose lane is free; ``None`` if this worker is not needed any more."""
        with self._books:
            if done is not None:
                self._lanes.discard(done)
            for at, batch in enumerate(self._pending):
                lane = _lane_of(batch)
                if lane is None or lane not in self._lanes:
                    del self._pending[at]
                    if lane is not None:
                        self._lanes.add(lane)
                    self._books.notify_all()
                    return batch, lane
            self._running -= 1
            is_last = self._ended and not self._running and not self._pending
        if is_last:
            self._finish()
        return None


def _lane_of(batch: Batch[Any]) -> Hashable:
    info = batch.info
    if info.partition is not None:
        return ("partition", info.partition)
    return None if info.batch_key == DEFAULT_KEY else ("key", info.batch_key)
