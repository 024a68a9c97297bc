"""A pipeline or a stream at one moment, as the JSON values that the page shows."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from reactivex.disposable import SerialDisposable

from rxtweets._core.events import BatchDelivered, BatchFailed, Event
from rxtweets._core.stats import StageStats, Stats
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets.display._html import sanitized, shortened
from rxtweets.display._live import Watch
from rxtweets.display._snapshot import Snapshot
from rxtweets.display._text import data_text, duration
from rxtweets.display._topology import draw_topology

__all__ = ["Card", "PipelineCard", "Point", "ReportedCard", "Values", "problem_of"]

Values = dict[str, Any]
"""A card, as JSON."""

Point = dict[str, float | None]
"""A point of the timeline, as JSON: figures of its moment, and counts since the last point."""

SHOWN_FAILURES, SHOWN_TWEETS, SHOWN_BATCHES = 10, 3, 5
MAX_TWEET, MAX_REASON = 280, 400

COUNTED: dict[str, Callable[[Stats], int]] = {
    "in": lambda stats: stats.delivered,
    "failed": lambda stats: stats.failed + stats.batched_failed,
    "lost": lambda stats: stats.dropped + stats.undecodable + stats.abandoned,
    "gaps": lambda stats: stats.gaps,
    "reconnects": lambda stats: stats.reconnects,
}
"""The counts of a `Point`."""

FIGURES: dict[str, Callable[[Stats], int]] = {
    "delivered": lambda stats: stats.delivered,
    "processed": lambda stats: stats.processed,
    "batches": lambda stats: stats.batches,
    "in flight": lambda stats: stats.in_flight,
    "waiting": lambda stats: stats.queued,
}
"""Shown always."""

LOSSES: dict[str, Callable[[Stats], int]] = {
    "dropped": lambda stats: stats.dropped,
    "failed": lambda stats: stats.failed + stats.batched_failed,
    "gaps": lambda stats: stats.gaps,
    "reconnects": lambda stats: stats.reconnects,
}
"""Shown always, and marked when they are not 0."""

RARE_LOSSES = (
    "stalls", "undecodable", "unknown", "abandoned", "dead_lettered", "acks_lost",
    "broker_failures", "subscriber_errors", "acknowledger_errors", "late_acknowledgements",
    "events_lost",
)  # fmt: skip
"""Shown and marked when they are not 0."""

RARE_FIGURES = ("duplicates", "retried", "redelivered", "backlog", "posts_today")
"""Shown when they are not 0."""


class Card(Protocol):
    """One part of the page.

    Attributes:
        name: the heading.
    """

    name: str

    def point(self) -> Point:
        """Return the figures that are drawn over time; called once a second."""

    def values(self) -> Values:
        """Return everything else that the page shows of it."""


def problem_of(error: BaseException) -> Values:
    """Return the values of a card that raised."""
    return {"problem": sanitized(f"this cannot be shown: {type(error).__name__}: {error}")}


class Pulse:
    """Makes the points of the timeline from successive counters."""

    def __init__(self) -> None:
        self._before = Stats()
        self._at = time.monotonic()

    def point(self, stats: Stats) -> Point:
        """Return the point of now. Counters that have fallen were reset, and count as 0."""
        before, self._before = self._before, stats
        at, self._at = self._at, time.monotonic()
        counts = {name: max(0, of(stats) - of(before)) for name, of in COUNTED.items()}
        return counts | {
            "at": time.time(),
            "rate": counts["in"] / max(1e-3, self._at - at),
            "waiting": stats.queued,
            "in flight": stats.in_flight,
            "lag": stats.lag,
        }


class PipelineCard:
    """Shows a pipeline or a hot stream.

    Args:
        shown: the pipeline or stream.
        name: the heading.
    """

    def __init__(self, shown: Any, name: str) -> None:
        self.shown = shown
        self.name = name
        self._watch = Watch(shown)
        self._pulse = Pulse()
        self._batches = _BatchSample(shown)
        self._loads: dict[tuple[str, str, int], StageStats] = {}

    def point(self) -> Point:
        return self._pulse.point(self.shown.stats())

    def values(self) -> Values:
        stats, snapshot = self.shown.stats(), self._watch.look()
        errors = tuple(self.shown.errors)
        # The page itself has a timeline and a list of failures.
        picture = draw_topology(replace(snapshot, rates=(), errors=()))
        return {
            "name": self.name,
            "state": snapshot.state,
            "is over": snapshot.is_over and snapshot.state != "idle",  # a stream may start again
            "picture": picture.svg,
            "figures": _figures(stats),
            "stages": self._stages(),
            "failures": [_failure(failure) for failure in reversed(errors[-SHOWN_FAILURES:])],
            "batches": self._batches.latest(),
            "settings": _settings(self.shown),
            "actions": self._actions(snapshot),
        }

    def _stages(self) -> list[Values]:
        given: Sequence[StageStats] = getattr(self.shown, "stages", tuple)()
        if not hasattr(self.shown, "topology"):
            given = given[::-1]  # operators subscribe to their source, so the last one comes first
        counts = Counter((stage.kind, stage.name) for stage in given)
        seen: Counter[tuple[str, str]] = Counter()
        rows = []
        for stage in given:
            same = stage.kind, stage.name
            seen[same] += 1  # a stream can have several processors
            number = str(seen[same]) if counts[same] > 1 else ""
            name = "" if stage.name == stage.kind else sanitized(stage.name)
            busy = self._busy(stage, (*same, seen[same]))
            rows.append(_stage(stage, " ".join(filter(None, (name, number))), busy))
        return rows

    def _busy(self, stage: StageStats, key: tuple[str, str, int]) -> float | None:
        before = self._loads.get(key)
        self._loads[key] = stage
        if not stage.capacity_seconds:
            return None  # a source has no calls
        return stage.busy if before is None else stage.busy_since(before)

    def _actions(self, snapshot: Snapshot) -> list[str]:
        if snapshot.is_over:
            return []
        paused = getattr(self.shown, "is_paused", None)
        return ([] if paused is None else ["resume" if paused else "pause"]) + ["drain"]


class ReportedCard:
    """Shows a pipeline of another process, by its reports.

    Args:
        name: the heading.
        report: returns the latest counters and values; ``None`` before the first report.
        is_running: whether the process runs.
    """

    def __init__(
        self,
        name: str,
        report: Callable[[], tuple[Stats, Values] | None],
        is_running: Callable[[], bool],
    ) -> None:
        self.name = name
        self._report = report
        self._is_running = is_running
        self._pulse = Pulse()

    def point(self) -> Point:
        reported = self._report()
        return self._pulse.point(Stats() if reported is None else reported[0])

    def values(self) -> Values:
        reported = self._report()
        if reported is None:
            return {"name": self.name, "problem": "no report from this process yet"}
        values = reported[1] | {"name": self.name, "actions": []}
        if self._is_running() or values.get("is over"):
            return values
        return values | {"state": "its process has ended"}


class _BatchSample:
    """Keeps one batch of each second.

    Events of batches cost time, and are published only while an observer is subscribed. So it
    subscribes once a second, until the next batch.
    """

    def __init__(self, shown: Any) -> None:
        self._shown = shown
        self._listening = SerialDisposable()
        self._is_listening = False
        self._latest: deque[Values] = deque(maxlen=SHOWN_BATCHES)

    def latest(self) -> list[Values]:
        if not self._is_listening:
            self._is_listening = True
            self._listening.disposable = self._shown.events.subscribe(self._note)
        return list(self._latest)

    def _note(self, event: Event) -> None:
        if self._is_listening and isinstance(event, BatchDelivered | BatchFailed):
            # In this order: a subscription of `latest` meanwhile would be disposed of at once.
            self._listening.disposable = None
            self._is_listening = False
            self._latest.appendleft(_batch(event.batch, has_failed=isinstance(event, BatchFailed)))


def _stage(stage: StageStats, name: str, busy: float | None) -> Values:
    return {
        "kind": stage.kind,
        "name": name,
        "rate": stage.rate,
        "running": stage.running,
        "concurrency": stage.concurrency,
        "waiting": stage.queued,
        "done": stage.done,
        "failed": stage.failed,
        "busy": busy,
    }


def _figures(stats: Stats) -> list[Values]:
    usual = {name: count(stats) for name, count in FIGURES.items()}
    usual |= {name: count for name in RARE_FIGURES if (count := getattr(stats, name))}
    losses = {name: count(stats) for name, count in LOSSES.items()}
    losses |= {name: count for name in RARE_LOSSES if (count := getattr(stats, name))}
    lag = "–" if stats.lag is None else duration(stats.lag)
    return [
        {"name": "lag", "value": lag, "is loss": False},
        *(_figure(name, count) for name, count in usual.items()),
        *(_figure(name, count, is_loss=bool(count)) for name, count in losses.items()),
    ]


def _figure(name: str, count: int, *, is_loss: bool = False) -> Values:
    return {"name": name.replace("_", " "), "value": f"{count:,}", "is loss": is_loss}


def _failure(failure: Any) -> Values:
    event = failure.event
    given = getattr(event, "messages", None) or getattr(event, "batch", None)
    messages: Sequence[Message[Any]] = given or [getattr(event, "message", None)]
    found = [message for message in messages if isinstance(message, Message)]
    return {
        "at": failure.at,
        "text": sanitized(shortened(failure.text, MAX_REASON)),
        "tweets": [_tweet(message) for message in found[:SHOWN_TWEETS]],
    }


def _batch(batch: Batch[Any], *, has_failed: bool) -> Values:
    info = batch.info
    return {
        "at": time.time(),
        "text": f"{info.size:,} by {info.trigger}, batcher {sanitized(info.batcher)}",
        "has failed": has_failed,
        "tweets": [_tweet(message) for message in batch[:SHOWN_TWEETS]],
    }


def _tweet(message: Message[Any]) -> Values:
    text = data_text(message, MAX_TWEET + 1)
    return {"id": sanitized(message.id), "text": sanitized(shortened(text, MAX_TWEET))}


def _settings(shown: Any) -> list[tuple[str, str]]:
    """Return names and values; reprs hold no secrets."""
    sources = getattr(shown, "sources", (shown,))
    settings = []
    for source in sources:
        settings.append(("source", repr(source)))
        settings += getattr(source, "settings", {}).items()
    if getattr(shown, "rate_limit", None) is not None:
        settings.append(("rate limit", repr(shown.rate_limit)))
    topology = shown.topology() if hasattr(shown, "topology") else None
    if topology is not None and topology.processors is not None:
        handling = topology.processors
        order = ", in order" if handling.ordered else ""
        order += ", each partition in order" if handling.partitioned else ""
        settings.append(("handler", f"{handling.handler}, {handling.concurrency} at once{order}"))
    for batcher in () if topology is None else topology.batchers:
        size = "a size by its function" if batcher.size is None else f"{batcher.size:,} messages"
        text = f"{size} or {batcher.timeout:g} s, {batcher.concurrency} at once"
        settings.append((f"batcher {batcher.name}", f"{text}, to {batcher.subscriber}"))
    return [(sanitized(name), sanitized(value)) for name, value in settings]
