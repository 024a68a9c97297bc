"""A stream over fake connections."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any, cast

import rxtweets
from rxtweets import Backoff
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.decoding import Decoder
from rxtweets.api._connection import Connection
from rxtweets.api._endpoints import ENDPOINTS
from rxtweets.errors import StreamError
from rxtweets.streams._backoff import Pacer
from rxtweets.streams._config import StreamConfig
from rxtweets.streams._reader import LiveParts
from rxtweets.streams._single import LiveStream

PATIENCE = 20.0


class ByHand:
    """A fake connection that records its calls."""

    url = "by hand"
    http_version = "HTTP/9"
    headers: Mapping[str, str] = {}

    def __init__(self, calls: list[str], number: int, may_release: threading.Event) -> None:
        self._calls = calls
        self._number = number
        self._closed = threading.Event()
        self._may_release = may_release

    def open(self) -> None:
        self._calls.append(f"open {self._number}")

    def blocks(self) -> Iterator[bytes]:
        yield b'{"data":{"id":"1","text":"x"}}\r\n'
        self._closed.wait(PATIENCE)

    def close(self, reason: StreamError | None = None) -> None:
        del reason
        self._closed.set()

    def release(self) -> None:
        assert self._may_release.wait(PATIENCE)
        self._calls.append(f"release {self._number}")


def stream_of(connect: Any) -> LiveStream:
    backoff = Backoff(scale=0.0)
    config = StreamConfig.from_options(
        ENDPOINTS["sample_stream"], {}, None, token="token", backoff=backoff
    )
    parts = LiveParts(config, lambda *_: connect(), Pacer(backoff), Decoder())
    return LiveStream(parts, Telemetry())


def test_new_run_awaits_the_release_of_the_last_connection() -> None:
    calls: list[str] = []
    may_release = threading.Event()

    def connect() -> Connection:
        return cast("Connection", ByHand(calls, len(calls), may_release))

    stream = stream_of(connect)
    first, second = threading.Event(), threading.Event()
    with stream.subscribe(lambda _: first.set()):
        assert first.wait(PATIENCE)
    with stream.subscribe(lambda _: second.set()):
        assert not second.wait(0.05)
        assert calls == ["open 0"]
        may_release.set()
        assert second.wait(PATIENCE)
    while len(calls) < 4:
        threading.Event().wait(0.01)
    assert calls == ["open 0", "release 0", "open 2", "release 2"]


def test_reader_fault_ends_the_stream() -> None:
    class Faulty(ByHand):
        def blocks(self) -> Iterator[bytes]:
            raise ZeroDivisionError("a fault of ours")

    may_release = threading.Event()
    may_release.set()
    stream = stream_of(lambda: Faulty([], 0, may_release))
    errors: list[Exception] = []
    failed = threading.Event()

    def fail(error: Exception) -> None:
        errors.append(error)
        failed.set()

    stream.subscribe(on_error=fail)
    assert failed.wait(PATIENCE)
    assert isinstance(errors[0], rxtweets.errors.StreamError)
    assert isinstance(errors[0].__cause__, ZeroDivisionError)
    assert stream.stats().state == "failed"
