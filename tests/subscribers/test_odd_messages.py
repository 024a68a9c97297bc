"""An odd message fails no other, and every store treats it the same."""

from __future__ import annotations

import io
import json
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import reactivex

import rxtweets
from rxtweets import Batch, Failed, Message
from rxtweets import operators as ops
from rxtweets._messages.payloads import carried_by
from rxtweets.subscribers import (
    ConsoleSubscriber,
    DeadLetterFile,
    JSONLinesSubscriber,
    ParquetSubscriber,
    PostgresSubscriber,
    Retrying,
    SQLiteSubscriber,
    Store,
    WebhookSubscriber,
    read_dead_letters,
)
from rxtweets.testing import RecordingAcknowledger
from tests.subscribers._hook import Hook
from tests.subscribers.test_stores import ParquetPlace, PostgresPlace, SQLitePlace

AT = 1_764_028_461.25
GOOD = ("1377650090978992134", "1377650090978992135")
Make = Callable[..., list[Message[Any]]]


class Raising:
    """Raises from every attribute and method."""

    def __repr__(self) -> str:
        raise ValueError("no repr")

    def __getattr__(self, name: str) -> Any:
        raise ValueError(name)


class Authored:
    author_id = 7


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def line(text: str) -> Message[Any]:
    """Return the message of a line of JSON."""
    carried = carried_by(json.loads(text))
    return Message.from_event(carried.data, carried.id, text.encode(), AT)


def other(raw: bytes) -> Message[Any]:
    return Message.from_event("made of it", "7", raw, AT)


LINES = {
    "a flattened tweet": '{"id":"7","text":"flat"}',
    "an empty object": "{}",
    "an array": '[{"id":"7"}]',
    "null": "null",
    "a number": "5",
    "a string": '"x"',
    "data that is null": '{"data":null}',
    "data that is a number": '{"data":5}',
    "data that is an array": '{"data":[{"id":"7"}],"includes":[1],"matching_rules":{}}',
    "an id that is an object": '{"data":{"id":{"a":[1]},"text":"x"}}',
    "an id that is a number": '{"data":{"id":7.5,"text":"x"}}',
    "an author that is an array": '{"data":{"id":"7","text":"x","author_id":["\\u0000"]}}',
    "NUL in a tag": '{"data":{"id":"7","text":"x"},"matching_rules":[{"id":"1","tag":"a\\u0000"}]}',
    "NUL in an id": '{"data":{"id":"7\\u0000","text":"x"}}',
    "more than 64 bits": '{"data":{"id":"7","text":"x","public_metrics":'
    '{"like_count":18446744073709551616,"reply_count":9223372036854775808}}}',
    "the year 0": '{"data":{"id":"7","text":"x","created_at":"0000-01-01T00:00:00Z"}}',
    "the year 1": '{"data":{"id":"7","text":"x","created_at":"0001-01-01T00:00:00Z"}}',
    "the year 9999": '{"data":{"id":"7","text":"x","created_at":"9999-12-31T23:59:59.999999Z"}}',
    "half a surrogate pair": '{"data":{"id":"7\\ud83d","text":"\\ud83d","lang":"\\ud83d",'
    '"entities":{"hashtags":[{"tag":"\\ud83d"}]}}}',
    "a number that no double holds": '{"data":{"id":"7","text":"x","n":1e999}}',
    "deep nesting": '{"data":{"id":"7","text":"x","d":' + "[" * 900 + "]" * 900 + "}}",
}

ODD: dict[str, Message[Any]] = {
    **{name: line(text) for name, text in LINES.items()},
    "a line that is cut off": other(b'{"data":{"id":"7"'),
    "a line of HTML": other(b"<html>"),
    "a line of spaces": other(b"   "),
    "a line that is not UTF-8": other(b'{"data":{"id":"7","text":"\xff"}}'),
    "a line with a control character": other(b'{"data":{"id":"7","text":"a\x00b"}}'),
    "a line with NaN": other(b'{"data":{"id":"7","text":"x","n":NaN}}'),
    "a line with a byte order mark": other(b'\xef\xbb\xbf{"data":{"id":"7","text":"x"}}'),
    "a line that is nested too deep": other(b'{"data":' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    "a time that is text": Message.from_event("x", "7", b"{}", "noon"),  # type: ignore[arg-type]  # the point
    "a time that cannot be": Message.from_event("x", "7", b"{}", 1e300),
    "data that raises": line(LINES["the year 1"]).put_data(Raising()),
    "data that raises within": line(LINES["the year 1"]).put_data({"k": [Raising()]}),
    "data without end": line(LINES["the year 1"]).put_data(deep(20_000)),
    "data with an author": line(LINES["the year 1"]).put_data(Authored()),
    "data of bytes": Message(b"\xff\x00", {"id": "7"}),
    "data with NUL": Message({"a": "\x00"}, {"id": "7", "lang": "\x00"}),
    "metadata that raises": Message("x", {"id": "7", "k": Raising()}),
    "metadata without end": Message("x", {"id": "7", "k": deep(20_000)}),
    "metadata with other keys": Message("x", {1: 2, (1, 2): 3, "id": 2**80}),  # type: ignore[dict-item]  # the point
    "an id that raises": Message("x", {"id": Raising()}),
    "a rule that raises": Message("x", {"id": "7", "matching_rules": [{"id": Raising()}]}),
}

NO_JSON_LINES = {
    "a line that is not UTF-8",
    "a line with a control character",
    "a line with NaN",
    "a line with a byte order mark",
    "a line that is nested too deep",
}
"""Lines that JSON Lines keep byte for byte: checking every line would double the cost."""


@pytest.mark.parametrize("name", ODD)
def test_odd_message_is_stored_with_its_batch(
    name: str, tmp_path: Path, postgres: str, hook: Hook
) -> None:
    before, after = (
        line(json.dumps({"data": {"id": identifier, "text": "good"}})) for identifier in GOOD
    )
    batch = Batch([before, ODD[name], after])
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    stores = [
        JSONLinesSubscriber(tmp_path / "t.jsonl"),
        SQLiteSubscriber(tmp_path / "tweets.db"),
        ParquetSubscriber(tmp_path / "tweets"),
        PostgresSubscriber(postgres),
        WebhookSubscriber(hook.url, sleep=lambda _: None),
    ]
    for store in stores:
        with store:
            assert store.on_next(batch) is None  # none has failed
    ConsoleSubscriber(printed, width=120).on_next(batch)

    rows = [
        place.rows()
        for place in (SQLitePlace(tmp_path), ParquetPlace(tmp_path), PostgresPlace(postgres))
    ]
    ids = [{row["id"].replace("\ufffd", "\x00") for row in found} for found in rows]
    assert ids[0] == ids[1] == ids[2] > set(GOOD)
    assert [len(found) for found in rows] == [3, 3, 3]
    [(_, body)] = hook.got
    assert [message["id"] for message in body["messages"]][::2] == list(GOOD)
    first, odd, last = (tmp_path / "t.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["id"] for line in (first, last)] == list(GOOD)
    assert ODD[name].raw in odd if name in NO_JSON_LINES else json.loads(odd)
    assert printed.buffer.getvalue().count(b"good") == 2


def test_invalid_line_is_replayed_from_json_lines(tmp_path: Path) -> None:
    letters = DeadLetterFile(tmp_path / "dead.jsonl")
    retrying = Retrying(lambda _: 1 // 0, dead_letters=letters, sleep=lambda _: None)
    for message in (ODD["a line of HTML"], ODD["a line that is not UTF-8"]):
        with pytest.raises(rxtweets.errors.SubscriberError):
            retrying.on_next(Batch([message]))
    back = [letter.batch[0] for letter in read_dead_letters(letters.path)]
    assert [(message.id, message.data, message.received_at) for message in back] == [
        ("7", "made of it", AT)
    ] * 2
    assert back[0].raw == b"<html>"


def test_json_lines_are_continued_after_invalid_lines(tmp_path: Path, tweets: Make) -> None:
    odd = list(ODD.values())
    for start in range(2):
        with JSONLinesSubscriber(tmp_path / "t.jsonl") as store:
            store.on_next(Batch([*odd, *tweets(2, start)]))
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    assert tweets(1)[0].raw not in files[0].read_bytes()
    assert tweets(1, 2)[0].raw in files[0].read_bytes()


# Rows that a database refuses.

PICKY = (
    "CREATE TRIGGER picky BEFORE INSERT ON tweets WHEN new.text = 'bad' "
    "BEGIN SELECT raise({}, 'picky'); END"
)


def run_in_sqlite(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path / "tweets.db")
    connection.execute(statement)
    connection.close()


def picky_store(kind: str, tmp_path: Path, postgres: str) -> Store:
    """A store whose table refuses the text ``bad``."""
    if kind == "sqlite":
        with SQLiteSubscriber(tmp_path / "tweets.db") as store:
            store.on_next(Batch([Message("first", {"id": "1"})]))
        run_in_sqlite(tmp_path, PICKY.format("ABORT"))
        return SQLiteSubscriber(tmp_path / "tweets.db")
    with PostgresSubscriber(postgres) as there:
        there.on_next(Batch([Message("first", {"id": "1"})]))
    with psycopg.connect(postgres) as connection:
        connection.execute("ALTER TABLE tweets ADD CHECK (text <> 'bad')")
    return PostgresSubscriber(postgres, sleep=never)


def never(_: float) -> None:
    pytest.fail("it waits for a row that is refused")


@pytest.fixture(params=["sqlite", "postgres"])
def picky(request: pytest.FixtureRequest, tmp_path: Path, postgres: str) -> Store:
    return picky_store(request.param, tmp_path, postgres)


def test_refused_row_fails_only_its_message(picky: Store, tweets: Make) -> None:
    messages = tweets(5)
    messages[2] = messages[2].put_data("bad")
    acks = RecordingAcknowledger()
    stream = reactivex.from_iterable(message.with_acknowledger(acks) for message in messages)
    stream.pipe(ops.batch(5, 60.0)).subscribe(picky)
    assert [message.id for message in acks.failed] == [messages[2].id]
    assert [message.id for message in acks.successful] == [
        message.id for message in messages if message is not messages[2]
    ]
    [failed] = acks.failed
    assert isinstance(failed.status, Failed)
    assert isinstance(failed.status.reason, Exception)


def test_batch_fails_when_all_rows_are_refused(picky: Store, tweets: Make) -> None:
    bad = [message.put_data("bad") for message in tweets(3)]
    with (
        picky,
        pytest.raises((rxtweets.errors.SubscriberError, sqlite3.IntegrityError), match="tweets"),
    ):
        picky.on_next(Batch(bad))


def test_batch_fails_when_a_trigger_rolls_back(tmp_path: Path, tweets: Make) -> None:
    good, bad = tweets(4), tweets(1, 4)[0].put_data("bad")
    with SQLiteSubscriber(tmp_path / "tweets.db") as store:
        store.on_next(Batch(good[:1]))
        run_in_sqlite(tmp_path, PICKY.format("ROLLBACK"))
        with pytest.raises(sqlite3.DatabaseError, match="rolled back"):
            store.on_next(Batch([*good, bad]))
    assert len(SQLitePlace(tmp_path).rows()) == 1


def test_too_long_id_fails_only_its_message(postgres: str, tweets: Make) -> None:
    long = Message("x", {"id": random.Random(1).randbytes(4000).hex()})
    with PostgresSubscriber(postgres, sleep=never) as store:
        outcome: Any = store.on_next(Batch([*tweets(1), long, *tweets(1, 1)]))
    assert [message.is_failed for message in outcome] == [False, True, False]
    assert len(PostgresPlace(postgres).rows()) == 2
