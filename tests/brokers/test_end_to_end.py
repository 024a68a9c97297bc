"""Real processes on real brokers, killed at random moments: nothing is lost."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from rxtweets import Batch
from rxtweets.brokers import Queue
from tests.brokers._killed import frames, messages
from tests.brokers.engine_contract import receiving, take
from tests.brokers.engines import ENGINES, EngineUnderTest
from tests.brokers.users_run import Plan, run
from tests.brokers.waiting import eventually
from tests.subscribers import conftest as stores

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(200)]

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
LEASE = 4.0
MOST = 40
"""Messages in flight of one worker."""

postgres = stores.postgres


@pytest.fixture(params=["sqlite", "jetstream", "redis"], scope="module")
def engine(request: pytest.FixtureRequest) -> EngineUnderTest:
    return ENGINES[request.param]


@pytest.fixture
def start(url: str, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Return a function that starts a worker; all are killed at the end."""
    with ExitStack() as stack:

        def start(source: dict[str, Any], **options: Any) -> Worker:
            worker = Worker(url, tmp_path / uuid4().hex, {"source": source, **options})
            stack.callback(worker.kill)
            return worker

        yield start


class Worker:
    """A process that handles messages.

    Attributes:
        handled: pairs of id and attempt, so far.
    """

    def __init__(self, url: str, record: Path, options: dict[str, Any]) -> None:
        self._record = record
        self._process = started("work", url, record, json.dumps(options))

    @property
    def handled(self) -> list[tuple[str, int]]:
        lines = self._record.read_text().splitlines() if self._record.exists() else []
        return [(key, int(attempt)) for key, attempt in (line.split() for line in lines)]

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        ended(self._process)


def started(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.brokers._killed", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def wait_for_count(count: Callable[[], int], least: int) -> None:
    eventually(lambda: count() >= least, count, PATIENCE)


def is_empty(queue: Queue) -> bool:
    backlog = queue.backlog()["workers"]
    return (backlog.pending, backlog.in_flight) == (0, 0)


def publish(queue: Queue, count: int) -> list[str]:
    """Publish messages, and return their ids."""
    sent = messages(count)
    publisher = queue.publisher()
    assert publisher.on_next(Batch(sent)) is None
    publisher.on_completed()
    return [message.id for message in sent]


def count_of(workers: Sequence[Worker]) -> int:
    return sum(len(worker.handled) for worker in workers)


def kill_one(
    workers: list[Worker], killed: list[Worker], moments: random.Random, new: Callable[[], Worker]
) -> None:
    """Kill a worker at a random moment, and start another one."""
    time.sleep(moments.uniform(0.0, 0.02))  # anywhere between two batches
    victim = workers.pop(moments.randrange(len(workers)))
    victim.kill()
    killed.append(victim)
    workers.append(new())
    workers[-1].wait_until_ready()


def test_no_message_is_lost_when_workers_are_killed(
    queue: Queue, start: Callable[..., Worker]
) -> None:
    moments, killed = random.Random(1), list[Worker]()

    def new() -> Worker:
        return start({"lease": LEASE, "max_in_flight": MOST})

    workers = [new() for _ in range(3)]
    for worker in workers:
        worker.wait_until_ready()
    ids = publish(queue, 5000)
    for first in (400, 1700, 3000):
        at = first + moments.randrange(700)
        wait_for_count(lambda: count_of(workers + killed), at)
        kill_one(workers, killed, moments, new)
    eventually(lambda: is_empty(queue), queue.backlog, PATIENCE)
    handled = [pair for worker in workers + killed for pair in worker.handled]
    times = Counter(key for key, _ in handled)
    doubles = {key for key, count in times.items() if count > 1}
    assert set(times) == set(ids)
    assert doubles <= {key for worker in killed for key, _ in worker.handled}
    assert times.total() - len(times) <= MOST * len(killed)
    assert any(attempt > 1 for _, attempt in handled), "no worker had messages when it was killed"
    assert len(queue.dead_letters) == 0


def test_each_message_is_stored_once_when_publishers_are_killed(
    url: str, queue: Queue, engine: EngineUnderTest
) -> None:
    assert engine.deduplicates
    moments, count = random.Random(2), 3000
    for _ in range(3):
        confirmed = confirmed_until_killed(url, count, moments)
        assert queue.backlog()["workers"].pending >= confirmed
    process = started("publish", url, count)
    assert process.stdout is not None
    lines = process.stdout.read().split()
    assert process.wait() == 0
    ended(process)
    assert sum(map(int, lines[1:])) == count
    with receiving(queue, max_in_flight=count) as receiver:
        taken = take(receiver, count)
        assert sorted(one.body for one in taken) == sorted(frames(count))
        assert receiver.take(1, 0.2) == []


def confirmed_until_killed(url: str, count: int, moments: random.Random) -> int:
    """Publish, kill the process at a random moment, and return the number of confirmed messages."""
    process = started("publish", url, count)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    confirmed, last = 0, moments.randrange(0, count // 2)
    for line in process.stdout:
        confirmed += int(line)
        if confirmed >= last and process.poll() is None:
            time.sleep(moments.uniform(0.0, 0.005))  # into a batch, or between two
            process.kill()
    ended(process)
    assert confirmed < count, "the process was done before it was killed"
    return confirmed


# Poison.


def handled_around_poison(
    queue: Queue, start: Callable[..., Worker], kind: str, poison: str, **source: Any
) -> tuple[set[str], int]:
    """Have messages handled by three workers, and replace those that end.

    Returns:
        The handled ids, and the number of workers that have ended.
    """

    def new() -> Worker:
        options = {"lease": 2.0, "max_deliver": 3, "max_in_flight": MOST, **source}
        return start(options, poison={poison: kind})

    workers, ended = [new() for _ in range(3)], list[Worker]()

    def is_done() -> bool:
        for worker in [worker for worker in workers if not worker.is_alive]:
            workers.remove(worker)
            ended.append(worker)
            workers.append(new())
        return is_empty(queue) and len(queue.dead_letters) > 0

    eventually(is_done, queue.backlog, PATIENCE)
    for worker in workers:
        worker.kill()
    return {key for worker in workers + ended for key, _ in worker.handled}, len(ended)


@pytest.mark.parametrize(
    ("kind", "error", "source"),
    [("raise", "ValueError: poison", {}), ("hang", "HandlerTimeout", {"max_lease": 1.0})],
    ids=["raise", "hang"],
)
def test_poison_becomes_a_dead_letter(
    queue: Queue, start: Callable[..., Worker], kind: str, error: str, source: dict[str, float]
) -> None:
    ids = publish(queue, 300)
    handled, ended = handled_around_poison(queue, start, kind, ids[150], **source)
    [letter] = queue.dead_letters
    assert (letter.key, letter.attempts) == (ids[150], 3)
    assert letter.error.startswith(error)
    assert handled == set(ids) - {ids[150]}
    assert ended == 0


def test_poison_that_ends_its_process_becomes_a_dead_letter(
    queue: Queue, start: Callable[..., Worker]
) -> None:
    ids = publish(queue, 100)
    handled, ended = handled_around_poison(queue, start, "exit", ids[50], max_in_flight=1)
    [letter] = queue.dead_letters
    assert (letter.key, letter.attempts) == (ids[50], 4)
    assert letter.error.startswith("Redelivered")
    assert handled == set(ids) - {ids[50]}
    assert ended == 3


def test_no_message_beside_a_poison_is_lost(queue: Queue, start: Callable[..., Worker]) -> None:
    # The broker counts a delivery for each message that an ended process had in flight. So they
    # can become dead letters together with the poison, unless each is alone.
    ids = publish(queue, 300)
    handled, ended = handled_around_poison(queue, start, "exit", ids[150])
    dead = {letter.key for letter in queue.dead_letters}
    assert ids[150] in dead
    assert handled | dead == set(ids)
    assert 1 < len(dead) <= MOST
    assert ended == 3
    queue.dead_letters.replay()
    handled, _ = handled_around_poison(queue, start, "exit", ids[150], max_in_flight=1)
    assert [letter.key for letter in queue.dead_letters] == [ids[150]]
    assert handled == dead - {ids[150]}


# All together.


@pytest.mark.timeout(600)  # 20 s, if the machine has nothing else to do
def test_each_tweet_is_in_the_table_once(postgres: str, tmp_path: Path) -> None:
    plan = Plan(tweets=20_000, rate=2000.0, kill_every=2.0, outage=1.0, lease=4.0)
    outcome = run(plan, postgres, tmp_path)
    assert (outcome.missing, outcome.strange, outcome.dead) == (0, 0, 0), outcome.said
    assert outcome.codes == {"ingest": 0, "work": 0, "simulate": 0}, outcome.said
    assert outcome.kills >= 3
