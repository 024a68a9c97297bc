"""A queue in this process, for tests."""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rxtweets.brokers._address import Address
from rxtweets.brokers._engine import (
    Backlog,
    Engine,
    Envelope,
    Receiver,
    Sender,
    Subscription,
    Taken,
)

__all__ = ["MemoryEngine"]

REMEMBERED = 100_000
"""Keys by which published messages are deduplicated."""


class MemoryEngine(Engine):
    """A queue of this process: ``memory:name``. Equal names are one queue.

    A message is removed when every group that exists by then has acknowledged it. The order by
    key (``shard_by``) holds until a worker exceeds its lease.
    """

    name = "memory"
    no_shards = ""

    def __init__(self, address: Address) -> None:
        address.check_options(())
        self._address = address
        self.queue = address.path
        self._log = _log_of(address.path)

    def exists(self, groups: Sequence[str] = ()) -> bool:
        """Return whether the queue and groups were created in this process."""
        return self._log.is_created and set(groups) <= self._log.groups.keys()

    def ensure(self, groups: Sequence[str] = ()) -> None:
        """Create the groups."""
        with self._log.changed:
            self._log.is_created = True
            for group in groups:
                self._log.groups.setdefault(group, _Group())

    def sender(self) -> Sender:
        """Return a sender."""
        return _MemorySender(self._log)

    def receiver(self, subscription: Subscription) -> Receiver:
        """Return a receiver."""
        return _MemoryReceiver(self._log, subscription)

    def backlog(self) -> dict[str, Backlog]:
        """Return the backlog of each group."""
        with self._log.changed:
            groups = self._log.groups or {"": _Group()}
            return {name: self._log.backlog(group) for name, group in groups.items()}

    def dead_letters(self) -> Engine:
        """Return the queue of the same name with ``.dead`` at its end."""
        return MemoryEngine(replace(self._address, path=f"{self.queue}.dead"))

    def purge(self) -> int:
        """Remove all messages."""
        with self._log.changed:
            count = len(self._log.messages)
            self._log.messages.clear()
            for group in self._log.groups.values():
                group.held.clear()
                group.ready.clear()
                group.shards.clear()
            return count

    def close(self) -> None:
        """Do nothing."""


@dataclass(slots=True)
class _Held:
    """A message that a group has taken, or has given back."""

    attempt: int = 0
    take: int = 0
    lease: float = 0.0
    is_taken: bool = False


@dataclass(slots=True)
class _Group:
    """A group: its position, and the messages before it that are not acknowledged."""

    position: int = 0
    held: dict[int, _Held] = field(default_factory=dict)
    ready: list[tuple[float, int]] = field(default_factory=list)
    """A heap of the times at which held messages can be taken, and their numbers."""
    shards: dict[str, deque[int]] = field(default_factory=dict)
    """Held messages of each shard; only the first one can be taken."""

    def hold(self, number: int, shard: str) -> bool:
        """Hold a message; return whether it can be taken now."""
        self.held[number] = _Held(lease=math.inf)
        if shard:
            self.shards.setdefault(shard, deque()).append(number)
        return not shard or len(self.shards[shard]) == 1

    def settle(self, number: int, shard: str) -> int | None:
        """Forget a message; return the next one of its shard."""
        del self.held[number]
        if not shard:
            return None
        waiting = self.shards[shard]
        waiting.popleft()
        if waiting:
            return waiting[0]
        del self.shards[shard]
        return None


class _Log:
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.numbers = itertools.count()
        self.takes = itertools.count(1)
        self.messages: OrderedDict[int, tuple[Envelope, float]] = OrderedDict()
        self.keys: OrderedDict[str, None] = OrderedDict()
        self.groups: dict[str, _Group] = {}
        self.is_created = False

    def add(self, envelope: Envelope) -> None:
        if envelope.key in self.keys:
            return
        self.keys[envelope.key] = None
        if len(self.keys) > REMEMBERED:
            self.keys.popitem(last=False)
        self.messages[next(self.numbers)] = envelope, time.time()

    def take(self, group: _Group, most: int, lease: float) -> list[Taken]:
        numbers: list[int] = []
        now = time.monotonic()
        while group.ready and len(numbers) < most and group.ready[0][0] <= now:
            at, number = heapq.heappop(group.ready)
            held = group.held.get(number)
            if held is not None and held.lease == at:  # else it was extended or acknowledged
                numbers.append(number)
        new = (number for number in self.messages if number >= group.position)
        for number in new:
            if len(numbers) == most:
                break
            group.position = number + 1
            if group.hold(number, self.messages[number][0].shard):
                numbers.append(number)
        return [self._taken(group, number, now + lease) for number in numbers]

    def _taken(self, group: _Group, number: int, until: float) -> Taken:
        held = group.held[number]
        held.attempt += 1
        held.is_taken = True
        self.wait_until(group, number, until)
        envelope, at = self.messages[number]
        held.take = next(self.takes)
        receipt = number, held.take
        return Taken(
            envelope.key,
            envelope.body,
            envelope.headers,
            held.attempt,
            at,
            str(number),
            receipt,
        )

    def wait_until(self, group: _Group, number: int, at: float) -> None:
        group.held[number].lease = at
        heapq.heappush(group.ready, (at, number))

    def forget(self, number: int) -> None:
        groups = self.groups.values()
        if all(number < group.position and number not in group.held for group in groups):
            self.messages.pop(number, None)

    def backlog(self, group: _Group) -> Backlog:
        new = [number for number in self.messages if number >= group.position]
        in_flight = sum(held.is_taken for held in group.held.values())
        oldest = min((*group.held, *new), default=None)
        age = None if oldest is None else time.time() - self.messages[oldest][1]
        return Backlog(len(new) + len(group.held) - in_flight, in_flight, age)


_logs: dict[str, _Log] = {}
_lock = threading.Lock()


def _log_of(name: str) -> _Log:
    with _lock:
        return _logs.setdefault(name, _Log())


class _MemorySender(Sender):
    def __init__(self, log: _Log) -> None:
        self._log = log

    def put(self, envelopes: Sequence[Envelope]) -> list[Exception | None]:
        with self._log.changed:
            for envelope in envelopes:
                self._log.add(envelope)
            self._log.changed.notify_all()
        return [None] * len(envelopes)

    def close(self) -> None:
        pass


class _MemoryReceiver(Receiver):
    def __init__(self, log: _Log, subscription: Subscription) -> None:
        self._log = log
        self._lease = subscription.lease
        self._group = log.groups[subscription.group]
        self._closed = False

    def take(self, most: int, wait: float) -> list[Taken]:
        deadline = time.monotonic() + wait
        with self._log.changed:
            while not self._closed:
                taken = self._log.take(self._group, most, self._lease)
                rest = deadline - time.monotonic()
                if taken or rest <= 0:
                    return taken
                ready = self._group.ready
                if ready:
                    rest = min(rest, max(0.0, ready[0][0] - time.monotonic()))
                self._log.changed.wait(rest)
            return []

    def acknowledge(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        with self._log.changed:
            lost = [one for one in taken if self._held(one) is None]
            for one in taken:
                if self._held(one) is not None:
                    following = self._group.settle(one.receipt[0], one.shard)
                    if following is not None:
                        self._log.wait_until(self._group, following, time.monotonic())
                        self._log.changed.notify_all()
                    self._log.forget(one.receipt[0])
            return lost

    def retry(self, taken: Sequence[Taken], delay: float) -> Sequence[Taken]:
        return self._give_back(taken, delay, 0)

    def release(self, taken: Sequence[Taken]) -> None:
        self._give_back(taken, 0.0, 1)

    def extend(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        with self._log.changed:
            lost = [one for one in taken if self._held(one) is None]
            for one in taken:
                if self._held(one) is not None:
                    until = time.monotonic() + self._lease
                    self._log.wait_until(self._group, one.receipt[0], until)
            return lost

    def close(self) -> None:
        with self._log.changed:
            self._closed = True
            self._log.changed.notify_all()

    def _held(self, taken: Taken) -> _Held | None:
        """Return the state of a message that is still ours."""
        number, take = taken.receipt
        held = self._group.held.get(number)
        return held if held is not None and held.is_taken and held.take == take else None

    def _give_back(self, taken: Sequence[Taken], delay: float, uncounted: int) -> Sequence[Taken]:
        with self._log.changed:
            lost = []
            for one in taken:
                held = self._held(one)
                if held is None:
                    lost.append(one)
                    continue
                held.is_taken = False
                held.attempt -= uncounted
                at = time.monotonic() + delay
                self._log.wait_until(self._group, one.receipt[0], at)
            self._log.changed.notify_all()
            return lost
