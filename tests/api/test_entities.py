"""Hashtags, cashtags and mentions as X's own text rules have them.

The texts are facts out of the conformance files of twitter-text, ``extract.yml`` and
``validate.yml``: https://github.com/twitter/twitter-text/tree/master/conformance
"""

from __future__ import annotations

import pytest

from rxtweets.api._entities import (
    cashtags,
    hashtags,
    is_cashtag,
    is_hashtag,
    is_mention,
    mentions,
)
from rxtweets.api._rule_syntax import check
from rxtweets.errors import RuleSyntaxError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a #hashtag here", ["hashtag"]),
        ("this is #hashtag1", ["hashtag1"]),
        ("#1hashtag is this", ["1hashtag"]),
        ("On the #16 bus", []),
        ("#0", []),
        ("#_ #1_2 #122 #〃", []),
        ("(#hashtag1 )#hashtag2 ’#hashtag5’#hashtag6", [
            "hashtag1", "hashtag2", "hashtag5", "hashtag6",
        ]),
        ("a ✌️#hashtag here", ["hashtag"]),
        ("Working remotely #café", ["café"]),
        ("# 会議中", []),
        ("日本語ハッシュタグ#日本語ハッシュタグ", []),
        ("できましたよー！＃日本語ハッシュタグ。", ["日本語ハッシュタグ"]),
        ("＃ｈａｓｈｔａｇ１２３", ["ｈａｓｈｔａｇ１２３"]),
        ("#メ〜テレ", ["メ〜テレ"]),
        ("#hashtag: #hashtag; #hashtag, #hashtag!", ["hashtag"] * 4),
        (":#hashtag ;#hashtag ,#hashtag", ["hashtag"] * 3),
        ("#hashtag\ntest\n#hashtag2", ["hashtag", "hashtag2"]),
        ("#http://twitter.com", []),
        ("http://twitter.com/#hashtag twitter.com/#hashtag", []),
        ("#עַל־יְדֵי #וכו׳", ["עַל־יְדֵי", "וכו׳"]),
        ("#می‌خواهم #هشتگ۶۷۸", ["می‌خواهم", "هشتگ۶۷۸"]),
        ("#महात्मा_१२३४ #१२३४", ["महात्मा_१२३४"]),
        ("#il·lusió", ["il·lusió"]),
        ("#\U00020021", ["\U00020021"]),
    ],
)  # fmt: skip
def test_hashtags_are_those_of_x(text: str, expected: list[str]) -> None:
    assert hashtags(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Example: $TEST $Stock   $symbol", ["TEST", "Stock", "symbol"]),
        ("$TEST.T $test.tt $Stock_X", ["TEST.T", "test.tt", "Stock_X"]),
        ("$123 $test123 $TE123ST", []),
        ("$ストック $株", []),
        ("$ $. $- $@ $! $() $+", []),
        ("$TEST. $TEST_", ["TEST", "TEST"]),
        ("$OK$NG$BAD text$NO .$NG $$NG", ["OK"]),
        ("$CashtagMustBeLessThanSixCharacter", []),
    ],
)
def test_cashtags_are_those_of_x(text: str, expected: list[str]) -> None:
    assert cashtags(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@username reply", ["username"]),
        ("mention @user_name", ["user_name"]),
        ("mention @12345", ["12345"]),
        ("mention @username1 @username2", ["username1", "username2"]),
        ("の@usernameに到着を待っている", ["username"]),
        ("Current Status: @_@ (cc: @username)", ["username"]),
        ("@aliceìnheiro something", []),
        ("@username email me @test@example.com", ["username"]),
        ("@http://twitter.com", []),
        ("RT@username rt:@mention RT @test", ["username", "mention", "test"]),
        ("f!@kn f@@kn f#@kn f$@kn f&@kn f*@kn", []),
        ("Hey @username, see @otheruser/list_name-01!", ["username"]),
        ("＠username yo!", ["username"]),
    ],
)
def test_mentions_are_those_of_x(text: str, expected: list[str]) -> None:
    assert mentions(text) == expected


@pytest.mark.parametrize("tag", ["1st", "that1time", "easyas123", "ашок", "트위터", "_a", "2й"])
def test_hashtag_with_a_letter_is_valid(tag: str) -> None:
    assert is_hashtag(tag)
    check(f"#{tag}")
    check(f"＃{tag}")


@pytest.mark.parametrize("tag", ["12345", "1", "１", "_", "a-b", "a.b", "〃", "️⃣"])
def test_hashtag_is_invalid_without_a_letter(tag: str) -> None:
    assert not is_hashtag(tag)
    with pytest.raises(RuleSyntaxError, match="no hashtag"):
        check(f"cat #{tag}")


@pytest.mark.parametrize("tag", ["T", "symbol", "BRK.B", "Stock_X", "test.tt"])
def test_cashtag_of_letters_is_valid(tag: str) -> None:
    assert is_cashtag(tag)
    check(f"${tag}")


@pytest.mark.parametrize("tag", ["123", ".", "9.99", "TE123ST", "株", "sevenab", "TEST.abc", "T_"])
def test_cashtag_is_invalid_with_other_characters(tag: str) -> None:
    assert not is_cashtag(tag)
    with pytest.raises(RuleSyntaxError, match="no cashtag"):
        check(f"cat ${tag}")


@pytest.mark.parametrize("name", ["username", "12345", "example_name", "a" * 20])
def test_user_name_of_20_characters_is_valid(name: str) -> None:
    assert is_mention(name)
    check(f"@{name}")
    check(f"＠{name}")


@pytest.mark.parametrize("name", ["example-name", "a" * 21, "aliceì", "猫"])
def test_user_name_is_invalid_with_other_characters(name: str) -> None:
    assert not is_mention(name)
    with pytest.raises(RuleSyntaxError, match="no user name"):
        check(f"cat @{name}")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", ["a", "a.", "-", "a.bc/ #x "])
def test_long_text_is_searched_in_linear_time(part: str) -> None:
    text = part * 200_000 + " / #last"
    assert hashtags(text)[-1] == "last"
