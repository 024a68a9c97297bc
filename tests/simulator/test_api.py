"""X's endpoints over HTTP: paths, parameters, refusals, rate limits."""

from __future__ import annotations

import base64
import itertools
import math
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

from rxtweets import simulator
from rxtweets.api._endpoints import ENDPOINTS, Endpoint
from rxtweets.simulator.script import Close, Serve

BOTH = pytest.mark.parametrize("http1", [True, False], ids=["HTTP/1.1", "HTTP/2"])
RULES = "/2/tweets/search/stream/rules"
SAMPLE = "/2/tweets/sample/stream"
PATHS = {
    "sample_stream": "/2/tweets/sample/stream",
    "sample10_stream": "/2/tweets/sample10/stream",
    "filtered_stream": "/2/tweets/search/stream",
    "firehose_stream": "/2/tweets/firehose/stream",
    "firehose_stream_lang_en": "/2/tweets/firehose/stream/lang/en",
    "firehose_stream_lang_ja": "/2/tweets/firehose/stream/lang/ja",
    "firehose_stream_lang_ko": "/2/tweets/firehose/stream/lang/ko",
    "firehose_stream_lang_pt": "/2/tweets/firehose/stream/lang/pt",
    "likes_firehose_stream": "/2/likes/firehose/stream",
    "likes_sample10_stream": "/2/likes/sample10/stream",
    "tweets_compliance_stream": "/2/tweets/compliance/stream",
    "users_compliance_stream": "/2/users/compliance/stream",
    "likes_compliance_stream": "/2/likes/compliance/stream",
    "tweet_label_stream": "/2/tweets/label/stream",
    "activity_stream": "/2/activity/stream",
}
MOST = {
    "sample10_stream": 2,
    "firehose_stream": 20,
    "firehose_stream_lang_en": 8,
    "firehose_stream_lang_ja": 2,
    "firehose_stream_lang_ko": 2,
    "firehose_stream_lang_pt": 2,
    "likes_firehose_stream": 20,
    "likes_sample10_stream": 2,
    "tweets_compliance_stream": 4,
    "users_compliance_stream": 4,
}
"""X's numbers of partitions."""

each_endpoint = pytest.mark.parametrize("name", PATHS)
each_partitioned = pytest.mark.parametrize("name", MOST)


def needed(name: str) -> dict[str, str]:
    return {"partition": "1"} if name in MOST else {}


def one_tweet(_: object) -> list[Any]:
    return [Serve(1, rate=math.inf), Close()]


def stamps(*seconds_ago: float) -> list[str]:
    now = datetime.now(UTC)
    return [f"{now - timedelta(seconds=ago):%Y-%m-%dT%H:%M:%SZ}" for ago in seconds_ago]


def stamp(seconds_ago: float) -> str:
    return stamps(seconds_ago)[0]


def test_all_streams_of_x_exist() -> None:
    assert {name: endpoint.path for name, endpoint in ENDPOINTS.items()} == PATHS


@each_endpoint
def test_endpoint_streams_its_content(name: str, client: Any) -> None:
    with simulator.serve(rate=None, rules=["the OR lang:en a"], script=one_tweet) as x:
        answer = client(x).get(PATHS[name], params=needed(name))
        assert answer.status_code == 200
        for line in answer.content.splitlines():
            assert isinstance(orjson.loads(line)["data"], dict)


@each_partitioned
def test_missing_partition_is_answered_with_400(name: str, client: Any) -> None:
    with simulator.serve() as x:
        answer = client(x).get(PATHS[name])
    assert answer.status_code == 400
    assert answer.json() == {
        "errors": [
            {
                "parameters": {"partition": []},
                "message": "The `partition` query parameter can not be empty",
            }
        ],
        "title": "Invalid Request",
        "detail": "One or more parameters to your request was invalid.",
        "type": "https://api.twitter.com/2/problems/invalid-request",
    }


@each_partitioned
def test_partitions_are_limited_to_those_of_x(name: str, client: Any) -> None:
    with simulator.serve(rate=None, script=lambda _: Close()) as x:
        http = client(x)
        statuses = [
            http.get(PATHS[name], params={"partition": given}).status_code
            for given in ("0", "1", MOST[name], MOST[name] + 1, "-1", "x", "1.5")
        ]
    assert statuses == [400, 200, 200, 400, 400, 400, 400]


@pytest.mark.parametrize("name", sorted(PATHS.keys() - MOST.keys()))
def test_partition_of_an_undivided_stream_is_refused(name: str, client: Any) -> None:
    with simulator.serve(rules=["x"]) as x:
        answer = client(x).get(PATHS[name], params={"partition": "1"})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["parameters"] == {"partition": ["1"]}


def test_partition_is_the_same_however_its_number_is_written(client: Any) -> None:
    with (
        simulator.serve() as x,
        client(x).stream("GET", PATHS["firehose_stream"], params={"partition": "1"}),
    ):
        answer = client(x).get(PATHS["firehose_stream"], params={"partition": "01"})
    assert answer.json()["connection_issue"] == "TooManyConnections"


@pytest.mark.parametrize(
    ("given", "status"),
    [("0", 200), ("1", 200), ("5", 200), ("6", 400), ("-1", 400), ("x", 400), ("", 400)],
)
def test_backfill_is_zero_to_five_minutes(given: str, status: int, client: Any) -> None:
    with simulator.serve(rate=None, script=[Close()]) as x:
        answer = client(x).get(SAMPLE, params={"backfill_minutes": given})
    assert answer.status_code == status
    if status == 400:
        parameters = {"backfill_minutes": [given] if given else []}
        assert answer.json()["errors"][0]["parameters"] == parameters


@pytest.mark.parametrize(
    ("stream", "name", "value", "refused"),
    [
        ("sample_stream", "tweet.fields", "id,text", None),
        ("sample_stream", "tweet.fields", "id,colour", "colour"),
        ("sample_stream", "user.fields", "username,", ""),
        ("sample_stream", "expansions", "author_id,author", "author"),
        ("sample_stream", "tweet_fields", "id", "id"),
        ("sample_stream", "like_with_tweet_author.fields", "id", "id"),
        ("likes_compliance_stream", "tweet.fields", "id", "id"),
        ("likes_compliance_stream", "backfill_minutes", "1", None),
    ],
)
def test_unknown_parameters_and_values_are_refused(
    client: Any, stream: str, name: str, value: str, refused: str | None
) -> None:
    with simulator.serve(rate=None, script=[Close()]) as x:
        answer = client(x).get(PATHS[stream], params={name: value})
    assert answer.status_code == (200 if refused is None else 400)
    if refused is not None:
        parameters = {name: [refused] if refused else []}
        assert answer.json()["errors"][0]["parameters"] == parameters


def test_lenient_simulator_leaves_unknown_names_unread(client: Any) -> None:
    with simulator.serve(rate=None, strict=False, script=[Close()]) as x:
        answer = client(x).get(SAMPLE, params={"tweet.fields": "colour", "shade": "1"})
    assert answer.status_code == 200


def test_backfill_is_refused_to_an_account_without_it(client: Any) -> None:
    with simulator.serve(backfill=False, script=[Close()]) as x:
        http = client(x)
        assert http.get(SAMPLE, params={"backfill_minutes": "1"}).status_code == 400
        assert http.get(SAMPLE, params={"backfill_minutes": "0"}).status_code == 200


def replayed(http: httpx.Client, **query: str) -> httpx.Response:
    return http.get(PATHS["activity_stream"], params=query)


def test_replay_has_valid_bounds(client: Any) -> None:
    with simulator.serve(rate=1, live=True, history=120, script=lambda _: Close()) as x:
        http = client(x)
        for query, status in (
            ({"start_time": stamp(60)}, 200),
            ({"start_time": stamp(60), "end_time": stamp(30)}, 200),
            ({"start_time": stamp(86_000)}, 200),
            ({"start_time": stamp(90_000)}, 400),
            ({"start_time": stamp(-3_600)}, 400),
            ({"start_time": stamp(30), "end_time": stamp(60)}, 400),
            (dict(zip(("start_time", "end_time"), stamps(30, 30), strict=True)), 400),
            ({"start_time": "yesterday"}, 400),
            ({"start_time": "2026-01-31T12:00:00.000Z"}, 400),
            ({"start_time": stamp(60), "end_time": "1"}, 400),
        ):
            assert replayed(http, **query).status_code == status, query


def test_sample_stream_has_no_replay(client: Any) -> None:
    with simulator.serve(rate=1, live=True, history=60) as x:
        answer = client(x).get(SAMPLE, params={"start_time": stamp(30)})
    assert answer.status_code == 400
    assert "start_time" in answer.json()["errors"][0]["parameters"]


def test_replay_is_refused_without_live(client: Any) -> None:
    with simulator.serve() as x:
        answer = replayed(client(x), start_time=stamp(30))
    assert answer.status_code == 400
    assert "live=True" in answer.json()["errors"][0]["message"]


def test_replay_has_the_frames_between_its_bounds(client: Any) -> None:
    start, end = stamps(40, 30)
    with simulator.serve(rate=5, live=True, history=60) as x:
        lines = replayed(client(x), start_time=start, end_time=end).content
    assert lines.count(b"\n") == 50


def test_adjacent_replays_make_up_the_whole(client: Any) -> None:
    times = stamps(40, 35, 30, 25, 20)
    with simulator.serve(rate=7, live=True, history=60) as x:
        http = client(x)
        whole = replayed(http, start_time=times[0], end_time=times[-1]).content
        parts = [
            replayed(http, start_time=start, end_time=end).content
            for start, end in itertools.pairwise(times)
        ]
    assert b"".join(parts) == whole
    assert whole.count(b"\n") == 140


def test_filtered_stream_without_rules_is_answered_with_409(client: Any) -> None:
    with simulator.serve() as x:
        answer = client(x).get(PATHS["filtered_stream"])
    assert answer.status_code == 409
    assert answer.json()["connection_issue"] == "RuleConfigurationIssue"


def test_rule_opens_the_filtered_stream(client: Any) -> None:
    with simulator.serve(rate=None, script=one_tweet) as x:
        http = client(x)
        assert http.post(RULES, json={"add": [{"value": "the"}]}).status_code == 201
        assert http.get(PATHS["filtered_stream"]).status_code == 200


@BOTH
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/2/tweets",
        "/2/tweets/sample/stream/",
        "/2/connections_of",
        "/2/tweets/search/stream/rulesets",
        "/2/tweets/search/stream/rules/7",
        "/2/tweets/firehose/stream/lang/de",
        "//[",
    ],
)
def test_other_paths_are_not_found(http1: bool, path: str, client: Any) -> None:
    with simulator.serve() as x:
        answer = client(x, http1=http1).get(x.url + path)
    assert answer.status_code == 404
    assert answer.json()["title"] == "Not Found"


@BOTH
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", SAMPLE),
        ("DELETE", SAMPLE),
        ("HEAD", SAMPLE),
        ("PUT", RULES),
        ("DELETE", RULES),
        ("HEAD", RULES),
        ("POST", f"{RULES}/counts"),
        ("POST", "/2/connections"),
        ("GET", "/2/connections/all"),
    ],
)
def test_other_methods_are_not_allowed(http1: bool, method: str, path: str, client: Any) -> None:
    with simulator.serve() as x:
        http = client(x, http1=http1)
        assert http.request(method, path).status_code == 405
        assert http.get(f"{RULES}/counts").status_code == 200


@pytest.mark.parametrize("path", [SAMPLE, RULES, f"{RULES}/counts", "/2/connections"])
def test_wrong_token_is_answered_with_401(path: str, client: Any) -> None:
    with simulator.serve(token="right") as x:
        answer = client(x, token="wrong").get(path)
    assert answer.status_code == 401
    assert answer.json() == {
        "title": "Unauthorized",
        "type": "about:blank",
        "status": 401,
        "detail": "Unauthorized",
    }


@BOTH
def test_headers_may_have_any_bytes(http1: bool, client: Any) -> None:
    with simulator.serve(token="right") as x:
        http = client(x, http1=http1)
        strange = {b"authorization": b"Bearer \xe4\xff", b"x-other": b"\xff"}
        assert http.get(SAMPLE, headers=strange).status_code == 401
        strange = {b"authorization": b"Basic \xe4\xff"}
        assert http.post("/oauth2/token", headers=strange).status_code == 403


BUDGETS = dict.fromkeys(PATHS, 50) | {
    "sample10_stream": 100,
    "tweets_compliance_stream": 100,
    "users_compliance_stream": 100,
    "likes_compliance_stream": 100,
    "activity_stream": 450,
}


@each_endpoint
def test_each_stream_has_the_budget_of_x(name: str, client: Any) -> None:
    with simulator.serve(rules=["x"], script=lambda _: Close()) as x:
        before = time.time()
        headers = client(x).get(PATHS[name], params=needed(name)).headers
    assert int(headers["x-rate-limit-limit"]) == BUDGETS[name]
    assert int(headers["x-rate-limit-remaining"]) == BUDGETS[name] - 1
    assert before + 900 <= int(headers["x-rate-limit-reset"]) <= time.time() + 901


@pytest.mark.parametrize(
    ("method", "path", "budget"),
    [("GET", RULES, 450), ("POST", RULES, 100), ("GET", "/2/connections", 450)],
)
def test_other_endpoints_have_budgets_too(method: str, path: str, budget: int, client: Any) -> None:
    with simulator.serve() as x:
        headers = client(x).request(method, path).headers
    assert int(headers["x-rate-limit-limit"]) == budget
    assert int(headers["x-rate-limit-remaining"]) == budget - 1


def test_refused_request_is_counted(client: Any) -> None:
    with simulator.serve(connects=5) as x:
        http = client(x)
        left = [http.get(PATHS["sample10_stream"]).headers["x-rate-limit-remaining"]] * 1
        left += [http.get(PATHS["sample10_stream"]).headers["x-rate-limit-remaining"]]
    assert left == ["4", "3"]


def test_too_many_connections_leaves_the_budget_in_the_headers(client: Any) -> None:
    with simulator.serve(connects=5) as x, client(x).stream("GET", SAMPLE):
        answer = client(x).get(SAMPLE)
    assert answer.json()["connection_issue"] == "TooManyConnections"
    assert answer.headers["x-rate-limit-remaining"] == "3"


def test_endpoints_do_not_share_a_budget_and_partitions_do(client: Any) -> None:
    with simulator.serve(connects=2, script=lambda _: Close()) as x:
        http = client(x)
        path = PATHS["firehose_stream"]
        statuses = [http.get(path, params={"partition": n}).status_code for n in (1, 2, 3)]
        assert statuses == [200, 200, 429]
        assert http.get(SAMPLE).status_code == 200


def test_window_is_renewed(client: Any) -> None:
    with simulator.serve(connects=1, window=100, time_scale=0.002, script=lambda _: Close()) as x:
        http = client(x)
        http.get(SAMPLE)
        for _ in range(1_000):
            if http.get(SAMPLE).status_code == 200:
                break
        else:
            pytest.fail("the window was not renewed")


def credentials(pair: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


@BOTH
def test_key_and_secret_are_exchanged_for_the_token(http1: bool, client: Any) -> None:
    with simulator.serve(token="right", script=[Close()]) as x:
        http = client(x, http1=http1)
        answer = http.post(
            "/oauth2/token",
            data={"grant_type": "client_credentials"},
            headers=credentials("key:secret"),
        )
        assert answer.json() == {"token_type": "bearer", "access_token": "right"}
        bearer = {"authorization": f"Bearer {answer.json()['access_token']}"}
        assert http.get(SAMPLE, headers=bearer).status_code == 200


@pytest.mark.parametrize(
    ("headers", "data"),
    [
        ({"authorization": "Bearer any"}, {"grant_type": "client_credentials"}),
        ({"authorization": "Basic ???"}, {"grant_type": "client_credentials"}),
        (credentials("no colon"), {"grant_type": "client_credentials"}),
        (credentials("key:secret"), {"grant_type": "password"}),
        (credentials("key:secret"), {}),
    ],
)
def test_other_credentials_are_refused(
    headers: dict[str, str], data: dict[str, str], client: Any
) -> None:
    with simulator.serve() as x:
        answer = client(x).post("/oauth2/token", data=data, headers=headers)
    assert answer.status_code == 403
    assert answer.json()["errors"][0]["code"] == 99


@BOTH
def test_body_of_many_packets_is_read(http1: bool, client: Any) -> None:
    rules = [{"value": f"word{number}", "tag": "x" * 200} for number in range(900)]
    with simulator.serve() as x:
        http = client(x, http1=http1)
        answer = http.post(RULES, json={"add": rules})
        assert answer.json()["meta"]["summary"]["created"] == 900
        assert len(http.get(RULES).json()["data"]) == 900


@BOTH
def test_rules_are_managed_over_http(http1: bool, client: Any) -> None:
    with simulator.serve() as x:
        http = client(x, http1=http1)
        http.post(RULES, params={"dry_run": "true"}, json={"add": [{"value": "bird"}]})
        http.post(RULES, json={"add": [{"value": "cat"}, {"value": "dog"}]})
        assert [rule["value"] for rule in http.get(RULES).json()["data"]] == ["cat", "dog"]
        http.post(RULES, json={"delete": {"values": ["cat"]}})
        counts = http.get(f"{RULES}/counts").json()["data"]
        assert int(counts["project_rules_count"]) == 1
        http.post(RULES, params={"delete_all": "true"})
        assert "data" not in http.get(RULES).json()


def test_endpoints_know_their_partitions() -> None:
    def partitions(endpoint: Endpoint) -> int:
        return endpoint.partitions

    found = {
        name: partitions(endpoint) for name, endpoint in ENDPOINTS.items() if partitions(endpoint)
    }
    assert found == MOST
