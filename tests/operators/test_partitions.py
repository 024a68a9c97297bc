"""`process(partition_by=…)`: order within a key, concurrency between keys."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from rxtweets import Message, Retry
from rxtweets.errors import HandlerError

PATIENCE = 20.0


def key_of(message: Message[tuple[str, int]]) -> str:
    return message.data[0]


def test_messages_of_one_key_are_handled_in_order(process: Any) -> None:
    rng = random.Random(7)
    seen: dict[str, list[int]] = {key: [] for key in "abc"}
    inside = {key: threading.Lock() for key in "abc"}

    def handle(message: Message[tuple[str, int]]) -> Message[Any]:
        key, number = message.data
        assert inside[key].acquire(blocking=False)
        threading.Event().wait(
            rng.random() * 0.002
        )  # uneven durations, so that calls overtake each other
        seen[key].append(number)
        inside[key].release()
        return message

    watched = process(handle, [("abc"[n % 3], n) for n in range(300)], partition_by=key_of)
    assert len(watched.until_end()) == 300
    assert seen == {key: list(range(first, 300, 3)) for first, key in enumerate("abc")}


def test_results_of_one_key_are_emitted_in_order(process: Any) -> None:
    rng = random.Random(8)

    def handle(message: Message[tuple[str, int]]) -> Message[Any]:
        threading.Event().wait(
            rng.random() * 0.001
        )  # uneven durations, so that calls overtake each other
        return message

    data = process(handle, [("ab"[n % 2], n) for n in range(200)], partition_by=key_of).until_end()
    for first, key in enumerate("ab"):
        assert [n for item, n in data if item == key] == list(range(first, 200, 2))


def test_messages_of_different_keys_are_handled_concurrently(process: Any) -> None:
    together = threading.Barrier(8)

    def handle(message: Message[int]) -> Message[int]:
        together.wait(PATIENCE)
        return message

    watched = process(handle, range(8), concurrency=8, partition_by=lambda item: item.data)
    assert sorted(watched.until_end()) == list(range(8))


def test_blocked_key_blocks_no_other_key(process: Any) -> None:
    go = threading.Event()

    def handle(message: Message[tuple[str, int]]) -> Message[Any]:
        if message.data == ("a", 0):
            assert go.wait(PATIENCE)
        return message

    watched = process(handle, concurrency=2, partition_by=key_of)
    watched.feed(("a", 0), ("a", 1), *(("b", n) for n in range(10)))
    watched.until(lambda: len(watched.data) == 10)
    go.set()
    assert watched.complete()[-2:] == [("a", 0), ("a", 1)]


def test_ordered_keeps_order_over_all_keys(process: Any) -> None:
    rng = random.Random(9)

    def handle(message: Message[int]) -> Message[int]:
        threading.Event().wait(
            rng.random() * 0.001
        )  # uneven durations, so that calls overtake each other
        return message

    watched = process(handle, range(100), ordered=True, partition_by=lambda item: item.data % 5)
    assert watched.until_end() == list(range(100))


def test_message_fails_when_partition_by_raises(process: Any) -> None:
    def key(message: Message[int]) -> int:
        return 1 // message.data

    watched = process(lambda item: item, [1, 0, 2], partition_by=key)
    assert sorted(watched.until_end()) == [1, 2]
    assert isinstance(watched.reasons()[0], ZeroDivisionError)
    assert (watched.stats().processed, watched.stats().failed) == (2, 1)


def test_message_fails_when_key_is_unhashable(process: Any) -> None:
    watched = process(lambda item: item, [1], partition_by=lambda _: [])
    assert watched.until_end() == []
    assert isinstance(watched.reasons()[1], TypeError)


def test_none_is_a_key_beside_failing_keys(process: Any) -> None:
    go = threading.Event()
    begun: list[int] = []

    def key(message: Message[int]) -> None:
        if message.data == 1:
            raise ValueError(message.data)

    def handle(message: Message[int]) -> Message[int]:
        begun.append(message.data)
        assert go.wait(PATIENCE)
        return message

    watched = process(handle, partition_by=key)
    watched.feed(0, 1, 2)
    watched.until(lambda: watched.failed)
    assert begun in ([], [0])
    go.set()
    assert watched.complete() == [0, 2]


def test_message_keeps_place_while_it_waits_for_retry(process: Any) -> None:
    tried: list[int] = []

    def handle(message: Message[int]) -> Message[int]:
        tried.append(message.data)
        if tried.count(0) < 3:
            raise ValueError(message.data)
        return message

    retry = Retry(wait=lambda _: 0.001)
    watched = process(handle, [0, 1, 2], partition_by=lambda _: "one", retry=retry)
    assert watched.until_end() == [0, 1, 2]
    assert tried == [0, 0, 0, 1, 2]


def test_key_is_forgotten_when_idle(process: Any) -> None:
    watched = process(lambda message: message, partition_by=lambda message: message.data)
    watched.feed(*range(500))
    watched.until(lambda: len(watched.data) == 500)
    [processor] = [
        read.__self__
        for read in watched.stream.telemetry._stages.values()
        if hasattr(getattr(read, "__self__", None), "flow")
    ]
    watched.until(lambda: processor.flow._partitions._waiting == {})
    watched.complete()


def test_next_message_of_key_starts_after_failure(process: Any) -> None:
    def handle(message: Message[int]) -> Any:
        return message if message.data else "something else"

    watched = process(handle, [0, 1], partition_by=lambda _: "one")
    assert watched.until_end() == [1]
    assert isinstance(watched.reasons()[0], HandlerError)


@pytest.mark.parametrize("seed", range(5))
def test_messages_are_emitted_once_for_any_keys(process: Any, seed: int) -> None:
    rng = random.Random(seed)
    keys = [rng.randrange(20) for _ in range(1000)]
    watched = process(
        lambda message: message, range(1000), partition_by=lambda message: keys[message.data]
    )
    assert sorted(watched.until_end()) == list(range(1000))
    assert watched.stats().in_flight == 0
