"""Faults of servers and networks, and the reactions of the stream."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest
import tenacity
import trustme

import rxtweets
from rxtweets import Backoff, events, simulator
from rxtweets.simulator.script import (
    Abort,
    Close,
    Disconnect,
    KeepAlive,
    Line,
    Part,
    Raw,
    Reply,
    Serve,
    Stall,
    forbidden,
    no_rules,
    provisioning,
    rate_limited,
    too_many_connections,
    unauthorized,
    unavailable,
    usage_capped,
)
from tests.streams.watching import FAST, PATIENCE, Watched, line

if TYPE_CHECKING:
    from tests.conftest import Stub


def delays(script: Sequence[Part], count: int, backoff: Backoff = FAST) -> list[float]:
    """Return the first waits of a stream against this script, in seconds without scale."""
    with (
        simulator.serve(script=script, rate=None, connects=1000) as x,
        Watched(x, backoff=backoff) as w,
    ):
        reconnecting = w.until_event(events.Reconnecting, count)[:count]
    return [round(event.delay / backoff.scale, 2) for event in reconnecting]


@pytest.mark.parametrize("ending", ["closed", "silent"])
def test_refusal_counts_when_its_body_never_ends(ending: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with Watched(base_url=f"http://127.0.0.1:{port}", stall_timeout=0.3) as w:
            client, _ = server.accept()
            with client:
                client.recv(65_536)
                client.sendall(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 99\r\n\r\n{")
                if ending == "closed":
                    client.close()
                [reconnecting] = w.until_event(events.Reconnecting)[:1]
    assert isinstance(reconnecting.error, rxtweets.errors.RateLimitError)


# Ends of a connection.


def test_short_connections_follow_the_schedule() -> None:
    waits = delays([[Serve(2), Close()]] * 7, 6)
    assert waits == [0, 0.25, 0.5, 0.75, 1.0, 1.25]


def test_answer_of_200_alone_proves_nothing() -> None:
    assert delays([Close()] * 5, 4) == [0, 0.25, 0.5, 0.75]


def test_schedule_resets_after_a_proven_connection() -> None:
    long = [Serve(1), Stall(0.2), Serve(1), Close()]
    quick = Backoff(scale=0.001, proved_after=50.0)
    waits = delays([Close(), Close(), long, Close()], 4, backoff=quick)
    assert waits == [0, 0.25, 0, 0.25]


def test_schedule_continues_after_a_silent_connection() -> None:
    silent = [Stall(0.2), Close()]
    quick = Backoff(scale=0.001, proved_after=50.0)
    assert delays([silent] * 4, 3, backoff=quick) == [0, 0.25, 0.5]


@pytest.mark.parametrize("http", [{"http2": False}, {"http1": False}], ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_cut_off_tweet_is_counted_and_shown(http: dict[str, Any], compress: bool) -> None:
    script = [[Serve(3), Stall(0.2), Abort(mid_frame=True)]]
    with (
        simulator.serve(script=script, rate=None) as x,
        Watched(x, compress=compress, **http) as w,
    ):
        w.until_messages(20)
        [lost] = w.until_event(events.UndecodableLine)[:1]
        assert "cut" in str(lost.error)
        assert lost.error.line.startswith(b'{"data":{')
        assert w.stream.stats().undecodable == 1


def test_last_line_without_line_end_is_a_tweet() -> None:
    with (
        simulator.serve(script=[[Raw(line(7)), Close()]], rate=0) as x,
        Watched(x) as w,
    ):
        assert w.until_messages(1)[0].id == "7"


def test_refused_connection_follows_the_network_schedule() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Watched(base_url=f"http://127.0.0.1:{port}") as w:
        waits = [event.delay for event in w.until_event(events.Reconnecting, 4)[:4]]
    assert [round(wait / FAST.scale, 2) for wait in waits] == [0.25, 0.5, 0.75, 1.0]


def test_slow_subscriber_is_no_stall() -> None:
    slow, enough = threading.Event(), threading.Event()
    got: list[str] = []

    def take(message: rxtweets.Message[str]) -> None:
        got.append(message.id)
        if len(got) == 1:
            slow.wait(0.4)  # four times the stall timeout; never set
        if len(got) == 10_000:  # messages from before the pause are delivered
            enough.set()

    with simulator.serve(rate=None) as x:
        stream = rxtweets.sample_stream(
            token="any", base_url=x.url, stall_timeout=0.1, overflow="block", buffer_size=1
        )
        with stream.subscribe(take):
            assert enough.wait(PATIENCE)
        assert stream.stats().stalls == 0


def test_silence_ends_the_connection() -> None:
    with (
        simulator.serve(script=[[Serve(2), Stall()]], rate=None) as x,
        Watched(x, stall_timeout=0.2) as w,
    ):
        [end] = w.until_event(events.Disconnected)[:1]
        assert isinstance(end.error, rxtweets.errors.StreamStalled)
        w.until_messages(10)


def test_silence_before_the_answer_is_a_stall() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with Watched(base_url=url, stall_timeout=0.2) as w:
            [end] = w.until_event(events.Disconnected)[:1]
            assert isinstance(end.error, rxtweets.errors.StreamStalled)


def test_keep_alives_prevent_a_stall() -> None:
    with (
        simulator.serve(script=[[Serve(1)]], rate=0, keep_alive=0.05) as x,
        Watched(x, stall_timeout=1.0) as w,
    ):
        w.until(lambda: w.stream.stats().keep_alives >= 30)
        assert w.of(events.Disconnected) == []


# Announced disconnects and other messages of the stream.


@pytest.mark.parametrize(
    "kind", ["OperationalDisconnect", "UpstreamOperationalDisconnect", "SlowReader"]
)
def test_announced_disconnect_leads_to_a_reconnect(kind: str) -> None:
    with (
        simulator.serve(script=[[Serve(2), Disconnect(kind), Stall()]], rate=None) as x,
        Watched(x) as w,
    ):
        w.until_messages(10)
        [announced] = w.until_event(events.DisconnectAnnounced)[:1]
        [end] = w.until_event(events.Disconnected)[:1]
        assert announced.disconnect_type == kind
        assert isinstance(end.error, rxtweets.errors.ServerDisconnect)
        assert w.stream.stats().disconnects == 1


def test_broken_line_is_reported_with_its_bytes() -> None:
    script = [[Serve(1), Line(b'{"data":{"id":"5","text":"unfini'), Serve(5), Stall()]]
    with simulator.serve(script=script, rate=None) as x, Watched(x) as w:
        w.until_messages(6)
        [bad] = w.until_event(events.UndecodableLine)
        assert bad.error.line == b'{"data":{"id":"5","text":"unfini\r'
        assert w.of(events.Disconnected) == []


@pytest.mark.parametrize(
    ("sent", "counter"),
    [
        (b'{"data":{"id":"5","text":"a\xff"}}', "undecodable"),
        (b'{"data":{"id":"5","text":"a\x00"}}', "undecodable"),
        (b"null", "unknown"),
        (b"[1,2]", "unknown"),
        (b"17", "unknown"),
        (b'{"type":"connection_metadata","datacenter":"atla"}', "unknown"),
        (b'{"data":{"delete":{"tweet":{"id":"1"}}}}', "unknown"),
        (b'{"errors":[{"title":"Something else"}]}', "unknown"),
        (b"", "keep_alives"),
        (b'{"data":{"id":9,"text":"numeric id"}}', "delivered"),
        (b'{"data":{"id":"9","id":"8","text":"a","text":"b"}}', "delivered"),
        (b'{"data":{"id":"1","text":"x"},"matching_rules":[{"id":1,"tag":null}]}', "delivered"),
        (b'{"data":{"id":"1","text":"x"},"errors":[{"title":"Not Found Error"}]}', "delivered"),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value[:40]),
)
def test_odd_line_is_counted_by_its_kind(sent: bytes, counter: str) -> None:
    script = [[Line(line(1)), Line(sent), Line(line(2)), Stall()]]
    with simulator.serve(script=script) as x, Watched(x) as w:
        w.until(lambda: w.messages and w.messages[-1].id == "2")
        stats = w.stream.stats()
    expected = {"delivered": 2, "received": 3}
    expected[counter] = expected.get(counter, 0) + 1
    shown = {name: count for name, count in stats.as_dict().items() if name in COUNTERS and count}
    assert shown == expected


COUNTERS = ("received", "delivered", "undecodable", "unknown", "keep_alives", "disconnects")


def test_line_of_three_megabytes_is_a_tweet() -> None:
    text = "ß" * 1_500_000
    script = [[Line(line(1, text)), Line(line(2)), Stall()]]
    with simulator.serve(script=script, chunking="read") as x, Watched(x) as w:
        assert w.until_messages(2)[0].data == text


def test_oversized_line_is_reported() -> None:
    long = line(1, "x" * 3_000_000)
    script = [[Line(long), Line(line(2)), Stall()]]
    with simulator.serve(script=script) as x, Watched(x, max_line_mb=1) as w:
        assert w.until_messages(1)[0].id == "2"
        [bad] = w.until_event(events.UndecodableLine)
        assert f"{len(long) + 2} bytes" in str(bad.error)
        assert len(bad.error.line) == 256
        assert w.stream.stats().undecodable == 1


@pytest.mark.parametrize("isolated", [False, True], ids=["thread", "process"])
def test_oversized_line_is_reported_when_cut_off(*, isolated: bool) -> None:
    begun = line(1) + b" " * 2_000_000
    script: list[Part] = [[Raw(begun), Close()], [Stall()]]
    with simulator.serve(script=script) as x, Watched(x, max_line_mb=1, isolated=isolated) as w:
        [bad] = w.until_event(events.UndecodableLine)
        assert f"{len(begun)} bytes" in str(bad.error)
        w.until_event(events.Connected, 2)
        stats = w.stream.stats()
        assert (stats.received, stats.undecodable, stats.bytes) == (1, 1, len(begun))
        assert w.messages == []


@pytest.mark.parametrize("isolated", [False, True])
def test_line_is_not_undecodable_when_a_stop_cuts_it(isolated: bool) -> None:
    script: list[Part] = [[Raw(line(1) + b"\r\n" + line(2)[:-9]), Stall()]]
    with simulator.serve(script=script, rate=None) as x, Watched(x, isolated=isolated) as w:
        w.until_messages(1)
        w.stream.stop()
        w.until_completed()
        stats = w.stream.stats()
        assert (stats.received, stats.delivered, stats.undecodable) == (1, 1, 0)


def test_keep_alive_is_control() -> None:
    script = [[KeepAlive(), KeepAlive(), Line(line(1)), Stall()]]
    with simulator.serve(script=script) as x, Watched(x) as w:
        w.until_messages(1)
        assert w.stream.stats().keep_alives == w.stream.stats().control == 2


# Answers that are no stream.


@pytest.mark.parametrize(
    ("reply", "kind", "advice"),
    [
        (unauthorized(), rxtweets.errors.AuthenticationError, "X_BEARER_TOKEN"),
        (forbidden(), rxtweets.errors.AccessError, "developer portal"),
        (no_rules(), rxtweets.errors.RulesError, "Add a rule"),
        (usage_capped(), rxtweets.errors.UsageCapError, "next period"),
        (Reply(400, {"title": "Invalid Request"}), rxtweets.errors.ResponseError, "options"),
        (Reply(418, b"short and stout"), rxtweets.errors.ResponseError, "short and stout"),
        (Reply(204), rxtweets.errors.UnexpectedAnswerError, "204: No Content"),
        (Reply(206, b"x"), rxtweets.errors.UnexpectedAnswerError, "206: x"),
        (Reply(304), rxtweets.errors.UnexpectedAnswerError, "without a target"),
        (Reply(301, b"", {"location": "/x"}), rxtweets.errors.UnexpectedAnswerError, "base_url"),
        (
            Reply(302, b"", {"location": "https://y.example/?z"}),
            rxtweets.errors.UnexpectedAnswerError,
            "A redirect to https://y.example. ",
        ),
        (
            Reply(200, b"<html>", {"content-type": "text/html"}),
            rxtweets.errors.UnexpectedAnswerError,
            "login page of this network",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize("http", [{"http2": False}, {"http1": False}], ids=["HTTP/1.1", "HTTP/2"])
def test_final_answer_ends_the_stream(
    reply: Reply, kind: type[rxtweets.errors.ResponseError], advice: str, http: dict[str, Any]
) -> None:
    with simulator.serve(script=[reply]) as x, Watched(x, **http) as w:
        error = w.until_error()
        assert type(error) is kind
        assert error.status == reply.status
        assert advice in str(error)
        assert len(x.requests) == 1


@pytest.mark.parametrize(
    ("reply", "schedule"),
    [
        (unavailable(), [5, 10, 20, 40]),
        (unavailable(502), [5, 10, 20, 40]),
        (too_many_connections(), [5, 10, 20, 40]),
        (provisioning(), [60, 60, 60, 60]),
    ],
    ids=["503", "502", "TooManyConnections", "ProvisioningSubscription"],
)
def test_temporary_answer_follows_its_schedule(reply: Reply, schedule: list[float]) -> None:
    assert delays([reply] * 5, 4, backoff=Backoff(scale=0.0001)) == schedule


PAGE = Reply(200, b"<html>\n<body>\nLog in\n", {"content-type": "text/html"})
REFUSALS = {
    "a page with a type": PAGE,
    "a redirect": Reply(302, b"", {"location": "https://login.example/"}),
    "204": Reply(204),
}
BODIES = {
    "a page without a type": Reply(200, b"<html>\n<body>\nLog in", {"content-type": ""}),
    "a line without its end": Reply(200, b"<html>"),
    "plain text": Reply(200, b"upstream connect error\r\n", {"content-type": "text/plain"}),
    "a problem": Reply(200, {"errors": [{"message": "bad partition"}], "title": "Invalid Request"}),
    "lines of a problem": Reply(200, b'{\n  "errors": [\n{"message":"bad partition"}\n]\n}\n'),
}


@pytest.mark.parametrize("isolated", [False, True], ids=["thread", "process"])
@pytest.mark.parametrize("reply", REFUSALS.values(), ids=REFUSALS)
def test_unexpected_answer_ends_the_stream_at_first(reply: Reply, *, isolated: bool) -> None:
    with simulator.serve(script=[reply] * 3) as x, Watched(x, isolated=isolated) as w:
        error = w.until_error()
        assert type(error) is rxtweets.errors.UnexpectedAnswerError
        assert error.status == reply.status
        assert len(x.requests) == 1
        assert w.messages == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a page without a type", "200: <html> <body>. This came in place of a stream"),
        ("a line without its end", "200: <html>"),
        ("plain text", "200: upstream connect error (text/plain)"),
        ("a problem", "200: Invalid Request: bad partition. "),
        ("lines of a problem", "200: bad partition. "),
    ],
)
@pytest.mark.parametrize("isolated", [False, True], ids=["thread", "process"])
def test_unexpected_body_is_shown_and_retried(name: str, said: str, *, isolated: bool) -> None:
    script = [BODIES[name]] * 2
    with simulator.serve(script=script, rate=None) as x, Watched(x, isolated=isolated) as w:
        waits = w.until_event(events.Reconnecting, 2)[:2]
        w.until_messages(1)
    assert [round(wait.delay / FAST.scale) for wait in waits] == [5, 10]
    assert all(str(wait.error).startswith(said) for wait in waits)


@pytest.mark.parametrize("reply", (REFUSALS | BODIES).values(), ids=REFUSALS | BODIES)
def test_unexpected_answer_is_retried_after_a_connection(reply: Reply) -> None:
    script: list[Part] = [[Serve(2), Close()], reply, reply]
    with simulator.serve(script=script, rate=None) as x, Watched(x) as w:
        _, first, second = w.until_event(events.Reconnecting, 3)[:3]
        w.until_messages(10)
        for waiting in (first, second):
            assert type(waiting.error) is rxtweets.errors.UnexpectedAnswerError
        assert [round(wait.delay / FAST.scale) for wait in (first, second)] == [5, 10]


def test_replay_does_not_complete_on_a_web_page() -> None:
    page = Reply(200, b"<html>Log in</html>\n", {"content-type": "text/plain"})
    yesterday = datetime.now(UTC) - timedelta(hours=3)
    with (
        simulator.serve(script=[page], live=True) as x,
        Watched(
            x,
            rxtweets.sample10_stream,
            partition=1,
            start_time=yesterday,
            end_time=yesterday + timedelta(minutes=1),
        ) as w,
    ):
        [waiting] = w.until_event(events.Reconnecting)[:1]
        assert isinstance(waiting.error, rxtweets.errors.UnexpectedAnswerError)
        assert not w.is_completed


@pytest.mark.parametrize("first", [b'{"type":"connection_metadata"}', b'{"data":{"id":"1"}}'])
def test_unknown_message_begins_a_stream(first: bytes) -> None:
    script: list[Part] = [[Line(first), Close()], [Stall()]]
    with simulator.serve(script=script) as x, Watched(x) as w:
        w.until_event(events.Connected, 2)
        assert type(w.of(events.Reconnecting)[0].error) is rxtweets.errors.ConnectionEnded


def test_broken_first_line_is_a_stream_when_tweets_follow() -> None:
    script: list[Part] = [[Line(b"half a tweet"), Serve(1), Close()], [Stall()]]
    with simulator.serve(script=script) as x, Watched(x) as w:
        w.until_event(events.Connected, 2)
        assert type(w.of(events.Reconnecting)[0].error) is rxtweets.errors.ConnectionEnded


def test_half_a_tweet_and_a_reset_are_a_lost_connection() -> None:
    script: list[Part] = [[Stall(0.1), Abort(mid_frame=True)], [Stall()]]
    with simulator.serve(script=script) as x, Watched(x) as w:
        w.until_event(events.Connected, 2)
        assert type(w.of(events.Reconnecting)[0].error) is rxtweets.errors.ConnectionLost


def test_switching_protocols_ends_the_stream() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with Watched(base_url=f"http://127.0.0.1:{port}") as w:
            client, _ = server.accept()
            with client:
                client.recv(65_536)
                client.sendall(b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
                error = w.until_error()
    assert isinstance(error, rxtweets.errors.UnexpectedAnswerError)
    assert str(error).startswith("101: Switching Protocols")


def test_early_hints_are_skipped() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with Watched(base_url=f"http://127.0.0.1:{port}") as w:
            client, _ = server.accept()
            with client:
                client.recv(65_536)
                client.sendall(
                    b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
                )
                client.sendall(line(1) + b"\r\n")
                assert w.until_messages(1)[0].id == "1"


def test_plain_text_503_is_a_server_error() -> None:
    text = b"upstream connect error or disconnect/reset before headers"
    with simulator.serve(script=[Reply(503, text)], rate=None) as x, Watched(x) as w:
        w.until_messages(1)
        [end] = w.of(events.Disconnected)
        assert isinstance(end.error, rxtweets.errors.ServerError)
        assert "upstream connect error" in str(end.error)


def test_rate_limit_waits_for_its_reset() -> None:
    with simulator.serve(script=[rate_limited(reset=0), rate_limited()]) as x, Watched(x) as w:
        first, second = w.until_event(events.Reconnecting, 2)
        assert first.delay == pytest.approx(0.06)
        assert isinstance(second.error, rxtweets.errors.RateLimitError)
        assert 800 < second.delay <= 901


@pytest.mark.parametrize("isolated", [False, True], ids=["thread", "process"])
def test_retry_after_is_the_shortest_wait(*, isolated: bool) -> None:
    script = [unavailable(retry_after=120)]
    with simulator.serve(script=script) as x, Watched(x, isolated=isolated) as w:
        [waiting] = w.until_event(events.Reconnecting)
        assert (waiting.delay, waiting.wait_from) == (120, "Retry-After")
        assert "Retry-After: '120'" in str(waiting.error)


def test_retry_after_can_be_a_date() -> None:
    script = [rate_limited(reset=0, retry_after=formatdate(time.time() + 300, usegmt=True))]
    with simulator.serve(script=script) as x, Watched(x) as w:
        [waiting] = w.until_event(events.Reconnecting)
        assert 290 < waiting.delay <= 300
        assert waiting.wait_from == "Retry-After"


def test_rules_wait_for_retry_after(stub: Stub) -> None:
    stub.answers((503, b"no", {"retry-after": "120"}))
    with Watched(base_url=stub.url, source=rxtweets.filtered_stream, rules=["cat"]) as w:
        [waiting] = w.until_event(events.Reconnecting)
        assert (waiting.delay, waiting.wait_from) == (120, "Retry-After")
        assert len(stub.asked) == 1


def test_stop_strategy_ends_the_stream() -> None:
    twice = Backoff(scale=0.001, stop=tenacity.stop_after_attempt(2))
    with simulator.serve(script=[unavailable()] * 9) as x, Watched(x, backoff=twice) as w:
        assert isinstance(w.until_error(), rxtweets.errors.ServerError)
        assert len(x.requests) == 2


def test_connect_budget_follows_the_headers() -> None:
    script: list[Part] = [Close()] * 20
    with simulator.serve(script=script, connects=4) as x, Watched(x) as w:
        waits = [event.delay for event in w.until_event(events.Reconnecting, 4)]
        assert max(waits[:3]) < 1
        assert waits[3] > 800
        assert [request.status for request in x.requests] == [200] * 4


# Final errors.


def test_missing_host_ends_the_stream() -> None:
    with Watched(base_url="http://no-such-host.invalid") as w:
        error = w.until_error()
        assert isinstance(error, rxtweets.errors.HostNotFound)
        assert "no-such-host.invalid" in str(error)


def test_unknown_certificate_authority_ends_the_stream() -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1")
    with (
        certificate.private_key_and_cert_chain_pem.tempfile() as pem,
        simulator.serve(tls=(pem, pem)) as x,
        Watched(x) as w,
    ):
        error = w.until_error()
        assert isinstance(error, rxtweets.errors.TLSError)
        assert "create_default_context" in str(error)


def test_https_without_tls_ends_the_stream() -> None:
    with simulator.serve() as x, Watched(base_url=x.url.replace("http:", "https:")) as w:
        error = w.until_error()
        assert isinstance(error, rxtweets.errors.TLSError)
        assert "http://" in str(error)
