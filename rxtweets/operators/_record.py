"""Recording a stream as it passes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from reactivex import Observable, abc

from rxtweets._core.events import SubscriberFailed
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
    """Write every message to a file as it passes, with its arrival time; `replay` plays it.

    ::

        tweets.pipe(rxtweets.record("tweets.jsonl.gz"), ops.process(handler), ops.batch(20, 2.0))

    The format and the safety are those of `subscribers.JSONLinesSubscriber`, which does the same
    for batches: the file is ``NAME.part`` until it is complete, at the end of the subscription;
    what has passed is in it, whatever happens to the process. Nothing is left out, also what
    comes twice. What cannot be written passes all the same: it is counted in
    ``stats().subscriber_errors`` and reported as `events.SubscriberFailed`.

    Args:
        path: of the file, in a directory that is there; ``.gz`` and ``.zst`` (extra ``zstd``) at
            its end compress.
        rotate_size: bytes on the disk, 1 or more, after which a file is complete.
        rotate_after: seconds after which a file is complete, looked at when a message comes.
        sync: have the disk confirm every write.

    Raises:
        ConfigurationError: an argument cannot work, or ``zstandard`` is not installed.
    """
    size = None if rotate_size is None else whole_number("rotate_size", rotate_size)
    after = None if rotate_after is None else seconds("rotate_after", rotate_after)

    def writer() -> LineWriter:
        return LineWriter(path, rotate_size=size, rotate_after=after, sync=sync)

    writer()

    def operator(source: Observable[Message[T]]) -> MessageStream[T]:
        telemetry = telemetry_of(source)

        def subscribe(
            observer: abc.ObserverBase[list[Message[Any]]], scheduler: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            recorder = _Recorder(writer(), observer, telemetry)
            return recorder.listen(subscribe_in_chunks(source, recorder, scheduler))

        return MessageStream(subscribe, telemetry)

    return operator


class _Recorder(abc.ObserverBase[list[Message[Any]]], abc.DisposableBase):
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
        self._over = False
        self._source: abc.DisposableBase | None = None

    def listen(self, source: abc.DisposableBase) -> abc.DisposableBase:
        """Dispose this source at the end."""
        self._source = source
        if self._over:
            source.dispose()
        return self

    def on_next(self, value: list[Message[Any]]) -> None:
        with self._lock:
            if not self._over:
                self._try(lambda: self._writer.write(to_lines(value)), value)
        self._observer.on_next(value)

    def on_error(self, error: Exception) -> None:
        self._end()
        self._observer.on_error(error)

    def on_completed(self) -> None:
        self._end()
        self._observer.on_completed()

    def dispose(self) -> None:
        if self._source is not None:
            self._source.dispose()
        self._end()

    def _end(self) -> None:
        with self._lock:
            self._over = True
            self._try(self._writer.close, None)

    def _try(self, write: Callable[[], None], value: object) -> None:
        try:
            write()
        except Exception as error:  # noqa: BLE001 - a full disk must not end the stream
            self._telemetry.add(subscriber_errors=1)
            self._telemetry.publish(SubscriberFailed(value, error))
