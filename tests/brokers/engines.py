"""The engines under test, each with a broker, or the reason why it has none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest

from tests.brokers import rabbitmq
from tests.brokers.nats_server import nats_server
from tests.brokers.redis_server import is_installed, redis_server

__all__ = ["ENGINES", "EngineUnderTest", "absent"]

UrlOf = Callable[[str], str]
"""Returns the URL of a queue with this name, on the broker that runs for the test."""


@dataclass(frozen=True)
class EngineUnderTest:
    """An engine and its abilities.

    Attributes:
        name: of the engine.
        broker: runs, or finds, a broker for the length of a block; skips where there is none.
        deduplicates: drops messages of a known key.
        counts_attempts: knows the number of deliveries.
        leases: redelivers a message whose lease ends.
        keeps_before_first_group: a group gets messages published before it existed.
        lease: seconds of the shortest lease.
        releases_uncounted: a release is no attempt.
    """

    name: str
    broker: Callable[[], AbstractContextManager[UrlOf]]
    deduplicates: bool = True
    counts_attempts: bool = True
    leases: bool = True
    keeps_before_first_group: bool = True
    lease: float = 1.0
    releases_uncounted: bool = True


def absent(reason: str) -> None:
    """Skip the test on a laptop; fail it where everything has to be there."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def _memory() -> Iterator[UrlOf]:
    suffix = uuid4().hex
    yield lambda name: f"memory:{name}-{suffix}"


@contextmanager
def _redis() -> Iterator[UrlOf]:
    if not is_installed():
        absent("redis-server is not installed")
    with redis_server() as server:
        yield server.url


@contextmanager
def _sqlite() -> Iterator[UrlOf]:
    with TemporaryDirectory() as directory:
        yield lambda name: f"sqlite:{directory}/{name}"


@contextmanager
def _jetstream() -> Iterator[UrlOf]:
    with nats_server() as server:
        yield lambda name: f"nats://127.0.0.1:{server.port}/{name}"


@contextmanager
def _rabbitmq() -> Iterator[UrlOf]:
    suffix, names = uuid4().hex, list[str]()

    def url_of(name: str) -> str:
        names.append(f"{name}-{suffix}")
        return f"amqp://guest:guest@127.0.0.1:{port}/{names[-1]}"

    with ExitStack() as stack:
        port = 5672
        if not rabbitmq.accepts(port):
            if not rabbitmq.has_server():
                absent("RabbitMQ is not installed")
            port = stack.enter_context(rabbitmq.running_node()).port
        yield url_of
        rabbitmq.delete(port, names)


ENGINES = {
    engine.name: engine
    for engine in (
        EngineUnderTest("memory", _memory),
        EngineUnderTest("redis", _redis),
        EngineUnderTest("sqlite", _sqlite),
        EngineUnderTest("jetstream", _jetstream, releases_uncounted=False),
        EngineUnderTest(
            "rabbitmq",
            _rabbitmq,
            deduplicates=False,
            leases=False,
            keeps_before_first_group=False,
        ),
    )
}
