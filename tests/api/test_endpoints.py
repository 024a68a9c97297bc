"""Endpoints and names against X's description of its API."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from rxtweets.api._endpoints import (
    ENDPOINTS,
    KNOWN,
    Endpoint,
    UnknownNameWarning,
    warn_of_unknown,
)

OPTIONS = {
    "tweet.fields": "tweet_fields",
    "user.fields": "user_fields",
    "media.fields": "media_fields",
    "place.fields": "place_fields",
    "poll.fields": "poll_fields",
    "like_with_tweet_author.fields": "like_fields",
    "expansions": "expansions",
}


@pytest.fixture(params=["newer_description", "older_description"])
def description(request: pytest.FixtureRequest) -> Any:
    path: Path = request.getfixturevalue(request.param)
    return orjson.loads(path.read_bytes())


def streams(description: Any) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Path and parameters of every streaming operation."""
    shared = description["components"]["parameters"]
    for path, operations in description["paths"].items():
        operation = operations.get("get", {})
        if operation.get("x-twitter-streaming"):
            given = operation.get("parameters", [])
            full = [shared[item["$ref"].split("/")[-1]] if "$ref" in item else item
                    for item in given]  # fmt: skip
            yield path, {parameter["name"]: parameter["schema"] for parameter in full}


def by_path() -> dict[str, Endpoint]:
    return {endpoint.path: endpoint for endpoint in ENDPOINTS.values()}


def test_endpoints_are_the_streams_of_x(description: Any) -> None:
    found = {path for path, _ in streams(description)}
    assert len(found) >= 15
    assert found == set(by_path())


def test_partitions_are_those_of_x(description: Any) -> None:
    for path, parameters in streams(description):
        partition = parameters.get("partition", {"minimum": 1, "maximum": 0})
        assert partition["minimum"] == 1
        assert by_path()[path].partitions == partition["maximum"], path


def test_streams_with_replay_are_those_of_x(description: Any) -> None:
    for path, parameters in streams(description):
        assert by_path()[path].replays == ("start_time" in parameters), path


def test_streams_with_fields_are_those_of_x(description: Any) -> None:
    for path, parameters in streams(description):
        assert by_path()[path].has_fields == ("tweet.fields" in parameters), path
        carries = by_path()[path].carries
        assert (carries == "likes") == ("like_with_tweet_author.fields" in parameters), path


def test_every_stream_takes_five_minutes_of_backfill(description: Any) -> None:
    for path, parameters in streams(description):
        assert parameters["backfill_minutes"]["maximum"] == 5, path


def test_every_field_and_expansion_of_x_is_known(description: Any) -> None:
    names = 0
    for path, parameters in streams(description):
        for parameter, option in OPTIONS.items():
            known = parameters.get(parameter, {}).get("items", {}).get("enum", [])
            names += len(known)
            assert not set(known) - KNOWN[option], (path, parameter)
    assert names > 500


def test_every_parameter_of_x_has_an_option(description: Any) -> None:
    others = {"backfill_minutes", "partition", "start_time", "end_time"}
    for path, parameters in streams(description):
        assert set(parameters) <= set(OPTIONS) | others, path


def test_endpoint_names_are_those_of_the_connections_api(description: Any) -> None:
    operation = description["paths"]["/2/connections/{endpoint_id}"]["delete"]
    (known,) = (item["schema"]["enum"] for item in operation["parameters"])
    assert set(known) == set(ENDPOINTS) - {"activity_stream"}


def test_endpoints_are_keyed_by_name() -> None:
    assert all(name == endpoint.name for name, endpoint in ENDPOINTS.items())


def test_known_name_gets_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for option, names in KNOWN.items():
            warn_of_unknown(option, names)


def test_unknown_name_gets_a_warning_with_a_hint() -> None:
    with pytest.warns(UnknownNameWarning, match=r"tweet_fields: .*'langs'; did you mean lang\?"):
        warn_of_unknown("tweet_fields", ["langs"])


def test_strange_name_gets_a_warning_without_a_hint() -> None:
    with pytest.warns(UnknownNameWarning) as caught:
        warn_of_unknown("poll_fields", ["zzzz", "id"])
    assert [str(warning.message) for warning in caught] == [
        "poll_fields: X was not known to have 'zzzz'. It is asked for all the same."
    ]


def test_warning_names_the_line_of_the_caller() -> None:
    with pytest.warns(UnknownNameWarning) as caught:
        warn_of_unknown("poll_fields", ["zzzz"])
    assert caught[0].filename == __file__
