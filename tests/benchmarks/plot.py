"""Curves as SVG, without a charting library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Curve", "plot"]

WIDTH, HEIGHT, LEFT, TOP, GAP = 640, 260, 80, 30, 40


@dataclass(frozen=True)
class Curve:
    """Measured points of one panel, whose y axis starts at zero.

    Attributes:
        name: of the y axis.
        x: values on the x axis.
        y: the median at each of them.
        range: the least and the most at each of them.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    range: Sequence[tuple[float, float]]


def plot(label: str, curves: Sequence[Curve]) -> str:
    """Draw one panel per curve; the values on the x axis are evenly spaced."""
    height = TOP + len(curves) * (HEIGHT + GAP) + GAP
    body = "".join(
        _panel(curve, TOP + number * (HEIGHT + GAP)) for number, curve in enumerate(curves)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + 2 * LEFT}" height="{height}" '
        f'font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{body}'
        f'<text x="{LEFT + WIDTH / 2}" y="{height - 12}" text-anchor="middle">{label}; '
        "bars from the least to the most</text></svg>\n"
    )


def _panel(curve: Curve, top: float) -> str:
    most = max(1e-9, *(high for _, high in curve.range))
    step = WIDTH / max(1, len(curve.x) - 1)

    def height(value: float) -> float:
        return top + HEIGHT * (1 - value / most)

    places = [(LEFT + number * step, height(value)) for number, value in enumerate(curve.y)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    bars = "".join(
        f'<path d="M{x - 5:.1f} {height(low):.1f}h10m-5 0V{height(high):.1f}m-5 0h10" '
        'stroke="#1d6fa5" fill="none"/>'
        for (x, _), (low, high) in zip(places, curve.range, strict=True)
    )
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#1d6fa5"/>'
        f'<text x="{x + 8:.1f}" y="{y - 8:.1f}">{_short(value)}</text>'
        for (x, y), value in zip(places, curve.y, strict=True)
    )
    ticks = "".join(
        f'<text x="{x:.1f}" y="{top + HEIGHT + 16}" text-anchor="middle">{value:,g}</text>'
        for (x, _), value in zip(places, curve.x, strict=True)
    )
    return (
        f'<text x="{LEFT}" y="{top - 14}" font-weight="bold">{curve.name}</text>'
        f'<line x1="{LEFT}" y1="{top + HEIGHT}" x2="{LEFT + WIDTH}" y2="{top + HEIGHT}" '
        f'stroke="#999"/>'
        f'<polyline points="{line}" fill="none" stroke="#1d6fa5" stroke-width="2"/>'
        f"{bars}{dots}{ticks}"
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
