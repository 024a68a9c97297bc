"""The language of filtered-stream rules: parsed, and checked before a request is spent on it.

A space is AND and binds tighter than ``OR``; ``-`` negates what follows; parentheses group;
``"two words"`` is a phrase and ``"two words"~3`` two words at most three apart. Operators are
``name:value``. Some stand alone, others only beside one that does.

Source: X's documentation, "building rules for the filtered stream".
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from rxtweets.errors import RuleSyntaxError

__all__ = ["LONGEST", "AllOf", "AnyOf", "Node", "Not", "Term", "check", "parse", "terms"]

LONGEST = 1_024
"""Characters of a rule; 2,048 for enterprise accounts."""

FARTHEST = 6
"""The largest N of ``"a b"~N``."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


WITHOUT_NAME = _words("keyword phrase hashtag mention cashtag")
STANDALONE = WITHOUT_NAME | _words("""
    from to retweets_of from_affiliate_of to_affiliate_of url context entity conversation_id bio
    bio_name bio_location place place_country point_radius bounding_box embedding url_title
    url_description url_contains in_reply_to_tweet_id retweets_of_tweet_id source
""")
CONJUNCTION = _words("""
    is has sample lang embedding_threshold min_followers followers_count tweets_count
    following_count listed_count
""")
NAMES = (STANDALONE | CONJUNCTION) - WITHOUT_NAME
VALUES = {
    "is": _words("retweet reply quote verified nullcast"),
    "has": _words("hashtags cashtags links mentions media images video_link videos geo"),
}
PATTERNS = {
    "sample": (r"100|[1-9]\d?", "a whole number from 1 to 100"),
    "lang": (r"[A-Za-z]{2,3}(-[A-Za-z]{2,4})?", "a language code, as lang:en"),
    "place_country": (r"[A-Za-z]{2}", "a country code of two letters"),
    "conversation_id": (r"\d{1,19}", "the id of a tweet"),
    "in_reply_to_tweet_id": (r"\d{1,19}", "the id of a tweet"),
    "retweets_of_tweet_id": (r"\d{1,19}", "the id of a tweet"),
    "from": (r"@?\w{1,20}", "a user name or id"),
    "to": (r"@?\w{1,20}", "a user name or id"),
    "retweets_of": (r"@?\w{1,20}", "a user name or id"),
    "point_radius": (
        r"\[-?[\d.]+ -?[\d.]+ [\d.]+(mi|km)\]",
        "[longitude latitude radius], the radius in mi or km",
    ),
    "bounding_box": (
        r"\[-?[\d.]+ -?[\d.]+ -?[\d.]+ -?[\d.]+\]",
        "[west south east north] in degrees",
    ),
}
NEVER_NEGATED = frozenset({"sample", "embedding", "embedding_threshold"})
SIGILS = {"#": "hashtag", "@": "mention", "$": "cashtag"}


@dataclass(frozen=True, slots=True)
class Term:
    """One operator with its value.

    Attributes:
        operator: ``keyword``, ``phrase``, ``hashtag``, ``mention``, ``cashtag``, or the name
            before the colon.
        value: without quotes and sigils.
        distance: of a phrase: how far apart its words may be; 0 for a phrase proper.
        position: in the rule, from 0.
    """

    operator: str
    value: str
    distance: int = 0
    position: int = 0


@dataclass(frozen=True, slots=True)
class Not:
    """What the part must not match."""

    part: Node


@dataclass(frozen=True, slots=True)
class AllOf:
    """All parts match."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of the parts matches."""

    parts: tuple[Node, ...]


Node = Term | Not | AllOf | AnyOf


def check(value: str, longest: int = LONGEST) -> None:
    """Refuse a rule that X would refuse.

    Args:
        value: the rule.
        longest: characters it may have.

    Raises:
        RuleSyntaxError: X would refuse it; says where and why.
    """
    if not isinstance(value, str) or not value.strip():
        raise RuleSyntaxError(f"rule {value!r}: give a text that is not empty", str(value), 0)
    if len(value) > longest:
        raise RuleSyntaxError(
            f"rule {value[:40]!r}…: {len(value)} characters, X takes {longest} at most",
            value,
            longest,
        )
    node = parse(value)
    for term, negated in terms(node):
        _check_term(term, value, negated=negated)
    if not any(term.operator in STANDALONE and not negated for term, negated in terms(node)):
        raise RuleSyntaxError(
            f"rule {value!r}: it needs an operator that stands alone and is not negated, such as "
            "a keyword, a #hashtag or from:user",
            value,
            0,
        )


def parse(value: str) -> Node:
    """The tree of a rule.

    Raises:
        RuleSyntaxError: it cannot be read.
    """
    return _Parser(value).rule()


def terms(node: Node, *, negated: bool = False) -> Iterator[tuple[Term, bool]]:
    """The terms of a tree in order, and whether each is negated."""
    if isinstance(node, Term):
        yield node, negated
    elif isinstance(node, Not):
        yield from terms(node.part, negated=not negated)
    else:
        for part in node.parts:
            yield from terms(part, negated=negated)


def _check_term(term: Term, rule: str, *, negated: bool) -> None:
    name = term.operator

    def refuse(reason: str) -> RuleSyntaxError:
        return RuleSyntaxError(
            f"rule {rule!r}, at character {term.position + 1}: {reason}", rule, term.position
        )

    if name not in STANDALONE | CONJUNCTION:
        close = difflib.get_close_matches(
            name, sorted((STANDALONE | CONJUNCTION) - WITHOUT_NAME), 1
        )
        hint = f"did you mean {close[0]}:?" if close else "to find the text itself, quote it"
        raise refuse(f"no operator {name}: is known; {hint}")
    if negated and name in NEVER_NEGATED:
        raise refuse(f"{name}: cannot be negated")
    if name in VALUES and term.value.lower() not in VALUES[name]:
        raise refuse(f"{name}:{term.value} is not known; {name}: takes {_list(VALUES[name])}")
    if name == "is" and term.value.lower() == "nullcast" and not negated:
        raise refuse("is:nullcast is only taken negated, -is:nullcast")
    pattern, expected = PATTERNS.get(name, (r"(?s).+", "a value"))
    if not re.fullmatch(pattern, term.value):
        raise refuse(f"{name}:{term.value} does not work; give {expected}")
    if term.distance > FARTHEST:
        raise refuse(f"~{term.distance} is too far; X takes {FARTHEST} at most")


def _list(values: frozenset[str]) -> str:
    return ", ".join(sorted(values))


class _Token(NamedTuple):
    kind: str
    """``(``, ``)``, ``or``, ``-`` or ``term``."""
    position: int
    term: Term | None = None


TERM = re.compile(
    r"""
    (?P<open>\() | (?P<close>\))
    | (?P<minus>-(?=[^\s\-)]))
    | "(?P<phrase>[^"]*)" (?:~(?P<distance>\d+))?
    | (?P<operator>[A-Za-z_]+) :
      (?: "(?P<quoted>[^"]*)" | (?P<box>\[[^\]]*\]) | (?P<plain>[^\s()"]*) )
    | (?P<word>[^\s()"]+)
    """,
    re.VERBOSE,
)


class _Parser:
    """Reads by descent: alternatives of sequences of parts."""

    def __init__(self, rule: str) -> None:
        self._rule = rule
        self._tokens = list(self._read())
        self._next = 0

    def rule(self) -> Node:
        node = self._alternatives()
        if self._next < len(self._tokens):
            raise self._refuse(self._tokens[self._next].position, "a ) without its (")
        return node

    def _alternatives(self) -> Node:
        parts = [self._sequence()]
        while self._peek() == "or":
            self._next += 1
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self._peek() in {"(", "-", "term"}:
            parts.append(self._part())
        if not parts:
            where = self._tokens[self._next] if self._next < len(self._tokens) else None
            position = len(self._rule) if where is None else where.position
            raise self._refuse(position, "something to look for is missing here")
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _part(self) -> Node:
        token = self._tokens[self._next]
        self._next += 1
        if token.kind == "-":
            if self._peek() == "(":
                raise self._refuse(token.position, "a group cannot be negated; negate its parts")
            return Not(self._part())
        if token.term is not None:
            return token.term
        node = self._alternatives()
        if self._peek() != ")":
            raise self._refuse(token.position, "this ( is not closed")
        self._next += 1
        return node

    def _peek(self) -> str:
        return self._tokens[self._next].kind if self._next < len(self._tokens) else "end"

    def _read(self) -> Iterator[_Token]:
        position = 0
        while position < len(self._rule):
            if self._rule[position].isspace():
                position += 1
                continue
            match = TERM.match(self._rule, position)
            if match is None:
                raise self._refuse(position, "this quotation mark is not closed")
            yield self._token(match)
            position = match.end()

    def _token(self, match: re.Match[str]) -> _Token:
        at = match.start()
        if match["open"] or match["close"] or match["minus"]:
            return _Token(match[0], at)
        if match["phrase"] is not None:
            if not match["phrase"].strip():
                raise self._refuse(at, "an empty phrase")
            distance = int(match["distance"] or 0)
            return _Token("term", at, Term("phrase", match["phrase"], distance, at))
        if match["operator"]:
            found = (match["quoted"], match["box"], match["plain"])
            value = next((value for value in found if value is not None), "")
            if match["operator"].lower() in WITHOUT_NAME:
                raise self._refuse(at, f"no operator {match['operator']}: is known")
            return _Token("term", at, Term(match["operator"].lower(), value, 0, at))
        return self._word(match["word"], at)

    def _word(self, word: str, at: int) -> _Token:
        if word == "OR":
            return _Token("or", at)
        if word.lower() in {"or", "and"}:
            meant = "OR" if word.lower() == "or" else "a space"
            raise self._refuse(at, f'{word} is ambiguous: write {meant}, or quote it: "{word}"')
        if word == "-":
            raise self._refuse(at, "nothing follows this -")
        if word[0] in SIGILS and len(word) > 1:
            return _Token("term", at, Term(SIGILS[word[0]], word[1:], 0, at))
        return _Token("term", at, Term("keyword", word, 0, at))

    def _refuse(self, position: int, reason: str) -> RuleSyntaxError:
        return RuleSyntaxError(
            f"rule {self._rule!r}, at character {position + 1}: {reason}", self._rule, position
        )
