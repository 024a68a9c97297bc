"""Calls on threads that may take only so long: what takes longer fails, and its thread is left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter
from typing import Any

from rxtweets._core.concurrency import Concurrency
from rxtweets._core.events import WorkerReplaced
from rxtweets._core.telemetry import Telemetry
from rxtweets._support.workers import Died, start_thread, unexpected
from rxtweets.errors import HandlerTimeout
from rxtweets.operators._calls import Job
from rxtweets.operators._threads import Replaced, ThreadRunner, Worker

__all__ = ["LimitedThreadRunner"]


class LimitedThreadRunner(ThreadRunner):
    """Fails messages whose call takes too long, and lets another thread take over.

    No thread can be stopped, so the one that hangs is left to itself, and what it returns later is
    discarded. At most ``concurrency`` threads are left so; beyond that their places stay taken
    until one of them returns.

    Args:
        job: what an item is.
        concurrency: calls at once at most.
        telemetry: where to count and report.
        spawn: runs a task on some thread.
        may_wait: whether these are threads that may block.
        time_limit: seconds for a call.
    """

    def __init__(
        self,
        job: Job,
        concurrency: Concurrency,
        telemetry: Telemetry,
        spawn: Callable[[Callable[[], None]], None],
        *,
        may_wait: bool,
        time_limit: float,
    ) -> None:
        super().__init__(job, concurrency, telemetry, spawn, may_wait=may_wait)
        self._time_limit = time_limit
        self._handle = self._handle_in_time
        self._clock = _Clock(self._overdue, self._clock_died)

    def stop(self) -> None:
        """Begin nothing any more."""
        super().stop()
        self._clock.stop()

    def _clock_died(self, error: BaseException) -> None:
        self._job.break_off(unexpected("keeping the time limit of handlers", error))

    def _handle_in_time(self, item: Any) -> Any:
        worker: Worker = self._here.worker
        with self._lock:
            worker.since = perf_counter()
            worker.item = item
        self._clock.look()
        try:
            return self._job.handle(item)
        finally:
            with self._lock:
                worker.item = None
                lost = worker.is_lost
            if lost:
                raise Replaced

    def _overdue(self) -> float | None:
        """Fail what takes too long; seconds until the next can be, ``None`` if nothing runs."""
        with self._lock:
            rests = {
                worker: worker.since + self._time_limit - perf_counter()
                for worker in self._active
                if worker.item is not None
            }
            overdue = [worker for worker, rest in rests.items() if rest <= 0]
            outcomes = [self._time_out(worker) for worker in overdue]
        for worker in overdue:
            self._pass_on(worker.run, elsewhere=True)
        if overdue:
            self._job.done(outcomes, elsewhere=True)
            self._wake()
        return min((rest for rest in rests.values() if rest > 0), default=None)

    def _time_out(self, worker: Worker) -> Any:
        """Let another thread take its place, if not too many are lost already; the outcome."""
        limit = f"{self._time_limit:g} s"
        error = HandlerTimeout(f"the handler took longer than its time limit of {limit}")
        # Made while the worker cannot leave its call: a later attempt is not meant.
        outcome = self._job.fail(worker.item, error)
        worker.item = None
        if self._lost < self._limit:
            worker.is_lost = True
            self._lost += 1
            self._workers -= 1
            if worker.began is not None:  # it is no longer at work for us
                worker.busy += perf_counter() - worker.began
                worker.began = None
            self._telemetry.add(workers_lost=1)
            self._telemetry.publish(WorkerReplaced("thread", error, 1, lost=True))
        self._telemetry.add(timed_out=1)
        return outcome


class _Clock:
    """Looks, on a thread of its own, for calls whose time is over; only while calls run."""

    def __init__(self, overdue: Callable[[], float | None], died: Died) -> None:
        self._overdue = overdue
        self._died = died
        self._needed = threading.Event()
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._started = False

    def look(self) -> None:
        """A call has begun."""
        if self._needed.is_set():
            return
        with self._lock:
            if not self._started:
                start_thread("rxtweets-limits", self._run, self._died, goes_on=True)
                self._started = True
        self._needed.set()

    def stop(self) -> None:
        self._stopped.set()
        self._needed.set()

    def _run(self) -> None:
        while self._needed.wait() and not self._stopped.is_set():
            # Cleared first: a call that begins after the look sets it again.
            self._needed.clear()
            rest = self._overdue()
            if rest is not None:
                self._needed.set()
                self._stopped.wait(rest)
