"""Files of lines that survive a crash of their writer: plain, gzip or zstd.

A file is ``NAME.part`` while it is written, and is renamed to ``NAME`` when it is complete. All
lines of a `LineWriter.write` that returned can be read back after the process was killed:
compressed data is flushed with every write. The next writer of the same path cuts a part file that
was left behind after its last whole line, and completes it.

If a part file is removed, renamed or truncated under its writer, the next write begins another one.

If the file exists already, a number is added to the name: ``tweets.jsonl.gz``,
``tweets-2.jsonl.gz``, ``tweets-3.jsonl.gz``. Together they are one recording.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rxtweets._messages.compression import (
    READ,
    Compressor,
    DamagedError,
    check_readable,
    uncompressed,
)
from rxtweets._messages.decoding import Decoded, Undecodable
from rxtweets._messages.jsonl import read_line
from rxtweets._support.file_lock import identity_of, lock, name_path
from rxtweets._support.validation import file_path, path_text
from rxtweets.errors import ConfigurationError, DecodeError

__all__ = [
    "FileLine",
    "LineWriter",
    "check_path",
    "files_of",
    "lines_in",
    "read_file",
    "recording_at",
]

log = logging.getLogger("rxtweets")

PART = ".part"
GONE = "was removed, renamed or truncated while it was written"

LONGEST = 64 * 1024 * 1024
"""Bytes of a line that is read. Lines of X have at most 16 MB; a record holds a text twice."""

SHOWN = 1_000
"""Bytes that are kept of a longer line."""

CUT_OFF = "the file ends within this line"
DAMAGED = "the compressed data is damaged or cut off here"


class FileLine(NamedTuple):
    """A line of a file.

    Attributes:
        number: of the line, from 1.
        content: without the line feed.
        fault: why the line may be incomplete; empty if it is complete.
    """

    number: int
    content: bytes
    fault: str


class LineWriter:
    """Appends lines to a file, and begins the next file at a size or after a time.

    Not thread-safe. No file is opened before the first write.

    Args:
        path: of the file; the suffixes ``.gz`` and ``.zst`` select a compression.
        rotate_size: bytes on the disk that complete a file; ``None`` for no limit.
        rotate_after: seconds that complete a file, checked at a write; ``None`` for no limit.
        sync: call fsync after every write, for outcomes that must survive a loss of power.
        clock: monotonic seconds.

    Raises:
        ConfigurationError: the path cannot work.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rotate_size: int | None = None,
        rotate_after: float | None = None,
        sync: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = check_path(path)
        self._rotate_size = rotate_size
        self._rotate_after = rotate_after
        self._sync = sync
        self._clock = clock
        self._file: Any = None
        self._compressor = Compressor(self.path)
        self._part = self.path
        self._part_text = os.fspath(self.path)
        self._inode = 0
        self._was_gone = False
        self._size = 0
        self._opened = 0.0

    def open(self) -> bool:
        """Begin a part file, if none is open or the open one is complete.

        Part files that were left behind are completed first.

        Returns:
            Whether the open part file was removed, renamed or truncated.

        Raises:
            OSError: the file cannot be written.
            ConfigurationError: another writer has the file.
        """
        if self._file is not None and not self._is_gone():
            since = self._clock() - self._opened
            if self._rotate_after is None or since < self._rotate_after:
                return False
            self.close()
        for file in files_of(self.path):
            if file.suffix == PART:
                _recover(file, self.path)
        next_path = _next_path(self.path)
        self._part = next_path.with_name(next_path.name + PART)
        self._part_text = os.fspath(self._part)
        self._file = _locked(self._part, "xb")
        self._inode = os.fstat(self._file.fileno()).st_ino
        self._compressor = Compressor(self.path)
        self._size = 0
        self._opened = self._clock()
        was_gone, self._was_gone = self._was_gone, False
        return was_gone

    def write(self, lines: bytes) -> None:
        """Append whole lines: all of them, or none if it raises.

        Raises:
            OSError: the lines cannot be written.
            ConfigurationError: another writer has the file.
        """
        self.open()
        self.append(lines)

    def append(self, lines: bytes) -> None:
        """Append whole lines as `write` does, directly after a call of `open`."""
        try:
            data = self._compressor.compress(lines)
            _write_all(self._file, data)
            if self._sync:
                os.fsync(self._file.fileno())
        except BaseException as error:
            # The next write recovers the part file.
            file, self._file = self._file, None
            with contextlib.suppress(OSError), file:
                file.truncate(self._size)
            name_path(error, self._part)
            raise
        self._size += len(data)
        if self._rotate_size is not None and self._size >= self._rotate_size:
            # The lines are written; if the part cannot be completed, the next `open` does it.
            with contextlib.suppress(OSError):
                self.close()

    def close(self) -> None:
        """Complete the open part file.

        Raises:
            OSError: the part cannot be completed, and the next `open` completes it; or it was
                removed or truncated, and lines in it are lost.
        """
        file = self._file
        if file is None:
            return
        ours = os.fstat(file.fileno())
        if self._is_gone():
            if self._size and not (ours.st_nlink and ours.st_size >= self._size):
                raise FileNotFoundError(errno.ENOENT, GONE, self._part_text)
            return
        self._file = None
        with file:
            if not self._size:
                self._part.unlink()
                return
            try:
                _write_all(file, self._compressor.finish())
                os.fsync(file.fileno())
            except OSError as error:
                name_path(error, self._part)
                raise
            self._part.rename(_completed(self._part))

    def _is_gone(self) -> bool:
        """Return whether the open part was removed, renamed or truncated; if so, close it.

        A renamed part is completed under its new name.
        """
        try:
            there = os.stat(self._part_text)  # noqa: PTH116 - before every write; a Path is slower
        except OSError:
            there = None
        if there is not None and there.st_ino == self._inode and there.st_size >= self._size:
            return False
        ours = os.fstat(self._file.fileno())
        is_ours = identity_of(self._part_text) == (ours.st_dev, ours.st_ino)
        if is_ours and ours.st_size >= self._size:
            return False  # some network file systems change the number of a file
        log.warning("%s %s; the next batch begins another file", self._part, GONE)
        self._was_gone = True
        file, self._file = self._file, None
        with contextlib.suppress(OSError), file:
            if ours.st_size >= self._size:
                _write_all(file, self._compressor.finish())
        return True


def check_path(path: str | os.PathLike[str]) -> Path:
    """Return the path, if lines can be written there.

    Raises:
        ConfigurationError: they cannot.
    """
    checked = file_path("path", path)
    if checked.name.endswith(PART):
        raise ConfigurationError(f"path={os.fspath(path)!r}: {PART} is for parts; leave it out")
    Compressor(checked)
    return checked


def files_of(path: Path) -> list[Path]:
    """Return the files of a recording in their order, with its part files."""
    numbered = [(_number(file, path), file) for file in path.parent.glob("*")]
    return [file for number, file in sorted(numbered) if number]


def recording_at(path: str | os.PathLike[str]) -> list[Path]:
    """Return the files of a recording in their order.

    Raises:
        ConfigurationError: there are none, one cannot be read, or ``zstandard`` is not installed.
    """
    text = path_text("path", path)
    files = files_of(Path(text))
    if not files:
        raise ConfigurationError(f"path={text!r}: there is no such recording")
    for file in files:
        if file.exists() and not (file.is_file() or file.is_dir()):
            continue  # a pipe can be read once
        try:
            check_readable(file)
        except OSError as error:
            raise ConfigurationError(f"cannot read {file}: {error.strerror or error}") from None
    return files


def lines_in(path: Path) -> Iterator[FileLine]:
    """Yield the lines of a file or part file, without line feeds and byte order marks.

    The last line has a fault if the file ends within it, or the compressed data is damaged.
    """
    number, fault = 0, ""
    pieces: list[bytes] = []
    size = 0
    try:
        for data in uncompressed(path, may_be_cut=path.name.endswith(PART)):
            *whole, rest = data.split(b"\n")
            if whole:
                whole[0] = b"".join((*pieces, whole[0]))
                pieces, size = [], 0
            for content in whole:
                number += 1
                yield _file_line(number, content)
            if size <= LONGEST:
                pieces.append(rest)
                size += len(rest)
    except DamagedError:
        fault = DAMAGED
    rest = b"".join(pieces).removeprefix(codecs.BOM_UTF8)
    if rest or fault:
        yield _file_line(number + 1, rest, fault or CUT_OFF)


def _file_line(number: int, content: bytes, fault: str = "") -> FileLine:
    if len(content) > LONGEST:
        return FileLine(number, content[:SHOWN], f"longer than {LONGEST:,} bytes")
    return FileLine(number, content.removeprefix(codecs.BOM_UTF8), fault)


def read_file(path: Path) -> Iterator[tuple[FileLine, Decoded]]:
    """Yield the lines of a file of a recording, each decoded; empty lines have no outcome.

    A last line without its line feed counts if it is complete JSON.
    """
    for line in lines_in(path):
        if not (line.fault or line.content.strip()):
            yield line, Decoded()
            continue
        decoded = read_line(line.content)
        is_json = not any(isinstance(other, Undecodable) for other in decoded.others)
        if line.fault and not (is_json and line.fault == CUT_OFF):
            reason = Undecodable(DecodeError(line.fault, line.content))
            decoded.others[:] = [*decoded.others, reason] if is_json else [reason]
        yield line, decoded


# Names.


def _stem_and_suffix(path: Path) -> tuple[str, str]:
    """Split a name at all of its suffix: ``tweets`` and ``.jsonl.gz``."""
    packed = path.suffix if path.suffix in {".gz", ".zst"} else ""
    rest = path.name.removesuffix(packed)
    suffix = Path(rest).suffix
    return rest.removesuffix(suffix), suffix + packed


def _number(candidate: Path, path: Path) -> int:
    """Return the place of a file in a recording, from 1; 0 if it does not belong to it."""
    stem, suffix = _stem_and_suffix(path)
    pattern = rf"{re.escape(stem)}(?:-([2-9]|[1-9]\d+))?{re.escape(suffix)}({re.escape(PART)})?"
    match = re.fullmatch(pattern, candidate.name)
    return int(match[1] or 1) if match else 0


def _next_path(path: Path) -> Path:
    stem, suffix = _stem_and_suffix(path)
    last = max((_number(file, path) for file in files_of(path)), default=0)
    return path if not last else path.with_name(f"{stem}-{last + 1}{suffix}")


def _completed(part: Path) -> Path:
    return part.with_name(part.name.removesuffix(PART))


# Recovery.


def _recover(part: Path, path: Path) -> None:
    """Cut a part file after its last whole line, and complete it."""
    with _locked(part, "r+b") as file:
        if Compressor(path).is_plain:
            size = _size_of_whole_lines(file)
            file.truncate(size)
        else:
            size = _recompress(part, path)
        if size:
            os.fsync(file.fileno())
            part.rename(_completed(part))
        else:
            part.unlink()


def _size_of_whole_lines(file: Any) -> int:
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - READ)
        file.seek(start)
        position = file.read(end - start).rfind(b"\n")
        if position >= 0:
            return int(start + position + 1)
        end = start
    return 0


def _recompress(part: Path, path: Path) -> int:
    """Replace a part by its whole lines, compressed anew; return their number."""
    compressor, count = Compressor(path), 0
    replacement = part.with_name(part.name + ".new")
    with replacement.open("wb") as file:
        for line in lines_in(part):
            if not line.fault:
                count += 1
                file.write(compressor.compress(line.content + b"\n", flush=False))
        file.write(compressor.finish())
        file.flush()
        os.fsync(file.fileno())
    replacement.replace(part)
    return count


def _locked(path: Path, mode: str) -> Any:
    file = path.open(mode, buffering=0)
    if lock(file):
        return file
    file.close()
    raise ConfigurationError(f"another writer has {path}; give each writer its own path")


def _write_all(file: Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
