"""The figures of workers, which add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from rxtweets._core.stats import Stats

__all__ = ["figures_line", "figures_of"]

FIGURES: dict[str, Callable[[Stats], int]] = {
    "delivered": lambda stats: stats.delivered,
    "processed": lambda stats: stats.processed,
    "failed": lambda stats: stats.failed + stats.batched_failed,
    "batches": lambda stats: stats.batches,
    "redelivered": lambda stats: stats.redelivered,
    "dead": lambda stats: stats.dead_lettered,
    "lost acks": lambda stats: stats.acks_lost,
}
"""Shown always, by their names."""

OTHERS: dict[str, Callable[[Stats], int]] = {
    "undecodable": lambda stats: stats.undecodable,
    "broker losses": lambda stats: stats.broker_failures,
    "abandoned": lambda stats: stats.abandoned,
}
"""Shown if they are not 0."""


def figures_of(stats: Stats) -> Counter[str]:
    """Return the figures of one process."""
    return Counter({name: count(stats) for name, count in (FIGURES | OTHERS).items()})


def figures_line(figures: Counter[str], workers: int, restarts: int = 0) -> str:
    """Return the figures in one line.

    Args:
        figures: of all processes.
        workers: processes that run now.
        restarts: processes that were started in place of others.
    """
    parts = [f"workers {workers}", *(f"{name} {figures[name]:,}" for name in FIGURES)]
    parts.append(f"restarts {restarts:,}")
    return " · ".join(parts + [f"{name} {figures[name]:,}" for name in OTHERS if figures[name]])
