"""Marble diagrams: the values of Observables over time, as SVG and as text."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from reactivex import Observable, Observer, abc
from reactivex.disposable import CompositeDisposable
from reactivex.scheduler import TimeoutScheduler, VirtualTimeScheduler

from rxtweets._messages.message import Message
from rxtweets._support.validation import seconds as checked_seconds
from rxtweets.display._html import sanitized, shortened
from rxtweets.display._svg import (
    GREY,
    INK,
    PADDING,
    PAPER,
    PICTURE_WIDTH,
    RED,
    Canvas,
    Drawing,
    colour_of,
)
from rxtweets.errors import ConfigurationError

STRAND_HEIGHT, STRAND_START, RADIUS = 44, 124, 12
MAX_MARKS = 10_000
"""Marks that are kept of a stream; a diagram of more is a solid bar."""

MAX_LABEL = 80
"""Characters of a label that are kept."""

MAX_TIMES = 10
"""Labels of the time axis."""

TEXT_COLUMNS = 60

Colours = dict[tuple[str, int | None], str]
"""By the label of a value, and by its count if it is a list."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A value, or the end, of a stream.

    Attributes:
        at: seconds since the start of the record.
        kind: ``next`` for a value, ``error`` or ``completed`` for the end.
        label: text of the value, or of the error. Equal values, and no others, have one colour.
        count: messages in the value, if it is a batch or another list; else ``None``.
    """

    at: float
    kind: Literal["next", "error", "completed"]
    label: str = ""
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Strand:
    """One stream of the diagram.

    Attributes:
        name: written before the stream.
        marks: in the order of their times.
    """

    name: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Marbles:
    """A record of several streams over the same time, which a notebook shows as marble diagram.

    Attributes:
        strands: the streams, from top to bottom.
        seconds: length of the record.
        title: written above the diagram.
    """

    strands: tuple[Strand, ...]
    seconds: float
    title: str = ""

    def __getitem__(self, name: str) -> Strand:
        """Return the stream with this name."""
        for strand in self.strands:
            if strand.name == name:
                return strand
        raise KeyError(name)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return draw_marbles(self)._repr_mimebundle_()


def record(
    streams: Mapping[str, Observable[Any]],
    seconds: float | timedelta | None = None,
    *,
    scheduler: abc.SchedulerBase | None = None,
    label: Callable[[Any], str] | None = None,
    title: str = "",
) -> Marbles:
    """Subscribe to streams, and record their values with times for a marble diagram.

    It returns when all streams have ended or the time is up, and always disposes of its
    subscriptions. It subscribes in the order of ``streams``: if a hot source comes first, the
    streams that are derived from it share its values.

    ::

        draw.record({"tweets": tweets, "batches": tweets.pipe(ops.batch(20, 0.5))}, seconds=3)

        clock = TestScheduler()                      # virtual seconds: no waiting, exact times
        source = reactivex.cold("-a--b-|", timespan=0.1, scheduler=clock)
        draw.record({"source": source, "late": source.pipe(stock.delay(0.3))}, scheduler=clock)

    Args:
        streams: Observables by the names that the diagram shows.
        seconds: the longest time; ``None``, the default, waits until all have ended, and a hot
            stream does not end.
        scheduler: clock of the record, and scheduler of the subscriptions. A scheduler with
            virtual time is run by this call. By default the real clock.
        label: returns the text of a value; by default its ``str``, or the size of a list.
        title: written above the diagram; by default none.

    Raises:
        ConfigurationError: there is no stream, or ``seconds`` cannot work.
        Exception: an error of ``label``.
    """
    if not isinstance(streams, Mapping) or not streams:
        raise ConfigurationError("streams: give Observables by their names, at least one")
    limit = None if seconds is None else checked_seconds("seconds", seconds)
    clock = scheduler or TimeoutScheduler.singleton()
    recorder = _MarbleRecorder(clock, label or _default_label, list(streams))
    subscriptions = CompositeDisposable()
    with subscriptions:
        for name, stream in streams.items():
            subscriptions.add(stream.subscribe(recorder.observer(name), scheduler=scheduler))
        if not isinstance(clock, VirtualTimeScheduler):
            recorder.over.wait(limit)
        elif limit is None:
            clock.start()
        else:
            clock.advance_to(recorder.start + limit)
    return recorder.marbles(limit, title)


class _MarbleRecorder:
    def __init__(
        self, clock: abc.SchedulerBase, label: Callable[[Any], str], names: Sequence[str]
    ) -> None:
        self._clock = clock
        self._label = label
        self._lock = threading.Lock()
        self._marks: dict[str, list[Mark]] = {name: [] for name in names}
        self._running = set(names)
        self._error: Exception | None = None
        self.over = threading.Event()
        self.start = self._now()

    def observer(self, name: str) -> abc.ObserverBase[Any]:
        return Observer(
            partial(self._add_value, name),
            lambda error: self._add_end(name, "error", f"{type(error).__name__}: {error}"),
            lambda: self._add_end(name, "completed", ""),
        )

    def marbles(self, limit: float | None, title: str) -> Marbles:
        if self._error is not None:
            raise self._error
        with self._lock:
            strands = tuple(Strand(name, tuple(marks)) for name, marks in self._marks.items())
        last = max((strand.marks[-1].at for strand in strands if strand.marks), default=0.0)
        return Marbles(strands, last if limit is None else limit, title)

    def _add_value(self, name: str, value: Any) -> None:
        try:
            label = self._label(value)
        except Exception as error:  # noqa: BLE001 - of the user; raised by `record`
            self._error = self._error or error
            self.over.set()
            return
        mark = Mark(self._now() - self.start, "next", label, _count_of(value))
        with self._lock:
            if len(self._marks[name]) < MAX_MARKS:
                self._marks[name].append(mark)

    def _add_end(self, name: str, kind: Literal["error", "completed"], label: str) -> None:
        with self._lock:
            self._marks[name].append(Mark(self._now() - self.start, kind, label))
            self._running.discard(name)
            if not self._running:
                self.over.set()

    def _now(self) -> float:
        return self._clock.to_seconds(self._clock.now)


def _count_of(value: Any) -> int | None:
    is_list = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    return len(value) if is_list else None


def _default_label(value: Any) -> str:
    data = value.data if isinstance(value, Message) else value
    count = _count_of(data)
    return shortened(str(data), MAX_LABEL) if count is None else str(count)


def draw_marbles(marbles: Marbles) -> Drawing:
    """Draw a marble diagram: time runs from left to right, a circle is a value, a box a batch.

    A bar is the completion, a cross an error. Values too close to be read are ticks.
    """
    canvas = Canvas(marbles.title)
    top = 26 if marbles.title else 8
    colours: Colours = {}
    for number, strand in enumerate(marbles.strands):
        y = top + STRAND_HEIGHT * number + STRAND_HEIGHT / 2
        _draw_strand(canvas, strand, y, marbles.seconds, colours)
    bottom = top + STRAND_HEIGHT * len(marbles.strands)
    _draw_times(canvas, marbles.seconds, bottom)
    return canvas.drawing(bottom + 24, _text_lines(marbles), "marble diagram")


def _draw_strand(
    canvas: Canvas, strand: Strand, y: float, seconds: float, colours: Colours
) -> None:
    right = canvas.width - PADDING
    canvas.text(PADDING, y + 4, shortened(strand.name, 18), font_weight=600)
    canvas.line(STRAND_START, y, right + 8, y, stroke_width=1.5)
    canvas.shape("path", d=f"M{right + 6},{y - 4:g}l8,4l-8,4z", fill=GREY)
    values = [mark for mark in strand.marks if mark.kind == "next"]
    close = sum(
        _x(later.at, seconds) - _x(mark.at, seconds) < 1.3 * RADIUS
        for mark, later in pairwise(values)
    )
    is_dense = close * 3 > len(values)  # a third of the values would hide their neighbours
    if is_dense:
        # One stroke for each half pixel with a value, in no value's colour: it stands for several.
        places = dict.fromkeys(round(2 * _x(mark.at, seconds)) / 2 for mark in values)
        high = 6 if values[0].count is None else RADIUS
        strokes = "".join(f"M{x:g},{y - high:g}v{2 * high:g}" for x in places)
        canvas.shape("path", d=strokes, stroke=INK, stroke_width=1.2)
    for mark in values:
        colours.setdefault((mark.label, mark.count), colour_of(len(colours)))
    # Where two overlap the earlier is in front; the end is behind both.
    for mark in reversed(strand.marks):
        x = _x(mark.at, seconds)
        if mark.kind != "next":
            _draw_end(canvas, mark, x, y)
        elif not is_dense:
            _draw_value(canvas, mark, x, y, colours[mark.label, mark.count])


def _x(at: float, seconds: float) -> float:
    left, right = STRAND_START + RADIUS + 4, PICTURE_WIDTH - PADDING - RADIUS - 4
    return left + (right - left) * min(1.0, at / seconds if seconds > 0 else 0.0)


def _draw_value(canvas: Canvas, mark: Mark, x: float, y: float, colour: str) -> None:
    label = shortened(sanitized(mark.label), 6)
    half = max(RADIUS, 3.4 * len(label) + 4)
    canvas.rectangle(
        min(x - half, canvas.width - 2 * half),
        y - RADIUS,
        2 * half,
        2 * RADIUS,
        rx=RADIUS if mark.count is None else 3,
        fill=colour,
        stroke=PAPER,
    )
    canvas.text(x, y + 4, label, text_anchor="middle", fill=PAPER, font_size=10)


def _draw_end(canvas: Canvas, mark: Mark, x: float, y: float) -> None:
    if mark.kind == "completed":
        canvas.line(x, y - RADIUS - 6, x, y + RADIUS + 6, stroke=INK, stroke_width=2.5)
        return
    r = RADIUS - 3
    canvas.line(x - r, y - r, x + r, y + r, stroke=RED, stroke_width=2.5)
    canvas.line(x - r, y + r, x + r, y - r, stroke=RED, stroke_width=2.5)
    label = shortened(sanitized(mark.label), 24)
    canvas.text(x, y + RADIUS + 9, label, text_anchor="middle", fill=RED, font_size=9)


def _draw_times(canvas: Canvas, seconds: float, y: float) -> None:
    step = _time_step(seconds)
    for number in range(math.floor(seconds / step + 1e-9) + 1):
        at = number * step
        x = _x(at, seconds)
        canvas.line(x, y, x, y + 4)
        canvas.text(x, y + 16, f"{at:g} s", text_anchor="middle", fill=GREY, font_size=9)


def _time_step(seconds: float) -> float:
    """Return one, two or five times a power of ten, for four to ten steps."""
    if seconds <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(seconds / MAX_TIMES))
    steps: list[float] = [power * factor for factor in (1, 2, 5, 10, 20)]
    return next(step for step in steps if seconds / step <= MAX_TIMES)


def _text_lines(marbles: Marbles) -> list[str]:
    width = max((len(strand.name) for strand in marbles.strands), default=0)
    lines = [
        f"{sanitized(strand.name):<{width}}  {_ascii_marbles(strand, marbles.seconds)}"
        for strand in marbles.strands
    ]
    return [*lines, f"{'':<{width}}  0 … {marbles.seconds:g} s"]


def _ascii_marbles(strand: Strand, seconds: float) -> str:
    """Return the strand in RxPY's notation: ``-`` is time, ``|`` the completion, ``#`` an error.

    A value is its first character; a batch is its size, or ``+`` for ten and more.
    """
    cells = ["-"] * TEXT_COLUMNS
    for mark in strand.marks:
        place = round((TEXT_COLUMNS - 2) * min(1.0, mark.at / seconds if seconds > 0 else 0.0))
        if mark.kind != "next":
            sign = "|" if mark.kind == "completed" else "#"
            place += cells[place] != "-"  # the end follows a value of the same time
        elif mark.count is not None and mark.count > 9:
            sign = "+"
        else:
            sign = sanitized(mark.label)[:1]
            sign = "o" if sign in "-|#" else sign  # an empty label, too
        if cells[place] == "-":
            cells[place] = sign
    return "".join(cells)
