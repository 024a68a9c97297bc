"""Parquet: a file for each batch and day, on a disk, in S3 or in Google Cloud Storage."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from datetime import date
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from rxtweets._messages.message import Message
from rxtweets._messages.rows import Row, row_of
from rxtweets._messages.tables import arrow_table
from rxtweets._support.file_lock import Identity, identity_of, lock, name_path
from rxtweets._support.optional_imports import needed
from rxtweets._support.validation import path_text, whole_number
from rxtweets.errors import ConfigurationError
from rxtweets.subscribers._store import REMEMBERED_MESSAGES, FileStore

NO_DATE = "__HIVE_DEFAULT_PARTITION__"
"""Hive's name for the partition of rows without a date."""

MAX_ID = 64
"""Characters of an id in a file's name; X's ids have 19, and digests 32."""

UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}\.part")


class ParquetSubscriber(FileStore):
    """Writes every batch as one Parquet file for each day in it.

    ::

        PATH/date=2026-11-24/212…-5f0c….parquet

    The day is that of ``created_at``, in UTC, else of ``received_at``; the columns are those of
    `rxtweets.subscribers.Row`. **One batch is one file**, and small batches make many small
    files. Make batches large: ``Batcher(ParquetSubscriber(…), size=20_000, timeout=60)``. Their
    messages are in memory until then, and are acknowledged only after the write.

    A file appears complete or not at all. On a disk, a file that is being written is hidden and
    is no ``*.parquet``: readers of a directory skip it; polars does so only if it is given
    ``PATH/**/*.parquet``. The first batch removes unfinished files of killed processes. In a
    cloud, an object appears when it is complete.

    The name of a file is derived from its messages. A message is left out if its key is among the
    last ``window`` keys; a message that is redelivered later is written again. The keys of earlier
    runs are read from the newest files, again if the directory was removed or replaced.

    ``s3://`` and ``gs://`` are tested against local servers (moto, gcp-storage-emulator), not
    against the clouds.

    Args:
        path: a directory, or a URI: ``s3://bucket/path?region=…``,
            ``gs://bucket/path?retry_limit_seconds=60``.
        filesystem: a ``pyarrow.fs.FileSystem`` that ``path`` belongs to; by default that of the
            URI, with the credentials that its library finds in the environment.
        row_group_size: rows of a row group at most, 1 or more; 50,000 by default.
        compression: of the columns, as in ``pyarrow.parquet.write_table``; ``zstd`` by default.
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
        window: int = REMEMBERED_MESSAGES,
    ) -> None:
        super().__init__(window)
        self._parquet = needed("pyarrow.parquet", "parquet")
        self._arrow = needed("pyarrow", "parquet")
        self._fs = needed("pyarrow.fs", "parquet")
        self._path = path_text("path", path)
        self._filesystem, self._root = self._place(filesystem)
        self._is_local = isinstance(self._filesystem, self._fs.LocalFileSystem)
        self._row_group_size = whole_number("row_group_size", row_group_size)
        self._compression = compression
        if not self._has_codec(compression):
            raise ConfigurationError(f"compression={compression!r}: pyarrow does not have it")
        self._identity: Identity = None

    def close(self) -> None:
        """Do nothing; every file is complete."""

    def __repr__(self) -> str:
        return f"ParquetSubscriber({self._path!r})"

    def _place(self, filesystem: Any) -> tuple[Any, str]:
        if filesystem is not None:
            return filesystem, self._path.rstrip("/")
        if "://" not in self._path:
            directory = _writable_directory(Path(self._path).absolute())
            return self._fs.LocalFileSystem(), os.fspath(directory)
        try:
            found, root = self._fs.FileSystem.from_uri(self._path)
        except (OSError, self._arrow.ArrowException) as error:
            raise ConfigurationError(f"path={self._path!r}: {error}") from None
        if not root.strip("/"):
            raise ConfigurationError(f"path={self._path!r}: give a bucket, or a directory in one")
        return found, root.rstrip("/")

    def _has_codec(self, name: str) -> bool:
        try:
            return name == "none" or bool(self._arrow.Codec.is_available(name))
        except ValueError:
            return False

    def _is_replaced(self) -> bool:
        return self._is_local and self._identity != identity_of(self._root)

    def _keys_in_files(self) -> Iterator[list[str]]:
        if self._is_local:
            remove_unfinished(Path(self._root))
            self._identity = identity_of(self._root)
        selector = self._fs.FileSelector(self._root, allow_not_found=True, recursive=True)
        files = [
            file
            for file in self._filesystem.get_file_info(selector)
            if file.is_file and file.extension == "parquet"
        ]
        for found in sorted(files, key=lambda file: file.mtime_ns or 0, reverse=True):
            # Opened here, as pyarrow would read a column from the directory's name.
            with self._filesystem.open_input_file(found.path) as file:
                ids = self._parquet.read_table(file, columns=["id"])["id"]
            yield ids.to_pylist()

    def _write(self, messages: dict[str, Message[Any]]) -> None:
        days: dict[date | None, list[Row]] = {}
        for row in map(row_of, messages.values()):
            moment = row.created_at or row.received_at
            days.setdefault(moment.date() if moment else None, []).append(row)
        for day, rows in days.items():
            self._write_file(f"{self._root}/date={day or NO_DATE}/{_file_name(rows)}", rows)
            self._remember(row.id for row in rows)
        if self._is_local:
            self._identity = identity_of(self._root)

    def _write_file(self, path: str, rows: list[Row]) -> None:
        sink = self._arrow.BufferOutputStream()
        self._parquet.write_table(
            arrow_table(rows),
            sink,
            row_group_size=self._row_group_size,
            compression=self._compression,
        )
        if self._is_local:
            write_whole(Path(path), sink.getvalue())
            return
        # A cloud shows an object when it is complete, and cannot rename it.
        with self._filesystem.open_output_stream(path) as file:
            file.write(sink.getvalue())


def _writable_directory(path: Path) -> Path:
    nearest = next(parent for parent in (path, *path.parents) if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"path={os.fspath(path)!r}: {nearest} is no directory that can be written to"
        )
    return path


def _file_name(rows: list[Row]) -> str:
    digest = blake2b("\n".join(row.id for row in rows).encode(), digest_size=8)
    # An id can be any text: in a file's name it must be short and without a path.
    first = re.sub(r"[^\w-]", "_", rows[0].id, flags=re.ASCII)[:MAX_ID]
    return f"{first}-{digest.hexdigest()}.parquet"


def write_whole(path: Path, content: Any) -> None:
    """Write or replace a file, which appears when the disk has confirmed all its content.

    Until then it is ``.NAME.UNIQUE.part``, which most readers skip. Two writers of the same file
    write two parts.

    Args:
        path: the file; its directory is made.
        content: any object with a buffer.

    Raises:
        OSError: it cannot be written; no part of it is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part, file = _locked_part(path)
    with file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)  # before the lock ends: an unlocked part may be removed
        except OSError as error:
            name_path(error, path)
            raise
        finally:
            part.unlink(missing_ok=True)


def _locked_part(path: Path) -> tuple[Path, BinaryIO]:
    while True:
        part = path.with_name(f".{path.name}.{uuid4().hex}.part")
        file = part.open("xb")
        with contextlib.suppress(OSError):  # a file system without locks keeps all parts
            lock(file, wait=True)
        if os.fstat(file.fileno()).st_nlink:
            return part, file
        file.close()  # another process removed it before it was locked


def remove_unfinished(directory: Path) -> None:
    """Remove the parts below a directory that no live process has locked."""
    for part in directory.rglob(".*.part"):
        if UNFINISHED.fullmatch(part.name):
            with contextlib.suppress(OSError), part.open("r+b") as file:
                if lock(file):
                    part.unlink()
