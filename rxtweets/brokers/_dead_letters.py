"""The queue of dead letters: its sender, and its reader."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import uuid4

from rxtweets._messages.message import Message
from rxtweets.brokers._engine import (
    SHARD,
    Engine,
    Envelope,
    Receiver,
    Sender,
    Subscription,
    Taken,
)
from rxtweets.brokers._envelopes import KEY, key_in, messages_of, number_in, quoted
from rxtweets.brokers._packs import AGAIN, FOR_GROUP
from rxtweets.errors import QueueMissing
from rxtweets.subscribers._dead_letters import text_of

__all__ = ["DeadLetterSender", "DeadLetters", "QueuedDeadLetter", "check_exists"]

ERROR, ATTEMPTS, OF_GROUP, OF_SHARD, QUEUE, WORKER, AT = (
    f"rxt-{name}"
    for name in ("error", "attempts", "group", "dead-shard", "queue", "worker", "dead-at")
)
"""Headers of a dead letter."""

LONGEST_ERROR = 1000
"""Characters of an error in a header."""

GROUP = "dead"
AT_ONCE = 100
LEASE = 60.0


class DeadLetterSender:
    """Publishes the dead letters of a group; connects with the first one.

    Args:
        engine: of the queue whose messages failed.
        group: whose workers failed them.
    """

    def __init__(self, engine: Engine, group: str) -> None:
        self._engine = engine
        self._group = group
        self._lock = threading.Lock()
        self._sender: Sender | None = None

    def put(self, letters: Sequence[tuple[Taken, object]]) -> list[Exception | None]:
        """Publish messages with the reasons of their failures.

        Returns:
            ``None`` for each letter that is stored durably, else the error.
        """
        try:
            return self._connected().put([self._envelope(*letter) for letter in letters])
        except Exception as error:  # noqa: BLE001 - the messages are delivered again
            return [error] * len(letters)

    def close(self) -> None:
        """Close the connection; may be called twice."""
        with self._lock:
            sender, self._sender = self._sender, None
        if sender is not None:
            sender.close()

    def _connected(self) -> Sender:
        with self._lock:
            if self._sender is None:
                self._sender = _ready(self._engine).sender()
            return self._sender

    def _envelope(self, taken: Taken, reason: object) -> Envelope:
        key = key_in(taken)
        # With its shard, a letter would be listed alone. A worker of the dead letters would
        # acknowledge one for another group unseen.
        headers = {
            **{
                OF_SHARD if name == SHARD else name: text
                for name, text in taken.headers.items()
                if name not in AGAIN
            },
            KEY: quoted(key),
            ERROR: _ascii(text_of(reason))[:LONGEST_ERROR],
            ATTEMPTS: str(taken.attempt),
            OF_GROUP: self._group,
            QUEUE: self._engine.queue,
            WORKER: f"{socket.gethostname()}:{os.getpid()}",
            AT: repr(time.time()),
        }
        # A message that is replayed may die again, or die in another group: that is another letter.
        # So is one of a queue that was created anew, whose broker counts from 1 again.
        letter = f"{self._group}:{key}:{taken.native_id}:{taken.enqueued_at}:{taken.attempt}"
        return Envelope(letter, taken.body, headers)


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
        """Return the number of dead letters.

        Raises:
            QueueMissing: there is no such queue.
            BacklogUnknown: the broker does not tell it.
            BrokerUnavailable: the broker cannot be reached.
        """
        dead = self._existing()
        if dead is None:
            return 0
        backlog = dead.backlog()[GROUP]
        return backlog.pending + backlog.in_flight

    def __iter__(self) -> Iterator[QueuedDeadLetter]:
        """Yield the dead letters, and keep them.

        Letters that another program lists or replays at this time are left out. Some brokers give
        10,000 at most.

        Raises:
            QueueMissing: there is no such queue.
            BrokerUnavailable: the broker cannot be reached.
        """
        receiver = self._receiver()
        if receiver is None:
            return
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

    def replay(self, *, to_all_groups: bool = False) -> int:
        """Publish all dead letters to the queue again; return their number.

        Each is removed after it was stored there. It is delivered to the group whose workers failed
        it, which is created again if it is missing. A letter without a group, of another program,
        is delivered to all groups.

        Args:
            to_all_groups: deliver each letter to all groups.

        Raises:
            QueueMissing: there is no such queue.
            BrokerUnavailable: the broker cannot be reached; the rest stays.
            BrokerError: the broker refused a message; it stays.
        """
        receiver, count = self._receiver(), 0
        if receiver is None:
            return 0
        self._engine.ensure()
        sender = self._engine.sender()
        left: list[Taken] = []
        try:
            while left := receiver.take(AT_ONCE, 0.2):
                if not to_all_groups:  # other groups remove messages of a group that is missing
                    self._engine.ensure(sorted(filter(None, {_group_of(one) for one in left})))
                errors = sender.put([_replayed(one, to_all_groups) for one in left])
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
        """Remove all dead letters; return their number, as far as the engine can tell.

        Raises:
            QueueMissing: there is no such queue.
            BrokerUnavailable: the broker cannot be reached.
        """
        dead = self._existing()
        return 0 if dead is None else dead.purge()

    def __repr__(self) -> str:
        return f"<dead letters of {self._engine.name} {self._engine.queue!r}>"

    def _receiver(self) -> Receiver | None:
        dead = self._existing()
        if dead is None:
            return None
        return dead.receiver(Subscription(GROUP, LEASE, 10_000, 10_000))

    def _existing(self) -> Engine | None:
        """Return the queue of the dead letters; ``None`` if there was none yet."""
        if self._engine.dead_letters().exists((GROUP,)):
            return _ready(self._engine)
        check_exists(self._engine)
        return None


def check_exists(engine: Engine, groups: Sequence[str] = ()) -> None:
    """Check that a queue and its groups exist, before they are read.

    Raises:
        QueueMissing: there is no such queue, or no such group.
    """
    if engine.exists(groups):
        return
    if not engine.exists():
        listed = f" (`{engine.listing}` lists all)" if engine.listing else ""
        raise QueueMissing(
            f"there is no {engine.name} queue {engine.queue!r}: check its URL{listed}; a "
            "publisher, a worker or `rxtweets ingest URL` creates it"
        )
    missing = [group for group in groups if not engine.exists([group])]
    raise QueueMissing(
        f"the {engine.name} queue {engine.queue!r} has no group {', '.join(missing)}: check the "
        "name; a worker of the group, or a publisher whose connect() names it, creates it"
    )


def _ready(engine: Engine) -> Engine:
    dead = engine.dead_letters()
    dead.ensure((GROUP,))
    return dead


def _ascii(text: str) -> str:
    return " ".join(text.encode("ascii", "backslashreplace").decode().split())


def _letter(taken: Taken) -> QueuedDeadLetter:
    [message] = messages_of([taken])
    headers = taken.headers
    return QueuedDeadLetter(
        key_in(taken),
        headers.get(ERROR, ""),
        int(number_in(headers, ATTEMPTS)),
        _group_of(taken),
        headers.get(WORKER, ""),
        number_in(headers, AT),
        taken.body,
        message if isinstance(message, Message) else None,
    )


DEAD_ONLY = {ERROR, ATTEMPTS, OF_GROUP, OF_SHARD, QUEUE, WORKER, AT, *AGAIN}
"""Headers that a replayed message does not have."""


def _group_of(taken: Taken) -> str:
    return taken.headers.get(OF_GROUP, "")


def _replayed(taken: Taken, to_all_groups: bool) -> Envelope:
    headers = {name: text for name, text in taken.headers.items() if name not in DEAD_ONLY}
    if (group := _group_of(taken)) and not to_all_groups:
        headers[FOR_GROUP] = group
    if OF_SHARD in taken.headers:
        headers[SHARD] = taken.headers[OF_SHARD]
    # The broker has seen the key: under the same one, it would drop the message.
    return Envelope(f"{key_in(taken)}:{uuid4().hex}", taken.body, headers)
