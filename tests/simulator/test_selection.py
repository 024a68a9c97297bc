"""The frames that a connection gets, by partition, language and rules."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from rxtweets.api._endpoints import ENDPOINTS
from rxtweets.simulator._ruleset import Ruleset, Selection


def frame(text: str, lang: str = "en", **more: Any) -> bytes:
    return orjson.dumps({"data": {"id": "1", "text": text, "lang": lang}, **more})


def ruled(*rules: str, period: int = 0) -> tuple[Selection, Ruleset]:
    ruleset = Ruleset()
    ruleset.start_with(rules)
    return Selection(ENDPOINTS["filtered_stream"], 0, ruleset, period), ruleset


def test_every_position_is_in_one_partition() -> None:
    endpoint = ENDPOINTS["firehose_stream"]
    partitions = [Selection(endpoint, number, None, 0) for number in range(1, 21)]
    for position in range(100):
        assert sum(select(position, b"x") == b"x" for select in partitions) == 1


def test_without_a_partition_all_pass() -> None:
    select = Selection(ENDPOINTS["firehose_stream"], 0, None, 0)
    assert [select(position, b"x") for position in range(3)] == [b"x"] * 3


def test_language_stream_has_tweets_of_its_language() -> None:
    select = Selection(ENDPOINTS["firehose_stream_lang_ja"], 0, None, 0)
    assert select(0, frame("a", "ja")) == frame("a", "ja")
    assert select(1, frame("a", "en")) is None


def test_frame_names_the_rules_that_it_matches() -> None:
    select, _ = ruled("cat", "dog")
    got = select(0, frame("a cat"))
    assert got is not None
    payload = orjson.loads(got)
    assert payload["data"]["text"] == "a cat"
    assert len(payload["matching_rules"]) == 1
    assert select(1, frame("a bird")) is None


def test_frame_may_match_several_rules() -> None:
    select, _ = ruled("cat", "dog", "bird")
    got = select(0, frame("cat and dog"))
    assert got is not None
    assert len(orjson.loads(got)["matching_rules"]) == 2


def test_recorded_rules_are_replaced() -> None:
    select, _ = ruled("cat")
    old = frame("a cat", matching_rules=[{"id": "7", "tag": "old"}])
    got = select(0, old + b" ")
    assert got is not None
    assert got.count(b"matching_rules") == 1
    assert b"old" not in got
    orjson.loads(got)


@pytest.mark.parametrize("period", [0, 10])
def test_change_of_the_rules_acts_immediately(period: int) -> None:
    select, rules = ruled("cat", period=period)
    assert select(3, frame("a dog")) is None
    rules.start_with([])
    rules.change({}, b'{"add":[{"value":"dog"}]}')
    assert select(13, frame("a dog")) is not None
    rules.change({"delete_all": "true"}, b"")
    assert select(23, frame("a dog")) is None


@pytest.mark.parametrize(
    "line",
    [b"", b"no json", b"7", b"[]", b'{"errors":[{"title":"x"}]}', b'{"data":[]}', b'{"data":null}'],
)
@pytest.mark.parametrize("name", ["filtered_stream", "firehose_stream_lang_ja"])
def test_lines_that_are_no_tweets_pass(line: bytes, name: str) -> None:
    _, rules = ruled("cat")
    select = Selection(ENDPOINTS[name], 0, rules if name == "filtered_stream" else None, 0)
    assert select(0, line) == line
