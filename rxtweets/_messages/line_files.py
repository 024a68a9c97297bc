"""Files of lines that grow safely: plain, gzip or zstd, in parts that are complete or not there.

What is being written is ``NAME.part``; it is renamed to ``NAME`` when it is complete. Whatever
`LineWriter.write` has returned from can be read back, also after the process was killed: compressed
data is flushed with every write, and a part file that was left behind is cut after its last whole
line and completed, as soon as somebody writes to the same path again.

A part file that is removed, renamed or truncated under its writer is noticed with the next write,
which begins another one.

Where there is a file of that name already, and for every further one, a number is added:
``tweets.jsonl.gz``, ``tweets-2.jsonl.gz``, ``tweets-3.jsonl.gz``. Together they are one recording.

Files of others are read too: the first bytes of a file, not its name, say how it is compressed, and
whether it is UTF-16.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import logging
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from rxtweets._messages.decoding import Decoded, Undecodable
from rxtweets._messages.jsonl import read_line
from rxtweets._support.file_lock import identity_of, lock, name_path
from rxtweets._support.optional_imports import needed
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

GZIP = 31  # zlib's number for a window of 32 KB in gzip's wrapping
GZIP_LEVEL = 6
ZSTD_LEVEL = 3
READ = 256 * 1024
PART = ".part"
GONE = "was removed, renamed or truncated while it was written"

LONGEST = 64 * 1024 * 1024
"""Bytes of a line that is read. Those of X have 16 MB at most; a record holds a text twice."""

SHOWN = 1_000
"""Bytes that are kept of a line that is longer."""

CUT_OFF = "the file ends within this line"
DAMAGED = "the compressed data is damaged or cut off here"


class FileLine(NamedTuple):
    """A line of a file.

    Attributes:
        number: of the line, from 1.
        content: without the line feed.
        fault: why the line may not be whole; empty if it is.
    """

    number: int
    content: bytes
    fault: str


class LineWriter:
    """Appends lines to a file, and goes on to the next one at a size or after a time.

    Not for several threads at once. Nothing is opened before the first write.

    Args:
        path: of the file; ends in ``.gz`` or ``.zst`` to be compressed.
        rotate_size: bytes on the disk after which a file is complete; ``None`` for no such limit.
        rotate_after: seconds after which a file is complete, looked at when there is something to
            write; ``None`` for no such limit.
        sync: have the disk confirm every write: for outcomes that must survive a loss of power.
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
        self._packer: Packer = _packer_for(self.path)
        self._part = self.path
        self._shown = os.fspath(self.path)
        self._inode = 0
        self._was_gone = False
        self._size = 0
        self._opened = 0.0

    def open(self) -> bool:
        """Complete what was left behind, and begin a part, if none is open or the open one is due.

        Returns:
            Whether a part is gone that was open before.

        Raises:
            OSError: it cannot be written.
            ConfigurationError: somebody else is writing there.
        """
        if self._file is not None and not self._is_gone():
            if not self._is_due():
                return False
            self.close()
        for part in _parts_of(self.path):
            _recover(part, self.path)
        self._part = _with_suffix(_next_name(self.path))
        self._shown = os.fspath(self._part)
        self._file = _locked(self._part, "xb")
        self._inode = os.fstat(self._file.fileno()).st_ino
        self._packer = _packer_for(self.path)
        self._size = 0
        self._opened = self._clock()
        was_gone, self._was_gone = self._was_gone, False
        return was_gone

    def write(self, lines: bytes) -> None:
        """Append whole lines: all of them, or none if it raises.

        Raises:
            OSError: they cannot be written.
            ConfigurationError: somebody else is writing there.
        """
        self.open()
        self.append(lines)

    def append(self, lines: bytes) -> None:
        """Append whole lines to the part that `open` has just looked after; else as `write`."""
        try:
            packed = self._packer.pack(lines)
            _write_all(self._file, packed)
            if self._sync:
                os.fsync(self._file.fileno())
        except BaseException as error:
            self._give_up()
            name_path(error, self._part)
            raise
        self._size += len(packed)
        if self._rotate_size is not None and self._size >= self._rotate_size:
            # The lines are written, whatever becomes of the part: the next `open` completes it.
            with contextlib.suppress(OSError):
                self.close()

    def close(self) -> None:
        """Complete the part, if there is one.

        Raises:
            OSError: it cannot be completed; it stays a part, and is completed by the next `open`.
                Or it was removed or truncated, and lines in it are lost.
        """
        file = self._file
        if file is None:
            return
        ours = os.fstat(file.fileno())
        if self._is_gone():
            if self._size and not (ours.st_nlink and ours.st_size >= self._size):
                raise FileNotFoundError(errno.ENOENT, GONE, os.fspath(self._part))
            return
        self._file = None
        with file:
            if not self._size:
                self._part.unlink()
                return
            try:
                _write_all(file, self._packer.finish())
                os.fsync(file.fileno())
            except OSError as error:
                name_path(error, self._part)
                raise
            self._part.rename(_without_suffix(self._part))

    def _is_gone(self) -> bool:
        """Return whether the open part was removed, renamed or truncated; close it if so.

        A part that was renamed is complete then.
        """
        try:
            there = os.stat(self._shown)  # noqa: PTH116 - before every write; a Path takes longer
        except OSError:
            there = None
        if there is not None and there.st_ino == self._inode and there.st_size >= self._size:
            return False
        ours = os.fstat(self._file.fileno())
        if identity_of(self._shown) == (ours.st_dev, ours.st_ino) and ours.st_size >= self._size:
            return False  # some network file systems give a file another number
        log.warning("%s %s; the next batch begins another file", self._part, GONE)
        self._was_gone = True
        file, self._file = self._file, None
        with contextlib.suppress(OSError), file:
            if ours.st_size >= self._size:
                _write_all(file, self._packer.finish())
        return True

    def _is_due(self) -> bool:
        since = self._clock() - self._opened
        return self._rotate_after is not None and since >= self._rotate_after

    def _give_up(self) -> None:
        """After a failed write: take back what may be there of it. The next write recovers."""
        file, self._file = self._file, None
        with contextlib.suppress(OSError), file:
            file.truncate(self._size)


def check_path(path: str | os.PathLike[str]) -> Path:
    """The path, if lines can be written there.

    Raises:
        ConfigurationError: they cannot.
    """
    checked = file_path("path", path)
    if checked.name.endswith(PART):
        raise ConfigurationError(f"path={os.fspath(path)!r}: {PART} is for parts; leave it out")
    _packer_for(checked)
    return checked


def files_of(path: Path) -> list[Path]:
    """The files of a recording in their order, its part files included."""
    found = [(number, each) for each in path.parent.glob("*") if (number := _number(each, path))]
    return [each for _, each in sorted(found)]


def recording_at(path: str | os.PathLike[str]) -> list[Path]:
    """The files of a recording in their order.

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
            with file.open("rb") as opened:
                _compression(opened.read(len(codecs.BOM_UTF32)))
        except OSError as error:
            raise ConfigurationError(f"cannot read {file}: {error.strerror or error}") from None
    return files


def lines_in(path: Path) -> Iterator[FileLine]:
    """The lines of a file, those of a part file too, without line feeds and byte order marks.

    Where the file ends within a line, or its compressed data is cut off or damaged, the last line
    says so.
    """
    number, fault = 0, ""
    pieces: list[bytes] = []
    size = 0
    try:
        for data in _in_utf8(_unpacked(path)):
            *whole, rest = data.split(b"\n")
            if whole:
                whole[0] = b"".join((*pieces, whole[0]))
                pieces, size = [], 0
            for content in whole:
                number += 1
                yield _line(number, content)
            if size <= LONGEST:
                pieces.append(rest)
                size += len(rest)
    except _DamagedError:
        fault = DAMAGED
    rest = b"".join(pieces).removeprefix(codecs.BOM_UTF8)
    if rest or fault:
        yield _line(number + 1, rest, fault or CUT_OFF)


def _line(number: int, content: bytes, fault: str = "") -> FileLine:
    if len(content) > LONGEST:
        return FileLine(number, content[:SHOWN], f"longer than {LONGEST:,} bytes")
    return FileLine(number, content.removeprefix(codecs.BOM_UTF8), fault)


def read_file(path: Path) -> Iterator[tuple[FileLine, Decoded]]:
    """The lines of a file of a recording, each with what it holds; empty lines hold nothing.

    A last line without its line feed counts if it is whole.
    """
    for line in lines_in(path):
        if not (line.fault or line.content.strip()):
            yield line, Decoded([], [], [])
            continue
        decoded = read_line(line.content)
        is_whole = not any(isinstance(other, Undecodable) for other in decoded.others)
        if line.fault and not (is_whole and line.fault == CUT_OFF):
            reason = Undecodable(DecodeError(line.fault, line.content))
            decoded.others[:] = [*decoded.others, reason] if is_whole else [reason]
        yield line, decoded


class _DamagedError(Exception):
    """The compressed data cannot be read on."""


# Names.


def _split(path: Path) -> tuple[str, str]:
    """The stem, and all of the suffix: ``tweets`` and ``.jsonl.gz``."""
    packed = path.suffix if path.suffix in {".gz", ".zst"} else ""
    rest = path.name.removesuffix(packed)
    suffix = Path(rest).suffix
    return rest.removesuffix(suffix), suffix + packed


def _number(candidate: Path, path: Path) -> int:
    """The place of a file in a recording, from 1; 0 if it does not belong to it."""
    stem, suffix = _split(path)
    pattern = rf"{re.escape(stem)}(?:-([2-9]|[1-9]\d+))?{re.escape(suffix)}({re.escape(PART)})?"
    match = re.fullmatch(pattern, candidate.name)
    return int(match[1] or 1) if match else 0


def _next_name(path: Path) -> Path:
    stem, suffix = _split(path)
    last = max((_number(each, path) for each in files_of(path)), default=0)
    return path if not last else path.with_name(f"{stem}-{last + 1}{suffix}")


def _parts_of(path: Path) -> list[Path]:
    return [each for each in files_of(path) if each.suffix == PART]


def _with_suffix(path: Path) -> Path:
    return path.with_name(path.name + PART)


def _without_suffix(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(PART))


# Recovery.


def _recover(part: Path, path: Path) -> None:
    """Complete a part file that was left behind: its whole lines stay, the rest goes."""
    with _locked(part, "r+b") as file:
        if _packer_for(path).is_plain:
            size = _whole(file)
            file.truncate(size)
        else:
            size = _repack(part, path)
        if size:
            os.fsync(file.fileno())
            part.rename(_without_suffix(part))
        else:
            part.unlink()


def _whole(file: Any) -> int:
    """The size up to the last line end."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - READ)
        file.seek(start)
        at = file.read(end - start).rfind(b"\n")
        if at >= 0:
            return int(start + at + 1)
        end = start
    return 0


def _repack(part: Path, path: Path) -> int:
    """Write the whole lines of the part anew, in its place."""
    packer, size = _packer_for(path), 0
    beside = part.with_name(part.name + ".new")
    with beside.open("wb") as file:
        for line in lines_in(part):
            if line.fault:
                continue
            size += 1
            file.write(packer.pack(line.content + b"\n", flush=False))
        file.write(packer.finish())
        file.flush()
        os.fsync(file.fileno())
    beside.replace(part)
    return size


def _locked(path: Path, mode: str) -> Any:
    """The file, for us alone as long as it is open."""
    file = path.open(mode, buffering=0)
    if lock(file):
        return file
    file.close()
    raise ConfigurationError(
        f"{path} is being written by somebody else; give each writer a path of its own"
    )


def _write_all(file: Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


# Compression.


class Packer(Protocol):
    """Compresses what one file gets."""

    is_plain: bool

    def pack(self, data: bytes, *, flush: bool = True) -> bytes:
        """The data compressed, all of it if it is to be flushed."""

    def finish(self) -> bytes:
        """What completes the file."""


class _Plain:
    is_plain = True

    def pack(self, data: bytes, *, flush: bool = True) -> bytes:  # noqa: ARG002 - nothing is held
        return data

    def finish(self) -> bytes:
        return b""


class _Gzip:
    is_plain = False

    def __init__(self) -> None:
        self._member = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, GZIP)

    def pack(self, data: bytes, *, flush: bool = True) -> bytes:
        packed = self._member.compress(data)
        return packed + self._member.flush(zlib.Z_SYNC_FLUSH) if flush else packed

    def finish(self) -> bytes:
        return self._member.flush()


class _Zstd:
    is_plain = False

    def __init__(self) -> None:
        self._library = needed("zstandard", "zstd")
        compressor = self._library.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True)
        self._frame = compressor.compressobj()

    def pack(self, data: bytes, *, flush: bool = True) -> bytes:
        packed: bytes = self._frame.compress(data)
        if flush:
            packed += self._frame.flush(self._library.COMPRESSOBJ_FLUSH_BLOCK)
        return packed

    def finish(self) -> bytes:
        last: bytes = self._frame.flush(self._library.COMPRESSOBJ_FLUSH_FINISH)
        return last


def _packer_for(path: Path) -> Packer:
    kinds: dict[str, Callable[[], Packer]] = {".gz": _Gzip, ".zst": _Zstd}
    return kinds.get(path.suffix, _Plain)()


Begin = Callable[[], Any]
"""Makes a decompressor of one gzip member or zstd frame."""


def _compression(start: bytes) -> tuple[Begin, type[Exception]] | None:
    """Return the decompressor for the first bytes and its exception; ``None`` for a plain file.

    Raises:
        ConfigurationError: ``zstandard`` is not installed.
    """
    if start.startswith(b"\x1f\x8b"):  # RFC 1952
        return lambda: zlib.decompressobj(GZIP), zlib.error
    if start.startswith(b"\x28\xb5\x2f\xfd") or SKIPPABLE.match(start):  # RFC 8878
        library = needed("zstandard", "zstd")
        return library.ZstdDecompressor().decompressobj, library.ZstdError
    return None


SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")


def _unpacked(path: Path) -> Iterator[bytes]:
    """The content in pieces, as far as it can be had.

    Raises:
        _DamagedError: it cannot be had any further.
    """
    with path.open("rb") as file:
        start = file.read(READ)
        compression = _compression(start)
        if compression is not None:
            yield from _inflated(file, start, *compression, may_end=path.name.endswith(PART))
            return
        yield start
        yield from iter(lambda: file.read(READ), b"")


def _inflated(
    file: BinaryIO, block: bytes, begin: Begin, fault: type[Exception], *, may_end: bool
) -> Iterator[bytes]:
    """The content of members or frames one after the other, up to a fault.

    Args:
        file: read up to the end of the block.
        block: the first one.
        begin: makes decompressors.
        fault: what they raise.
        may_end: whether the last member may be without its end.
    """
    member, began, at = begin(), 0, 0
    while block:
        data = block
        while data:
            try:
                yield member.decompress(data)
            except fault:
                yield from _up_to_fault(file, began, at, begin(), fault)
                raise _DamagedError from None
            rest = member.unused_data
            at += len(data) - len(rest)
            data = rest
            if member.eof:
                member, began = begin(), at
        block = file.read(READ)
    if at > began and not may_end:
        raise _DamagedError


def _up_to_fault(
    file: BinaryIO, began: int, at: int, member: Any, fault: type[Exception]
) -> Iterator[bytes]:
    """What comes before the fault in the block at ``at``: with the fault, its call gave nothing."""
    if not file.seekable():
        return
    file.seek(began)
    while began < at:
        before = file.read(min(READ, at - began))
        began += len(before)
        member.decompress(before)
    for byte in file.read(READ):
        try:
            yield member.decompress(bytes((byte,)))
        except fault:
            return


UTF_16 = re.compile(rb"\xff\xfe[^\0]\0|\xfe\xff\0[^\0]")
"""A byte order mark, and a character of ASCII, as JSON begins with."""


def _in_utf8(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces; where they are UTF-16, as Windows PowerShell writes its output, in UTF-8."""
    start = b""
    for piece in pieces:
        start += piece
        if len(start) >= len(codecs.BOM_UTF32):
            break
    if UTF_16.match(start):
        decoder = codecs.getincrementaldecoder("utf-16")("replace")
        yield decoder.decode(start).encode()
        yield from (decoder.decode(piece).encode() for piece in pieces)
        yield decoder.decode(b"", final=True).encode()
        return
    yield start
    yield from pieces
