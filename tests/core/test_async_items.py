"""``async for`` over a stream."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from contextvars import ContextVar
from itertools import pairwise
from typing import Any, assert_type

import pytest
import reactivex
import trio
from reactivex import operators as stock
from reactivex.subject import Subject

import rxtweets
from rxtweets import AsyncItems, Batch, BatchStream, HotStream, Message
from rxtweets import operators as ops
from rxtweets._core import async_items
from rxtweets._core.observable import MessageStream, new_telemetry
from rxtweets.testing import RecordingAcknowledger

PATIENCE = 20.0
NEVER = 3600.0


class Hot:
    """A hot source that emits where it is told to, and knows its observers."""

    def __init__(self) -> None:
        self.observers: list[Any] = []
        self.stream: MessageStream[int] = MessageStream(self._subscribe, new_telemetry())
        self._changed = threading.Condition()
        self._was_subscribed = threading.Event()

    def _subscribe(self, observer: Any, _: Any) -> reactivex.abc.DisposableBase:
        with self._changed:
            self.observers.append(observer)
            self._was_subscribed.set()
            self._changed.notify_all()
        return reactivex.disposable.Disposable(lambda: self._remove(observer))

    def _remove(self, observer: Any) -> None:
        with self._changed:
            self.observers.remove(observer)
            self._changed.notify_all()

    def until(self, observers: int) -> bool:
        """Wait for a number of observers."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.observers) == observers, PATIENCE)

    def give(self, *data: int) -> None:
        for observer in tuple(self.observers):
            observer.on_next([Message(one) for one in data])

    def in_background(self, *data: int) -> threading.Thread:
        """Give messages as soon as there was an observer, on another thread."""

        def work() -> None:
            assert self._was_subscribed.wait(PATIENCE)  # it may have left already
            self.give(*data)

        thread = threading.Thread(target=work)
        thread.start()
        return thread


async def elsewhere(call: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.to_thread(call, *args)


def until(condition: Callable[[], object]) -> None:
    """Poll a condition; the timeout of the tests ends it."""
    while not condition():
        threading.Event().wait(0.001)


def run(main: Coroutine[Any, Any, Any]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(PATIENCE):
            return await main

    return asyncio.run(limited())


async def data_of(items: Any) -> list[Any]:
    return [message.data async for message in items]


def test_async_for_gives_messages_in_order() -> None:
    assert run(data_of(rxtweets.from_iterable(range(300)))) == list(range(300))


def test_async_for_works_on_trio() -> None:
    assert trio.run(data_of, rxtweets.from_iterable(range(300))) == list(range(300))


def test_async_for_needs_a_loop_of_asyncio_or_trio() -> None:
    step: Any = anext(aiter(rxtweets.from_iterable([1])))
    with pytest.raises(RuntimeError):
        step.send(None)


def data(message: Message[Any]) -> Any:
    return message.data


COMPOSED: dict[str, Callable[[Any], Any]] = {
    "RxPY's operators": lambda stream: stream.filter(bool).map(data),
    "process": lambda stream: stream.pipe(ops.process(same, ordered=True), stock.map(data)),
    "ref_count": lambda stream: stream.publish().ref_count(),
    "auto_connect": lambda stream: stream.publish().auto_connect(),
    "share": lambda stream: stream.map(data).share(),
    "merge": lambda stream: stream.merge(reactivex.empty()).map(data),
    "delivered batches": lambda stream: stream.pipe(ops.batch(3), ops.deliver(id)),
    "any Observable": lambda stream: reactivex.merge(stream.map(data)).pipe(
        ops.to_async_iterator()
    ),
}


def same(message: Message[Any]) -> Message[Any]:
    return message


@pytest.mark.parametrize("name", COMPOSED)
def test_async_for_works_on_composed_streams(name: str) -> None:
    async def main() -> list[Any]:
        return [one async for one in COMPOSED[name](rxtweets.from_iterable(range(3)))]

    if name == "delivered batches":
        assert [len(batch) for batch in run(main())] == [3]
    elif name in {"ref_count", "auto_connect"}:
        assert [message.data for message in run(main())] == [0, 1, 2]
    else:
        assert run(main()) == [0, 1, 2]


def test_items_have_the_type_of_the_stream() -> None:
    async def main(tweets: HotStream[str], batches: BatchStream[str]) -> None:
        async for message in tweets:
            assert_type(message, Message[str])
        async for batch in batches:
            assert_type(batch, Batch[str])
        lengths = tweets.map(lambda message: len(message.data))
        async for length in lengths.pipe(ops.to_async_iterator()):
            assert_type(length, int)

    del main  # mypy checks it
    assert isinstance(aiter(rxtweets.sample_stream(token="any")), AsyncItems)


def test_stream_is_subscribed_to_with_context_of_the_task() -> None:
    name: ContextVar[str] = ContextVar("name")

    def subscribe(observer: Any, _: Any) -> reactivex.abc.DisposableBase:
        observer.on_next([Message(name.get())])
        observer.on_completed()
        return reactivex.disposable.Disposable()

    async def main() -> list[Any]:
        name.set("mine")
        return await data_of(MessageStream(subscribe, new_telemetry()))

    assert run(main()) == ["mine"]


# The end.


def test_error_is_raised_after_the_last_item_once() -> None:
    def failing() -> Any:
        yield 1
        raise OSError("gone")

    async def main() -> list[Any]:
        got: list[Any] = []
        async with aclosing(aiter(rxtweets.from_iterable(failing()))) as items:
            with pytest.raises(OSError, match="gone"):
                got += [item.data async for item in items] or [None]
            got += [item.data async for item in items]
        return got

    assert run(main()) == []


def test_items_before_an_error_are_given() -> None:
    async def main() -> list[Any]:
        got = []
        numbers = reactivex.concat(reactivex.of(1, 2), reactivex.throw(OSError("gone")))
        with suppress(OSError):
            async for number in numbers.pipe(ops.to_async_iterator()):
                got.append(number)  # noqa: PERF401 - it is to have some when that raises
        return got

    assert run(main()) == [1, 2]


def test_error_of_subscribe_is_raised_in_the_loop() -> None:
    def subscribe(*_: Any) -> Any:
        raise OSError("no threads")

    with pytest.raises(OSError, match="no threads"):
        run(data_of(MessageStream[Any](subscribe, new_telemetry())))


# Leaving.


async def by_break(hot: Hot) -> None:
    async for _ in hot.stream:
        break


async def by_error(hot: Hot) -> None:
    with suppress(OSError):
        async for _ in hot.stream:
            raise OSError("full")


async def by_cancellation(hot: Hot) -> None:
    task = asyncio.create_task(data_of(hot.stream))
    assert await elsewhere(hot.until, 1)
    task.cancel()
    await asyncio.wait([task])


async def by_timeout(hot: Hot) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(None) as limit:
            async for _ in hot.stream:
                limit.reschedule(asyncio.get_running_loop().time())


async def by_task_group(hot: Hot) -> None:
    async def fail() -> None:
        assert await elsewhere(hot.until, 1)
        raise OSError("another task")

    with suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(data_of(hot.stream))
            group.create_task(fail())


async def by_aclose(hot: Hot) -> None:
    items = aiter(hot.stream)
    await anext(items)
    await items.aclose()
    assert hot.observers == []
    assert await anext(items, None) is None


async def by_end_of_generator(hot: Hot) -> None:
    async def double() -> AsyncIterator[int]:
        async for message in hot.stream:
            yield message.data * 2

    async for _ in double():
        break


async def by_single_anext(hot: Hot) -> None:
    assert (await anext(aiter(hot.stream))).data == 1


LEAVING: list[Callable[[Hot], Awaitable[None]]] = [
    *(by_break, by_error, by_cancellation, by_timeout, by_task_group, by_aclose),
    *(by_end_of_generator, by_single_anext),
]


@pytest.mark.parametrize("leave", LEAVING, ids=lambda leave: leave.__name__)
def test_leaving_the_loop_ends_the_subscription(leave: Any) -> None:
    hot = Hot()
    giving = hot.in_background(1, 2, 3)

    async def main() -> bool:
        await leave(hot)
        return bool(await elsewhere(hot.until, 0))  # while the task and its errors are alive

    assert run(main())
    giving.join(PATIENCE)
    assert not giving.is_alive()


def test_error_that_is_kept_does_not_keep_the_subscription() -> None:
    hot, kept = Hot(), list[BaseException]()

    async def loop() -> bool:
        try:
            async for _ in hot.stream:
                pass
        except asyncio.CancelledError as error:
            kept.append(error)
        return bool(await elsewhere(hot.until, 0))

    async def main() -> bool:
        task = asyncio.create_task(loop())
        await elsewhere(hot.until, 1)
        task.cancel()
        return await task

    assert run(main())


def test_leaving_on_trio_ends_the_subscription() -> None:
    hot = Hot()

    async def main() -> bool:
        with trio.move_on_after(NEVER) as scope:
            async for _ in hot.stream:
                scope.cancel()
        assert scope.cancelled_caught
        return await trio.to_thread.run_sync(hot.until, 0)

    giving = hot.in_background(1)
    assert trio.run(main)
    giving.join(PATIENCE)


def test_items_left_behind_count_as_abandoned() -> None:
    hot = Hot()

    async def main() -> None:
        async with aclosing(aiter(hot.stream)) as items:
            async for _ in items:
                break

    giving = hot.in_background(1, 2, 3)
    run(main())
    giving.join(PATIENCE)
    assert hot.stream.stats().abandoned == 2


def test_wait_for_one_item_leaves_the_iterator_open() -> None:
    hot = Hot()

    async def main() -> int:
        items = aiter(hot.stream)
        waiting = asyncio.ensure_future(anext(items))
        assert await elsewhere(hot.until, 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        await elsewhere(hot.give, 7)
        message = await anext(items)
        await items.aclose()
        return message.data

    assert run(main()) == 7


def test_closed_loop_ends_the_subscription(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_items, "PATIENCE", 0.01)
    hot = Hot()
    loop = asyncio.new_event_loop()
    items = aiter(hot.stream)
    filling = hot.in_background(*range(async_items.CAPACITY + async_items.AT_ONCE))
    loop.run_until_complete(anext(items))
    loop.close()  # with the source waiting for room
    filling.join(PATIENCE)
    assert hot.until(0)
    del items


async def next_data(items: Any) -> Any:
    return (await anext(items)).data


@pytest.mark.parametrize("is_closed", [True, False])
def test_second_event_loop_is_refused(*, is_closed: bool) -> None:
    items = aiter(rxtweets.from_iterable(range(1)))
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        assert first.run_until_complete(next_data(items)) == 0
        if is_closed:
            first.close()
        limited = asyncio.wait_for(next_data(items), PATIENCE)
        with pytest.raises(RuntimeError, match="another event loop"):
            second.run_until_complete(limited)
    finally:
        first.close()
        second.close()


def test_loop_of_another_library_is_refused() -> None:
    items = aiter(rxtweets.from_iterable(range(1)))
    assert run(next_data(items)) == 0
    with pytest.raises(RuntimeError, match="another event loop"):
        trio.run(next_data, items)


def test_iterator_without_a_loop_subscribes_to_nothing() -> None:
    hot = Hot()
    aiter(hot.stream)
    assert hot.observers == []


# Backpressure.


def test_source_that_can_wait_is_asked_when_the_loop_waits() -> None:
    asked: list[int] = []
    given = iter(range(9))

    def poll(wanted: int) -> list[Message[Any]] | None:
        asked.append(wanted)
        return [Message(one) for _, one in zip(range(wanted), given, strict=False)] or None

    async def main() -> list[int]:
        seen = []
        async for _ in rxtweets.polling_source(poll, most=3):
            await asyncio.sleep(0.01)  # a source that did not wait would be asked meanwhile
            seen.append(len(asked))
        return seen

    assert run(main()) == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_source_that_cannot_wait_blocks_when_the_loop_is_slow() -> None:
    hot, given = Hot(), queue.SimpleQueue[int]()

    def give_all() -> None:
        assert hot.until(1)
        for number in range(1000):
            hot.give(number)
            given.put(number)

    async def main() -> tuple[int, list[int]]:
        giving = threading.Thread(target=give_all)
        giving.start()
        items = aiter(hot.stream)
        got = [(await anext(items)).data]
        await elsewhere(until, lambda: given.qsize() >= async_items.CAPACITY - 1)
        most = given.qsize()
        got += [(await anext(items)).data for _ in range(999)]
        await items.aclose()
        await elsewhere(giving.join)
        return most, got

    most, got = run(main())
    assert most <= async_items.CAPACITY + async_items.AT_ONCE
    assert got == list(range(1000))


def test_other_tasks_run_between_items() -> None:
    hot = Hot()
    turns = [0]
    taken = 0

    async def note_turns() -> None:
        while True:
            turns.append(taken)
            await asyncio.sleep(0)

    async def main() -> None:
        nonlocal taken
        noting = asyncio.create_task(note_turns())
        giving = hot.in_background(*range(10 * async_items.AT_ONCE))
        async for _ in hot.stream:
            taken += 1
            if taken == 10 * async_items.AT_ONCE:
                break
        noting.cancel()
        await elsewhere(giving.join)

    run(main())
    turns.append(taken)
    assert max(later - turn for turn, later in pairwise(turns)) <= async_items.AT_ONCE


def test_chunk_wakes_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hot = Hot()

    async def main() -> int:
        loop, woken = asyncio.get_running_loop(), 0
        call_soon = loop.call_soon_threadsafe

        def count(*args: Any, **options: Any) -> Any:
            nonlocal woken
            woken += 1
            return call_soon(*args, **options)

        items = aiter(hot.stream)
        with monkeypatch.context() as patch:
            patch.setattr(loop, "call_soon_threadsafe", count)
            giving = hot.in_background(*range(100))
            for _ in range(100):
                await anext(items)
        await items.aclose()
        giving.join()
        return woken

    assert run(main()) <= 1  # none if the chunk comes before the loop waits


def test_source_on_the_thread_of_the_loop_does_not_block_it() -> None:
    subject: Subject[Any] = Subject()

    async def main() -> list[Any]:
        items = aiter(subject.pipe(ops.to_async_iterator()))
        waiting = asyncio.ensure_future(anext(items))
        await elsewhere(until, lambda: subject.observers)
        for number in range(1000):
            subject.on_next(Message(number))
        subject.on_completed()
        return [(await waiting).data, *[item.data async for item in items]]

    assert sorted(run(main())) == list(range(1000))


# Batches.


@pytest.fixture
def acks() -> RecordingAcknowledger:
    return RecordingAcknowledger()


def batches_of(count: int, acks: RecordingAcknowledger) -> rxtweets.BatchStream[Any]:
    source = rxtweets.from_iterable(range(count), acknowledger=acks)
    return source.pipe(ops.batch(3, NEVER))


def test_batch_is_acknowledged_when_the_next_is_requested(acks: RecordingAcknowledger) -> None:
    async def main() -> list[int]:
        return [len(acks.successful) async for _ in batches_of(7, acks)]

    assert run(main()) == [0, 3, 6]
    assert len(acks.successful) == 7


@pytest.mark.parametrize("shape", ["batches", "share"])
def test_batch_fails_when_the_loop_is_left(acks: RecordingAcknowledger, shape: str) -> None:
    batches: Any = batches_of(7, acks)
    if shape == "share":
        batches = batches.share()

    async def main() -> None:
        async with aclosing(aiter(batches)) as items:
            with suppress(OSError):
                async for _ in items:
                    if acks.successful:
                        raise OSError("full")
        assert await elsewhere(acks.wait_for, 6)

    run(main())
    assert [message.data for message in acks.successful] == [0, 1, 2]
    # The next batch may be there already; it fails with the one that the loop had.
    assert [message.data for message in acks.failed] in ([3, 4, 5], [3, 4, 5, 6])


def test_batches_made_on_the_thread_of_the_loop_are_settled(acks: RecordingAcknowledger) -> None:
    subject: Subject[Any] = Subject()

    async def main() -> list[int]:
        settled = []
        items = aiter(subject.pipe(ops.batch(2, NEVER)))
        waiting = asyncio.ensure_future(anext(items))
        await elsewhere(until, lambda: subject.observers)
        for number in range(6):
            subject.on_next(Message(number).with_acknowledger(acks))
        settled.append(len(acks.successful))
        await waiting
        await anext(items)
        settled.append(len(acks.successful))
        await items.aclose()
        return settled

    assert run(main()) == [0, 2]
    assert [message.data for message in acks.failed] == [2, 3, 4, 5]


def test_error_of_batches_is_raised_after_the_last(acks: RecordingAcknowledger) -> None:
    failing = reactivex.throw(OSError("gone"))
    source = rxtweets.from_iterable(range(2), acknowledger=acks).concat(failing)

    async def main() -> None:
        async for batch in source.pipe(ops.batch(5, NEVER)):
            assert len(batch) == 2

    with pytest.raises(OSError, match="gone"):
        run(main())
    assert len(acks.successful) == 2


@asynccontextmanager
async def two_loops(stream: Any) -> AsyncIterator[list[list[Any]]]:
    """Two loops at once, and their data."""
    got: list[list[Any]] = [[], []]

    async def loop(place: list[Any]) -> None:
        async for message in stream:
            place.append(message.data)  # noqa: PERF401 - the other task looks at it

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop(place)) for place in got]
        yield got
        for task in tasks:
            task.cancel()


def test_two_loops_share_a_stream() -> None:
    hot = Hot()

    async def main() -> tuple[int, list[list[Any]]]:
        async with two_loops(hot.stream.share()) as got:
            while not (got[0] and got[1]):
                await elsewhere(hot.give, 1)
        return len(hot.observers), got

    observers, got = run(main())
    assert set(got[0]) == set(got[1]) == {1}
    assert observers <= 1
    assert hot.until(0)
