"""What happens in a stream, as frozen values: logs, metrics and displays are made from these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rxtweets.errors import DecodeError, RxTweetsError
from rxtweets.message import Batch, Message

__all__ = [
    "Abandoned",
    "AcknowledgerFailed",
    "BatchDelivered",
    "BatchFailed",
    "Connected",
    "Connecting",
    "DisconnectAnnounced",
    "Disconnected",
    "Event",
    "HandlerFailed",
    "OverflowBegan",
    "OverflowEnded",
    "PartialErrors",
    "Reconnecting",
    "StreamEnded",
    "SubscriberFailed",
    "UndecodableLine",
    "UnknownMessage",
]


@dataclass(frozen=True, slots=True)
class Event:
    """The base of all events."""


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
    """

    delay: float
    attempt: int
    error: RxTweetsError


@dataclass(frozen=True, slots=True)
class StreamEnded(Event):
    """The stream is over: completed (``error`` is ``None``) or failed for good."""

    error: RxTweetsError | None


@dataclass(frozen=True, slots=True)
class OverflowBegan(Event):
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
    """A line that is not JSON, is too long, or was cut off; ``error.line`` has its bytes."""

    error: DecodeError


@dataclass(frozen=True, slots=True)
class UnknownMessage(Event):
    """A message of a shape that is not known: the value, and the line."""

    value: Any
    line: bytes


@dataclass(frozen=True, slots=True)
class PartialErrors(Event):
    """A tweet came with errors about parts of it; they are in its metadata."""

    message: Message[Any]


@dataclass(frozen=True, slots=True)
class HandlerFailed(Event):
    """A handler raised, broke its contract, or failed the message; ``message.status`` says why."""

    message: Message[Any]


@dataclass(frozen=True, slots=True)
class SubscriberFailed(Event):
    """A subscriber raised on this value; the stream went on."""

    value: object
    error: BaseException


@dataclass(frozen=True, slots=True)
class BatchDelivered(Event):
    """A subscriber took a batch."""

    batch: Batch[Any]


@dataclass(frozen=True, slots=True)
class BatchFailed(Event):
    """A subscriber raised on a batch; its messages were acknowledged as failed."""

    batch: Batch[Any]
    error: BaseException


@dataclass(frozen=True, slots=True)
class AcknowledgerFailed(Event):
    """An acknowledger raised; the outcome of these messages is unknown to their source."""

    messages: tuple[Message[Any], ...]
    error: BaseException


@dataclass(frozen=True, slots=True)
class Abandoned(Event):
    """Messages were still on their way when somebody stopped at once, or a deadline ran out."""

    count: int
    where: str
