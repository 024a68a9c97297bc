"""The sources of a pipeline as one stream, and `Restart`, the policy for sources that fail."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import tenacity
from reactivex import Observable, abc
from reactivex.disposable import Disposable, SerialDisposable
from reactivex.scheduler import CurrentThreadScheduler, VirtualTimeScheduler

from rxtweets._core.draining import Drain, Drained
from rxtweets._core.events import DrainUnavailable, Paused, Resumed, SourceFailed, SourceRestarting
from rxtweets._core.gates import ChunkGate, subscribing_for
from rxtweets._core.observable import MessageStream, source_name, subscribe_in_chunks
from rxtweets._core.rate_limit import RateLimit
from rxtweets._core.retry import call_state
from rxtweets._core.stats import StageStats
from rxtweets._core.telemetry import Telemetry
from rxtweets._core.valve import Valve
from rxtweets._messages.message import Chunk, Message
from rxtweets._support.rate_meter import Throughput
from rxtweets._support.timers import scheduler_seconds
from rxtweets._support.validation import seconds
from rxtweets._support.workers import as_exception, start_thread
from rxtweets.errors import ConfigurationError, RxTweetsError, SourceError
from rxtweets.operators._gate import PermitGate
from rxtweets.streams._base import HotStream

__all__ = ["Intake", "Restart"]

SUBSCRIBE_TIMEOUT = 1.0
"""Seconds. `Pipeline.start` waits for the subscription to each source, so that messages of a hot
source are not missed. A source that blocks in its subscription continues in the background."""

TenacityStrategy = Callable[[tenacity.RetryCallState], Any]


class Restart:
    """A policy of `tenacity` for sources of a pipeline that fail.

    The default is Broadway's: three restarts in five seconds. ``attempt_number`` is the number of
    failures in the last ``within`` seconds, so ``stop_after_attempt(4)`` allows three restarts.

    ::

        Pipeline(source, restart=Restart(wait=tenacity.wait_exponential(max=30)), ...)

    Args:
        stop: decides when to give up; by default at the fourth failure.
        wait: gives the seconds before the source is subscribed to again; 0.1 by default.
        retry: decides which errors are retried; by default all but those of rxtweets. The streams
            of X reconnect, following X's backoff guidelines, before they fail.
        within: seconds in which failures are counted.

    Raises:
        ConfigurationError: an argument is invalid.
    """

    def __init__(
        self,
        *,
        stop: TenacityStrategy | None = None,
        wait: TenacityStrategy | None = None,
        retry: TenacityStrategy | None = None,
        within: float | timedelta = 5.0,
    ) -> None:
        for name, strategy in (("stop", stop), ("wait", wait), ("retry", retry)):
            if strategy is not None and not callable(strategy):
                raise ConfigurationError(f"{name}={strategy!r}: give a strategy of tenacity")
        self.stop: TenacityStrategy = stop or tenacity.stop_after_attempt(4)
        self.wait: TenacityStrategy = wait or tenacity.wait_fixed(0.1)
        self.retry: TenacityStrategy = retry or tenacity.retry_if_not_exception_type(RxTweetsError)
        self.within: float = seconds("within", within)

    def __repr__(self) -> str:
        return f"Restart(within={self.within:g})"


class Intake:
    """Several sources as one stream; each is subscribed to, restarted and ended independently.

    Args:
        sources: of messages.
        restart: the policy for sources that fail; ``None`` never restarts.
        limit: of the messages that come in, over all sources.
        telemetry: counts and reports.

    Raises:
        ConfigurationError: an argument is invalid.
    """

    def __init__(
        self,
        sources: Sequence[Observable[Message[Any]]],
        restart: Restart | None,
        limit: RateLimit | None,
        telemetry: Telemetry,
    ) -> None:
        if limit is not None and not isinstance(limit, RateLimit):
            raise ConfigurationError(f"rate_limit={limit!r}: give a rxtweets.RateLimit")
        if restart is not None and not isinstance(restart, Restart):
            raise ConfigurationError(f"restart={restart!r}: give a rxtweets.Restart, or None")
        self._sources = sources
        self._running: tuple[_RunningSource, ...] = ()
        self._lock = threading.Lock()
        self._open = 0
        self._error: Exception | None = None
        self._is_shut = False
        self.restart = restart
        self.limit = limit
        self.telemetry = telemetry
        self.valve = Valve()
        self.gate: ChunkGate[Chunk] | None = None
        self.stream: MessageStream[Any] = MessageStream(self._subscribe, telemetry)

    def shut(self) -> None:
        """Drain the sources: messages that they have received still come in."""
        self._is_shut = True
        for source in self._running:
            source.shut()

    def pause(self) -> None:
        """Take no messages until `resume`."""
        if self.valve.pause():
            self.telemetry.publish(Paused())

    def resume(self) -> None:
        """Take messages again."""
        if self.valve.resume():
            self.telemetry.publish(Resumed())

    def push(self, messages: Chunk) -> bool:
        """Bring messages in beside the sources; return ``False`` if nothing takes them."""
        return self.gate is not None and not self._is_shut and self.gate.pass_on(messages)

    def source_ended(self, error: Exception | None) -> None:
        """Note the end of a source; the first error drains the others, the last end is the end."""
        with self._lock:
            self._open -= 1
            is_first_error = error is not None and self._error is None
            self._error = self._error or error
            has_ended = not self._open
        if is_first_error and not has_ended:
            self.shut()
        if not has_ended or self.gate is None:
            return
        if self._error is None:
            self.gate.on_completed()
        else:
            self.gate.on_error(self._error)

    def _subscribe(
        self, observer: abc.ObserverBase[Chunk], scheduler: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        gate = self.gate = ChunkGate(observer, self.telemetry)
        self._open = len(self._sources)
        self._running = tuple(
            _RunningSource(self, gate, number, source, scheduler)
            for number, source in enumerate(self._sources)
        )
        for source in self._running:
            source.start()
        for source in self._running:
            source.wait_for_subscription()
        if self._is_shut:
            self.shut()
        return Disposable(self._close)

    def _close(self) -> None:
        for source in self._running:
            source.close()
        if self.gate is not None:
            self.gate.close()


class _RunningSource(abc.ObserverBase[Chunk]):
    """One source of an intake, and the observer of its messages that may pass."""

    def __init__(
        self,
        intake: Intake,
        pipeline: ChunkGate[Chunk],
        number: int,
        source: Observable[Message[Any]],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        self._intake = intake
        self._pipeline = pipeline
        self._number = number
        self._source = source
        self._scheduler = scheduler
        self._virtual = scheduler if isinstance(scheduler, VirtualTimeScheduler) else None
        self._telemetry = intake.telemetry
        self._lock = threading.Lock()
        self._upstream = SerialDisposable()
        self._entry: ChunkGate[Chunk] | None = None  # of the current subscription
        self._drain = Drain()
        self._gates: list[PermitGate] = []
        self._subscribed = threading.Event()
        self._stopping = threading.Event()
        self._has_ended = False
        self._failures: deque[float] = deque()
        self._meter = Throughput()
        self._forget_stage = self._telemetry.stage(self._stage)

    # The observer of the messages.

    def demand(self, most: int) -> int:
        return self._pipeline.demand(most)

    def on_next(self, chunk: Chunk) -> None:
        self._meter.add(len(chunk))
        self._pipeline.on_next(chunk)

    def on_error(self, error: Exception) -> None:
        """Subscribe to the source again, or give it up."""
        if isinstance(error, Drained):
            self._end(None)
            return
        with self._lock:
            self._entry = None
        try:
            attempt, delay = self._restart_after(error)
        except BaseException as raised:  # noqa: BLE001 - a user's strategy raises anything
            raised.__context__ = error
            self._give_up(raised)
            return
        if delay is None or self._stopping.is_set():
            self._give_up(error, attempt)
            return
        self._telemetry.add(restarts=1)
        self._telemetry.publish(SourceRestarting(self._number, attempt, delay, error))
        if self._virtual is not None:
            self._virtual.schedule_relative(delay, lambda *_: self._start_again())
            return

        def wait_and_start() -> None:
            self._stopping.wait(delay)
            self._start_again()

        try:
            start_thread("rxtweets-restart", wait_and_start, self._give_up)
        except RuntimeError as refused:  # the system starts no more threads
            self._give_up(refused)

    def on_completed(self) -> None:
        self._end(None)

    # The subscription to the source.

    def start(self) -> None:
        """Subscribe, on a separate thread unless time is virtual."""
        self._drain = drain = Drain(self._cut)
        if self._virtual is not None:
            with subscribing_for(drain):
                self._subscribe()
            return

        def work() -> None:
            # Inside the trampoline, RxPY's own sources emit after subscribe() has returned. So
            # their subscription can be disposed of while they emit.
            with subscribing_for(drain):
                CurrentThreadScheduler.singleton().schedule(lambda *_: self._subscribe())
            if self._entry is not None and drain.misses():
                self._telemetry.publish(DrainUnavailable(self._number, source_name(self._source)))

        start_thread("rxtweets-source", work, self._thread_died)

    def wait_for_subscription(self) -> None:
        if self._virtual is None:
            self._subscribed.wait(SUBSCRIBE_TIMEOUT)

    def shut(self) -> None:
        """Drain the source."""
        self._stopping.set()
        for gate in self._gates:
            gate.lift()
        with self._lock:
            entry, drain = self._entry, self._drain
        if entry is not None:
            if drain.misses() or not drain.finish():
                self._cut()
        elif self._subscribed.is_set():  # it waits for its restart
            self._end(None)

    def close(self) -> None:
        """End the source immediately."""
        self._stopping.set()
        for gate in self._gates:
            gate.dispose()
        self._upstream.dispose()
        self._forget_stage()

    def _subscribe(self) -> None:
        entry = self._new_entry()
        with self._lock:
            self._entry = entry
        try:
            upstream = subscribe_in_chunks(self._source, entry, self._scheduler)
        except BaseException as error:  # noqa: BLE001 - a user's source raises anything
            self._subscribed.set()
            entry.on_error(as_exception(error))
            return
        with self._lock:
            is_current = self._entry is entry
        if is_current:
            self._upstream.disposable = upstream
        else:  # it has failed, and its restart may have subscribed already
            upstream.dispose()
        self._subscribed.set()
        if self._stopping.is_set():
            self.shut()

    def _new_entry(self) -> ChunkGate[Chunk]:
        """Return the observer of the source: messages pass the pause, then the rate limit."""
        intake, telemetry = self._intake, self._telemetry
        first: abc.ObserverBase[Chunk] = self
        self._gates = []
        if intake.limit is not None:
            first = PermitGate(first, intake.limit, telemetry, "rate limit", self._virtual)
            self._gates.append(first)
        first = PermitGate(first, intake.valve, telemetry, "pause", self._virtual)
        self._gates.append(first)
        return ChunkGate(first, telemetry)

    def _cut(self) -> None:
        """End a source that cannot be drained."""
        with self._lock:
            entry = self._entry
        self._upstream.dispose()
        if entry is not None:
            entry.on_completed()

    def _start_again(self) -> None:
        if not self._stopping.is_set():
            self.start()

    def _thread_died(self, error: BaseException) -> None:
        with self._lock:
            entry = self._entry
        if entry is None:
            self._give_up(error)
        else:
            entry.on_error(as_exception(error))

    def _restart_after(self, error: Exception) -> tuple[int, float | None]:
        """Return the number of failures, and the seconds to wait; ``None`` gives up."""
        policy = self._intake.restart
        if policy is None:
            return 1, None
        now = time.monotonic() if self._virtual is None else scheduler_seconds(self._virtual)
        failures = self._failures
        failures.append(now)
        while failures[0] < now - policy.within:
            failures.popleft()
        state = call_state(error, len(failures), failures[0], now)
        if not policy.retry(state):
            return len(failures), None
        delay = state.upcoming_sleep = float(policy.wait(state))
        return len(failures), None if policy.stop(state) else delay

    def _give_up(self, raised: BaseException, attempt: int = 1) -> None:
        error = as_exception(raised)
        if not isinstance(error, RxTweetsError):
            final = SourceError(
                f"source {self._number} ({source_name(self._source)}) failed with "
                f"{type(error).__name__}, failure {attempt} in a row, and is not restarted: "
                f"{error}",
                self._number,
            )
            final.__cause__ = error
            error = final
        self._telemetry.publish(SourceFailed(self._number, error))
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        with self._lock:
            if self._has_ended:
                return
            self._has_ended = True
        self._stopping.set()
        self._forget_stage()
        self._intake.source_ended(error)

    def _stage(self) -> StageStats:
        source = self._source
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
            queued=source.stats().queued if isinstance(source, HotStream) else 0,
            rate=self._meter.rate(),
        )
