"""Parquet files appear complete or not at all, even if the process is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rxtweets import Batch, Message
from rxtweets._support import file_lock
from rxtweets.subscribers import ParquetSubscriber, _parquet

Make = Callable[..., list[Message[Any]]]
Writer = subprocess.Popen[str]

PROGRAM = """
import os, sys
from rxtweets import Batch, Message
from rxtweets.subscribers import ParquetSubscriber

def confirm(descriptor):
    print("writes", flush=True)
    sys.stdin.readline()

os.fsync = confirm
with ParquetSubscriber(sys.argv[1]) as store:
    store.on_next(Batch([Message("theirs", {"id": "1"})]))
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    """A process that blocks during a write, until it reads a line."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tmp_path / "t"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writes\n"
        yield process
        process.kill()


def parts_in(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.name.endswith(".part")]


def store_in(directory: Path, messages: list[Message[Any]]) -> None:
    with ParquetSubscriber(directory) as store:
        store.on_next(Batch(messages))


def test_part_of_a_killed_process_is_removed(writer: Writer, tweets: Make, tmp_path: Path) -> None:
    writer.kill()
    writer.wait()
    [part] = parts_in(tmp_path)
    assert part.stat().st_size > 0
    store_in(tmp_path / "t", tweets(1))
    assert parts_in(tmp_path) == []
    [file] = tmp_path.rglob("*.parquet")
    assert file.name.startswith(tweets(1)[0].id)


def test_part_of_a_live_process_is_kept(writer: Writer, tweets: Make, tmp_path: Path) -> None:
    store_in(tmp_path / "t", tweets(1))
    [_] = parts_in(tmp_path)
    writer.communicate("go on\n")
    assert writer.returncode == 0
    assert parts_in(tmp_path) == []
    assert len(list(tmp_path.rglob("*.parquet"))) == 2


def test_readers_skip_unfinished_files(writer: Writer, tweets: Make, tmp_path: Path) -> None:
    import duckdb
    import pandas as pd
    import polars as pl

    dataset = pytest.importorskip("pyarrow.dataset")

    store_in(tmp_path / "t", tweets(3))
    assert parts_in(tmp_path)
    assert writer.poll() is None
    files = f"{tmp_path}/t/**/*.parquet"
    counted = duckdb.sql(f"SELECT count(*) FROM '{files}'")
    assert counted is not None
    assert counted.fetchall() == [(3,)]
    assert pl.scan_parquet(files, hive_partitioning=True).collect().height == 3
    assert dataset.dataset(tmp_path / "t", partitioning="hive").count_rows() == 3
    assert len(pd.read_parquet(tmp_path / "t")) == 3


def test_two_processes_can_write_the_same_file(writer: Writer, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")

    store_in(tmp_path / "t", [Message("ours", {"id": "1"})])
    writer.communicate("go on\n")
    assert writer.returncode == 0
    [file] = tmp_path.rglob("*.parquet")
    assert pq.read_table(file, columns=["id"])["id"].to_pylist() == ["1"]


def test_hidden_files_of_other_programs_are_kept(tweets: Make, tmp_path: Path) -> None:
    theirs = tmp_path / ".rsync.parquet.part"
    theirs.write_bytes(b"theirs")
    store_in(tmp_path, tweets(1))
    assert theirs.read_bytes() == b"theirs"


def test_full_disk_fails_the_batch_and_leaves_no_file(
    tweets: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    with ParquetSubscriber(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="space"):
                store.on_next(Batch(tweets(5)))
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
        store.on_next(Batch(tweets(5)))
    assert len(list(tmp_path.rglob("*.parquet"))) == 1


def test_part_removed_before_its_lock_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def late(file: Any, **options: Any) -> bool:
        begun.append(file.name)
        if len(begun) == 1:
            Path(file.name).unlink()
        return lock(file, **options)

    lock = file_lock.lock
    monkeypatch.setattr(_parquet, "lock", late)
    _parquet.write_whole(tmp_path / "x", b"content")
    assert len(set(begun)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"content"


def test_parts_are_kept_when_locks_are_unsupported(
    tweets: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any, **__: Any) -> bool:
        raise OSError(95, os.strerror(95))

    part = tmp_path / f".x.parquet.{'0' * 32}.part"
    part.write_bytes(b"theirs")
    monkeypatch.setattr(_parquet, "lock", none)
    store_in(tmp_path, tweets(1))
    assert part.exists()
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
