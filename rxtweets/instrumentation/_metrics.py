"""What exporters need to know about snapshots: which figures only grow, and what they mean."""

from __future__ import annotations

import inspect
import re
from typing import Any, Protocol

from reactivex import Observable

from rxtweets._core.events import Event
from rxtweets._core.telemetry import StageStats, Stats
from rxtweets.errors import ConfigurationError

__all__ = [
    "GAUGES",
    "STAGE_COUNTERS",
    "Source",
    "check_source",
    "labels",
    "meanings",
    "numbers",
    "stages_of",
]

GAUGES = frozenset({"queued", "in_flight", "threads_lost", "posts_today", "lag"})
"""Figures of `Stats` that go up and down; the others only grow."""

STAGE_COUNTERS = frozenset({"busy_seconds", "capacity_seconds", "received", "done", "failed"})
"""Figures of `StageStats` that only grow, as long as the stage lives; the others go up and down."""


class Source(Protocol):
    """A stream or a pipeline: both have figures and events."""

    @property
    def events(self) -> Observable[Event]:
        """What happens."""

    def stats(self) -> Stats:
        """A snapshot of the counters."""


def check_source(source: Any) -> None:
    """Refuse what has no figures.

    Raises:
        ConfigurationError: it is neither a stream nor a pipeline.
    """
    if not (hasattr(source, "events") and callable(getattr(source, "stats", None))):
        raise ConfigurationError(f"source={source!r}: give a stream or a pipeline")


def stages_of(source: Any) -> tuple[StageStats, ...]:
    """The stages of a source, if it has some."""
    stages = getattr(source, "stages", None)
    return tuple(stages()) if callable(stages) else ()


def numbers(snapshot: Stats | StageStats) -> dict[str, float]:
    """The figures of a snapshot that are numbers and are known."""
    return {
        name: value
        for name in snapshot.__dataclass_fields__
        if isinstance(value := getattr(snapshot, name), (int, float))
    }


def labels(stage: StageStats) -> dict[str, str]:
    """What tells a stage apart from others: its name, and whatever else it says in words."""
    words = {
        name: value
        for name in stage.__dataclass_fields__
        if isinstance(value := getattr(stage, name), str) and name != "name"
    }
    return {"stage": stage.name, **words}


def meanings(kind: type[Stats | StageStats]) -> dict[str, str]:
    """What each figure means: its sentence in the docstring; nothing under ``python -OO``."""
    text = inspect.getdoc(kind) or ""
    entries = re.findall(r"^    (\w+): (.+(?:\n {8,}.+)*)", text, re.MULTILINE)
    return {name: " ".join(sentence.split()) for name, sentence in entries}
