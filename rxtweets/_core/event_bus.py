"""The event bus: events are delivered in order, one at a time, on a thread of the bus.

So neither the thread that reads the socket nor a worker runs the code of an observer.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxtweets._core.events import Event, Span
from rxtweets._support.workers import start_thread

__all__ = ["MAX_PENDING_EVENTS", "EventBus"]

log = logging.getLogger("rxtweets")

MAX_PENDING_EVENTS = 10_000

LINGER = 0.2
"""Seconds that the thread waits for another event before it ends."""


class _Channel(Observable[Any]):
    def __init__(self) -> None:
        super().__init__()
        self.observers: tuple[abc.ObserverBase[Any], ...] = ()

    def _subscribe_core(
        self, observer: abc.ObserverBase[Any], _scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        def leave() -> None:
            with self.lock:
                self.observers = tuple(other for other in self.observers if other is not observer)

        with self.lock:
            self.observers += (observer,)
        return Disposable(leave)


class EventBus:
    """Delivers events to taps and observers; from any thread.

    Attributes:
        lost: number of events lost because too many were pending.
        events: all events but spans; hot.
        spans: hot.
    """

    def __init__(self) -> None:
        self.events: _Channel = _Channel()
        self.spans: _Channel = _Channel()
        self.lost: int = 0
        self._taps: tuple[Callable[[Event], None], ...] = ()
        self._pending: deque[Event] = deque()
        self._changed = threading.Condition()
        self._running = False
        self._busy = False
        self._thread: threading.Thread | None = None

    @property
    def has_observers(self) -> bool:
        """``True`` if ``events`` has an observer; else frequent events are not published."""
        return bool(self.events.observers)

    @property
    def is_traced(self) -> bool:
        """``True`` if ``spans`` has an observer. Without one, no spans are published."""
        return bool(self.spans.observers)

    def tap(self, function: Callable[[Event], None]) -> None:
        """Call the function with every event but spans, for the life of the bus."""
        self._taps += (function,)

    def publish(self, event: Event) -> None:
        """Queue the event and return immediately; with 10,000 pending events it is lost."""
        with self._changed:
            if len(self._pending) >= MAX_PENDING_EVENTS:
                self.lost += 1
                return
            self._pending.append(event)
            if self._running:
                self._changed.notify_all()
                return
            # If the system starts no more threads, the next event tries again.
            with contextlib.suppress(RuntimeError):
                self._thread = start_thread("rxtweets-events", self._run, repeats=True)
                self._running = True

    def is_own_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until every event published so far was delivered.

        Returns:
            ``False`` after ``timeout`` seconds, and immediately on the thread of the bus.
        """
        if self.is_own_thread():
            return False
        with self._changed:
            return self._changed.wait_for(lambda: not self._pending and not self._busy, timeout)

    def _run(self) -> None:
        while (event := self._next()) is not None:
            is_span = isinstance(event, Span)
            observers = self.spans.observers if is_span else self.events.observers
            functions = [] if is_span else list(self._taps)
            for take in (*functions, *(observer.on_next for observer in observers)):
                try:
                    take(event)
                except BaseException:  # a SystemExit would end the thread
                    with contextlib.suppress(Exception):
                        log.exception("an observer of events raised on %r", event)

    def _next(self) -> Event | None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: bool(self._pending), LINGER):
                self._running = False
                return None
            self._busy = True
            return self._pending.popleft()
