"""Answers byte by byte: the short ways and httpx make the same of them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable, Iterator

import pytest

import rxtweets
from rxtweets.connection import Connection, ConnectionOptions
from rxtweets.credentials import Token

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
BODY = b"5\r\none\r\n\r\n5\r\ntwo\r\n\r\n0\r\n\r\n"


@contextlib.contextmanager
def answering(pieces: Iterable[bytes]) -> Iterator[int]:
    """A server for one request, that sends these pieces and waits for the client to leave."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        client, _ = listener.accept()
        with client, contextlib.suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.recv(65_536)
            for piece in pieces:
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65_536):
                pass

    thread = threading.Thread(target=answer)
    thread.start()
    with listener:
        yield listener.getsockname()[1]
        thread.join()


def read(
    pieces: Iterable[bytes], *, fast: bool, http2: bool = False, stall_timeout: float = 20.0
) -> tuple[bytes, type[Exception] | None]:
    """The body that a connection gives, and how it ends."""
    with answering(pieces) as port:
        options = ConnectionOptions(
            token=Token("any"),
            base_url=f"http://127.0.0.1:{port}",
            stall_timeout=stall_timeout,
            connect_timeout=20.0,
            http1=not http2,
            http2=http2,
            compress=False,
            verify=True,
            proxy=None,
            fast_paths=fast,
        )
        connection = Connection(options, "/", {})
        body = b""
        try:
            connection.open()
            for block in connection.blocks():
                body += block
        except rxtweets.StreamError as error:
            return body, type(error)
        finally:
            connection.release()
    return body, None


@pytest.mark.parametrize(
    "head",
    [HEAD, HEAD.replace(b"\r\n", b"\n"), HEAD[:-2] + b"\n", HEAD[:-4] + b"\n\r\n"],
    ids=["\\r\\n", "\\n", "\\n at the end", "\\n before the end"],
)
@pytest.mark.parametrize("fast", [True, False])
def test_a_body_that_came_with_its_head_is_whole_however_the_head_ends_its_lines(
    head: bytes, *, fast: bool
) -> None:
    got = read([head + BODY], fast=fast)
    assert got == (b"one\r\ntwo\r\n", rxtweets.ConnectionEnded)


@pytest.mark.parametrize("fast", [True, False])
def test_a_head_with_line_feeds_alone_may_be_cut_anywhere(*, fast: bool) -> None:
    answer = HEAD.replace(b"\r\n", b"\n") + BODY
    got = read([bytes([byte]) for byte in answer], fast=fast)
    assert got == (b"one\r\ntwo\r\n", rxtweets.ConnectionEnded)
