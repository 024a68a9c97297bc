"""Tokens, connection limits and rate limits, by a fake clock."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from rxtweets.simulator import _access
from rxtweets.simulator._access import Access, Slot


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_access, "GRACE", 0.0)


def made(most: int = 1, forget: float = 0.0, window: float = 900.0) -> tuple[Access, Clock]:
    clock = Clock()
    return Access(None, most, window, forget, clock), clock


def slot(endpoint: str = "sample_stream", partition: str = "", token: str = "one") -> Slot:
    return Slot((token, endpoint, partition), endpoint, "127.0.0.1", lambda: None)


def listed(access: Access, token: str = "one", **query: str) -> list[dict[str, Any]]:
    body: dict[str, Any] = access.connections(token, query).body
    assert body["meta"]["result_count"] == len(body.get("data", []))
    return list(body.get("data", []))


def test_token_holds_one_stream_of_an_endpoint() -> None:
    access, _ = made()
    assert access.hold(slot()) is None
    refusal = access.hold(slot())
    assert refusal is not None
    assert refusal.body["connection_issue"] == "TooManyConnections"


def test_limit_is_by_token_endpoint_and_partition() -> None:
    access, _ = made()
    assert access.hold(slot("firehose_stream", "1")) is None
    assert access.hold(slot("firehose_stream", "2")) is None
    assert access.hold(slot("sample_stream")) is None
    assert access.hold(slot("firehose_stream", "1", token="two")) is None
    assert access.hold(slot("firehose_stream", "1")) is not None


def test_limit_of_two_allows_two_connections() -> None:
    access, _ = made(most=2)
    assert [access.hold(slot()) is None for _ in range(3)] == [True, True, False]


def test_released_slot_can_be_held_again() -> None:
    access, _ = made()
    first = slot()
    access.hold(first)
    access.release(first, "closed", unnoticed=False)
    assert access.hold(slot()) is None


def test_vanished_slot_is_held_until_it_is_forgotten() -> None:
    access, clock = made(forget=300.0)
    first = slot()
    access.hold(first)
    access.release(first, "client closed", unnoticed=True)
    clock.now += 299.0
    assert access.hold(slot()) is not None
    clock.now += 1.0
    assert access.hold(slot()) is None


def test_vanished_slot_is_free_without_forget_after() -> None:
    access, _ = made(forget=0.0)
    first = slot()
    access.hold(first)
    access.release(first, "client closed", unnoticed=True)
    assert access.hold(slot()) is None


@pytest.mark.parametrize("which", ["all", "sample_stream"])
def test_vanished_slot_can_be_killed(which: str) -> None:
    access, _ = made(forget=300.0)
    first = slot()
    access.hold(first)
    access.release(first, "client closed", unnoticed=True)
    data = access.kill("one", which, b"").body["data"]
    assert data["successful_kills"] == 1
    assert data["results"] == [{"uuid": first.id, "success": True}]
    assert access.hold(slot()) is None


def test_connections_are_listed_with_the_fields_of_x() -> None:
    access, clock = made()
    first = slot()
    access.hold(first)
    assert listed(access) == [
        {
            "id": first.id,
            "endpoint_name": "sample_stream",
            "client_ip": "127.0.0.1",
            "connected_at": "1970-01-12T13:46:40.000Z",
        }
    ]
    clock.now += 5
    access.release(first, "closed", unnoticed=False)
    [ended] = listed(access, status="inactive")
    assert ended["disconnected_at"] == "1970-01-12T13:46:45.000Z"
    assert ended["disconnect_reason"] == "closed"


def test_list_is_filtered_by_status() -> None:
    access, _ = made(most=5)
    first, second = slot(), slot()
    access.hold(first)
    access.hold(second)
    access.release(first, "closed", unnoticed=False)
    assert [shown["id"] for shown in listed(access)] == [second.id]
    assert [shown["id"] for shown in listed(access, status="active")] == [second.id]
    assert [shown["id"] for shown in listed(access, status="inactive")] == [first.id]
    assert [shown["id"] for shown in listed(access, status="all")] == [second.id, first.id]


@pytest.mark.parametrize("query", [{"status": "open"}, {"endpoints": "sample_stream,no_stream"}])
def test_invalid_filter_is_refused(query: dict[str, str]) -> None:
    access, _ = made()
    answer = access.connections("one", query)
    assert answer.status == 400
    assert list(answer.body["errors"][0]["parameters"]) == list(query)


def test_vanished_slot_is_active_until_it_is_forgotten() -> None:
    access, clock = made(forget=10.0)
    first = slot()
    access.hold(first)
    access.release(first, "client closed", unnoticed=True)
    assert "disconnected_at" not in listed(access)[0]
    clock.now += 10.0
    assert listed(access) == []
    assert listed(access, status="inactive")[0]["id"] == first.id


def test_list_is_filtered_by_endpoints() -> None:
    access, _ = made()
    for name in ("sample_stream", "filtered_stream", "activity_stream"):
        access.hold(slot(name))
    names = {
        shown["endpoint_name"]
        for shown in listed(access, endpoints="sample_stream,firehose_stream")
    }
    assert names == {"sample_stream"}


def test_token_sees_and_ends_its_own_connections_only() -> None:
    access, _ = made()
    access.hold(slot(token="two"))
    assert listed(access, token="one", status="all") == []
    assert access.kill("one", "all", b"").body["data"]["successful_kills"] == 0
    assert len(listed(access, token="two")) == 1


def test_connections_of_one_endpoint_can_be_ended() -> None:
    access, _ = made()
    killed: list[str] = []
    for name in ("sample_stream", "filtered_stream"):
        access.hold(Slot(("one", name, ""), name, "", lambda name=name: killed.append(name)))  # type: ignore[misc]  # a default binds the name
    access.kill("one", "filtered_stream", b"")
    assert killed == ["filtered_stream"]
    assert [shown["endpoint_name"] for shown in listed(access)] == ["sample_stream"]
    assert listed(access, status="inactive")[0]["disconnect_reason"] == "operator_disconnect"


def test_connections_are_killed_by_id_and_unknown_ids_named() -> None:
    access, _ = made(most=2)
    first, second = slot(), slot()
    access.hold(first)
    access.hold(second)
    body = orjson.dumps({"uuids": [second.id, "nobody"]})
    assert access.kill("one", "", body).body["data"] == {
        "successful_kills": 1,
        "failed_kills": 1,
        "results": [{"uuid": second.id, "success": True}, {"uuid": "nobody", "success": False}],
    }
    assert [shown["id"] for shown in listed(access)] == [first.id]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"uuids":[]}',
        b'{"uuids":"abc"}',
        b'{"uuids":[{}]}',
        b'{"uuids":[1]}',
        b'{"ids":["a"]}',
        orjson.dumps({"uuids": ["x"] * 101}),
    ],
)
def test_invalid_ids_are_refused(body: bytes) -> None:
    access, _ = made()
    assert access.kill("one", "", body).status == 400


def test_unknown_endpoint_is_refused() -> None:
    access, _ = made()
    assert access.kill("one", "nothing", b"").status == 400


def test_last_thousand_ended_connections_are_kept() -> None:
    access, _ = made()
    for _ in range(_access.KEPT_SLOTS + 5):
        one = slot()
        access.hold(one)
        access.release(one, "closed", unnoticed=False)
    assert len(listed(access, status="all")) == _access.KEPT_SLOTS


def test_requests_above_the_limit_are_refused_in_the_window() -> None:
    access, clock = made(window=900.0)
    assert [access.spend("one", "x", 2) is None for _ in range(3)] == [True, True, False]
    clock.now += 899.0
    assert access.spend("one", "x", 2) is not None
    clock.now += 1.0
    assert access.spend("one", "x", 2) is None


def test_headers_have_limit_remaining_and_reset() -> None:
    access, clock = made(window=900.0)
    clock.now += 0.25
    left = []
    for _ in range(4):
        access.spend("one", "x", 2)
        headers = access.headers("one", "x")
        left.append(headers["x-rate-limit-remaining"])
        assert headers["x-rate-limit-limit"] == "2"
        assert headers["x-rate-limit-reset"] == "1000901"
        clock.now += 1
    assert left == ["1", "0", "0", "0"]


def test_request_at_the_reset_is_accepted() -> None:
    access, clock = made(window=900.3)
    access.spend("one", "x", 1)
    refusal = access.spend("one", "x", 1)
    assert refusal is not None
    clock.now = float(refusal.headers["x-rate-limit-reset"])
    assert access.spend("one", "x", 1) is None


def test_budgets_are_by_token_and_resource() -> None:
    access, _ = made()
    asked = [("one", "x"), ("one", "y"), ("two", "x"), ("one", "x")]
    assert [access.spend(*pair, 1) is None for pair in asked] == [True, True, True, False]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("Bearer right", "right"),
        ("Bearer wrong", None),
        ("Basic right", None),
        ("Bearer", None),
        ("Bearer r\xe4ght", None),
        ("", None),
    ],
)
def test_only_the_right_token_is_accepted(given: str, found: str | None) -> None:
    access = Access("right", 1, 900.0, 0.0)
    assert access.token_of({"authorization": given}) == found
