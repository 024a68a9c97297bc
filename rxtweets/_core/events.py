"""Events of streams and pipelines, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, dataclass_transform

from rxtweets._core.connection_state import ConnectionState
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets.errors import DecodeError, RxTweetsError

__all__ = [
    "Abandoned",
    "AcknowledgementsLost",
    "AcknowledgerFailed",
    "BackfillRefused",
    "BackfillRequested",
    "BatchDelivered",
    "BatchFailed",
    "BatchStarted",
    "BrokerLost",
    "BrokerReconnected",
    "Connected",
    "Connecting",
    "ConnectionsClosed",
    "DeadLettered",
    "DisconnectAnnounced",
    "Disconnected",
    "DrainUnavailable",
    "Event",
    "FailureHandled",
    "FailureHandlerFailed",
    "Gap",
    "HandlerFailed",
    "HandlerRaised",
    "HandlerRetried",
    "HandlerStarted",
    "HandlerStopped",
    "LimitReached",
    "OverflowEnded",
    "OverflowStarted",
    "PartEnded",
    "PartialErrors",
    "Paused",
    "PipelineEnded",
    "PipelineStarted",
    "Prepared",
    "ProcessorStarted",
    "ProcessorStopped",
    "Reconnecting",
    "Resumed",
    "RulesSynced",
    "SourceFailed",
    "SourceRestarting",
    "Span",
    "StateChanged",
    "StateFileFailed",
    "StreamEnded",
    "SubscriberFailed",
    "UndecodableLine",
    "UnknownMessage",
    "WorkerReplaced",
]

WaitFrom = Literal["backoff", "Retry-After", "x-rate-limit-reset", "window", "connect budget"]
"""The origin of a wait; see `Reconnecting`."""


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
@dataclass(frozen=True)
class Event:
    """The base of all events, which are frozen dataclasses.

    Attributes:
        part: name of the connection, where a stream merges several; else empty.
    """

    part: str = field(default="", kw_only=True)

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)


# Connections.


class StateChanged(Event):
    """The state of the connection changed."""

    state: ConnectionState


class Connecting(Event):
    """A connection is being opened; ``number`` counts from 1 over the life of the stream."""

    number: int
    url: str


class Connected(Event):
    """The server answered with the stream."""

    number: int
    http_version: str


class DisconnectAnnounced(Event):
    """The server announced a disconnect in the stream, with X's name for the reason."""

    disconnect_type: str
    detail: str


class Disconnected(Event):
    """A connection ended.

    Attributes:
        number: of the connection.
        error: the reason; ``None`` if rxtweets closed the connection.
        lines: lines received, keep-alives included.
        seconds: from the answer to the end.
    """

    number: int
    error: RxTweetsError | None
    lines: int
    seconds: float


class Reconnecting(Event):
    """The stream reconnects after a wait.

    Attributes:
        delay: seconds to wait.
        attempt: failures of this kind in a row, from 1.
        error: the failure.
        wait_from: origin of the delay: the schedule (``backoff``), the server (``Retry-After``,
            ``x-rate-limit-reset``), X's window of 15 minutes where the server named no plausible
            time (``window``), or the number of recent connects (``connect budget``).
    """

    delay: float
    attempt: int
    error: RxTweetsError
    wait_from: WaitFrom = "backoff"


class ConnectionsClosed(Event):
    """X was asked to close the connections of this token, as all were taken.

    Attributes:
        count: connections that X closed.
        error: the reason why the request failed; ``None`` if it succeeded.
    """

    count: int
    error: RxTweetsError | None


class PartEnded(Event):
    """One connection of several ended; the others continue.

    Attributes:
        error: the final error; ``None`` if the connection completed.
    """

    error: Exception | None


class StreamEnded(Event):
    """The stream completed (``error`` is ``None``) or failed for good."""

    error: RxTweetsError | None


class LimitReached(Event):
    """The stream completes because it reached its ``limit``.

    Attributes:
        messages: delivered so far.
        left_out: messages received beyond the limit.
    """

    messages: int
    left_out: int


class RulesSynced(Event):
    """The rules at X now equal the rules given to the stream.

    Attributes:
        added: number of rules added.
        deleted: number of rules deleted.
        kept: number of rules that were there already.
    """

    added: int
    deleted: int
    kept: int


# Gaps.


class Gap(Event):
    """The stream was not read for a time, and backfill did not cover it.

    Where ids grow with the order of delivery, the missing ids lie between ``after`` and
    ``before``. A stream with ``start_time`` and ``end_time`` replays them for a day.

    Attributes:
        start: last time the stream was read before the gap, in UTC.
        end: end of the gap, in UTC: the reconnect, or the first moment covered by backfill.
        after: id of the last message before the gap; empty if there was none.
        before: id of the first message after the gap; empty if no message followed directly.
    """

    start: datetime
    end: datetime
    after: str
    before: str


class BackfillRequested(Event):
    """A connection requested backfill.

    Attributes:
        number: of the connection.
        minutes: requested.
        since: last time the stream was read, in UTC; ``None`` if unknown.
    """

    number: int
    minutes: int
    since: datetime | None


class BackfillRefused(Event):
    """The account has no backfill; the stream does not request it again."""

    error: RxTweetsError


class StateFileFailed(Event):
    """The state file could not be written; the stream continues."""

    path: str
    error: Exception


# Lines and messages of a stream.


class OverflowStarted(Event):
    """The buffer is full, and messages are dropped by this policy."""

    policy: str
    capacity: int


class OverflowEnded(Event):
    """The buffer has room again; ``dropped`` messages were lost since the overflow started."""

    policy: str
    dropped: int


class UndecodableLine(Event):
    """A line is not JSON, too long, or cut off; ``error.line`` has its bytes.

    Attributes:
        error: the reason.
        place: file and line number in a recording; else empty.
    """

    error: DecodeError
    place: str = ""


class UnknownMessage(Event):
    """A line has JSON of unknown shape.

    Attributes:
        value: the decoded JSON.
        line: its bytes.
        place: file and line number in a recording; else empty.
    """

    value: Any
    line: bytes
    place: str = ""


class PartialErrors(Event):
    """A tweet carries errors about parts of it; they are in its metadata."""

    message: Message[Any]


# Handlers.


class HandlerFailed(Event):
    """A handler raised, broke its contract, or failed the message; see ``message.status``."""

    message: Message[Any]


class HandlerRetried(Event):
    """A failed message is handled again.

    Attributes:
        message: failed; its ``status`` has the reason.
        attempt: the attempt that failed, from 1.
        delay: seconds until the next attempt.
    """

    message: Message[Any]
    attempt: int
    delay: float


class WorkerReplaced(Event):
    """A thread, event loop or executor died or hangs, and another one replaced it.

    Attributes:
        worker: ``thread``, ``loop`` or ``executor``.
        error: the reason.
        messages: number of messages that it was handling; they failed.
        lost: the thread still runs, but its result is ignored.
    """

    worker: str
    error: BaseException
    messages: int
    lost: bool = False


class FailureHandled(Event):
    """``on_failed`` or ``handle_failed`` returned; published only while an observer is subscribed.

    Attributes:
        messages: returned by the function.
        seconds: taken by the function.
    """

    messages: tuple[Message[Any], ...]
    seconds: float


class FailureHandlerFailed(Event):
    """``on_failed`` or ``handle_failed`` raised or broke its contract.

    The messages are acknowledged as they were given.

    Attributes:
        messages: given to the function.
        error: raised by the function, or a `HandlerError` about its result.
        seconds: taken by the function.
    """

    messages: tuple[Message[Any], ...]
    error: BaseException
    seconds: float = 0.0


# Subscribers and acknowledgers.


class BatchStarted(Event):
    """A subscriber is given a batch; published only while an observer is subscribed."""

    batch: Batch[Any]


class BatchDelivered(Event):
    """A subscriber took a batch; published only while an observer is subscribed.

    Attributes:
        batch: each message with its final status.
        seconds: taken by the subscriber.
    """

    batch: Batch[Any]
    seconds: float = 0.0


class BatchFailed(Event):
    """A subscriber raised on a batch; its messages were acknowledged as failed."""

    batch: Batch[Any]
    error: BaseException
    seconds: float = 0.0


class SubscriberFailed(Event):
    """A subscriber raised on this value; the stream continues."""

    value: object
    error: BaseException


class AcknowledgerFailed(Event):
    """An acknowledger raised; its source may not know the outcome of these messages."""

    messages: tuple[Message[Any], ...]
    error: BaseException


class Abandoned(Event):
    """Messages were in flight when a stage stopped immediately, or when one of its threads died.

    They are not acknowledged, so a broker redelivers them.
    """

    count: int
    where: str


# Brokers.


class BrokerLost(Event):
    """The connection to a broker is lost; the source connects again.

    Attributes:
        error: of the connection.
        attempt: number of failures in a row.
        delay: seconds until the next attempt.
    """

    error: Exception
    attempt: int
    delay: float


class BrokerReconnected(Event):
    """The source takes messages again.

    Attributes:
        seconds: since the first failure.
    """

    seconds: float


class AcknowledgementsLost(Event):
    """A broker did not get outcomes, so it delivers these messages again.

    Attributes:
        messages: their number.
        error: of the connection; ``None`` if a lease had ended.
    """

    messages: int
    error: Exception | None


class DeadLettered(Event):
    """A message is stored in the queue for dead letters.

    Attributes:
        key: of the message.
        attempts: the number of deliveries.
        reason: of the last failure.
    """

    key: str
    attempts: int
    reason: object


# Pipelines.


class PipelineStarted(Event):
    """A pipeline started.

    Attributes:
        topology: its stages, a `rxtweets.pipeline.Topology`.
    """

    topology: Any


class PipelineEnded(Event):
    """A pipeline ended.

    Attributes:
        error: the final error; ``None`` if it completed or was stopped.
        seconds: since its start.
    """

    error: Exception | None
    seconds: float


class Paused(Event):
    """A pipeline was paused: it takes nothing from its sources."""


class Resumed(Event):
    """A paused pipeline was resumed."""


class SourceRestarting(Event):
    """A source of a pipeline failed, and the pipeline subscribes to it again.

    Attributes:
        source: its number, from 0.
        attempt: failures within the time that the policy counts, from 1.
        delay: seconds until the restart.
        error: the failure.
    """

    source: int
    attempt: int
    delay: float
    error: Exception


class SourceFailed(Event):
    """A source of a pipeline failed for good, and the pipeline ends."""

    source: int
    error: Exception


class DrainUnavailable(Event):
    """A pipeline cannot drain a source: a stop drops and counts the messages that wait in it.

    The reading and delivering threads count some of them after `Pipeline.stop` has returned.

    A drain reaches streams through operators of RxPY, fluent or in ``pipe``, several in a row and
    mixed with ours: ``merge``, ``concat``, ``share``, ``publish``, ``repeat``, ``observe_on``. It
    does not reach a stream that is subscribed to later or on another thread: ``subscribe_on``,
    ``delay_subscription``, or ``merge`` and ``concat`` before an operator that takes time.

    Some drains fail without this event:

    - A drain misses a stream that follows a shared merge (``merge(a, b).share().concat(c)``), or
      that is merged with a source that never completes. It ends at its time limit. Give such
      sources to the pipeline in a list instead of merging them.
    - With a merge behind ``share`` of `reactivex.operators`, or a share of a merge of shares, the
      pipeline that stops first completes the others.
    - Messages in operators of RxPY (``delay``, ``observe_on``, ``buffer``) at an immediate stop, or
      at the time limit of a drain, are not counted.

    Attributes:
        number: of the source, from 0.
        source: its name.
    """

    number: int
    source: str


# Spans.


class Span(Event):
    """Work started or stopped; published only on ``spans``, while an observer is subscribed.

    Attributes:
        number: of this work; equal in the events of its start and its end.
        started: seconds since 1970.
    """

    number: int
    started: float


class ProcessorStarted(Span):
    """A processor takes messages."""


class ProcessorStopped(Span):
    """A processor finished its messages.

    Attributes:
        successful: messages passed on.
        failed: messages that failed.
        duration: seconds.
    """

    successful: tuple[Message[Any], ...]
    failed: tuple[Message[Any], ...]
    duration: float


class Prepared(Span):
    """``prepare`` was called with messages, before their handlers.

    Attributes:
        messages: returned by it; failed, if it raised.
        duration: seconds.
        error: raised by it, or a `HandlerError` about its result.
    """

    messages: tuple[Message[Any], ...]
    duration: float
    error: BaseException | None = None


class HandlerStarted(Span):
    """A handler is called.

    Attributes:
        parent: number of the processor's span.
        message: given to the handler.
    """

    parent: int
    message: Message[Any]


class HandlerStopped(Span):
    """A handler returned.

    Attributes:
        parent: number of the processor's span.
        message: returned by the handler; it may have failed.
        duration: seconds.
    """

    parent: int
    message: Message[Any]
    duration: float


class HandlerRaised(Span):
    """A handler raised, or was stopped.

    Attributes:
        parent: number of the processor's span.
        message: given to the handler.
        error: raised by the handler.
        duration: seconds.
    """

    parent: int
    message: Message[Any]
    error: BaseException
    duration: float
