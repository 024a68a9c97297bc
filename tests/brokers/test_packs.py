"""Packs: what strangers write, what brokers refuse, and leases of messages that wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import tenacity

from rxtweets import Batch, Message
from rxtweets.brokers import Envelope, Queue, Subscription, delivery_of
from rxtweets.brokers._packs import Unpacker, packs_of
from rxtweets.errors import BrokerError, BrokerUnavailable
from tests.brokers.faulty import FaultyEngine, faulty_queue

Tweet = Callable[[int], Message[str]]


@pytest.fixture
def faulty() -> tuple[Queue, FaultyEngine]:
    return faulty_queue()


def publish(queue: Queue, messages: Sequence[Message[Any]], pack: int = 100) -> None:
    assert queue.publisher(pack=pack).on_next(Batch(messages)) is None


def unpacker(engine: FaultyEngine, lease: float = 600.0) -> Unpacker:
    return Unpacker(engine.receiver(Subscription("workers", lease, 1000, 5)), engine, "workers")


def in_flight(queue: Queue) -> int:
    return queue.backlog()["workers"].in_flight


@pytest.mark.parametrize(
    "headers",
    [
        {"rxt-format": "pack"},
        {"rxt-format": "pack", "rxt-keys": "1 2", "rxt-received-ats": "- -"},
        {"rxt-format": "pack", "rxt-keys": "1 2 3", "rxt-received-ats": "-"},
    ],
)
def test_pack_of_strangers_becomes_a_dead_letter(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet, headers: dict[str, str]
) -> None:
    queue, engine = faulty
    body = b"\n".join(tweet(number).raw for number in range(3))
    engine.sender().put([Envelope("odd", body, headers)])
    publish(queue, [tweet(7)])
    session = queue.source("workers").new_session()
    messages = [*session(1), *session(1)]
    session.ack(messages, [])
    session.leave()
    assert [message.id for message in messages] == [tweet(7).id]
    [letter] = queue.dead_letters
    assert (letter.key, letter.body) == ("odd", body)


@pytest.mark.parametrize("text", ["soon", "nan", "", "-5", "inf"])
@pytest.mark.parametrize("name", ["rxt-not-before", "rxt-attempts-before", "rxt-received-at"])
def test_header_without_a_number_is_ignored(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet, name: str, text: str
) -> None:
    queue, engine = faulty
    engine.sender().put([Envelope("1", tweet(1).raw, {name: text})])
    session = queue.source("workers").new_session()
    [message] = session(1)
    assert (message.raw, delivery_of(message).attempt) == (tweet(1).raw, 1)
    session.leave()


def test_keys_with_spaces_and_accents_travel_in_packs(faulty: tuple[Queue, FaultyEngine]) -> None:
    queue, engine = faulty
    keys = ["a b", "c%20d", "é", "line\nfeed", "7"]
    sent = [Message(key, {"id": key}) for key in keys]
    publish(queue, sent)
    taken = unpacker(engine).take(10, 1.0)
    assert [one.key for one in taken] == ["a b", "c%20d", "é", "line\nfeed", "7"]
    assert all(one.headers["rxt-key"].isascii() for one in taken)


def test_headers_of_a_pack_are_bounded() -> None:
    envelopes = [Envelope(str(10**18 + number), b"{}", {}) for number in range(10_000)]
    packs = packs_of(envelopes, 10_000)
    assert sum(len(positions) for _, positions in packs) == 10_000
    sizes = [sum(len(text) for text in envelope.headers.values()) for envelope, _ in packs]
    assert max(sizes) < 128 * 1024


def test_worker_takes_no_more_packs_than_it_needs(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet
) -> None:
    queue, engine = faulty
    for start in range(0, 300, 50):
        publish(queue, [tweet(number) for number in range(start, start + 50)])
    receiver = unpacker(engine)
    assert len(receiver.take(100, 1.0)) == 50
    assert in_flight(queue) == 1
    assert len(receiver.take(100, 1.0)) == 100
    assert in_flight(queue) == 3


def test_leases_of_waiting_messages_are_extended(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet
) -> None:
    queue, engine = faulty
    publish(queue, [tweet(number) for number in range(10)])
    receiver = unpacker(engine)
    [first] = receiver.take(1, 1.0)
    assert receiver.retry([first], 60.0) == []
    assert receiver.extend([]) == []
    assert len(engine.extended) == 1


def test_lost_pack_is_delivered_no_further(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet
) -> None:
    queue, engine = faulty
    publish(queue, [tweet(number) for number in range(3)])
    receiver = unpacker(engine)
    [first] = receiver.take(1, 1.0)
    engine.purge()
    assert receiver.extend([first]) == [first]
    assert receiver.take(10, 0.0) == []
    assert receiver.acknowledge([first]) == [first]


def test_second_outcome_does_not_settle_the_pack(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet
) -> None:
    queue, engine = faulty
    publish(queue, [tweet(1), tweet(2)])
    receiver = unpacker(engine)
    first, _ = receiver.take(2, 1.0)
    assert receiver.acknowledge([first]) == []
    assert receiver.acknowledge([first]) == [first]
    assert in_flight(queue) == 1


@pytest.mark.parametrize("error", [BrokerUnavailable("away"), BrokerError("no"), ValueError("bug")])
def test_pack_is_redelivered_when_a_retry_is_not_stored(
    faulty: tuple[Queue, FaultyEngine],
    tweet: Tweet,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue, engine = faulty
    publish(queue, [tweet(1), tweet(2)])
    publish(queue, [tweet(3), tweet(4)])
    receiver = unpacker(engine)
    taken = [*receiver.take(2, 1.0), *receiver.take(2, 1.0)]

    def refuse() -> Any:
        raise error

    monkeypatch.setattr(engine, "sender", refuse)
    assert receiver.acknowledge(taken[:1]) == []
    assert list(receiver.retry(taken[1:3], 0.0)) == [taken[1]]
    monkeypatch.undo()
    assert receiver.acknowledge(taken[3:]) == []
    again: set[str] = set()
    while len(again) < 3 and (others := receiver.take(10, 20.0)):
        again |= {one.headers["rxt-key"] for one in others}
    assert again == {tweet(number).id for number in (1, 2, 3)}


def test_delayed_poison_of_a_pack_ends_in_a_backlog(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet
) -> None:
    queue, engine = faulty
    publish(queue, [tweet(1), tweet(2)])
    receiver = unpacker(engine)
    first, second = receiver.take(2, 1.0)
    receiver.acknowledge([second])
    attempts = [first.attempt]
    for _ in range(3):
        receiver.retry([first], -1.0)  # due before it is taken again
        [first] = receiver.take(1, 1.0)
        attempts.append(first.attempt)
    assert attempts == [1, 2, 3, 4]


def test_replayed_message_of_a_pack_has_all_attempts(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet
) -> None:
    queue, _ = faulty
    publish(queue, [tweet(1), tweet(2)])
    source = queue.source("workers", max_deliver=2, wait=tenacity.wait_none())
    session = source.new_session()
    first, second = session(2)
    session.ack([second], [first.failed("no")])
    session.ack([], [message.failed("no") for message in session(1)])
    assert queue.dead_letters.replay() == 1
    [message] = session(1)
    assert delivery_of(message).attempt == 1
    session.leave()


def test_drain_gives_waiting_messages_back_immediately(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet
) -> None:
    queue, engine = faulty
    for start in (0, 1, 3):
        publish(queue, [tweet(start), tweet(start + 1)][: start + 1])
    session = queue.source("workers").new_session()
    begun = [*session(2), *session(2)]
    assert in_flight(queue) == 3
    session.finish()
    assert in_flight(queue) == 2  # the last pack is not begun
    session.ack(begun, [])
    assert in_flight(queue) == 0
    assert engine.open == 0


def test_message_published_again_reaches_its_group_alone(
    faulty: tuple[Queue, FaultyEngine], tweet: Tweet
) -> None:
    queue, engine = faulty
    engine.ensure(["others", "workers"])
    engine.sender().put([Envelope("1", tweet(1).raw, {"rxt-for-group": "others"})])
    session = queue.source("workers").new_session()
    assert session(1) == []
    session.leave()
    assert in_flight(queue) == queue.backlog()["workers"].pending == 0
    other = queue.source("others").new_session()
    [message] = other(1)
    other.ack([message], [])
    other.leave()
    assert message.id == tweet(1).id


def test_receiver_extends_what_it_holds_itself(faulty: tuple[Queue, FaultyEngine]) -> None:
    _, engine = faulty
    assert unpacker(engine).extend([]) == []
    assert engine.calls["extend"] == 1
