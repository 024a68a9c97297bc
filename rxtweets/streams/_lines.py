r"""Cuts the bytes of a connection into lines.

X ends every message with ``\r\n`` and never puts a raw line feed into one. Messages do not align
with chunks or packets (X's documentation, "consuming streaming data"). So lines are cut on bytes,
at ``\n`` only. `str.splitlines` would cut at a raw U+2028 or U+0085 inside a JSON string, and a
chunk may end inside a UTF-8 sequence.
"""

from __future__ import annotations

from typing import NamedTuple

from rxtweets._messages.lookup import LookedUp

__all__ = ["DEFAULT_MAX_LINE", "Arrived", "Framed", "LineFramer", "Oversized"]

DEFAULT_MAX_LINE = 16 * 1024 * 1024
"""Bytes. The largest real tweets with all expansions stay below 100 KB."""

KEPT_OF_OVERSIZED = 256


class Oversized(NamedTuple):
    """A discarded line that was longer than the maximum.

    Attributes:
        start: its first bytes, 256 at most.
        length: its whole length in bytes, with the line end.
    """

    start: bytes
    length: int

    def grown(self, data: bytes) -> Oversized:
        """Return the same line with more bytes."""
        start = self.start + data[: KEPT_OF_OVERSIZED - len(self.start)]
        return Oversized(start.rstrip(b"\n"), self.length + len(data))


class Framed(NamedTuple):
    """The lines that one read completed.

    Attributes:
        lines: without their line feeds (a carriage return may be left), none of them empty.
        keep_alives: number of empty lines.
        oversized: lines that were longer than the maximum.
    """

    lines: list[bytes]
    keep_alives: int = 0
    oversized: tuple[Oversized, ...] = ()


class Arrived(NamedTuple):
    """One read of a connection, cut into lines.

    Attributes:
        framed: the lines.
        size: bytes of the read.
        at: seconds since 1970.
        known: text and id of the lines, if the reader looked them up.
        held: bytes of the lines, at most.
    """

    framed: Framed
    size: int
    at: float
    known: LookedUp | None = None
    held: int = 0


class LineFramer:
    """Cuts the bytes of one connection into lines, in linear time.

    Args:
        max_line: bytes of the longest line. Longer ones are discarded and reported.

    Attributes:
        held: bytes of the lines that the last read completed, at most.
    """

    def __init__(self, max_line: int = DEFAULT_MAX_LINE) -> None:
        self._max_line = max_line
        self._tail = bytearray()
        self._skipped: Oversized | None = None
        self.held = 0

    def feed(self, data: bytes) -> Framed:
        """Return the lines that these bytes complete."""
        lines, rest = _cut(data)
        self.held = len(self._tail) + len(data) - len(rest)
        oversized: list[Oversized] = []
        if lines and self._skipped is not None:
            oversized.append(self._skipped.grown(lines.pop(0) + b"\n"))
            self._skipped = None
        elif lines and self._tail:
            self._tail += lines[0]
            lines[0] = bytes(self._tail)
            self._tail.clear()
        self._keep(rest)
        return _framed(lines, self._max_line, oversized)

    def finish(self) -> bytes | Oversized:
        """Return the line that the end of the connection cut off, once; ``b""`` for none."""
        tail = bytes(self._tail) if self._skipped is None else self._skipped
        self._tail.clear()
        self._skipped = None
        return tail

    def _keep(self, data: bytes) -> None:
        if self._skipped is not None:
            self._skipped = self._skipped.grown(data)
            return
        self._tail += data
        if len(self._tail) > self._max_line:
            self._skipped = Oversized(bytes(self._tail[:KEPT_OF_OVERSIZED]), len(self._tail))
            self._tail.clear()


def _cut(data: bytes) -> tuple[list[bytes], bytes]:
    """Return whole lines and the rest; `bytes.split` looks at every byte and is slower."""
    lines: list[bytes] = []
    add, find, start = lines.append, data.find, 0
    while (end := find(b"\n", start)) >= 0:
        add(data[start:end])
        start = end + 1
    return lines, data[start:]


def _framed(lines: list[bytes], max_line: int, oversized: list[Oversized]) -> Framed:
    # Most reads have neither keep-alives nor long lines.
    if b"\r" not in lines and b"" not in lines and max(map(len, lines), default=0) <= max_line:
        return Framed(lines, 0, tuple(oversized))
    kept: list[bytes] = []
    keep_alives = 0
    for line in lines:
        if line in {b"", b"\r"}:
            keep_alives += 1
        elif len(line) > max_line:
            oversized.append(Oversized(line[:KEPT_OF_OVERSIZED], len(line) + 1))
        else:
            kept.append(line)
    return Framed(kept, keep_alives, tuple(oversized))
