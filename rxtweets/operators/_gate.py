"""The gate of `pausable` and `rate_limit`: messages pass, in order, as a permit allows."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import (
    CompositeDisposable,
    Disposable,
    SerialDisposable,
    SingleAssignmentDisposable,
)
from reactivex.scheduler import VirtualTimeScheduler

from rxtweets._core.draining import current_drain
from rxtweets._core.gates import abandon, demand_of
from rxtweets._core.observable import MessageStream, subscribe_in_chunks, telemetry_of
from rxtweets._core.telemetry import Telemetry
from rxtweets._core.valve import Permit
from rxtweets._messages.message import Chunk, Message
from rxtweets._support.timers import scheduler_seconds

__all__ = ["PermitGate", "gated"]

T = TypeVar("T")


def gated(
    permit: Permit, name: str, scheduler: abc.SchedulerBase | None = None
) -> Callable[[Observable[Message[T]]], MessageStream[T]]:
    """Return an operator that holds messages back until the permit lets them pass."""

    def operator(source: Observable[Message[T]]) -> MessageStream[T]:
        telemetry = telemetry_of(source)

        def subscribe(
            observer: abc.ObserverBase[Chunk], given: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            virtual = given if isinstance(given, VirtualTimeScheduler) else None
            gate = PermitGate(observer, permit, telemetry, name, scheduler or virtual)
            if (drain := current_drain()) is not None:
                drain.lift(gate.lift)
            gate.source.disposable = subscribe_in_chunks(source, gate, given)
            return gate

        return MessageStream(subscribe, telemetry)

    return operator


class PermitGate(abc.ObserverBase[Chunk], abc.DisposableBase):
    """Holds messages back until the permit lets them pass.

    The thread of the source blocks meanwhile. A scheduler must not be blocked, so messages queue
    there.

    Args:
        observer: of the messages that pass.
        permit: says how many messages may pass.
        telemetry: counts and reports.
        name: of the operator, for `events.Abandoned`.
        scheduler: keeps the time; ``None`` blocks the thread of the source.

    Attributes:
        source: the subscription to the source.
    """

    def __init__(
        self,
        observer: abc.ObserverBase[Chunk],
        permit: Permit,
        telemetry: Telemetry,
        name: str,
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        self._observer = observer
        self._permit = permit
        self._telemetry = telemetry
        self._name = name
        self._scheduler = scheduler
        self._is_lifted = False
        self._is_disposed = False
        self.source = SingleAssignmentDisposable()
        # The queue, on a scheduler only.
        self._lock = threading.RLock()
        self._queue: deque[Message[Any]] = deque()
        self._end: Callable[[], None] | None = None
        self._timer = SerialDisposable()
        self._waking = CompositeDisposable(self._timer)
        if scheduler is not None:
            self._waking.add(Disposable(permit.listen(self._emit_queued)))

    def demand(self, most: int) -> int:
        """Block until messages are wanted and may pass; return how many."""
        if self._scheduler is not None:
            room, again_at = self._permit.room(scheduler_seconds(self._scheduler))
            # A permit that knows no time for the next message is closed: messages are not wanted.
            is_closed = room == 0 and again_at is None
            return 0 if is_closed or self._is_free() else demand_of(self._observer, most)
        while True:
            self._permit.wait(self._is_free)
            wanted = 0 if self._is_free() else demand_of(self._observer, most)
            room, _ = self._permit.room(monotonic())
            if self._is_free():
                return 0  # a drain takes nothing more
            if room != 0:  # else it was closed while the observer was full
                return wanted if room is None else min(wanted, room)

    def on_next(self, chunk: Chunk) -> None:
        if self._scheduler is not None:
            with self._lock:
                self._queue.extend(chunk)
            self._emit_queued()
            return
        while chunk and not self._is_disposed:
            taken = len(chunk) if self._is_lifted else self._permit.take(len(chunk), monotonic())[0]
            if taken:
                self._observer.on_next(chunk if taken == len(chunk) else chunk[:taken])
                chunk = chunk[taken:]
            else:
                self._permit.wait(self._is_free)
        self._abandon(chunk)

    def on_error(self, error: Exception) -> None:
        self._end_with(lambda: self._observer.on_error(error))

    def on_completed(self) -> None:
        self._end_with(self._observer.on_completed)

    def lift(self) -> None:
        """Let all messages pass, and request no more: a drain must not wait."""
        self._is_lifted = True
        self._permit.wake()

    def dispose(self) -> None:
        """Stop immediately; messages that wait are counted as abandoned."""
        self._is_disposed = True
        self.source.dispose()
        self._waking.dispose()
        self._permit.wake()
        with self._lock:
            queued = list(self._queue)
            self._queue.clear()
        self._abandon(queued)

    def _is_free(self) -> bool:
        return self._is_lifted or self._is_disposed

    def _end_with(self, end: Callable[[], None]) -> None:
        if self._scheduler is None:
            end()
        else:
            self._end = end
            self._emit_queued()

    def _emit_queued(self, *_: object) -> None:
        assert self._scheduler is not None  # noqa: S101 - without one there is no queue
        with self._lock:
            while self._queue and not self._is_disposed:
                taken, again_at = len(self._queue), None
                if not self._is_lifted:
                    now = scheduler_seconds(self._scheduler)
                    taken, again_at = self._permit.take(taken, now)
                    if not taken:
                        if again_at is not None:
                            self._timer.disposable = self._scheduler.schedule_relative(
                                max(0.0, again_at - now), self._emit_queued
                            )
                        return
                self._observer.on_next([self._queue.popleft() for _ in range(taken)])
            end, self._end = self._end, None
            if end is not None and not self._is_disposed:
                self._waking.dispose()
                end()

    def _abandon(self, messages: Chunk) -> None:
        if messages:
            abandon(messages, self._telemetry, self._name)
