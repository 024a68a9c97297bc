"""The stores of a command, by a name such as ``jsonl:tweets.jsonl``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rxtweets._core.subscriber import Subscriber
from rxtweets.cli._command import complain
from rxtweets.errors import ConfigurationError
from rxtweets.subscribers import (
    ConsoleSubscriber,
    JSONLinesSubscriber,
    ParquetSubscriber,
    PostgresSubscriber,
    Spooled,
    SQLiteSubscriber,
    WebhookSubscriber,
)
from rxtweets.subscribers._spool import Spool

__all__ = ["STORE_NAMES", "report_spools_left", "spooled", "store_of"]


class StoreKind(NamedTuple):
    """A kind of store.

    Attributes:
        name: as it is written, for a help text.
        make: makes the store of a name.
        many_writers: several processes can write to the same place. If not, each has its own.
    """

    name: str
    make: Callable[[str], Subscriber[Any]]
    many_writers: bool = True


def _rest(name: str) -> str:
    return name.partition(":")[2]


STORES = {
    "jsonl": StoreKind(
        "jsonl:PATH", lambda name: JSONLinesSubscriber(_rest(name)), many_writers=False
    ),
    "sqlite": StoreKind("sqlite:PATH", lambda name: SQLiteSubscriber(_rest(name))),
    "parquet": StoreKind("parquet:DIR", lambda name: ParquetSubscriber(_rest(name))),
    "postgresql": StoreKind("postgresql://…", PostgresSubscriber),
    "postgres": StoreKind("postgres://…", PostgresSubscriber),
    "https": StoreKind("https://…", WebhookSubscriber),
    "http": StoreKind("http://…", WebhookSubscriber),
    "console": StoreKind("console", lambda _: ConsoleSubscriber()),
}
"""By the scheme of the name."""

STORE_NAMES = ", ".join(kind.name for kind in STORES.values())
"""For a help text."""


def store_of(name: str, worker: int | None = None) -> Subscriber[Any]:
    """Return the store of a name.

    Args:
        name: one of `STORE_NAMES`. It can hold a password, and is never shown.
        worker: the number of this process, if there are several. A file for one writer gets the
            number in its name: ``tweets.jsonl`` becomes ``tweets-w1.jsonl``.

    Raises:
        ConfigurationError: there is no such store, its library is not installed, or the place
            cannot be written to.
    """
    scheme, _, rest = name.partition(":")
    kind = STORES.get(scheme)
    if kind is None or bool(rest) is (kind.name == scheme):
        known = f" ({scheme}:)" if kind is not None else ""
        raise ConfigurationError(f"--store{known}: give one of {STORE_NAMES}")
    if worker is not None and not kind.many_writers:
        name = f"{scheme}:{_own_path(Path(rest), worker)}"
    return kind.make(name)


def _own_path(path: Path, worker: int) -> Path:
    # Not NAME-2, which is the second file of the recording NAME.
    stem, dot, suffix = path.name.partition(".")
    return path.with_name(f"{stem}-w{worker}{dot}{suffix}")


def spooled(store: Subscriber[Any], directory: str, worker: int) -> Spooled:
    """Return the store with a spool, which belongs to one worker.

    Raises:
        ConfigurationError: the directory cannot be used, or another process uses it.
    """
    return Spooled(store, Path(directory, f"w{worker}"))


def report_spools_left(directory: str, workers: int) -> None:
    """Report batches in the spools of workers that this run does not have."""
    for path in sorted(Path(directory).glob("w*")):
        number = path.name.removeprefix("w")
        if number.isdecimal() and int(number) > workers:
            spool = Spool(path, 1)
            if spool.messages:
                complain(
                    f"rxtweets: {spool.messages:,} messages wait in {os.fspath(path)}: a run with "
                    f"--processes {number} stores them"
                )
            spool.close()
