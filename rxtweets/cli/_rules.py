"""The command ``rxtweets rules``: look at the rules of the filtered stream, and change them."""

from __future__ import annotations

import argparse
import json
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rxtweets.api._rule_syntax import LONGEST
from rxtweets.api._rules import Rule, RuleRefusal, Rules, RulesReport, check_rules
from rxtweets.cli._rule_files import FORMATS, Placed, read_rules
from rxtweets.cli._server import add_server_argument, server_options
from rxtweets.display._text import clean, pointer
from rxtweets.errors import RulesRefused, RuleSyntaxError, StreamError

__all__ = ["add_arguments"]

DONE, REFUSED, WRONG = 0, 1, 2

DESCRIPTION = """\
The rules of the filtered stream. X keeps them for the app of the token; they outlive connections
and programs, and changes act within some 20 seconds.

  rxtweets rules check 'python lang:en'        look at the syntax, here, without a token
  rxtweets rules sync rules.txt --dry-run      what it would take to have exactly these
  rxtweets rules list

A rule that begins with a - stands behind --, as in: rxtweets rules add -- '-is:retweet cat'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands below this one."""
    raw = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog, parser.formatter_class = DESCRIPTION, FORMATS, raw
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, summary: str, run: Any) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name, help=summary, description=f"{summary[:1].upper()}{summary[1:]}."
        )
        made.set_defaults(run=_saying_where(run))
        return made

    listing = command("list", "the rules that X has", _list)
    adding = command("add", "add rules", _add)
    adding.add_argument("values", nargs="+", metavar="VALUE", help="a rule")
    adding.add_argument(
        "--tag", action="append", default=[], help="of the first rule; again for the next one"
    )
    deleting = command("delete", "delete rules", _delete)
    deleting.add_argument("rules", nargs="+", metavar="ID|VALUE", help="digits are an id")
    syncing = command("sync", "make the rules of X those of a file", _sync)
    syncing.add_argument("file", metavar="FILE", help="see rxtweets rules --help")
    syncing.add_argument(
        "--delete-all", action="store_true", help="delete every rule, if the file has none"
    )
    checking = command("check", "look at the syntax of rules, here; no token needed", _check)
    checking.add_argument("rules", nargs="+", metavar="FILE|VALUE", help="a file if there is one")
    counting = command("counts", "how many rules there are and may be", _counts)
    for each in (adding, deleting, syncing):
        each.add_argument("--dry-run", action="store_true", help="let X look, and change nothing")
    for each in (adding, syncing, checking):
        each.add_argument(
            "--longest", type=int, default=LONGEST, help=f"characters of a rule (default {LONGEST})"
        )
    for each in (listing, counting):
        each.add_argument("--json", action="store_true", help="one JSON object a line")
    for each in (listing, adding, deleting, syncing, counting):
        add_server_argument(each)


def _list(options: argparse.Namespace) -> int:
    for rule in Rules(**server_options(options)).get():
        if options.json:
            _print(json.dumps({"id": rule.id, "value": rule.value, "tag": rule.tag}))
        else:
            _print(f"{clean(rule.id)}\t{_shown(rule)}")
    return DONE


def _add(options: argparse.Namespace) -> int:
    tags = [*options.tag, *[""] * len(options.values)]
    rules = [Rule(value, tag) for value, tag in zip(options.values, tags, strict=False)]
    if len(options.tag) > len(rules):
        _complain(f"rxtweets: {len(options.tag)} tags for {len(rules)} rule(s)")
        return WRONG
    if wrong := _mistakes([Placed(rule) for rule in rules], options.longest):
        return wrong
    return _report(_client(options).add(*rules, dry_run=options.dry_run))


def _delete(options: argparse.Namespace) -> int:
    client = Rules(**server_options(options))
    return _report(client.delete(*options.rules, dry_run=options.dry_run))


def _sync(options: argparse.Namespace) -> int:
    placed = read_rules(options.file)
    if wrong := _mistakes(placed, options.longest):
        return wrong
    if not placed and not (options.delete_all or options.dry_run):
        _complain(
            f"rxtweets: {options.file} has no rules, so every rule would be deleted; --delete-all "
            "does it, --dry-run shows them"
        )
        return WRONG
    rules = [each.rule for each in placed]
    return _report(_client(options).sync(rules, dry_run=options.dry_run))


def _check(options: argparse.Namespace) -> int:
    placed: list[Placed] = []
    for given in options.rules:
        placed += read_rules(given) if _is_file(given) else [Placed(Rule(given))]
    wrong = _mistakes(placed, options.longest)
    if not wrong:
        _print(f"{len(placed)} rule(s), no mistake found")
    return wrong


def _counts(options: argparse.Namespace) -> int:
    counts = Rules(**server_options(options)).counts()
    if options.json:
        names = ("app", "app_cap", "project", "project_cap")
        _print(json.dumps({name: getattr(counts, name) for name in names}))
    else:
        _print(f"app      {counts.app} of {_cap(counts.app_cap)}")
        _print(f"project  {counts.project} of {_cap(counts.project_cap)}")
    return DONE


def _client(options: argparse.Namespace) -> Rules:
    return Rules(longest=options.longest, **server_options(options))


def _is_file(given: str) -> bool:
    try:
        return given == "-" or Path(given).is_file()
    except (OSError, ValueError):  # too long for a path, or with a zero in it
        return False


def _cap(cap: int | None) -> str:
    return "?" if cap is None else str(cap)


def _mistakes(placed: Sequence[Placed], longest: int) -> int:
    """Show every mistake with its rule and a caret below it; the exit code."""
    found = DONE
    for each in placed:
        with warnings.catch_warnings(record=True) as doubts:
            warnings.simplefilter("always")
            try:
                check_rules([each.rule], longest)
            except RuleSyntaxError as error:
                _show(error, each.place)
                found = WRONG
        _complain(*(f"rxtweets: {_placed(each.place)}{clean(str(it.message))}" for it in doubts))
    return found


def _report(report: RulesReport) -> int:
    would = "would be " if report.dry_run else ""
    for sign, rules in (("-", report.deleted), ("+", report.added)):
        for rule in rules:
            _print(f"{sign} {_shown(rule)}")
    _print(
        f"{len(report.added)} {would}added, {len(report.deleted)} {would}deleted, "
        f"{len(report.kept)} kept; {report.calls} request(s)"
    )
    return DONE


def _shown(rule: Rule) -> str:
    value = clean(rule.value or rule.id)
    return f"{value}\t{clean(rule.tag)}" if rule.tag else value


def _saying_where(run: Any) -> Any:
    """Run a command; what X refuses is shown rule by rule, with X's place in it."""

    def running(options: argparse.Namespace) -> int:
        try:
            return int(run(options))
        except RulesRefused as error:
            if error.report is not None:
                _report(error.report)
            for refusal in error.refusals:
                _show_refusal(refusal)
            return REFUSED
        except StreamError as error:
            _complain(*(f"rxtweets: {note}" for note in getattr(error, "__notes__", ())))
            raise

    return running


def _show(error: RuleSyntaxError, place: str) -> None:
    _complain(f"rxtweets: {_placed(place)}{clean(error.reason)}")
    _complain(*pointer(error.rule, error.position))


def _placed(place: str) -> str:
    return f"{place}: " if place else ""


POSITION = re.compile(r"at position (\d+)")


def _show_refusal(refusal: RuleRefusal) -> None:
    _complain(f"rxtweets: X refused {clean(str(refusal))}")
    found = POSITION.search(" ".join(refusal.details))
    if found and 0 < int(found[1][:6]) <= len(refusal.value):
        _complain(*pointer(refusal.value, int(found[1]) - 1))


def _print(*lines: str) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _complain(*lines: str) -> None:
    sys.stderr.writelines(f"{line}\n" for line in lines)
