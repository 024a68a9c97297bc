"""Answers byte by byte: the fast paths and httpx give the same body."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import sys
import threading
import zlib
from collections.abc import Iterable, Iterator
from types import SimpleNamespace

import hpack
import httpx
import pytest
from hyperframe import frame as frames

import rxtweets
from rxtweets import events
from rxtweets.api._connection import Connection
from rxtweets.api._options import ConnectionOptions, Token
from rxtweets.api._raw_body import Wire
from tests.streams.watching import Watched, line

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
GZIPPED = HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
STREAM = 1
BODY = b"5\r\none\r\n\r\n5\r\ntwo\r\n\r\n0\r\n\r\n"


@contextlib.contextmanager
def answering(pieces: Iterable[bytes]) -> Iterator[int]:
    """A server for one request: it sends these pieces until the client closes."""
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
    """The body of a connection, and the type of its last error."""
    with answering(pieces) as port:
        options = ConnectionOptions(
            token=Token("any"),
            base_url=httpx.URL(f"http://127.0.0.1:{port}"),
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
        except rxtweets.errors.StreamError as error:
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
def test_body_is_whole_after_a_head_with_any_line_ends(head: bytes, *, fast: bool) -> None:
    got = read([head + BODY], fast=fast)
    assert got == (b"one\r\ntwo\r\n", rxtweets.errors.ConnectionEnded)


@pytest.mark.parametrize("fast", [True, False])
def test_head_with_line_feeds_is_parsed_byte_by_byte(*, fast: bool) -> None:
    answer = HEAD.replace(b"\r\n", b"\n") + BODY
    got = read([bytes([byte]) for byte in answer], fast=fast)
    assert got == (b"one\r\ntwo\r\n", rxtweets.errors.ConnectionEnded)


def head_of_http2(*headers: tuple[str, str]) -> bytes:
    head = hpack.Encoder().encode([(":status", "200"), *headers])
    flags = ["END_HEADERS"]
    return (
        frames.SettingsFrame(0).serialize()
        + frames.HeadersFrame(STREAM, bytes(head), flags=flags).serialize()
    )


def tweet(payload: bytes, *flags: str) -> bytes:
    return frames.DataFrame(STREAM, payload, flags=list(flags)).serialize()


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("length", "end"), [(6, rxtweets.errors.ConnectionEnded), (7, rxtweets.errors.ConnectionLost)]
)
def test_http2_body_is_lost_when_shorter_than_its_length(
    length: int, end: type[Exception], *, fast: bool
) -> None:
    head = head_of_http2(("content-length", str(length)))
    _, error = read([head + tweet(b"one") + tweet(b"two", "END_STREAM")], fast=fast, http2=True)
    assert error is end


@pytest.mark.parametrize("fast", [True, False])
def test_invalid_frames_end_the_connection_not_the_stream(*, fast: bool) -> None:
    arrived = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield head_of_http2() + tweet(line(1) + b"\r\n")
        arrived.wait(20)
        yield frames.PingFrame(0).serialize().replace(b"\x08", b"\x07", 1)

    with answering(pieces()) as port:
        url = f"http://127.0.0.1:{port}"
        with Watched(base_url=url, http1=False, fast_paths=fast) as w:
            w.until_messages(1)
            arrived.set()
            [end] = w.until_event(events.Disconnected)[:1]
            assert isinstance(end.error, rxtweets.errors.ConnectionLost)
            assert w.error is None


class Stream:
    """A stream of httpcore that returns these answers in turn."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        del max_bytes, timeout
        return self._answers.pop(0)

    def write(self, *_: object) -> None:
        raise AssertionError

    def get_extra_info(self, _: str) -> None:
        return None


@pytest.mark.parametrize("http2", [True, False], ids=["HTTP/2", "HTTP/1.1"])
@pytest.mark.parametrize("address", [b"\n\n\x01\x02", b"\r\n\r\n"], ids=["10.10", "13.10.13.10"])
def test_bytes_of_a_socks_proxy_are_not_a_head(address: bytes, *, http2: bool) -> None:
    says = b"\5\0", b"\5\0\0\1" + address + b"\0\x50"
    head, body = (head_of_http2(), tweet(b"one")) if http2 else (HEAD, BODY)
    wire = Wire(Stream(*says, head + body))
    assert (wire.read_head(4096), wire.read_head(4096)) == says
    assert not wire.head_complete
    assert wire.read_head(4096) == head
    assert (wire.head_complete, wire.is_http2) == (True, http2)


def test_socks_fault_ends_the_connection_not_the_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class SOCKSError(Exception):
        pass

    def send(*_: object, **__: object) -> httpx.Response:
        raise SOCKSError("Malformed reply")

    monkeypatch.setitem(sys.modules, "socksio", SimpleNamespace(SOCKSError=SOCKSError))
    monkeypatch.setattr(httpx.Client, "send", send)
    with Watched(base_url="http://127.0.0.1:1") as w:
        [end] = w.until_event(events.Disconnected)[:1]
        assert isinstance(end.error, rxtweets.errors.ConnectionLost)
        assert w.error is None


def silent_but_for(sign: bytes, quiet: threading.Event) -> Iterator[bytes]:
    """The same bytes again and again, for far longer than the stall timeout."""
    for _ in range(400):
        yield sign
        quiet.wait(0.01)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("http2", [True, False], ids=["pings", "an extension"])
def test_stall_is_detected_when_only_empty_bytes_arrive(*, http2: bool, fast: bool) -> None:
    start, sign = HEAD + b"3\r\none\r\n3;", b"x"
    if http2:
        start, sign = head_of_http2() + tweet(b"one"), frames.PingFrame(0).serialize()
    quiet = threading.Event()  # never set
    pieces = itertools.chain([start], silent_but_for(sign, quiet))
    got = read(pieces, fast=fast, http2=http2, stall_timeout=0.2)
    assert got == (b"one", rxtweets.errors.StreamStalled)


def gzipped(lines: int) -> bytes:
    deflate = zlib.compressobj(6, zlib.DEFLATED, 31)
    flushed = (
        deflate.compress(line(number) + b"\r\n") + deflate.flush(zlib.Z_SYNC_FLUSH)
        for number in range(lines)
    )
    return b"".join(flushed) + deflate.flush()


def answer_with(body: bytes, *, http2: bool, chance: random.Random) -> list[bytes]:
    """An answer with a gzip body, in frames or chunks, and reads, of any size."""
    wire = head_of_http2(("content-encoding", "gzip")) if http2 else GZIPPED
    while body:
        part, body = body[: (size := chance.randint(1, 400))], body[size:]
        wire += tweet(part) if http2 else b"%x\r\n%b\r\n" % (len(part), part)
    wire += tweet(b"", "END_STREAM") if http2 else b"0\r\n\r\n"
    size = chance.choice([len(wire), chance.randint(1, 500)])
    return [wire[at : at + size] for at in range(0, len(wire), size)]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("http2", [True, False], ids=["HTTP/2", "HTTP/1.1"])
@pytest.mark.parametrize("seed", range(8))
def test_lines_before_a_gzip_fault_are_delivered(seed: int, *, http2: bool, fast: bool) -> None:
    chance = random.Random(seed)
    wire = gzipped(60)
    place = chance.randrange(20, len(wire))
    is_cut = seed % 4 == 3
    damaged = wire[:place] if is_cut else wire[:place] + b"\xff" * 40
    expected, fault = b"", None
    member = zlib.decompressobj(31)
    try:
        for at in range(len(damaged)):
            expected += member.decompress(damaged[at : at + 1])
    except zlib.error as error:
        fault = error
    body, end = read(answer_with(damaged, http2=http2, chance=chance), fast=fast, http2=http2)
    assert body == expected
    assert body.count(b"\n") > 0
    assert end is (
        rxtweets.errors.ConnectionEnded if fault is None else rxtweets.errors.ConnectionLost
    )
