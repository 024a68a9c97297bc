"""The engines under test, each with a broker, or the reason why it has none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from uuid import uuid4

import pytest

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
        rebalances: receivers of a group have partitions, which move when another one comes.
    """

    name: str
    broker: Callable[[], AbstractContextManager[UrlOf]]
    deduplicates: bool = True
    counts_attempts: bool = True
    leases: bool = True
    keeps_before_first_group: bool = True
    lease: float = 1.0
    releases_uncounted: bool = True
    rebalances: bool = False


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
def _kafka() -> Iterator[UrlOf]:
    from tests.brokers.tansu import tansu

    with tansu() as broker:
        yield broker.url


ENGINES = {
    engine.name: engine
    for engine in (
        EngineUnderTest("memory", _memory),
        # Kafka counts no deliveries: attempts are those that `retry` has counted.
        EngineUnderTest("kafka", _kafka, deduplicates=False, leases=False, rebalances=True),
    )
}
