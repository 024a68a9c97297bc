"""Replaying a recording: a stream of recorded messages, at any pace."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

from reactivex import abc
from reactivex.disposable import SerialDisposable
from reactivex.scheduler import VirtualTimeScheduler

from rxtweets._core.connection_state import ConnectionState
from rxtweets._core.gates import ChunkGate
from rxtweets._core.observable import new_telemetry
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.line_files import read_file, recording_at
from rxtweets._messages.message import Chunk, Message
from rxtweets._support.validation import iterable, optional, seconds, whole_number
from rxtweets._support.workers import start_thread, unexpected
from rxtweets.errors import RxTweetsError, StreamError
from rxtweets.streams._base import report_lines
from rxtweets.streams._run import SharedStream, StreamRun

__all__ = ["Replay", "replay"]

CHUNK = 128
"""Messages of a chunk, as of a live stream."""

LATEST = 253_402_300_800.0
"""The year 10000, in seconds since 1970, which `datetime` cannot hold."""

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def replay(
    path: Paths,
    speed: float | None = 1.0,
    *,
    hot: bool = False,
    limit: int | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Replay:
    """Make a stream of the messages of a recording.

    ::

        again = rxtweets.replay("sample.jsonl.gz", speed=None)
        print(rxtweets.collect(again, 200).to_polars().group_by("lang").len())

    Messages are equal to the recorded ones: id, data, metadata, line, arrival time and lag. The
    pauses are those between the arrivals, divided by ``speed``; a message without arrival time
    follows the one before it immediately. A slow subscriber delays the replay, which then catches
    up; it drops nothing.

    By default the stream is cold: every subscription starts from the beginning. With ``hot=True``
    all subscribers share one replay, from the first subscription to the last one's end.

    Other recordings can be replayed too: lines of X's streams as they came, and pages of tweets as
    X's search and twarc write them. Each tweet of a page is a message, with the includes that it
    refers to.

    A line that is not JSON, or was cut off, counts in ``stats().undecodable``, with an
    `events.UndecodableLine`. JSON of another shape counts in ``stats().unknown``, with an
    `events.UnknownMessage`. The ``place`` of both events is the file and the line number. If a
    recording becomes unreadable, ``on_error`` gets a `StreamError` after all messages before it.

    Args:
        path: a recording, with all files of its rotation; or several, replayed one after the
            other. Plain, gzip or zstd, by the first bytes.
        speed: 1 for the original pace, 10 for ten times as fast, ``None`` for no pauses.
        hot: share one replay.
        limit: complete after this number of messages.
        scheduler: keeps the time and delivers, instead of a thread of the stream. A
            `VirtualTimeScheduler` given to ``subscribe`` does so, too.

    Raises:
        ConfigurationError: an argument is invalid, or there is no such file.
    """
    pace = None if speed is None or speed == math.inf else seconds("speed", speed)
    is_one = isinstance(path, str | os.PathLike)
    several: Any = [path] if is_one else iterable("path", path, "['a.jsonl', 'b.jsonl']")
    files = [file for recording in several for file in recording_at(recording)]
    return Replay(files, pace, optional(whole_number, "limit", limit), scheduler, is_hot=hot)


class Replay(SharedStream):
    """A recording as a stream; made by `replay`."""

    def __init__(
        self,
        files: Sequence[Path],
        speed: float | None,
        limit: int | None,
        scheduler: abc.SchedulerBase | None,
        *,
        is_hot: bool,
    ) -> None:
        super().__init__(new_telemetry(source="replay"))
        self._files = files
        self.where: str = ", ".join(dict.fromkeys(file.name for file in files))
        self._speed = speed
        self._limit = limit
        self._scheduler = scheduler
        self._is_hot = is_hot
        self._plays: tuple[_Play, ...] = ()
        self.telemetry.show("state", lambda: self.state.name)

    @property
    def state(self) -> ConnectionState:
        """``connected`` while it plays, otherwise ``idle``."""
        return ConnectionState("connected" if self._plays else "idle")

    def stop(self) -> None:
        """End every replay and complete its subscribers."""
        for play in self._plays:
            play.finish()

    def _new_run(self, before: Any, scheduler: abc.SchedulerBase | None) -> StreamRun:
        del before
        if self._scheduler is not None or not isinstance(scheduler, VirtualTimeScheduler):
            scheduler = self._scheduler
        messages = islice(_messages(self._files, self.telemetry), self._limit)
        play = _Play(self, messages, self._speed, scheduler, is_hot=self._is_hot)
        self._plays += (play,)
        return play

    def forget(self, play: _Play) -> None:
        with self._lock:
            self._plays = tuple(other for other in self._plays if other is not play)


class _Play(StreamRun):
    """One pass through the files."""

    reports_end = False

    def __init__(
        self,
        stream: Replay,
        messages: Iterator[Message[Any]],
        speed: float | None,
        scheduler: abc.SchedulerBase | None,
        *,
        is_hot: bool,
    ) -> None:
        super().__init__(stream.telemetry)
        self._stream = stream
        self._speed = speed
        self._scheduler = scheduler
        self._is_hot = is_hot
        self._chunks = _chunks(messages, paced=speed is not None)
        self._stopped = threading.Event()
        self._timer = SerialDisposable()
        self._lag: float | None = None
        stream.telemetry.show("lag", lambda: self._lag)

    def add(self, gate: ChunkGate[Chunk]) -> bool:
        return (self._is_hot or not self._gates) and super().add(gate)

    def end(self, error: Exception | None = None) -> None:
        self._stopped.set()
        self._timer.dispose()
        self._stream.forget(self)
        super().end(error)

    def _begin(self) -> None:
        if self._scheduler is None:
            start_thread("rxtweets-replay", self._run, self._died)
        else:
            self._timer.disposable = self._scheduler.schedule(self._begin_steps)

    def _stop(self) -> None:
        self.end()

    def _run(self) -> None:
        began = monotonic()
        with self._ending_on_failure():
            for due, chunk in self._chunks:
                if self._speed is not None:
                    pause = due / self._speed - (monotonic() - began)
                    self._stopped.wait(min(max(0.0, pause), threading.TIMEOUT_MAX))
                if self._stopped.is_set():
                    return
                self._emit(chunk)
            self.end()

    def _died(self, error: BaseException) -> None:
        self.end(unexpected("replaying", error))

    def _begin_steps(self, clock: abc.SchedulerBase, _: Any = None) -> None:
        with self._ending_on_failure():
            self._step(clock, clock.now)

    def _step(self, clock: abc.SchedulerBase, began: datetime) -> None:
        for due, chunk in self._chunks:
            at = clock.now
            if self._speed is not None:
                at = began + timedelta(seconds=due / self._speed)
                if at <= clock.now:
                    self._emit(chunk)
                    continue

            def resume(_: Any, __: Any = None, chunk: Chunk = chunk) -> None:
                with self._ending_on_failure():
                    self._emit(chunk)
                    self._step(clock, began)

            self._timer.disposable = clock.schedule_absolute(at, resume)
            return
        self.end()

    def _emit(self, chunk: Chunk) -> None:
        if not self._stopped.is_set():
            self._telemetry.add(received=len(chunk))
            self._lag = chunk[-1].lag
            self.emit(chunk)

    @contextlib.contextmanager
    def _ending_on_failure(self) -> Iterator[None]:
        try:
            yield
        except RxTweetsError as error:
            self.end(error)
        except Exception as error:  # noqa: BLE001 - nothing else would report it
            action = "read" if isinstance(error, OSError) else "played"
            trouble = StreamError(f"the recording cannot be {action} on: {error!r}")
            trouble.__cause__ = error
            self.end(trouble)


def _messages(files: Sequence[Path], telemetry: Telemetry) -> Iterator[Message[Any]]:
    for file in files:
        for line, decoded in read_file(file):
            if decoded.others or decoded.partial:
                telemetry.add(received=len(decoded.others))
                report_lines(telemetry, decoded, f"{file}:{line.number}")
            yield from decoded.messages


def _chunks(messages: Iterator[Message[Any]], *, paced: bool) -> Iterator[tuple[float, Chunk]]:
    """Yield chunks with their time after the first arrival, in seconds, which never goes back."""
    chunk: Chunk = []
    first: float | None = None
    due = 0.0
    try:
        for message in messages:
            arrived = message.received_at
            if arrived is not None and not 0.0 <= arrived < LATEST:
                arrived = None  # other recorders write any number
            if arrived is not None and first is None:
                first = arrived
            then = due if arrived is None or first is None else max(due, arrived - first)
            if chunk and (len(chunk) >= CHUNK or (paced and then > due)):
                yield due, chunk
                chunk = []
            due = then
            chunk.append(message)
    except Exception:
        if chunk:
            yield due, chunk
        raise
    if chunk:
        yield due, chunk
