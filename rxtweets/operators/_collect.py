"""Collecting some messages of a stream, to look at them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import SingleAssignmentDisposable
from reactivex.scheduler import CurrentThreadScheduler

from rxtweets._core.observable import ChunkGate, subscribe_in_chunks, telemetry_of
from rxtweets._core.subscriber import acknowledge, as_exception
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.batch import Batch, Trigger
from rxtweets._messages.message import Message
from rxtweets._support.validation import seconds, whole_number
from rxtweets._support.workers import start_thread
from rxtweets.errors import ConfigurationError

__all__ = ["collect"]

T = TypeVar("T")


def collect(
    source: Observable[Message[T]], n: int = 100, timeout: float | timedelta | None = 30.0
) -> Batch[T]:
    """Wait for some messages, and give them as a batch; the connection is closed in any case.

    ::

        tweets = rxtweets.collect(rxtweets.sample_stream(), 500)
        tweets.to_polars().group_by("lang").len()

    It returns what it has when the time is over, when the source ends, and when it is interrupted
    (Ctrl-C, the stop button of a notebook). ``batch.info.trigger`` says why it returned: ``size``
    for ``n`` messages, ``timeout`` for the time or the interrupt, ``flush`` for the end. The batch
    can be empty, unlike those of a stream.

    The messages are acknowledged; what came with them beyond ``n`` is acknowledged as failed.

    Args:
        source: a stream of messages, or any Observable of them.
        n: messages at most, 1 or more.
        timeout: seconds at most; ``None`` waits without end.

    Raises:
        ConfigurationError: an argument cannot work.
        RxTweetsError: the source failed before the first message. If it fails later, its log and
            events say so, and what came is returned.
    """
    if not isinstance(source, Observable):
        raise ConfigurationError(f"source={source!r}: give an Observable of messages")
    whole_number("n", n)
    limit = None if timeout is None else seconds("timeout", timeout)
    collector = _Collector(n, telemetry_of(source))
    with contextlib.suppress(KeyboardInterrupt), _subscribed(source, collector):
        collector.over.wait(limit)
    return collector.result()


class _Collector(abc.ObserverBase[list[Message[Any]]]):
    def __init__(self, n: int, telemetry: Telemetry) -> None:
        self._n = n
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._messages: list[Message[Any]] = []
        self._error: Exception | None = None
        self._trigger: Trigger = "timeout"
        self._closed = False
        self.over = threading.Event()

    def on_next(self, value: list[Message[Any]]) -> None:
        with self._lock:
            room = 0 if self._closed else self._n - len(self._messages)
            kept = [message for message in value if message.status == "ok"][: max(0, room)]
            self._messages += kept
            if len(self._messages) == self._n and not self._closed:
                self._trigger = "size"
                self.over.set()
        if len(kept) < len(value):
            ids = set(map(id, kept))
            rest = [message for message in value if id(message) not in ids]
            acknowledge([], [each.failed("not collected") for each in rest], self._telemetry)

    def on_error(self, error: Exception) -> None:
        self._error = error
        self.on_completed()

    def on_completed(self) -> None:
        with self._lock:
            if not self.over.is_set():
                self._trigger = "flush"
            self.over.set()

    def result(self) -> Batch[Any]:
        """What was collected; nothing is added any more."""
        with self._lock:
            self._closed = True
            messages = list(self._messages)
        if self._error is not None and not messages:
            raise self._error
        acknowledge(messages, [], self._telemetry)
        return Batch(messages, self._trigger, "collect")


@contextlib.contextmanager
def _subscribed(source: Observable[Message[Any]], collector: _Collector) -> Iterator[None]:
    """Subscribe on a thread of its own, so that a source that blocks can be interrupted."""
    gate = ChunkGate(collector)
    subscription = SingleAssignmentDisposable()

    def subscribe(*_: Any) -> None:
        subscription.disposable = subscribe_in_chunks(source, gate, None)

    def fail(error: BaseException) -> None:
        gate.on_error(as_exception(error))

    def work() -> None:
        # Inside the trampoline, RxPY's own sources emit after subscribe() has returned.
        CurrentThreadScheduler.singleton().schedule(subscribe)

    try:
        start_thread("rxtweets-collect", work, fail)
        yield
    finally:
        gate.close()
        subscription.dispose()
