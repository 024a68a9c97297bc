"""A pipeline on an event loop of the user: ``async with``, ``run_async``, ``abatches``."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing, suppress
from typing import Any, assert_type

import pytest
import reactivex
import trio

import rxtweets
from rxtweets import Batch, Batcher, Message, Pipeline, Stats
from rxtweets.errors import ConfigurationError, PipelineError, SourceError, SubscriberError
from rxtweets.testing import RecordingAcknowledger
from tests.pipeline.held import Held

PATIENCE = 20.0
NEVER = 600.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def held() -> Iterator[Held]:
    handler = Held()
    yield handler
    handler.released.set()


@pytest.fixture
def stray_signals() -> Iterator[list[int]]:
    """Signals that were not handled; without this, one of them would end the test run."""
    strays: list[int] = []
    before = {
        number: signal.signal(number, lambda got, _: strays.append(got)) for number in SIGNALS
    }
    yield strays
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def acks() -> RecordingAcknowledger:
    return RecordingAcknowledger()


def endless(acks: RecordingAcknowledger, count: int = 1) -> reactivex.Observable[Message[Any]]:
    """Emit messages and no end."""
    messages = [Message(number).with_acknowledger(acks) for number in range(count)]
    return reactivex.from_iterable(messages).concat(reactivex.never())


def same(message: Message[Any]) -> Message[Any]:
    return message


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(PATIENCE):
            return await main()

    return asyncio.run(limited())


# async with.


def test_async_with_starts_and_drains(acks: RecordingAcknowledger) -> None:
    pipeline = Pipeline(reactivex.never(), batchers={"default": Batcher(id, 9, NEVER)})

    async def main() -> None:
        async with pipeline as entered:
            entered.push([Message("a").with_acknowledger(acks)])
            assert acks.successful == []

    run(main)
    assert pipeline.wait(0.01)
    assert len(acks.successful) == 1


def test_async_with_stops_immediately_after_an_error(
    acks: RecordingAcknowledger, held: Held
) -> None:
    pipeline = Pipeline(endless(acks), handle_message=held)

    async def main() -> None:
        async with pipeline:
            await asyncio.to_thread(held.entered.wait, PATIENCE)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        run(main)
    assert pipeline.wait(0.01)
    assert pipeline.stats().abandoned == 1


def test_loop_runs_while_a_pipeline_drains(acks: RecordingAcknowledger, held: Held) -> None:
    pipeline = Pipeline(endless(acks), handle_message=held)

    async def main() -> None:
        async with pipeline:
            await asyncio.to_thread(held.entered.wait, PATIENCE)
            asyncio.get_running_loop().call_later(0.01, held.released.set)

    run(main)
    assert len(acks.successful) == 1


def test_cancelled_drain_stops_immediately(acks: RecordingAcknowledger, held: Held) -> None:
    pipeline = Pipeline(endless(acks), handle_message=held)

    async def main() -> None:
        async with pipeline:
            await asyncio.to_thread(held.entered.wait, PATIENCE)
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_soon(task.cancel)

    async def cancelled() -> bool:
        await asyncio.wait([asyncio.create_task(main())])
        return await asyncio.to_thread(pipeline.wait, PATIENCE)

    assert run(cancelled)
    assert pipeline.stats().abandoned == 1


def test_pipeline_starts_and_drains_on_trio() -> None:
    pipeline = Pipeline(reactivex.never(), batchers={"default": Batcher(id, 9, NEVER)})

    async def main() -> Stats:
        async with pipeline:
            pipeline.push([Message("a")])
        return await pipeline.astop()

    assert trio.run(main).batched == 1


# run_async.


def test_run_async_ends_with_its_sources(acks: RecordingAcknowledger) -> None:
    pipeline = Pipeline(rxtweets.from_iterable(range(3), acknowledger=acks), handle_message=same)

    async def main() -> Stats:
        stats = await pipeline.run_async()
        assert_type(stats, Stats)
        return stats

    assert run(main).acknowledged == 3


def test_run_async_raises_the_error_of_its_source() -> None:
    pipeline = Pipeline(reactivex.throw(OSError("gone")), handle_message=same, restart=None)
    with pytest.raises(SourceError, match="gone"):
        run(pipeline.run_async)


def test_run_async_ends_after_max_failed_batches(acks: RecordingAcknowledger) -> None:
    def fail(_: Batch[Any]) -> None:
        raise OSError("full")

    pipeline = Pipeline(
        endless(acks, 5), batchers={"default": Batcher(fail, 1)}, max_failed_batches=2
    )
    with pytest.raises(SubscriberError, match="2 batches"):
        run(pipeline.run_async)


def test_run_async_refuses_an_invalid_timeout() -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        run(lambda: Pipeline(reactivex.never(), handle_message=same).run_async(timeout=0))


def test_run_async_leaves_a_started_pipeline_alone(acks: RecordingAcknowledger) -> None:
    pipeline = Pipeline(endless(acks), handle_message=same).start()
    with pytest.raises(PipelineError, match="once"):
        run(pipeline.run_async)
    assert pipeline.wait(0.01) is False
    pipeline.stop()


LOOPS: dict[str, Callable[..., Any]] = {"asyncio": run, "trio": trio.run}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("number", SIGNALS)
def test_signal_drains_run_async(
    number: signal.Signals, loop: str, acks: RecordingAcknowledger, stray_signals: list[int]
) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]

    def handler(message: Message[Any]) -> Message[Any]:
        if message.data == 2:
            os.kill(os.getpid(), number)
        return message

    pipeline = Pipeline(
        endless(acks, 3), handle_message=handler, batchers={"default": Batcher(id, 9, NEVER)}
    )
    stats = LOOPS[loop](pipeline.run_async)
    assert (stats.batched, stats.abandoned, stray_signals) == (3, 0, [])
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("loop", LOOPS)
def test_second_signal_stops_run_async_immediately(
    loop: str, acks: RecordingAcknowledger, held: Held, stray_signals: list[int]
) -> None:
    def handler(message: Message[Any]) -> Message[Any]:
        os.kill(os.getpid(), signal.SIGINT)
        while not pipeline._intake._is_shut:
            held.released.wait(0.001)
        os.kill(os.getpid(), signal.SIGINT)
        return held(message)

    pipeline = Pipeline(endless(acks), handle_message=handler)
    stats = LOOPS[loop](lambda: pipeline.run_async(timeout=NEVER))
    assert (stats.abandoned, stray_signals) == (1, [])


def test_run_async_abandons_the_rest_after_its_timeout(
    acks: RecordingAcknowledger, held: Held, stray_signals: list[int]
) -> None:
    def handler(message: Message[Any]) -> Message[Any]:
        os.kill(os.getpid(), signal.SIGINT)
        return held(message)

    pipeline = Pipeline(endless(acks), handle_message=handler)
    stats = run(lambda: pipeline.run_async(timeout=0.05))
    assert (stats.abandoned, stray_signals) == (1, [])


def test_handlers_of_a_loop_return_after_run_async(stray_signals: list[int]) -> None:
    async def main() -> None:
        received = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, received.set)
        await Pipeline(rxtweets.from_iterable([1]), handle_message=same).run_async()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(received.wait(), PATIENCE)
        loop.remove_signal_handler(signal.SIGTERM)

    run(main)
    assert stray_signals == []


def test_run_async_on_another_thread_handles_no_signals(stray_signals: list[int]) -> None:
    handlers: list[Any] = []

    def handler(message: Message[Any]) -> Message[Any]:
        handlers.append(signal.getsignal(signal.SIGINT))
        return message

    pipeline = Pipeline(rxtweets.from_iterable([1]), handle_message=handler)
    before = signal.getsignal(signal.SIGINT)
    runner = threading.Thread(target=run, args=(pipeline.run_async,))
    runner.start()
    runner.join(PATIENCE)
    assert (handlers, stray_signals) == ([before], [])


def test_cancelled_run_async_stops_immediately(acks: RecordingAcknowledger, held: Held) -> None:
    pipeline = Pipeline(endless(acks), handle_message=held)

    async def main() -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(None) as limit:
                async with asyncio.TaskGroup() as group:
                    group.create_task(pipeline.run_async(timeout=NEVER))
                    await asyncio.to_thread(held.entered.wait, PATIENCE)
                    limit.reschedule(0)
        return await asyncio.to_thread(pipeline.wait, PATIENCE)

    assert run(main)
    assert pipeline.stats().abandoned == 1


def test_pipeline_cancelled_while_it_starts_is_stopped() -> None:
    subscribing, released = threading.Event(), threading.Event()

    def subscribe(*_: Any) -> Any:
        subscribing.set()
        released.wait(PATIENCE)
        return reactivex.disposable.Disposable()

    pipeline = Pipeline(reactivex.Observable(subscribe), handle_message=same)

    async def main() -> bool:
        task = asyncio.create_task(pipeline.__aenter__())
        await asyncio.to_thread(subscribing.wait, PATIENCE)
        task.cancel()
        await asyncio.wait([task])
        released.set()
        await asyncio.to_thread(pipeline._over.wait, PATIENCE)
        return task.cancelled()

    assert run(main)
    assert pipeline.wait(0.01)


# abatches.


def awaiting(acks: RecordingAcknowledger, count: int) -> Pipeline:
    source = rxtweets.from_iterable(range(count), acknowledger=acks)
    return Pipeline(source, batchers={"default": Batcher.awaited(2, NEVER)})


def test_leaving_abatches_by_break_drains_at_once(acks: RecordingAcknowledger) -> None:
    pipeline = awaiting(acks, 4)

    async def main() -> bool:
        async for batch in pipeline.abatches():
            assert_type(batch, Batch[Any])
            break
        return await asyncio.to_thread(pipeline.wait, PATIENCE)

    assert run(main)
    assert [message.data for message in acks.failed] == [0, 1, 2, 3]


def test_abatches_ends_when_the_pipeline_is_stopped(acks: RecordingAcknowledger) -> None:
    pipeline = Pipeline(endless(acks, 2), batchers={"default": Batcher.awaited(2, NEVER)})

    async def main() -> int:
        count = 0
        async with aclosing(pipeline.abatches()) as batches:
            async for _ in batches:
                count += 1
                await pipeline.astop(drain=False)
        return count

    assert run(main) == 1


def test_abatches_continues_after_max_failed_batches(acks: RecordingAcknowledger) -> None:
    def fail_all(batch: Batch[Any]) -> list[Message[Any]]:
        return [message.failed("no") for message in batch]

    def choose(message: Message[Any]) -> Message[Any]:
        return message.put_batcher("bad" if message.data == 2 else "default")

    pipeline = Pipeline(
        endless(acks, 3),
        handle_message=choose,
        ordered=True,
        batchers={"default": Batcher.awaited(2, NEVER), "bad": Batcher(fail_all, 1)},
        max_failed_batches=1,
    )

    async def main() -> list[int]:
        return [len(batch) async for batch in pipeline.abatches()]

    with pytest.raises(SubscriberError, match="max_failed_batches"):
        run(main)
    assert len(acks.successful) == 2


def test_abatches_refuses_a_pipeline_that_was_started(acks: RecordingAcknowledger) -> None:
    pipeline = awaiting(acks, 4)

    async def main() -> None:
        async with aclosing(pipeline.abatches()) as batches:
            await anext(batches)
            with pytest.raises(PipelineError, match="once"):
                await anext(pipeline.abatches())
            assert pipeline.wait(0.01) is False

    run(main)


@pytest.mark.parametrize("name", ["other", "absent"])
def test_abatches_refuses_a_batcher_when_called(name: str) -> None:
    pipeline = Pipeline(
        rxtweets.from_iterable([1]),
        batchers={"default": Batcher.awaited(), "other": Batcher(print)},
    )
    with pytest.raises(PipelineError, match="awaited"):
        pipeline.abatches(name)
