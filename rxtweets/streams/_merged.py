"""A hot stream over several connections: partitions, or the same content twice."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, get_args

from reactivex import Observer, abc

from rxtweets._core import events
from rxtweets._core.connection_state import ConnectionState, StateName
from rxtweets._core.deduplication import Deduplicator
from rxtweets._core.observable import new_telemetry
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import Message
from rxtweets._support.workers import unexpected
from rxtweets.streams._base import HotStream
from rxtweets.streams._billing import Limit, PostMeter
from rxtweets.streams._gaps import Interval, SharedGaps
from rxtweets.streams._run import SharedStream, StreamRun
from rxtweets.streams._single import LiveStream

__all__ = ["MergedStream", "furthest"]

STATES: Sequence[StateName] = get_args(StateName)


def furthest(states: Sequence[ConnectionState]) -> ConnectionState:
    """Return the state that is furthest from ``connected``."""
    return max(states, key=lambda state: STATES.index(state.name))


class MergedStream(SharedStream):
    """A hot Observable over several connections; see `HotStream`.

    Each connection has its own state, schedule and counters. One that fails for good ends alone,
    with `events.PartEnded`. After the last one, the merged stream ends: with the first error, if
    there is one and the stream was not stopped.

    Args:
        parts: by name.
        is_redundant: the parts have the same content: each message is delivered once, and a gap is
            a time that all of them missed.
        limit: after which the stream completes.
        meter: counts the posts of all parts.
    """

    def __init__(
        self,
        parts: Mapping[str, LiveStream],
        *,
        is_redundant: bool,
        limit: Limit,
        meter: PostMeter | None,
    ) -> None:
        super().__init__(new_telemetry([part.telemetry for part in parts.values()]))
        self._parts = dict(parts)
        self._deduplicate = Deduplicator() if is_redundant else None
        self._limit = limit
        self._state = ConnectionState("idle")
        self._gaps = gaps = SharedGaps(parts) if is_redundant else None
        self.telemetry.show("state", lambda: self.state.name)
        self.telemetry.show("lag", self._lag)
        if meter is not None:
            self.telemetry.show("posts_today", meter.today)
        if gaps is not None:
            self.telemetry.show("gaps", lambda: gaps.count)
        for name, part in self._parts.items():
            part.telemetry.bus.tap(lambda event, name=name: self._forward(name, event))  # type: ignore[misc]  # bound now

    @property
    def parts(self) -> tuple[HotStream[Any], ...]:
        """The streams of the single connections, each with its own state, events and counters."""
        return tuple(self._parts.values())

    @property
    def state(self) -> ConnectionState:
        """The state of the part that is furthest from ``connected``."""
        worst = furthest([part.state for part in self._parts.values()])
        return replace(worst, number=self._state.number)

    def _new_run(self, before: Any, scheduler: abc.SchedulerBase | None) -> StreamRun:
        del before, scheduler
        return _MergedRun(self._parts, self.telemetry, self._limit, self._deduplicate)

    def _lag(self) -> float | None:
        lags = [part.stats().lag for part in self._parts.values()]
        return max((lag for lag in lags if lag is not None), default=None)

    def _forward(self, name: str, event: events.Event) -> None:
        if isinstance(event, events.StreamEnded):
            self.telemetry.publish(events.PartEnded(event.error, part=name))
            return
        if self._gaps is not None:
            if isinstance(event, events.Gap):
                self._report_shared(self._gaps, name, event)
                return
            if isinstance(event, events.Connected):
                self._gaps.opened(name, time.time())
            elif isinstance(event, events.StateChanged) and event.state.name in {
                "stopped",
                "failed",
            }:
                self._gaps.ended(name, time.time())
        self.telemetry.publish(replace(event, part=name))
        if isinstance(event, events.StateChanged):
            self._update_state()

    def _report_shared(self, gaps: SharedGaps, name: str, gap: events.Gap) -> None:
        for piece in gaps.add(name, Interval(gap.start.timestamp(), gap.end.timestamp())):
            start, end = (datetime.fromtimestamp(at, UTC) for at in piece)
            self.telemetry.publish(events.Gap(start, end, "", ""))

    def _update_state(self) -> None:
        with self._lock:
            now = self.state
            if now == self._state:
                return
            self._state = replace(now, number=self.telemetry.count_states())
            self.telemetry.publish(events.StateChanged(self._state))


class _MergedRun(StreamRun):
    counts_delivered = False

    def __init__(
        self,
        parts: Mapping[str, LiveStream],
        telemetry: Telemetry,
        limit: Limit,
        deduplicate: Deduplicator | None,
    ) -> None:
        super().__init__(telemetry, limit, deduplicate)
        self._parts = parts
        self._subscriptions: list[abc.DisposableBase] = []
        self._left = len(parts)
        self._error: Exception | None = None
        self._is_stopped = False

    def _begin(self) -> None:
        for name, part in self._parts.items():
            part.quota = self.quota
            observer: Observer[list[Message[Any]]] = Observer(
                self.emit, self._part_ended, self._part_ended
            )
            try:
                subscription = part.subscribe_chunks(observer)
            except Exception as error:  # noqa: BLE001 - such as no more threads
                ended = unexpected("subscribing", error)
                self._telemetry.publish(events.PartEnded(ended, part=name))
                self._part_ended(ended)
                continue
            with self._lock:
                self._subscriptions.append(subscription)
                is_deserted = not self._gates
            # The stop may have come between two subscriptions.
            if is_deserted:
                subscription.dispose()
            elif self._is_stopped:
                part.stop()

    def _stop(self) -> None:
        self._is_stopped = True
        for part in self._parts.values():
            part.stop()

    def _discard(self) -> None:
        with self._lock:
            subscriptions = list(self._subscriptions)
        for subscription in subscriptions:
            subscription.dispose()

    def _part_ended(self, error: Exception | None = None) -> None:
        with self._lock:
            self._left -= 1
            self._error = self._error or error
            if self._left:
                return
        self.end(None if self._is_stopped else self._error)
