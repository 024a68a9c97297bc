"""The frames of a connection, by a fake clock."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from rxtweets.simulator._frames import FrameSource, GeneratedFrames, Recording, open_source
from rxtweets.simulator._timeline import (
    MOST_EXAMINED,
    LiveCursor,
    OnDemandCursor,
    Select,
    Timeline,
)

START = 1_000_000.0
"""Seconds since 1970 at which the server starts."""


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def every(_: int, frame: bytes) -> bytes:
    return frame


class Numbers:
    """Frames that hold their position, or their position and time."""

    def __init__(self, timed: bool = False) -> None:
        self.timed = timed

    def frames(self, start: int, count: int) -> list[bytes]:
        return [b"%d" % number for number in range(start, start + count)]

    def at(self, position: int, seconds: float) -> bytes:
        return b"%d %f" % (position, seconds) if self.timed else b"%d" % position


def numbered(timed: bool = False) -> GeneratedFrames:
    return GeneratedFrames(Numbers(timed))


def recorded(*frames: bytes, loop: bool = False) -> Recording:
    read, _ = open_source(frames, loop=loop, is_timed=False)
    return Recording(read, loop=loop)


class World:
    """A timeline of 10 frames a second, and the clock that moves it."""

    def __init__(self, rate: float = 10.0, history: float = 0.0) -> None:
        self.clock = Clock()
        self.timeline = Timeline(rate, history, self.clock, lambda: START)

    def cursor(
        self,
        start: int | None = None,
        end: int | None = None,
        source: FrameSource | None = None,
        select: Select = every,
        partitions: int = 1,
    ) -> LiveCursor:
        first = self.timeline.due() if start is None else start
        return LiveCursor(self.timeline, source or numbered(), select, first, end, partitions)

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds


def numbers(frames: list[bytes]) -> list[int]:
    return [int(frame) for frame in frames]


def test_live_connection_gets_the_frames_after_its_start() -> None:
    world = World()
    world.pass_time(1.05)
    cursor = world.cursor()
    assert cursor.take(math.inf) == []
    world.pass_time(0.5)
    assert numbers(cursor.take(math.inf)) == [11, 12, 13, 14, 15]
    assert cursor.take(math.inf) == []


def test_two_connections_get_the_same_bytes_at_the_same_time() -> None:
    source = numbered(timed=True)
    world = World()
    one, two = world.cursor(source=source), world.cursor(source=source)
    for _ in range(20):
        world.pass_time(0.37)
        assert one.take(math.inf) == two.take(math.inf) != []


def test_live_frames_without_a_connection_are_missed() -> None:
    world = World()
    world.cursor()
    world.pass_time(60)
    cursor = world.cursor()
    world.pass_time(0.101)
    assert numbers(cursor.take(math.inf)) == [601]


def test_backfill_brings_the_same_bytes_again() -> None:
    source = numbered(timed=True)
    world = World()
    first = world.cursor(source=source)
    world.pass_time(3.0)
    seen = first.take(math.inf)
    again = world.cursor(start=world.timeline.position_after(START), source=source)
    assert again.take(math.inf) == seen
    assert len(seen) == 30


def test_history_is_before_the_start() -> None:
    world = World(history=5.0)
    assert world.timeline.start == START - 5.0
    assert numbers(
        world.cursor(start=world.timeline.position_at(START - 2.0)).take(math.inf)
    ) == list(range(30, 51))


def test_replay_includes_its_start_and_excludes_its_end() -> None:
    world = World(history=10.0)
    timeline = world.timeline
    one = world.cursor(timeline.position_at(START - 3), timeline.position_at(START - 2))
    two = world.cursor(timeline.position_at(START - 2), timeline.position_at(START - 1))
    first, second = numbers(one.take(math.inf)), numbers(two.take(math.inf))
    assert first == list(range(70, 80))
    assert second == list(range(80, 90))
    assert timeline.time_of(70) == START - 3


def test_replay_ends() -> None:
    world = World(history=10.0)
    cursor = world.cursor(0, 5)
    assert cursor.is_replay
    assert not cursor.ended
    assert len(cursor.take(3)) == 3
    assert not cursor.ended
    assert len(cursor.take(3)) == 2
    assert cursor.ended


def test_empty_replay_ends_immediately() -> None:
    cursor = World().cursor(1, 1)
    assert cursor.take(math.inf) == []
    assert cursor.ended


def test_take_returns_at_most_the_requested_frames() -> None:
    world = World()
    cursor = world.cursor()
    world.pass_time(10.0)
    assert len(cursor.take(7)) == 7
    assert cursor.delay() == 0.0


def test_delay_is_the_time_until_the_next_position() -> None:
    world = World()
    cursor = world.cursor()
    assert cursor.delay() == pytest.approx(0.1)
    world.pass_time(0.06)
    assert cursor.delay() == pytest.approx(0.04)


def test_live_rate_of_zero_gives_no_frames() -> None:
    world = World(rate=0.0)
    cursor = world.cursor()
    world.pass_time(1e6)
    assert cursor.take(math.inf) == []
    assert cursor.delay() > 60
    assert cursor.backlog() == 0


def test_backlog_grows_without_reads() -> None:
    world = World()
    cursor = world.cursor()
    world.pass_time(10.0)
    assert cursor.backlog() == 100
    cursor.take(64)
    assert cursor.backlog() == 36


def test_backlog_is_empty_with_enough_reads() -> None:
    world = World()
    cursor = world.cursor()
    for _ in range(100):
        world.pass_time(0.5)
        cursor.take(math.inf)
        assert cursor.backlog() == 0


def test_backlog_excludes_frames_from_before_the_start() -> None:
    world = World(history=100.0)
    cursor = world.cursor(start=0)
    assert cursor.backlog() == 0
    for _ in range(20):
        world.pass_time(1.0)
        cursor.take(math.inf)
        assert cursor.backlog() == 0


def test_backlog_grows_while_a_slow_client_reads_the_past() -> None:
    world = World(history=100.0)
    cursor = world.cursor(start=0)
    for _ in range(10):
        world.pass_time(1.0)
        cursor.take(4)
    assert cursor.backlog() == 60


def test_backlog_counts_all_frames_after_catching_up() -> None:
    world = World(history=10.0)
    cursor = world.cursor(start=0)
    while cursor.take(math.inf):
        pass
    world.pass_time(10.0)
    assert cursor.backlog() == 100


def test_backlog_of_a_partition_is_its_share() -> None:
    world = World()
    cursor = world.cursor(partitions=4)
    world.pass_time(10.0)
    assert cursor.backlog() == 25


def test_backlog_of_a_replay_is_empty() -> None:
    world = World(history=100.0)
    cursor = world.cursor(0, 1_000)
    world.pass_time(1_000)
    assert cursor.backlog() == 0


def test_sparse_selection_examines_limited_positions() -> None:
    looked_at: list[int] = []

    def nothing(position: int, _: bytes) -> None:
        looked_at.append(position)

    world = World(history=1_000.0)
    cursor = world.cursor(start=0, select=nothing)
    assert cursor.take(math.inf) == []
    assert len(looked_at) == MOST_EXAMINED
    assert cursor.delay() == 0.0
    while cursor.delay() == 0.0:
        cursor.take(math.inf)
    assert looked_at == list(range(10_001))


@pytest.mark.parametrize("loop", [False, True])
def test_recording_is_played_by_the_clock(loop: bool) -> None:
    world = World()
    recording = recorded(b"0", b"1", b"2", loop=loop)
    cursor = world.cursor(start=0, source=recording)
    again = world.cursor(start=0, source=recording)
    world.pass_time(0.65)
    expected = [0, 1, 2, 0, 1, 2, 0] if loop else [0, 1, 2]
    assert numbers(cursor.take(math.inf)) == expected
    assert cursor.ended is not loop
    assert numbers(again.take(math.inf)) == expected


def test_recording_without_end_is_read_as_far_as_it_is_due() -> None:
    made = 0

    def endless() -> Any:
        nonlocal made
        while True:
            made += 1
            yield b"%d" % made

    read, _ = open_source(endless(), loop=False, is_timed=False)
    recording = Recording(read, loop=False)
    assert recording.at(4, 0.0) == b"5"
    assert recording.at(2, 0.0) == b"3"
    assert made == 5


@pytest.mark.parametrize("loop", [False, True])
def test_empty_recording_ends_immediately(loop: bool) -> None:
    recording = recorded(loop=loop)
    assert recording.at(0, 0.0) is None
    assert recording.take(5) == []
    assert recording.ended


def test_on_demand_each_frame_is_given_once() -> None:
    source = numbered()
    one, two = (OnDemandCursor(source, math.inf, 1, every) for _ in range(2))
    got = one.take(3) + two.take(3) + one.take(3)
    assert numbers(got) == list(range(9))


RECORD = '{"id":"1","received_at":%s,"data":"","raw":{"data":{"text":"%d"}}}\n'
FRAME = b'{"data":{"text":"%d"}}'


def paced(path: Path, *arrivals: object, loop: bool = False) -> tuple[OnDemandCursor, Clock]:
    """A cursor of a recording with these arrivals and half their pauses, and its clock."""
    path.write_text("".join(RECORD % (arrived, n) for n, arrived in enumerate(arrivals)))
    clock = Clock()
    read, _ = open_source(path, loop=loop, is_timed=True)
    source = Recording(read, loop=loop, scale=0.5, clock=clock)
    return OnDemandCursor(source, math.inf, 1, every), clock


def test_recorded_frames_come_when_they_are_due(tmp_path: Path) -> None:
    cursor, clock = paced(tmp_path / "t.jsonl", 1000, 1010, "null", 1004, 1030)
    clock.now += 100.0  # before the first take
    assert cursor.take(math.inf) == [FRAME % 0]
    assert cursor.delay() == 5.0
    clock.now += 4.0
    assert (cursor.take(math.inf), cursor.delay()) == ([], 1.0)
    clock.now += 1.0
    assert cursor.take(2) == [FRAME % 1, FRAME % 2]
    assert cursor.take(math.inf) == [FRAME % 3]
    assert not cursor.ended
    clock.now += 60.0
    assert cursor.take(math.inf) == [FRAME % 4]
    assert cursor.ended


def test_recorded_frames_in_a_loop_start_again(tmp_path: Path) -> None:
    cursor, clock = paced(tmp_path / "t.jsonl", 1000, 1010, loop=True)
    got = []
    for _ in range(3):
        got.append(cursor.take(math.inf))
        clock.now += 5.0
    assert got == [[FRAME % 0], [FRAME % 1, FRAME % 0], [FRAME % 1, FRAME % 0]]
    assert not cursor.ended


def test_recording_by_the_clock_has_the_lines_of_the_stream(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(RECORD % (1, number) for number in range(3)))
    read, _ = open_source(path, loop=True, is_timed=False)
    recording = Recording(read, loop=True)
    assert [recording.at(place, 0.0) for place in (4, 0, 2)] == [FRAME % n for n in (1, 0, 2)]


def test_on_demand_recording_ends_the_cursor() -> None:
    cursor = OnDemandCursor(recorded(b"1", b"2"), math.inf, 1, every)
    assert cursor.take(math.inf) == [b"1", b"2"]
    assert cursor.ended
    assert cursor.delay() > 60
    assert cursor.backlog() == 0


def test_on_demand_unselected_frames_cause_a_delay() -> None:
    cursor = OnDemandCursor(numbered(), math.inf, 1, lambda _, __: None)
    assert cursor.take(math.inf) == []
    assert cursor.delay() > 0.0


def test_on_demand_rate_can_change() -> None:
    cursor = OnDemandCursor(numbered(), 0.0, 1, every)
    assert cursor.take(math.inf) == []
    cursor.set_rate(math.inf)
    assert len(cursor.take(10)) == 10
    cursor.set_rate(None)
    assert cursor.take(math.inf) == []


class Paced:
    """A cursor at a rate, by a fake clock."""

    def __init__(self, rate: float, burst: int = 1) -> None:
        self.clock = Clock()
        self.cursor = OnDemandCursor(numbered(), rate, burst, every, self.clock)

    def counts(self, times: int, step: float) -> list[int]:
        found = []
        for _ in range(times):
            found.append(len(self.cursor.take(math.inf)))
            self.clock.now += step
        return found


def test_on_demand_frames_come_at_the_rate() -> None:
    counts = Paced(10.0).counts(30, 0.05)
    assert sum(counts) == 15
    assert max(counts) == 1


def test_on_demand_the_delay_lasts_until_the_next_frame() -> None:
    paced = Paced(4.0)
    paced.cursor.take(math.inf)
    assert paced.cursor.delay() == pytest.approx(0.25)
    paced.clock.now += 0.1
    assert paced.cursor.delay() == pytest.approx(0.15)


def test_on_demand_burst_comes_together() -> None:
    assert Paced(8.0, burst=4).counts(8, 0.125) == [4, 0, 0, 0, 4, 0, 0, 0]


def test_on_demand_at_most_a_second_is_caught_up() -> None:
    paced = Paced(100.0)
    assert paced.counts(1, 60.0) == [1]
    assert paced.counts(2, 0.0) == [100, 0]


@pytest.mark.parametrize("rate", [0.0, math.inf])
def test_on_demand_a_rate_may_be_zero_or_unlimited(rate: float) -> None:
    cursor = Paced(rate).cursor
    assert bool(cursor.take(math.inf)) is bool(rate)
    assert cursor.delay() == 0.0 if rate else cursor.delay() > 60
