from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxtweets.streams import _buffer as buffer
from rxtweets.streams._billing import Quota
from rxtweets.streams._buffer import Block, Buffer, Closed, Opened, Overflow

PATIENCE = 20.0


class Watched:
    """A buffer that records its drops and bursts."""

    def __init__(self, capacity: int, policy: Overflow, quota: Quota | None = None) -> None:
        self.dropped = 0
        self.bursts: list[tuple[str, int]] = []
        self.buffer = Buffer(
            capacity, policy, self._drop, lambda *burst: self.bursts.append(burst), quota
        )

    def _drop(self, lines: int) -> None:
        self.dropped += lines

    def put(self, *lines: str) -> None:
        self.buffer.put(Block([tweet(line) for line in lines], 0.0, 1))

    def get(self, most: int = 1000) -> list[str]:
        return [text_of(line) for block in self.buffer.get(most) for line in block.lines]


def tweet(text: str) -> bytes:
    return b'{"data":"%b"}' % text.encode() if text.islower() else text.encode()


def text_of(line: bytes) -> str:
    return line.decode().removeprefix('{"data":"').removesuffix('"}')


def test_get_keeps_the_order() -> None:
    watched = Watched(10, "drop_oldest")
    watched.put("a", "b")
    watched.put("c")
    assert len(watched.buffer) == 3
    assert watched.get() == ["a", "b", "c"]
    assert len(watched.buffer) == 0


def test_put_does_not_wait_without_lines() -> None:
    watched = Watched(1, "block")
    watched.put("a")
    putting = threading.Thread(target=watched.put, daemon=True)  # without lines
    putting.start()
    putting.join(PATIENCE)
    assert not putting.is_alive()


def test_keep_alives_in_a_row_become_one() -> None:
    watched = Watched(10, "drop_oldest")
    for at in range(1000):
        watched.buffer.put(Block([], float(at), 1))
    assert watched.buffer.get(1000) == [Block([], 999.0, 1)]


def test_get_takes_blocks_up_to_its_lines() -> None:
    watched = Watched(10, "drop_oldest")
    for text in "abc":
        watched.put(text, text)
    assert watched.get(3) == ["a", "a", "b", "b"]
    assert watched.get(3) == ["c", "c"]


@pytest.mark.parametrize(
    ("policy", "left"), [("drop_oldest", ["c", "d", "e"]), ("drop_newest", ["a", "b", "c"])]
)
def test_drop_keeps_exactly_the_capacity(policy: Overflow, left: list[str]) -> None:
    watched = Watched(3, policy)
    watched.put("a", "b")
    watched.put("c", "d", "e")
    assert watched.dropped == 2
    assert watched.get() == left


@pytest.mark.parametrize(
    ("policy", "left"), [("drop_oldest", ["STOP", "c"]), ("drop_newest", ["a", "STOP"])]
)
def test_drop_takes_tweets_first(policy: Overflow, left: list[str]) -> None:
    watched = Watched(2, policy)
    watched.put("a", "STOP", "b", "c")
    assert watched.get() == left


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_drop_keeps_signals_in_their_place(policy: Overflow) -> None:
    watched = Watched(2, policy)
    watched.buffer.put(Opened(None))
    watched.put("a", "b")
    closed = Closed(1, b"", 0.0, by_us=False)
    watched.buffer.put(closed)
    watched.put("c", "d")
    got = watched.buffer.get(1000)
    assert (got[0], len(watched.buffer), watched.dropped) == (Opened(None), 0, 2)
    assert got.index(closed) == (1 if policy == "drop_oldest" else 2)


def test_drop_bounds_a_flood_of_other_lines() -> None:
    watched = Watched(2, "drop_oldest")
    watched.put(*["STOP"] * 50)
    assert len(watched.buffer) == 2
    assert watched.dropped == 48


def test_burst_is_reported_at_its_start_and_end() -> None:
    watched = Watched(4, "drop_oldest")
    watched.put(*"abcde")
    watched.put(*"fg")
    assert watched.bursts == [("began", 0)]
    watched.get()
    assert watched.bursts == [("began", 0), ("ended", 3)]
    watched.put(*"abcdef")
    assert watched.bursts[2:] == [("began", 0)]


def test_burst_is_reported_when_close_ends_it() -> None:
    watched = Watched(1, "drop_newest")
    watched.put(*"abc")
    watched.buffer.close()
    assert watched.bursts == [("began", 0), ("ended", 2)]


def test_get_drains_after_close() -> None:
    watched = Watched(9, "drop_oldest")
    watched.put(*"ab")
    watched.buffer.close()
    assert watched.get() == ["a", "b"]
    assert watched.buffer.get(9) == []


def test_put_drops_after_close() -> None:
    watched = Watched(9, "drop_oldest")
    watched.buffer.close()
    watched.put(*"ab")
    assert watched.dropped == 2


def test_close_with_discard_counts_lines_as_dropped() -> None:
    watched = Watched(9, "block")
    watched.put(*"abc")
    watched.buffer.close(discard=True)
    assert watched.dropped == 3
    assert watched.buffer.get(9) == []


@pytest.mark.parametrize("release", ["get", "close"])
def test_put_waits_for_room_when_the_policy_is_block(release: str) -> None:
    watched = Watched(2, "block")
    watched.put(*"abc")
    passed = threading.Event()

    def put() -> None:
        watched.put("d")
        passed.set()

    thread = threading.Thread(target=put)
    thread.start()
    assert not passed.wait(0.05)
    if release == "get":
        assert watched.get() == ["a", "b", "c"]
    else:
        watched.buffer.close()
    assert passed.wait(PATIENCE)
    thread.join(PATIENCE)
    assert watched.dropped == (release == "close")


def test_put_waits_when_buffered_lines_use_up_the_quota() -> None:
    quota, passed = Quota(3), threading.Event()
    watched = Watched(100, "drop_oldest", quota)
    watched.put(*"ab")

    def put() -> None:
        watched.put("c")
        passed.set()

    thread = threading.Thread(target=put)
    thread.start()
    assert watched.get(2) == ["a", "b"]
    quota.left = 1
    assert watched.get() == ["c"]
    assert not passed.wait(0.05)
    quota.left = 2
    watched.buffer.put(Opened(None))  # so that `get` does not wait
    assert watched.get() == []
    assert passed.wait(PATIENCE)
    thread.join(PATIENCE)


def test_put_waits_when_lines_in_hand_use_up_the_quota() -> None:
    watched = Watched(100, "drop_oldest", Quota(2))
    thread = threading.Thread(target=watched.put, args=tuple("ab"))
    thread.start()
    assert watched.get() == ["a", "b"]
    assert watched.buffer.in_hand == 2
    assert not watched.buffer._is_within_quota()
    watched.buffer.close()
    thread.join(PATIENCE)


@pytest.mark.parametrize("release", ["close", "lift_quota"])
def test_put_returns_when_the_quota_is_used_up_and(release: str) -> None:
    watched = Watched(100, "drop_oldest", Quota(0))
    thread = threading.Thread(target=watched.put, args=("a",))
    thread.start()
    assert watched.get() == ["a"]
    getattr(watched.buffer, release)()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_get_waits_for_blocks() -> None:
    watched = Watched(2, "drop_oldest")
    got: list[str] = []
    thread = threading.Thread(target=lambda: got.extend(watched.get()))
    thread.start()
    watched.put("a")
    thread.join(PATIENCE)
    assert got == ["a"]


STEPS = st.lists(
    st.one_of(
        st.lists(st.sampled_from(["a", "b", "STOP"]), min_size=1, max_size=9).map(tuple),
        st.integers(min_value=1, max_value=9),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 12), st.sampled_from(["drop_oldest", "drop_newest"]))
def test_put_lines_are_taken_or_dropped(steps: list[Any], capacity: int, policy: Overflow) -> None:
    watched = Watched(capacity, policy)
    put = got = 0
    for step in steps:
        if isinstance(step, tuple):
            watched.put(*step)
            put += len(step)
        elif len(watched.buffer):
            got += len(watched.get(step))
        assert len(watched.buffer) <= capacity
        assert put == got + watched.dropped + len(watched.buffer)
    watched.buffer.close()
    while rest := watched.get():
        got += len(rest)
    assert put == got + watched.dropped
    ended = sum(count for phase, count in watched.bursts if phase == "ended")
    assert ended == watched.dropped


@pytest.mark.parametrize(
    ("policy", "left"), [("drop_oldest", ["ONE", "TWO", "d"]), ("drop_newest", ["ONE", "TWO", "c"])]
)
def test_drop_keeps_the_order_of_lines(policy: Overflow, left: list[str]) -> None:
    watched = Watched(3, policy)
    watched.put("ONE")
    watched.put("TWO", "c")
    watched.put("d")
    assert watched.get() == left


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_drop_keeps_the_order_of_blocks(policy: Overflow) -> None:
    watched = Watched(2, policy)
    for text in ["ONE", "TWO", "c"] if policy == "drop_oldest" else ["a", "ONE", "TWO"]:
        watched.put(text)
    assert watched.get() == ["ONE", "TWO"]


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_full_buffer_drops_nothing(policy: Overflow) -> None:
    watched = Watched(2, policy)
    watched.put(*"ab")
    assert (watched.dropped, watched.bursts) == (0, [])


def test_burst_ends_at_half_the_capacity() -> None:
    watched = Watched(4, "drop_oldest")
    for text in "abcde":
        watched.put(text)
    watched.get(1)
    assert watched.bursts == [("began", 0)]
    watched.get(1)
    assert watched.bursts == [("began", 0), ("ended", 1)]


@pytest.mark.parametrize(("waiting", "room"), [("a", True), ("ab", False), ("abc", False)])
def test_block_has_room_below_the_capacity(
    waiting: str, room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(2, "block")
    watched.put(*waiting)
    seen: list[bool] = []
    monkeypatch.setattr(watched.buffer._changed, "wait_for", lambda test: seen.append(test()))
    watched.put("d")
    assert seen == [room]


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_drop_bounds_the_bytes(policy: Overflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer, "AT_ONCE", 1000)
    monkeypatch.setattr(buffer, "LINE", 100)
    watched = Watched(10, policy)
    for number in range(8):
        large = b'{"data":' + b"%d" % number * 392
        watched.buffer.put(Block([large, large[:100]], 0.0, 1, size=500))
    watched.buffer.close()
    got = []
    while blocks := watched.buffer.get(1):
        got += [line for block in blocks for line in block.lines]
    assert sum(map(len, got)) <= 1000
    assert len(got) + watched.dropped == 16
    assert got[0 if policy == "drop_newest" else -1][8:9] == (
        b"0" if policy == "drop_newest" else b"7"
    )


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_longest_line_fits(policy: Overflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer, "AT_ONCE", 1000)
    dropped: list[int] = []
    queue = Buffer(10, policy, dropped.append, lambda *_: None, longest=200_000)
    for line in (b'{"data":1}', b'{"data":' + b"2" * 199_991 + b"}"):
        queue.put(Block([line], 0.0, 1, size=len(line)))
    assert (len(queue), dropped) == (2, [])


def test_get_bounds_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer, "AT_ONCE", 1000)
    watched = Watched(10, "block")
    for _ in range(5):
        watched.buffer.put(Block([b"x" * 600], 0.0, 1, size=600))
    assert [len(watched.buffer.get(100)) for _ in range(3)] == [2, 2, 1]
