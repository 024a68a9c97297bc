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
    return [Message("text", {"id": identifier}) for identifier in ids]


def test_meter_starts_at_zero() -> None:
    assert PostMeter().today() == 0


def test_meter_counts_each_post_once() -> None:
    meter = PostMeter()
    meter.count(posts("1", "2", "1"))
    meter.count(posts("2", "3"))
    assert meter.today() == 3


def test_meter_compares_text_and_number_ids() -> None:
    meter = PostMeter()
    meter.count(posts("1", 1))
    assert meter.today() == 1


def test_meter_counts_posts_without_id_by_line() -> None:
    meter = PostMeter()
    lines = [b'{"data":{"text":"a"}}', b'{"data":{"text":"b"}}', b'{"data":{"text":"a"}}']
    meter.count([Message.from_line(line) for line in lines])
    assert meter.today() == 2


def test_meter_resets_at_midnight_utc() -> None:
    clock = Clock(MIDNIGHT - 0.001)
    meter = PostMeter(clock)
    meter.count(posts("1", "2"))
    assert meter.today() == 2
    clock.now = MIDNIGHT
    assert meter.today() == 0


def test_meter_counts_a_post_again_on_another_day() -> None:
    clock = Clock()
    meter = PostMeter(clock)
    meter.count(posts("1"))
    clock.now += 86_400
    meter.count(posts("1"))
    assert meter.today() == 1


def test_meter_remembers_a_post_for_50000_others() -> None:
    meter = PostMeter(Clock())
    meter.count(posts("first"))
    for start in range(0, REMEMBERED, 1_000):
        meter.count(posts(*range(start, start + 1_000)))
    meter.count(posts("first"))
    assert meter.today() == REMEMBERED + 1


def test_meter_memory_is_bounded() -> None:
    meter = PostMeter(Clock())
    for start in range(0, 5 * REMEMBERED, 10_000):
        meter.count(posts(*range(start, start + 10_000)))
        assert len(meter._recent) + len(meter._before) <= 2 * (REMEMBERED + 10_000)
    assert meter.today() == 5 * REMEMBERED


def test_meter_is_thread_safe() -> None:
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


def test_limit_is_none_by_default() -> None:
    assert checked_limit(None) == Limit(None, None)


def test_limit_of_a_number_is_messages() -> None:
    assert checked_limit(100) == Limit(messages=100)


def test_limit_of_a_timedelta_is_seconds() -> None:
    assert checked_limit(timedelta(minutes=2)) == Limit(seconds=120.0)


@pytest.mark.parametrize(
    "value", [0, -1, 1.5, True, "100", timedelta(0), timedelta(seconds=-1), [1]]
)
def test_limit_refuses_other_values(value: object) -> None:
    with pytest.raises(ConfigurationError, match="limit="):
        checked_limit(value)
