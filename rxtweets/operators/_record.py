"""`record`: writes a stream to a file while it passes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable

from rxtweets._core.events import SubscriberFailed
from rxtweets._core.gates import demand_of
from rxtweets._core.observable import MessageStream, subscribe_in_chunks, telemetry_of
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.jsonl import to_lines
from rxtweets._messages.line_files import LineWriter
from rxtweets._messages.message import Message
from rxtweets._support.validation import seconds, whole_number

__all__ = ["record"]

T = TypeVar("T")


def record(
    path: str | os.PathLike[str],
    *,
    rotate_size: int | None = None,
    rotate_after: float | timedelta | None = None,
    sync: bool = False,
) -> Callable[[Observable[Message[T]]], MessageStream[T]]:
    """Write every message to a file as it passes, with its arrival time; `replay` plays the file.

    ::

        tweets.pipe(rxtweets.record("tweets.jsonl.gz"), ops.process(handler), ops.batch(20, 2.0))

    The file has one JSON object a line, with the line of the tweet byte for byte. Format and safety
    are those of `subscribers.JSONLinesSubscriber`, which writes batches. The file is ``NAME.part``
    until the subscription ends. It holds each message that has passed, also if the process is
    killed. An existing file is kept: recording continues in another file beside it, and `replay`
    plays both. Duplicates are written too.

    A message that cannot be written passes nevertheless: it is counted in
    ``stats().subscriber_errors`` and reported as `events.SubscriberFailed`.

    Args:
        path: of the file, in an existing directory. The suffixes ``.gz`` and ``.zst`` (extra
            ``zstd``) compress it.
        rotate_size: bytes on the disk, 1 or more, after which a file is complete; no limit by
            default.
        rotate_after: seconds after which a file is complete, checked when a message comes; no limit
            by default.
        sync: call fsync after every write; off by default.

    Returns:
        An operator.

    Raises:
        ConfigurationError: an argument is invalid, or ``zstandard`` is not installed.
    """
    size = None if rotate_size is None else whole_number("rotate_size", rotate_size)
    after = None if rotate_after is None else seconds("rotate_after", rotate_after)

    def new_writer() -> LineWriter:
        return LineWriter(path, rotate_size=size, rotate_after=after, sync=sync)

    new_writer()  # validates the path

    def operator(source: Observable[Message[T]]) -> MessageStream[T]:
        telemetry = telemetry_of(source)

        def subscribe(
            observer: abc.ObserverBase[list[Message[Any]]], scheduler: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            recorder = _RecordingObserver(new_writer(), observer, telemetry)
            upstream = subscribe_in_chunks(source, recorder, scheduler)
            return CompositeDisposable(upstream, Disposable(recorder.close))

        return MessageStream(subscribe, telemetry)

    return operator


class _RecordingObserver(abc.ObserverBase[list[Message[Any]]]):
    def __init__(
        self,
        writer: LineWriter,
        observer: abc.ObserverBase[list[Message[Any]]],
        telemetry: Telemetry,
    ) -> None:
        self._writer = writer
        self._observer = observer
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._closed = False

    def demand(self, most: int) -> int:
        return demand_of(self._observer, most)

    def on_next(self, chunk: list[Message[Any]]) -> None:
        with self._lock:
            if not self._closed:
                self._try(lambda: self._writer.write(to_lines(chunk)), chunk)
        self._observer.on_next(chunk)

    def on_error(self, error: Exception) -> None:
        self.close()
        self._observer.on_error(error)

    def on_completed(self) -> None:
        self.close()
        self._observer.on_completed()

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._try(self._writer.close, None)

    def _try(self, write: Callable[[], None], chunk: object) -> None:
        try:
            write()
        except Exception as error:  # noqa: BLE001 - a full disk must not end the stream
            self._telemetry.add(subscriber_errors=1)
            self._telemetry.publish(SubscriberFailed(chunk, error))
