r"""The language of filtered-stream rules: parsed, and checked before a request is spent on it.

A space is AND and binds tighter than ``OR``; ``-`` negates what follows; parentheses group;
``"two words"`` is a phrase and ``"two words"~3`` two words at most three apart. Operators are
``name:value``. Some stand alone, others only beside one that does. Within quotation marks, ``\"``
is a quotation mark. Words and values begin with a letter, a digit or an emoji, or they are quoted.

Sources: X's pages "Build a rule" and "Operators" of the filtered stream,
https://docs.x.com/x-api/posts/filtered-stream/integrate/build-a-rule, and for what they leave out
"Rules and filtering: Enterprise", whose language it is. Where they and the texts of X's errors
differ, the errors are right.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from rxtweets.api._entities import is_cashtag, is_hashtag, is_mention
from rxtweets.errors import RuleSyntaxError

__all__ = [
    "LONGEST",
    "AllOf",
    "AnyOf",
    "Node",
    "Not",
    "RuleWarning",
    "Term",
    "check",
    "doubts",
    "parse",
    "terms",
]

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
    "has": _words("hashtags cashtags links mentions media media_link images video_link videos geo"),
}
ALIASES = {
    "retweets_of_user": "retweets_of",
    "user_bio": "bio",
    "user_bio_location": "bio_location",
    "geo_bounding_box": "bounding_box",
    "statuses_count": "tweets_count",
    "friends_count": "following_count",
    "user_in_lists_count": "listed_count",
    "within_url_title": "url_title",
    "within_url_description": "url_description",
    "in_reply_to_status_id": "in_reply_to_tweet_id",
    "retweets_of_status_id": "retweets_of_tweet_id",
}
NUMBER = r"\d+(?:\.\d+)?"
DEGREES = rf"-?{NUMBER}"
PATTERNS = {
    "sample": (r"100|[1-9]\d?", "a whole number from 1 to 100"),
    "lang": (r"[A-Za-z]{2,3}(-[A-Za-z]{2,4})?", "a language code, as lang:en"),
    "place_country": (r"[A-Za-z]{2}", "a country code of two letters"),
    "context": (r"\d+\.(\d+|\*)|\*\.\d+", "domain.entity, or * for one of them, as context:47.*"),
    "conversation_id": (r"\d{1,19}", "the id of a tweet"),
    "in_reply_to_tweet_id": (r"\d{1,19}", "the id of a tweet"),
    "retweets_of_tweet_id": (r"\d{1,19}", "the id of a tweet"),
    "from": (r"@?\w{1,20}", "a user name or id"),
    "to": (r"@?\w{1,20}", "a user name or id"),
    "retweets_of": (r"@?\w{1,20}", "a user name or id"),
    **dict.fromkeys(COUNTS, (r"\d+(\.\.\d+)?", "a number, or a range as 10..500")),
    "min_followers": (r"\d+", "a number"),
    "embedding_threshold": (r"0(\.\d+)?|1(\.0+)?", "a number from 0.0 to 1.0"),
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
SIGILS = {"#": "hashtag", "＃": "hashtag", "@": "mention", "＠": "mention", "$": "cashtag"}
TAGS = {
    "hashtag": (is_hashtag, "no hashtag: letters, digits and _, one letter at least"),
    "mention": (is_mention, "no user name: up to 20 of a-z, 0-9 and _"),
    "cashtag": (is_cashtag, "no cashtag: up to 6 letters, then perhaps . or _ and 2 more"),
}

STOP_WORDS = _words("a you")
"""Words that are no rule alone, as X's errors say; it has no list of them."""

LIKELY_STOP_WORDS = STOP_WORDS | _words("""
    an and at but by com from http https if in is it its me my or rt the this to too via we www
""")
"""With the others of the list that Gnip published, and said to be subject to change.

Source: http://support.gnip.com/apis/powertrack/rules.html
"""

VARIANTS = re.compile("[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]")
PUNCTUATION = "!%&'*+./;<=>?,:#@\\[\\]{}|~\\\\¡§«¶·»¿‐-‧‰-⁞！-＃％-／-"
STARTS_WRONG = re.compile(f"[{PUNCTUATION}$]")
"""How no keyword begins. Source: the same page of Gnip."""

VALUE_STARTS_WRONG = re.compile(f"(?![-@*])[{PUNCTUATION}$]")
MILES = 25
FARTHEST_MILES = MILES * 1.01
"""As X's measure of the globe may be another."""

MILES_OF_DEGREE = 69.1
KM_OF_MILE = 1.609344


class RuleWarning(UserWarning):
    """A rule that X may refuse; it is sent all the same."""


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
        raise RuleSyntaxError("give a text that is not empty", str(value), 0)
    if halves := re.search("[\ud800-\udfff]", value):
        raise RuleSyntaxError("half of a character cannot be sent", value, halves.start())
    if len(value) > longest:
        reason = f"{len(value)} characters, X takes {longest} at most"
        raise RuleSyntaxError(reason, value, longest)
    node = parse(value)
    for term, negated in terms(node):
        _check_term(term, value, negated=negated)
    positive = [term for term, negated in terms(node) if not negated]
    if not any(term.operator in STANDALONE for term in positive):
        raise RuleSyntaxError(
            "it needs an operator that stands alone and is not negated, such as a keyword, a "
            "#hashtag or from:user",
            value,
            0,
        )
    if all(_is_one_of(STOP_WORDS, term) for term in positive):
        reason = f"{positive[0].value} is a stop word; add another word, or quote a phrase"
        raise RuleSyntaxError(reason, value, positive[0].position)
    _check_alternatives(node, value)


def doubts(value: str) -> list[str]:
    """Reasons for which X may refuse a rule that passed `check`; only X knows."""
    node = parse(value)
    positive = [term for term, negated in terms(node) if not negated]
    found = []
    if all(_is_one_of(LIKELY_STOP_WORDS, term) for term in positive):
        words = ", ".join(term.value for term in positive)
        found.append(f"{words}: X may take it for a stop word, which is no rule alone")
    for term, _ in terms(node):
        if term.operator == "keyword" and VARIANTS.search(term.value):
            found.append(f"{term.value}: X wants variants of emoji quoted")
    return found


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


def _is_one_of(words: frozenset[str], term: Term) -> bool:
    return term.operator == "keyword" and term.value.casefold() in words


def _check_alternatives(node: Node, rule: str) -> None:
    """Refuse what no OR may join, as it would be about nearly every tweet."""
    for term in _alternatives(node):
        if term.operator == "sample":
            reason = "sample: is for the whole rule; write (a OR b) sample:10"
            raise RuleSyntaxError(reason, rule, term.position)
    if _is_met_by_absence(node):
        term = next(term for term, negated in terms(node) if negated)
        reason = "an alternative that is only negated is met by nearly every tweet; join it by AND"
        raise RuleSyntaxError(reason, rule, term.position)


def _alternatives(node: Node) -> Iterator[Term]:
    """The terms below an OR."""
    pending = [node]
    while pending:
        node = pending.pop()
        if isinstance(node, AnyOf):
            yield from (term for term, _ in terms(node))
        elif isinstance(node, AllOf):
            pending += node.parts


def _is_met_by_absence(node: Node) -> bool:
    """Whether a tweet can match that has nothing of what the rule names."""
    preorder: list[Node] = []
    pending = [node]
    while pending:
        node = pending.pop()
        preorder.append(node)
        if isinstance(node, (AllOf, AnyOf)):
            pending += node.parts
    met: dict[int, bool] = {}
    for each in reversed(preorder):  # the parts of a group before it
        if isinstance(each, (AllOf, AnyOf)):
            decide = all if isinstance(each, AllOf) else any
            met[id(each)] = decide(met[id(part)] for part in each.parts)
        else:
            met[id(each)] = isinstance(each, Not)
    return met[id(preorder[0])]


def _check_term(term: Term, rule: str, *, negated: bool) -> None:
    name = term.operator

    def refuse(reason: str) -> RuleSyntaxError:
        return RuleSyntaxError(reason, rule, term.position)

    if reason := _wrong_in_word(term):
        raise refuse(reason)
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
    if name in RANGES and (reason := RANGES[name](term.value)):
        raise refuse(f"{name}:{term.value} does not work; {reason}")
    if term.distance > FARTHEST:
        raise refuse(f"~{term.distance} is too far; X takes {FARTHEST} at most")


def _wrong_in_word(term: Term) -> str:
    """Why X would not read a term as the keyword or tag that it looks like; empty if it would."""
    word = term.value
    if term.operator in TAGS:
        is_one, otherwise = TAGS[term.operator]
        return "" if is_one(word) else f"{word} is {otherwise}; to find the text itself, quote it"
    if term.operator != "keyword":
        return ""
    if word[0] in "'‘’‚‛“”„‟«»":
        return f'{word[0]} is no quotation mark here; write a phrase as "two words"'
    if STARTS_WRONG.match(word):
        return f"{word[0]} cannot begin a word; to find it, quote the word"
    if wrong := re.search(r"[:\[\]]", word):
        return f"{wrong[0]} cannot be in a word; to find it, quote the word"
    return ""


def _numbers(value: str) -> list[float]:
    return list(map(float, re.findall(DEGREES, value)))


def _count_range(value: str) -> str:
    numbers = _numbers(value)
    return "" if numbers == sorted(numbers) else "the smaller number comes first"


def _point_radius(value: str) -> str:
    longitude, latitude, radius = _numbers(value)
    miles = radius / KM_OF_MILE if value.endswith("km]") else radius
    if miles > FARTHEST_MILES:
        return f"{MILES} miles are the most"
    return _off_the_globe([longitude], [latitude])


def _bounding_box(value: str) -> str:
    west, south, east, north = _numbers(value)
    if reason := _off_the_globe([west, east], [south, north]):
        return reason
    if south > north:
        return "the south comes before the north"
    height = (north - south) * MILES_OF_DEGREE
    width = (east - west) % 360 * MILES_OF_DEGREE * math.cos(math.radians((south + north) / 2))
    if max(width, height) > FARTHEST_MILES:
        return f"{MILES} miles are the most in each direction"
    return ""


def _off_the_globe(longitudes: list[float], latitudes: list[float]) -> str:
    if max(map(abs, longitudes)) > 180:
        return "longitudes are from -180 to 180, and come first"
    return "latitudes are from -90 to 90" if max(map(abs, latitudes)) > 90 else ""


RANGES: dict[str, Callable[..., str]] = {
    **dict.fromkeys(COUNTS - {"min_followers"}, _count_range),
    "point_radius": _point_radius,
    "bounding_box": _bounding_box,
}


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
    | "(?P<phrase>(?:[^"\\]|\\.)*)" (?:(?P<tilde>~)(?P<distance>[0-9]*))?
    | (?P<operator>[A-Za-z_]+) :
      (?: "(?P<quoted>(?:[^"\\]|\\.)*)" | (?P<box>\[[^\[\]]*\]) | (?P<plain>[^\s()"]*) )
    | (?P<word>[^\s()"]+)
    """,
    re.VERBOSE | re.DOTALL,
)


def _unescaped(quoted: str) -> str:
    return re.sub(r'\\(["\\])', r"\1", quoted)


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
            return _Token("term", at, self._operator(match, at))
        return self._word(match["word"], at)

    def _operator(self, match: re.Match[str], at: int) -> Term:
        name = match["operator"].lower()
        if name in WITHOUT_NAME:
            raise self._refuse(at, f"no operator {match['operator']}: is known")
        if match["quoted"] is not None:
            value = _unescaped(match["quoted"])
        else:
            value = match["box"] or match["plain"] or ""
        if match["plain"] and name in NAMES:
            wrong = VALUE_STARTS_WRONG.match(value) or re.search(":", value)
            if wrong:
                position = match.start("plain") + wrong.start()
                raise self._refuse(position, f'quote what has {wrong[0]}, as {name}:"…"')
        return Term(ALIASES.get(name, name), value, 0, at)

    def _phrase(self, match: re.Match[str], at: int) -> _Token:
        phrase, distance = _unescaped(match["phrase"]), match["distance"]
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
        return RuleSyntaxError(reason, self._rule, position)


NOT_NEGATED = {
    "(": "a group cannot be negated; negate its parts",
    "or": "OR cannot be negated",
}
