r"""The body of a chunked HTTP/1.1 response, out of the bytes of the connection.

X sends one tweet a chunk, and a general HTTP parser spends ten microseconds on each chunk,
twice what decoding the tweet costs. This one does nothing but find the chunks (RFC 9112, 7.1).
"""

from __future__ import annotations

import re

__all__ = ["ChunkError", "Dechunker"]

LONGEST_SIZE_LINE = 102_400
"""Bytes, extensions included; so many does httpx wait for."""

SIZE = re.compile(rb"([0-9A-Fa-f]{1,20})(?:;.*)?[ \t]*").fullmatch
"""The line of a size, without its line end; h11 takes no other."""

USUAL = re.compile(rb"[1-9A-Fa-f][0-9A-Fa-f]{0,3}\r").fullmatch
"""The line of a size, without its line feed, that has nothing but up to four digits."""

REMEMBERED = 4096
"""Sizes that are looked up instead of read."""


class ChunkError(ValueError):
    """The bytes are no chunked body."""


class Dechunker:
    """Takes the bytes of a chunked body as they come, gives what the chunks hold.

    Attributes:
        ended: the last chunk, which is empty, has come; trailers after it are not looked at.
        fault: what follows is no chunked body; nothing more is given.
    """

    def __init__(self) -> None:
        self._rest = bytearray()  # of a size line
        self._missing = 0
        self._sizes: dict[bytes, int] = {}  # by their lines
        self.ended = False
        self.fault: ChunkError | None = None

    def feed(self, data: bytes) -> bytes:
        """What the chunks in ``data`` hold, up to a fault; parts of chunks are not waited for."""
        if self._rest:
            start = len(self._rest) - 1
            self._rest += data
            # A line that comes byte by byte is not looked through with each of them.
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
            start = end + 2
            stop = start + size
            if not size:
                self.ended = True
            elif stop + 2 <= length:
                parts.append(data[start:stop])
                _expect(b"\r\n", data[stop : stop + 2])
                position = self._whole_chunks(data, stop + 2, parts)
            else:
                self._missing = size + 2
                position = start
        self._keep(data, position)

    def _whole_chunks(self, data: bytes, position: int, parts: list[bytes]) -> int:
        """Take chunks of the usual form as long as there are any; where the rest begins.

        All chunks but one in fifty, so it looks each size up instead of reading it, and checks no
        more than it has to: whatever else it comes upon is left to those that do.
        """
        find, size_of, add = data.find, self._sizes.get, parts.append
        while (end := find(b"\n", position)) >= 0:
            size = size_of(data[position:end])
            if size is None:
                if not self._is_learnt(data[position:end]):
                    return position
                continue
            start = end + 1
            stop = start + size
            if data[stop : stop + 2] != b"\r\n":
                return position
            add(data[start:stop])
            position = stop + 2
        return position

    def _is_learnt(self, line: bytes) -> bool:
        """Remember a size of up to four digits, as those of tweets are."""
        if not USUAL(line):
            return False
        if len(self._sizes) >= REMEMBERED:
            self._sizes.clear()
        self._sizes[line] = int(line, 16)
        return True

    def _continue(self, data: bytes, position: int, parts: list[bytes]) -> int:
        """Take more of a chunk that was not whole; what is missing counts its line end."""
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
            raise ChunkError(
                f"the size line of a chunk has more than {LONGEST_SIZE_LINE} bytes: "
                f"{bytes(self._rest[:40])!r}…"
            )


def _size_of(line: bytes) -> int:
    found = SIZE(line)
    if found is None:
        raise ChunkError(f"not the size of a chunk: {line[:40]!r}")
    return int(found[1], 16)


def _expect(line_end: bytes, found: bytes) -> None:
    if found != line_end:
        raise ChunkError(f"a chunk is followed by {found!r}, not by a line end")
