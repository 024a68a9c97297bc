"""The clients of brokers without rxtweets: the references of `brokers.py`.

Each publishes 200 messages at once with their keys, and waits until the broker has confirmed all of
them. Each takes 100 at once, and acknowledges them. Redis and SQLite also delete them, which other
brokers do by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import takewhile
from typing import Any, NamedTuple

import nats
import pika  # type: ignore[import-untyped]  # it comes without types
import redis

from rxtweets.brokers import Address

__all__ = ["CLIENTS", "Client"]

TOGETHER, TAKEN = 200, 100
PATIENCE = 30.0

Pairs = Sequence[tuple[str, bytes]]


class Client(NamedTuple):
    """A connected client.

    Attributes:
        publish: publishes pairs of a key and a body.
        work: takes and acknowledges this many messages.
    """

    publish: Callable[[Pairs], None]
    work: Callable[[int], None]


def waves_of(pairs: Pairs) -> Iterator[Pairs]:
    return (pairs[start : start + TOGETHER] for start in range(0, len(pairs), TOGETHER))


@contextmanager
def sqlite_client(address: Address) -> Iterator[Client]:
    database = sqlite3.connect(f"{address.path}.bare")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE bare (seq INTEGER PRIMARY KEY, key TEXT UNIQUE, body BLOB)")

    def publish(pairs: Pairs) -> None:
        database.execute("PRAGMA synchronous = FULL")
        for wave in waves_of(pairs):
            with database:
                database.executemany("INSERT OR IGNORE INTO bare (key, body) VALUES (?, ?)", wave)

    def work(count: int) -> None:
        database.execute("PRAGMA synchronous = NORMAL")
        for _ in range(0, count, TAKEN):
            with database:
                rows = database.execute(
                    "SELECT seq, key, body FROM bare ORDER BY seq LIMIT ?", [TAKEN]
                ).fetchall()
                database.execute("DELETE FROM bare WHERE seq <= ?", [rows[-1][0]])

    with contextlib.closing(database):
        yield Client(publish, work)


@contextmanager
def jetstream_client(address: Address) -> Iterator[Client]:
    stream = address.path
    [(host, port)] = address.hosts
    with asyncio.Runner() as runner:
        connection = runner.run(nats.connect(f"nats://{host}:{port}"))
        context = connection.jetstream()
        subscription = runner.run(context.pull_subscribe_bind("workers", stream))

        async def publish(pairs: Pairs) -> None:
            for wave in waves_of(pairs):
                confirmed = [
                    await context.publish_async(stream, body, headers={"Nats-Msg-Id": key})
                    for key, body in wave
                ]
                await asyncio.gather(*confirmed)

        async def work(count: int) -> None:
            while count:
                taken = await subscription.fetch(min(count, TAKEN), timeout=PATIENCE)
                for message in taken[:-1]:
                    await message.ack()
                await taken[-1].ack_sync()  # the server handles acknowledgements in their order
                count -= len(taken)

        yield Client(
            lambda pairs: runner.run(publish(pairs)), lambda count: runner.run(work(count))
        )
        runner.run(connection.close())


@contextmanager
def redis_client(address: Address) -> Iterator[Client]:
    [(host, port)] = address.hosts
    stream = f"{address.path}.bare"
    with redis.Redis(host, port or 6379, protocol=2) as client:
        client.xgroup_create(stream, "workers", "0", mkstream=True)

        def publish(pairs: Pairs) -> None:
            for wave in waves_of(pairs):
                pipeline = client.pipeline(transaction=False)
                for key, body in wave:
                    pipeline.xadd(stream, {"key": key, "body": body})
                pipeline.execute()

        def work(count: int) -> None:
            while count:
                answer: Any = client.xreadgroup("workers", "bare", {stream: ">"}, TAKEN)
                ids = [identifier for identifier, _ in answer[0][1]]
                pipeline = client.pipeline(transaction=False)
                pipeline.xack(stream, "workers", *ids)
                pipeline.xdel(stream, *ids)
                pipeline.execute()
                count -= len(ids)

        yield Client(publish, work)


class _Rabbit:
    """A connection of pika, with its loop on a thread."""

    def __init__(self, address: Address) -> None:
        [(host, port)] = address.hosts
        self._exchange, self._queue = address.path, f"{address.path}.workers"
        self._changed = threading.Event()
        self._taken = self._published = self._wanted = 0
        self._unconfirmed: dict[int, None] = {}
        self._connection = pika.SelectConnection(
            pika.ConnectionParameters(host, port),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._opened),
        )
        self._loop = self._connection.ioloop
        self._thread = threading.Thread(target=self._loop.start, daemon=True)
        self._thread.start()
        self._wait()

    def publish(self, pairs: Pairs) -> None:
        for wave in waves_of(pairs):
            self._loop.add_callback_threadsafe(lambda wave=wave: self._send(wave))
            self._wait()

    def work(self, count: int) -> None:
        self._wanted, self._taken = count, 0
        self._loop.add_callback_threadsafe(self._consume)
        self._wait()

    def close(self) -> None:
        self._loop.add_callback_threadsafe(self._connection.close)
        self._thread.join(PATIENCE)

    def _wait(self) -> None:
        if not self._changed.wait(PATIENCE):
            raise TimeoutError("RabbitMQ does not answer")
        self._changed.clear()

    def _opened(self, channel: Any) -> None:
        self._channel = channel
        channel.confirm_delivery(self._on_confirm, callback=lambda _: self._changed.set())

    def _send(self, wave: Pairs) -> None:
        for key, body in wave:
            properties = pika.BasicProperties(message_id=key, delivery_mode=2)
            self._channel.basic_publish(self._exchange, "", body, properties)
            self._published += 1
            self._unconfirmed[self._published] = None

    def _on_confirm(self, frame: Any) -> None:
        tag = frame.method.delivery_tag
        older = takewhile(lambda one: one <= tag, self._unconfirmed)
        for confirmed in list(older) if frame.method.multiple else [tag]:
            del self._unconfirmed[confirmed]
        if not self._unconfirmed:
            self._changed.set()

    def _consume(self) -> None:
        self._channel.basic_qos(prefetch_count=1000)
        self._channel.basic_consume(self._queue, self._on_message)

    def _on_message(self, channel: Any, method: Any, *_: Any) -> None:
        self._taken += 1
        if self._taken % TAKEN == 0:
            channel.basic_ack(method.delivery_tag, multiple=True)
        if self._taken == self._wanted:
            self._changed.set()


@contextmanager
def rabbitmq_client(address: Address) -> Iterator[Client]:
    rabbit = _Rabbit(address)
    yield Client(rabbit.publish, rabbit.work)
    rabbit.close()


CLIENTS: dict[str, Callable[[Address], AbstractContextManager[Client]]] = {
    "sqlite": sqlite_client,
    "jetstream": jetstream_client,
    "redis": redis_client,
    "rabbitmq": rabbitmq_client,
}
