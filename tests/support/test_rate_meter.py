from __future__ import annotations

import pytest

from rxtweets._support.rate_meter import Throughput


class Clock:
    def __init__(self) -> None:
        self.now = 0.25

    def __call__(self) -> float:
        return self.now


def test_rate_of_a_steady_flow_is_constant() -> None:
    clock = Clock()
    meter = Throughput(clock)
    rates: list[float] = []
    for _ in range(3_000):
        clock.now += 0.01
        meter.add(10)
        rates.append(meter.rate())
    assert meter.total == 30_000
    assert rates[100:] == pytest.approx([1_000.0] * 2_900, rel=0.01)


def test_rate_forgets_counts_after_ten_seconds() -> None:
    clock = Clock()
    meter = Throughput(clock)
    meter.add(90)
    clock.now += 9.0
    assert meter.rate() == pytest.approx(10.0, rel=0.05)
    clock.now += 1.0
    assert meter.rate() == 0.0


def test_rate_counts_the_first_second_in_full() -> None:
    clock = Clock()
    meter = Throughput(clock)
    meter.add(5)
    assert meter.rate() == 5.0
