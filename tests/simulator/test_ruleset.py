"""The rules of the filtered stream, as the rules API shows and changes them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

import rxtweets
from rxtweets.simulator._ruleset import Ruleset
from rxtweets.simulator.script import Reply


def change(rules: Ruleset, body: object = None, **query: str) -> Reply:
    return rules.change(query, b"" if body is None else orjson.dumps(body))


def add(rules: Ruleset, *values: str, **query: str) -> dict[str, Any]:
    body: dict[str, Any] = change(
        rules, {"add": [{"value": text} for text in values]}, **query
    ).body
    return body


def values(rules: Ruleset, **query: str) -> list[str]:
    return [rule["value"] for rule in rules.get(query).body.get("data", [])]


def summary(answer: Reply) -> dict[str, int]:
    found: dict[str, int] = answer.body["meta"]["summary"]
    return found


def test_rules_are_added_with_their_tags() -> None:
    rules = Ruleset()
    answer = change(rules, {"add": [{"value": "cat", "tag": "cats"}, {"value": "dog"}]})
    assert answer.status == 201
    first, second = answer.body["data"]
    assert (first["value"], first["tag"]) == ("cat", "cats")
    assert second == {"id": second["id"], "value": "dog"}
    assert first["id"] != second["id"]
    assert summary(answer) == {"created": 2, "not_created": 0, "valid": 2, "invalid": 0}


def test_without_rules_there_is_no_data() -> None:
    body = Ruleset().get({}).body
    assert list(body) == ["meta"]
    assert body["meta"]["result_count"] == 0


def test_duplicate_rule_is_refused_with_its_id() -> None:
    rules = Ruleset()
    [kept] = add(rules, "cat")["data"]
    answer = change(rules, {"add": [{"value": "cat", "tag": "other"}]})
    assert answer.status == 200
    [error] = answer.body["errors"]
    assert (error["title"], error["value"], error["id"]) == ("DuplicateRule", "cat", kept["id"])
    assert error["type"].endswith("/duplicate-rules")
    assert summary(answer) == {"created": 0, "not_created": 1, "valid": 0, "invalid": 1}


def test_invalid_rules_are_refused_and_the_others_added() -> None:
    rules = Ruleset()
    body = add(rules, "cat", "(dog", "is:retweet", "bird")
    assert [error["value"] for error in body["errors"]] == ["(dog", "is:retweet"]
    assert all(error["type"].endswith("/invalid-rules") for error in body["errors"])
    assert all(error["details"] for error in body["errors"])
    assert values(rules) == ["cat", "bird"]


@pytest.mark.parametrize(
    "rule", ["tea OR -milk", "a", "'oat milk'", "tea OR milk sample:5", "#1 x"]
)
def test_rule_is_refused_with_the_title_of_x(rule: str) -> None:
    assert [error["title"] for error in add(Ruleset(), rule)["errors"]] == ["UnprocessableEntity"]


def test_refusal_names_the_position_in_the_words_of_x() -> None:
    [error] = add(Ruleset(), "cat 'dog'")["errors"]
    assert error["details"][0].endswith("(at position 5)")
    assert "rule" not in error["details"][0]


def test_rule_with_an_unsupported_operator_is_refused_by_name() -> None:
    [error] = add(Ruleset(), "point_radius:[1 2 3km]")["errors"]
    assert "point_radius" in error["details"][0]


@pytest.mark.parametrize("item", [{}, {"value": 7}, {"value": None}, "cat", None, []])
def test_request_with_an_item_that_is_no_rule_is_refused(item: object) -> None:
    rules = Ruleset()
    assert change(rules, {"add": [{"value": "cat"}, item]}).status == 400
    assert len(rules) == 0


def test_empty_rule_is_invalid() -> None:
    assert summary(change(Ruleset(), {"add": [{"value": ""}]}))["invalid"] == 1


def test_dry_run_of_an_addition_keeps_the_rules() -> None:
    rules = Ruleset()
    body = add(rules, "cat", "(dog", "cat", dry_run="true")
    assert body["meta"]["summary"]["valid"] == 1
    assert [error["title"] for error in body["errors"]] == ["UnprocessableEntity", "DuplicateRule"]
    assert len(rules) == rules.version == 0


def test_rules_beyond_the_cap_are_refused() -> None:
    rules = Ruleset(cap=2)
    [error] = add(rules, "one", "two", "three")["errors"]
    assert error["type"].endswith("/rule-cap")
    assert values(rules) == ["one", "two"]


def test_too_long_rule_is_invalid() -> None:
    rules = Ruleset(longest=5)
    [error] = add(rules, "catty", "kitten")["errors"]
    assert error["value"] == "kitten"


def test_rules_are_deleted_by_id_or_by_value() -> None:
    rules = Ruleset()
    first, _, _ = add(rules, "one", "two", "three")["data"]
    answer = change(rules, {"delete": {"ids": [first["id"]]}})
    assert summary(answer) == {"deleted": 1, "not_deleted": 0}
    answer = change(rules, {"delete": {"values": ["two"]}})
    assert summary(answer) == {"deleted": 1, "not_deleted": 0}
    assert values(rules) == ["three"]


def test_unknown_rules_are_named() -> None:
    rules = Ruleset()
    [kept] = add(rules, "one")["data"]
    answer = change(rules, {"delete": {"ids": [kept["id"], "17"]}})
    assert summary(answer) == {"deleted": 1, "not_deleted": 1}
    assert "17" in answer.body["errors"][0]["errors"][0]["message"]
    answer = change(rules, {"delete": {"values": ["gone"]}})
    assert "gone" in answer.body["errors"][0]["errors"][0]["message"]


def test_rule_named_twice_is_deleted_once() -> None:
    rules = Ruleset()
    [kept] = add(rules, "one")["data"]
    answer = change(rules, {"delete": {"ids": [kept["id"], kept["id"]]}})
    assert summary(answer) == {"deleted": 1, "not_deleted": 0}


def test_dry_run_of_a_deletion_keeps_the_rules() -> None:
    rules = Ruleset()
    add(rules, "one")
    answer = change(rules, {"delete": {"values": ["one"]}}, dry_run="true")
    assert summary(answer)["deleted"] == 1
    assert values(rules) == ["one"]


def test_all_rules_can_be_deleted_together() -> None:
    rules = Ruleset()
    add(rules, "one", "two")
    assert summary(change(rules, delete_all="true")) == {"deleted": 2, "not_deleted": 0}
    assert len(rules) == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nothing",
        b"[]",
        b"7",
        b"{}",
        b'{"add":[]}',
        b'{"add":{}}',
        b'{"add":[{"value":"a"}],"delete":{"ids":["1"]}}',
        b'{"delete":{}}',
        b'{"delete":[]}',
        b'{"delete":{"ids":[]}}',
        b'{"delete":{"ids":["1"],"values":["a"]}}',
        b'{"delete":{"ids":"17"}}',
        b'{"delete":{"ids":17}}',
        b'{"delete":{"values":[{}]}}',
        b'{"replace":[{"value":"a"}]}',
        b'{"add":[{"tag":"no value"}]}',
        b'{"add":[{"value":"a","tag":["b"]}]}',
        b'{"delete":{"ids":[123]}}',
    ],
)
def test_other_bodies_are_refused(body: bytes) -> None:
    answer = Ruleset().change({}, body)
    assert answer.status == 400
    assert answer.body["errors"][0]["message"] == "JSON doesn't match expected schema"
    assert answer.body["type"].endswith("/invalid-request")


def test_rules_are_returned_in_pages() -> None:
    rules = Ruleset()
    add(rules, *(f"word{number}" for number in range(7)))
    found, token, pages = [], "", 0
    while pages == 0 or token:
        query = {"max_results": "3"} | ({"pagination_token": token} if token else {})
        body = rules.get(query).body
        found += [rule["value"] for rule in body["data"]]
        assert body["meta"]["result_count"] == len(body["data"])
        token = body["meta"].get("next_token", "")
        pages += 1
    assert pages == 3
    assert found == [f"word{number}" for number in range(7)]


def test_rules_can_be_requested_by_id() -> None:
    rules = Ruleset()
    first, _, third = add(rules, "one", "two", "three")["data"]
    assert values(rules, ids=f"{third['id']},{first['id']},7") == ["one", "three"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_results", "0"),
        ("max_results", "1001"),
        ("max_results", "x"),
        ("max_results", "-1"),
        ("pagination_token", "x"),
    ],
)
def test_wrong_parameters_are_named(name: str, value: str) -> None:
    answer = Ruleset().get({name: value})
    assert answer.status == 400
    assert answer.body["errors"][0]["parameters"] == {name: [value]}


def test_counts_are_those_of_x() -> None:
    rules = Ruleset(cap=1_000)
    add(rules, "one", "two")
    data = rules.counts().body["data"]
    assert data["cap_per_client_app"] == data["cap_per_project"] == "1000"
    assert int(data["client_app_rules_count"]["rule_count"]) == 2
    assert int(data["project_rules_count"]) == 2


def test_every_change_has_a_new_version() -> None:
    rules = Ruleset()
    versions = [rules.version]
    add(rules, "one")
    versions.append(rules.version)
    change(rules, {"delete": {"values": ["one"]}})
    versions.append(rules.version)
    assert versions == sorted(set(versions))


def test_initial_rules_are_checked() -> None:
    rules = Ruleset()
    rules.start_with(["cat", "dog"])
    assert values(rules) == ["cat", "dog"]
    for wrong in ("(cat", "cat"):
        with pytest.raises(rxtweets.ConfigurationError, match="rules"):
            rules.start_with([wrong])


def test_same_rules_get_the_same_ids() -> None:
    one, two = Ruleset(), Ruleset()
    assert add(one, "x", "y")["data"] == add(two, "x", "y")["data"]


def test_frame_names_the_rules_that_it_matches() -> None:
    rules = Ruleset()
    change(rules, {"add": [{"value": "cat", "tag": "c"}, {"value": "dog", "tag": "d"}]})
    matching = rules.matching({"data": {"id": "1", "text": "a cat"}})
    assert [rule["tag"] for rule in matching] == ["c"]
    assert rules.matching({"data": {"id": "1", "text": "a bird"}}) == []
