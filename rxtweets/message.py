"""What travels through a stream: messages, batches of them, and who is told their outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, cast, overload

import orjson

from rxtweets.errors import DecodeError

__all__ = [
    "Acknowledger",
    "Batch",
    "BatchInfo",
    "CallerAcknowledger",
    "Failed",
    "MatchingRule",
    "Message",
    "NoopAcknowledger",
    "Status",
    "group_by_acknowledger",
    "is_tweet",
]

T = TypeVar("T")
U = TypeVar("U")
T_co = TypeVar("T_co", covariant=True)

SNOWFLAKE_EPOCH_MS = 1_288_834_974_657
"""When X's ids began to hold their time: 2010-11-04T01:42:54.657Z, in milliseconds."""

FIRST_SNOWFLAKE = 29_700_859_247
"""The last sequential id was below this; above, the upper bits are milliseconds."""


TOO_LARGE = 2**63
"""Ids have 63 bits."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The status of a message that did not make it.

    Attributes:
        reason: the exception that was raised, or what a handler gave to `Message.failed`.
    """

    reason: object


Status = Literal["ok"] | Failed


class MatchingRule(NamedTuple):
    """A rule of the filtered stream that a tweet matched.

    Attributes:
        id: the rule's id, as text, whichever way the wire had it.
        tag: the rule's tag; empty where the rule has none.
    """

    id: str
    tag: str


class Acknowledger(Protocol):
    """Is told, once for every message, how it ended."""

    def ack(self, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Take the outcome of messages that name this acknowledger, in their order."""


class NoopAcknowledger:
    """For sources that have nobody to tell, as X's stream."""

    def ack(self, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Do nothing."""

    def __repr__(self) -> str:
        return "NoopAcknowledger()"


class CallerAcknowledger:
    """Passes every outcome on to a function: for tests, and for bridges to other systems."""

    def __init__(
        self, tell: Callable[[Sequence[Message[Any]], Sequence[Message[Any]]], object]
    ) -> None:
        self._tell = tell

    def ack(self, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Call the function with the messages that succeeded and those that failed."""
        self._tell(successful, failed)


NOOP = NoopAcknowledger()
EMPTY: Mapping[str, Any] = MappingProxyType({})


class Message(Generic[T_co]):
    """One tweet on its way, immutable to the outside.

    Attributes:
        data: the text of the tweet at first, then what handlers made of it.
        acknowledger: who is told the outcome.
        status: ``"ok"``, or `Failed` with the reason.
        received_at: when the bytes were read, in seconds since 1970; ``None`` if they were not.

    A message that came from a stream also has `raw` and the properties that are read from the
    tweet itself; each is computed when it is first asked for.
    """

    __slots__ = ("_id", "_line", "_metadata", "acknowledger", "data", "received_at", "status")

    data: T_co
    acknowledger: Acknowledger
    status: Status
    received_at: float | None
    _id: object
    _line: bytes
    _metadata: Mapping[str, Any] | None

    def __init__(
        self,
        data: T_co,
        metadata: Mapping[str, Any] = EMPTY,
        acknowledger: Acknowledger = NOOP,
    ) -> None:
        known = metadata if metadata is EMPTY else MappingProxyType(dict(metadata))
        self._fill(data, acknowledger, "ok", None, known.get("id"), b"", known)

    @classmethod
    def from_line(cls, line: bytes, received_at: float | None = None) -> Message[str]:
        """A message from one line of the stream.

        Raises:
            DecodeError: the line is not a JSON object with the text of a tweet.
        """
        try:
            payload = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise DecodeError(f"not JSON: {error}", line) from None
        if not is_tweet(payload):
            raise DecodeError("no tweet with a text in this line", line)
        return cls.from_payload(payload, line, received_at)

    @staticmethod
    def from_payload(
        payload: dict[str, Any], line: bytes, received_at: float | None = None
    ) -> Message[str]:
        """A message from a line and what it was decoded to, whose ``data.text`` is text.

        Only text and id are kept of the decoded line: metadata is decoded again if it is asked
        for. Kept alive, the containers of a decoded tweet keep the garbage collector so busy
        that decoding 2.5 KB takes twice as long.
        """
        # The way of the stream, so it sets the slots without a further call.
        message: Message[str] = _new(Message)
        tweet = payload["data"]
        _set_data(message, tweet["text"])
        _set_acknowledger(message, NOOP)
        _set_status(message, "ok")
        _set_received_at(message, received_at)
        _set_id(message, tweet.get("id"))
        _set_line(message, line)
        _set_metadata(message, None)
        return message

    @staticmethod
    def from_event(
        data: U, identifier: str, line: bytes, received_at: float | None = None
    ) -> Message[U]:
        """A message from a line that carries something else than a tweet."""
        message: Message[U] = _new(Message)
        message._fill(data, NOOP, "ok", received_at, identifier, line, None)
        return message

    @property
    def raw(self) -> bytes:
        """The line as it was received, without its line end; empty if there was none."""
        return self._line.rstrip(b"\r\n")

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Everything of the tweet but its text; of other events, everything.

        The keys of X's ``data`` object, and beside them ``includes``, ``matching_rules`` and
        ``errors`` (parts of the tweet that X could not give) where the line had them.
        """
        known = self._metadata
        if known is None:
            known = MappingProxyType(_metadata_of(orjson.loads(self._line)))
            _set_metadata(self, known)
        return known

    @property
    def id(self) -> str:
        """The id of the tweet as text; empty where there is none."""
        return _text(self._id)

    @property
    def created_at(self) -> datetime | None:
        """When the tweet was written, or the event happened, in UTC, to the millisecond.

        Read from the id; ids of before November 2010 hold no time, there the field
        ``created_at``, or ``event_at`` of a compliance event, is parsed.
        """
        seconds = self._created()
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    @property
    def lag(self) -> float | None:
        """Seconds between the writing of the tweet and its arrival here, if both are known."""
        created = self._created()
        if created is None or self.received_at is None:
            return None
        return self.received_at - created

    @property
    def matching_rules(self) -> tuple[MatchingRule, ...]:
        """The rules of the filtered stream that this tweet matched."""
        rules = self.metadata.get("matching_rules")
        return tuple(
            MatchingRule(_text(rule.get("id")), _text(rule.get("tag")))
            for rule in (rules if isinstance(rules, list) else ())
            if isinstance(rule, dict)
        )

    @property
    def is_failed(self) -> bool:
        """Whether the status is `Failed`."""
        return self.status != "ok"

    def put_data(self, data: U) -> Message[U]:
        """The same message with other data."""
        copy = cast("Message[U]", self._copy())
        _set_data(copy, data)
        return copy

    def update_data(self, function: Callable[[T_co], U]) -> Message[U]:
        """The same message with ``function(data)`` for its data."""
        return self.put_data(function(self.data))

    def failed(self, reason: object) -> Message[T_co]:
        """The same message, failed: it is not batched, and acknowledged as failed."""
        copy = self._copy()
        _set_status(copy, Failed(reason))
        return copy

    def with_acknowledger(self, acknowledger: Acknowledger) -> Message[T_co]:
        """The same message with another to be told its outcome: for authors of sources."""
        copy = self._copy()
        _set_acknowledger(copy, acknowledger)
        return copy

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"messages are immutable; make another one instead of setting {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"messages are immutable; {name} cannot be deleted")

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be pickled; with a line, the metadata can be had from there.
        metadata = None if self._line or self._metadata is None else dict(self._metadata)
        state = (self.data, self.acknowledger, self.status, self.received_at)
        return _restore, (*state, self._id, self._line, metadata)

    def __repr__(self) -> str:
        failed = "" if self.status == "ok" else f", status={self.status!r}"
        return f"Message({self.data!r}, id={self.id!r}{failed})"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        from rxtweets.display import tweets  # noqa: PLC0415 - notebooks only, and a layer above

        return {"text/plain": tweets.tweet_text(self), "text/html": tweets.tweet_html(self)}

    def _created(self) -> float | None:
        try:
            number = int(self.id)
        except ValueError:
            number = 0
        if FIRST_SNOWFLAKE < number < TOO_LARGE:
            return ((number >> 22) + SNOWFLAKE_EPOCH_MS) / 1000
        try:
            written = datetime.fromisoformat(_time_in(self.metadata))
            return (written if written.tzinfo else written.replace(tzinfo=UTC)).timestamp()
        except (TypeError, ValueError):
            return None

    def _copy(self) -> Message[T_co]:
        copy: Message[T_co] = _new(Message)
        copy._fill(
            self.data,
            self.acknowledger,
            self.status,
            self.received_at,
            self._id,
            self._line,
            self._metadata,
        )
        return copy

    def _fill(
        self,
        data: object,
        acknowledger: Acknowledger,
        status: Status,
        received_at: float | None,
        identifier: object,
        line: bytes,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        _set_data(self, data)
        _set_acknowledger(self, acknowledger)
        _set_status(self, status)
        _set_received_at(self, received_at)
        _set_id(self, identifier)
        _set_line(self, line)
        _set_metadata(self, metadata)


# The slots' own setters pass by the __setattr__ that refuses: a third of the cost of
# object.__setattr__ for each of them.
_slots: Mapping[str, Any] = vars(Message)
_set_data = _slots["data"].__set__
_set_acknowledger = _slots["acknowledger"].__set__
_set_status = _slots["status"].__set__
_set_received_at = _slots["received_at"].__set__
_set_id = _slots["_id"].__set__
_set_line = _slots["_line"].__set__
_set_metadata = _slots["_metadata"].__set__
_new: Any = object.__new__


def is_tweet(payload: Any) -> bool:
    """Whether a decoded line is a tweet: an object with an object ``data`` with a text."""
    try:
        return type(payload["data"]["text"]) is str
    except (KeyError, TypeError):
        return False


def _text(value: object) -> str:
    """Ids and tags came as text, as numbers and as null over the years."""
    return "" if value is None else str(value)


def _time_in(metadata: Mapping[str, Any]) -> Any:
    """The time that the tweet itself names; a compliance event names its own one level below."""
    if "created_at" in metadata:
        return metadata["created_at"]
    parts = (value for value in metadata.values() if isinstance(value, dict))
    return next((part["event_at"] for part in parts if "event_at" in part), None)


def _metadata_of(payload: dict[str, Any]) -> dict[str, Any]:
    """What stands beside the tweet, and the tweet's own fields, which have precedence."""
    metadata = {key: value for key, value in payload.items() if key != "data"}
    metadata.update((key, value) for key, value in payload["data"].items() if key != "text")
    return metadata


def _restore(
    data: object,
    acknowledger: Acknowledger,
    status: Status,
    received_at: float | None,
    identifier: object,
    line: bytes,
    metadata: dict[str, Any] | None,
) -> Message[Any]:
    """The other half of `Message.__reduce__`."""
    known = None if metadata is None else MappingProxyType(metadata)
    message: Message[Any] = _new(Message)
    message._fill(data, acknowledger, status, received_at, identifier, line, known)  # noqa: SLF001 - of this file's own class
    return message


Trigger = Literal["size", "timeout", "flush"]


@dataclass(frozen=True, slots=True)
class BatchInfo:
    """How a batch came to be.

    Attributes:
        batcher: the name of the batcher.
        size: how many messages the batch has.
        trigger: what ended it: its ``size``, its ``timeout``, or the end of the stream (``flush``).
    """

    batcher: str
    size: int
    trigger: Trigger


class Batch(Sequence[Message[T_co]]):
    """Messages that go to a subscriber together; a sequence, never empty."""

    __slots__ = ("_messages", "info")

    def __init__(
        self,
        messages: Iterable[Message[T_co]],
        trigger: Trigger = "size",
        batcher: str = "default",
    ) -> None:
        self._messages = tuple(messages)
        self.info = BatchInfo(batcher, len(self._messages), trigger)

    @overload
    def __getitem__(self, index: int) -> Message[T_co]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message[T_co]]: ...
    def __getitem__(self, index: int | slice) -> Message[T_co] | Sequence[Message[T_co]]:
        return self._messages[index]

    def __len__(self) -> int:
        return len(self._messages)

    def __repr__(self) -> str:
        first = repr(self._messages[0].data) if self._messages else ""
        more = ", …" if len(self._messages) > 1 else ""
        return f"Batch({self.info.size} messages, trigger={self.info.trigger!r}: {first}{more})"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        from rxtweets.display import tweets  # noqa: PLC0415 - notebooks only, and a layer above

        return {"text/plain": tweets.batch_text(self), "text/html": tweets.batch_html(self)}


def group_by_acknowledger(
    successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]
) -> list[tuple[Acknowledger, Sequence[Message[Any]], Sequence[Message[Any]]]]:
    """Split outcomes by who must be told, order kept; those that need no telling are left out."""
    groups: dict[int, tuple[Acknowledger, list[Message[Any]], list[Message[Any]]]] = {}
    for side, messages in ((1, successful), (2, failed)):
        for message in messages:
            acknowledger = message.acknowledger
            if type(acknowledger) is NoopAcknowledger:
                continue
            group = groups.setdefault(id(acknowledger), (acknowledger, [], []))
            cast("list[Message[Any]]", group[side]).append(message)
    return list(groups.values())
