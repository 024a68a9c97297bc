"""The exported metrics, and their values for one source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Protocol

from reactivex import Observable

from rxtweets._core.events import Event
from rxtweets._core.stats import StageStats, Stats
from rxtweets.errors import ConfigurationError

GAUGES = {
    "queued",
    "in_flight",
    "unsettled",
    "threads_lost",
    "posts_today",
    "backlog",
    "backlog_age",
    "lag",
}
"""Fields of `Stats` that rise and fall; its other numbers only grow."""

STAGE_GAUGES = {"concurrency", "running", "in_flight", "queued", "rate"}
"""Fields of `StageStats` that rise and fall; its other numbers only grow."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A number of `Stats`, or with the prefix ``stage.`` of `StageStats`."""

    name: str
    is_counter: bool
    description: str


def _metrics(kind: type[Stats | StageStats], prefix: str, gauges: set[str]) -> dict[str, Metric]:
    return {
        field.name: Metric(
            prefix + field.name, field.name not in gauges, f"{field.metadata['meaning']}."
        )
        for field in fields(kind)
        if str(field.type).removesuffix(" | None") in ("int", "float")
    }


STATS_METRICS = _metrics(Stats, "", GAUGES)
STAGE_METRICS = _metrics(StageStats, "stage.", STAGE_GAUGES)
METRICS = (*STATS_METRICS.values(), *STAGE_METRICS.values())
"""All exported metrics: one for each number of `Stats` and `StageStats`."""

Reading = tuple[Metric, float, dict[str, Any]]
"""A metric, its value, and the labels of its stage."""


class Source(Protocol):
    """A stream or a pipeline."""

    @property
    def events(self) -> Observable[Event]:
        """The events of the source."""

    def stats(self) -> Stats:
        """Return a snapshot of the counters."""


def check_source(source: Any) -> None:
    """Refuse an object without counters and events.

    Raises:
        ConfigurationError: it is neither a stream nor a pipeline.
    """
    if not (hasattr(source, "events") and callable(getattr(source, "stats", None))):
        raise ConfigurationError(f"source={source!r}: give a stream or a pipeline")


def stages_of(source: Any) -> tuple[StageStats, ...]:
    """Return snapshots of the stages; a source without stages has none."""
    stages = getattr(source, "stages", None)
    return tuple(stages()) if callable(stages) else ()


def readings(stats: Stats, stages: Iterable[StageStats]) -> Iterator[Reading]:
    """Yield the known values of all metrics."""
    for name, metric in STATS_METRICS.items():
        if (value := getattr(stats, name)) is not None:
            yield metric, value, {}
    for number, stage in enumerate(stages):
        labels = {"stage": stage.name, "kind": stage.kind, "number": number}
        for name, metric in STAGE_METRICS.items():
            yield metric, getattr(stage, name), labels
