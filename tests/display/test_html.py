from __future__ import annotations

import pytest

from rxtweets.display._html import escaped, sanitized, shortened
from tests.display.reading import FORBIDDEN, HOSTILE


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_hostile_is_left(text: str) -> None:
    shown = escaped(text)
    assert not FORBIDDEN & set(shown)
    assert not set("<>\"'\n\r\u2028\u2029") & set(shown)
    shown.encode()  # lone surrogates could not be sent to a notebook


def test_a_control_character_is_shown_to_have_been_there() -> None:
    assert sanitized("a\x1bb\u202ec") == "a\ufffdb\ufffdc"


def test_white_space_becomes_one_space_unless_lines_are_wanted() -> None:
    assert sanitized(" a \n\n b\u2028c ") == "a b c"
    assert sanitized("a\nb", one_line=False) == "a\nb"


@pytest.mark.parametrize(
    "text",
    ["صباح الخير", "שבת שלום", "👩‍💻 👨‍👩‍👧‍👦 🏳️‍🌈 🇯🇵 🙏🏽", "अगला क्षण", "Z̸a̷l̵g̶o̴", "a\u200fb\u200ec"],
)
def test_what_honest_people_write_is_untouched(text: str) -> None:
    assert sanitized(text) == text
    assert escaped(text) == text


def test_a_short_text_is_not_shortened() -> None:
    assert shortened("abc", 3) == "abc"


def test_what_is_left_out_is_marked() -> None:
    assert shortened("abcd", 3) == "ab…"


@pytest.mark.parametrize(("length", "left"), [(3, "a…"), (4, "a…"), (5, "a👩‍💻…"), (6, "a👩‍💻x…")])
def test_no_half_emoji_is_left(length: int, left: str) -> None:
    assert shortened("a👩‍💻xyz", length) == left


def test_a_text_of_nothing_but_marks_ends_all_the_same() -> None:
    assert shortened("\u0301" * 50, 10) == "…"
