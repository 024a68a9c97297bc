"""The grammar of Rx at every boundary: on_next*, then at most one end, no concurrent calls.

The interpreter switches threads after every microsecond, sources emit from several threads, and
another thread disposes meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import reactivex
from reactivex.disposable import Disposable
from reactivex.scheduler import NewThreadScheduler
from reactivex.subject import Subject

from rxtweets import Batch, Message, Retry, Stats, Valve
from rxtweets import operators as ops
from rxtweets._core.observable import BatchStream, MessageStream, new_telemetry

PATIENCE = 30.0
SEEDS = range(30)
FEW_SEEDS = range(10)
FEEDERS = 4
EACH = 60


@pytest.fixture(autouse=True)
def _threads_switch_all_the_time() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def is_worth_it(reason: object) -> bool:
    return isinstance(reason, KeyError)


class Referee(reactivex.Observer[Any]):
    """Keeps every violation of the grammar."""

    def __init__(self) -> None:
        super().__init__(self._next, self._error, self._completed)
        self.breaches: list[str] = []
        self.items: list[Any] = []
        self.ended = threading.Event()
        self._inside = threading.Lock()

    def _next(self, value: Any) -> None:
        with _Call(self, "on_next"):
            self.items += list(value) if hasattr(value, "info") else [value]

    def _error(self, error: Exception) -> None:
        with _Call(self, f"on_error({error})"):
            self.ended.set()

    def _completed(self) -> None:
        with _Call(self, "on_completed"):
            self.ended.set()

    def enter(self, call: str) -> None:
        if not self._inside.acquire(blocking=False):
            self.breaches.append(f"{call} while another call was running")
            self._inside.acquire()
        if self.ended.is_set():
            self.breaches.append(f"{call} after the end")

    def leave(self) -> None:
        self._inside.release()


class _Call:
    def __init__(self, referee: Referee, call: str) -> None:
        self._referee, self._call = referee, call

    def __enter__(self) -> None:
        self._referee.enter(self._call)

    def __exit__(self, *_: object) -> None:
        self._referee.leave()


def handler(message: Message[int]) -> Message[int]:
    if message.data % 17 == 0:
        raise ValueError(message.data)
    if message.data % 5 == 0:
        threading.Event().wait(0.000_1)  # blocks, so that other workers start
    return message


async def async_handler(message: Message[int]) -> Message[int]:
    if message.data % 17 == 0:
        raise ValueError(message.data)
    if message.data % 5 == 0:
        await asyncio.sleep(0.000_1)
    return message


def stubborn_handler(message: Message[int]) -> Message[int]:
    """Fail every message once, and some always."""
    if message.data % 17 and rng.random() < 0.5:
        raise KeyError(message.data)
    return handler(message)


def routing_handler(message: Message[int]) -> Message[int]:
    handled = handler(message)
    return handled.put_batcher("odd") if message.data % 2 else handled


def splitting(_: Message[int], count: int) -> tuple[Any, int]:
    return ("before" if count == 6 else "continue"), count + 1


def picky(batch: Batch[int]) -> list[Message[int]]:
    if any(message.data % 11 == 0 for message in batch):
        raise ValueError("not these")
    return [message.failed("odd one") if message.data % 13 == 0 else message for message in batch]


rng = random.Random(17)
executor = ThreadPoolExecutor(4)
retry = Retry(
    stop=lambda state: state.attempt_number > 50, wait=lambda _: 0.000_1, when=is_worth_it
)
retrying = ops.process(stubborn_handler, 8, retry=retry)

CHAINS: dict[str, Any] = {
    "async process": [ops.process(async_handler, 8)],
    "ordered async process": [ops.process(async_handler, 8, ordered=True)],
    "process in an executor": [ops.process(handler, 8, executor=executor)],
    "process on a scheduler": [ops.process(handler, 8, scheduler=NewThreadScheduler())],
    "process with partitions": [
        ops.process(handler, 8, partition_by=lambda message: message.data % 3)
    ],
    "process with chunks": [ops.process(handler, 8, prepare=lambda chunk: chunk)],
    "process with time limits": [ops.process(handler, 8, time_limit=PATIENCE)],
    "process with retries": [retrying],
    "process with all of it": [
        ops.process(
            stubborn_handler,
            8,
            ordered=True,
            partition_by=lambda message: message.data % 3,
            prepare=lambda chunk: chunk,
            on_failed=lambda chunk: chunk,
            retry=retry,
            time_limit=PATIENCE,
            deadline=PATIENCE,
        )
    ],
    "process, route, batch and deliver": [
        ops.process(routing_handler, 8),
        ops.route(
            {
                "default": [ops.batch(7, 0.001), ops.deliver(picky, 3)],
                "odd": [ops.batch(5, 0.001, name="odd"), ops.deliver(picky, 1)],
            }
        ),
    ],
    "route and batch": [
        ops.route({"default": ops.batch(7, 0.001), "odd": ops.batch(5, 0.001, name="odd")})
    ],
    "process and batch by key and partition": [
        ops.process(lambda message: handler(message).put_batch_key(message.data % 3), 8),
        ops.batch(4, 0.001, partition_by=lambda message: message.data, partitions=2),
        ops.deliver(picky, 3),
    ],
    "batch and deliver": [ops.batch((0, splitting), 0.001), ops.deliver(picky)],
    "partitioned process": [
        ops.partition(lambda message: message.data, 3, ops.process(handler, 2, ordered=True))
    ],
    "pausable and process": [ops.pausable(Valve()), ops.process(handler, 8)],
    "rate limit and process": [ops.rate_limit(50, 0.001), ops.process(handler, 8)],
    "process and acknowledge": [ops.process(handler, 8), ops.acknowledge()],
    "process": [ops.process(handler, 8)],
    "ordered process": [ops.process(handler, 8, ordered=True)],
    "batch": [ops.batch(7, 0.001)],
    "process and batch": [ops.process(handler, 8), ops.batch(7, 0.001)],
    "ordered process and batch": [ops.process(handler, 8, ordered=True), ops.batch(7, 0.001)],
}

FIRST = ("process", "ordered process", "batch", "process and batch", "ordered process and batch")
CASES = [(name, seed) for name in CHAINS for seed in (SEEDS if name in FIRST else FEW_SEEDS)]


def feed(source: Subject[Message[int]], rng: random.Random) -> list[threading.Thread]:
    """Emit on several threads concurrently; a Subject does not serialise."""

    def emit(first: int) -> None:
        for number in range(first, first + EACH):
            source.on_next(Message(number))

    starts = [1 + EACH * number for number in range(FEEDERS)]
    rng.shuffle(starts)
    threads = [threading.Thread(target=emit, args=(start,)) for start in starts]
    for thread in threads:
        thread.start()
    return threads


def chain(name: str, source: Subject[Message[int]]) -> MessageStream[Any] | BatchStream[Any]:
    stream: Any = source.pipe(*CHAINS[name])
    return stream  # type: ignore[no-any-return]  # pipe of a list of operators has no type


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_messages_come_once_before_one_end(name: str, seed: int) -> None:
    rng = random.Random(seed)
    source: Subject[Message[int]] = Subject()
    stream = chain(name, source)
    referee = Referee()
    stream.subscribe(referee)
    for thread in feed(source, rng):
        thread.join(PATIENCE)
    if seed % 2:
        source.on_completed()
    else:
        source.on_error(ValueError("source"))
    assert referee.ended.wait(PATIENCE)
    numbers = range(1, 1 + FEEDERS * EACH)
    expected = [message for message in numbers if "process" not in name or message % 17]
    assert referee.breaches == []
    assert sorted(message.data for message in referee.items) == expected
    assert stream.stats().failed == len(numbers) - len(expected)


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_nothing_is_emitted_after_disposal(name: str, seed: int) -> None:
    rng = random.Random(seed)
    source: Subject[Message[int]] = Subject()
    goal = rng.randrange(FEEDERS * EACH // 2)
    enough = threading.Event()

    class Counting(Referee):
        def _next(self, value: Any) -> None:
            super()._next(value)
            if len(self.items) >= goal:
                enough.set()

    referee = Counting()
    subscription = chain(name, source).subscribe(referee)
    threads = feed(source, rng)
    enough.wait(PATIENCE)
    subscription.dispose()
    for thread in threads:
        thread.join(PATIENCE)
    source.on_completed()
    numbers = [message.data for message in referee.items]
    assert referee.breaches == []
    assert not referee.ended.is_set()
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_messages_are_accounted_for_after_disposal(name: str, seed: int) -> None:
    """A chunk that is being emitted stays emitted, so all of its messages must be counted."""
    rng = random.Random(seed)
    taken = 0

    def subscribe(observer: Any, _scheduler: Any) -> reactivex.abc.DisposableBase:
        def emit() -> None:
            nonlocal taken
            for number in range(1, 400, 4):
                taken += 4
                observer.on_next([Message(item) for item in range(number, number + 4)])
                if number == 201:
                    half.set()

        feeder = threading.Thread(target=emit)
        feeders.append(feeder)
        feeder.start()
        return Disposable()

    half, feeders = threading.Event(), list[threading.Thread]()
    telemetry = new_telemetry()
    source: Any = MessageStream(subscribe, telemetry)
    referee = Referee()
    subscription = source.pipe(*CHAINS[name]).subscribe(referee)
    if rng.random() < 0.5:
        half.wait(PATIENCE)
    subscription.dispose()
    for feeder in feeders:
        feeder.join(PATIENCE)
    stats = telemetry.stats
    deadline = threading.Event()
    for _ in range(1000):
        if _accounted(name, stats(), referee) == taken:
            break
        deadline.wait(0.01)
    assert _accounted(name, stats(), referee) == taken == 400


def _accounted(name: str, stats: Stats, referee: Referee) -> int:
    """The outcomes of messages: batched, failed, abandoned or, without a batcher, observed."""
    done = stats.batched + stats.batched_failed if "batch" in name else len(referee.items)
    return done + stats.failed + stats.abandoned


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", CHAINS)
def test_nothing_is_emitted_after_disposal_in_on_next(name: str, seed: int) -> None:
    source: Subject[Message[int]] = Subject()
    goal = random.Random(seed).randrange(1, FEEDERS * EACH // 2)
    disposed = threading.Event()

    class Leaving(Referee):
        def _next(self, value: Any) -> None:
            super()._next(value)
            if len(self.items) >= goal and not disposed.is_set():
                subscription.dispose()
                self.at_disposal = len(self.items)
                disposed.set()

    referee = Leaving()
    subscription = chain(name, source).subscribe(referee)
    for thread in feed(source, random.Random(seed)):
        thread.join(PATIENCE)
    assert disposed.wait(PATIENCE)
    source.on_completed()
    assert referee.breaches == []
    assert not referee.ended.is_set()
    assert len(referee.items) == referee.at_disposal


async def wait_for(event: threading.Event) -> None:
    await asyncio.to_thread(event.wait, PATIENCE)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("how", ["threads", "loop", "executor", "scheduler", "limited"])
def test_nothing_is_emitted_after_disposal_in_handler(how: str, ordered: bool) -> None:
    source: Subject[Message[int]] = Subject()
    ready, disposed = threading.Event(), threading.Event()

    def dispose(message: Message[int]) -> Message[int]:
        assert ready.wait(PATIENCE)
        if message.data == 5:
            subscription.dispose()
            disposed.set()
        return message

    async def dispose_on_loop(message: Message[int]) -> Message[int]:
        await wait_for(ready)
        return dispose(message)

    options: dict[str, dict[str, Any]] = {
        "executor": {"executor": executor},
        "scheduler": {"scheduler": NewThreadScheduler()},
        "limited": {"time_limit": PATIENCE},
    }
    run: Any = dispose_on_loop if how == "loop" else dispose
    operator = ops.process(run, 4, ordered=ordered, **options.get(how, {}))
    stream = source.pipe(operator)
    referee = Referee()
    subscription = stream.subscribe(referee)
    for number in range(20):
        source.on_next(Message(number))
    ready.set()
    assert disposed.wait(PATIENCE)
    source.on_completed()
    assert referee.breaches == []
    assert not referee.ended.is_set()
    assert 5 not in [item.data for item in referee.items]
    stats = stream.stats()
    assert stats.in_flight == 0
    # Another thread may still be giving the last processed message to the observer.
    assert 20 - len(referee.items) - stats.abandoned in {0, 1}
