"""`QueueSource`: what engines, strategies and strangers do wrong, and ends at a bad moment."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
import tenacity

from rxtweets import Batch, Message, Pipeline, events
from rxtweets.brokers import Backlog, Queue, Subscription, _source, delivery_of
from rxtweets.errors import BrokerError, QueueSettingsError
from tests.brokers.faulty import FaultyEngine, faulty_queue
from tests.brokers.waiting import PATIENCE, eventually

Tweet = Callable[[int], Message[str]]


@pytest.fixture
def faulty() -> tuple[Queue, FaultyEngine]:
    return faulty_queue()


def publish(queue: Queue, messages: list[Message[Any]]) -> None:
    assert queue.publisher().on_next(Batch(messages)) is None


def counts(queue: Queue) -> tuple[int, int]:
    backlog: Backlog = queue.backlog()["workers"]
    return backlog.pending, backlog.in_flight


def threads_of_sources() -> list[threading.Thread]:
    names = {"rxtweets-backlog", "rxtweets-lease"}
    return [one for one in threading.enumerate() if one.name in names]


def test_disposal_in_a_take_releases_its_messages(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet
) -> None:
    queue, engine = faulty
    publish(queue, [tweet(1), tweet(2)])
    session = queue.source("workers").new_session()
    engine.after_take = session.leave
    assert session(10) == []
    assert counts(queue) == (2, 0)
    assert engine.open == 0
    eventually(lambda: not threads_of_sources(), threading.enumerate)


def test_drain_in_a_take_settles_its_messages(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet
) -> None:
    queue, engine = faulty
    publish(queue, [tweet(1)])
    source = queue.source("workers")
    session = source.new_session()
    engine.after_take = session.finish
    session.ack(session(10), [])
    assert counts(queue) == (0, 0)
    assert source.stats().acks_lost == 0
    assert engine.open == 0
    eventually(lambda: not threads_of_sources(), threading.enumerate)


def test_broker_is_tried_within_4_s_after_many_failures(
    faulty: tuple[Queue, FaultyEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, engine = faulty
    engine.faults["take"] = [OSError() for _ in range(50)]
    source = queue.source("workers")
    session = source.new_session()
    events: list[Any] = []
    monkeypatch.setattr(source.telemetry, "publish", events.append)
    monkeypatch.setattr(session._stopped, "wait", lambda _: False)
    for _ in range(50):
        assert session(1) == []
    session.finish()
    assert [event.attempt for event in events] == list(range(1, 51))
    assert max(event.delay for event in events) <= 4.0


def test_disposal_while_connecting_leaves_no_connection(
    faulty: tuple[Queue, FaultyEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, engine = faulty
    session = queue.source("workers").new_session()
    ensure = engine.ensure

    def leave_then_ensure(groups: Any) -> None:
        session.leave()
        ensure(groups)

    monkeypatch.setattr(engine, "ensure", leave_then_ensure)
    assert session(10) == []
    assert session(10) == []
    assert engine.open == 0
    eventually(lambda: not threads_of_sources(), threading.enumerate)


@pytest.mark.parametrize("error", [BrokerError("no leader"), ValueError("a bug")])
def test_take_that_raises_is_repeated(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet, error: Exception
) -> None:
    queue, engine = faulty
    engine.faults["take"] = [error]
    publish(queue, [tweet(1)])
    pipeline = Pipeline(queue.source("workers"), handle_message=lambda message: message)
    seen: list[events.Event] = []
    pipeline.events.subscribe(seen.append)
    pipeline.start()
    eventually(lambda: counts(queue) == (0, 0), queue.backlog)
    pipeline.stop()
    stats = pipeline.stats()
    assert (stats.broker_failures, stats.restarts, stats.acks_lost) == (1, 0, 0)
    kinds = (events.BrokerLost, events.BrokerReconnected)
    assert [type(event) for event in seen if isinstance(event, kinds)] == list(kinds)


def test_queue_with_wrong_settings_ends_the_source(faulty: tuple[Queue, FaultyEngine]) -> None:
    queue, engine = faulty
    engine.faults["take"] = [QueueSettingsError("retention is limited")]
    pipeline = Pipeline(queue.source("workers"), handle_message=lambda message: message)
    with pytest.raises(QueueSettingsError):
        pipeline.run()
    eventually(lambda: not (engine.open or threads_of_sources()), threading.enumerate)


def test_ack_that_raises_counts_as_lost(faulty: tuple[Queue, FaultyEngine], tweet: Tweet) -> None:
    queue, engine = faulty
    publish(queue, [tweet(1), tweet(2)])
    source = queue.source("workers", wait=tenacity.wait_none(), max_in_flight=2)
    session = source.new_session()
    [first] = session(1)
    [second] = session(1)
    engine.faults["acknowledge"] = [ValueError("a bug")]
    session.ack([first], [second.failed("no")])
    assert source.stats().acks_lost == 1
    [again] = session(2)  # there is room, and the other outcome was told
    assert (again.id, delivery_of(again).attempt) == (second.id, 2)
    session.leave()


@pytest.mark.parametrize("delay", [math.nan, math.inf, "soon", ZeroDivisionError()])
def test_wait_that_is_no_time_becomes_a_second(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet, delay: Any
) -> None:
    queue, _ = faulty
    publish(queue, [tweet(1), tweet(2)])

    def wait(_: tenacity.RetryCallState) -> Any:
        if isinstance(delay, Exception):
            raise delay
        return delay

    source = queue.source("workers", wait=wait)
    session = source.new_session()
    [first] = session(1)
    [second] = session(1)
    session.ack([first], [second.failed("no")])
    assert source.stats().acks_lost == 0
    taken: list[Message[Any]] = []

    def takes() -> bool:
        taken.extend(session(2))
        return bool(taken)

    eventually(takes, lambda: taken)
    assert [message.id for message in taken] == [second.id]
    session.leave()


def test_leases_are_kept_when_extend_raises(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet
) -> None:
    queue, engine = faulty
    publish(queue, [tweet(1)])
    engine.faults["extend"] = [ValueError("a bug") for _ in range(1000)]
    session = queue.source("workers", lease=600.0, max_lease=0.1).new_session()
    assert len(session(1)) == 1
    # It is given up in spite of the fault, and the thread does not spin meanwhile.
    eventually(lambda: engine.calls["retry"] == 1, lambda: engine.calls)
    assert engine.calls["extend"] < 100
    session.leave()


def test_leases_are_extended_while_the_backlog_is_slow(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, engine = faulty
    publish(queue, [tweet(1)])
    asked, answered = threading.Event(), threading.Event()

    def answer_late() -> dict[str, Backlog]:
        asked.set()
        answered.wait(PATIENCE)
        return {}

    monkeypatch.setattr(engine, "backlog", answer_late)
    session = queue.source("workers", lease=0.3).new_session()
    [message] = session(1)
    assert asked.wait(PATIENCE)
    engine.calls.clear()
    eventually(lambda: engine.calls["extend"] > 2, lambda: engine.calls, PATIENCE / 2)
    answered.set()
    session.ack([message], [])
    session.leave()


def test_source_has_ended_when_its_backlog_is_answered(
    faulty: tuple[Queue, FaultyEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, engine = faulty
    publish(queue, [])
    asked, answered, order = threading.Event(), threading.Event(), list[str]()

    def answer_late() -> dict[str, Backlog]:
        asked.set()
        answered.wait(PATIENCE)
        order.append("answered")
        return {}

    monkeypatch.setattr(engine, "backlog", answer_late)
    monkeypatch.setattr(_source, "CLOSING", PATIENCE)
    session = queue.source("workers").new_session()
    session(1)
    assert asked.wait(PATIENCE)

    def leave() -> None:
        session.leave()
        order.append("left")

    leaving = threading.Thread(target=leave)
    leaving.start()
    leaving.join(0.1)
    answered.set()
    leaving.join(PATIENCE)
    assert order == ["answered", "left"]


def test_error_without_text_becomes_a_dead_letter(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet
) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("mute")

    queue, _ = faulty
    publish(queue, [tweet(1)])
    session = queue.source("workers", max_deliver=1).new_session()
    session.ack([], [message.failed(Mute()) for message in session(1)])
    session.leave()
    [letter] = queue.dead_letters
    assert (letter.key, letter.error) == (tweet(1).id, "Mute")


def test_message_is_retried_when_no_letter_is_stored(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, engine = faulty
    publish(queue, [tweet(1)])

    def refuse() -> Any:
        raise ValueError("a bug")

    monkeypatch.setattr(engine, "dead_letters", refuse)
    source = queue.source("workers", max_deliver=1, wait=tenacity.wait_none())
    session = source.new_session()
    session.ack([], [message.failed("no") for message in session(1)])
    assert counts(queue) == (1, 0)
    assert source.stats().acks_lost == 1
    session.leave()


def test_lost_message_that_fails_is_no_dead_letter(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet
) -> None:
    queue, _ = faulty
    publish(queue, [tweet(1)])
    source = queue.source("workers", on_failure="dead_letter")
    session = source.new_session()
    messages = session(1)
    session.leave()
    session.ack([], [message.failed("no") for message in messages])
    assert len(queue.dead_letters) == 0
    assert source.stats().acks_lost == 1
    assert counts(queue) == (1, 0)


def test_each_group_has_its_dead_letters(faulty: tuple[Queue, FaultyEngine], tweet: Tweet) -> None:
    queue, engine = faulty
    engine.ensure(["others"])
    publish(queue, [tweet(1)])
    for group in ("workers", "others"):
        session = queue.source(group, on_failure="dead_letter").new_session()
        session.ack([], [message.failed("no") for message in session(1)])
        session.leave()
    assert sorted(letter.group for letter in queue.dead_letters) == ["others", "workers"]


@pytest.mark.parametrize("on_failure", ["retry", "release", "drop", "dead_letter"])
def test_failed_message_is_settled_once(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet, on_failure: Any
) -> None:
    queue, _ = faulty
    publish(queue, [tweet(1)])
    source = queue.source("workers", on_failure=on_failure, max_deliver=1)
    session = source.new_session()
    session.ack([], [message.failed("no") for message in session(1)])
    letters = on_failure in {"retry", "dead_letter"}
    assert len(queue.dead_letters) == letters
    assert counts(queue) == (int(on_failure == "release"), 0)
    assert source.stats().acks_lost == 0
    session.leave()


def test_key_of_any_text_travels_with_dead_letters(faulty: tuple[Queue, FaultyEngine]) -> None:
    queue, engine = faulty
    publish(queue, [Message("hola", {"id": "é 1"})])
    session = queue.source("workers", max_deliver=1).new_session()
    session.ack([], [message.failed("no") for message in session(1)])
    assert [letter.key for letter in queue.dead_letters] == ["é 1"]
    assert queue.dead_letters.replay() == 1
    [message] = session(1)
    assert delivery_of(message).key == "é 1"
    session.leave()
    [taken] = engine.receiver(Subscription("workers", 30.0, 1, 5)).take(1, 1.0)
    assert all(text.isascii() for text in taken.headers.values())


def test_message_that_ends_its_workers_becomes_a_dead_letter(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet
) -> None:
    queue, engine = faulty
    publish(queue, [tweet(1)])
    killed = engine.receiver(Subscription("workers", 600.0, 10, 5))
    for _ in range(2):  # as after the lease of a worker that was killed
        killed.retry(killed.take(1, 1.0), 0.0)
    session = queue.source("workers", max_deliver=2).new_session()
    assert session(1) == []
    session.leave()
    [letter] = queue.dead_letters
    assert (letter.key, letter.attempts) == (tweet(1).id, 3)
    assert letter.error.startswith("Redelivered: delivered 3 times")
    assert counts(queue) == (0, 0)
