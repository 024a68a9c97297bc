"""The steps of a part, played to a client by a fake clock."""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from rxtweets.simulator import _player as player
from rxtweets.simulator._player import Player, PlayerOptions
from rxtweets.simulator._timeline import Cursor
from rxtweets.simulator._transport import Gone
from rxtweets.simulator.script import (
    DISCONNECT_TYPES,
    Abort,
    Close,
    Disconnect,
    Fin,
    GoAway,
    KeepAlive,
    Line,
    Raw,
    Reply,
    ResetStream,
    Serve,
    Stall,
    Step,
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Client:
    """A transport that records its calls and their times; it leaves at a time."""

    packet = 0

    def __init__(self, clock: Clock, leaves_at: float) -> None:
        self.clock = clock
        self.leaves_at = leaves_at
        self.sent: list[tuple[float, bytes]] = []
        self.done: list[str] = []

    def send(self, pieces: Sequence[bytes]) -> None:
        self.sent += [(self.clock.now, piece) for piece in pieces]

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        if self.clock.now >= self.leaves_at:
            raise Gone

    def set_patience(self, seconds: float | None) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.done.append(" ".join(map(str, (name, *arguments))))

    @property
    def body(self) -> bytes:
        return b"".join(piece for _, piece in self.sent)


class Frames(Cursor):
    """A number of frames that are due immediately."""

    def __init__(self, count: int) -> None:
        self.left = [b"frame %d" % number for number in range(count)]
        self.ended = not count
        self.waiting = 0

    def take(self, most: float) -> list[bytes]:
        count = int(min(most, len(self.left), 64))
        taken, self.left = self.left[:count], self.left[count:]
        self.ended = not self.left
        return taken

    def delay(self) -> float:
        return 3600.0 if self.ended else 0.0

    def backlog(self) -> int:
        return self.waiting


class Stage:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.cursor = Frames(0)
        self.reason = ""
        self.is_unnoticed = False
        self.ended: bool | None = None

    def play(
        self,
        *steps: Step,
        frames: int = 0,
        leaves_at: float = 1e9,
        compress: bool = False,
        **options: Any,
    ) -> Client:
        self.clock.now = 0.0
        settings: dict[str, Any] = {
            "chunking": "frame",
            "keep_alive": 20.0,
            "time_scale": 1.0,
            "line_end": b"\r\n",
            "buffer": None,
            "patience": None,
            "packet": 0,
        }
        client = Client(self.clock, leaves_at)
        self.cursor = Frames(frames)
        self.counted = 0

        def count(tweets: int) -> None:
            self.counted += tweets

        made: Any = client
        chosen = PlayerOptions(**(settings | options))
        self.player = Player(made, self.cursor, chosen, compress=compress, on_sent=count)
        self.ended = None
        with contextlib.suppress(Gone):
            self.ended = self.player.play(steps)
        return client


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    clock = Clock()
    monkeypatch.setattr(player, "time", SimpleNamespace(monotonic=clock))
    return Stage(clock)


def test_keep_alives_come_after_silence(stage: Stage) -> None:
    client = stage.play(leaves_at=100.0)
    assert [piece for _, piece in client.sent] == [b"\r\n"] * 4
    times = [at for at, _ in client.sent]
    gaps = [after - before for before, after in zip([0.0, *times], times, strict=False)]
    assert gaps == pytest.approx([20.005, 20.010, 20.012, 20.007])


@pytest.mark.parametrize("scale", [0.01, 0.5])
def test_keep_alives_are_scaled_with_the_time(stage: Stage, scale: float) -> None:
    client = stage.play(leaves_at=61.0 * scale, keep_alive=20.0 * scale, time_scale=scale)
    assert [at for at, _ in client.sent] == pytest.approx(
        [20.005 * scale, 40.015 * scale, 60.027 * scale]
    )


def test_tweet_delays_the_keep_alive(stage: Stage) -> None:
    client = stage.play(Stall(15.0), Serve(1), frames=1, leaves_at=36.0)
    assert client.sent[0] == (15.0, b"frame 0\r\n")
    at, said = client.sent[1]
    assert at == pytest.approx(35.010)
    assert said == b"\r\n"


def test_stall_has_no_keep_alives(stage: Stage) -> None:
    client = stage.play(Stall(300.0), Line(b"x"), Close())
    assert client.sent == [(300.0, b"x\r\n")]


def test_stall_is_scaled_with_the_time(stage: Stage) -> None:
    client = stage.play(Stall(300.0), Line(b"x"), Close(), time_scale=0.1)
    assert client.sent == [(30.0, b"x\r\n")]


def test_client_that_leaves_during_a_stall_is_unnoticed(stage: Stage) -> None:
    stage.play(Stall(), leaves_at=10.0)
    assert stage.player.is_unnoticed
    stage.play(Stall(5.0), leaves_at=10.0)
    assert not stage.player.is_unnoticed


def test_lines_raw_bytes_and_keep_alives_are_unchanged(stage: Stage) -> None:
    client = stage.play(Line(b"a"), Raw(b"b"), KeepAlive(), Close(), line_end=b"\n")
    assert client.body == b"a\nb\n"
    assert client.done == ["end"]
    assert stage.ended


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("kind", DISCONNECT_TYPES)
def test_disconnect_is_announced_with_the_problem_of_x(
    stage: Stage, kind: str, wrapped: bool
) -> None:
    client = stage.play(Disconnect(kind, wrapped=wrapped), Close())
    payload = orjson.loads(client.body)
    problem = payload["errors"][0] if wrapped else payload
    upstream = "upstream " if kind.startswith("Upstream") else ""
    assert problem == {
        "title": "operational-disconnect",
        "disconnect_type": kind,
        "detail": f"This stream has been disconnected {upstream}for operational reasons.",
        "type": "https://api.x.com/2/problems/operational-disconnect",
    }
    assert stage.player.reason == kind


@pytest.mark.parametrize(
    ("step", "done", "ends"),
    [
        (Close(), "end", True),
        (Abort(), "abort", True),
        (Fin(), "fin", True),
        (GoAway(11), "go_away 11", True),
        (ResetStream(2), "reset_stream 2", False),
    ],
)
def test_each_end_is_the_last_step(stage: Stage, step: Step, done: str, ends: bool) -> None:
    client = stage.play(Line(b"a"), step, Line(b"b"))
    assert client.body == b"a\r\n"
    assert client.done == [done]
    assert stage.ended is ends


def test_abort_can_cut_the_next_frame_in_two(stage: Stage) -> None:
    client = stage.play(Serve(1), Abort(mid_frame=True), frames=2)
    assert client.body == b"frame 0\r\nfra"
    assert stage.counted == 1


def test_abort_after_the_last_frame_sends_no_half_frame(stage: Stage) -> None:
    client = stage.play(Serve(1), Abort(mid_frame=True), frames=1)
    assert client.body == b"frame 0\r\n"
    assert client.done == ["abort"]


@pytest.mark.parametrize("noticed", [True, False])
def test_abort_may_go_unnoticed(stage: Stage, noticed: bool) -> None:
    stage.play(Abort(noticed=noticed))
    assert stage.player.is_unnoticed is not noticed


def test_after_its_steps_a_part_streams(stage: Stage) -> None:
    client = stage.play(Line(b"a"), frames=3, leaves_at=10.0)
    assert client.body == b"a\r\nframe 0\r\nframe 1\r\nframe 2\r\n"
    assert stage.counted == 3


def test_serving_a_count_ends_with_the_recording(stage: Stage) -> None:
    client = stage.play(Serve(5), Line(b"end"), Close(), frames=3)
    assert client.body.endswith(b"frame 2\r\nend\r\n")


def test_serving_none_sends_none(stage: Stage) -> None:
    client = stage.play(Serve(0), Close(), frames=3)
    assert client.body == b""


def test_reply_must_be_the_first_step(stage: Stage) -> None:
    with pytest.raises(TypeError, match="first step"):
        stage.play(Line(b"a"), Reply(503))


def test_gzip_is_flushed_after_every_frame(stage: Stage) -> None:
    client = stage.play(Serve(3), KeepAlive(), Close(), frames=3, compress=True)
    inflate = zlib.decompressobj(31)
    read = [inflate.decompress(piece) for _, piece in client.sent]
    assert read == [b"frame 0\r\n", b"frame 1\r\n", b"frame 2\r\n", b"\r\n", b""]
    assert inflate.eof


def test_aborted_gzip_has_no_end(stage: Stage) -> None:
    client = stage.play(Serve(3), Abort(), frames=3, compress=True)
    inflate = zlib.decompressobj(31)
    assert inflate.decompress(client.body).count(b"\n") == 3
    assert not inflate.eof


def test_client_with_too_large_a_backlog_is_disconnected(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Frames, "backlog", lambda _: 11)
    client = stage.play(frames=100, buffer=10)
    assert client.done == ["abort"]
    assert stage.player.reason == "SlowReader"
    assert stage.counted == 64


def test_client_with_a_full_buffer_is_served(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Frames, "backlog", lambda _: 10)
    client = stage.play(frames=100, buffer=10, leaves_at=10.0)
    assert client.done == []
    assert stage.counted == 100


def test_replay_is_closed_at_its_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Frames, "is_replay", True)
    client = stage.play(Serve(math.inf), frames=3)  # type: ignore[arg-type]  # more than there are
    assert client.done == ["end"]
    assert stage.player.reason == "replayed"
    assert stage.ended
