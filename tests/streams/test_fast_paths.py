"""Fast paths from socket to message give the same results, and can be switched off."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

import h2.connection
import httpx
import pytest
import trustme

import rxtweets
from rxtweets import events, simulator
from rxtweets.simulator.script import Close, Fin, GoAway, Line, Part, ResetStream, Serve, Stall
from tests.streams.watching import Watched, line


@pytest.fixture(scope="module")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    return served, trusted


@pytest.fixture
def frames_of_h2(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the data that clients have passed to h2."""
    given: list[int] = []
    original = h2.connection.H2Connection.receive_data

    def receive(self: h2.connection.H2Connection, data: bytes) -> Any:
        if self.config.client_side:
            given.append(len(data))
        return original(self, data)

    monkeypatch.setattr(h2.connection.H2Connection, "receive_data", receive)
    return given


@pytest.mark.parametrize("fast", [True, False])
def test_http2_body_passes_h2_only_without_fast_paths(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], frames_of_h2: list[int], *, fast: bool
) -> None:
    served, trusted = tls
    with (
        simulator.serve(rate=None, tls=served) as x,
        Watched(x, verify=trusted, fast_paths=fast) as w,
    ):
        w.until_messages(200)
        assert w.of(events.Connected)[0].http_version == "HTTP/2"
    assert (sum(frames_of_h2) > 5_000) is not fast


@pytest.mark.parametrize("fast", [True, False])
def test_http1_body_passes_httpx_only_without_fast_paths(
    monkeypatch: pytest.MonkeyPatch, *, fast: bool
) -> None:
    read: list[int] = []
    original = httpx.Response.iter_raw

    def iter_raw(self: httpx.Response, chunk_size: int | None = None) -> Iterator[bytes]:
        read.append(1)
        return original(self, chunk_size)

    monkeypatch.setattr(httpx.Response, "iter_raw", iter_raw)
    with simulator.serve(rate=None) as x, Watched(x, http2=False, fast_paths=fast) as w:
        w.until_messages(200)
    assert bool(read) is not fast


@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize("fast", [True, False])
def test_other_fields_are_not_decoded_with_fast_paths(*, fast: bool, isolated: bool) -> None:
    refused_by_orjson = b'{"data":{"id":"7","text":"hello","x":1e400}}'
    # No lines follow, since a flood could push these out of the buffer.
    script = [[Line(refused_by_orjson), Serve(1), Line(refused_by_orjson), Serve(1), Stall()]]
    with (
        simulator.serve(rate=None, script=script) as x,
        Watched(x, fast_paths=fast, isolated=isolated) as w,
    ):
        w.until_messages(4 if fast else 2)
    assert len(w.of(events.UndecodableLine)) == (0 if fast else 2)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("http", [{"http2": False}, {"http1": False}], ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (Close(), rxtweets.errors.ConnectionEnded),
        (Fin(), rxtweets.errors.ConnectionLost),
        (GoAway(2), rxtweets.errors.ConnectionLost),
        (ResetStream(8), rxtweets.errors.ConnectionLost),
    ],
    ids=["close", "fin", "goaway", "reset"],
)
def test_connection_ends_with_the_same_error(
    step: Any, kind: type[rxtweets.errors.StreamError], http: dict[str, Any], *, fast: bool
) -> None:
    script: list[Part] = [[Line(line(1)), Line(line(2)), step]]
    with simulator.serve(script=script, rate=None) as x, Watched(x, fast_paths=fast, **http) as w:
        got = w.until_messages(2)
        [end] = w.until_event(events.Disconnected)[:1]
        assert type(end.error) is kind
        assert [message.id for message in got[:2]] == ["1", "2"]


def test_error_of_a_reset_has_its_code(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    script: list[Part] = [[Serve(1), ResetStream(8)]]
    served, trusted = tls
    with (
        simulator.serve(script=script, rate=None, tls=served) as x,
        Watched(x, verify=trusted) as w,
    ):
        [end] = w.until_event(events.Disconnected)[:1]
        assert "CANCEL (8)" in str(end.error)
