"""Compression of line files: plain, gzip, and zstd (extra ``zstd``)."""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from rxtweets._support.optional_imports import needed

__all__ = ["Compressor", "DamagedError", "check_readable", "uncompressed"]

GZIP = 31  # zlib's number for a window of 32 KB in a gzip wrapper
GZIP_LEVEL = 6
ZSTD_LEVEL = 3

READ = 256 * 1024
"""Bytes of one read."""

GZIP_MAGIC = b"\x1f\x8b"  # RFC 1952
ZSTD_MAGIC = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")  # RFC 8878

UTF_16 = re.compile(rb"\xff\xfe[^\0]\0|\xfe\xff\0[^\0]")
"""A byte order mark and an ASCII character, which begins JSON."""

LONGEST_MAGIC = 4


class DamagedError(Exception):
    """The compressed data is damaged or cut off here."""


class Compressor:
    """Compresses the content of one file.

    Args:
        path: of the file; the suffixes ``.gz`` and ``.zst`` select a compression.

    Attributes:
        is_plain: the content is not compressed.

    Raises:
        ConfigurationError: ``zstandard`` is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._stream: Any = None
        if path.suffix == ".gz":
            self._stream = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, GZIP)
            self._flush, self._finish = zlib.Z_SYNC_FLUSH, zlib.Z_FINISH
        elif path.suffix == ".zst":
            library = needed("zstandard", "zstd")
            compressor = library.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True)
            self._stream = compressor.compressobj()
            self._flush = library.COMPRESSOBJ_FLUSH_BLOCK
            self._finish = library.COMPRESSOBJ_FLUSH_FINISH
        self.is_plain = self._stream is None

    def compress(self, data: bytes, *, flush: bool = True) -> bytes:
        """Return compressed data; all data so far can be read back if it is flushed."""
        if self.is_plain:
            return data
        packed: bytes = self._stream.compress(data)
        return packed + self._stream.flush(self._flush) if flush else packed

    def finish(self) -> bytes:
        """Return the bytes that complete the file."""
        return b"" if self.is_plain else self._stream.flush(self._finish)


def check_readable(path: Path) -> None:
    """Check that a file can be opened and its compression be read.

    Raises:
        OSError: the file cannot be opened.
        ConfigurationError: ``zstandard`` is not installed.
    """
    with path.open("rb") as file:
        _decompressor_for(file.read(LONGEST_MAGIC))


def uncompressed(path: Path, *, may_be_cut: bool) -> Iterator[bytes]:
    """Yield the content of a file in pieces, UTF-16 as UTF-8.

    The first bytes of the file, not its name, show how it is compressed. Windows PowerShell writes
    its output as UTF-16.

    Args:
        path: of the file.
        may_be_cut: the last gzip member or zstd frame may lack its end.

    Raises:
        DamagedError: the data is damaged from here.
    """
    return _in_utf8(_decompressed(path, may_be_cut))


Begin = Callable[[], Any]
"""Creates the decompressor of one gzip member or zstd frame."""


def _decompressor_for(start: bytes) -> tuple[Begin, type[Exception]] | None:
    """Return the decompressor for a file's first bytes, and its error; ``None`` for plain files."""
    if start.startswith(GZIP_MAGIC):
        return lambda: zlib.decompressobj(GZIP), zlib.error
    if ZSTD_MAGIC.match(start):
        library = needed("zstandard", "zstd")
        return library.ZstdDecompressor().decompressobj, library.ZstdError
    return None


def _decompressed(path: Path, may_be_cut: bool) -> Iterator[bytes]:
    with path.open("rb") as file:
        block = file.read(READ)
        decompressor = _decompressor_for(block)
        if decompressor is None:
            yield block
            yield from iter(lambda: file.read(READ), b"")
            return
        begin, fault = decompressor
        # A file is a sequence of members or frames.
        member, began, position = begin(), 0, 0
        while block:
            data = block
            while data:
                try:
                    yield member.decompress(data)
                except fault:
                    yield from _up_to_fault(file, began, position, begin(), fault)
                    raise DamagedError from None
                rest = member.unused_data
                position += len(data) - len(rest)
                data = rest
                if member.eof:
                    member, began = begin(), position
            block = file.read(READ)
        if position > began and not may_be_cut:
            raise DamagedError


def _up_to_fault(
    file: BinaryIO, began: int, position: int, member: Any, fault: type[Exception]
) -> Iterator[bytes]:
    """Yield the data before a fault in the block at ``position``, which the failed call lost.

    Args:
        file: read again from the start of the member.
        began: position of the member.
        position: of the block with the fault.
        member: a new decompressor.
        fault: its error.
    """
    if not file.seekable():
        return
    file.seek(began)
    while began < position:
        before = file.read(min(READ, position - began))
        began += len(before)
        member.decompress(before)
    for byte in file.read(READ):
        try:
            yield member.decompress(bytes((byte,)))
        except fault:
            return


def _in_utf8(pieces: Iterator[bytes]) -> Iterator[bytes]:
    start = b""
    for piece in pieces:
        start += piece
        if len(start) >= LONGEST_MAGIC:
            break
    if not UTF_16.match(start):
        yield start
        yield from pieces
        return
    decoder = codecs.getincrementaldecoder("utf-16")("replace")
    yield decoder.decode(start).encode()
    yield from (decoder.decode(piece).encode() for piece in pieces)
    yield decoder.decode(b"", final=True).encode()
