"""Calls in an executor of the user's: chunks of messages go there, chunks of results come back."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from time import monotonic
from typing import Any

from rxtweets._core.concurrency import Concurrency
from rxtweets._core.events import WorkerReplaced
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import NOOP, Message, in_place_of
from rxtweets.errors import DeadlineExceeded, ExecutorBroken, HandlerError, WorkerLost
from rxtweets.operators import _remote as remote
from rxtweets.operators._calls import Call
from rxtweets.operators._flow import Flow
from rxtweets.operators._processor import Processor
from rxtweets.operators._tracing import SpanStart, Tracing

__all__ = ["AnyExecutor", "ExecutorRunner"]

AnyExecutor = Executor | Callable[[], Executor]

CHUNK = 100
"""Messages in a chunk at most."""

GOAL = 0.01
"""Seconds that a chunk should take: long beside the way there and back, about half a millisecond,
and short beside what anybody waits for."""


class Chunk:
    """Calls that are in the executor's hands."""

    __slots__ = ("attempts", "calls", "executor", "span")

    def __init__(self, calls: list[Call], executor: Executor, span: SpanStart | None) -> None:
        self.calls = calls
        self.attempts = [call.attempt for call in calls]
        self.executor = executor
        self.span = span


class ExecutorRunner:
    """Has calls run by an executor, so many chunks at once as the concurrency says.

    Args:
        function: the handler; it goes to the executor with every chunk.
        name: of it, for errors.
        executor: that, or a function that makes one: that one is ours to replace and shut down.
        flow: whose calls these are.
        processor: for its threads, and to end it when nothing can run any more.
        concurrency: chunks at once at most.
        telemetry: where to count and report.
    """

    def __init__(
        self,
        function: Callable[[Message[Any]], Any],
        name: str,
        executor: AnyExecutor,
        flow: Flow,
        processor: Processor,
        concurrency: Concurrency,
        telemetry: Telemetry,
    ) -> None:
        self._function = function
        self._name = name
        self._make = None if isinstance(executor, Executor) else executor
        self._executor = executor if isinstance(executor, Executor) else None
        self._flow = flow
        self._processor = processor
        self._concurrency = concurrency
        self._telemetry = telemetry
        self._tracing = Tracing(telemetry)

        self._lock = threading.Lock()
        self._pending: deque[Call] = deque()
        self._returned: deque[Future[Any]] = deque()
        self._at_it = False
        self._again = False
        self._stopped = False
        # Of the one thread that is at it:
        self._out: dict[Future[Any], Chunk] = {}
        self._seconds: float | None = None
        self._busy = 0.0
        self._took_something = False
        self._broken: ExecutorBroken | None = None

    def submit(self, items: list[Call]) -> None:
        """Take calls; returns at once."""
        self._pending.extend(items)
        self.resize()

    def resize(self) -> None:
        """Have a thread look at what came back and what may go; one at a time."""
        with self._lock:
            self._again = True
            if self._at_it:
                return
            self._at_it = True
        self._processor.spawn(self._look)

    def stop(self) -> None:
        """Send nothing any more, and take back what has not begun."""
        self._stopped = True
        self._pending.clear()
        for future in tuple(self._out):
            future.cancel()
        if self._make is not None and self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    def load(self) -> tuple[int, float]:
        """How many chunks are out now, and the seconds that calls have taken so far."""
        return len(self._out), self._busy

    def _look(self) -> None:
        while self._may_look():
            while self._returned:
                self._take_back(self._returned.popleft())
            while self._pending and not self._stopped and len(self._out) < self._concurrency.limit:
                self._send()

    def _may_look(self) -> bool:
        with self._lock:
            self._at_it, self._again = self._again, False
            return self._at_it

    # There.

    def _send(self) -> None:
        calls: list[Call] = []
        with contextlib.suppress(IndexError):  # somebody stops
            while self._pending and len(calls) < self._size():
                calls.append(self._pending.popleft())
        if not calls:
            return
        try:
            executor = self._ready_executor()
        except ExecutorBroken as error:
            self._fail(calls, error)
            return
        self._hand_over(calls, executor)

    def _size(self) -> int:
        """So many messages as take about the goal; one, as long as nothing is known."""
        if self._seconds is None:
            return 1
        return max(1, min(CHUNK, int(GOAL / max(self._seconds, 1e-9))))

    def _hand_over(self, calls: list[Call], executor: Executor) -> None:
        for call in calls:
            call.since = call.since or monotonic()
        tasks = [(_without_acknowledger(call.message), call.due) for call in calls]
        try:
            future = self._start(executor, tasks)
        except _CannotTravel as error:
            self._fail_or_split(calls, executor, error)
            return
        except BaseException as error:  # noqa: BLE001 - executors raise what they like
            self._refused(executor, error, calls)
            return
        self._took_something = True
        span = self._tracing.begin() if self._telemetry.bus.is_traced else None
        self._out[future] = Chunk(calls, executor, span)
        future.add_done_callback(self._came_back)

    def _start(self, executor: Executor, tasks: list[remote.Task]) -> Future[Any]:
        if isinstance(executor, ThreadPoolExecutor):
            return executor.submit(self._run_here, tasks)
        try:
            packed = remote.pack(tasks)
        except Exception as error:
            raise _CannotTravel(
                f"a message for {self._name} cannot be pickled, so it cannot go to another "
                f"process: {error}"
            ) from error
        return executor.submit(remote.run_packed, self._function, self._name, packed)

    def _run_here(self, tasks: list[remote.Task]) -> remote.Answer:
        with (
            self._processor.working()
        ):  # a handler may stop the pipeline, which must not wait for it
            return remote.run(self._function, self._name, tasks)

    def _fail_or_split(self, calls: list[Call], executor: Executor, error: HandlerError) -> None:
        if len(calls) == 1:
            self._fail(calls, error)
        else:
            for call in calls:
                self._hand_over([call], executor)

    # And back.

    def _came_back(self, future: Future[Any]) -> None:
        # On a thread of the executor's, which swallows what is raised here: nothing is done here.
        self._returned.append(future)
        self.resize()

    def _take_back(self, future: Future[Any]) -> None:
        chunk = self._out.pop(future)
        try:
            result = future.result()
            answers, seconds = remote.unpack(result) if isinstance(result, bytes) else result
        except BaseException as error:  # noqa: BLE001 - cancelled, broken, or lost on the way
            lost = _lost(error, len(chunk.calls))
            if isinstance(error, BrokenExecutor):
                self._gone(chunk.executor, error, len(chunk.calls))
            answers, seconds = [lost] * len(chunk.calls), 0.0
        else:
            self._learn(seconds, len(answers))
        self._settle(chunk, answers)

    def _learn(self, seconds: float, count: int) -> None:
        self._busy += seconds
        each = seconds / count
        self._seconds = each if self._seconds is None else 0.8 * self._seconds + 0.2 * each

    def _settle(self, chunk: Chunk, answers: list[Any]) -> None:
        results = [
            _message(call.message, answer)
            for call, answer in zip(chunk.calls, answers, strict=True)
        ]
        expired = sum(isinstance(each, DeadlineExceeded) for each in answers)
        if expired:
            self._telemetry.add(expired=expired)
        if chunk.span is not None:
            self._tracing.end(chunk.span, results)
        outcomes = list(zip(chunk.calls, chunk.attempts, results, strict=True))
        self._flow.done(outcomes, elsewhere=True)

    def _fail(self, calls: list[Call], error: Exception) -> None:
        outcomes = [(call, call.attempt, call.message.failed(error)) for call in calls]
        self._flow.done(outcomes, elsewhere=True)

    # When it dies.

    def _ready_executor(self) -> Executor:
        if self._broken is not None:
            raise self._broken
        if self._executor is None:
            assert self._make is not None  # noqa: S101 - one of the two was given
            try:
                self._executor = self._make()
            except BaseException as error:
                self._give_up(f"no executor could be made: {error!r}", error)
                raise self._broken from error  # type: ignore[misc]  # it is set by that
            if self._stopped:
                self._executor.shutdown(wait=False)
        return self._executor

    def _refused(self, executor: Executor, error: BaseException, calls: list[Call]) -> None:
        """The executor did not take these; its successor does, if there can be one."""
        if self._make is not None and not self._took_something:
            self._give_up(f"a new executor takes no calls: {error!r}", error)
        else:
            self._gone(executor, error, 0)
        self._pending.extendleft(reversed(calls))  # where nothing can run, they fail from there

    def _gone(self, executor: Executor, error: BaseException, count: int) -> None:
        """The executor takes nothing any more."""
        self._telemetry.publish(WorkerReplaced("executor", error, count))
        if executor is not self._executor:
            return  # it has a successor already
        self._telemetry.add(workers_lost=1)
        if self._make is None:
            self._give_up(
                f"the executor takes no more calls: {error}; give executor= a function that "
                "makes one, and it is replaced",
                error,
            )
        else:
            executor.shutdown(wait=False)
            self._executor, self._took_something = None, False

    def _give_up(self, text: str, cause: BaseException) -> None:
        self._broken = ExecutorBroken(text)
        self._broken.__cause__ = cause
        self._processor.break_off(self._broken)


class _CannotTravel(HandlerError):
    pass


def _without_acknowledger(message: Message[Any]) -> Message[Any]:
    """Acknowledgers stay here: they hold connections, and locks."""
    return message if message.acknowledger is NOOP else message.with_acknowledger(NOOP)


def _message(given: Message[Any], answer: Any) -> Message[Any]:
    if isinstance(answer, BaseException):
        return given.failed(answer)
    return in_place_of(given, answer)


def _lost(error: BaseException, count: int) -> WorkerLost:
    lost = WorkerLost(f"the executor lost a chunk of {count} messages: {error!r}")
    lost.__cause__ = error
    return lost
