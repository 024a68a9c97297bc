"""Calls on threads: few of them when handlers are quick, many when they block."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any

from rxtweets._core.concurrency import Concurrency
from rxtweets._core.events import WorkerReplaced
from rxtweets._core.telemetry import Telemetry
from rxtweets._support.workers import unexpected
from rxtweets.errors import WorkerLost
from rxtweets.operators._calls import Job
from rxtweets.operators._pace import QUICK, Pace, Watch
from rxtweets.operators._tracing import SpanStart, Tracing

__all__ = ["Replaced", "ThreadRunner", "Worker"]

RUN = 128
"""Messages that one thread handles before it passes them on."""

HELD = 0.005
"""Seconds after which it passes on what it has all the same."""


class Run:
    """What one thread handles before it passes it on; another may do that for it, if it is stuck.

    Attributes:
        results: so far.
        passed: how many of them were passed on.
    """

    __slots__ = ("passed", "results")

    def __init__(self) -> None:
        self.results: list[Any] = []
        self.passed = 0


class Worker:
    """One thread at work.

    Attributes:
        run: that it is at.
        began: the monotonic time at which its call, or its run, began.
        busy: seconds of those that are over.
        item: in a call that has a time limit.
        since: the monotonic time at which that call began.
        is_lost: another thread has taken its place.
        death: what ended it, once its messages have been seen to.
    """

    __slots__ = ("began", "busy", "death", "is_lost", "item", "run", "since")

    def __init__(self) -> None:
        self.run = Run()
        self.began: float | None = None
        self.busy = 0.0
        self.item: Any = None
        self.since = 0.0
        self.is_lost = False
        self.death: BaseException | None = None


class Replaced(BaseException):
    """Ends the work of a thread whose place was given to another while it was in a call."""


class ThreadRunner:
    """Takes items, and has workers handle them, up to the concurrency at once.

    Args:
        job: what an item is.
        concurrency: calls at once at most.
        telemetry: where to count and report.
        spawn: runs a task on some thread.
        may_wait: whether these are threads that may block.
    """

    def __init__(
        self,
        job: Job,
        concurrency: Concurrency,
        telemetry: Telemetry,
        spawn: Callable[[Callable[[], None]], None],
        *,
        may_wait: bool = True,
    ) -> None:
        self._job = job
        self._concurrency = concurrency
        self._limit = concurrency.limit
        self._telemetry = telemetry
        self._bus = telemetry.bus
        self._spawn = spawn
        self._may_wait = may_wait
        self._handle = job.handle
        self._tracing = Tracing(telemetry)
        self._pace = Pace()
        self._watch = Watch(self._pace, self._is_stuck, self._bring_others, self._watch_died)

        self._lock = threading.Lock()
        self._pending: deque[Any] = deque()
        self._active: set[Worker] = set()
        self._here = threading.local()
        self._workers = 0
        self._lost = 0
        self._taken = 0
        self._busy = 0.0
        self._stopped = False
        self._forget = telemetry.gauge("threads_lost", lambda: self._lost)

    def submit(self, items: list[Any]) -> None:
        """Take items; returns at once."""
        self._pending.extend(items)
        self._wake()

    def resize(self) -> None:
        """Bring in a worker if there may be more now; it calls in the others."""
        self._limit = self._concurrency.limit
        self._wake()

    def stop(self) -> None:
        """Begin nothing any more."""
        self._stopped = True
        self._pending.clear()
        self._watch.stop()
        self._forget()

    def load(self) -> tuple[int, float]:
        """How many calls run now, and the seconds that calls have taken so far."""
        now = perf_counter()
        with self._lock:
            began = [each.began for each in self._active if each.began is not None]
            busy = self._busy + sum(each.busy for each in self._active)
            return len(began), busy + sum(now - each for each in began)

    # Who works.

    def _wake(self) -> None:
        """Bring in a worker if there is something to do and one may come."""
        most = 1 if self._pace.is_quick else self._limit
        if self._pending:
            self._look_after_one()  # also if nobody is brought in: that one may be stuck in a call
        with self._lock:
            if self._workers >= most or not self._pending:
                return
            self._workers += 1
        try:
            self._spawn(self._work)
        except RuntimeError:  # no more threads can be started
            with self._lock:
                alone = self._workers == 1
                self._workers -= not alone
            if alone:
                self._work()  # slower than many, but nothing is left lying

    def _look_after_one(self) -> None:
        if self._may_wait and self._pace.is_quick:
            self._watch.look()

    def _work(self) -> None:
        worker = Worker()
        with self._lock:
            self._active.add(worker)
        outer, self._here.worker = getattr(self._here, "worker", None), worker
        try:
            while not self._may_leave(worker):
                if self._pace.is_quick:
                    self._handle_many(worker)
                else:
                    self._handle_one(worker)
        except Replaced:
            self._pass_on(worker.run)
            self._leave(worker)
        except BaseException as error:
            self._leave(worker)
            self._wake()
            if error is not worker.death:
                raise  # a message may be lost with it: whoever started the thread must know
            if isinstance(error, KeyboardInterrupt) and not self._may_wait:
                raise  # the user's own thread, and their own Ctrl-C
        finally:
            self._here.worker = outer

    def _may_leave(self, worker: Worker) -> bool:
        """Leave when nothing is left, or when fewer workers are wanted."""
        if self._stopped:
            self._pending.clear()
        most = 1 if self._pace.is_quick else self._limit
        if self._pending and self._workers <= most:
            return False  # without the lock: to stay is never wrong
        with self._lock:
            if self._pending and self._workers <= most:
                return False
            self._forget_worker(worker)
            return True

    def _leave(self, worker: Worker) -> None:
        with self._lock:
            self._forget_worker(worker)

    def _forget_worker(self, worker: Worker) -> None:
        self._active.discard(worker)
        self._busy += worker.busy
        if worker.is_lost:
            self._lost -= 1
        else:
            self._workers -= 1

    # How they work.

    def _handle_one(self, worker: Worker) -> None:
        """One message, others called in for the rest: nothing waits behind a slow neighbour."""
        try:
            item = self._pending.popleft()
        except IndexError:
            return
        if self._pending and self._workers < self._limit:
            self._wake()  # if this comes too late, this thread still comes by again
        span = self._tracing.begin() if self._bus.is_traced else None
        try:
            worker.began = started = perf_counter()
            result = self._handle(item) if span is None else self._trace(span, item)
            took = perf_counter() - started
            worker.began = None
            worker.busy += took
            self._pace.note(took)
            self._taken += 1
        except BaseException as error:
            self._bury(worker, item, error, span)
            raise
        if span is not None:
            self._tracing.end(span, [self._job.message_of(result)])
        self._job.done([result])

    def _handle_many(self, worker: Worker) -> None:
        self._look_after_one()  # it may have been one of many until now
        run = worker.run = Run()
        results = run.results
        pending, pace = self._pending.popleft, self._pace
        span = self._tracing.begin() if self._bus.is_traced else None
        handle = self._handle if span is None else self._traced(span)
        item = None
        began = started = worker.began = perf_counter()
        try:
            for _ in range(RUN):
                try:
                    item = pending()
                except IndexError:
                    break
                results.append(handle(item))
                item = None
                self._taken += 1
                now = perf_counter()
                if now - started > QUICK and pace.was_slow(now - started):
                    break
                started = now
                if now - began > HELD or not pace.is_quick:
                    break
        except BaseException as error:
            self._bury(worker, item, error, span)
            raise
        worker.began = None
        worker.busy += perf_counter() - began
        pace.were_quick(len(results))
        if span is not None:
            self._tracing.end(span, [self._job.message_of(each) for each in results])
        self._pass_on(run)
        if not pace.is_quick:
            self._wake()

    def _pass_on(self, run: Run, *, elsewhere: bool = False) -> None:
        """What the run has brought so far, and was not passed on before."""
        with self._lock:
            results = run.results
            if elsewhere or run.passed:
                results = results[run.passed :]
            run.passed += len(results)
        if results:
            self._job.done(results, elsewhere=elsewhere)

    def _traced(self, span: SpanStart) -> Callable[[Any], Any]:
        return lambda item: self._trace(span, item)

    def _trace(self, span: SpanStart, item: Any) -> Any:
        return self._tracing.call(span, self._handle, item, self._job.message_of)

    # What goes wrong.

    def _bury(
        self, worker: Worker, item: Any, error: BaseException, span: SpanStart | None
    ) -> None:
        """Something ends this thread: what is in its hands fails, what it has done is passed on."""
        if span is not None:
            self._tracing.end(span, [self._job.message_of(each) for each in worker.run.results])
        if worker.began is not None:
            worker.busy += perf_counter() - worker.began
            worker.began = None
        if isinstance(error, Replaced):
            return
        worker.death = error
        self._pass_on(worker.run)
        lost = [] if item is None else [self._job.fail(item, _worker_lost(error))]
        self._telemetry.add(workers_lost=1)
        self._telemetry.publish(WorkerReplaced("thread", error, len(lost)))
        if lost:
            self._job.done(lost)

    def _watch_died(self, error: BaseException) -> None:
        self._job.break_off(unexpected("the watch over handlers", error))

    def _is_stuck(self, taken_before: int) -> tuple[bool, int]:
        """Whether something waits, and no message was taken since the last look."""
        if self._taken != taken_before:
            return False, self._taken
        with self._lock:
            holds = any(len(each.run.results) > each.run.passed for each in self._active)
        return holds or bool(self._pending), self._taken

    def _bring_others(self) -> None:
        """The one thread is stuck in a call: what it has done before that must not wait."""
        with self._lock:
            active = tuple(self._active)
        for worker in active:
            self._pass_on(worker.run, elsewhere=True)
        self._wake()


def _worker_lost(error: BaseException) -> WorkerLost:
    lost = WorkerLost(f"the thread that had the message died of {error!r}")
    lost.__cause__ = error
    return lost
