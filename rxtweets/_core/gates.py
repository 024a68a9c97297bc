"""Gates: an observer gets no value after its end, and none after its subscription is closed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from reactivex import abc

from rxtweets._core.events import Abandoned
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import Message

__all__ = ["ChunkGate", "abandon", "demand_of", "subscribing", "subscribing_for"]

T = TypeVar("T")


class _Subscribing(threading.local):
    drain: Any = None
    """The `Drain` that takes the sources to which this thread subscribes."""


subscribing = _Subscribing()


@contextmanager
def subscribing_for(drain: Any) -> Iterator[None]:
    """Make this the current drain of the thread; ``None`` for none."""
    outer, subscribing.drain = subscribing.drain, drain
    try:
        yield
    finally:
        subscribing.drain = outer


class ChunkGate(abc.ObserverBase[T]):
    """Passes values on until the end, or until `close`; from any thread.

    RxPY does this for single items in `Observable.subscribe`, which chunks bypass. The end waits
    for values that are being passed on, so any thread may end a subscription.

    Args:
        observer: of the values.
        telemetry: where to count messages that come too late; ``None`` if others count them.
        where: place of these messages, for `Abandoned`.

    Attributes:
        closed: no value passes.
    """

    def __init__(
        self,
        observer: abc.ObserverBase[T],
        telemetry: Telemetry | None = None,
        where: str = "source",
    ) -> None:
        self._observer = observer
        self._telemetry = telemetry
        self._where = where
        self._lock = threading.Lock()
        self._passing = 0
        self._end: Callable[[], None] | None = None
        self.closed: bool = False

    def demand(self, most: int) -> int:
        return 0 if self.closed else demand_of(self._observer, most)

    def on_next(self, value: T) -> None:
        if not self.pass_on(value) and self._telemetry is not None:
            abandon(value, self._telemetry, self._where)

    def pass_on(self, value: T) -> bool:
        """Pass the value on while open; return whether it was passed."""
        with self._lock:
            if self.closed:
                return False
            self._passing += 1
        try:
            if subscribing.drain is None:
                self._observer.on_next(value)
            else:  # the observer may subscribe to further sources
                with subscribing_for(None):
                    self._observer.on_next(value)
        finally:
            end = None
            with self._lock:
                self._passing -= 1
                if not self._passing:
                    end, self._end = self._end, None
            if end is not None:
                end()
        return True

    def on_error(self, error: Exception) -> None:
        self._end_with(lambda: self._observer.on_error(error))

    def on_completed(self) -> None:
        self._end_with(self._observer.on_completed)

    def close(self) -> bool:
        """Pass no further value on; return whether the gate was open."""
        with self._lock:
            was_open, self.closed = not self.closed, True
            self._end = None
            return was_open

    def _end_with(self, notify: Callable[[], None]) -> None:
        def end() -> None:
            with subscribing_for(None):
                notify()

        with self._lock:
            if self.closed:
                return
            self.closed = True
            if self._passing:
                self._end = end
                return
        end()


def demand_of(observer: abc.ObserverBase[Any], most: int) -> int:
    """Return how many messages an observer requests now, ``most`` at most.

    A source that can wait asks before it takes messages. The observer's ``demand(most)`` may block
    until it requests some, and returns 0 when it requests no more. An observer without that method
    requests all, and may block in ``on_next``.
    """
    ask: Callable[[int], int] | None = getattr(observer, "demand", None)
    return most if ask is None else ask(most)


def abandon(value: Any, telemetry: Telemetry, where: str) -> None:
    """Count the messages of a chunk or batch, or one message, as abandoned."""
    count = 1 if isinstance(value, Message) else len(value)
    telemetry.add(abandoned=count)
    telemetry.publish(Abandoned(count, where))
