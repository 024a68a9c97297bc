from __future__ import annotations

from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxtweets.api._http1 import ChunkError, Dechunker


def chunked(*payloads: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(payload), payload) for payload in payloads)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(bounds)]


def as_h11_reads(data: bytes) -> bytes:
    """The body that h11 parses."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + data)
    body = b""
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Data):
            body += bytes(event.data)
    return body


payloads = st.lists(st.binary(min_size=1, max_size=60), max_size=20)


@given(payloads, st.lists(st.integers(min_value=0), max_size=30))
def test_chunked_body_equals_that_of_h11_at_every_cut(
    parts: list[bytes], places: list[int]
) -> None:
    wire = chunked(*parts) + b"0\r\n\r\n"
    dechunker = Dechunker()
    body = b"".join(dechunker.feed(piece) for piece in cut(wire, places))
    assert body == as_h11_reads(wire) == b"".join(parts)
    assert dechunker.ended


@given(payloads)
def test_body_is_the_same_byte_by_byte(parts: list[bytes]) -> None:
    dechunker = Dechunker()
    body = b"".join(dechunker.feed(bytes([byte])) for byte in chunked(*parts))
    assert body == b"".join(parts)
    assert not dechunker.ended


def test_part_of_a_long_chunk_is_returned_immediately() -> None:
    dechunker = Dechunker()
    assert dechunker.feed(b"100\r\nabc") == b"abc"
    assert dechunker.feed(b"def") == b"def"


def test_chunk_extensions_are_ignored() -> None:
    assert Dechunker().feed(b"3;name=value\r\nabc\r\n") == b"abc"


def test_bytes_after_the_last_chunk_are_ignored() -> None:
    dechunker = Dechunker()
    assert dechunker.feed(b"0\r\nTrailer: x\r\n\r\n") == b""
    assert dechunker.ended


@pytest.mark.parametrize(
    "wire",
    [
        b"xyz\r\n",
        b"-1\r\n",
        b"1_0\r\n",
        b"\r\nabc",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\rX",
        b"f" * 110_000,
    ],
)
def test_bytes_that_are_not_chunks_are_a_fault(wire: bytes) -> None:
    dechunker = Dechunker()
    dechunker.feed(wire)
    assert isinstance(dechunker.fault, ChunkError)


@given(
    st.lists(st.integers(min_value=1, max_value=70_000), min_size=1, max_size=6),
    st.sampled_from(["%x", "%X", "00%x", "%x;name=value", "%x \t"]),
    st.lists(st.integers(min_value=0), max_size=6),
)
def test_every_form_of_a_size_is_parsed(sizes: list[int], form: str, places: list[int]) -> None:
    wire = b"".join((form % size).encode() + b"\r\n" + b"x" * size + b"\r\n" for size in sizes)
    dechunker = Dechunker()
    body = b"".join(dechunker.feed(piece) for piece in cut(wire, places))
    assert body == b"x" * sum(sizes)
    assert dechunker.fault is None


def test_chunks_before_a_fault_are_returned() -> None:
    dechunker = Dechunker()
    assert dechunker.feed(chunked(b"one", b"two") + b"zz\r\n") == b"onetwo"
    assert dechunker.fault is not None
    assert dechunker.feed(chunked(b"three")) == b""


def test_late_wrong_line_end_is_a_fault() -> None:
    dechunker = Dechunker()
    assert dechunker.feed(b"3\r\nab") == b"ab"
    assert dechunker.feed(b"cX") == b"c"
    assert dechunker.fault is not None


TOKENS = [
    *(b"3\r\nabc\r\n", b"03\r\nabc\r\n", b"3;q\r\nabc\r\n", b"3 \r\nabc\r\n", b"3\r\nabcX"),
    *(b"0x3", b" 3", b"+3", b"1_0", b"\x0b", b"f" * 21, b";", b" ", b"\r", b"\n", b"\r\n", b"0"),
]


def up_to_a_fault(pieces: list[bytes]) -> tuple[bytes, bool]:
    """The body that h11 parses from pieces, and whether it refuses the rest."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    client.next_event()
    body = b""
    for piece in pieces:
        client.receive_data(piece)
        try:
            while isinstance(event := client.next_event(), h11.Data):
                body += bytes(event.data)
        except h11.RemoteProtocolError:
            return body, True
        if isinstance(event, h11.EndOfMessage):
            break
    return body, False


@given(
    st.lists(st.sampled_from(TOKENS), min_size=1, max_size=12).map(b"".join),
    st.lists(st.integers(min_value=0), max_size=6),
)
def test_damaged_body_equals_that_of_h11_at_every_cut(wire: bytes, places: list[int]) -> None:
    pieces = cut(wire, places)
    dechunker = Dechunker()
    body = b"".join(map(dechunker.feed, pieces))
    expected, is_refused = up_to_a_fault(pieces)
    assert body == expected
    if dechunker.fault is not None or not dechunker.ended:  # trailers are ignored
        assert (dechunker.fault is not None) == is_refused


def test_payload_before_a_missing_line_end_is_returned() -> None:
    dechunker = Dechunker()
    assert dechunker.feed(b"3\r\nabcX\r\n") == b"abc"
    assert dechunker.fault is not None


def test_long_extension_is_parsed_in_two_reads() -> None:
    wire = b"3;name=" + b"x" * 50_000 + b"\r\nabc\r\n"
    dechunker = Dechunker()
    assert dechunker.feed(wire[:40_000]) + dechunker.feed(wire[40_000:]) == b"abc"
