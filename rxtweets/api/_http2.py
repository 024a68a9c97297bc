"""A parser for the body of an HTTP/2 response (RFC 9113, 6).

X sends one tweet a DATA frame. h2 spends more time on a frame than decoding the tweet takes; see
row 5 of the benchmarks.
"""

from __future__ import annotations

from struct import Struct, pack

__all__ = ["Deframer", "FrameError", "whole_frames"]

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE = 0x0, 0x1, 0x2, 0x3, 0x4, 0x5
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0x6, 0x7, 0x8, 0x9
ACK, END_STREAM, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8

LENGTHS = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
"""Payload bytes of the frames that have a fixed length."""

FRAME_HEAD = 9
LONGEST_FRAME = 16_384
"""Bytes; the default of SETTINGS_MAX_FRAME_SIZE."""

MOST_CONTINUATIONS = 64
"""CONTINUATION frames of a head at most; h2 receives a longer head whole, and refuses it."""

WINDOW = 2**24
"""Bytes of the flow control window that httpx opens; half of it is returned at a time."""

ERRORS = (
    *("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT"),
    *("STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR"),
    *("CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"),
)

head_of = Struct(">IBI").unpack_from
"""Length and type in one number, flags, stream."""


class FrameError(ValueError):
    """The server ended the response, or the bytes are not HTTP/2."""


def whole_frames(data: bytes) -> tuple[int, bool]:
    """Find the end of the complete frames, at most up to the end of the first complete head.

    Returns:
        The index of the end, and whether it is the end of a head that has a body.
    """
    position = whole = continuations = 0
    is_all = False
    while position + FRAME_HEAD <= len(data):
        length_and_type, flags, _ = head_of(data, position)
        end = position + FRAME_HEAD + (length_and_type >> 8)
        if end > len(data):
            break
        position = end
        kind = length_and_type & 255
        if kind == HEADERS:
            is_all = bool(flags & END_STREAM)
        if kind not in {HEADERS, CONTINUATION}:
            whole = position
        elif flags & END_HEADERS:
            return position, not is_all
        continuations += kind == CONTINUATION
        if continuations > MOST_CONTINUATIONS:
            return position, False
    return whole, False


class Deframer:
    """Parses the frames after a response's head as they arrive.

    Args:
        stream: id of the response's stream.

    Attributes:
        reply: frames to send to the server; the caller clears it.
        ended: the response is complete.
        fault: a reset, GOAWAY, or bytes that are not HTTP/2; after it `feed` returns nothing.
    """

    def __init__(self, stream: int) -> None:
        self._stream = stream
        self._rest = b""
        self._taken = 0
        self.reply: bytes | bytearray = bytearray()
        self.ended = False
        self.fault: FrameError | None = None

    def feed(self, data: bytes) -> bytes:
        """Return the payload of the complete DATA frames, up to a fault."""
        parts: list[bytes] = []
        try:
            self._feed(self._rest + data if self._rest else data, parts)
        except FrameError as error:
            self.fault, self.ended = error, True
        return b"".join(parts)

    def _feed(self, data: bytes, parts: list[bytes]) -> None:
        position, most, ours = 0, len(data) - FRAME_HEAD, self._stream
        while position <= most and not self.ended:
            length_and_type, flags, stream = head_of(data, position)
            length = length_and_type >> 8
            if length > LONGEST_FRAME:
                raise FrameError(f"a frame of {length} bytes exceeds SETTINGS_MAX_FRAME_SIZE")
            start = position + FRAME_HEAD
            end = start + length
            if end > len(data):
                break
            # Inline, because nine of ten frames are plain data.
            if length_and_type & 255 == DATA and stream == ours and flags == 0:
                parts.append(data[start:end])
                self._taken += length
            else:
                payload = data[start:end]
                self._other(length_and_type & 255, flags, stream & 0x7FFFFFFF, payload, parts)
            position = end
        self._rest = b"" if self.ended else data[position:]
        if self._taken >= WINDOW // 2:
            self._give_back()

    def _other(
        self, kind: int, flags: int, stream: int, payload: bytes, parts: list[bytes]
    ) -> None:
        # Frames of unknown types, and those without meaning for a body, are ignored.
        if kind in {DATA, HEADERS, RST_STREAM} and stream != self._stream:
            raise FrameError(f"a frame of stream {stream}, which is not open")
        _check(kind, flags, stream, payload)
        if kind == DATA:
            self._taken += len(payload)
            parts.append(_without_padding(payload) if flags & PADDED else payload)
            self.ended = bool(flags & END_STREAM)
        elif kind == HEADERS:
            self.ended = True  # trailers: no later head needs their compression table
        elif kind == SETTINGS and not flags & ACK:
            self.reply += _frame(SETTINGS, ACK, 0, b"")
        elif kind == PING and not flags & ACK:
            self.reply += _frame(PING, ACK, 0, payload)
        elif kind == RST_STREAM:
            raise FrameError(f"the server reset the response: {_error_in(payload)}")
        elif kind == GOAWAY:
            raise FrameError(f"the server sent GOAWAY: {_error_in(payload[4:])}")
        elif kind == PUSH_PROMISE:
            raise FrameError("the server pushes a response, which this client disabled")

    def _give_back(self) -> None:
        amount, self._taken = pack(">I", self._taken), 0
        for stream in (0, self._stream):
            self.reply += _frame(WINDOW_UPDATE, 0, stream, amount)


def _check(kind: int, flags: int, stream: int, payload: bytes) -> None:
    if kind in {SETTINGS, PING, GOAWAY} and stream:
        raise FrameError(f"a frame of the whole connection, of type {kind}, in stream {stream}")
    if not _is_length_of(kind, flags, len(payload)):
        raise FrameError(f"a frame of type {kind} with {len(payload)} bytes")
    if kind == WINDOW_UPDATE and not any(payload):
        raise FrameError("a WINDOW_UPDATE of 0 bytes")
    if kind == CONTINUATION or (kind == HEADERS and not flags & END_STREAM):
        raise FrameError("a second head")


def _is_length_of(kind: int, flags: int, length: int) -> bool:
    if kind == SETTINGS:
        return length == 0 if flags & ACK else length % 6 == 0
    if kind == GOAWAY:
        return length >= 8
    return LENGTHS.get(kind, length) == length


def _without_padding(payload: bytes) -> bytes:
    padding = payload[0] if payload else 1
    if padding >= len(payload):
        raise FrameError(f"a frame of {len(payload)} bytes with {padding} bytes of padding")
    return payload[1 : len(payload) - padding]


def _error_in(payload: bytes) -> str:
    code = int.from_bytes(payload[:4], "big")
    name = ERRORS[code] if code < len(ERRORS) else "unknown"
    return f"{name} ({code})"


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return pack(">I", len(payload))[1:] + pack(">BBI", kind, flags, stream) + payload
