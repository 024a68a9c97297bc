"""Messages as rows, and any values as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from rxtweets import Message
from rxtweets._messages.rows import COLUMNS, Row, row_of
from rxtweets._support.to_json import to_json
from rxtweets.simulator._tweets import Names, Tweets

LINE = (
    b'{"data":{"id":"1377650090978992134","text":"hi @a #b","author_id":"9","lang":"en",'
    b'"conversation_id":"5","created_at":"2021-04-01T15:52:31.000Z",'
    b'"public_metrics":{"like_count":1,"retweet_count":2,"reply_count":3,"quote_count":4},'
    b'"entities":{"hashtags":[{"tag":"b"}],"mentions":[{"username":"a"}]},'
    b'"referenced_tweets":[{"type":"replied_to","id":"5"},{"type":"quoted","id":"6"}]},'
    b'"includes":{"users":[{"id":"8","username":"x"},{"id":"9","username":"nine"}]},'
    b'"matching_rules":[{"id":"1","tag":"py"},{"id":"2"}]}'
)


def test_columns_are_the_fields_of_a_row() -> None:
    assert tuple(COLUMNS) == Row._fields


def test_row_has_the_fields_of_a_tweet() -> None:
    row = row_of(Message.from_line(LINE, 1_764_028_461.25))
    assert row._asdict() == {
        "id": "1377650090978992134",
        "kind": "tweet",
        "created_at": datetime(2021, 4, 1, 15, 52, 31, 847000, UTC),
        "received_at": datetime.fromtimestamp(1_764_028_461.25, UTC),
        "author_id": "9",
        "author": "nine",
        "lang": "en",
        "text": "hi @a #b",
        "data": None,
        "conversation_id": "5",
        "reply_to": "5",
        "repost_of": None,
        "quote_of": "6",
        "like_count": 1,
        "repost_count": 2,
        "reply_count": 3,
        "quote_count": 4,
        "hashtags": ["b"],
        "mentions": ["a"],
        "rules": ["py", "2"],
        "raw": LINE.decode(),
    }


@pytest.mark.parametrize("data", ['{"id":"7","text":"x","d":%s}', "%s"])
def test_raw_that_no_database_reads_as_json_is_a_json_text(data: str) -> None:
    nested = "[" * 1_500 + "]" * 1_500
    line = '{"data":' + data % nested + "}"

    row = row_of(Message.from_event("x", "7", line.encode(), 1.0))

    assert row.raw == orjson.dumps(line).decode()


def test_data_that_is_not_text_is_json_beside_the_text() -> None:
    row = row_of(Message.from_line(LINE).put_data({"score": 0.5}))
    assert (row.text, row.data) == ("hi @a #b", '{"score":0.5}')


def test_half_surrogate_pairs_become_question_marks() -> None:
    half = "a\ud83d"
    row = row_of(Message(half, {"lang": half, "entities": {"hashtags": [{"tag": half}]}}))
    assert (row.text, row.lang, row.hashtags) == ("a?", "a?", ["a?"])


@pytest.mark.parametrize("number", [1e300, -1e12, float("inf"), float("nan")])
def test_received_at_is_none_when_it_is_impossible(number: float) -> None:
    assert row_of(Message.from_line(LINE, number)).received_at is None


@pytest.mark.parametrize("names", ["both", "tweet", "post"])
def test_row_is_the_same_for_older_and_newer_names(names: Names) -> None:
    def rows(names: Names) -> list[dict[str, Any]]:
        frames = Tweets(seed=4, names=names, clock=lambda: 1_764_028_461.0).frames(0, 100)
        made = (row_of(Message.from_line(frame)) for frame in frames)
        return [row._replace(raw="")._asdict() for row in made]

    assert rows(names) == rows("both")
    assert any(row["repost_of"] for row in rows(names))


def test_recorded_frames_become_rows(recorded: Path) -> None:
    for line in recorded.read_bytes().splitlines():
        row = row_of(Message.from_line(line))
        assert row.kind == "tweet"
        assert row.author_id
        assert row.created_at


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({1: {2}}, b'{"1":[2]}'),
        (b"bytes\xff", '"bytes\ufffd"'.encode()),
        (2**70, b'"1180591620717411303424"'),
        ("half \ud83d", b"\"'half \\\\ud83d'\""),
        (Message("x").metadata, b"{}"),
    ],
)
def test_to_json_encodes_any_value(value: object, text: bytes) -> None:
    assert to_json(value) == text
    orjson.loads(to_json(value))


def test_to_json_encodes_a_recursive_value_as_text() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert orjson.loads(to_json(endless)) == "[[...]]"
