from __future__ import annotations

import pytest

from rxtweets.display._html import escaped, sanitized, shortened
from tests.display.reading import FORBIDDEN, HOSTILE


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_text_has_no_hostile_characters(text: str) -> None:
    shown = escaped(text)
    assert not FORBIDDEN & set(shown)
    assert not set("<>\"'\n\r\u2028\u2029") & set(shown)
    shown.encode()  # lone surrogates could not be sent to a notebook


def test_control_characters_are_replaced() -> None:
    assert sanitized("a\x1bb\u202ec") == "a\ufffdb\ufffdc"


def test_white_space_is_collapsed_when_one_line() -> None:
    assert sanitized(" a \n\n b\u2028c ") == "a b c"
    assert sanitized("a\nb", one_line=False) == "a\nb"


@pytest.mark.parametrize(
    "text",
    ["صباح الخير", "שבת שלום", "👩‍💻 👨‍👩‍👧‍👦 🏳️‍🌈 🇯🇵 🙏🏽", "अगला क्षण", "Z̸a̷l̵g̶o̴", "a\u200fb\u200ec"],
)
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert sanitized(text) == text
    assert escaped(text) == text


def test_short_text_is_not_shortened() -> None:
    assert shortened("abc", 3) == "abc"


def test_shortened_text_ends_with_an_ellipsis() -> None:
    assert shortened("abcd", 3) == "ab…"


@pytest.mark.parametrize(("length", "left"), [(3, "a…"), (4, "a…"), (5, "a👩‍💻…"), (6, "a👩‍💻x…")])
def test_joined_emoji_are_not_split(length: int, left: str) -> None:
    assert shortened("a👩‍💻xyz", length) == left


def test_text_of_combining_marks_is_shortened() -> None:
    assert shortened("\u0301" * 50, 10) == "…"
