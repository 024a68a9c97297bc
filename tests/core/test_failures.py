from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from reactivex.subject import Subject

from rxtweets import Message, events
from rxtweets import operators as ops
from rxtweets._core.failures import KEPT, Failure, Failures
from rxtweets._core.observable import MessageStream, new_telemetry

FAILED = events.HandlerFailed(Message("x", {"id": "7"}).failed(ValueError("no")))


def test_what_went_wrong_is_kept_with_its_event() -> None:
    failures = Failures()
    failures(FAILED)
    (failure,) = failures
    assert failure.text == "the handler failed tweet 7: ValueError('no')"
    assert failure.event is FAILED
    assert failures.count == 1


def test_failure_repr_is_the_time_and_a_short_text() -> None:
    assert repr(Failure(1796018234.09, "no room", FAILED)) == (
        "Failure(2026-11-30T05:57:14Z, 'no room')"
    )
    long = Failure(1796018234.09, "x" * 1000, FAILED)
    assert len(repr(long)) < 150
    assert str(long) == "x" * 1000


def test_what_happens_every_day_is_not_kept() -> None:
    failures = Failures()
    failures(events.Connected(1, "HTTP/1.1"))
    failures(events.StreamEnded(None))
    assert list(failures) == []
    assert failures.count == 0


def test_the_latest_are_kept_and_all_are_counted() -> None:
    failures = Failures()
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(KEPT + 5):
        failures(events.Gap(begin, begin + timedelta(seconds=number), "", ""))
    assert failures.count == KEPT + 5
    assert len(list(failures)) == KEPT
    assert f"0:00:{KEPT + 4}" in list(failures)[-1].text


def test_the_part_of_a_merged_stream_is_named() -> None:
    failures = Failures()
    failures(events.Abandoned(3, "batcher", part="connection 2"))
    assert str(next(iter(failures))).startswith("connection 2: 3 messages in flight were abandoned")


def test_what_a_server_says_stays_one_line() -> None:
    failures = Failures()
    failures(events.UnknownMessage({}, b"a\nb"))
    failures(events.BackfillRefused(ValueError("a\nb")))  # type: ignore[arg-type]  # any error
    assert all("\n" not in failure.text for failure in failures)


def test_a_stream_has_the_errors_of_all_its_stages() -> None:
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
