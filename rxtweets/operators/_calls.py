"""Calls of users' functions: handlers, ``prepare``, and the spans around them."""

from __future__ import annotations

import inspect
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

from rxtweets._core.concurrency import Concurrency
from rxtweets._core.events import (
    HandlerRaised,
    HandlerStarted,
    HandlerStopped,
    Prepared,
    ProcessorStarted,
    ProcessorStopped,
)
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import Failed, Message
from rxtweets._support.workers import is_interrupt
from rxtweets.errors import DeadlineExceeded, HandlerError, WorkerLost

__all__ = [
    "NOT_GIVEN",
    "Call",
    "Preparation",
    "Prepare",
    "Runner",
    "SpanStart",
    "Tracing",
    "Waiting",
    "call_of",
    "calling",
    "checked",
    "is_async",
    "name_of",
    "past_deadline",
    "with_context",
    "worker_lost",
]

PREPARED_TOGETHER = 100
"""Messages in one call of ``prepare`` at most."""

Prepare = Callable[[Sequence[Message[Any]]], Sequence[Message[Any]]]

SpanStart = tuple[int, float, float]
"""Number of a span, its start in seconds since 1970, and its start by the monotonic clock."""


class Call:
    """A message and the attempts of its handler.

    Attributes:
        message: argument of the handler.
        attempt: number of the current attempt, from 1.
        since: start of the first attempt, in monotonic seconds.
        due: deadline, in seconds since 1970.
        key: partition key.
        result: message after the last attempt.
    """

    __slots__ = ("attempt", "due", "key", "message", "result", "since")

    def __init__(self, message: Message[Any]) -> None:
        self.message = message
        self.attempt = 1
        self.since: float | None = None
        self.due: float | None = None
        self.key: Hashable = None
        self.result: Message[Any] | None = None


Waiting = Call | Message[Any]
"""A call that waits for its handler: its message, if nothing is known of the call yet. A `Call`
for each waiting message keeps the garbage collector busy; row 2 of the benchmarks measures it."""


def call_of(waiting: Waiting) -> Call:
    """Return the call that waits."""
    return waiting if isinstance(waiting, Call) else Call(waiting)


class Runner(Protocol):
    """Runs calls: on threads, on an event loop, or in an executor.

    Each attempt gets exactly one `CallFlow.finish`.
    """

    def submit(self, calls: Sequence[Waiting]) -> None:
        """Queue calls; return immediately."""

    def resize(self) -> None:
        """Use the current concurrency limit."""

    def stop(self) -> None:
        """Start no more calls, and cancel running calls where possible."""

    def load(self) -> tuple[int, float]:
        """Return the number of running calls, and the seconds of all calls so far."""


class Preparation:
    """Calls ``prepare`` with waiting messages, on up to ``concurrency`` threads.

    Args:
        prepare: the user's function.
        concurrency: concurrent calls at most.
        spawn: runs a task on some thread.
        prepared: takes calls, and the message that the function returned for each.
        telemetry: counters and event bus.
    """

    def __init__(
        self,
        prepare: Prepare,
        concurrency: Concurrency,
        spawn: Callable[[Callable[[], None]], None],
        prepared: Callable[[list[Call], list[Message[Any]]], None],
        telemetry: Telemetry,
    ) -> None:
        self._prepare = prepare
        self._concurrency = concurrency
        self._spawn = spawn
        self._prepared = prepared
        self._bus = telemetry.bus
        self._tracing = Tracing(telemetry)
        self._lock = threading.Lock()
        self._waiting: deque[Call] = deque()
        self._running = 0

    def submit(self, calls: list[Call]) -> None:
        """Queue calls; return immediately."""
        self._waiting.extend(calls)
        self._wake()

    def clear(self) -> None:
        """Forget the calls that wait."""
        with self._lock:
            self._waiting.clear()

    def _wake(self) -> None:
        with self._lock:
            if not self._waiting or self._running >= self._concurrency.limit:
                return
            self._running += 1
        self._spawn(self._work)

    def _work(self) -> None:
        while calls := self._next():
            if self._waiting:
                self._wake()
            self._prepared(calls, self._call([call.message for call in calls]))

    def _next(self) -> list[Call]:
        with self._lock:
            count = min(PREPARED_TOGETHER, len(self._waiting))
            self._running -= not count
            return [self._waiting.popleft() for _ in range(count)]

    def _call(self, messages: list[Message[Any]]) -> list[Message[Any]]:
        span = self._tracing.now() if self._bus.is_traced else None
        raised: BaseException | None = None
        try:
            prepared = list(self._prepare(list(messages)))
            _check_prepared(prepared, len(messages))
        except BaseException as error:  # noqa: BLE001 - users' code may raise anything
            raised, prepared = error, [message.failed(error) for message in messages]
        if span is not None:
            self._tracing.prepared(span, prepared, raised)
        return prepared


def _check_prepared(prepared: list[Any], count: int) -> None:
    if len(prepared) != count:
        raise HandlerError(
            f"prepare got {count} messages and returned {len(prepared)}; return all, in order"
        )
    for message in prepared:
        if not isinstance(message, Message):
            raise HandlerError(f"prepare returned {type(message).__name__} in place of a message")


# Functions.


class _NotGiven:
    def __repr__(self) -> str:
        return "<not given>"


NOT_GIVEN = _NotGiven()
"""In place of a context; ``None`` is a context that a user may give."""


class _WithContext:
    # A class, since a closure cannot be pickled for another process.
    def __init__(self, function: Callable[..., Any], context: Any) -> None:
        self.function = function
        self.context = context

    def __call__(self, value: Any) -> Any:
        return self.function(value, self.context)


def with_context(function: Any, context: Any) -> Any:
    """Bind the user's context as the last argument of a function; ``None`` stays ``None``."""
    is_bound = function is not None and context is not NOT_GIVEN
    return _WithContext(function, context) if is_bound else function


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a handler, for errors."""
    return getattr(function, "__name__", None) or repr(function)


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether the function returns a coroutine."""
    if isinstance(function, _WithContext):
        function = function.function
    call = getattr(function, "__call__", None)  # noqa: B004 - an object may have an async __call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def calling(function: Callable[[Any], Any], name: str) -> Callable[[Message[Any]], Message[Any]]:
    """Return a function that calls a handler and returns a message, failed if it raised."""

    def handle(message: Message[Any]) -> Message[Any]:
        try:
            result = function(message)
        except BaseException as error:  # a SystemExit would end the thread silently
            if is_interrupt(error):
                raise
            return message.failed(error)
        if isinstance(result, Message):
            return result
        return checked(result, message, name)

    return handle


def checked(result: object, message: Message[Any], name: str) -> Message[Any]:
    """Return the result of a handler if it is a message, else the handler's message, failed."""
    if isinstance(result, Message):
        return result
    if inspect.iscoroutine(result):
        result.close()
        return message.failed(
            HandlerError(f"{name} returned a coroutine; declare it with async def, or await it")
        )
    return message.failed(
        HandlerError(f"{name} returned {type(result).__name__}; return the message")
    )


def worker_lost(text: str, cause: BaseException) -> WorkerLost:
    """Return the reason of a message whose worker died."""
    lost = WorkerLost(text)
    lost.__cause__ = cause
    return lost


def past_deadline(seconds: float) -> DeadlineExceeded:
    """Return the reason of a message that got no handler because of its deadline."""
    return DeadlineExceeded(f"{seconds:.3f} s past its deadline; not handled")


# Spans.

_span_numbers = itertools.count(1)


class Tracing:
    """Publishes the spans of processors and handlers; call it only while the bus is traced."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._publish = telemetry.bus.publish

    def now(self) -> SpanStart:
        """Number a span that starts now."""
        return next(_span_numbers), time.time(), time.perf_counter()

    def begin(self) -> SpanStart:
        """Publish that a processor starts with a chunk."""
        span = self.now()
        self._publish(ProcessorStarted(span[0], span[1]))
        return span

    def end(self, span: SpanStart, messages: Sequence[Message[Any]]) -> None:
        """Publish that the processor has the results of the chunk."""
        good = tuple(message for message in messages if message.status == "ok")
        bad = tuple(message for message in messages if message.status != "ok")
        self._publish(ProcessorStopped(span[0], span[1], good, bad, _since(span)))

    def prepared(
        self, span: SpanStart, messages: Sequence[Message[Any]], error: BaseException | None
    ) -> None:
        """Publish the end of a call of ``prepare``."""
        self._publish(Prepared(span[0], span[1], tuple(messages), _since(span), error))

    def called(self, parent: SpanStart, message: Message[Any]) -> SpanStart:
        """Publish the start of a handler."""
        span = self.now()
        self._publish(HandlerStarted(span[0], span[1], parent[0], message))
        return span

    def returned(
        self, parent: SpanStart, span: SpanStart, given: Message[Any], result: Message[Any]
    ) -> None:
        """Publish the end of a handler."""
        error = result.status.reason if isinstance(result.status, Failed) else None
        if isinstance(error, BaseException):
            self.raised(parent, span, given, error)
        else:
            self._publish(HandlerStopped(span[0], span[1], parent[0], result, _since(span)))

    def raised(
        self, parent: SpanStart, span: SpanStart, given: Message[Any], error: BaseException
    ) -> None:
        """Publish that a handler raised, or was cancelled."""
        self._publish(HandlerRaised(span[0], span[1], parent[0], given, error, _since(span)))

    def call(
        self, parent: SpanStart, handle: Callable[[Call], Message[Any]], call: Call
    ) -> Message[Any]:
        """Handle a call within a span."""
        span = self.called(parent, call.message)
        try:
            result = handle(call)
        except BaseException as error:  # the thread ends, and the call with it
            self.raised(parent, span, call.message, error)
            raise
        self.returned(parent, span, call.message, result)
        return result


def _since(span: SpanStart) -> float:
    return time.perf_counter() - span[2]
