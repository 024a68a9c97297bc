"""A parser for the body of a chunked HTTP/1.1 response (RFC 9112, 7.1).

X sends one tweet a chunk. A general parser spends more time on a chunk than decoding the tweet
takes; see row 1 of the benchmarks.
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["ChunkError", "Dechunker"]

LONGEST_SIZE_LINE = 102_400
"""Bytes, extensions included; httpx has the same bound."""

SIZE = re.compile(rb"([0-9A-Fa-f]{1,20})(?:;.*)?[ \t]*").fullmatch
"""A size line without its line end, as h11 accepts it."""

USUAL = re.compile(rb"[1-9A-Fa-f][0-9A-Fa-f]{0,3}\r").fullmatch
"""A size line of up to four digits, without its line feed."""

LONGEST_USUAL = 5


class ChunkError(ValueError):
    """The bytes are not a chunked body."""


class Dechunker:
    """Parses the bytes of a chunked body as they arrive.

    Attributes:
        ended: the last, empty chunk has arrived; its trailers are ignored.
        fault: of the data; after it `feed` returns nothing.
        reply: bytes for the server; HTTP/1.1 has none.
    """

    def __init__(self) -> None:
        self._rest = bytearray()  # the start of a size line
        self._missing = 0
        self.ended = False
        self.fault: ChunkError | None = None
        self.reply: bytes | bytearray = b""

    def feed(self, data: bytes) -> bytes:
        """Return the payload in ``data``, up to a fault; payload of an incomplete chunk too."""
        if self._rest:
            start = len(self._rest) - 1
            self._rest += data
            # Search only the new bytes: else a line that arrives byte by byte takes quadratic time.
            if self._rest.find(b"\r\n", start) < 0 and len(self._rest) <= LONGEST_SIZE_LINE:
                return b""
            data = bytes(self._rest)
        parts: list[bytes] = []
        try:
            self._feed(data, parts)
        except ChunkError as error:
            self.fault, self.ended = error, True
        return b"".join(parts)

    def _feed(self, data: bytes, parts: list[bytes]) -> None:
        self._rest = bytearray()
        if self.ended:
            return
        position = 0 if self._missing else self._whole_chunks(data, 0, parts)
        length = len(data)
        while not self.ended and position < length:
            if self._missing:
                position = self._continue(data, position, parts)
                if not self._missing:
                    position = self._whole_chunks(data, position, parts)
                continue
            end = data.find(b"\r\n", position)
            if end < 0:
                break
            size = _size_of(data[position:end])
            position = end + 2
            if size:
                self._missing = size + 2
            else:
                self.ended = True
        self._keep(data, position)

    def _whole_chunks(self, data: bytes, position: int, parts: list[bytes]) -> int:
        """Take complete chunks with a usual size line; return the position of the rest.

        The fast path for nearly all chunks: it looks sizes up and leaves other input to `_feed`.
        """
        find, size_of, add = data.find, _usual_size, parts.append
        while (end := find(b"\n", position, position + LONGEST_USUAL + 1)) >= 0:
            size = size_of(data[position:end])
            start = end + 1
            stop = start + size
            if not size or data[stop : stop + 2] != b"\r\n":
                return position
            add(data[start:stop])
            position = stop + 2
        return position

    def _continue(self, data: bytes, position: int, parts: list[bytes]) -> int:
        # The missing bytes include the line end of the chunk.
        payload = data[position : position + max(0, self._missing - 2)]
        parts.append(payload)
        position += len(payload)
        self._missing -= len(payload)
        if self._missing <= 2:
            end = data[position : position + self._missing]
            _expect(b"\r\n"[2 - self._missing :][: len(end)], end)
            self._missing -= len(end)
            position += len(end)
        return position

    def _keep(self, data: bytes, position: int) -> None:
        if self.ended:
            return
        self._rest = bytearray(data[position:])
        if len(self._rest) > LONGEST_SIZE_LINE:
            start = bytes(self._rest[:40])
            raise ChunkError(
                f"the body cannot be read: {start!r}… starts a size line of more than "
                f"{LONGEST_SIZE_LINE} bytes"
            )


@lru_cache(4096)
def _usual_size(line: bytes) -> int:
    return int(line, 16) if USUAL(line) else 0


def _size_of(line: bytes) -> int:
    found = SIZE(line)
    if found is None:
        raise ChunkError(f"the body cannot be read: {line[:40]!r} is not the size of a chunk")
    return int(found[1], 16)


def _expect(line_end: bytes, found: bytes) -> None:
    if found != line_end:
        raise ChunkError(f"the body cannot be read: {found!r} follows a chunk, not a line end")
