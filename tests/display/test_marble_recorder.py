from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
import reactivex
from reactivex import Observable
from reactivex import operators as stock
from reactivex.disposable import Disposable
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

import rxtweets
from rxtweets import ConfigurationError, Message
from rxtweets import operators as ops
from rxtweets.display._marbles import Mark, record


def test_virtual_times_are_exact() -> None:
    clock = TestScheduler()
    source: Observable[Any] = reactivex.cold("-a--b-|", timespan=0.1, scheduler=clock)
    marbles = record({"source": source, "late": source.pipe(stock.delay(0.3))}, scheduler=clock)
    assert [replace(mark, at=round(mark.at, 6)) for mark in marbles["source"].marks] == [
        Mark(0.1, "next", "a"),
        Mark(0.4, "next", "b"),
        Mark(0.6, "completed"),
    ]
    assert [mark.at for mark in marbles["late"].marks] == pytest.approx([0.4, 0.7, 0.9])
    assert marbles.seconds == pytest.approx(0.9)


def test_endless_stream_is_recorded_for_virtual_seconds() -> None:
    clock = TestScheduler()
    marbles = record({"ticks": reactivex.interval(0.25)}, seconds=1.1, scheduler=clock, title="t")
    assert [mark.label for mark in marbles["ticks"].marks] == ["0", "1", "2", "3"]
    assert marbles.seconds == 1.1
    assert marbles.title == "t"


def test_record_times_start_at_zero_when_clock_is_later() -> None:
    clock = TestScheduler()
    clock.advance_to(500.0)
    marbles = record({"ticks": reactivex.interval(1.0)}, seconds=2.5, scheduler=clock)
    assert [mark.at for mark in marbles["ticks"].marks] == pytest.approx([1.0, 2.0])


def test_error_is_recorded_with_its_text() -> None:
    marbles = record({"wrong": reactivex.throw(ValueError("no"))})
    assert [(mark.kind, mark.label) for mark in marbles["wrong"].marks] == [
        ("error", "ValueError: no")
    ]


def test_batches_are_recorded_with_their_sizes() -> None:
    clock = TestScheduler()
    source = reactivex.cold("abc--d------|", timespan=0.1, scheduler=clock, lookup={})
    messages = reactivex.interval(0.1).pipe(
        stock.take(5), stock.map(lambda number: Message(str(number)))
    )
    marbles = record(
        {"batches": messages.pipe(ops.batch(2, 5.0)), "letters": source}, scheduler=clock
    )
    assert [(mark.label, mark.count) for mark in marbles["batches"].marks] == [
        ("2", 2),
        ("2", 2),
        ("1", 1),
        ("", None),
    ]


def test_message_label_is_its_data_by_default() -> None:
    messages = reactivex.of(Message("hello", {"id": "7"}))
    assert record({"m": messages})["m"].marks[0].label == "hello"
    assert record({"m": messages}, label=lambda m: m.id)["m"].marks[0].label == "7"


def test_record_raises_when_label_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        record({"m": reactivex.of(0)}, label=lambda value: str(1 / value))


def test_record_returns_when_all_streams_have_ended() -> None:
    marbles = record({"a": reactivex.timer(0.01), "b": reactivex.empty()})
    assert [mark.kind for mark in marbles["a"].marks] == ["next", "completed"]
    assert marbles["a"].marks[0].at > 0


def test_record_returns_when_time_is_up() -> None:
    marbles = record({"silence": reactivex.never()}, seconds=0.01)
    assert marbles["silence"].marks == ()
    assert marbles.seconds == 0.01


def test_record_disposes_of_its_subscriptions() -> None:
    disposed: list[str] = []

    def source(name: str) -> Observable[Any]:
        return reactivex.create(lambda *_: Disposable(lambda: disposed.append(name)))

    record({"a": source("a")}, seconds=0.01)
    with pytest.raises(ZeroDivisionError):
        record({"b": source("b"), "c": reactivex.of(0)}, label=lambda value: str(1 / value))
    assert disposed == ["a", "b"]


def test_values_of_several_threads_are_recorded() -> None:
    subject: Subject[int] = Subject()
    several: list[threading.Thread] = []

    def begin(*_: Any) -> None:
        for number in range(4):
            thread = threading.Thread(target=subject.on_next, args=(number,))
            several.append(thread)
            thread.start()
        for thread in several:
            thread.join()
        subject.on_completed()

    starter = reactivex.defer(lambda _: reactivex.empty().pipe(stock.do_action(None, None, begin)))
    marbles = record({"subject": subject, "starter": starter})
    assert sorted(mark.label for mark in marbles["subject"].marks) == ["", "0", "1", "2", "3"]


def test_hot_stream_is_recorded_over_one_connection() -> None:
    with rxtweets.simulator.serve(rate=200, seed=7) as x:
        tweets = rxtweets.sample_stream(token="any", base_url=x.url)
        marbles = record(
            {"tweets": tweets.take(40), "batches": tweets.take(40).pipe(ops.batch(20, 2.0))},
            seconds=20,
        )
        assert len(x.requests) == 1
    assert len(marbles["tweets"].marks) == 41
    assert [mark.label for mark in marbles["batches"].marks] == ["20", "20", ""]


@pytest.mark.parametrize("streams", [{}, None, [reactivex.never()]])
def test_record_refuses_missing_streams(streams: Any) -> None:
    with pytest.raises(ConfigurationError, match="at least one"):
        record(streams)


@pytest.mark.parametrize("seconds", [0, -1, "3", float("nan")])
def test_record_refuses_invalid_seconds(seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match="seconds="):
        record({"a": reactivex.never()}, seconds)
