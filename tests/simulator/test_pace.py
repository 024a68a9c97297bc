from __future__ import annotations

import math

import pytest

from rxtweets.simulator._pace import Due


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def take(due: Due) -> int:
    count = due.now()
    due.paid(count)
    return count


def test_tweets_are_due_at_the_rate() -> None:
    clock = Clock()
    due = Due(10.0, 1, clock)
    counts = []
    for _ in range(30):
        counts.append(take(due))
        clock.now += 0.05
    assert sum(counts) == 15
    assert max(counts) == 1


def test_the_rest_is_the_time_until_the_next_one() -> None:
    clock = Clock()
    due = Due(4.0, 1, clock)
    take(due)
    assert due.rest() == pytest.approx(0.25)
    clock.now += 0.1
    assert due.rest() == pytest.approx(0.15)


def test_a_burst_comes_together_and_then_nothing_until_the_next() -> None:
    clock = Clock()
    due = Due(8.0, 4, clock)
    counts = []
    for _ in range(8):
        counts.append(take(due))
        clock.now += 0.125
    assert counts == [4, 0, 0, 0, 4, 0, 0, 0]


def test_a_second_is_caught_up_at_most() -> None:
    clock = Clock()
    due = Due(100.0, 1, clock)
    take(due)
    clock.now += 60
    assert take(due) == 100
    assert take(due) == 0


def test_no_rate_gives_tweets_whenever_asked() -> None:
    due = Due(math.inf, 1, Clock())
    assert take(due) > 0
    assert due.rest() == 0.0


def test_a_rate_of_zero_gives_none() -> None:
    due = Due(0.0, 1, Clock())
    assert take(due) == 0
    assert due.rest() > 60
