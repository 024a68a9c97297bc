from __future__ import annotations

import gzip
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxtweets.api import _gzip
from rxtweets.api._gzip import Inflater


@given(st.lists(st.binary(max_size=200), max_size=5), st.integers(1, 50))
def test_members_are_one_body_at_every_cut(members: list[bytes], size: int) -> None:
    wire = b"".join(gzip.compress(member) for member in members)
    inflater = Inflater()
    pieces = (wire[at : at + size] for at in range(0, len(wire), size))
    assert b"".join(map(inflater.feed, pieces)) == b"".join(members)
    assert inflater.fault is None


def test_flushed_data_is_returned_immediately() -> None:
    deflate = zlib.compressobj(6, zlib.DEFLATED, 31)
    inflater = Inflater()
    for message in (b"one", b"two"):
        wire = deflate.compress(message) + deflate.flush(zlib.Z_SYNC_FLUSH)
        assert inflater.feed(wire) == message


def test_bytes_that_are_not_gzip_are_a_fault() -> None:
    inflater = Inflater()
    assert inflater.feed(b"not gzip at all") == b""
    assert inflater.fault is not None


def test_member_before_a_fault_is_returned() -> None:
    inflater = Inflater()
    assert inflater.feed(gzip.compress(b"good") + b"bad and more") == b"good"
    assert inflater.fault is not None
    assert inflater.feed(gzip.compress(b"late")) == b""


def compressed(count: int = 12) -> bytes:
    """Lines as X sends them, with a flush after each."""
    deflate = zlib.compressobj(6, zlib.DEFLATED, 31)
    wire = b""
    for number in range(count):
        wire += deflate.compress(b'{"data":{"id":"%d","text":"hello"}}\r\n' % number)
        wire += deflate.flush(zlib.Z_SYNC_FLUSH)
    return wire + deflate.flush()


def byte_by_byte(wire: bytes) -> tuple[bytes, bool]:
    """The output of zlib up to a fault, and whether there is one."""
    member, body = zlib.decompressobj(31), b""
    try:
        for at in range(len(wire)):
            body += member.decompress(wire[at : at + 1])
            if member.eof:
                member = zlib.decompressobj(31)
    except zlib.error:
        return body, True
    return body, False


WIRE = compressed()


@pytest.mark.parametrize("start", range(0, len(WIRE), 50))
def test_data_before_a_fault_is_returned(start: int) -> None:
    chance = random.Random(start)
    for place in range(start, min(start + 50, len(WIRE))):
        wire = bytearray(WIRE)
        wire[place] ^= 1 << chance.randrange(8)
        expected, is_damaged = byte_by_byte(bytes(wire))
        for size in (len(wire), chance.randint(1, 60)):
            inflater = Inflater()
            pieces = (bytes(wire[at : at + size]) for at in range(0, len(wire), size))
            assert b"".join(map(inflater.feed, pieces)) == expected
            assert (inflater.fault is not None) is is_damaged


def test_data_before_a_late_fault_is_returned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_gzip, "PIECE", 100)  # several pieces precede the fault
    wire = compressed(1000)
    damaged = wire[:-8] + bytes(8)  # the checksum, after all of the body
    inflater = Inflater()
    assert inflater.feed(damaged) == byte_by_byte(wire)[0]
    assert "incorrect data check" in str(inflater.fault)


@given(st.binary(max_size=3000), st.integers(1, 300))
def test_pieces_have_a_bounded_size(body: bytes, most: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_gzip, "PIECE", most)
        pieces = list(Inflater().pieces(gzip.compress(body * 3)))
    assert b"".join(pieces) == body * 3
    assert all(0 < len(piece) <= most for piece in pieces)
