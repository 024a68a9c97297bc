"""Messages as lines of JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rxtweets import Message
from rxtweets._messages.jsonl import from_line, key_of, keys_of, to_line, to_lines

LINE = b'{"data":{"id":"7","text":"caf\xc3\xa9"}}'


def deep(levels: int = 400) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


MESSAGES: dict[str, Message[Any]] = {
    "a tweet": Message.from_line(LINE, 1_764_028_461.25),
    "a tweet with its line end": Message.from_line(LINE + b"\r\n"),
    "a tweet with a line feed in its line": Message.from_line(LINE.replace(b":{", b":\n{"), 1.0),
    "a tweet without an id": Message.from_line(b'{"data":{"text":"x"}}'),
    "data that is an object": Message.from_line(LINE).put_data({"raw": [1, None]}),
    "data that JSON cannot hold": Message.from_line(LINE).put_data({1, 2}),
    "an id with half a surrogate pair": Message("x", {"id": "7\ud800"}),
    "data with half a surrogate pair": Message.from_line(LINE).put_data("\ud800"),
    "data that is too deep": Message.from_line(LINE).put_data(deep()),
    "an event": Message.from_event({"like": 1}, "", b'{"like":1}', 2.0),
    "a message without a line": Message("x\ny", {"id": 8, "tags": {"a"}}),
}


def test_outer_levels_of_too_deep_data_are_written() -> None:
    line = to_line(Message.from_line(LINE).put_data({"deep": deep(20_000)}))
    assert "[[[[[...]]]]]" in json.loads(line)["data"]


@pytest.mark.parametrize("name", MESSAGES)
def test_to_lines_writes_each_message_as_to_line(name: str) -> None:
    message, tweet = MESSAGES[name], MESSAGES["a tweet"]

    assert to_lines([tweet, message, tweet]) == to_line(tweet) + to_line(message) + to_line(tweet)


def test_line_has_id_time_data_and_the_received_line() -> None:
    assert to_lines([MESSAGES["a tweet"]]) == (
        b'{"id":"7","received_at":1764028461.25,"data":"caf\xc3\xa9","raw":' + LINE + b"}\n"
    )


@pytest.mark.parametrize("name", MESSAGES)
def test_line_has_one_line_feed_and_can_be_read_back(name: str) -> None:
    line = to_lines([MESSAGES[name]])

    assert line.index(b"\n") == len(line) - 1
    assert from_line(line).raw == MESSAGES[name].raw


def test_lines_with_another_end_form_an_array() -> None:
    together = to_lines(MESSAGES.values(), b",")

    values = json.loads(b"[" + together[:-1] + b"]")
    assert values == [json.loads(to_line(message)) for message in MESSAGES.values()]


def test_to_lines_is_empty_without_messages() -> None:
    assert to_lines([]) == b""


def test_keys_of_messages_are_the_keys_of_each() -> None:
    several = list(MESSAGES.values())

    assert keys_of(several) == [key_of(message) for message in several]
    assert all(keys_of(several))


def test_id_with_half_a_surrogate_pair_can_be_read_back() -> None:
    message = Message("x", {"id": "7\ud800"})
    assert key_of(message) == from_line(to_line(message)).id == "7\\ud800"
