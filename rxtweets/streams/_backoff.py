"""When to reconnect: X's schedules as tenacity strategies, and the budget of connects.

X's documentation ("handling disconnections"): reconnect immediately after an established connection
drops; after network errors wait 250 ms more each time, up to 16 s; after HTTP errors that are worth
a retry double the wait from 5 s to 320 s; after a 429 double it from one minute. X allows 50
connects of a stream in 15 minutes ("rate limits"); ``x-rate-limit-*`` says how many are left.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

from tenacity import stop_never, wait_exponential, wait_fixed, wait_incrementing
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from rxtweets._core.events import WaitFrom
from rxtweets._core.retry import call_state
from rxtweets._support.validation import number, whole_number
from rxtweets.api._server_waits import WINDOW, asked_waits, rate_limit_number, until_reset
from rxtweets.errors import ConfigurationError

__all__ = ["Backoff", "ConnectBudget", "Pacer", "Wait"]

SCHEDULES = ("lost", "network", "server", "rate_limit", "connection_limit", "provisioning")


class Wait(NamedTuple):
    """The wait after a failure.

    Attributes:
        attempt: failures of this kind in a row, from 1.
        delay: seconds.
        wait_from: the source of the wait: the longest one that applies.
    """

    attempt: int
    delay: float
    wait_from: WaitFrom


@dataclass(frozen=True)
class Backoff:
    """Waits before a reconnect, by the kind of failure; all in seconds.

    ::

        Backoff(stop=tenacity.stop_after_attempt(10))   # gives up with the last error
        Backoff(server=tenacity.wait_fixed(3))
        Backoff(scale=0.01)                             # rehearses minutes in seconds

    The defaults follow X's guidelines. Each schedule is a `tenacity` wait strategy; its attempt
    number is the number of such failures in a row. The numbers start anew after a connection that
    delivered a line and lived for ``proved_after`` seconds; an answer of 200 alone proves nothing.

    The wait is never shorter than the server's ``Retry-After``, and after a rate limit its
    ``x-rate-limit-reset``; both are measured by the server's ``Date``. A ``Retry-After``
    above an hour, or a reset more than a day away, is implausible; then the wait is ``window`` at
    least. The event `events.Reconnecting` and the log name the source of each wait:
    ``backoff``, ``Retry-After``, ``x-rate-limit-reset``, ``window`` or ``connect budget``.

    Attributes:
        lost: an established connection ended, cleanly or not, or fell silent: immediately, then
            0.25 s more each time, up to 16 s.
        network: no connection could be made, or not within ``connect_timeout``: 0.25 s, 0.5 s …
            16 s.
        server: 5xx of the server or of a proxy, or an answer that is not a stream: 5 s, 10 s …
            320 s.
        rate_limit: 429, too many connects: 60 s, 120 s … 15 minutes.
        connection_limit: 429 ``TooManyConnections``, the token's connection is taken: 5 s, 10 s …
            320 s.
        provisioning: X changes the account's subscription: 60 s.
        stop: a `tenacity` stop strategy, over the failures in a row; by default never.
        proved_after: seconds after which a connection that delivered resets the schedules; 5.
        connects: connects allowed in a window, 50; the server's headers correct it. A connect above
            it waits for the window to move on.
        window: length of that window, 900.
        scale: factor for all of the above. It does not shorten waits that the server asks for.

    Raises:
        ConfigurationError: a value is invalid.
    """

    # Strategies of tenacity have no repr.
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
            number(f"Backoff {name}", getattr(self, name))
        whole_number("Backoff connects", self.connects)
        for name in SCHEDULES:
            self._check(name, wait_base, "a wait strategy, such as tenacity.wait_fixed(3)")
        self._check("stop", stop_base, "a stop strategy, such as tenacity.stop_after_attempt(9)")

    def _check(self, name: str, kind: type, wanted: str) -> None:
        if not isinstance(getattr(self, name), kind):
            raise ConfigurationError(f"Backoff {name}={getattr(self, name)!r}: give {wanted}")

    def delay(self, error: BaseException, established: bool, attempt: int) -> float:
        """Return the seconds to wait after a failure.

        Args:
            error: reason of the failure.
            established: the server had answered with the stream.
            attempt: number of such failures in a row, from 1.
        """
        strategy: wait_base = getattr(self, _schedule_of(error, established))
        return float(strategy(call_state(error, attempt, 0.0, 0.0))) * self.scale


def _schedule_of(error: BaseException, established: bool) -> str:
    return getattr(error, "schedule", "") or ("lost" if established else "network")


class Pacer:
    """Counts failures in a row by kind, and computes the wait.

    A stream has one for all of its runs, so that subscribing again after an error cannot turn the
    schedules into a loop.

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
        """Count a connect; return the number of the connection, from 1."""
        self.budget.spend()
        self._connections += 1
        return self._connections

    @property
    def attempts(self) -> int:
        """Failures in a row, of all kinds, since a connection last proved itself."""
        return self._failures.total()

    def failed(self, error: BaseException, *, established: bool, proven: bool) -> Wait:
        """Count a failure; return the wait.

        Args:
            error: reason of the failure.
            established: the server had answered with the stream.
            proven: the connection had proved itself.
        """
        if proven:
            self._failures.clear()
        if not self._failures:
            self._first_failure = self._clock()
        name = _schedule_of(error, established)
        self._failures[name] += 1
        attempt = self._failures[name]
        waits: list[tuple[WaitFrom, float]] = [
            ("backoff", self.backoff.delay(error, established, attempt)),
            *asked_waits(error, self._wall(), self.budget.window).items(),
            *self.budget.waits().items(),
        ]
        wait_from, self._delay = max(waits, key=itemgetter(1))
        self._not_before = self._clock() + self._delay
        return Wait(attempt, self._delay, wait_from)

    def wait(self) -> float:
        """Return the seconds until the next connect, by the last wait and the budget."""
        return max(0.0, self._not_before - self._clock(), self.budget.wait())

    def exhausted(self, error: BaseException) -> bool:
        """Return whether the stop strategy ends the stream."""
        state = call_state(error, self.attempts, self._first_failure, self._clock())
        state.upcoming_sleep = self._delay
        return bool(self.backoff.stop(state))


class ConnectBudget:
    """The connects allowed in a sliding window, corrected by the server's headers.

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
        """Count a connect."""
        self._made.append(self._clock())

    def learn(self, headers: Mapping[str, str]) -> None:
        """Read the ``x-rate-limit-*`` headers of an answer; names in lower case."""
        limit, remaining = (rate_limit_number(headers, name) for name in ("limit", "remaining"))
        if limit and limit >= 1:
            self.limit = int(limit)
        if remaining == 0:
            reset = until_reset(headers, self._wall()) or 0.0
            self._closed_until = self._clock() + (self.window if reset == math.inf else reset)

    def wait(self) -> float:
        """Return the seconds until the next connect; 0 for none."""
        return max(self.waits().values())

    def waits(self) -> dict[WaitFrom, float]:
        """Return the seconds until the next connect, by their source."""
        now = self._clock()
        while self._made and self._made[0] <= now - self.window:
            self._made.popleft()
        free = 0.0
        if len(self._made) >= self.limit:
            free = self._made[-self.limit] + self.window - now
        return {"x-rate-limit-reset": max(0.0, self._closed_until - now), "connect budget": free}
