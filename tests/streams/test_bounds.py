"""Endless input of a server is bounded, and errors name the bound."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import re
import socket
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from struct import pack
from typing import Any

import httpx
import pytest

import rxtweets
from rxtweets import events
from rxtweets.api import _client as client
from rxtweets.api import _connection as connection
from rxtweets.api._gzip import PIECE, Inflater
from rxtweets.api._options import ConnectionOptions, Token
from rxtweets.api._raw_body import LONGEST_HEAD
from rxtweets.subscribers import WebhookSubscriber
from tests.api.test_connection import GZIPPED, HEAD, STREAM, head_of_http2
from tests.streams.watching import Watched, line

Pieces = Callable[[], Iterable[bytes]]

OK = b"HTTP/1.1 200 OK\r\n"
REFUSED = HEAD.replace(b"200 OK", b"403 No")
FAST = pytest.mark.parametrize("fast", [True, False], ids=["fast", "httpx"])


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def endless(first: bytes, again: bytes) -> Pieces:
    return lambda: itertools.chain([first], itertools.repeat(again))


def inflating(head: bytes, begin: bytes, again: bytes, window: int = 31) -> Pieces:
    """Return the pieces of an endless compressed body."""

    def pieces() -> Iterator[bytes]:
        deflate = zlib.compressobj(9, zlib.DEFLATED, window)
        yield head + chunk(deflate.compress(begin) + deflate.flush(zlib.Z_SYNC_FLUSH))
        while True:
            yield chunk(deflate.compress(again) + deflate.flush(zlib.Z_SYNC_FLUSH))

    return pieces


def frame(kind: int, payload: bytes = b"", stream: int = 0, flags: int = 0) -> bytes:
    return pack(">I", len(payload))[1:] + pack(">BBI", kind, flags, stream) + payload


@contextlib.contextmanager
def sending(pieces: Pieces) -> Iterator[int]:
    """Serve these pieces to each request, until the client disconnects or the test ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    clients: list[socket.socket] = []

    def answer(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while client.recv(65_536):
                for piece in pieces():
                    client.sendall(piece)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                clients.append(listener.accept()[0])
                threads.append(threading.Thread(target=answer, args=clients[-1:]))
                threads[-1].start()

    threads = [threading.Thread(target=accept)]
    threads[0].start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        threads[0].join()
        listener.close()
        for client in clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)  # it may wait for a client that reads no more
        for thread in threads:
            thread.join()


def options(port: int, **changed: Any) -> ConnectionOptions:
    settings: dict[str, Any] = {
        "token": Token("any"),
        "base_url": httpx.URL(f"http://127.0.0.1:{port}"),
        "stall_timeout": 20.0,
        "connect_timeout": 20.0,
        "http1": True,
        "http2": False,
        "compress": True,
        "verify": True,
        "proxy": None,
        "fast_paths": True,
    }
    return ConnectionOptions(**(settings | changed))


def end_of(pieces: Pieces, *, fast: bool, stall_timeout: float = 20.0) -> Exception | None:
    """Return the error that ends a connection; the server sends until the client disconnects."""
    is_http2 = next(filter(None, pieces()))[:1] == b"\0"
    with sending(pieces) as port:
        settings = options(
            port,
            http1=not is_http2,
            http2=is_http2,
            fast_paths=fast,
            stall_timeout=stall_timeout,
        )
        live = connection.Connection(settings, "/", {})
        try:
            live.open()
            for _ in live.blocks():
                pass
        except rxtweets.errors.StreamError as error:
            return error
        finally:
            live.release()
    return None


LARGE_FIELD = b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000  # 4,000 bytes, put into HPACK's table
SAID_AGAIN = b"\xbe" * 12_000  # a byte each

HEADS: dict[str, tuple[Pieces, str]] = {
    "a field": (endless(OK + b"x: ", b"a" * 4096), "more than 102400 bytes of a head"),
    "fields": (endless(OK, b"x: " + b"a" * 64 + b"\r\n"), "more than 102400 bytes of a head"),
    "a reason": (endless(b"HTTP/1.1 200 ", b"a" * 4096), "more than 102400 bytes of a head"),
    "the size of a chunk": (endless(HEAD + b"1;", b"a" * 4096), "more than 102400 bytes"),
    "CONTINUATION": (
        endless(frame(4) + frame(1, b"\x88", STREAM), frame(9, bytes(8000), STREAM)),
        "continuation frames|head of more than 102400 bytes",
    ),
    "empty CONTINUATION": (
        endless(frame(4) + frame(1, b"\x88", STREAM), frame(9, b"", STREAM)),
        "continuation frames",
    ),
    "a frame": (
        endless(frame(4) + b"\xff\xff\xff\x01\x00\x00\x00\x00\x01", b"a" * 4096),
        "head of more than 102400 bytes|16777215",
    ),
    "a field said again": (
        lambda: [frame(4) + frame(1, b"\x88" + LARGE_FIELD + SAID_AGAIN, STREAM, 4)],
        "65536",
    ),
    "a frame of the body": (
        endless(head_of_http2() + b"\xff\xff\xff\0\0\0\0\0\x01", b"a" * 4096),
        "16777215",
    ),
}


@FAST
@pytest.mark.parametrize("place", HEADS)
def test_endless_head_breaks_the_connection(place: str, *, fast: bool) -> None:
    pieces, says = HEADS[place]
    error = end_of(pieces, fast=fast)
    assert type(error) is rxtweets.errors.ConnectionLost
    assert re.search(says, str(error))


@pytest.mark.parametrize("place", ["a frame", "CONTINUATION"])
def test_buffered_frames_are_bounded_by_the_head(place: str) -> None:
    error = end_of(HEADS[place][0], fast=True)
    assert f"a head of more than {LONGEST_HEAD} bytes" in str(error)


SLOW: dict[str, tuple[Pieces, str]] = {
    "1xx": (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "no head of an answer within"),
    "SETTINGS": (endless(frame(4), frame(4)), "no head of an answer within"),
    "PING": (endless(frame(4), frame(6, bytes(8))), "no head of an answer within"),
    "empty DATA": (endless(head_of_http2(), frame(0, b"", STREAM)), "no byte of the body for"),
    "padding": (
        endless(head_of_http2(), frame(0, b"\xff" + bytes(255), STREAM, 8)),
        "no byte of the body for",
    ),
    "pings in the body": (
        endless(head_of_http2(), frame(6, bytes(8)) * 500),
        "no byte of the body for",
    ),
    "empty gzip": (inflating(GZIPPED, b"x", b""), "no byte of the body for"),
    "gzip members": (
        endless(GZIPPED, chunk(gzip.compress(b"")) * 50),
        "no byte of the body for",
    ),
}


@FAST
@pytest.mark.parametrize("place", SLOW)
def test_bytes_without_a_body_are_a_stall(place: str, *, fast: bool) -> None:
    pieces, says = SLOW[place]
    error = end_of(pieces, fast=fast, stall_timeout=1.0)  # a busy server needs some for the head
    assert type(error) is rxtweets.errors.StreamStalled
    assert says in str(error)


def ask(pieces: Pieces, **changed: Any) -> dict[str, Any]:
    with sending(pieces) as port:
        return client.Rest(options(port, **changed)).send("POST", "/2/things", {}, {})


SPACES = b" " * 65_536
DEFLATED = GZIPPED.replace(b": gzip", b": deflate")


@pytest.mark.parametrize(
    "pieces",
    [
        endless(HEAD, chunk(SPACES)),
        endless(OK + b"\r\n", SPACES),
        inflating(GZIPPED, b"[", SPACES * 16),
        inflating(DEFLATED, b"[", SPACES * 16, 15),
    ],
    ids=["chunks", "until the end", "gzip", "deflate"],
)
def test_answer_is_refused_when_too_long(pieces: Pieces) -> None:
    with pytest.raises(rxtweets.errors.ResponseError, match="longer than 16777216 bytes") as caught:
        ask(pieces)
    assert len(caught.value.body) == connection.MAX_ERROR_BODY


@pytest.mark.parametrize(
    "pieces",
    [
        endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        endless(OK + b"content-length: 999999999\r\n\r\n", b" "),
        endless(OK + b"\r\n", b" "),
        endless(frame(4), frame(4)),
        endless(frame(4), frame(6, bytes(8))),
    ],
    ids=["1xx", "byte by byte", "until the end", "SETTINGS", "PING"],
)
def test_answer_has_a_deadline(pieces: Pieces) -> None:
    http = {"http1": False, "http2": True} if next(filter(None, pieces()))[:1] == b"\0" else {}
    with pytest.raises(rxtweets.errors.ConnectionLost, match=r"no whole answer of .* within 0.6 s"):
        ask(pieces, connect_timeout=0.1, **http)


@pytest.mark.parametrize("pages", [1, 1000], ids=["bytes", "pages"])
def test_pages_are_bounded(monkeypatch: pytest.MonkeyPatch, pages: int) -> None:
    monkeypatch.setattr(client, "MOST_PAGES", 20 // pages)
    monkeypatch.setattr(client, "MOST_OF_PAGES", 100 * pages)
    tokens = itertools.count()

    def page() -> list[bytes]:
        body = b'{"data":[],"meta":{"next_token":"%d"}}' % next(tokens)
        return [OK + b"content-length: %d\r\n\r\n" % len(body) + body]

    with (
        sending(page) as port,
        pytest.raises(rxtweets.errors.ResponseError, match="pages of /2/things"),
    ):
        list(client.Rest(options(port)).pages("/2/things", {}))
    assert next(tokens) <= 21


REFUSALS: dict[str, Pieces] = {
    "chunks": endless(REFUSED, chunk(b"a" * 4096)),
    "until the end": endless(b"HTTP/1.1 403 No\r\n\r\n", b"a" * 4096),
    "gzip": inflating(GZIPPED.replace(b"200 OK", b"403 No"), b"a", b"a" * 2**20),
}


@pytest.mark.parametrize("place", REFUSALS)
def test_refusal_keeps_64_kb_of_its_body(place: str) -> None:
    for error in (end_of(REFUSALS[place], fast=True), end_of(REFUSALS[place], fast=False)):
        assert isinstance(error, rxtweets.errors.AccessError)
        assert len(error.body) == connection.MAX_ERROR_BODY
    with pytest.raises(rxtweets.errors.AccessError) as caught:
        ask(REFUSALS[place])
    assert len(caught.value.body) == connection.MAX_ERROR_BODY


@FAST
@pytest.mark.parametrize("isolated", [True, False])
def test_gzip_bomb_is_an_oversized_line(*, fast: bool, isolated: bool) -> None:
    last = zlib.compressobj(9, zlib.DEFLATED, 31)
    tail = last.compress(b"\n" + line(1) + b"\r\n") + last.flush()

    def bomb() -> Iterator[bytes]:
        deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
        body = b"".join(deflate.compress(SPACES) for _ in range(1024)) + deflate.flush()
        yield GZIPPED + chunk(body) + chunk(tail)

    with (
        sending(bomb) as port,
        Watched(
            base_url=f"http://127.0.0.1:{port}",
            http2=False,
            fast_paths=fast,
            isolated=isolated,
            max_line_mb=1,
        ) as w,
    ):
        w.until_messages(1)
        [event] = w.until_event(events.UndecodableLine)[:1]
        assert "67108865 bytes is longer than max_line (1048576)" in str(event.error)


def test_inflated_pieces_are_bounded() -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(deflate.compress(SPACES) for _ in range(512)) + deflate.flush()
    sizes = [len(piece) for piece in Inflater().pieces(bomb)]
    assert len(bomb) < 65_536 < sum(sizes) == 512 * len(SPACES)
    assert max(sizes) <= PIECE


UNREADABLE: dict[str, tuple[str, bytes, str]] = {
    "br": ("br", b"\x0b\x02\x80{}\x03", "content-encoding 'br' cannot be read"),
    "zstd": ("zstd", b"\x28\xb5\x2f\xfd", "content-encoding 'zstd' cannot be read"),
    "an unknown one": ("weird", b"{}", "content-encoding 'weird' cannot be read"),
    "two": ("gzip, gzip", b"{}", "content-encoding 'gzip, gzip' cannot be read"),
    "plain as gzip": ("gzip", b'{"data":1}\r\n', "says gzip, but the body begins b'{"),
    "gzip as plain": ("identity", gzip.compress(b"{}"), "the body begins as gzip does"),
}


@FAST
@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize("case", UNREADABLE)
def test_unreadable_encoding_is_named(case: str, *, fast: bool, isolated: bool) -> None:
    encoding, body, says = UNREADABLE[case]
    head = GZIPPED.replace(b": gzip", f": {encoding}".encode())
    with sending(lambda: [head + chunk(body) + chunk(body)]) as port:
        url = f"http://127.0.0.1:{port}"
        with Watched(base_url=url, http2=False, fast_paths=fast, isolated=isolated) as w:
            error = w.until_error()
            assert type(error) is rxtweets.errors.ResponseError
            assert says in str(error)
            assert w.stream.stats().undecodable == 0
            assert w.stream.stats().connects == 1
    with pytest.raises(rxtweets.errors.ResponseError) as caught:
        ask(lambda: [head + chunk(body) + b"0\r\n\r\n"])
    assert says in str(caught.value)


@FAST
@pytest.mark.parametrize(
    "encoding", ["", "identity", "gzip", "x-gzip", "GZIP, identity", "deflate"]
)
def test_readable_encoding_is_read(encoding: str, *, fast: bool) -> None:
    body = line(1) + b"\r\n"
    if "gzip" in encoding.lower():
        body = gzip.compress(body)
    elif encoding == "deflate":
        body = zlib.compress(body)
    head = GZIPPED.replace(b": gzip", f": {encoding}".encode())
    with (
        sending(lambda: [head + chunk(body)]) as port,
        Watched(base_url=f"http://127.0.0.1:{port}", http2=False, fast_paths=fast) as w,
    ):
        assert w.until_messages(1)[0].id == "1"


def test_webhook_answer_is_bounded() -> None:
    nothing = inflating(GZIPPED.replace(b"200 OK", b"403 No"), b"a" * 200, b"")
    for pieces in (*REFUSALS.values(), endless(REFUSED, chunk(b"a")), nothing):
        with sending(pieces) as port:
            url = f"http://127.0.0.1:{port}/hook"
            with WebhookSubscriber(url, timeout=1.0) as webhook:
                with pytest.raises(rxtweets.errors.SubscriberError) as caught:
                    webhook.on_next(rxtweets.Batch([rxtweets.Message("a")], "size", "any"))
                assert str(caught.value).endswith("answered 403: " + "a" * 200)
