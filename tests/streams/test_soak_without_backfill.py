"""Soak tests without backfill: 100,000 tweets over connections that break often."""

from __future__ import annotations

from typing import Any

import pytest

from tests.streams.soaking import (
    HTTP1,
    HTTP2,
    Soak,
    every_line_is_accounted_for,
    nothing_came_twice,
)

TWEETS = 100_000
RUNS: dict[str, dict[str, Any]] = {
    "over HTTP/1.1": {"seed": 3, **HTTP1},
    "over HTTP/2": {"seed": 4, **HTTP2},
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
def test_soak_misses_only_reported_gaps(soaks: dict[str, Soak], name: str) -> None:
    soak = soaks[name]
    assert soak.missing == soak.reported
    assert len(soak.missing) > 1_000
    assert soak.stats.gaps == len(soak.gaps) > 100
