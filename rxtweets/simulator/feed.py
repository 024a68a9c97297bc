"""What the simulator has to say: frames in order, one position for all connections."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from rxtweets.errors import ConfigurationError
from rxtweets.simulator.tweets import Tweets

__all__ = ["Feed"]


class Feed:
    """Frames in order; a connection goes on where the last one ended, as a live stream does.

    Args:
        source: recorded frames, one a line, or simulated tweets.
        loop: begin a recording anew when it is over.

    Raises:
        ConfigurationError: there is no such file.
    """

    def __init__(self, source: Path | Iterable[bytes] | Tweets, *, loop: bool = False) -> None:
        self._tweets = source if isinstance(source, Tweets) else None
        if isinstance(source, Path):
            try:
                source.open("rb").close()
            except OSError as error:
                raise ConfigurationError(f"cannot read {source}: {error.strerror}") from None
        self._frames = _lines(source, loop=loop) if self._tweets is None else iter(())
        self._lock = threading.Lock()
        self._position = 0

    def take(self, count: int) -> list[bytes]:
        """The next frames, without line ends; fewer when the recording ends."""
        with self._lock:
            if self._tweets is None:
                frames = list(islice(self._frames, count))
            else:
                frames = self._tweets.frames(self._position, count)
            self._position += len(frames)
            return frames


def _lines(source: Path | Iterable[bytes], *, loop: bool) -> Iterator[bytes]:
    if not isinstance(source, Path):
        source = list(source) if loop else source
    while True:
        yield from _lines_once(source)
        if not loop:
            return


def _lines_once(source: Path | Iterable[bytes]) -> Iterator[bytes]:
    if not isinstance(source, Path):
        for line in source:
            yield _bare(line)
        return
    with source.open("rb") as lines:
        for line in lines:
            yield _bare(line)


def _bare(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")
