"""Charts of a few kinds, as SVG: they need no library and no network, and move in a `Live`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rxtweets.display._html import clean, shortened
from rxtweets.display._svg import (
    BLUE,
    GREY,
    Drawing,
    colour_of,
    line,
    page,
    rectangle,
    shape,
    words,
)

__all__ = ["bars", "lines", "sparkline"]

WIDTH, MARGIN = 640, 8
LONGEST_NAME = 22
NAMES = 160
ROW = 20
PLOT = 160


def bars(values: Mapping[str, float] | Iterable[tuple[str, float]], *, title: str = "") -> Drawing:
    """Horizontal bars from top to bottom in the given order, such as ``Counter.most_common(10)``.

    Args:
        values: by name, none below 0.
        title: above them.
    """
    rows = list(values.items() if isinstance(values, Mapping) else values)
    most = max((value for _, value in rows), default=0) or 1
    top = 30 if title else 10
    parts = [words(MARGIN, 20, title, font_weight=600)] if title else []
    room = WIDTH - NAMES - 2 * MARGIN - 60
    for number, (name, value) in enumerate(rows):
        y = top + ROW * number
        shown = shortened(clean(str(name)), LONGEST_NAME)
        length = max(1.0, room * max(0.0, value) / most)
        parts += [
            words(NAMES, y + 13, shown, text_anchor="end"),
            rectangle(NAMES + 8, y + 3, length, ROW - 7, fill=BLUE, rx=2),
            words(NAMES + 14 + length, y + 13, _figure(value), fill=GREY),
        ]
    svg = page(WIDTH, top + ROW * max(1, len(rows)) + 8, parts, title or "bars")
    text = [clean(f"{name}: {_figure(value)}") for name, value in rows]
    return Drawing(svg, "\n".join([*([title] if title else []), *text]))


def lines(
    series: Mapping[str, Sequence[float]], *, title: str = "", unit: str = "", span: str = ""
) -> Drawing:
    """Lines over the same axis, from the oldest value on the left to the latest on the right.

    Args:
        series: values by name; none below 0. The latest of all are above each other, shorter
            series begin later.
        title: above them.
        unit: of the values, such as ``/s``.
        span: what the width stands for, such as ``the last minute``.
    """
    longest = max((len(values) for values in series.values()), default=0)
    most = max((max(values, default=0) for values in series.values()), default=0) or 1
    top = 34 if title else 14
    left, right, bottom = MARGIN + 44, WIDTH - NAMES, top + PLOT
    parts = [words(MARGIN, 20, title, font_weight=600)] if title else []
    for share in (0.0, 0.5, 1.0):
        y = bottom - PLOT * share
        label = _figure(most * share) + unit
        parts.append(line(left, y, right, y, stroke="#d5dbdf"))
        parts.append(words(left - 6, y + 4, label, text_anchor="end", fill=GREY, font_size=9))
    for number, (name, values) in enumerate(series.items()):
        colour = colour_of(number)
        start = right - (right - left) * (len(values) - 1) / max(1, longest - 1)
        parts += _curve(values, start, bottom, right, most, colour)
        latest = f"{shortened(clean(name), LONGEST_NAME)} {_figure(values[-1]) if values else '–'}"
        parts.append(rectangle(right + 12, top + 16 * number, 9, 9, fill=colour, rx=2))
        parts.append(words(right + 26, top + 16 * number + 9, latest, fill=colour))
    if span:
        parts.append(words(right, bottom + 14, span, text_anchor="end", fill=GREY, font_size=9))
    height = max(bottom + 22, top + 16 * len(series) + 8)
    text = [
        clean(f"{name}: " + " ".join(_figure(value) for value in values[-10:]))
        for name, values in series.items()
    ]
    return Drawing(
        page(WIDTH, height, parts, title or "lines"),
        "\n".join([*([title] if title else []), *text]),
    )


def sparkline(
    values: Sequence[float], x: float, y: float, width: float, height: float
) -> list[str]:
    """A small area without an axis; the tallest value touches the top."""
    most = max(values, default=0) or 1
    bottom, right = y + height, x + width
    if not values:
        return []
    edge = _points(values, x, bottom, right, most, height)
    area = f"{x:g},{bottom:g} {edge} {right:g},{bottom:g}"
    return [
        shape("polygon", points=area, fill="#dcebf8"),
        *_curve(values, x, bottom, right, most, BLUE, height=height),
    ]


def _curve(
    values: Sequence[float],
    left: float,
    bottom: float,
    right: float,
    most: float,
    colour: str,
    height: float = PLOT,
) -> list[str]:
    points = _points(values, left, bottom, right, most, height)
    style: dict[str, str | float] = {"fill": "none", "stroke": colour, "stroke_width": 1.6}
    return [shape("polyline", points=points, **style)] if points else []


def _points(
    values: Sequence[float], left: float, bottom: float, right: float, most: float, height: float
) -> str:
    step = (right - left) / max(1, len(values) - 1)
    return " ".join(
        f"{left + step * number:.1f},{bottom - height * max(0.0, value) / most:.1f}"
        for number, value in enumerate(values)
    )


def _figure(value: float) -> str:
    """Whole numbers with their groups, others with three digits that count."""
    if value == int(value) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
