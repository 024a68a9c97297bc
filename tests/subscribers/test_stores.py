"""The stores, read back with other programs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import psycopg
import pytest
import tenacity

import rxtweets
from rxtweets import Batch, Message
from rxtweets._messages import line_files
from rxtweets.subscribers import (
    DeadLetterFile,
    JSONLinesSubscriber,
    ParquetSubscriber,
    PostgresSubscriber,
    SQLiteSubscriber,
    Store,
)

Make = Callable[..., list[Message[Any]]]
Tool = Callable[..., str]


class Place(Protocol):
    """A store, and another way to read it."""

    def store(self) -> Store: ...

    def rows(self) -> list[dict[str, Any]]: ...

    def print_of(self) -> object:
        """Return a value that differs after any change."""


def ask_duckdb(query: str) -> list[dict[str, Any]]:
    import duckdb

    answer = duckdb.sql(query)
    assert answer is not None
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.fetchall()]


class JSONLinesPlace:
    def __init__(self, path: Path, suffix: str) -> None:
        self.path = path / f"tweets.jsonl{suffix}"

    def store(self) -> Store:
        return JSONLinesSubscriber(self.path)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "id": message.id,
                "data": message.data,
                "text": message.data,
                "raw": message.raw.decode(),
            }
            for message in rxtweets.replay(self.path, None).to_list().run()
        ]

    def print_of(self) -> object:
        return [(file.name, file.read_bytes()) for file in sorted(self.path.parent.iterdir())]


class SQLitePlace:
    def __init__(self, path: Path) -> None:
        self.path = path / "tweets.db"

    def store(self) -> Store:
        return SQLiteSubscriber(self.path)

    def rows(self) -> list[dict[str, Any]]:
        connection = sqlite3.connect(self.path)
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute("SELECT * FROM tweets ORDER BY rowid")]
        finally:
            connection.close()

    def print_of(self) -> object:
        connection = sqlite3.connect(self.path)
        try:
            return list(connection.iterdump())
        finally:
            connection.close()


class ParquetPlace:
    def __init__(self, path: Path) -> None:
        self.path = path / "tweets"

    def store(self) -> Store:
        return ParquetSubscriber(self.path)

    def rows(self) -> list[dict[str, Any]]:
        return ask_duckdb(
            f"SELECT * FROM read_parquet('{self.path}/**/*.parquet', hive_partitioning=true)"
        )

    def print_of(self) -> object:
        return sorted((path, path.stat().st_ino) for path in self.path.rglob("*"))


class PostgresPlace:
    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo

    def store(self) -> Store:
        return PostgresSubscriber(self.conninfo)

    def rows(self) -> list[dict[str, Any]]:
        from psycopg.rows import dict_row

        with psycopg.connect(self.conninfo, row_factory=dict_row) as connection:
            return connection.execute("SELECT * FROM tweets").fetchall()

    def print_of(self) -> object:
        with psycopg.connect(self.conninfo) as connection:
            return connection.execute("SELECT xmin, ctid, id FROM tweets ORDER BY id").fetchall()


@pytest.fixture(params=["jsonl", "jsonl.gz", "jsonl.zst", "sqlite", "parquet", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    kind = request.param
    if kind.startswith("jsonl"):
        return JSONLinesPlace(tmp_path, kind.removeprefix("jsonl"))
    if kind == "sqlite":
        return SQLitePlace(tmp_path)
    if kind == "parquet":
        return ParquetPlace(tmp_path)
    return PostgresPlace(request.getfixturevalue("postgres"))


def ids_of(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(row["id"] for row in rows)


def test_every_message_is_stored_with_its_line(place: Place, tweets: Make) -> None:
    messages = tweets(50)
    with place.store() as store:
        store.on_next(Batch(messages[:30]))
        store.on_next(Batch(messages[30:]))
    rows = {row["id"]: row for row in place.rows()}
    assert rows.keys() == {message.id for message in messages}
    for message in messages:
        row = rows[message.id]
        assert row["text"] == message.data
        raw = row["raw"]
        assert (raw if isinstance(raw, str) else json.dumps(raw)) == message.raw.decode() or (
            raw == json.loads(message.raw)
        )


def test_data_of_handlers_is_stored(place: Place, tweets: Make) -> None:
    messages = [message.update_data(str.upper) for message in tweets(5)]
    with place.store() as store:
        store.on_next(Batch(messages))
    assert sorted(row["text"] for row in place.rows()) == sorted(
        message.data for message in messages
    )


def test_redelivered_batch_changes_nothing(place: Place, tweets: Make) -> None:
    messages = tweets(40)
    with place.store() as store:
        store.on_next(Batch(messages[:20]))
        store.on_next(Batch(messages[20:]))
    before = place.print_of()
    with place.store() as store:
        store.on_next(Batch(messages[:20]))
        store.on_next(Batch(messages[10:30]))
        store.on_next(Batch(messages[20:]))
    assert place.print_of() == before


def test_batch_redelivered_in_one_run_is_stored_once(place: Place, tweets: Make) -> None:
    messages = tweets(20)
    with place.store() as store:
        for _ in range(3):
            store.on_next(Batch(messages))
        store.on_next(Batch([*messages, *messages]))
    assert ids_of(place.rows()) == sorted(message.id for message in messages)


def test_second_run_adds_to_the_first(place: Place, tweets: Make) -> None:
    messages = tweets(20)
    for half in (messages[:10], messages[10:]):
        with place.store() as store:
            store.on_next(Batch(half))
    assert ids_of(place.rows()) == sorted(message.id for message in messages)


def test_batch_after_the_end_is_stored(place: Place, tweets: Make) -> None:
    messages = tweets(2)
    store = place.store()
    store.on_next(Batch(messages[:1]))
    store.on_completed()
    store.on_next(Batch(messages[1:]))
    store.close()
    store.close()
    assert ids_of(place.rows()) == sorted(message.id for message in messages)


def test_events_without_id_are_stored(place: Place, events: list[Message[Any]]) -> None:
    for _ in range(2):
        with place.store() as store:
            store.on_next(Batch(events))
    rows = place.rows()
    assert len(rows) == 4
    if "kind" in rows[0]:
        assert {row["kind"] for row in rows} == {"like", "compliance", "label", "activity"}
        data = {
            row["kind"]: json.loads(row["data"]) if isinstance(row["data"], str) else row["data"]
            for row in rows
        }
        assert data["like"]["tweet_id"] == "2125379060560297984"
        assert data["compliance"]["action"] == "delete"


def test_data_of_any_type_is_stored(place: Place, odd: list[Message[Any]]) -> None:
    for _ in range(2):
        with place.store() as store:
            store.on_next(Batch(odd))
    assert len(place.rows()) == len(odd)


def test_batches_of_several_threads_are_stored(place: Place, tweets: Make) -> None:
    messages = tweets(400)
    batches = [Batch(messages[start : start + 10]) for start in range(0, 400, 10)]
    with place.store() as store, ThreadPoolExecutor(4) as threads:
        list(threads.map(store.on_next, batches * 2))
    assert ids_of(place.rows()) == sorted(message.id for message in messages)


def test_empty_store_can_be_closed(place: Place) -> None:
    place.store().close()


# Other programs.


@pytest.mark.parametrize(
    ("suffix", "check"), [(".gz", ("gzip", "-t")), (".zst", ("zstd", "-t", "-q"))]
)
def test_compressors_read_the_files(
    suffix: str, check: tuple[str, ...], tweets: Make, tmp_path: Path, tool: Tool
) -> None:
    path = tmp_path / f"tweets.jsonl{suffix}"
    with JSONLinesSubscriber(path, rotate_size=4_000) as store:
        for start in range(0, 100, 20):
            store.on_next(Batch(tweets(20, start)))
    files = sorted(tmp_path.iterdir())
    assert len(files) > 1
    for file in files:
        tool(*check, file)


def test_jq_reads_json_lines(tweets: Make, tmp_path: Path, tool: Tool) -> None:
    messages = tweets(20)
    path = tmp_path / "tweets.jsonl"
    with JSONLinesSubscriber(path) as store:
        store.on_next(Batch(messages))
    assert tool("jq", "-r", ".raw.data.id", path).split() == [message.id for message in messages]
    arrivals = [float(time) for time in tool("jq", ".received_at", path).split()]
    assert arrivals == [message.received_at for message in messages]


def test_sqlite3_reads_the_database_and_finds_texts(
    tweets: Make, tmp_path: Path, tool: Tool
) -> None:
    path = tmp_path / "tweets.db"
    messages = tweets(300)
    with SQLiteSubscriber(path) as store:
        for start in range(0, 300, 100):
            store.on_next(Batch(messages[start : start + 100]))
        store.on_next(Batch([messages[0].put_data("zebra crossing")]))
    assert tool("sqlite3", path, "PRAGMA integrity_check") == "ok"
    assert tool("sqlite3", path, "PRAGMA journal_mode") == "wal"
    check = "INSERT INTO tweets_search (tweets_search, rank) VALUES ('integrity-check', 1)"
    assert tool("sqlite3", path, check) == ""
    found = "SELECT id FROM tweets WHERE rowid IN (SELECT rowid FROM tweets_search('zebra'))"
    assert tool("sqlite3", path, found) == messages[0].id
    lag = "SELECT count(*) FROM tweets WHERE julianday(received_at) > julianday(created_at)"
    assert tool("sqlite3", path, lag) == "300"
    tags = "SELECT count(*) FROM tweets, json_each(hashtags)"
    assert int(tool("sqlite3", path, tags)) > 0


def test_duckdb_and_polars_read_parquet_by_day(tweets: Make, tmp_path: Path) -> None:
    import polars as pl

    messages = tweets(50)
    old = Message.from_line(b'{"data":{"id":"1377650090978992134","text":"2021"}}')
    undated = Message("no date")
    with ParquetSubscriber(tmp_path / "t", row_group_size=20) as store:
        store.on_next(Batch([*messages, old, undated]))
    days = sorted(path.name for path in (tmp_path / "t").iterdir())
    assert days == ["date=2021-04-01", "date=2025-11-24", "date=__HIVE_DEFAULT_PARTITION__"]
    files = f"'{tmp_path}/t/**/*.parquet'"
    assert len(pl.scan_parquet(files.strip("'"), hive_partitioning=True).collect()) == 52
    [group] = ask_duckdb(f"SELECT max(row_group_num_rows) AS most FROM parquet_metadata({files})")
    assert group["most"] == 20
    [found] = ask_duckdb(
        f"SELECT text FROM read_parquet({files}, hive_partitioning=true) WHERE date = '2021-04-01'"
    )
    assert found == {"text": "2021"}


def test_psql_reads_the_table(postgres: str, tweets: Make, tool: Tool) -> None:
    messages = tweets(30)
    with PostgresSubscriber(postgres) as store:
        store.on_next(Batch(messages))
    assert tool("psql", postgres, "-Atc", "SELECT count(*) FROM tweets") == "30"
    lang = f"SELECT raw->'data'->>'lang' = lang FROM tweets WHERE id = '{messages[0].id}'"
    assert tool("psql", postgres, "-Atc", lang) == "t"


# A single store.


def test_postgres_reconnects_after_a_lost_connection(postgres: str, tweets: Make) -> None:
    messages = tweets(20)
    with PostgresSubscriber(postgres) as store:
        store.on_next(Batch(messages[:10]))
        pid = store._connection.info.backend_pid
        with psycopg.connect(postgres, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (pid,))
        store.on_next(Batch(messages[10:]))
    assert len(PostgresPlace(postgres).rows()) == 20


def test_batch_is_sent_again_when_the_connection_breaks_in_it(postgres: str, tweets: Make) -> None:
    waits = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
    with (
        PostgresSubscriber(postgres) as store,
        ThreadPoolExecutor(1) as threads,
        psycopg.connect(postgres, autocommit=True) as other,
    ):
        store.on_next(Batch(tweets(10)))
        pid = store._connection.info.backend_pid
        with other.transaction():
            other.execute("LOCK TABLE tweets")
            stored = threads.submit(store.on_next, Batch(tweets(10, 10)))
            while other.execute(waits, (pid,)).fetchone() != (1,):
                pass  # until the batch waits for the lock
            other.execute("SELECT pg_terminate_backend(%s)", (pid,))
        stored.result(timeout=30)
    assert ids_of(PostgresPlace(postgres).rows()) == sorted(message.id for message in tweets(20))


def test_missing_database_fails_the_batch(tweets: Make) -> None:
    pauses: list[float] = []
    store = PostgresSubscriber(
        "host=127.0.0.1 port=9 password=hush",
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_fixed(0.5),
        sleep=pauses.append,
    )
    with store, pytest.raises(rxtweets.errors.SubscriberError, match="port 9") as raised:
        store.on_next(Batch(tweets(1)))
    assert pauses == [0.5, 0.5]
    assert "hush" not in f"{raised.value}{store!r}"


class Proxy:
    """Forwards connections to PostgreSQL, or refuses them."""

    def __init__(self, conninfo: str) -> None:
        self._target = urlsplit(conninfo)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.conninfo = conninfo.replace(self._target.netloc, f"127.0.0.1:{self.port}")

    def open(self) -> None:
        server = socket.create_server(("127.0.0.1", self.port))
        self._sockets.append(server)
        self._start(self._accept, server)

    def close(self) -> None:
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._sockets.clear()
        for thread in self._threads:
            thread.join(20)
        self._threads.clear()

    def _start(self, run: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=run, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = server.accept()
                theirs = socket.create_connection((self._target.hostname, self._target.port))
                self._sockets += (ours, theirs)
                self._start(self._pass_on, ours, theirs)
                self._start(self._pass_on, theirs, ours)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy(postgres: str) -> Iterator[Proxy]:
    proxy = Proxy(postgres)
    yield proxy
    proxy.close()


def test_outage_loses_no_batch(proxy: Proxy, postgres: str, tweets: Make) -> None:
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            proxy.open()

    proxy.open()
    with PostgresSubscriber(proxy.conninfo, wait=tenacity.wait_fixed(2), sleep=sleep) as store:
        store.on_next(Batch(tweets(10)))
        proxy.close()
        store.on_next(Batch(tweets(10, 10)))
        assert pauses == [2, 2, 2]
    assert ids_of(PostgresPlace(postgres).rows()) == sorted(message.id for message in tweets(20))


def test_postgres_reconnects_after_a_failed_batch(
    proxy: Proxy, postgres: str, tweets: Make
) -> None:
    with PostgresSubscriber(proxy.conninfo, stop=tenacity.stop_after_attempt(1)) as store:
        with pytest.raises(rxtweets.errors.SubscriberError, match="refused"):
            store.on_next(Batch(tweets(1)))
        proxy.open()
        store.on_next(Batch(tweets(1, 1)))
    assert ids_of(PostgresPlace(postgres).rows()) == [tweets(1, 1)[0].id]


def test_dropped_table_is_made_again(postgres: str, tweets: Make) -> None:
    with PostgresSubscriber(postgres) as store:
        store.on_next(Batch(tweets(1)))
        with psycopg.connect(postgres) as other:
            other.execute("DROP TABLE tweets")
        store.on_next(Batch(tweets(2, 1)))
    assert len(PostgresPlace(postgres).rows()) == 2


def test_missing_privilege_fails_the_batch_immediately(postgres: str, tweets: Make) -> None:
    waits: list[float] = []
    with (
        PostgresSubscriber(postgres, table="pg_catalog.tweets", sleep=waits.append) as store,
        pytest.raises(rxtweets.errors.SubscriberError, match=r"pg_catalog\.tweets"),
    ):
        store.on_next(Batch(tweets(1)))
    assert waits == []


@pytest.mark.parametrize("conninfo", ["no connection string", "user=x hush"])
def test_invalid_conninfo_is_refused_and_not_shown(conninfo: str) -> None:
    with pytest.raises(rxtweets.ConfigurationError) as raised:
        PostgresSubscriber(conninfo)
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize("odd", ["../../out", "a/b", "x" * 300, "é:?*", "\0"])
def test_odd_id_stays_in_the_directory(odd: str, tmp_path: Path) -> None:
    with ParquetSubscriber(tmp_path / "in" / "t") as store:
        store.on_next(Batch([Message("text", {"id": odd})]))
    [file] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert file.parent == tmp_path / "in" / "t" / "date=__HIVE_DEFAULT_PARTITION__"
    [row] = ask_duckdb(f"SELECT id FROM '{file}'")
    assert row["id"] == odd


def test_file_has_one_writer_at_a_time(tmp_path: Path, tweets: Make) -> None:
    first, second = (JSONLinesSubscriber(tmp_path / "t.jsonl") for _ in range(2))
    with first, second:
        first.on_next(Batch(tweets(1)))
        with pytest.raises(rxtweets.ConfigurationError, match="another writer"):
            second.on_next(Batch(tweets(1, 1)))


def test_json_lines_rotate_after_seconds(
    tmp_path: Path, tweets: Make, files_in: Callable[[Path], list[str]]
) -> None:
    now = 0.0
    with JSONLinesSubscriber(tmp_path / "t.jsonl", rotate_after=60) as store:
        store._writer._clock = lambda: now
        for now in (0.0, 59.0, 60.0, 130.0):
            store.on_next(Batch(tweets(1, int(now))))
        assert files_in(tmp_path) == ["t-2.jsonl", "t-3.jsonl.part", "t.jsonl"]
    assert files_in(tmp_path) == ["t-2.jsonl", "t-3.jsonl", "t.jsonl"]


def test_full_disk_fails_the_batch_and_leaves_whole_lines(
    tmp_path: Path, tweets: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix in ("", ".gz", ".zst"):
        path = tmp_path / f"t.jsonl{suffix}"
        with JSONLinesSubscriber(path) as store:
            store.on_next(Batch(tweets(5)))

            def some(file: Any, data: bytes) -> None:
                file.write(data[: len(data) // 2])
                raise OSError(28, os.strerror(28))

            with monkeypatch.context() as patch:
                patch.setattr(line_files, "_write_all", some)
                with pytest.raises(OSError, match="space"):
                    store.on_next(Batch(tweets(5, 5)))
            store.on_next(Batch(tweets(5, 5)))
        ids = [message.id for message in rxtweets.replay(path, None).to_list().run()]
        assert ids == [message.id for message in tweets(10)]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_batch_is_stored_once_when_rotation_fails(
    suffix: str, tmp_path: Path, tweets: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(5, os.strerror(5))

    path = tmp_path / f"t.jsonl{suffix}"
    with JSONLinesSubscriber(path, rotate_size=1) as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            store.on_next(Batch(tweets(5)))
        assert [file.name for file in tmp_path.iterdir()] == [f"{path.name}.part"]
        store.on_next(Batch(tweets(10)))
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"t-2.jsonl{suffix}", path.name]
    ids = [message.id for message in rxtweets.replay(path, None).to_list().run()]
    assert ids == [message.id for message in tweets(10)]


def test_only_the_last_messages_are_remembered(tmp_path: Path, tweets: Make) -> None:
    messages = tweets(30)
    path = tmp_path / "t.jsonl"
    with JSONLinesSubscriber(path, window=10) as store:
        store.on_next(Batch(messages[:20]))
        store.on_next(Batch(messages[10:20]))
        store.on_next(Batch(messages[20:]))
    with JSONLinesSubscriber(path, window=10) as store:
        store.on_next(Batch(messages[20:]))
        store.on_next(Batch(messages[:20]))
    ids = [message.id for message in rxtweets.replay(path, None).to_list().run()]
    assert ids == [message.id for message in (*messages, *messages[:20])]


# Files that are removed, renamed, truncated or replaced while a store writes them.


def remove(path: Path) -> None:
    path.unlink()


def rename(path: Path) -> None:
    path.rename(path.with_name("aside"))


def replace(path: Path) -> None:
    path.rename(path.with_name("aside"))
    path.touch()


def truncate(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("change", [remove, rename, replace, truncate])
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_json_lines_start_another_file_when_theirs_is_gone(
    suffix: str, change: Callable[[Path], None], tmp_path: Path, tweets: Make
) -> None:
    path = tmp_path / f"t.jsonl{suffix}"
    with JSONLinesSubscriber(path) as store:
        store.on_next(Batch(tweets(5)))
        change(tmp_path / f"{path.name}.part")
        store.on_next(Batch(tweets(5, 5)))
        store.on_next(Batch(tweets(5)))  # known from the file that is gone
    ids = {message.id for message in rxtweets.replay(path, None).to_list().run()}
    assert ids == {message.id for message in tweets(10)}
    if change is rename:
        aside = (tmp_path / "aside").rename(tmp_path / f"old.jsonl{suffix}")
        moved = rxtweets.replay(aside, None).to_list().run()
        assert [message.id for message in moved] == [message.id for message in tweets(5)]


@pytest.mark.parametrize("change", [remove, rename, replace])
@pytest.mark.parametrize("name", ["tweets.db", "tweets.db-wal"])
def test_sqlite_opens_another_database_when_its_own_is_gone(
    name: str, change: Callable[[Path], None], tmp_path: Path, tweets: Make
) -> None:
    with SQLiteSubscriber(tmp_path / "tweets.db") as store:
        store.on_next(Batch(tweets(5)))
        change(tmp_path / name)
        store.on_next(Batch(tweets(5, 5)))
        rows = SQLitePlace(tmp_path).rows()
    kept = tweets(10) if name.endswith("-wal") else tweets(5, 5)
    assert (
        ids_of(rows)
        == ids_of(SQLitePlace(tmp_path).rows())
        == sorted(message.id for message in kept)
    )
    assert [path.name for path in tmp_path.glob("tweets*")] == ["tweets.db"]


@pytest.mark.parametrize("further", [0, 5])
def test_renamed_database_keeps_its_rows(further: int, tmp_path: Path, tweets: Make) -> None:
    with SQLiteSubscriber(tmp_path / "tweets.db") as store:
        store.on_next(Batch(tweets(5)))
        (tmp_path / "tweets.db").rename(tmp_path / "old.db")
        if further:
            store.on_next(Batch(tweets(further, 5)))
    connection = sqlite3.connect(tmp_path / "old.db")
    found = connection.execute("SELECT count(*) FROM tweets").fetchone()
    connection.close()
    assert found == (5,)


def test_replacing_database_gets_the_batch(tmp_path: Path, tweets: Make) -> None:
    with SQLiteSubscriber(tmp_path / "other.db") as other:
        other.on_next(Batch(tweets(200, 100)))
    with SQLiteSubscriber(tmp_path / "tweets.db") as store:
        store.on_next(Batch(tweets(50)))
        (tmp_path / "other.db").replace(tmp_path / "tweets.db")
        store.on_next(Batch(tweets(5, 50)))
    stored = [*tweets(200, 100), *tweets(5, 50)]
    assert ids_of(SQLitePlace(tmp_path).rows()) == sorted(message.id for message in stored)
    connection = sqlite3.connect(tmp_path / "tweets.db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_sqlite_stays_open_while_its_database_exists(
    tmp_path: Path, tweets: Make, caplog: pytest.LogCaptureFixture
) -> None:
    for start in range(0, 20, 10):
        with SQLiteSubscriber(tmp_path / "tweets.db") as store:
            store.on_next(Batch(tweets(5, start)))
            connection = store._connection
            SQLitePlace(tmp_path).rows()  # another connection is opened and closed
            store.on_next(Batch(tweets(5, start + 5)))
            assert store._connection is connection
    assert caplog.records == []


def test_parquet_stores_again_after_its_directory_is_removed(tmp_path: Path, tweets: Make) -> None:
    with ParquetSubscriber(tmp_path / "tweets") as store:
        for _ in range(2):
            store.on_next(Batch(tweets(5)))
            assert ids_of(ParquetPlace(tmp_path).rows()) == sorted(
                message.id for message in tweets(5)
            )
            shutil.rmtree(tmp_path / "tweets")
        store.on_next(Batch(tweets(5)))
        store.on_next(Batch(tweets(5)))
    assert ids_of(ParquetPlace(tmp_path).rows()) == sorted(message.id for message in tweets(5))


@pytest.fixture(params=["jsonl", "jsonl.gz", "sqlite", "parquet"])
def in_a_directory(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    directory = tmp_path / "in"
    directory.mkdir()
    stores: dict[str, Callable[[], Store]] = {
        "sqlite": lambda: SQLiteSubscriber(directory / "tweets.db"),
        "parquet": lambda: ParquetSubscriber(directory / "tweets"),
    }
    kind = request.param
    return stores.get(kind, lambda: JSONLinesSubscriber(directory / f"t.{kind}"))()


def test_removed_or_replaced_directory_fails_the_batch(
    in_a_directory: Store, tmp_path: Path, tweets: Make
) -> None:
    directory = tmp_path / "in"
    with in_a_directory as store:
        store.on_next(Batch(tweets(2)))
        shutil.rmtree(directory)
        directory.touch()
        for _ in range(2):
            with pytest.raises(
                (OSError, sqlite3.OperationalError), match=re.escape(str(directory))
            ):
                store.on_next(Batch(tweets(2, 2)))
        directory.unlink()
        directory.mkdir()
        store.on_next(Batch(tweets(2, 2)))
        assert list(directory.iterdir())


def test_json_lines_store_again_after_directory_is_removed(tmp_path: Path, tweets: Make) -> None:
    path = tmp_path / "in" / "t.jsonl"
    path.parent.mkdir()
    with JSONLinesSubscriber(path) as store:
        store.on_next(Batch(tweets(2)))
        shutil.rmtree(path.parent)
        with pytest.raises(FileNotFoundError):
            store.on_next(Batch(tweets(2)))
        path.parent.mkdir()
        store.on_next(Batch(tweets(2)))
    ids = [message.id for message in rxtweets.replay(path, None).to_list().run()]
    assert ids == [message.id for message in tweets(2)]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_removed_json_lines_are_logged_at_the_end(
    suffix: str, tmp_path: Path, tweets: Make
) -> None:
    store = JSONLinesSubscriber(tmp_path / f"t.jsonl{suffix}")
    store.on_next(Batch(tweets(5)))
    (tmp_path / f"t.jsonl{suffix}.part").unlink()
    with pytest.raises(FileNotFoundError, match=r"t\.jsonl.*\.part"):
        store.on_completed()
    store.on_completed()


def test_replaced_part_is_left_alone(tmp_path: Path, tweets: Make) -> None:
    part = tmp_path / "t.jsonl.part"
    store = JSONLinesSubscriber(tmp_path / "t.jsonl")
    store.on_next(Batch(tweets(5)))
    part.rename(tmp_path / "aside")
    part.write_bytes(b"theirs\n")
    store.on_completed()
    assert part.read_bytes() == b"theirs\n"


def test_full_disk_error_names_the_file(
    in_a_directory: Store, tmp_path: Path, tweets: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    if isinstance(in_a_directory, SQLiteSubscriber):
        with in_a_directory as store:
            store.on_next(Batch(tweets(1)))
            assert store._connection is not None
            store._connection.execute("PRAGMA max_page_count = 1")
            with pytest.raises(sqlite3.OperationalError, match=r"tweets\.db: .*full"):
                store.on_next(Batch(tweets(500, 1)))
        return
    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(line_files, "_write_all", full)
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "in"))):
        in_a_directory.on_next(Batch(tweets(1)))


# Invalid arguments.


@pytest.mark.parametrize("kind", [JSONLinesSubscriber, SQLiteSubscriber, ParquetSubscriber])
def test_unwritable_directory_is_refused(
    kind: Callable[[Path], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(rxtweets.ConfigurationError, match="written to"):
        kind(tmp_path / "x")


@pytest.mark.parametrize("kind", [SQLiteSubscriber, DeadLetterFile])
def test_unwritable_file_is_refused(
    kind: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").touch()
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path / "x")
    with pytest.raises(rxtweets.ConfigurationError, match="cannot be written to"):
        kind(tmp_path / "x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: JSONLinesSubscriber(path / "missing" / "x"), "no directory"),
        (lambda path: SQLiteSubscriber(path / "missing" / "x"), "no directory"),
        (lambda path: JSONLinesSubscriber(path / "file" / "x"), "no directory"),
        (lambda path: SQLiteSubscriber(path / "file" / "x"), "no directory"),
        (lambda path: ParquetSubscriber(path / "file" / "x"), "no directory"),
        (JSONLinesSubscriber, "give the name of a file"),
        (SQLiteSubscriber, "give the name of a file"),
        (lambda path: SQLiteSubscriber(path / "file"), "no SQLite database"),
        (lambda path: ParquetSubscriber(path, compression="zip"), "compression"),
        (lambda _: ParquetSubscriber("ftp://host/path"), "path"),
        (lambda _: ParquetSubscriber("gs:///"), "bucket"),
        (lambda _: PostgresSubscriber(table="tweets; drop table users"), "table"),
    ],
)
def test_store_refuses_invalid_arguments(
    make: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("something else")
    with pytest.raises(rxtweets.ConfigurationError, match=message):
        make(tmp_path)


def test_sqlite_accepts_an_empty_file(tmp_path: Path, tweets: Make) -> None:
    (tmp_path / "tweets.db").touch()
    with SQLiteSubscriber(tmp_path / "tweets.db") as store:
        store.on_next(Batch(tweets(1)))
    assert len(SQLitePlace(tmp_path).rows()) == 1
