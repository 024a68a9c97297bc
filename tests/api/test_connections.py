from __future__ import annotations

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


def test_active_connections_are_listed(stub: Stub, connections: Connections) -> None:
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


def test_a_connection_that_ended_says_when_and_why(stub: Stub, connections: Connections) -> None:
    ended = {"disconnected_at": "2025-09-19T11:00:00.000Z", "disconnect_reason": "SlowReader"}
    stub.answers({"data": [{**ACTIVE, **ended}]})
    (held,) = connections.list(status="inactive")
    assert held.disconnected_at == datetime(2025, 9, 19, 11, tzinfo=UTC)
    assert held.disconnect_reason == "SlowReader"
    assert stub.asked[0].params["status"] == "inactive"


def test_streams_are_named_to_list_only_theirs(stub: Stub, connections: Connections) -> None:
    stub.answers({})
    assert connections.list(endpoints=["filtered_stream", "sample_stream"]) == []
    assert stub.asked[0].params["endpoints"] == "filtered_stream,sample_stream"


def test_all_pages_are_read(stub: Stub, connections: Connections) -> None:
    stub.answers({"data": [ACTIVE], "meta": {"next_token": "NEXT"}}, {"data": [ACTIVE, ACTIVE]})
    assert len(connections.list()) == 3
    assert [each.params.get("pagination_token") for each in stub.asked] == [None, "NEXT"]


@pytest.mark.parametrize("data", [None, [], {}, "x", [None, 5]])
def test_what_is_no_connection_is_none(stub: Stub, connections: Connections, data: Any) -> None:
    stub.answers({"data": data})
    assert connections.list() == []


def test_what_x_leaves_out_is_empty(stub: Stub, connections: Connections) -> None:
    stub.answers({"data": [{"id": 7, "connected_at": "soon", "client_ip": None}]})
    assert connections.list() == [HeldConnection("7", "", "", None, None, "")]


def test_the_connections_of_one_stream_are_freed(stub: Stub, connections: Connections) -> None:
    stub.answers(kills(2))
    assert connections.free("filtered_stream") == 2
    assert stub.asked == [("DELETE", f"{PATH}/filtered_stream", {}, None)]


def test_all_connections_are_freed(stub: Stub, connections: Connections) -> None:
    stub.answers(kills(3))
    assert connections.free_all() == 3
    assert stub.asked == [("DELETE", f"{PATH}/all", {}, None)]


def test_a_hundred_ids_are_freed_in_one_request(stub: Stub, connections: Connections) -> None:
    ids = [f"id{number}" for number in range(150)]
    stub.answers(kills(100), kills(49))
    assert connections.free_ids(ids) == 149
    assert stub.asked == [
        ("DELETE", PATH, {}, {"uuids": ids[:100]}),
        ("DELETE", PATH, {}, {"uuids": ids[100:]}),
    ]


def test_no_ids_take_no_request(stub: Stub, connections: Connections) -> None:
    assert connections.free_ids([]) == 0
    assert stub.asked == []


@pytest.mark.parametrize(("answer", "number"), [("2", 2), (None, 0), ("many", 0), ([], 0)])
def test_the_number_may_be_a_text_or_missing(
    stub: Stub, connections: Connections, answer: Any, number: int
) -> None:
    stub.answers(kills(answer))
    assert connections.free_all() == number


def test_to_free_is_tried_once(stub: Stub, connections: Connections) -> None:
    stub.answers((503, b"no"))
    with pytest.raises(rxtweets.errors.ServerError):
        connections.free_all()
    assert len(stub.asked) == 1


def test_a_stream_that_is_none_is_refused_before_any_request(
    stub: Stub, connections: Connections
) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match="filtered_stream"):
        connections.free("../all")
    with pytest.raises(rxtweets.ConfigurationError, match="endpoint 'x'"):
        connections.list(endpoints=["x"])
    with pytest.raises(rxtweets.ConfigurationError, match=r"no stream"):
        connections.free(["filtered_stream"])  # type: ignore[arg-type]  # what is tested
    assert stub.asked == []


def test_another_status_is_refused(connections: Connections) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match="active, inactive or all"):
        connections.list(status="open")  # type: ignore[arg-type]  # what is tested


def test_ids_given_as_one_text_are_refused(connections: Connections) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match="ids="):
        connections.free_ids("1f3c")


def test_streams_given_as_one_text_are_refused(stub: Stub, connections: Connections) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match=r"such as \['filtered_stream'\]"):
        connections.list(endpoints="filtered_stream")
    assert stub.asked == []
