"""One run of a stream: from its first subscriber to its last, or to its end."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any

from reactivex import abc

from rxtweets._core.deduplication import Deduplicator
from rxtweets._core.draining import SourceSubscription
from rxtweets._core.events import LimitReached, StreamEnded, SubscriberFailed
from rxtweets._core.gates import ChunkGate, subscribing_for
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import Chunk
from rxtweets._support.workers import is_interrupt, start_thread, unexpected
from rxtweets.errors import RxTweetsError
from rxtweets.streams._base import HotStream
from rxtweets.streams._billing import Limit, Quota

__all__ = ["SharedStream", "StreamRun"]

Gate = ChunkGate[Chunk]


class StreamRun(ABC):
    """Passes the messages of a source to all subscribers, one chunk at a time; thread-safe.

    Args:
        telemetry: of the stream.
        limit: after which the run completes.
        deduplicate: drops repeated messages; ``None`` to keep them.

    Attributes:
        quota: the rest of the limit; ``None`` without a limit of messages.
    """

    counts_delivered = True
    """``False`` if the source has counted its messages as delivered."""
    reports_end = True

    def __init__(
        self,
        telemetry: Telemetry,
        limit: Limit | None = None,
        deduplicate: Deduplicator | None = None,
    ) -> None:
        self._telemetry = telemetry
        self._limit = limit or Limit()
        self._deduplicate = deduplicate
        self.quota: Quota | None = (
            None if self._limit.messages is None else Quota(self._limit.messages)
        )
        self._lock = threading.Lock()
        self._emitting = threading.Lock()
        self._gates: tuple[Gate, ...] = ()
        self._ends: deque[tuple[Gate, Exception | None]] = deque()
        self._over = threading.Event()
        self._fault: RxTweetsError | None = None

    @abstractmethod
    def _begin(self) -> None:
        """Start the source."""

    @abstractmethod
    def _stop(self) -> None:
        """Stop the source; it emits the received messages, then ends. May be called again."""

    def _discard(self) -> None:
        """Stop the source after the last subscriber has left; by default as `_stop`."""
        self._stop()

    def start(self) -> None:
        """Start the source, and the clock of a limit of time.

        Raises:
            RuntimeError: the system starts no more threads.
        """
        self._begin()
        if self._limit.seconds is not None:
            start_thread("rxtweets-limit", self._end_in_time, self._limit_died)

    def add(self, gate: Gate) -> bool:
        """Add a subscriber; ``False`` if this run has ended."""
        with self._lock:
            if not self._over.is_set():
                self._gates += (gate,)
            return not self._over.is_set()

    def remove(self, gate: Gate) -> None:
        """Remove a subscriber immediately; the last one stops the source."""
        gate.close()
        with self._lock:
            if gate not in self._gates:
                return
            self._gates = tuple(other for other in self._gates if other is not gate)
            if self._gates:
                return
            self._over.set()
        self._discard()

    def finish(self, *gates: Gate) -> None:
        """Complete these subscribers, or all if none is given.

        If there are others, these complete after the current chunk. Otherwise the source stops,
        and all complete after the messages that it has received.
        """
        with self._lock:
            others = tuple(gate for gate in self._gates if gates and gate not in gates)
            if others:
                self._ends.extend((gate, None) for gate in gates if gate in self._gates)
                self._gates = others
            else:
                self._over.set()
        if others:
            self._pass_ends()
        else:
            self._stop()

    def emit(self, messages: Chunk) -> None:
        """Count the messages and pass them to the subscribers."""
        with self._emitting, self._telemetry.working():
            gates = self._gates
            if gates:
                kept = self._admit(messages)
                if kept:
                    self._give(gates, kept)
            elif self.counts_delivered:
                self._telemetry.add(unsubscribed=len(messages))
        self._pass_ends()

    def end(self, error: Exception | None = None) -> None:
        """Complete all subscribers, or end them with the error."""
        error = self._fault or error
        with self._lock:
            self._over.set()
            gates, self._gates = self._gates, ()
            self._ends.extend((gate, error) for gate in gates)
        if gates and self.reports_end:
            known = error if isinstance(error, RxTweetsError) else None
            self._telemetry.publish(StreamEnded(known))
        self._pass_ends()

    def abort(self, error: BaseException) -> None:
        """End with the error and discard waiting messages: the source cannot run."""
        self.end(unexpected("starting the stream", error))
        self._discard()

    def _admit(self, messages: Chunk) -> Chunk:
        """Count the messages; return those that pass deduplication and the limit."""
        fresh = kept = messages
        if self._deduplicate is not None:
            fresh = kept = self._deduplicate.fresh(messages)
        quota, is_last = self.quota, False
        if quota is not None:
            kept = fresh[: quota.left]
            is_last = 0 < quota.left <= len(fresh)
            quota.left -= len(kept)
        left_out = len(fresh) - len(kept)
        self._telemetry.add(
            delivered=(len(messages) if self.counts_delivered else 0) - left_out,
            beyond_limit=left_out,
            duplicates=len(messages) - len(fresh),
        )
        if is_last:
            self._telemetry.publish(LimitReached(self._limit.messages or 0, left_out))
            self.finish()  # before the delivery, which may take long: X bills messages until then
        return kept

    def _give(self, gates: Sequence[Gate], chunk: Chunk) -> None:
        # Errors of subscribers do not come this far; errors of operators and MemoryError do.
        for gate in gates:
            try:
                gate.on_next(chunk)
            except BaseException as error:
                self._report_error(chunk, error)
                self._end_one(gate, unexpected("a subscriber", error))
                self.remove(gate)
                if is_interrupt(error):
                    raise

    def _pass_ends(self) -> None:
        """End the subscribers in `_ends`, unless a chunk is being passed: its thread does it then.

        Waiting for that thread could be a deadlock: its handler may wait for this call.
        """
        while self._ends and self._emitting.acquire(blocking=False):
            try:
                with self._telemetry.working():
                    while self._ends:
                        self._end_one(*self._ends.popleft())
            finally:
                self._emitting.release()

    def _end_one(self, gate: Gate, error: Exception | None) -> None:
        try:
            if error is None:
                gate.on_completed()
            else:
                gate.on_error(error)
        except BaseException as raised:
            self._report_error(error, raised)
            if is_interrupt(raised):
                raise

    def _report_error(self, value: object, error: BaseException) -> None:
        self._telemetry.add(subscriber_errors=1)
        self._telemetry.publish(SubscriberFailed(value, error))

    def _end_in_time(self) -> None:
        if not self._over.wait(self._limit.seconds):
            self._telemetry.publish(LimitReached(self._telemetry.stats().delivered, 0))
            self.finish()

    def _limit_died(self, error: BaseException) -> None:
        # Without its limit, the stream would cost money for ever.
        self._fault = unexpected("keeping the time of the limit", error)
        self.finish()


class SharedStream(HotStream[Any]):
    """A hot stream whose subscribers share one run at a time.

    Args:
        telemetry: of the stream.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        super().__init__(self._join, telemetry)
        self._lock = threading.Lock()
        self._run: Any = None

    @abstractmethod
    def _new_run(self, before: Any, scheduler: abc.SchedulerBase | None) -> StreamRun:
        """Make the next run.

        Args:
            before: the last run, which has ended or is ending; ``None`` if there was none.
            scheduler: given to ``subscribe``.
        """

    def stop(self) -> None:
        """Disconnect, deliver the received messages, complete the subscribers.

        Returns immediately. Does nothing without a subscriber.
        """
        with self._lock:
            run = self._run
        if run is not None:
            run.finish()

    def _join(
        self, observer: abc.ObserverBase[Chunk], scheduler: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        gate: Gate = ChunkGate(observer, self.telemetry, "stream")
        with self._lock:
            run = self._run
            is_new = run is None or not run.add(gate)
            if is_new:
                run = self._run = self._new_run(run, scheduler)
                run.add(gate)
        # Before any message: a drain that begins meanwhile ends the run in order.
        subscription = SourceSubscription(gate, run.remove, run.finish, self.telemetry)
        if is_new:
            try:
                with subscribing_for(None):
                    run.start()
            except BaseException as error:
                run.remove(gate)
                run.abort(error)  # for subscribers that joined meanwhile
                raise
        return subscription
