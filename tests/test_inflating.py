from __future__ import annotations

import gzip
import zlib

from hypothesis import given
from hypothesis import strategies as st

from rxtweets.inflating import Inflater


@given(st.lists(st.binary(max_size=200), max_size=5), st.integers(1, 50))
def test_members_one_after_the_other_are_one_body_at_every_cut(
    members: list[bytes], size: int
) -> None:
    wire = b"".join(gzip.compress(member) for member in members)
    inflater = Inflater()
    pieces = (wire[at : at + size] for at in range(0, len(wire), size))
    assert b"".join(map(inflater.feed, pieces)) == b"".join(members)
    assert inflater.fault is None


def test_what_was_flushed_is_given_at_once() -> None:
    deflate = zlib.compressobj(6, zlib.DEFLATED, 31)
    inflater = Inflater()
    for message in (b"one", b"two"):
        wire = deflate.compress(message) + deflate.flush(zlib.Z_SYNC_FLUSH)
        assert inflater.feed(wire) == message


def test_bytes_that_are_no_gzip_are_a_fault() -> None:
    inflater = Inflater()
    assert inflater.feed(b"not gzip at all") == b""
    assert inflater.fault is not None


def test_a_member_before_a_fault_is_given() -> None:
    inflater = Inflater()
    assert inflater.feed(gzip.compress(b"good") + b"bad and more") == b"good"
    assert inflater.fault is not None
    assert inflater.feed(gzip.compress(b"late")) == b""
