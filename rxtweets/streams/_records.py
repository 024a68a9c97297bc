"""Records on a pipe between two processes: a kind, a length, bytes."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from struct import Struct

__all__ = ["read_records", "record", "write_all"]

HEAD = Struct(">BI")
READ = 2**18


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
    # One read of the system brings many small records, and a large one is put together in place.
    with open(pipe, "rb", buffering=READ, closefd=False) as source:
        while len(head := source.read(HEAD.size)) == HEAD.size:
            kind, length = HEAD.unpack(head)
            content = source.read(length)
            if len(content) < length:
                return
            yield kind, content


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
