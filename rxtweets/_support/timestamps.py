"""Timestamps of X as datetimes."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["moment"]


def moment(value: object) -> datetime | None:
    """Parse a timestamp of X; ``None`` for any other value. Without a time zone it is in UTC."""
    try:
        parsed = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return parsed.replace(tzinfo=UTC) if parsed is not None and parsed.tzinfo is None else parsed
