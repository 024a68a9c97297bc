"""What comes before handlers for a whole chunk: one look into a database instead of a hundred."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from rxtweets._core.concurrency import Concurrency
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import Message
from rxtweets.errors import HandlerError
from rxtweets.operators._calls import Call
from rxtweets.operators._tracing import Tracing

__all__ = ["Prepare", "Preparing"]

CHUNK = 100
"""Messages that are prepared together at most; fewer, if fewer wait."""

Prepare = Callable[[Sequence[Message[Any]]], Sequence[Message[Any]]]


class Preparing:
    """Calls the user's function with what waits, on as many threads as handlers may have.

    Args:
        prepare: the user's.
        concurrency: calls at once at most.
        spawn: runs a task on some thread.
        prepared: takes the calls with what the function gave back for each.
        telemetry: where to tell of the calls, if somebody listens.
    """

    def __init__(
        self,
        prepare: Prepare,
        concurrency: Concurrency,
        spawn: Callable[[Callable[[], None]], None],
        prepared: Callable[[list[tuple[Call, Message[Any]]]], None],
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
        """Take calls; returns at once."""
        self._waiting.extend(calls)
        self._wake()

    def clear(self) -> None:
        """Forget what waits."""
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
            self._prepared(list(zip(calls, self._call(calls), strict=True)))

    def _next(self) -> list[Call]:
        with self._lock:
            calls: list[Call] = []
            while self._waiting and len(calls) < CHUNK:
                calls.append(self._waiting.popleft())
            if not calls:
                self._running -= 1
            return calls

    def _call(self, calls: list[Call]) -> list[Message[Any]]:
        messages = [call.message for call in calls]
        span = self._tracing.now() if self._bus.is_traced else None
        fault: BaseException | None = None
        try:
            prepared = list(self._prepare(list(messages)))
            _refuse_others(prepared, len(messages))
        except BaseException as error:  # noqa: BLE001 - whatever a user's code raises
            fault, prepared = error, [message.failed(error) for message in messages]
        if span is not None:
            self._tracing.prepared(span, prepared, fault)
        return prepared


def _refuse_others(prepared: list[Any], count: int) -> None:
    """``prepare`` must give back a message for each that it got."""
    if len(prepared) != count:
        raise HandlerError(
            f"prepare got {count} messages and returned {len(prepared)}; return all, in order"
        )
    for each in prepared:
        if not isinstance(each, Message):
            raise HandlerError(f"prepare returned {type(each).__name__} in place of a message")
