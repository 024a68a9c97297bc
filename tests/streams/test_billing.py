from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rxtweets import ConfigurationError, Message
from rxtweets.streams._billing import REMEMBERED, Limit, PostMeter, checked_limit

MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC).timestamp()


class Clock:
    def __init__(self, now: float = MIDNIGHT + 1) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def posts(*ids: object) -> list[Message[Any]]:
    return [Message("text", {"id": each}) for each in ids]


def test_nothing_was_read_at_first() -> None:
    assert PostMeter().today() == 0


def test_each_post_is_counted_once() -> None:
    meter = PostMeter()
    meter.count(posts("1", "2", "1"))
    meter.count(posts("2", "3"))
    assert meter.today() == 3


def test_an_id_is_the_same_as_text_and_as_number() -> None:
    meter = PostMeter()
    meter.count(posts("1", 1))
    assert meter.today() == 1


def test_posts_without_an_id_are_counted_by_their_lines() -> None:
    meter = PostMeter()
    lines = [b'{"data":{"text":"a"}}', b'{"data":{"text":"b"}}', b'{"data":{"text":"a"}}']
    meter.count([Message.from_line(line) for line in lines])
    assert meter.today() == 2


def test_the_count_begins_anew_at_midnight_utc() -> None:
    clock = Clock(MIDNIGHT - 0.001)
    meter = PostMeter(clock)
    meter.count(posts("1", "2"))
    assert meter.today() == 2
    clock.now = MIDNIGHT
    assert meter.today() == 0


def test_a_post_that_comes_again_on_another_day_is_counted_again() -> None:
    clock = Clock()
    meter = PostMeter(clock)
    meter.count(posts("1"))
    clock.now += 86_400
    meter.count(posts("1"))
    assert meter.today() == 1


def test_a_post_is_known_for_fifty_thousand_others() -> None:
    meter = PostMeter(Clock())
    meter.count(posts("first"))
    for start in range(0, REMEMBERED, 1_000):
        meter.count(posts(*range(start, start + 1_000)))
    meter.count(posts("first"))
    assert meter.today() == REMEMBERED + 1


def test_memory_is_bounded() -> None:
    meter = PostMeter(Clock())
    for start in range(0, 5 * REMEMBERED, 10_000):
        meter.count(posts(*range(start, start + 10_000)))
        assert len(meter._recent) + len(meter._before) <= 2 * (REMEMBERED + 10_000)
    assert meter.today() == 5 * REMEMBERED


def test_several_threads_count_each_post_once() -> None:
    meter = PostMeter(Clock())
    ready = threading.Barrier(4)

    def work(first: int) -> None:
        ready.wait(10)
        for start in range(first, first + 2_000, 20):
            meter.count(posts(*range(start, start + 40)))

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 500, 1_000, 1_500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.today() == 1_500 + 2_000 + 20


def test_no_limit_is_no_limit() -> None:
    assert checked_limit(None) == Limit(None, None)


def test_a_whole_number_limits_messages() -> None:
    assert checked_limit(100) == Limit(messages=100)


def test_a_timedelta_limits_time() -> None:
    assert checked_limit(timedelta(minutes=2)) == Limit(seconds=120.0)


@pytest.mark.parametrize(
    "value", [0, -1, 1.5, True, "100", timedelta(0), timedelta(seconds=-1), [1]]
)
def test_another_limit_is_refused_by_name(value: object) -> None:
    with pytest.raises(ConfigurationError, match="limit="):
        checked_limit(value)
