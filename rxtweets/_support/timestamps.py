"""X's times as datetimes."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["moment"]


def moment(value: object) -> datetime | None:
    """A time as X writes it, with a time zone; ``None`` if it is none.

    X's times are in UTC, so that is what one without a zone is in.
    """
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found is not None and found.tzinfo is None else found
