"""The way of the messages, source → processors → batchers → subscribers, with its figures."""

from __future__ import annotations

from collections.abc import Sequence

from rxtweets.display._charts import sparkline
from rxtweets.display._html import clean, shortened
from rxtweets.display._snapshot import Snapshot, Stage
from rxtweets.display._svg import (
    BLUE,
    GREEN,
    GREY,
    RED,
    YELLOW,
    Drawing,
    line,
    page,
    rectangle,
    shape,
    words,
)
from rxtweets.display._text import duration, sparks

__all__ = ["draw_topology", "topology_text"]

BOX, GAP, MARGIN, TOP = 134, 32, 4, 8
"""Four columns are 640 wide: what is wider, JupyterLab cuts off beside an open file browser."""

LINE = 14
LINES = 4
HEIGHT = 26 + LINE * LINES
SPACE = 12
SHOWN_ERRORS = 3
LEAST_RATES, MOST_SPARKS = 2, 40
LONGEST_NAME, LONGEST_ERROR = 18, 96
LEAST_WIDTH = 2 * MARGIN + 3 * BOX + 2 * GAP
KINDS = ("source", "processors", "batcher", "subscriber")
STATES = {"connected": GREEN, "failed": RED, "idle": GREY, "stopped": GREY}
"""Colours of the lamps; all other states are on the way to one of these."""

Point = tuple[float, float]


def draw_topology(snapshot: Snapshot) -> Drawing:
    """Draw the stages with their figures, the rate of late, and the latest errors.

    ::

        draw_topology(snapshot_of(pipeline))  # as it is now; the pipeline itself shows it live
    """
    columns = snapshot.columns
    tall = max(len(stages) for stages in columns)
    bottom = TOP + tall * (HEIGHT + SPACE) - SPACE
    width = max(LEAST_WIDTH, 2 * MARGIN + len(columns) * (BOX + GAP) - GAP)
    parts: list[str] = []
    before: list[tuple[Stage, Point]] = []
    for number, stages in enumerate(columns):
        x = MARGIN + number * (BOX + GAP)
        here = _places(stages, x, bottom)
        parts += _arrows(before, here, is_over=snapshot.is_over)
        for stage, (left, middle) in here:
            parts += _box(stage, left, middle - HEIGHT / 2)
        before = here
    foot, height = _foot(snapshot, bottom + 10, width)
    svg = page(width, height, [*parts, *foot], f"{snapshot.state}: {_passed(columns[0])} messages")
    return Drawing(svg, topology_text(snapshot))


def _places(stages: Sequence[Stage], x: float, bottom: float) -> list[tuple[Stage, Point]]:
    """Where the boxes of a column begin, and the middles of their heights: spread evenly."""
    free = (bottom - TOP) / len(stages)
    return [(stage, (x, TOP + free * (row + 0.5))) for row, stage in enumerate(stages)]


def _arrows(
    before: list[tuple[Stage, Point]], here: list[tuple[Stage, Point]], *, is_over: bool
) -> list[str]:
    """From every stage to its one successor, or to all of the next column; with the rates."""
    if not before:
        return []
    pairs = [(one, other) for one in before for other in here]
    if len(before) == len(here):
        pairs = list(zip(before, here, strict=True))
    parts = []
    for (_, (x, y)), (_, (x2, y2)) in pairs:
        parts.append(line(x + BOX + 3, y, x2 - 8, y2, stroke_width=1.2))
        parts.append(shape("path", d=f"M{x2 - 10:g},{y2 - 4:g}l7,4l-7,4z", fill=GREY))
    if is_over:
        return parts
    leaving = len(before) >= len(here)
    others = here if leaving else before
    for stage, (x, y) in before if leaving else here:
        at = x + BOX + GAP / 2 if leaving else x - GAP / 2
        # Beside an arrow that rises to it, a rate stands below: above, it would be on the arrow.
        rises = len(before) != len(here) and y > max(other for _, (_, other) in others)
        rate = f"{_short(stage.rate)}/s"
        down = 13 if rises else -6
        parts.append(words(at, y + down, rate, text_anchor="middle", fill=GREY, font_size=9))
    return parts


def _box(stage: Stage, x: float, y: float) -> list[str]:
    trouble = bool(stage.failed or stage.state == "failed")
    edge = RED if trouble else GREY
    parts = [
        rectangle(x, y, BOX, HEIGHT, rx=6, fill="#f7f9f9", stroke=edge,
                  stroke_width=2 if trouble else 1),
        words(x + BOX / 2, y + 17, shortened(clean(stage.name), LONGEST_NAME),
              text_anchor="middle", font_weight=600),
    ]  # fmt: skip
    for number, (text, colour) in enumerate(_lines(stage)[:LINES]):
        at = y + 33 + LINE * number
        parts.append(words(x + BOX / 2, at, text, text_anchor="middle", fill=colour))
    return parts


def _lines(stage: Stage) -> list[tuple[str, str]]:
    """What is said of a stage, with its colours: how it is, what came through, what did not."""
    lines = []
    if stage.state:
        name, _, until = stage.state.partition(" until ")
        lines.append((f"● {name}", STATES.get(name, YELLOW)))
        if until:
            lines.append((f"until {until} UTC", GREY))
    if stage.detail:
        lines.append((clean(stage.detail), GREY))
    if stage.batches is not None:
        lines.append((_counted(stage.batches, "batch", "es"), GREY))
    lines.append((_counted(stage.passed, "message"), GREY))
    waiting = [
        f"{_short(count)} {what}"
        for what, count in (("running", stage.in_flight), ("waiting", stage.queued))
        if count
    ]
    if stage.lag is not None:
        waiting.append(f"lag {duration(stage.lag)}")
    lost = [
        f"{count:,} {what}"
        for what, count in (("failed", stage.failed), ("dropped", stage.dropped))
        if count
    ]
    if lost:
        lines.append((" · ".join(lost), RED))
    if waiting:
        lines.append((" · ".join(waiting), GREY))
    return lines


def _foot(snapshot: Snapshot, y: float, width: float) -> tuple[list[str], float]:
    """The sparkline, the notes and the latest errors; and where they end."""
    parts = []
    inner = width - 2 * MARGIN
    said = " · ".join([snapshot.state, *snapshot.notes])
    parts.append(words(MARGIN, y + 14, said, fill=GREY))
    if len(snapshot.rates) >= LEAST_RATES:
        rate = _messages_a_second(snapshot)
        parts.append(words(width - MARGIN, y + 14, rate, text_anchor="end", fill=BLUE))
        parts += sparkline(snapshot.rates, MARGIN, y + 20, inner, 28)
        y += 32
    y += 24
    for error in snapshot.errors[-SHOWN_ERRORS:]:
        shown = shortened(clean(error), LONGEST_ERROR)
        parts.append(words(MARGIN, y + 12, f"✗ {shown}", fill=RED))
        y += LINE + 1
    return parts, y + 8


def _counted(count: int, what: str, ending: str = "s") -> str:
    return f"{count:,} {what}{'' if count == 1 else ending}"


def _short(figure: float) -> str:
    """A figure of at most four characters, for where there is little room."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if figure >= size:
            digits = 1 if figure < 10 * size else 0
            return f"{figure / size:.{digits}f}{unit}"
    return f"{figure:.0f}"


def _passed(stages: Sequence[Stage]) -> str:
    return f"{sum(stage.passed for stage in stages):,}"


def topology_text(snapshot: Snapshot) -> str:
    """The same in words, for where there are no pictures.

    One line says how it is and how fast it was of late, one each how a stage is, then come the
    latest errors.
    """
    lines = [" · ".join([snapshot.state, *snapshot.notes, *_pace(snapshot)])]
    for kind, stages in zip(
        KINDS,
        (snapshot.sources, snapshot.processors, snapshot.batchers, snapshot.subscribers),
        strict=True,
    ):
        for stage in stages:
            said = [text for text, _ in _lines(stage)]
            said += [] if snapshot.is_over else [f"{_short(stage.rate)}/s"]
            name = stage.name
            head = kind if name in ("", kind) else f"{kind} {name}"
            lines.append(f"{head}: {' · '.join(said)}")
    lines += [f"✗ {error}" for error in snapshot.errors[-SHOWN_ERRORS:]]
    return "\n".join(clean(each) for each in lines)


def _pace(snapshot: Snapshot) -> list[str]:
    """The rate of late, and how it came to that."""
    if len(snapshot.rates) < LEAST_RATES:
        return []
    return [_messages_a_second(snapshot), sparks(snapshot.rates[-MOST_SPARKS:])]


def _messages_a_second(snapshot: Snapshot) -> str:
    """What is over has no rate of now, but one would still like to know how fast it was."""
    most, latest = max(snapshot.rates), snapshot.rates[-1]
    return f"{f'peak {most:,.0f}' if snapshot.is_over else f'{latest:,.0f}'} messages/s"
