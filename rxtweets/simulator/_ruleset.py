"""The rules of the filtered stream, and the frames that a connection gets."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from rxtweets._support.json_objects import parsed_object
from rxtweets._support.validation import iterable
from rxtweets.api._endpoints import Endpoint
from rxtweets.api._rule_syntax import LONGEST, Node, check, parse, terms
from rxtweets.errors import ConfigurationError, RuleSyntaxError
from rxtweets.simulator._matching import SUPPORTED, Tweet, matches
from rxtweets.simulator.script import Reply, invalid_request, problem

__all__ = ["Ruleset", "Selection"]

FIRST_ID = 1_900_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class _StoredRule:
    id: str
    value: str
    tag: str
    node: Node

    def as_json(self) -> dict[str, str]:
        shown = {"id": self.id, "value": self.value}
        return {**shown, "tag": self.tag} if self.tag else shown


class Ruleset:
    """The rules of one app; from any thread.

    Args:
        cap: of the number of rules.
        longest: characters of a rule.
    """

    def __init__(self, cap: int = 1_000, longest: int = LONGEST) -> None:
        self._cap = cap
        self._longest = longest
        self._lock = threading.Lock()
        self._rules: dict[str, _StoredRule] = {}
        self._created = 0
        self.version: int = 0

    def __len__(self) -> int:
        return len(self._rules)

    def start_with(self, values: Iterable[str]) -> None:
        """Add rules without tags.

        Raises:
            ConfigurationError: X would refuse one of them.
        """
        rules = dict(self._rules)
        for value in iterable("rules", values, "['cats']"):
            refusal = self._refusal(value, rules)
            if refusal is not None:
                reasons = refusal.get("details") or [refusal["title"]]
                raise ConfigurationError(f"rules: {value!r}: {'; '.join(reasons)}")
            rule = self._create(value, "")
            rules[rule.id] = rule
        self._replace(rules)

    def matching(self, payload: dict[str, Any]) -> list[dict[str, str]]:
        """Return the rules that a decoded frame matches, as X names them in the frame.

        The tag is there even if it is empty, as on X; tweepy fails without it.
        """
        tweet = Tweet(payload)
        found = [rule for rule in list(self._rules.values()) if matches(rule.node, tweet)]
        return [{"id": rule.id, "tag": rule.tag} for rule in found]

    def get(self, query: dict[str, str]) -> Reply:
        """Answer with a page of the rules."""
        ids = [id_ for id_ in query.get("ids", "").split(",") if id_]
        most = query.get("max_results", "1000")
        start = query.get("pagination_token", "0")
        if not most.isdecimal() or not 1 <= int(most) <= 1_000:
            text = f"The `max_results` query parameter value [{most}] is not between 1 and 1000"
            return invalid_request("max_results", most, text)
        if not start.isdecimal():
            text = f"The `pagination_token` query parameter value [{start}] is not valid"
            return invalid_request("pagination_token", start, text)
        with self._lock:
            rules = [rule for rule in self._rules.values() if not ids or rule.id in ids]
        page = rules[int(start) : int(start) + int(most)]
        meta: dict[str, Any] = {"sent": _now(), "result_count": len(page)}
        if int(start) + len(page) < len(rules):
            meta["next_token"] = str(int(start) + len(page))
        data = {"data": [rule.as_json() for rule in page]} if page else {}
        return Reply(200, {**data, "meta": meta})

    def counts(self) -> Reply:
        """Answer with the number of rules."""
        data = {
            "cap_per_client_app": str(self._cap),
            "cap_per_project": str(self._cap),
            "client_app_rules_count": {"client_app_id": "1", "rule_count": len(self)},
            "project_rules_count": str(len(self)),
        }
        return Reply(200, {"data": data})

    def change(self, query: dict[str, str], body: bytes) -> Reply:
        """Add or delete rules."""
        dry_run = query.get("dry_run") == "true"
        if query.get("delete_all") == "true":
            return self._delete(list(self._rules), [], dry_run=dry_run)
        try:
            [(verb, change)] = orjson.loads(body).items()
        except (orjson.JSONDecodeError, AttributeError, ValueError):
            return invalid_request("body", "", "JSON doesn't match expected schema")
        if verb == "add" and isinstance(change, list) and change and all(map(_is_rule, change)):
            return self._add(change, dry_run=dry_run)
        if verb == "delete" and isinstance(change, dict):
            ids, values = change.get("ids") or [], change.get("values") or []
            if bool(ids) != bool(values) and _are_texts(ids) and _are_texts(values):
                return self._delete(ids, values, dry_run=dry_run)
        return invalid_request(str(verb), "", "JSON doesn't match expected schema")

    def _add(self, wanted: list[dict[str, Any]], *, dry_run: bool) -> Reply:
        added: list[dict[str, str]] = []
        refused: list[dict[str, Any]] = []
        with self._lock:
            rules = dict(self._rules)
            for item in wanted:
                refusal = self._refusal(item["value"], rules)
                if refusal is not None:
                    refused.append(refusal)
                    continue
                rule = self._create(item["value"], item.get("tag") or "")
                rules[rule.id] = rule
                added.append(rule.as_json())
            if not dry_run:
                self._replace(rules)
        created = 0 if dry_run else len(added)
        summary = {
            "created": created,
            "not_created": len(wanted) - created,
            "valid": len(added),
            "invalid": len(refused),
        }
        answer: dict[str, Any] = {"meta": {"sent": _now(), "summary": summary}}
        if added:
            answer["data"] = added
        if refused:
            answer["errors"] = refused
        return Reply(201 if added else 200, answer)

    def _refusal(self, text: str, rules: dict[str, _StoredRule]) -> dict[str, Any] | None:
        for rule in rules.values():
            if rule.value == text:
                kind = problem("DuplicateRule", "duplicate-rules")
                return {"value": text, "id": rule.id, **kind}
        if len(rules) >= self._cap:
            return {"value": text, **problem("RulesCapExceeded", "rule-cap")}
        details: list[str] = []
        try:
            check(text, self._longest)
            unknown = {term.operator for term, _ in terms(parse(text))} - SUPPORTED
            details = [f"the simulator does not match {name}:" for name in sorted(unknown)]
        except RuleSyntaxError as error:
            details = [f"{error.reason} (at position {error.position + 1})"]
        if not details:
            return None
        kind = problem("UnprocessableEntity", "invalid-rules")
        return {"value": text, "details": details, **kind}

    def _create(self, value: str, tag: str) -> _StoredRule:
        self._created += 1
        return _StoredRule(str(FIRST_ID + self._created), value, tag, parse(value))

    def _replace(self, rules: dict[str, _StoredRule]) -> None:
        # Streams read the rules without the lock, so this dict must never change.
        self._rules = rules
        self.version += 1

    def _delete(self, ids: list[str], values: list[str], *, dry_run: bool) -> Reply:
        with self._lock:
            by_value = {rule.value: rule.id for rule in self._rules.values()}
            named = {id_: id_ for id_ in ids} | {value: by_value.get(value) for value in values}
            known = [id_ for id_ in named.values() if id_ in self._rules]
            unknown = [name for name, id_ in named.items() if id_ not in self._rules]
            if not dry_run:
                self._replace({id_: r for id_, r in self._rules.items() if id_ not in known})
        summary = {"deleted": len(known), "not_deleted": len(unknown)}
        answer: dict[str, Any] = {"meta": {"sent": _now(), "summary": summary}}
        if unknown:
            answer["errors"] = [
                {
                    "errors": [{"parameters": {}, "message": f"Rule does not exist: {name}"}],
                    "detail": "One or more parameters to your request was invalid.",
                    **problem("Invalid Request", "invalid-request"),
                }
                for name in unknown
            ]
        return Reply(200, answer)


def _is_rule(item: object) -> bool:
    if not isinstance(item, dict) or not isinstance(item.get("value"), str):
        return False
    return isinstance(item.get("tag") or "", str)


def _are_texts(given: object) -> bool:
    return isinstance(given, list) and all(isinstance(text, str) for text in given)


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


class Selection:
    """Chooses the frames of one connection, by partition, language and rules.

    Lines of a recording that are no tweets pass: empty lines, broken lines, notices.

    Args:
        endpoint: the stream.
        partition: from 1; 0 for all positions.
        rules: of the filtered stream; ``None`` for other streams.
        period: positions after which texts repeat, so that each is matched once; 0 if they do not.
    """

    def __init__(
        self, endpoint: Endpoint, partition: int, rules: Ruleset | None, period: int
    ) -> None:
        self._lang = endpoint.lang
        self._partition = partition
        self._partitions = endpoint.partitions
        self._rules = rules
        self._period = period
        self._endings: dict[int, bytes | None] = {}
        self._version = -1

    def __call__(self, position: int, frame: bytes) -> bytes | None:
        """Return the frame as the connection gets it; ``None`` if it does not."""
        if self._partition and position % self._partitions != self._partition - 1:
            return None
        if not self._lang and self._rules is None:
            return frame
        ending = self._ending_at(position, frame)
        if not ending:
            return None if ending is None else frame
        if b'"matching_rules"' in frame:  # recorded, with the rules of that time
            payload = orjson.loads(frame)
            payload.pop("matching_rules", None)
            frame = orjson.dumps(payload)
        return frame.rstrip()[:-1] + ending

    def _ending_at(self, position: int, frame: bytes) -> bytes | None:
        if self._rules is not None and self._rules.version != self._version:
            self._version = self._rules.version
            self._endings.clear()
        if not self._period:
            return self._ending(frame)
        place = position % self._period
        if place not in self._endings:
            self._endings[place] = self._ending(frame)
        return self._endings[place]

    def _ending(self, frame: bytes) -> bytes | None:
        """The text in place of the last brace; empty keeps the frame, ``None`` leaves it out."""
        payload = parsed_object(frame)
        if not isinstance(payload.get("data"), dict):
            return b""
        if self._lang and payload["data"].get("lang") != self._lang:
            return None
        if self._rules is None:
            return b""
        matching = self._rules.matching(payload)
        return b',"matching_rules":' + orjson.dumps(matching) + b"}" if matching else None
