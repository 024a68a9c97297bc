from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxtweets.streams._lines import KEPT_OF_OVERSIZED, Framed, LineFramer, Oversized

LINES = st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line), max_size=25)
PLACES = st.lists(st.integers(min_value=0), max_size=40)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(bounds)]


def feed_all(framer: LineFramer, pieces: list[bytes]) -> Framed:
    framed = [framer.feed(piece) for piece in pieces]
    return Framed(
        [line for framed_read in framed for line in framed_read.lines],
        sum(framed_read.keep_alives for framed_read in framed),
        tuple(oversized for framed_read in framed for oversized in framed_read.oversized),
    )


@given(LINES, PLACES, st.binary(max_size=20).filter(lambda tail: b"\n" not in tail))
def test_lines_do_not_depend_on_the_cut(lines: list[bytes], places: list[int], tail: bytes) -> None:
    data = b"".join(line + b"\n" for line in lines) + tail
    framer = LineFramer()
    framed = feed_all(framer, cut(data, places))
    assert framed.lines == [line for line in lines if line not in {b"", b"\r"}]
    assert framed.keep_alives == sum(line in {b"", b"\r"} for line in lines)
    assert framed.oversized == ()
    assert framer.finish() == tail


@given(LINES, PLACES, st.integers(min_value=1, max_value=30))
def test_oversized_lines_do_not_depend_on_the_cut(
    lines: list[bytes], places: list[int], longest: int
) -> None:
    data = b"".join(b"x" + line + b"\n" for line in lines)
    whole = feed_all(LineFramer(longest), [data])
    cut_up = feed_all(LineFramer(longest), cut(data, places))
    assert cut_up.lines == [b"x" + line for line in lines if len(line) + 1 <= longest]
    assert [line.length for line in cut_up.oversized] == [
        len(line) + 2 for line in lines if len(line) + 1 > longest
    ]
    assert cut_up == whole


def test_line_end_can_span_two_reads() -> None:
    framer = LineFramer()
    assert framer.feed(b"tweet\r") == Framed([])
    assert framer.feed(b"\nnext") == Framed([b"tweet\r"])


def test_keep_alive_can_span_two_reads() -> None:
    framer = LineFramer()
    assert framer.feed(b"\r").keep_alives == 0
    assert framer.feed(b"\n").keep_alives == 1


def test_other_line_separators_do_not_cut() -> None:
    line = "a\u2028b\u2029c\u0085d\x0be\x0cf".encode()
    assert LineFramer().feed(line + b"\r\n").lines == [line + b"\r"]


def test_character_can_span_two_reads() -> None:
    framer = LineFramer()
    data = "☕\n".encode()
    assert framer.feed(data[:1]).lines == []
    assert framer.feed(data[1:]).lines == ["☕".encode()]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_next_line_is_read_after_an_oversized_one(size: int) -> None:
    data = b"a" * 500 + b"\r\nnext\r\n"
    framed = feed_all(LineFramer(100), [data[at : at + size] for at in range(0, len(data), size)])
    [oversized] = framed.oversized
    assert framed.lines == [b"next\r"]
    assert oversized.length == 502
    assert oversized.start == (b"a" * 500)[: min(len(oversized.start), KEPT_OF_OVERSIZED)]


def test_oversized_line_keeps_its_start() -> None:
    framer = LineFramer(1000)
    for _ in range(1000):
        framer.feed(b"x" * 1000)
    assert framer.finish() == Oversized(b"x" * KEPT_OF_OVERSIZED, 1_000_000)
    assert framer.finish() == b""


def test_finish_returns_the_cut_off_line_once() -> None:
    framer = LineFramer()
    framer.feed(b"whole\nhalf")
    assert framer.finish() == b"half"
    assert framer.finish() == b""
