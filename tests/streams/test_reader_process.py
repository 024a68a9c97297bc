from __future__ import annotations

import marshal
import os
import threading
from typing import Any

import pytest

from rxtweets.streams._buffer import Block
from rxtweets.streams._lines import Framed
from rxtweets.streams._reader_process import LINES, QUIET, Order, Outlet
from rxtweets.streams._records import read_records

PATIENCE = 20.0
LARGE = b"x" * 2**20
"""More than the pipe takes at once."""


class Piped:
    """An outlet with somebody at the other end of its pipe, once `drain` was called."""

    def __init__(self) -> None:
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
            buffer_size=100,
            overflow="block",
            tweets=False,
        )
        self.outlet = Outlet(self._into, order)
        self._records: list[tuple[int, bytes]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)

    def drain(self) -> None:
        self._thread.start()

    def _read(self) -> None:
        self._records += read_records(self._out)

    def close(self) -> list[tuple[int, bytes]]:
        """Close the outlet; all records."""
        closing = threading.Thread(target=self.outlet.close, daemon=True)
        closing.start()
        closing.join(PATIENCE)
        assert not closing.is_alive(), "the outlet waits for what does not come"
        os.close(self._into)
        self._thread.join(PATIENCE)
        os.close(self._out)
        return self._records


@pytest.fixture
def piped() -> Piped:
    return Piped()


def lines_in(records: list[tuple[int, bytes]]) -> list[bytes]:
    return [line for kind, content in records if kind == LINES for line in said(content)[1]]


def said(content: bytes) -> Any:
    return marshal.loads(content)  # noqa: S302 - from our own outlet


def test_another_record_comes_after_one_that_is_half_in_the_pipe(piped: Piped) -> None:
    piped.drain()
    with piped.outlet._state:  # so the thread that would write the other half does not come by
        piped.outlet.put(Framed([LARGE]), 0, 0.0)
        piped.outlet.tell(QUIET)
    records = piped.close()
    assert [kind for kind, _ in records[:2]] == [LINES, QUIET]
    assert lines_in(records) == [LARGE]


def test_what_was_counted_since_the_last_line_is_told_at_the_end(piped: Piped) -> None:
    piped.drain()
    with piped.outlet._state:
        piped.outlet.put(Framed([LARGE]), 5, 1.0)
        piped.outlet.put(Framed([], keep_alives=1), 2, 3.0)
    records = piped.close()
    now, lines, _, (size, keep_alives, *_) = said(records[-1][1])
    assert (now, lines, size, keep_alives) == (3.0, [], 2, 1)


def test_lines_that_had_to_wait_keep_the_times_at_which_they_were_read(piped: Piped) -> None:
    piped.outlet.put(Framed([LARGE]), 0, 1.0)
    for number in range(3):
        piped.outlet.put(Framed([b"%d" % number]), 0, 10.0 * (number + 1))
    piped.drain()
    times = {
        line: now
        for kind, content in piped.close()
        if kind == LINES
        for now, lines, *_ in [said(content)]
        for line in lines
    }
    assert times == {LARGE: 1.0, b"0": 10.0, b"1": 20.0, b"2": 30.0}


def test_a_block_that_is_taken_while_it_is_still_handed_over_is_not_waited_for_again(
    piped: Piped, monkeypatch: pytest.MonkeyPatch
) -> None:
    outlet = piped.outlet
    placed, asked = threading.Event(), threading.Event()
    put, has_caught_up = outlet._handoff.put, outlet._has_caught_up

    def put_slowly(block: Block) -> None:
        put(block)
        placed.set()
        assert asked.wait(PATIENCE)

    def ask() -> bool:
        with outlet._state:
            if not len(outlet._handoff):
                asked.set()
            return has_caught_up()

    monkeypatch.setattr(outlet._handoff, "put", put_slowly)
    monkeypatch.setattr(outlet, "_has_caught_up", ask)
    outlet.put(Framed([LARGE]), 0, 0.0)
    putting = threading.Thread(target=outlet.put, args=(Framed([b"y"]), 0, 0.0))
    putting.start()
    assert placed.wait(PATIENCE)
    piped.drain()
    putting.join()
    assert lines_in(piped.close()) == [LARGE, b"y"]
