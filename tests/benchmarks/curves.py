"""Curves of throughput and cost over rate, size, concurrency, batch size and subscribers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.plot import Curve, plot
from tests.benchmarks.running import Bench

__all__ = ["SUBSCRIBERS", "draw"]

SUBSCRIBERS = (1, 2, 5, 10)
SHOWN = {"tweets_per_second": "tweets/s", "cores": "cores"}

Settings = tuple[dict[str, Any], Sequence[str]]
"""Options of `workload.Workload`, and arguments of `server.py`."""


@dataclass(frozen=True)
class Plan:
    """The content of one picture.

    Attributes:
        name: of its file.
        label: of the x axis.
        values: on the x axis.
        settings: of the runs at one value.
    """

    name: str
    label: str
    values: Sequence[int]
    settings: Callable[[int], Settings]


PLANS = (
    Plan(
        "rate",
        "tweets/s offered",
        (100, 1_000, 10_000, 30_000, 60_000, 100_000, 150_000),
        lambda x: ({}, ("--rate", str(x))),
    ),
    Plan(
        "concurrency",
        "concurrency, handlers block 5 ms",
        (1, 5, 20, 50, 100, 200),
        lambda x: ({"concurrency": x, "block": 0.005}, ()),
    ),
    Plan("batch", "messages in a batch", (1, 5, 20, 100, 1000), lambda x: ({"batch": x}, ())),
    Plan("subscribers", "subscribers", SUBSCRIBERS, lambda x: ({"subscribers": x}, ())),
    Plan(
        "size",
        "bytes of a tweet, about",
        (1_000, 2_500, 5_000, 10_000, 20_000),
        lambda x: ({}, ("--bytes", str(0 if x == 1_000 else x))),
    ),
)


def draw(bench: Bench, directory: Path) -> None:
    """Measure all points, print them, and write a picture for each plan."""
    directory.mkdir(parents=True, exist_ok=True)
    for plan in PLANS:
        points = [_measured(bench, plan, value) for value in plan.values]
        drawn = [
            Curve(
                SHOWN[name],
                plan.values,
                [statistics.median(point[name]) for point in points],
                [(min(point[name]), max(point[name])) for point in points],
            )
            for name in SHOWN
        ]
        (directory / f"{plan.name}.svg").write_text(plot(plan.label, drawn))


def _measured(bench: Bench, plan: Plan, value: int) -> dict[str, list[float]]:
    work, server = plan.settings(value)
    runs = [bench.run(work, server) for _ in range(bench.runs)]
    point = {name: [figures[name] for figures in runs] for name in SHOWN}
    shown = ", ".join(
        f"{SHOWN[name]} {statistics.median(got):,.2f} [{min(got):,.2f} .. {max(got):,.2f}]"
        for name, got in point.items()
    )
    print(f"{plan.name} {value}: {shown}", flush=True)
    return point
