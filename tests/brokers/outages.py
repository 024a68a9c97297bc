"""Brokers that can be killed, suspended, cut off, and filled up, each for one engine."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol
from uuid import uuid4

import pytest
import redis

from tests.brokers import rabbitmq
from tests.brokers.engines import absent
from tests.brokers.nats_server import NatsServer
from tests.brokers.redis_server import DURABLE, RedisServer

__all__ = ["BROKERS", "Broker", "Network", "Place", "Store"]


class Server(Protocol):
    """The process of a broker."""

    def start(self) -> None:
        """Start it on its store, and wait until it answers."""

    def kill(self) -> None:
        """End it as by ``kill -9``."""

    def suspend(self) -> None:
        """Stop it with its connections open."""

    def resume(self) -> None:
        """Let it continue."""


class Store(Protocol):
    """The store of a broker."""

    def fill(self) -> None:
        """Leave no room in it."""

    def clear(self) -> None:
        """Make room again."""


@dataclass(frozen=True)
class Place:
    """The address and the directory of a broker.

    Attributes:
        host: to listen on.
        prefix: the start of its command.
        directory: of its files.
    """

    directory: Path
    host: str = "127.0.0.1"
    prefix: Sequence[str] = ()


@dataclass(frozen=True)
class Broker:
    """A broker that runs.

    Attributes:
        url: returns the URL of a queue.
        server: its process, if it has one.
        store: which can be filled up, if that is not a disk.
        room: bytes that a full disk still has.
        restarts: needs a restart after its disk was full.
    """

    url: Callable[[str], str]
    server: Server | None = None
    store: Store | None = None
    room: int = 0
    restarts: bool = False


class Memory:
    """The memory of Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def fill(self) -> None:
        self._client.config_set("maxmemory", "1mb")  # less than an empty server uses

    def clear(self) -> None:
        self._client.config_set("maxmemory", 0)


class Disk:
    """A disk of a few megabytes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.room = 0
        self._ballast = directory / "ballast"

    def fill(self) -> None:
        with self._ballast.open("wb", buffering=0) as file, suppress(OSError):
            while (size := self._free() - self.room) > 0:  # until no space is left
                file.write(bytes(min(size, 2**20)))

    def clear(self) -> None:
        self._ballast.unlink()

    def _free(self) -> int:
        disk = os.statvfs(self.directory)
        return disk.f_bavail * disk.f_frsize


@contextmanager
def small_disk(size: str) -> Iterator[Disk]:
    with TemporaryDirectory() as directory:
        run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory)
        try:
            yield Disk(Path(directory))
        finally:
            run("umount", "--lazy", directory)


class Network:
    """A network between this namespace and another one, where a broker runs."""

    def __init__(self, stack: ExitStack) -> None:
        self.name = f"rxt{uuid4().hex[:8]}"
        block = f"198.18.{random.randrange(256)}.{4 * random.randrange(64)}"  # RFC 2544: tests
        start, _, last = block.rpartition(".")
        self._near, self.host = (f"{start}.{int(last) + number}" for number in (1, 2))
        self.prefix = ("ip", "netns", "exec", self.name)
        self._ends = (("ip",), f"{self.name}a"), (("ip", "-n", self.name), f"{self.name}b")
        run("ip", "netns", "add", self.name)
        stack.callback(run, "ip", "netns", "delete", self.name)
        (_, near), (_, far) = self._ends
        run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", self.name)
        stack.callback(run, "ip", "link", "delete", near)
        for (command, link), address in zip(self._ends, (self._near, self.host), strict=True):
            run(*command, "address", "add", f"{address}/30", "dev", link)
            run(*command, "link", "set", link, "up")
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        # While the link is down, no packet must leave by the default route.
        route = ("unreachable", f"{block}/30", "metric", "4000")
        run("ip", "route", "add", *route)
        stack.callback(run, "ip", "route", "delete", *route)

    def cut(self, end: int) -> None:
        """Take the link down, at this end or the broker's."""
        command, link = self._ends[end]
        run(*command, "link", "set", link, "down")

    def restore(self, end: int) -> None:
        command, link = self._ends[end]
        run(*command, "link", "set", link, "up")


def run(*command: str) -> None:
    """Run a program; skip the test where it is not allowed."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"{' '.join(command)}: {done.stderr.strip()}")


@contextmanager
def sqlite_file(place: Place) -> Iterator[Broker]:
    yield Broker(lambda name: f"sqlite:{place.directory}/{name}")


@contextmanager
def jetstream(place: Place) -> Iterator[Broker]:
    if shutil.which("nats-server") is None:
        absent("nats-server is not installed")
    server = NatsServer(place.directory, "", place.host, place.prefix)
    try:
        url = f"nats://{place.host}:{server.port}"
        yield Broker(lambda name: f"{url}/{name}", server, restarts=True)
    finally:
        server.kill()


@contextmanager
def rabbitmq_node(place: Place) -> Iterator[Broker]:
    if not rabbitmq.has_server():
        absent("RabbitMQ is not installed")
    with ExitStack() as stack:
        if place.prefix:  # each namespace needs its own, which a node would leave behind
            mapper = stack.enter_context(subprocess.Popen([*place.prefix, "epmd"]))
            stack.callback(mapper.kill)
        limit = f"disk_free_limit.absolute = {ALARM}\n"
        node = rabbitmq.Node(place.directory, limit, place.host, place.prefix)
        stack.callback(node.kill)
        node.start()
        yield Broker(node.url, node, room=ALARM // 2)


ALARM = 40_000_000
"""Bytes of free disk below which a node of RabbitMQ takes no messages."""


@contextmanager
def redis_stream(place: Place) -> Iterator[Broker]:
    if shutil.which("redis-server") is None:
        absent("redis-server is not installed")
    settings = (*DURABLE, "--protected-mode", "no")
    server = RedisServer(place.directory, settings, "", place.host, place.prefix)
    try:
        server.start()
        with server.client() as client:
            yield Broker(server.url, server, Memory(client))
    finally:
        server.kill()


BROKERS: dict[str, Callable[[Place], AbstractContextManager[Broker]]] = {
    "sqlite": sqlite_file,
    "jetstream": jetstream,
    "rabbitmq": rabbitmq_node,
    "redis": redis_stream,
}
