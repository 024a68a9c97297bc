"""Sharing: one subscription to a source for several observers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from reactivex import abc
from reactivex.disposable import SingleAssignmentDisposable

from rxtweets._core.draining import SharedSource, current_drain
from rxtweets._core.gates import ChunkGate, abandon
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets._support.workers import as_exception, is_interrupt
from rxtweets.errors import SubscriberError

__all__ = ["Sharing"]

Subscribe = Callable[[Any, abc.SchedulerBase | None], abc.DisposableBase]


class Sharing:
    """Subscribes once for several observers, and again for one that comes after the end.

    Args:
        subscribe: to the source.
        telemetry: of the source.
    """

    def __init__(self, subscribe: Subscribe, telemetry: Telemetry) -> None:
        self._subscribe = subscribe
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._run: _SharedRun | None = None

    def join(
        self, observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        """Subscribe the observer, together with the others."""
        drain = current_drain()
        if drain is not None and drain.has_ended:
            return drain.refuse(observer)
        gate: ChunkGate[Any] = ChunkGate(observer)
        with self._lock:
            run = self._run
            is_new = run is None or not run.add(gate)
            if run is None or is_new:
                run = self._run = _SharedRun(self._telemetry)
                run.add(gate)
        subscription = run.subscription(gate)
        if is_new:
            try:
                run.connect(self._subscribe, scheduler)
            except BaseException as error:
                run.on_error(as_exception(error))  # else later observers would join it
                if is_interrupt(error):
                    raise
        return subscription


class _SharedRun(SharedSource, abc.ObserverBase[Any]):
    # One subscription, from the first observer to the last one, or to the end of the source.

    def __init__(self, telemetry: Telemetry) -> None:
        self._upstream = SingleAssignmentDisposable()
        super().__init__(telemetry, self._upstream.dispose)

    def connect(self, subscribe: Subscribe, scheduler: abc.SchedulerBase | None) -> None:
        self._upstream.disposable = self.drain.capture(lambda: subscribe(self, scheduler))

    def demand(self, most: int) -> int:
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
        super().leave(gate)
        with self._lock:
            self.has_ended = has_ended = self.has_ended or not self.gates
        if has_ended:
            self._upstream.dispose()
