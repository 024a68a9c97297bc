"""Spans of processors and of handlers, for whoever listens."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

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
from rxtweets.operators._calls import Call

__all__ = ["SpanStart", "Tracing"]

numbers = itertools.count(1)

SpanStart = tuple[int, float, float]
"""Its number, and when it began: in seconds since 1970, and by the monotonic clock."""


class Tracing:
    """Publishes where work begins and ends.

    Args:
        telemetry: whose bus has the listeners.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._publish = telemetry.bus.publish

    def now(self) -> SpanStart:
        """Something begins."""
        return next(numbers), time.time(), time.perf_counter()

    def begin(self) -> SpanStart:
        """A processor takes up messages."""
        span = self.now()
        self._publish(ProcessorStarted(span[0], span[1]))
        return span

    def end(self, span: SpanStart, messages: Sequence[Message[Any]]) -> None:
        """It is through with them."""
        good = tuple(each for each in messages if each.status == "ok")
        bad = tuple(each for each in messages if each.status != "ok")
        duration = time.perf_counter() - span[2]
        self._publish(ProcessorStopped(span[0], span[1], good, bad, duration))

    def prepared(
        self, since: SpanStart, messages: Sequence[Message[Any]], error: BaseException | None
    ) -> None:
        """A chunk has been prepared."""
        duration = time.perf_counter() - since[2]
        self._publish(Prepared(since[0], since[1], tuple(messages), duration, error))

    def called(self, parent: SpanStart, message: Message[Any]) -> SpanStart:
        """A handler is called."""
        span = self.now()
        self._publish(HandlerStarted(span[0], span[1], parent[0], message))
        return span

    def returned(
        self, parent: SpanStart, span: SpanStart, given: Message[Any], result: Message[Any]
    ) -> None:
        """It has returned, or raised."""
        status = result.status
        error = status.reason if isinstance(status, Failed) else None
        if isinstance(error, BaseException):
            self.raised(parent, span, given, error)
        else:
            duration = time.perf_counter() - span[2]
            self._publish(HandlerStopped(span[0], span[1], parent[0], result, duration))

    def raised(
        self, parent: SpanStart, span: SpanStart, given: Message[Any], error: BaseException
    ) -> None:
        """It has raised, or was stopped."""
        duration = time.perf_counter() - span[2]
        self._publish(HandlerRaised(span[0], span[1], parent[0], given, error, duration))

    def call(
        self,
        parent: SpanStart,
        handle: Callable[[Any], Any],
        item: Any,
        message_of: Callable[[Any], Message[Any]],
    ) -> Any:
        """Handle an item, between two spans."""
        message = item.message if isinstance(item, Call) else item
        span = self.called(parent, message)
        try:
            outcome = handle(item)
        except BaseException as error:  # the thread is lost, and the call with it
            self.raised(parent, span, message, error)
            raise
        self.returned(parent, span, message, message_of(outcome))
        return outcome
