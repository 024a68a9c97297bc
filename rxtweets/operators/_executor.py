"""Handler calls in a `concurrent.futures.Executor`: chunks of messages go there and back."""

from __future__ import annotations

import contextlib
import pickle
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from time import monotonic
from typing import Any

from rxtweets._core.concurrency import Concurrency
from rxtweets._core.events import WorkerReplaced
from rxtweets._core.serial import SerialTask
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import NOOP, Message, in_place_of
from rxtweets.errors import DeadlineExceeded, ExecutorBroken, HandlerError
from rxtweets.operators._calls import (
    Call,
    SpanStart,
    Tracing,
    Waiting,
    call_of,
    checked,
    past_deadline,
    worker_lost,
)
from rxtweets.operators._processor import CallFlow, Processor

__all__ = ["AnyExecutor", "ExecutorRunner", "handle_all", "handle_packed"]

AnyExecutor = Executor | Callable[[], Executor]

CHUNK = 100
"""Messages in a chunk at most."""

GOAL = 0.01
"""Seconds that a chunk should take: long beside the transfer to a process and back."""

Input = tuple[Message[Any], float | None]
"""A message, and its deadline in seconds since 1970."""

Output = tuple[list[Any], float]
"""For each message the handler's result or exception; and the seconds of all calls."""


# In the executor.


def handle_all(function: Callable[[Any], Any], name: str, inputs: Sequence[Input]) -> Output:
    """Call the handler for each message; never raise."""
    started = time.perf_counter()
    answers = [_call(function, name, message, due) for message, due in inputs]
    return answers, time.perf_counter() - started


def handle_packed(function: Callable[[Any], Any], name: str, packed: bytes) -> bytes:
    """Call the handler for each message of a pickled chunk; return the answers pickled.

    One message that cannot be pickled fails alone, not its chunk. The function is pickled by the
    executor, since some executors know more ways than `pickle`.
    """
    inputs = pickle.loads(packed)  # noqa: S301 - our own pickle
    answers, seconds = handle_all(function, name, inputs)
    # Some exceptions can be pickled, but not unpickled.
    answers = [
        _picklable(answer, name) if isinstance(answer, BaseException) else answer
        for answer in answers
    ]
    try:
        return pickle.dumps((answers, seconds))
    except Exception:  # noqa: BLE001 - a user's __reduce__ may raise anything
        return pickle.dumps(([_picklable(answer, name) for answer in answers], seconds))


def _call(function: Callable[[Any], Any], name: str, message: Message[Any], due: Any) -> Any:
    late = 0.0 if due is None else time.time() - due
    if late > 0:
        return past_deadline(late)
    try:
        return checked(function(message), message, name)
    except BaseException as error:  # noqa: BLE001 - users' code may raise anything
        # A pickle has no traceback, but it has notes.
        error.add_note("in the executor:\n" + "".join(traceback.format_exception(error)))
        return error.with_traceback(None)


def _picklable(answer: Any, name: str) -> Any:
    try:
        pickle.loads(pickle.dumps(answer))  # noqa: S301 - our own pickle
    except Exception as error:  # noqa: BLE001 - a user's __reduce__ may raise anything
        verb = "raised" if isinstance(answer, BaseException) else "returned"
        return HandlerError(f"{name} {verb} a value that cannot be pickled: {answer!r}: {error}")
    return answer


# Here.


class _SentCalls:
    def __init__(self, calls: list[Call], executor: Executor, span: SpanStart | None) -> None:
        self.calls = calls
        self.executor = executor
        self.span = span


class _NotPicklable(HandlerError):
    pass


class ExecutorRunner:
    """Runs calls in an executor, up to ``concurrency`` chunks concurrently.

    Args:
        function: the handler; it goes to the executor with each chunk.
        name: its name, for errors.
        executor: an executor, or a function that makes one; only the latter is replaced and shut
            down.
        flow: takes the results.
        processor: emits them; has the threads.
        concurrency: chunks at most.
        telemetry: counters and event bus.
    """

    def __init__(
        self,
        function: Callable[[Message[Any]], Any],
        name: str,
        executor: AnyExecutor,
        flow: CallFlow,
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

        self._exchange = SerialTask(self._is_due, self._receive_and_send, processor.spawn)
        self._pending: deque[Waiting] = deque()
        self._returned: deque[Future[Any]] = deque()
        self._stopped = False
        # Only within the exchange:
        self._out: dict[Future[Any], _SentCalls] = {}
        self._seconds: float | None = None
        self._busy = 0.0
        self._has_taken_calls = False
        self._broken: ExecutorBroken | None = None

    def submit(self, calls: Sequence[Waiting]) -> None:
        """Queue calls; return immediately."""
        self._pending.extend(calls)
        self._exchange.spawn()

    def resize(self) -> None:
        """Send as many chunks as the current limit allows."""
        self._exchange.spawn()

    def stop(self) -> None:
        """Send no more chunks, and cancel those that have not started."""
        self._stopped = True
        self._pending.clear()
        for future in tuple(self._out):
            future.cancel()
        if self._make is not None and self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    def load(self) -> tuple[int, float]:
        """Return the number of chunks in the executor, and the seconds of all calls so far."""
        return len(self._out), self._busy

    def _is_due(self) -> bool:
        return bool(self._returned) or self._may_send()

    def _may_send(self) -> bool:
        has_room = len(self._out) < self._concurrency.limit
        return bool(self._pending) and has_room and not self._stopped

    def _receive_and_send(self) -> None:
        while self._returned:
            self._receive(self._returned.popleft())
        while self._may_send():
            self._send()

    # To the executor.

    def _send(self) -> None:
        calls: list[Call] = []
        with contextlib.suppress(IndexError):  # `stop` clears them
            while self._pending and len(calls) < self._chunk_size():
                calls.append(call_of(self._pending.popleft()))
        if not calls:
            return
        try:
            executor = self._ready_executor()
        except ExecutorBroken as error:
            self._fail(calls, error)
        else:
            self._submit(calls, executor)

    def _chunk_size(self) -> int:
        if self._seconds is None:
            return 1
        return max(1, min(CHUNK, int(GOAL / max(self._seconds, 1e-9))))

    def _submit(self, calls: list[Call], executor: Executor) -> None:
        for call in calls:
            call.since = call.since or monotonic()
        inputs = [(_without_acknowledger(call.message), call.due) for call in calls]
        try:
            future = self._start(executor, inputs)
        except _NotPicklable as error:
            if len(calls) == 1:
                self._fail(calls, error)
            else:
                for call in calls:
                    self._submit([call], executor)
            return
        except BaseException as error:  # noqa: BLE001 - executors may raise anything
            self._reject(executor, error, calls)
            return
        self._has_taken_calls = True
        span = self._tracing.begin() if self._telemetry.bus.is_traced else None
        self._out[future] = _SentCalls(calls, executor, span)
        future.add_done_callback(self._done)

    def _start(self, executor: Executor, inputs: list[Input]) -> Future[Any]:
        if isinstance(executor, ThreadPoolExecutor):
            return executor.submit(self._run_here, inputs)
        try:
            packed = pickle.dumps(inputs)
        except Exception as error:
            raise _NotPicklable(
                f"a message for {self._name} cannot be pickled, so it cannot go to another "
                f"process: {error}"
            ) from error
        return executor.submit(handle_packed, self._function, self._name, packed)

    def _run_here(self, inputs: list[Input]) -> Output:
        with self._processor.working():  # a handler may stop the stream, which must not wait for it
            return handle_all(self._function, self._name, inputs)

    # From the executor.

    def _done(self, future: Future[Any]) -> None:
        # The executor's thread swallows exceptions, so it only passes the future on.
        self._returned.append(future)
        self._exchange.spawn()

    def _receive(self, future: Future[Any]) -> None:
        chunk = self._out.pop(future)
        count = len(chunk.calls)
        try:
            output = future.result()
            if isinstance(output, bytes):
                output = pickle.loads(output)  # noqa: S301 - made by `handle_packed`
            answers, seconds = output
        except BaseException as error:  # noqa: BLE001 - cancelled, broken, or not unpicklable
            lost = worker_lost(f"the executor lost a chunk of {count} messages: {error!r}", error)
            answers = [lost] * count
            if isinstance(error, BrokenExecutor):
                self._replace(chunk.executor, error, count)
        else:
            self._busy += seconds
            average = seconds / count
            before = average if self._seconds is None else self._seconds
            self._seconds = 0.8 * before + 0.2 * average
        results = [
            _result(call.message, answer) for call, answer in zip(chunk.calls, answers, strict=True)
        ]
        expired = sum(isinstance(answer, DeadlineExceeded) for answer in answers)
        if expired:
            self._telemetry.add(expired=expired)
        if chunk.span is not None:
            self._tracing.end(chunk.span, results)
        self._finish(chunk.calls, results)

    def _fail(self, calls: list[Call], error: Exception) -> None:
        self._finish(calls, [call.message.failed(error) for call in calls])

    def _finish(self, calls: list[Call], results: list[Message[Any]]) -> None:
        for call, result in zip(calls, results, strict=True):
            self._flow.finish(call, result)
        self._processor.emit(elsewhere=True)

    # Broken executors.

    def _ready_executor(self) -> Executor:
        if self._broken is not None:
            raise self._broken
        if self._executor is None:
            assert self._make is not None  # noqa: S101 - one of the two was given
            try:
                self._executor = self._make()
            except BaseException as error:
                raise self._give_up(f"no executor could be made: {error!r}", error) from error
            if self._stopped:
                self._executor.shutdown(wait=False)
        return self._executor

    def _reject(self, executor: Executor, error: BaseException, calls: list[Call]) -> None:
        """Queue calls that an executor did not take for the next executor."""
        if self._make is not None and not self._has_taken_calls:
            self._give_up(f"a new executor takes no calls: {error!r}", error)
        else:
            self._replace(executor, error, 0)
        self._pending.extendleft(reversed(calls))  # without an executor they fail there

    def _replace(self, executor: Executor, error: BaseException, count: int) -> None:
        self._telemetry.publish(WorkerReplaced("executor", error, count))
        if executor is not self._executor or self._broken is not None:
            return  # another chunk of it was lost before
        self._telemetry.add(workers_lost=1)
        if self._make is None:
            self._give_up(
                f"the executor takes no more calls: {error}; give executor= a function that "
                "makes one, and it is replaced",
                error,
            )
        else:
            executor.shutdown(wait=False)
            self._executor, self._has_taken_calls = None, False

    def _give_up(self, text: str, cause: BaseException) -> ExecutorBroken:
        self._broken = ExecutorBroken(text)
        self._broken.__cause__ = cause
        self._processor.break_off(self._broken)
        return self._broken


def _without_acknowledger(message: Message[Any]) -> Message[Any]:
    """Acknowledgers hold connections and locks, so they are not pickled."""
    return message if message.acknowledger is NOOP else message.with_acknowledger(NOOP)


def _result(given: Message[Any], answer: Any) -> Message[Any]:
    if isinstance(answer, BaseException):
        return given.failed(answer)
    return in_place_of(given, answer)
