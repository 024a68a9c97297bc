"""`ShardReceiver`: a broker gives a worker several messages of a shard at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

import pytest

from rxtweets.brokers import Receiver, Taken
from rxtweets.brokers._shards import ShardReceiver
from rxtweets.errors import BrokerUnavailable
from tests.brokers.waiting import PATIENCE, eventually


class Batches(Receiver):
    """Gives out batches, one for each take.

    Attributes:
        batches: of the next takes; an error is raised.
        settled: messages, by the name of the method that got them.
        lost: are returned by the methods that settle messages.
    """

    def __init__(self, *batches: list[Taken] | Exception) -> None:
        self.batches = deque(batches)
        self.changed = threading.Condition()
        self.settled: dict[str, list[Taken]] = {}
        self.lost: set[Taken] = set()
        self.is_closed = False

    def take(self, most: int, wait: float) -> list[Taken]:
        del most
        with self.changed:
            self.changed.wait_for(lambda: self.batches or self.is_closed, wait)
            batch = self.batches.popleft() if self.batches else []
        if isinstance(batch, Exception):
            raise batch
        return batch

    def add(self, batch: list[Taken] | Exception) -> None:
        with self.changed:
            self.batches.append(batch)
            self.changed.notify_all()

    def acknowledge(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        return self._settle("acknowledge", taken)

    def retry(self, taken: Sequence[Taken], delay: float) -> Sequence[Taken]:
        del delay
        return self._settle("retry", taken)

    def release(self, taken: Sequence[Taken]) -> None:
        self._settle("release", taken)

    def extend(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        return self._settle("extend", taken)

    def close(self) -> None:
        with self.changed:
            self.is_closed = True
            self.changed.notify_all()

    def _settle(self, name: str, taken: Sequence[Taken]) -> Sequence[Taken]:
        self.settled.setdefault(name, []).extend(taken)
        return [one for one in taken if one in self.lost]


def taken(number: int, shard: str = "a") -> Taken:
    headers = {"rxt-shard": shard} if shard else {}
    return Taken(f"key{number}", b"%d" % number, headers, 1, None, str(number), None)


def bodies(messages: Sequence[Taken]) -> list[bytes]:
    return [one.body for one in messages]


def test_other_messages_arrive_while_a_shard_waits() -> None:
    first, second = taken(1), taken(2)
    broker = Batches([first, second])
    receiver = ShardReceiver(broker, 100)
    assert receiver.take(10, PATIENCE) == [first]
    broker.add([other := taken(3, shard=""), another := taken(4, shard="b")])
    assert receiver.take(10, PATIENCE) == [other, another]
    receiver.acknowledge([first])
    assert receiver.take(10, PATIENCE) == [second]
    receiver.close()


def test_acknowledgement_wakes_a_waiting_take() -> None:
    first, second = taken(1), taken(2)
    receiver = ShardReceiver(Batches([first, second]), 100)
    assert receiver.take(10, PATIENCE) == [first]
    found: list[Taken] = []
    thread = threading.Thread(target=lambda: found.extend(receiver.take(10, 10 * PATIENCE)))
    thread.start()
    receiver.acknowledge([first])
    thread.join(PATIENCE)
    assert found == [second]
    receiver.close()


def test_retry_keeps_the_waiting_messages_and_their_attempts() -> None:
    first, second = taken(1), taken(2)
    broker = Batches([first, second])
    receiver = ShardReceiver(broker, 100)
    assert receiver.take(10, PATIENCE) == [first]
    assert receiver.retry([first], 0.0) == []
    [again] = receiver.take(10, PATIENCE)
    assert (again.body, again.attempt) == (first.body, 2)
    assert receiver.acknowledge([first]) == []  # stale; the broker has the last word
    receiver.acknowledge([again])
    assert receiver.take(10, PATIENCE) == [second]
    assert "retry" not in broker.settled
    receiver.close()


def test_stale_retry_is_lost() -> None:
    first = taken(1)
    receiver = ShardReceiver(Batches([first]), 100)
    receiver.take(10, PATIENCE)
    receiver.acknowledge([first])
    assert receiver.retry([first], 0.0) == [first]
    assert receiver.take(10, 0.0) == []
    receiver.close()


def test_leases_of_waiting_messages_are_extended() -> None:
    first, second, third = taken(1), taken(2), taken(3)
    broker = Batches([first, second, third])
    receiver = ShardReceiver(broker, 100)
    assert receiver.take(10, PATIENCE) == [first]
    receiver.retry([first], 60.0)
    assert receiver.extend([]) == []
    assert bodies(broker.settled["extend"]) == [b"1", b"2", b"3"]
    receiver.close()


def test_messages_after_a_lost_one_are_given_back() -> None:
    first, second, third = taken(1), taken(2), taken(3)
    broker = Batches([first, second, third])
    receiver = ShardReceiver(broker, 100)
    assert receiver.take(10, PATIENCE) == [first]
    broker.lost = {second}
    assert receiver.extend([first]) == []
    assert broker.settled["release"] == [second, third]
    receiver.acknowledge([first])
    assert receiver.take(10, 0.0) == []
    receiver.close()


def test_lost_acknowledgement_gives_the_shard_back() -> None:
    first, second = taken(1), taken(2)
    broker = Batches([first, second])
    receiver = ShardReceiver(broker, 100)
    assert receiver.take(10, PATIENCE) == [first]
    broker.lost = {first}
    assert receiver.acknowledge([first]) == [first]
    assert broker.settled["release"] == [first, second]
    assert receiver.take(10, 0.0) == []
    receiver.close()


@pytest.mark.parametrize("error", [BrokerUnavailable("away"), ValueError("of a client")])
def test_failed_acknowledgement_gives_the_shard_back(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = taken(1), taken(2)
    broker = Batches([first, second])
    receiver = ShardReceiver(broker, 100)
    assert receiver.take(10, PATIENCE) == [first]

    def fail(_: Sequence[Taken]) -> Sequence[Taken]:
        raise error

    monkeypatch.setattr(broker, "acknowledge", fail)
    with pytest.raises(type(error)):
        receiver.acknowledge([first])
    assert broker.settled["release"] == [first, second]
    receiver.close()


def test_closing_gives_waiting_messages_back_in_order() -> None:
    broker = Batches([taken(1), taken(2), taken(3)])
    receiver = ShardReceiver(broker, 100)
    assert bodies(receiver.take(10, PATIENCE)) == [b"1"]
    receiver.close()
    assert bodies(broker.settled["release"]) == [b"2", b"3"]
    assert receiver.take(10, PATIENCE) == []


def test_error_of_the_broker_is_raised_while_a_shard_waits() -> None:
    broker = Batches([taken(1), taken(2)])
    receiver = ShardReceiver(broker, 100)
    receiver.take(10, PATIENCE)
    broker.add(BrokerUnavailable("gone"))
    with pytest.raises(BrokerUnavailable, match="gone"):
        receiver.take(10, PATIENCE)
    receiver.close()


def test_full_receiver_takes_no_more() -> None:
    broker = Batches([taken(1), taken(2), taken(3)])
    receiver = ShardReceiver(broker, 2)
    receiver.take(10, PATIENCE)
    broker.add([taken(4)])
    assert receiver.take(10, 0.3) == []
    assert len(broker.batches) == 1
    receiver.close()


def test_fetched_messages_return_when_the_receiver_closes() -> None:
    broker = Batches([taken(1), taken(2)])
    receiver = ShardReceiver(broker, 100)
    receiver.take(10, PATIENCE)
    broker.add([late := taken(3, shard="")])
    eventually(lambda: not broker.batches, lambda: broker.batches)
    receiver.close()
    eventually(lambda: late in broker.settled["release"], lambda: broker.settled)
