"""Recorded frames arrive intact and once for every chunking, compression and protocol."""

from __future__ import annotations

import itertools
import ssl
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest
import trustme

import rxtweets
from rxtweets import operators as ops
from rxtweets import simulator
from rxtweets.streams._sources import StreamOptions

PATIENCE = 280.0

Cut = Callable[[bytes], Iterable[bytes]]


def between_line_end_bytes(frame: bytes) -> Iterable[bytes]:
    return frame[:-1], frame[-1:]


def inside_characters(frame: bytes) -> Iterable[bytes]:
    """Cut after the first byte of every multi-byte character."""
    start = 0
    for place, byte in enumerate(frame):
        if byte >= 0xC0:
            yield frame[start : place + 1]
            start = place + 1
    yield frame[start:]


def every_tenth_in_single_bytes() -> Cut:
    """Cut a tenth of the frames into bytes; HTTP/2 needs a minute for all of them."""
    numbers = itertools.count()

    def cut(frame: bytes) -> Iterable[bytes]:
        if next(numbers) % 10:
            return [frame]
        return [bytes([byte]) for byte in frame]

    return cut


HTTP1 = StreamOptions(http2=False)
HTTP2 = StreamOptions(http1=False)


def texts_of(path: Path) -> dict[str, str]:
    tweets = (orjson.loads(line)["data"] for line in path.read_bytes().splitlines())
    return {str(tweet["id"]): tweet["text"] for tweet in tweets}


def read_all(x: simulator.Simulator, count: int, **options: Any) -> list[rxtweets.Message[str]]:
    """Return the first messages behind `process` and `batch`, with unchanged text."""
    stream = rxtweets.sample_stream(
        **({"token": "any", "base_url": x.url, "overflow": "block"} | options)
    )
    got: list[rxtweets.Message[str]] = []
    enough = threading.Event()

    def collect(batch: rxtweets.Batch[str]) -> None:
        got.extend(batch)
        if len(got) >= count:
            enough.set()

    def untouched(message: rxtweets.Message[str]) -> rxtweets.Message[str]:
        return message.update_data(str)

    with stream.pipe(ops.process(untouched, concurrency=50), ops.batch(20, 0.05)).subscribe(
        collect
    ):
        assert enough.wait(PATIENCE), f"{len(got)} of {count} messages: {stream.stats()}"
    assert stream.stats().undecodable == stream.stats().dropped == 0
    return got


def assert_all_arrive(
    recorded: Path, chunking: Any, options: StreamOptions, frames: int = 1414
) -> None:
    expected = texts_of(recorded)
    with simulator.serve(rate=None, source=recorded, chunking=chunking) as x:
        got = read_all(x, len(expected), **options)
    assert len(got) == len(expected) == frames
    assert {message.id: message.data for message in got} == expected


@pytest.mark.parametrize("protocol", [HTTP1, HTTP2], ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    "chunking",
    ["frame", "read", 65_536, 1400, 509, between_line_end_bytes, inside_characters],
    ids=["frame", "16 KB", "64 KB", "1400 B", "509 B", "inside the line end", "inside UTF-8"],
)
def test_frames_arrive_once_and_intact(
    recorded: Path, protocol: StreamOptions, compress: bool, chunking: Any
) -> None:
    assert_all_arrive(recorded, chunking, protocol | StreamOptions(compress=compress))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_frames_arrive_in_tiny_chunks(recorded: Path, size: int, compress: bool) -> None:
    assert_all_arrive(recorded, size, HTTP1 | StreamOptions(compress=compress))


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_frames_arrive_in_tiny_http2_frames(recorded: Path, compress: bool) -> None:
    assert_all_arrive(
        recorded, every_tenth_in_single_bytes(), HTTP2 | StreamOptions(compress=compress)
    )


@pytest.mark.exhaustive
@pytest.mark.timeout(180)
@pytest.mark.parametrize(("size", "frames"), [(1, 200), (7, 1000)])
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_frames_arrive_in_http2_frames_of_single_bytes(
    recorded: Path, tmp_path: Path, size: int, frames: int, compress: bool
) -> None:
    first = tmp_path / "first.ndjson"
    with recorded.open("rb") as lines, first.open("wb") as kept:
        kept.writelines(itertools.islice(lines, frames))
    assert_all_arrive(first, size, HTTP2 | StreamOptions(compress=compress), frames)


@pytest.mark.parametrize("protocol", [HTTP1, StreamOptions()], ids=["HTTP/1.1", "HTTP/2 by ALPN"])
def test_frames_arrive_over_tls(recorded: Path, protocol: StreamOptions) -> None:
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    with simulator.serve(rate=None, source=recorded, tls=served) as x:
        got = read_all(x, 1414, verify=trusted, **protocol)
        assert x.requests[0].http_version == ("HTTP/1.1" if protocol else "HTTP/2")
    assert {message.id: message.data for message in got} == texts_of(recorded)


def test_frames_arrive_with_bare_line_feeds(recorded: Path) -> None:
    with simulator.serve(rate=None, source=recorded, line_end=b"\n") as x:
        got = read_all(x, 1414)
    assert {message.id: message.data for message in got} == texts_of(recorded)


def test_raw_is_the_received_line(recorded: Path) -> None:
    lines = recorded.read_bytes().splitlines()[:50]
    with simulator.serve(rate=None, source=lines) as x:
        got = read_all(x, 50)
    assert sorted(message.raw for message in got) == sorted(lines)


def test_unicode_line_separators_stay_in_the_text() -> None:
    text = "one\u2028two\u2029three\u0085four\x0bfive"
    line = '{"data":{"id":"1","text":"one\u2028two\u2029three\u0085four\\u000bfive"}}'.encode()
    with simulator.serve(rate=None, source=[line]) as x:
        assert [message.data for message in read_all(x, 1)] == [text]
