"""What the simulator answers beside its streams: headers, rules, connections."""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from rxtweets import simulator
from rxtweets.simulator.script import Reply, upstream_failure

RULES = "/2/tweets/search/stream/rules"
CONNECTIONS = "/2/connections"
SAMPLE = "/2/tweets/sample/stream"


def client(x: simulator.Simulator, **options: Any) -> httpx.Client:
    headers = {"authorization": "Bearer any"}
    return httpx.Client(base_url=x.url, headers=headers, timeout=20.0, **options)


@pytest.fixture
def x() -> Iterator[simulator.Simulator]:
    with simulator.serve() as x:
        yield x


@pytest.fixture
def http(x: simulator.Simulator) -> Iterator[httpx.Client]:
    with client(x) as http:
        yield http


def add(http: httpx.Client, *rules: Any) -> httpx.Response:
    return http.post(RULES, json={"add": [*rules]})


@pytest.mark.parametrize("path", [SAMPLE, RULES, CONNECTIONS, "/2/no/such/path"])
def test_every_answer_has_the_headers_of_x(http: httpx.Client, path: str) -> None:
    with http.stream("GET", path) as answer:
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert answer.headers["api-version"]
        assert answer.headers["x-access-level"] == "read"
        assert len(answer.headers["x-transaction-id"]) == 16
        assert parsedate_to_datetime(answer.headers["date"]).tzinfo is not None
        if path != "/2/no/such/path":
            assert int(answer.headers["x-rate-limit-remaining"]) > 0


def test_no_two_answers_have_the_same_transaction(http: httpx.Client) -> None:
    ids = {http.get(RULES).headers["x-transaction-id"] for _ in range(20)}
    assert len(ids) == 20


def test_an_answer_over_http1_has_its_reason(http: httpx.Client) -> None:
    assert http.get(RULES).reason_phrase == "OK"
    assert http.get(RULES, params={"max_results": "0"}).reason_phrase == "Bad Request"


def test_a_script_may_use_a_status_that_has_no_name() -> None:
    with simulator.serve(script=[Reply(420, b"")]) as x, client(x) as http:
        assert http.get(SAMPLE).status_code == 420


def test_a_header_of_a_script_takes_the_place_of_the_usual_one() -> None:
    reply = Reply(503, b"", {"Content-Type": "text/html"})
    with simulator.serve(script=[reply, upstream_failure()]) as x, client(x) as http:
        assert http.get(SAMPLE).headers.get_list("content-type") == ["text/html"]
        answer = http.get(SAMPLE)
    assert answer.headers["content-type"] == "text/plain"
    assert answer.text.startswith("upstream connect error")


def test_refusal_names_the_reset_of_the_window() -> None:
    with simulator.serve(connects=1) as x, client(x) as http:
        with http.stream("GET", SAMPLE) as first:
            allowed_again = first.headers["x-rate-limit-reset"]
        refused = http.get(SAMPLE)
    assert refused.status_code == 429
    assert refused.headers["x-rate-limit-reset"] == allowed_again


def test_rule_deleted_twice_in_a_request_counts_once(http: httpx.Client) -> None:
    [rule] = add(http, {"value": "cat"}).json()["data"]
    answer = http.post(RULES, json={"delete": {"ids": [rule["id"], rule["id"]]}})
    assert answer.json()["meta"]["summary"] == {"deleted": 1, "not_deleted": 0}
    assert "errors" not in answer.json()


@pytest.mark.parametrize("how", ["ids", "values"])
def test_unknown_rule_is_named(http: httpx.Client, how: str) -> None:
    answer = http.post(RULES, json={"delete": {how: ["123"]}}).json()
    assert answer["meta"]["summary"] == {"deleted": 0, "not_deleted": 1}
    assert answer["errors"][0]["errors"][0]["message"] == "Rule does not exist: 123"


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"add": []},
        {"add": ["cat"]},
        {"add": [{"tag": "no value"}]},
        {"add": [{"value": 7}]},
        {"add": [{"value": "cat", "tag": ["cats"]}]},
        {"add": [{"value": "cat"}], "delete": {"ids": ["1"]}},
        {"delete": {}},
        {"delete": {"ids": "123"}},
        {"delete": {"ids": [123]}},
        {"delete": {"values": [{"value": "cat"}]}},
        {"delete": {"ids": ["1"], "values": ["cat"]}},
    ],
    ids=str,
)
def test_invalid_change_of_rules_is_refused(http: httpx.Client, body: object) -> None:
    answer = http.post(RULES, json=body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["message"] == "JSON doesn't match expected schema"


def test_parentheses_may_nest_as_deep_as_a_rule_is_long(http: httpx.Client) -> None:
    [made] = add(http, {"value": "(" * 500 + "cat" + ")" * 500}).json()["data"]
    assert made["value"].count("(") == 500


@pytest.mark.parametrize("parameter", ["max_results", "pagination_token"])
def test_invalid_page_is_refused_by_its_parameter(http: httpx.Client, parameter: str) -> None:
    answer = http.get(RULES, params={parameter: "none"})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["parameters"] == {parameter: ["none"]}


@pytest.mark.parametrize("query", [{"status": "dead"}, {"endpoints": "sample_stream,no_stream"}])
def test_invalid_filter_of_connections_is_refused(
    http: httpx.Client, query: dict[str, str]
) -> None:
    answer = http.get(CONNECTIONS, params=query)
    assert answer.status_code == 400
    assert list(answer.json()["errors"][0]["parameters"]) == list(query)


@pytest.mark.parametrize(
    "body", ['{"uuids": []}', '{"uuids": "abc"}', '{"uuids": [7]}', "[]", "", '{"ids": ["a"]}']
)
def test_body_without_ids_of_connections_is_refused(http: httpx.Client, body: str) -> None:
    assert http.request("DELETE", CONNECTIONS, content=body).status_code == 400


def test_at_most_a_hundred_connections_are_ended_by_name(http: httpx.Client) -> None:
    for count, status in ((100, 200), (101, 400)):
        ids = {"uuids": [str(number) for number in range(count)]}
        assert http.request("DELETE", CONNECTIONS, json=ids).status_code == status


def test_killed_connection_has_the_reason_operator_disconnect(
    x: simulator.Simulator, http: httpx.Client
) -> None:
    with client(x) as other, other.stream("GET", SAMPLE):
        http.delete(f"{CONNECTIONS}/sample_stream")
    [ended] = http.get(CONNECTIONS, params={"status": "inactive"}).json()["data"]
    assert ended["disconnect_reason"] == "operator_disconnect"
