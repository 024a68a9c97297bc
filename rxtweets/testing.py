"""Helpers for tests of pipelines: without a network, without a token, without sleeping.

A pipeline under `VirtualTime` has a clock that only the test moves. `test_message` and `test_batch`
push messages into it, and return the acknowledgements.

::

    from rxtweets.testing import DummySource, VirtualTime, test_batch

    def test_words_become_upper_case():
        pipeline = Pipeline(DummySource(), handle_message=upcase, batchers={...})
        with VirtualTime(pipeline) as clock:
            acks = test_batch(pipeline, ["a", "b"])
            clock.advance(1.0)                      # the timeout of the batch
        assert [message.data for message in acks.successful] == ["A", "B"]

A subscriber can also be called directly:
``languages.on_next(Batch([Message("hola", {"id": "1", "lang": "es"})]))``. A message has a
``created_at`` if its id has 19 digits, as X's ids do, or if ``created_at`` is given.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from reactivex import abc
from reactivex.scheduler import VirtualTimeScheduler

from rxtweets._core.draining import SourceSubscription
from rxtweets._core.gates import ChunkGate
from rxtweets._core.observable import MessageStream, new_telemetry
from rxtweets._messages.message import Acknowledger, BatchMode, Message
from rxtweets._support.validation import seconds
from rxtweets.errors import ConfigurationError
from rxtweets.pipeline import Pipeline

__all__ = ["DummySource", "RecordingAcknowledger", "VirtualTime", "test_batch", "test_message"]


class RecordingAcknowledger:
    """An acknowledger that keeps its calls; thread-safe.

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
        """All successful messages so far, in order."""
        return [message for good, _ in self.calls for message in good]

    @property
    def failed(self) -> list[Message[Any]]:
        """All failed messages so far, in order."""
        return [message for _, bad in self.calls for message in bad]

    def wait_for(self, count: int, timeout: float | timedelta = 10.0) -> bool:
        """Wait until ``count`` messages are acknowledged, successful or not.

        Args:
            count: messages.
            timeout: most seconds.

        Returns:
            Whether they are.
        """
        with self._changed:
            return self._changed.wait_for(
                lambda: len(self.successful) + len(self.failed) >= count,
                seconds("timeout", timeout),
            )


class DummySource(MessageStream[Any]):
    """A source without messages, which ends with its pipeline: the test pushes messages."""

    def __init__(self) -> None:
        telemetry = new_telemetry(source="DummySource")

        def complete(*gates: ChunkGate[Any]) -> None:
            for gate in gates:
                gate.on_completed()

        def subscribe(
            observer: abc.ObserverBase[list[Message[Any]]], _: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            return SourceSubscription(ChunkGate(observer), ChunkGate.close, complete, telemetry)

        super().__init__(subscribe, telemetry)

    def __repr__(self) -> str:
        return "<DummySource>"


class VirtualTime:
    """Runs a pipeline on a clock that only the test moves.

    Handlers, batches, limits, restarts and subscribers run on the thread of the test, exactly at
    their time. Leaving the block drains the pipeline; an exception in the block stops it
    immediately.

    Args:
        pipeline: not yet started.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._scheduler = VirtualTimeScheduler()

    @property
    def now(self) -> float:
        """Seconds since the start of the pipeline."""
        return float(self._scheduler.clock)

    def advance(self, time: float | timedelta) -> None:
        """Move the clock by ``time`` seconds, and run the work that is due by then."""
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
    """Push one message into a running pipeline, and flush its batch.

    Args:
        pipeline: started.
        data: of the message; or a message, which keeps its metadata.
        metadata: of the message; empty by default.
        acknowledger: receives the outcome too.

    Returns:
        The acknowledger of the message; ``wait_for(1)`` waits for the outcome.

    Raises:
        PipelineError: the pipeline does not run.
        ConfigurationError: ``metadata`` is given with a message.
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
        data: of each message; or messages, which keep their metadata. A text is a series of
            characters.
        batch_mode: ``bulk`` batches the messages as usual, ``flush`` flushes their batches.
        metadata: of each message; empty by default.
        acknowledger: receives the outcome too.

    Returns:
        The acknowledger of the messages; ``wait_for(count)`` waits for the outcome.

    Raises:
        PipelineError: the pipeline does not run.
        ConfigurationError: ``metadata`` is given with messages.
    """
    return _push(pipeline, data, batch_mode, metadata, acknowledger)


# Their names are Broadway's; pytest must not collect them.
for _helper in (test_message, test_batch):
    _helper.__dict__["__test__"] = False


class _ForwardingAcknowledger(RecordingAcknowledger):
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
    recording = (
        RecordingAcknowledger() if acknowledger is None else _ForwardingAcknowledger(acknowledger)
    )

    def message_of(value: Any) -> Message[Any]:
        is_message = isinstance(value, Message)
        if is_message and metadata is not None:
            raise ConfigurationError("metadata: not with messages, which have their own")
        message: Message[Any] = value if is_message else Message(value, metadata or {})
        return message.with_acknowledger(recording).put_batch_mode(batch_mode)

    pipeline.push([message_of(value) for value in data])
    return recording
