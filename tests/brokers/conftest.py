from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from rxtweets import Message, brokers
from tests.brokers.engines import ENGINES, EngineUnderTest, UrlOf

pytest.register_assert_rewrite(
    *(f"tests.brokers.{contract}_contract" for contract in ("engine", "queue", "shard"))
)


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest) -> EngineUnderTest:
    """The engine that the module names; a module for each, so that they run side by side."""
    return ENGINES[request.module.ENGINE]


@pytest.fixture(scope="module")
def url_of(engine: EngineUnderTest) -> Iterator[UrlOf]:
    with engine.broker() as url_of:
        yield url_of


@pytest.fixture
def url(url_of: UrlOf) -> str:
    """The URL of a new queue."""
    return url_of(f"t{uuid4().hex[:12]}")


@pytest.fixture
def queue(engine: EngineUnderTest, url: str) -> Iterator[brokers.Queue]:
    """A new queue with one group."""
    queue = engine.connect(url, groups=["workers"])
    queue.engine.ensure(["workers"])
    yield queue
    queue.close()


@pytest.fixture
def tweet() -> Callable[[int], Message[str]]:
    def tweet(number: int) -> Message[str]:
        line = b'{"data":{"id":"%d","text":"text \xe2\x80\xa6 %d","lang":"en"}}' % (
            10**18 + number,
            number,
        )
        return Message.from_line(line, 1_764_028_461.25 + number)

    return tweet
