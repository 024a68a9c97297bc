"""`Pipeline`: a source, processors, a batcher and its subscriber, started and stopped as one."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Any, Self, cast

from reactivex import Observable, Observer, abc
from reactivex.disposable import Disposable, SingleAssignmentDisposable
from reactivex.scheduler import CurrentThreadScheduler

from rxtweets.checks import function, seconds, whole_number
from rxtweets.display import pictures
from rxtweets.display.notebook import started
from rxtweets.errors import ConfigurationError, PipelineError
from rxtweets.events import Event
from rxtweets.instrumentation.failures import Failure
from rxtweets.message import Batch, Message
from rxtweets.observable import ChunkGate, MessageStream, subscribe_in_chunks, telemetry_of
from rxtweets.operators import batch, process
from rxtweets.telemetry import Stats

__all__ = ["Batcher", "Pipeline"]

DRAIN_TIMEOUT = 30.0

SUBSCRIBE_TIMEOUT = 1.0
"""Seconds that `Pipeline.start` waits for a source to be subscribed, so that nothing that a hot
source gives right after is missed; a source that blocks in its subscription goes on behind."""

AnySubscriber = abc.ObserverBase[Batch[Any]] | Callable[[Batch[Any]], object]


class Batcher:
    """How messages are batched, and who gets the batches.

    Args:
        subscriber: a `Subscriber`, any observer, or a plain function of one batch.
        size: messages in a batch at most.
        timeout: seconds from the first message of a batch to its emission at the latest.

    Raises:
        ConfigurationError: an argument cannot work.
    """

    def __init__(
        self, subscriber: AnySubscriber, size: int = 100, timeout: float | timedelta = 1.0
    ) -> None:
        if not callable(getattr(subscriber, "on_next", None)):
            function("subscriber", subscriber)
        self.subscriber = subscriber
        self.size = whole_number("size", size)
        self.timeout = seconds("timeout", timeout)


class Pipeline:
    """A source, concurrent processors, a batcher and its subscriber.

    ::

        pipeline = rxtweets.Pipeline(
            rxtweets.sample_stream(),
            handle_message=upcase,
            concurrency=50,
            batchers={"default": Batcher(print, size=20, timeout=2.0)},
        )
        pipeline.run()                    # until Ctrl-C, which drains

    It is made of `operators.process` and `operators.batch`, and behaves as they do. A pipeline
    runs once; make another to run again.

    Args:
        source: of messages; X's stream, or any Observable.
        handle_message: called for every message, ``concurrency`` at once; without it, messages
            are batched as they are.
        concurrency: handlers at once at most.
        ordered: keep the order of the source.
        batchers: by name; for now there is one, named ``default``.

    Raises:
        ConfigurationError: an argument cannot work.
    """

    def __init__(
        self,
        source: Observable[Message[Any]],
        *,
        handle_message: Callable[[Message[Any]], Message[Any]] | None = None,
        concurrency: int = 50,
        ordered: bool = False,
        batchers: Mapping[str, Batcher],
    ) -> None:
        if not isinstance(source, Observable):
            raise ConfigurationError(f"source={source!r}: give an Observable of messages")
        if not isinstance(batchers, Mapping) or list(batchers) != ["default"]:
            raise ConfigurationError(
                "batchers: give {'default': Batcher(...)}; there is one batcher, named default"
            )
        batcher = batchers["default"]
        if not isinstance(batcher, Batcher):
            raise ConfigurationError(f"batchers['default']={batcher!r}: give a rxtweets.Batcher")
        self._valve = _Valve(source)
        stream: Observable[Message[Any]] = self._valve.stream
        if handle_message is not None:
            stream = stream.pipe(process(handle_message, concurrency, ordered=ordered))
        self._batches = stream.pipe(batch(batcher.size, batcher.timeout))
        self._subscriber = batcher.subscriber
        self._subscription: SingleAssignmentDisposable | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._error: Exception | None = None

    @property
    def events(self) -> Observable[Event]:
        """What happens in the pipeline and its source; hot, never completes."""
        return self._batches.events

    @property
    def errors(self) -> tuple[Failure, ...]:
        """The latest 30 things that went wrong."""
        return self._batches.errors

    def stats(self) -> Stats:
        """A snapshot of all counters."""
        return self._batches.stats()

    def start(self) -> Self:
        """Start in the background and return at once.

        Raises:
            PipelineError: it was started before.
        """
        with self._lock:
            if self._subscription is not None:
                raise PipelineError("a pipeline runs once; make another one")
            self._subscription = subscription = SingleAssignmentDisposable()
        started(self)
        observer = _as_observer(self._subscriber)
        subscription.disposable = self._batches.subscribe(
            Observer(
                observer.on_next,
                lambda error: self._ended(lambda: observer.on_error(error), error),
                lambda: self._ended(observer.on_completed, None),
            )
        )
        return self

    def stop(self, *, drain: bool = True, timeout: float | timedelta = DRAIN_TIMEOUT) -> Stats:
        """Stop, and wait until it has; from any thread, also from a handler or a subscriber.

        A drain closes the source, handles what was received, delivers the last batch and
        completes the subscriber. Called on a thread that works for the pipeline or its source,
        where waiting would be for itself, it returns at once.

        Args:
            drain: ``False`` abandons what is in flight, and counts it.
            timeout: seconds for the drain; then what is left is abandoned.

        Returns:
            The last figures.
        """
        limit = seconds("timeout", timeout)
        if self._subscription is None:
            return self.stats()
        if drain:
            self._valve.shut()
            if self._batches.telemetry.is_working() or self._over.wait(limit):
                return self._last_stats()
        self._subscription.dispose()
        self._over.set()
        return self._last_stats()

    def wait(self, timeout: float | timedelta | None = None) -> bool:
        """Wait for the end.

        Args:
            timeout: seconds; ``None`` waits for ever.

        Returns:
            Whether it is over.

        Raises:
            PipelineError: it was not started.
            RxTweetsError: what ended the stream for good.
        """
        if self._subscription is None:
            raise PipelineError("wait() comes after start()")
        over = self._over.wait(None if timeout is None else seconds("timeout", timeout))
        if over and self._error is not None:
            raise self._error
        return over

    def run(self, *, timeout: float | timedelta = DRAIN_TIMEOUT) -> Stats:
        """Start and wait for the end: of the source, or by SIGINT or SIGTERM, which drain.

        A second signal stops at once. Off the main thread, where Python takes no signals, only
        `stop` and the source end it.

        Args:
            timeout: seconds for the drain.

        Returns:
            The last figures.

        Raises:
            RxTweetsError: what ended the stream for good.
        """
        limit = seconds("timeout", timeout)
        asked = threading.Event()
        with _signals(asked):
            self.start()
            try:
                while not self._over.wait(0.1) and not asked.is_set():
                    pass
                self._drain(asked, limit)
            finally:
                self.stop(drain=False)
        if self._error is not None:
            raise self._error
        return self.stats()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(drain=kind is None)

    def _ipython_display_(self) -> None:
        pictures.show(self)

    def _drain(self, asked: threading.Event, limit: float) -> None:
        asked.clear()
        self._valve.shut()
        deadline = time.monotonic() + limit
        while not self._over.wait(0.05) and not asked.is_set() and time.monotonic() < deadline:
            pass

    def _ended(self, tell: Callable[[], None], error: Exception | None) -> None:
        self._error = error
        try:
            tell()
        finally:
            self._over.set()

    def _last_stats(self) -> Stats:
        self._batches.telemetry.bus.flush()
        return self.stats()


class _Valve:
    """The source, subscribed on a thread of its own, with a way to end it in order."""

    def __init__(self, source: Observable[Message[Any]]) -> None:
        self._source = source
        self._gate: _Gate | None = None
        self._upstream = SingleAssignmentDisposable()
        self._finish: Callable[[], None] | None = None
        self._subscribed = threading.Event()
        self._is_shut = False
        self.stream: MessageStream[Any] = MessageStream(self._open, telemetry_of(source))

    def shut(self) -> None:
        """End the source; a hot stream of ours delivers first what it has received."""
        self._is_shut = True
        if self._finish is not None:
            self._finish()
        elif self._gate is not None:
            self._upstream.dispose()
            self._gate.on_completed()

    def _open(
        self,
        observer: abc.ObserverBase[list[Message[Any]]],
        scheduler: abc.SchedulerBase | None,
    ) -> abc.DisposableBase:
        gate = self._gate = _Gate(observer)

        def subscribe(*_: Any) -> None:
            upstream = subscribe_in_chunks(self._source, gate, scheduler)
            self._finish = getattr(upstream, "finish", None)
            self._upstream.disposable = upstream
            self._subscribed.set()
            if self._is_shut:
                self.shut()

        def work() -> None:
            # Inside the trampoline, RxPY's own sources emit after subscribe() has returned, so
            # that there is something to dispose while they do.
            CurrentThreadScheduler.singleton().schedule(subscribe)

        threading.Thread(target=work, name="rxtweets-source", daemon=True).start()
        self._subscribed.wait(SUBSCRIBE_TIMEOUT)
        return Disposable(self._close)

    def _close(self) -> None:
        self._upstream.dispose()


class _Gate(abc.ObserverBase[list[Message[Any]]]):
    """Lets the end wait for a chunk that is being passed on: a source is ended by any thread."""

    def __init__(self, observer: abc.ObserverBase[list[Message[Any]]]) -> None:
        self._observer = ChunkGate(observer)
        self._lock = threading.Lock()
        self._passing = 0
        self._end: Callable[[], None] | None = None

    def on_next(self, chunk: list[Message[Any]]) -> None:
        with self._lock:
            if self._end is not None:
                return
            self._passing += 1
        try:
            self._observer.on_next(chunk)
        finally:
            with self._lock:
                self._passing -= 1
                end = None if self._passing else self._end
        if end is not None:
            end()

    def on_error(self, error: Exception) -> None:
        self._end_with(lambda: self._observer.on_error(error))

    def on_completed(self) -> None:
        self._end_with(self._observer.on_completed)

    def _end_with(self, end: Callable[[], None]) -> None:
        with self._lock:
            if self._end is not None:
                return
            self._end = end
            waits = bool(self._passing)
        if not waits:
            end()


def _as_observer(subscriber: AnySubscriber) -> abc.ObserverBase[Batch[Any]]:
    if callable(getattr(subscriber, "on_next", None)):
        return cast("abc.ObserverBase[Batch[Any]]", subscriber)
    return Observer(cast("Callable[[Any], None]", subscriber), lambda _error: None)


@contextlib.contextmanager
def _signals(asked: threading.Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM set the event, for the time of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(_number: int, _frame: FrameType | None) -> None:
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
