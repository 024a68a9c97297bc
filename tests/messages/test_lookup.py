"""orjson and msgspec find the same text and id."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rxtweets import Message
from rxtweets._messages.decoding import Decoded, Decoder, Undecodable, decode
from rxtweets._messages.lookup import LookUp, look_up, quick_look_up
from rxtweets._messages.rows import row_of
from rxtweets.simulator._tweets import Tweets

BESIDE = b'{"data":{"id":"1","text":"a","x":%s}}'
LINES = Tweets(seed=3).frames(0, 50)
FAST = Decoder(fast=True)
TOO_GREAT = b'{"data":{"id":"1","text":"a","x":[1e400,-1e400,%s,7]}}' % (b"9" * 5000)


def quickly() -> LookUp:
    found = quick_look_up()
    assert found is not None, "the extra [fast] comes with [test]"
    return found


def agree(line: bytes) -> bool:
    """Return whether both find the same; msgspec leaves out ids that are not text."""
    [slow], [quick] = look_up([line]), quickly()([line])
    is_left_out = slow is not None and not isinstance(slow[1], str | None)
    return quick == (None if is_left_out else slow)


@pytest.mark.parametrize(
    "value",
    [
        *(b"1", b"-0", b"1e5", b"1E-400", b"01", b"-", b"1.", b".5", b"+1", b"1e", b"NaN"),
        *(b"Infinity", b"tru", b"/**/1", b"'a'", b"[1,]", b'{"a":1,}', b'{"a" 1}', b"[1 2]"),
        *(b'"\xff"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xe2\x80"', b'"\xf4\x90\x80\x80"'),
        *(b'"\\ud800"', b'"\\ude00"', b'"\\ud83d\\ude00"', b'"\\u12g4"', b'"\\x"', b'"\\/"'),
        *(b'"\x00"', b'"\x1f"', b'"\t"', b'"\x7f"', b'"\xe2\x80\xa8"', b'{"\xff":1}'),
        *(b'1,"text":"b"', b'1,"text":5', b'1,"text":null', b'1,"te\\u0078t":"c"', b'1,"text":""'),
        *(b'1,"id":5', b'1,"id":1.5', b'1,"id":null', b'1,"id":{}', b'1,"id":true', b'1,"id":""'),
        *(b"[" * 900 + b"]" * 900, b"[" * 1100 + b"]" * 1100, b'{"a":' * 1100 + b"1" + b"}" * 1100),
        b'1,"id":"\xff"',
        b'1},"data":{"text":"b"',
        b'1},"data":null,"x":{"a":1',
        b'1},"errors":{"a":1',
        b'1},"errors":null,"x":{"a":1',
        b'1},"err\\u006frs":{"a":1',
    ],
)
def test_both_find_the_same_beside_any_value(value: bytes) -> None:
    assert agree(BESIDE % value)


DEPTHS = (499, 500, 996, 997, 1_022, 1_023, 1_496, 1_497, 9_997, 9_998, 100_000)
"""Around the limits of orjson, and of msgspec on Python 3.11, 3.12 and 3.13."""


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"[":', b"}")])
@pytest.mark.parametrize("levels", DEPTHS)
def test_tweet_is_found_when_its_line_is_nested_deep(
    levels: int, opening: bytes, closing: bytes
) -> None:
    line = BESIDE % (opening * levels + b'"]"' + closing * levels)
    assert quickly()([line]) == look_up([line]) == [("a", "1")]
    for found in (decode([line]), FAST.decode([line])):
        [message] = found.messages
        assert (message.data, message.raw) == ("a", line)
        assert set(message.metadata) == {"id", "x"}


@pytest.mark.parametrize("value", [b"tru", b"[1 2]", b"[1}", b'"\xff"', b"]["])
@pytest.mark.parametrize("levels", DEPTHS)
def test_tweet_is_not_found_when_a_deep_level_is_broken(levels: int, value: bytes) -> None:
    line = BESIDE % (b"[" * levels + value + b"]" * levels)
    assert quickly()([line]) == look_up([line]) == [None]
    for found in (decode([line]), FAST.decode([line])):
        [other] = found.others
        assert isinstance(other, Undecodable)


def test_levels_beyond_the_deepest_are_null() -> None:
    line = b'{"data":{"id":"1","text":"a","x":%s,"y":[2]}}' % (b"[" * 2_000 + b"]" * 2_000)
    [message] = decode([line]).messages
    value: Any = message.metadata["x"]
    levels = 0
    while value:
        [value] = value
        levels += 1
    assert (value, levels) == (None, 498)
    assert message.metadata["y"] == [2]


@pytest.mark.parametrize(
    "line",
    [
        *(b"{}", b"[]", b"null", b"5", b'""', b"{}{}", b"{", b"\x00", b"<html>", b"\xef\xbb\xbf{}"),
        b'{"data":{}}',
        b'{"data":null}',
        b'{"data":["text"]}',
        b'[{"text":"a"}]',
        b'{"data":{"text":["a"]}}',
        b'{"data":{"id":"1"}}',
        b'{"data":{"text":"a"}} x',
        b' {"data" : {"text" : "a"} } \r',
        b'{"data":{"text":"a"}}\x00',
        b'\xef\xbb\xbf{"data":{"text":"a"}}',
        b'{"data":{"text":"a\xff"}}',
        b'{"data":{"text":"a\xe2\x80\xa8b\\n"}}',
        b'{"errors":[{"title":"x"}],"data":{"text":"a"}}',
    ],
)
def test_both_find_the_same_in_any_line(line: bytes) -> None:
    assert agree(line)


@given(
    st.sampled_from(LINES),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(min_size=1, max_size=4))),
)
def test_both_find_the_same_in_a_damaged_line(
    line: bytes, changes: list[tuple[float, int, bytes]]
) -> None:
    for where, taken, put in changes:
        at = int(where * len(line))
        line = line[:at] + put + line[at + taken :]
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError as error:
        assume("infinity" not in str(error))
    [quick] = quickly()([line])
    assert quick is None or [quick] == look_up([line])


def test_all_simulated_tweets_are_found() -> None:
    assert None not in quickly()(LINES)


def test_both_find_the_same_in_recorded_frames(recorded: Path) -> None:
    lines = recorded.read_bytes().splitlines()
    assert quickly()(lines) == look_up(lines)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["data", "text", "id", "errors", "x"]), inner, max_size=4)
    ),
)


@given(st.lists(anything.map(orjson.dumps) | st.sampled_from(LINES), max_size=20))
def test_lines_are_decoded_to_the_same_messages(lines: list[bytes]) -> None:
    def shown(decoded: Decoded) -> Any:
        messages = [
            (message.data, message.id, message.raw, message.received_at, message.metadata)
            for message in decoded.messages
        ]
        return (
            messages,
            [message.raw for message in decoded.partial],
            list(map(repr, decoded.others)),
        )

    assert shown(FAST.decode(lines, 7.0)) == shown(decode(lines, 7.0))


def test_lines_are_looked_up_once() -> None:
    [message] = FAST.decode([LINES[0]], known=[("other", "5")]).messages
    assert (message.data, message.id) == ("other", "5")


def test_too_great_number_is_undecodable_for_orjson_only() -> None:
    [message] = FAST.decode([TOO_GREAT]).messages
    assert message.data == "a"
    assert message.metadata["x"] == [float("inf"), float("-inf"), float("inf"), 7]
    assert row_of(message).text == "a"
    [other] = decode([TOO_GREAT]).others
    assert isinstance(other, Undecodable)


def test_copies_decode_a_too_great_number_as_well() -> None:
    [message] = FAST.decode([TOO_GREAT]).messages
    copy: Message[str] = message.update_data(str.upper)
    assert copy.metadata == message.metadata


def test_quick_look_up_is_none_without_msgspec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgspec", None)
    assert quick_look_up() is None
