"""Until when a stream has been read, in a small file that outlives the program."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from rxtweets.errors import ConfigurationError

__all__ = ["Position", "StateFile"]

INTERVAL = 1.0
"""Seconds between two writes; after a crash, so much is asked for again rather than lost."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a stream is.

    Attributes:
        alive_until: until when it has been delivered, in seconds since 1970.
        newest_id: of the last message that was delivered; empty if it had none.
    """

    alive_until: float
    newest_id: str


class StateFile:
    """Keeps the position of one stream; written whole or not at all.

    Args:
        path: of the file, in a directory that is there.
        stream: what it is the position of; another stream's file is refused.

    Raises:
        ConfigurationError: the file is another stream's, or not one of these, or cannot be
            written.
    """

    def __init__(self, path: str | os.PathLike[str], stream: str) -> None:
        self.path = Path(path)
        self._stream = stream
        self._written = 0.0
        if not os.access(self.path.parent, os.W_OK):
            raise ConfigurationError(
                f"state_file={os.fspath(path)!r}: {self.path.parent} is no directory that can be "
                "written to"
            )
        self.load()

    def load(self) -> Position | None:
        """The position; ``None`` if there is no file yet."""
        try:
            value = orjson.loads(self.path.read_bytes())
            position = _position(value)
            stream = value["stream"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise ConfigurationError(
                f"state_file={str(self.path)!r} cannot be read as one ({error!r}); delete it, and "
                "what came since it was written is not asked for"
            ) from None
        if stream != self._stream:
            raise ConfigurationError(
                f"state_file={str(self.path)!r} is that of {stream}, not of {self._stream}; give "
                "each stream a file of its own"
            )
        return position

    def save(self, position: Position, *, now: bool = False) -> None:
        """Write the position, if the last write is a second ago or it must be ``now``.

        Raises:
            OSError: it cannot be written.
        """
        since = time.monotonic()
        if not now and since - self._written < INTERVAL:
            return
        self._written = since
        value: dict[str, Any] = {
            "stream": self._stream,
            "alive_until": position.alive_until,
            "newest_id": position.newest_id,
        }
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        try:
            beside.write_bytes(orjson.dumps(value))
            beside.replace(self.path)
        finally:
            with contextlib.suppress(OSError):
                beside.unlink()


def _position(value: Any) -> Position:
    at, newest = value["alive_until"], value["newest_id"]
    if not isinstance(at, (int, float)) or isinstance(at, bool) or not 0 <= at < YEAR_3000:
        raise ValueError(f"alive_until: {at!r}")
    if not isinstance(newest, str):
        raise TypeError(f"newest_id: {newest!r}")
    return Position(float(at), newest)


YEAR_3000 = 32_503_680_000.0
