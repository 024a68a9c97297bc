"""Decompression of bodies as they arrive, in pieces of bounded size."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress

__all__ = ["BodyError", "Inflater", "at_most", "decoded"]

WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib's ``wbits`` for a window of 32 KB, with a gzip or zlib wrapper (RFC 9110, 8.4.1)."""

PIECE = 2**20
"""Bytes of a decompressed piece at most: a read of 64 KB can expand a thousand times."""

GZIP_START = b"\x1f"
"""Neither JSON nor text starts with this byte."""


class BodyError(ValueError):
    """The body is not in the encoding that its header names, or in an unsupported one."""


class Inflater:
    """Decompresses a stream of one or more members.

    Args:
        window: zlib's ``wbits``.

    Attributes:
        fault: of the data; after it `feed` returns nothing.
    """

    def __init__(self, window: int = WINDOWS["gzip"]) -> None:
        self._window = window
        self._member = zlib.decompressobj(window)
        self.fault: zlib.error | None = None

    def feed(self, data: bytes) -> bytes:
        """Decompress all of the data, up to a fault."""
        return b"".join(self.pieces(data))

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Decompress the data in pieces of 1 MB at most, none empty."""
        is_more = bool(data)
        while is_more and self.fault is None:
            before = self._member.copy()  # zlib discards its output on an error
            try:
                piece = self._member.decompress(data, PIECE)
            except zlib.error as error:
                self.fault = error
                piece = _up_to_fault(before, data)
            data = self._member.unused_data or self._member.unconsumed_tail
            is_more = bool(data) or len(piece) == PIECE
            if self._member.eof:
                is_more = bool(data)
                self._member = zlib.decompressobj(self._window)
            if piece:
                yield piece


def _up_to_fault(member: zlib._Decompress, data: bytes) -> bytes:
    parts: list[bytes] = []
    with suppress(zlib.error):
        for at in range(len(data)):
            parts.append(member.decompress(data[at : at + 1]))  # noqa: PERF401 - kept on an error
    return b"".join(parts)


def decoded(raw: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Return the blocks of a body without its content encoding; none empty.

    Args:
        raw: blocks as they were sent.
        encoding: value of ``Content-Encoding``; empty without the header.

    Raises:
        BodyError: the encoding is unsupported; while iterating, if the body is in another one.
        zlib.error: while iterating: the rest of the body is damaged.
    """
    names = (name.strip().lower() for name in encoding.split(","))
    named = [name for name in names if name not in {"", "identity"}]
    if not named:
        return _plain(raw)
    if len(named) > 1 or named[0] not in WINDOWS:
        raise BodyError(
            f"content-encoding {encoding[:80]!r} cannot be read; only gzip was asked for. "
            "Is there a proxy between?"
        )
    return _inflated(raw, named[0])


def _plain(raw: Iterable[bytes]) -> Iterator[bytes]:
    blocks = filter(None, raw)
    for first in blocks:
        if first.startswith(GZIP_START):
            raise BodyError(
                "the body begins as gzip does, without a content-encoding. "
                "Is there a proxy between?"
            )
        yield first
        break
    yield from blocks


def _inflated(raw: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    inflater = Inflater(WINDOWS[encoding])
    is_empty = True
    for data in raw:
        for piece in inflater.pieces(data):
            is_empty = False
            yield piece
        fault = inflater.fault
        if fault is not None and is_empty and "incorrect header" in str(fault):
            raise BodyError(
                f"content-encoding says {encoding}, but the body begins {data[:40]!r}. "
                "Is there a proxy between?"
            )
        if fault is not None:
            raise zlib.error(f"the body cannot be read: {fault}")


def at_most(blocks: Iterable[bytes], most: int) -> Iterator[bytes]:
    """Return the first ``most`` bytes of the blocks."""
    for block in blocks:
        yield block[:most]
        most -= len(block)
        if most <= 0:
            return
