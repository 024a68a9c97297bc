"""``async for`` over streams of X and over queues, against the simulator."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import pytest

import rxtweets
from rxtweets import brokers, events, simulator
from rxtweets import operators as ops
from rxtweets.errors import AuthenticationError

PATIENCE = 20.0


@pytest.fixture
def x() -> Iterator[simulator.Simulator]:
    with simulator.serve(rate=1000, connections=2) as server:
        yield server


@pytest.fixture
def tweets(x: simulator.Simulator) -> rxtweets.HotStream[str]:
    return rxtweets.sample_stream(token="any", base_url=x.url)


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(PATIENCE):
            return await main()

    return asyncio.run(limited())


def count_open(x: simulator.Simulator) -> int:
    """Return the number of open connections; asking its API is limited."""
    return len(x._access._held)


async def until_open(x: simulator.Simulator, count: int) -> None:
    def poll() -> None:
        while count_open(x) != count and not abandoned.wait(0.005):
            pass

    abandoned = threading.Event()
    try:
        await asyncio.to_thread(poll)
    finally:
        abandoned.set()


def text(message: rxtweets.Message[str]) -> str:
    return message.data


async def by_break(stream: Any, _: Any) -> None:
    async for _ in stream:
        break


async def by_error(stream: Any, _: Any) -> None:
    with suppress(OSError):
        async for _ in stream:
            raise OSError("full")


async def by_cancellation(stream: Any, x: simulator.Simulator) -> None:
    task = asyncio.create_task(anext(aiter(stream.filter(lambda _: False))))
    await until_open(x, 1)
    task.cancel()
    await asyncio.wait([task])


async def by_aclose(stream: Any, _: Any) -> None:
    messages = aiter(stream)
    await anext(messages)
    await messages.aclose()


COMPOSED: dict[str, Callable[[Any], Any]] = {
    "stream": lambda stream: stream,
    "filter": lambda stream: stream.filter(text),
    "process": lambda stream: stream.pipe(ops.process(lambda message: message)),
    "batch": lambda stream: stream.pipe(ops.batch(5, 1.0)),
    "share": lambda stream: stream.pipe(ops.batch(5, 1.0), ops.share()),
}


@pytest.mark.parametrize("leave", [by_break, by_error, by_cancellation, by_aclose])
@pytest.mark.parametrize("name", COMPOSED)
def test_leaving_the_loop_closes_the_connection(
    x: simulator.Simulator, tweets: rxtweets.HotStream[str], name: str, leave: Any
) -> None:
    async def main() -> None:
        await leave(COMPOSED[name](tweets), x)
        await until_open(x, 0)  # while the loop runs, and not at its end

    run(main)
    assert len([request for request in x.requests if "sample" in request.path]) == 1


def test_two_loops_share_one_connection(
    x: simulator.Simulator, tweets: rxtweets.HotStream[str]
) -> None:
    both = asyncio.Barrier(2)

    async def loop() -> None:
        async for _ in tweets:
            await both.wait()
            assert count_open(x) == 1
            break

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(loop())
            group.create_task(loop())
        await until_open(x, 0)

    run(main)


def test_merged_streams_close_all_connections(x: simulator.Simulator) -> None:
    tweets = rxtweets.sample_stream(token="any", base_url=x.url, connections=2)

    async def main() -> None:
        async for _ in tweets:
            await until_open(x, 2)
            break
        await until_open(x, 0)

    run(main)


def test_slow_loop_makes_the_overflow_policy_apply(x: simulator.Simulator) -> None:
    tweets = rxtweets.sample_stream(token="any", base_url=x.url, buffer_size=10)
    overflowing = threading.Event()
    tweets.events.subscribe(
        lambda event: overflowing.set() if isinstance(event, events.OverflowStarted) else None
    )

    async def main() -> None:
        async for _ in tweets:
            await asyncio.to_thread(overflowing.wait, PATIENCE)
            break

    run(main)
    assert overflowing.is_set()
    assert tweets.stats().dropped > 0


def test_refused_token_is_raised_in_the_loop() -> None:
    with simulator.serve(token="right") as x:
        refused = rxtweets.sample_stream(token="wrong", base_url=x.url)
        with pytest.raises(AuthenticationError):
            run(lambda: anext(aiter(refused)))


def test_loop_ends_when_the_stream_is_stopped(tweets: rxtweets.HotStream[str]) -> None:
    async def main() -> int:
        count = 0
        async for _ in tweets:
            count += 1
            tweets.stop()
        return count

    assert run(main) == tweets.stats().delivered


def test_batch_of_a_queue_is_redelivered_when_the_loop_is_left() -> None:
    queue = brokers.connect("memory:left")
    queue.publisher().on_next(rxtweets.Batch([rxtweets.Message("a", {"id": "1"})]))
    batches = queue.source("group", wait=lambda _: 0.0).pipe(ops.batch(1))
    got: list[str] = []

    async def main() -> None:
        with suppress(OSError):
            async for batch in batches:
                got.append(batch[0].data)
                raise OSError("full")
        async for batch in batches:
            got.append(batch[0].data)
            break

    run(main)
    assert got == ["a", "a"]
