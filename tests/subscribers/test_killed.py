"""`kill -9` during a write loses no acknowledged message, and doubles none."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import orjson
import psycopg
import pytest

import rxtweets
from rxtweets.simulator._tweets import Tweets
from tests.subscribers._killed import POSTGRES, table_of

PROGRAM = Path(__file__).with_name("_killed.py")
TOTAL = 3_000
PATIENCE = 50.0
AGAIN = 150
"""Acknowledged messages that the source redelivers in other batches."""


def expected() -> list[str]:
    """Return the ids in the order of the program's messages."""
    frames = Tweets(seed=9, clock=lambda: 1_764_028_461.0).frames(0, TOTAL)
    return [orjson.loads(frame)["data"]["id"] for frame in frames]


def run(
    kind: str, place: Path, first: int, size: int, kill_after: int | None = None
) -> tuple[list[str], bool]:
    """Store from the first message on; kill the process after a number of acknowledgements.

    Returns the acknowledged ids, and whether the process was killed.
    """
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), kind, str(place), str(first), str(size)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        acked: list[str] = []
        for line in process.stdout:
            acked.append(line.strip())
            if kill_after is not None and len(acked) > kill_after:
                process.kill()
                kill_after = None
        process.wait(PATIENCE)
    assert acked.pop(0) == "ready"
    return acked, process.returncode == -9


def stored(kind: str, place: Path) -> list[str]:
    """Return the ids in the store, read by other programs or as plain text."""
    if kind == "sqlite":
        connection = sqlite3.connect(place / "tweets.db")
        try:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            return [id_ for (id_,) in connection.execute("SELECT id FROM tweets")]
        finally:
            connection.close()
    if kind == "parquet":
        import duckdb

        complete = list(map(str, (place / "tweets").rglob("*.parquet")))
        answer = duckdb.read_parquet(complete).project("id").fetchall() if complete else []
        return [id_ for (id_,) in answer]
    if kind == "postgres":
        return rows_in(table_of(place))
    files = [path for path in place.iterdir() if path.suffix != ".new"]
    if not files:
        return []
    stream = rxtweets.replay(place / f"tweets.{kind}", None)
    return [message.id for message in stream.to_list().run()]


def rows_in(table: str) -> list[str]:
    with psycopg.connect(os.environ[POSTGRES]) as database:
        if database.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
            return []
        query = psycopg.sql.SQL("SELECT id FROM {}").format(psycopg.sql.Identifier(table))
        return [id_ for (id_,) in database.execute(query)]


def left_in(place: Path) -> list[str]:
    """Return the unfinished files."""
    return [path.name for path in place.rglob("*") if path.suffix in {".part", ".new"}]


def kill_and_resume(kind: str, place: Path, seed: int, ids: list[str]) -> bool:
    chance = random.Random(seed)
    taken, was_killed = 0, True
    # The second process is killed while it completes the files of the first one.
    for kill_after in (chance.randrange(0, TOTAL // 2), chance.choice([0, 1, 50])):
        first = max(0, taken - AGAIN)
        acked, at_work = run(kind, place, first, chance.choice([1, 7, 20, 100]), kill_after)
        was_killed = was_killed and at_work
        taken = max(taken, first + len(acked))
        assert acked == ids[first : first + len(acked)]
        found = stored(kind, place)
        assert set(ids[:taken]) <= set(found), "an acknowledged message is missing"
        assert len(found) == len(set(found)), "a message is there twice"
    first = max(0, taken - AGAIN)
    acked, _ = run(kind, place, first, chance.choice([20, 33, 500]))
    assert acked == ids[first:]
    assert sorted(stored(kind, place)) == sorted(ids)
    assert left_in(place) == []
    return was_killed


@pytest.fixture(params=["jsonl", "jsonl.gz", "jsonl.zst", "sqlite", "parquet", "postgres"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "postgres":
        monkeypatch.setenv(POSTGRES, request.getfixturevalue("postgres"))
    return str(request.param)


def test_killed_process_neither_loses_nor_doubles(kind: str, tmp_path: Path) -> None:
    kill_and_resume(kind, tmp_path, 1, expected())


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
def test_four_killed_processes_neither_lose_nor_double(kind: str, tmp_path: Path) -> None:
    ids = expected()
    killed = 0
    for seed in range(4 // 2):  # two processes are killed
        place = tmp_path / str(seed)
        place.mkdir()
        killed += kill_and_resume(kind, place, seed, ids)
    assert killed, "most processes were done before they were killed: nothing was tested"
