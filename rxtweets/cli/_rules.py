"""The rules of the filtered stream.

The rules of the filtered stream. X keeps them for the app of the token, also after a connection or
a program ends. Changes take effect within some 20 seconds.

  rxtweets rules check 'python lang:en'        check the syntax, here, without a token
  rxtweets rules sync rules.txt --dry-run      show the changes that make X's rules those of a file
  rxtweets rules list

A rule that begins with a - needs -- before it, as in: rxtweets rules add -- '-is:retweet cat'
"""

from __future__ import annotations

import argparse
import codecs
import json
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from rxtweets.api._rule_syntax import LONGEST
from rxtweets.api._rules import Rule, RuleRefusal, Rules, RulesReport, check_rules
from rxtweets.cli._command import ENDED, FAILED, USAGE, add_flag, add_option, complain, write
from rxtweets.cli._sources import add_server, server_options
from rxtweets.display._text import clean, pointer
from rxtweets.errors import ConfigurationError, RulesRefused, RuleSyntaxError, StreamError

__all__ = ["EPILOG", "add_arguments"]

EPILOG = """\
a file of rules is text (UTF-8, or UTF-16 with a byte order mark), a rule a line, with a tag after a
tab:

  python lang:en -is:retweet<TAB>py
  #rxpy

Empty lines, and lines that start with //, are skipped. Or it is JSON: an array, or one value a
line, of {"value": ..., "tag": ...}, as `rxtweets rules list --json` writes it. - is standard input.
"""

POSITION = re.compile(r"at position (\d+)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands below this one."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, summary: str, run: Any) -> argparse.ArgumentParser:
        description = f"{summary[:1].upper()}{summary[1:]}."
        made = commands.add_parser(name, help=summary, description=description)
        made.set_defaults(run=_with_refusals(run))
        return made

    listing = command("list", "list the rules of X", _list)
    adding = command("add", "add rules", _add)
    adding.add_argument("values", nargs="+", metavar="VALUE", help="a rule")
    text = "of the first rule; again for the next one"
    adding.add_argument("--tag", action="append", default=[], help=text)
    deleting = command("delete", "delete rules", _delete)
    deleting.add_argument("rules", nargs="+", metavar="ID|VALUE", help="digits are an id")
    syncing = command("sync", "make the rules of X those of a file", _sync)
    syncing.add_argument("file", metavar="FILE", help="see rxtweets rules --help")
    add_flag(syncing, "--delete-all", "delete every rule, if the file has none")
    checking = command("check", "check the syntax of rules, here; no token needed", _check)
    text = "a file, if it exists; else a rule"
    checking.add_argument("rules", nargs="+", metavar="FILE|VALUE", help=text)
    counting = command("counts", "show the number of rules and its limits", _counts)
    for subparser in (adding, deleting, syncing):
        add_flag(subparser, "--dry-run", "let X check the change, and change nothing")
    for subparser in (adding, syncing, checking):
        add_option(subparser, "--longest", LONGEST, "characters of a rule")
    for subparser in (listing, counting):
        add_flag(subparser, "--json", "print a JSON object a line")
    for subparser in (listing, adding, deleting, syncing, counting):
        add_server(subparser)


def _list(options: argparse.Namespace) -> int:
    for rule in Rules(**server_options(options)).get():
        if options.json:
            write(json.dumps({"id": rule.id, "value": rule.value, "tag": rule.tag}))
        else:
            write(f"{clean(rule.id)}\t{_shown(rule)}")
    return ENDED


def _add(options: argparse.Namespace) -> int:
    tags = [*options.tag, *[""] * len(options.values)]
    rules = [Rule(value, tag) for value, tag in zip(options.values, tags, strict=False)]
    if len(options.tag) > len(rules):
        raise ConfigurationError(f"{len(options.tag)} tags for {len(rules)} rule(s)")
    if mistakes := _mistakes([PlacedRule(rule) for rule in rules], options.longest):
        return mistakes
    return _report(_client(options).add(*rules, dry_run=options.dry_run))


def _delete(options: argparse.Namespace) -> int:
    client = Rules(**server_options(options))
    return _report(client.delete(*options.rules, dry_run=options.dry_run))


def _sync(options: argparse.Namespace) -> int:
    placed = read_rules(options.file)
    if mistakes := _mistakes(placed, options.longest):
        return mistakes
    if not placed and not (options.delete_all or options.dry_run):
        raise ConfigurationError(
            f"{options.file} has no rules, so every rule would be deleted; --delete-all does it, "
            "--dry-run shows them"
        )
    rules = [rule.rule for rule in placed]
    return _report(_client(options).sync(rules, dry_run=options.dry_run))


def _check(options: argparse.Namespace) -> int:
    placed: list[PlacedRule] = []
    for given in options.rules:
        placed += read_rules(given) if _is_file(given) else [PlacedRule(Rule(given))]
    mistakes = _mistakes(placed, options.longest)
    if not mistakes:
        write(f"{len(placed)} rule(s), no mistake found")
    return mistakes


def _counts(options: argparse.Namespace) -> int:
    counts = Rules(**server_options(options)).counts()
    if options.json:
        names = ("app", "app_cap", "project", "project_cap")
        write(json.dumps({name: getattr(counts, name) for name in names}))
    else:
        caps = ["?" if cap is None else cap for cap in (counts.app_cap, counts.project_cap)]
        write(f"app      {counts.app} of {caps[0]}", f"project  {counts.project} of {caps[1]}")
    return ENDED


def _client(options: argparse.Namespace) -> Rules:
    return Rules(longest=options.longest, **server_options(options))


def _is_file(given: str) -> bool:
    try:
        return given == "-" or Path(given).is_file()
    except (OSError, ValueError):  # too long for a path, or with a null character
        return False


# Output.


def _report(report: RulesReport) -> int:
    would = "would be " if report.dry_run else ""
    for sign, rules in (("-", report.deleted), ("+", report.added)):
        write(*(f"{sign} {_shown(rule)}" for rule in rules))
    write(
        f"{len(report.added)} {would}added, {len(report.deleted)} {would}deleted, "
        f"{len(report.kept)} kept; {report.calls} request(s)"
    )
    return ENDED


def _shown(rule: Rule) -> str:
    value = clean(rule.value or rule.id)
    return f"{value}\t{clean(rule.tag)}" if rule.tag else value


def _mistakes(placed: Sequence[PlacedRule], longest: int) -> int:
    """Show every mistake with its rule and a caret below it; return the exit code."""
    code = ENDED
    for rule in placed:
        place = f"{rule.place}: " if rule.place else ""
        with warnings.catch_warnings(record=True) as doubts:
            warnings.simplefilter("always")
            try:
                check_rules([rule.rule], longest)
            except RuleSyntaxError as error:
                complain(f"rxtweets: {place}{clean(error.reason)}")
                complain(*pointer(error.rule, error.position))
                code = USAGE
        complain(*(f"rxtweets: {place}{clean(str(doubt.message))}" for doubt in doubts))
    return code


def _with_refusals(run: Callable[[argparse.Namespace], int]) -> Callable[..., int]:
    """Wrap a command so that it shows the refusals of X, each with its place in the rule."""

    def wrapped(options: argparse.Namespace) -> int:
        try:
            return run(options)
        except RulesRefused as error:
            if error.report is not None:
                _report(error.report)
            for refusal in error.refusals:
                _show_refusal(refusal)
            return FAILED
        except StreamError as error:
            complain(*(f"rxtweets: {note}" for note in getattr(error, "__notes__", ())))
            raise

    return wrapped


def _show_refusal(refusal: RuleRefusal) -> None:
    complain(f"rxtweets: X refused {clean(str(refusal))}")
    found = POSITION.search(" ".join(refusal.details))
    if found and 0 < int(found[1][:6]) <= len(refusal.value):
        complain(*pointer(refusal.value, int(found[1]) - 1))


# Files of rules.


@dataclass(frozen=True, slots=True)
class PlacedRule:
    """A rule and its place.

    Attributes:
        rule: the rule.
        place: such as ``rules.txt:3``; empty if it is from the command line.
    """

    rule: Rule
    place: str = ""


def read_rules(path: str) -> list[PlacedRule]:
    """Read the rules of a file; ``-`` is standard input.

    Raises:
        ConfigurationError: it cannot be read, or is no file of rules.
    """
    text = _text_of(path)
    start = text.lstrip()
    if start.startswith("["):
        values = _json(text, path)
        return [_from_json(value, f"{path}, rule {at}") for at, value in enumerate(values, 1)]
    # `splitlines` would cut at characters that may be in a rule.
    lines = [(f"{path}:{at}", line) for at, line in enumerate(text.split("\n"), 1) if line.strip()]
    if start.startswith("{"):
        return [_from_json(_json(line, place), place) for place, line in lines]
    return [_from_line(line, place) for place, line in lines if not line.startswith("//")]


def _text_of(path: str) -> str:
    try:
        if path == "-":
            return sys.stdin.read()
        data = Path(path).read_bytes()
        is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path}: cannot be read as rules: byte {error.start} is no {error.encoding.upper()}; "
            "save the file as UTF-8"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"{path}: cannot be read as rules ({reason})") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _from_line(line: str, place: str) -> PlacedRule:
    value, _, tag = line.strip().partition("\t")
    return PlacedRule(Rule(value.strip(), tag.strip()), place)


def _json(text: str, place: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"{place}: not JSON ({error})") from None


def _from_json(value: Any, place: str) -> PlacedRule:
    given = {"value": value} if isinstance(value, str) else value
    if not isinstance(given, dict) or not isinstance(given.get("value"), str):
        raise ConfigurationError(f'{place}: give {{"value": "cat has:media", "tag": "cats"}}')
    tag = given.get("tag") or ""
    if not isinstance(tag, str):
        raise ConfigurationError(f"{place}: the tag {tag!r} is no text")
    return PlacedRule(Rule(given["value"].strip(), tag), place)
