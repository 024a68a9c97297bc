r"""The syntax of filtered-stream rules: a parser, and checks before a request.

A space is AND and binds tighter than ``OR``; ``-`` negates the next term; parentheses group;
``"two words"`` is a phrase and ``"two words"~3`` two words at most three apart. Operators are
``name:value``. Some stand alone, others need one that does. Within quotation marks, ``\"`` is a
quotation mark. Unquoted words and values start with a letter, a digit or an emoji.

Sources: X's pages "Build a rule" and "Operators" of the filtered stream,
https://docs.x.com/x-api/posts/filtered-stream/integrate/build-a-rule, and "Rules and filtering:
Enterprise" for details that they omit. The texts of X's errors take precedence over the pages.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

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
"""Characters of a rule at most; 2,048 for enterprise accounts."""

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
TWEETS = _words("conversation_id in_reply_to_tweet_id retweets_of_tweet_id")
USERS = _words("from to retweets_of")
NUMBER = r"\d+(?:\.\d+)?"
DEGREES = rf"-?{NUMBER}"
PATTERNS = {
    "sample": (r"100|[1-9]\d?", "a whole number from 1 to 100"),
    "lang": (r"[A-Za-z]{2,3}(-[A-Za-z]{2,4})?", "a language code, as lang:en"),
    "place_country": (r"[A-Za-z]{2}", "a country code of two letters"),
    "context": (r"\d+\.(\d+|\*)|\*\.\d+", "domain.entity, or * for one of them, as context:47.*"),
    **dict.fromkeys(TWEETS, (r"\d{1,19}", "the id of a tweet")),
    **dict.fromkeys(USERS, (r"@?\w{1,20}", "a user name or id")),
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
"""Words that X's errors refuse as a whole rule; X publishes no list of them."""

LIKELY_STOP_WORDS = STOP_WORDS | _words("""
    an and at but by com from http https if in is it its me my or rt the this to too via we www
""")
"""With the other words of Gnip's list, which may change.

Source: http://support.gnip.com/apis/powertrack/rules.html
"""

VARIANTS = re.compile("[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]")
PUNCTUATION = "!%&'*+./;<=>?,:#@\\[\\]{}|~\\\\¡§«¶·»¿‐-‧‰-⁞！-＃％-／-"
STARTS_WRONG = re.compile(f"[{PUNCTUATION}$]")
"""Characters that no keyword starts with. Source: the same page of Gnip."""

VALUE_STARTS_WRONG = re.compile(f"(?![-@*])[{PUNCTUATION}$]")
MILES = 25
FARTHEST_MILES = MILES * 1.01
"""With a margin, because X may measure the globe differently."""

MILES_OF_DEGREE = 69.1
KM_OF_MILE = 1.609344

OPENING_QUOTES = "'‘’‚‛“”„‟«»"
NOT_NEGATED = {
    "(": "a group cannot be negated; negate its parts",
    "OR": "OR cannot be negated",
}
TERM = re.compile(
    r"""
    (?P<space>\s+)
    | (?P<structure>[()] | OR(?![^\s()"]))
    | (?P<minus>-(?=[^\s\-)]))
    | (?P<phrase>"(?P<text>(?:[^"\\]|\\.)*)" (?:(?P<tilde>~)(?P<distance>[0-9]*))?)
    | (?P<operator>(?P<name>[A-Za-z_]+) :
      (?: "(?P<quoted>(?:[^"\\]|\\.)*)" | (?P<box>\[[^\[\]]*\]) | (?P<plain>[^\s()"]*) ))
    | (?P<word>[^\s()"]+)
    """,
    re.VERBOSE | re.DOTALL,
)


class RuleWarning(UserWarning):
    """A rule that X may refuse; it is sent all the same."""


@dataclass(frozen=True, slots=True)
class Term:
    """One operator with its value.

    Attributes:
        operator: ``keyword``, ``phrase``, ``hashtag``, ``mention``, ``cashtag``, or the name
            before the colon.
        value: without quotes and sigils.
        distance: most words between those of a phrase; 0 for an exact phrase.
        position: in the rule, from 0.
    """

    operator: str
    value: str
    distance: int = 0
    position: int = 0


@dataclass(frozen=True, slots=True)
class Not:
    """The term must not match."""

    part: Term


@dataclass(frozen=True, slots=True)
class AllOf:
    """All parts match."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part matches."""

    parts: tuple[Node, ...]


Node = Term | Not | AllOf | AnyOf


def check(value: str, longest: int = LONGEST) -> None:
    """Refuse a rule that X would refuse.

    Args:
        value: the rule.
        longest: characters of it at most.

    Raises:
        RuleSyntaxError: X would refuse it; with the position and the reason.
    """
    if not isinstance(value, str) or not value.strip():
        raise RuleSyntaxError("give a text that is not empty", str(value), 0)
    if halves := re.search("[\ud800-\udfff]", value):
        raise RuleSyntaxError("half of a character cannot be sent", value, halves.start())
    if len(value) > longest:
        reason = f"{len(value)} characters, X takes {longest} at most"
        raise RuleSyntaxError(reason, value, longest)
    for reason, position in _mistakes(parse(value)):
        raise RuleSyntaxError(reason, value, position)


def doubts(value: str) -> list[str]:
    """Return reasons why X may refuse a rule that passed `check`; only X knows."""
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


def terms(node: Node) -> Iterator[tuple[Term, bool]]:
    """Iterate the terms of a tree in order, and whether each is negated."""
    for part, _ in _walk(node):
        if isinstance(part, Term):
            yield part, False
        elif isinstance(part, Not):
            yield part.part, True


def _walk(node: Node) -> Iterator[tuple[Node, bool]]:
    """Iterate a tree in order, and whether each node is below an OR.

    Without recursion, because a rule may nest deeper than Python's stack.
    """
    pending = [(node, False)]
    while pending:
        node, is_alternative = pending.pop()
        yield node, is_alternative
        if isinstance(node, (AllOf, AnyOf)):
            below = is_alternative or isinstance(node, AnyOf)
            pending += [(part, below) for part in reversed(node.parts)]


def _mistakes(node: Node) -> Iterator[tuple[str, int]]:
    for term, negated in terms(node):
        for reason in _mistakes_of_term(term, negated=negated):
            yield reason, term.position
    positive = [term for term, negated in terms(node) if not negated]
    if not any(term.operator in STANDALONE for term in positive):
        yield (
            (
                "it needs an operator that stands alone and is not negated, such as a keyword, a "
                "#hashtag or from:user"
            ),
            0,
        )
    if positive and all(_is_one_of(STOP_WORDS, term) for term in positive):
        word, position = positive[0].value, positive[0].position
        yield f"{word} is a stop word; add another word, or quote a phrase", position
    for part, is_alternative in _walk(node):
        if is_alternative and isinstance(part, Term) and part.operator == "sample":
            yield "sample: is for the whole rule; write (a OR b) sample:10", part.position
    if _matches_absence(node):
        position = next(term.position for term, negated in terms(node) if negated)
        yield (
            "an alternative that is only negated is met by nearly every tweet; join it by AND",
            position,
        )


def _is_one_of(words: frozenset[str], term: Term) -> bool:
    return term.operator == "keyword" and term.value.casefold() in words


def _matches_absence(node: Node) -> bool:
    """Return whether a tweet with none of the terms matches."""
    met: dict[int, bool] = {}
    for part, _ in reversed(list(_walk(node))):
        if isinstance(part, (AllOf, AnyOf)):
            decide = all if isinstance(part, AllOf) else any
            met[id(part)] = decide(met[id(inner)] for inner in part.parts)
        else:
            met[id(part)] = isinstance(part, Not)
    return met[id(node)]


def _mistakes_of_term(term: Term, *, negated: bool) -> Iterator[str]:
    name, value = term.operator, term.value
    yield from _mistakes_of_word(term)
    if name not in WITHOUT_NAME | NAMES:
        close = difflib.get_close_matches(name, sorted(NAMES), 1)
        hint = f"did you mean {close[0]}:?" if close else "to find the text itself, quote it"
        yield f"no operator {name}: is known; {hint}"
    if negated and name in NEVER_NEGATED:
        yield f"{name}: cannot be negated"
    if name in VALUES and value.lower() not in VALUES[name]:
        yield f"{name}:{value} is not known; {name}: takes {', '.join(sorted(VALUES[name]))}"
    if name == "is" and value.lower() == "nullcast" and not negated:
        yield "is:nullcast is only taken negated, -is:nullcast"
    pattern, expected = PATTERNS.get(name, (r"(?s).+", "a value"))
    if not re.fullmatch(pattern, value, re.ASCII):
        yield f"{name}:{value} does not work; give {expected}"
    for reason in _mistakes_of_numbers(name, value):
        yield f"{name}:{value} does not work; {reason}"
    if term.distance > FARTHEST:
        yield f"~{term.distance} is too far; X takes {FARTHEST} at most"


def _mistakes_of_word(term: Term) -> Iterator[str]:
    word = term.value
    if term.operator in TAGS:
        is_valid, otherwise = TAGS[term.operator]
        if not is_valid(word):
            yield f"{word} is {otherwise}; to find the text itself, quote it"
    if term.operator != "keyword":
        return
    if word[0] in OPENING_QUOTES:
        yield f'{word[0]} is no quotation mark here; write a phrase as "two words"'
    if STARTS_WRONG.match(word):
        yield f"{word[0]} cannot begin a word; to find it, quote the word"
    if wrong := re.search(r"[:\[\]]", word):
        yield f"{wrong[0]} cannot be in a word; to find it, quote the word"


def _mistakes_of_numbers(name: str, value: str) -> Iterator[str]:
    numbers = list(map(float, re.findall(DEGREES, value)))
    if name in COUNTS and numbers != sorted(numbers):
        yield "the smaller number comes first"
    elif name == "point_radius":
        longitude, latitude, radius = numbers
        miles = radius / KM_OF_MILE if value.endswith("km]") else radius
        if miles > FARTHEST_MILES:
            yield f"{MILES} miles are the most"
        yield from _off_the_globe([longitude], [latitude])
    elif name == "bounding_box":
        west, south, east, north = numbers
        yield from _off_the_globe([west, east], [south, north])
        if south > north:
            yield "the south comes before the north"
        height = (north - south) * MILES_OF_DEGREE
        width = (east - west) % 360 * MILES_OF_DEGREE * math.cos(math.radians((south + north) / 2))
        if max(width, height) > FARTHEST_MILES:
            yield f"{MILES} miles are the most in each direction"


def _off_the_globe(longitudes: list[float], latitudes: list[float]) -> Iterator[str]:
    if max(map(abs, longitudes)) > 180:
        yield "longitudes are from -180 to 180, and come first"
    if max(map(abs, latitudes)) > 90:
        yield "latitudes are from -90 to 90"


def parse(value: str) -> Node:
    """Return the tree of a rule.

    Raises:
        RuleSyntaxError: the rule cannot be parsed.
    """
    return _Parser(value).rule()


@dataclass
class _Group:
    position: int
    alternatives: list[Node] = field(default_factory=list)
    parts: list[Node] = field(default_factory=list)

    def end_alternative(self) -> None:
        parts, self.parts = self.parts, []
        self.alternatives.append(parts[0] if len(parts) == 1 else AllOf(tuple(parts)))

    def node(self) -> Node:
        self.end_alternative()
        nodes = self.alternatives
        return nodes[0] if len(nodes) == 1 else AnyOf(tuple(nodes))


class _Parser:
    """Parses from left to right; the open groups are on a stack, so they may nest to any depth."""

    def __init__(self, rule: str) -> None:
        self._rule = rule
        self._groups = [_Group(0)]
        self._minus: int | None = None

    def rule(self) -> Node:
        position = 0
        while position < len(self._rule):
            match = TERM.match(self._rule, position)
            if match is None:
                raise self._refusal(position, "this quotation mark is not closed")
            self._take(match)
            position = match.end()
        if len(self._groups) > 1:
            raise self._refusal(self._groups[-1].position, "this ( is not closed")
        self._expect_parts(len(self._rule))
        return self._groups[0].node()

    def _take(self, match: re.Match[str]) -> None:
        kind, at = match.lastgroup, match.start()
        if kind == "minus":
            self._minus = at
        elif kind == "structure":
            self._structure(match[0], at)
        elif kind != "space":
            read = {"phrase": self._phrase, "operator": self._operator, "word": self._word}
            term = read[str(kind)](match, at)
            self._groups[-1].parts.append(term if self._minus is None else Not(term))
            self._minus = None

    def _structure(self, text: str, at: int) -> None:
        groups = self._groups
        if self._minus is not None:
            raise self._refusal(self._minus, NOT_NEGATED[text])
        if text == "(":
            groups.append(_Group(at))
            return
        if text == ")" and len(groups) == 1:
            raise self._refusal(at, "a ) without its (")
        self._expect_parts(at)
        if text == ")":
            closed = groups.pop().node()
            groups[-1].parts.append(closed)
        else:
            groups[-1].end_alternative()

    def _expect_parts(self, position: int) -> None:
        if not self._groups[-1].parts:
            raise self._refusal(position, "something to look for is missing here")

    def _operator(self, match: re.Match[str], at: int) -> Term:
        name, plain = match["name"].lower(), match["plain"]
        if name in WITHOUT_NAME:
            raise self._refusal(at, f"no operator {match['name']}: is known")
        if plain and name in NAMES:
            wrong = VALUE_STARTS_WRONG.match(plain) or re.search(":", plain)
            if wrong:
                position = match.start("plain") + wrong.start()
                raise self._refusal(position, f'quote a value with {wrong[0]}, as {name}:"…"')
        quoted = match["quoted"]
        value = match["box"] or plain or "" if quoted is None else _unescaped(quoted)
        return Term(ALIASES.get(name, name), value, 0, at)

    def _phrase(self, match: re.Match[str], at: int) -> Term:
        phrase, distance = _unescaped(match["text"]), match["distance"]
        if not phrase.strip():
            raise self._refusal(at, "an empty phrase")
        if match["tilde"] and not distance:
            raise self._refusal(match.start("tilde"), f"a number from 1 to {FARTHEST} follows a ~")
        # Python refuses to parse a number of thousands of digits; nine digits are too far already.
        return Term("phrase", phrase, int((distance or "0")[:9]), at)

    def _word(self, match: re.Match[str], at: int) -> Term:
        word = match["word"]
        if word.lower() in {"or", "and"}:
            meant = "OR" if word.lower() == "or" else "a space"
            raise self._refusal(at, f'{word} is ambiguous: write {meant}, or quote it: "{word}"')
        if word == "-":
            raise self._refusal(at, "nothing follows this -")
        if word[0] in SIGILS and len(word) > 1:
            return Term(SIGILS[word[0]], word[1:], 0, at)
        return Term("keyword", word, 0, at)

    def _refusal(self, position: int, reason: str) -> RuleSyntaxError:
        return RuleSyntaxError(reason, self._rule, position)


def _unescaped(quoted: str) -> str:
    return re.sub(r'\\(["\\])', r"\1", quoted)
