"""One accepted connection: requests and responses over HTTP/1.1 or HTTP/2.

`Transport.requests` gives requests one after the other. Each is answered with `reply`, or with
`begin`, `send` and `end`. One thread does all of it; other threads may call `kill`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import h11

from rxtweets.errors._redaction import mask_logs

__all__ = ["Gone", "Head", "Headers", "ResponseGone", "TooSlow", "Transport", "accept"]

Headers = list[tuple[str, str]]

READ_SIZE = 65_536
LONGEST_BODY = 4_000_000
"""Bytes of a request's body; a longer body ends the connection."""

LONGEST_WAIT = 3600.0
"""Seconds; `select` takes no infinite number."""

LINGER = 1.0
"""Seconds that a client has to close its side after the server closed."""

HTTP2_PREFACE = b"PRI * HTTP/2.0"


class Gone(Exception):
    """The client has closed the connection, or it was killed."""


class ResponseGone(Gone):
    """The client has cancelled the response, and may send another request."""


class TooSlow(Gone):
    """The client has not read for longer than the server waits."""


class Head(NamedTuple):
    """The head of a request.

    Attributes:
        method: such as ``GET``.
        target: path and query.
        headers: names in lower case.
        http_version: ``HTTP/1.1`` or ``HTTP/2``.
        body: of the request.
    """

    method: str
    target: str
    headers: dict[str, str]
    http_version: str
    body: bytes = b""


def accept(raw: socket.socket, tls: ssl.SSLContext | None, *, http2: bool) -> Transport:
    """Complete the TLS handshake, and detect the protocol of the client.

    Args:
        raw: the accepted socket.
        tls: of the server; ``None`` for plain text.
        http2: accept HTTP/2.

    Raises:
        Gone: the client left, or does not speak TLS.
    """
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.settimeout(10.0)
    try:
        if tls is None:
            is_http2 = http2 and raw.recv(len(HTTP2_PREFACE), socket.MSG_PEEK) == HTTP2_PREFACE
            return (Http2 if is_http2 else Http1)(raw)
        connection = tls.wrap_socket(raw, server_side=True)
    except (OSError, ValueError) as error:
        raw.close()
        raise Gone from error
    is_http2 = connection.selected_alpn_protocol() == "h2"
    return (Http2 if is_http2 else Http1)(connection)


class Transport(ABC):
    """A connection that is ready for requests."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self.packet = 0
        """Bytes that are sent at a time; 0 for no limit."""
        self._patience: float | None = None
        self._is_cut = False
        # A blocking socket: a slow reader makes the server wait, and `kill` ends the wait.
        connection.settimeout(None)
        try:
            self.client_ip = str(connection.getpeername()[0])
        except (OSError, IndexError):
            self.client_ip = ""

    @abstractmethod
    def requests(self) -> Iterator[Head]:
        """Yield requests, each after the last was answered, until the client leaves."""

    @abstractmethod
    def reply(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer with a whole response."""

    @abstractmethod
    def begin(self, headers: Headers) -> None:
        """Begin to answer with a stream."""

    @abstractmethod
    def send(self, pieces: Sequence[bytes]) -> None:
        """Send pieces of the body, each as a separate chunk or DATA frame."""

    @abstractmethod
    def end(self) -> None:
        """End the body, as the protocol demands."""

    def go_away(self, error_code: int) -> None:
        """Send GOAWAY over HTTP/2, and close the connection within the response."""
        del error_code
        self.fin()

    def reset_stream(self, error_code: int) -> None:
        """Reset the response over HTTP/2; over HTTP/1.1 the connection."""
        del error_code
        self.abort()

    @abstractmethod
    def _received(self, data: bytes) -> None:
        """Process bytes that the client sent during a response."""

    def wait(self, seconds: float) -> None:
        """Wait, and process the bytes of the client meanwhile.

        Raises:
            Gone: the client has left.
        """
        until = time.monotonic() + seconds
        while True:
            rest = until - time.monotonic()
            self._receive(min(max(0.0, rest), LONGEST_WAIT))
            if rest <= 0:
                return

    def set_patience(self, seconds: float | None) -> None:
        """Set how long to wait for a client that does not read; ``None`` for no limit."""
        self._patience = seconds
        self._socket.settimeout(seconds)

    def fin(self) -> None:
        """Close the connection without the end of the response, and without TLS's close_notify."""
        self._is_cut = True
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_WR)

    def abort(self) -> None:
        """Reset the connection."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close()

    def close(self) -> None:
        """Close the connection so that the client gets every byte that was sent."""
        deadline = time.monotonic() + LINGER
        if isinstance(self._socket, ssl.SSLSocket) and not self._is_cut:
            with contextlib.suppress(OSError, ValueError):
                self._socket.settimeout(0.0)
                self._socket.unwrap()  # sends close_notify, and does not wait for the client's
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
            self._socket.settimeout(LINGER)
            # A close over unread bytes resets the connection, and the client loses data (RFC 9112,
            # 9.6).
            while time.monotonic() < deadline and socket.socket.recv(self._socket, READ_SIZE):
                pass
        self._close()

    def kill(self) -> None:
        """End the connection and every wait of its thread, from another thread."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()

    def _receive(self, seconds: float) -> None:
        """Process bytes of the client, and wait for them at most ``seconds``."""
        try:
            has_data = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()
            if not has_data and not select.select([self._socket], [], [], seconds)[0]:
                return
            self._socket.settimeout(0.0)
            data = self._socket.recv(READ_SIZE)
            self._socket.settimeout(self._patience)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._socket.settimeout(self._patience)
            return
        except (OSError, ValueError) as error:  # `kill` closed it
            raise Gone from error
        if not data:
            raise Gone
        self._received(data)

    def _read(self) -> bytes:
        try:
            return self._socket.recv(READ_SIZE)
        except OSError:
            return b""

    def _write(self, data: bytes) -> None:
        try:
            if not self.packet:
                self._socket.sendall(data)
                return
            for start in range(0, len(data), self.packet):
                self._socket.sendall(data[start : start + self.packet])
        except TimeoutError as error:
            self.abort()
            raise TooSlow from error
        except OSError as error:
            raise Gone from error


class Http1(Transport):
    """HTTP/1.1 by h11, which chunks of the body do without."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self._http = h11.Connection(h11.SERVER)
        self._body = bytearray()

    def requests(self) -> Iterator[Head]:
        while (request := self._next_request()) is not None:
            headers = {
                name.decode().lower(): value.decode("latin-1") for name, value in request.headers
            }
            method, target = request.method.decode(), request.target.decode()
            yield Head(method, target, headers, "HTTP/1.1", bytes(self._body))
            if self._http.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
                return
            self._http.start_next_cycle()

    def reply(self, status: int, headers: Headers, body: bytes) -> None:
        length = ("content-length", str(len(body)))
        response = _response(status, [*headers, length])
        parts = [self._http.send(response), self._http.send(h11.Data(data=body))]
        parts.append(self._http.send(h11.EndOfMessage()))
        self._write(b"".join(part for part in parts if part))

    def begin(self, headers: Headers) -> None:
        framing = [("transfer-encoding", "chunked"), ("connection", "close")]
        head = self._http.send(_response(200, [*headers, *framing]))
        self._write(head or b"")

    def send(self, pieces: Sequence[bytes]) -> None:
        self._write(b"".join([b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]))

    def end(self) -> None:
        self._write(self._http.send(h11.EndOfMessage()) or b"")

    def _received(self, data: bytes) -> None:
        """Drop the bytes: the connection ends with the response."""

    def _next_request(self) -> h11.Request | None:
        request: h11.Request | None = None
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                with contextlib.suppress(Gone):
                    self.reply(error.error_status_hint, [("connection", "close")], b"")
                return None
            if isinstance(event, h11.Request):
                request = event
                self._body.clear()
                if self._http.they_are_waiting_for_100_continue:
                    informed = h11.InformationalResponse(status_code=100, headers=[])
                    self._write(self._http.send(informed) or b"")
            elif isinstance(event, h11.EndOfMessage):
                return request
            elif event is h11.NEED_DATA:
                self._http.receive_data(self._read())
            elif isinstance(event, h11.Data) and len(self._body) < LONGEST_BODY:
                self._body += event.data
            else:
                return None


REASONS = {status.value: status.phrase for status in HTTPStatus}


def _response(status: int, headers: Headers) -> h11.Response:
    reason = REASONS.get(status, "")
    return h11.Response(status_code=status, headers=headers, reason=reason)


class Http2(Transport):
    """HTTP/2 by h2, by ALPN or with prior knowledge; one request at a time."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        mask_logs()
        configuration = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self._http = h2.connection.H2Connection(configuration)
        self._stream = 0
        self._waiting: list[tuple[int, Head]] = []
        self._bodies: dict[int, tuple[Head, bytearray]] = {}

    def requests(self) -> Iterator[Head]:
        self._http.initiate_connection()
        self._flush()
        with contextlib.suppress(Gone):
            while True:
                while not self._waiting:
                    data = self._read()
                    if not data:
                        return
                    self._received(data)
                self._stream, head = self._waiting.pop(0)
                yield head
                self._stream = 0
                self.set_patience(None)

    def reply(self, status: int, headers: Headers, body: bytes) -> None:
        length = ("content-length", str(len(body)))
        self._http.send_headers(self._stream, [(":status", str(status)), *headers, length])
        self.send([body] if body else [])
        self.end()

    def begin(self, headers: Headers) -> None:
        self._http.send_headers(self._stream, [(":status", "200"), *headers])
        self._flush()

    def send(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            self._send(piece)
        self._flush()

    def end(self) -> None:
        self._http.end_stream(self._stream)
        self._flush()

    def go_away(self, error_code: int) -> None:
        self._http.close_connection(error_code, last_stream_id=self._stream)
        self._flush()
        self.fin()

    def reset_stream(self, error_code: int) -> None:
        self._http.reset_stream(self._stream, error_code)
        self._flush()
        self._stream = 0

    def close(self) -> None:
        with contextlib.suppress(Gone, h2.exceptions.ProtocolError):
            self._http.close_connection()
            self._flush()
        super().close()

    def _send(self, piece: bytes) -> None:
        since = time.monotonic()
        while piece:
            room = self._http.local_flow_control_window(self._stream)
            length = min(room, len(piece), self._http.max_outbound_frame_size)
            if length:
                self._http.send_data(self._stream, piece[:length])
                piece = piece[length:]
                since = time.monotonic()
            elif self._patience and time.monotonic() - since > self._patience:
                self.abort()
                raise TooSlow
            else:
                self._flush()
                self._receive(min(1.0, self._patience or 1.0))

    def _flush(self) -> None:
        data = self._http.data_to_send()
        if data:
            self._write(data)

    def _received(self, data: bytes) -> None:
        try:
            received = self._http.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            raise Gone from error
        is_terminated = is_cancelled = False
        for event in received:
            if isinstance(event, h2.events.StreamReset):
                is_cancelled = is_cancelled or event.stream_id == self._stream
                self._bodies.pop(event.stream_id or 0, None)
                self._waiting = [pair for pair in self._waiting if pair[0] != event.stream_id]
            elif isinstance(event, h2.events.ConnectionTerminated):
                is_terminated = True
            else:
                self._collect(event)
        if self._stream and not is_cancelled:
            self._refuse_others()
        self._flush()
        if is_terminated:
            raise Gone
        if is_cancelled:
            raise ResponseGone

    def _collect(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived) and event.headers is not None:
            self._bodies[event.stream_id or 0] = _head(event.headers), bytearray()
        elif isinstance(event, h2.events.DataReceived):
            self._add_to_body(event)
        elif isinstance(event, h2.events.StreamEnded):
            head, body = self._bodies.pop(event.stream_id or 0)
            self._waiting.append((event.stream_id or 0, head._replace(body=bytes(body))))

    def _add_to_body(self, event: h2.events.DataReceived) -> None:
        stream = event.stream_id or 0
        self._http.acknowledge_received_data(event.flow_controlled_length or 0, stream)
        if stream in self._bodies:
            self._bodies[stream][1].extend(event.data or b"")
        if sum(len(body) for _, body in self._bodies.values()) > LONGEST_BODY:
            raise Gone

    def _refuse_others(self) -> None:
        # X serves one stream at a time on a connection.
        for stream, _ in self._waiting:
            self._http.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
        self._waiting.clear()


def _head(fields: Iterable[tuple[Any, Any]]) -> Head:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in fields}
    named = {name: value for name, value in headers.items() if not name.startswith(":")}
    return Head(headers.get(":method", ""), headers.get(":path", ""), named, "HTTP/2")
