"""Messages, batches and counters in notebooks, as HTML and as text.

Importing this module registers them with `rxtweets._messages.representation.representation`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from rxtweets._core.stats import Stats
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Failed, Message
from rxtweets._messages.representation import representation
from rxtweets.display._html import FONTS, escaped, sanitized, shortened
from rxtweets.display._text import duration

MAX_TWEET, MAX_TWEET_IN_TABLE, MAX_TABLE_ROWS = 1_000, 140, 20

TWEET_ID = re.compile(r"[0-9]{1,19}")

# A pile of combining marks would cover neighbouring lines: overflow cuts it off.
CARD = (
    "border-left:3px solid #1d6fb8;margin:4px 0;padding:4px 12px;max-width:38em;overflow:hidden;"
    f"unicode-bidi:isolate;font-family:{FONTS}"
)
TEXT = "overflow:hidden;white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.5;margin:2px 0"
SMALL = "opacity:.7;font-size:85%"
TABLE_CELL = "text-align:start;vertical-align:top;padding:2px 8px;line-height:1.5"
STATS_CELL = "text-align:start;padding:1px 12px 1px 0;font-variant-numeric:tabular-nums"

PUBLIC_METRICS = (
    ("↻", ("repost_count", "retweet_count")),
    ("♥", ("like_count",)),
    ("↩", ("reply_count",)),
)
STATS_GROUPS = {
    "lines read": ("received", "delivered", "dropped", "unsubscribed", "undecodable", "control"),
    "connection": ("state", "connects", "reconnects", "stalls", "gaps", "lag"),
    "processors": ("queued", "in_flight", "processed", "failed", "abandoned"),
    "batches": ("batches", "batched", "batches_failed", "batched_failed"),
}
"""The counters that are always shown; others are shown when they are not 0."""

FAULTS = {
    "dropped", "undecodable", "failed", "abandoned", "batches_failed", "batched_failed", "stalls",
    "gaps", "subscriber_errors", "acknowledger_errors", "late_acknowledgements", "events_lost",
    "server_errors", "rate_limits", "connection_limits", "usage_caps", "unknown",
}  # fmt: skip
"""Counters that are red when they are not 0."""


@representation.register(Message)
def _message_representation(message: Message[Any]) -> dict[str, str]:
    return {"text/plain": tweet_text(message), "text/html": tweet_html(message)}


@representation.register(Batch)
def _batch_representation(batch: Batch[Any]) -> dict[str, str]:
    return {"text/plain": batch_text(batch), "text/html": batch_html(batch)}


@representation.register(Stats)
def _stats_representation(stats: Stats) -> dict[str, str]:
    return {"text/plain": stats_text(stats), "text/html": stats_html(stats)}


def tweet_html(message: Message[Any]) -> str:
    author, time, lang = _author_html(message), escaped(_written_at(message)), _lang_html(message)
    head = " · ".join(part for part in (author and f"<b>{author}</b>", time, lang) if part)
    text = escaped(shortened(_data(message), MAX_TWEET), one_line=False)
    return (
        f'<div style="{CARD}">'
        f'<div style="{SMALL}">{head or "a message"}</div>'
        f'<div dir="auto" style="{TEXT}">{text}</div>'
        f"{_failure_html(message)}"
        f'<div style="{SMALL}">{" · ".join(_footer_html(message))}</div></div>'
    )


def tweet_text(message: Message[Any]) -> str:
    head = [" ".join(_author(message)), _written_at(message), _field(message, "lang"), message.id]
    lines = [
        sanitized(" · ".join(part for part in head if part)) or "a message",
        "  " + sanitized(shortened(_data(message), MAX_TWEET)),
    ]
    if failure := _failure_text(message):
        lines.append("  failed: " + sanitized(failure))
    return "\n".join(lines)


def batch_html(batch: Batch[Any]) -> str:
    rows = ""
    for number, message in enumerate(batch[:MAX_TABLE_ROWS], 1):
        text = _isolated(shortened(_data(message), MAX_TWEET_IN_TABLE)) + _failure_html(message)
        rows += _table_row(
            "td",
            str(number),
            f'<div style="overflow:hidden;max-width:38em">{text}</div>',
            _lang_html(message),
            _author_html(message),
            f'<div style="white-space:nowrap">{_lag(message)}</div>',
        )
    more = _more(batch)
    return (
        f'<table style="font-family:{FONTS}">'
        f'<caption style="text-align:start">{escaped(_headline(batch))}</caption>'
        f"<thead>{_table_row('th', '', 'data', 'lang', 'author', 'lag')}</thead>"
        f"<tbody>{rows}</tbody></table>" + (f'<div style="{SMALL}">{more}</div>' if more else "")
    )


def batch_text(batch: Batch[Any]) -> str:
    lines = [
        f"{number:>4}  {sanitized(shortened(_data(message), MAX_TWEET_IN_TABLE))}"
        for number, message in enumerate(batch[:MAX_TABLE_ROWS], 1)
    ]
    more = _more(batch)
    return "\n".join([sanitized(_headline(batch)), *lines, *([f"  {more}"] if more else [])])


def stats_html(stats: Stats) -> str:
    groups = ""
    for group, counters in _stats_groups(stats):
        rows = ""
        for name, value in counters:
            colour = ";color:#c4183c" if name in FAULTS and value != "0" else ""
            rows += (
                f'<tr><td style="{STATS_CELL}">{name.replace("_", " ")}</td>'
                f'<td style="{STATS_CELL};text-align:end{colour}">{escaped(value)}</td></tr>'
            )
        groups += f'<div><b>{group}</b><table style="margin:2px 0">{rows}</table></div>'
    return f'<div style="display:flex;flex-wrap:wrap;gap:4px 28px">{groups}</div>'


def stats_text(stats: Stats) -> str:
    return "\n".join(
        f"{group}: " + " · ".join(f"{name.replace('_', ' ')} {value}" for name, value in counters)
        for group, counters in _stats_groups(stats)
    )


def _stats_groups(stats: Stats) -> list[tuple[str, list[tuple[str, str]]]]:
    usual = {name for names in STATS_GROUPS.values() for name in names}
    names = [field.name for field in fields(stats)]
    besides = [name for name in names if name not in usual and getattr(stats, name)]
    groups: dict[str, Any] = STATS_GROUPS | ({"besides": besides} if besides else {})
    return [
        (group, [(name, _stats_value(stats, name)) for name in names])
        for group, names in groups.items()
    ]


def _stats_value(stats: Stats, name: str) -> str:
    value = getattr(stats, name)
    if name == "lag":
        return "–" if value is None else duration(value)
    return value if isinstance(value, str) else f"{value:,}"


def _headline(batch: Batch[Any]) -> str:
    info = batch.info
    plural = "" if info.size == 1 else "s"
    return f"{info.size} message{plural} · batcher {info.batcher} · by {info.trigger}"


def _more(batch: Batch[Any]) -> str:
    left = len(batch) - MAX_TABLE_ROWS
    return f"… {left} more" if left > 0 else ""


def _table_row(kind: str, *cells: str) -> str:
    written = (f'<{kind} style="{TABLE_CELL}">{cell}</{kind}>' for cell in cells)
    return f"<tr>{''.join(written)}</tr>"


def _footer_html(message: Message[Any]) -> list[str]:
    metrics = _metadata(message).get("public_metrics")
    known = metrics if isinstance(metrics, Mapping) else {}
    parts = []
    for sign, names in PUBLIC_METRICS:
        counts = [known[name] for name in names if isinstance(known.get(name), int)]
        parts += [f"{sign} {count:,}" for count in counts[:1]]
    if lag := _lag(message):
        parts.append(f"lag {lag}")
    if TWEET_ID.fullmatch(message.id):
        address = f"https://x.com/i/status/{message.id}"
        parts.append(f'<a href="{address}" rel="noreferrer noopener">{message.id}</a>')
    return parts


def _failure_html(message: Message[Any]) -> str:
    failure = _failure_text(message)
    return failure and f'<div style="color:#c4183c">failed: {_isolated(failure)}</div>'


def _failure_text(message: Message[Any]) -> str:
    if not isinstance(message.status, Failed):
        return ""
    reason = message.status.reason
    is_error = isinstance(reason, Exception)
    return shortened(f"{type(reason).__name__}: {reason}" if is_error else str(reason), 300)


def _isolated(text: str) -> str:
    """Return text whose writing direction affects no text beside it."""
    return f'<bdi dir="auto">{escaped(text)}</bdi>'


def _data(message: Message[Any]) -> str:
    return message.data if isinstance(message.data, str) else repr(message.data)


def _author_html(message: Message[Any]) -> str:
    # Isolated one by one: a right-to-left name would move the ``@`` of the handle beside it.
    return " ".join(_isolated(part) for part in _author(message))


def _author(message: Message[Any]) -> list[str]:
    """Return name and ``@handle`` where the line has them, else the author's id."""
    author = _field(message, "author_id")
    includes = _metadata(message).get("includes")
    users = includes.get("users") if isinstance(includes, Mapping) else None
    for user in users if isinstance(users, list) and author else ():
        if isinstance(user, dict) and str(user.get("id")) == author:
            name, handle = user.get("name"), user.get("username")
            parts = [str(name or ""), f"@{handle}" if handle else ""]
            return [shortened(part, 60) for part in parts if part]
    return [author] if author else []


def _lang_html(message: Message[Any]) -> str:
    return escaped(_field(message, "lang"))


def _field(message: Message[Any], name: str) -> str:
    value = _metadata(message).get(name)
    return "" if value is None else shortened(str(value), 40)


def _metadata(message: Message[Any]) -> Mapping[str, Any]:
    try:
        return message.metadata
    except Exception:  # noqa: BLE001 - a line of any shape must be shown
        return {}


def _lag(message: Message[Any]) -> str:
    return "" if message.lag is None else f"{message.lag:.1f} s"


def _written_at(message: Message[Any]) -> str:
    return f"{message.created_at:%Y-%m-%d %H:%M:%S} UTC" if message.created_at else ""
