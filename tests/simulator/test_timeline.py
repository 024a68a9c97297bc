"""What a connection is told and when, by a clock of the test's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from rxtweets.simulator._feed import Feed, Frames, MadeFrames, PacedFeed, Recording
from rxtweets.simulator._timeline import LOOKED_AT, LiveTape, OnDemandTape, Select, Timeline

START = 1_000_000.0
"""Seconds since 1970 at which the server starts."""


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def every(_: int, frame: bytes) -> bytes:
    return frame


def numbered() -> MadeFrames:
    return MadeFrames(lambda position, _: b"%d" % position)


class World:
    """A timeline of 10 frames a second, and the clock that moves it."""

    def __init__(self, rate: float = 10.0, history: float = 0.0) -> None:
        self.clock = Clock()
        self.timeline = Timeline(rate, history, self.clock, lambda: START)

    def tape(
        self,
        since: int | None = None,
        until: int | None = None,
        frames: Frames | None = None,
        select: Select = every,
        share: int = 1,
    ) -> LiveTape:
        first = self.timeline.until(self.timeline.now()) if since is None else since
        return LiveTape(self.timeline, frames or numbered(), select, first, until, share)

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds


def numbers(frames: list[bytes]) -> list[int]:
    return [int(frame) for frame in frames]


def test_a_connection_gets_what_happens_after_it_came() -> None:
    world = World()
    world.pass_time(1.05)
    tape = world.tape()
    assert tape.take(math.inf) == []
    world.pass_time(0.5)
    assert numbers(tape.take(math.inf)) == [11, 12, 13, 14, 15]
    assert tape.take(math.inf) == []


def test_two_connections_get_the_same_bytes_at_the_same_time() -> None:
    frames = MadeFrames(lambda position, seconds: b"%d %f" % (position, seconds))
    world = World()
    one, two = world.tape(frames=frames), world.tape(frames=frames)
    for _ in range(20):
        world.pass_time(0.37)
        assert one.take(math.inf) == two.take(math.inf) != []


def test_what_nobody_reads_is_missed() -> None:
    world = World()
    world.tape()
    world.pass_time(60)
    tape = world.tape()
    world.pass_time(0.101)
    assert numbers(tape.take(math.inf)) == [601]


def test_backfill_brings_the_same_bytes_again() -> None:
    frames = MadeFrames(lambda position, seconds: b"%d %f" % (position, seconds))
    world = World()
    first = world.tape(frames=frames)
    world.pass_time(3.0)
    seen = first.take(math.inf)
    again = world.tape(since=world.timeline.until(START), frames=frames)
    assert again.take(math.inf) == seen
    assert len(seen) == 30


def test_history_lies_before_the_start() -> None:
    world = World(history=5.0)
    assert world.timeline.start == START - 5.0
    assert numbers(world.tape(since=world.timeline.since(START - 2.0)).take(math.inf)) == list(
        range(30, 51)
    )


def test_a_replay_includes_its_start_and_excludes_its_end() -> None:
    world = World(history=10.0)
    timeline = world.timeline
    one = world.tape(timeline.since(START - 3), timeline.since(START - 2))
    two = world.tape(timeline.since(START - 2), timeline.since(START - 1))
    first, second = numbers(one.take(math.inf)), numbers(two.take(math.inf))
    assert first == list(range(70, 80))
    assert second == list(range(80, 90))
    assert timeline.time_of(70) == START - 3


def test_a_replay_ends() -> None:
    world = World(history=10.0)
    tape = world.tape(0, 5)
    assert tape.is_replay
    assert not tape.ended
    assert len(tape.take(3)) == 3
    assert not tape.ended
    assert len(tape.take(3)) == 2
    assert tape.ended


def test_a_replay_of_nothing_ends_at_once() -> None:
    tape = World().tape(1, 1)
    assert tape.take(math.inf) == []
    assert tape.ended


def test_no_more_are_taken_than_asked_for() -> None:
    world = World()
    tape = world.tape()
    world.pass_time(10.0)
    assert len(tape.take(7)) == 7
    assert tape.rest() == 0.0


def test_the_rest_is_the_time_until_the_next_position() -> None:
    world = World()
    tape = world.tape()
    assert tape.rest() == pytest.approx(0.1)
    world.pass_time(0.06)
    assert tape.rest() == pytest.approx(0.04)


def test_nothing_happens_at_a_rate_of_zero() -> None:
    world = World(rate=0.0)
    tape = world.tape()
    world.pass_time(1e6)
    assert tape.take(math.inf) == []
    assert tape.rest() > 60
    assert tape.behind() == 0


def test_who_does_not_read_falls_behind() -> None:
    world = World()
    tape = world.tape()
    world.pass_time(10.0)
    assert tape.behind() == 100
    tape.take(64)
    assert tape.behind() == 36


def test_who_reads_is_never_behind() -> None:
    world = World()
    tape = world.tape()
    for _ in range(100):
        world.pass_time(0.5)
        tape.take(math.inf)
        assert tape.behind() == 0


def test_what_lay_in_the_past_does_not_count_as_being_behind() -> None:
    world = World(history=100.0)
    tape = world.tape(since=0)
    assert tape.behind() == 0
    for _ in range(20):
        world.pass_time(1.0)
        tape.take(math.inf)
        assert tape.behind() == 0


def test_who_is_slower_than_the_stream_falls_behind_in_the_past_as_well() -> None:
    world = World(history=100.0)
    tape = world.tape(since=0)
    for _ in range(10):
        world.pass_time(1.0)
        tape.take(4)
    assert tape.behind() == 60


def test_after_catching_up_the_past_is_no_excuse() -> None:
    world = World(history=10.0)
    tape = world.tape(since=0)
    while tape.take(math.inf):
        pass
    world.pass_time(10.0)
    assert tape.behind() == 100


def test_a_partition_counts_its_own_share() -> None:
    world = World()
    tape = world.tape(share=4)
    world.pass_time(10.0)
    assert tape.behind() == 25


def test_a_replay_is_never_behind() -> None:
    world = World(history=100.0)
    tape = world.tape(0, 1_000)
    world.pass_time(1_000)
    assert tape.behind() == 0


def test_where_nothing_is_chosen_the_client_is_seen_to_in_between() -> None:
    looked_at: list[int] = []

    def nothing(position: int, _: bytes) -> None:
        looked_at.append(position)

    world = World(history=1_000.0)
    tape = world.tape(since=0, select=nothing)
    assert tape.take(math.inf) == []
    assert len(looked_at) == LOOKED_AT
    assert tape.rest() == 0.0
    while tape.rest() == 0.0:
        tape.take(math.inf)
    assert looked_at == list(range(10_001))


@pytest.mark.parametrize("loop", [False, True])
def test_a_recording_is_played_by_the_clock(loop: bool) -> None:
    world = World()
    recording = Recording([b"0", b"1", b"2"], loop=loop)
    tape = world.tape(since=0, frames=recording)
    again = world.tape(since=0, frames=recording)
    world.pass_time(0.65)
    expected = [0, 1, 2, 0, 1, 2, 0] if loop else [0, 1, 2]
    assert numbers(tape.take(math.inf)) == expected
    assert tape.ended is not loop
    assert numbers(again.take(math.inf)) == expected


def test_a_recording_without_end_is_read_as_far_as_it_is_due() -> None:
    read = 0

    def endless() -> Any:
        nonlocal read
        while True:
            read += 1
            yield b"%d" % read

    recording = Recording(endless(), loop=False)
    assert recording.at(4, 0.0) == b"5"
    assert recording.at(2, 0.0) == b"3"
    assert read == 5


@pytest.mark.parametrize("loop", [False, True])
def test_an_empty_recording_is_over_at_once(loop: bool) -> None:
    recording = Recording([], loop=loop)
    assert recording.at(0, 0.0) is None
    assert recording.sequence()(0, 5) == []


def test_on_demand_each_frame_is_given_once() -> None:
    feed = Feed(numbered())
    one, two = (OnDemandTape(feed, math.inf, 1, every) for _ in range(2))
    got = one.take(3) + two.take(3) + one.take(3)
    assert numbers(got) == list(range(9))


RECORD = '{"id":"1","received_at":%s,"data":"","raw":{"data":{"text":"%d"}}}\n'
FRAME = b'{"data":{"text":"%d"}}'


def paced(path: Path, *arrivals: object, loop: bool = False) -> tuple[OnDemandTape, Clock]:
    """A tape of a recording with these arrivals, whose pauses are halved, and its clock."""
    path.write_text("".join(RECORD % (arrived, n) for n, arrived in enumerate(arrivals)))
    clock = Clock()
    feed = PacedFeed(Recording(path, loop=loop, is_timed=True), 0.5, clock)
    return OnDemandTape(feed, math.inf, 1, every), clock


def test_recorded_frames_come_when_they_are_due(tmp_path: Path) -> None:
    tape, clock = paced(tmp_path / "t.jsonl", 1000, 1010, "null", 1004, 1030)
    clock.now += 100.0  # nobody has asked yet
    assert tape.take(math.inf) == [FRAME % 0]
    assert tape.rest() == 5.0
    clock.now += 4.0
    assert (tape.take(math.inf), tape.rest()) == ([], 1.0)
    clock.now += 1.0
    assert tape.take(2) == [FRAME % 1, FRAME % 2]
    assert tape.take(math.inf) == [FRAME % 3]
    assert not tape.ended
    clock.now += 60.0
    assert tape.take(math.inf) == [FRAME % 4]
    assert tape.ended


def test_recorded_frames_in_a_loop_begin_anew(tmp_path: Path) -> None:
    tape, clock = paced(tmp_path / "t.jsonl", 1000, 1010, loop=True)
    got = []
    for _ in range(3):
        got.append(tape.take(math.inf))
        clock.now += 5.0
    assert got == [[FRAME % 0], [FRAME % 1, FRAME % 0], [FRAME % 1, FRAME % 0]]
    assert not tape.ended


def test_recording_by_the_clock_has_the_lines_of_the_stream(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(RECORD % (1, number) for number in range(3)))
    recording = Recording(path, loop=True)
    assert [recording.at(place, 0.0) for place in (4, 0, 2)] == [FRAME % n for n in (1, 0, 2)]


def test_on_demand_the_end_of_a_recording_ends_the_tape() -> None:
    tape = OnDemandTape(Feed(Recording([b"1", b"2"], loop=False)), math.inf, 1, every)
    assert tape.take(math.inf) == [b"1", b"2"]
    assert tape.ended
    assert tape.rest() > 60
    assert tape.behind() == 0


def test_on_demand_frames_that_are_not_chosen_are_gone_and_the_tape_rests() -> None:
    tape = OnDemandTape(Feed(numbered()), math.inf, 1, lambda _, __: None)
    assert tape.take(math.inf) == []
    assert tape.rest() > 0.0


def test_on_demand_the_pace_can_change() -> None:
    tape = OnDemandTape(Feed(numbered()), 0.0, 1, every)
    assert tape.take(math.inf) == []
    tape.pace(math.inf)
    assert len(tape.take(10)) == 10
    tape.pace(None)
    assert tape.take(math.inf) == []
