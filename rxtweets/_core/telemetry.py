"""Where a stream and the operators behind it count and report: counters, and one event bus."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxtweets._core.events import Event, Span
from rxtweets._messages.representation import representation
from rxtweets._support.workers import start_thread

__all__ = ["EventBus", "StageStats", "Stats", "Telemetry", "Working"]

log = logging.getLogger("rxtweets")

MAX_PENDING_EVENTS = 10_000
LINGER = 0.2


@dataclass(frozen=True, slots=True)
class Stats:
    """A snapshot of all counters, which add up once a stream is at rest.

    ``received == delivered + dropped + unsubscribed + beyond_limit + undecodable + control``,
    where ``control`` is ``keep_alives + disconnects + unknown``; and ``processed + failed`` are
    the messages that handlers were given.

    Attributes:
        state: of the connection, as in `ConnectionState`; of several, the one that is furthest
            from ``connected``.
        received: lines read, keep-alives included.
        bytes: of all lines, after decompression.
        delivered: tweets handed to the subscribers of the stream.
        dropped: lines given up because the hand-off was full.
        unsubscribed: lines that waited when the last subscriber left.
        beyond_limit: tweets that had come already when the ``limit`` was reached; X bills them.
        undecodable: lines that are not JSON, too long, or cut off.
        keep_alives: empty lines.
        disconnects: disconnects that the server announced.
        unknown: JSON that is neither a tweet nor a disconnect.
        partial: delivered tweets that carry errors about parts of them.
        connects: connections asked for.
        reconnects: those of them that followed another, without a new subscription between.
        rate_limits: refused connects: too many in the window.
        connection_limits: refused connects: the token's connection was taken.
        usage_caps: refused connects: the cap of posts is used up.
        server_errors: refused connects: trouble on the other side.
        stalls: connections given up because they had fallen silent.
        reader_crashes: times that the process of an isolated reader ended by itself.
        gaps: times that were missed and cannot be had back.
        duplicates: delivered tweets that deduplication left out.
        posts_today: distinct posts that came since midnight UTC, as X bills them.
        queued: lines waiting in the hand-off now.
        in_flight: messages in the hands of processors now.
        processed: messages that handlers returned.
        failed: messages that handlers failed.
        retried: attempts of handlers beyond the first one of each message.
        timed_out: calls of handlers that took longer than their time limit.
        expired: messages whose deadline had passed when their turn came.
        workers_lost: threads, event loops and executors that died or hung, and were replaced.
        threads_lost: threads that hang now in a call whose time limit has passed.
        failure_handler_errors: calls of ``on_failed`` that raised or gave something else back.
        batches: batches that subscribers took.
        batches_failed: batches on which a subscriber raised.
        batched: messages of batches that subscribers took.
        batched_failed: messages of batches that subscribers failed, one by one or by raising.
        unsettled: messages in batches that a subscriber has put aside for later.
        subscriber_errors: exceptions of subscribers, all told.
        acknowledger_errors: exceptions of acknowledgers.
        late_acknowledgements: of messages that the stream had acknowledged before, as after a time
            limit; the first outcome stands.
        acknowledged: messages that were settled as successful without a batcher.
        restarts: sources that failed and were subscribed to again.
        abandoned: messages in flight when a stage stopped at once or a thread of it died, and the
            rest of a list whose subscriber wanted no more.
        events_lost: events that nobody was quick enough to take.
        lag: seconds between writing and arrival of the newest tweet; ``None`` before the first.
    """

    state: str = "idle"
    received: int = 0
    bytes: int = 0
    delivered: int = 0
    dropped: int = 0
    unsubscribed: int = 0
    beyond_limit: int = 0
    undecodable: int = 0
    keep_alives: int = 0
    disconnects: int = 0
    unknown: int = 0
    partial: int = 0
    connects: int = 0
    reconnects: int = 0
    rate_limits: int = 0
    connection_limits: int = 0
    usage_caps: int = 0
    server_errors: int = 0
    stalls: int = 0
    reader_crashes: int = 0
    gaps: int = 0
    duplicates: int = 0
    posts_today: int = 0
    queued: int = 0
    in_flight: int = 0
    processed: int = 0
    failed: int = 0
    retried: int = 0
    timed_out: int = 0
    expired: int = 0
    workers_lost: int = 0
    threads_lost: int = 0
    failure_handler_errors: int = 0
    batches: int = 0
    batches_failed: int = 0
    batched: int = 0
    batched_failed: int = 0
    unsettled: int = 0
    subscriber_errors: int = 0
    acknowledger_errors: int = 0
    late_acknowledgements: int = 0
    acknowledged: int = 0
    restarts: int = 0
    abandoned: int = 0
    events_lost: int = 0
    lag: float | None = None

    @property
    def control(self) -> int:
        """Lines that are about the stream, not in it."""
        return self.keep_alives + self.disconnects + self.unknown

    def as_dict(self) -> dict[str, Any]:
        """All figures by name, ``control`` included."""
        return {**asdict(self), "control": self.control}

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return representation(self)


@dataclass(frozen=True, slots=True)
class StageStats:
    """A snapshot of one stage.

    Attributes:
        name: of the stage.
        concurrency: calls at once at most, now.
        running: calls that run now.
        in_flight: messages in the stage now, those that wait included.
        busy_seconds: that calls have taken, all together, those that run included.
        capacity_seconds: that they could have taken: the concurrency over the life of the stage.
        kind: ``source``, ``processors``, ``batcher`` or ``subscribers``.
        received: messages that came in.
        done: messages that went on from here, or succeeded.
        failed: messages that failed here.
        queued: messages that wait here.
        rate: messages a second that came in, over the last ten seconds.
        partitions: messages that came in, by partition, where the stage has partitions.
    """

    name: str
    concurrency: int
    running: int
    in_flight: int
    busy_seconds: float
    capacity_seconds: float
    kind: str = "processors"
    received: int = 0
    done: int = 0
    failed: int = 0
    queued: int = 0
    rate: float = 0.0
    partitions: tuple[int, ...] = ()

    @property
    def busy(self) -> float:
        """The share of the stage's capacity that was used, from 0 to 1."""
        return _share(self.busy_seconds, self.capacity_seconds)

    def busy_since(self, earlier: StageStats) -> float:
        """The share that was used since an earlier snapshot, from 0 to 1."""
        return _share(
            self.busy_seconds - earlier.busy_seconds,
            self.capacity_seconds - earlier.capacity_seconds,
        )


def _share(used: float, there: float) -> float:
    return min(1.0, max(0.0, used / there)) if there > 0 else 0.0


class EventBus:
    """Carries events to their observers on a thread of its own, one at a time, in order.

    So neither the thread that reads the socket nor a worker ever runs an observer's code. The
    thread lives while there are events and ends shortly after the last.

    Attributes:
        lost: events that were too many.
        events: all but spans, for whoever subscribes.
        spans: for whoever subscribes.
        is_traced: whether somebody has subscribed to spans; without that none are made.
    """

    def __init__(self) -> None:
        self._observers: tuple[abc.ObserverBase[Event], ...] = ()
        self._span_observers: tuple[abc.ObserverBase[Span], ...] = ()
        self.is_traced = False
        self._taps: tuple[Callable[[Event], None], ...] = ()
        self._pending: deque[Event] = deque()
        self._changed = threading.Condition()
        self._running = False
        self._busy = False
        self._thread: threading.Thread | None = None
        self.lost = 0
        self.events: Observable[Event] = Observable(self._subscribe)
        self.spans: Observable[Span] = Observable(self._subscribe_to_spans)

    @property
    def has_observers(self) -> bool:
        """Whether anybody but the log listens: events of every day are not made for nobody."""
        return bool(self._observers)

    def tap(self, function: Callable[[Event], None]) -> None:
        """Call ``function`` with every event for the life of the bus; for logs."""
        self._taps += (function,)

    def publish(self, event: Event) -> None:
        """Queue the event and return at once; beyond 10,000 waiting events it is counted lost."""
        with self._changed:
            if len(self._pending) >= MAX_PENDING_EVENTS:
                self.lost += 1
                return
            self._pending.append(event)
            if self._running:
                self._changed.notify_all()
                return
            # Where no more threads can be started, the next event tries again.
            with contextlib.suppress(RuntimeError):
                self._thread = start_thread("rxtweets-events", self._run, goes_on=True)
                self._running = True

    def is_own_thread(self) -> bool:
        """Whether this is the thread that calls the observers."""
        return threading.current_thread() is self._thread

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until every event published so far was delivered.

        Args:
            timeout: seconds to wait at most.

        Returns:
            Whether it came to that; at once ``False`` on the bus's own thread.
        """
        if self.is_own_thread():
            return False
        with self._changed:
            return self._changed.wait_for(lambda: not self._pending and not self._busy, timeout)

    def _subscribe(
        self, observer: abc.ObserverBase[Event], _scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        with self._changed:
            self._observers += (observer,)
        return Disposable(lambda: self._remove(observer))

    def _subscribe_to_spans(
        self, observer: abc.ObserverBase[Span], _scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        with self._changed:
            self._span_observers += (observer,)
            self.is_traced = True
        return Disposable(lambda: self._remove(observer))

    def _remove(self, observer: abc.ObserverBase[Any]) -> None:
        with self._changed:
            self._observers = tuple(each for each in self._observers if each is not observer)
            self._span_observers = tuple(
                each for each in self._span_observers if each is not observer
            )
            self.is_traced = bool(self._span_observers)

    def _takers(self, event: Event) -> Iterator[Callable[[Any], None]]:
        if isinstance(event, Span):
            yield from (observer.on_next for observer in self._span_observers)
        else:
            yield from self._taps
            yield from (observer.on_next for observer in self._observers)

    def _run(self) -> None:
        while (event := self._next()) is not None:
            for take in self._takers(event):
                try:
                    take(event)
                except BaseException:  # a SystemExit would end the thread of all others
                    with contextlib.suppress(Exception):
                        log.exception("an observer of events raised on %r", event)

    def _next(self) -> Event | None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            if not self._pending:
                self._changed.wait_for(lambda: bool(self._pending), LINGER)
            if not self._pending:
                self._running = False
                return None
            self._busy = True
            return self._pending.popleft()


class Working:
    """A thread works for a stream within the block.

    A class, since a generator costs a microsecond more, and there is one for every batch.
    """

    __slots__ = ("_here", "_outside")

    def __init__(self, here: threading.local) -> None:
        self._here = here
        self._outside = False

    def __enter__(self) -> None:
        self._outside = getattr(self._here, "working", False)
        self._here.working = True

    def __exit__(self, *_: object) -> None:
        self._here.working = self._outside


class Telemetry:
    """The counters and the event bus of one stream and of the operators behind it.

    Args:
        parts: those of the streams that this one is made of; their counts are added.
        source: the function that made the stream, such as ``sample_stream``; empty where there is
            no source of ours.
    """

    def __init__(self, parts: Sequence[Telemetry] = (), source: str = "") -> None:
        self._parts = tuple(parts)
        self.source = source
        self._lock = threading.Lock()
        self._counts = dict.fromkeys((field.name for field in fields(Stats)), 0)
        self._gauges: dict[str, list[Callable[[], int]]] = {}
        self._shown: dict[str, Callable[[], Any]] = {}
        self._moments = itertools.count()
        self._stages: dict[int, Callable[[], StageStats]] = {}  # by the moment of their beginning
        self._last_stages: list[tuple[int, StageStats]] = []  # with the moment of their end
        self._here = threading.local()
        self._states = 0
        self.bus = EventBus()
        self.failures: Any = ()  # whoever keeps them, on a layer above

    def add(self, **amounts: int) -> None:
        """Add to counters; all of them in one step, so that no snapshot sees half of it."""
        with self._lock:
            counts = self._counts
            for name, amount in amounts.items():
                counts[name] += amount

    def gauge(self, name: str, read: Callable[[], int]) -> Callable[[], None]:
        """Add this figure when a snapshot is taken, until the returned function is called."""
        with self._lock:
            self._gauges.setdefault(name, []).append(read)

        def remove() -> None:
            with self._lock, contextlib.suppress(ValueError):
                self._gauges[name].remove(read)

        return remove

    def stage(self, read: Callable[[], StageStats]) -> Callable[[], None]:
        """Show a stage in `stages`; after the returned function is called, as it was last."""
        with self._lock:
            began = next(self._moments)
            self._stages[began] = read

        def remove() -> None:
            last = read()
            with self._lock:
                if self._stages.pop(began, None) is not None:
                    kept = _without_successor(self._last_stages, {began: last})
                    self._last_stages = [*kept, (next(self._moments), last)]

        return remove

    def stages(self) -> tuple[StageStats, ...]:
        """A snapshot of the stages that work, and of those that have ended without a successor.

        The successor has the same kind and name, and began when the other had ended: those of
        several branches are all there.
        """
        with self._lock:
            reads, ended = dict(self._stages), tuple(self._last_stages)
        live = {began: read() for began, read in reads.items()}
        last = [stage for _, stage in _without_successor(ended, live)]
        parts = [stage for part in self._parts for stage in part.stages()]
        return (*parts, *last, *live.values())

    def show(self, name: str, read: Callable[[], Any]) -> None:
        """Show this figure in snapshots, in place of an earlier one."""
        with self._lock:
            self._shown[name] = read

    def count_states(self) -> int:
        """The number of the next state of the connection, from 1."""
        with self._lock:
            self._states += 1
            return self._states

    def working(self) -> Working:
        """Mark this thread as one that works for the stream, for the time of the block.

        Whoever is called from here cannot wait for the stream to end: it would wait for itself.
        """
        return Working(self._here)

    def is_working(self) -> bool:
        """Whether this thread works for the stream just now."""
        here = getattr(self._here, "working", False) or self.bus.is_own_thread()
        return here or any(part.is_working() for part in self._parts)

    def publish(self, event: Event) -> None:
        """Put an event on the bus."""
        self.bus.publish(event)

    def stats(self) -> Stats:
        """A snapshot."""
        with self._lock:
            counts: dict[str, Any] = dict(self._counts)
            gauges = {name: tuple(reads) for name, reads in self._gauges.items()}
            shown = dict(self._shown)
        counts.update({"state": "idle", "lag": None, "events_lost": self.bus.lost})
        for part in self._parts:
            _add_to(counts, part.stats())
        counts.update((name, sum(read() for read in reads)) for name, reads in gauges.items())
        counts.update((name, read()) for name, read in shown.items())
        return Stats(**counts)


def _without_successor(
    ended: Iterable[tuple[int, StageStats]], later: Mapping[int, StageStats]
) -> list[tuple[int, StageStats]]:
    """Those that no stage of the same kind and name has followed."""
    return [
        (moment, stage)
        for moment, stage in ended
        if not any(
            began > moment and (each.kind, each.name) == (stage.kind, stage.name)
            for began, each in later.items()
        )
    ]


def _add_to(counts: dict[str, Any], part: Stats) -> None:
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, int):
            counts[field.name] += value
