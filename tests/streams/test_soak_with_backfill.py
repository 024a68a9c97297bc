"""Soak tests with backfill: 100,000 tweets over connections that break often."""

from __future__ import annotations

from typing import Any

import pytest

from tests.streams.soaking import (
    BACKFILL,
    HTTP1,
    HTTP2,
    TO_CONNECT,
    Soak,
    every_line_is_accounted_for,
    nothing_came_twice,
)

TWEETS = 100_000
RUNS: dict[str, dict[str, Any]] = {
    "over HTTP/1.1": {"seed": 1, **BACKFILL, **HTTP1},
    "over HTTP/2": {"seed": 2, **BACKFILL, **HTTP2},
}


@pytest.fixture(scope="module")
def soaks() -> dict[str, Soak]:
    return Soak.side_by_side(TWEETS, RUNS)


@pytest.mark.exhaustive
@pytest.mark.timeout(500)
@pytest.mark.parametrize("name", RUNS)
def test_counters_of_a_soak_add_up(soaks: dict[str, Soak], name: str) -> None:
    every_line_is_accounted_for(soaks[name])


@pytest.mark.exhaustive
@pytest.mark.timeout(500)
@pytest.mark.parametrize("name", RUNS)
def test_soak_delivers_no_duplicates(soaks: dict[str, Soak], name: str) -> None:
    nothing_came_twice(soaks[name], TWEETS)


@pytest.mark.exhaustive
@pytest.mark.timeout(500)
@pytest.mark.parametrize("name", RUNS)
def test_soak_misses_nothing_with_backfill(soaks: dict[str, Soak], name: str) -> None:
    nothing_is_missing(soaks[name])


def test_short_soak_misses_nothing_with_backfill() -> None:
    soak = Soak(4_000, 5, **BACKFILL)
    nothing_came_twice(soak, 4_000)
    nothing_is_missing(soak)


def nothing_is_missing(soak: Soak) -> None:
    assert soak.missing <= soak.reported
    if soak.slowest < TO_CONNECT:
        assert soak.gaps == []
        assert soak.missing == set()
