"""What stands between a source and the pipeline: it can hold messages back, and end in order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from reactivex import abc

from rxtweets.events import Abandoned
from rxtweets.message import Message
from rxtweets.observable import ChunkGate, demand_of
from rxtweets.telemetry import Telemetry

__all__ = ["EndGate", "PauseGate", "Switch"]

Chunk = list[Message[Any]]


class EndGate(abc.ObserverBase[Chunk]):
    """Lets the end wait for chunks that are being passed on: a source is ended by any thread."""

    def __init__(self, observer: abc.ObserverBase[Chunk], telemetry: Telemetry) -> None:
        self._observer = ChunkGate(observer)
        self._downstream = observer
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._passing = 0
        self._end: Callable[[], None] | None = None

    def demand(self, most: int) -> int:
        """How many messages are wanted."""
        return 0 if self._end is not None else demand_of(self._downstream, most)

    def on_next(self, chunk: Chunk) -> None:
        """Pass the chunk on; after the end it is counted abandoned."""
        with self._lock:
            is_late = self._end is not None
            self._passing += not is_late
        if is_late:
            self._telemetry.add(abandoned=len(chunk))
            self._telemetry.publish(Abandoned(len(chunk), "source"))
            return
        try:
            self._observer.on_next(chunk)
        finally:
            with self._lock:
                self._passing -= 1
                end = None if self._passing else self._end
        if end is not None:
            end()

    def on_error(self, error: Exception) -> None:
        """Pass the error on when nothing else is on its way."""
        self._end_with(lambda: self._observer.on_error(error))

    def on_completed(self) -> None:
        """Pass the end on when nothing else is on its way."""
        self._end_with(self._observer.on_completed)

    def _end_with(self, end: Callable[[], None]) -> None:
        with self._lock:
            if self._end is not None:
                return
            self._end = end
            waits = bool(self._passing)
        if not waits:
            end()


class Switch:
    """Whether a pipeline takes from its sources: one for all of them, from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._gates: tuple[PauseGate, ...] = ()
        self.is_paused = False
        self.is_open_for_good = False
        self.is_over = False

    def add(self, gate: PauseGate) -> None:
        """Let a gate know when it may give on what it holds."""
        with self._changed:
            self._gates += (gate,)

    def remove(self, gate: PauseGate) -> None:
        """The gate is of no use any more."""
        with self._changed:
            self._gates = tuple(each for each in self._gates if each is not gate)

    def set(self, *, paused: bool) -> bool:
        """Pause or resume; whether that changed anything."""
        with self._changed:
            was, self.is_paused = self.is_paused, paused
        self._wake()
        return was is not paused

    def open_for_good(self) -> None:
        """Hold nothing back any more: a drain gives on what was received."""
        self.is_open_for_good = True
        self._wake()

    def end(self) -> None:
        """Nothing is taken any more."""
        self.is_over = True
        self._wake()

    @property
    def is_closed(self) -> bool:
        """Whether messages are held back now."""
        return self.is_paused and not self.is_open_for_good and not self.is_over

    def wait(self) -> None:
        """Until messages are not held back."""
        with self._changed:
            self._changed.wait_for(lambda: not self.is_closed)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
            gates = self._gates
        for gate in gates:
            gate.look()


class PauseGate(abc.ObserverBase[Chunk]):
    """Holds back what a source gives while the pipeline is paused.

    The source's thread waits, so that a source that can wait gives no more, and X's stream fills
    its hand-off. Where nothing can be made to wait, under virtual time, chunks are kept.

    Args:
        observer: of what goes on.
        switch: says when.
        telemetry: where to count and report.
        may_wait: whether the source's thread may be made to wait.
    """

    def __init__(
        self,
        observer: abc.ObserverBase[Chunk],
        switch: Switch,
        telemetry: Telemetry,
        *,
        may_wait: bool,
    ) -> None:
        self._observer = observer
        self._switch = switch
        self._telemetry = telemetry
        self._may_wait = may_wait
        self._lock = threading.RLock()
        self._kept: list[Chunk] = []
        self._end: Callable[[], None] | None = None
        switch.add(self)

    def demand(self, most: int) -> int:
        """Wait until messages are wanted; how many."""
        while True:
            if self._may_wait:
                self._switch.wait()
            if self._is_shut():
                return 0
            wanted = demand_of(self._observer, most)
            if not self._is_shut():  # the pipeline may have been paused while it was full
                return wanted
            if not self._may_wait:
                return 0

    def on_next(self, chunk: Chunk) -> None:
        """Pass the chunk on, now or later."""
        if self._may_wait:
            self._switch.wait()
        elif self._switch.is_closed:
            self._kept.append(chunk)
            return
        if self._switch.is_over:
            self._abandon(len(chunk))
        else:
            self._observer.on_next(chunk)

    def on_error(self, error: Exception) -> None:
        """Pass the error on, after what was kept."""
        self._end = lambda: self._observer.on_error(error)
        self.look()

    def on_completed(self) -> None:
        """Pass the end on, after what was kept."""
        self._end = self._observer.on_completed
        self.look()

    def look(self) -> None:
        """The switch may have changed: give on what may go."""
        with self._lock:
            while self._kept and not self._switch.is_closed:
                chunk = self._kept.pop(0)
                if self._switch.is_over:
                    self._abandon(len(chunk))
                else:
                    self._observer.on_next(chunk)
            end = None if self._kept else self._end
            if end is None:
                return
            self._end = None
            self._switch.remove(self)
        end()

    def _is_shut(self) -> bool:
        return self._switch.is_closed or self._switch.is_over or self._switch.is_open_for_good

    def _abandon(self, count: int) -> None:
        self._telemetry.add(abandoned=count)
        self._telemetry.publish(Abandoned(count, "source"))
