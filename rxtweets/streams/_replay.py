"""Replaying a recording: a source of messages as they came, or faster, or slower."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

from reactivex import abc
from reactivex.disposable import SerialDisposable
from reactivex.scheduler import VirtualTimeScheduler

from rxtweets._core.connection_state import ConnectionState
from rxtweets._core.events import SubscriberFailed
from rxtweets._core.observable import ChunkGate, SourceSubscription, new_telemetry
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.line_files import read_file, recording_at
from rxtweets._messages.message import Message
from rxtweets._support.validation import iterable, seconds
from rxtweets._support.workers import start_thread, unexpected
from rxtweets.errors import RxTweetsError, StreamError
from rxtweets.streams._base import HotStream, report_lines

__all__ = ["Replay", "replay"]

CHUNK = 128
"""Messages that are delivered together at most, as by a live stream."""

LATEST = 253_402_300_800.0
"""The year 10000, in seconds since 1970: what `datetime` does not hold."""

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Chunks = Iterator[tuple[float, list[Message[Any]]]]
Observer = abc.ObserverBase[list[Message[Any]]]
Gate = ChunkGate[list[Message[Any]]]


def replay(
    path: Paths,
    speed: float | None = 1.0,
    *,
    hot: bool = False,
    scheduler: abc.SchedulerBase | None = None,
) -> Replay:
    """A stream of the messages of a recording.

    Id, data, metadata, line, arrival time, and so lag, are as they were. The pauses between
    messages are those between their arrivals, divided by ``speed``; messages whose arrival is not
    known come with the one before. A subscriber that is slower makes the replay wait: nothing is
    dropped, and what is late is caught up.

    By default the stream is cold: every subscription plays from the beginning. With ``hot=True``
    all share one play, which begins with the first subscriber and ends with the last.

    Recordings of others can be played too: lines of X's stream without anything around them, and
    pages of tweets, as X's search answers and twarc writes them. Each tweet of a page is a message,
    with those of the includes that it refers to.

    A line that is not JSON, or was cut off, is counted in ``stats().undecodable`` and reported as
    `events.UndecodableLine`. JSON of another shape is counted in ``stats().unknown`` and reported
    as `events.UnknownMessage`. Both events have the file and the number of the line. An error that
    ends the replay comes to ``on_error``, after all messages before it.

    Args:
        path: of a recording, with all files that its rotation made; or of several, played one
            after the other. Plain, gzip or zstd, by the first bytes.
        speed: 1 is the original pace, 10 is ten times as fast; ``None`` is as fast as it goes.
        hot: share one play.
        scheduler: keeps the time and delivers, instead of a thread of the stream's own; a
            scheduler of virtual time given to ``subscribe`` is taken as well.

    Raises:
        ConfigurationError: an argument cannot work, or there is no such file.
    """
    pace = None if speed is None or speed == math.inf else seconds("speed", speed)
    is_one = isinstance(path, str | os.PathLike)
    several: Any = [path] if is_one else iterable("path", path, "['a.jsonl', 'b.jsonl']")
    files = [file for each in several for file in recording_at(each)]
    return Replay(files, pace, scheduler, is_hot=hot)


class Replay(HotStream[Any]):
    """A recording as a stream; made by `replay`."""

    def __init__(
        self,
        files: Sequence[Path],
        speed: float | None,
        scheduler: abc.SchedulerBase | None,
        *,
        is_hot: bool,
    ) -> None:
        telemetry = new_telemetry(source="replay")
        super().__init__(self._join, telemetry)
        self._files = files
        self.where = ", ".join(dict.fromkeys(file.name for file in files))
        self._speed = speed
        self._scheduler = scheduler
        self._is_hot = is_hot
        self._lock = threading.Lock()
        self._plays: tuple[_Play, ...] = ()
        telemetry.show("state", lambda: self.state.name)

    @property
    def state(self) -> ConnectionState:
        """``connected`` while it plays, else ``idle``."""
        return ConnectionState("connected" if self._plays else "idle")

    def stop(self) -> None:
        """End every play and complete its subscribers."""
        for play in self._plays:
            play.finish()

    def _join(self, observer: Observer, given: abc.SchedulerBase | None) -> abc.DisposableBase:
        gate = ChunkGate(observer, self.telemetry, "stream")
        with self._lock:
            play = self._plays[-1] if self._is_hot and self._plays else None
            if play is None or not play.add(gate):
                play = _Play(self._files, self._speed, self.telemetry, self._forget)
                play.add(gate)
                self._plays += (play,)
                is_new = True
            else:
                is_new = False
        if is_new:
            try:
                play.start(_scheduler(self._scheduler, given))
            except BaseException:  # no more threads can be started
                play.remove(gate)
                raise
        return SourceSubscription(gate, play.remove, play.finish, self.telemetry)

    def _forget(self, play: _Play) -> None:
        with self._lock:
            self._plays = tuple(each for each in self._plays if each is not play)


class _Play:
    """One way through the files, for one observer or several."""

    def __init__(
        self,
        files: Sequence[Path],
        speed: float | None,
        telemetry: Telemetry,
        forget: Callable[[_Play], None],
    ) -> None:
        self._speed = speed
        self._telemetry = telemetry
        self._forget = forget
        self._chunks = _chunks(_messages(files, telemetry), paced=speed is not None)
        self._lock = threading.Lock()
        self._emitting = threading.Lock()
        self._gates: tuple[Gate, ...] = ()
        self._ends: deque[tuple[Gate, Callable[[Gate], None]]] = deque()
        self._stopped = threading.Event()
        self._timer = SerialDisposable()

    def add(self, gate: Gate) -> bool:
        """Take part; ``False`` if it is over."""
        with self._lock:
            if not self._stopped.is_set():
                self._gates += (gate,)
            return not self._stopped.is_set()

    def remove(self, gate: Gate) -> None:
        """Leave; the last one ends the play."""
        gate.close()
        with self._lock:
            self._gates = tuple(each for each in self._gates if each is not gate)
            is_last = not self._gates
        if is_last:
            self._stop()

    def finish(self, *gates: ChunkGate[list[Message[Any]]]) -> None:
        """Complete everybody and end here, or complete some if there are others."""
        with self._lock:
            others = tuple(each for each in self._gates if gates and each not in gates)
            if others:
                self._gates = others
        if others:
            self._tell_all(gates, _complete)
        else:
            self._end(_complete)

    def start(self, scheduler: abc.SchedulerBase | None) -> None:
        if scheduler is None:
            start_thread("rxtweets-replay", self._run, self._died)
            return

        def begin(clock: abc.SchedulerBase, _: Any = None) -> None:
            with self._failing():
                self._step(clock, clock.now)

        self._timer.disposable = scheduler.schedule(begin)

    def _run(self) -> None:
        began = monotonic()
        with self._failing():
            while not self._stopped.is_set() and (found := next(self._chunks, None)) is not None:
                due, chunk = found
                if self._speed is not None:
                    pause = due / self._speed - (monotonic() - began)
                    self._stopped.wait(min(max(0.0, pause), threading.TIMEOUT_MAX))
                self._emit(chunk)
            self.finish()

    def _died(self, error: BaseException) -> None:
        fault = unexpected("replaying", error)
        self._end(lambda gate: gate.on_error(fault))

    def _step(self, clock: abc.SchedulerBase, began: datetime) -> None:
        """Emit what is due now, and have the clock come back for the rest."""
        while not self._stopped.is_set() and (found := next(self._chunks, None)) is not None:
            due, chunk = found
            at = began + timedelta(seconds=0 if self._speed is None else due / self._speed)
            if at <= clock.now and self._speed is not None:
                self._emit(chunk)
                continue

            def resume(_: Any, __: Any = None, chunk: list[Message[Any]] = chunk) -> None:
                with self._failing():
                    self._emit(chunk)
                    self._step(clock, began)

            self._timer.disposable = (
                clock.schedule(resume)
                if self._speed is None
                else clock.schedule_absolute(at, resume)
            )
            return
        self.finish()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Pass what goes wrong on to everybody, as the end."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - nobody else would ever hear of it
            self._end(_failure(error))

    def _emit(self, chunk: list[Message[Any]]) -> None:
        with self._emitting, self._telemetry.working():
            if not self._stopped.is_set():
                self._give(chunk)
        self._tell_ends()

    def _give(self, chunk: list[Message[Any]]) -> None:
        self._telemetry.add(received=len(chunk), delivered=len(chunk))
        lag = chunk[-1].lag
        self._telemetry.show("lag", lambda: lag)
        for gate in self._gates:
            try:
                gate.on_next(chunk)
            except Exception as error:  # noqa: BLE001 - an operator broke; the others go on
                self._tell(gate, _failure(error))
                self.remove(gate)

    def _end(self, tell: Callable[[Gate], None]) -> None:
        with self._lock:
            gates, self._gates = self._gates, ()
        self._stop()
        self._tell_all(gates, tell)

    def _tell_all(self, gates: Sequence[Gate], tell: Callable[[Gate], None]) -> None:
        self._ends.extend((gate, tell) for gate in gates)
        self._tell_ends()

    def _tell_ends(self) -> None:
        """Tell of the end, unless a chunk is on its way: then whoever brings it does, after it.

        Whoever ends a play must not wait for that: a handler may, for which the chunk waits.
        """
        while self._ends and self._emitting.acquire(blocking=False):
            try:
                with self._telemetry.working():
                    while self._ends:
                        self._tell(*self._ends.popleft())
            finally:
                self._emitting.release()

    def _tell(self, gate: Gate, tell: Callable[[Gate], None]) -> None:
        try:
            tell(gate)
        except Exception as error:  # noqa: BLE001 - the others have to be told, too
            self._telemetry.add(subscriber_errors=1)
            self._telemetry.publish(SubscriberFailed(None, error))

    def _stop(self) -> None:
        self._stopped.set()
        self._timer.dispose()
        self._forget(self)


def _complete(gate: Gate) -> None:
    gate.on_completed()


def _failure(error: Exception) -> Callable[[Gate], None]:
    """Tells an observer of an exception."""
    trouble = error
    if not isinstance(error, RxTweetsError):
        what = "read" if isinstance(error, OSError) else "played"
        trouble = StreamError(f"the recording cannot be {what} on: {error!r}")
        trouble.__cause__ = error
    return lambda gate: gate.on_error(trouble)


def _scheduler(
    own: abc.SchedulerBase | None, given: abc.SchedulerBase | None
) -> abc.SchedulerBase | None:
    return given if own is None and isinstance(given, VirtualTimeScheduler) else own


def _messages(files: Sequence[Path], telemetry: Telemetry) -> Iterator[Message[Any]]:
    for file in files:
        for line, decoded in read_file(file):
            if decoded.others or decoded.partial:
                telemetry.add(received=len(decoded.others))
                report_lines(telemetry, decoded, f"{file}:{line.number}")
            yield from decoded.messages


def _chunks(messages: Iterator[Message[Any]], *, paced: bool) -> Chunks:
    """The messages with the seconds from the first arrival to theirs, which never go back."""
    chunk: list[Message[Any]] = []
    first: float | None = None
    due = 0.0
    try:
        for message in messages:
            arrived = message.received_at
            if arrived is not None and not 0.0 <= arrived < LATEST:
                arrived = None  # somebody else's recording can have any number there
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
