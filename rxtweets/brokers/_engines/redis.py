"""A queue on a Redis stream.

All keys are in one hash slot: the stream has the name of the queue, other keys start with the name
in braces. The pending list of a group knows owners and deliveries. A sorted set beside it has the
time at which each pending message can be taken: the end of its lease, or of its delay. Each change
of both is one script, so they agree, also after a crash of a worker or of Redis.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

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
from rxtweets.brokers._engines.redis_client import GroupMissing, RedisClient
from rxtweets.brokers._engines.redis_scripts import BACKLOG, ENSURE, LEAVE, PURGE, PUT, SETTLE, TAKE
from rxtweets.brokers._envelopes import batches_of
from rxtweets.errors import BrokerError, BrokerUnavailable, ConfigurationError, QueueSettingsError

__all__ = ["RedisEngine"]

SLICE = 0.5
"""Seconds of one blocking read, after which a take looks for closing and for returned messages."""

AT_ONCE = 200
"""Messages of one script at most: Redis serves no other client while a script runs."""

SETTLED_AT_ONCE = 1000
"""Messages of one script that settles them: a script may pass 7,999 values to a command."""

BYTES_AT_ONCE = 1_000_000


class RedisEngine(Engine):
    """A stream of Redis 7.0 or later: ``redis://user:password@host:6379/name?dedupe=600``.

    ``rediss`` connects by TLS, and trusts the certificates of the system, or of ``SSL_CERT_FILE``.
    One server, or the primary of a replicated one; no Redis Cluster.

    Options:
        db: number of the database; default 0.
        dedupe: seconds for which a key is known, default 600; 0 disables deduplication. A policy
            ``volatile-*`` may evict keys earlier when the memory is full.
        unsafe: 1 skips the check of the server's settings.

    Guarantees: at least once. Messages are taken in the order of publishing, except for retried
    ones: a group delivers later messages meanwhile, so ``shard_by`` is refused. A message is
    deleted when every group has acknowledged it; a group that is no longer used keeps all messages
    until it is removed (``XGROUP DESTROY``). A group that is created later gets the messages that
    are not deleted yet. When the memory is full, publishing raises `BrokerUnavailable`, and taking
    continues.

    Durability is that of the server. With ``appendonly yes`` and ``appendfsync always``, confirmed
    messages survive a power failure; with ``everysec``, those of the last one or two seconds may be
    lost. Without ``appendonly``, a crash loses all since the last snapshot, or everything; a
    warning is logged. Replication is asynchronous: a failover can lose the last confirmed messages,
    and can revert acknowledgements, whose messages are then delivered again. A queue that is lost
    is created again with the groups that this engine knows.
    """

    name = "redis"
    listing = "redis-cli --scan --type stream"
    no_shards = "a group delivers later messages while an earlier one waits for a retry"

    def __init__(self, address: Address, client: RedisClient | None = None) -> None:
        """Check the address.

        Args:
            address: of the queue.
            client: of another engine, to share its connections.

        Raises:
            ConfigurationError: the address is invalid, or the client is not installed.
        """
        address.check_options(("db", "dedupe", "unsafe"))
        if "{" in address.path or "}" in address.path:
            raise ConfigurationError(f"{address}: the name of the queue has braces; leave them out")
        self._address = address
        self._client = client or RedisClient(address)
        self._window = address.number("dedupe", 600, 0)
        self._groups: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self.queue = address.path

    def exists(self, groups: Sequence[str] = ()) -> bool:
        """Return whether the stream and groups exist."""
        is_there = bool(self._client.call("EXISTS", self.queue))
        return is_there and set(groups) <= self.backlog().keys()

    def ensure(self, groups: Sequence[str] = ()) -> None:
        """Check the settings of the server, and create the stream and its groups.

        Raises:
            QueueSettingsError: the server may evict the queue, or its name is a key of another
                type.
            BrokerError: the server is too old, or refuses the user.
            BrokerUnavailable: the server cannot be reached.
        """
        self._client.check_settings(self.queue)
        with self._lock:
            self._groups = tuple(dict.fromkeys((*self._groups, *groups)))
        kind = self._client.run(ENSURE, [self.queue], self._groups).decode()
        if kind != "stream":
            raise QueueSettingsError(
                f"{self._client}: the key {self.queue!r} is of type {kind}, not a stream; give the "
                "queue another name"
            )

    def sender(self) -> Sender:
        """Return a sender."""
        return _RedisSender(self)

    def receiver(self, subscription: Subscription) -> Receiver:
        """Return a receiver."""
        return _RedisReceiver(self, self._client, subscription)

    def put(self, envelopes: Sequence[Envelope]) -> list[Exception | None]:
        """Publish messages with one script."""
        keys = [self.queue, *(self._key("key", one.key or uuid4().hex) for one in envelopes)]
        groups = self._groups
        values: list[Any] = [self._window, len(groups), *groups]
        for one in envelopes:
            headers = [part for header in one.headers.items() for part in header]
            values += [4 + len(headers), "body", one.body, "key", one.key, *headers]
        errors: list[Exception | None] = [None] * len(envelopes)
        try:
            for number, text in self._client.run(PUT, keys, values):
                errors[number] = self._client.refusal(text.decode())
        except BrokerError as error:
            return [error] * len(envelopes)
        return errors

    def backlog(self) -> dict[str, Backlog]:
        """Return the backlog of each group.

        ``pending`` can be too high for a while if there are several groups and messages were
        acknowledged out of order.
        """
        now, length, *groups = self._client.run(BACKLOG, [self.queue])
        return {
            name.decode(): Backlog(max(0, new) + waiting, held - waiting, _age(oldest, now))
            for name, new, held, waiting, oldest in groups
        } or {"": Backlog(length, 0)}

    def dead_letters(self) -> Engine:
        """Return the queue of the same name with ``.dead`` at its end."""
        return RedisEngine(replace(self._address, path=f"{self.queue}.dead"), self._client)

    def purge(self) -> int:
        """Remove all messages; return how many the stream had. Known keys stay known."""
        return int(self._client.run(PURGE, [self.queue], [self._key("due", "")]))

    def close(self) -> None:
        """Close the connections."""
        self._client.disconnect()

    def group_keys(self, group: str) -> list[str]:
        """Return the keys of the stream and of the times of a group."""
        return [self.queue, self._key("due", group)]

    def _key(self, kind: str, name: str) -> str:
        return f"{{{self.queue}}}:{kind}:{name}"


class _RedisSender(Sender):
    def __init__(self, engine: RedisEngine) -> None:
        self._engine = engine

    def put(self, envelopes: Sequence[Envelope]) -> list[Exception | None]:
        errors: list[Exception | None] = []
        for part in batches_of(envelopes, lambda one: len(one.body), AT_ONCE, BYTES_AT_ONCE):
            if errors and isinstance(errors[-1], BrokerUnavailable):
                errors += [errors[-1]] * len(part)
            else:
                errors += self._engine.put(part)
        return errors

    def close(self) -> None:
        self._engine.close()


class _RedisReceiver(Receiver):
    def __init__(
        self, engine: RedisEngine, client: RedisClient, subscription: Subscription
    ) -> None:
        self._engine = engine
        self._client = client
        self._group = subscription.group
        self._keys = engine.group_keys(subscription.group)
        self._lease = round(subscription.lease * 1000)
        self._consumer = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._lock = threading.Lock()
        self._closed = False

    def take(self, most: int, wait: float) -> list[Taken]:
        deadline = time.monotonic() + wait
        while True:
            with self._lock:  # after close, nothing is taken
                if self._closed:
                    return []
                last, pause, *entries = self._take_now(min(most, AT_ONCE))
            rest = deadline - time.monotonic()
            if entries or rest <= 0:
                return [_taken(*entry) for entry in entries]
            # A read without the group takes nothing, but returns when there is a new message.
            block = max(1, min(round(rest * 1000), round(SLICE * 1000), pause))
            self._client.call("XREAD", "COUNT", 1, "BLOCK", block, "STREAMS", self._keys[0], last)

    def acknowledge(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        return self._settle("acknowledge", taken)

    def retry(self, taken: Sequence[Taken], delay: float) -> Sequence[Taken]:
        return self._settle("retry", taken, round(delay * 1000))

    def release(self, taken: Sequence[Taken]) -> None:
        with suppress(BrokerError):
            self._settle("release", taken)

    def extend(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        return self._settle("extend", taken, self._lease)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            with suppress(BrokerError):  # the leases end
                self._run(LEAVE)
        self._engine.close()

    def _take_now(self, most: int) -> Any:
        try:
            return self._run(TAKE, most, self._lease)
        except GroupMissing as error:
            logging.getLogger("rxtweets").warning(
                "%s; the group is created again, its messages may be lost", error
            )
        self._engine.ensure([self._group])
        return self._run(TAKE, most, self._lease)

    def _settle(self, outcome: str, taken: Sequence[Taken], delay: int = 0) -> Sequence[Taken]:
        lost: list[Taken] = []
        for start in range(0, len(taken), SETTLED_AT_ONCE):
            part = taken[start : start + SETTLED_AT_ONCE]
            pairs = [value for one in part for value in (one.native_id, one.attempt)]
            try:
                lost += [part[number] for number in self._run(SETTLE, outcome, delay, *pairs)]
            except GroupMissing:
                lost += part
        return lost

    def _run(self, script: str, *values: Any) -> Any:
        return self._client.run(script, self._keys, [self._group, self._consumer, *values])


def _taken(native_id: bytes, attempt: int, fields: Sequence[bytes]) -> Taken:
    """Return a message from its fields; the first ``body`` and ``key`` are no headers."""
    rest = list(zip(fields[::2], fields[1::2], strict=True))
    body, key = (_removed(rest, name) for name in (b"body", b"key"))
    headers = {name.decode(errors="replace"): text.decode(errors="replace") for name, text in rest}
    number = native_id.decode()
    return Taken(
        key.decode(errors="replace"),
        body,
        headers,
        attempt,
        int(number.partition("-")[0]) / 1000,
        number,
        None,
    )


def _removed(fields: list[tuple[bytes, bytes]], name: bytes) -> bytes:
    for index, (known, value) in enumerate(fields):
        if known == name:
            del fields[index]
            return value
    return b""


def _age(oldest: bytes, now: int) -> float | None:
    if not oldest:
        return None
    return max(0.0, (now - int(oldest.partition(b"-")[0])) / 1000)
