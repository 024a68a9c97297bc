"""Rules in files: a line each, or JSON."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from rxtweets.api._rules import Rule
from rxtweets.errors import ConfigurationError

__all__ = ["FORMATS", "Placed", "read_rules"]

FORMATS = """\
a file of rules is text, a rule a line, with a tag behind a tab if it has one:

  python lang:en -is:retweet<TAB>py
  #rxpy

Empty lines, and lines that start with //, are left out. Or it is JSON: an array, or one value a
line, of {"value": ..., "tag": ...}, as `rxtweets rules list --json` writes it. - is standard input.
"""


@dataclass(frozen=True, slots=True)
class Placed:
    """A rule, and where it was written.

    Attributes:
        rule: the rule.
        place: such as ``rules.txt:3``; empty if it was given on the command line.
    """

    rule: Rule
    place: str = ""


def read_rules(path: str) -> list[Placed]:
    """The rules of a file.

    Raises:
        ConfigurationError: it cannot be read, or is no file of rules.
    """
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: cannot be read as rules ({error})") from None
    start = text.lstrip()
    if start.startswith("["):
        values = _json(text, path)
        return [_from_json(value, f"{path}, rule {at}") for at, value in enumerate(values, 1)]
    # Not splitlines: that would cut at characters which may stand in a rule.
    lines = [(f"{path}:{at}", line) for at, line in enumerate(text.split("\n"), 1) if line.strip()]
    if start.startswith("{"):
        return [_from_json(_json(line, place), place) for place, line in lines]
    return [_from_line(line, place) for place, line in lines if not line.startswith("//")]


def _from_line(line: str, place: str) -> Placed:
    value, _, tag = line.strip().partition("\t")
    return Placed(Rule(value.strip(), tag.strip()), place)


def _json(text: str, place: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"{place}: not JSON ({error})") from None


def _from_json(value: Any, place: str) -> Placed:
    given = {"value": value} if isinstance(value, str) else value
    if not isinstance(given, dict) or not isinstance(given.get("value"), str):
        raise ConfigurationError(f'{place}: give {{"value": "cat has:media", "tag": "cats"}}')
    tag = given.get("tag") or ""
    if not isinstance(tag, str):
        raise ConfigurationError(f"{place}: the tag {tag!r} is no text")
    return Placed(Rule(given["value"].strip(), tag), place)
