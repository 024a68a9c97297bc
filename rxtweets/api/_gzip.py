"""The content encodings of a body, undone as it comes, in pieces whose size is bounded."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress

__all__ = ["BodyError", "Inflater", "at_most", "decoded"]

WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib's numbers for a window of 32 KB in gzip's wrapping, and in its own (RFC 9110, 8.4.1)."""

PIECE = 2**20
"""Bytes that are inflated at once at most: a read of 64 KB can hold a thousand times as many."""

GZIP_BEGINS = b"\x1f"
"""As no JSON does, and no text."""


class BodyError(ValueError):
    """The body is not in the encoding that its header names, or not in one that is read here."""


class Inflater:
    """Takes the bytes of a compressed stream, which may be several members one after the other.

    Args:
        window: zlib's number of the wrapping.

    Attributes:
        fault: what follows is not compressed so; nothing more is given.
    """

    def __init__(self, window: int = WINDOWS["gzip"]) -> None:
        self._window = window
        self._member = zlib.decompressobj(window)
        self.fault: zlib.error | None = None

    def feed(self, data: bytes) -> bytes:
        """All that can be decompressed by now, up to a fault."""
        return b"".join(self.pieces(data))

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The same, in pieces of 1 MB at most, none empty."""
        is_more = bool(data)
        while is_more and self.fault is None:
            before = self._member.copy()  # a microsecond; zlib drops what it has with an error
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
    """The blocks of a body without its content encoding; none empty.

    Args:
        raw: as they were sent.
        encoding: the value of the header, empty if there is none.

    Raises:
        BodyError: it cannot be read; from iterating, if the body is not what the header says.
        zlib.error: from iterating: after what was given, the stream is damaged.
    """
    encodings = [each.strip().lower() for each in encoding.split(",")]
    named = [each for each in encodings if each not in {"", "identity"}]
    if not named:
        return _plain(raw)
    if len(named) > 1 or named[0] not in WINDOWS:
        raise BodyError(
            f"content-encoding {encoding[:80]!r} cannot be read; gzip can, and no other was asked "
            "for. Is there a proxy between?"
        )
    return _inflated(raw, named[0])


def _plain(raw: Iterable[bytes]) -> Iterator[bytes]:
    blocks = iter(raw)
    for first in blocks:
        if first.startswith(GZIP_BEGINS):
            raise BodyError(
                "the body begins as gzip does, and no content-encoding says so. "
                "Is there a proxy between?"
            )
        if first:
            yield first
            break
    yield from blocks


def _inflated(raw: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    inflater = Inflater(WINDOWS[encoding])
    is_fresh = True
    for data in raw:
        for piece in inflater.pieces(data):
            is_fresh = False
            yield piece
        fault = inflater.fault
        if fault is not None and is_fresh and "incorrect header" in str(fault):
            raise BodyError(
                f"content-encoding says {encoding}, but the body begins {data[:40]!r}. "
                "Is there a proxy between?"
            )
        if fault is not None:
            raise zlib.error(f"the body cannot be read: {fault}")


def at_most(blocks: Iterable[bytes], most: int) -> Iterator[bytes]:
    """The blocks as long as they hold no more bytes than ``most``, and the rest of that."""
    for block in blocks:
        yield block[:most]
        most -= len(block)
        if most <= 0:
            return
