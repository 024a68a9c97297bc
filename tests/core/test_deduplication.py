from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxtweets import Message
from rxtweets._core.deduplication import Deduplicator, default_key
from rxtweets._messages.jsonl import key_of


@pytest.fixture
def _eager_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_key_is_new_once() -> None:
    seen = Deduplicator()
    assert [seen.is_new(key) for key in "aabca"] == [True, False, True, True, False]


def test_only_keys_of_window_are_remembered() -> None:
    seen = Deduplicator(window=2)
    assert [seen.is_new(key) for key in "abacba"] == [True, True, False, True, False, True]


@given(st.lists(st.integers(0, 12), max_size=200), st.integers(1, 10))
def test_deduplicator_is_exact_within_window(keys: list[int], window: int) -> None:
    seen = Deduplicator(window)
    remembered: deque[int] = deque(maxlen=window)
    for key in keys:
        assert seen.is_new(key) == (key not in remembered)
        if key not in remembered:
            remembered.append(key)


def test_memory_is_bounded_by_window() -> None:
    seen = Deduplicator(window=100)
    for key in range(10_000):
        seen.is_new(key)
        assert len(seen._seen) <= 100


def test_fresh_keeps_order_and_first_of_each_id() -> None:
    seen = Deduplicator()
    messages = [Message(text, {"id": item}) for text, item in zip("abcd", "1213", strict=True)]
    assert [message.data for message in seen.fresh(messages)] == ["a", "b", "d"]
    assert seen.fresh(messages) == []


def test_id_is_equal_as_text_and_number() -> None:
    assert default_key(Message("a", {"id": "1"})) == default_key(Message("b", {"id": 1}))


def test_line_is_the_key_without_id() -> None:
    one, same, other = (
        Message.from_event(None, "", line, None) for line in (b"{1}\r\n", b"{1}", b"{2}")
    )
    assert default_key(one) == default_key(same) != default_key(other)


def test_content_is_the_key_without_id_and_line() -> None:
    one, same, other = (Message(data, {"lang": lang}) for data, lang in ("aj", "aj", "ae"))
    assert default_key(one) == default_key(same) == key_of(one)
    assert default_key(other) == key_of(other) != key_of(one)


def test_deduplicator_accepts_any_key() -> None:
    seen = Deduplicator(by=lambda message: message.data.lower())
    messages: list[Message[Any]] = [Message("A"), Message("a"), Message("b")]
    assert [message.data for message in seen.fresh(messages)] == ["A", "b"]


@pytest.mark.usefixtures("_eager_threads")
def test_key_is_new_once_over_threads() -> None:
    seen = Deduplicator()
    through: list[int] = []
    ready = threading.Barrier(4)

    def work() -> None:
        ready.wait(10)
        through.extend(key for key in range(2_000) if seen.is_new(key))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(through) == list(range(2_000))
