"""Several connections as one hot stream: partitions of one stream, or the same stream twice.

Each connection keeps its own state, retry and counters; one that fails leaves the others alone.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, get_args

from reactivex import abc

from rxtweets._core import events
from rxtweets._core.connection_state import ConnectionState, StateName
from rxtweets._core.deduplication import Deduplicator
from rxtweets._core.observable import (
    ChunkGate,
    SourceSubscription,
    new_telemetry,
    subscribing_for,
)
from rxtweets._messages.message import Message
from rxtweets._support.workers import start_thread, unexpected
from rxtweets.errors import RxTweetsError
from rxtweets.streams._base import Gate, HotStream, end_all, give_all
from rxtweets.streams._billing import Limit, PostMeter
from rxtweets.streams._single import LiveStream

__all__ = ["MergedStream", "furthest"]


class MergedStream(HotStream[Any]):
    """The merge of hot streams, hot itself.

    A part that fails for good ends alone, with a `events.PartEnded`; when all have ended, the
    merge does, with the first error if there was one and nobody stopped it.

    Args:
        parts: by name.
        deduplicate: lets each message through once, where the parts carry the same.
        limit: after what the merge completes.
        meter: counts the posts of all parts.
    """

    def __init__(
        self,
        parts: Mapping[str, LiveStream],
        *,
        deduplicate: Deduplicator | None,
        is_redundant: bool,
        limit: Limit,
        meter: PostMeter | None,
    ) -> None:
        streams = list(parts.values())
        super().__init__(self._join, new_telemetry([part.telemetry for part in streams]))
        self._parts = dict(parts)
        self._deduplicate = deduplicate
        self._limit = limit
        self._lock = threading.Lock()
        self._run: _Run | None = None
        self._state = ConnectionState("idle")
        self._gaps = _CommonGaps(list(parts)) if is_redundant else None
        self.telemetry.show("state", lambda: self.state.name)
        self.telemetry.show("lag", self._lag)
        if meter is not None:
            self.telemetry.show("posts_today", meter.today)
        if self._gaps is not None:
            self.telemetry.show("gaps", lambda: self._gaps.count if self._gaps else 0)
        for name, part in self._parts.items():
            if limit.messages is not None:
                part.wanted = self._wanted
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

    def stop(self) -> None:
        """Disconnect, deliver what was received, complete the subscribers; at once back.

        Without a subscriber it does nothing.
        """
        with self._lock:
            run = self._run
        if run is not None:
            run.complete()
        for part in self._parts.values():
            part.stop()

    def _join(
        self, observer: abc.ObserverBase[list[Message[Any]]], _: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        gate = ChunkGate(observer, self.telemetry, "stream")
        with self._lock:
            is_new = self._run is None or not self._run.add(gate)
            if self._run is None or is_new:
                self._run = _Run(self, self._parts, self._deduplicate, self._limit)
                self._run.add(gate)
            run = self._run
        if is_new:
            with subscribing_for(None):
                run.start()
        return SourceSubscription(gate, run.remove, run.finish, self.telemetry)

    def _wanted(self) -> int:
        # By readers that hold a lock of their own, so without ours.
        run = self._run
        return (self._limit.messages or 0) - (0 if run is None else run.delivered)

    def _lag(self) -> float | None:
        lags = [part.stats().lag for part in self._parts.values()]
        return max((lag for lag in lags if lag is not None), default=None)

    def _forward(self, name: str, event: events.Event) -> None:
        """Pass a part's event on, with the name of the part."""
        if isinstance(event, events.StateChanged):
            if event.state.name in {"stopped", "failed"} and self._gaps is not None:
                self._gaps.lost_from_now(name)
            self.telemetry.publish(replace(event, part=name))
            self._update_state()
        elif isinstance(event, events.Gap) and self._gaps is not None:
            for gap in self._gaps.common(name, event):
                self.telemetry.publish(gap)
        elif isinstance(event, events.Connected) and self._gaps is not None:
            self._gaps.found(name)
            self.telemetry.publish(replace(event, part=name))
        elif isinstance(event, events.StreamEnded):
            self.telemetry.publish(events.PartEnded(event.error, part=name))
        else:
            self.telemetry.publish(replace(event, part=name))

    def _update_state(self) -> None:
        with self._lock:
            now = self.state
            if now == self._state:
                return
            self._state = replace(now, number=self.telemetry.count_states())
            self.telemetry.publish(events.StateChanged(self._state))


STATES: Sequence[StateName] = get_args(StateName)


def furthest(states: Sequence[ConnectionState]) -> ConnectionState:
    """The state that is furthest from ``connected``."""
    return max(states, key=lambda state: STATES.index(state.name))


class _Run:
    """From the first subscription to the last, or to the end of all parts."""

    def __init__(
        self,
        stream: MergedStream,
        parts: Mapping[str, LiveStream],
        deduplicate: Deduplicator | None,
        limit: Limit,
    ) -> None:
        self._stream = stream
        self._telemetry = stream.telemetry
        self._parts = parts
        self._deduplicate = deduplicate
        self._limit = limit
        self._lock = threading.Lock()
        # One chunk at a time, whichever part it comes from; again from inside, by a stop.
        self._emitting = threading.RLock()
        self._gates: tuple[Gate, ...] = ()
        self._subscriptions: list[abc.DisposableBase] = []
        self._left = len(parts)
        self.delivered = 0
        """Messages, since the run began."""
        self._error: Exception | None = None
        self._fault: RxTweetsError | None = None
        self._is_stopped = False
        self._over = threading.Event()

    def start(self) -> None:
        for name, part in self._parts.items():
            try:
                subscription = part.subscribe_chunks(_PartObserver(self))
            except Exception as error:  # noqa: BLE001 - such as no more threads
                # It could not even begin, so it says nothing of its end itself.
                ended = unexpected("subscribing", error)
                self._telemetry.publish(events.PartEnded(ended, part=name))
                self.part_ended(ended)
                continue
            with self._lock:
                self._subscriptions.append(subscription)
                is_over = self._over.is_set()
            if is_over:
                subscription.dispose()
        if self._limit.seconds is not None:
            try:
                start_thread("rxtweets-limit", self._end_in_time, self._limit_died)
            except RuntimeError as error:  # no more threads: without a limit X would bill on
                self._limit_died(error)

    def add(self, gate: Gate) -> bool:
        """Take part in this run; ``False`` if it is over."""
        with self._lock:
            if not self._over.is_set():
                self._gates += (gate,)
            return not self._over.is_set()

    def complete(self) -> None:
        """Its end is wanted: parts that failed before have said so, and do not make it an error."""
        with self._lock:
            self._is_stopped = True

    def remove(self, gate: Gate) -> None:
        """Leave; the last one closes all connections."""
        gate.close()
        with self._lock:
            if gate not in self._gates:
                return
            self._gates = tuple(each for each in self._gates if each is not gate)
            if self._gates:
                return
            self._over.set()
            subscriptions = list(self._subscriptions)
        for subscription in subscriptions:
            subscription.dispose()

    def finish(self, *gates: Gate) -> None:
        """Complete some subscribers in order: all parts if there are no others."""
        with self._lock:
            others = tuple(each for each in self._gates if each not in gates)
            if others:
                self._gates = others
        if not others:
            self._stream.stop()
            return
        for gate in gates:
            gate.on_completed()

    def on_next(self, messages: list[Message[Any]]) -> None:
        with self._emitting, self._telemetry.working():
            if not self._gates:
                return  # all have left: what is seen here would not be new to the next run
            fresh = messages
            if self._deduplicate is not None:
                fresh = self._deduplicate.fresh(messages)
                self._telemetry.add(duplicates=len(messages) - len(fresh))
            gates = self._gates
            kept = self._within_limit(fresh)
            if kept:
                give_all(gates, kept, self.remove, self._telemetry)

    def part_ended(self, error: Exception | None) -> None:
        with self._lock:
            self._left -= 1
            self._error = self._error or error
            if self._left:
                return
            if self._is_stopped:
                self._error = None
            self._error = self._fault or self._error
            self._over.set()
            gates, self._gates = self._gates, ()
        if gates:
            ended = self._error
            known = ended if isinstance(ended, RxTweetsError) else None
            self._telemetry.publish(events.StreamEnded(known))
        with self._emitting, self._telemetry.working():
            end_all(gates, self._error, self._telemetry)

    def _within_limit(self, messages: list[Message[Any]]) -> list[Message[Any]]:
        most = self._limit.messages
        if most is None:
            return messages
        left = most - self.delivered
        kept, left_out = messages[:left], len(messages[left:])
        if 0 < left <= len(messages):
            # Subscribers may take long, and X bills what it sends meanwhile; and the parts read
            # freely again once the limit is reached.
            self._stream.stop()
        self.delivered += len(kept)
        # The parts have counted them as delivered; beyond the limit they are not.
        self._telemetry.add(delivered=-left_out, beyond_limit=left_out)
        if 0 < left <= len(messages):
            self._telemetry.publish(events.LimitReached(most, left_out))
        return kept

    def _end_in_time(self) -> None:
        if not self._over.wait(self._limit.seconds):
            delivered = self._stream.stats().delivered
            self._telemetry.publish(events.LimitReached(delivered, 0))
            self._stream.stop()

    def _limit_died(self, error: BaseException) -> None:
        """Time has no end any more, and X bills it: deliver what has come, and end."""
        self._fault = unexpected("keeping the time of the limit", error)
        self._stream.stop()


class _PartObserver(abc.ObserverBase[list[Message[Any]]]):
    """What one part says."""

    def __init__(self, run: _Run) -> None:
        self._run = run

    def on_next(self, value: list[Message[Any]]) -> None:
        self._run.on_next(value)

    def on_error(self, error: Exception) -> None:
        self._run.part_ended(error)

    def on_completed(self) -> None:
        self._run.part_ended(None)


class _CommonGaps:
    """Of connections that carry the same, only what all of them missed is missing.

    Called by one thread for each part, so it is locked.
    """

    def __init__(self, names: Sequence[str]) -> None:
        # A connection that was never made misses everything.
        self._known: dict[str, list[Span]] = {name: [(EVER, NEVER)] for name in names}
        self._reported: list[Span] = []
        self._lock = threading.Lock()
        self.count = 0

    def common(self, name: str, gap: events.Gap) -> list[events.Gap]:
        """What of this gap is known to be missing everywhere, now that this one is."""
        with self._lock:
            pieces = [(gap.start, gap.end)]
            for other, gaps in self._known.items():
                if other != name:
                    pieces = [part for piece in pieces for part in _shared(piece, gaps)]
            _keep(self._known[name], (gap.start, gap.end))
            common: list[Span] = []
            for piece in pieces:
                # What a connection misses is told when it ends and when it is there again.
                fresh = _without(piece, self._reported)
                common += fresh
                for each in fresh:
                    _keep(self._reported, each)
            self.count += len(common)
            return [events.Gap(start, end, "", "") for start, end in common]

    def lost_from_now(self, name: str) -> None:
        """This connection is over: from now on it misses everything."""
        with self._lock:
            _keep(self._known[name], (datetime.now(UTC), NEVER))

    def found(self, name: str) -> None:
        """This connection is there, for the first time or again in a new run."""
        now = datetime.now(UTC)
        with self._lock:
            self._known[name] = [(since, min(now, until)) for since, until in self._known[name]]


Span = tuple[datetime, datetime]

KEPT_GAPS = 1_000
EVER = datetime.min.replace(tzinfo=UTC)
NEVER = datetime.max.replace(tzinfo=UTC)


def _keep(spans: list[Span], span: Span) -> None:
    spans.append(span)
    del spans[:-KEPT_GAPS]


def _shared(span: Span, others: Sequence[Span]) -> list[Span]:
    """Where the span and one of the others are."""
    both = [(max(span[0], since), min(span[1], until)) for since, until in others]
    return [(start, end) for start, end in both if start < end]


def _without(span: Span, others: Sequence[Span]) -> list[Span]:
    """What of the span is in none of the others."""
    left = [span]
    for since, until in others:
        parts = [
            side
            for start, end in left
            for side in ((start, min(end, since)), (max(start, until), end))
        ]
        left = [(start, end) for start, end in parts if start < end]
    return left
