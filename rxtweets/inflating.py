"""A gzip body that is flushed with every message, decompressed as it comes."""

from __future__ import annotations

import zlib

__all__ = ["Inflater"]

GZIP = 31  # zlib's number for a window of 32 KB in gzip's wrapping


class Inflater:
    """Takes the bytes of a gzip stream, which may be several members one after the other.

    Attributes:
        fault: what follows is no gzip; nothing more is given.
    """

    def __init__(self) -> None:
        self._member = zlib.decompressobj(GZIP)
        self.fault: zlib.error | None = None

    def feed(self, data: bytes) -> bytes:
        """All that can be decompressed by now, up to a fault."""
        parts: list[bytes] = []
        try:
            while data and self.fault is None:
                parts.append(self._member.decompress(data))
                data = self._member.unused_data
                if self._member.eof:
                    self._member = zlib.decompressobj(GZIP)
        except zlib.error as error:
            self.fault = error
        return b"".join(parts)
