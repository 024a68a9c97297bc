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
from operator import itemgetter
from typing import NamedTuple

from tenacity import (
    RetryCallState,
    stop_never,
    wait_exponential,
    wait_fixed,
    wait_incrementing,
)
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from rxtweets._core.events import WaitFrom
from rxtweets._support.validation import whole_number
from rxtweets.api._server_waits import WINDOW, asked_waits, rate_limit_number, until_reset
from rxtweets.errors import (
    ConfigurationError,
)

__all__ = ["Backoff", "ConnectBudget", "Pacer", "Wait"]


SCHEDULES = ("lost", "network", "server", "rate_limit", "connection_limit", "provisioning")


class Wait(NamedTuple):
    """The wait after a failure.

    Attributes:
        attempt: how often in a row this kind of failure has happened, from 1.
        delay: seconds.
        wait_from: the longest of the waits that apply.
    """

    attempt: int
    delay: float
    wait_from: WaitFrom


@dataclass(frozen=True)
class Backoff:
    """How long to wait before the next connection, by what ended the last; all in seconds.

    Each schedule is a `tenacity` wait strategy, asked with the number of such failures in a row.
    The numbers start anew once a connection has proved itself: it delivered a line and lived for
    ``proved_after`` seconds. An answer of 200 alone proves nothing.

    The server's ``Retry-After``, and after a rate limit its ``x-rate-limit-reset``, are lower
    bounds of the wait. Both are measured by the server's ``Date``. Where the server asks for a wait
    that is not plausible (a ``Retry-After`` above an hour, a reset more than a day away), the wait
    is at least ``window``.

    Attributes:
        lost: a connection that was established ended: at once, then 0.25 s more each time, 16 s
            at most.
        network: a connection could not be made: 0.25 s, 0.5 s … 16 s.
        server: 5xx of the server or a proxy, or an answer of something else: 5 s, 10 s … 320 s.
        rate_limit: 429 for too many connects: 60 s, 120 s … 15 minutes.
        connection_limit: 429 because the token's connection is held already: 5 s, 10 s … 320 s.
        provisioning: the subscription is being changed: 60 s.
        stop: a `tenacity` stop strategy, over the failures in a row; by default never.
        proved_after: seconds until a connection that delivers has proved itself.
        connects: connects allowed in a window, until the server's headers say otherwise.
        window: length of that window.
        scale: factor for all of the above, to rehearse minutes in seconds against the simulator. It
            does not shorten what the server asks for.
    """

    # Strategies of tenacity have no repr, so theirs are left out of this one.
    lost: wait_base = field(default_factory=lambda: wait_incrementing(0, 0.25, 16), repr=False)
    network: wait_base = field(
        default_factory=lambda: wait_incrementing(0.25, 0.25, 16), repr=False
    )
    server: wait_base = field(
        default_factory=lambda: wait_exponential(multiplier=5, max=320), repr=False
    )
    rate_limit: wait_base = field(
        default_factory=lambda: wait_exponential(multiplier=60, max=900), repr=False
    )
    connection_limit: wait_base = field(
        default_factory=lambda: wait_exponential(multiplier=5, max=320), repr=False
    )
    provisioning: wait_base = field(default_factory=lambda: wait_fixed(60), repr=False)
    stop: stop_base = field(default_factory=lambda: stop_never, repr=False)
    proved_after: float = 5.0
    connects: int = 50
    window: float = WINDOW
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("proved_after", "window", "scale"):
            number = getattr(self, name)
            is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
            if not is_number or not 0 <= number < math.inf:
                raise ConfigurationError(f"Backoff {name}={number!r}: give a number, 0 or more")
        whole_number("Backoff connects", self.connects)
        for name in SCHEDULES:
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
    return getattr(error, "schedule", "") or ("lost" if established else "network")


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

    def failed(self, error: BaseException, *, established: bool, proven: bool) -> Wait:
        """Note a failure.

        Args:
            error: what ended the connection, or kept it from being made.
            established: the server had answered with the stream.
            proven: the connection had proved itself.
        """
        if proven:
            self._failures.clear()
        if not self._failures:
            self._first_failure = self._clock()
        name = schedule_of(error, established)
        self._failures[name] += 1
        attempt = self._failures[name]
        waits: dict[WaitFrom, float] = {"backoff": self.backoff.delay(error, established, attempt)}
        for wait_from, delay in (
            *asked_waits(error, self._wall(), self.budget.window).items(),
            *self.budget.waits().items(),
        ):
            waits[wait_from] = max(waits.get(wait_from, 0.0), delay)
        wait_from, delay = max(waits.items(), key=itemgetter(1))
        self._delay = delay
        self._not_before = self._clock() + delay
        return Wait(attempt, delay, wait_from)

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
        limit, remaining = (rate_limit_number(headers, name) for name in ("limit", "remaining"))
        if limit and limit >= 1:
            self.limit = int(limit)
        if remaining == 0:
            reset = until_reset(headers, self._wall()) or 0.0
            self._closed_until = self._clock() + (self.window if reset == math.inf else reset)

    def wait(self) -> float:
        """Seconds until the next connection may be made; 0 for now."""
        return max(self.waits().values())

    def waits(self) -> dict[WaitFrom, float]:
        """The same by what it comes from."""
        now = self._clock()
        while self._made and self._made[0] <= now - self.window:
            self._made.popleft()
        free = 0.0
        if len(self._made) >= self.limit:
            free = self._made[-self.limit] + self.window - now
        return {"x-rate-limit-reset": max(0.0, self._closed_until - now), "connect budget": free}
