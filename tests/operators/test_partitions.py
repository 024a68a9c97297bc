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


def test_messages_of_one_key_are_handled_one_at_a_time_and_in_order(process: Any) -> None:
    rng = random.Random(7)
    seen: dict[str, list[int]] = {key: [] for key in "abc"}
    inside = {key: threading.Lock() for key in "abc"}

    def handle(message: Message[tuple[str, int]]) -> Message[Any]:
        key, number = message.data
        assert inside[key].acquire(blocking=False)
        threading.Event().wait(
            rng.random() * 0.002
        )  # calls of uneven length, to overtake each other
        seen[key].append(number)
        inside[key].release()
        return message

    watched = process(handle, [("abc"[n % 3], n) for n in range(300)], partition_by=key_of)
    assert len(watched.until_end()) == 300
    assert seen == {key: list(range(first, 300, 3)) for first, key in enumerate("abc")}


def test_results_of_one_key_leave_in_order(process: Any) -> None:
    rng = random.Random(8)

    def handle(message: Message[tuple[str, int]]) -> Message[Any]:
        threading.Event().wait(
            rng.random() * 0.001
        )  # calls of uneven length, to overtake each other
        return message

    data = process(handle, [("ab"[n % 2], n) for n in range(200)], partition_by=key_of).until_end()
    for first, key in enumerate("ab"):
        assert [n for each, n in data if each == key] == list(range(first, 200, 2))


def test_messages_of_different_keys_are_handled_at_once(process: Any) -> None:
    together = threading.Barrier(8)

    def handle(message: Message[int]) -> Message[int]:
        together.wait(PATIENCE)
        return message

    watched = process(handle, range(8), concurrency=8, partition_by=lambda each: each.data)
    assert sorted(watched.until_end()) == list(range(8))


def test_a_key_that_is_held_up_holds_up_no_other(process: Any) -> None:
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


def test_the_source_s_order_can_be_kept_over_all_keys(process: Any) -> None:
    rng = random.Random(9)

    def handle(message: Message[int]) -> Message[int]:
        threading.Event().wait(
            rng.random() * 0.001
        )  # calls of uneven length, to overtake each other
        return message

    watched = process(handle, range(100), ordered=True, partition_by=lambda each: each.data % 5)
    assert watched.until_end() == list(range(100))


def test_a_message_on_which_the_function_raises_fails_and_no_other(process: Any) -> None:
    def key(message: Message[int]) -> int:
        return 1 // message.data

    watched = process(lambda each: each, [1, 0, 2], partition_by=key)
    assert sorted(watched.until_end()) == [1, 2]
    assert isinstance(watched.reasons()[0], ZeroDivisionError)
    assert (watched.stats().processed, watched.stats().failed) == (2, 1)


def test_a_key_that_cannot_be_hashed_fails_its_message(process: Any) -> None:
    watched = process(lambda each: each, [1], partition_by=lambda _: [])
    assert watched.until_end() == []
    assert isinstance(watched.reasons()[1], TypeError)


def test_the_key_none_is_a_key_like_others_beside_one_that_fails(process: Any) -> None:
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


def test_a_message_that_waits_for_its_next_attempt_keeps_its_place(process: Any) -> None:
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


def test_a_key_is_forgotten_when_it_has_nothing_to_do(process: Any) -> None:
    watched = process(lambda each: each, partition_by=lambda each: each.data)
    watched.feed(*range(500))
    watched.until(lambda: len(watched.data) == 500)
    [processor] = [gauge.__self__ for gauge in watched.stream.telemetry._stages.values()]
    assert processor.flow._partitions._waiting == {}
    watched.complete()


def test_a_failing_handler_lets_the_next_of_its_key_begin(process: Any) -> None:
    def handle(message: Message[int]) -> Any:
        return message if message.data else "something else"

    watched = process(handle, [0, 1], partition_by=lambda _: "one")
    assert watched.until_end() == [1]
    assert isinstance(watched.reasons()[0], HandlerError)


@pytest.mark.parametrize("seed", range(5))
def test_every_message_comes_once_whatever_the_keys(process: Any, seed: int) -> None:
    rng = random.Random(seed)
    keys = [rng.randrange(20) for _ in range(1000)]
    watched = process(lambda each: each, range(1000), partition_by=lambda each: keys[each.data])
    assert sorted(watched.until_end()) == list(range(1000))
    assert watched.stats().in_flight == 0
