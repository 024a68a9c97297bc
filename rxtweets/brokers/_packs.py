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
from functools import partial
from hashlib import blake2b
from urllib.parse import unquote
from uuid import uuid4

from rxtweets.brokers._engine import Engine, Envelope, Receiver, Sender, Taken
from rxtweets.brokers._envelopes import FORMAT, KEY, PACK, RECEIVED_AT, key_in, number_in, quoted
from rxtweets.errors import BrokerError

__all__ = ["AGAIN", "FOR_GROUP", "Unpacker", "packs_of"]

KEYS = "rxt-keys"
"""Header: the keys of the messages of a pack as in URLs, separated by spaces."""

TIMES = "rxt-received-ats"
"""Header: when the lines of a pack were read, in seconds since 1970; empty where unknown."""

FOR_GROUP = "rxt-for-group"
"""Header: the message is published again for this group alone."""

ATTEMPTS = "rxt-attempts-before"
"""Header: deliveries of the message before it was published again."""

NOT_BEFORE = "rxt-not-before"
"""Header: when the message may be handled, in seconds since 1970."""

AGAIN = (FOR_GROUP, ATTEMPTS, NOT_BEFORE)
"""Headers of a message that was published again."""

MARKS = frozenset({FORMAT, *AGAIN})
"""Headers without which a message needs no work here."""

MOST_BYTES = 256_000
"""Bytes of a pack, its headers included; the least limit of brokers is that of SQS."""

MOST_HEADER_BYTES = 1000
"""Bytes of a header of a pack, enough for 50 tweets: Pub/Sub takes 1024."""

TIME_BYTES = 20
"""Bytes of a time in a header, at most."""

PAUSE = 1.0
"""Seconds until a pack is delivered again whose failed messages could not be published."""


def packs_of(envelopes: Sequence[Envelope], most: int) -> list[tuple[Envelope, list[int]]]:
    """Return packs, each with the positions of its messages.

    Args:
        envelopes: in their order.
        most: messages of a pack, at most.
    """
    return [(_pack([envelopes[at] for at in part]), part) for part in _parts(envelopes, most)]


def _parts(envelopes: Sequence[Envelope], most: int) -> Iterator[list[int]]:
    part: list[int] = []
    size = header_size = 0
    for at, envelope in enumerate(envelopes):
        header = max(len(quoted(envelope.key)) + 1, TIME_BYTES)
        is_large = size + len(envelope.body) + 2 * header > MOST_BYTES
        if part and (len(part) == most or is_large or header_size + header > MOST_HEADER_BYTES):
            yield part
            part, size, header_size = [], 0, 0
        part.append(at)
        size += len(envelope.body) + 1 + 2 * header
        header_size += header
    if part:
        yield part


def _pack(envelopes: Sequence[Envelope]) -> Envelope:
    if len(envelopes) == 1:
        return envelopes[0]
    keys = " ".join(quoted(envelope.key) for envelope in envelopes)
    times = " ".join(envelope.headers.get(RECEIVED_AT, "-") for envelope in envelopes)
    digest = blake2b(keys.encode(), digest_size=16).hexdigest()
    body = b"\n".join(envelope.body for envelope in envelopes)
    return Envelope(digest, body, {FORMAT: PACK, KEYS: keys, TIMES: times})


@dataclass(slots=True, eq=False)
class _Pack:
    """A taken pack; the receipt of each of its messages.

    Attributes:
        taken: the pack.
        left: messages of it without an outcome.
        again: messages to publish again before the pack is acknowledged.
        is_touched: a message of it has an outcome.
    """

    taken: Taken
    left: set[Taken] = field(default_factory=set)
    again: list[Envelope] = field(default_factory=list)
    is_touched: bool = False


class Unpacker(Receiver):
    """A receiver that takes packs apart, and settles a pack when all its messages are settled.

    A message of a pack cannot be delivered again alone. So a failed one is published again, for
    this group alone, before the pack is acknowledged. Messages without a pack pass unchanged, and
    so does a pack that strangers wrote and that cannot be taken apart.

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
        self._connecting = threading.Lock()
        self._sender: Sender | None = None
        self._packs: set[_Pack] = set()
        self._ready: deque[Taken] = deque()
        self._usual_size: int | None = None
        self.has_leases = receiver.has_leases  # type: ignore[misc]  # as its engine has them

    def take(self, most: int, wait: float) -> list[Taken]:
        """Take messages; those of a pack beyond ``most`` wait here for the next call."""
        if not self._ready:
            # The first pack shows the size of the others: a worker leaves the rest to other ones.
            packs = 1 if self._usual_size is None else max(1, most // self._usual_size)
            found = self._receiver.take(packs, wait)
            if all(MARKS.isdisjoint(one.headers) for one in found):
                self._usual_size = 1 if found else self._usual_size
                return found
            self._usual_size = max(1, *map(self._open, found))
        with self._lock:
            return [self._ready.popleft() for _ in range(min(most, len(self._ready)))]

    def acknowledge(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        """Acknowledge messages, and the packs that are complete."""
        return self._settle(taken, self._receiver.acknowledge, lambda _: None)

    def retry(self, taken: Sequence[Taken], delay: float) -> Sequence[Taken]:
        """Give messages back, those of packs by publishing them again."""
        due = time.time() + delay if delay else 0.0

        def again(member: Taken) -> Envelope:
            return self._again(member, member.attempt, due)

        return self._settle(taken, lambda single: self._receiver.retry(single, delay), again)

    def release(self, taken: Sequence[Taken]) -> None:
        """Give messages back; a pack without any outcome as a whole."""
        whole, members = self._split(taken)
        single = [one for one in taken if _pack_of(one) is None]
        if whole or single:
            self._receiver.release([*whole, *single])
        with contextlib.suppress(BrokerError):
            self._settle(members, list, lambda one: self._again(one, one.attempt - 1, 0.0))

    def give_back(self) -> None:
        """Release the messages that wait here."""
        with self._lock:
            ready, self._ready = list(self._ready), deque()
        if ready:
            self.release(ready)

    def extend(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        """Renew the leases of messages, of the packs, and of messages that wait here."""
        with self._lock:
            packs = [pack.taken for pack in self._packs]
            held = {_broker_message(one): None for one in (*taken, *self._ready)}
        owned = list(dict.fromkeys((*held, *packs)))
        lost = set(self._receiver.extend(owned))  # it may hold others itself
        if lost:
            self._forget(lost)
        return [one for one in taken if _broker_message(one) in lost]

    def close(self) -> None:
        """Release messages that wait here, and close the connections."""
        self.give_back()
        with self._connecting:
            sender, self._sender = self._sender, None
        if sender is not None:
            sender.close()
        self._receiver.close()

    def _open(self, taken: Taken) -> int:
        """Make the messages of a message of the broker ready; return their number."""
        headers = taken.headers
        members = _members(taken) if headers.get(FORMAT) == PACK else []
        if members:
            self._add(taken, members)
        elif headers.get(FOR_GROUP, self._group) != self._group:
            with contextlib.suppress(BrokerError):  # then it is delivered again after its lease
                self._receiver.acknowledge([taken])
        elif (wait := number_in(headers, NOT_BEFORE) - time.time()) > 0:
            with contextlib.suppress(BrokerError):
                self._receiver.retry([taken], wait)
        elif ATTEMPTS in headers:  # a pack of one: the engine must not get another attempt back
            self._add(taken, [replace(taken, attempt=_attempt(taken))])
        else:
            with self._lock:
                self._ready.append(taken)
        return len(members)

    def _add(self, taken: Taken, members: list[Taken]) -> None:
        pack = _Pack(taken)
        members = [replace(member, receipt=pack) for member in members]
        pack.left.update(members)
        with self._lock:
            self._packs.add(pack)
            self._ready += members

    def _settle(
        self,
        taken: Sequence[Taken],
        settle_single: Callable[[list[Taken]], Sequence[Taken]],
        again: Callable[[Taken], Envelope | None],
    ) -> Sequence[Taken]:
        """Settle single messages, and note the outcomes of others; raise if none was settled."""
        lost: list[Taken] = []
        errors: list[Exception] = []

        def attempt(part: list[Taken], settle: Callable[[], Sequence[Taken]]) -> None:
            try:
                lost.extend(settle())
            except Exception as error:  # noqa: BLE001 - the others are settled all the same
                lost.extend(part)
                errors.append(error)

        if single := [one for one in taken if _pack_of(one) is None]:
            attempt(single, lambda: settle_single(single))
        for one in taken:
            if (pack := _pack_of(one)) is not None:
                attempt([one], partial(self._note, one, pack, again(one)))
        if errors and len(lost) == len(taken):
            raise errors[0]
        return lost

    def _note(self, member: Taken, pack: _Pack, again: Envelope | None) -> Sequence[Taken]:
        """Note an outcome, and settle a complete pack; return the message if it was lost."""
        with self._lock:
            if member not in pack.left:
                return [member]
            pack.left.remove(member)
            pack.is_touched = True
            pack.again += [] if again is None else [again]
            if pack.left:
                return []
        try:
            return [member] if self._finish(pack) else []
        finally:
            with self._lock:
                self._packs.discard(pack)

    def _finish(self, pack: _Pack) -> Sequence[Taken]:
        """Publish failed messages again, then acknowledge the pack; return it if it was lost."""
        if pack.again and (error := self._publish(pack.again)) is not None:
            self._receiver.retry([pack.taken], PAUSE)  # as a whole
            raise error
        return self._receiver.acknowledge([pack.taken])

    def _publish(self, envelopes: Sequence[Envelope]) -> Exception | None:
        try:
            return next(filter(None, self._connected().put(envelopes)), None)
        except Exception as error:  # noqa: BLE001 - the pack is given back, and the error raised
            return error

    def _split(self, taken: Sequence[Taken]) -> tuple[list[Taken], list[Taken]]:
        """Return packs all of whose messages are given, and the other messages of packs."""
        with self._lock:
            members = [one for one in taken if (pack := _pack_of(one)) and one in pack.left]
            counts = Counter(map(_pack_of, (*members, *self._ready)))
            given = {pack for one in members if (pack := _pack_of(one)) is not None}
            whole = {
                pack for pack in given if not pack.is_touched and counts[pack] == len(pack.left)
            }
            self._drop(whole)
        return [pack.taken for pack in whole], [
            one for one in members if _pack_of(one) not in whole
        ]

    def _forget(self, lost: set[Taken]) -> None:
        with self._lock:
            self._drop({pack for pack in self._packs if pack.taken in lost})
            self._ready = deque(one for one in self._ready if one not in lost)

    def _drop(self, packs: set[_Pack]) -> None:
        for pack in packs:
            pack.left.clear()
        self._packs -= packs
        self._ready = deque(one for one in self._ready if _pack_of(one) not in packs)

    def _again(self, member: Taken, attempts: int, due: float) -> Envelope:
        key = key_in(member)
        headers = {
            **{name: text for name, text in member.headers.items() if name != NOT_BEFORE},
            KEY: quoted(key),
            FOR_GROUP: self._group,
            ATTEMPTS: str(max(0, attempts)),
            **({NOT_BEFORE: repr(due)} if due else {}),
        }
        # The broker may know the key: under the same one, it would drop the message.
        return Envelope(f"{key}:{uuid4().hex}", member.body, headers)

    def _connected(self) -> Sender:
        with self._connecting:
            if self._sender is None:
                self._sender = self._engine.sender()
            return self._sender


def _pack_of(taken: Taken) -> _Pack | None:
    return taken.receipt if isinstance(taken.receipt, _Pack) else None


def _broker_message(taken: Taken) -> Taken:
    return taken if (pack := _pack_of(taken)) is None else pack.taken


def _attempt(taken: Taken) -> int:
    # A message that is not due yet is given back once: that is one delivery more.
    has_waited = NOT_BEFORE in taken.headers and taken.attempt > 1
    return max(0, int(number_in(taken.headers, ATTEMPTS))) + taken.attempt - has_waited


def _members(pack: Taken) -> list[Taken]:
    """Return the messages of a pack; none if its headers do not fit its lines."""
    keys, times = (pack.headers.get(name, "").split(" ") for name in (KEYS, TIMES))
    lines = pack.body.split(b"\n")
    if not len(keys) == len(times) == len(lines):
        return []
    return [
        Taken(  # quicker than `dataclasses.replace`
            unquote(key),
            line,
            {KEY: key} if time == "-" else {KEY: key, RECEIVED_AT: time},
            pack.attempt,
            pack.enqueued_at,
            pack.native_id,
            pack.receipt,
        )
        for line, key, time in zip(lines, keys, times, strict=True)
    ]
