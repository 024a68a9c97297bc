"""Records on a pipe between two processes: a kind, a length, bytes."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from struct import Struct

__all__ = ["read_records", "record", "write_all"]

HEAD = Struct(">BI")
READ = 2**20


def record(kind: int, *parts: bytes) -> bytes:
    """The bytes of a record.

    Args:
        kind: below 256.
        *parts: of what it holds, joined.
    """
    return b"".join((HEAD.pack(kind, sum(map(len, parts))), *parts))


def read_records(pipe: int) -> Iterator[tuple[int, bytes]]:
    """The records that come out of a pipe, until it is closed; half a record at its end is none.

    Args:
        pipe: its descriptor.
    """
    rest = b""
    while data := os.read(pipe, READ):
        rest = rest + data if rest else data
        position = 0
        while position + HEAD.size <= len(rest):
            kind, length = HEAD.unpack_from(rest, position)
            start = position + HEAD.size
            if start + length > len(rest):
                break
            position = start + length
            yield kind, rest[start:position]
        rest = rest[position:]


def write_all(pipe: int, data: bytes | memoryview) -> None:
    """Write everything, waiting for room, into a pipe that does not wait by itself.

    Raises:
        OSError: nobody reads it any more.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(pipe, rest) :]
        except BlockingIOError:
            select.select([], [pipe], [])
