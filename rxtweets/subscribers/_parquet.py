"""Parquet: a file a batch and day, on a disk, in S3 or in Google's cloud."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import date
from hashlib import blake2b
from pathlib import Path
from typing import Any

from rxtweets._messages.batch import Batch
from rxtweets._messages.rows import Row, row_of
from rxtweets._messages.tables import arrow_table
from rxtweets._support.file_lock import Identity, identity_of
from rxtweets._support.optional_imports import needed
from rxtweets._support.validation import path_text, whole_number
from rxtweets.errors import ConfigurationError
from rxtweets.subscribers._seen import WINDOW, Seen
from rxtweets.subscribers._store import Store
from rxtweets.subscribers._whole_files import remove_leftovers, write_whole

__all__ = ["ParquetSubscriber"]

NOWHEN = "__HIVE_DEFAULT_PARTITION__"
"""Hive's name of the partition of what has no date."""


LONGEST = 64
"""Characters of an id in a file's name; X's have 19, and digests 32."""


class ParquetSubscriber(Store):
    """Writes every batch as a file of Parquet in each day that it touches.

    ::

        PATH/date=2026-11-24/212…-5f0c….parquet

    The day is that of ``created_at``, in UTC, else of ``received_at``; the columns are those of
    `rxtweets.subscribers.Row`. **One batch is one file**, so make the batches large:
    ``Batcher(ParquetSubscriber(…), size=20_000, timeout=60)``; they are held in memory until
    then, and are not acknowledged before.

    A file appears complete or not at all. While it is written to a disk it is hidden, and no
    ``*.parquet``: readers that are given a directory pass over it; polars does so only if it is
    given ``PATH/**/*.parquet``. What a killed process was writing is removed with the first batch
    of the next that writes there, on a disk; in a cloud nobody sees it.

    A file is named after the messages in it, and a message whose key is among the last ``window``
    is not written again; those of earlier runs are read from the newest files, and so they are
    when the directory was removed or replaced meanwhile.

    Args:
        path: a directory, or a URI: ``s3://bucket/path?region=…``,
            ``gs://bucket/path?retry_limit_seconds=60``.
        filesystem: a ``pyarrow.fs.FileSystem`` for which ``path`` is meant; by default the one of
            the URI, with the credentials that its library finds in the environment.
        row_group_size: rows of a row group at most, 1 or more.
        compression: of the columns, as in ``pyarrow.parquet.write_table``.
        window: messages that are remembered, 100,000 by default.

    Raises:
        ConfigurationError: an argument cannot work, or pyarrow is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        filesystem: Any = None,
        row_group_size: int = 50_000,
        compression: str = "zstd",
        window: int = WINDOW,
    ) -> None:
        super().__init__()
        self._parquet = needed("pyarrow.parquet", "parquet")
        self._arrow = needed("pyarrow", "parquet")
        self._fs = needed("pyarrow.fs", "parquet")
        self._shown = path_text("path", path)
        self._filesystem, self._root = self._place(path, filesystem)
        self._row_group_size = whole_number("row_group_size", row_group_size)
        self._compression = compression
        if not self._has_codec(compression):
            raise ConfigurationError(f"compression={compression!r}: pyarrow does not have it")
        self._window = whole_number("window", window)
        self._seen: Seen | None = None
        self._identity: Identity = None

    def on_next(self, batch: Batch[Any]) -> None:
        """Write the messages that were not written before."""
        with self._alone:
            self._take(batch)

    def _take(self, batch: Batch[Any]) -> None:
        if self._is_local() and self._identity != identity_of(self._root):
            self._seen = None  # what was stored is what is there now
        if self._seen is None:
            if self._is_local():
                remove_leftovers(Path(self._root))
            self._seen = Seen.in_files(self._window, self._keys())
        fresh = self._seen.fresh(batch)
        days: dict[date | None, list[Row]] = {}
        for row in map(row_of, fresh.values()):
            days.setdefault(_day(row), []).append(row)
        for day, rows in days.items():
            self._write(f"{self._root}/date={day or NOWHEN}", rows)
            self._seen.remember(row.id for row in rows)
        if self._is_local():
            self._identity = identity_of(self._root)

    def close(self) -> None:
        """Do nothing: every file is complete."""

    def __repr__(self) -> str:
        return f"ParquetSubscriber({self._shown!r})"

    def _place(self, path: str | os.PathLike[str], filesystem: Any) -> tuple[Any, str]:
        if filesystem is not None:
            return filesystem, os.fspath(path).rstrip("/")
        if "://" not in os.fspath(path):
            return self._fs.LocalFileSystem(), os.fspath(_directory(Path(path).absolute()))
        try:
            found, root = self._fs.FileSystem.from_uri(path)
        except (OSError, self._arrow.ArrowException) as error:
            raise ConfigurationError(f"path={self._shown!r}: {error}") from None
        if not root.strip("/"):
            raise ConfigurationError(f"path={self._shown!r}: give a bucket, or a directory in one")
        return found, root.rstrip("/")

    def _has_codec(self, name: str) -> bool:
        try:
            return name == "none" or bool(self._arrow.Codec.is_available(name))
        except ValueError:
            return False

    def _write(self, directory: str, rows: list[Row]) -> None:
        sink = self._arrow.BufferOutputStream()
        self._parquet.write_table(
            arrow_table(rows),
            sink,
            row_group_size=self._row_group_size,
            compression=self._compression,
        )
        name = f"{directory}/{_name(rows)}"
        if self._is_local():
            write_whole(Path(name), sink.getvalue())
            return
        # An object of a cloud appears when it is complete; it cannot be renamed.
        with self._filesystem.open_output_stream(name) as file:
            file.write(sink.getvalue())

    def _is_local(self) -> bool:
        return isinstance(self._filesystem, self._fs.LocalFileSystem)

    def _keys(self) -> Iterator[list[str]]:
        """Those in the files of earlier runs, the newest file first."""
        for path in self._newest():
            # As a file of its own: else the directory's name would be taken for a column.
            with self._filesystem.open_input_file(path) as file:
                ids = self._parquet.read_table(file, columns=["id"])["id"]
            yield ids.to_pylist()

    def _newest(self) -> Iterator[str]:
        selector = self._fs.FileSelector(self._root, allow_not_found=True, recursive=True)
        files = [
            file
            for file in self._filesystem.get_file_info(selector)
            if file.is_file and file.extension == "parquet"
        ]
        files.sort(key=lambda file: file.mtime_ns or 0, reverse=True)
        return (file.path for file in files)


def _directory(path: Path) -> Path:
    """The path, if it is that of a directory that can be written to, or can be made."""
    there = next(each for each in (path, *path.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"path={os.fspath(path)!r}: {there} is no directory that can be written to"
        )
    return path


def _name(rows: list[Row]) -> str:
    digest = blake2b("\n".join(row.id for row in rows).encode(), digest_size=8)
    # Who made the id can be anybody: it must not lead out of the directory, nor be too long.
    first = re.sub(r"[^\w-]", "_", rows[0].id, flags=re.ASCII)[:LONGEST]
    return f"{first}-{digest.hexdigest()}.parquet"


def _day(row: Row) -> date | None:
    moment = row.created_at or row.received_at
    return None if moment is None else moment.date()
