"""The stages of a pipeline or a stream as a picture, from sources to subscribers."""

from __future__ import annotations

from collections.abc import Sequence

from rxtweets.display._charts import sparkline
from rxtweets.display._html import sanitized, shortened
from rxtweets.display._snapshot import Snapshot, Stage
from rxtweets.display._svg import BLUE, GREEN, GREY, PAPER, RED, YELLOW, Canvas, Drawing
from rxtweets.display._text import duration, sparks

BOX_WIDTH, BOX_GAP, SIDE, TOP = 134, 32, 4, 8
"""Four columns are 640 wide: JupyterLab cuts off more beside an open file browser."""

LINE_HEIGHT, MAX_LINES = 14, 4
BOX_HEIGHT = 26 + LINE_HEIGHT * MAX_LINES
ROW_GAP = 12
MIN_WIDTH = 2 * SIDE + 3 * BOX_WIDTH + 2 * BOX_GAP
SHOWN_ERRORS, SHOWN_RATES = 3, 40
LAMPS = {"connected": GREEN, "failed": RED, "idle": GREY, "stopped": GREY}
"""Colours of states; all other states are temporary, and yellow."""

Place = tuple[Stage, float, float]
"""A stage, the left edge of its box, and the middle of its height."""


def draw_topology(snapshot: Snapshot) -> Drawing:
    """Draw the stages with their counters, recent rates, and the latest errors.

    ::

        draw_topology(snapshot_of(pipeline))  # as it is now; the pipeline itself shows it live
    """
    columns = snapshot.columns
    tall = max(len(stages) for stages in columns)
    bottom = TOP + tall * (BOX_HEIGHT + ROW_GAP) - ROW_GAP
    inner = len(columns) * (BOX_WIDTH + BOX_GAP) - BOX_GAP
    canvas = Canvas(width=max(MIN_WIDTH, 2 * SIDE + inner))
    before: list[Place] = []
    for number, stages in enumerate(columns):
        x = float(SIDE + number * (BOX_WIDTH + BOX_GAP))
        height = (bottom - TOP) / len(stages)
        here = [(stage, x, TOP + height * (row + 0.5)) for row, stage in enumerate(stages)]
        if before:
            _draw_arrows(canvas, before, here, has_rates=not snapshot.is_over)
        for stage, left, middle in here:
            _draw_box(canvas, stage, left, middle - BOX_HEIGHT / 2)
        before = here
    height = _draw_footer(canvas, snapshot, bottom + 10)
    passed = sum(stage.passed for stage in columns[0])
    label = f"{snapshot.state}: {passed:,} messages"
    return canvas.drawing(height, [topology_text(snapshot)], label)


def _draw_arrows(
    canvas: Canvas, before: Sequence[Place], here: Sequence[Place], *, has_rates: bool
) -> None:
    """Connect columns of the same height row by row, others each with each."""
    is_paired = len(before) == len(here)
    pairs = zip(before, here, strict=True) if is_paired else ((a, b) for a in before for b in here)
    for (_, x, y), (_, x2, y2) in pairs:
        canvas.line(x + BOX_WIDTH + 3, y, x2 - 8, y2, stroke_width=1.2)
        canvas.shape("path", d=f"M{x2 - 10:g},{y2 - 4:g}l7,4l-7,4z", fill=GREY)
    if not has_rates:
        return
    is_leaving = len(before) >= len(here)
    shift = BOX_WIDTH + BOX_GAP / 2 if is_leaving else -BOX_GAP / 2
    others = here if is_leaving else before
    for stage, x, y in before if is_leaving else here:
        # Above an arrow that rises to its box, the rate would be on the arrow.
        is_rising = not is_paired and y > max(middle for _, _, middle in others)
        rate, down = f"{_short(stage.rate)}/s", 13 if is_rising else -6
        # The arrows of other boxes may cross it.
        edge: dict[str, str | float] = {"stroke": PAPER, "stroke_width": 3, "paint_order": "stroke"}
        canvas.text(x + shift, y + down, rate, text_anchor="middle", fill=GREY, font_size=9, **edge)


def _draw_box(canvas: Canvas, stage: Stage, x: float, y: float) -> None:
    is_failing = bool(stage.failed or stage.state == "failed")
    stroke, width = (RED, 2) if is_failing else (GREY, 1)
    canvas.rectangle(
        x, y, BOX_WIDTH, BOX_HEIGHT, rx=6, fill="#f7f9f9", stroke=stroke, stroke_width=width
    )
    centre = x + BOX_WIDTH / 2
    name = shortened(sanitized(stage.name), 18)
    canvas.text(centre, y + 17, name, text_anchor="middle", font_weight=600)
    for number, (text, colour) in enumerate(_stage_lines(stage)[:MAX_LINES]):
        canvas.text(centre, y + 33 + LINE_HEIGHT * number, text, text_anchor="middle", fill=colour)


def _stage_lines(stage: Stage) -> list[tuple[str, str]]:
    """Return lines with their colours, the most important first."""
    lines = []
    if stage.state:
        name, _, until = stage.state.partition(" until ")
        lines.append((f"● {name}", LAMPS.get(name, YELLOW)))
        if until:
            lines.append((f"until {until} UTC", GREY))
    if stage.detail:
        lines.append((sanitized(stage.detail), GREY))
    if stage.batches is not None:
        lines.append((f"{stage.batches:,} batch{'' if stage.batches == 1 else 'es'}", GREY))
    lines.append((f"{stage.passed:,} message{'' if stage.passed == 1 else 's'}", GREY))
    losses = [(stage.failed, "failed"), (stage.dropped, "dropped")]
    if lost := [f"{count:,} {name}" for count, name in losses if count]:
        lines.append((" · ".join(lost), RED))
    loads = [(stage.in_flight, "running"), (stage.queued, "waiting")]
    load = [f"{_short(count)} {name}" for count, name in loads if count]
    if stage.lag is not None:
        load.append(f"lag {duration(stage.lag)}")
    if load:
        lines.append((" · ".join(load), GREY))
    return lines


def _draw_footer(canvas: Canvas, snapshot: Snapshot, y: float) -> float:
    canvas.text(SIDE, y + 14, " · ".join([snapshot.state, *snapshot.notes]), fill=GREY)
    if rate := _total_rate(snapshot):
        canvas.text(canvas.width - SIDE, y + 14, rate, text_anchor="end", fill=BLUE)
        sparkline(canvas, snapshot.rates, SIDE, y + 20, canvas.width - 2 * SIDE, 28)
        y += 32
    y += 24
    for error in snapshot.errors[-SHOWN_ERRORS:]:
        canvas.text(SIDE, y + 12, f"✗ {shortened(sanitized(error), 96)}", fill=RED)
        y += LINE_HEIGHT + 1
    return y + 8


def _short(number: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.{1 if number < 10 * size else 0}f}{unit}"
    return f"{number:.0f}"


def topology_text(snapshot: Snapshot) -> str:
    """Return the picture in words, for places that show no pictures.

    The first line is the state and the rates, then come a line for each stage and the latest
    errors.
    """
    rate = _total_rate(snapshot)
    rates = [rate, sparks(snapshot.rates[-SHOWN_RATES:])] if rate else []
    lines = [" · ".join([snapshot.state, *snapshot.notes, *rates])]
    kinds: dict[str, Sequence[Stage]] = {
        "source": snapshot.sources,
        "processors": snapshot.processors,
        "batcher": snapshot.batchers,
        "subscriber": snapshot.subscribers,
    }
    for kind, stages in kinds.items():
        for stage in stages:
            parts = [text for text, _ in _stage_lines(stage)]
            parts += [] if snapshot.is_over else [f"{_short(stage.rate)}/s"]
            head = kind if stage.name in ("", kind) else f"{kind} {stage.name}"
            lines.append(f"{head}: {' · '.join(parts)}")
    lines += [f"✗ {error}" for error in snapshot.errors[-SHOWN_ERRORS:]]
    return "\n".join(sanitized(line) for line in lines)


def _total_rate(snapshot: Snapshot) -> str:
    """Return the latest rate, or the highest one after the end; nothing for a single rate."""
    if len(snapshot.rates) < 2:
        return ""
    if snapshot.is_over:
        return f"peak {max(snapshot.rates):,.0f} messages/s"
    return f"{snapshot.rates[-1]:,.0f} messages/s"
