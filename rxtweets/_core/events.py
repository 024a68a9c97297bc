"""What happens in a stream, as frozen values: logs, metrics and displays are made from these."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from rxtweets._core.connection_state import ConnectionState
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets.errors import DecodeError, RxTweetsError

__all__ = [
    "Abandoned",
    "AcknowledgerFailed",
    "BackfillRefused",
    "BackfillRequested",
    "BatchDelivered",
    "BatchFailed",
    "BatchStarted",
    "Connected",
    "Connecting",
    "ConnectionsClosed",
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


@dataclass(frozen=True, slots=True)
class Event:
    """The base of all events.

    Attributes:
        part: which of the connections it comes from, where a stream is a merge of several;
            else empty.
    """

    part: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class StateChanged(Event):
    """The connection is in another state."""

    state: ConnectionState


@dataclass(frozen=True, slots=True)
class Gap(Event):
    """Of this time nothing was read, and nothing will be: what X sent in it is missing.

    The ids are those of the messages before and after it, in the order of delivery, so where ids
    grow with that order, what is missing lies between them. A ``start_time`` and an ``end_time``
    on a second connection can bring it back, for a day.

    Attributes:
        start: when the stream last spoke, in UTC.
        end: when it could be read again, or from when on backfill has made up for it.
        after: id of the last message before; empty if there was none.
        before: id of the first message after; empty if the stream first spoke in another way.
    """

    start: datetime
    end: datetime
    after: str
    before: str


@dataclass(frozen=True, slots=True)
class BackfillRequested(Event):
    """A connection asked for what it missed.

    Attributes:
        number: of the connection.
        minutes: that it asked for.
        since: when the stream last spoke, in UTC; ``None`` if that is not known.
    """

    number: int
    minutes: int
    since: datetime | None


@dataclass(frozen=True, slots=True)
class BackfillRefused(Event):
    """The server gives no backfill to this account; from now on it is not asked for."""

    error: RxTweetsError


@dataclass(frozen=True, slots=True)
class ConnectionsClosed(Event):
    """The token's connections were taken: X was asked to give them up.

    Attributes:
        count: how many it gave up.
        error: why it could not be asked; ``None`` if it could.
    """

    count: int
    error: RxTweetsError | None


@dataclass(frozen=True, slots=True)
class LimitReached(Event):
    """The stream completes because of its ``limit``.

    Attributes:
        messages: delivered so far.
        left_out: messages that had come already, beyond the limit.
    """

    messages: int
    left_out: int


@dataclass(frozen=True, slots=True)
class PartEnded(Event):
    """One connection of several is over, the others go on.

    Attributes:
        error: that ended it for good; ``None`` if it is complete.
    """

    error: Exception | None


@dataclass(frozen=True, slots=True)
class StateFileFailed(Event):
    """The position could not be written; the stream goes on."""

    path: str
    error: Exception


@dataclass(frozen=True, slots=True)
class RulesSynced(Event):
    """The rules were made equal to those that the stream was given.

    Attributes:
        added: how many were added.
        deleted: how many were deleted.
        kept: how many were there already.
    """

    added: int
    deleted: int
    kept: int


@dataclass(frozen=True, slots=True)
class Connecting(Event):
    """A connection is being made; ``number`` counts from 1 over the life of the stream."""

    number: int
    url: str


@dataclass(frozen=True, slots=True)
class Connected(Event):
    """The server answered with the stream."""

    number: int
    http_version: str


@dataclass(frozen=True, slots=True)
class DisconnectAnnounced(Event):
    """The server said in the stream that it disconnects, with X's name for the reason."""

    disconnect_type: str
    detail: str


@dataclass(frozen=True, slots=True)
class Disconnected(Event):
    """A connection ended.

    Attributes:
        number: of the connection.
        error: why; ``None`` if we closed it ourselves.
        lines: how many lines it brought, keep-alives included.
        seconds: how long it lived after the answer.
    """

    number: int
    error: RxTweetsError | None
    lines: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Reconnecting(Event):
    """The next connection is made after a wait.

    Attributes:
        delay: seconds until then.
        attempt: how often in a row this kind of failure has happened, from 1.
        error: the failure.
        wait_from: where the delay comes from: the schedule (``backoff``), the server
            (``Retry-After``, ``x-rate-limit-reset``), X's window of 15 minutes because the server
            named no plausible time (``window``), or the connects made so far (``connect budget``).
    """

    delay: float
    attempt: int
    error: RxTweetsError
    wait_from: WaitFrom = "backoff"


@dataclass(frozen=True, slots=True)
class StreamEnded(Event):
    """The stream is over: completed (``error`` is ``None``) or failed for good."""

    error: RxTweetsError | None


@dataclass(frozen=True, slots=True)
class OverflowStarted(Event):
    """The hand-off is full and messages are being dropped, by this policy."""

    policy: str
    capacity: int


@dataclass(frozen=True, slots=True)
class OverflowEnded(Event):
    """A burst of drops is over; ``dropped`` messages are lost since it began."""

    policy: str
    dropped: int


@dataclass(frozen=True, slots=True)
class UndecodableLine(Event):
    """A line that is not JSON, is too long, or was cut off; ``error.line`` has its bytes.

    Attributes:
        error: says why.
        place: of a recording, the file and the number of the line; else empty.
    """

    error: DecodeError
    place: str = ""


@dataclass(frozen=True, slots=True)
class UnknownMessage(Event):
    """A message of a shape that is not known.

    Attributes:
        value: that was decoded.
        line: its bytes.
        place: of a recording, the file and the number of the line; else empty.
    """

    value: Any
    line: bytes
    place: str = ""


@dataclass(frozen=True, slots=True)
class PartialErrors(Event):
    """A tweet came with errors about parts of it; they are in its metadata."""

    message: Message[Any]


@dataclass(frozen=True, slots=True)
class HandlerFailed(Event):
    """A handler raised, broke its contract, or failed the message; ``message.status`` says why."""

    message: Message[Any]


@dataclass(frozen=True, slots=True)
class HandlerRetried(Event):
    """A message that failed is given to its handler again.

    Attributes:
        message: failed; its ``status`` says why.
        attempt: that failed, from 1.
        delay: seconds until the next one.
    """

    message: Message[Any]
    attempt: int
    delay: float


@dataclass(frozen=True, slots=True)
class WorkerReplaced(Event):
    """A thread, event loop or executor is no good any more; another takes its place.

    Attributes:
        what: ``thread``, ``loop`` or ``executor``.
        error: why.
        messages: that were in its hands, and have failed.
        lost: whether it goes on for nobody, as a thread does whose call takes too long.
    """

    what: str
    error: BaseException
    messages: int
    lost: bool = False


@dataclass(frozen=True, slots=True)
class SubscriberFailed(Event):
    """A subscriber raised on this value; the stream went on."""

    value: object
    error: BaseException


@dataclass(frozen=True, slots=True)
class BatchStarted(Event):
    """A subscriber is given a batch; published only while somebody listens."""

    batch: Batch[Any]


@dataclass(frozen=True, slots=True)
class BatchDelivered(Event):
    """A subscriber took a batch; published only while somebody listens.

    Attributes:
        batch: with the status that each message has now.
        seconds: that the subscriber took.
    """

    batch: Batch[Any]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class BatchFailed(Event):
    """A subscriber raised on a batch; its messages were acknowledged as failed."""

    batch: Batch[Any]
    error: BaseException
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class FailureHandled(Event):
    """`handle_failed` was given messages; published only while somebody listens.

    Attributes:
        messages: what it returned.
        seconds: that it took.
    """

    messages: tuple[Message[Any], ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class FailureHandlerFailed(Event):
    """`handle_failed` raised or broke its contract; the messages were acknowledged as they were.

    Attributes:
        messages: what it was given.
        error: what it raised, or what was wrong with its answer.
        seconds: that it took.
    """

    messages: tuple[Message[Any], ...]
    error: BaseException
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class AcknowledgerFailed(Event):
    """An acknowledger raised; the outcome of these messages is unknown to their source."""

    messages: tuple[Message[Any], ...]
    error: BaseException


@dataclass(frozen=True, slots=True)
class DrainUnavailable(Event):
    """A pipeline has a source that it cannot drain: a stop drops messages that wait in there.

    An operator such as ``subscribe_on`` or ``delay_subscription`` subscribes to the stream later,
    or on another thread.

    Attributes:
        number: of the source, from 0.
        source: its name.
    """

    number: int
    source: str


@dataclass(frozen=True, slots=True)
class Abandoned(Event):
    """Messages were in flight when a stage stopped at once, or a thread of it died."""

    count: int
    where: str


@dataclass(frozen=True, slots=True)
class Span(Event):
    """Some work has begun, or is over. Made only while somebody has subscribed to ``spans``.

    Attributes:
        number: of this piece of work; the same when it begins and when it is over.
        started: when it began, in seconds since 1970.
    """

    number: int
    started: float


@dataclass(frozen=True, slots=True)
class ProcessorStarted(Span):
    """A processor takes up messages."""


@dataclass(frozen=True, slots=True)
class ProcessorStopped(Span):
    """A processor is through with the messages it took up.

    Attributes:
        successful: what became of those that are passed on.
        failed: those that are not.
        duration: seconds it took.
    """

    successful: tuple[Message[Any], ...]
    failed: tuple[Message[Any], ...]
    duration: float


@dataclass(frozen=True, slots=True)
class Prepared(Span):
    """``prepare`` was given messages, before their handlers.

    Attributes:
        messages: what it gave back; failed, if it raised.
        duration: seconds it took.
        error: that it raised, or what was wrong with its answer.
    """

    messages: tuple[Message[Any], ...]
    duration: float
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class HandlerStarted(Span):
    """A handler is called.

    Attributes:
        parent: the number of the processor's span that it belongs to.
        message: that it is given.
    """

    parent: int
    message: Message[Any]


@dataclass(frozen=True, slots=True)
class HandlerStopped(Span):
    """A handler has returned.

    Attributes:
        parent: the number of the processor's span that it belongs to.
        message: that it returned; it may have failed it.
        duration: seconds it took.
    """

    parent: int
    message: Message[Any]
    duration: float


@dataclass(frozen=True, slots=True)
class HandlerRaised(Span):
    """A handler has raised, or was stopped.

    Attributes:
        parent: the number of the processor's span that it belongs to.
        message: that it was given.
        error: that it raised.
        duration: seconds it took.
    """

    parent: int
    message: Message[Any]
    error: BaseException
    duration: float


@dataclass(frozen=True, slots=True)
class PipelineStarted(Event):
    """A pipeline has begun.

    Attributes:
        topology: its stages, a `rxtweets.pipeline.Topology`.
    """

    topology: Any


@dataclass(frozen=True, slots=True)
class PipelineEnded(Event):
    """A pipeline is over.

    Attributes:
        error: what ended it; ``None`` if it is complete or was stopped.
        seconds: since it was started.
    """

    error: Exception | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Paused(Event):
    """A pipeline takes nothing from its sources for now."""


@dataclass(frozen=True, slots=True)
class Resumed(Event):
    """A paused pipeline takes from its sources again."""


@dataclass(frozen=True, slots=True)
class SourceRestarting(Event):
    """A source of a pipeline failed and will be subscribed to again.

    Attributes:
        source: which one, from 0.
        attempt: how often it has failed within the time that the policy looks at, from 1.
        delay: seconds until then.
        error: why.
    """

    source: int
    attempt: int
    delay: float
    error: Exception


@dataclass(frozen=True, slots=True)
class SourceFailed(Event):
    """A source of a pipeline failed for good, and the pipeline ends."""

    source: int
    error: Exception
