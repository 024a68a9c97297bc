"""The frames of a stream: generated, or read from a recording."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Protocol

from rxtweets._messages.decoding import Decoded, Undecodable, Unknown
from rxtweets._messages.jsonl import is_record
from rxtweets._messages.lenient_json import payload_of
from rxtweets._messages.line_files import FileLine, read_file, recording_at
from rxtweets._messages.payloads import carried_by
from rxtweets.errors import ConfigurationError

__all__ = [
    "FrameGenerator",
    "FrameSource",
    "GeneratedFrames",
    "ReadFrames",
    "Recording",
    "open_source",
]

ReadFrames = Callable[[], Iterator[tuple[float | None, bytes]]]
"""Reads a recording from its start: the time of arrival, in seconds since 1970, and the frame."""


class FrameSource(ABC):
    """The frames of one stream, without line ends; from any thread.

    On demand, `take` gives each frame to one connection. By the clock, `at` gives the frame of a
    position to every connection that asks.
    """

    ended = False

    @abstractmethod
    def take(self, count: int) -> list[tuple[int, bytes]]:
        """Return the next frames with their positions; fewer at the end, or if more are not due."""

    @abstractmethod
    def at(self, position: int, seconds: float) -> bytes | None:
        """Return the frame of a position, written at that time; ``None`` behind the end."""

    def delay(self) -> float:
        """Return the seconds until `take` has more."""
        return 0.0


class FrameGenerator(Protocol):
    """Makes frames from positions; `rxtweets.simulator.Tweets` is one."""

    def frames(self, start: int, count: int) -> list[bytes]: ...

    def at(self, position: int, seconds: float) -> bytes: ...


class GeneratedFrames(FrameSource):
    """Frames without end."""

    def __init__(self, generator: FrameGenerator) -> None:
        self._generator = generator
        self._position = 0
        self._lock = threading.Lock()

    def take(self, count: int) -> list[tuple[int, bytes]]:
        with self._lock:
            first = self._position
            self._position += count
            return list(enumerate(self._generator.frames(first, count), first))

    def at(self, position: int, seconds: float) -> bytes:
        return self._generator.at(position, seconds)


class Recording(FrameSource):
    """Recorded frames.

    Args:
        read: reads them from the start.
        loop: start again at the end.
        scale: factor for the pauses between arrivals, which begin with the first `take`; 0 leaves
            them out.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        read: ReadFrames,
        *,
        loop: bool,
        scale: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timed = enumerate(_timed(read, loop=loop))
        self._next: tuple[int, tuple[float, bytes]] | None = None
        self._scale = scale
        self._clock = clock
        self._started: float | None = None
        self._loop = loop
        self._unread = read()
        self._kept: list[bytes] = []
        self._lock = threading.Lock()

    def take(self, count: int) -> list[tuple[int, bytes]]:
        taken: list[tuple[int, bytes]] = []
        with self._lock:
            if self._started is None:
                self._started = self._clock()
            while len(taken) < count:
                # Read only when it is asked for: a source may wait for its next frame.
                self._next = self._next or next(self._timed, None)
                self.ended = self._next is None
                if self._next is None or self._until_due(self._next[1][0]):
                    break
                taken.append((self._next[0], self._next[1][1]))
                self._next = None
        return taken

    def delay(self) -> float:
        with self._lock:
            return 0.0 if self._next is None else self._until_due(self._next[1][0])

    def at(self, position: int, seconds: float) -> bytes | None:
        del seconds
        with self._lock:
            missing = max(0, position + 1 - len(self._kept))
            self._kept += (frame for _, frame in islice(self._unread, missing))
            if self._loop and self._kept:
                position %= len(self._kept)
            return self._kept[position] if position < len(self._kept) else None

    def _until_due(self, due: float) -> float:
        if not self._scale or self._started is None:
            return 0.0
        return max(0.0, self._started + due * self._scale - self._clock())


def _timed(read: ReadFrames, *, loop: bool) -> Iterator[tuple[float, bytes]]:
    """The frames, with the seconds from the first arrival to theirs, which never decrease."""
    due, is_empty = 0.0, False
    while not is_empty:
        is_empty, first, started = True, None, due
        for arrived, frame in read():
            is_empty = False
            if arrived is not None:
                first = arrived if first is None else first
                due = max(due, started + arrived - first)
            yield due, frame
        if not loop:
            return


def open_source(
    source: Path | Iterable[bytes], *, loop: bool, is_timed: bool
) -> tuple[ReadFrames, list[str]]:
    """Check a recording, which reads its files once.

    Args:
        source: the path of a recording, as `rxtweets.replay` reads it, or frames.
        loop: frames are read several times.
        is_timed: times of arrival are needed.

    Returns:
        A function that reads the frames, and a line for each line of the files that it leaves out.

    Raises:
        ConfigurationError: there is no such file, or it cannot be served.
    """
    if isinstance(source, Path):
        files = recording_at(source)
        left_out = _check_files(files, is_timed=is_timed)
        return lambda: _read_files(files), left_out
    if is_timed:
        raise ConfigurationError("pace='recorded' needs a recording: give its path as source")
    frames = list(source) if loop else source
    return lambda: ((None, _without_line_end(frame)) for frame in frames), []


def _read_files(files: list[Path]) -> Iterator[tuple[float | None, bytes]]:
    for file in files:
        for line, decoded in read_file(file):
            for message in decoded.messages:
                yield message.received_at, message.raw.replace(b"\n", b" ")
            is_whole = not any(isinstance(other, Undecodable) for other in decoded.others)
            if is_whole and not decoded.messages:  # an empty line, a notice, or an unknown line
                yield None, _without_line_end(line.content)


def _check_files(files: list[Path], *, is_timed: bool) -> list[str]:
    """Refuse files that cannot be served; return the lines that are left out."""
    left_out: list[str] = []
    is_empty, has_times = True, False
    for file in files:
        if not file.is_file():
            raise ConfigurationError(f"cannot serve {file}: give a file, which can be read twice")
        for line, decoded in read_file(file):
            place = f"{file}:{line.number}"
            if fault := _fault(line, decoded):
                raise ConfigurationError(f"{place}: {fault}; correct the line, or delete it")
            is_whole = not any(isinstance(other, Undecodable) for other in decoded.others)
            if not is_whole:
                left_out.append(f"{place}: {line.fault}")
            elif decoded.messages and decoded.others:
                left_out.append(f"{place}: parts of this page are no tweets")
            is_empty = is_empty and not (decoded.messages or (is_whole and decoded.others))
            has_times = has_times or any(m.received_at is not None for m in decoded.messages)
    if is_empty:
        raise ConfigurationError(
            f"cannot serve {files[0]}: it has no whole line of a stream; give a recording of tweets"
        )
    if is_timed and not has_times:
        raise ConfigurationError(
            f"pace='recorded': no line of {files[0]} has a time of arrival (received_at)"
        )
    return left_out


def _fault(line: FileLine, decoded: Decoded) -> str:
    """Why a line cannot be served; empty if it can, or if the file ends within it."""
    for message in decoded.messages:
        if not message.raw:
            return "this record has no raw, the line of the stream"
        kind = carried_by(payload_of(message.raw)).kind
        if kind not in {"tweet", "other"}:
            return f"this is no tweet, but of the kind {kind}"
    for other in () if line.fault else decoded.others:
        if isinstance(other, Undecodable):
            return str(other.error)
        if isinstance(other, Unknown) and is_record(other.value):
            return "the raw of this record is no line of a stream"
    return ""


def _without_line_end(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")
