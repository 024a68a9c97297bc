"""The simulator's other answers: headers, rules, connections."""

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


def test_answer_over_http1_has_its_reason(http: httpx.Client) -> None:
    assert http.get(RULES).reason_phrase == "OK"
    assert http.get(RULES, params={"max_results": "0"}).reason_phrase == "Bad Request"


def test_script_may_use_a_status_that_has_no_name() -> None:
    with simulator.serve(script=[Reply(420, b"")]) as x, client(x) as http:
        assert http.get(SAMPLE).status_code == 420


def test_header_of_a_script_takes_the_place_of_the_usual_one() -> None:
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


def test_parentheses_may_nest_as_deep_as_a_rule_is_long(http: httpx.Client) -> None:
    [made] = add(http, {"value": "(" * 500 + "cat" + ")" * 500}).json()["data"]
    assert made["value"].count("(") == 500


def test_at_most_a_hundred_connections_are_ended_by_name(http: httpx.Client) -> None:
    for count, status in ((100, 200), (101, 400)):
        ids = {"uuids": [str(number) for number in range(count)]}
        assert http.request("DELETE", CONNECTIONS, json=ids).status_code == status
