"""`process(concurrency=Concurrency(…))`: a limit that is changed while calls run."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import pytest

from rxtweets import Concurrency, ConfigurationError, Message
from rxtweets import operators as ops

PATIENCE = 20.0


class Gauge:
    """A handler that counts its running calls, and ends them one at a time."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.running = 0
        self.most = 0
        self.to_go = 0

    def __call__(self, message: Message[Any]) -> Message[Any]:
        with self.changed:
            self.running += 1
            self.most = max(self.most, self.running)
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: self.to_go > 0, PATIENCE)
            self.to_go -= 1
            self.running -= 1
            self.changed.notify_all()
        return message

    def let_go(self, count: int) -> None:
        with self.changed:
            self.to_go += count
            self.changed.notify_all()

    def until_running(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.running == count, PATIENCE), self.running


def test_more_handlers_start_when_the_limit_grows(process: Any) -> None:
    limit, gauge = Concurrency(1), Gauge()
    watched = process(gauge, concurrency=limit)
    watched.feed(*range(8))
    gauge.until_running(1)
    limit.limit = 5
    gauge.until_running(5)
    assert gauge.most == 5
    gauge.let_go(8)
    assert sorted(watched.complete()) == list(range(8))


def test_no_handler_starts_when_more_run_than_the_limit(process: Any) -> None:
    limit, gauge = Concurrency(4), Gauge()
    watched = process(gauge, concurrency=limit)
    watched.feed(*range(12))
    gauge.until_running(4)
    limit.limit = 1
    gauge.let_go(3)
    for done in range(3, 8):
        watched.until(lambda done=done: len(watched.data) == done)
        gauge.until_running(1)
        gauge.let_go(1)
    gauge.most = 0
    gauge.let_go(4)
    assert sorted(watched.complete()) == list(range(12))
    assert gauge.most <= 1


def test_coroutines_follow_the_limit(process: Any) -> None:
    limit = Concurrency(1)
    running, most, go = 0, 0, threading.Event()
    changed = threading.Condition()

    async def handle(message: Message[int]) -> Message[int]:
        nonlocal running, most
        with changed:
            running += 1
            most = max(most, running)
            changed.notify_all()
        assert await asyncio.to_thread(go.wait, PATIENCE)
        running -= 1
        return message

    watched = process(handle, concurrency=limit)
    watched.feed(*range(9))
    limit.limit = 3
    with changed:
        assert changed.wait_for(lambda: running == 3, PATIENCE)
    limit.limit = 2
    go.set()
    assert sorted(watched.complete()) == list(range(9))
    assert most == 3


def test_source_continues_when_the_limit_grows(process: Any) -> None:
    limit, gauge = Concurrency(1), Gauge()
    watched = process(gauge, concurrency=limit)
    feeder = threading.Thread(target=lambda: watched.feed(*range(30)))
    feeder.start()
    while watched.stats().in_flight < 10:
        threading.Event().wait(0.001)
    limit.limit = 10
    feeder.join(PATIENCE)
    assert not feeder.is_alive()
    gauge.let_go(30)
    assert len(watched.complete()) == 30


def test_two_operators_can_share_a_limit(process: Any) -> None:
    limit = Concurrency(1)
    gauges = Gauge(), Gauge()
    streams = [process(gauge, concurrency=limit) for gauge in gauges]
    for watched in streams:
        watched.feed(1, 2)
    limit.limit = 2
    for gauge in gauges:
        gauge.until_running(2)
        gauge.let_go(2)
    for watched in streams:
        watched.complete()


def test_limit_is_not_watched_after_the_end(process: Any) -> None:
    limit = Concurrency(1)
    process(lambda message: message, [1], concurrency=limit).until_end()
    assert limit._watchers == ()
    limit.limit = 2


@pytest.mark.parametrize("value", [0, -1, 1.5, "many", True])
def test_limit_stays_when_a_wrong_one_is_set(value: Any) -> None:
    limit = Concurrency(3)
    with pytest.raises(ConfigurationError, match="limit="):
        limit.limit = value
    assert limit.limit == 3
    assert repr(limit) == "Concurrency(limit=3)"
    with pytest.raises(ConfigurationError):
        ops.process(lambda message: message, value)


@pytest.mark.parametrize("seed", range(5))
def test_no_message_is_lost_when_the_limit_changes(process: Any, seed: int) -> None:
    rng, limit = random.Random(seed), Concurrency(5)

    def handle(message: Message[int]) -> Message[int]:
        if message.data % 3 == 0:
            threading.Event().wait(0.000_5)  # blocks, so that more threads come in
        return message

    watched = process(handle, concurrency=limit)
    for number in range(600):
        watched.feed(number)
        if number % 20 == 0:
            limit.limit = rng.randrange(1, 20)
    assert sorted(watched.complete()) == list(range(600))
