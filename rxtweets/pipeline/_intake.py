"""The sources of a pipeline as one stream: started, paused, restarted and ended apart."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from reactivex import Observable, abc
from reactivex.disposable import Disposable, SerialDisposable
from reactivex.scheduler import CurrentThreadScheduler, VirtualTimeScheduler

from rxtweets._core.events import DrainUnavailable, Paused, Resumed, SourceFailed, SourceRestarting
from rxtweets._core.observable import (
    ChunkGate,
    Drain,
    MessageStream,
    name_of,
    subscribe_in_chunks,
    subscribing_for,
)
from rxtweets._core.rate_limit import RateLimit
from rxtweets._core.subscriber import as_exception
from rxtweets._core.telemetry import StageStats, Telemetry
from rxtweets._core.valve import Valve
from rxtweets._messages.message import Message
from rxtweets._support.rate_meter import Throughput
from rxtweets._support.workers import start_thread
from rxtweets.errors import RxTweetsError, SourceError
from rxtweets.operators._pausable import Pausing
from rxtweets.operators._rate_limit import Limiting, limiting
from rxtweets.pipeline._restart import Restart, RestartCount

__all__ = ["Intake"]

SUBSCRIBE_TIMEOUT = 1.0
"""Seconds that `Pipeline.start` waits for a source to be subscribed, so that nothing that a hot
source gives right after is missed; a source that blocks in its subscription goes on behind."""

Chunk = list[Message[Any]]


class Intake:
    """Several sources, merged; each is subscribed on a thread of its own.

    Args:
        sources: of messages.
        restart: what to do when one fails.
        limit: how many messages may come in, over all of them.
        telemetry: where to count and report.
    """

    def __init__(
        self,
        sources: Sequence[Observable[Message[Any]]],
        restart: Restart | None,
        limit: RateLimit | None,
        telemetry: Telemetry,
    ) -> None:
        self._sources = sources
        self._restart = restart
        self._limit = limit
        self._telemetry = telemetry
        self._valve = Valve()
        self._inlets: tuple[_Inlet, ...] = ()
        self._gate: ChunkGate[Chunk] | None = None
        self._lock = threading.Lock()
        self._open = 0
        self._error: Exception | None = None
        self._is_shut = False
        self._is_closed = False
        self.stream: MessageStream[Any] = MessageStream(self._subscribe, telemetry)

    def shut(self) -> None:
        """End the sources in order: what they have received is still taken."""
        self._is_shut = True
        for inlet in self._inlets:
            inlet.shut()

    def pause(self) -> None:
        """Take nothing for now."""
        if self._valve.pause():
            self._telemetry.publish(Paused())

    def resume(self) -> None:
        """Take again."""
        if self._valve.resume():
            self._telemetry.publish(Resumed())

    @property
    def is_paused(self) -> bool:
        """Whether nothing is taken for now."""
        return self._valve.is_paused

    def push(self, messages: Chunk) -> bool:
        """Bring messages in beside the sources; ``False`` if there is nobody to take them."""
        if self._gate is None or self._is_shut or self._is_closed:
            return False
        return self._gate.pass_on(messages)

    def _subscribe(
        self, observer: abc.ObserverBase[Chunk], scheduler: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        self._gate = ChunkGate(observer, self._telemetry)
        self._open = len(self._sources)
        self._inlets = tuple(
            _Inlet(
                number,
                source,
                self._gate,
                self._valve,
                RestartCount(self._restart, *_clock_of(scheduler)),
                self._limit,
                self._telemetry,
                scheduler,
                self._ended,
            )
            for number, source in enumerate(self._sources)
        )
        for inlet in self._inlets:
            inlet.start()
        for inlet in self._inlets:
            inlet.wait_for_subscription()
        if self._is_shut:
            self.shut()
        return Disposable(self._close)

    def _close(self) -> None:
        self._is_closed = True
        for inlet in self._inlets:
            inlet.close()

    def _ended(self, error: Exception | None) -> None:
        """One source is over; the pipeline's input is when all are, or when one has failed."""
        with self._lock:
            self._open -= 1
            is_first_error = error is not None and self._error is None
            self._error = self._error or error
            is_over = not self._open
        if is_first_error and not is_over:
            self.shut()
        gate = self._gate
        if not is_over or gate is None:
            return
        if self._error is None:
            gate.on_completed()
        else:
            gate.on_error(self._error)


class _Inlet:
    """One source, subscribed to once or several times in turn."""

    def __init__(
        self,
        number: int,
        source: Observable[Message[Any]],
        observer: ChunkGate[Chunk],
        valve: Valve,
        count: RestartCount,
        limit: RateLimit | None,
        telemetry: Telemetry,
        scheduler: abc.SchedulerBase | None,
        ended: Callable[[Exception | None], None],
    ) -> None:
        self._number = number
        self._source = source
        self._observer = observer
        self._valve = valve
        self._count = count
        self._limit = limit
        self._telemetry = telemetry
        self._scheduler = scheduler
        self._ended = ended
        self._is_virtual = isinstance(scheduler, VirtualTimeScheduler)
        self._lock = threading.Lock()
        self._upstream = SerialDisposable()
        self._gate: ChunkGate[Chunk] | None = None
        self._drain = Drain()
        self._limiting: Limiting | None = None
        self._pausing: Pausing | None = None
        self._subscribed = threading.Event()
        self._stopping = threading.Event()
        self._is_over = False
        self._meter = Throughput()
        self._forget = telemetry.stage(self._stage)

    def start(self) -> None:
        """Subscribe, on a thread of its own."""
        self._drain = drain = Drain(self._cut)
        if self._is_virtual:
            with subscribing_for(drain):
                self._subscribe()
            return

        def work() -> None:
            # Inside the trampoline, RxPY's own sources emit after subscribe() has returned, so
            # that there is something to dispose while they do.
            with subscribing_for(drain):
                CurrentThreadScheduler.singleton().schedule(lambda *_: self._subscribe())
            if self._gate is not None and drain.misses():
                name = name_of(self._source)
                self._telemetry.publish(DrainUnavailable(self._number, name))

        start_thread("rxtweets-source", work, self._died)

    def wait_for_subscription(self) -> None:
        """Until the source has been subscribed to, if that does not take long."""
        if not self._is_virtual:
            self._subscribed.wait(SUBSCRIBE_TIMEOUT)

    def shut(self) -> None:
        """End the source; a hot stream of ours delivers first what it has received."""
        self._stopping.set()
        for holding in (self._pausing, self._limiting):
            if holding is not None:
                holding.lift()
        with self._lock:
            gate, drain = self._gate, self._drain
        if gate is not None:
            if drain.misses() or not drain.finish():
                self._cut()
        elif self._subscribed.is_set():  # it waits for its restart
            self._over(None)

    def close(self) -> None:
        """End the source at once."""
        self._stopping.set()
        for holding in (self._pausing, self._limiting):
            if holding is not None:
                holding.dispose()
        self._upstream.dispose()
        self._forget()

    def _subscribe(self) -> None:
        tail = _Tail(self, self._observer, self._meter)
        first: abc.ObserverBase[Chunk] = tail
        if self._limit is not None:
            scheduler = self._scheduler if self._is_virtual else None
            first = self._limiting = limiting(tail, self._limit, self._telemetry, scheduler)
        may_wait = not self._is_virtual
        self._pausing = pausing = Pausing(first, self._valve, self._telemetry, may_wait=may_wait)
        gate = ChunkGate(pausing, self._telemetry)
        with self._lock:
            self._gate = gate
        try:
            upstream = subscribe_in_chunks(self._source, gate, self._scheduler)
        except BaseException as error:  # noqa: BLE001 - whatever a source of the user raises
            self._subscribed.set()
            gate.on_error(as_exception(error))
            return
        with self._lock:
            is_current = self._gate is gate
        if is_current:
            self._upstream.disposable = upstream
        else:  # it has failed already, and another attempt may be under way
            upstream.dispose()
        self._subscribed.set()
        if self._stopping.is_set():
            self.shut()

    def _cut(self) -> None:
        """End the source here, where it cannot be ended in order."""
        with self._lock:
            gate = self._gate
        self._upstream.dispose()
        if gate is not None:
            gate.on_completed()

    def completed(self) -> None:
        """The source is complete."""
        self._over(None)

    def failed(self, error: Exception) -> None:
        """The source has failed: subscribe to it again, or give it up."""
        with self._lock:
            self._gate = None
        try:
            attempt, delay = self._count.failed(error)
        except BaseException as raised:  # noqa: BLE001 - whatever a strategy of the user raises
            raised.__context__ = error
            self._give_up(raised)
            return
        if delay is None or self._stopping.is_set():
            self._give_up(error, attempt)
            return
        self._telemetry.add(restarts=1)
        self._telemetry.publish(SourceRestarting(self._number, attempt, delay, error))
        if self._is_virtual and self._scheduler is not None:
            self._scheduler.schedule_relative(delay, lambda *_: self._again())
        else:
            try:
                start_thread("rxtweets-restart", lambda: self._wait_and_start(delay), self._give_up)
            except RuntimeError as refused:  # no more threads can be started
                self._give_up(refused)

    def _wait_and_start(self, delay: float) -> None:
        self._stopping.wait(delay)
        self._again()

    def _died(self, error: BaseException) -> None:
        """The source raised on the thread on which it was subscribed."""
        with self._lock:
            gate = self._gate
        if gate is None:
            self._give_up(error)
        else:
            gate.on_error(as_exception(error))

    def _give_up(self, error: BaseException, attempt: int = 1) -> None:
        final = self._final(as_exception(error), attempt)
        self._telemetry.publish(SourceFailed(self._number, final))
        self._over(final)

    def _again(self) -> None:
        if not self._stopping.is_set():
            self.start()

    def _over(self, error: Exception | None) -> None:
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
        self._stopping.set()
        self._forget()
        self._ended(error)

    def _final(self, error: Exception, attempt: int) -> Exception:
        """Errors of ours say enough; others become one of ours."""
        if isinstance(error, RxTweetsError):
            return error
        final = SourceError(
            f"source {self._number} ({name_of(self._source)}) failed with "
            f"{type(error).__name__}, failure {attempt} in a row, and is not restarted: {error}",
            self._number,
        )
        final.__cause__ = error
        return final

    def _stage(self) -> StageStats:
        return StageStats(
            str(self._number),
            concurrency=1,
            running=0,
            in_flight=0,
            busy_seconds=0.0,
            capacity_seconds=0.0,
            kind="source",
            received=self._meter.total,
            done=self._meter.total,
            rate=self._meter.rate(),
        )


class _Tail(abc.ObserverBase[Chunk]):
    """The end of an inlet: messages go into the pipeline, the end to the inlet."""

    def __init__(self, inlet: _Inlet, observer: ChunkGate[Chunk], meter: Throughput) -> None:
        self._inlet = inlet
        self._observer = observer
        self._meter = meter

    def demand(self, most: int) -> int:
        return self._observer.demand(most)

    def on_next(self, chunk: Chunk) -> None:
        self._meter.add(len(chunk))
        self._observer.on_next(chunk)

    def on_error(self, error: Exception) -> None:
        self._inlet.failed(error)

    def on_completed(self) -> None:
        self._inlet.completed()


def _clock_of(scheduler: abc.SchedulerBase | None) -> tuple[Callable[[], float], ...]:
    if isinstance(scheduler, VirtualTimeScheduler):
        virtual = scheduler
        return (lambda: float(virtual.clock),)
    return ()
