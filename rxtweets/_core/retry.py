"""When a message that failed is handled once more: two strategies of tenacity and a condition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import tenacity

from rxtweets._support.validation import function

__all__ = ["Retry"]

THREE_ATTEMPTS = tenacity.stop_after_attempt(3)
DOUBLED = tenacity.wait_exponential(multiplier=0.1, max=10.0) + tenacity.wait_random(0.0, 0.1)


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and after which waits, a failed message is given to its handler again.

    ::

        Retry(stop=tenacity.stop_after_attempt(5), wait=tenacity.wait_exponential(max=30))

    Attributes:
        stop: a stop strategy of tenacity; by default after three attempts, the first included.
        wait: a wait strategy of tenacity, in seconds; by default 0.1 s, 0.2 s, 0.4 s and so
            on, at most 10 s, and up to 0.1 s more by chance.
        when: whether this failure is worth another attempt. It gets the reason of the failure: the
            exception that was raised, or what was given to ``message.failed``. By default all are,
            but what is no `Exception`, such as a ``SystemExit``.

    Raises:
        ConfigurationError: one of them cannot be called.
    """

    # Strategies of tenacity have no repr, so theirs are left out of this one.
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
        if self.when is not None:
            function("when", self.when)

    def delay(self, reason: object, attempt: int, first: float, now: float) -> float | None:
        """Seconds until the next attempt; ``None`` for none.

        Args:
            reason: of the failure.
            attempt: that failed, from 1.
            first: when the first attempt began, in monotonic seconds.
            now: monotonic seconds.
        """
        if isinstance(reason, BaseException) and not isinstance(reason, Exception):
            return None
        if self.when is not None and not self.when(reason):
            return None
        state = _state(reason, attempt, first, now)
        state.upcoming_sleep = delay = max(0.0, float(self.wait(state)))
        return None if self.stop(state) else delay


def _state(reason: object, attempt: int, first: float, now: float) -> tenacity.RetryCallState:
    """What tenacity's strategies look at."""
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = attempt
    state.start_time = first
    error = reason if isinstance(reason, Exception) else Exception(reason)
    state.set_exception((type(error), error, None))
    state.outcome_timestamp = now
    return state
