from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any

import pytest
from tenacity import stop_after_attempt, stop_after_delay, stop_before_delay, wait_fixed

from rxtweets import Backoff, ConfigurationError
from rxtweets.api._server_waits import retry_after
from rxtweets.errors import (
    ConnectionLimitError,
    ConnectionLost,
    HostNotFound,
    ProvisioningError,
    RateLimitError,
    ServerDisconnect,
    ServerError,
    StreamError,
    StreamStalled,
)
from rxtweets.streams._backoff import ConnectBudget, Pacer

LOST = ConnectionLost("the server ended the response")
NOON = 1_700_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def answer(
    kind: type[ServerError | RateLimitError | ConnectionLimitError | ProvisioningError],
    headers: Mapping[str, str] | None = None,
) -> StreamError:
    return kind("the server said no", 429, "", headers or {})


def pacer(backoff: Backoff | None = None) -> tuple[Pacer, Clock]:
    clock = Clock()
    return Pacer(backoff or Backoff(), clock, lambda: NOON + clock.now), clock


def fail(paces: Pacer, error: StreamError, *, established: bool = False) -> tuple[int, float]:
    return paces.failed(error, established=established, proven=False)[:2]


@pytest.mark.parametrize(
    ("error", "established", "schedule"),
    [
        (LOST, True, [*(0.25 * step for step in range(64)), *[16.0] * 6]),
        (LOST, False, [*(0.25 * step for step in range(1, 64)), *[16.0] * 7]),
        (StreamStalled("silence"), True, [0, 0.25, 0.5]),
        (ServerDisconnect("bye", "OperationalDisconnect"), True, [0, 0.25, 0.5]),
        (HostNotFound("no address"), False, [0.25, 0.5]),
        (answer(ServerError), False, [5, 10, 20, 40, 80, 160, 320, 320, 320]),
        (answer(ServerError), True, [5]),
        (answer(RateLimitError), False, [60, 120, 240, 480, 900, 900, 900]),
        (answer(ConnectionLimitError), False, [5, 10, 20, 40, 80, 160, 320, 320]),
        (answer(ProvisioningError), False, [60, 60, 60]),
    ],
)
def test_delays_follow_the_schedule_of_the_error(
    error: StreamError, schedule: list[float], *, established: bool
) -> None:
    backoff, attempts = Backoff(), range(1, len(schedule) + 1)
    assert [backoff.delay(error, established, attempt) for attempt in attempts] == schedule


def test_schedules_stay_at_their_maximum() -> None:
    million = 1_000_000
    backoff = Backoff()
    assert backoff.delay(answer(ServerError), established=False, attempt=million) == 320
    assert backoff.delay(answer(RateLimitError), established=False, attempt=million) == 900
    assert backoff.delay(LOST, established=False, attempt=million) == 16


@pytest.mark.parametrize(
    ("error", "established", "attempt", "delay"),
    [
        (LOST, True, 2, 0.0025),
        (LOST, False, 1, 0.0025),
        (answer(ServerError), False, 1, 0.05),
        (answer(RateLimitError), False, 1, 0.6),
        (answer(ConnectionLimitError), False, 1, 0.05),
        (answer(ProvisioningError), False, 1, 0.6),
    ],
)
def test_scale_shortens_every_schedule(
    error: StreamError, attempt: int, delay: float, *, established: bool
) -> None:
    assert Backoff(scale=0.01).delay(error, established, attempt) == pytest.approx(delay)


def test_schedule_can_be_any_tenacity_strategy() -> None:
    backoff = Backoff(server=wait_fixed(3))
    assert [
        backoff.delay(answer(ServerError), established=False, attempt=attempt) for attempt in (1, 9)
    ] == [3, 3]


def test_failures_count_by_kind() -> None:
    paces, _ = pacer()
    assert fail(paces, LOST) == (1, 0.25)
    assert fail(paces, answer(ServerError)) == (1, 5)
    assert fail(paces, LOST) == (2, 0.5)
    assert fail(paces, LOST, established=True) == (1, 0)
    assert fail(paces, answer(ServerError)) == (2, 10)
    assert paces.attempts == 5


def test_count_continues_when_the_connection_proved_nothing() -> None:
    paces, _ = pacer()
    results = [fail(paces, LOST, established=True) for _ in range(4)]
    assert results == [(1, 0), (2, 0.25), (3, 0.5), (4, 0.75)]


def test_counts_reset_when_the_connection_proved_itself() -> None:
    paces, _ = pacer()
    fail(paces, answer(ServerError))
    fail(paces, LOST, established=True)
    fail(paces, LOST, established=True)
    assert paces.failed(LOST, established=True, proven=True)[:2] == (1, 0)
    assert paces.attempts == 1
    assert fail(paces, answer(ServerError)) == (1, 5)


@pytest.mark.parametrize(
    ("reset", "delay"), [(str(int(NOON) + 700), 700), (str(int(NOON) + 7), 60), ("0", 60), ("", 60)]
)
def test_rate_limit_waits_for_a_later_reset(reset: str, delay: float) -> None:
    paces, _ = pacer()
    assert fail(paces, answer(RateLimitError, {"x-rate-limit-reset": reset})) == (1, delay)


# Waits that the server asks for.

LIMITED, UNAVAILABLE, HELD = RateLimitError, ServerError, ConnectionLimitError
RESET, AFTER = "x-rate-limit-reset", "retry-after"


def dated(seconds: float) -> str:
    """Return a time after noon as HTTP writes it."""
    return formatdate(NOON + seconds, usegmt=True)


@pytest.mark.parametrize(
    ("kind", "headers", "delay", "wait_from"),
    [
        (UNAVAILABLE, {AFTER: "120"}, 120, "Retry-After"),
        (UNAVAILABLE, {AFTER: " 120 "}, 120, "Retry-After"),
        (UNAVAILABLE, {AFTER: "7.5"}, 7.5, "Retry-After"),
        (UNAVAILABLE, {AFTER: "3600"}, 3600, "Retry-After"),
        (UNAVAILABLE, {AFTER: dated(120)}, 120, "Retry-After"),
        (UNAVAILABLE, {AFTER: "1"}, 5, "backoff"),
        (LIMITED, {AFTER: "300"}, 300, "Retry-After"),
        (LIMITED, {AFTER: "300", RESET: str(NOON + 700)}, 700, RESET),
        (LIMITED, {AFTER: "900", RESET: str(NOON + 700)}, 900, "Retry-After"),
        (LIMITED, {RESET: str(NOON + 86_400)}, 86_400, RESET),
        (HELD, {AFTER: "90"}, 90, "Retry-After"),
        (ProvisioningError, {AFTER: "90"}, 90, "Retry-After"),
        # Every answer of X has a reset; it is a wait only after a rate limit.
        (UNAVAILABLE, {RESET: str(NOON + 700)}, 5, "backoff"),
        (HELD, {RESET: str(NOON + 700)}, 5, "backoff"),
    ],
)
def test_wait_is_at_least_the_requested_one(
    kind: Any, headers: dict[str, str], delay: float, wait_from: str
) -> None:
    paces, _ = pacer()
    made = paces.failed(answer(kind, headers), established=False, proven=False)
    assert made == (1, delay, wait_from)


@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        (UNAVAILABLE, {AFTER: "300000"}),  # milliseconds
        (UNAVAILABLE, {AFTER: "3601"}),
        (UNAVAILABLE, {AFTER: "9" * 400}),
        (UNAVAILABLE, {AFTER: dated(7 * 86_400)}),
        (LIMITED, {AFTER: "300000"}),
        (LIMITED, {AFTER: "-5"}),
        (LIMITED, {AFTER: "soon"}),
        (LIMITED, {RESET: "-5"}),
        (LIMITED, {RESET: "soon"}),
        (LIMITED, {RESET: "nan"}),
        (LIMITED, {RESET: str(int(NOON + 300) * 1000)}),  # milliseconds
        (LIMITED, {RESET: str(NOON + 86_401)}),
        (LIMITED, {RESET: "9" * 400, AFTER: "soon"}),
    ],
)
def test_implausible_wait_becomes_the_window(kind: Any, headers: dict[str, str]) -> None:
    paces, _ = pacer()
    made = paces.failed(answer(kind, headers), established=False, proven=False)
    assert made == (1, 900, "window")


@pytest.mark.parametrize("value", ["-5", "soon", "", "nan", dated(-60), "Mon, 99 Foo 2026"])
def test_invalid_retry_after_leaves_the_schedule(value: str) -> None:
    paces, _ = pacer()
    assert fail(paces, answer(UNAVAILABLE, {AFTER: value})) == (1, 5)


def test_plausible_wait_beats_an_implausible_one() -> None:
    paces, _ = pacer()
    error = answer(LIMITED, {AFTER: "300000", RESET: str(NOON + 300)})
    assert paces.failed(error, established=False, proven=False) == (1, 300, RESET)


@pytest.mark.parametrize("skew", [-7200, -300, 300, 7200])
@pytest.mark.parametrize("header", [RESET, AFTER])
def test_times_are_measured_by_the_server_clock(header: str, skew: float) -> None:
    paces, _ = pacer()
    at = str(NOON + skew + 400) if header == RESET else dated(skew + 400)
    assert fail(paces, answer(LIMITED, {header: at, "date": dated(skew)})) == (1, 400)


def test_invalid_date_is_ignored() -> None:
    paces, _ = pacer()
    for date in ("Thu, 01 Jan 1970 00:00:00 GMT", "today"):
        error = answer(LIMITED, {RESET: str(NOON + 700), "date": date})
        assert fail(paces, error)[1] == 700


def test_date_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "America/New_York")
        time.tzset()
        wait = retry_after({AFTER: "Tue Nov 14 22:15:20 2023"}, NOON)
    time.tzset()
    assert wait == 120


@pytest.mark.parametrize(("scale", "delay"), [(0.001, 0.9), (0, 0)])
def test_scale_shortens_the_window(scale: float, delay: float) -> None:
    paces, _ = pacer(Backoff(scale=scale))
    assert fail(paces, answer(LIMITED, {RESET: "9" * 13})) == (1, delay)


def test_scale_does_not_shorten_retry_after() -> None:
    paces, _ = pacer(Backoff(scale=0.001))
    assert fail(paces, answer(UNAVAILABLE, {AFTER: "90"})) == (1, 90)


def test_wait_from_names_the_reset_when_no_connects_remain() -> None:
    paces, _ = pacer()
    headers = {"x-rate-limit-remaining": "0", RESET: str(NOON + 300)}
    paces.budget.learn(headers)
    made = paces.failed(LOST, established=True, proven=True)
    assert made == (1, 300, RESET)


def test_budget_opens_after_the_window_at_the_latest() -> None:
    budget = ConnectBudget(50, 900, Clock(), lambda: NOON)
    budget.learn({"x-rate-limit-remaining": "0", RESET: str(int(NOON) * 1000)})
    assert budget.wait() == 900


def test_scale_does_not_shorten_the_reset() -> None:
    paces, _ = pacer(Backoff(scale=0.001))
    error = answer(RateLimitError, {"x-rate-limit-reset": str(int(NOON) + 90)})
    assert fail(paces, error) == (1, 90)


def test_wait_counts_down_after_the_failure() -> None:
    paces, clock = pacer()
    assert paces.wait() == 0
    fail(paces, answer(ServerError))
    assert paces.wait() == 5
    clock.now += 3
    assert paces.wait() == 2
    clock.now += 3
    assert paces.wait() == 0


def test_connections_are_numbered_from_one() -> None:
    paces, _ = pacer()
    assert paces.connecting() == 1
    paces.failed(LOST, established=True, proven=True)
    assert paces.connecting() == 2


def test_connect_51_waits_for_the_window() -> None:
    paces, clock = pacer()
    for _ in range(50):
        assert paces.wait() == 0
        paces.connecting()
        clock.now += 1
    assert paces.wait() == 850
    clock.now += 849
    assert paces.wait() == 1
    clock.now += 1
    assert paces.wait() == 0


def test_spent_budget_delays_a_reconnect() -> None:
    paces, _ = pacer(Backoff(connects=2, window=100))
    paces.connecting()
    paces.connecting()
    assert paces.failed(LOST, established=True, proven=True) == (1, 100, "connect budget")


def test_scale_shortens_the_budget_window() -> None:
    paces, _ = pacer(Backoff(connects=1, window=900, scale=0.01))
    paces.connecting()
    assert paces.wait() == 9


def test_connects_leave_the_window_one_by_one() -> None:
    clock = Clock()
    budget = ConnectBudget(2, 10, clock, lambda: NOON)
    budget.spend()
    clock.now = 6
    budget.spend()
    clock.now = 10
    assert budget.wait() == 0
    budget.spend()
    assert budget.wait() == 6


def test_budget_learns_a_higher_limit() -> None:
    budget = ConnectBudget(1, 900, Clock(), lambda: NOON)
    budget.spend()
    budget.learn({"x-rate-limit-limit": "2", "x-rate-limit-remaining": "1"})
    assert budget.wait() == 0
    assert budget.limit == 2


def test_budget_learns_a_lower_limit() -> None:
    clock = Clock()
    budget = ConnectBudget(50, 900, clock, lambda: NOON)
    for now in (0, 10, 20):
        clock.now = now
        budget.spend()
    budget.learn({"x-rate-limit-limit": "2"})
    assert budget.wait() == 10 + 900 - 20


def test_budget_is_closed_until_the_reset() -> None:
    clock = Clock()
    budget = ConnectBudget(50, 900, clock, lambda: NOON + clock.now)
    reset = str(int(NOON) + 300)
    budget.learn({"x-rate-limit-remaining": "0", "x-rate-limit-reset": reset})
    assert budget.wait() == 300
    clock.now = 299
    assert budget.wait() == 1
    clock.now = 301
    assert budget.wait() == 0


def test_budget_stays_open_while_connects_remain() -> None:
    budget = ConnectBudget(50, 900, Clock(), lambda: NOON)
    reset = str(int(NOON) + 300)
    budget.learn({"x-rate-limit-remaining": "1", "x-rate-limit-reset": reset})
    assert budget.wait() == 0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-rate-limit-limit": "many"},
        {"x-rate-limit-limit": "0"},
        {"x-rate-limit-limit": "-1"},
        {"x-rate-limit-limit": "nan"},
        {"x-rate-limit-limit": "inf"},
        {"x-rate-limit-remaining": "0", "x-rate-limit-reset": "nan"},
        {"x-rate-limit-remaining": "0", "x-rate-limit-reset": "inf"},
    ],
)
def test_budget_ignores_invalid_headers(headers: dict[str, str]) -> None:
    budget = ConnectBudget(50, 900, Clock(), lambda: NOON)
    budget.spend()
    budget.learn(headers)
    assert (budget.limit, budget.wait()) == (50, 0)


def test_pacer_never_gives_up_by_default() -> None:
    paces, clock = pacer()
    for _ in range(1000):
        fail(paces, LOST)
        clock.now += 100
    assert not paces.exhausted(LOST)


def test_stop_after_attempt_counts_all_kinds() -> None:
    paces, _ = pacer(Backoff(stop=stop_after_attempt(3)))
    fail(paces, LOST)
    fail(paces, answer(ServerError))
    assert not paces.exhausted(LOST)
    fail(paces, LOST, established=True)
    assert paces.exhausted(LOST)


def test_stop_after_attempt_resets_after_a_proven_connection() -> None:
    paces, _ = pacer(Backoff(stop=stop_after_attempt(2)))
    fail(paces, LOST)
    paces.failed(LOST, established=True, proven=True)
    assert not paces.exhausted(LOST)


def test_stop_after_delay_measures_from_the_first_failure() -> None:
    paces, clock = pacer(Backoff(stop=stop_after_delay(30)))
    fail(paces, LOST)
    clock.now += 29
    fail(paces, LOST)
    assert not paces.exhausted(LOST)
    clock.now += 1
    fail(paces, LOST)
    assert paces.exhausted(LOST)


def test_stop_after_delay_resets_after_a_proven_connection() -> None:
    paces, clock = pacer(Backoff(stop=stop_after_delay(30)))
    fail(paces, LOST)
    clock.now += 100
    paces.failed(LOST, established=True, proven=True)
    assert not paces.exhausted(LOST)


def test_stop_before_delay_includes_the_next_wait() -> None:
    paces, clock = pacer(Backoff(stop=stop_before_delay(30), server=wait_fixed(20)))
    fail(paces, answer(ServerError))
    assert not paces.exhausted(LOST)
    clock.now += 15
    fail(paces, answer(ServerError))
    assert paces.exhausted(LOST)


@pytest.mark.parametrize("name", ["proved_after", "window", "scale"])
@pytest.mark.parametrize("value", [-1, -0.001, float("nan"), float("-inf")])
def test_backoff_refuses_negative_times(name: str, value: float) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError, match=name):
        Backoff(**options)


@pytest.mark.parametrize("connects", [0, -50])
def test_backoff_refuses_zero_connects(connects: int) -> None:
    with pytest.raises(ConfigurationError, match="connects"):
        Backoff(connects=connects)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale", "fast"),
        ("scale", float("inf")),
        ("window", None),
        ("proved_after", [5]),
        ("connects", "50"),
        ("connects", float("nan")),
        ("lost", 3),
        ("server", None),
        ("stop", 3),
    ],
)
def test_backoff_refuses_wrong_types(name: str, value: object) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError, match=name):
        Backoff(**options)


def test_backoff_accepts_a_scale_of_zero() -> None:
    assert Backoff(scale=0).delay(answer(RateLimitError), established=False, attempt=5) == 0
