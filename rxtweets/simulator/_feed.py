"""Where frames come from: simulated or recorded, one after the other, or by position and time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Protocol

from rxtweets._messages.decoding import Decoded, Undecodable, Unknown
from rxtweets._messages.jsonl import is_record
from rxtweets._messages.line_files import FileLine, read_file, recording_at
from rxtweets._messages.message import payload_of
from rxtweets._messages.payloads import carried_by
from rxtweets.errors import ConfigurationError
from rxtweets.simulator._tweets import Tweets

__all__ = ["Feed", "Frames", "MadeFrames", "PacedFeed", "Recording", "SimulatedTweets"]


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
    """Recorded frames: a recording of ours or of others, or frames as they are.

    Files are read once at the start, to refuse what cannot be served.

    Args:
        source: of a recording, as `rxtweets.replay` reads it, or frames.
        loop: begin anew at the end.
        is_timed: whether the times of arrival are needed.

    Attributes:
        left_out: what is not served of the files, with file and number of the line.

    Raises:
        ConfigurationError: there is no such file, or it cannot be served.
    """

    def __init__(
        self, source: Path | Iterable[bytes], *, loop: bool, is_timed: bool = False
    ) -> None:
        self._files: list[Path] | None = None
        self._source: Iterable[bytes] = ()
        self.left_out: list[str] = []
        if isinstance(source, Path):
            self._files = _checked(recording_at(source), self.left_out, is_timed=is_timed)
        elif is_timed:
            raise ConfigurationError("pace='recorded' needs a recording: give its path as source")
        else:
            self._source = list(source) if loop else source
        self._loop = loop
        self._lines = self._once()
        self._read: list[bytes] = []
        self._lock = threading.Lock()

    def sequence(self) -> Callable[[int, int], list[bytes]]:
        """See `Frames`."""
        frames = self.timed()
        return lambda _first, count: [frame for _, frame in islice(frames, count)]

    def at(self, position: int, seconds: float) -> bytes | None:
        """See `Frames`; what was read is kept."""
        del seconds
        with self._lock:
            missing = max(0, position + 1 - len(self._read))
            self._read += (frame for _, frame in islice(self._lines, missing))
            if position >= len(self._read) and self._loop and self._read:
                position %= len(self._read)
            return self._read[position] if position < len(self._read) else None

    def timed(self) -> Iterator[tuple[float, bytes]]:
        """The frames, with the seconds from the first arrival to theirs, which never go back."""
        due, is_empty = 0.0, False
        while not is_empty:
            is_empty, first = True, None
            begun = due
            for arrived, frame in self._once():
                is_empty = False
                if arrived is not None:
                    first = arrived if first is None else first
                    due = max(due, begun + arrived - first)
                yield due, frame
            if not self._loop:
                return

    def _once(self) -> Iterator[tuple[float | None, bytes]]:
        if self._files is None:
            yield from ((None, _bare(line)) for line in self._source)
            return
        for file in self._files:
            for line, decoded in read_file(file):
                yield from _frames_in(line, decoded)


def _frames_in(line: FileLine, decoded: Decoded) -> Iterator[tuple[float | None, bytes]]:
    """What a line of a recording was in the stream, with the time of its arrival."""
    if decoded.messages:
        for message in decoded.messages:
            yield message.received_at, message.raw.replace(b"\n", b" ")
    elif not any(isinstance(other, Undecodable) for other in decoded.others):
        yield None, _bare(line.content)  # an empty line, a notice, or what clients do not know


def _checked(files: list[Path], left_out: list[str], *, is_timed: bool) -> list[Path]:
    """The files, if they can be served.

    Raises:
        ConfigurationError: they cannot.
    """
    has_times = False
    for file in files:
        if not file.is_file():
            raise ConfigurationError(f"cannot serve {file}: give a file, which can be read twice")
        for line, decoded in read_file(file):
            place = f"{file}:{line.number}"
            if why := _refusal(line, decoded):
                raise ConfigurationError(f"{place}: {why}; correct the line, or take it out")
            if any(isinstance(other, Undecodable) for other in decoded.others):
                left_out.append(f"{place}: {line.fault}")
            elif decoded.messages and decoded.others:
                left_out.append(f"{place}: parts of this page are no tweets")
            has_times = has_times or any(each.received_at is not None for each in decoded.messages)
    if is_timed and not has_times:
        raise ConfigurationError(
            f"pace='recorded': no line of {files[0]} has a time of arrival (received_at)"
        )
    return files


def _refusal(line: FileLine, decoded: Decoded) -> str:
    """Why a line cannot be served; empty if it can, or is not whole."""
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


class Feed:
    """Frames in order, each given once; a connection goes on where the last one ended.

    Attributes:
        ended: whether all were given.
    """

    def __init__(self, frames: Frames) -> None:
        self._next = frames.sequence()
        self._lock = threading.Lock()
        self._position = 0
        self.ended = False

    def take(self, count: int) -> list[tuple[int, bytes]]:
        """The next frames with their positions, without line ends; fewer at the end."""
        with self._lock:
            first = self._position
            frames = self._next(first, count)
            self._position += len(frames)
            self.ended = len(frames) < count
            return list(enumerate(frames, first))

    def rest(self) -> float:
        """Seconds until there are more."""
        return 0.0


class PacedFeed(Feed):
    """The frames of a recording, not before their time, which begins with the first who asks.

    Args:
        recording: with times of arrival.
        scale: factor for the pauses.
        clock: monotonic seconds.
    """

    def __init__(
        self, recording: Recording, scale: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(recording)
        self._frames = enumerate(recording.timed())
        self._waiting: tuple[int, tuple[float, bytes]] | None = None
        self._scale = scale
        self._clock = clock
        self._began: float | None = None

    def take(self, count: int) -> list[tuple[int, bytes]]:
        """See `Feed`; none that is not due."""
        taken: list[tuple[int, bytes]] = []
        with self._lock:
            while not self._until_due() and self._waiting is not None and len(taken) < count:
                position, (_, frame) = self._waiting
                taken.append((position, frame))
                self._waiting = next(self._frames, None)
            self.ended = self._waiting is None
        return taken

    def rest(self) -> float:
        """See `Feed`."""
        with self._lock:
            return self._until_due()

    def _until_due(self) -> float:
        now = self._clock()
        if self._began is None:
            self._began, self._waiting = now, next(self._frames, None)
        if self._waiting is None:
            return 0.0
        _, (due, _) = self._waiting
        return max(0.0, self._began + due * self._scale - now)


def _bare(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")
