"""`collect`: waits for some messages of a stream."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import SingleAssignmentDisposable
from reactivex.scheduler import CurrentThreadScheduler

from rxtweets._core.acknowledgement import acknowledge
from rxtweets._core.gates import ChunkGate
from rxtweets._core.observable import subscribe_in_chunks, telemetry_of
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.batch import Batch, Trigger
from rxtweets._messages.message import Message
from rxtweets._support.validation import seconds, whole_number
from rxtweets._support.workers import as_exception, start_thread
from rxtweets.errors import ConfigurationError

__all__ = ["collect"]

T = TypeVar("T")


def collect(
    source: Observable[Message[T]], n: int = 100, timeout: float | timedelta | None = 30.0
) -> Batch[T]:
    """Wait for messages, and return them as a batch; the connection is closed in any case.

    ::

        tweets = rxtweets.collect(rxtweets.sample_stream(), 500)
        tweets.to_polars().group_by("lang").len()

    ``to_polars()``, ``to_pandas()`` and ``to_arrow()`` make tables of the batch.

    It returns early when the time has passed, when the source ends, and when it is interrupted
    (Ctrl-C, the stop button of a notebook). ``batch.info.trigger`` is ``size`` for
    ``n`` messages, ``timeout`` for the time or the interrupt, and ``flush`` for the end. Unlike the
    batches of a stream, this batch can be empty.

    The messages are acknowledged as successful. Messages beyond ``n`` that came in the same list
    are acknowledged as failed.

    Args:
        source: a stream of messages, or any Observable of them.
        n: most messages, 1 or more.
        timeout: most seconds; ``None`` for no limit.

    Returns:
        The messages.

    Raises:
        ConfigurationError: an argument is invalid.
        RxTweetsError: the source failed before the first message. If it fails later, its log and
            events report that, and the messages are returned.
    """
    if not isinstance(source, Observable):
        raise ConfigurationError(f"source={source!r}: give an Observable of messages")
    whole_number("n", n)
    limit = None if timeout is None else seconds("timeout", timeout)
    collector = _Collector(n, telemetry_of(source))
    gate = ChunkGate(collector)
    subscription = SingleAssignmentDisposable()

    def subscribe(*_: Any) -> None:
        subscription.disposable = subscribe_in_chunks(source, gate, None)

    def work() -> None:
        # Inside the trampoline, RxPY's own sources emit after subscribe() has returned.
        CurrentThreadScheduler.singleton().schedule(subscribe)

    try:
        # On another thread, so that a source that blocks can be interrupted.
        start_thread("rxtweets-collect", work, lambda error: gate.on_error(as_exception(error)))
        collector.over.wait(limit)
    except KeyboardInterrupt:
        pass
    finally:
        gate.close()
        subscription.dispose()
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

    def on_next(self, chunk: list[Message[Any]]) -> None:
        good = [message for message in chunk if message.status == "ok"]
        rest = [message for message in chunk if message.status != "ok"]
        with self._lock:
            room = 0 if self._closed else self._n - len(self._messages)
            self._messages += good[:room]
            if len(self._messages) == self._n and not self._closed:
                self._trigger = "size"
                self.over.set()
        rest += good[room:]
        if rest:
            failed = [message.failed("not collected") for message in rest]
            acknowledge([], failed, self._telemetry)

    def on_error(self, error: Exception) -> None:
        self._error = error
        self.on_completed()

    def on_completed(self) -> None:
        with self._lock:
            if not self.over.is_set():
                self._trigger = "flush"
            self.over.set()

    def result(self) -> Batch[Any]:
        with self._lock:
            self._closed = True
            messages = list(self._messages)
        if self._error is not None and not messages:
            raise self._error
        acknowledge(messages, [], self._telemetry)
        return Batch(messages, self._trigger, "collect")
