from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

import rxtweets
from rxtweets import Connections
from rxtweets.api import HeldConnection

if TYPE_CHECKING:
    from tests.conftest import Stub

PATH = "/2/connections"
FIELDS = "client_ip,connected_at,disconnect_reason,disconnected_at,endpoint_name,id"
ASKED = {"status": "active", "max_results": "100", "connection.fields": FIELDS}
ACTIVE = {
    "id": "1f3c",
    "endpoint_name": "filtered_stream",
    "client_ip": "192.0.2.1",
    "connected_at": "2025-09-19T10:00:00.000Z",
}


@pytest.fixture
def connections(stub: Stub) -> Connections:
    return Connections(token="any", base_url=stub.url)


def kills(number: Any) -> dict[str, Any]:
    return {"data": {"successful_kills": number, "failed_kills": 0, "results": []}}


def test_list_returns_active_connections(stub: Stub, connections: Connections) -> None:
    stub.answers({"data": [ACTIVE]})
    assert connections.list() == [
        HeldConnection(
            "1f3c",
            "filtered_stream",
            "192.0.2.1",
            datetime(2025, 9, 19, 10, tzinfo=UTC),
            None,
            "",
        )
    ]
    assert stub.asked == [("GET", PATH, ASKED, None)]


def test_list_returns_end_and_reason_of_inactive_ones(stub: Stub, connections: Connections) -> None:
    ended = {"disconnected_at": "2025-09-19T11:00:00.000Z", "disconnect_reason": "SlowReader"}
    stub.answers({"data": [{**ACTIVE, **ended}]})
    (held,) = connections.list(status="inactive")
    assert held.disconnected_at == datetime(2025, 9, 19, 11, tzinfo=UTC)
    assert held.disconnect_reason == "SlowReader"
    assert stub.asked[0].params["status"] == "inactive"


def test_list_asks_for_the_named_streams(stub: Stub, connections: Connections) -> None:
    stub.answers({})
    assert connections.list(endpoints=["filtered_stream", "sample_stream"]) == []
    assert stub.asked[0].params["endpoints"] == "filtered_stream,sample_stream"


def test_list_reads_all_pages(stub: Stub, connections: Connections) -> None:
    stub.answers({"data": [ACTIVE], "meta": {"next_token": "NEXT"}}, {"data": [ACTIVE, ACTIVE]})
    assert len(connections.list()) == 3
    assert [request.params.get("pagination_token") for request in stub.asked] == [None, "NEXT"]


@pytest.mark.parametrize("data", [None, [], {}, "x", [None, 5]])
def test_list_ignores_values_that_are_not_objects(
    stub: Stub, connections: Connections, data: Any
) -> None:
    stub.answers({"data": data})
    assert connections.list() == []


def test_list_leaves_missing_values_empty(stub: Stub, connections: Connections) -> None:
    stub.answers({"data": [{"id": 7, "connected_at": "soon", "client_ip": None}]})
    assert connections.list() == [HeldConnection("7", "", "", None, None, "")]


@pytest.mark.parametrize(
    ("close", "path"),
    [
        (lambda connections: connections.free("filtered_stream"), f"{PATH}/filtered_stream"),
        (lambda connections: connections.free_all(), f"{PATH}/all"),
    ],
    ids=["free", "free_all"],
)
def test_closed_connections_are_counted(
    stub: Stub, connections: Connections, close: Callable[[Connections], int], path: str
) -> None:
    stub.answers(kills(2))
    assert close(connections) == 2
    assert stub.asked == [("DELETE", path, {}, None)]


def test_free_ids_sends_a_hundred_ids_a_request(stub: Stub, connections: Connections) -> None:
    ids = [f"id{number}" for number in range(150)]
    stub.answers(kills(100), kills(49))
    assert connections.free_ids(ids) == 149
    assert stub.asked == [
        ("DELETE", PATH, {}, {"uuids": ids[:100]}),
        ("DELETE", PATH, {}, {"uuids": ids[100:]}),
    ]


def test_free_ids_sends_nothing_without_ids(stub: Stub, connections: Connections) -> None:
    assert connections.free_ids([]) == 0
    assert stub.asked == []


@pytest.mark.parametrize(("answer", "number"), [("2", 2), (None, 0), ("many", 0), ([], 0)])
def test_number_of_closed_connections_may_be_a_text(
    stub: Stub, connections: Connections, answer: Any, number: int
) -> None:
    stub.answers(kills(answer))
    assert connections.free_all() == number


def test_free_is_tried_once(stub: Stub, connections: Connections) -> None:
    stub.answers((503, b"no"))
    with pytest.raises(rxtweets.errors.ServerError):
        connections.free_all()
    assert len(stub.asked) == 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda connections: connections.free("../all"), "filtered_stream"),
        (lambda connections: connections.free(["filtered_stream"]), "no stream"),
        (lambda connections: connections.list(endpoints=["x"]), "endpoint 'x'"),
        (
            lambda connections: connections.list(endpoints="filtered_stream"),
            r"such as \['filtered_stream'\]",
        ),
        (lambda connections: connections.list(status="open"), "active, inactive, all"),
        (lambda connections: connections.free_ids("1f3c"), "ids="),
    ],
)
def test_invalid_argument_is_refused_before_a_request(
    stub: Stub, connections: Connections, call: Callable[[Any], object], says: str
) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match=says):
        call(connections)
    assert stub.asked == []
