"""Counters, stages and events of one stream and of the operators downstream of it."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

from rxtweets._core.event_bus import EventBus
from rxtweets._core.events import Event
from rxtweets._core.failures import Failure
from rxtweets._core.stats import StageStats, Stats

__all__ = ["Telemetry", "Working"]


class Working:
    """Marks the current thread as a worker of a stream, within a ``with`` block.

    A class, since a generator costs more and each batch enters one.
    """

    __slots__ = ("_is_outermost", "_thread", "_workers")

    def __init__(self, workers: set[int]) -> None:
        self._workers = workers

    def __enter__(self) -> None:
        self._thread = threading.get_ident()
        self._is_outermost = self._thread not in self._workers
        self._workers.add(self._thread)

    def __exit__(self, *_: object) -> None:
        if self._is_outermost:
            self._workers.discard(self._thread)


class Telemetry:
    """The counters, stages and events of one stream; from any thread.

    Args:
        parts: of the streams that this one merges; their counters and gauges are added.
        source: the function that made the stream, such as ``sample_stream``; empty for a stock
            Observable.
    """

    def __init__(self, parts: Sequence[Telemetry] = (), source: str = "") -> None:
        self.source = source
        self.bus: EventBus = EventBus()
        self.failures: Iterable[Failure] = ()
        self._parts = tuple(parts)
        self._lock = threading.Lock()
        self._counts = dict.fromkeys((figure.name for figure in fields(Stats)), 0)
        self._gauges: dict[str, list[Callable[[], int]]] = {}
        self._shown: dict[str, Callable[[], Any]] = {}
        self._moments = itertools.count()
        self._stages: dict[int, Callable[[], StageStats]] = {}  # by the order of their starts
        self._ended: dict[int, int] = {}  # the order of starts and ends
        self._workers: set[int] = set()
        self._states = 0

    def add(self, **amounts: int) -> None:
        """Add to counters, all in one step, so that every snapshot is consistent."""
        with self._lock:
            counts = self._counts
            for name, amount in amounts.items():
                counts[name] += amount

    def gauge(self, name: str, read: Callable[[], int]) -> Callable[[], None]:
        """Add this figure to each snapshot, until the returned function is called."""
        with self._lock:
            self._gauges.setdefault(name, []).append(read)

        def remove() -> None:
            with self._lock, contextlib.suppress(ValueError):
                self._gauges[name].remove(read)

        return remove

    def show(self, name: str, read: Callable[[], Any]) -> None:
        """Set this figure in each snapshot, in place of an earlier one."""
        with self._lock:
            self._shown[name] = read

    def shown(self, name: str) -> Any:
        """Return the figure that `show` set; ``None`` without one."""
        with self._lock:
            read = self._shown.get(name)
        return None if read is None else read()

    def stats(self) -> Stats:
        with self._lock:
            counts: dict[str, Any] = dict(self._counts)
            gauges = {name: tuple(reads) for name, reads in self._gauges.items()}
            shown = dict(self._shown)
        counts.update(state="idle", lag=None, events_lost=self.bus.lost)
        for part in self._parts:
            stats = part.stats()
            for name in self._counts:
                if isinstance(amount := getattr(stats, name), int):
                    is_age = name == "backlog_age"
                    counts[name] = max(counts[name], amount) if is_age else counts[name] + amount
        for name, reads in gauges.items():
            counts[name] += sum(read() for read in reads)
        counts.update((name, read()) for name, read in shown.items())
        return Stats(**counts)

    def stage(self, read: Callable[[], StageStats]) -> Callable[[], None]:
        """Show a stage; after the returned function is called, show its last snapshot."""
        with self._lock:
            started = next(self._moments)
            self._stages[started] = read

        def end() -> None:
            last = replace(read(), rate=0.0)
            with self._lock:
                if self._stages.get(started) is not read:
                    return
                self._stages[started] = lambda: last
                self._ended[started] = next(self._moments)
                for moment, ended in tuple(self._ended.items()):
                    if ended < started and _is_successor(last, self._stages[moment]()):
                        del self._stages[moment], self._ended[moment]

        return end

    def stages(self) -> tuple[StageStats, ...]:
        """Return a snapshot of each stage, without those that another one has replaced.

        A successor has the same kind and name, and started after the other had ended. So stages
        of several branches are all there.
        """
        with self._lock:
            reads, ends = tuple(self._stages.items()), dict(self._ended)
        own = [(started, read()) for started, read in reads]
        current = [
            stage
            for started, stage in own
            if not any(
                later > ends.get(started, math.inf) and _is_successor(other, stage)
                for later, other in own
            )
        ]
        return (*(stage for part in self._parts for stage in part.stages()), *current)

    def count_states(self) -> int:
        """Return the number of the next state of the connection, from 1."""
        with self._lock:
            self._states += 1
            return self._states

    def working(self) -> Working:
        """Mark this thread as a worker of the stream, within a ``with`` block."""
        return Working(self._workers)

    def is_working(self) -> bool:
        """Return whether this thread works for the stream: it must not wait for its end."""
        is_ours = threading.get_ident() in self._workers or self.bus.is_own_thread()
        return is_ours or any(part.is_working() for part in self._parts)

    def publish(self, event: Event) -> None:
        self.bus.publish(event)


def _is_successor(stage: StageStats, earlier: StageStats) -> bool:
    return (stage.kind, stage.name) == (earlier.kind, earlier.name)
