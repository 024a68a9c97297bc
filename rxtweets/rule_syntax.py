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
COUNTS = _words("min_followers followers_count tweets_count following_count listed_count")
CONJUNCTION = _words("is has sample lang embedding_threshold") | COUNTS
NAMES = (STANDALONE | CONJUNCTION) - WITHOUT_NAME
VALUES = {
    "is": _words("retweet reply quote verified nullcast"),
    "has": _words("hashtags cashtags links mentions media images video_link videos geo"),
}
NUMBER = r"\d+(\.\d+)?"
DEGREES = rf"-?{NUMBER}"
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
    **dict.fromkeys(COUNTS, (r"\d+(\.\.\d+)?", "a number, or a range as 10..500")),
    "point_radius": (
        rf"\[{DEGREES} {DEGREES} {NUMBER}(mi|km)\]",
        "[longitude latitude radius], the radius in mi or km",
    ),
    "bounding_box": (
        rf"\[{DEGREES} {DEGREES} {DEGREES} {DEGREES}\]",
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
    if halves := re.search("[\ud800-\udfff]", value):
        at = halves.start()
        raise RuleSyntaxError(
            f"rule {value!r}, at character {at + 1}: half of a character cannot be sent", value, at
        )
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
    # Not by recursion: a rule may nest deeper than Python's stack.
    pending = [(node, negated)]
    while pending:
        node, negated = pending.pop()
        if isinstance(node, Term):
            yield node, negated
        elif isinstance(node, Not):
            pending.append((node.part, not negated))
        else:
            pending += [(part, negated) for part in reversed(node.parts)]


def _check_term(term: Term, rule: str, *, negated: bool) -> None:
    name = term.operator

    def refuse(reason: str) -> RuleSyntaxError:
        return RuleSyntaxError(
            f"rule {rule!r}, at character {term.position + 1}: {reason}", rule, term.position
        )

    if name not in WITHOUT_NAME | NAMES:
        close = difflib.get_close_matches(name, sorted(NAMES), 1)
        hint = f"did you mean {close[0]}:?" if close else "to find the text itself, quote it"
        raise refuse(f"no operator {name}: is known; {hint}")
    if negated and name in NEVER_NEGATED:
        raise refuse(f"{name}: cannot be negated")
    if name in VALUES and term.value.lower() not in VALUES[name]:
        raise refuse(f"{name}:{term.value} is not known; {name}: takes {_list(VALUES[name])}")
    if name == "is" and term.value.lower() == "nullcast" and not negated:
        raise refuse("is:nullcast is only taken negated, -is:nullcast")
    pattern, expected = PATTERNS.get(name, (r"(?s).+", "a value"))
    if not re.fullmatch(pattern, term.value, re.ASCII):
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
    | "(?P<phrase>[^"]*)" (?:(?P<tilde>~)(?P<distance>[0-9]*))?
    | (?P<operator>[A-Za-z_]+) :
      (?: "(?P<quoted>[^"]*)" | (?P<box>\[[^\[\]]*\]) | (?P<plain>[^\s()"]*) )
    | (?P<word>[^\s()"]+)
    """,
    re.VERBOSE,
)


class _Group:
    """What is between parentheses, as far as it was read: alternatives, the last one open."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.alternatives: list[Node] = []
        self.parts: list[Node] = []

    def node(self) -> Node:
        nodes = [*self.alternatives, _all_of(self.parts)]
        return nodes[0] if len(nodes) == 1 else AnyOf(tuple(nodes))


def _all_of(parts: list[Node]) -> Node:
    return parts[0] if len(parts) == 1 else AllOf(tuple(parts))


class _Parser:
    """Reads from left to right, the open groups on a stack: rules may nest as deep as they like."""

    def __init__(self, rule: str) -> None:
        self._rule = rule
        self._groups = [_Group(0)]
        self._minus: int | None = None

    def rule(self) -> Node:
        for token in self._read():
            if token.term is not None:
                self._add(token.term)
            elif token.kind == "-":
                self._minus = token.position
            else:
                self._take_structure(token)
        if len(self._groups) > 1:
            raise self._refuse(self._groups[-1].position, "this ( is not closed")
        self._expect_parts(len(self._rule))
        return self._groups[0].node()

    def _add(self, term: Term) -> None:
        negated, self._minus = self._minus is not None, None
        self._groups[-1].parts.append(Not(term) if negated else term)

    def _take_structure(self, token: _Token) -> None:
        groups = self._groups
        if self._minus is not None:
            raise self._refuse(self._minus, NOT_NEGATED[token.kind])
        if token.kind == "(":
            groups.append(_Group(token.position))
            return
        if token.kind == ")" and len(groups) == 1:
            raise self._refuse(token.position, "a ) without its (")
        self._expect_parts(token.position)
        if token.kind == ")":
            closed = groups.pop().node()
            groups[-1].parts.append(closed)
        else:
            groups[-1].alternatives.append(_all_of(groups[-1].parts))
            groups[-1].parts = []

    def _expect_parts(self, position: int) -> None:
        if not self._groups[-1].parts:
            raise self._refuse(position, "something to look for is missing here")

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
            return self._phrase(match, at)
        if match["operator"]:
            found = (match["quoted"], match["box"], match["plain"])
            value = next((value for value in found if value is not None), "")
            if match["operator"].lower() in WITHOUT_NAME:
                raise self._refuse(at, f"no operator {match['operator']}: is known")
            return _Token("term", at, Term(match["operator"].lower(), value, 0, at))
        return self._word(match["word"], at)

    def _phrase(self, match: re.Match[str], at: int) -> _Token:
        phrase, distance = match["phrase"], match["distance"]
        if not phrase.strip():
            raise self._refuse(at, "an empty phrase")
        if match["tilde"] and not distance:
            raise self._refuse(match.start("tilde"), f"a number from 1 to {FARTHEST} follows a ~")
        # Python refuses to read a number of thousands of digits; any of this size is too far.
        number = int((distance or "0")[:9])
        return _Token("term", at, Term("phrase", phrase, number, at))

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


NOT_NEGATED = {
    "(": "a group cannot be negated; negate its parts",
    "or": "OR cannot be negated",
}
