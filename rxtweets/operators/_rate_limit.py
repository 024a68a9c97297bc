"""`rate_limit`: bounds the number of messages in an interval."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from reactivex import Observable, abc

from rxtweets._core.observable import MessageStream
from rxtweets._core.rate_limit import RateLimit
from rxtweets._messages.message import Message
from rxtweets.errors import ConfigurationError
from rxtweets.operators._gate import gated

__all__ = ["rate_limit"]

T = TypeVar("T")


def rate_limit(
    allowed: int | RateLimit,
    interval: float | timedelta | None = None,
    *,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[Message[T]]], MessageStream[T]]:
    """Let at most ``allowed`` messages pass in each interval; the others wait, in order.

    ::

        source               --1-2-3-4--------------|
        rate_limit(2, 1.0)   --1-2-------3-4--------|     the interval starts with message 1

    The limit reaches the source. X's stream fills its buffer until its overflow policy applies. A
    source that can wait (`rxtweets.polling_source`) is asked for as many messages as may pass. A
    source that emits on a thread of the user blocks that thread. On a scheduler messages queue
    here, since a scheduler must not be blocked. Draining ignores rate limits.

    Args:
        allowed: most messages in an interval; or a `RateLimit`, which several streams can share,
            and which can be changed and lifted while they run.
        interval: seconds; not with a `RateLimit`.
        scheduler: keeps the time. A scheduler of virtual time that is passed to ``subscribe`` does
            so too.

    Returns:
        An operator.

    Raises:
        ConfigurationError: an argument is invalid.
    """
    if not isinstance(allowed, RateLimit):
        return gated(RateLimit(allowed, interval), "rate limit", scheduler)  # type: ignore[arg-type]  # RateLimit refuses None
    if interval is not None:
        raise ConfigurationError(f"interval={interval!r}: the RateLimit has one already")
    return gated(allowed, "rate limit", scheduler)
