from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from rxtweets import Message
from rxtweets._messages.payloads import reader_for
from rxtweets.simulator._tweets import Tweets
from tests.subscribers._hook import Hook

RECEIVED = 1_764_028_461.25


def missing(component: str) -> None:
    """Skip the test without this component, or fail it in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{component} must be installed")
    pytest.skip(f"{component} is not installed")


@pytest.fixture
def tool() -> Callable[..., str]:
    """Return a function that runs a program and returns its output; it must succeed."""

    def run(name: str, *arguments: object) -> str:
        if shutil.which(name) is None:
            missing(name)
        done = subprocess.run(
            [name, *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture
def tweets() -> Callable[..., list[Message[Any]]]:
    """Return a function that makes messages as a stream does, one for each millisecond."""
    frames = Tweets(seed=3, clock=lambda: RECEIVED - 1).frames(0, 1000)

    def make(count: int, start: int = 0) -> list[Message[Any]]:
        return [
            Message.from_line(frames[number], RECEIVED + number / 1000)
            for number in range(start, start + count)
        ]

    return make


LINES = {
    "likes": b'{"data":{"id":"8f1c","created_at":"2026-11-24T10:00:00.000Z",'
    b'"liked_tweet_id":"2125379060560297984","liked_tweet_author_id":"7"}}',
    "compliance": b'{"data":{"delete":{"tweet":{"id":"601430178305220608","author_id":"9"},'
    b'"event_at":"2026-11-24T10:00:01.000Z"}}}',
    "labels": b'{"data":{"public_tweet_notice":{"application":"apply","tweet":{"id":"5",'
    b'"author_id":"6"},"event_at":"2026-11-24T10:00:02.000Z","label_title":"x"}}}',
    "activity": b'{"data":{"event_uuid":"1166","filter":{"user_id":"1"},'
    b'"event_type":"post.create","tag":"t","payload":{"before":"a"}}}',
}


@pytest.fixture
def events() -> list[Message[Any]]:
    """A like, a compliance event, a label and an activity; two of them have no id."""
    made: list[Message[Any]] = []
    for carries, line in LINES.items():
        read: Any = reader_for(carries)  # type: ignore[arg-type]  # the keys are those names
        data, identifier = read(orjson.loads(line))
        made.append(Message.from_event(data, identifier, line, RECEIVED))
    return made


@pytest.fixture
def odd() -> list[Message[Any]]:
    """Messages with odd data, and messages that came from no stream."""
    made = Message.from_line(b'{"data":{"id":"77","text":"a\\u0000b"}}', RECEIVED)
    return [
        made,
        Message.from_line(b'{"data":{"id":"78","text":"b"}}').put_data({"raw": {1: {2, 3}}}),
        Message.from_line(b'{"data":{"id":"79","text":"c"}}').put_data("half \ud83d of a pair"),
        Message.from_line(b'{"data":{"id":"80","text":"d","entities":null}}').put_data(object()),
        Message.from_line(b'{"data":{"id":81,"text":"e","public_metrics":[],"lang":7}}'),
        Message("no id"),
        Message({"no": "id"}, {"lang": "de"}),
        Message("half an id", {"id": "82\ud83d"}),
        Message("another half", {"id": "82\ud83c"}),
    ]


@contextmanager
def postgres_schema() -> Iterator[str]:
    """Return the connection string of an empty schema, until the end of the block."""
    psycopg = pytest.importorskip("psycopg")
    where = os.environ.get("RXTWEETS_TEST_POSTGRES", "postgresql://127.0.0.1:5432/test")
    schema = f"rxtweets_{os.getpid()}"
    try:
        connection = psycopg.connect(where, autocommit=True, connect_timeout=3)
    except psycopg.OperationalError as error:
        missing(f"PostgreSQL at {where} ({error})")
    with connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        connection.execute(f"CREATE SCHEMA {schema}")
        yield f"{where}?options=-csearch_path%3D{schema}"
        connection.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture
def postgres() -> Iterator[str]:
    """A connection string of an empty schema."""
    with postgres_schema() as conninfo:
        yield conninfo


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.close()


@pytest.fixture
def files_in() -> Callable[[Path], list[str]]:
    return lambda path: sorted(file.name for file in path.iterdir())
