"""`process(time_limit=…, deadline=…)` on threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import tenacity
from reactivex.testing import ReactiveTest, TestScheduler

from rxtweets import ConfigurationError, Message, Retry, ack_immediately, events
from rxtweets import operators as ops
from rxtweets.errors import DeadlineExceeded, HandlerTimeout

PATIENCE = 20.0
LIMIT = 0.3
"""Seconds: much longer than a quick call takes on a busy machine."""


class Hanging:
    """Hangs on some messages until an event is set."""

    def __init__(self, *on: Any) -> None:
        self.on = on
        self.go = threading.Event()

    def __call__(self, message: Message[Any]) -> Message[Any]:
        if message.data in self.on:
            assert self.go.wait(PATIENCE)
        return message


@pytest.fixture
def hanging() -> Iterator[Any]:
    made: list[Hanging] = []

    def make(*on: Any) -> Hanging:
        made.append(Hanging(*on))
        return made[-1]

    yield make
    for message in made:
        message.go.set()


@pytest.mark.parametrize("ordered", [False, True])
def test_overdue_call_fails_its_message_only(process: Any, hanging: Any, ordered: bool) -> None:
    watched = process(hanging(1), range(4), time_limit=LIMIT, ordered=ordered)
    assert sorted(watched.until_end()) == [0, 2, 3]
    assert isinstance(watched.reasons()[1], HandlerTimeout)
    stats = watched.stats()
    assert (stats.processed, stats.failed, stats.timed_out) == (3, 1, 1)


def test_late_result_is_discarded(process: Any, hanging: Any) -> None:
    handler = hanging("slow")
    watched = process(handler, time_limit=LIMIT)
    watched.feed("slow")
    watched.until(lambda: watched.failed)
    handler.go.set()
    watched.feed("quick")
    assert watched.complete() == ["quick"]
    assert len(watched.failed) == 1


def test_hanging_thread_is_replaced(process: Any, hanging: Any) -> None:
    watched = process(hanging(0), concurrency=1, time_limit=LIMIT)
    watched.feed(0, 1)
    watched.until(lambda: watched.data == [1])
    assert watched.stats().threads_lost == 1
    [event] = watched.happened(events.WorkerReplaced)
    assert (event.worker, event.messages, event.lost) == ("thread", 1, True)
    watched.complete()


def test_concurrency_is_kept_when_threads_hang(process: Any, hanging: Any) -> None:
    together = threading.Barrier(3)
    handler = hanging("hang")

    def handle(message: Message[Any]) -> Message[Any]:
        if message.data == "meet":
            together.wait(PATIENCE)
        return handler(message)  # type: ignore[no-any-return]  # the fixture is untyped

    watched = process(handle, concurrency=3, time_limit=LIMIT)
    watched.feed("hang", "hang", "hang")
    watched.until(lambda: len(watched.failed) == 3)
    watched.feed("meet", "meet", "meet")
    watched.until(lambda: len(watched.data) == 3)
    assert watched.stats().threads_lost == 3
    watched.complete()


def test_threads_are_replaced_up_to_the_concurrency(process: Any, hanging: Any) -> None:
    handler = hanging("hang")
    watched = process(handler, concurrency=2, time_limit=LIMIT)
    watched.feed(*["hang"] * 4, "next")
    watched.until(lambda: len(watched.failed) == 4)
    threading.Event().wait(0.05)  # time for calls that must not happen
    assert watched.stats().threads_lost == 2
    assert watched.data == []  # two hang and were replaced, two more keep their places
    handler.go.set()
    assert watched.complete() == ["next"]


def test_lost_thread_ends_when_its_call_returns(process: Any, hanging: Any) -> None:
    handler = hanging("hang")
    watched = process(handler, concurrency=1, time_limit=LIMIT)
    watched.feed("hang")
    watched.until(lambda: watched.failed)
    assert watched.stats().threads_lost == 1
    handler.go.set()
    while watched.stats().threads_lost:
        threading.Event().wait(0.001)
    watched.complete()


def test_calls_beside_lost_threads_keep_the_concurrency(process: Any, hanging: Any) -> None:
    handler, lock = hanging(*range(0, 200, 50)), threading.Lock()
    running, most = 0, 0

    def handle(message: Message[int]) -> Message[int]:
        nonlocal running, most
        if message.data % 50 == 0:
            return handler(message)  # type: ignore[no-any-return]  # the fixture is untyped
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.001)  # time for another call to come in, if one could
        with lock:
            running -= 1
        return message

    watched = process(handle, range(200), concurrency=4, time_limit=LIMIT)
    watched.until(lambda: len(watched.data) == 196)
    assert most <= 4
    watched.until_end()
    assert watched.stats().failed == 4


def test_quick_results_do_not_wait_for_a_hanging_call(process: Any, hanging: Any) -> None:
    watched = process(hanging("hang"), time_limit=LIMIT)
    watched.feed(*range(5000))
    watched.until(lambda: len(watched.data) == 5000)
    for number in range(20):
        watched.feed(number)
    watched.feed("hang", *range(20))
    watched.until(lambda: len(watched.data) == 5040)
    assert watched.complete()[-1] != "hang"
    assert watched.stats().timed_out == 1


# Acknowledging beside a time limit.

SAME = {"the message": lambda message: message, "a copy": lambda message: message.update_data(str)}


class Acknowledging:
    """Acknowledges its message, or a copy of it; hangs before or after that."""

    def __init__(self, hang: Hanging, copied: Any, *, early: bool) -> None:
        self.hang = hang
        self.copied = copied
        self.early = early
        self.acknowledged = threading.Semaphore(0)

    def __call__(self, message: Message[Any]) -> Message[Any]:
        copy = self.copied(message)
        if not self.early:
            self.hang(message)
        ack_immediately(copy)
        self.acknowledged.release()
        return self.hang(message)


@pytest.mark.parametrize("copied", SAME.values(), ids=SAME)
def test_acknowledgement_is_counted_when_after_its_time_limit(
    process: Any, hanging: Any, copied: Any
) -> None:
    handler = Acknowledging(hanging(1), copied, early=False)
    watched = process(handler, [1], time_limit=LIMIT)
    watched.until_end()
    handler.hang.go.set()
    assert handler.acknowledged.acquire(timeout=PATIENCE)
    assert watched.successful == []
    assert [data for data, _ in watched.failed] == [1]
    assert watched.stats().late_acknowledgements == 1


@pytest.mark.parametrize("copied", SAME.values(), ids=SAME)
def test_timeout_is_not_acknowledged_when_the_handler_was_first(
    process: Any, hanging: Any, copied: Any
) -> None:
    watched = process(Acknowledging(hanging(1), copied, early=True), [1], time_limit=LIMIT)
    watched.until_end()
    assert len(watched.successful) == 1
    assert watched.failed == []
    assert (watched.stats().timed_out, watched.stats().late_acknowledgements) == (1, 0)


def test_message_is_acknowledged_once_when_it_is_retried(process: Any, hanging: Any) -> None:
    handler = Acknowledging(hanging(1), SAME["a copy"], early=False)
    attempts: list[int] = []

    def handle(message: Message[int]) -> Message[int]:
        attempts.append(message.data)
        return message if len(attempts) > 1 else handler(message)

    retry = Retry(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_none())
    acknowledging = ops.acknowledge()
    watched = process(handle, time_limit=LIMIT, retry=retry, then=acknowledging)
    watched.feed(1)
    watched.until(lambda: watched.successful)
    handler.hang.go.set()
    assert handler.acknowledged.acquire(timeout=PATIENCE)
    watched.complete()
    assert (watched.successful, watched.failed) == ([1], [])
    assert watched.stats().late_acknowledgements == 1


@pytest.mark.parametrize("value", [0, -1, "soon", float("inf")])
@pytest.mark.parametrize("name", ["time_limit", "deadline"])
def test_wrong_time_is_refused(name: str, value: Any) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError, match=name):
        ops.process(Hanging(), **options)


# Deadlines.


def test_message_past_its_deadline_gets_no_handler(process: Any) -> None:
    handled: list[Any] = []

    def handle(message: Message[Any]) -> Message[Any]:
        handled.append(message.data)
        return message

    due = {"late": time.time() - 1.0, "early": time.time() + 1000.0, "never": None}
    watched = process(handle, list(due), deadline=lambda message: due[message.data])
    assert sorted(watched.until_end()) == sorted(handled) == ["early", "never"]
    assert isinstance(watched.reasons()["late"], DeadlineExceeded)
    assert watched.stats().expired == watched.stats().failed == 1


def test_deadline_counts_from_the_receipt(process: Any) -> None:
    watched = process(lambda message: message, deadline=60.0)
    now = time.time()
    for received in (now - 100.0, now):
        line = b'{"data":{"id":"1","text":"%d"}}' % received
        watched.source.on_next(Message.from_line(line, received))
    assert watched.complete() == [str(int(now))]
    assert watched.stats().expired == 1


def test_message_fails_when_its_deadline_function_raises(process: Any) -> None:
    def due(message: Message[int]) -> float | None:
        return None if message.data else 1 / message.data

    watched = process(lambda message: message, [0, 1], deadline=due)
    assert watched.until_end() == [1]
    assert isinstance(watched.reasons()[0], ZeroDivisionError)


def test_deadline_is_kept_in_virtual_time() -> None:
    scheduler = TestScheduler()
    source = scheduler.create_hot_observable(
        ReactiveTest.on_next(210, Message("a")),
        ReactiveTest.on_next(230, Message("b")),
        ReactiveTest.on_completed(250),
    )
    operator: Any = ops.process(lambda message: message, deadline=lambda _: 220.0)
    observer: Any = scheduler.start(lambda: source.pipe(operator))
    assert [record.value.value.data for record in observer.messages[:-1]] == ["a"]


def test_deadline_counts_from_the_arrival_without_receipt() -> None:
    scheduler = TestScheduler()
    source = scheduler.create_hot_observable(
        ReactiveTest.on_next(210, Message("a")), ReactiveTest.on_completed(220)
    )
    attempts: list[float] = []
    reasons: list[Any] = []

    def fail(message: Message[str]) -> Message[str]:
        attempts.append(scheduler.clock)
        raise ValueError(message.data)

    def on_failed(messages: Any) -> Any:
        reasons.extend(message.status.reason for message in messages)
        return messages

    retry = Retry(stop=tenacity.stop_never, wait=lambda _: 10.0)
    operator: Any = ops.process(fail, deadline=25, retry=retry, on_failed=on_failed)
    observer: Any = scheduler.start(lambda: source.pipe(operator))
    assert attempts == [210, 220, 230]
    assert [type(message) for message in reasons] == [DeadlineExceeded]
    assert [record.time for record in observer.messages] == [240]
