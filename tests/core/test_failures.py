from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

from reactivex.subject import Subject

from rxtweets import Message, events
from rxtweets import operators as ops
from rxtweets._core.failures import KEPT, Failure
from rxtweets._core.log import EventLog
from rxtweets._core.observable import MessageStream, new_telemetry

FAILED = events.HandlerFailed(Message("x", {"id": "7"}).failed(ValueError("no")))


def failures_of(*several: events.Event) -> list[Failure]:
    log = EventLog()
    for event in several:
        log(event)
    return list(log.failures)


def test_failure_has_its_event_and_the_line_of_the_log() -> None:
    (failure,) = failures_of(FAILED)
    assert failure.text == "the handler failed tweet 7: ValueError('no')"
    assert failure.event is FAILED


def test_failure_repr_is_the_time_and_a_short_text() -> None:
    assert repr(Failure(1796018234.09, "no room", FAILED)) == (
        "Failure(2026-11-30T05:57:14Z, 'no room')"
    )
    long = Failure(1796018234.09, "x" * 1000, FAILED)
    assert len(repr(long)) < 150
    assert str(long) == "x" * 1000


def test_normal_events_are_not_failures() -> None:
    assert failures_of(events.Connected(1, "HTTP/1.1"), events.StreamEnded(None)) == []


def test_failures_keep_the_latest() -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    gaps = [
        events.Gap(begin, begin + timedelta(seconds=number), "", "") for number in range(KEPT + 5)
    ]
    failures = failures_of(*gaps)
    assert [failure.event for failure in failures] == gaps[5:]


def test_failure_names_the_part_of_a_merged_stream() -> None:
    (failure,) = failures_of(events.Abandoned(3, "batcher", part="connection 2"))
    assert failure.text.startswith("connection 2: 3 messages in flight were abandoned")


def test_failure_of_a_server_stays_one_line() -> None:
    refused: Any = ValueError("a\nb")
    failures = failures_of(events.UnknownMessage({}, b"a\nb"), events.BackfillRefused(refused))
    assert len(failures) == 2
    assert all("\n" not in failure.text for failure in failures)


def test_stream_has_the_errors_of_all_its_stages() -> None:
    source: Subject[list[Message[str]]] = Subject()
    stream: MessageStream[str] = MessageStream(
        lambda observer, _: source.subscribe(observer), new_telemetry()
    )

    def refuse(message: Message[str]) -> Message[str]:
        raise ValueError(message.data)

    processed = stream.pipe(ops.process(refuse))
    done = threading.Event()
    processed.subscribe(on_completed=done.set)
    source.on_next([Message("a"), Message("b")])
    source.on_completed()
    assert done.wait(10)
    assert processed.telemetry.bus.flush()
    assert sorted(failure.text.split(": ")[1] for failure in stream.errors) == [
        "ValueError('a')",
        "ValueError('b')",
    ]
