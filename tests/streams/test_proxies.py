"""Streams and requests through a proxy, plain and by CONNECT."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

import rxtweets
from rxtweets import Connections, events, simulator
from rxtweets.simulator.script import Reply
from tests.streams.watching import FAST, PATIENCE, Watched


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxy(asked: list[bytes], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A proxy that understands CONNECT, for one connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        client, _ = listener.accept()
        if tls is not None:
            client = tls.wrap_socket(client, server_side=True)
        asked.append(client.recv(65536))
        host, _, port = asked[0].split()[1].decode().partition(":")
        with client, socket.create_connection((host, int(port))) as server:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(server, client))
            back.start()
            pump(client, server)
            back.join(PATIENCE)

    thread = threading.Thread(target=serve)
    thread.start()
    with listener:
        scheme = "http" if tls is None else "https"
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(PATIENCE)


@pytest.mark.parametrize("is_secret", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_tunnel_of_a_proxy_carries_the_stream(
    http2: bool, is_secret: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv(
        "SSL_CERT_FILE", str(tmp_path / "authority.pem")
    )  # for the certificate of the proxy
    front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(front)
    asked: list[bytes] = []
    got: list[str] = []
    enough = threading.Event()

    def take(message: rxtweets.Message[str]) -> None:
        got.append(message.id)
        if len(got) >= 5_000:
            enough.set()

    with (
        simulator.serve(rate=None, tls=served) as x,
        proxy(asked, front if is_secret else None) as address,
    ):
        stream = rxtweets.sample_stream(
            token="secret",
            base_url=x.url,
            proxy=address,
            verify=trusted,
            http2=http2,
            compress=False,  # many bytes wait in the socket
        )
        with stream.subscribe(take):
            assert enough.wait(PATIENCE)
            assert stream.stats().undecodable == stream.stats().reconnects == 0
        assert x.requests[0].http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    assert asked[0].startswith(b"CONNECT 127.0.0.1:")
    assert b"secret" not in asked[0]
    assert len(set(got)) == len(got)


Pieces = Callable[[], Iterable[bytes]]
"""The parts of an answer."""


@contextlib.contextmanager
def refusing(answer: Pieces) -> Iterator[tuple[str, list[bytes]]]:
    """A proxy with this answer to every request; it waits until the client closes."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []
    threads: list[threading.Thread] = []

    def answer_to(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            asked.append(client.recv(65_536))
            for piece in answer():
                client.sendall(piece)
            while client.recv(65_536):
                pass

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threads.append(threading.Thread(target=answer_to, args=(client,)))
                threads[-1].start()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for started in (thread, *threads):
            started.join(PATIENCE)


def head(status: str, *fields: str) -> Pieces:
    lines = (f"HTTP/1.1 {status}", *fields, "content-length: 0", "", "")
    return lambda: ["\r\n".join(lines).encode()]


def nothing() -> Iterable[bytes]:
    return ()


def trickle(*start: bytes) -> Pieces:
    """An answer without an end; each byte arrives within the timeout of a read."""

    def pieces() -> Iterator[bytes]:
        for piece in start:
            yield piece
            threading.Event().wait(0.1)  # each is a separate read
        for _ in range(400):
            yield b"x"
            threading.Event().wait(0.05)

    return pieces


TUNNEL = head("200 Connection established")
UNAUTHORIZED = head("407 Proxy Authentication Required", 'Proxy-Authenticate: Basic realm="corp"')
SCHEMES = pytest.mark.parametrize("scheme", ["https", "http"], ids=["CONNECT", "plain"])
READERS = pytest.mark.parametrize("isolated", [False, True], ids=["thread", "process"])


@READERS
@SCHEMES
def test_refused_credentials_end_the_stream(scheme: str, *, isolated: bool) -> None:
    with refusing(UNAUTHORIZED) as (address, asked):
        w = Watched(
            base_url=f"{scheme}://x.example",
            proxy=f"http://me:pass-word@{address}",
            isolated=isolated,
        )
        with w:
            error = w.until_error()
        assert len(asked) == 1
    assert isinstance(error, rxtweets.errors.ProxyError)
    assert (error.proxy, error.status) == (f"http://{address}", 407)
    assert f"the proxy http://{address}" in str(error)
    assert "user name and password" in str(error)
    assert "pass-word" not in f"{error!r} {vars(error)}"


@SCHEMES
@pytest.mark.parametrize(
    "ask",
    [
        lambda options: rxtweets.Rules(**options).get(),
        lambda options: Connections(**options).list(),
    ],
    ids=["Rules", "Connections"],
)
def test_refused_credentials_end_a_request(
    ask: Callable[[dict[str, Any]], object], scheme: str
) -> None:
    with refusing(UNAUTHORIZED) as (address, asked):
        options: dict[str, Any] = {"token": "secret", "base_url": f"{scheme}://x.example"}
        with pytest.raises(
            rxtweets.errors.ProxyError, match=f"the proxy http://{address}.*password"
        ):
            ask({**options, "proxy": f"http://{address}"})
        assert len(asked) == 1


def test_407_names_a_proxy_that_was_not_configured() -> None:
    script = [Reply(407, b"", {"proxy-authenticate": "Basic"})]
    with simulator.serve(script=script) as x, Watched(x) as w:
        assert "a proxy that was not configured" in str(w.until_error())


@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden", "405 Not allowed"])
def test_rules_of_a_proxy_end_the_stream(status: str) -> None:
    with refusing(head(status)) as (address, asked):
        with Watched(base_url="https://x.example", proxy=f"http://{address}") as w:
            error = w.until_error()
        assert isinstance(error, rxtweets.errors.ProxyError)
        assert str(error).startswith(
            f"the proxy http://{address} refused to connect to x.example:443"
        )
        assert len(asked) == 1


@pytest.mark.parametrize("status", ["429 Too many", "502 Bad Gateway", "504 Timeout"])
def test_proxy_is_retried_when_it_cannot_reach_the_server(status: str) -> None:
    with (
        refusing(head(status)) as (address, _),
        Watched(base_url="https://x.example", proxy=f"http://{address}") as w,
    ):
        waits = w.until_event(events.Reconnecting, 3)[:3]
    assert [round(event.delay / FAST.scale) for event in waits] == [5, 10, 20]
    assert all(isinstance(event.error, rxtweets.errors.ProxyError) for event in waits)


def test_retry_after_of_a_proxy_is_the_least_wait() -> None:
    with (
        refusing(head("503 Busy", "Retry-After: 120")) as (address, _),
        Watched(base_url="https://x.example", proxy=f"http://{address}") as w,
    ):
        [waiting] = w.until_event(events.Reconnecting)
    assert (waiting.delay, waiting.wait_from) == (120, "Retry-After")


@pytest.mark.parametrize("sent", [b"SSH-2.0-OpenSSH_9.6\r\n\r\n", b"\x15\x03\x01\0\x02\x02\n\r\n"])
def test_proxy_is_named_when_it_does_not_speak_http(sent: bytes) -> None:
    with (
        refusing(lambda: [sent]) as (address, _),
        Watched(base_url="https://x.example", proxy=f"http://{address}") as w,
    ):
        error = w.until_event(events.Reconnecting)[0].error
    assert type(error) is rxtweets.errors.ConnectionLost
    assert f"the proxy http://{address} did not connect to x.example:443" in str(error)
    assert str(error).isprintable()


def test_proxy_is_named_when_it_is_missing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        proxy = f"http://127.0.0.1:{free.getsockname()[1]}"
    with Watched(base_url="https://x.example", proxy=proxy) as w:
        error = w.until_event(events.Reconnecting)[0].error
    assert str(error).startswith(f"cannot connect to the proxy {proxy}: ")


def test_proxy_host_is_named_when_it_has_no_address() -> None:
    with Watched(base_url="https://x.example", proxy="http://no-such-proxy.invalid") as w:
        error = w.until_error()
    assert isinstance(error, rxtweets.errors.HostNotFound)
    assert "'no-such-proxy.invalid'" in str(error)
    assert "Check proxy" in str(error)


def test_proxy_is_named_when_its_certificate_is_refused() -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1")
    with (
        certificate.private_key_and_cert_chain_pem.tempfile() as pem,
        simulator.serve(tls=(pem, pem)) as front,
        Watched(base_url="https://x.example", proxy=front.url) as w,
    ):
        error = w.until_error()
        assert isinstance(error, rxtweets.errors.TLSError)
        assert f"the certificate of the proxy {front.url} was refused" in str(error)


def test_proxy_is_named_when_it_does_not_speak_tls() -> None:
    with simulator.serve() as front:
        address = front.url.replace("http:", "https:")
        with Watched(base_url="https://x.example", proxy=address) as w:
            error = w.until_error()
        assert isinstance(error, rxtweets.errors.TLSError)
        assert "use http:// in proxy" in str(error)


def test_plain_http_answer_names_the_proxy() -> None:
    with refusing(head("403 Forbidden")) as (address, _):
        options: dict[str, Any] = {
            "token": "secret",
            "base_url": "http://x.example",
            "proxy": f"http://{address}",
        }
        with Watched(**options) as w:
            error = w.until_error()
        with pytest.raises(
            rxtweets.errors.AccessError, match=f"The proxy http://{address} may have"
        ):
            rxtweets.Rules(**options).get()
    assert isinstance(error, rxtweets.errors.AccessError)
    assert f"The proxy http://{address} may have answered" in str(error)


# The time limit of connecting.

SLOW = pytest.mark.parametrize(
    ("answer", "missing"),
    [
        (nothing, "did not answer CONNECT"),
        (trickle(b"HTTP/1.1 200 OK\r\nx: "), "did not answer CONNECT"),
        (TUNNEL, "did not finish the TLS handshake"),
        (
            trickle(b"HTTP/1.1 200 OK\r\n\r\n", b"\x16\x03\x03\x40\x00"),
            "did not finish the TLS handshake",
        ),
    ],
    ids=["silent", "trickling", "silent in TLS", "trickling in TLS"],
)


@READERS
@SLOW
def test_connect_timeout_bounds_the_way_through_a_proxy(
    answer: Pieces, missing: str, *, isolated: bool
) -> None:
    with refusing(answer) as (address, _):
        w = Watched(
            base_url="https://x.example",
            proxy=f"http://{address}",
            connect_timeout=0.5,
            isolated=isolated,
        )
        with w:
            error = w.until_event(events.Reconnecting)[0].error
    assert type(error) is rxtweets.errors.ConnectionLost
    assert "x.example:443" in str(error)
    assert f"(through the proxy http://{address}) within connect_timeout (0.5 s)" in str(error)
    assert missing in str(error)


@SLOW
@pytest.mark.parametrize(
    "ask",
    [
        lambda options: rxtweets.Rules(**options).add("cat"),
        lambda options: Connections(**options).free_all(),
    ],
    ids=["Rules", "Connections"],
)
def test_connect_timeout_bounds_a_request_through_a_proxy(
    ask: Callable[[dict[str, Any]], object], answer: Pieces, missing: str
) -> None:
    with refusing(answer) as (address, _):
        options: dict[str, Any] = {
            "token": "secret",
            "base_url": "https://x.example",
            "connect_timeout": 0.5,
        }
        with pytest.raises(rxtweets.errors.ConnectionLost, match=missing):
            ask({**options, "proxy": f"http://{address}"})


def test_connect_timeout_does_not_bound_the_stream() -> None:
    with simulator.serve(rate=100) as x, Watched(x, connect_timeout=1.0) as w:
        w.until_messages(150)
        assert w.of(events.Disconnected) == []


def test_stop_ends_a_hanging_handshake() -> None:
    with refusing(TUNNEL) as (address, asked):
        w = Watched(base_url="https://x.example", proxy=f"http://{address}", connect_timeout=3600)
        with w:
            w.until(lambda: asked)
        [reader] = [thread for thread in threading.enumerate() if thread.name == "rxtweets-reader"]
        reader.join(PATIENCE)
        assert not reader.is_alive()


# Addresses of IPv6.


@READERS
def test_tunnel_to_an_ipv6_address_has_brackets(*, isolated: bool) -> None:
    with refusing(head("502 Bad Gateway")) as (address, asked):
        w = Watched(base_url="https://[::1]:9", proxy=f"http://{address}", isolated=isolated)
        with w:
            error = w.until_event(events.Reconnecting)[0].error
        line, *fields = asked[0].decode().split("\r\n")
    assert line == "CONNECT [::1]:9 HTTP/1.1"
    assert "host: [::1]:9" in [field.lower() for field in fields]
    assert "refused to connect to [::1]:9" in str(error)


def test_plain_request_to_an_ipv6_address_has_brackets() -> None:
    with refusing(head("200 OK", "content-type: application/json")) as (address, asked):
        options: dict[str, Any] = {
            "token": "secret",
            "base_url": "http://[::1]:9/v6::1",
            "proxy": f"http://{address}",
        }
        with pytest.raises(rxtweets.errors.ResponseError):
            rxtweets.Rules(**options).get()
        line, *fields = asked[0].decode().split("\r\n")
    assert line.startswith("GET http://[::1]:9/v6::1/2/tweets/search/stream/rules?")
    assert "host: [::1]:9" in [field.lower() for field in fields]


@pytest.mark.parametrize(
    ("said", "final"),
    [
        ("Invalid username/password", True),
        ("Requested USERNAME/PASSWORD from proxy server, but got NO ACCEPTABLE METHODS.", True),
        ("Proxy Server could not connect: Connection not allowed by ruleset.", True),
        ("Proxy Server could not connect: Host unreachable.", False),
        ("Proxy Server could not connect: TTL expired.", False),
    ],
)
def test_refusal_of_a_socks_proxy_is_final_or_not(
    monkeypatch: pytest.MonkeyPatch, said: str, *, final: bool
) -> None:
    def send(*_: object, **__: object) -> httpx.Response:
        raise httpx.ProxyError(said)

    monkeypatch.setattr("rxtweets.api._proxies.find_spec", lambda _: True)
    monkeypatch.setattr("rxtweets.api._connection._client", lambda *_: httpx.Client())
    monkeypatch.setattr(httpx.Client, "send", send)
    with Watched(base_url="https://x.example", proxy="socks5://me:pass-word@127.0.0.1:9") as w:
        error = w.until_event(events.Disconnected)[0].error
    assert isinstance(error, rxtweets.errors.ProxyError)
    assert error.retryable is not final
    assert (error.proxy, error.status) == ("socks5://127.0.0.1:9", 0)
    assert said.rstrip(".") in str(error)
