"""When a source that failed is subscribed to again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import tenacity

from rxtweets._support.validation import seconds
from rxtweets.errors import ConfigurationError, RxTweetsError

__all__ = ["Restart", "RestartCount"]

Strategy = Callable[[tenacity.RetryCallState], Any]

AFTER_THREE = tenacity.stop_after_attempt(4)
A_MOMENT = tenacity.wait_fixed(0.1)
UNLESS_OURS = tenacity.retry_if_not_exception_type(RxTweetsError)


class Restart:
    """A policy of `tenacity` for sources of a pipeline that fail, as Broadway's by default.

    Failures are counted over a time that moves on: ``attempt_number`` is how many there were in the
    last ``within`` seconds. So ``stop_after_attempt(4)`` allows three restarts in that time.

    Args:
        stop: says when to give up; by default at the fourth failure.
        wait: says how long to wait before the source is subscribed to again; 0.1 s by default.
        retry: says which errors are worth it. By default all but those of rxtweets itself: X's
            streams have connected again by X's schedules before they give up.
        within: seconds.

    Raises:
        ConfigurationError: an argument cannot work.
    """

    def __init__(
        self,
        *,
        stop: Strategy | None = None,
        wait: Strategy | None = None,
        retry: Strategy | None = None,
        within: float = 5.0,
    ) -> None:
        for name, strategy in (("stop", stop), ("wait", wait), ("retry", retry)):
            if strategy is not None and not callable(strategy):
                raise ConfigurationError(f"{name}={strategy!r}: give a strategy of tenacity")
        self.stop = AFTER_THREE if stop is None else stop
        self.wait = A_MOMENT if wait is None else wait
        self.retry = UNLESS_OURS if retry is None else retry
        self.within = seconds("within", within)

    def __repr__(self) -> str:
        return f"Restart(within={self.within:g})"


class RestartCount:
    """The failures of one source, and what the policy says to them.

    Args:
        policy: ``None`` never restarts.
        clock: seconds.
    """

    def __init__(self, policy: Restart | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._failures: deque[float] = deque()

    def failed(self, error: Exception) -> tuple[int, float | None]:
        """Note a failure: how many there were, and the seconds to wait; ``None`` to give up."""
        policy, now = self._policy, self._clock()
        if policy is None:
            return 1, None
        self._failures.append(now)
        while self._failures[0] < now - policy.within:
            self._failures.popleft()
        attempt = len(self._failures)
        state = tenacity.RetryCallState(retry_object=_NOBODY, fn=None, args=(), kwargs={})
        state.attempt_number = attempt
        state.start_time = self._failures[0]
        state.set_exception((type(error), error, None))
        state.outcome_timestamp = now
        if not policy.retry(state):
            return attempt, None
        delay = state.upcoming_sleep = float(policy.wait(state))
        return attempt, None if policy.stop(state) else delay


_NOBODY = tenacity.Retrying()
