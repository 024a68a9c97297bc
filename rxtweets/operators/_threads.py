"""Handler calls on threads: one thread while handlers are quick, many while they block."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from rxtweets._core.concurrency import Concurrency
from rxtweets._core.events import WorkerReplaced
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import Message
from rxtweets._support.timers import ThreadTimers
from rxtweets._support.workers import unexpected
from rxtweets.errors import HandlerTimeout
from rxtweets.operators._calls import Call, SpanStart, Tracing, Waiting, call_of, worker_lost
from rxtweets.operators._processor import CallFlow, Processor

__all__ = ["Pace", "RepeatedCheck", "ThreadRunner"]

RUN = 128
"""Messages that one thread handles before it emits their results."""

HELD = 0.005
"""Seconds after which it emits the results it has."""

LOOK, LOOKS = 0.01, 3
"""Seconds between two looks at the one thread, and looks in a row without progress after which it
counts as blocked. A thread that waits for the interpreter makes no progress for 5 ms or more."""


class Pace:
    """Decides whether handlers are quick: then one thread is faster than many.

    Waking a thread for a call shorter than `QUICK` costs more than the call. The average covers
    the last hundred calls.
    """

    QUICK = 0.000_2
    """Seconds of a quick call, on average."""
    SLOW = 0.001
    """The average at the start."""
    LONGEST = 0.01
    """Seconds that one run adds at most, as a thread may wait for the interpreter or a core."""
    FIRST_HOLD, LAST_HOLD = 0.1, 30.0
    """Seconds before one thread is tried again, doubled each time that handlers block then."""

    def __init__(self) -> None:
        self.is_quick = False
        self._average = self.SLOW
        self._since = 0.0
        self._hold = self.FIRST_HOLD
        self._not_before = 0.0

    def note(self, calls: int, seconds: float) -> None:
        """Add a run of one thread to the average."""
        weight = min(1.0, calls / 100)
        self._average += weight * (min(seconds, self.LONGEST) / calls - self._average)
        if self.is_quick and self._average > self.QUICK:
            self.leave()
        elif not self.is_quick and self._average < self.QUICK:
            self._since = perf_counter()
            self.is_quick = self._since >= self._not_before

    def leave(self) -> None:
        """Use many threads again."""
        now = perf_counter()
        lasted = now - self._since > self.LAST_HOLD
        self._hold = self.FIRST_HOLD if lasted else min(self.LAST_HOLD, 2 * self._hold)
        self._not_before = now + self._hold
        self._average = self.SLOW
        self.is_quick = False


class RepeatedCheck:
    """Runs a check on the timers' thread, again and again while it returns a delay.

    Args:
        timers: call the check.
        check: returns the seconds until the next check, or ``None`` for no more.
    """

    def __init__(self, timers: ThreadTimers, check: Callable[[], float | None]) -> None:
        self._timers = timers
        self._check = check
        self._lock = threading.Lock()
        self._is_armed = False

    def arm(self, delay: float) -> None:
        """Check after a delay in seconds, unless a check is due already."""
        if self._is_armed:
            return
        with self._lock:
            if not self._is_armed:
                self._timers.after(delay, self._run)
                self._is_armed = True

    def _run(self) -> None:
        self._is_armed = False  # before the check: work that comes later arms it again
        delay = self._check()
        if delay is not None:
            self.arm(delay)


class _Worker:
    """One thread at work.

    Attributes:
        began: monotonic start of its run, while it is in one.
        busy: seconds of its earlier runs.
        call: its latest call; ``None`` if the message has failed because of the time limit.
        since: monotonic start of that call, if there is a time limit.
        is_limited: the handler runs, and its time limit applies.
        is_lost: its call took too long, and another thread has taken its place.
        death: the error that ends it, once its messages are accounted for.
    """

    __slots__ = ("began", "busy", "call", "death", "is_limited", "is_lost", "since")

    def __init__(self) -> None:
        self.began: float | None = None
        self.busy = 0.0
        self.call: Waiting | None = None
        self.since = 0.0
        self.is_limited = False
        self.is_lost = False
        self.death: BaseException | None = None

    def end_run(self) -> float:
        """Add the current run to the busy time; return its seconds."""
        if self.began is None:
            return 0.0
        seconds = perf_counter() - self.began
        self.busy += seconds
        self.began = None
        return seconds


class ThreadRunner:
    """Runs calls on up to ``concurrency`` threads.

    With a time limit, a call that takes longer fails its message. A thread cannot be stopped, so
    another thread takes its place, and its result is discarded. At most ``concurrency`` threads
    are replaced so; beyond that, a place stays taken until its call returns.

    Args:
        flow: handles calls and takes their results.
        processor: emits the results; has the threads.
        concurrency: concurrent calls at most.
        telemetry: counters and event bus.
        time_limit: seconds for a call.
    """

    def __init__(
        self,
        flow: CallFlow,
        processor: Processor,
        concurrency: Concurrency,
        telemetry: Telemetry,
        time_limit: float | None = None,
    ) -> None:
        self._flow = flow
        self._processor = processor
        self._concurrency = concurrency
        self._limit = concurrency.limit
        self._telemetry = telemetry
        self._bus = telemetry.bus
        self._time_limit = time_limit
        self._handle: Callable[[Call], Message[Any]] = flow.handle
        self._tracing = Tracing(telemetry)
        self._pace = Pace()
        timers = self._timers = ThreadTimers("rxtweets-watch", self._watch_died)
        self._stuck_check = RepeatedCheck(timers, self._check_stuck)
        self._limit_check = RepeatedCheck(timers, self._check_limits)

        self._lock = threading.Lock()
        self._pending: deque[Waiting] = deque()
        self._active: set[_Worker] = set()
        self._workers = 0
        self._lost = 0
        self._runs = 0
        self._progress: tuple[int, set[Waiting | None]] = 0, set()
        self._looks = 0
        self._busy = 0.0
        self._stopped = False
        self._forget_gauge = telemetry.gauge("threads_lost", lambda: self._lost)

    def submit(self, calls: Sequence[Waiting]) -> None:
        """Queue calls; return immediately."""
        self._pending.extend(calls)
        self._wake()

    def resize(self) -> None:
        """Use the current concurrency limit; the first new thread wakes the others."""
        self._limit = self._concurrency.limit
        self._wake()

    def stop(self) -> None:
        """Start no more calls."""
        self._stopped = True
        self._pending.clear()
        self._timers.stop()
        self._forget_gauge()

    def load(self) -> tuple[int, float]:
        """Return the number of running calls, and the seconds of all calls so far."""
        now = perf_counter()
        with self._lock:
            began = [worker.began for worker in self._active if worker.began is not None]
            busy = self._busy + sum(worker.busy for worker in self._active)
        return len(began), busy + sum(now - start for start in began)

    # Threads.

    def _most_workers(self) -> int:
        return 1 if self._pace.is_quick else self._limit

    def _wake(self) -> None:
        """Start a worker if a call waits and the limit allows it."""
        if self._pending:
            self._watch()  # even if no worker starts: the one worker may be blocked
        with self._lock:
            if self._workers >= self._most_workers() or not self._pending:
                return
            self._workers += 1
        try:
            self._processor.spawn(self._work)
        except RuntimeError:  # the system starts no more threads
            with self._lock:
                is_only_one = self._workers == 1
                self._workers -= not is_only_one
            if is_only_one:
                self._work()

    def _work(self) -> None:
        worker = _Worker()
        with self._lock:
            self._active.add(worker)
        try:
            while not self._may_leave(worker):
                self._handle_run(worker)
        except BaseException as error:
            with self._lock:
                self._remove(worker)
            self._wake()
            if error is not worker.death:
                raise  # messages may be lost with it
            if isinstance(error, KeyboardInterrupt) and not self._processor.may_wait:
                raise  # Ctrl-C on the user's own thread

    def _may_leave(self, worker: _Worker) -> bool:
        if self._stopped:
            self._pending.clear()
        if self._is_needed(worker):  # without the lock: to stay is never wrong
            return False
        with self._lock:
            if self._is_needed(worker):
                return False
            self._remove(worker)
            return True

    def _is_needed(self, worker: _Worker) -> bool:
        if worker.is_lost or not self._pending:
            return False
        return self._workers <= self._most_workers()

    def _remove(self, worker: _Worker) -> None:
        self._active.discard(worker)
        self._busy += worker.busy
        if worker.is_lost:
            self._lost -= 1
        else:
            self._workers -= 1

    # Calls.

    def _handle_run(self, worker: _Worker) -> None:
        """Handle one call; a run of calls while handlers are quick."""
        try:
            waiting = self._pending.popleft()
        except IndexError:
            return
        is_quick = self._pace.is_quick
        if is_quick:
            self._watch()
        elif self._pending and self._workers < self._limit:
            self._wake()  # no message waits behind a slow call
        results: list[Message[Any]] = []
        span = self._tracing.begin() if self._bus.is_traced else None
        step = self._step_of(worker, span, results)
        self._runs += 1
        worker.began = perf_counter()
        try:
            count = self._handle_calls(worker, waiting, step, RUN if is_quick else 1)
        except BaseException as error:
            self._fail_worker(worker, error)
            raise
        finally:
            if span is not None:
                self._tracing.end(span, results)
        seconds = worker.end_run()
        if count:
            self._pace.note(count, seconds)
            self._processor.emit()
        if is_quick and not self._pace.is_quick:
            self._wake()

    def _handle_calls(
        self,
        worker: _Worker,
        waiting: Waiting,
        step: Callable[[Any], None],
        most: int,
    ) -> int:
        next_waiting = self._pending.popleft
        began = perf_counter()
        count = 0
        while True:
            worker.call = waiting
            step(waiting)
            if worker.call is None:
                return count
            count += 1
            if count == most or perf_counter() - began > HELD:
                return count
            try:
                waiting = next_waiting()
            except IndexError:
                return count

    def _step_of(
        self, worker: _Worker, span: SpanStart | None, results: list[Message[Any]]
    ) -> Callable[[Any], None]:
        """Return the function that handles a waiting call and passes its result on."""
        limit, plain, finish = self._time_limit, self._flow.handle_message, self._flow.finish
        if plain is not None and span is None and limit is None:
            return plain
        handle = self._handle if span is None else partial(self._handle_traced, span, results)

        def step(waiting: Waiting) -> None:
            worker.call = call = call_of(waiting)
            result = handle(call) if limit is None else self._in_time(worker, handle, limit, call)
            if result is not None:
                finish(call, result)

        return step

    def _handle_traced(
        self, span: SpanStart, results: list[Message[Any]], call: Call
    ) -> Message[Any]:
        results.append(self._tracing.call(span, self._handle, call))
        return results[-1]

    def _fail_worker(self, worker: _Worker, error: BaseException) -> None:
        """Account for the messages of a thread that ends with an error."""
        worker.end_run()
        worker.death = error
        call = None if worker.call is None else call_of(worker.call)
        if call is not None and call.result is not None:
            call = None
        self._telemetry.add(workers_lost=1)
        self._telemetry.publish(WorkerReplaced("thread", error, int(call is not None)))
        if call is not None:
            lost = worker_lost(f"the thread that had the message died of {error!r}", error)
            self._flow.finish(call, call.message.failed(lost))
        self._processor.emit()

    # Watching.

    def _watch(self) -> None:
        if self._pace.is_quick and self._processor.may_wait:
            with contextlib.suppress(RuntimeError):  # the system starts no more threads
                self._stuck_check.arm(LOOK)

    def _check_stuck(self) -> float | None:
        before = self._progress
        with self._lock:
            self._progress = self._runs, {worker.call for worker in self._active}
        if not self._pace.is_quick:
            return None
        self._looks = self._looks + 1 if self._progress == before else 0
        if self._looks < LOOKS:
            return LOOK
        self._looks = 0
        if self._pending or self._flow.is_ready():
            self._pace.leave()
            self._processor.emit(elsewhere=True)
            self._wake()
        return None

    def _watch_died(self, error: BaseException) -> None:
        self._pace.leave()
        try:
            self._processor.break_off(unexpected("watching handlers", error))
        finally:
            self._wake()

    # Time limits.

    def _in_time(
        self,
        worker: _Worker,
        handle: Callable[[Call], Message[Any]],
        time_limit: float,
        call: Call,
    ) -> Message[Any] | None:
        """Return the result of a call; ``None`` if its message has failed meanwhile."""
        worker.since = perf_counter()
        worker.is_limited = True
        self._limit_check.arm(time_limit)
        try:
            result = handle(call)
        finally:
            with self._lock:
                worker.is_limited = False
        return None if worker.call is None else result

    def _check_limits(self) -> float | None:
        """Fail the messages of overdue calls; return the seconds until the next can be overdue."""
        assert self._time_limit is not None  # noqa: S101 - only then it is armed
        limit = self._time_limit
        overdue: list[tuple[Call, HandlerTimeout]] = []
        rests: list[float] = []
        with self._lock:
            for worker in self._active:
                if worker.call is None or not worker.is_limited:
                    continue
                rest = worker.since + limit - perf_counter()
                if rest > 0.0:
                    rests.append(rest)
                else:
                    error = HandlerTimeout(
                        f"the handler took longer than its time limit of {limit:g} s"
                    )
                    overdue.append((call_of(worker.call), error))
                    worker.call = None
                    self._replace(worker, error)
        for call, error in overdue:
            self._telemetry.add(timed_out=1)
            self._flow.finish(call, call.message.failed(error))
        if overdue:
            self._processor.emit(elsewhere=True)
            self._wake()
        return min(rests, default=None)

    def _replace(self, worker: _Worker, error: HandlerTimeout) -> None:
        """Let another thread take the place of this one, unless too many are lost."""
        if self._lost >= self._limit:
            return
        worker.is_lost = True
        self._lost += 1
        self._workers -= 1
        worker.end_run()
        self._telemetry.add(workers_lost=1)
        self._telemetry.publish(WorkerReplaced("thread", error, 1, lost=True))
