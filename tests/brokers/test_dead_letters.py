"""The queue of dead letters: letters of strangers, slow readers, refusals."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from rxtweets import events
from rxtweets.brokers import Envelope, Queue, Sender, connect
from rxtweets.brokers import _dead_letters as dead_letters
from rxtweets.brokers._source import QueueSource
from rxtweets.errors import BrokerError
from tests.brokers.faulty import faulty_queue

TWEET = b'{"data":{"id":"1","text":"hola"}}'


@pytest.fixture
def queue() -> Queue:
    return faulty_queue()[0]


def put(queue: Queue, *envelopes: Envelope) -> None:
    dead = queue.engine.dead_letters()
    dead.ensure(["dead"])
    dead.sender().put(envelopes)


def test_letter_of_strangers_is_listed(queue: Queue) -> None:
    put(queue, Envelope("1", b"{}", {"rxt-attempts": "many", "rxt-dead-at": "today"}))
    [letter] = queue.dead_letters
    assert (letter.key, letter.attempts, letter.at) == ("1", 0, 0.0)


def test_slow_reader_gets_each_letter_once(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "LEASE", 0.5)
    monkeypatch.setattr(dead_letters, "AT_ONCE", 2)
    put(queue, *(Envelope(str(number), b"{}", {}) for number in range(3)))
    found: list[str] = []
    for letter in queue.dead_letters:
        if not found:
            threading.Event().wait(0.6)  # the lease itself is time
        found.append(letter.key)
    assert found == ["0", "1", "2"]


def test_refused_replay_gives_its_letters_back(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(Sender):
        def put(self, envelopes: object) -> list[Exception | None]:
            del envelopes
            return [BrokerError("too large"), None, BrokerError("too large")]

        def close(self) -> None:
            pass

    put(queue, *(Envelope(str(number), b"{}", {}) for number in range(3)))
    monkeypatch.setattr(queue.engine, "sender", Refusing)
    with pytest.raises(BrokerError, match="too large"):
        queue.dead_letters.replay()
    assert [letter.key for letter in queue.dead_letters] == ["0", "2"]


@pytest.mark.parametrize(
    ("died_in", "to_all_groups", "reached"),
    [
        ("others", False, ["others"]),
        ("others", True, ["others", "workers"]),
        ("", False, ["others", "workers"]),  # of another program
    ],
)
def test_replay_reaches_the_group_or_all(
    queue: Queue, died_in: str, to_all_groups: bool, reached: list[str]
) -> None:
    queue.engine.ensure(["others"])
    put(queue, Envelope("1", TWEET, {"rxt-group": died_in} if died_in else {}))
    assert queue.dead_letters.replay(to_all_groups=to_all_groups) == 1
    assert [group for group in ("others", "workers") if takes_one(queue, group)] == reached


def takes_one(queue: Queue, group: str) -> bool:
    session = queue.source(group).new_session()
    messages = session(1)
    session.leave()
    return bool(messages)


def test_replayed_letter_waits_for_a_removed_group(queue: Queue) -> None:
    put(queue, Envelope("1", TWEET, {"rxt-group": "removed"}))
    assert queue.dead_letters.replay() == 1
    assert not takes_one(queue, "workers")
    assert takes_one(queue, "removed")


def test_worker_of_dead_letters_gets_a_replayed_one_again(queue: Queue) -> None:
    put(queue, Envelope("1", TWEET, {"rxt-group": "workers"}))
    queue.dead_letters.replay()
    fail_one(queue.source("workers", on_failure="dead_letter"))
    assert takes_one(Queue(queue.engine.dead_letters()), "dead")


def test_event_of_a_replayed_letter_has_its_first_key(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(queue, Envelope("1", TWEET, {"rxt-group": "workers", "rxt-key": "1"}))
    queue.dead_letters.replay()
    source = queue.source("workers", on_failure="dead_letter")
    seen: list[Any] = []
    monkeypatch.setattr(source.telemetry, "publish", seen.append)
    fail_one(source)
    assert [event.key for event in seen if isinstance(event, events.DeadLettered)] == ["1"]


def fail_one(source: QueueSource) -> None:
    session = source.new_session()
    [message] = session(1)
    session.ack([], [message.failed("the handler raised")])
    session.leave()


def test_letter_of_a_queue_made_anew_is_kept(tmp_path: Path) -> None:
    for _ in range(2):
        queue = connect(f"sqlite:{tmp_path / 'tweets.queue'}", groups=["workers"])
        queue.ensure()
        sender = queue.engine.sender()
        sender.put([Envelope("1", TWEET, {})])
        sender.close()
        fail_one(queue.source("workers", on_failure="dead_letter"))
        assert queue.dead_letters.purge() == 1
        for path in tmp_path.glob("tweets.queue*"):
            if ".dead" not in path.name:
                path.unlink()


def test_queue_of_any_name_has_its_own_letters() -> None:
    engine = connect("memory:tweets%231").engine
    assert engine.dead_letters().queue == "tweets#1.dead"
