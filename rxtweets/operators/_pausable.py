"""`pausable`: messages that can be held back for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable, abc
from reactivex.scheduler import VirtualTimeScheduler

from rxtweets._core.events import Abandoned
from rxtweets._core.observable import (
    MessageStream,
    current_drain,
    demand_of,
    subscribe_in_chunks,
    telemetry_of,
)
from rxtweets._core.telemetry import Telemetry
from rxtweets._core.valve import Valve
from rxtweets._messages.message import Message
from rxtweets.errors import ConfigurationError

__all__ = ["Pausing", "pausable"]

T = TypeVar("T")

Chunk = list[Message[Any]]


def pausable(valve: Valve) -> Callable[[Observable[Message[T]]], MessageStream[T]]:
    """Let messages through while the valve is open; while it is paused they wait, in order.

    ::

        source           --1--2-----3--4--5--|
        valve            ------pause----resume
        pausable(valve)  --1--2---------34-5-|

    It is the source that waits: X's stream fills its hand-off and its overflow policy decides, a
    source that is asked (`rxtweets.polling_source`) is not asked, and one that emits on a thread
    of yours makes that thread wait. Under a scheduler of virtual time nothing can be made to wait,
    and messages queue.

    Args:
        valve: a `rxtweets.Valve`.

    Raises:
        ConfigurationError: it is none.
    """
    if not isinstance(valve, Valve):
        raise ConfigurationError(f"valve={valve!r}: give a rxtweets.Valve")

    def operator(source: Observable[Message[T]]) -> MessageStream[T]:
        telemetry = telemetry_of(source)

        def subscribe(
            observer: abc.ObserverBase[Chunk], given: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            may_wait = not isinstance(given, VirtualTimeScheduler)
            pausing = Pausing(observer, valve, telemetry, may_wait=may_wait)
            if (drain := current_drain()) is not None:
                drain.lift(pausing.lift)
            pausing.listen(lambda chunks: subscribe_in_chunks(source, chunks, given))
            return pausing

        return MessageStream(subscribe, telemetry)

    return operator


class Pausing(abc.ObserverBase[Chunk], abc.DisposableBase):
    """Holds messages back while the valve is paused.

    Args:
        observer: of what goes on.
        valve: says when.
        telemetry: where to count and report.
        may_wait: whether the source's thread may be made to wait; else chunks are kept.
    """

    def __init__(
        self,
        observer: abc.ObserverBase[Chunk],
        valve: Valve,
        telemetry: Telemetry,
        *,
        may_wait: bool,
    ) -> None:
        self._observer = observer
        self._valve = valve
        self._telemetry = telemetry
        self._may_wait = may_wait
        self._lock = threading.RLock()
        self._kept: list[Chunk] = []
        self._end: Callable[[], None] | None = None
        self._lifted = False
        self._disposed = False
        self._source: abc.DisposableBase | None = None
        self._forget = valve.listen(self._look)

    def listen(self, subscribe: Callable[[abc.ObserverBase[Chunk]], abc.DisposableBase]) -> None:
        """Subscribe to the source; what it gives before that returns is taken too."""
        source = subscribe(self)
        self._source = source
        if self._disposed:
            source.dispose()

    def demand(self, most: int) -> int:
        """Wait until messages are wanted; how many."""
        while True:
            self._wait()
            if self._is_held() or self._is_free():
                return 0
            wanted = demand_of(self._observer, most)
            if not self._is_held() or not self._may_wait:
                return 0 if self._is_held() or self._is_free() else wanted
            # Paused while whoever comes behind was full: nothing is taken now.

    def on_next(self, chunk: Chunk) -> None:
        """Pass the chunk on, now or later."""
        self._wait()
        if self._disposed:
            self._abandon(len(chunk))
        elif self._is_held():
            self._kept.append(chunk)
        else:
            self._observer.on_next(chunk)

    def on_error(self, error: Exception) -> None:
        """Pass the error on, after what was kept."""
        self._end = lambda: self._observer.on_error(error)
        self._look()

    def on_completed(self) -> None:
        """Pass the end on, after what was kept."""
        self._end = self._observer.on_completed
        self._look()

    def lift(self) -> None:
        """Hold nothing back any more, and want nothing more: a drain gives on what was received."""
        self._lifted = True
        self._valve.wake()

    def dispose(self) -> None:
        """Stop at once; what waits is counted abandoned."""
        self._disposed = True
        if self._source is not None:
            self._source.dispose()
        self._valve.wake()
        self._forget()

    def _wait(self) -> None:
        if self._may_wait:
            self._valve.wait(self._is_free)

    def _is_free(self) -> bool:
        return self._lifted or self._disposed

    def _is_held(self) -> bool:
        return self._valve.is_paused and not self._is_free()

    def _look(self) -> None:
        """The valve may have changed: give on what may go."""
        with self._lock:
            while self._kept and not self._is_held():
                chunk = self._kept.pop(0)
                if self._disposed:
                    self._abandon(len(chunk))
                else:
                    self._observer.on_next(chunk)
            end = None if self._kept else self._end
            if end is None:
                return
            self._end = None
            self._forget()
        if not self._disposed:
            end()

    def _abandon(self, count: int) -> None:
        self._telemetry.add(abandoned=count)
        self._telemetry.publish(Abandoned(count, "pause"))
