"""Rows a second of each store, beside a bare loop over the library that it uses.

The bare loop writes the same columns with the same statement or file, in one transaction or write a
batch. It handles no odd messages, no redelivered messages and no unfinished files. The cost is
measured by the clock and by the processor time of this process. Other work on the machine disturbs
the processor time less, which excludes waits for disks and servers.

Usage: subscribers.py [--rows N] [--runs N] [--only NAME]
"""

from __future__ import annotations

import argparse
import functools
import platform
import shutil
import sqlite3
import statistics
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import orjson
import psycopg
import pyarrow as pa  # type: ignore[import-untyped]  # it comes without types
import pyarrow.parquet as pq  # type: ignore[import-untyped]  # as above
import zstandard

from rxtweets import Batch, Message
from rxtweets._messages.rows import COLUMNS
from rxtweets._messages.tables import arrow_schema
from rxtweets.simulator._tweets import Tweets
from rxtweets.subscribers import (
    JSONLinesSubscriber,
    ParquetSubscriber,
    PostgresSubscriber,
    SQLiteSubscriber,
    WebhookSubscriber,
    _postgres,
    _sqlite,
)
from rxtweets.subscribers._sql import create_table_sql, upsert_sql

SIZES = (20, 500)
POSTGRES = "postgresql://127.0.0.1:5432/test"

Take = Callable[[Sequence[Message[Any]]], object]


def plain_row(message: Message[Any]) -> list[Any]:
    """Return the columns of a row, on the assumption that every line is a tweet."""
    line = message.raw
    payload = orjson.loads(line)
    tweet = payload["data"]
    metrics = tweet["public_metrics"]
    entities = tweet.get("entities", {})
    referenced = {part["type"]: part["id"] for part in tweet.get("referenced_tweets", ())}
    author = tweet["author_id"]
    users = payload["includes"]["users"]
    return [
        tweet["id"],
        "tweet",
        datetime.fromisoformat(tweet["created_at"]),
        datetime.fromtimestamp(message.received_at or 0.0, UTC),
        author,
        next((user["username"] for user in users if user["id"] == author), None),
        tweet["lang"],
        tweet["text"],
        None,
        tweet.get("conversation_id"),
        referenced.get("replied_to"),
        referenced.get("retweeted"),
        referenced.get("quoted"),
        metrics["like_count"],
        metrics["repost_count"],
        metrics["reply_count"],
        metrics["quote_count"],
        [hashtag["tag"] for hashtag in entities.get("hashtags", ())],
        [mention["username"] for mention in entities.get("mentions", ())],
        [],
        line.decode(),
    ]


def plain_line(message: Message[Any]) -> bytes:
    """Encode a message as a line of JSON by orjson."""
    value = {
        "id": message.id,
        "received_at": message.received_at,
        "data": message.data,
        "raw": orjson.Fragment(message.raw),
    }
    return orjson.dumps(value) + b"\n"


# The bare loops: each yields a function of a batch.


@contextmanager
def bare_lines(place: Path, pack: Callable[[bytes], bytes]) -> Iterator[Take]:
    with (place / "bare").open("wb", buffering=0) as file:
        yield lambda batch: file.write(pack(b"".join(map(plain_line, batch))))


@contextmanager
def bare_jsonl(place: Path) -> Iterator[Take]:
    with bare_lines(place, lambda data: data) as take:
        yield take


@contextmanager
def bare_gzip(place: Path) -> Iterator[Take]:
    member = zlib.compressobj(6, zlib.DEFLATED, 31)
    with bare_lines(
        place, lambda data: member.compress(data) + member.flush(zlib.Z_SYNC_FLUSH)
    ) as take:
        yield take


@contextmanager
def bare_zstd(place: Path) -> Iterator[Take]:
    frame = zstandard.ZstdCompressor(level=3).compressobj()
    block = zstandard.COMPRESSOBJ_FLUSH_BLOCK
    with bare_lines(place, lambda data: frame.compress(data) + frame.flush(block)) as take:
        yield take


@contextmanager
def bare_sqlite(place: Path) -> Iterator[Take]:
    connection = sqlite3.connect(place / "bare.db")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.executescript(_sqlite.SETUP + _sqlite.SEARCH)

    def values(message: Message[Any]) -> list[Any]:
        row = plain_row(message)
        row[2], row[3] = (moment.isoformat(" ", "milliseconds") for moment in row[2:4])
        row[17:20] = (orjson.dumps(values).decode() for values in row[17:20])
        return row

    def take(batch: Sequence[Message[Any]]) -> None:
        with connection:
            connection.executemany(_sqlite.UPSERT, map(values, batch))

    yield take
    connection.close()


@contextmanager
def bare_parquet(place: Path) -> Iterator[Take]:
    schema, count = arrow_schema(), 0

    def take(batch: Sequence[Message[Any]]) -> None:
        nonlocal count
        count += 1
        columns = list(zip(*map(plain_row, batch), strict=True))
        table = pa.table(dict(zip(COLUMNS, columns, strict=True)), schema=schema)
        pq.write_table(table, place / f"{count}.parquet", compression="zstd")

    yield take


@contextmanager
def bare_postgres(_place: Path) -> Iterator[Take]:
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS rxtweets_bare")
        connection.execute(create_table_sql("rxtweets_bare", _postgres.POSTGRES_TYPES))
        differs = "rxtweets_bare.raw IS DISTINCT FROM excluded.raw"
        statement = upsert_sql("rxtweets_bare", "%s", differs)

        def take(batch: Sequence[Message[Any]]) -> None:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(statement, list(map(plain_row, batch)))

        yield take
        connection.execute("DROP TABLE rxtweets_bare")


@contextmanager
def server() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/"
    http.shutdown()
    thread.join()
    http.server_close()


@contextmanager
def bare_webhook(_place: Path) -> Iterator[Take]:
    with server() as url, httpx.Client() as client:
        yield lambda batch: client.post(url, content=b"".join(map(plain_line, batch)))


# The stores.


@contextmanager
def ours(make: Callable[[Path], Any], place: Path) -> Iterator[Take]:
    with make(place) as store:
        yield lambda batch: store.on_next(Batch(batch))


@contextmanager
def our_postgres(_place: Path) -> Iterator[Take]:
    with PostgresSubscriber(POSTGRES, table="rxtweets_ours") as store:
        yield lambda batch: store.on_next(Batch(batch))
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute("DROP TABLE rxtweets_ours")


@contextmanager
def our_webhook(_place: Path) -> Iterator[Take]:
    with server() as url, WebhookSubscriber(url) as store:
        yield lambda batch: store.on_next(Batch(batch))


def jsonl(suffix: str) -> Any:
    return functools.partial(ours, lambda place: JSONLinesSubscriber(place / f"t.jsonl{suffix}"))


PAIRS: dict[str, tuple[Any, Any]] = {
    "JSON Lines": (bare_jsonl, jsonl("")),
    "JSON Lines, gzip": (bare_gzip, jsonl(".gz")),
    "JSON Lines, zstd": (bare_zstd, jsonl(".zst")),
    "SQLite": (bare_sqlite, functools.partial(ours, lambda at: SQLiteSubscriber(at / "t.db"))),
    "Parquet": (bare_parquet, functools.partial(ours, lambda at: ParquetSubscriber(at / "t"))),
    "PostgreSQL": (bare_postgres, our_postgres),
    "Webhook": (bare_webhook, our_webhook),
}


def measure(open_store: Any, frames: list[bytes], size: int) -> tuple[float, float]:
    """Return the rows a second of one run, by the clock and by processor time.

    Each run makes new messages, because a message keeps its decoded parts.
    """
    messages = [Message.from_line(frame, 1_764_028_462.0) for frame in frames]
    batches = [messages[start : start + size] for start in range(0, len(messages), size)]
    place = Path(tempfile.mkdtemp())
    try:
        with open_store(place) as take:
            take(batches[0])  # opens the store
            started, busy = time.perf_counter(), time.process_time()
            for batch in batches[1:]:
                take(batch)
            busy, seconds = time.process_time() - busy, time.perf_counter() - started
            rows = len(messages) - size
            return rows / seconds, rows / busy
    finally:
        shutil.rmtree(place)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000, help="rows with batches of 500 (10000)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    frames = Tweets(seed=1, clock=lambda: 1_764_028_461.0).frames(0, options.rows)
    about = f"{len(frames)} tweets of 1 KB, {options.runs} runs, rows/s (least .. most)"
    print(f"Python {platform.python_version()}, {about}")
    print(f"{'store':<16} batch {'bare':<36} {'ours':<36} clock    CPU")
    for name, pair in PAIRS.items():
        if options.only not in name:
            continue
        for size in SIZES:
            some = frames if size > 100 else frames[: max(size * 10, len(frames) // 5)]
            rates: tuple[list[tuple[float, float]], ...] = ([], [])
            for _ in range(options.runs):
                for open_store, found in zip(pair, rates, strict=True):
                    found.append(measure(open_store, some, size))
            clock, busy = (
                statistics.median(rate[by] for rate in rates[0])
                / statistics.median(rate[by] for rate in rates[1])
                - 1
                for by in (0, 1)
            )
            columns = " ".join(shown([by_clock for by_clock, _ in found]) for found in rates)
            print(f"{name:<18} {size:>3} {columns} {clock:>+6.0%} {busy:>+6.0%}", flush=True)


def shown(rates: list[float]) -> str:
    return f"{statistics.median(rates):>9,.0f} ({min(rates):>9,.0f} .. {max(rates):>9,.0f})"


if __name__ == "__main__":
    main()
