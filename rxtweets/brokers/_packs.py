"""Many messages in one message of the broker, each acknowledged on its own.

The body of a pack is one line for each message, so other consumers can split it at line feeds.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from uuid import uuid4

from rxtweets.brokers._engine import Engine, Envelope, Receiver, Sender, Taken
from rxtweets.brokers._envelopes import FORMAT, KEY, RECEIVED_AT
from rxtweets.errors import BrokerUnavailable

__all__ = ["Unpacker", "packs_of"]

PACK = "pack"
"""The value of the header `FORMAT`."""

KEYS = "rxt-keys"
"""Header: the keys of the messages of a pack, separated by spaces."""

TIMES = "rxt-received-ats"
"""Header: when the lines of a pack were read, in seconds since 1970; empty where unknown."""

FOR_GROUP = "rxt-for-group"
"""Header: the message is published again for this group alone."""

ATTEMPTS = "rxt-attempts-before"
"""Header: deliveries of the message before it was published again."""

NOT_BEFORE = "rxt-not-before"
"""Header: when the message may be handled, in seconds since 1970."""

MOST_BYTES = 256_000
"""Bytes of a pack; the least limit of brokers is that of SQS."""

MOST_KEYS = 1000
"""Bytes of the keys of a pack, which are ids of 19 digits: Pub/Sub takes 1024 in a header."""


def packs_of(envelopes: Sequence[Envelope], most: int) -> list[tuple[Envelope, list[int]]]:
    """Return packs, each with the positions of its messages.

    Args:
        envelopes: in their order.
        most: messages of a pack, at most.
    """
    return [(_pack([envelopes[at] for at in part]), part) for part in _parts(envelopes, most)]


def _parts(envelopes: Sequence[Envelope], most: int) -> Iterator[list[int]]:
    part: list[int] = []
    size = keys = 0
    for at, envelope in enumerate(envelopes):
        size += len(envelope.body) + 1
        keys += len(envelope.key) + 1
        if part and (len(part) == most or size > MOST_BYTES or keys > MOST_KEYS):
            yield part
            part, size, keys = [], len(envelope.body) + 1, len(envelope.key) + 1
        part.append(at)
    if part:
        yield part


def _pack(envelopes: Sequence[Envelope]) -> Envelope:
    if len(envelopes) == 1:
        return envelopes[0]
    keys = " ".join(envelope.key for envelope in envelopes)
    times = " ".join(envelope.headers.get(RECEIVED_AT, "-") for envelope in envelopes)
    digest = blake2b(keys.encode(), digest_size=16).hexdigest()
    body = b"\n".join(envelope.body for envelope in envelopes)
    return Envelope(digest, body, {FORMAT: PACK, KEYS: keys, TIMES: times})


@dataclass(slots=True, eq=False)
class _Pack:
    """A taken pack.

    Attributes:
        taken: the pack.
        left: messages of it without an outcome.
        again: messages to publish again before the pack is acknowledged.
        is_touched: a message of it has an outcome.
    """

    taken: Taken
    left: int
    again: list[Envelope] = field(default_factory=list)
    is_touched: bool = False


class Unpacker(Receiver):
    """A receiver that takes packs apart, and settles a pack when all its messages are settled.

    A message of a pack cannot be delivered again alone. So a failed one is published again, for
    this group alone, before the pack is acknowledged. Messages without a pack pass unchanged.

    Args:
        receiver: of the engine.
        engine: publishes messages again.
        group: of the receiver.
    """

    def __init__(self, receiver: Receiver, engine: Engine, group: str) -> None:
        self._receiver = receiver
        self._engine = engine
        self._group = group
        self._lock = threading.Lock()
        self._sender: Sender | None = None
        self._packs: dict[Taken, _Pack] = {}
        self._ready: deque[Taken] = deque()
        self.has_leases = receiver.has_leases  # type: ignore[misc]  # as its engine has them

    def take(self, most: int, wait: float) -> list[Taken]:
        """Take messages; those of a pack beyond ``most`` wait here for the next call."""
        if not self._ready:
            for taken in self._receiver.take(most, wait):
                self._open(taken)
        with self._lock:
            return [self._ready.popleft() for _ in range(min(most, len(self._ready)))]

    def acknowledge(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        """Acknowledge messages, and the packs that are complete."""
        return self._settle(taken, self._receiver.acknowledge, lambda _: None)

    def retry(self, taken: Sequence[Taken], delay: float) -> Sequence[Taken]:
        """Give messages back, those of packs by publishing them again."""
        due = time.time() + delay if delay else 0.0

        def again(member: Taken) -> Envelope:
            # A message that is not due yet is given back once: that is one delivery more.
            return self._again(member, member.attempt - bool(delay), due)

        return self._settle(taken, lambda single: self._receiver.retry(single, delay), again)

    def release(self, taken: Sequence[Taken]) -> None:
        """Give messages back; a pack without any outcome as a whole."""
        whole, single = self._untouched(taken)
        self._receiver.release([*whole, *(one for one in single if one not in self._packs)])
        parts = [one for one in single if one in self._packs]
        with contextlib.suppress(BrokerUnavailable):
            self._settle(parts, list, lambda one: self._again(one, one.attempt - 1, 0.0))

    def extend(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        """Renew the leases of messages and of their packs."""
        with self._lock:
            pack_of = {one: self._packs[one].taken for one in self._packs}
        lost = set(
            self._receiver.extend(list({pack_of.get(one, one): None for one in (*taken, *pack_of)}))
        )
        return [one for one in taken if pack_of.get(one, one) in lost] if lost else ()

    def close(self) -> None:
        """Release messages that wait here, and close the connections."""
        with self._lock:
            ready, self._ready = list(self._ready), deque()
        if ready:
            self.release(ready)
        if self._sender is not None:
            self._sender.close()
        self._receiver.close()

    def _open(self, taken: Taken) -> None:
        headers = taken.headers
        if headers.get(FORMAT) == PACK:
            self._add(taken, _members(taken))
        elif headers.get(FOR_GROUP, self._group) != self._group:
            self._receiver.acknowledge([taken])
        elif (wait := float(headers.get(NOT_BEFORE, 0.0)) - time.time()) > 0:
            self._receiver.retry([taken], wait)
        elif ATTEMPTS in headers:  # a pack of one: the engine must not get another attempt back
            self._add(taken, [replace(taken, attempt=taken.attempt + int(headers[ATTEMPTS]))])
        else:
            self._ready.append(taken)

    def _add(self, taken: Taken, members: list[Taken]) -> None:
        pack = _Pack(taken, len(members))
        with self._lock:
            self._packs.update((one, pack) for one in members)
            self._ready += members

    def _settle(
        self,
        taken: Sequence[Taken],
        settle_single: Callable[[list[Taken]], Sequence[Taken]],
        again: Callable[[Taken], Envelope | None],
    ) -> Sequence[Taken]:
        """Settle single messages, and note the outcomes of others."""
        single = [one for one in taken if one not in self._packs]
        lost = list(settle_single(single)) if single else []
        for one in taken:
            with self._lock:
                pack = self._packs.pop(one, None)
                if pack is None:
                    continue
                envelope = again(one)
                pack.again += [] if envelope is None else [envelope]
                pack.is_touched = True
                pack.left -= 1
                is_complete = pack.left == 0
            if is_complete and not self._finish(pack):
                lost.append(one)
        return lost

    def _finish(self, pack: _Pack) -> bool:
        """Publish failed messages again, then acknowledge the pack; return whether it was ours."""
        if pack.again and any(self._connected().put(pack.again)):
            return False  # its lease ends, and the whole pack is delivered again
        return not self._receiver.acknowledge([pack.taken])

    def _untouched(self, taken: Sequence[Taken]) -> tuple[list[Taken], list[Taken]]:
        """Return packs all of whose messages are given, and the other messages."""
        given = Counter(self._packs[one] for one in taken if one in self._packs)
        whole = {
            pack
            for pack, count in given.items()
            if not pack.is_touched and count + self._waiting(pack) == pack.left
        }
        rest = [one for one in taken if self._packs.get(one) not in whole]
        with self._lock:
            self._packs = {one: pack for one, pack in self._packs.items() if pack not in whole}
            self._ready = deque(one for one in self._ready if one in self._packs)
        return [pack.taken for pack in whole], rest

    def _waiting(self, pack: _Pack) -> int:
        return sum(self._packs.get(one) is pack for one in self._ready)

    def _again(self, member: Taken, attempts: int, due: float) -> Envelope:
        key = member.headers.get(KEY, member.key)
        headers = {
            **member.headers,
            KEY: key,
            FOR_GROUP: self._group,
            ATTEMPTS: str(max(0, attempts)),
            **({NOT_BEFORE: repr(due)} if due else {}),
        }
        # The broker may know the key: under the same one, it would drop the message.
        return Envelope(f"{key}:{uuid4().hex}", member.body, headers)

    def _connected(self) -> Sender:
        with self._lock:
            if self._sender is None:
                self._sender = self._engine.sender()
            return self._sender


def _members(pack: Taken) -> list[Taken]:
    keys, times = pack.headers[KEYS].split(" "), pack.headers[TIMES].split(" ")
    attempt, at, native_id, receipt = pack.attempt, pack.enqueued_at, pack.native_id, pack.receipt
    return [
        Taken(
            key,
            line,
            {KEY: key} if time == "-" else {KEY: key, RECEIVED_AT: time},
            attempt,
            at,
            native_id,
            receipt,
        )
        for line, key, time in zip(pack.body.split(b"\n"), keys, times, strict=True)
    ]
