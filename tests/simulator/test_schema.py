"""The simulator's answers are valid by X's descriptions of its API.

The descriptions are in a directory beside the checkout; without them these tests are skipped. Each
answer is validated against the response schema of its operation. The validation is stricter than
OpenAPI: a property that the description lacks is an error.

There are two descriptions. The older one has the older names and the problem types of streams; the
newer one has the newer names. The tests deviate from them in these cases:

* Each description has one half of the names in frames of the generation ``both``. Only there,
  unknown properties are allowed.
* The newer one has nine types of problems, none of streams, rules or tokens, and fewer properties
  of a bad request than X sends. Problems are validated against the older one.
* The type of a problem may begin with either of X's hosts. Only the last segment is compared.
* Counts of rules are integers in the older one, strings in the newer one and on the wire.
* X answers with 201 when it adds rules; both have 200 only.
* A property outside of an activity's payload selects its schema, which is looked up here. A deleted
  post may match the schema of a post, too. The older one has no activities of posts.
* `UNDESCRIBED` names properties that X sends, as public reports show, and no schema has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from rxtweets import simulator
from rxtweets.api._endpoints import ENDPOINTS
from rxtweets.simulator import script
from rxtweets.simulator._sample_events import USER_ACTIONS
from rxtweets.simulator.script import DISCONNECT_TYPES, Close, Disconnect, Reply, Serve

RULES = "/2/tweets/search/stream/rules"
STREAM = "/2/tweets/search/stream"
ACTIVITY = "/2/activity/stream"
FRAMES = 100
"""Of each stream: enough for every kind of tweet and event."""

UNDESCRIBED = {
    "ClientForbiddenProblem": ("client_id", "required_enrollment"),
    "Connection": ("id",),
    "GetRulesResponse/properties/meta": ("sent",),
    "InvalidRuleProblem": ("details", "value"),
    "RulesCapProblem": ("value",),
    "UsageCapExceededProblem": ("account_id", "product_name"),
}
COPIED = {"type", "enum", "pattern", "format", "required", "uniqueItems"} | {
    f"{bound}{what}" for bound in ("min", "max") for what in ("imum", "Length", "Items")
}
FORMATS = FormatChecker(formats=())


@FORMATS.checks("date-time", raises=ValueError)
def is_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    shape = re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", value)
    return shape is not None and bool(datetime.fromisoformat(value))


@FORMATS.checks("int32")
def is_int32(value: object) -> bool:
    return not isinstance(value, int) or -(2**31) <= value < 2**31


@FORMATS.checks("int64")
def is_int64(value: object) -> bool:
    return not isinstance(value, int) or -(2**63) <= value < 2**63


@FORMATS.checks("uri")
def is_address(value: object) -> bool:
    return not isinstance(value, str) or bool(re.fullmatch(r"https?://[^\s/]+(/\S*)?", value))


class Description:
    """One description, made into JSON Schema.

    Every schema is there twice: closed to unknown properties, and open for `allOf` to extend.

    Args:
        path: of the OpenAPI document.
        strict: whether properties that it does not know are errors.
    """

    def __init__(self, path: Path, *, strict: bool = True) -> None:
        document = orjson.loads(path.read_bytes())
        self._paths = document["paths"]
        self._strict = strict
        self._schemas = schemas = document["components"]["schemas"]
        for where, names in UNDESCRIBED.items():
            schema, *steps = where.split("/")
            found = schemas.get(schema, {})
            for step in steps:
                found = found.get(step, {})
            found.setdefault("allOf", []).append({"properties": {name: {} for name in names}})
        layers = {
            layer: {name: self._adapted(value, closed=closed) for name, value in schemas.items()}
            for layer, closed in (("closed", True), ("open", False))
        }
        resource = DRAFT202012.create_resource(layers)
        self._registry: Registry[Any] = Registry().with_resource("x:", resource)

    def check(self, method: str, path: str, status: int, answers: Iterable[object]) -> None:
        """Validate answers of an operation, or frames of its stream."""
        responses = self._paths[path][method.lower()]["responses"]
        response = responses["200" if status in {200, 201} else "default"]
        wanted = [self._adapted(media["schema"]) for media in response["content"].values()]
        self._validate({"anyOf": wanted} if len(wanted) > 1 else wanted[0], answers)

    def check_activities(self, frames: Iterable[dict[str, Any]]) -> None:
        """Validate the payloads of activities."""
        mapping = self._schemas["ActivityStreamingResponsePayload"]["discriminator"]["mapping"]
        for frame in frames:
            ref = mapping[frame["data"]["event_type"]]
            self._validate(self._adapted({"$ref": ref}), [frame["data"]["payload"]])

    def _validate(self, schema: Mapping[str, Any], answers: Iterable[object]) -> None:
        validator = Draft202012Validator(schema, registry=self._registry, format_checker=FORMATS)
        for answer in answers:
            faults = [said for error in validator.iter_errors(answer) for said in _said(error)]
            assert not faults, "\n".join([f"{answer!r:.3000}", *faults])

    def _adapted(self, schema: Mapping[str, Any], *, closed: bool = True) -> dict[str, Any]:
        if "$ref" in schema:
            name = schema["$ref"].removeprefix("#/components/schemas/")
            return {"$ref": f"x:#/{'closed' if closed else 'open'}/{name}"}
        made = {name: value for name, value in schema.items() if name in COPIED}
        decided_by = schema.get("discriminator", {}).get("propertyName", "")
        outside = decided_by.startswith("../")
        for name, item in schema.items():
            if name == "properties":
                made[name] = {key: self._adapted(value) for key, value in item.items()}
            elif name in {"oneOf", "anyOf", "allOf"}:
                inner = closed and name != "allOf"
                parts = [self._adapted(part, closed=inner) for part in item]
                made["anyOf" if outside else name] = parts
            elif name == "items" or (name == "additionalProperties" and isinstance(item, dict)):
                made[name] = self._adapted(item)
            elif name == "additionalProperties":
                made[name] = item
        extends = "properties" in made or "allOf" in made
        if self._strict and closed and extends and "additionalProperties" not in made:
            made["unevaluatedProperties"] = False
        mapping = schema.get("discriminator", {}).get("mapping")
        if mapping and closed and "oneOf" not in schema:
            made = self._dispatched(decided_by, mapping)
        return {"anyOf": [made, {"type": "null"}]} if schema.get("nullable") else made

    def _dispatched(self, name: str, mapping: Mapping[str, str]) -> dict[str, Any]:
        """The schema that the value of a property decides."""
        ends = {f"(^|/){value.rpartition('/')[2]}$": ref for value, ref in mapping.items()}
        cases = [
            {
                "if": {"properties": {name: {"pattern": end}}},
                "then": self._adapted({"$ref": ref}),
            }
            for end, ref in ends.items()
        ]
        known = {name: {"type": "string", "pattern": "|".join(ends)}}
        return {"type": "object", "required": [name], "properties": known, "allOf": cases}


def _said(error: ValidationError) -> Iterator[str]:
    if error.context:
        for cause in error.context:
            yield from _said(cause)
    else:
        yield f"  {error.json_path}: {error.message:.300}"


@pytest.fixture(scope="module")
def older(older_description: Path) -> Description:
    return Description(older_description)


@pytest.fixture(scope="module")
def newer(newer_description: Path) -> Description:
    return Description(newer_description)


def client(x: simulator.Simulator) -> httpx.Client:
    return httpx.Client(base_url=x.url, headers={"authorization": "Bearer any"}, timeout=20.0)


def frames(path: str, **options: Any) -> list[dict[str, Any]]:
    """The frames of a stream, as they come over the wire."""
    part = [Serve(FRAMES), Close()]
    with simulator.serve(rate=None, script=[part], **options) as x, client(x) as http:
        [partitions] = [
            endpoint.partitions for endpoint in ENDPOINTS.values() if endpoint.path == path
        ]
        answer = http.get(path, params={"partition": 1} if partitions else {})
    assert answer.status_code == 200
    return [orjson.loads(line) for line in answer.content.splitlines() if line]


CARRY_TWEETS = [endpoint.path for endpoint in ENDPOINTS.values() if endpoint.carries == "tweets"]
OTHERS = [endpoint.path for endpoint in ENDPOINTS.values() if endpoint.carries != "tweets"]
ANY_TWEET = ["url:example.com OR t.co OR RT"]
SIZES = pytest.mark.parametrize("size", ["small", "large"])


@SIZES
@pytest.mark.parametrize("path", CARRY_TWEETS)
def test_tweets_with_the_older_names(older: Description, path: str, size: str) -> None:
    answers = frames(path, names="tweet", size=size, rules=ANY_TWEET)
    older.check("GET", path, 200, answers)
    assert len(answers) == FRAMES


@SIZES
@pytest.mark.parametrize("path", CARRY_TWEETS)
def test_tweets_with_the_newer_names(newer: Description, path: str, size: str) -> None:
    newer.check("GET", path, 200, frames(path, names="post", size=size, rules=ANY_TWEET))


@SIZES
def test_tweets_with_the_names_of_both(
    older_description: Path, newer_description: Path, size: str
) -> None:
    answers = frames(STREAM, names="both", size=size, rules=ANY_TWEET)
    for path in (older_description, newer_description):
        Description(path, strict=False).check("GET", STREAM, 200, answers)


def test_unknown_property_is_found(older: Description, newer: Description) -> None:
    for description, names in ((older, "post"), (newer, "tweet")):
        with pytest.raises(AssertionError, match="Unevaluated properties"):
            description.check("GET", STREAM, 200, frames(STREAM, names=names, rules=ANY_TWEET))


@pytest.mark.parametrize("path", OTHERS)
def test_events_are_valid_by_the_description(
    older: Description, newer: Description, path: str
) -> None:
    answers = frames(path)
    assert len(answers) == FRAMES
    newer.check("GET", path, 200, answers)
    if path == ACTIVITY:
        newer.check_activities(answers)
        answers = [
            answer for answer in answers if not answer["data"]["event_type"].startswith("post.")
        ]
        older.check_activities(answers)
    older.check("GET", path, 200, answers)


@pytest.mark.parametrize(
    ("path", "kinds"),
    [
        ("/2/tweets/compliance/stream", "delete drop tweet_edit undrop withheld"),
        (
            "/2/users/compliance/stream",
            " ".join(USER_ACTIONS),
        ),
        ("/2/likes/compliance/stream", "delete"),
        ("/2/tweets/label/stream", "public_tweet_notice public_tweet_unviewable"),
    ],
    ids=lambda case: case.partition(" ")[0],
)
def test_every_kind_of_event_occurs(path: str, kinds: str) -> None:
    assert {kind for frame in frames(path) for kind in frame["data"]} == set(kinds.split())


@pytest.mark.parametrize("kind", DISCONNECT_TYPES)
@pytest.mark.parametrize("path", [STREAM, *OTHERS])
def test_disconnect_is_valid_by_the_description(older: Description, path: str, kind: str) -> None:
    partitions = {endpoint.path: endpoint.partitions for endpoint in ENDPOINTS.values()}[path]
    with (
        simulator.serve(rules=["cat"], script=[[Disconnect(kind), Close()]]) as x,
        client(x) as http,
    ):
        answer = http.get(path, params={"partition": 1} if partitions else {})
    older.check("GET", path, 200, [orjson.loads(answer.content)])


PROBLEMS = {
    "invalid_request": script.invalid_request("partition", "9", "no such partition"),
    "unauthorized": script.unauthorized(),
    "forbidden": script.forbidden(),
    "unsupported_authentication": script.unsupported_authentication(),
    "not_found": script.not_found(),
    "no_rules": script.no_rules(),
    "rate_limited": script.rate_limited(),
    "too_many_connections": script.too_many_connections(),
    "usage_capped": script.usage_capped(),
    "provisioning": script.provisioning(),
    **{f"unavailable {status}": script.unavailable(status) for status in (500, 502, 503, 504)},
}


@pytest.mark.parametrize("reply", PROBLEMS.values(), ids=PROBLEMS)
def test_problem_is_valid_by_the_description(older: Description, reply: Reply) -> None:
    with simulator.serve(rules=["cat"], script=[reply]) as x, client(x) as http:
        answer = http.get(STREAM)
    assert answer.status_code == reply.status
    older.check("GET", STREAM, answer.status_code, [answer.json()])


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("GET", "/2/tweets/sample10/stream", {}),
        ("GET", "/2/tweets/sample10/stream", {"partition": "3"}),
        ("GET", STREAM, {"backfill_minutes": "6"}),
        ("GET", STREAM, {"start_time": "yesterday"}),
        ("GET", "/2/tweets/sample/stream", {"start_time": "2026-01-31T12:00:00Z"}),
        ("GET", RULES, {"max_results": "0"}),
        ("POST", RULES, {"delete": "everything"}),
        ("DELETE", "/2/connections", {}),
    ],
)
def test_refusals_are_valid_by_the_description(
    older: Description, method: str, path: str, query: dict[str, str]
) -> None:
    with simulator.serve(rules=["cat"]) as x, client(x) as http:
        answer = http.request(method, path, params=query)
    assert answer.status_code == 400
    older.check(method, path, 400, [answer.json()])


@pytest.fixture
def x() -> Iterator[simulator.Simulator]:
    with simulator.serve() as x:
        yield x


def test_answers_about_rules_are_valid(
    older: Description, newer: Description, x: simulator.Simulator
) -> None:
    def ask(method: str, path: str = RULES, json: object = None, **query: str) -> Any:
        answer = http.request(method, path, params=query, json=json)
        assert answer.status_code in {200, 201}
        body = answer.json()
        newer_body = {name: value for name, value in body.items() if name != "errors"}
        older_body = body
        if path.endswith("counts"):
            numbers = ("cap_per_client_app", "cap_per_project", "project_rules_count")
            whole = {name: int(body["data"][name]) for name in numbers}
            older_body = {"data": body["data"] | whole}
        newer.check(method, path, answer.status_code, [newer_body])
        older.check(method, path, answer.status_code, [older_body])
        return body

    with client(x) as http:
        assert "data" not in ask("GET")
        good = [{"value": "cat", "tag": "cats"}, {"value": "dog has:links"}]
        bad = [{"value": "cat"}, {"value": "(open"}]
        added = ask("POST", json={"add": good})
        assert [rule.get("tag") for rule in added["data"]] == ["cats", None]
        assert len(ask("POST", json={"add": bad})["errors"]) == 2
        ask("POST", json={"add": [{"value": "fish"}]}, dry_run="true")
        assert len(ask("GET")["data"]) == 2
        assert ask("GET", max_results="1")["meta"]["next_token"]
        assert ask("GET", f"{RULES}/counts")["data"]["project_rules_count"] == "2"
        ids = [rule["id"] for rule in added["data"]]
        assert ask("POST", json={"delete": {"ids": [ids[0]]}})["meta"]["summary"]["deleted"] == 1
        assert ask("POST", json={"delete": {"ids": [ids[0]]}})["errors"]
        ask("POST", delete_all="true")


def test_answers_about_connections_are_valid(
    older: Description, newer: Description, x: simulator.Simulator
) -> None:
    def ask(method: str, path: str, shown: str = "", **query: str) -> Any:
        answer = http.request(method, path, params=query)
        assert answer.status_code == 200
        for description in (older, newer):
            description.check(method, shown or path, 200, [answer.json()])
        return answer.json()

    with client(x) as http, client(x) as other:
        ask("GET", "/2/connections")
        with other.stream("GET", "/2/tweets/sample/stream"):
            assert len(ask("GET", "/2/connections")["data"]) == 1
            path = "/2/connections/sample_stream"
            killed = ask("DELETE", path, "/2/connections/{endpoint_id}")
            assert killed["data"]["successful_kills"] == 1
        assert ask("GET", "/2/connections", status="inactive")["data"][0]["disconnect_reason"]
        ask("DELETE", "/2/connections/all")
        body = orjson.dumps({"uuids": ["no-such-connection"]})
        answer = http.request("DELETE", "/2/connections", content=body)
        assert answer.json()["data"]["failed_kills"] == 1
        for description in (older, newer):
            description.check("DELETE", "/2/connections", 200, [answer.json()])
