"""The rules that the simulator keeps: added, deleted, counted as X does it, and matched."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from rxtweets._support.validation import iterable
from rxtweets.api._rule_syntax import LONGEST, Node, check, parse, terms
from rxtweets.errors import ConfigurationError, RuleSyntaxError
from rxtweets.simulator._matching import SUPPORTED, Tweet, matches
from rxtweets.simulator.script import Reply, invalid_request, problem

__all__ = ["Ruleset"]

FIRST_ID = 1_900_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class _Kept:
    id: str
    value: str
    tag: str
    node: Node

    def shown(self) -> dict[str, str]:
        shown = {"id": self.id, "value": self.value}
        return {**shown, "tag": self.tag} if self.tag else shown


class Ruleset:
    """The rules of one app; from any thread.

    Args:
        cap: rules that there may be.
        longest: characters that a rule may have.
    """

    def __init__(self, cap: int = 1_000, longest: int = LONGEST) -> None:
        self._cap = cap
        self._longest = longest
        self._lock = threading.Lock()
        self._rules: dict[str, _Kept] = {}
        self._made = 0
        self.version = 0

    def __len__(self) -> int:
        return len(self._rules)

    def start_with(self, rules: Iterable[str]) -> None:
        """Add rules without tags.

        Raises:
            ConfigurationError: one of them is no rule.
        """
        kept = dict(self._rules)
        for value in iterable("rules", rules, "['cats']"):
            refusal = self._refusal(value, kept)
            if refusal is not None:
                reasons = refusal.get("details") or [refusal["title"]]
                raise ConfigurationError(f"rules: {value!r}: {'; '.join(reasons)}")
            rule = self._make(value, "")
            kept[rule.id] = rule
        self._replace(kept)

    def matching(self, payload: dict[str, Any]) -> list[dict[str, str]]:
        """The rules that a decoded frame matches, as the frame names them.

        The tag is always there, if only empty, as on X; tweepy ends without it.
        """
        tweet = Tweet(payload)
        found = [rule for rule in list(self._rules.values()) if matches(rule.node, tweet)]
        return [{"id": rule.id, "tag": rule.tag} for rule in found]

    def get(self, query: dict[str, str]) -> Reply:
        """A page of the rules."""
        ids = [each for each in query.get("ids", "").split(",") if each]
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
        data = {"data": [rule.shown() for rule in page]} if page else {}
        return Reply(200, {**data, "meta": meta})

    def counts(self) -> Reply:
        """How many rules there are."""
        count = str(len(self._rules))
        return Reply(
            200,
            {
                "data": {
                    "cap_per_client_app": str(self._cap),
                    "cap_per_project": str(self._cap),
                    "client_app_rules_count": {"client_app_id": "1", "rule_count": len(self)},
                    "project_rules_count": count,
                }
            },
        )

    def change(self, query: dict[str, str], body: bytes) -> Reply:
        """Add or delete."""
        dry_run = query.get("dry_run") == "true"
        if query.get("delete_all") == "true":
            return self._delete(list(self._rules), [], dry_run=dry_run)
        try:
            wanted = orjson.loads(body)
            [(verb, what)] = wanted.items()
        except (orjson.JSONDecodeError, AttributeError, ValueError):
            return invalid_request("body", "", "JSON doesn't match expected schema")
        if verb == "add" and isinstance(what, list) and what and all(map(_is_rule, what)):
            return self._add(what, dry_run=dry_run)
        if verb == "delete" and isinstance(what, dict):
            ids, values = what.get("ids") or [], what.get("values") or []
            if bool(ids) != bool(values) and _are_texts(ids) and _are_texts(values):
                return self._delete(ids, values, dry_run=dry_run)
        return invalid_request(str(verb), "", "JSON doesn't match expected schema")

    def _add(self, wanted: list[dict[str, Any]], *, dry_run: bool) -> Reply:
        made: list[dict[str, str]] = []
        refused: list[dict[str, Any]] = []
        with self._lock:
            kept = dict(self._rules)
            for each in wanted:
                refusal = self._refusal(each["value"], kept)
                if refusal is None:
                    rule = self._make(each["value"], each.get("tag") or "")
                    kept[rule.id] = rule
                    made.append(rule.shown())
                else:
                    refused.append(refusal)
            if not dry_run:
                self._replace(kept)
        created = 0 if dry_run else len(made)
        summary = {
            "created": created,
            "not_created": len(wanted) - created,
            "valid": len(made),
            "invalid": len(refused),
        }
        answer: dict[str, Any] = {"meta": {"sent": _now(), "summary": summary}}
        if made:
            answer["data"] = made
        if refused:
            answer["errors"] = refused
        return Reply(201 if made else 200, answer)

    def _refusal(self, text: str, kept: dict[str, _Kept]) -> dict[str, Any] | None:
        same = next((rule for rule in kept.values() if rule.value == text), None)
        if same is not None:
            kind = problem("DuplicateRule", "duplicate-rules")
            return {"value": text, "id": same.id, **kind}
        if len(kept) >= self._cap:
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

    def _make(self, value: str, tag: str) -> _Kept:
        self._made += 1
        return _Kept(str(FIRST_ID + self._made), value, tag, parse(value))

    def _replace(self, rules: dict[str, _Kept]) -> None:
        """Streams look at the rules without the lock, so a dict of rules never changes."""
        self._rules = rules
        self.version += 1

    def _delete(self, ids: list[str], values: list[str], *, dry_run: bool) -> Reply:
        with self._lock:
            by_value = {rule.value: rule.id for rule in self._rules.values()}
            named = {each: each for each in ids} | {each: by_value.get(each) for each in values}
            known = [each for each in named.values() if each in self._rules]
            unknown = [name for name, each in named.items() if each not in self._rules]
            if not dry_run:
                self._replace({id_: r for id_, r in self._rules.items() if id_ not in known})
        summary = {"deleted": len(known), "not_deleted": len(unknown)}
        answer: dict[str, Any] = {"meta": {"sent": _now(), "summary": summary}}
        if unknown:
            answer["errors"] = [
                {
                    "errors": [{"parameters": {}, "message": f"Rule does not exist: {each}"}],
                    "detail": "One or more parameters to your request was invalid.",
                    **problem("Invalid Request", "invalid-request"),
                }
                for each in unknown
            ]
        return Reply(200, answer)


def _is_rule(item: object) -> bool:
    """Whether a request's item is a value and perhaps a tag; ids are X's to give."""
    if not isinstance(item, dict) or not isinstance(item.get("value"), str):
        return False
    return isinstance(item.get("tag") or "", str)


def _are_texts(given: object) -> bool:
    return isinstance(given, list) and all(isinstance(each, str) for each in given)


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
