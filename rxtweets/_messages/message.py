"""What travels through a stream: messages, batches of them, and who is told their outcome."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, cast, overload

import orjson

from rxtweets._messages.representation import representation
from rxtweets.errors import AcknowledgerError, ConfigurationError, DecodeError

__all__ = [
    "Acknowledger",
    "BatchMode",
    "CallerAcknowledger",
    "Failed",
    "Interest",
    "MatchingRule",
    "Message",
    "NoopAcknowledger",
    "Status",
    "ack_immediately",
    "are_plain",
    "claim_by_acknowledger",
    "in_place_of",
    "is_tweet",
    "metadata_in",
    "payload_in",
    "payload_of",
    "read_again",
    "tweet_message",
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

LONGEST_INTEGER = 300
"""Digits, about as many as a double holds."""

DEEPEST = 500
"""Levels of nesting that are read. orjson reads 1,024, the standard library fewer than 1,000."""

NESTING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
"""A string, which may hold brackets, or a bracket."""


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


BatchMode = Literal["bulk", "flush"]


class Route(NamedTuple):
    """Where a message goes after its handler, and what its acknowledger knows it by."""

    batcher: str = "default"
    batch_key: Hashable = "default"
    batch_mode: BatchMode = "bulk"
    ack_ref: Hashable = None
    ack_data: Any = None


DEFAULT_ROUTE = Route()


class Acknowledger(Protocol):
    """Is told, once for every message, how it ended. Copies of a message count as that message.

    Messages are told in groups: one call for those of the same acknowledger and the same
    ``ack_ref``. An acknowledger may also have ``configure(ack_ref, ack_data, options)``, which
    returns the new ``ack_data`` of a message: `Message.configure_ack` calls it.
    """

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


class Receipt:
    """Lets the acknowledger of a message be told once; the copies of the message share it.

    Attributes:
        acknowledger: who is told.
        is_told: that has begun.
        count_late: called for each later outcome, once a stream has told the acknowledger.
    """

    __slots__ = ("acknowledger", "count_late", "is_told")

    def __init__(self, acknowledger: Acknowledger) -> None:
        self.acknowledger = acknowledger
        self.is_told = False
        self.count_late: Callable[[], object] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return receipt_for, (NOOP if self.is_told else self.acknowledger,)


def receipt_for(acknowledger: Acknowledger) -> Receipt | None:
    """Return a receipt; ``None`` for a `NoopAcknowledger`, as most messages have."""
    return None if type(acknowledger) is NoopAcknowledger else Receipt(acknowledger)


class Interest:
    """What those who take the messages of a stream do with their metadata, guessed from the latest.

    Decoding a line once is half of all that a message costs. So where metadata is read, what was
    decoded is kept for it. But every message that lives on with its metadata costs two thirds of a
    decoding, by the garbage collector: so copies of a message whose metadata was read get it only
    where it is mostly read of them too, and decode it again where it seldom is.

    Threads count without a lock, so that one may be lost.

    Attributes:
        keeps: decoded lines are to be kept.
        carries: copies get the metadata that was read.
        again: stands in such copies for metadata that they did not get.
        reads: of metadata, since the last guess.
        rereads: of copies that did not get it, since the last guess.
    """

    __slots__ = ("_guesses", "_made", "again", "carries", "keeps", "reads", "rereads")

    def __init__(self) -> None:
        self._made = self._guesses = 0
        self.keeps = self.carries = False
        self.again = Again(self)
        self.reads = self.rereads = 0

    def made(self, messages: int) -> None:
        """So many more messages are about to be made; guess anew from time to time."""
        self._made += messages
        if self._made < GUESSED_FROM:
            return
        self._guesses += 1
        self.keeps = 2 * self.reads >= self._made
        # While copies get theirs, nobody knows whether it is read: so now and then they do not.
        lasts = self.carries and self._guesses % PROBED != 0
        self.carries = lasts or 2 * self.rereads >= self._made
        self._made = self.reads = self.rereads = 0


class Again:
    """In a copy of a message whose metadata was read: whom to tell if it is read once more."""

    __slots__ = ("interest",)

    def __init__(self, interest: Interest) -> None:
        self.interest = interest


GUESSED_FROM = 2_000
"""Messages; some hundred of them are on their way before their metadata is read."""

PROBED = 16
"""Guesses after which it is found out again whether metadata of copies is read."""

Known = Mapping[str, Any] | tuple[Mapping[str, Any], Interest] | Interest | Again | None
"""The metadata of a message, alone or with who wants to know of its copies.

Before it was read: nobody, who wants to know of the reading, or that with a dict, which will be it.
"""


class Message(Generic[T_co]):
    """One tweet on its way, immutable to the outside.

    Attributes:
        data: the text of the tweet at first, then what handlers made of it.
        acknowledger: who is told the outcome; once it was told, one that does nothing.
        status: ``"ok"``, or `Failed` with the reason.
        batcher: the name of the batcher that the message goes to; ``"default"`` at first.
        batch_key: messages of different keys never share a batch; ``"default"`` at first.
        batch_mode: ``"bulk"``, or ``"flush"`` to send the batch on at once with this message.
        ack_ref: its acknowledger is called once for messages of the same reference.
        ack_data: what the acknowledger needs to know of the message.
        received_at: when the bytes were read, in seconds since 1970; ``None`` if they were not.

    A message that came from a stream also has `raw` and the properties that are read from the
    tweet itself; each is computed when it is first asked for.
    """

    __slots__ = ("_id", "_line", "_metadata", "_receipt", "data", "received_at")

    data: T_co
    received_at: float | None
    _id: object
    _line: bytes
    _metadata: Known
    _receipt: Receipt | None

    # Not slots: messages of a stream have not failed and go the default way, and setting each slot
    # costs a tenth of making one. Others are of a subclass that has the slots.
    status: Status = "ok"
    _route = DEFAULT_ROUTE

    def __init__(
        self,
        data: T_co,
        metadata: Mapping[str, Any] = EMPTY,
        acknowledger: Acknowledger = NOOP,
    ) -> None:
        known = metadata if metadata is EMPTY else MappingProxyType(dict(metadata))
        receipt = None if acknowledger is NOOP else receipt_for(acknowledger)
        self._fill(data, receipt, None, known.get("id"), b"", known)

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
        tweet = payload["data"]
        return tweet_message(tweet["text"], tweet.get("id"), line, received_at, None)

    @staticmethod
    def from_event(
        data: U, identifier: str, line: bytes, received_at: float | None = None
    ) -> Message[U]:
        """A message from a line that carries something else than a tweet."""
        message: Message[U] = _new(Message)
        message._fill(data, None, received_at, identifier, line, None)
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
        known: Any = self._metadata
        if type(known) is MappingProxyType:
            return known
        kept, interest = known if type(known) is tuple else (None, known)
        if type(kept) is MappingProxyType:
            return kept
        if type(interest) is Again:
            interest = interest.interest
            interest.rereads += 1
        elif interest is not None:
            interest.reads += 1
        read = MappingProxyType(_metadata_of(self._line) if kept is None else kept)
        _set_metadata(self, read if interest is None else (read, interest))
        return read

    @property
    def id(self) -> str:
        """The id of the tweet as text; empty where there is none."""
        known = self._id
        return known if type(known) is str else _text(known)  # mostly without a further call

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
    def acknowledger(self) -> Acknowledger:
        """Who is told the outcome; once it was told, one that does nothing."""
        receipt = self._receipt
        return NOOP if receipt is None or receipt.is_told else receipt.acknowledger

    @property
    def batcher(self) -> str:
        """The name of the batcher that the message goes to."""
        return self._route.batcher

    @property
    def batch_key(self) -> Hashable:
        """What messages of one batch have in common."""
        return self._route.batch_key

    @property
    def batch_mode(self) -> BatchMode:
        """Whether the batch is sent on at once with this message (``flush``)."""
        return self._route.batch_mode

    @property
    def ack_ref(self) -> Hashable:
        """Messages of one reference are acknowledged together."""
        return self._route.ack_ref

    @property
    def ack_data(self) -> Any:
        """What the acknowledger needs to know of the message."""
        return self._route.ack_data

    @property
    def is_failed(self) -> bool:
        """Whether the status is `Failed`."""
        return self.status != "ok"

    def put_data(self, data: U) -> Message[U]:
        """The same message with other data."""
        if type(self) is not Message:
            copied = cast("Message[U]", self._copy())
            _set_data(copied, data)
            return copied
        # What every handler does, so it sets the slots without further calls.
        copy: Message[U] = _new(Message)
        _set_data(copy, data)
        _set_receipt(copy, self._receipt)
        _set_received_at(copy, self.received_at)
        _set_id(copy, self._id)
        _set_line(copy, self._line)
        known = self._metadata
        _set_metadata(copy, _for_copy(known) if type(known) is tuple else known)
        return copy

    def update_data(self, function: Callable[[T_co], U]) -> Message[U]:
        """The same message with ``function(data)`` for its data."""
        return self.put_data(function(self.data))

    def failed(self, reason: object) -> Message[T_co]:
        """The same message, failed: it is not batched, and acknowledged as failed."""
        return self._marked(status=Failed(reason))

    def put_batcher(self, batcher: str) -> Message[T_co]:
        """The same message, on its way to the batcher of this name."""
        return self._marked(route=self._route._replace(batcher=batcher))

    def put_batch_key(self, key: Hashable) -> Message[T_co]:
        """The same message, that shares a batch only with messages of the same key.

        Raises:
            ConfigurationError: the key cannot be a key of a dict.
        """
        return self._marked(route=self._route._replace(batch_key=_hashable("batch_key", key)))

    def put_batch_mode(self, mode: BatchMode) -> Message[T_co]:
        """The same message; with ``flush`` its batch is sent on at once, with ``bulk`` it is not.

        Raises:
            ConfigurationError: it is neither.
        """
        if mode not in {"bulk", "flush"}:
            raise ConfigurationError(f"batch_mode={mode!r}: choose one of bulk, flush")
        return self._marked(route=self._route._replace(batch_mode=mode))

    def configure_ack(self, **options: Any) -> Message[T_co]:
        """The same message, acknowledged in another way; which ways, its acknowledger knows.

        Raises:
            AcknowledgerError: its acknowledger cannot be configured.
        """
        # Also after it was told: a handler may not know yet that its time is over.
        acknowledger = NOOP if self._receipt is None else self._receipt.acknowledger
        configure = getattr(acknowledger, "configure", None)
        if configure is None:
            raise AcknowledgerError(
                f"{type(acknowledger).__name__} has no configure(ack_ref, ack_data, options), "
                f"so {', '.join(options) or 'nothing'} cannot be set for this message"
            )
        route = self._route
        data = configure(route.ack_ref, route.ack_data, options)
        return self._marked(route=route._replace(ack_data=data))

    def with_acknowledger(
        self, acknowledger: Acknowledger, ref: Hashable = None, data: Any = None
    ) -> Message[T_co]:
        """The same message with another to be told its outcome: for authors of sources.

        Args:
            acknowledger: who.
            ref: groups messages; each call of the acknowledger is about those of one reference.
            data: what the acknowledger needs to know of this message, such as a delivery tag.

        Raises:
            ConfigurationError: the reference cannot be a key of a dict.
        """
        route = self._route._replace(ack_ref=_hashable("ref", ref), ack_data=data)
        copy = self._copy() if route == self._route else self._marked(route=route)
        _set_receipt(copy, None if acknowledger is NOOP else receipt_for(acknowledger))
        return copy

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"messages are immutable; make another one instead of setting {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"messages are immutable; {name} cannot be deleted")

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be pickled; with a line, the metadata can be had from there.
        known = self._metadata
        has_own = not self._line and isinstance(known, MappingProxyType)
        metadata = dict(self.metadata) if has_own else None
        state = (self.data, self._receipt, self.received_at)
        return _restore, (*state, self._id, self._line, metadata)

    def __repr__(self) -> str:
        failed = "" if self.status == "ok" else f", status={self.status!r}"
        way = "" if self.batcher == "default" else f", batcher={self.batcher!r}"
        return f"Message({self.data!r}, id={self.id!r}{way}{failed})"

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

    def _copy(self) -> Message[T_co]:
        return self._copy_to(_new(Message))

    def _copy_to(self, copy: Message[T_co]) -> Message[T_co]:
        copy._fill(
            self.data,
            self._receipt,
            self.received_at,
            self._id,
            self._line,
            _for_copy(self._metadata),
        )
        return copy

    def _marked(self, *, status: Status | None = None, route: Route | None = None) -> Message[T_co]:
        """A copy, with what is given changed."""
        copy = self._copy_to(_new(_MarkedMessage))
        _set_status(copy, status or self.status)
        _set_route(copy, route or self._route)
        return copy

    def _fill(
        self,
        data: object,
        receipt: Receipt | None,
        received_at: float | None,
        identifier: object,
        line: bytes,
        metadata: Known,
    ) -> None:
        _set_data(self, data)
        _set_receipt(self, receipt)
        _set_received_at(self, received_at)
        _set_id(self, identifier)
        _set_line(self, line)
        _set_metadata(self, metadata)


class _MarkedMessage(Message[T_co]):
    """A message that has failed, or goes another way than the default one."""

    __slots__ = ("_route", "status")

    def __reduce__(self) -> tuple[Any, ...]:
        _, state = super().__reduce__()
        return _restore, (*state, self.status, self._route)

    def _copy(self) -> Message[T_co]:
        return self._marked()


PLAIN = {Message}

# The slots' own setters pass by the __setattr__ that refuses: a third of the cost of
# object.__setattr__ for each of them.
_slots: Mapping[str, Any] = vars(Message)
_set_data = _slots["data"].__set__
_set_receipt = _slots["_receipt"].__set__
_set_received_at = _slots["received_at"].__set__
_set_id = _slots["_id"].__set__
_set_line = _slots["_line"].__set__
_set_metadata = _slots["_metadata"].__set__
_marks: Mapping[str, Any] = vars(_MarkedMessage)
_set_status = _marks["status"].__set__
_set_route = _marks["_route"].__set__
_new: Any = object.__new__


def tweet_message(
    text: str,
    identifier: object,
    line: bytes,
    received_at: float | None,
    kept: tuple[dict[str, Any], Interest] | Interest | None,
) -> Message[str]:
    """A message from what is known of a tweet; the way of the stream, so it makes no further calls.

    Args:
        text: its own.
        identifier: of it, as it came.
        line: as it was received.
        received_at: when, in seconds since 1970.
        kept: who wants to know whether metadata is read, if anybody does, and with it the metadata,
            which nobody else may have, if it was made already.
    """
    message: Message[str] = _new(Message)
    _set_data(message, text)
    _set_receipt(message, None)
    _set_received_at(message, received_at)
    _set_id(message, identifier)
    _set_line(message, line)
    _set_metadata(message, kept)
    return message


@overload
def ack_immediately(messages: Message[T]) -> Message[T]: ...
@overload
def ack_immediately(messages: Iterable[Message[T]]) -> list[Message[T]]: ...
def ack_immediately(
    messages: Message[T] | Iterable[Message[T]],
) -> Message[T] | list[Message[T]]:
    """Acknowledge one or several messages now, by their status, from a handler or a subscriber.

    They go on as they are. Neither they nor their copies are acknowledged again. Acknowledging a
    message a second time does nothing; if the stream was first, as when a time limit has failed
    the message, that is counted in ``stats().late_acknowledgements``.

    Returns:
        The message, or a list of the messages.

    Raises:
        BaseException: whatever an acknowledger raises; each has been asked once all the same.
    """
    if isinstance(messages, Message):
        ack_immediately([messages])
        return messages
    given = list(messages)
    groups = claim_by_acknowledger(
        [message for message in given if message.status == "ok"],
        [message for message in given if message.status != "ok"],
    )
    errors = [error for group in groups if (error := _ask(*group)) is not None]
    if errors:
        raise errors[0]
    return given


def _ask(
    acknowledger: Acknowledger, good: Sequence[Message[Any]], bad: Sequence[Message[Any]]
) -> BaseException | None:
    try:
        acknowledger.ack(good, bad)
    except BaseException as error:  # noqa: BLE001 - raised when the others have been asked
        return error
    return None


def in_place_of(given: Message[Any], result: Message[T]) -> Message[T]:
    """The result, acknowledged as the given message is: for results from another process."""
    if given._receipt is None:  # noqa: SLF001 - of this file's own class
        return result
    copy = result.with_acknowledger(NOOP, given.ack_ref, given.ack_data)
    _set_receipt(copy, given._receipt)  # noqa: SLF001 - of this file's own class
    return copy


def _hashable(name: str, value: Hashable) -> Hashable:
    try:
        hash(value)
    except TypeError:
        raise ConfigurationError(f"{name}={value!r}: give something that can be hashed") from None
    return value


def are_plain(messages: Iterable[Message[Any]]) -> bool:
    """Whether it is sure that none of them has failed or goes another way than the default one.

    Asking the types of all costs less than asking one thing of each.
    """
    return {*map(type, messages)} == PLAIN


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


def _for_copy(known: Known) -> Known:
    """What a copy gets of it: see `Interest`."""
    if type(known) is not tuple:
        return known
    mapping, interest = known
    was_read = type(mapping) is MappingProxyType
    return interest.again if was_read and not interest.carries else known


def payload_of(line: bytes) -> Any:
    """What a line of a message was decoded to.

    orjson refuses numbers that no double holds, so they are infinite here. It refuses deep nesting
    too: see `read_again`.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(_shallow(line, len), parse_int=_number)


def payload_in(line: bytes) -> Any:
    """What a line is decoded to, however deep it is nested.

    Raises:
        JSONDecodeError: it is not JSON.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return read_again(line, error)


def read_again(line: bytes, error: orjson.JSONDecodeError) -> Any:
    """Decode a line that orjson refused, with ``null`` for what is nested too deep.

    Args:
        line: the line.
        error: of orjson.

    Raises:
        JSONDecodeError: the error, where the line is not JSON.
    """
    if line.count(b"[") + line.count(b"{") <= DEEPEST:
        raise error
    try:
        return orjson.loads(_shallow(line, orjson.loads))
    except orjson.JSONDecodeError:
        raise error from None


def _shallow(line: bytes, check: Callable[[bytes], object]) -> bytes:
    """The line with ``null`` for each part that is nested deeper than `DEEPEST` levels.

    Args:
        line: the line.
        check: called with each part, of `DEEPEST` levels at most.
    """
    parts: list[list[bytes]] = [[]]
    depth = at = 0
    for found in NESTING.finditer(line):
        if found[0] in {b"[", b"{"}:
            if depth and not depth % DEEPEST:
                parts[-1].append(line[at : found.start()])
                parts.append([])
                at = found.start()
            depth += 1
        elif found[0] in {b"]", b"}"}:
            depth -= 1
            if depth > 0 and not depth % DEEPEST:
                parts[-1].append(line[at : found.end()])
                check(b"".join(parts.pop()))
                parts[-1].append(b"null")
                at = found.end()
    return line if depth else b"".join((*parts[0], line[at:]))


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) < LONGEST_INTEGER else float(digits)


def _metadata_of(line: bytes) -> dict[str, Any]:
    """The metadata of a line; sources of others give messages lines of any shape."""
    payload = payload_of(line)
    if not isinstance(payload, dict):
        return {}
    return metadata_in(payload) if isinstance(payload.get("data"), dict) else payload


def metadata_in(payload: dict[str, Any]) -> dict[str, Any]:
    """The tweet's own fields, and what stands beside it; made of the decoded line itself."""
    metadata: dict[str, Any] = payload["data"]
    metadata.pop("text", None)
    for key, value in payload.items():
        if key != "data":
            metadata.setdefault(key, value)
    return metadata


def _restore(
    data: object,
    receipt: Receipt | None,
    received_at: float | None,
    identifier: object,
    line: bytes,
    metadata: dict[str, Any] | None,
    status: Status = "ok",
    route: Route | None = None,
) -> Message[Any]:
    """The other half of `Message.__reduce__`."""
    known = None if metadata is None else MappingProxyType(metadata)
    message: Message[Any] = _new(Message if route is None else _MarkedMessage)
    message._fill(data, receipt, received_at, identifier, line, known)  # noqa: SLF001 - of this file's own class
    if route is not None:
        _set_status(message, status)
        _set_route(message, route)
    return message


def claim_by_acknowledger(
    successful: Sequence[Message[Any]],
    failed: Sequence[Message[Any]],
    count_late: Callable[[], object] | None = None,
) -> list[tuple[Acknowledger, Sequence[Message[Any]], Sequence[Message[Any]]]]:
    """Split outcomes by acknowledger and reference, order kept, and leave out who was told before.

    No later call, on any thread, gives these messages or copies of them again: so each outcome
    that is given must be told.

    Args:
        successful: messages.
        failed: messages.
        count_late: of a stream, called for each later outcome of these messages.
    """
    groups: dict[Hashable, tuple[Acknowledger, list[Message[Any]], list[Message[Any]]]] = {}
    for side, messages in ((1, successful), (2, failed)):
        for message, acknowledger in _untold(messages, count_late):
            key = (id(acknowledger), message.ack_ref)
            group = groups.setdefault(key, (acknowledger, [], []))
            cast("list[Message[Any]]", group[side]).append(message)
    return list(groups.values())


_telling = threading.RLock()
"""One for all receipts, taken once for a list of messages that have some. Reentrant, since the
garbage collector may call a finalizer in between, and that may acknowledge a message of its own."""


def _untold(
    messages: Sequence[Message[Any]], count_late: Callable[[], object] | None
) -> list[tuple[Message[Any], Acknowledger]]:
    """Messages that nobody was told about before, and who is to be told."""
    with_receipts = [
        (message, receipt)
        for message in messages
        if (receipt := message._receipt) is not None  # noqa: SLF001 - of this file's own class
    ]
    if not with_receipts:
        return []
    untold: list[tuple[Message[Any], Acknowledger]] = []
    late: list[Callable[[], object]] = []
    with _telling:
        for message, receipt in with_receipts:
            if not receipt.is_told:
                untold.append((message, receipt.acknowledger))
                receipt.is_told, receipt.count_late = True, count_late
            elif receipt.count_late is not None:
                late.append(receipt.count_late)
    for count in late:
        count()
    return untold
