from __future__ import annotations

import pytest

from rxtweets._support.rate_meter import Throughput


class Clock:
    def __init__(self) -> None:
        self.now = 0.25

    def __call__(self) -> float:
        return self.now


def test_what_comes_evenly_has_one_rate_at_every_moment() -> None:
    clock = Clock()
    meter = Throughput(clock)
    rates: list[float] = []
    for _ in range(3_000):
        clock.now += 0.01
        meter.add(10)
        rates.append(meter.rate())
    assert meter.total == 30_000
    assert rates[100:] == pytest.approx([1_000.0] * 2_900, rel=0.01)


def test_what_is_ten_seconds_old_counts_no_more() -> None:
    clock = Clock()
    meter = Throughput(clock)
    meter.add(90)
    clock.now += 9.0
    assert meter.rate() == pytest.approx(10.0, rel=0.05)
    clock.now += 1.0
    assert meter.rate() == 0.0


def test_the_first_second_is_not_made_shorter() -> None:
    clock = Clock()
    meter = Throughput(clock)
    meter.add(5)
    assert meter.rate() == 5.0
