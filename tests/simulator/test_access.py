"""Who is let in, and for how long what has gone is remembered; by a clock of the test's."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from rxtweets.simulator import _access
from rxtweets.simulator._access import Gate, Slot


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_access, "GRACE", 0.0)


def made(most: int = 1, forget: float = 0.0, window: float = 900.0) -> tuple[Gate, Clock]:
    clock = Clock()
    return Gate(None, most, window, forget, clock), clock


def slot(endpoint: str = "sample_stream", partition: str = "", token: str = "one") -> Slot:
    return Slot((token, endpoint, partition), endpoint, "127.0.0.1", lambda: None)


def listed(gate: Gate, token: str = "one", **query: str) -> list[dict[str, Any]]:
    body: dict[str, Any] = gate.connections(token, query).body
    assert body["meta"]["result_count"] == len(body.get("data", []))
    return list(body.get("data", []))


def test_a_token_holds_one_stream_of_an_endpoint() -> None:
    gate, _ = made()
    assert gate.hold(slot()) is None
    refusal = gate.hold(slot())
    assert refusal is not None
    assert refusal.body["connection_issue"] == "TooManyConnections"


def test_another_endpoint_another_partition_and_another_token_have_room_of_their_own() -> None:
    gate, _ = made()
    assert gate.hold(slot("firehose_stream", "1")) is None
    assert gate.hold(slot("firehose_stream", "2")) is None
    assert gate.hold(slot("sample_stream")) is None
    assert gate.hold(slot("firehose_stream", "1", token="two")) is None
    assert gate.hold(slot("firehose_stream", "1")) is not None


def test_two_redundant_connections_are_two_and_not_three() -> None:
    gate, _ = made(most=2)
    assert [gate.hold(slot()) is None for _ in range(3)] == [True, True, False]


def test_who_leaves_makes_room() -> None:
    gate, _ = made()
    first = slot()
    gate.hold(first)
    gate.leave(first, "closed", unnoticed=False)
    assert gate.hold(slot()) is None


def test_one_that_vanished_is_held_until_it_is_forgotten() -> None:
    gate, clock = made(forget=300.0)
    first = slot()
    gate.hold(first)
    gate.leave(first, "client closed", unnoticed=True)
    clock.now += 299.0
    assert gate.hold(slot()) is not None
    clock.now += 1.0
    assert gate.hold(slot()) is None


def test_without_memory_one_that_vanished_makes_room_at_once() -> None:
    gate, _ = made(forget=0.0)
    first = slot()
    gate.hold(first)
    gate.leave(first, "client closed", unnoticed=True)
    assert gate.hold(slot()) is None


@pytest.mark.parametrize("which", ["all", "sample_stream"])
def test_one_that_vanished_can_be_given_up(which: str) -> None:
    gate, _ = made(forget=300.0)
    first = slot()
    gate.hold(first)
    gate.leave(first, "client closed", unnoticed=True)
    data = gate.give_up("one", which, b"").body["data"]
    assert data["successful_kills"] == 1
    assert data["results"] == [{"uuid": first.id, "success": True}]
    assert gate.hold(slot()) is None


def test_connections_are_listed_as_x_shows_them() -> None:
    gate, clock = made()
    first = slot()
    gate.hold(first)
    assert listed(gate) == [
        {
            "id": first.id,
            "endpoint_name": "sample_stream",
            "client_ip": "127.0.0.1",
            "connected_at": "1970-01-12T13:46:40.000Z",
        }
    ]
    clock.now += 5
    gate.leave(first, "closed", unnoticed=False)
    [ended] = listed(gate, status="inactive")
    assert ended["disconnected_at"] == "1970-01-12T13:46:45.000Z"
    assert ended["disconnect_reason"] == "closed"


def test_active_inactive_and_all_are_told_apart() -> None:
    gate, _ = made(most=5)
    first, second = slot(), slot()
    gate.hold(first)
    gate.hold(second)
    gate.leave(first, "closed", unnoticed=False)
    assert [each["id"] for each in listed(gate)] == [second.id]
    assert [each["id"] for each in listed(gate, status="active")] == [second.id]
    assert [each["id"] for each in listed(gate, status="inactive")] == [first.id]
    assert [each["id"] for each in listed(gate, status="all")] == [second.id, first.id]


def test_an_unknown_status_is_refused() -> None:
    gate, _ = made()
    assert gate.connections("one", {"status": "open"}).status == 400


def test_one_that_vanished_is_active_until_it_is_forgotten() -> None:
    gate, clock = made(forget=10.0)
    first = slot()
    gate.hold(first)
    gate.leave(first, "client closed", unnoticed=True)
    assert "disconnected_at" not in listed(gate)[0]
    clock.now += 10.0
    assert listed(gate) == []
    assert listed(gate, status="inactive")[0]["id"] == first.id


def test_the_list_is_filtered_by_endpoints() -> None:
    gate, _ = made()
    for name in ("sample_stream", "filtered_stream", "activity_stream"):
        gate.hold(slot(name))
    names = {
        each["endpoint_name"] for each in listed(gate, endpoints="sample_stream,firehose_stream")
    }
    assert names == {"sample_stream"}


def test_a_token_sees_and_ends_its_own_connections_only() -> None:
    gate, _ = made()
    gate.hold(slot(token="two"))
    assert listed(gate, token="one", status="all") == []
    assert gate.give_up("one", "all", b"").body["data"]["successful_kills"] == 0
    assert len(listed(gate, token="two")) == 1


def test_the_connections_of_one_endpoint_can_be_ended() -> None:
    gate, _ = made()
    killed: list[str] = []
    for name in ("sample_stream", "filtered_stream"):
        gate.hold(Slot(("one", name, ""), name, "", lambda name=name: killed.append(name)))  # type: ignore[misc]  # a default binds the name
    gate.give_up("one", "filtered_stream", b"")
    assert killed == ["filtered_stream"]
    assert [each["endpoint_name"] for each in listed(gate)] == ["sample_stream"]
    assert listed(gate, status="inactive")[0]["disconnect_reason"] == "operator_disconnect"


def test_connections_can_be_ended_by_id_and_unknown_ones_are_named() -> None:
    gate, _ = made(most=2)
    first, second = slot(), slot()
    gate.hold(first)
    gate.hold(second)
    body = orjson.dumps({"uuids": [second.id, "nobody"]})
    assert gate.give_up("one", "", body).body["data"] == {
        "successful_kills": 1,
        "failed_kills": 1,
        "results": [{"uuid": second.id, "success": True}, {"uuid": "nobody", "success": False}],
    }
    assert [each["id"] for each in listed(gate)] == [first.id]


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
        orjson.dumps({"uuids": ["x"] * 101}),
    ],
)
def test_ids_that_are_none_are_refused(body: bytes) -> None:
    gate, _ = made()
    assert gate.give_up("one", "", body).status == 400


def test_an_unknown_endpoint_is_refused() -> None:
    gate, _ = made()
    assert gate.give_up("one", "nothing", b"").status == 400


def test_of_connections_that_ended_the_last_thousand_are_kept() -> None:
    gate, _ = made()
    for _ in range(gate_kept() + 5):
        one = slot()
        gate.hold(one)
        gate.leave(one, "closed", unnoticed=False)
    assert len(listed(gate, status="all")) == gate_kept()


def gate_kept() -> int:
    return _access.KEPT


def test_requests_beyond_the_limit_are_refused_until_the_window_ends() -> None:
    gate, clock = made(window=900.0)
    assert [gate.spend("one", "x", 2) is None for _ in range(3)] == [True, True, False]
    clock.now += 899.0
    assert gate.spend("one", "x", 2) is not None
    clock.now += 1.0
    assert gate.spend("one", "x", 2) is None


def test_the_headers_say_limit_rest_and_end_of_the_window() -> None:
    gate, clock = made(window=900.0)
    clock.now += 0.25
    left = []
    for _ in range(4):
        gate.spend("one", "x", 2)
        headers = gate.headers("one", "x")
        left.append(headers["x-rate-limit-remaining"])
        assert headers["x-rate-limit-limit"] == "2"
        assert headers["x-rate-limit-reset"] == "1000901"
        clock.now += 1
    assert left == ["1", "0", "0", "0"]


def test_who_comes_back_at_the_reset_is_let_in() -> None:
    gate, clock = made(window=900.3)
    gate.spend("one", "x", 1)
    refusal = gate.spend("one", "x", 1)
    assert refusal is not None
    clock.now = float(refusal.headers["x-rate-limit-reset"])
    assert gate.spend("one", "x", 1) is None


def test_budgets_are_by_token_and_by_what_is_asked_for() -> None:
    gate, _ = made()
    asked = [("one", "x"), ("one", "y"), ("two", "x"), ("one", "x")]
    assert [gate.spend(*each, 1) is None for each in asked] == [True, True, True, False]


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
    gate = Gate("right", 1, 900.0, 0.0)
    assert gate.token_of({"authorization": given}) == found
