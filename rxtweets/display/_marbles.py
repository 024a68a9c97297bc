"""Marble diagrams: what streams did, and when, as SVG and as a line of characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from rxtweets.display._html import clean, shortened
from rxtweets.display._svg import (
    GREY,
    INK,
    PAPER,
    RED,
    Drawing,
    colour_of,
    line,
    page,
    rectangle,
    shape,
    words,
)

__all__ = ["Marbles", "Mark", "Strand", "draw_marbles"]

WIDTH, ROW, NAMES, MARGIN, RADIUS = 640, 44, 124, 8, 12
LONGEST_LABEL, LONGEST_NAME, LONGEST_ERROR = 6, 18, 24
MOST_TIMES = 10
CHARACTERS = 60

Colours = dict[tuple[str, int | None], str]
"""By the label of a value, and by the number of its messages if it is a list."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that a stream did.

    Attributes:
        at: seconds since the beginning of the record.
        kind: a value came, or the end, in order or by an error.
        label: of the value; equal ones have one colour, and no other has it. Of an error, what it
            says.
        count: how many messages the value holds, if it is a batch or another list; else ``None``.
    """

    at: float
    kind: Literal["next", "error", "completed"]
    label: str = ""
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Strand:
    """One stream of the diagram.

    Attributes:
        name: written before it.
        marks: in the order of their times.
    """

    name: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Marbles:
    """A record of several streams over the same time; shown as a marble diagram.

    Attributes:
        strands: from top to bottom.
        seconds: from the beginning of the record to its end.
        title: above the diagram.
    """

    strands: tuple[Strand, ...]
    seconds: float
    title: str = ""

    def __getitem__(self, name: str) -> Strand:
        """The strand of that name."""
        for strand in self.strands:
            if strand.name == name:
                return strand
        raise KeyError(name)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        drawing = draw_marbles(self)
        return {"text/plain": drawing.text, "image/svg+xml": drawing.svg}


def draw_marbles(record: Marbles) -> Drawing:
    """Draw a record: time runs from left to right, a circle is a value, a box a batch.

    A bar is the end, a cross an error. Values too close to be read are ticks.

    Args:
        record: of `record`, or made by hand.
    """
    title = record.title
    top = 26 if title else 8
    colours: Colours = {}
    parts = [words(MARGIN, 20, title, font_weight=600)] if title else []
    for number, strand in enumerate(record.strands):
        parts += _strand(strand, top + ROW * number + ROW / 2, record.seconds, colours)
    bottom = top + ROW * len(record.strands)
    parts += _scale(record.seconds, bottom)
    svg = page(WIDTH, bottom + 24, parts, title or "marble diagram")
    return Drawing(svg, _text(record))


def _strand(strand: Strand, y: float, seconds: float, colours: Colours) -> list[str]:
    right = WIDTH - MARGIN
    parts = [
        words(MARGIN, y + 4, shortened(strand.name, LONGEST_NAME), font_weight=600),
        line(NAMES, y, right + 8, y, stroke_width=1.5),
        shape("path", d=f"M{right + 6},{y - 4:g}l8,4l-8,4z", fill=GREY),
    ]
    values = [mark for mark in strand.marks if mark.kind == "next"]
    dense = _is_dense([_x(mark.at, seconds) for mark in values])
    if dense:
        parts.append(_ticks(values, y, seconds))
    for mark in values:
        colours.setdefault((mark.label, mark.count), colour_of(len(colours)))
    # Where two overlap the earlier is in front, as it came first; the end is behind both.
    for mark in reversed(strand.marks):
        x = _x(mark.at, seconds)
        if mark.kind != "next":
            parts += _end(mark, x, y)
        elif not dense:
            parts += _value(mark, x, y, colours[mark.label, mark.count])
    return parts


def _x(at: float, seconds: float) -> float:
    left, right = NAMES + RADIUS + 4, WIDTH - MARGIN - RADIUS - 4
    return left + (right - left) * min(1.0, at / seconds if seconds > 0 else 0.0)


def _is_dense(xs: Sequence[float]) -> bool:
    """Whether more than a third of the values would cover much of their neighbours."""
    close = sum(after - before < 1.3 * RADIUS for before, after in pairwise(xs))
    return close * 3 > len(xs)


def _ticks(values: Sequence[Mark], y: float, seconds: float) -> str:
    """Upright strokes, one for each half pixel that has a value: thousands are one shape."""
    places = dict.fromkeys(round(2 * _x(mark.at, seconds)) / 2 for mark in values)
    high = 6 if values[0].count is None else RADIUS
    strokes = "".join(f"M{x:g},{y - high:g}v{2 * high:g}" for x in places)
    # Of no value's colour, as one stroke stands for several.
    return shape("path", d=strokes, stroke=INK, stroke_width=1.2)


def _value(mark: Mark, x: float, y: float, colour: str) -> list[str]:
    label = shortened(clean(mark.label), LONGEST_LABEL)
    half = max(RADIUS, 3.4 * len(label) + 4)
    box = rectangle(
        min(x - half, WIDTH - 2 * half),
        y - RADIUS,
        2 * half,
        2 * RADIUS,
        rx=RADIUS if mark.count is None else 3,
        fill=colour,
        stroke=PAPER,
    )
    return [box, words(x, y + 4, label, text_anchor="middle", fill=PAPER, font_size=10)]


def _end(mark: Mark, x: float, y: float) -> list[str]:
    if mark.kind == "completed":
        return [line(x, y - RADIUS - 6, x, y + RADIUS + 6, stroke=INK, stroke_width=2.5)]
    r = RADIUS - 3
    cross = [
        line(x - r, y - r, x + r, y + r, stroke=RED, stroke_width=2.5),
        line(x - r, y + r, x + r, y - r, stroke=RED, stroke_width=2.5),
    ]
    said = shortened(clean(mark.label), LONGEST_ERROR)
    return [*cross, words(x, y + RADIUS + 9, said, text_anchor="middle", fill=RED, font_size=9)]


def _scale(seconds: float, y: float) -> list[str]:
    """The times below, at round numbers of seconds."""
    step = _step(seconds)
    marks = [number * step for number in range(math.floor(seconds / step + 1e-9) + 1)]
    parts = []
    for at in marks:
        x = _x(at, seconds)
        parts.append(line(x, y, x, y + 4))
        parts.append(words(x, y + 16, f"{at:g} s", text_anchor="middle", fill=GREY, font_size=9))
    return parts


def _step(seconds: float) -> float:
    """One, two or five times a power of ten, so that there are four to ten of them."""
    if seconds <= 0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(seconds / MOST_TIMES))
    return next(
        power * each for each in (1, 2, 5, 10, 20) if seconds / (power * each) <= MOST_TIMES
    )


def _text(record: Marbles) -> str:
    width = max((len(strand.name) for strand in record.strands), default=0)
    lines = [
        f"{clean(strand.name):<{width}}  {_characters(strand, record.seconds)}"
        for strand in record.strands
    ]
    head = [clean(record.title)] if record.title else []
    return "\n".join([*head, *lines, f"{'':<{width}}  0 … {record.seconds:g} s"])


def _characters(strand: Strand, seconds: float) -> str:
    """The strand as RxPY writes marbles: ``-`` is time, ``|`` the end, ``#`` an error.

    A value is its first character, a batch its size, or ``+`` if that is more than nine.
    """
    cells = ["-"] * CHARACTERS
    for mark in strand.marks:
        place = round((CHARACTERS - 2) * min(1.0, mark.at / seconds if seconds > 0 else 0.0))
        sign = {"completed": "|", "error": "#"}.get(mark.kind) or _sign(mark)
        if mark.kind != "next" and cells[place] != "-":
            place += 1  # the end comes after what it came with
        if cells[place] == "-":
            cells[place] = "o" if sign in "-|#" and mark.kind == "next" else sign
    return "".join(cells)


def _sign(mark: Mark) -> str:
    return "+" if mark.count is not None and mark.count > 9 else clean(mark.label)[:1]
