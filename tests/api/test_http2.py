from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from struct import pack

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import pytest
from hyperframe import frame as frames
from hypothesis import given
from hypothesis import strategies as st

from rxtweets.api._http2 import WINDOW, Deframer, whole_frames

STREAM = 1
Step = Callable[[h2.connection.H2Connection], None]


def pair() -> tuple[h2.connection.H2Connection, h2.connection.H2Connection]:
    """A client after the request of httpx, and a server after its head."""
    client = h2.connection.H2Connection()
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    client.initiate_connection()
    client.increment_flow_control_window(WINDOW)
    names = {":method": "GET", ":path": "/", ":scheme": "https", ":authority": "x"}
    client.send_headers(STREAM, list(names.items()), end_stream=True)
    client.increment_flow_control_window(WINDOW, STREAM)
    server.initiate_connection()
    server.receive_data(client.data_to_send())
    server.send_headers(STREAM, [(":status", "200")])
    client.receive_data(server.data_to_send())
    server.receive_data(client.data_to_send())
    server.data_to_send()
    return client, server


def data(payload: bytes, padding: int | None = None) -> Step:
    return lambda server: server.send_data(STREAM, payload, pad_length=padding)


def ping(payload: bytes) -> Step:
    return lambda server: server.ping(payload)


def settings(value: int) -> Step:
    return lambda server: server.update_settings(
        {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: value}
    )


def wire_of(steps: list[Step], server: h2.connection.H2Connection) -> bytes:
    wire = b""
    for step in steps:
        step(server)
        wire += server.data_to_send()
    return wire


def cut(wire: bytes, places: list[int]) -> list[bytes]:
    bounds = sorted({0, len(wire), *(place % (len(wire) + 1) for place in places)})
    return [wire[start:end] for start, end in pairwise(bounds)]


def as_h2_reads(client: h2.connection.H2Connection, wire: bytes) -> tuple[bytes, bool]:
    """The body that h2 parses, and whether it has ended."""
    body, ended = b"", False
    for event in client.receive_data(wire):
        if isinstance(event, h2.events.DataReceived):
            body += event.data or b""
        ended = ended or isinstance(
            event,
            (h2.events.StreamEnded, h2.events.StreamReset, h2.events.ConnectionTerminated),
        )
    return body, ended


ENDS: dict[str, list[Step]] = {
    "continues": [],
    "ends": [lambda server: server.end_stream(STREAM)],
    "ends with data": [lambda server: server.send_data(STREAM, b"last", end_stream=True)],
    "trailers": [lambda server: server.send_headers(STREAM, [("x", "y")], end_stream=True)],
    "reset": [lambda server: server.reset_stream(STREAM, 2)],
    "GOAWAY": [lambda server: server.close_connection(0)],
}

steps = st.lists(
    st.one_of(
        st.builds(data, st.binary(max_size=60), st.none() | st.integers(0, 20)),
        st.builds(ping, st.binary(min_size=8, max_size=8)),
        st.builds(settings, st.integers(0, 2**20)),
    ),
    max_size=20,
)


@given(steps, st.sampled_from(sorted(ENDS)), st.lists(st.integers(min_value=0), max_size=30))
def test_body_equals_that_of_h2_at_every_cut(
    middle: list[Step], end: str, places: list[int]
) -> None:
    client, server = pair()
    wire = wire_of([*middle, *ENDS[end]], server)
    deframer = Deframer(STREAM)
    body = b"".join(deframer.feed(piece) for piece in cut(wire, places))
    assert (body, deframer.ended) == as_h2_reads(client, wire)
    assert (deframer.fault is not None) == (end in {"reset", "GOAWAY"})


@given(steps)
def test_replies_equal_those_of_h2(middle: list[Step]) -> None:
    client, server = pair()
    wire = wire_of(middle, server)
    deframer = Deframer(STREAM)
    deframer.feed(wire)
    client.receive_data(wire)
    # h2 answers the same frames in the same order, but returns windows at other times.
    assert deframer.reply == client.data_to_send()


def test_window_is_returned_before_it_is_used_up() -> None:
    _, server = pair()
    deframer = Deframer(STREAM)
    for _ in range(3 * WINDOW // 16_000):
        server.send_data(STREAM, bytes(15_000), pad_length=99)
        deframer.feed(server.data_to_send())
        if deframer.reply:
            server.receive_data(deframer.reply)
            deframer.reply = b""
    assert server.local_flow_control_window(STREAM) > WINDOW // 3


def test_body_is_the_same_byte_by_byte() -> None:
    _, server = pair()
    wire = wire_of([data(b"one"), data(b"two", 5), data(b"three")], server)
    deframer = Deframer(STREAM)
    assert b"".join(deframer.feed(bytes([byte])) for byte in wire) == b"onetwothree"


def test_frames_without_meaning_are_ignored() -> None:
    unknown = b"\x00\x00\x03\xab\x00\x00\x00\x00\x01new"
    order = frames.PriorityFrame(STREAM).serialize()
    late = frames.WindowUpdateFrame(0, 100).serialize()
    body = frames.DataFrame(STREAM, b"tweet").serialize()
    assert Deframer(STREAM).feed(unknown + order + late + body) == b"tweet"


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (frames.RstStreamFrame(STREAM, 8).serialize(), "CANCEL"),
        (frames.RstStreamFrame(STREAM, 99).serialize(), "unknown"),
        (frames.GoAwayFrame(0, 1, 11).serialize(), "ENHANCE_YOUR_CALM"),
        (frames.DataFrame(3, b"x").serialize(), "stream 3"),
        (frames.PushPromiseFrame(STREAM, 2, b"").serialize(), "pushes"),
        (b"\x00\x00\x02\x00\x08\x00\x00\x00\x01\x05a", "padding"),
        (b"\x00\x00\x00\x00\x08\x00\x00\x00\x01", "padding"),
        (b"HTTP/1.1 200 OK\r\n", "a frame of"),
    ],
)
def test_fault_is_named_after_the_data_before_it(bad: bytes, says: str) -> None:
    deframer = Deframer(STREAM)
    before = frames.DataFrame(STREAM, b"before").serialize()
    assert deframer.feed(before + bad + before) == b"before"
    assert says in str(deframer.fault)
    assert deframer.feed(before) == b""


def raw(kind: int, payload: bytes, stream: int = 0, flags: int = 0) -> bytes:
    return pack(">I", len(payload))[1:] + pack(">BBI", kind, flags, stream) + payload


@pytest.mark.parametrize(
    "bad",
    [
        *(raw(0, b"x"), raw(0, b"x", 3), raw(1, b"", 3, 4), raw(1, b"", STREAM, 4)),
        *(raw(2, b"\0" * 4, STREAM), raw(3, b"\0" * 3, STREAM), raw(3, b"\0" * 5, STREAM)),
        *(raw(4, b"", STREAM), raw(4, b"\0" * 5), raw(4, b"\0" * 6, 0, 1)),
        *(raw(5, b"\0" * 4, STREAM, 4), raw(6, b"\0" * 8, STREAM), raw(6, b"\0" * 7)),
        *(raw(7, b"\0" * 8, STREAM), raw(7, b"\0" * 7)),
        *(raw(8, b"\0" * 4), raw(8, b"\0" * 4, STREAM), raw(8, b"\1" * 3), raw(9, b"", STREAM, 4)),
    ],
    ids=bytes.hex,
)
def test_frames_that_h2_refuses_are_refused(bad: bytes) -> None:
    client, _ = pair()
    with pytest.raises(h2.exceptions.ProtocolError):
        client.receive_data(bad)
    deframer = Deframer(STREAM)
    assert deframer.feed(BODY + bad + BODY) == b"body"
    assert deframer.fault is not None


def head(*flags: str) -> bytes:
    return frames.HeadersFrame(STREAM, b"abc", flags=list(flags)).serialize()


MORE = frames.ContinuationFrame(STREAM, b"d", flags=["END_HEADERS"]).serialize()
BODY = frames.DataFrame(STREAM, b"body").serialize()
SETTINGS = frames.SettingsFrame(0).serialize()


@pytest.mark.parametrize(
    ("wire", "whole", "is_head"),
    [
        (b"", 0, False),
        (SETTINGS, len(SETTINGS), False),
        (SETTINGS + head("END_HEADERS") + BODY, len(SETTINGS + head()), True),
        (SETTINGS + head(), len(SETTINGS), False),
        (SETTINGS + head("END_STREAM") + MORE[:-1], len(SETTINGS), False),
        (head() + MORE + BODY, len(head() + MORE), True),
        (head("END_HEADERS", "END_STREAM") + BODY, len(head()), False),
        (head("END_STREAM") + MORE, len(head() + MORE), False),
        (SETTINGS + head("END_HEADERS")[:-1], len(SETTINGS), False),
    ],
)
def test_whole_frames_end_with_the_first_head(wire: bytes, whole: int, is_head: bool) -> None:
    assert whole_frames(wire) == (whole, is_head)
