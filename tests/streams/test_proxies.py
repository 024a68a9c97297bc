"""Through a proxy, plain and by CONNECT."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

import rxtweets
from rxtweets import simulator

PATIENCE = 20.0


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


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
def test_a_tunnel_through_a_proxy_carries_the_stream(
    http2: bool, is_secret: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))  # of the proxy's own
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
            compress=False,  # so that much waits to be read
        )
        with stream.subscribe(take):
            assert enough.wait(PATIENCE)
            assert stream.stats().undecodable == stream.stats().reconnects == 0
        assert x.requests[0].http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    assert asked[0].startswith(b"CONNECT 127.0.0.1:")
    assert b"secret" not in asked[0]
    assert len(set(got)) == len(got)


def test_a_proxy_that_refuses_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def refuse() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(65536)
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        stream = rxtweets.sample_stream(
            token="secret", base_url="https://stream.example", proxy=address
        )
        ends: list[rxtweets.events.Disconnected] = []
        ended = threading.Event()

        def note(event: rxtweets.events.Event) -> None:
            if isinstance(event, rxtweets.events.Disconnected):
                ends.append(event)
                ended.set()

        stream.events.subscribe(note)
        with stream.subscribe():
            assert ended.wait(PATIENCE)
        thread.join(PATIENCE)
    assert "407" in str(ends[0].error)
