"""Bars and lines as SVG, without a charting library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rxtweets.display._html import sanitized, shortened
from rxtweets.display._svg import BLUE, GREY, PADDING, Canvas, Drawing, colour_of

LABEL_WIDTH, LABEL_CHARACTERS = 160, 22
BAR_HEIGHT, LEGEND_HEIGHT, PLOT_HEIGHT = 20, 16, 160


def bars(values: Mapping[str, float] | Iterable[tuple[str, float]], *, title: str = "") -> Drawing:
    """Draw horizontal bars from top to bottom in the given order.

    ::

        bars(Counter(languages).most_common(10), title="languages")

    Args:
        values: numbers of 0 or more, by their names.
        title: written above the bars; by default none.
    """
    rows = list(values.items() if isinstance(values, Mapping) else values)
    most = max((value for _, value in rows), default=0) or 1
    canvas = Canvas(title)
    top = 30 if title else 10
    room = canvas.width - LABEL_WIDTH - 2 * PADDING - 60
    for number, (name, value) in enumerate(rows):
        y = top + BAR_HEIGHT * number
        length = max(1.0, room * max(0.0, value) / most)
        label = shortened(sanitized(str(name)), LABEL_CHARACTERS)
        canvas.text(LABEL_WIDTH, y + 13, label, text_anchor="end")
        canvas.rectangle(LABEL_WIDTH + 8, y + 3, length, BAR_HEIGHT - 7, fill=BLUE, rx=2)
        canvas.text(LABEL_WIDTH + 14 + length, y + 13, _grouped(value), fill=GREY)
    height = top + BAR_HEIGHT * max(1, len(rows)) + 8
    text = [sanitized(f"{name}: {_grouped(value)}") for name, value in rows]
    return canvas.drawing(height, text, "bars")


def lines(
    series: Mapping[str, Sequence[float]], *, title: str = "", unit: str = "", span: str = ""
) -> Drawing:
    """Draw lines over one axis, from the oldest value on the left to the latest on the right.

    Args:
        series: numbers of 0 or more, by the names of the lines. The latest values of all lines
            are above each other; shorter lines begin further right.
        title: written above the lines; by default none.
        unit: of the values, such as ``/s``; by default none.
        span: meaning of the width, such as ``the last minute``; by default none.
    """
    longest = max((len(values) for values in series.values()), default=0)
    most = max((max(values, default=0) for values in series.values()), default=0) or 1
    canvas = Canvas(title)
    top = 34 if title else 14
    left, right, bottom = PADDING + 44, canvas.width - LABEL_WIDTH, top + PLOT_HEIGHT
    small: dict[str, str | float] = {"text_anchor": "end", "fill": GREY, "font_size": 9}
    for share in (0.0, 0.5, 1.0):
        y = bottom - PLOT_HEIGHT * share
        canvas.line(left, y, right, y, stroke="#d5dbdf")
        canvas.text(left - 6, y + 4, _grouped(most * share) + unit, **small)
    for number, (name, values) in enumerate(series.items()):
        colour, y = colour_of(number), top + LEGEND_HEIGHT * number
        start = right - (right - left) * (len(values) - 1) / max(1, longest - 1)
        _curve(canvas, _points(values, start, right, bottom, PLOT_HEIGHT / most), colour)
        latest = _grouped(values[-1]) if values else "–"
        canvas.rectangle(right + 12, y, 9, 9, fill=colour, rx=2)
        label = f"{shortened(sanitized(name), LABEL_CHARACTERS)} {latest}"
        canvas.text(right + 26, y + 9, label, fill=colour)
    if span:
        canvas.text(right, bottom + 14, span, **small)
    height = max(bottom + 22, top + LEGEND_HEIGHT * len(series) + 8)
    text = [
        sanitized(f"{name}: " + " ".join(_grouped(value) for value in values[-10:]))
        for name, values in series.items()
    ]
    return canvas.drawing(height, text, "lines")


def sparkline(
    canvas: Canvas, values: Sequence[float], x: float, y: float, width: float, height: float
) -> None:
    """Draw a small area without an axis; the highest value touches the top."""
    if not values:
        return
    bottom, right = y + height, x + width
    edge = _points(values, x, right, bottom, height / (max(values) or 1))
    area = f"{x:g},{bottom:g} {edge} {right:g},{bottom:g}"
    canvas.shape("polygon", points=area, fill="#dcebf8")
    _curve(canvas, edge, BLUE)


def _curve(canvas: Canvas, points: str, colour: str) -> None:
    if points:
        canvas.shape("polyline", points=points, fill="none", stroke=colour, stroke_width=1.6)


def _points(values: Sequence[float], left: float, right: float, bottom: float, scale: float) -> str:
    step = (right - left) / max(1, len(values) - 1)
    return " ".join(
        f"{left + step * number:.1f},{bottom - scale * max(0.0, value):.1f}"
        for number, value in enumerate(values)
    )


def _grouped(value: float) -> str:
    if value == int(value) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
