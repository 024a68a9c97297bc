"""The simulator over HTTP."""

from __future__ import annotations

import codecs
import math
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
import pytest
import reactivex

import rxtweets
from rxtweets import Message, simulator
from rxtweets.simulator._tweets import Tweets
from rxtweets.simulator.script import (
    Abort,
    Close,
    Disconnect,
    KeepAlive,
    Line,
    Serve,
    Stall,
    no_rules,
    rate_limited,
    unavailable,
)

STREAM = "/2/tweets/sample/stream"
AT = 1_764_028_461.25
BOTH = pytest.mark.parametrize("http1", [True, False], ids=["HTTP/1.1", "HTTP/2"])


def client(x: simulator.Simulator, http1: bool = True, token: str = "any") -> httpx.Client:
    return httpx.Client(
        base_url=x.url,
        http1=http1,
        http2=not http1,
        headers={"authorization": f"Bearer {token}"},
        timeout=20.0,
    )


def body(x: simulator.Simulator, http1: bool = True, **headers: str) -> bytes:
    """Return the body of one connection."""
    with client(x, http1) as http, http.stream("GET", STREAM, headers=headers) as response:
        assert response.status_code == 200
        return b"".join(response.iter_bytes())


@BOTH
@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_connection_streams_frames_that_end_in_crlf(http1: bool, encoding: str) -> None:
    with simulator.serve(rate=None, script=[[Serve(50), Close()]]) as x:
        lines = body(x, http1, **{"accept-encoding": encoding}).split(b"\r\n")
    assert lines.pop() == b""
    assert len({orjson.loads(line)["data"]["id"] for line in lines}) == 50
    assert x.sent == 50


def test_answer_has_the_headers_that_x_sends() -> None:
    with simulator.serve(connects=7) as x, client(x) as http, http.stream("GET", STREAM) as answer:
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["x-rate-limit-limit"] == "7"
        assert answer.headers["x-rate-limit-remaining"] == "6"
        assert int(answer.headers["x-rate-limit-reset"]) > time.time()


@BOTH
def test_feed_continues_where_the_last_connection_ended(http1: bool) -> None:
    frames = [b'{"n":%d}' % number for number in range(6)]
    with simulator.serve(rate=None, source=frames, script=[[Serve(3), Close()]] * 2) as x:
        assert body(x, http1).split() == frames[:3]
        assert body(x, http1).split() == frames[3:]


def test_file_of_frames_is_served_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "frames.ndjson"
    file.write_bytes(b'{"n":1}\n{"n":2}\r\n\n{"n":3}')
    with simulator.serve(rate=None, source=file, script=[[Serve(4), Close()]]) as x:
        assert body(x) == b'{"n":1}\r\n{"n":2}\r\n\r\n{"n":3}\r\n'
        assert x.left_out == ()


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_recording_is_served_with_all_its_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.jsonl{suffix}"
    frames = Tweets(seed=5).frames(0, 30)
    for start in (0, 10, 20):
        some = [Message.from_line(frame, AT) for frame in frames[start : start + 10]]
        source = reactivex.from_iterable(some).pipe(rxtweets.record(path))
        rxtweets.collect(source, len(some))
    assert len(list(tmp_path.iterdir())) == 3
    with simulator.serve(rate=None, source=path, script=[[Serve(30), Close()]]) as x:
        assert body(x).split(b"\r\n") == [*frames, b""]


def test_pages_and_odd_lines_of_a_recording_are_served(tmp_path: Path) -> None:
    notice = b'{"errors":[{"disconnect_type":"OperationalDisconnect"}]}'
    with_line_feed = (
        b'{"id":"7","received_at":1.0,"data":"a","raw":"{\\n\\"data\\":{\\"text\\":\\"a\\"}}"}'
    )
    path = tmp_path / "t.jsonl"
    path.write_bytes(
        b"\n".join(
            [
                codecs.BOM_UTF8 + b'{"data":[{"id":"1","text":"a"},{"id":"2","text":"b"},7]}',
                b"",
                notice,
                with_line_feed,
                b'{"data":{"id":"3","te',
            ]
        )
    )
    with simulator.serve(rate=None, source=path, script=[[Serve(5), Close()]]) as x:
        assert body(x).split(b"\r\n") == [
            b'{"data":{"id":"1","text":"a"}}',
            b'{"data":{"id":"2","text":"b"}}',
            b"",
            notice,
            b'{ "data":{"text":"a"}}',
            b"",
        ]
        assert [line.split(": ")[0] for line in x.left_out] == [f"{path}:1", f"{path}:5"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"nonsense", "not JSON"),
        (b'{"id":"1","received_at":1.0,"data":"x","metadata":{"id":"1"}}', "no raw"),
        (b'{"id":"1","received_at":1.0,"data":"x","raw":null}', "no line of a stream"),
        (b'{"id":"1","received_at":1.0,"data":"x","raw":"{"}', "not JSON"),
        (b'{"data":{"id":"1","liked_tweet_id":"2"}}', "like"),
        (
            b'{"id":"","received_at":1.0,"data":{},"raw":{"data":{"drop":{"user":{}}}}}',
            "compliance",
        ),
    ],
)
def test_invalid_line_of_a_recording_is_refused_by_number(
    line: bytes, why: str, tmp_path: Path
) -> None:
    path = tmp_path / "t-2.jsonl"
    path.write_bytes(b'{"data":{"id":"1","text":"a"}}\n%s\n{}\n' % line)
    with pytest.raises(rxtweets.ConfigurationError, match=why) as refused:
        simulator.serve(source=tmp_path / "t.jsonl")
    assert f"{path}:2: " in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"\n\r\n", b'{"data":{"id":"3","te'], ids=repr)
@pytest.mark.parametrize("loop", [True, False])
def test_recording_without_a_whole_line_is_refused(
    content: bytes, loop: bool, tmp_path: Path
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    with pytest.raises(rxtweets.ConfigurationError, match="no whole line") as refused:
        simulator.serve(source=path, loop=loop)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"pace": "fast"}, "pace"),
        ({"pace": "recorded"}, "needs a recording"),
        ({"pace": "recorded", "source": [b"{}"]}, "needs a recording"),
        ({"pace": "recorded", "source": "t.jsonl", "live": True}, "live"),
        ({"pace": "recorded", "source": "t.jsonl"}, "no line of t.jsonl has a time"),
        ({"source": "nothing.jsonl"}, "no such recording"),
        ({"source": "."}, "no such recording"),
        ({"source": Path("/dev/null")}, "read twice"),
    ],
)
def test_invalid_source_is_refused(
    options: dict[str, Any], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.jsonl").write_bytes(b'{"data":{"id":"1","text":"a"}}\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(rxtweets.ConfigurationError, match=why):
        simulator.serve(**options)


def test_recording_can_be_served_at_its_own_pace(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    frames = Tweets(seed=5).frames(0, 3)
    arrivals = (AT, AT + 3_600, AT + 7_200)
    some = [Message.from_line(*pair) for pair in zip(frames, arrivals, strict=True)]
    rxtweets.collect(reactivex.from_iterable(some).pipe(rxtweets.record(path)), 3)
    script = [[Serve(3), Close()]]
    options: dict[str, Any] = {"time_scale": 1e-6, "keep_alive": 1e12}
    with simulator.serve(source=path, pace="recorded", script=script, **options) as x:
        assert body(x).split(b"\r\n") == [*frames, b""]


def test_looped_recording_starts_again() -> None:
    with simulator.serve(
        rate=None, source=[b"1", b"2"], loop=True, script=[[Serve(5), Close()]]
    ) as x:
        assert body(x).split() == [b"1", b"2", b"1", b"2", b"1"]


def test_after_a_recording_there_is_silence_with_keep_alives() -> None:
    with (
        simulator.serve(rate=None, source=[b"1"], keep_alive=20, time_scale=0.001) as x,
        client(x) as http,
        http.stream("GET", STREAM) as response,
    ):
        got = b""
        for block in response.iter_bytes():
            got += block
            if len(got) > 12:
                break
        assert got.startswith(b"1\r\n\r\n\r\n")


@BOTH
@pytest.mark.parametrize("chunking", ["frame", "read", 3, lambda frame: (frame[:1], frame[1:])])
def test_body_is_cut_by_the_chunking_option(http1: bool, chunking: Any) -> None:
    frames = [b"a" * 10, b"b" * 10]
    with (
        simulator.serve(
            rate=None, source=frames, chunking=chunking, script=[[Serve(2), Close()]]
        ) as x,
        client(x, http1) as http,
        http.stream("GET", STREAM, headers={"accept-encoding": "identity"}) as response,
    ):
        pieces = list(response.iter_raw())
    assert b"".join(pieces) == b"".join(frame + b"\r\n" for frame in frames)
    sizes = {"frame": [12, 12], "read": [24], 3: [3] * 8}
    assert [len(piece) for piece in pieces] == sizes.get(chunking, [1, 11, 1, 11])


def test_steps_are_played_in_turn() -> None:
    part = [Line(b"1"), KeepAlive(), Disconnect("SlowReader"), Stall(0.01), Serve(1), Close()]
    with simulator.serve(rate=None, source=[b"2"], script=[part]) as x:
        first, empty, announced, second, end = body(x).split(b"\r\n")
    assert (first, empty, second, end) == (b"1", b"", b"2", b"")
    assert orjson.loads(announced)["errors"][0]["disconnect_type"] == "SlowReader"


@BOTH
def test_abort_in_the_middle_of_a_frame_breaks_the_connection(http1: bool) -> None:
    part = [Stall(0.1), Abort(mid_frame=True)]
    with (
        simulator.serve(rate=None, source=[b"x" * 100], script=[part]) as x,
        pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)),
    ):
        body(x, http1)


@BOTH
def test_replies_replace_the_stream(http1: bool) -> None:
    with (
        simulator.serve(script=[unavailable(), no_rules(), rate_limited(reset=17)]) as x,
        client(x, http1) as http,
    ):
        answers = [http.get(STREAM) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 409, 429]
    assert answers[0].json()["title"] == "Service Unavailable"
    assert answers[1].json()["connection_issue"] == "RuleConfigurationIssue"
    assert answers[2].headers["x-rate-limit-reset"] == "17"


@BOTH
def test_other_paths_and_methods_are_refused(http1: bool) -> None:
    with simulator.serve() as x, client(x, http1) as http:
        assert http.get("/2/tweets").status_code == 404
        assert http.delete(STREAM).status_code == 405


def test_request_without_a_token_or_with_another_is_refused() -> None:
    with simulator.serve(token="right") as x:
        assert httpx.get(x.url + STREAM).status_code == 401
        with client(x, token="wrong") as http:
            assert http.get(STREAM).json()["title"] == "Unauthorized"


def test_token_holds_one_connection() -> None:
    with simulator.serve() as x, client(x) as one, client(x) as two:
        with one.stream("GET", STREAM):
            refused = two.get(STREAM)
            assert refused.status_code == 429
            assert refused.json()["connection_issue"] == "TooManyConnections"
        with one.stream("GET", STREAM) as again:
            assert again.status_code == 200


def test_tokens_do_not_share_a_limit() -> None:
    with (
        simulator.serve() as x,
        client(x, token="one") as one,
        client(x, token="two") as two,
        one.stream("GET", STREAM) as first,
        two.stream("GET", STREAM) as second,
    ):
        assert first.status_code == second.status_code == 200


def test_too_many_connects_in_a_window_are_refused() -> None:
    with simulator.serve(connects=2, script=[Close()] * 3) as x, client(x) as http:
        answers = [http.get(STREAM) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["title"] == "Too Many Requests"
    assert answers[2].headers["x-rate-limit-remaining"] == "0"


def test_log_of_requests_can_be_read_and_waited_for() -> None:
    with simulator.serve(script=[Close()]) as x:
        assert not x.wait_for_requests(1, timeout=0.01)
        with client(x) as http:
            http.get(STREAM, params={"expansions": "author_id", "backfill_minutes": "2"})
        assert x.wait_for_requests(1)
        [request] = x.requests
        assert (request.number, request.status, request.http_version) == (1, 200, "HTTP/1.1")
        assert request.query == {"expansions": "author_id", "backfill_minutes": "2"}
        assert "any" not in repr(request)


def test_step_may_have_its_own_rate() -> None:
    with simulator.serve(rate=0, script=[[Serve(300, rate=math.inf), Close()]]) as x:
        assert body(x).count(b"\n") == 300


@BOTH
def test_slow_reader_makes_the_server_wait(http1: bool) -> None:
    with (
        simulator.serve(rate=None) as x,
        client(x, http1) as http,
        http.stream("GET", STREAM, headers={"accept-encoding": "identity"}),
    ):
        sent = -1
        while x.sent > sent:
            sent = x.sent
            threading.Event().wait(0.2)  # the server has time to send more
        assert sent < 50_000


@BOTH
def test_closing_ends_every_connection_thread_and_socket(http1: bool) -> None:
    def held() -> int:
        return len(psutil.Process().net_connections("tcp"))

    before = held()
    x = simulator.serve(rate=None)
    with client(x, http1) as http, http.stream("GET", STREAM):
        x.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "simulator"]
    assert held() == before
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", x.port))


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"PRI * HTTP/2.0"], ids=repr)
def test_close_does_not_wait_for_a_silent_client(said: bytes) -> None:
    x = simulator.serve()
    with socket.create_connection(("127.0.0.1", x.port)) as silent:
        silent.sendall(said)
        x.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "simulator"]


def test_servers_can_be_closed_while_clients_arrive() -> None:
    for _ in range(50):
        with simulator.serve() as x:
            socket.create_connection(("127.0.0.1", x.port)).close()


def test_garbage_is_answered_with_400() -> None:
    with simulator.serve() as x, socket.create_connection(("127.0.0.1", x.port)) as raw:
        raw.sendall(b"\x16\x03\x01 what is this\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400")


def test_second_http2_stream_of_a_connection_is_refused() -> None:
    with (
        simulator.serve(connections=5) as x,
        client(x, http1=False) as http,
        http.stream("GET", STREAM) as first,
    ):
        blocks = first.iter_bytes()
        next(blocks)
        with pytest.raises(httpx.RemoteProtocolError):
            http.get(STREAM)
        next(blocks)


@pytest.mark.parametrize(
    "options",
    [
        {"rate": -1},
        {"rate": math.nan},
        {"burst": 0},
        {"chunking": "words"},
        {"chunking": 0},
        {"connections": 0},
        {"connects": 0},
        {"window": 0},
        {"keep_alive": -1},
        {"time_scale": 0},
        {"source": "no-such-file"},
        {"source": b"frame"},
        {"rules": "cats"},
        {"rules": None},
        {"script": "close"},
        {"script": Close()},
        {"tls": ("no-such-cert", "no-such-key")},
        {"port": 70_000},
        {"token": ""},
        {"token": "a b"},
        {"window": math.inf},
        {"history": math.inf, "live": True},
        {"rate": math.inf, "live": True},
        {"burst": 1.5},
        {"packet": -1},
        {"forget_after": math.nan},
        {"time_scale": math.inf},
        {"history": 60},
        {"live": True, "rate": None},
    ],
    ids=str,
)
def test_wrong_options_are_refused_before_anything_listens(options: dict[str, Any]) -> None:
    before = threading.active_count()
    with pytest.raises(rxtweets.ConfigurationError):
        simulator.serve(**options)
    assert threading.active_count() == before


def test_port_in_use_is_named() -> None:
    with simulator.serve() as x, pytest.raises(rxtweets.ConfigurationError, match=str(x.port)):
        simulator.serve(port=x.port)


def descriptors() -> int:
    return psutil.Process().num_fds()


@pytest.fixture(autouse=True)
def _no_descriptor_leaks() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() <= before + 1
