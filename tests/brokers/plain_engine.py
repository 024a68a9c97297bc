"""An engine of a third party: it imports public names only, and follows `rxtweets.brokers.Engine`.

A group is a list of its messages. A receiver holds what it has taken until it closes, so there are
no leases.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from rxtweets.brokers import Backlog, Engine, Envelope, Receiver, Sender, Subscription, Taken
from rxtweets.errors import BrokerError

__all__ = ["PlainEngine"]


@dataclass(eq=False)
class _Message:
    envelope: Envelope
    published_at: float = field(default_factory=time.time)
    due: float = 0.0
    attempt: int = 1
    taken: Taken | None = None
    holder: Receiver | None = None


class _Store:
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.groups: dict[str, list[_Message]] = {}


_STORES: dict[str, _Store] = {}


class PlainEngine(Engine):
    name = "plain"

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self._store = _STORES.setdefault(queue, _Store())

    def exists(self, groups: Sequence[str] = ()) -> bool:
        known = self._store.groups.keys()
        return bool(known) and set(groups) <= known

    def ensure(self, groups: Sequence[str] = ()) -> None:
        for group in groups:
            self._store.groups.setdefault(group, [])

    def sender(self) -> Sender:
        return _PlainSender(self._store)

    def receiver(self, subscription: Subscription) -> Receiver:
        return _PlainReceiver(self._store, subscription.group)

    def backlog(self) -> dict[str, Backlog]:
        with self._store.changed:
            return {name: _backlog(group) for name, group in self._store.groups.items()} or {
                "": Backlog(0, 0)
            }

    def dead_letters(self) -> Engine:
        return PlainEngine(f"{self.queue}.dead")

    def purge(self) -> int:
        with self._store.changed:
            counts = [len(group) for group in self._store.groups.values()]
            for group in self._store.groups.values():
                group.clear()
        return sum(counts)

    def close(self) -> None:
        pass


class _PlainSender(Sender):
    def __init__(self, store: _Store) -> None:
        self._store = store

    def put(self, envelopes: Sequence[Envelope]) -> list[Exception | None]:
        with self._store.changed:
            if not self._store.groups:
                return [BrokerError("no group stores the message") for _ in envelopes]
            for group in self._store.groups.values():
                group.extend(map(_Message, envelopes))
            self._store.changed.notify_all()
        return [None] * len(envelopes)

    def close(self) -> None:
        pass


class _PlainReceiver(Receiver):
    has_leases: ClassVar[bool] = False

    def __init__(self, store: _Store, group: str) -> None:
        self._changed = store.changed
        self._messages = store.groups[group]
        self._is_closed = False

    def take(self, most: int, wait: float) -> list[Taken]:
        deadline = time.monotonic() + wait
        with self._changed:
            while not self._is_closed:
                now = time.monotonic()
                free = [one for one in self._messages if one.taken is None and one.due <= now]
                if free or now >= deadline:
                    return [self._take(one) for one in free[:most]]
                self._changed.wait(min(0.05, deadline - now))
        return []

    def acknowledge(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        return self._settle(taken, self._messages.remove)

    def retry(self, taken: Sequence[Taken], delay: float) -> Sequence[Taken]:
        def give_back(message: _Message) -> None:
            message.attempt += 1
            message.due = time.monotonic() + delay

        return self._settle(taken, give_back)

    def release(self, taken: Sequence[Taken]) -> None:
        self._settle(taken, lambda _: None)

    def extend(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        return [one for one in taken if one.receipt.taken is not one]

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self.release([one.taken for one in self._messages if one.taken and one.holder is self])

    def _take(self, message: _Message) -> Taken:
        sent = message.envelope
        message.holder, message.taken = (
            self,
            Taken(
                sent.key,
                sent.body,
                sent.headers,
                message.attempt,
                message.published_at,
                str(id(message)),
                message,
            ),
        )
        return message.taken

    def _settle(
        self, taken: Sequence[Taken], settle: Callable[[_Message], object]
    ) -> Sequence[Taken]:
        with self._changed:
            ours = [one for one in taken if one.receipt.taken is one]
            for one in ours:
                settle(one.receipt)
                one.receipt.taken = None
            self._changed.notify_all()
        return [one for one in taken if one not in ours]


def _backlog(messages: Sequence[_Message]) -> Backlog:
    taken = sum(one.taken is not None for one in messages)
    oldest = min((one.published_at for one in messages), default=None)
    return Backlog(len(messages) - taken, taken, None if oldest is None else time.time() - oldest)
