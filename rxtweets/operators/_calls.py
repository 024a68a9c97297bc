"""Calls of handlers: what is given to them, and what counts as the outcome."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from typing import Any, Protocol

from rxtweets._core.subscriber import is_interrupt
from rxtweets._messages.message import Message
from rxtweets.errors import HandlerError

__all__ = [
    "NOT_GIVEN",
    "Call",
    "Job",
    "Outcome",
    "Runner",
    "calling",
    "checked",
    "is_async",
    "name_of",
    "with_context",
]


class NotGiven:
    """The context that nobody gave; ``None`` is one that somebody may give."""

    def __repr__(self) -> str:
        return "<not given>"


NOT_GIVEN = NotGiven()


class Call:
    """A message and its calls, from the first attempt to the outcome.

    Attributes:
        message: for the handler.
        attempt: the current one, from 1; results of earlier ones come too late.
        since: monotonic seconds of the first attempt.
        due: its deadline, in seconds since 1970.
        key: of its partition.
        result: the outcome, when there is one.
    """

    __slots__ = ("attempt", "due", "key", "message", "result", "since")

    def __init__(self, message: Message[Any]) -> None:
        self.message = message
        self.attempt = 1
        self.since: float | None = None
        self.due: float | None = None
        self.key: Hashable = None
        self.result: Message[Any] | None = None


Outcome = tuple[Call, int, Message[Any]]
"""A call, the attempt, and what became of the message in it."""


class Job(Protocol):
    """What runners work for: it knows how an item is handled, and what comes after."""

    def handle(self, item: Any) -> Any:
        """The outcome of an item, on this thread; never raises what a user's code raises."""

    def fail(self, item: Any, error: BaseException) -> Any:
        """The outcome of an item whose call was lost."""

    def message_of(self, outcome: Any) -> Message[Any]:
        """The message in an outcome."""

    def done(self, outcomes: list[Any], *, elsewhere: bool = False) -> None:
        """Take outcomes, and pass on what is ready: here, or on another thread."""

    def break_off(self, error: Exception) -> None:
        """Take nothing any more, and end with this error when what is in flight has its result."""


class Runner(Protocol):
    """How calls are run: by threads, on an event loop, in an executor."""

    def submit(self, items: list[Any]) -> None:
        """Take items; returns at once."""

    def resize(self) -> None:
        """The concurrency is another."""

    def stop(self) -> None:
        """Begin nothing any more, and give up what can be given up."""

    def load(self) -> tuple[int, float]:
        """How many calls run now, and the seconds that calls have taken so far."""


class WithContext:
    """A function with the user's context as its last argument; can be pickled if they can."""

    def __init__(self, function: Callable[..., Any], context: Any) -> None:
        self.function = function
        self.context = context

    def __call__(self, value: Any) -> Any:
        """Call the function."""
        return self.function(value, self.context)


def with_context(function: Callable[..., Any], context: Any) -> Callable[[Any], Any]:
    """The function as one of one argument."""
    return function if context is NOT_GIVEN else WithContext(function, context)


def name_of(function: Callable[..., Any]) -> str:
    """A name for errors."""
    return getattr(function, "__name__", None) or repr(function)


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine."""
    call = getattr(function, "__call__", None)  # noqa: B004 - an object may have an async __call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def calling(function: Callable[[Any], Any], name: str) -> Callable[[Message[Any]], Message[Any]]:
    """The function as one that always gives a message: failed, if the function raised."""

    def call(message: Message[Any]) -> Message[Any]:
        try:
            result = function(message)
        except BaseException as error:  # a SystemExit would end a worker silently
            if is_interrupt(error):
                raise
            return message.failed(error)
        if isinstance(result, Message):
            return result
        return checked(result, message, name)

    return call


def checked(result: object, message: Message[Any], name: str) -> Message[Any]:
    """What a handler returned, if it is a message; else its own message, failed."""
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
