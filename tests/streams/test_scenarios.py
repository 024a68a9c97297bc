"""Observed behaviour of X's servers, and the reaction of the stream.

Other clients lose tweets, loop, fall silent or give up in these scenarios.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import Any

import orjson
import pytest

import rxtweets
from rxtweets import Backoff, events, simulator
from rxtweets.simulator import Tweets
from rxtweets.simulator.script import (
    DISCONNECT_TYPES,
    Abort,
    Close,
    Disconnect,
    Fin,
    Line,
    Part,
    Reply,
    Serve,
    Stall,
    forbidden,
    invalid_request,
    no_rules,
    not_found,
    provisioning,
    rate_limited,
    too_many_connections,
    unauthorized,
    unavailable,
    usage_capped,
)
from tests.streams.watching import FAST, Watched, line

NEVER_PROVED = 1e6


@cache
def two_hundred() -> tuple[bytes, ...]:
    return tuple(islice(Tweets(seed=3), 200))


def digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def cut_in_the_line_end(frame: bytes) -> Iterable[bytes]:
    return frame[:-1], frame[-1:]


@dataclass(frozen=True)
class Scenario:
    """A behaviour of the server, and the expected results.

    Attributes:
        script: of the first connections; all others stream.
        serve: options of the server.
        stream: options of the stream.
        tweets: number of delivered tweets.
        waits: before reconnects, in seconds of X's schedules.
        ends: errors of the connections that ended.
        counters: nonzero counters, without received, delivered, bytes and connects.
    """

    script: Sequence[Part] = ()
    serve: Mapping[str, Any] = field(default_factory=dict)
    stream: Mapping[str, Any] = field(default_factory=dict)
    tweets: int = 200
    waits: Sequence[float] = ()
    ends: Sequence[type[Exception]] = ()
    counters: Mapping[str, int] = field(default_factory=dict)


FRAMES: Mapping[str, Any] = {"source": two_hundred()}
ODD = [Line(b'{"type":"connection_metadata","datacenter":"atla"}'), Line(b'{"data":{"a":{}}}')]
RULED = b'{"data":{"id":"%d","text":"x"},"matching_rules":[%s]}'
LOST, STALLED = rxtweets.errors.ConnectionLost, rxtweets.errors.StreamStalled
BROKEN = b'{"data":{"id":"5","text":"unfini'

SCENARIOS = {
    "plain": Scenario(serve=FRAMES, stream={"compress": False}),
    "gzip": Scenario(serve=FRAMES),
    "bare line feeds": Scenario(serve={**FRAMES, "line_end": b"\n"}),
    "chunks of 64 KB": Scenario(serve={**FRAMES, "chunking": 65_536}),
    "chunks of 7 bytes": Scenario(serve={**FRAMES, "chunking": 7}),
    "a byte a packet": Scenario(serve={**FRAMES, "packet": 1}),
    "chunks that end inside the line end": Scenario(
        serve={**FRAMES, "chunking": cut_in_the_line_end}
    ),
    "no content type": Scenario(serve={**FRAMES, "headers": {"content-type": None}}),
    "a clean close after 2 and after 4": Scenario(
        script=[[Serve(2), Close()], [Serve(4), Close()]],
        serve=FRAMES,
        waits=[0, 0.25],
        ends=[rxtweets.errors.ConnectionEnded] * 2,
        counters={"reconnects": 2, "gaps": 2},
    ),
    "a clean close, time after time": Scenario(
        script=[[Serve(2), Close()]] * 70,
        serve=FRAMES,
        stream={"backoff": Backoff(scale=0.000_1, proved_after=NEVER_PROVED)},
        waits=[min(16, 0.25 * failures) for failures in range(70)],
        ends=[rxtweets.errors.ConnectionEnded] * 70,
        counters={"reconnects": 70, "gaps": 70},
    ),
    "a cut inside a chunk after 2": Scenario(
        script=[[Serve(2), Stall(0.1), Abort(mid_frame=True)]],
        serve=FRAMES,
        tweets=199,
        waits=[0],
        ends=[LOST],
        counters={"reconnects": 1, "gaps": 1, "undecodable": 1},
    ),
    "a connection closed inside the response": Scenario(
        script=[[Serve(2), Fin()]],
        serve=FRAMES,
        waits=[0],
        ends=[LOST],
        counters={"reconnects": 1, "gaps": 1},
    ),
    "an announced disconnect, then a close": Scenario(
        script=[[Serve(2), Disconnect(kind), Close()] for kind in DISCONNECT_TYPES],
        serve=FRAMES,
        waits=[0.25 * failures for failures in range(len(DISCONNECT_TYPES))],
        ends=[rxtweets.errors.ServerDisconnect] * len(DISCONNECT_TYPES),
        counters={"reconnects": 8, "gaps": 8, "disconnects": 8},
    ),
    "an announced disconnect without the wrapper": Scenario(
        script=[[Serve(2), Disconnect(wrapped=False), Stall()]],
        serve=FRAMES,
        waits=[0],
        ends=[rxtweets.errors.ServerDisconnect],
        counters={"reconnects": 1, "gaps": 1, "disconnects": 1},
    ),
    "one broken line in ten": Scenario(
        script=[[Serve(5), Line(BROKEN), Serve(4)]], serve=FRAMES, counters={"undecodable": 1}
    ),
    "rules without a tag, with null, with a number": Scenario(
        script=[
            [
                Line(RULED % (1, b'{"id":"7"}')),
                Line(RULED % (2, b'{"id":7,"tag":null}')),
                Line(RULED % (3, b'{"id":"7","tag":""}')),
            ]
        ],
        serve=FRAMES,
        tweets=203,
    ),
    "messages that backfill repeats": Scenario(
        script=[[Line(line(1)), Line(line(2)), Line(line(1)), Line(line(2))]],
        serve=FRAMES,
        stream={"backfill_minutes": 1},
        tweets=202,
        counters={"duplicates": 2},
    ),
    "new types of messages and new keys": Scenario(
        script=[[*ODD, Line(b'{"new":1,"data":{"id":"1","text":"x","newer":2}}')]],
        serve=FRAMES,
        tweets=201,
        counters={"unknown": 2},
    ),
    "a line of 300 KB": Scenario(script=[[Line(line(1, "ß" * 150_000))]], serve=FRAMES, tweets=201),
    "a line of 3 MB": Scenario(script=[[Line(line(1, "ß" * 1_500_000))]], serve=FRAMES, tweets=201),
    "six times 503": Scenario(
        script=[unavailable()] * 6,
        serve=FRAMES,
        waits=[5, 10, 20, 40, 80, 160],
        ends=[rxtweets.errors.ServerError] * 6,
        counters={"reconnects": 6, "server_errors": 6},
    ),
    "six times 429": Scenario(
        script=[rate_limited(reset=0)] * 6,
        serve=FRAMES,
        stream={"backoff": Backoff(scale=0.000_1, proved_after=NEVER_PROVED)},
        waits=[60, 120, 240, 480, 900, 900],
        ends=[rxtweets.errors.RateLimitError] * 6,
        counters={"reconnects": 6, "rate_limits": 6},
    ),
    "silence after 3 tweets": Scenario(
        script=[[Serve(3), Stall()], [Serve(3), Stall()]],
        serve=FRAMES,
        stream={"stall_timeout": 0.3},
        waits=[0, 0.25],
        ends=[STALLED] * 2,
        counters={"reconnects": 2, "stalls": 2, "gaps": 2},
    ),
}
ALWAYS = {"received", "delivered", "bytes", "connects", "posts_today", "control"}


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("http", [{"http2": False}, {"http1": False}], ids=["HTTP/1.1", "HTTP/2"])
def test_scenario_ends_as_expected(name: str, http: dict[str, Any]) -> None:
    scenario = SCENARIOS[name]
    backoff = scenario.stream.get("backoff", FAST)
    server = {"rate": None, "connects": 1_000} | dict(scenario.serve)
    with (
        simulator.serve(script=scenario.script, **server) as x,
        Watched(x, **(dict(scenario.stream) | http)) as w,
    ):
        w.until_messages(scenario.tweets)
        w.until_event(events.Disconnected, len(scenario.ends))
        w.until_event(events.Connected, len(x.requests) - len(refused(x)))
        waits = [round(event.delay / backoff.scale, 2) for event in w.of(events.Reconnecting)]
        stats = w.stream.stats()
        assert waits == list(scenario.waits)
        ends = w.of(events.Disconnected)
        assert [type(end.error) for end in ends] == expected_ends(scenario, ends)
        counted = {counter: count for counter, count in stats.as_dict().items() if count}
        for counter in (*ALWAYS, "state", "lag", "queued"):
            counted.pop(counter, None)
        assert counted == dict(scenario.counters)
        assert stats.connects == len(scenario.waits) + 1 == len(x.requests)
        assert stats.received == stats.delivered + stats.undecodable + stats.control
        assert len(w.messages) == scenario.tweets
        if scenario.tweets == 200:
            texts = (orjson.loads(frame)["data"]["text"] for frame in two_hundred())
            assert digest(message.data for message in w.messages) == digest(texts)


def refused(x: simulator.Simulator) -> list[simulator.Request]:
    return [request for request in x.requests if request.status != 200]


def expected_ends(scenario: Scenario, ends: Sequence[Any]) -> list[type[Exception]]:
    """Return the expected errors; a broken connection shows as any `ConnectionLost`."""
    return [
        type(end.error) if expected is LOST and isinstance(end.error, LOST) else expected
        for end, expected in zip(ends, scenario.ends, strict=True)
    ]


# Answers that are no stream.

PASSED: Mapping[str, str] = {"x-rate-limit-reset": "0"}
V1_RATE_LIMIT = Reply(429, {"errors": [{"code": 88, "message": "Rate limit exceeded"}]}, PASSED)
UNSUPPORTED = Reply(
    403,
    {
        "title": "Unsupported Authentication",
        "detail": "Authenticating with OAuth 1.0a User Context is forbidden for this endpoint.",
        "type": "https://api.twitter.com/2/problems/unsupported-authentication",
        "status": 403,
    },
)
FINAL: dict[str, tuple[Reply, type[rxtweets.errors.ResponseError], dict[str, int]]] = {
    "400": (invalid_request("partition", "", "it is missing"), rxtweets.errors.ResponseError, {}),
    "401": (unauthorized(), rxtweets.errors.AuthenticationError, {}),
    "403 not enrolled": (forbidden(), rxtweets.errors.AccessError, {}),
    "403 unsupported": (UNSUPPORTED, rxtweets.errors.AuthenticationError, {}),
    "404": (not_found(), rxtweets.errors.ResponseError, {}),
    "409 no rules": (no_rules(), rxtweets.errors.RulesError, {}),
    "429 cap used up": (usage_capped(), rxtweets.errors.UsageCapError, {"usage_caps": 1}),
}


@pytest.mark.parametrize("name", FINAL)
def test_final_answer_is_not_retried(name: str) -> None:
    reply, kind, counters = FINAL[name]
    with simulator.serve(script=[reply] * 3, rate=None) as x, Watched(x) as w:
        error = w.until_error()
        w.until_event(events.StreamEnded)
        assert type(error) is kind
        assert [request.status for request in x.requests] == [reply.status]
        assert w.of(events.Reconnecting) == []
        assert w.stream.state.name == "failed"
        stats = w.stream.stats()
        assert {counter: getattr(stats, counter) for counter in counters} == counters


PASSING: dict[str, tuple[Reply, list[float], str]] = {
    "420": (Reply(420, b"Enhance Your Calm", PASSED), [60, 120, 240], "rate_limits"),
    "429": (rate_limited(reset=0), [60, 120, 240], "rate_limits"),
    "429 as v1 has it": (V1_RATE_LIMIT, [60, 120, 240], "rate_limits"),
    "429 connection taken": (too_many_connections(), [5, 10, 20], "connection_limits"),
    "429 provisioning": (provisioning(), [60, 60, 60], ""),
    "500": (unavailable(500), [5, 10, 20], "server_errors"),
    "502": (unavailable(502), [5, 10, 20], "server_errors"),
    "503": (unavailable(503), [5, 10, 20], "server_errors"),
    "504": (unavailable(504), [5, 10, 20], "server_errors"),
    "503 in words": (Reply(503, b"upstream connect error"), [5, 10, 20], "server_errors"),
}


@pytest.mark.parametrize("name", PASSING)
def test_temporary_answer_is_retried(name: str) -> None:
    reply, waits, counter = PASSING[name]
    slow = Backoff(scale=0.000_1, proved_after=NEVER_PROVED)
    with (
        simulator.serve(script=[reply] * 3, **FRAMES, rate=None) as x,
        Watched(x, backoff=slow) as w,
    ):
        w.until_messages(200)
        found = [round(event.delay / slow.scale, 2) for event in w.of(events.Reconnecting)]
        assert found == waits
        assert [request.status for request in x.requests] == [reply.status] * 3 + [200]
        if counter:
            assert getattr(w.stream.stats(), counter) == 3
        assert digest(message.data for message in w.messages) == digest(
            orjson.loads(frame)["data"]["text"] for frame in two_hundred()
        )


IN_A_STREAM: dict[str, tuple[Any, type[Exception], bool]] = {
    "connection taken": (too_many_connections().body, rxtweets.errors.ConnectionLimitError, False),
    "cap used up": (usage_capped().body, rxtweets.errors.UsageCapError, True),
    "no access": (forbidden().body, rxtweets.errors.AccessError, True),
    "unauthorized": (unauthorized().body, rxtweets.errors.AuthenticationError, True),
    "unavailable": (unavailable().body, rxtweets.errors.ServerError, False),
    "rate limited": (rate_limited().body, rxtweets.errors.RateLimitError, False),
    "no rules": (no_rules().body, rxtweets.errors.RulesError, True),
    "provisioning": (provisioning().body, rxtweets.errors.ProvisioningError, False),
}


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "in errors"])
@pytest.mark.parametrize("name", IN_A_STREAM)
def test_problem_in_a_200_is_that_problem(name: str, wrapped: bool) -> None:
    body, kind, is_final = IN_A_STREAM[name]
    said = orjson.dumps({"errors": [body]} if wrapped else body)
    slow = Backoff(scale=0.000_1, proved_after=NEVER_PROVED)
    with (
        simulator.serve(script=[[Line(said), Stall()]], **FRAMES, rate=None, window=0.01) as x,
        Watched(x, backoff=slow) as w,
    ):
        [end] = w.until_event(events.Disconnected)[:1]
        assert type(end.error) is kind
        if is_final:
            assert type(w.until_error()) is kind
            assert len(x.requests) == 1
        else:
            w.until_messages(200)
