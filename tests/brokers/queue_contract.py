"""What a pipeline sees of every engine: outcomes, leases, dead letters, drain."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import tenacity

from rxtweets import Batch, Batcher, Message, Pipeline, events
from rxtweets.brokers import Queue, _source, delivery_of
from rxtweets.errors import QueueMissing
from tests.brokers.engine_contract import receiving, take
from tests.brokers.engines import ENGINES, EngineUnderTest
from tests.brokers.waiting import eventually

Tweet = Callable[[int], Message[str]]
PATIENCE = 30.0


def ingest(queue: Queue, messages: list[Message[str]], pack: int = 1) -> None:
    publisher = queue.publisher(pack=pack)
    assert publisher.on_next(Batch(messages)) is None
    publisher.on_completed()


class Worker:
    """A running pipeline, and what its handler was given."""

    def __init__(
        self,
        queue: Queue,
        handle: Callable[[Message[str]], Message[str]] | None,
        group: str = "workers",
        **options: Any,
    ) -> None:
        self.given: list[Message[str]] = []
        self.lock = threading.Lock()
        self.events: list[events.Event] = []

        def seen(message: Message[str]) -> Message[str]:
            with self.lock:
                self.given.append(message)
            return message if handle is None else handle(message)

        options.setdefault("wait", tenacity.wait_none())
        self.handle = seen
        self.source = queue.source(group, **options)
        self.pipeline = Pipeline(
            self.source,
            handle_message=seen,
            batchers={"default": Batcher(lambda _: None, size=10, timeout=0.05)},
        )
        self.pipeline.events.subscribe(self.events.append)

    def texts(self) -> list[str]:
        with self.lock:
            return sorted(message.data for message in self.given)

    def wait_for(self, count: int) -> None:
        eventually(lambda: len(self.given) >= count, self.texts)


@contextmanager
def working(
    queue: Queue, handle: Callable[[Message[str]], Message[str]] | None = None, **options: Any
) -> Iterator[Worker]:
    worker = Worker(queue, handle, **options)
    worker.pipeline.start()
    try:
        yield worker
    finally:
        worker.pipeline.stop()


def is_empty(queue: Queue, group: str = "workers") -> bool:
    if not counts_backlog(queue):
        with receiving(queue, group=group) as receiver:
            taken = receiver.take(1, 0.2)
            receiver.release(taken)
            return not taken
    backlog = queue.backlog()[group]
    return (backlog.pending, backlog.in_flight) == (0, 0)


def dead_letters_in(queue: Queue) -> int:
    if not counts_backlog(queue):
        return sum(1 for _ in queue.dead_letters)
    return len(queue.dead_letters)


def counts_backlog(queue: Queue) -> bool:
    return ENGINES[queue.engine.name].counts_backlog


def rebalance_workers(queue: Queue, tweet: Tweet, *workers: Worker) -> None:
    """Publish messages until each worker has a partition, and settled them all."""
    numbers = itertools.count(1000)

    def all_have_one() -> bool:
        ingest(queue, [tweet(next(numbers)) for _ in range(20)])
        eventually(lambda: is_empty(queue), queue.backlog)
        return all(worker.given for worker in workers)

    eventually(all_have_one, queue.backlog)


def test_pipeline_handles_each_published_message(queue: Queue, tweet: Tweet) -> None:
    sent = [tweet(number) for number in range(60)]
    ingest(queue, sent)
    with working(queue) as worker:
        worker.wait_for(60)
        eventually(lambda: is_empty(queue), queue.backlog)
    assert sorted(one.raw for one in worker.given) == sorted(one.raw for one in sent)
    assert {one.received_at for one in worker.given} == {one.received_at for one in sent}
    assert {one.metadata["lang"] for one in worker.given} == {"en"}
    delivery = delivery_of(worker.given[0])
    assert (delivery.engine, delivery.queue) == (queue.engine.name, queue.engine.queue)
    assert (delivery.attempt, delivery.group) == (1, "workers")
    assert worker.pipeline.stats().acks_lost == 0


def test_missing_queue_is_not_created_by_reading(
    url_of: Callable[[str], str], queue: Queue, engine: EngineUnderTest
) -> None:
    url = url_of(f"{queue.engine.queue[:6]}none")
    missing = engine.connect(url, groups=["workers"])
    letters = missing.dead_letters
    reads = (missing.backlog, lambda: list(letters), lambda: len(letters), letters.replay)
    for read in (*reads, letters.purge):
        with pytest.raises(QueueMissing, match=missing.engine.queue):
            read()
    assert not missing.engine.exists()
    missing.ensure()
    assert missing.engine.exists(["workers"])
    other = engine.connect(url, groups=["workers", "mistyped"])
    with pytest.raises(QueueMissing, match="no group mistyped"):
        other.backlog()
    assert not other.engine.exists(["mistyped"])
    other.close()
    assert list(letters) == []
    assert (letters.replay(), letters.purge()) == (0, 0)
    missing.close()


def test_backlog_stands_in_the_stats(
    queue: Queue, tweet: Tweet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_source, "LOOK", 0.2)
    if not counts_backlog(queue):
        pytest.skip("this broker does not tell its backlog")
    ingest(queue, [tweet(number) for number in range(30)])
    released = threading.Event()

    def wait(message: Message[str]) -> Message[str]:
        released.wait(PATIENCE)
        return message

    with working(queue, wait, max_in_flight=10) as worker:
        eventually(lambda: worker.pipeline.stats().backlog == 20, worker.pipeline.stats)
        released.set()
        eventually(lambda: worker.pipeline.stats().backlog == 0, worker.pipeline.stats)


def test_changed_data_travels_with_the_line(queue: Queue, tweet: Tweet) -> None:
    ingest(queue, [tweet(1).update_data(str.upper)])
    with working(queue) as worker:
        worker.wait_for(1)
    [message] = worker.given
    assert message.data == tweet(1).data.upper()
    assert message.raw == tweet(1).raw
    assert message.received_at == tweet(1).received_at


def test_failed_message_is_retried_until_it_succeeds(
    queue: Queue, tweet: Tweet, engine: EngineUnderTest
) -> None:
    if not engine.counts_attempts:
        pytest.skip("this broker does not count deliveries")

    def handle(message: Message[str]) -> Message[str]:
        if delivery_of(message).attempt < 3:
            raise ValueError("not yet")
        return message

    ingest(queue, [tweet(1), tweet(2)])
    with working(queue, handle) as worker:
        worker.wait_for(6)
        eventually(lambda: is_empty(queue), queue.backlog)
    assert worker.texts() == sorted(3 * [tweet(1).data, tweet(2).data])
    assert dead_letters_in(queue) == 0
    assert worker.pipeline.stats().redelivered == 4


def test_message_that_always_fails_becomes_a_dead_letter(
    queue: Queue, tweet: Tweet, engine: EngineUnderTest
) -> None:
    if not engine.counts_attempts:
        pytest.skip("this broker does not count deliveries")

    def handle(message: Message[str]) -> Message[str]:
        if message.data == tweet(1).data:
            raise ValueError("poison")
        return message

    ingest(queue, [tweet(1), tweet(2)])
    with working(queue, handle, max_deliver=3) as worker:
        eventually(lambda: dead_letters_in(queue) == 1, queue.backlog)
        eventually(lambda: is_empty(queue), queue.backlog)
    [letter] = queue.dead_letters
    assert letter.body == tweet(1).raw
    assert letter.error == "ValueError: poison"
    assert (letter.attempts, letter.group) == (3, "workers")
    assert worker.texts().count(tweet(1).data) == 3
    assert worker.pipeline.stats().dead_lettered == 1
    assert any(isinstance(event, events.DeadLettered) for event in worker.events)


def test_replayed_dead_letter_is_handled_again(queue: Queue, tweet: Tweet) -> None:
    def fail(_: Message[str]) -> Message[str]:
        raise ValueError("poison")

    ingest(queue, [tweet(1)])
    with working(queue, fail, on_failure="dead_letter"):
        eventually(lambda: dead_letters_in(queue) == 1, queue.backlog)
    assert queue.dead_letters.replay() == 1
    assert dead_letters_in(queue) == 0
    with working(queue) as worker:
        worker.wait_for(1)
        eventually(lambda: is_empty(queue), queue.backlog)
    assert worker.given[0].raw == tweet(1).raw
    assert delivery_of(worker.given[0]).key == tweet(1).id


def test_replayed_dead_letter_returns_to_its_group(
    url_of: Callable[[str], str], queue: Queue, engine: EngineUnderTest, tweet: Tweet
) -> None:
    both = engine.connect(url_of(f"{queue.engine.queue[:6]}each"), groups=["ours", "theirs"])
    both.engine.ensure(["ours", "theirs"])

    def fail(_: Message[str]) -> Message[str]:
        raise ValueError("poison")

    ingest(both, [tweet(1)])
    with working(both, fail, group="ours", on_failure="dead_letter"):
        eventually(lambda: dead_letters_in(both) == 1, both.backlog)
    assert both.dead_letters.replay() == 1
    with working(both, group="ours") as ours, working(both, group="theirs") as theirs:
        ours.wait_for(1)
        theirs.wait_for(1)
        eventually(lambda: is_empty(both, "ours") and is_empty(both, "theirs"), both.backlog)
    assert ours.texts() == theirs.texts() == [tweet(1).data]
    both.close()


def test_purged_dead_letters_are_gone(queue: Queue, tweet: Tweet, engine: EngineUnderTest) -> None:
    if not engine.purges:
        pytest.skip("the broker of the test does not remove messages reliably")

    def fail(_: Message[str]) -> Message[str]:
        raise ValueError("poison")

    ingest(queue, [tweet(1)])
    with working(queue, fail, on_failure="dead_letter"):
        eventually(lambda: dead_letters_in(queue) == 1, queue.backlog)
    queue.dead_letters.purge()
    assert dead_letters_in(queue) == 0


def test_failure_policy_is_set_for_one_message(queue: Queue, tweet: Tweet) -> None:
    def fail(message: Message[str]) -> Message[str]:
        policy = "drop" if message.data == tweet(1).data else "dead_letter"
        return message.configure_ack(on_failure=policy).failed("by hand")

    ingest(queue, [tweet(1), tweet(2)])
    with working(queue, fail) as worker:
        worker.wait_for(2)
        eventually(lambda: is_empty(queue), queue.backlog)
    [letter] = queue.dead_letters
    assert letter.body == tweet(2).raw


def test_undecodable_body_becomes_a_dead_letter(queue: Queue, tweet: Tweet) -> None:
    from rxtweets.brokers import Envelope

    sender = queue.engine.sender()
    assert sender.put([Envelope("odd", b"no JSON \xff", {})]) == [None]
    sender.close()
    ingest(queue, [tweet(1)])
    with working(queue) as worker:
        worker.wait_for(1)
        eventually(lambda: dead_letters_in(queue) == 1, queue.backlog)
        eventually(lambda: is_empty(queue), queue.backlog)
    [letter] = queue.dead_letters
    assert (letter.body, letter.message) == (b"no JSON \xff", None)
    assert worker.pipeline.stats().undecodable == 1


def test_slow_handler_gets_each_message_once(
    queue: Queue, tweet: Tweet, engine: EngineUnderTest
) -> None:
    begun, released, slow = threading.Event(), threading.Event(), tweet(1)

    def wait(message: Message[str]) -> Message[str]:
        if message.data == slow.data:
            begun.set()
            released.wait(PATIENCE)
        return message

    workers = [working(queue, wait, lease=engine.lease) for _ in range(2)]
    with workers[0] as worker, workers[1] as other:
        if engine.rebalances:
            rebalance_workers(queue, tweet, worker, other)
        ingest(queue, [slow])
        assert begun.wait(PATIENCE)
        threading.Event().wait(3 * engine.lease)  # the lease itself is time
        released.set()
        eventually(lambda: is_empty(queue), queue.backlog)
    assert (worker.texts() + other.texts()).count(slow.data) == 1


def test_message_held_too_long_is_delivered_again(
    queue: Queue, tweet: Tweet, engine: EngineUnderTest
) -> None:
    released, calls = threading.Event(), itertools.count(1)

    def hang_once(message: Message[str]) -> Message[str]:
        if next(calls) == 1:
            released.wait(PATIENCE)
        return message

    ingest(queue, [tweet(1)])
    with working(queue, hang_once, lease=engine.lease, max_lease=1.0) as worker:
        worker.wait_for(2)
        eventually(lambda: is_empty(queue), queue.backlog)
        released.set()
        eventually(lambda: worker.pipeline.stats().acks_lost == 1, worker.pipeline.stats)


def test_disposed_source_releases_its_messages(queue: Queue, tweet: Tweet) -> None:
    ingest(queue, [tweet(number) for number in range(20)])
    hold, taken = threading.Event(), threading.Event()

    def block(_: Message[str]) -> None:
        taken.set()
        hold.wait(PATIENCE)

    subscription = queue.source("workers", lease=600.0).subscribe(block)
    assert taken.wait(PATIENCE)
    subscription.dispose()
    hold.set()
    with working(queue) as worker:
        worker.wait_for(20)
        eventually(lambda: is_empty(queue), queue.backlog)
    assert len(set(worker.texts())) == 20


def test_drain_settles_all_messages_that_were_taken(queue: Queue, tweet: Tweet) -> None:
    ingest(queue, [tweet(number) for number in range(200)])
    with working(queue, lease=600.0) as worker:
        worker.wait_for(20)
    if not counts_backlog(queue):
        with receiving(queue) as receiver:
            receiver.acknowledge(take(receiver, 200 - len(worker.given)))
            assert receiver.take(10, 0.5) == []
        return
    backlog = queue.backlog()["workers"]
    assert backlog.in_flight == 0
    assert backlog.pending == 200 - len(worker.given)


def test_in_flight_messages_never_exceed_their_limit(queue: Queue, tweet: Tweet) -> None:
    ingest(queue, [tweet(number) for number in range(50)])
    released = threading.Event()

    def wait(message: Message[str]) -> Message[str]:
        released.wait(PATIENCE)
        return message

    with working(queue, wait, max_in_flight=7) as worker:
        worker.wait_for(7)
        if counts_backlog(queue):
            assert queue.backlog()["workers"].in_flight <= 7
        else:
            with receiving(queue) as receiver:
                receiver.release(take(receiver, 43))
        released.set()
        worker.wait_for(50)
        eventually(lambda: is_empty(queue), queue.backlog)


def test_packed_messages_are_handled_one_by_one(queue: Queue, tweet: Tweet) -> None:
    sent = [tweet(number) for number in range(120)]
    ingest(queue, sent, pack=50)
    if counts_backlog(queue):
        assert queue.backlog()["workers"].pending == 3
    with working(queue, max_in_flight=60) as worker:
        worker.wait_for(120)
        eventually(lambda: is_empty(queue), queue.backlog)
    assert sorted(one.raw for one in worker.given) == sorted(one.raw for one in sent)
    assert {one.received_at for one in worker.given} == {one.received_at for one in sent}
    assert {delivery_of(one).key for one in worker.given} == {one.id for one in sent}
    assert worker.pipeline.stats().acks_lost == 0


def test_failed_message_of_a_pack_returns_alone(
    queue: Queue, tweet: Tweet, engine: EngineUnderTest
) -> None:
    if not engine.counts_attempts:
        pytest.skip("this broker does not count deliveries")

    def handle(message: Message[str]) -> Message[str]:
        if message.data == tweet(7).data and delivery_of(message).attempt < 3:
            raise ValueError("not yet")
        return message

    ingest(queue, [tweet(number) for number in range(20)], pack=50)
    with working(queue, handle) as worker:
        worker.wait_for(22)
        eventually(lambda: is_empty(queue), queue.backlog)
    assert len(worker.given) == 22
    assert worker.texts().count(tweet(7).data) == 3


def test_dead_letter_of_a_pack_is_one_message(queue: Queue, tweet: Tweet) -> None:
    def handle(message: Message[str]) -> Message[str]:
        if message.data == tweet(7).data:
            raise ValueError("poison")
        return message

    ingest(queue, [tweet(number) for number in range(20)], pack=50)
    with working(queue, handle, on_failure="dead_letter") as worker:
        worker.wait_for(20)
        eventually(lambda: is_empty(queue), queue.backlog)
    [letter] = queue.dead_letters
    assert (letter.key, letter.body) == (tweet(7).id, tweet(7).raw)


def test_drain_in_a_pack_loses_no_message(queue: Queue, tweet: Tweet) -> None:
    ingest(queue, [tweet(number) for number in range(100)], pack=100)
    with working(queue, max_in_flight=10) as worker:
        worker.wait_for(10)
    with working(queue) as other:
        eventually(lambda: is_empty(queue), queue.backlog)
    assert set(worker.texts()) | set(other.texts()) == {tweet(n).data for n in range(100)}
    assert len(worker.given) + len(other.given) == 100
