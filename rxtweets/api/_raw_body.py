"""The body of a streaming response, read from the connection instead of through httpx.

`Wire` replaces ``read`` of one httpcore stream. It relies on these private facts of httpcore 1.0:

- the trace extension passes the stream of each ``connect_tcp`` and ``start_tls``, the innermost
  last;
- the stream reads all bytes of a connection through ``stream.read(max_bytes, timeout)``, and writes
  them through ``stream.write(data, timeout)``;
- both raise `httpcore.NetworkError` or `httpcore.TimeoutException`.

httpx parses the heads of responses. It receives no byte behind the end of a head in the same read,
so the body can be read here. ``fast_paths=False`` leaves the bodies to httpx.
"""

from __future__ import annotations

import contextlib
import re
import ssl
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from rxtweets.api._http1 import Dechunker
from rxtweets.api._http2 import Deframer, whole_frames

try:
    from fcntl import ioctl
    from termios import FIONREAD
except ImportError:  # Windows: each TLS record takes a read
    ioctl = None  # type: ignore[assignment]  # mypy sees a function

__all__ = ["LONGEST_HEAD", "Wire", "burst"]

LONGEST_HEAD = 102_400
"""Bytes of an incomplete HTTP/2 head at most; httpx has the same bound for HTTP/1.1."""

READ = 65_536
HEAD_END = re.compile(rb"\n\r?\n")
"""The end of a head for h11, which accepts lines that end with a line feed alone."""

RECORD = 2**14
"""Bytes that a TLS record holds at most."""

WHOLE = 5 + RECORD + 2048
"""Bytes of a TLS record at most (RFC 5246, 6.2.3); if the socket has them, a read cannot block."""

MOST = 2**16
"""Bytes that one `burst` returns at most, plus a record."""


def burst(first: bytes, source: Any) -> bytes:
    """Return the bytes of a read, and of the TLS records that have arrived whole.

    `ssl.SSLSocket.recv` returns one record; each read costs the threads more than its bytes do.
    Rows 1 and 2 of the benchmarks measure it.

    Args:
        first: the bytes of the read.
        source: the socket; only a socket with TLS is read further.
    """
    if len(first) < RECORD or not isinstance(source, ssl.SSLSocket) or ioctl is None:
        return first
    parts, size = [first], len(first)
    # The next read meets an error, or the end, again.
    with contextlib.suppress(OSError):
        while size < MOST and _waiting(source) >= WHOLE:
            more = source.recv(RECORD)
            if not more:
                break
            parts.append(more)
            size += len(more)
    return b"".join(parts)


def _waiting(source: ssl.SSLSocket) -> int:
    return int.from_bytes(ioctl(source.fileno(), FIONREAD, b"\0\0\0\0"), sys.byteorder)


class Wire:
    """The bytes of a connection: heads for httpx, the body for us.

    Attributes:
        is_http2: the server speaks HTTP/2, by its first byte.
        head_complete: the last read of httpx ended with the end of a head.
    """

    def __init__(self, stream: Any) -> None:
        self._read: Callable[..., bytes] = stream.read
        self._write: Callable[..., None] = stream.write
        # With TLS inside the TLS of a proxy, the stream does not read from the socket.
        is_within = isinstance(stream.get_extra_info("ssl_object"), ssl.SSLObject)
        self._socket: Any = None if is_within else stream.get_extra_info("socket")
        self._rest = b""
        self._before = b""
        self._is_fresh = True
        self.is_http2 = False
        self.head_complete = False
        stream.read = self.read_head

    def read_head(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read as the stream's own ``read`` does, but not past the end of a head."""
        if self._is_fresh:
            first = self._read(max_bytes, timeout)
            # A frame of HTTP/2 starts with a zero byte of its length, HTTP/1.1 with its name. Other
            # bytes, as those of a SOCKS proxy, are for httpx alone.
            if first[:1] not in {b"\0", b"H"}:
                return first
            self._rest, self._is_fresh, self.is_http2 = first, False, first[:1] == b"\0"
        if self.is_http2:
            return self._read_frames(max_bytes, timeout)
        data = self._rest or self._read(max_bytes, timeout)
        self._rest = b""
        found = HEAD_END.search(self._before + data)
        self.head_complete = found is not None
        if found is None:
            self._before = (self._before + data)[-2:]
            return data
        end = found.end() - len(self._before)
        self._rest, self._before = data[end:], b""
        return data[:end]

    def _read_frames(self, max_bytes: int, timeout: float | None) -> bytes:
        data = self._rest
        while True:
            end, self.head_complete = whole_frames(data)
            if end:
                self._rest = data[end:]
                return data[:end]
            if len(data) > LONGEST_HEAD:
                raise httpx.RemoteProtocolError(f"a head of more than {LONGEST_HEAD} bytes")
            more = self._read(max_bytes, timeout)
            data += more
            if not more:
                self._rest = b""
                return data

    def body(self, response: httpx.Response) -> Iterator[bytes] | None:
        """Return the body of the response as it was sent; ``None`` if httpx has to read it.

        Raises:
            httpx.HTTPError: while iterating: the connection broke, or the body is damaged.
        """
        if not self.head_complete:
            return None
        if response.http_version == "HTTP/2" and self.is_http2:
            if "content-length" in response.headers:
                return None  # only h2 compares it with the body; a stream has none
            return self._parsed(Deframer(response.extensions["stream_id"]))
        chunked = response.headers.get("transfer-encoding", "").lower() == "chunked"
        return self._parsed(Dechunker()) if chunked and not self.is_http2 else None

    def _parsed(self, parser: Deframer | Dechunker) -> Iterator[bytes]:
        # Frames and chunks without payload yield nothing: they must not hide a stall.
        for data in self._received():
            if body := parser.feed(data):
                yield body
            if parser.fault is not None:
                raise httpx.RemoteProtocolError(str(parser.fault))
            if parser.ended:
                return
            if parser.reply:
                reply, parser.reply = bytes(parser.reply), bytearray()
                self._send(reply)
        # Not the end of a replay: its rest has to be requested.
        raise httpx.RemoteProtocolError("the server closed the connection in the response")

    def _received(self) -> Iterator[bytes]:
        data, self._rest = self._rest, b""
        while data or (data := self._receive()):
            yield data
            data = b""

    def _receive(self) -> bytes:
        try:
            return burst(self._read(READ, None), self._socket)
        except _wire_errors() as error:
            raise httpx.ReadError(str(error)) from error

    def _send(self, data: bytes) -> None:
        try:
            self._write(data, None)
        except _wire_errors() as error:
            raise httpx.WriteError(str(error)) from error


def _wire_errors() -> tuple[type[Exception], ...]:
    import httpcore  # noqa: PLC0415 - a slow import, which httpx delays too

    return httpcore.NetworkError, httpcore.TimeoutException
