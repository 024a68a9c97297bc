"""Hostile text made harmless: what strangers write is shown, and changes nothing around it."""

from __future__ import annotations

import html
import re
import unicodedata

__all__ = ["clean", "markup", "shortened"]

# Illegal in XML, or able to turn the writing direction beyond their own text: C0 and C1 but tab
# and line ends, lone surrogates, noncharacters, and the embeddings, overrides and isolates of the
# bidi algorithm. The marks LRM, RLM and ALM stay: they are written by honest people, and move
# nothing that is isolated.
HOSTILE = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
BREAKS = re.compile(r"[\s\u2028\u2029]+")


def clean(text: str, *, one_line: bool = True) -> str:
    """The text without control characters, each of which becomes ``�``.

    Args:
        text: of a stranger.
        one_line: make every run of white space, line ends included, one space.
    """
    shown = BREAKS.sub(" ", text).strip() if one_line else text
    return HOSTILE.sub("\ufffd", shown)


def markup(text: str, *, one_line: bool = True) -> str:
    """The text for HTML and for SVG, as content or as the value of an attribute in quotes.

    Args:
        text: of a stranger.
        one_line: see `clean`.
    """
    return html.escape(clean(text, one_line=one_line), quote=True)


def shortened(text: str, length: int) -> str:
    """At most so many characters, the last of them an ellipsis if any were left out.

    What is cut keeps its combining marks and joiners whole, so that no half emoji is left.
    """
    if len(text) <= length:
        return text
    end = max(0, length - 1)
    while end and _continues(text, end):
        end -= 1
    return text[:end] + "…"


def _continues(text: str, position: int) -> bool:
    """Whether the character there belongs to the one before it."""
    joiner = "\u200d"
    following, before = text[position], text[position - 1]
    return (
        joiner in (following, before)
        or bool(unicodedata.combining(following))
        or unicodedata.category(following) in {"Mn", "Me", "Mc"}
        or "\U0001f3fb" <= following <= "\U0001f3ff"  # tones of skin
    )
