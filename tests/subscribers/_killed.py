"""A process that stores batches and acknowledges them, until it is killed.

Arguments: the kind of store, its place, the first message, the messages of a batch. The place is a
directory; PostgreSQL is where ``RXTWEETS_KILLED_POSTGRES`` says, and the table has its name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import reactivex

import rxtweets
from rxtweets import Message
from rxtweets import operators as ops
from rxtweets.simulator._tweets import Tweets
from rxtweets.subscribers import (
    JSONLinesSubscriber,
    ParquetSubscriber,
    PostgresSubscriber,
    SQLiteSubscriber,
    Store,
)

TOTAL = 3_000
POSTGRES = "RXTWEETS_KILLED_POSTGRES"


def table_of(place: Path) -> str:
    return f"t_{place.name}"


def store_for(kind: str, place: Path) -> Store:
    if kind == "sqlite":
        return SQLiteSubscriber(place / "tweets.db")
    if kind == "parquet":
        return ParquetSubscriber(place / "tweets")
    if kind == "postgres":
        return PostgresSubscriber(os.environ[POSTGRES], table=table_of(place))
    return JSONLinesSubscriber(place / f"tweets.{kind}", rotate_size=100_000)


def frames() -> list[bytes]:
    return Tweets(seed=9, clock=lambda: 1_764_028_461.0).frames(0, TOTAL)


def main() -> None:
    kind, place, first, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])

    def report(good: Sequence[Message[Any]], bad: Sequence[Message[Any]]) -> None:
        assert not bad
        os.write(1, b"".join(message.id.encode() + b"\n" for message in good))

    acknowledger = rxtweets.CallerAcknowledger(report)
    messages = [
        Message.from_line(frame, 1_764_028_462.0).with_acknowledger(acknowledger)
        for frame in frames()[first:]
    ]
    stream = reactivex.from_iterable(messages).pipe(ops.batch(size, 60.0))
    os.write(1, b"ready\n")
    stream.subscribe(store_for(kind, place))


if __name__ == "__main__":
    main()
