"""The wait that a server asks for: ``Retry-After`` and ``x-rate-limit-*``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from rxtweets._core.events import WaitFrom
from rxtweets.errors import ProxyError, RateLimitError, ResponseError

__all__ = ["WINDOW", "asked_wait", "asked_waits", "rate_limit_number", "retry_after", "until_reset"]

WINDOW = 900.0
"""Seconds of X's window of connects: 15 minutes."""

LONGEST_WINDOW = 86_400.0
"""Seconds. X's longest window is a day; a later ``x-rate-limit-reset`` is not plausible."""

LONGEST_RETRY_AFTER = 3_600.0
"""Seconds. A longer ``Retry-After`` is not plausible; some servers send milliseconds."""


def rate_limit_number(headers: Mapping[str, str], name: str) -> float | None:
    """Return the number in ``x-rate-limit-<name>``; ``None`` if there is no valid one."""
    try:
        number = float(headers[f"x-rate-limit-{name}"])
    except (KeyError, ValueError):
        return None
    return number if 0 <= number < math.inf else None


def asked_wait(error: BaseException, wall: float) -> float:
    """Return the seconds to wait before another request; 0 if the server does not ask to.

    Args:
        error: of the last request.
        wall: seconds since 1970.
    """
    return max(asked_waits(error, wall, WINDOW).values(), default=0.0)


def asked_waits(error: BaseException, wall: float, window: float) -> dict[WaitFrom, float]:
    """Return the waits in the headers of an answer, in seconds; ``window`` for implausible ones.

    Every answer of X has ``x-rate-limit-reset``; it counts only after a `RateLimitError`.
    """
    if not isinstance(error, (ProxyError, ResponseError)):
        return {}
    headers, is_limited = error.headers, isinstance(error, RateLimitError)
    named: dict[WaitFrom, float | None] = {
        "Retry-After": retry_after(headers, wall),
        "x-rate-limit-reset": until_reset(headers, wall) if is_limited else None,
    }
    asked = {name: wait for name, wait in named.items() if wait is not None and wait < math.inf}
    is_unreadable = any(headers.get(name.lower()) for name in named)
    if not asked and (math.inf in named.values() or (is_limited and is_unreadable)):
        return {"window": window}
    return asked


def retry_after(headers: Mapping[str, str], wall: float) -> float | None:
    """Return the seconds of ``Retry-After``: a number or a date (RFC 9110, 10.2.3).

    Args:
        headers: names in lower case.
        wall: seconds since 1970, for a date in an answer without ``Date``.

    Returns:
        ``None`` without a valid header, infinity for an implausible wait.
    """
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d*)?", text, re.ASCII):
        return _plausible(float(text), LONGEST_RETRY_AFTER)
    at = _date(text)
    return None if at is None else _until(at, headers, wall, LONGEST_RETRY_AFTER)


def until_reset(headers: Mapping[str, str], wall: float) -> float | None:
    """Return the seconds until ``x-rate-limit-reset``, as `retry_after` does."""
    reset = rate_limit_number(headers, "reset")
    return None if reset is None else _until(reset, headers, wall, LONGEST_WINDOW)


def _until(at: float, headers: Mapping[str, str], wall: float, longest: float) -> float:
    # By the server's clock; by ours if that gives an implausible wait.
    served = _date(headers.get("date", ""))
    by_server = math.inf if served is None else _plausible(at - served, longest)
    return by_server if by_server < math.inf else _plausible(at - wall, longest)


def _plausible(seconds: float, longest: float) -> float:
    return max(0.0, seconds) if seconds <= longest else math.inf


def _date(text: str) -> float | None:
    try:
        date = parsedate_to_datetime(text)
        # Dates of HTTP are in UTC, with or without a zone.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
