"""The queue of dead letters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

from rxtweets._messages.message import Message
from rxtweets.brokers._engine import Engine, Envelope, Receiver, Subscription, Taken
from rxtweets.brokers._envelopes import key_in, messages_of, number_in
from rxtweets.brokers._packs import AGAIN

__all__ = ["DeadLetters", "QueuedDeadLetter"]

GROUP = "dead"
AT_ONCE = 100
LEASE = 60.0


@dataclass(frozen=True, slots=True)
class QueuedDeadLetter:
    """A message that failed for good.

    Attributes:
        key: of the message.
        error: type and text of the last failure.
        attempts: deliveries.
        group: of the worker.
        worker: host and process of the worker.
        at: when it became a dead letter, in seconds since 1970.
        body: as it was published.
        message: decoded; ``None`` if the body cannot be decoded.
    """

    key: str
    error: str
    attempts: int
    group: str
    worker: str
    at: float
    body: bytes
    message: Message[object] | None


class DeadLetters:
    """The dead letters of a queue, which are stored on the same broker.

    ::

        for letter in queue.dead_letters:
            print(letter.key, letter.error)
        queue.dead_letters.replay()  # after the fault is mended

    Made by `Queue.dead_letters`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __len__(self) -> int:
        """Return the number of dead letters."""
        dead = self._ready()
        backlog = dead.backlog()[GROUP]
        return backlog.pending + backlog.in_flight

    def __iter__(self) -> Iterator[QueuedDeadLetter]:
        """Yield the dead letters, and keep them.

        Letters that another program lists or replays at this time are left out. Some brokers give
        10,000 at most.
        """
        receiver = self._receiver()
        seen: dict[str, Taken] = {}
        try:
            while taken := receiver.take(AT_ONCE, 0.2):
                # A loop that outlasts the lease takes its first letters again.
                new = [one for one in taken if one.native_id not in seen]
                seen.update((one.native_id, one) for one in taken)
                yield from map(_letter, new)
        finally:
            receiver.release(list(seen.values()))
            receiver.close()

    def replay(self) -> int:
        """Publish all dead letters to the queue again; return their number.

        Each is removed after it was stored there. All groups of the queue get it.

        Raises:
            BrokerUnavailable: the broker cannot be reached; the rest stays.
            BrokerError: the broker refused a message; it stays.
        """
        self._engine.ensure()
        receiver, count = self._receiver(), 0
        sender = self._engine.sender()
        left: list[Taken] = []
        try:
            while left := receiver.take(AT_ONCE, 0.2):
                errors = sender.put([_replayed(one) for one in left])
                pairs = list(zip(left, errors, strict=True))
                stored = [one for one, error in pairs if error is None]
                receiver.acknowledge(stored)
                count += len(stored)
                left = [one for one, error in pairs if error is not None]
                for error in filter(None, errors):
                    raise error
        finally:
            receiver.release(left)
            receiver.close()
            sender.close()
        return count

    def purge(self) -> int:
        """Remove all dead letters; return their number, as far as the engine can tell."""
        return self._ready().purge()

    def __repr__(self) -> str:
        return f"<dead letters of {self._engine.name} {self._engine.queue!r}>"

    def _ready(self) -> Engine:
        dead = self._engine.dead_letters()
        dead.ensure((GROUP,))
        return dead

    def _receiver(self) -> Receiver:
        return self._ready().receiver(Subscription(GROUP, LEASE, 10_000, 10_000))


def _letter(taken: Taken) -> QueuedDeadLetter:
    [message] = messages_of([taken])
    headers = taken.headers
    return QueuedDeadLetter(
        key_in(taken),
        headers.get("rxt-error", ""),
        int(number_in(headers, "rxt-attempts")),
        headers.get("rxt-group", ""),
        headers.get("rxt-worker", ""),
        number_in(headers, "rxt-dead-at"),
        taken.body,
        message if isinstance(message, Message) else None,
    )


DEAD_ONLY = {
    *("rxt-error", "rxt-attempts", "rxt-group", "rxt-queue", "rxt-worker", "rxt-dead-at"),
    *AGAIN,
}
"""Headers that a message has lost when it is replayed."""


def _replayed(taken: Taken) -> Envelope:
    headers = {name: text for name, text in taken.headers.items() if name not in DEAD_ONLY}
    # The broker has seen the key: under the same one, it would drop the message.
    return Envelope(f"{key_in(taken)}:{uuid4().hex}", taken.body, headers)
