"""What every engine does: the contract of `Sender` and `Receiver`."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from rxtweets.brokers import Envelope, Queue, Receiver, Subscription, Taken
from rxtweets.errors import BacklogUnknown
from tests.brokers.engines import EngineUnderTest
from tests.brokers.waiting import PATIENCE, eventually


def envelopes(count: int, start: int = 0) -> list[Envelope]:
    return [
        Envelope(f"key{number}", b'{"number":%d,"text":"\xe2\x80\xa6"}' % number, {"rxt-n": "1"})
        for number in range(start, start + count)
    ]


def publish(queue: Queue, items: Sequence[Envelope]) -> None:
    sender = queue.engine.sender()
    assert sender.put(items) == [None] * len(items)
    sender.close()


@contextmanager
def receiving(
    queue: Queue, *, lease: float = 30.0, max_in_flight: int = 1000, group: str = "workers"
) -> Iterator[Receiver]:
    receiver = queue.engine.receiver(Subscription(group, lease, max_in_flight, 5))
    try:
        yield receiver
    finally:
        receiver.close()


def take(receiver: Receiver, count: int) -> list[Taken]:
    """Take this many messages, in as many takes as it needs."""
    taken: list[Taken] = []
    deadline = time.monotonic() + PATIENCE
    while len(taken) < count and time.monotonic() < deadline:
        taken += receiver.take(count - len(taken), 0.5)
    assert len(taken) == count
    return taken


def rebalance(queue: Queue, *receivers: Receiver) -> None:
    """Publish messages until each receiver has a partition, and settle them all."""
    sent, seen, with_partitions = 0, set[bytes](), set[Receiver]()
    deadline = time.monotonic() + 2 * PATIENCE
    while len(seen) < sent or len(with_partitions) < len(receivers):
        assert time.monotonic() < deadline, with_partitions
        if len(seen) == sent:
            publish(queue, envelopes(20, start=10**6 + sent))
            sent += 20
        for receiver in receivers:
            taken = receiver.take(100, 0.2)
            receiver.acknowledge(taken)
            seen |= bodies(taken)
            if taken:
                with_partitions.add(receiver)


def take_from_either(first: Receiver, second: Receiver) -> tuple[Taken, Receiver]:
    """Take one message from the receiver that has its partition, where there are partitions."""
    for receiver in itertools.islice(itertools.cycle((first, second)), int(PATIENCE / 0.2)):
        for taken in receiver.take(1, 0.1):
            return taken, receiver
    raise AssertionError("no message")


def bodies(taken: Sequence[Taken]) -> set[bytes]:
    return {one.body for one in taken}


def test_published_messages_are_taken_byte_for_byte(queue: Queue) -> None:
    sent = envelopes(300)
    publish(queue, sent)
    with receiving(queue) as receiver:
        taken = take(receiver, 300)
        assert bodies(taken) == {one.body for one in sent}
        assert {one.key for one in taken} == {one.key for one in sent}
        assert {one.headers["rxt-n"] for one in taken} == {"1"}
        assert all(one.attempt == 1 for one in taken)
        assert receiver.acknowledge(taken) == []
        assert receiver.take(10, 0.2) == []


def test_take_returns_no_more_than_requested(queue: Queue) -> None:
    publish(queue, envelopes(50))
    with receiving(queue, max_in_flight=30) as receiver:
        assert len(receiver.take(7, 1.0)) <= 7
        assert len(receiver.take(1, 1.0)) <= 1


def test_body_may_hold_any_bytes(queue: Queue) -> None:
    body = bytes(range(256)) * 4
    publish(queue, [Envelope("bytes", body, {})])
    with receiving(queue) as receiver:
        [taken] = take(receiver, 1)
        assert taken.body == body
        receiver.acknowledge([taken])


def test_acknowledged_message_does_not_return(queue: Queue, engine: EngineUnderTest) -> None:
    publish(queue, envelopes(4))
    with receiving(queue, lease=engine.lease) as receiver:
        taken = take(receiver, 4)
        receiver.acknowledge(taken[:3])
        receiver.release(taken[3:])
        [last] = take(receiver, 1)
        assert last.body == taken[3].body
        receiver.acknowledge([last])
    with receiving(queue) as receiver:
        assert receiver.take(10, 0.5) == []


def test_retried_message_returns_after_its_delay(queue: Queue, engine: EngineUnderTest) -> None:
    publish(queue, envelopes(2))
    with receiving(queue) as receiver:
        taken = take(receiver, 2)
        assert receiver.retry(taken[:1], 1.5) == []
        assert receiver.retry(taken[1:], 0.0) == []
        [soon] = take(receiver, 1)
        assert soon.body == taken[1].body
        [later] = take(receiver, 1)
        assert later.body == taken[0].body
        if engine.counts_attempts:
            assert (soon.attempt, later.attempt) == (2, 2)
        receiver.acknowledge([soon, later])


def test_released_message_returns_as_the_same_attempt(
    queue: Queue, engine: EngineUnderTest
) -> None:
    publish(queue, envelopes(1))
    with receiving(queue) as receiver:
        receiver.release(take(receiver, 1))
        [taken] = take(receiver, 1)
        if engine.releases_uncounted:
            assert taken.attempt == 1
        receiver.acknowledge([taken])


def test_close_ends_a_waiting_take(queue: Queue) -> None:
    with receiving(queue) as receiver:
        ended = threading.Event()

        def wait() -> None:
            try:
                receiver.take(1, 60.0)
            finally:
                ended.set()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        receiver.close()
        assert ended.wait(PATIENCE)


def test_expired_lease_redelivers_and_stale_ack_is_lost(
    queue: Queue, engine: EngineUnderTest
) -> None:
    if not engine.leases:
        pytest.skip("messages are held by the connection")
    publish(queue, envelopes(1))
    with (
        receiving(queue, lease=engine.lease) as first,
        receiving(queue, lease=engine.lease) as second,
    ):
        [stale] = take(first, 1)
        [taken] = take(second, 1)
        assert taken.body == stale.body
        if engine.counts_attempts:
            assert taken.attempt == 2
        first.acknowledge([stale])  # harmless
        assert second.acknowledge([taken]) == []


def test_extended_lease_keeps_the_message(queue: Queue, engine: EngineUnderTest) -> None:
    lease = engine.lease
    with receiving(queue, lease=lease) as first, receiving(queue, lease=lease) as second:
        if engine.rebalances:
            rebalance(queue, first, second)
        publish(queue, envelopes(1))
        taken, holder = take_from_either(first, second)
        other = second if holder is first else first
        until = time.monotonic() + 3 * lease
        while time.monotonic() < until:
            if holder.has_leases:
                assert holder.extend([taken]) == []
            assert other.take(1, lease / 4) == []
        assert holder.acknowledge([taken]) == []


def test_closed_receiver_gives_its_messages_back(queue: Queue, engine: EngineUnderTest) -> None:
    publish(queue, envelopes(3))
    with receiving(queue, lease=engine.lease) as receiver:
        take(receiver, 3)
    with receiving(queue, lease=engine.lease) as receiver:
        receiver.acknowledge(take(receiver, 3))


def test_ack_works_from_any_thread(queue: Queue) -> None:
    publish(queue, envelopes(40))
    with receiving(queue) as receiver:
        taken = take(receiver, 40)
        lost: list[Taken] = []
        threads = [
            threading.Thread(target=lambda part=part: lost.extend(receiver.acknowledge(part)))
            for part in (taken[:10], taken[10:20], taken[20:30], taken[30:])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert lost == []
    with receiving(queue) as receiver:
        assert receiver.take(10, 0.5) == []


def test_receivers_of_a_group_share_the_messages(queue: Queue, engine: EngineUnderTest) -> None:
    with receiving(queue, max_in_flight=30) as first, receiving(queue, max_in_flight=30) as second:
        if engine.rebalances:
            rebalance(queue, first, second)
        publish(queue, envelopes(100))
        seen: list[bytes] = []
        deadline = time.monotonic() + PATIENCE
        while len(seen) < 100 and time.monotonic() < deadline:
            for receiver in (first, second):
                taken = receiver.take(10, 0.1)
                receiver.acknowledge(taken)
                seen += [one.body for one in taken]
    assert sorted(seen) == sorted(one.body for one in envelopes(100))


def test_every_group_gets_every_message(
    url_of: Callable[[str], str], queue: Queue, engine: EngineUnderTest
) -> None:
    queue.engine.close()
    both = engine.connect(url_of(f"{queue.engine.queue[:6]}both"), groups=["a", "b"])
    both.engine.ensure(["a", "b"])
    publish(both, envelopes(20))
    for group in ("a", "b"):
        with receiving(both, group=group) as receiver:
            taken = take(receiver, 20)
            assert bodies(taken) == {one.body for one in envelopes(20)}
            receiver.acknowledge(taken)
    both.close()


def test_group_gets_messages_published_before_it(
    url_of: Callable[[str], str], queue: Queue, engine: EngineUnderTest
) -> None:
    if not engine.keeps_before_first_group:
        pytest.skip("a group is a queue of its own, which has to exist")
    late = engine.connect(url_of(f"{queue.engine.queue[:6]}late"))
    late.engine.ensure()
    publish(late, envelopes(5))
    late.engine.ensure(["late"])
    with receiving(late, group="late") as receiver:
        receiver.acknowledge(take(receiver, 5))
    late.close()


def test_known_key_is_published_once(queue: Queue, engine: EngineUnderTest) -> None:
    if not engine.deduplicates:
        pytest.skip("this broker knows no keys")
    publish(queue, envelopes(5))
    publish(queue, envelopes(8))
    with receiving(queue) as receiver:
        receiver.acknowledge(take(receiver, 8))
        assert receiver.take(10, 0.5) == []


def test_backlog_counts_waiting_and_taken_messages(queue: Queue, engine: EngineUnderTest) -> None:
    if not engine.counts_backlog:
        with pytest.raises(BacklogUnknown, match=queue.engine.queue):
            queue.backlog()
        return
    publish(queue, envelopes(10))
    with receiving(queue, max_in_flight=4) as receiver:
        taken = take(receiver, 4)

        def counts() -> tuple[int, int]:
            backlog = queue.engine.backlog()["workers"]
            return backlog.pending, backlog.in_flight

        eventually(lambda: counts() == (6, 4), counts)
        receiver.acknowledge(taken)
        receiver.acknowledge(take(receiver, 4))
        receiver.acknowledge(take(receiver, 2))
        eventually(lambda: counts() == (0, 0), counts)


def test_ensure_may_be_repeated(queue: Queue) -> None:
    publish(queue, envelopes(2))
    queue.engine.ensure(["workers"])
    with receiving(queue) as receiver:
        receiver.acknowledge(take(receiver, 2))


def test_purge_removes_all_messages(queue: Queue, engine: EngineUnderTest) -> None:
    if not engine.purges:
        pytest.skip("the broker of the test does not remove messages reliably")
    publish(queue, envelopes(10))
    queue.engine.purge()
    with receiving(queue) as receiver:
        assert receiver.take(10, 0.5) == []


def test_dead_letters_are_another_queue(queue: Queue) -> None:
    dead = queue.engine.dead_letters()
    dead.ensure(["dead"])
    sender = dead.sender()
    assert sender.put(envelopes(3)) == [None] * 3
    sender.close()
    with receiving(queue) as receiver:
        assert receiver.take(10, 0.3) == []
    receiver = dead.receiver(Subscription("dead", 30.0, 100, 100))
    receiver.acknowledge(take(receiver, 3))
    receiver.close()
