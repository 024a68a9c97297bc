"""`Retry`: when a failed message is handled again, by strategies of tenacity."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import tenacity

from rxtweets._support.validation import function, optional

__all__ = ["Retry", "call_state", "seconds_until_retry"]

log = logging.getLogger("rxtweets")

RETRYING = tenacity.Retrying()
"""`tenacity.RetryCallState` requires one."""

WAIT_WITHOUT_STRATEGY = 1.0
"""Seconds until the next attempt if a strategy of the user raises or returns no time."""

THREE_ATTEMPTS = tenacity.stop_after_attempt(3)
DOUBLED = tenacity.wait_exponential(multiplier=0.1, max=10.0) + tenacity.wait_random(0.0, 0.1)


@dataclass(frozen=True, slots=True)
class Retry:
    """Policy for handling failed messages again.

    ::

        Retry(stop=tenacity.stop_after_attempt(5), wait=tenacity.wait_exponential(max=30))

    Attributes:
        stop: a stop strategy of tenacity; by default after three attempts, the first included.
        wait: a wait strategy of tenacity, in seconds; by default 0.1 s, 0.2 s, 0.4 s and so on,
            at most 10 s, plus a random time up to 0.1 s.
        when: called with the reason of the failure, the exception raised or the argument of
            ``message.failed``; returns whether to retry. By default every failure is retried,
            except a reason like ``SystemExit``, which is no `Exception`.

    Raises:
        ConfigurationError: an attribute cannot be called.
    """

    # Strategies of tenacity have no repr, so they are left out of this one.
    stop: Callable[[tenacity.RetryCallState], bool] = field(
        default_factory=lambda: THREE_ATTEMPTS, repr=False
    )
    wait: Callable[[tenacity.RetryCallState], float] = field(
        default_factory=lambda: DOUBLED, repr=False
    )
    when: Callable[[Any], bool] | None = None

    def __post_init__(self) -> None:
        function("stop", self.stop)
        function("wait", self.wait)
        optional(function, "when", self.when)

    def delay(self, reason: object, attempt: int, first: float, now: float) -> float | None:
        """Return the seconds until the next attempt; ``None`` for no attempt.

        Args:
            reason: of the failure.
            attempt: that failed, from 1.
            first: start of the first attempt, in monotonic seconds.
            now: monotonic seconds.
        """
        if isinstance(reason, BaseException) and not isinstance(reason, Exception):
            return None
        if self.when is not None and not self.when(reason):
            return None
        error = reason if isinstance(reason, Exception) else Exception(reason)
        state = call_state(error, attempt, first, now)
        state.upcoming_sleep = delay = max(0.0, float(self.wait(state)))
        return None if self.stop(state) else delay


def call_state(
    error: BaseException, attempt: int, first: float, now: float
) -> tenacity.RetryCallState:
    """Return the state of a failed call, for the strategies of tenacity.

    Args:
        error: that the call raised.
        attempt: that failed, from 1.
        first: start of the first attempt, in monotonic seconds.
        now: end of this attempt, in monotonic seconds.
    """
    state = tenacity.RetryCallState(RETRYING, None, (), {})
    state.attempt_number = attempt
    state.start_time = first
    state.set_exception((type(error), error, None))
    state.outcome_timestamp = now
    return state


def seconds_until_retry(
    wait: Callable[[tenacity.RetryCallState], float],
    error: BaseException,
    attempt: int,
    owner: object,
) -> float:
    """Return the seconds of a user's strategy; 1, with a warning, if it raises or returns no time.

    Args:
        wait: a wait strategy of tenacity.
        error: of the attempt that failed.
        attempt: that failed, from 1.
        owner: the object with the option ``wait=``, for the warning.
    """
    try:
        delay = float(wait(call_state(error, attempt, 0.0, 0.0)))
        if math.isfinite(delay):
            return max(0.0, delay)
        wrong = f"returned {delay}"
    except Exception as raised:  # noqa: BLE001 - a user's strategy may raise anything
        wrong = f"raised {type(raised).__name__}"
    log.warning("wait= of %r %s; waiting %g s", owner, wrong, WAIT_WITHOUT_STRATEGY)
    return WAIT_WITHOUT_STRATEGY
