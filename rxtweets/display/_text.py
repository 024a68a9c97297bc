"""Counters, messages and batches as lines of text for a terminal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from rxtweets._core.stats import Stats
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets._support.to_json import is_deep, readable

# Characters that move the cursor, recolour the terminal or turn the writing direction: C0 and C1,
# the separators of lines and paragraphs, and the controls of the bidi algorithm. Half a surrogate
# pair cannot be written at all.
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")

POINTER_CONTEXT = 36
"""Characters on either side of a caret."""

BLOCKS = "▁▂▃▄▅▆▇█"

ABBREVIATIONS = {
    "delivered": "deliv",
    "processed": "proc",
    "batches": "batch",
    "dropped": "drop",
    "reconnects": "reconn",
}


def summary_line(stats: Stats, rate: float | None = None, width: int | None = None) -> str:
    """Return the most important counters in one line.

    Args:
        stats: the snapshot.
        rate: messages a second, recently; by default left out.
        width: columns; a longer line is abbreviated, then cut off. By default it has any length.
    """
    parts = [
        stats.state,
        f"delivered {stats.delivered:,}",
        f"processed {stats.processed:,}",
        f"batches {stats.batches:,}",
        f"dropped {stats.dropped:,}",
        f"reconnects {stats.reconnects:,}",
        "lag –" if stats.lag is None else f"lag {duration(stats.lag)}",
    ]
    if rate is not None:
        parts.insert(1, f"{rate:,.0f}/s")
    line = " · ".join(parts + _others(stats))
    if width is None or len(line) <= width:
        return line
    for word, short in ABBREVIATIONS.items():
        line = line.replace(word, short)
    return line if len(line) <= width else line[: width - 1] + "…"


def end_line(stats: Stats) -> str:
    """Return the final counters of a program without handlers and batches, in one line.

    Counters of a connection are left out where there was none, as for a recording.
    """
    parts = [f"delivered {stats.delivered:,}", f"dropped {stats.dropped:,}"]
    if stats.connects:
        parts = [stats.state, *parts, f"reconnects {stats.reconnects:,}"]
        parts += [] if stats.lag is None else [f"lag {duration(stats.lag)}"]
    elif stats.disconnects:
        parts.append(f"disconnect notices {stats.disconnects:,}")
    return " · ".join(parts + _others(stats))


def _others(stats: Stats) -> list[str]:
    others = {
        "queued": stats.queued,
        "unsubscribed": stats.unsubscribed,
        "beyond the limit": stats.beyond_limit,
        "failed": stats.failed,
        "undecodable": stats.undecodable,
        "unknown": stats.unknown,
        "batches failed": stats.batches_failed,
        "abandoned": stats.abandoned,
    }
    return [f"{name} {count:,}" for name, count in others.items() if count]


def batch_line(number: int, batch: Batch[Any], width: int) -> str:
    """Return number, size and trigger of a batch, and as many texts as fit, in one line.

    Args:
        number: of the batch.
        batch: the batch.
        width: columns of the terminal.
    """
    info = batch.info
    head = f"{number:>5} │ {info.size:>3} by {info.trigger:<7} │ "
    return head + _fitted(map(data_text, batch), width - len(head))


def pointer(text: str, position: int) -> tuple[str, str]:
    """Return two lines: the text, or the part around the caret, and below it the caret.

    Args:
        text: one line.
        position: of the caret, in characters from 0.
    """
    shown = "".join(CONTROLS.sub(" ", character) for character in text)
    start = max(0, position - POINTER_CONTEXT)
    before = ("…" if start else "") + shown[start:position]
    after = shown[position : position + POINTER_CONTEXT]
    rest = "…" if position + POINTER_CONTEXT < len(shown) else ""
    return f"  {before}{after}{rest}", f"  {' ' * sum(map(_columns_of, before))}^"


def tweet_line(message: Message[Any], width: int) -> str:
    """Return time and language of a message, and as much text as fits, in one line.

    Args:
        message: the message.
        width: columns of the terminal.
    """
    written = message.created_at
    time = f"{written:%H:%M:%S}" if written else "--:--:--"
    lang = message.metadata.get("lang")
    head = f"{time} {lang if isinstance(lang, str) else '':<3.3} │ "
    return head + _fitted([data_text(message)], width - len(head))


def sparks(values: Sequence[float]) -> str:
    """Return a block for each value of 0 or more; the highest value has the highest block."""
    most = max(values, default=0) or 1
    return "".join(BLOCKS[round(value / most * (len(BLOCKS) - 1))] for value in values)


def data_text(message: Message[Any], most: int | None = None) -> str:
    try:
        text = readable(message.data) if is_deep(message.data) else str(message.data)
        return clean(text[:most])
    except Exception:  # noqa: BLE001 - data of handlers can be nested without end, or raise
        return clean(readable(message.data)[:most])


def _fitted(texts: Iterable[str], width: int) -> str:
    shown: list[str] = []
    left = width - 1
    for character in " ▪ ".join(texts):
        left -= _columns_of(character)
        if left < 0:
            return "".join(shown) + "…"
        shown.append(character)
    return "".join(shown)


def _columns_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in {"Cf", "Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def clean(text: str) -> str:
    """Return the text with spaces in place of characters that control a terminal."""
    return CONTROLS.sub(" ", text)


def duration(seconds: float) -> str:
    """Return seconds in the unit that fits; two clocks can make them negative."""
    size = abs(seconds)
    if size < 1:
        return f"{seconds * 1000:.0f} ms"
    if size < 120:
        return f"{seconds:.1f} s"
    if size < 3_600:
        return f"{seconds / 60:.0f} min"
    if size < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:,.0f} d"
