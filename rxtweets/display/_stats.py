"""The counters of a stream as a table."""

from __future__ import annotations

from dataclasses import fields

from rxtweets._core.telemetry import Stats
from rxtweets._messages.representation import representation
from rxtweets.display._html import markup
from rxtweets.display._text import duration

__all__ = ["stats_html", "stats_text"]

GROUPS = {
    "lines read": ("received", "delivered", "dropped", "unsubscribed", "undecodable", "control"),
    "connection": ("state", "connects", "reconnects", "stalls", "gaps", "lag"),
    "processors": ("queued", "in_flight", "processed", "failed", "abandoned"),
    "batches": ("batches", "batched", "batches_failed", "batched_failed"),
}
"""What is always shown; of everything else what is not nought."""

TROUBLE = {
    "dropped", "undecodable", "failed", "abandoned", "batches_failed", "batched_failed", "stalls",
    "gaps", "subscriber_errors", "acknowledger_errors", "late_acknowledgements", "events_lost",
    "server_errors", "rate_limits", "connection_limits", "usage_caps", "unknown",
}  # fmt: skip
CELL = "text-align:start;padding:1px 12px 1px 0;font-variant-numeric:tabular-nums"


@representation.register
def _stats(stats: Stats) -> dict[str, str]:
    return {"text/plain": stats_text(stats), "text/html": stats_html(stats)}


def stats_html(stats: Stats) -> str:
    """The counters in groups, what went wrong in red."""
    groups = "".join(
        f'<div><b>{group}</b><table style="margin:2px 0">'
        + "".join(_row(name, value) for name, value in rows)
        + "</table></div>"
        for group, rows in _groups(stats)
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:4px 28px">{groups}</div>'


def stats_text(stats: Stats) -> str:
    """The counters in groups, a line for each group."""
    return "\n".join(
        f"{group}: " + " · ".join(f"{_words(name)} {value}" for name, value in rows)
        for group, rows in _groups(stats)
    )


def _groups(stats: Stats) -> list[tuple[str, list[tuple[str, str]]]]:
    groups = [
        (group, [(name, _shown(stats, name)) for name in names]) for group, names in GROUPS.items()
    ]
    usual = {name for names in GROUPS.values() for name in names}
    others = [
        (field.name, _shown(stats, field.name))
        for field in fields(stats)
        if field.name not in usual and getattr(stats, field.name)
    ]
    return [*groups, ("besides", others)] if others else groups


def _row(name: str, value: str) -> str:
    colour = ";color:#c4183c" if name in TROUBLE and value != "0" else ""
    return (
        f'<tr><td style="{CELL}">{_words(name)}</td>'
        f'<td style="{CELL};text-align:end{colour}">{markup(value)}</td></tr>'
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _shown(stats: Stats, name: str) -> str:
    value = getattr(stats, name)
    if name == "lag":
        return "–" if value is None else duration(value)
    return value if isinstance(value, str) else f"{value:,}"
