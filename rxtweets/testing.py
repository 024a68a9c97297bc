"""Helpers for tests of pipelines: without a network, without a token, without sleeping.

::

    from rxtweets.testing import DummySource, VirtualTime, test_batch

    def test_words_become_upper_case():
        pipeline = Pipeline(DummySource(), handle_message=upcase, batchers={...})
        with VirtualTime(pipeline) as clock:
            acks = test_batch(pipeline, ["a", "b"])
            clock.advance(1.0)                      # the timeout of the batch
        assert [message.data for message in acks.successful] == ["A", "B"]
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from reactivex import abc
from reactivex.scheduler import VirtualTimeScheduler

from rxtweets._core.observable import ChunkGate, MessageStream, SourceSubscription, new_telemetry
from rxtweets._messages.message import Acknowledger, BatchMode, Message
from rxtweets._support.validation import seconds
from rxtweets.errors import ConfigurationError
from rxtweets.pipeline import Pipeline

__all__ = ["DummySource", "RecordingAcknowledger", "VirtualTime", "test_batch", "test_message"]


class RecordingAcknowledger:
    """Keeps what it is told; from any thread.

    Attributes:
        calls: the successful and the failed messages of each call.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.calls: list[tuple[tuple[Message[Any], ...], tuple[Message[Any], ...]]] = []

    def ack(self, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Keep the outcome."""
        with self._changed:
            self.calls.append((tuple(successful), tuple(failed)))
            self._changed.notify_all()

    @property
    def successful(self) -> list[Message[Any]]:
        """All messages that succeeded so far, in order."""
        return [message for good, _ in self.calls for message in good]

    @property
    def failed(self) -> list[Message[Any]]:
        """All messages that failed so far, in order."""
        return [message for _, bad in self.calls for message in bad]

    def wait_for(self, count: int, timeout: float | timedelta = 10.0) -> bool:
        """Wait until so many messages were acknowledged, successful or not.

        Args:
            count: messages.
            timeout: seconds.

        Returns:
            Whether it came to that.
        """
        with self._changed:
            return self._changed.wait_for(
                lambda: len(self.successful) + len(self.failed) >= count,
                seconds("timeout", timeout),
            )


class DummySource(MessageStream[Any]):
    """A source that gives nothing, and ends when its pipeline does: messages are pushed."""

    def __init__(self) -> None:
        telemetry = new_telemetry(source="DummySource")

        def subscribe(
            observer: abc.ObserverBase[list[Message[Any]]], _: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            gate = ChunkGate(observer)
            return SourceSubscription(gate, ChunkGate.close, _complete, telemetry)

        super().__init__(subscribe, telemetry)

    def __repr__(self) -> str:
        return "<DummySource>"


class VirtualTime:
    """Runs a pipeline on a clock that moves only when the test moves it.

    Handlers, batches, limits, restarts and subscribers all run on the thread of the test, at their
    very time. Leaving the block drains the pipeline.

    Args:
        pipeline: not yet started.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._scheduler = VirtualTimeScheduler()

    @property
    def now(self) -> float:
        """Seconds since the pipeline was started."""
        return float(self._scheduler.clock)

    def advance(self, time: float | timedelta) -> None:
        """Let so many seconds pass; what was due in them happens now."""
        self._scheduler.advance_by(seconds("time", time))

    def __enter__(self) -> Self:
        self._pipeline.start(scheduler=self._scheduler)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pipeline.stop(drain=kind is None)


def test_message(
    pipeline: Pipeline,
    data: Any,
    *,
    metadata: Mapping[str, Any] | None = None,
    acknowledger: Acknowledger | None = None,
) -> RecordingAcknowledger:
    """Push one message into a running pipeline; its batch is sent on at once.

    Args:
        pipeline: started.
        data: of the message; or a message, which keeps its metadata.
        metadata: of the message; none by default.
        acknowledger: told the outcome too.

    Returns:
        What is told the outcome; ``wait_for(1)`` waits for it.
    """
    return _push(pipeline, [data], "flush", metadata, acknowledger)


def test_batch(
    pipeline: Pipeline,
    data: Iterable[Any],
    *,
    batch_mode: BatchMode = "bulk",
    metadata: Mapping[str, Any] | None = None,
    acknowledger: Acknowledger | None = None,
) -> RecordingAcknowledger:
    """Push several messages into a running pipeline.

    Args:
        pipeline: started.
        data: of each message; or messages, which keep their metadata. A text gives its characters.
        batch_mode: ``bulk`` batches them as usual, ``flush`` sends batches on at once.
        metadata: of each message; none by default.
        acknowledger: told the outcome too.

    Returns:
        What is told the outcome; ``wait_for(count)`` waits for it.
    """
    return _push(pipeline, data, batch_mode, metadata, acknowledger)


# Their names are Broadway's, and pytest would take them for tests.
for _helper in (test_message, test_batch):
    _helper.__dict__["__test__"] = False


class _Both(RecordingAcknowledger):
    def __init__(self, other: Acknowledger) -> None:
        super().__init__()
        self._other = other

    def ack(self, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        try:
            self._other.ack(successful, failed)
        finally:
            super().ack(successful, failed)

    def configure(self, ack_ref: Any, ack_data: Any, options: Mapping[str, Any]) -> Any:
        configured: Any = self._other
        return configured.configure(ack_ref, ack_data, options)


def _push(
    pipeline: Pipeline,
    data: Iterable[Any],
    batch_mode: BatchMode,
    metadata: Mapping[str, Any] | None,
    acknowledger: Acknowledger | None,
) -> RecordingAcknowledger:
    recording = RecordingAcknowledger() if acknowledger is None else _Both(acknowledger)
    messages = [
        _message(each, metadata).with_acknowledger(recording).put_batch_mode(batch_mode)
        for each in data
    ]
    pipeline.push(messages)
    return recording


def _message(data: Any, metadata: Mapping[str, Any] | None) -> Message[Any]:
    if not isinstance(data, Message):
        return Message(data, metadata or {})
    if metadata is not None:
        raise ConfigurationError("metadata: not with messages, which have their own")
    return data


def _complete(*gates: ChunkGate[Any]) -> None:
    for gate in gates:
        gate.on_completed()
