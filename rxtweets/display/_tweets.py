"""Tweets and batches, as HTML and as text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Failed, Message
from rxtweets._messages.representation import representation
from rxtweets.display._html import clean, markup, shortened

__all__ = ["batch_html", "batch_text", "tweet_html", "tweet_text"]

LONGEST = 1_000
"""Characters of a tweet that are shown."""

LONGEST_IN_ROW = 140
ROWS = 20

ID = re.compile(r"[0-9]{1,19}")

# A pile of combining marks would paint over its neighbours: what is higher than its lines is cut.
CARD = (
    "border-left:3px solid #1d6fb8;margin:4px 0;padding:4px 12px;max-width:38em;overflow:hidden;"
    "unicode-bidi:isolate"
)
TEXT = "overflow:hidden;white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.5;margin:2px 0"
SMALL = "opacity:.7;font-size:85%"
WRONG = "color:#c4183c"
CELL = "text-align:start;vertical-align:top;padding:2px 8px;line-height:1.5"
COUNTS = (
    ("↻", ("repost_count", "retweet_count")),
    ("♥", ("like_count",)),
    ("↩", ("reply_count",)),
)


@representation.register(Message)
def _message(message: Message[Any]) -> dict[str, str]:
    return {"text/plain": tweet_text(message), "text/html": tweet_html(message)}


@representation.register(Batch)
def _batch(batch: Batch[Any]) -> dict[str, str]:
    return {"text/plain": batch_text(batch), "text/html": batch_html(batch)}


def tweet_html(message: Message[Any]) -> str:
    """One message as a card: who wrote it, when, in which language; its data; its counts."""
    head = " · ".join(
        part
        for part in (
            f"<b>{_author_html(message)}</b>",
            markup(_when(message.created_at)),
            markup(_field(message, "lang")),
        )
        if part not in ("", "<b></b>")
    )
    failed = (
        f'<div style="{WRONG}">failed: {_isolated(_reason(message.status))}</div>'
        if isinstance(message.status, Failed)
        else ""
    )
    text = markup(shortened(_data(message), LONGEST), one_line=False)
    return (
        f'<div style="{CARD}">'
        f'<div style="{SMALL}">{head or "a message"}</div>'
        f'<div dir="auto" style="{TEXT}">{text}</div>'
        f'{failed}<div style="{SMALL}">{" · ".join(_foot(message))}</div></div>'
    )


def tweet_text(message: Message[Any]) -> str:
    """One message in two or three lines: the same in words."""
    head = [
        " ".join(_author(message)),
        _when(message.created_at),
        _field(message, "lang"),
        message.id,
    ]
    lines = [
        clean(" · ".join(part for part in head if part)) or "a message",
        "  " + clean(shortened(_data(message), LONGEST)),
    ]
    if isinstance(message.status, Failed):
        lines.append("  failed: " + clean(_reason(message.status)))
    return "\n".join(lines)


def batch_html(batch: Batch[Any]) -> str:
    """A batch as a table of its first twenty messages: text, language, author, lag."""
    rows = "".join(_row(number, message) for number, message in enumerate(batch[:ROWS], 1))
    names = "".join(
        f'<th style="{CELL}">{name}</th>' for name in ("", "data", "lang", "author", "lag")
    )
    return (
        f'<table><caption style="text-align:start">{markup(_headline(batch))}</caption>'
        f"<thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table>{_more(batch)}"
    )


def batch_text(batch: Batch[Any]) -> str:
    """A batch with a line for each of its first twenty messages."""
    lines = [
        f"{number:>4}  {clean(shortened(_data(message), LONGEST_IN_ROW))}"
        for number, message in enumerate(batch[:ROWS], 1)
    ]
    left = len(batch) - ROWS
    return "\n".join([clean(_headline(batch)), *lines, *([f"  … {left} more"] if left > 0 else [])])


def _headline(batch: Batch[Any]) -> str:
    info = batch.info
    plural = "" if info.size == 1 else "s"
    return f"{info.size} message{plural} · batcher {info.batcher} · by {info.trigger}"


def _more(batch: Batch[Any]) -> str:
    left = len(batch) - ROWS
    return f'<div style="{SMALL}">… {left} more</div>' if left > 0 else ""


def _row(number: int, message: Message[Any]) -> str:
    lag = "" if message.lag is None else f"{message.lag:.1f} s"
    text = _isolated(shortened(_data(message), LONGEST_IN_ROW))
    if isinstance(message.status, Failed):
        text += f'<div style="{WRONG}">failed: {_isolated(_reason(message.status))}</div>'
    cells = (
        str(number),
        f'<div style="overflow:hidden;max-width:38em">{text}</div>',
        markup(_field(message, "lang")),
        _author_html(message),
        f'<div style="white-space:nowrap">{lag}</div>',
    )
    return "<tr>" + "".join(f'<td style="{CELL}">{cell}</td>' for cell in cells) + "</tr>"


def _foot(message: Message[Any]) -> list[str]:
    metrics = _metadata(message).get("public_metrics")
    known = metrics if isinstance(metrics, Mapping) else {}
    parts = []
    for sign, names in COUNTS:
        count = next((known[name] for name in names if isinstance(known.get(name), int)), None)
        if count is not None:
            parts.append(f"{sign} {count:,}")
    if message.lag is not None:
        parts.append(f"lag {message.lag:.1f} s")
    if ID.fullmatch(message.id):
        address = f"https://x.com/i/status/{message.id}"
        parts.append(f'<a href="{address}" rel="noreferrer noopener">{message.id}</a>')
    return parts


def _isolated(text: str) -> str:
    """Text whose direction is its own, and turns nothing beside it."""
    return f'<bdi dir="auto">{markup(text)}</bdi>'


def _data(message: Message[Any]) -> str:
    data = message.data
    return data if isinstance(data, str) else repr(data)


def _reason(status: Failed) -> str:
    reason = status.reason
    said = f"{type(reason).__name__}: {reason}" if isinstance(reason, Exception) else str(reason)
    return shortened(said, 300)


def _author_html(message: Message[Any]) -> str:
    """Each part by itself: beside a name from right to left, a handle would turn its ``@``."""
    return " ".join(_isolated(part) for part in _author(message))


def _author(message: Message[Any]) -> list[str]:
    """Name and ``@handle`` of the author, where the line has them; else the author's id."""
    author = _field(message, "author_id")
    for user in _users(_metadata(message).get("includes")):
        if author and str(user.get("id")) == author:
            name, handle = user.get("name"), user.get("username")
            both = [str(name or ""), f"@{handle}" if handle else ""]
            return [shortened(part, 60) for part in both if part]
    return [author] if author else []


def _users(includes: object) -> Sequence[Mapping[str, Any]]:
    users = includes.get("users") if isinstance(includes, Mapping) else None
    return [user for user in (users if isinstance(users, list) else ()) if isinstance(user, dict)]


def _field(message: Message[Any], name: str) -> str:
    value = _metadata(message).get(name)
    return "" if value is None else shortened(str(value), 40)


def _metadata(message: Message[Any]) -> Mapping[str, Any]:
    """What is known beside the text; to show a message must never raise, whatever its line."""
    try:
        return message.metadata
    except Exception:  # noqa: BLE001 - lines of other shapes, or none
        return {}


def _when(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
