"""Hashtags, cashtags and mentions, as X recognises them in texts and in rules.

Source: the ``conformance`` files of https://github.com/twitter/twitter-text. Links are recognised
only to skip the hashtags within them.
"""

from __future__ import annotations

import bisect
import re
import unicodedata

__all__ = ["cashtags", "hashtags", "is_cashtag", "is_hashtag", "is_mention", "mentions"]

LINK = re.compile(r"https?://\S+|[a-z0-9-]\.[a-z]{2,}/\S*", re.IGNORECASE)
"""A link, or its part from the last dot of the host on; no hashtag comes before that."""

HASH = re.compile("[#＃](?![\ufe0f\u20e3])")
IN_HASHTAGS = frozenset(
    "_\u200c\u200d\ua67e\u05be\u05f3\u05f4\uff5e\u301c\u309b\u309c\u30a0\u30fb\u3003\u0f0b\u0f0c·"
)
"""Characters of hashtags beside letters and digits."""

NAME = "[a-zA-Z0-9_]{1,20}+"
MENTION = re.compile(
    rf"(?:^|[^a-zA-Z0-9_!#$%&*@＠]|(?:^|[^a-zA-Z0-9_+~.-])[rR][tT]:?)[@＠]({NAME})"
    r"(?P<list>/[a-zA-Z][a-zA-Z0-9_-]{0,24}+)?+"
    "(?![@＠À-ÖØ-öø-ɏɓɔɖɗəɛɣɨɯɲʉʋʻ\u0300-\u036fḀ-ỿ]|://)"
)
SYMBOL = r"[a-zA-Z]{1,6}(?:[._][a-zA-Z]{1,2})?"
CASHTAG = re.compile(rf"(?:^|(?<=\s))\$({SYMBOL})(?=$|\s|[!'#%&()*+,\\\-./:;<=>?@\[\]^_{{|}}~$])")


def hashtags(text: str) -> list[str]:
    """Return the hashtags of a text in order, without their sign."""
    links = [match.span() for match in LINK.finditer(text)] if "/" in text else []
    starts = [start for start, _ in links]
    found = []
    for sign in HASH.finditer(text):
        start = end = sign.end()
        while end < len(text) and _is_in_hashtags(text[end]):
            end += 1
        before = text[sign.start() - 1 : sign.start()]
        follows_word = before and before not in "\ufe0e\ufe0f" and _is_in_hashtags(before)
        is_cut = text.startswith(("#", "＃", "://"), end)
        link = bisect.bisect(starts, sign.start()) - 1
        in_link = link >= 0 and sign.start() < links[link][1]
        if follows_word or before == "&" or is_cut or in_link:
            continue
        if is_hashtag(text[start:end]):
            found.append(text[start:end])
    return found


def cashtags(text: str) -> list[str]:
    """Return the cashtags of a text in order, without their sign."""
    return CASHTAG.findall(text) if "$" in text else []


def mentions(text: str) -> list[str]:
    """Return the user names that a text mentions, in order, without their sign."""
    return [match[1] for match in MENTION.finditer(text) if match["list"] is None]


def is_hashtag(tag: str) -> bool:
    """Return whether ``#`` and the text are a hashtag, which needs at least one letter."""
    return all(map(_is_in_hashtags, tag)) and any(map(_is_letter, tag)) and tag[0] != "\ufe0f"


def is_cashtag(tag: str) -> bool:
    """Return whether ``$`` and the text are a cashtag."""
    return re.fullmatch(SYMBOL, tag) is not None


def is_mention(name: str) -> bool:
    """Return whether ``@`` and the text are a mention."""
    return re.fullmatch(NAME, name) is not None


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"


def _is_in_hashtags(character: str) -> bool:
    return (
        _is_letter(character) or unicodedata.category(character) == "Nd" or character in IN_HASHTAGS
    )
