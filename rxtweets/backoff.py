"""When to connect again: X's published schedules as tenacity strategies, and a connect budget.

X's documentation ("handling disconnections"): an established connection that drops is made again
at once; after network errors the wait grows by 250 ms up to 16 s; after HTTP errors that are
worth another try it doubles from 5 s to 320 s; after a 429 it doubles from one minute. X allows
50 connects of a stream in 15 minutes ("rate limits") and says in ``x-rate-limit-*`` what is left.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tenacity import (
    RetryCallState,
    stop_never,
    wait_exponential,
    wait_fixed,
    wait_incrementing,
)
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from rxtweets.checks import whole_number
from rxtweets.errors import (
    ConfigurationError,
    ConnectionLimitError,
    ProvisioningError,
    RateLimitError,
    ServerError,
)

__all__ = ["Backoff", "ConnectBudget", "Pacer"]

LONGEST_WINDOW = 86_400.0
"""Seconds. X's longest window is a day; a server that names a later time is mistaken."""


@dataclass(frozen=True)
class Backoff:
    """How long to wait before the next connection, by what ended the last; all in seconds.

    Each schedule is a `tenacity` wait strategy, asked with the number of such failures in a row.
    The numbers start anew once a connection has proved itself: it delivered a line and lived for
    ``proved_after`` seconds. An answer of 200 alone proves nothing.

    Attributes:
        lost: a connection that was established ended: at once, then 0.25 s more each time, 16 s
            at most.
        network: a connection could not be made: 0.25 s, 0.5 s … 16 s.
        server: 5xx: 5 s, 10 s … 320 s.
        rate_limit: 429 for too many connects: 60 s, 120 s … 15 minutes, and never before
            ``x-rate-limit-reset``.
        connection_limit: 429 because the token's connection is held already: 5 s, 10 s … 320 s.
        provisioning: the subscription is being changed: 60 s.
        stop: a `tenacity` stop strategy, over the failures in a row; by default never.
        proved_after: seconds until a connection that delivers has proved itself.
        connects: connects allowed in a window, until the server's headers say otherwise.
        window: length of that window.
        scale: factor for all of the above, to rehearse minutes in seconds against the simulator.
    """

    lost: wait_base = field(default_factory=lambda: wait_incrementing(0, 0.25, 16))
    network: wait_base = field(default_factory=lambda: wait_incrementing(0.25, 0.25, 16))
    server: wait_base = field(default_factory=lambda: wait_exponential(multiplier=5, max=320))
    rate_limit: wait_base = field(default_factory=lambda: wait_exponential(multiplier=60, max=900))
    connection_limit: wait_base = field(
        default_factory=lambda: wait_exponential(multiplier=5, max=320)
    )
    provisioning: wait_base = field(default_factory=lambda: wait_fixed(60))
    stop: stop_base = stop_never
    proved_after: float = 5.0
    connects: int = 50
    window: float = 900.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("proved_after", "window", "scale"):
            number = getattr(self, name)
            is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
            if not is_number or not 0 <= number < math.inf:
                raise ConfigurationError(f"Backoff {name}={number!r}: give a number, 0 or more")
        whole_number("Backoff connects", self.connects)
        for name in (*SCHEDULES.values(), "lost", "network"):
            if not isinstance(getattr(self, name), wait_base):
                raise ConfigurationError(
                    f"Backoff {name}={getattr(self, name)!r}: give a wait strategy, such as "
                    "tenacity.wait_fixed(3)"
                )
        if not isinstance(self.stop, stop_base):
            raise ConfigurationError(
                f"Backoff stop={self.stop!r}: give a stop strategy, such as "
                "tenacity.stop_after_attempt(9)"
            )

    def delay(self, error: BaseException, established: bool, attempt: int) -> float:
        """Seconds to wait after the ``attempt``-th failure of this kind in a row, from 1."""
        strategy: wait_base = getattr(self, schedule_of(error, established))
        return float(strategy(_call_state(attempt))) * self.scale


def _call_state(attempt: int) -> RetryCallState:
    """What tenacity's strategies are asked with; they read the number and the times of it."""
    state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]  # there is no call
    state.attempt_number = attempt
    return state


def schedule_of(error: BaseException, established: bool) -> str:
    """The name of the schedule in `Backoff` that this failure follows."""
    for kind, name in SCHEDULES.items():
        if isinstance(error, kind):
            return name
    return "lost" if established else "network"


SCHEDULES: Mapping[type[Exception], str] = {
    RateLimitError: "rate_limit",
    ConnectionLimitError: "connection_limit",
    ProvisioningError: "provisioning",
    ServerError: "server",
}


class Pacer:
    """Counts failures in a row by kind and says how long to wait; one for the life of a stream.

    It outlives single runs of a stream, so that a caller who subscribes again after an error
    cannot turn the schedules into a loop.

    Args:
        backoff: the schedules.
        clock: monotonic seconds.
        wall: seconds since 1970, for the server's reset times.
    """

    def __init__(
        self,
        backoff: Backoff,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.backoff = backoff
        self.budget = ConnectBudget(backoff.connects, backoff.window * backoff.scale, clock, wall)
        self._failures: Counter[str] = Counter()
        self._first_failure = 0.0
        self._delay = 0.0
        self._not_before = 0.0
        self._connections = 0
        self._clock = clock
        self._wall = wall

    def connecting(self) -> int:
        """Note that a connection is being made now; its number, from 1."""
        self.budget.spend()
        self._connections += 1
        return self._connections

    @property
    def attempts(self) -> int:
        """Failures in a row, of all kinds, since a connection last proved itself."""
        return self._failures.total()

    def failed(self, error: BaseException, *, established: bool, proven: bool) -> tuple[int, float]:
        """Note a failure.

        Args:
            error: what ended the connection, or kept it from being made.
            established: the server had answered with the stream.
            proven: the connection had proved itself.

        Returns:
            How often in a row this kind has happened, and the seconds to wait.
        """
        if proven:
            self._failures.clear()
        if not self._failures:
            self._first_failure = self._clock()
        name = schedule_of(error, established)
        self._failures[name] += 1
        attempt = self._failures[name]
        delay = self.backoff.delay(error, established, attempt)
        if isinstance(error, RateLimitError):
            delay = max(delay, _until_reset(error.headers, self._wall()))
        delay = max(delay, self.budget.wait())
        self._delay = delay
        self._not_before = self._clock() + delay
        return attempt, delay

    def wait(self) -> float:
        """Seconds until a connection may be made: what is left of the last wait, and the budget."""
        return max(0.0, self._not_before - self._clock(), self.budget.wait())

    def exhausted(self, error: BaseException) -> bool:
        """Whether the stop strategy has enough of the failures in a row."""
        state = _call_state(self.attempts)
        state.start_time = self._first_failure
        state.set_exception((type(error), error, None))
        state.outcome_timestamp = self._clock()
        state.upcoming_sleep = self._delay
        return bool(self.backoff.stop(state))


class ConnectBudget:
    """So many connects in so many seconds, corrected by what the server says is left.

    Args:
        limit: connects in a window.
        window: seconds.
        clock: monotonic seconds.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        limit: int,
        window: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.limit = limit
        self.window = window
        self._clock = clock
        self._wall = wall
        self._made: deque[float] = deque()
        self._closed_until = 0.0

    def spend(self) -> None:
        """Note that a connection is being made now."""
        self._made.append(self._clock())

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take the ``x-rate-limit-*`` headers of an answer, names in lower case."""
        limit, remaining = (_number(headers, name) for name in ("limit", "remaining"))
        if limit and limit >= 1:
            self.limit = int(limit)
        if remaining == 0:
            self._closed_until = self._clock() + _until_reset(headers, self._wall())

    def wait(self) -> float:
        """Seconds until the next connection may be made; 0 for now."""
        now = self._clock()
        while self._made and self._made[0] <= now - self.window:
            self._made.popleft()
        free = 0.0
        if len(self._made) >= self.limit:
            free = self._made[-self.limit] + self.window - now
        return max(0.0, free, self._closed_until - now)


def _number(headers: Mapping[str, str], name: str) -> float | None:
    try:
        number = float(headers[f"x-rate-limit-{name}"])
    except (KeyError, ValueError):
        return None
    return number if 0 <= number < math.inf else None


def _until_reset(headers: Mapping[str, str], now: float) -> float:
    reset = _number(headers, "reset")
    return 0.0 if reset is None else min(max(0.0, reset - now), LONGEST_WINDOW)
