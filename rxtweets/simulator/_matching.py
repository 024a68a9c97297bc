"""Matches rules of the filtered stream.

Case does not matter, accents do. In languages without spaces between words, a keyword matches
within words. A quote tweet matches on both texts.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

from rxtweets.api._entities import cashtags, hashtags, mentions
from rxtweets.api._rule_syntax import AllOf, AnyOf, Node, Not, Term

__all__ = ["SUPPORTED", "Tweet", "matches"]

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?|_+|[←-⯿\U0001f000-\U0001faff]")
UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]")

TAGS: dict[str, tuple[str, Callable[[str], list[str]]]] = {
    "hashtags": ("tag", hashtags),
    "cashtags": ("tag", cashtags),
    "mentions": ("username", mentions),
}
"""By kind of entity: the field that has it, and a function that finds it in a text."""


class Tweet:
    """The properties of a decoded frame that rules match."""

    def __init__(self, payload: dict[str, Any]) -> None:
        self.data: dict[str, Any] = payload["data"]
        self._includes: dict[str, Any] = payload.get("includes") or {}

    @cached_property
    def texts(self) -> list[str]:
        """The text, and the text of a quoted tweet."""
        return [str(tweet.get("text", "")) for tweet in (self.data, *self._quoted)]

    @cached_property
    def words(self) -> list[list[str]]:
        """The words of each text, in lower case."""
        return [WORD.findall(text.casefold()) for text in self.texts]

    @cached_property
    def author(self) -> dict[str, Any]:
        """The profile of the author; empty if the frame has none."""
        wanted = self.data.get("author_id")
        users = self._includes.get("users") or ()
        return next((user for user in users if user.get("id") == wanted), {})

    def references(self, kind: str) -> list[dict[str, Any]]:
        """Return the tweets that this one retweets, quotes or replies to."""
        found = self.data.get("referenced_tweets") or self.data.get("referenced_posts") or ()
        return [ref for ref in found if ref.get("type") == kind]

    def tags(self, kind: str) -> set[str]:
        """Return the hashtags, cashtags or mentions, also of a quoted tweet, in lower case.

        They come from the entities; in a frame without entities, from the text.
        """
        name, recognise = TAGS[kind]
        found: set[str] = set()
        for tweet in (self.data, *self._quoted):
            entities = tweet.get("entities")
            if entities is None:
                found.update(map(str.casefold, recognise(str(tweet.get("text", "")))))
            else:
                known = entities.get(kind) or ()
                found.update(str(entity.get(name, "")).casefold() for entity in known)
        return found

    def entities(self, kind: str, name: str) -> list[str]:
        """Return a field of the tweet's entities, in lower case."""
        found = (self.data.get("entities") or {}).get(kind) or ()
        return [str(entity.get(name, "")).casefold() for entity in found]

    def other_author(self, kind: str) -> set[str]:
        """Return names and ids of the authors of the tweets that this one refers to."""
        wanted = {ref["id"] for ref in self.references(kind)}
        ids = {str(tweet.get("author_id")) for tweet in self._tweets if tweet.get("id") in wanted}
        if kind == "replied_to":
            ids.add(str(self.data.get("in_reply_to_user_id")))
        return ids | {
            str(user["username"]).casefold()
            for user in self._includes.get("users") or ()
            if user.get("id") in ids
        }

    @cached_property
    def _quoted(self) -> list[dict[str, Any]]:
        wanted = {ref["id"] for ref in self.references("quoted")}
        return [other for other in self._tweets if other.get("id") in wanted]

    @property
    def _tweets(self) -> list[dict[str, Any]]:
        found = self._includes.get("tweets") or self._includes.get("posts") or []
        return list(found)


Operator = Callable[[Term, Tweet], bool]


def matches(node: Node, tweet: Tweet) -> bool:
    """Return whether the tweet matches the rule.

    Args:
        node: the rule, parsed; its operators are all in `SUPPORTED`.
        tweet: the tweet.
    """
    # No recursion: a rule may nest deeper than Python's stack.
    groups: list[tuple[AllOf | AnyOf, Iterator[Node]]] = []
    while True:
        while isinstance(node, (AllOf, AnyOf)):
            parts = iter(node.parts)
            groups.append((node, parts))
            node = next(parts)
        if isinstance(node, Not):
            matched = not matches(node.part, tweet)
        else:
            matched = OPERATORS[node.operator](node, tweet)
        while groups:
            group, parts = groups[-1]
            part = None if matched == isinstance(group, AnyOf) else next(parts, None)
            if part is not None:
                node = part
                break
            groups.pop()
        else:
            return matched


def _keyword(term: Term, tweet: Tweet) -> bool:
    wanted = term.value.casefold()
    if UNSPACED.search(wanted):
        return any(wanted in text.casefold() for text in tweet.texts)
    words = WORD.findall(wanted)
    return bool(words) and any(_has_run(words, text) for text in tweet.words)


def _phrase(term: Term, tweet: Tweet) -> bool:
    if not term.distance:
        return _keyword(term, tweet)
    wanted = WORD.findall(term.value.casefold())
    return any(_is_near(wanted, text, term.distance) for text in tweet.words)


def _has_run(wanted: list[str], words: list[str]) -> bool:
    length = len(wanted)
    starts = range(len(words) - length + 1)
    return any(words[start : start + length] == wanted for start in starts)


def _is_near(wanted: list[str], words: list[str], distance: int) -> bool:
    if len(wanted) != 2:
        return set(wanted) <= set(words)
    other = dict(zip(wanted, reversed(wanted), strict=True))
    last: dict[str, int] = {}
    for at, word in enumerate(words):
        if word in other:
            if at - last.get(other[word], -math.inf) <= distance + 1:
                return True
            last[word] = at
    return False


def _tagged(kind: str) -> Operator:
    return lambda term, tweet: term.value.casefold() in tweet.tags(kind)


def _from_author(term: Term, tweet: Tweet) -> bool:
    known = {str(tweet.data.get("author_id")), str(tweet.author.get("username", "")).casefold()}
    return _name(term) in known


def _author_of(kind: str) -> Operator:
    def match(term: Term, tweet: Tweet) -> bool:
        known = tweet.other_author(kind) | set(tweet.entities("mentions", "username")[:1])
        return bool(tweet.references(kind)) and _name(term) in known

    return match


def _in_urls(*fields: str) -> Operator:
    def match(term: Term, tweet: Tweet) -> bool:
        wanted = term.value.casefold()
        return any(wanted in value for name in fields for value in tweet.entities("urls", name))

    return match


def _lang(term: Term, tweet: Tweet) -> bool:
    return str(tweet.data.get("lang", "")).casefold() == term.value.casefold()


def _conversation(term: Term, tweet: Tweet) -> bool:
    return str(tweet.data.get("conversation_id", "")) == term.value


def _refers(kind: str) -> Operator:
    return lambda term, tweet: any(str(ref["id"]) == term.value for ref in tweet.references(kind))


def _profile(field: str) -> Operator:
    def match(term: Term, tweet: Tweet) -> bool:
        words = WORD.findall(str(tweet.author.get(field, "")).casefold())
        return _has_run(WORD.findall(term.value.casefold()), words)

    return match


def _sample(term: Term, tweet: Tweet) -> bool:
    return zlib.crc32(str(tweet.data.get("id")).encode()) % 100 < int(term.value)


def _has(term: Term, tweet: Tweet) -> bool:
    wanted = term.value.lower()
    data = tweet.data
    if wanted in TAGS:
        return bool(tweet.tags(wanted))
    if wanted in {"media", "media_link", "images", "video_link", "videos"}:
        return bool((data.get("attachments") or {}).get("media_keys"))
    if wanted == "geo":
        return bool(data.get("geo"))
    return bool((data.get("entities") or {}).get("urls"))  # has:links


def _is(term: Term, tweet: Tweet) -> bool:
    kinds = {"retweet": "retweeted", "quote": "quoted", "reply": "replied_to"}
    wanted = term.value.lower()
    if wanted in kinds:
        return bool(tweet.references(kinds[wanted]))
    return wanted == "verified" and bool(tweet.author.get("verified"))


def _name(term: Term) -> str:
    return term.value.removeprefix("@").casefold()


URL = _in_urls("url", "expanded_url", "display_url", "unwound_url")

OPERATORS: dict[str, Operator] = {
    "bio": _profile("description"),
    "bio_location": _profile("location"),
    "bio_name": _profile("name"),
    "cashtag": _tagged("cashtags"),
    "conversation_id": _conversation,
    "from": _from_author,
    "has": _has,
    "hashtag": _tagged("hashtags"),
    "in_reply_to_tweet_id": _refers("replied_to"),
    "is": _is,
    "keyword": _keyword,
    "lang": _lang,
    "mention": _tagged("mentions"),
    "phrase": _phrase,
    "retweets_of": _author_of("retweeted"),
    "retweets_of_tweet_id": _refers("retweeted"),
    "sample": _sample,
    "to": _author_of("replied_to"),
    "url": URL,
    "url_contains": URL,
    "url_description": _in_urls("description"),
    "url_title": _in_urls("title"),
}
SUPPORTED = frozenset(OPERATORS)
"""Operators that the simulator matches; it refuses rules with other operators."""
