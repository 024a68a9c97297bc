from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxtweets.streams._gaps import (
    LATENESS,
    MARGIN,
    MOST_MINUTES,
    GapTracker,
    Interval,
    SharedGaps,
    overlap,
    subtract,
)

NOON = 1_700_000_000.0
NONE: Any = None


def after(silence: float, backfill: Any = "auto", scale: float = 1.0) -> int:
    """Return the requested minutes after a silence in seconds."""
    return GapTracker(backfill, NOON, scale).minutes(NOON + silence)


@pytest.mark.parametrize(
    ("silence", "minutes"),
    [(0, 1), (30, 1), (31, 2), (90, 2), (91, 3), (150, 3), (270, 5), (271, 5), (86_400, 5)],
)
def test_auto_backfill_covers_the_gap_and_half_a_minute(silence: float, minutes: int) -> None:
    assert MARGIN == 30
    assert after(silence) == minutes


def test_auto_backfill_is_zero_on_the_first_connection() -> None:
    assert GapTracker("auto").minutes(NOON) == 0


def test_backfill_is_zero_by_default() -> None:
    assert after(60, backfill=None) == 0


@pytest.mark.parametrize("minutes", [0, 1, 5])
def test_fixed_backfill_is_requested_every_time(minutes: int) -> None:
    tracker = GapTracker(minutes)
    assert tracker.minutes(NOON) == minutes
    tracker.alive_until = NOON
    assert tracker.minutes(NOON + 1) == minutes


def test_auto_backfill_is_the_margin_when_the_clock_went_back() -> None:
    assert after(-3_600) == 1


def test_auto_backfill_starts_at_the_last_byte() -> None:
    tracker = GapTracker("auto", NOON)
    tracker.alive_until = NOON + 100
    assert tracker.alive_until == NOON + 100
    assert tracker.minutes(NOON + 100) == 1


def test_refused_backfill_is_not_requested_again() -> None:
    tracker = GapTracker("auto", NOON)
    tracker.refuse()
    assert tracker.minutes(NOON + 60) == 0


def gap(silence: float, minutes: int, scale: float = 1.0) -> Interval | None:
    return GapTracker("auto", NOON, scale).gap(NOON + silence, minutes)


def test_gap_is_the_whole_silence_without_backfill() -> None:
    assert gap(42.5, 0) == Interval(NOON, NOON + 42.5)


def test_gap_is_none_on_the_first_connection() -> None:
    assert GapTracker("auto").gap(NOON, 0) is None


@pytest.mark.parametrize("silence", [0, -1, -3_600])
def test_gap_is_none_without_silence(silence: float) -> None:
    assert gap(silence, 0) is None
    assert gap(silence, 1) is None


def test_gap_is_none_when_backfill_reaches_back() -> None:
    assert gap(60 - LATENESS, 1) is None


def test_gap_is_the_lateness_when_backfill_just_reaches() -> None:
    assert gap(60 - LATENESS + 1, 1) == Interval(NOON - LATENESS, NOON)
    assert gap(60, 1) == Interval(NOON - LATENESS, NOON)


def test_gap_is_the_part_that_backfill_does_not_reach() -> None:
    assert gap(400, 5) == Interval(NOON, NOON + 100)


def test_scale_shortens_the_minutes() -> None:
    assert after(0.5, scale=0.01) == 2
    assert gap(4, 5, scale=0.01) == Interval(NOON, NOON + 1)
    assert gap(0.5, 1, scale=0.01) is None


@given(
    silence=st.floats(0.001, 400_000),
    connecting=st.floats(0, MARGIN - LATENESS),
    scale=st.sampled_from([1.0, 0.01]),
)
def test_auto_backfill_is_capped_at_five_minutes(
    silence: float, connecting: float, scale: float
) -> None:
    tracker = GapTracker("auto", NOON, scale)
    minutes = tracker.minutes(NOON + silence * scale)
    connected = NOON + (silence + connecting) * scale
    left = tracker.gap(connected, minutes)
    if silence + MARGIN <= MOST_MINUTES * 60:
        # Floats hold seconds since 1970 to a microsecond.
        assert left is None or left.end - left.start < LATENESS * scale + 1e-3
        assert left is None or silence + connecting > minutes * 60 - LATENESS - 0.01
    if silence > MOST_MINUTES * 60:
        assert left is not None
        assert left.start < left.end <= connected


@given(silence=st.floats(-1_000, 100_000), minutes=st.integers(0, 5))
def test_gap_is_never_empty(silence: float, minutes: int) -> None:
    left = gap(silence, minutes)
    assert left is None or left.start < left.end


def after_lagging(written: float, received: float, spoke: float, scale: float = 1.0) -> float:
    """Return `alive_until` after a late last message, in seconds after noon."""
    tracker = GapTracker("auto", NOON + spoke, scale)
    tracker.lagging(NOON + written, NOON + received)
    assert tracker.alive_until is not None
    return tracker.alive_until - NOON


def test_late_message_moves_alive_until_back() -> None:
    assert after_lagging(written=0, received=60, spoke=60) == LATENESS
    assert after_lagging(written=0, received=60, spoke=60 + LATENESS) == LATENESS


def test_timely_message_leaves_alive_until() -> None:
    assert after_lagging(written=60 - LATENESS, received=60, spoke=61) == 61


def test_late_message_is_ignored_when_keep_alives_followed() -> None:
    assert after_lagging(written=0, received=60, spoke=61 + LATENESS) == 61 + LATENESS


def test_late_message_is_ignored_when_from_a_recording() -> None:
    assert after_lagging(written=0, received=360, spoke=360) == 360


def test_scale_shortens_the_lateness() -> None:
    assert after_lagging(0, 0.6, 0.6, scale=0.01) == pytest.approx(LATENESS * 0.01, abs=1e-5)


def test_late_message_is_ignored_on_the_first_connection() -> None:
    tracker = GapTracker("auto")
    tracker.lagging(NOON, NOON + 60)
    assert tracker.alive_until is None


Pairs = list[tuple[float, float]]

INTERVALS: dict[str, tuple[Pairs, Pairs, Pairs]] = {
    "none": ([], [], [(2, 8)]),
    "before": ([(0, 1)], [], [(2, 8)]),
    "touching": ([(0, 2), (8, 9)], [], [(2, 8)]),
    "at the start": ([(1, 4)], [(2, 4)], [(4, 8)]),
    "at the end": ([(6, 9)], [(6, 8)], [(2, 6)]),
    "inside": ([(4, 5)], [(4, 5)], [(2, 4), (5, 8)]),
    "around": ([(0, 9)], [(2, 8)], []),
    "equal": ([(2, 8)], [(2, 8)], []),
    "two": ([(1, 3), (5, 6)], [(2, 3), (5, 6)], [(3, 5), (6, 8)]),
    "endless": ([(-math.inf, 4), (6, math.inf)], [(2, 4), (6, 8)], [(4, 6)]),
}


@pytest.mark.parametrize(("others", "common", "rest"), INTERVALS.values(), ids=INTERVALS)
def test_interval_splits_into_overlap_and_rest(others: Pairs, common: Pairs, rest: Pairs) -> None:
    intervals = [Interval(*other) for other in others]
    assert overlap(Interval(2, 8), intervals) == common
    assert subtract(Interval(2, 8), intervals) == rest


def test_shared_gap_is_missed_by_all_connections() -> None:
    gaps = SharedGaps(["a", "b"])
    for name in "ab":
        gaps.opened(name, 0)
    assert gaps.add("a", Interval(1, 5)) == []
    assert gaps.add("b", Interval(3, 9)) == [Interval(3, 5)]
    assert gaps.count == 1


def test_shared_gap_is_returned_once() -> None:
    gaps = SharedGaps(["a", "b"])
    gaps.opened("a", 0)
    assert gaps.add("a", Interval(1, 5)) == [Interval(1, 5)]
    assert gaps.add("b", Interval(0, 9)) == []


@pytest.mark.parametrize(("returned", "new"), [(None, 1), (6, 0), (8, 1)])
def test_shared_gap_follows_the_end_of_a_connection(returned: float | None, new: int) -> None:
    gaps = SharedGaps(["a", "b"])
    gaps.opened("a", 0)
    gaps.ended("a", 5)
    if returned is not None:
        gaps.opened("a", returned)
    assert len(gaps.add("b", Interval(7, 9))) == new
