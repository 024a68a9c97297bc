"""The command ``rxtweets connections`` against a server of fixed answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from rxtweets.cli import main

if TYPE_CHECKING:
    from tests.conftest import Stub

PATH = "/2/connections"
HELD = {
    "id": "1f3c",
    "endpoint_name": "filtered_stream",
    "client_ip": "192.0.2.1",
    "connected_at": "2025-09-19T10:00:00.000Z",
}
ENDED = {**HELD, "disconnected_at": "2025-09-19T11:00:00Z", "disconnect_reason": "SlowReader"}


def test_connections_are_listed_a_line_each(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers({"data": [HELD, ENDED]})
    arguments = ["connections", "list", "filtered_stream", "--status", "all"]
    assert main([*arguments, "--base-url", stub.url]) == 0
    since = "1f3c\tfiltered_stream\t192.0.2.1\tsince 2025-09-19 10:00:00"
    assert capsys.readouterr().out.splitlines() == [
        since,
        f"{since}\tuntil 2025-09-19 11:00:00 SlowReader",
    ]
    assert stub.asked[0].params["endpoints"] == "filtered_stream"
    assert stub.asked[0].params["status"] == "all"


def test_connections_are_listed_as_json(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers({"data": [HELD]})
    assert main(["connections", "list", "--json", "--base-url", stub.url]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "id": "1f3c",
        "endpoint": "filtered_stream",
        "client_ip": "192.0.2.1",
        "connected_at": "2025-09-19T10:00:00+00:00",
        "disconnected_at": None,
        "disconnect_reason": "",
    }


@pytest.mark.parametrize(
    ("streams", "paths"),
    [
        (["filtered_stream"], ["/filtered_stream"]),
        (["filtered_stream", "sample_stream"], ["/filtered_stream", "/sample_stream"]),
        (["all"], ["/all"]),
    ],
)
def test_connections_are_freed(
    stub: Stub, capsys: pytest.CaptureFixture[str], streams: list[str], paths: list[str]
) -> None:
    stub.answers(*({"data": {"successful_kills": 1}} for _ in paths))
    assert main(["connections", "free", *streams, "--base-url", stub.url]) == 0
    assert capsys.readouterr().out == f"{len(paths)} connection(s) freed\n"
    assert [(request.method, request.path) for request in stub.asked] == [
        ("DELETE", PATH + path) for path in paths
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["free", "firehose"], "endpoint 'firehose' is no stream"),
        (["list", "--status", "open"], "active, inactive, all"),
    ],
)
def test_wrong_option_is_one_line_and_exit_code_2(
    stub: Stub, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["connections", *arguments, "--base-url", stub.url]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert (said.out, said.err.count("\n"), stub.asked) == ("", 1, [])


def test_refusal_of_x_is_exit_code_1(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers((403, {"title": "Client Forbidden"}))
    assert main(["connections", "free", "all", "--base-url", stub.url]) == 1
    assert "403: Client Forbidden" in capsys.readouterr().err
