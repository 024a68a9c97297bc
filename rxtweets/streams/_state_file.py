"""The position of a stream in a small file, for the next run of the program."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from rxtweets.errors import ConfigurationError

__all__ = ["Position", "StateFile"]

INTERVAL = 1.0
"""Seconds between two writes. After a crash, this much is requested twice rather than lost."""

YEAR_3000 = 32_503_680_000.0


class Position(NamedTuple):
    """The position up to which a stream was delivered.

    Attributes:
        alive_until: time up to which it was delivered, in seconds since 1970.
        newest_id: id of the last delivered message; empty without an id.
    """

    alive_until: float
    newest_id: str


class StateFile:
    """Keeps the position of one stream; writes the file whole or not at all.

    The next run of the program requests or reports the messages since this position. Delivered
    messages count as read: after a crash, those in work are delivered again only as far as backfill
    reaches back, half a minute more than the gap.

    Args:
        path: of the file, in an existing directory.
        stream: name of the stream; the file of another stream is refused.

    Raises:
        ConfigurationError: the file belongs to another stream, or cannot be read or written.
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
        """Read the position; ``None`` without a file."""
        try:
            value = orjson.loads(self.path.read_bytes())
            position, stream = _position(value), value["stream"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise ConfigurationError(
                f"state_file={str(self.path)!r} cannot be read ({error!r}); delete it, and "
                "messages since its last write are not requested again"
            ) from None
        if stream != self._stream:
            raise ConfigurationError(
                f"state_file={str(self.path)!r} is that of {stream}, not of {self._stream}; give "
                "each stream its own file"
            )
        return position

    def save(self, position: Position, *, now: bool = False) -> None:
        """Write the position, if the last write was a second ago, or ``now``.

        Raises:
            OSError: the file cannot be written.
        """
        at = time.monotonic()
        if not now and at - self._written < INTERVAL:
            return
        self._written = at
        new = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        try:
            new.write_bytes(orjson.dumps({"stream": self._stream, **position._asdict()}))
            new.replace(self.path)
        finally:
            with contextlib.suppress(OSError):
                new.unlink()


def _position(value: Any) -> Position:
    at, newest = value["alive_until"], value["newest_id"]
    if not isinstance(at, (int, float)) or isinstance(at, bool) or not 0 <= at < YEAR_3000:
        raise ValueError(f"alive_until: {at!r}")
    if not isinstance(newest, str):
        raise TypeError(f"newest_id: {newest!r}")
    return Position(float(at), newest)
