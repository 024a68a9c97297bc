"""The order by key: what every engine does with `shard_by`, or refuses."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from rxtweets import Batch, Batcher, Message, Pipeline
from rxtweets.brokers import Envelope, Queue, Receiver, Taken, delivery_of
from rxtweets.errors import ConfigurationError
from tests.brokers.engine_contract import publish, rebalance, receiving, take
from tests.brokers.engines import EngineUnderTest
from tests.brokers.queue_contract import Worker, dead_letters_in, is_empty, rebalance_workers
from tests.brokers.waiting import PATIENCE, eventually

Tweet = Callable[[int], Message[str]]
KEYS = 3


def author(message: Message[str]) -> int:
    """The author of a tweet of the test: one of three, by its number."""
    return int(message.id) % KEYS


def sharded(numbers: Sequence[int]) -> list[Envelope]:
    """Envelopes of three shards, which take turns."""
    return [
        Envelope(f"key{number}", b"%d" % number, {"rxt-shard": f"s{number % KEYS}"})
        for number in numbers
    ]


def numbers_of(taken: Sequence[Taken]) -> list[int]:
    return [int(one.body) for one in taken]


@pytest.fixture
def orders(queue: Queue, engine: EngineUnderTest) -> Queue:
    """A queue that keeps the order of keys."""
    if not engine.shards:
        pytest.skip("this broker does not keep the order of keys, and refuses shard_by")
    return queue


@pytest.fixture
def redelivers(orders: Queue, engine: EngineUnderTest) -> Queue:
    """A queue whose broker redelivers messages of a key in their order."""
    if not engine.redelivers_in_order:
        pytest.skip("Google's emulator redelivers messages of a key after later ones")
    return orders


def test_engine_orders_by_key_or_refuses_by_name(queue: Queue, engine: EngineUnderTest) -> None:
    if engine.shards:
        assert queue.publisher(shard_by=author)
        return
    able = r"engines that can: kafka, memory, pubsub with \?ordered=1, sqlite, and sqs"
    with pytest.raises(ConfigurationError, match=rf"{queue.engine.name} cannot order .* {able}"):
        queue.publisher(shard_by=author)


def test_messages_of_a_shard_are_taken_one_by_one(orders: Queue) -> None:
    publish(orders, sharded(range(9)))
    with receiving(orders) as receiver:
        for round_ in range(3):
            taken = take(receiver, KEYS)
            assert sorted(numbers_of(taken)) == [KEYS * round_ + shard for shard in range(KEYS)]
            assert receiver.take(10, 0.3) == []
            assert {one.key for one in taken} == {f"key{number}" for number in numbers_of(taken)}
            assert receiver.acknowledge(taken) == []
        assert receiver.take(10, 0.3) == []


def test_other_messages_pass_a_blocked_shard(orders: Queue) -> None:
    plain = [Envelope(f"plain{number}", b"%d" % number, {}) for number in range(100, 105)]
    publish(orders, [*sharded([0, 3, 6]), *plain])
    with receiving(orders) as receiver:
        taken = take(receiver, 6)
        assert sorted(numbers_of(taken)) == [0, 100, 101, 102, 103, 104]
        receiver.acknowledge(taken)
        receiver.acknowledge(take(receiver, 1))
        assert numbers_of(take(receiver, 1)) == [6]


def test_retried_message_blocks_its_shard(orders: Queue) -> None:
    publish(orders, sharded([0, 3, 1]))
    with receiving(orders) as receiver:
        first, other = sorted(take(receiver, 2), key=lambda one: int(one.body))
        assert receiver.retry([first], 1.0) == []
        receiver.acknowledge([other])
        [again] = take(receiver, 1)
        assert (numbers_of([again]), again.attempt) == ([0], 2)
        assert receiver.acknowledge([again]) == []
        [following] = take(receiver, 1)
        assert numbers_of([following]) == [3]
        receiver.acknowledge([following])


def test_released_message_blocks_its_shard(redelivers: Queue, engine: EngineUnderTest) -> None:
    publish(redelivers, sharded([0, 3, 6]))
    with receiving(redelivers) as receiver:
        receiver.release(take(receiver, 1))
        for number in (0, 3, 6):
            [taken] = take(receiver, 1)
            assert numbers_of([taken]) == [number]
            if engine.releases_uncounted:
                assert taken.attempt == 1
            assert receiver.acknowledge([taken]) == []


def test_extended_message_blocks_its_shard(orders: Queue, engine: EngineUnderTest) -> None:
    publish(orders, sharded([0, 3]))
    with receiving(orders, lease=engine.lease) as receiver:
        [first] = take(receiver, 1)
        until = time.monotonic() + 2 * engine.lease
        while time.monotonic() < until:
            if receiver.has_leases:
                assert receiver.extend([first]) == []
            assert receiver.take(1, engine.lease / 4) == []
        assert receiver.acknowledge([first]) == []
        [following] = take(receiver, 1)
        assert numbers_of([following]) == [3]
        assert receiver.acknowledge([following]) == []


class Taking:
    """Workers of a group that fail some messages; records the order of acknowledgements."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._busy: Counter[str] = Counter()
        self.done: defaultdict[str, list[int]] = defaultdict(list)
        self.together: list[str] = []
        self.receivers: set[Receiver] = set()
        self.failed: set[int] = set()

    def is_done(self) -> bool:
        return sum(map(len, self.done.values())) >= self._count

    def run(self, receiver: Receiver) -> None:
        deadline = time.monotonic() + 2 * PATIENCE
        while not self.is_done() and time.monotonic() < deadline:
            taken = receiver.take(2, 0.2)
            for one in taken:
                self._begin(one)
            for one in taken:
                self._end(one, receiver)

    def _begin(self, taken: Taken) -> None:
        with self._lock:
            self._busy[taken.shard] += 1
            if self._busy[taken.shard] > 1:
                self.together.append(taken.shard)

    def _end(self, taken: Taken, receiver: Receiver) -> None:
        number = int(taken.body)
        with self._lock:
            self._busy[taken.shard] -= 1  # before the broker can give out the next one
            self.receivers.add(receiver)
            fails = number % 4 == 0 and number not in self.failed
            if fails:
                self.failed.add(number)
            elif number not in self.done[taken.shard]:
                self.done[taken.shard].append(number)
        if fails:
            receiver.retry([taken], 0.1)
        else:
            receiver.acknowledge([taken])


def test_two_workers_and_retries_keep_the_order(orders: Queue, engine: EngineUnderTest) -> None:
    taking = Taking(45)
    with receiving(orders) as first, receiving(orders) as second:
        if engine.rebalances:
            rebalance(orders, first, second)
        publish(orders, sharded(range(45)))
        threads = [
            threading.Thread(target=taking.run, args=(one,), daemon=True) for one in (first, second)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(3 * PATIENCE)
    assert taking.done == {f"s{key}": list(range(key, 45, KEYS)) for key in range(KEYS)}
    assert taking.failed == set(range(0, 45, 4))
    assert taking.together == []


def test_closed_receiver_hands_its_shards_on_in_order(
    redelivers: Queue, engine: EngineUnderTest
) -> None:
    publish(redelivers, sharded([0, 3, 6, 1, 4]))
    with receiving(redelivers, lease=engine.lease) as receiver:
        take(receiver, 2)
    with receiving(redelivers) as receiver:
        assert in_order(receiver, 5) == {"s0": [0, 3, 6], "s1": [1, 4]}


KILLED = """
import sys
from rxtweets import brokers
from rxtweets.brokers import Subscription

queue = brokers.connect(sys.argv[1])
queue.engine.ensure(["workers"])
receiver = queue.engine.receiver(Subscription("workers", float(sys.argv[2]), 1000, 50))
[first] = receiver.take(1, 30.0)
receiver.acknowledge([first])
taken = receiver.take(10, 30.0)
print(first.body.decode(), *(one.body.decode() for one in taken), flush=True)
sys.stdin.read()
"""


@contextmanager
def killed_worker(url: str, lease: float) -> Iterator[str]:
    """Run a process that acknowledges a message, takes the next ones and waits; then kill it."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, url, str(lease)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline()
        finally:
            process.kill()


def test_killed_worker_hands_its_shards_on_in_order(
    redelivers: Queue, engine: EngineUnderTest, url: str
) -> None:
    if engine.name == "memory":
        pytest.skip("the queue ends with its process")
    publish(redelivers, sharded([0, 3, 6, 9]))
    with killed_worker(url, engine.lease) as printed:
        assert printed.split() == ["0", "3"]
    with receiving(redelivers) as receiver:
        assert in_order(receiver, 3) == {"s0": [3, 6, 9]}


def in_order(receiver: Receiver, count: int) -> dict[str, list[int]]:
    """Take and acknowledge messages; return each shard's, without those that come again."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    deadline = time.monotonic() + PATIENCE
    while sum(map(len, found.values())) < count and time.monotonic() < deadline:
        for one in receiver.take(10, 0.5):
            found[one.shard] += [] if int(one.body) in found[one.shard] else [int(one.body)]
            receiver.acknowledge([one])
    return dict(found)


def ingest_by_author(queue: Queue, messages: list[Message[str]]) -> None:
    publisher = queue.publisher(shard_by=author)
    assert publisher.on_next(Batch(messages)) is None
    publisher.on_completed()


def test_pipelines_handle_each_author_in_order(
    orders: Queue, tweet: Tweet, engine: EngineUnderTest
) -> None:
    sent = [tweet(number) for number in range(30)]
    stored: defaultdict[int, list[str]] = defaultdict(list)
    lock = threading.Lock()

    def fail_first_attempts(message: Message[str]) -> Message[str]:
        if int(message.id) % 4 == 0 and delivery_of(message).attempt == 1:
            raise ValueError("not yet")
        return message

    def store(batch: Batch[str]) -> None:
        with lock:
            for message in batch:
                if message.raw in {one.raw for one in sent}:
                    stored[author(message)].append(message.id)

    workers = [Worker(orders, fail_first_attempts) for _ in range(2)]
    for worker in workers:
        worker.pipeline = Pipeline(
            worker.source,
            handle_message=worker.handle,
            concurrency=4,
            partition_by=author,
            batchers={"default": Batcher(store, size=10, timeout=0.02)},
        )
    with workers[0].pipeline, workers[1].pipeline:
        if engine.rebalances:
            rebalance_workers(orders, tweet, *workers)
        ingest_by_author(orders, sent)
        eventually(lambda: sum(map(len, stored.values())) >= 30, lambda: stored, 3 * PATIENCE)
        eventually(lambda: is_empty(orders), lambda: stored)
    assert stored == {key: [one.id for one in sent if author(one) == key] for key in range(KEYS)}


def test_dead_letter_lets_its_key_continue(orders: Queue, tweet: Tweet) -> None:
    sent = [tweet(number) for number in (0, 3, 6)]
    poison = sent[0]

    def handle(message: Message[str]) -> Message[str]:
        if message.data == poison.data:
            raise ValueError("poison")
        return message

    ingest_by_author(orders, sent)
    worker = Worker(orders, handle, max_deliver=2)
    with worker.pipeline:
        worker.wait_for(4)
        eventually(lambda: is_empty(orders), worker.texts)
    assert [one.data for one in worker.given] == [sent[0].data, *(one.data for one in sent)]
    assert dead_letters_in(orders) == 1
    assert orders.dead_letters.replay() == 1
    with receiving(orders) as receiver:
        [replayed] = take(receiver, 1)
        assert (replayed.body, replayed.shard) == (poison.raw, str(author(poison)))
        receiver.acknowledge([replayed])


def test_dead_letters_of_one_key_are_all_listed(orders: Queue, tweet: Tweet) -> None:
    def fail(_: Message[str]) -> Message[str]:
        raise ValueError("poison")

    ingest_by_author(orders, [tweet(number) for number in (0, 3, 6)])
    worker = Worker(orders, fail, on_failure="dead_letter")
    with worker.pipeline:
        eventually(lambda: dead_letters_in(orders) == 3, worker.texts)
    assert {letter.body for letter in orders.dead_letters} == {
        tweet(number).raw for number in (0, 3, 6)
    }
