"""Where frames come from: simulated or recorded, one after the other, or by position and time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Protocol

from rxtweets.errors import ConfigurationError
from rxtweets.simulator.tweets import Tweets

__all__ = ["Feed", "Frames", "MadeFrames", "Recording", "SimulatedTweets"]


class Frames(Protocol):
    """What a stream is made of."""

    def sequence(self) -> Callable[[int, int], list[bytes]]:
        """A function from a position and a number to the next frames, as new as the call.

        It is asked for positions in order, and gives fewer frames at the end.
        """

    def at(self, position: int, seconds: float) -> bytes | None:
        """The frame of that position, written at that time; the same at every call.

        Returns:
            ``None`` at the end.
        """


class SimulatedTweets:
    """Tweets without end."""

    def __init__(self, tweets: Tweets) -> None:
        self._tweets = tweets

    def sequence(self) -> Callable[[int, int], list[bytes]]:
        """See `Frames`."""
        return self._tweets.frames

    def at(self, position: int, seconds: float) -> bytes:
        """See `Frames`."""
        return self._tweets.at(position, seconds)


class MadeFrames:
    """Frames that a function makes from a position and a time, in seconds since 1970."""

    def __init__(self, make: Callable[[int, float], bytes]) -> None:
        self.at = make

    def sequence(self) -> Callable[[int, int], list[bytes]]:
        """See `Frames`."""

        def frames(first: int, count: int) -> list[bytes]:
            now = time.time()
            return [self.at(position, now) for position in range(first, first + count)]

        return frames


class Recording:
    """Recorded frames, one a line.

    Args:
        source: a file, or frames.
        loop: begin anew at the end.

    Raises:
        ConfigurationError: there is no such file.
    """

    def __init__(self, source: Path | Iterable[bytes], *, loop: bool) -> None:
        if isinstance(source, Path):
            try:
                source.open("rb").close()
            except OSError as error:
                raise ConfigurationError(f"cannot read {source}: {error.strerror}") from None
        self._source = list(source) if loop and not isinstance(source, Path) else source
        self._loop = loop
        self._lines = self._once()
        self._read: list[bytes] = []
        self._lock = threading.Lock()

    def sequence(self) -> Callable[[int, int], list[bytes]]:
        """See `Frames`."""
        frames = self._frames()
        return lambda _first, count: list(islice(frames, count))

    def at(self, position: int, seconds: float) -> bytes | None:
        """See `Frames`; what was read is kept."""
        del seconds
        with self._lock:
            self._read += islice(self._lines, max(0, position + 1 - len(self._read)))
            if position >= len(self._read) and self._loop and self._read:
                position %= len(self._read)
            return self._read[position] if position < len(self._read) else None

    def _frames(self) -> Iterator[bytes]:
        is_empty = False
        while not is_empty:
            is_empty = True
            for frame in self._once():
                is_empty = False
                yield frame
            if not self._loop:
                return

    def _once(self) -> Iterator[bytes]:
        if not isinstance(self._source, Path):
            for line in self._source:
                yield _bare(line)
            return
        with self._source.open("rb") as lines:
            for line in lines:
                yield _bare(line)


class Feed:
    """Frames in order, each given once; a connection goes on where the last one ended."""

    def __init__(self, frames: Frames) -> None:
        self._next = frames.sequence()
        self._lock = threading.Lock()
        self._position = 0

    def take(self, count: int) -> list[tuple[int, bytes]]:
        """The next frames with their positions, without line ends; fewer at the end."""
        with self._lock:
            first = self._position
            frames = self._next(first, count)
            self._position += len(frames)
            return list(enumerate(frames, first))


def _bare(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")
