"""The protocol of an engine: the requirements of a queue on the client of a broker.

An engine is one file. All engines share the rest of this package, such as demand, leases, outcomes,
dead letters and counters. To add one:

1. Implement `Engine`, `Sender` and `Receiver`. ``tests/brokers/plain_engine.py`` is the smallest
   engine. `rxtweets.brokers._engines.memory` has leases and deduplication too.
2. Use it as ``Queue(MyEngine(...), groups=["sentiment"])``.
3. Add its abilities to ``tests/brokers/engines.py``, and run both contracts as in
   ``tests/brokers/test_contract_plain.py``.

All methods are synchronous, and may be called from any thread, also concurrently. A client with its
own event loop, or one that is not thread-safe, runs on a thread of the engine. While the broker
cannot be reached, a method raises `BrokerUnavailable`, ten seconds after the loss at the latest;
later calls reconnect. No method blocks without a limit of time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

__all__ = ["SHARD", "Backlog", "Engine", "Envelope", "Receiver", "Sender", "Subscription", "Taken"]

SHARD = "rxt-shard"
"""Header: the shard of the message as in URLs; a group gets the messages of a shard in order."""


@dataclass(slots=True)
class Envelope:
    """A message to publish.

    Attributes:
        key: equal for copies of one message; engines that deduplicate use it.
        body: a line of X's stream, byte for byte.
        headers: names and values are text in ASCII.
    """

    key: str
    body: bytes
    headers: Mapping[str, str]

    @property
    def shard(self) -> str:
        """The shard of the message; empty if it has none."""
        return self.headers.get(SHARD, "")


@dataclass(slots=True, eq=False)  # frozen ones take three times as long to make
class Taken:
    """A message that this process has taken, and has to settle.

    Attributes:
        key: of the `Envelope`; empty if another program has published the message without one.
        body: as it was published.
        headers: as they were published; only text.
        attempt: number of this delivery, from 1; releases do not count, where the engine can
            tell.
        enqueued_at: when it was published, in seconds since 1970; ``None`` if unknown.
        native_id: the broker's name of the message, as text.
        receipt: for the engine alone. The receiver gets the same object back, perhaps after the
            message was delivered again: it has to tell the two deliveries apart.
    """

    key: str
    body: bytes
    headers: Mapping[str, str]
    attempt: int
    enqueued_at: float | None
    native_id: str
    receipt: Any = field(repr=False)

    @property
    def shard(self) -> str:
        """The shard of the message; empty if it has none."""
        return self.headers.get(SHARD, "")


@dataclass(frozen=True, slots=True)
class Backlog:
    """The messages of a group.

    Attributes:
        pending: messages that wait, delayed retries included.
        in_flight: messages that workers have taken and not settled.
        oldest_age: seconds since the oldest of them was published; ``None`` if there is none, or
            the engine cannot tell.
    """

    pending: int
    in_flight: int
    oldest_age: float | None = None


@dataclass(frozen=True, slots=True)
class Subscription:
    """The options of a `Receiver`.

    Attributes:
        group: workers of one group share the messages; each group gets all of them.
        lease: seconds after which the broker delivers an unsettled message again, unless it is
            extended. An engine whose lease is bound to the connection ignores it.
        max_in_flight: messages taken and not settled, at most. An engine that is pushed messages
            must not prefetch more.
        max_deliver: deliveries after which the shared code makes a dead letter. The broker's own
            limit, if any, has to be at least two above it.
    """

    group: str
    lease: float
    max_in_flight: int
    max_deliver: int


class Sender(ABC):
    """Publishes messages."""

    @abstractmethod
    def put(self, envelopes: Sequence[Envelope]) -> list[Exception | None]:
        """Publish messages, and wait until the broker has stored them durably.

        Returns:
            For each message ``None``, or the error for which it was not stored: a
            `BrokerUnavailable` if it may be stored later, or another `BrokerError` if the broker
            refuses it. A message that the broker has stored before, by its key, is a success; an
            empty key is equal to none. Without any group, the broker keeps messages for the first
            one, or they are refused.

        Raises:
            BrokerUnavailable: none of them was stored, as far as is known.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the connection; may be called twice."""


class Receiver(ABC):
    """Takes messages for one group, and settles them.

    Attributes:
        has_leases: taken messages have to be extended; else `extend` is not called.
    """

    has_leases: ClassVar[bool] = True

    @abstractmethod
    def take(self, most: int, wait: float) -> list[Taken]:
        """Take up to ``most`` messages; wait up to ``wait`` seconds for the first one.

        Another thread's `close` ends the wait; later takes return nothing. The shared code calls
        `close` after the last take has returned, since messages of a take that it ends may stay
        leased.

        Raises:
            BrokerUnavailable: the broker cannot be reached.
        """

    @abstractmethod
    def acknowledge(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        """Remove messages from the group for good.

        Returns:
            Those that this process had lost by then: their lease ended, or their connection. The
            broker delivers them again.
        """

    @abstractmethod
    def retry(self, taken: Sequence[Taken], delay: float) -> Sequence[Taken]:
        """Give messages back; they are delivered again after ``delay`` seconds, as a new attempt.

        Returns:
            Those that this process had lost by then.
        """

    @abstractmethod
    def release(self, taken: Sequence[Taken]) -> None:
        """Give messages back that were not handled; they are delivered again immediately.

        It does not count as an attempt, where the engine can tell. Lost messages are ignored, and
        errors of the connection are not raised: the broker delivers the messages again anyway.
        """

    @abstractmethod
    def extend(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        """Renew the leases of messages for as long as `Subscription.lease`.

        It is called without messages too, for those that the receiver itself holds.

        Returns:
            Those that this process had lost by then.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the connection; may be called twice. Unsettled messages are delivered again."""


class Engine(ABC):
    """One queue, stream or topic on a broker.

    The constructor takes the parsed URL and checks it without a connection. Connections are made by
    `ensure`, senders and receivers.

    Attributes:
        name: of the engine, such as ``jetstream``.
        listing: a command that lists the queues of the broker, for errors.
        queue: name of the stream, queue or topic.
        no_shards: why the engine cannot order messages by key; empty if it can. Then a receiver
            takes a message of a shard only if each earlier one is settled for good in its group.
            So retries, releases and ends of leases block the shard.
    """

    name: ClassVar[str]
    listing: ClassVar[str] = ""
    queue: str
    no_shards: str = "it does not keep the order of a key"

    @abstractmethod
    def exists(self, groups: Sequence[str] = ()) -> bool:
        """Return whether the queue and these groups exist; create nothing.

        `backlog` has these groups then, even if the broker cannot list them.

        Raises:
            BrokerUnavailable: the broker cannot be reached.
        """

    @abstractmethod
    def ensure(self, groups: Sequence[str] = ()) -> None:
        """Create what is missing, for these groups too; do nothing if all exists.

        Raises:
            QueueSettingsError: it exists with settings that can lose messages.
            BrokerUnavailable: the broker cannot be reached.
        """

    @abstractmethod
    def sender(self) -> Sender:
        """Return a new sender; `ensure` was called. Groups may be added later."""

    @abstractmethod
    def receiver(self, subscription: Subscription) -> Receiver:
        """Return a new receiver; `ensure` was called with its group."""

    @abstractmethod
    def backlog(self) -> dict[str, Backlog]:
        """Return the backlog of each group; of the group ``""`` if there is no group yet.

        The queue exists.

        Raises:
            BacklogUnknown: the broker does not tell it.
            BrokerUnavailable: the broker cannot be reached.
        """

    @abstractmethod
    def dead_letters(self) -> Engine:
        """Return the engine of the queue for dead letters, on the same broker.

        Its one group is ``dead``. Each call may return another object.
        """

    @abstractmethod
    def purge(self) -> int:
        """Remove all messages of the queue; return their number, as far as the engine can tell."""

    @abstractmethod
    def close(self) -> None:
        """Close connections that senders and receivers share; may be called twice."""
