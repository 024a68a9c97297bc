"""Messages, and the acknowledgers that receive their outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, get_args, overload

import orjson

from rxtweets._messages.lenient_json import payload_of
from rxtweets._messages.representation import representation
from rxtweets._support.validation import choice
from rxtweets.errors import AcknowledgerError, ConfigurationError, DecodeError

__all__ = [
    "DEFAULT_ROUTE",
    "NOOP",
    "Acknowledger",
    "BatchMode",
    "CallerAcknowledger",
    "Chunk",
    "Failed",
    "MatchingRule",
    "Message",
    "NoopAcknowledger",
    "Status",
    "ack_immediately",
    "are_plain",
    "claim_by_acknowledger",
    "give_acknowledger",
    "has_received_text",
    "id_text",
    "in_place_of",
    "is_tweet",
    "new_message",
]

T = TypeVar("T")
U = TypeVar("U")
T_co = TypeVar("T_co", covariant=True)

SNOWFLAKE_EPOCH_MS = 1_288_834_974_657
"""2010-11-04T01:42:54.657Z in milliseconds since 1970: the time in an id counts from here."""

FIRST_SNOWFLAKE = 29_700_859_247
"""Smaller ids are sequential; the upper bits of greater ones are milliseconds."""

TOO_LARGE = 2**63
"""Ids have 63 bits."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The status of a failed message.

    Attributes:
        reason: the exception that was raised, or the argument of `Message.failed`.
    """

    reason: object


Status = Literal["ok"] | Failed


class MatchingRule(NamedTuple):
    """A rule of the filtered stream that a tweet matched.

    Attributes:
        id: the rule's id as text.
        tag: the rule's tag; empty if the rule has none.
    """

    id: str
    tag: str


BatchMode = Literal["bulk", "flush"]


class Route(NamedTuple):
    """Status, batcher and acknowledgement data of a message."""

    batcher: str = "default"
    batch_key: Hashable = "default"
    batch_mode: BatchMode = "bulk"
    ack_ref: Hashable = None
    ack_data: Any = None
    status: Status = "ok"


DEFAULT_ROUTE = Route()


class Acknowledger(Protocol):
    """Receives the outcome of each message once; a copy counts as its message.

    Each call has the messages of one acknowledger and one ``ack_ref``. An acknowledger may also
    have ``configure(ack_ref, ack_data, options)``, which returns the message's new ``ack_data``;
    `Message.configure_ack` calls it.
    """

    def ack(self, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Acknowledge messages.

        Args:
            successful: messages that succeeded, in their order.
            failed: messages that failed, in their order.
        """


class NoopAcknowledger:
    """Ignores outcomes, for sources that do not need them, such as X's streams."""

    def ack(self, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Do nothing."""

    def __repr__(self) -> str:
        return "NoopAcknowledger()"


class CallerAcknowledger:
    """Calls a function with every outcome: for tests, and for bridges to other systems.

    Args:
        tell: called with the successful and the failed messages.
    """

    def __init__(
        self, tell: Callable[[Sequence[Message[Any]], Sequence[Message[Any]]], object]
    ) -> None:
        self._tell = tell

    def ack(self, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Call the function with the messages that succeeded and those that failed."""
        self._tell(successful, failed)


NOOP = NoopAcknowledger()
EMPTY: Mapping[str, Any] = MappingProxyType({})


class Receipt:
    """Lets the acknowledger of a message and its copies, which share it, be called once.

    Attributes:
        acknowledger: receives the outcome.
        is_claimed: an outcome was claimed.
        count_late: called for each later outcome, if a stream claimed the first one.
    """

    __slots__ = ("acknowledger", "count_late", "is_claimed")

    def __init__(self, acknowledger: Acknowledger) -> None:
        self.acknowledger = acknowledger
        self.is_claimed = False
        self.count_late: Callable[[], object] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _receipt_for, (NOOP if self.is_claimed else self.acknowledger,)


def _receipt_for(acknowledger: Acknowledger) -> Receipt | None:
    return None if type(acknowledger) is NoopAcknowledger else Receipt(acknowledger)


class Message(Generic[T_co]):
    """An immutable message: a tweet, another event of X, or an item of another source.

    `update_data`, `put_data`, `failed` and the other ``put_…`` methods return a changed copy.

    Args:
        data: any value.
        metadata: everything else about it; ``id`` and ``created_at`` are read from here.
        acknowledger: receives the outcome of the message.

    Attributes:
        data: the text of a tweet, or a typed event, at first; then the results of handlers.
        received_at: when the bytes were read, in seconds since 1970; ``None`` if they were not.

    Example:
        >>> message = Message("hola", {"id": "1", "lang": "es"})
        >>> message.update_data(str.upper)
        Message('HOLA', id='1')
        >>> message.metadata["lang"]
        'es'
    """

    __slots__ = (
        "_has_received_text",
        "_id",
        "_line",
        "_metadata",
        "_receipt",
        "_route",
        "data",
        "received_at",
    )

    data: T_co
    received_at: float | None
    _has_received_text: bool
    _id: object
    _line: bytes
    # None until it is decoded from the line. A copy decodes it again when it is read there: decoded
    # metadata that stays alive slows the garbage collector (benchmark row 3b).
    _metadata: Mapping[str, Any] | None
    _receipt: Receipt | None
    _route: Route

    def __new__(
        cls,
        data: T_co,
        metadata: Mapping[str, Any] = EMPTY,
        acknowledger: Acknowledger = NOOP,
    ) -> Message[T_co]:
        own = metadata if metadata is EMPTY else MappingProxyType(dict(metadata))
        return new_message(data, own.get("id"), b"", None, own, _receipt_for(acknowledger))

    @classmethod
    def from_line(cls, line: bytes, received_at: float | None = None) -> Message[str]:
        """Create a message from one line of the stream.

        Args:
            line: JSON, with or without its line end.
            received_at: when it was read, in seconds since 1970.

        Raises:
            DecodeError: the line is not a JSON object with the text of a tweet.
        """
        try:
            payload = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise DecodeError(f"not JSON: {error}", line) from None
        if not is_tweet(payload):
            raise DecodeError("no tweet with a text in this line", line)
        tweet = payload["data"]
        return new_message(
            tweet["text"], tweet.get("id"), line, received_at, has_received_text=True
        )

    @staticmethod
    def from_payload(
        payload: dict[str, Any], line: bytes, received_at: float | None = None
    ) -> Message[str]:
        """Create a message from a line and its decoded payload, whose ``data.text`` is text.

        Only text and id are kept; metadata is decoded from the line when it is read.
        """
        tweet = payload["data"]
        return new_message(tweet["text"], tweet.get("id"), line, received_at)

    @staticmethod
    def from_event(
        data: U, identifier: str, line: bytes, received_at: float | None = None
    ) -> Message[U]:
        """Create a message from a line that carries another event than a tweet."""
        return new_message(data, identifier, line, received_at)

    @property
    def raw(self) -> bytes:
        """The line as it was received, without its line end; empty if there was none."""
        return self._line.rstrip(b"\r\n")

    @property
    def metadata(self) -> Mapping[str, Any]:
        """All fields of the tweet but its text; all fields of another event.

        The keys are those of X's ``data`` object. ``includes``, ``matching_rules`` and ``errors``
        (parts of the tweet that X could not give) are beside them if the line has them. The line
        is decoded when metadata is first read.
        """
        metadata = self._metadata
        if metadata is None:
            metadata = MappingProxyType(_metadata_of(self._line))
            _set_metadata(self, metadata)
        return metadata

    @property
    def id(self) -> str:
        """The id of the tweet or event as text; empty if it has none."""
        identifier = self._id
        return identifier if type(identifier) is str else id_text(identifier)

    @property
    def created_at(self) -> datetime | None:
        """When the tweet was written or the event happened, in UTC, to the millisecond.

        It is read from the id, if X made the id after November 2010 (19 digits). Otherwise it
        is read from ``created_at`` in the metadata, or ``event_at`` of a compliance event.
        ``None`` if none of these has a time.
        """
        seconds = self._created()
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    @property
    def lag(self) -> float | None:
        """Seconds from `created_at` to `received_at`; ``None`` if one of them is unknown."""
        created = self._created()
        if created is None or self.received_at is None:
            return None
        return self.received_at - created

    @property
    def matching_rules(self) -> tuple[MatchingRule, ...]:
        """The rules of the filtered stream that this tweet matched."""
        rules = self.metadata.get("matching_rules")
        return tuple(
            MatchingRule(id_text(rule.get("id")), id_text(rule.get("tag")))
            for rule in (rules if isinstance(rules, list) else ())
            if isinstance(rule, dict)
        )

    @property
    def acknowledger(self) -> Acknowledger:
        """Receives the outcome; a `NoopAcknowledger` once the message was acknowledged."""
        receipt = self._receipt
        return NOOP if receipt is None or receipt.is_claimed else receipt.acknowledger

    @property
    def status(self) -> Status:
        """``"ok"``, or `Failed` with the reason."""
        return self._route.status

    @property
    def is_failed(self) -> bool:
        """``True`` if the status is `Failed`."""
        return self._route.status != "ok"

    @property
    def batcher(self) -> str:
        """The name of the batcher that gets the message; ``"default"`` at first."""
        return self._route.batcher

    @property
    def batch_key(self) -> Hashable:
        """Messages with different keys never share a batch; ``"default"`` at first."""
        return self._route.batch_key

    @property
    def batch_mode(self) -> BatchMode:
        """``"bulk"``, or ``"flush"`` to emit the batch immediately with this message."""
        return self._route.batch_mode

    @property
    def ack_ref(self) -> Hashable:
        """Messages with the same reference are acknowledged in one call."""
        return self._route.ack_ref

    @property
    def ack_data(self) -> Any:
        """The data that the acknowledger needs for this message, such as a delivery tag."""
        return self._route.ack_data

    def put_data(self, data: U) -> Message[U]:
        """Return a copy with other data."""
        metadata = None if self._line else self._metadata
        return new_message(
            data, self._id, self._line, self.received_at, metadata, self._receipt, self._route
        )

    def update_data(self, function: Callable[[T_co], U]) -> Message[U]:
        """Return a copy with ``function(data)`` as data."""
        return self.put_data(function(self.data))

    def failed(self, reason: object) -> Message[T_co]:
        """Return a failed copy; it is not batched, and is acknowledged as failed.

        Args:
            reason: an exception, or any description.
        """
        return self._with_route(status=Failed(reason))

    def put_batcher(self, batcher: str) -> Message[T_co]:
        """Return a copy for the batcher of this name."""
        return self._with_route(batcher=batcher)

    def put_batch_key(self, key: Hashable) -> Message[T_co]:
        """Return a copy that shares batches only with messages of the same key.

        Raises:
            ConfigurationError: the key is not hashable.
        """
        return self._with_route(batch_key=_hashable("batch_key", key))

    def put_batch_mode(self, mode: BatchMode) -> Message[T_co]:
        """Return a copy that flushes its batch (``"flush"``) or does not (``"bulk"``).

        Raises:
            ConfigurationError: the mode is neither.
        """
        return self._with_route(batch_mode=choice("batch_mode", mode, get_args(BatchMode)))

    def configure_ack(self, **options: Any) -> Message[T_co]:
        """Return a copy that is acknowledged in another way.

        Args:
            **options: of its acknowledger, such as ``on_failure="requeue"`` of
                `rxtweets.from_queue`, which puts a message back if it fails.

        Raises:
            AcknowledgerError: its acknowledger cannot be configured.
        """
        # Also after the outcome was claimed: a handler can outlive its time limit.
        acknowledger = NOOP if self._receipt is None else self._receipt.acknowledger
        configure = getattr(acknowledger, "configure", None)
        if configure is None:
            raise AcknowledgerError(
                f"{type(acknowledger).__name__} has no configure(ack_ref, ack_data, options), "
                f"so {', '.join(options) or 'nothing'} cannot be set for this message"
            )
        return self._with_route(ack_data=configure(self.ack_ref, self.ack_data, options))

    def with_acknowledger(
        self, acknowledger: Acknowledger, ref: Hashable = None, data: Any = None
    ) -> Message[T_co]:
        """Return a copy with another acknowledger: for authors of sources.

        Args:
            acknowledger: receives the outcome.
            ref: groups messages; each call of the acknowledger has those of one reference.
            data: the data that the acknowledger needs for this message, such as a delivery tag.

        Raises:
            ConfigurationError: the reference is not hashable.
        """
        return self._with_receipt(_receipt_for(acknowledger), _hashable("ref", ref), data)

    def _with_route(self, **changes: Any) -> Message[T_co]:
        return self._copy(self._receipt, self._route._replace(**changes))

    def _with_receipt(self, receipt: Receipt | None, ref: Hashable, data: Any) -> Message[T_co]:
        route = self._route
        if not (route.ack_ref is ref and route.ack_data is data):  # keeps `DEFAULT_ROUTE`
            # `_replace` takes twice as long, and sources do this for each message.
            route = Route(route.batcher, route.batch_key, route.batch_mode, ref, data, route.status)
        return self._copy(receipt, route)

    def _copy(self, receipt: Receipt | None, route: Route) -> Message[T_co]:
        metadata = None if self._line else self._metadata
        return new_message(
            self.data,
            self._id,
            self._line,
            self.received_at,
            metadata,
            receipt,
            route,
            has_received_text=self._has_received_text,
        )

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"messages are immutable; make another one instead of setting {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"messages are immutable; {name} cannot be deleted")

    def __reduce__(self) -> tuple[Any, ...]:
        metadata = None if self._line or self._metadata is None else dict(self._metadata)
        route = None if self._route is DEFAULT_ROUTE else self._route
        fields = self.data, self._id, self._line, self.received_at, metadata, self._receipt, route
        return _restored, fields

    def __repr__(self) -> str:
        failed = "" if self.status == "ok" else f", status={self.status!r}"
        batcher = "" if self.batcher == "default" else f", batcher={self.batcher!r}"
        return f"Message({self.data!r}, id={self.id!r}{batcher}{failed})"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return representation(self)

    def _created(self) -> float | None:
        try:
            number = int(self.id)
        except ValueError:
            number = 0
        if FIRST_SNOWFLAKE < number < TOO_LARGE:
            return ((number >> 22) + SNOWFLAKE_EPOCH_MS) / 1000
        try:
            written = datetime.fromisoformat(_time_in(self.metadata))
            seconds = (written if written.tzinfo else written.replace(tzinfo=UTC)).timestamp()
            datetime.fromtimestamp(seconds, UTC)  # raises where the year is 0 or 10000 in UTC
        except (TypeError, ValueError, OverflowError):
            return None
        return seconds


# `Message.__setattr__` refuses all changes; the slot's own setter passes it by.
_set_metadata = vars(Message)["_metadata"].__set__
_set_receipt = vars(Message)["_receipt"].__set__
_set_route = vars(Message)["_route"].__set__


def give_acknowledger(message: Message[Any], acknowledger: Acknowledger, data: object) -> None:
    """Set the acknowledger of a new message in place, before other code gets the message."""
    batcher, batch_key, batch_mode, _, _, status = message._route
    _set_receipt(message, Receipt(acknowledger))
    _set_route(message, Route(batcher, batch_key, batch_mode, None, data, status))


class _Draft(Generic[T_co]):
    # A message whose fields can still be set. To set all and then its class takes half as long as
    # eight calls of setters, and every tweet pays for it.
    __slots__ = Message.__slots__


_new: Any = object.__new__


Chunk = list[Message[Any]]
"""Messages that a stream passes on together."""


def new_message(
    data: Any,
    identifier: object,
    line: bytes,
    received_at: float | None,
    metadata: Mapping[str, Any] | None = None,
    receipt: Receipt | None = None,
    route: Route = DEFAULT_ROUTE,
    *,
    has_received_text: bool = False,
) -> Message[Any]:
    """Create a message from its parts.

    Args:
        data: of the message.
        identifier: the id as it was received.
        line: as it was received; empty if there was none.
        received_at: when, in seconds since 1970.
        metadata: read-only; ``None`` to decode it from the line when it is read.
        receipt: shared with the messages that it is a copy of.
        route: of the message.
        has_received_text: see the function of this name.
    """
    draft = _new(_Draft)
    draft.data = data
    draft._has_received_text = has_received_text
    draft._id = identifier
    draft._line = line
    draft.received_at = received_at
    draft._metadata = metadata
    draft._receipt = receipt
    draft._route = route
    draft.__class__ = Message
    return draft  # type: ignore[no-any-return]  # it has become one


def _restored(
    data: object,
    identifier: object,
    line: bytes,
    received_at: float | None,
    metadata: dict[str, Any] | None,
    receipt: Receipt | None,
    route: Route | None,
) -> Message[Any]:
    """Rebuild a pickled message; a `MappingProxyType` cannot be pickled."""
    proxy = None if metadata is None else MappingProxyType(metadata)
    return new_message(data, identifier, line, received_at, proxy, receipt, route or DEFAULT_ROUTE)


def in_place_of(given: Message[Any], result: Message[T]) -> Message[T]:
    """Return a result from another process, with the acknowledger of the given message."""
    if given._receipt is None:
        return result
    return result._with_receipt(given._receipt, given.ack_ref, given.ack_data)


def has_received_text(message: Message[Any]) -> bool:
    """Return whether the data is known to be the text of the tweet in the line.

    If not, the line tells: the copies that `Message.put_data` returns may still have its text.
    """
    return message._has_received_text


def are_plain(messages: Iterable[Message[Any]]) -> bool:
    """Return whether all messages are successful and have the default route."""
    return all(message._route is DEFAULT_ROUTE for message in messages)


def is_tweet(payload: Any) -> bool:
    """Return whether a decoded line is a tweet: an object with an object ``data`` with a text."""
    try:
        return type(payload["data"]["text"]) is str
    except (KeyError, TypeError):
        return False


def id_text(value: object) -> str:
    """Return an id or tag as text; the wire has text, numbers or null."""
    return "" if value is None else str(value)


def _hashable(name: str, value: Hashable) -> Hashable:
    try:
        hash(value)
    except TypeError:
        raise ConfigurationError(f"{name}={value!r}: give a hashable value") from None
    return value


def _time_in(metadata: Mapping[str, Any]) -> Any:
    # A compliance event has its time one level below.
    if "created_at" in metadata:
        return metadata["created_at"]
    parts = (value for value in metadata.values() if isinstance(value, dict))
    return next((part["event_at"] for part in parts if "event_at" in part), None)


def _metadata_of(line: bytes) -> dict[str, Any]:
    # Sources of users give messages lines of any shape.
    payload = payload_of(line)
    if not isinstance(payload, dict):
        return {}
    if not isinstance(payload.get("data"), dict):
        return payload
    metadata: dict[str, Any] = payload.pop("data")
    metadata.pop("text", None)
    for key, value in payload.items():
        metadata.setdefault(key, value)
    return metadata


# Acknowledging.

Outcomes = tuple[Acknowledger, Sequence[Message[Any]], Sequence[Message[Any]]]
"""An acknowledger, and the successful and failed messages of one call."""


@overload
def ack_immediately(messages: Message[T]) -> Message[T]: ...
@overload
def ack_immediately(messages: Iterable[Message[T]]) -> list[Message[T]]: ...
def ack_immediately(
    messages: Message[T] | Iterable[Message[T]],
) -> Message[T] | list[Message[T]]:
    """Acknowledge messages immediately, by their status, from a handler or a subscriber.

    The messages continue unchanged. Neither they nor their copies are acknowledged again.
    Acknowledging a message a second time does nothing. If the stream was first, for example after
    a time limit, ``stats().late_acknowledgements`` counts the call.

    Args:
        messages: one or several.

    Returns:
        The message, or a list of the messages.

    Raises:
        BaseException: the first error of an acknowledger, after all were called.
    """
    if isinstance(messages, Message):
        ack_immediately([messages])
        return messages
    given = list(messages)
    successful = [message for message in given if not message.is_failed]
    failed = [message for message in given if message.is_failed]
    errors: list[BaseException] = []
    for acknowledger, good, bad in claim_by_acknowledger(successful, failed):
        try:
            acknowledger.ack(good, bad)
        except BaseException as error:  # noqa: BLE001 - raised after all were called
            errors.append(error)
    if errors:
        raise errors[0]
    return given


_claiming = threading.RLock()
"""Guards all receipts, and is taken once for a list of messages that have some.

Reentrant: the garbage collector may run a finalizer meanwhile, which acknowledges a message.
"""


def claim_by_acknowledger(
    successful: Sequence[Message[Any]],
    failed: Sequence[Message[Any]],
    count_late: Callable[[], object] | None = None,
) -> list[Outcomes]:
    """Claim outcomes, grouped by acknowledger and reference, in their order.

    Messages whose outcome is claimed already are left out. The caller must acknowledge all that
    are returned: no later call on any thread returns these messages or copies of them.

    Args:
        successful: messages.
        failed: messages.
        count_late: called for each later outcome of these messages.
    """
    with_receipts = [
        (message, is_successful, receipt)
        for is_successful, messages in ((True, successful), (False, failed))
        for message in messages
        if (receipt := message._receipt) is not None
    ]
    if not with_receipts:
        return []
    claimed: list[tuple[Message[Any], bool, Acknowledger]] = []
    late: list[Callable[[], object]] = []
    with _claiming:
        for message, is_successful, receipt in with_receipts:
            if not receipt.is_claimed:
                receipt.is_claimed, receipt.count_late = True, count_late
                claimed.append((message, is_successful, receipt.acknowledger))
            elif receipt.count_late is not None:
                late.append(receipt.count_late)
    for count in late:
        count()
    groups: dict[Hashable, tuple[Acknowledger, list[Message[Any]], list[Message[Any]]]] = {}
    for message, is_successful, acknowledger in claimed:
        key = id(acknowledger), message.ack_ref
        _, good, bad = groups.setdefault(key, (acknowledger, [], []))
        (good if is_successful else bad).append(message)
    return list(groups.values())
