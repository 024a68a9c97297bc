"""The rules of the filtered stream: read, add, delete, and sync with a desired set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Unpack

from rxtweets._support.json_objects import object_in, objects_in, parsed_object
from rxtweets._support.validation import iterable, whole_number
from rxtweets.api import _rule_syntax as rule_syntax
from rxtweets.api._client import Rest
from rxtweets.api._options import (
    ServerOptions,
    connection_options,
    refuse_unknown,
    warn_caller,
    with_options_of,
)
from rxtweets.errors import ConfigurationError, ResponseError, RulesRefused, StreamError

__all__ = [
    "Rule",
    "RuleCounts",
    "RuleRefusal",
    "Rules",
    "RulesReport",
    "check_rules",
    "rule_list",
    "sync_rules",
]

PATH = "/2/tweets/search/stream/rules"
PAGE = 1_000
MOST_ADDED = 100
"""Rules that X adds in one request."""

MOST_IDS = 100
"""Ids in a request; X takes 1,000, but proxies limit the length of a URL."""

EXAMPLE = "['cats', Rule('dogs', tag='pets')]"
"""A valid list of rules, for errors."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of the filtered stream.

    Attributes:
        value: such as ``python lang:en -is:retweet``.
        tag: label of the tweets that match; empty for none.
        id: X's id; empty until X has the rule. Comparisons ignore it.
    """

    value: str
    tag: str = ""
    id: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class RuleRefusal:
    """A rule that X refused.

    Attributes:
        value: the rule, or the id of a rule to delete; empty if X did not name it.
        title: such as ``DuplicateRule``, ``UnprocessableEntity``.
        details: X's reasons.
        id: of the existing rule, for a duplicate; else empty.
    """

    value: str
    title: str
    details: tuple[str, ...] = ()
    id: str = ""

    def __str__(self) -> str:
        reasons = "; ".join(self.details)
        which = f"{self.value!r}: " if self.value else ""
        return f"{which}{self.title}" + (f" ({reasons})" if reasons else "")


@dataclass(frozen=True, slots=True)
class RulesReport:
    """The changes that X made, or would make (``dry_run``).

    Attributes:
        added: new rules, with their ids.
        deleted: deleted rules.
        kept: rules that X already had.
        calls: number of requests.
        dry_run: X changed nothing.
    """

    added: tuple[Rule, ...] = ()
    deleted: tuple[Rule, ...] = ()
    kept: tuple[Rule, ...] = ()
    calls: int = 0
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class RuleCounts:
    """Numbers of rules, and their caps.

    Attributes:
        app: rules of the token's app.
        project: rules of all apps of its project.
        app_cap: most rules of the app; ``None`` if X did not say.
        project_cap: most rules of the project; ``None`` if X did not say.
    """

    app: int
    project: int
    app_cap: int | None
    project_cap: int | None


class Rules:
    """The rules of the filtered stream, which X keeps for the token's app.

    They outlive connections and programs. ``message.matching_rules`` has the rules that a tweet
    matched. Changes act within some 20 seconds, also on open connections::

        rules = rxtweets.Rules()
        rules.sync([Rule("python lang:en", tag="py"), Rule("#rxpy")])

    Rules are checked here before a request: operators and their values, negation, operators that
    cannot stand alone, quotation marks, tags, parentheses and the length. The checks follow X's
    documentation and the texts of its errors; X may still refuse a rule (`errors.RulesRefused`).
    A `RuleWarning` marks a doubt that only X can decide, such as a stop word. `filtered_stream`
    syncs its ``rules=`` before it connects; ``rxtweets rules`` does the same in a shell.

    A retry waits for 5 s at most; if the server asks for more, the request raises its error.

    Args:
        longest: characters of a rule at most: 1,024, for enterprise accounts 2,048.
        **options: described at `sample_stream`, from ``token`` on.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``/2/tweets/search/stream/rules`` of X's API v2.
    """

    @with_options_of(connection_options)
    def __init__(
        self, *, longest: int = rule_syntax.LONGEST, **options: Unpack[ServerOptions]
    ) -> None:
        refuse_unknown(options, ServerOptions)
        self._longest = whole_number("longest", longest)
        self._rest = Rest(connection_options(**options))

    def get(self, ids: Iterable[str] | None = None) -> list[Rule]:
        """Return all rules, from all pages, or those with these ids, a hundred a request.

        Raises:
            StreamError: the network failed, or X refused.
        """
        if ids is None:
            return _read(self._rest)[0]
        wanted = [str(identifier) for identifier in iterable("ids", ids, "['1', '2']")]
        parts = (",".join(wanted[at : at + MOST_IDS]) for at in range(0, len(wanted), MOST_IDS))
        return [rule for part in parts for rule in _read(self._rest, ids=part)[0]]

    def counts(self) -> RuleCounts:
        """Return how many rules there are, and how many X allows.

        Raises:
            StreamError: the network failed, or X refused.
        """
        counts = object_in(self._rest.get(f"{PATH}/counts"), "data")
        app = counts.get("client_app_rules_count")
        return RuleCounts(
            app=_number(app.get("rule_count") if isinstance(app, dict) else app) or 0,
            project=_number(counts.get("project_rules_count")) or 0,
            app_cap=_number(counts.get("cap_per_client_app")),
            project_cap=_number(counts.get("cap_per_project")),
        )

    def check(self, *rules: Rule | str) -> None:
        """Check the syntax of rules without a request.

        A rule that X may refuse, for a reason that only X knows, gets a `RuleWarning`.

        Raises:
            RuleSyntaxError: X would refuse one of them.
        """
        check_rules(rules, self._longest)

    def add(self, *rules: Rule | str, dry_run: bool = False, check: bool = True) -> RulesReport:
        """Add rules, a hundred a request.

        Args:
            *rules: a text is a rule without a tag.
            dry_run: let X check them without a change.
            check: check the syntax first; ``False`` for operators that are newer than this version.

        Raises:
            RuleSyntaxError: X would refuse one of them; nothing was sent.
            RulesRefused: X refused some; ``report`` has the added ones.
            StreamError: the network failed, or X refused.
        """
        wanted = [_rule(rule) for rule in rules]
        if check:
            self.check(*wanted)
        changes = _Changes(self._rest, RulesReport(dry_run=dry_run))
        changes.add(wanted)
        return changes.report

    def delete(self, *rules: Rule | str, dry_run: bool = False) -> RulesReport:
        """Delete rules.

        Args:
            *rules: a text of digits is the id of a rule, another text its value. A `Rule` without
                an id is found by its value.
            dry_run: let X check the request without a change.

        Raises:
            RulesRefused: X did not delete some of them.
            StreamError: the network failed, or X refused.
        """
        named = [_named(rule) for rule in rules]
        changes = _Changes(self._rest, RulesReport(dry_run=dry_run))
        changes.delete([rule for rule in named if rule.id], by="id")
        changes.delete([rule for rule in named if not rule.id], by="value")
        return changes.report

    def delete_all(self, *, dry_run: bool = False) -> RulesReport:
        """Delete every rule of the app, in one request after reading them.

        Args:
            dry_run: change nothing.

        Raises:
            StreamError: the network failed, or X refused.
        """
        return self.sync((), dry_run=dry_run)

    def sync(
        self, desired: Iterable[Rule | str], *, dry_run: bool = False, check: bool = True
    ) -> RulesReport:
        """Make X's rules equal to the desired ones, with the fewest requests.

        X cannot change a tag, so a rule with another tag is deleted and added again. Rules that X
        already has stay, and their tweets keep coming.

        Args:
            desired: each value once; a list, not one text.
            dry_run: change nothing; let X check the rules to add.
            check: check the syntax first.

        Raises:
            ConfigurationError: it is not a list of rules, or has a value twice; nothing changed.
            RuleSyntaxError: X would refuse one of them; nothing changed.
            RulesRefused: X refused some; ``report`` has the changes.
            StreamError: the network failed, or X refused.
        """
        wanted = rule_list("desired", desired)
        if check:
            self.check(*wanted)
        return sync_rules(self._rest, wanted, dry_run=dry_run)


def sync_rules(rest: Rest, desired: Sequence[Rule], *, dry_run: bool = False) -> RulesReport:
    """Make X's rules equal to the desired ones; see `Rules.sync`."""
    present, calls = _read(rest)
    kept = tuple(rule for rule in present if rule in desired)
    surplus = [rule for rule in present if rule not in desired]
    new = [rule for rule in desired if rule not in present]
    changes = _Changes(rest, RulesReport(kept=kept, calls=calls, dry_run=dry_run))
    if surplus and not desired:
        changes.delete_all(surplus)
    else:
        changes.delete(surplus, by="id")
    # After a dry run X still has the old rules, and would call these duplicates of them.
    retagged = {rule.value for rule in surplus} if dry_run else set()
    changes.add([rule for rule in new if rule.value not in retagged])
    assumed = tuple(rule for rule in new if rule.value in retagged)
    return replace(changes.report, added=changes.report.added + assumed)


def check_rules(rules: Iterable[Rule | str], longest: int = rule_syntax.LONGEST) -> None:
    """Check the syntax of rules, and warn of those that X may refuse; see `Rules.check`."""
    for rule in iterable("rules", rules, EXAMPLE):
        value = _rule(rule).value
        rule_syntax.check(value, longest)
        for doubt in rule_syntax.doubts(value):
            warn_caller(f"rule {value!r}: {doubt}", rule_syntax.RuleWarning)


def rule_list(name: str, rules: Iterable[Rule | str]) -> list[Rule]:
    """Return the rules of an option that takes a list of them.

    Raises:
        ConfigurationError: it is one rule, a mapping, or a list of other values; or two of the
            rules have the same value.
    """
    several = iterable(name, rules, EXAMPLE)
    if isinstance(several, Mapping):
        raise ConfigurationError(f"{name}={rules!r}: give a list, such as {EXAMPLE}")
    by_value: dict[str, Rule] = {}
    for rule in map(_rule, several):
        twin = by_value.setdefault(rule.value, rule)
        if twin is not rule:
            raise ConfigurationError(
                f"rule {rule.value!r} is there twice (tags {twin.tag!r} and {rule.tag!r}); X has a "
                "rule once, with one tag"
            )
    return list(by_value.values())


class _Changes:
    """Requests that change rules, and their report so far."""

    def __init__(self, rest: Rest, report: RulesReport) -> None:
        self._rest = rest
        self.report = report

    def add(self, rules: Sequence[Rule]) -> None:
        refusals: list[RuleRefusal] = []
        for start in range(0, len(rules), MOST_ADDED):
            part = rules[start : start + MOST_ADDED]
            body = [
                {"value": rule.value, **({"tag": rule.tag} if rule.tag else {})} for rule in part
            ]
            answer = self._send({"add": body})
            added = tuple(map(_from_json, objects_in(answer, "data")))
            self.report = replace(self.report, added=self.report.added + added)
            refused = _refusals(answer)
            if len(added) + len(refused) < len(part):
                known = {rule.value for rule in added} | {refusal.value for refusal in refused}
                missing = [rule.value for rule in part if rule.value not in known]
                refused += [RuleRefusal(value, "not taken, without a reason") for value in missing]
            refusals += refused
        self._raise_for(refusals)

    def delete(self, rules: Sequence[Rule], by: str) -> None:
        if not rules:
            return
        answer = self._send({"delete": {f"{by}s": [getattr(rule, by) for rule in rules]}})
        refusals = _refusals(answer)
        left = _number(object_in(object_in(answer, "meta"), "summary").get("not_deleted"))
        if left and not refusals:
            refusals = [RuleRefusal("", f"{left} of {len(rules)} rules were not deleted")]
        refused = {name for refusal in refusals for name in (refusal.value, refusal.id)} - {""}
        # The deleted ones are known only if X named each of the others.
        if all(refusal.value or refusal.id for refusal in refusals):
            gone = tuple(rule for rule in rules if not refused & {rule.id, rule.value})
            self.report = replace(self.report, deleted=self.report.deleted + gone)
        self._raise_for(refusals)

    def delete_all(self, rules: Sequence[Rule]) -> None:
        self._raise_for(_refusals(self._send({}, delete_all="true")))
        self.report = replace(self.report, deleted=tuple(rules))

    def _send(self, body: dict[str, Any], **params: str) -> dict[str, Any]:
        dry_run = {"dry_run": "true"} if self.report.dry_run else {}
        try:
            answer = self._rest.send("POST", PATH, {**params, **dry_run}, body)
        except StreamError as error:
            if isinstance(error, ResponseError) and error.status in {400, 422}:
                refusals = _refusals(parsed_object(error.body))
                if any(refusal.value for refusal in refusals):
                    self._raise_for(refusals)
            added, deleted = len(self.report.added), len(self.report.deleted)
            if (added or deleted) and not self.report.dry_run:
                done = f"{deleted} rule(s) were deleted and {added} added"
                error.add_note(f"before that, {done}; sync again for the rest")
            raise
        self.report = replace(self.report, calls=self.report.calls + 1)
        return answer

    def _raise_for(self, refusals: Sequence[RuleRefusal]) -> None:
        if refusals:
            listed = ", ".join(map(str, refusals[:5]))
            more = f" and {len(refusals) - 5} more" if len(refusals) > 5 else ""
            text = f"X refused {len(refusals)} rule(s): {listed}{more}. Correct or drop them."
            raise RulesRefused(text, tuple(refusals), self.report)


def _read(rest: Rest, **params: str) -> tuple[list[Rule], int]:
    pages = list(rest.pages(PATH, {"max_results": str(PAGE), **params}))
    return [_from_json(value) for page in pages for value in objects_in(page, "data")], len(pages)


def _rule(rule: Rule | str) -> Rule:
    # Without white space around it, as X keeps it.
    made = Rule(rule) if isinstance(rule, str) else rule
    if not isinstance(made, Rule):
        raise ConfigurationError(f"rule {rule!r}: give texts or rules, such as 'a', Rule('b')")
    for text in (made.value, made.tag, made.id):
        if not isinstance(text, str) or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ConfigurationError(f"rule {rule!r}: {text!r} is not a text that can be sent")
    return replace(made, value=made.value.strip())


def _named(rule: Rule | str) -> Rule:
    is_id = isinstance(rule, str) and rule.isascii() and rule.isdecimal()
    named = Rule("", id=str(rule)) if is_id else _rule(rule)
    if not named.id and not named.value:
        raise ConfigurationError(f"rule {rule!r}: give the id or the value of a rule")
    return named


def _from_json(value: dict[str, Any]) -> Rule:
    # Over the years, X has sent ids and tags as text, as numbers and as null.
    tag, identifier = value.get("tag"), value.get("id")
    return Rule(str(value.get("value", "")), str(tag or ""), str(identifier or ""))


def _refusals(answer: dict[str, Any]) -> list[RuleRefusal]:
    refusals = []
    for error in objects_in(answer, "errors"):
        inner = objects_in(error, "errors")
        said = [str(part["message"]) for part in inner if part.get("message")]
        details = error.get("details") or said or error.get("message") or error.get("detail") or ()
        reasons = details if isinstance(details, list) else [details] if details else []
        title = str(error.get("title") or "refused")
        value = str(error.get("value") or _parameter(inner))
        identifier = str(error.get("id") or "")
        refusals.append(RuleRefusal(value, title, tuple(map(str, reasons)), identifier))
    return refusals


def _parameter(errors: Sequence[dict[str, Any]]) -> str:
    """Return the one parameter that problems within a problem name; empty for none or several."""
    found: set[str] = set()
    for error in errors:
        for value in object_in(error, "parameters").values():
            found |= set(map(str, value if isinstance(value, list) else [value]))
    return found.pop() if len(found) == 1 else ""


def _number(value: object) -> int | None:
    # X's counts are texts in one version of its description, numbers in another.
    try:
        return int(str(value))
    except ValueError:
        return None
