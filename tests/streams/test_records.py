from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxtweets.streams._records import read_records, record, write_all


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    out, into = os.pipe()
    yield out, into
    os.close(out)


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=20))
def test_records_come_out_as_they_went_in(records: list[tuple[int, bytes]]) -> None:
    out, into = os.pipe()
    os.write(into, b"".join(record(kind, content) for kind, content in records))
    os.close(into)
    assert list(read_records(out)) == records
    os.close(out)


def test_a_record_that_comes_byte_by_byte_is_whole(pipe: tuple[int, int]) -> None:
    out, into = pipe
    got: list[tuple[int, bytes]] = []
    thread = threading.Thread(target=lambda: got.extend(read_records(out)))
    thread.start()
    for byte in record(7, b"ab", b"c") + record(8):
        os.write(into, bytes([byte]))
    os.close(into)
    thread.join(10)
    assert got == [(7, b"abc"), (8, b"")]


def test_half_a_record_at_the_end_is_none(pipe: tuple[int, int]) -> None:
    out, into = pipe
    os.write(into, record(1, b"whole") + record(2, b"cut off")[:-1])
    os.close(into)
    assert list(read_records(out)) == [(1, b"whole")]


def test_writing_waits_for_room_in_a_pipe_that_does_not(pipe: tuple[int, int]) -> None:
    out, into = pipe
    os.set_blocking(into, False)
    got: list[tuple[int, bytes]] = []
    thread = threading.Thread(target=lambda: got.extend(read_records(out)))
    thread.start()
    write_all(into, record(1, bytes(3_000_000)))
    os.close(into)
    thread.join(10)
    assert got == [(1, bytes(3_000_000))]
