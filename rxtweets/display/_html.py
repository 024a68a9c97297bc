"""Escaping of tweet texts and names for HTML and SVG."""

from __future__ import annotations

import html
import re
import unicodedata

# Illegal in XML, or able to turn the writing direction beyond their own text: C0 and C1 except tab
# and line ends, lone surrogates, noncharacters, and the embeddings, overrides and isolates of the
# bidi algorithm. The marks LRM, RLM and ALM stay: they do not act beyond an isolate.
HOSTILE = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
WHITE_SPACE = re.compile(r"[\s\u2028\u2029]+")

FONTS = (
    "system-ui, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', 'Noto Sans CJK SC', "
    "'Noto Sans Arabic', 'Noto Sans Hebrew', 'Noto Sans Thai', 'Noto Sans Devanagari', sans-serif"
)
"""A value of ``font-family``; the dashboard has the same one."""


def sanitized(text: str, *, one_line: bool = True) -> str:
    """Return the text with ``�`` in place of each control character.

    Args:
        text: any text.
        one_line: replace every run of white space, line ends included, with one space.
    """
    shown = WHITE_SPACE.sub(" ", text).strip() if one_line else text
    return HOSTILE.sub("\ufffd", shown)


def escaped(text: str, *, one_line: bool = True) -> str:
    """Return the text as content, or as an attribute in quotes, of HTML and SVG.

    Args:
        text: any text.
        one_line: see `sanitized`.
    """
    return html.escape(sanitized(text, one_line=one_line), quote=True)


def shortened(text: str, length: int) -> str:
    """Return at most ``length`` characters, with an ellipsis at the end of a longer text.

    It does not separate combining marks and joined emoji from their base.
    """
    if len(text) <= length:
        return text
    end = max(0, length - 1)
    while end and _belongs_to_previous(text, end):
        end -= 1
    return text[:end] + "…"


def _belongs_to_previous(text: str, position: int) -> bool:
    joiner = "\u200d"
    previous, character = text[position - 1], text[position]
    return (
        joiner in (previous, character)
        or unicodedata.category(character) in {"Mn", "Me", "Mc"}
        or "\U0001f3fb" <= character <= "\U0001f3ff"  # tones of skin
    )
