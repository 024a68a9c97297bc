"""Streams over HTTP: live, filtered, scripted, and the end of slow clients."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from rxtweets import simulator
from rxtweets.simulator._access import Access
from rxtweets.simulator._api import Api, Content, OpenedStream
from rxtweets.simulator._frames import GeneratedFrames
from rxtweets.simulator._ruleset import Ruleset
from rxtweets.simulator._timeline import Timeline
from rxtweets.simulator._transport import Head
from rxtweets.simulator.script import (
    Abort,
    Close,
    Disconnect,
    Fin,
    GoAway,
    Line,
    Part,
    ResetStream,
    Serve,
    Stall,
    Step,
)

BOTH = pytest.mark.parametrize("http1", [True, False], ids=["HTTP/1.1", "HTTP/2"])
SAMPLE = "/2/tweets/sample/stream"
FILTERED = "/2/tweets/search/stream"
FIREHOSE = "/2/tweets/firehose/stream"
RULES = "/2/tweets/search/stream/rules"
TRIES = 200


def lines_of(response: httpx.Response) -> Iterator[bytes]:
    """Yield the lines that are not empty."""
    got = b""
    for block in response.iter_bytes():
        *lines, got = (got + block).split(b"\r\n")
        yield from (line for line in lines if line)


def some(response: httpx.Response, count: int) -> list[bytes]:
    lines = lines_of(response)
    return [next(lines) for _ in range(count)]


def listed(http: httpx.Client, status: str) -> list[dict[str, Any]]:
    data = http.get("/2/connections", params={"status": status}).json().get("data", [])
    return list(data)


def ended(http: httpx.Client) -> dict[str, Any]:
    """Wait for the end of a connection, and return it."""
    for _ in range(TRIES):
        if found := listed(http, "inactive"):
            return found[0]
        threading.Event().wait(0.05)
    pytest.fail("no connection ended")


@BOTH
def test_live_two_connections_get_the_same_frames(http1: bool, client: Any) -> None:
    with simulator.serve(rate=200, live=True, connections=2) as x:
        one, two = (client(x, http1=http1) for _ in range(2))
        with one.stream("GET", SAMPLE) as first, two.stream("GET", SAMPLE) as second:
            left, right = some(first, 60), some(second, 40)
    assert set(right[:20]) <= set(left)
    start = left.index(right[0])
    assert left[start : start + 20] == right[:20]


def test_live_backfill_gives_the_same_bytes_again(client: Any) -> None:
    with simulator.serve(rate=100, live=True) as x:
        http = client(x)
        with http.stream("GET", SAMPLE) as response:
            before = some(response, 20)
        with http.stream("GET", SAMPLE, params={"backfill_minutes": "1"}) as response:
            again = some(response, 60)
    start = again.index(before[0])
    assert again[start : start + 20] == before


@pytest.mark.parametrize("minutes", [0, 1, 5])
def test_live_minutes_of_backfill_are_scaled_with_the_time(minutes: int) -> None:
    timeline = Timeline(10.0, 60.0, lambda: 0.0, lambda: 1_000_000.0)
    source = GeneratedFrames(simulator.Tweets())
    content = Content(lambda: source, 0, 0, 10.0, 1, timeline, backfill=True, time_scale=0.1)
    api = Api(Access(None, 1, 900.0, 0.0), Ruleset(), content, None, "any")
    target = f"{SAMPLE}?backfill_minutes={minutes}"
    head = Head("GET", target, {"authorization": "Bearer any"}, "HTTP/1.1")
    answer = api.answer(head, "127.0.0.1", lambda: None)
    assert isinstance(answer, OpenedStream)
    got = 0
    while taken := len(answer.cursor.take(math.inf)):
        got += taken
    assert got == minutes * 6 * 10


def test_live_partitions_divide_the_tweets(client: Any) -> None:
    path, got = "/2/tweets/sample10/stream", []
    with simulator.serve(rate=50, live=True, history=60) as x:
        http = client(x)
        for partition in (1, 2):
            query = {"partition": str(partition), "backfill_minutes": "1"}
            with http.stream("GET", path, params=query) as response:
                got.append({orjson.loads(line)["data"]["id"] for line in some(response, 500)})
    assert len(got[0]) == len(got[1]) == 500
    assert not got[0] & got[1]


@pytest.mark.parametrize("loop", [True, False])
def test_live_recording_follows_the_clock(loop: bool, client: Any) -> None:
    frames = [b'{"n":%d}' % number for number in range(10)]
    options: dict[str, Any] = {"source": frames, "loop": loop, "live": True, "history": 0.2}
    with (
        simulator.serve(rate=100, script=[[Serve(15 if loop else 5), Close()]], **options) as x,
        client(x).stream("GET", SAMPLE, params={"backfill_minutes": "1"}) as response,
    ):
        got = list(lines_of(response))
    assert got == [frames[number % 10] for number in range(len(got))]
    assert len(got) == (15 if loop else 5)


@BOTH
def test_live_slow_reader_is_disconnected_and_frees_its_slot(http1: bool, client: Any) -> None:
    identity = {"accept-encoding": "identity"}
    options: dict[str, Any] = {"rate": 3_000, "live": True, "buffer": 100, "size": "large"}
    with simulator.serve(**options) as x:
        stuck, other = client(x, http1=http1), client(x)
        with stuck.stream("GET", SAMPLE, headers=identity):
            assert ended(other)["disconnect_reason"] == "SlowReader"
            with other.stream("GET", SAMPLE) as response:
                assert response.status_code == 200


@BOTH
def test_live_fast_reader_stays_connected(http1: bool, client: Any) -> None:
    with (
        simulator.serve(rate=1_000, live=True, buffer=5_000) as x,
        client(x, http1=http1).stream("GET", SAMPLE) as response,
    ):
        ids = [int(orjson.loads(line)["data"]["id"]) for line in some(response, 2_000)]
    assert ids == sorted(set(ids))


def test_change_of_rules_acts_on_an_open_connection(client: Any) -> None:
    with simulator.serve(rate=500) as x:
        http, other = client(x), client(x)
        other.post(RULES, json={"add": [{"value": "#music", "tag": "old"}]})
        with http.stream("GET", FILTERED) as response:
            lines = lines_of(response)
            assert b'"old"' in next(lines)
            other.post(RULES, json={"add": [{"value": "#art", "tag": "new"}]})
            other.post(RULES, json={"delete": {"values": ["#music"]}})
            tags = [orjson.loads(next(lines))["matching_rules"][-1]["tag"] for _ in range(60)]
        streams = [request for request in x.requests if request.path == FILTERED]
    assert tags[-1] == "new"
    assert "old" not in tags[tags.index("new") + 30 :]
    assert len(streams) == 1


def test_open_connections_of_a_token_are_listed(client: Any) -> None:
    with simulator.serve(rules=["x"]) as x:
        http = client(x)
        with http.stream("GET", SAMPLE), http.stream("GET", FILTERED):
            found = {held["endpoint_name"] for held in listed(http, "active")}
            assert found == {"sample_stream", "filtered_stream"}
            assert listed(client(x, token="other"), "active") == []


@BOTH
@pytest.mark.parametrize("how", ["all", "sample_stream", "uuids"])
def test_kill_ends_the_stream_and_frees_the_slot(how: str, http1: bool, client: Any) -> None:
    with simulator.serve(rate=0) as x:
        http, other = client(x, http1=http1), client(x)
        with http.stream("GET", SAMPLE) as response:
            [found] = listed(other, "active")
            if how == "uuids":
                body = {"uuids": [found["id"]]}
                answer = other.request("DELETE", "/2/connections", json=body)
            else:
                answer = other.delete(f"/2/connections/{how}")
            assert answer.json()["data"]["successful_kills"] == 1
            with pytest.raises(httpx.TransportError):
                response.read()
            with other.stream("GET", SAMPLE) as again:
                assert again.status_code == 200
        assert ended(other)["disconnect_reason"] == "operator_disconnect"


@pytest.mark.parametrize("part", [Stall(), Abort(noticed=False)])
def test_vanished_connection_blocks_its_token_until_it_is_killed(part: Part, client: Any) -> None:
    with simulator.serve(forget_after=1e6, script=[part]) as x:
        http = client(x)
        try:
            with http.stream("GET", SAMPLE):
                pass
        except httpx.TransportError:
            pass
        assert http.get(SAMPLE).json()["connection_issue"] == "TooManyConnections"
        assert len(listed(http, "active")) == 1
        http.delete("/2/connections/sample_stream")
        with http.stream("GET", SAMPLE) as response:
            assert response.status_code == 200


def test_vanished_connection_is_forgotten_after_its_time(client: Any) -> None:
    script = [Abort(noticed=False)]
    with simulator.serve(forget_after=300, time_scale=0.003, script=script, connects=1_000) as x:
        http = client(x)
        with pytest.raises(httpx.TransportError):
            http.get(SAMPLE)
        statuses: list[int] = []
        while not statuses or statuses[-1] == 429:
            with http.stream("GET", SAMPLE) as response:
                statuses.append(response.status_code)
    assert statuses[0] == 429
    assert statuses[-1] == 200


def test_reason_of_an_end_is_listed(client: Any) -> None:
    script: list[Part] = [[Disconnect("ForceDisconnect"), Close()], Close()]
    with simulator.serve(script=script) as x:
        http = client(x)
        http.get(SAMPLE)
        http.get(SAMPLE)
        assert ended(http)["disconnect_reason"] == "ForceDisconnect"
        reasons = [ended_one["disconnect_reason"] for ended_one in listed(http, "inactive")]
    assert reasons == ["ForceDisconnect", "closed"]


def test_script_may_be_a_function_of_the_request(client: Any) -> None:
    seen: list[simulator.Request] = []

    def script(request: simulator.Request) -> Part:
        seen.append(request)
        return [Line(request.query.get("expansions", "none").encode()), Close()]

    with simulator.serve(script=script) as x:
        http = client(x)
        assert http.get(SAMPLE, params={"expansions": "author_id"}).content == b"author_id\r\n"
        assert http.get(SAMPLE).content == b"none\r\n"
    assert [request.number for request in seen] == [1, 2]
    assert seen[0].path == SAMPLE


def test_partitions_may_have_their_own_scripts(client: Any) -> None:
    def script(request: simulator.Request) -> Part:
        broken = request.query["partition"] == "2"
        return Abort() if broken else [Line(b"fine"), Close()]

    with simulator.serve(script=script) as x:
        http = client(x)
        assert http.get(FIREHOSE, params={"partition": "1"}).content == b"fine\r\n"
        with pytest.raises(httpx.TransportError):
            http.get(FIREHOSE, params={"partition": "2"})
        assert http.get(FIREHOSE, params={"partition": "3"}).content == b"fine\r\n"


PATHS = [SAMPLE, "/2/likes/compliance/stream", "/2/tweets/label/stream", "/2/activity/stream"]


def run_of(seed: int, client: Any, path: str) -> list[Any]:
    """Return the payloads of a run, without ids and times."""
    script: list[Part] = [
        [Serve(20, rate=math.inf), Disconnect("InternalError"), Close()],
        [Serve(30, rate=math.inf), Close()],
    ]
    with simulator.serve(seed=seed, script=script) as x:
        http = client(x)
        payloads = [
            orjson.loads(line) for _ in script for line in http.get(path).content.splitlines()
        ]
    return [without_time(payload) for payload in payloads]


def without_time(value: Any) -> Any:
    if isinstance(value, dict):
        names = {"created_at", "event_at", "timestamp_ms", "event_uuid"}
        if "text" in value:
            names |= {"id", "edit_history_tweet_ids", "edit_history_post_ids"}
        return {name: without_time(item) for name, item in value.items() if name not in names}
    return [without_time(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("path", PATHS)
def test_same_seed_and_script_give_the_same_run(path: str, client: Any) -> None:
    first = run_of(7, client, path)
    assert len(first) == 51
    assert run_of(7, client, path) == first
    assert run_of(8, client, path) != first


def test_rule_is_matched_in_a_recording(client: Any) -> None:
    frames = [
        b'{"data":{"id":"1","text":"a cat"}}',
        b"",
        b"broken {",
        b'{"data":{"id":"2","text":"a dog"}}',
        b'{"data":{"id":"3","text":"the cat"},"matching_rules":[{"id":"1"}]}',
    ]
    options: dict[str, Any] = {"source": frames, "rate": None, "rules": ["cat"]}
    with simulator.serve(**options, script=[[Serve(5), Close()]]) as x:
        got = client(x).get(FILTERED).content.split(b"\r\n")
    assert [orjson.loads(got[at])["data"]["id"] for at in (0, 3)] == ["1", "3"]
    assert got[1:3] == [b"", b"broken {"]
    assert orjson.loads(got[3])["matching_rules"] != [{"id": "1"}]


def test_many_connections_leak_no_threads_and_no_slots(client: Any) -> None:
    ends: list[Step] = [Close(), Abort(), Fin(), GoAway(), ResetStream(), Abort(mid_frame=True)]
    parts: list[Part] = [[Serve(2, rate=math.inf), end] for end in ends]
    with simulator.serve(script=lambda r: parts[r.number % len(ends)], connects=1_000) as x:
        for http1 in (True, False):
            http = client(x, http1=http1)
            for _ in range(60):
                with contextlib.suppress(httpx.TransportError):
                    http.get(SAMPLE)
        assert x.answered == 120
        watcher = client(x)
        for _ in range(TRIES):
            threads = [thread for thread in threading.enumerate() if thread.name == "simulator"]
            if not listed(watcher, "active") and len(threads) <= 4:
                break
            threading.Event().wait(0.05)
        else:
            pytest.fail(f"{len(threads)} threads and {listed(watcher, 'active')} are left")
        assert len(listed(watcher, "inactive")) == 120
    assert not x._transports


def test_listener_continues_after_a_failure(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = [OSError(24, "Too many open files")]
    accept = socket.socket.accept

    def flaky(self: socket.socket) -> Any:
        if fails:
            raise fails.pop()
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", flaky)
    with simulator.serve(script=[Close()]) as x:
        assert client(x).get(SAMPLE).status_code == 200
    assert not fails
