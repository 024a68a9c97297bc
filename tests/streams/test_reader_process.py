"""Records between the processes of an isolated reader, and the outlet that writes them."""

from __future__ import annotations

import marshal
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxtweets.streams._lines import Framed, Oversized
from rxtweets.streams._reader_process import (
    LINES,
    OVER,
    QUIET,
    Order,
    Outlet,
    encode_record,
    read_records,
)

PATIENCE = 20.0
LARGE = b"x" * 2**20
"""More than the pipe holds."""
TWEET = b'{"data":{"id":"1","text":"a"}}'

Records = list[tuple[int, bytes]]


class Reading:
    """Reads records on a thread."""

    def __init__(self, pipe: int) -> None:
        self.records: Records = []
        self._thread = threading.Thread(
            target=lambda: self.records.extend(read_records(pipe)), daemon=True
        )
        self._thread.start()

    def join(self) -> Records:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.records


class Piped:
    """An outlet into a pipe that is read once `drain` was called."""

    def __init__(self, *, tweets: bool = False) -> None:
        self._out, self._into = os.pipe()
        os.set_blocking(self._into, False)
        order = Order(
            number=1,
            token="any",
            settings={},
            verify=True,
            path="/",
            params={},
            max_line=2**24,
            buffer_size=1_000,
            overflow="block",
            tweets=tweets,
        )
        self.outlet = Outlet(self._into, order)
        self._reading: Reading | None = None

    def fill(self) -> None:
        """Fill the pipe with half a record."""
        self.outlet.put(Framed([LARGE]), 0, 1.0)

    def drain(self) -> None:
        self._reading = Reading(self._out)

    def close(self, size: int = 0) -> Records:
        """Close the outlet and return all records."""
        assert self._reading is not None
        closing = threading.Thread(target=self.outlet.close, args=(b"end", size), daemon=True)
        closing.start()
        closing.join(PATIENCE)
        assert not closing.is_alive(), "the outlet waits forever"
        os.close(self._into)
        records = self._reading.join()
        os.close(self._out)
        return records


@pytest.fixture
def piped() -> Piped:
    return Piped()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    out, into = os.pipe()
    yield out, into
    os.close(out)


def contents(records: Records) -> list[Any]:
    return [marshal.loads(content) for kind, content in records if kind == LINES]  # noqa: S302 - our own


def lines_in(records: Records) -> list[bytes]:
    return [line for _, lines, *_ in contents(records) for line in lines]


# Records.


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=20))
def test_records_are_read_as_written(records: Records) -> None:
    out, into = os.pipe()
    os.write(into, b"".join(encode_record(kind, content) for kind, content in records))
    os.close(into)
    assert list(read_records(out)) == records
    os.close(out)


def test_record_is_whole_when_it_arrives_byte_by_byte(pipe: tuple[int, int]) -> None:
    out, into = pipe
    reading = Reading(out)
    for byte in encode_record(7, b"abc") + encode_record(8):
        os.write(into, bytes([byte]))
    os.close(into)
    assert reading.join() == [(7, b"abc"), (8, b"")]


def test_half_a_record_at_the_end_is_left_out(pipe: tuple[int, int]) -> None:
    out, into = pipe
    os.write(into, encode_record(1, b"whole") + encode_record(2, b"cut off")[:-1])
    os.close(into)
    assert list(read_records(out)) == [(1, b"whole")]


# The outlet.


def test_outlet_writes_other_records_before_waiting_lines(piped: Piped) -> None:
    piped.fill()
    piped.outlet.put(Framed([b"y"]), 0, 2.0)
    piped.outlet.send_record(QUIET)
    piped.drain()
    records = piped.close()
    assert [kind for kind, _ in records] == [LINES, QUIET, LINES, LINES, OVER]
    assert records[-1] == (OVER, b"end")
    assert lines_in(records) == [LARGE, b"y"]


def test_outlet_writes_lines_immediately_when_the_pipe_has_room(piped: Piped) -> None:
    piped.outlet.put(Framed([b"x"]), 0, 1.0)
    assert len(piped.outlet._buffer) == 0
    piped.drain()
    assert lines_in(piped.close()) == [b"x"]


def test_outlet_reports_counts_with_the_next_record(piped: Piped) -> None:
    piped.fill()
    piped.outlet.put(Framed([LARGE]), 5, 1.0)
    piped.outlet.put(Framed([], 1, (Oversized(b"z", 9),)), 2, 3.0)
    piped.drain()
    counts = [counts for *_, counts in contents(piped.close())]
    assert sum(size for size, *_ in counts) == 7
    assert sum(keep_alives for _, keep_alives, *_ in counts) == 1
    assert [line for _, _, oversized, *_ in counts for line in oversized] == [(b"z", 9)]


def test_outlet_reports_bytes_of_a_tail_when_closed(piped: Piped) -> None:
    piped.drain()
    piped.outlet.put(Framed([], 1), 10, 3.0)
    records = piped.close(-4)
    *_, (now, lines, known, _) = contents(records)
    assert (now, lines, known) == (3.0, [], None)
    assert sum(counts[0] for *_, counts in contents(records)) == 6


def test_waiting_lines_keep_their_times(piped: Piped) -> None:
    piped.fill()
    for number in range(3):
        piped.outlet.put(Framed([b"%d" % number]), 0, 10.0 * (number + 1))
    piped.drain()
    times = {line: now for now, lines, *_ in contents(piped.close()) for line in lines}
    assert times == {LARGE: 1.0, b"0": 10.0, b"1": 20.0, b"2": 30.0}


def test_waiting_lines_share_a_record_when_received_together(piped: Piped) -> None:
    piped.fill()
    for number in range(3):
        piped.outlet.put(Framed([b"%d" % number]), 0, 10.05 + number / 1000)
    piped.drain()
    assert [lines for _, lines, *_ in contents(piped.close())][1] == [b"0", b"1", b"2"]


def test_tweets_are_looked_up_in_turns_or_when_the_pipe_is_full() -> None:
    piped = Piped(tweets=True)
    piped.outlet.put(Framed([TWEET]), 0, 1.0)
    piped.fill()
    piped.outlet.put(Framed([TWEET, b"17"]), 0, 20.0)
    piped.outlet.put(Framed([TWEET]), 0, 30.0)
    piped.drain()
    found = [(lines, known) for _, lines, known, _ in contents(piped.close()) if lines]
    assert found == [
        ([TWEET], [("a", "1")]),
        ([LARGE], None),
        ([TWEET, b"17"], [("a", "1"), None]),
        ([TWEET], [("a", "1")]),
    ]
