"""The rules of the filtered stream: looked at, added, deleted, and made equal to a desired set."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Unpack

import orjson

from rxtweets._support.validation import iterable, whole_number
from rxtweets.api import _rule_syntax as rule_syntax
from rxtweets.api._client import Rest
from rxtweets.api._options import ServerOptions, connection_options
from rxtweets.errors import ConfigurationError, ResponseError, RulesRefused, StreamError

__all__ = [
    "Rule",
    "RuleCounts",
    "RuleRefusal",
    "Rules",
    "RulesReport",
    "check_rules",
    "rule_list",
]

PATH = "/2/tweets/search/stream/rules"
PAGE = 1_000
MOST_ADDED = 100
"""Rules that X takes in one request to add some."""

MOST_IDS = 100
"""X takes 1,000, but in a URL, which others on the way take only so long."""

EXAMPLE = "['cats', Rule('dogs', tag='pets')]"
"""Of an option that takes several rules."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of the filtered stream.

    Attributes:
        value: such as ``python lang:en -is:retweet``.
        tag: to know its tweets by; empty for none.
        id: X's; empty while X does not have the rule. Does not count in comparisons.
    """

    value: str
    tag: str = ""
    id: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class RuleRefusal:
    """A rule that X refused.

    Attributes:
        value: the rule, or the id of the rule that was to be deleted; empty if X did not say.
        title: such as ``DuplicateRule``, ``UnprocessableEntity``.
        details: X's reasons.
        id: of the rule that is there already, for a duplicate; else empty.
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
    """What was done, or would be (``dry_run``).

    Attributes:
        added: rules that X has now, with their ids.
        deleted: rules that X had.
        kept: rules that were there and stay.
        calls: requests that it took.
        dry_run: nothing was changed.
    """

    added: tuple[Rule, ...] = ()
    deleted: tuple[Rule, ...] = ()
    kept: tuple[Rule, ...] = ()
    calls: int = 0
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class RuleCounts:
    """How many rules there are, and how many there may be.

    Attributes:
        app: rules of the token's app.
        project: rules of all apps of its project.
        app_cap: how many the app may have; ``None`` if X did not say.
        project_cap: how many the project may have; ``None`` if X did not say.
    """

    app: int
    project: int
    app_cap: int | None
    project_cap: int | None


class Rules:
    """The rules that X keeps for a token's app; they outlive connections and programs.

    ::

        rules = rxtweets.Rules()
        report = rules.sync([Rule("python lang:en", tag="py"), Rule("#rxpy")])

    Changes act within some 20 seconds, on connections that are open too.

    Args:
        longest: characters that a rule may have: 1,024, for enterprise accounts 2,048.
        **options: see `ServerOptions`.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``/2/tweets/search/stream/rules`` of X's API v2.
    """

    def __init__(
        self, *, longest: int = rule_syntax.LONGEST, **options: Unpack[ServerOptions]
    ) -> None:
        self._longest = whole_number("longest", longest)
        self._rest = Rest(connection_options(options))

    def get(self, ids: Iterable[str] | None = None) -> list[Rule]:
        """All rules, however many pages they take, or those with these ids, a hundred a request.

        Raises:
            StreamError: the network failed, or X refused.
        """
        if ids is None:
            return self._get({})[0]
        wanted = [str(each) for each in iterable("ids", ids, "['1', '2']")]
        parts = (wanted[at : at + MOST_IDS] for at in range(0, len(wanted), MOST_IDS))
        return [rule for part in parts for rule in self._get({"ids": ",".join(part)})[0]]

    def counts(self) -> RuleCounts:
        """How many rules there are and may be.

        Raises:
            StreamError: the network failed, or X refused.
        """
        data = self._rest.get(f"{PATH}/counts").get("data")
        counts = data if isinstance(data, dict) else {}
        app = counts.get("client_app_rules_count")
        return RuleCounts(
            app=_number(app.get("rule_count") if isinstance(app, dict) else app) or 0,
            project=_number(counts.get("project_rules_count")) or 0,
            app_cap=_number(counts.get("cap_per_client_app")),
            project_cap=_number(counts.get("cap_per_project")),
        )

    def check(self, *rules: Rule | str) -> None:
        """Look at the syntax of rules, here, without a request.

        A rule that X may refuse, for a reason that only X knows, gets a `RuleWarning`.

        Raises:
            RuleSyntaxError: X would refuse one of them.
        """
        check_rules(rules, self._longest)

    def add(self, *rules: Rule | str, dry_run: bool = False, check: bool = True) -> RulesReport:
        """Add rules, a hundred a request.

        Args:
            *rules: a text is a rule without a tag.
            dry_run: let X look at them, and change nothing.
            check: look at the syntax here first; ``False`` for operators that are newer than this
                version.

        Raises:
            RuleSyntaxError: X would refuse one of them; nothing was sent.
            RulesRefused: X refused some; ``report`` has those that it took.
            StreamError: the network failed, or X refused.
        """
        wanted = [_rule(rule) for rule in rules]
        if check:
            self.check(*wanted)
        return self._add(wanted, RulesReport(dry_run=dry_run))

    def delete(self, *rules: Rule | str, dry_run: bool = False) -> RulesReport:
        """Delete rules.

        Args:
            *rules: a text of digits is the id of a rule, another its value; a `Rule` without an
                id goes by its value.
            dry_run: let X look at it, and change nothing.

        Raises:
            RulesRefused: X did not delete some of them.
            StreamError: the network failed, or X refused.
        """
        named = [_named(rule) for rule in rules]
        report = RulesReport(dry_run=dry_run)
        with_ids = [rule for rule in named if rule.id]
        by_value = [rule for rule in named if not rule.id]
        if with_ids:
            report = self._delete(with_ids, "ids", [rule.id for rule in with_ids], report)
        if by_value:
            report = self._delete(by_value, "values", [rule.value for rule in by_value], report)
        return report

    def delete_all(self, *, dry_run: bool = False) -> RulesReport:
        """Delete every rule of the app, in one request after looking which there are.

        Raises:
            StreamError: the network failed, or X refused.
        """
        return self.sync((), dry_run=dry_run)

    def sync(
        self, desired: Iterable[Rule | str], *, dry_run: bool = False, check: bool = True
    ) -> RulesReport:
        """Make X's rules equal to the desired ones, with as few requests as that takes.

        A rule whose tag differs is deleted and added again, as X cannot change a tag. What is
        there already is not touched, so that its tweets keep coming.

        Args:
            desired: each value once; a list, not one text.
            dry_run: change nothing; let X look at what would be added.
            check: look at the syntax here first.

        Raises:
            ConfigurationError: it is no list of rules, or two of them have the same value; nothing
                was changed.
            RuleSyntaxError: X would refuse one of them; nothing was changed.
            RulesRefused: X refused some; ``report`` has what was done.
            StreamError: the network failed, or X refused.
        """
        wanted = rule_list("desired", desired)
        if check:
            self.check(*wanted)
        present, calls = self._get({})
        kept = tuple(rule for rule in present if rule in wanted)
        gone = [rule for rule in present if rule not in wanted]
        new = [rule for rule in wanted if rule not in present]
        report = RulesReport(kept=kept, calls=calls, dry_run=dry_run)
        if gone and not wanted:
            report = self._delete_all(gone, report)
        elif gone:
            report = self._delete(gone, "ids", [rule.id for rule in gone], report)
        replaced = {rule.value for rule in gone} if dry_run else set()
        # In a rehearsal the old rules are still there, and X would call these duplicates of them.
        report = self._add([rule for rule in new if rule.value not in replaced], report)
        rehearsed = tuple(rule for rule in new if rule.value in replaced)
        return replace(report, added=report.added + rehearsed)

    def _get(self, params: dict[str, str]) -> tuple[list[Rule], int]:
        rules: list[Rule] = []
        calls = 0
        for page in self._rest.pages(PATH, {"max_results": str(PAGE), **params}):
            calls += 1
            rules += [_from(each) for each in _objects(page, "data")]
        return rules, calls

    def _add(self, rules: Sequence[Rule], report: RulesReport) -> RulesReport:
        refusals: list[RuleRefusal] = []
        for start in range(0, len(rules), MOST_ADDED):
            part = rules[start : start + MOST_ADDED]
            body = {"add": [_body(rule) for rule in part]}
            answer = self._change(body, {}, report)
            taken = tuple(_from(each) for each in _objects(answer, "data"))
            report = replace(report, added=report.added + taken, calls=report.calls + 1)
            refused = _refusals(answer)
            if len(taken) + len(refused) < len(part):
                said = {rule.value for rule in taken} | {each.value for each in refused}
                missing = [rule.value for rule in part if rule.value not in said]
                refused += [RuleRefusal(value, "not taken, without a reason") for value in missing]
            refusals += refused
        _raise_for(refusals, report)
        return report

    def _delete(
        self, rules: Sequence[Rule], by: str, names: list[str], report: RulesReport
    ) -> RulesReport:
        answer = self._change({"delete": {by: names}}, {}, report)
        report = replace(report, calls=report.calls + 1)
        refusals = _refusals(answer)
        left = _summary(answer, "not_deleted")
        if left and not refusals:
            refusals = [RuleRefusal("", f"{left} of {len(rules)} rules were not deleted")]
        named = {name for each in refusals for name in (each.value, each.id)}
        # Which of them are gone is known only where X named all that are not.
        if all(each.value or each.id for each in refusals):
            gone = tuple(rule for rule in rules if not named & {rule.id, rule.value} - {""})
            report = replace(report, deleted=report.deleted + gone)
        _raise_for(refusals, report)
        return report

    def _delete_all(self, rules: Sequence[Rule], report: RulesReport) -> RulesReport:
        answer = self._change({}, {"delete_all": "true"}, report)
        report = replace(report, calls=report.calls + 1)
        _raise_for(_refusals(answer), report)
        return replace(report, deleted=tuple(rules))

    def _change(
        self, body: dict[str, Any], params: dict[str, str], report: RulesReport
    ) -> dict[str, Any]:
        params = {**params, **({"dry_run": "true"} if report.dry_run else {})}
        try:
            return self._rest.send("POST", PATH, params, body)
        except ResponseError as error:
            refusals = _refusals(_object(error.body))
            if error.status in {400, 422} and any(refusal.value for refusal in refusals):
                _raise_for(refusals, report)
            _note_what_was_done(error, report)
            raise
        except StreamError as error:
            _note_what_was_done(error, report)
            raise


def _note_what_was_done(error: StreamError, report: RulesReport) -> None:
    if (report.added or report.deleted) and not report.dry_run:
        done = f"{len(report.deleted)} rule(s) were deleted and {len(report.added)} added"
        error.add_note(f"before that, {done}; what is left can be had by syncing again")


def check_rules(rules: Iterable[Rule | str], longest: int = rule_syntax.LONGEST) -> None:
    """Look at the syntax of rules, without a client; warn of those that X may refuse.

    Raises:
        RuleSyntaxError: X would refuse one of them.
    """
    for rule in iterable("rules", rules, EXAMPLE):
        value = _rule(rule).value
        rule_syntax.check(value, longest)
        for doubt in rule_syntax.doubts(value):
            warnings.warn(f"rule {value!r}: {doubt}", rule_syntax.RuleWarning, stacklevel=3)


def rule_list(name: str, rules: Iterable[Rule | str]) -> list[Rule]:
    """All rules that X shall have, from an option.

    Raises:
        ConfigurationError: it is one rule, a mapping, or a list of other things; or two of the
            rules have the same value.
    """
    several = iterable(name, rules, EXAMPLE)
    if isinstance(several, Mapping):
        raise ConfigurationError(f"{name}={rules!r}: give a list, such as {EXAMPLE}")
    made = [_rule(rule) for rule in several]
    _refuse_twins(made)
    return made


def _rule(rule: Rule | str) -> Rule:
    """The rule, without white space around it: so it compares with what X has of it."""
    made = Rule(rule) if isinstance(rule, str) else rule
    if not isinstance(made, Rule):
        raise ConfigurationError(f"rule {rule!r}: give texts or rules, such as 'a', Rule('b')")
    for text in (made.value, made.tag, made.id):
        if not isinstance(text, str) or not _can_be_sent(text):
            raise ConfigurationError(f"rule {rule!r}: {text!r} is no text that can be sent")
    return replace(made, value=made.value.strip())


def _can_be_sent(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _named(rule: Rule | str) -> Rule:
    """The rule that is meant; ids are digits only."""
    is_id = isinstance(rule, str) and rule.isascii() and rule.isdecimal()
    named = Rule("", id=str(rule)) if is_id else _rule(rule)
    if not named.id and not named.value:
        raise ConfigurationError(f"rule {rule!r}: give the id or the value of a rule")
    return named


def _refuse_twins(rules: Sequence[Rule]) -> None:
    seen: dict[str, Rule] = {}
    for rule in rules:
        twin = seen.setdefault(rule.value, rule)
        if twin is not rule:
            raise ConfigurationError(
                f"rule {rule.value!r} is there twice (tags {twin.tag!r} and {rule.tag!r}); X has a "
                "rule once, with one tag"
            )


def _body(rule: Rule) -> dict[str, str]:
    return {"value": rule.value, "tag": rule.tag} if rule.tag else {"value": rule.value}


def _from(value: dict[str, Any]) -> Rule:
    """Ids and tags came as text, as numbers and as null over the years."""
    tag, identifier = value.get("tag"), value.get("id")
    return Rule(str(value.get("value", "")), str(tag or ""), str(identifier or ""))


def _refusals(answer: dict[str, Any]) -> list[RuleRefusal]:
    refusals = []
    for error in _objects(answer, "errors"):
        inner = _objects(error, "errors")
        said = [str(each["message"]) for each in inner if each.get("message")]
        details = error.get("details") or said or error.get("message") or error.get("detail") or ()
        reasons = details if isinstance(details, list) else [details] if details else []
        title = str(error.get("title") or "refused")
        value = str(error.get("value") or _parameter(inner))
        identifier = str(error.get("id") or "")
        refusals.append(RuleRefusal(value, title, tuple(map(str, reasons)), identifier))
    return refusals


def _parameter(errors: Sequence[dict[str, Any]]) -> str:
    """The one parameter that problems within a problem are about; empty if it is not one."""
    found: set[str] = set()
    for error in errors:
        parameters = error.get("parameters")
        for value in parameters.values() if isinstance(parameters, dict) else ():
            found |= set(map(str, value if isinstance(value, list) else [value]))
    return found.pop() if len(found) == 1 else ""


def _raise_for(refusals: Sequence[RuleRefusal], report: RulesReport) -> None:
    if refusals:
        listed = ", ".join(map(str, refusals[:5]))
        more = f" and {len(refusals) - 5} more" if len(refusals) > 5 else ""
        text = f"X refused {len(refusals)} rule(s): {listed}{more}. Correct or drop them."
        raise RulesRefused(text, tuple(refusals), report)


def _summary(answer: dict[str, Any], name: str) -> int:
    meta = answer.get("meta")
    summary = meta.get("summary") if isinstance(meta, dict) else None
    return (_number(summary.get(name)) or 0) if isinstance(summary, dict) else 0


def _objects(answer: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The list of that name; X leaves it out where it would be empty."""
    values = answer.get(name)
    return [each for each in values if isinstance(each, dict)] if isinstance(values, list) else []


def _number(value: object) -> int | None:
    """X's counts are texts in one version of its description, numbers in another."""
    try:
        return int(str(value))
    except ValueError:
        return None


def _object(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
