"""One message of a shard at a time, over brokers that give a worker several of them at once."""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from rxtweets.brokers._engine import Receiver, Taken
from rxtweets.errors import BrokerError

__all__ = ["ShardReceiver"]

FETCH = 1.0
"""Seconds of one fetch of messages of other shards, while some wait here."""


class ShardReceiver(Receiver):
    """A receiver that gives out a message of a shard when the one before it is settled.

    The broker gives the messages of a shard in order, to one worker at a time. Those behind the
    first one wait here, with their leases. So does a message that is retried: the broker would
    deliver it again with all later ones, as another attempt of each.

    Args:
        receiver: of the engine.
        most: messages that wait here, at most.
    """

    def __init__(self, receiver: Receiver, most: int) -> None:
        self._receiver = receiver
        self._most = most
        self._changed = threading.Condition()
        self._single: deque[Taken] = deque()  # messages without a shard
        self._shards: dict[str, deque[Taken]] = {}  # the first message of each is out, or ready
        self._out: set[Taken] = set()
        self._ready: list[tuple[float, int, Taken]] = []  # a heap of times
        self._numbers = itertools.count()
        self._count = 0
        self._pool = ThreadPoolExecutor(1, "rxtweets-shards")
        self._fetch: Future[list[Taken]] | None = None
        self._is_closed = False
        self.has_leases = receiver.has_leases  # type: ignore[misc]  # as its engine has them

    def take(self, most: int, wait: float) -> list[Taken]:
        """Take messages without a shard, and the first ones of their shards."""
        deadline = time.monotonic() + wait
        while not self._is_closed:
            with self._changed:
                self._admit_fetched()
                taken = self._pop(most)
                waiting = len(self._single) + self._count - len(self._out)
                if 0 < waiting < self._most and self._fetch is None:
                    self._start_fetch(most)
                rest = deadline - time.monotonic()
                if taken or rest <= 0:
                    return taken
                if waiting or self._fetch is not None:
                    self._changed.wait(min(rest, self._until_ready()))
                    continue
            found = self._receiver.take(most, rest)
            with self._changed:
                self._admit(found)
        return []

    def acknowledge(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        """Acknowledge messages; the next ones of their shards become ready."""
        try:
            lost = self._receiver.acknowledge(taken)
        except Exception:  # else the next messages of the shards would wait for ever
            self._forget(set(taken))
            raise
        gone = set(lost)
        with self._changed:
            for one in self._out.intersection(taken) - gone:
                self._advance(one)
            self._changed.notify_all()
        self._forget(gone)
        return lost

    def retry(self, taken: Sequence[Taken], delay: float) -> Sequence[Taken]:
        """Give messages back; those of shards stay here until their time."""
        due = time.monotonic() + delay
        with self._changed:
            lost = [one for one in taken if one.shard and one not in self._out]
            for one in self._out.intersection(taken):
                again = replace(one, attempt=one.attempt + 1)
                self._shards[one.shard][0] = again
                self._out.remove(one)
                self._make_ready(again, due)
            self._changed.notify_all()
        single = [one for one in taken if not one.shard]
        return [*lost, *(self._receiver.retry(single, delay) if single else ())]

    def release(self, taken: Sequence[Taken]) -> None:
        """Give messages back, with all later ones of their shards."""
        single = [one for one in taken if not one.shard]
        if single:
            self._receiver.release(single)
        self._forget(set(taken))

    def extend(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        """Renew the leases of messages, and of those that wait here."""
        with self._changed:
            owned = list(dict.fromkeys((*taken, *self._held())))
        lost = set(self._receiver.extend(owned)) if owned else set[Taken]()
        self._forget(lost)
        return [one for one in taken if one in lost]

    def close(self) -> None:
        """Release the messages that wait here, and close the connection."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            with suppress(BrokerError):
                self._admit_fetched()
            waiting = set(self._held()) - self._out
        self._forget(waiting)
        self._receiver.close()
        self._pool.shutdown(wait=False)

    def _forget(self, given_up: Collection[Taken]) -> None:
        """Release messages and the later ones of their shards, which the broker gives in order."""
        with self._changed:
            released = [one for one in self._single if one in given_up]
            self._single = deque(one for one in self._single if one not in given_up)
            for name in {one.shard for one in given_up} & self._shards.keys():
                shard = self._shards[name]
                first = next((at for at, one in enumerate(shard) if one in given_up), len(shard))
                gone = [shard.pop() for _ in range(len(shard) - first)][::-1]
                released += gone
                self._out.difference_update(gone)
                self._count -= len(gone)
                if not shard:
                    del self._shards[name]
        if released:
            self._receiver.release(released)

    # Callers hold the lock.

    def _held(self) -> list[Taken]:
        return [*self._single, *(one for shard in self._shards.values() for one in shard)]

    def _start_fetch(self, most: int) -> None:
        """Take messages on another thread: this one must be free for those that wait here."""
        self._fetch = self._pool.submit(self._receiver.take, most, FETCH)
        self._fetch.add_done_callback(self._fetched)

    def _fetched(self, fetch: Future[list[Taken]]) -> None:
        with self._changed:
            self._changed.notify_all()
            if not self._is_closed:
                return
        if fetch.exception() is None:
            self._receiver.release(fetch.result())

    def _admit_fetched(self) -> None:
        if self._fetch is not None and self._fetch.done():
            fetch, self._fetch = self._fetch, None
            self._admit(fetch.result())

    def _admit(self, found: Sequence[Taken]) -> None:
        for one in found:
            if not one.shard:
                self._single.append(one)
                continue
            self._count += 1
            shard = self._shards.setdefault(one.shard, deque())
            shard.append(one)
            if len(shard) == 1:
                self._make_ready(one, 0.0)

    def _pop(self, most: int) -> list[Taken]:
        taken = [self._single.popleft() for _ in range(min(most, len(self._single)))]
        now = time.monotonic()
        while self._ready and len(taken) < most and self._ready[0][0] <= now:
            _, _, one = heapq.heappop(self._ready)
            if one.shard in self._shards and self._shards[one.shard][0] is one:  # else it was lost
                self._out.add(one)
                taken.append(one)
        return taken

    def _until_ready(self) -> float:
        return max(0.0, self._ready[0][0] - time.monotonic()) if self._ready else math.inf

    def _make_ready(self, one: Taken, at: float) -> None:
        heapq.heappush(self._ready, (at, next(self._numbers), one))

    def _advance(self, settled: Taken) -> None:
        shard = self._shards[settled.shard]
        shard.popleft()
        self._out.remove(settled)
        self._count -= 1
        if shard:
            self._make_ready(shard[0], 0.0)
        else:
            del self._shards[settled.shard]
