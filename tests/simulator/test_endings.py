"""The start and the end of connections, by raw sockets."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
import trustme

from rxtweets import simulator
from rxtweets.simulator._transport import Http1
from rxtweets.simulator.script import (
    Abort,
    Close,
    Fin,
    GoAway,
    Line,
    Part,
    ResetStream,
    Serve,
    Stall,
)

PATIENCE = 20.0
REQUEST = (
    b"GET /2/tweets/sample/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer any\r\n"
    b"accept-encoding: identity\r\n\r\n"
)


@contextlib.contextmanager
def connected(x: simulator.Simulator) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", x.port), timeout=PATIENCE) as raw:
        yield raw


def everything(raw: socket.socket) -> bytes:
    got = b""
    while block := raw.recv(65_536):
        got += block
    return got


def body_of(answer: bytes) -> bytes:
    """Return the chunks of an answer, with the last chunk if it was sent."""
    return answer.partition(b"\r\n\r\n")[2]


def test_close_ends_the_body_and_the_connection() -> None:
    with simulator.serve(source=[], script=[[Line(b"a"), Close()]]) as x, connected(x) as raw:
        raw.sendall(REQUEST)
        assert body_of(everything(raw)) == b"3\r\na\r\n\r\n0\r\n\r\n"


@pytest.mark.parametrize("step", [Fin(), GoAway()])
def test_http1_fin_leaves_the_body_without_its_end(step: Fin | GoAway) -> None:
    with simulator.serve(source=[], script=[[Line(b"a"), step]]) as x, connected(x) as raw:
        raw.sendall(REQUEST)
        assert body_of(everything(raw)) == b"3\r\na\r\n\r\n"


@pytest.mark.parametrize("step", [Abort(), ResetStream()])
def test_http1_abort_resets_the_connection(step: Abort | ResetStream) -> None:
    with simulator.serve(source=[], script=[step]) as x, connected(x) as raw:
        raw.sendall(REQUEST)
        with pytest.raises(ConnectionResetError):
            everything(raw)


class Http2Client:
    """A minimal client of HTTP/2 with prior knowledge."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self._http.initiate_connection()
        self.is_open = True

    def ask(self) -> int:
        stream = self._http.get_next_available_stream_id()
        head = {":method": "GET", ":scheme": "http", ":authority": "x"}
        path = {":path": "/2/tweets/sample/stream", "authorization": "Bearer any"}
        self._http.send_headers(stream, list((head | path).items()), end_stream=True)
        self._raw.sendall(self._http.data_to_send())
        return stream

    def cancel(self, stream: int) -> None:
        self._http.reset_stream(stream, 8)
        self._raw.sendall(self._http.data_to_send())

    def until(self, *kinds: type[h2.events.Event]) -> list[Any]:
        """Return the events up to one of these kinds, or to the end of the connection."""
        found: list[Any] = []
        while not any(isinstance(event, kinds) for event in found):
            data = self._raw.recv(65_536)
            if not data:
                self.is_open = False
                return found
            found += self._http.receive_data(data)
            with contextlib.suppress(OSError):
                self._raw.sendall(self._http.data_to_send())
        return found


def test_http2_goaway_has_its_code_and_ends_the_connection() -> None:
    with (
        simulator.serve(source=[], script=[[Line(b"a"), GoAway(11)]]) as x,
        connected(x) as raw,
    ):
        client = Http2Client(raw)
        client.ask()
        events = client.until(h2.events.ConnectionTerminated)
        assert events[-1].error_code == 11
        assert not any(isinstance(event, h2.events.StreamEnded) for event in events)
        client.until()
        assert not client.is_open


@pytest.mark.parametrize("code", [0, 2])
def test_http2_reset_keeps_the_connection(code: int) -> None:
    part = [Line(b"a"), ResetStream(code)]
    with (
        simulator.serve(source=[], live=True, script=[part, [Line(b"b"), Close()]]) as x,
        connected(x) as raw,
    ):
        client = Http2Client(raw)
        client.ask()
        assert client.until(h2.events.StreamReset)[-1].error_code == code
        client.ask()
        events = client.until(h2.events.StreamEnded)
        data = [event.data for event in events if isinstance(event, h2.events.DataReceived)]
        assert b"".join(data) == b"b\r\n"
        assert x.answered == 2


def test_http2_stream_can_be_cancelled_and_another_opened() -> None:
    with simulator.serve(rate=100, script=[[]]) as x, connected(x) as raw:
        client = Http2Client(raw)
        for _ in range(3):
            stream = client.ask()
            events = client.until(h2.events.DataReceived)
            [head] = [event for event in events if isinstance(event, h2.events.ResponseReceived)]
            assert dict(head.headers)[b":status"] == b"200"
            client.cancel(stream)
        assert client.is_open
        assert x.answered == 3


def test_http2_fin_sends_no_goaway_and_no_reset() -> None:
    with simulator.serve(source=[], script=[[Line(b"a"), Fin()]]) as x, connected(x) as raw:
        client = Http2Client(raw)
        client.ask()
        events = client.until(h2.events.StreamEnded, h2.events.StreamReset)
        assert any(isinstance(event, h2.events.DataReceived) for event in events)
        assert not client.is_open


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@contextlib.contextmanager
def over_tls(authority: trustme.CA, script: list[Part], **options: Any) -> Iterator[ssl.SSLSocket]:
    """A client that fails without close_notify."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("x.test").configure_cert(server)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with (
        simulator.serve(source=[], tls=server, script=script, **options) as x,
        connected(x) as raw,
        context.wrap_socket(raw, server_hostname="x.test", suppress_ragged_eofs=False) as secure,
    ):
        secure.sendall(REQUEST)
        yield secure


def test_tls_close_sends_close_notify(authority: trustme.CA) -> None:
    with over_tls(authority, [[Line(b"a"), Close()]]) as secure:
        assert body_of(everything(secure)) == b"3\r\na\r\n\r\n0\r\n\r\n"


def test_tls_fin_sends_no_close_notify(authority: trustme.CA) -> None:
    with (
        over_tls(authority, [[Line(b"a"), Fin()]]) as secure,
        pytest.raises(ssl.SSLEOFError),
    ):
        everything(secure)


def test_packets_may_be_of_one_byte(authority: trustme.CA) -> None:
    # A read gives one TLS record, so that packets cannot be joined by the network.
    sizes: list[int] = []
    with over_tls(authority, [[Line(b"abc"), Close()]], packet=1) as secure:
        while block := secure.recv(100):
            sizes.append(len(block))
    answered = sum(sizes)
    assert answered > 20
    assert sizes.count(1) >= len(b"5\r\nabc\r\n\r\n0\r\n\r\n")


class Recorder:
    """A socket that records the calls of sendall."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def settimeout(self, seconds: float | None) -> None:
        pass

    def getpeername(self) -> tuple[str, int]:
        return "127.0.0.1", 1

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)


@pytest.mark.parametrize("packet", [0, 1, 4])
def test_packets_have_the_size_of_the_option(packet: int) -> None:
    recorder: Any = Recorder()
    transport = Http1(recorder)
    transport.packet = packet
    transport.send([b"abc", b"de"])
    whole = b"3\r\nabc\r\n2\r\nde\r\n"
    step = packet or len(whole)
    assert recorder.sent == [whole[at : at + step] for at in range(0, len(whole), step)]


def test_requests_during_a_stream_are_dropped() -> None:
    with simulator.serve(source=[], script=[[Stall(0.2), Line(b"a"), Close()]]) as x:
        with connected(x) as raw:
            raw.sendall(REQUEST + REQUEST)
            assert body_of(everything(raw)).endswith(b"0\r\n\r\n")
        assert x.answered == 1


def test_too_long_body_ends_the_connection(client: Any) -> None:
    with simulator.serve() as x:
        for http1 in (True, False):
            http = client(x, http1=http1)
            with pytest.raises(Exception, match=r".*"):
                http.post("/2/tweets/search/stream/rules", content=b"x" * 5_000_000)
            assert http.get("/2/tweets/search/stream/rules").status_code == 200


def test_server_may_be_closed_by_concurrent_threads(client: Any) -> None:
    x = simulator.serve(rate=None)
    with client(x).stream("GET", "/2/tweets/sample/stream"):
        closers = [threading.Thread(target=x.close) for _ in range(8)]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join(PATIENCE)
            assert not closer.is_alive()
    assert not [thread for thread in threading.enumerate() if thread.name == "simulator"]


def test_server_can_be_closed_during_a_stall(client: Any) -> None:
    x = simulator.serve(script=[Stall()], forget_after=1e6)
    with client(x).stream("GET", "/2/tweets/sample/stream"):
        x.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "simulator"]


def test_looped_empty_source_ends(client: Any) -> None:
    with (
        simulator.serve(source=[], loop=True, rate=None, script=[[Serve(1), Close()]]) as x,
        client(x).stream("GET", "/2/tweets/sample/stream") as response,
    ):
        assert response.read() == b""
