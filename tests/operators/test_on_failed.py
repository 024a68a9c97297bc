"""`process(on_failed=…)`: failed messages before they are acknowledged."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from rxtweets import Message, events
from rxtweets.errors import HandlerError

Messages = Sequence[Message[Any]]


def fail_odd(message: Message[int]) -> Message[int]:
    if message.data % 2:
        raise ValueError(message.data)
    return message


def test_it_is_called_with_failed_messages_only(process: Any) -> None:
    got: list[Any] = []

    def on_failed(messages: Messages) -> Messages:
        got.extend(each.data for each in messages)
        assert all(each.is_failed for each in messages)
        return messages

    watched = process(fail_odd, range(6), on_failed=on_failed)
    assert sorted(watched.until_end()) == [0, 2, 4]
    assert sorted(got) == [1, 3, 5]


def test_messages_that_a_handler_failed_come_as_well_as_those_it_raised_on(process: Any) -> None:
    got: list[Any] = []

    def handle(message: Message[str]) -> Message[str]:
        return message.failed("not today")

    def on_failed(messages: Messages) -> Messages:
        got.extend(each.status for each in messages)
        return messages

    process(handle, ["a"], on_failed=on_failed).until_end()
    assert [each.reason for each in got] == ["not today"]


def test_what_it_gives_back_is_acknowledged_as_failed(process: Any) -> None:
    def on_failed(messages: Messages) -> Messages:
        return [each.put_data(f"dead {each.data}") for each in messages]

    watched = process(fail_odd, [1], on_failed=on_failed)
    watched.until_end()
    assert [data for data, _ in watched.failed] == ["dead 1"]
    assert watched.successful == []


def test_it_comes_before_the_acknowledgement(process: Any) -> None:
    acknowledged: list[int] = []

    def on_failed(messages: Messages) -> Messages:
        acknowledged.append(len(watched.failed))
        return messages

    watched = process(fail_odd, on_failed=on_failed)
    watched.feed(1)
    watched.complete()
    assert acknowledged == [0]


def raising(_messages: Messages) -> Messages:
    raise KeyError("dead letters")


def leaving(_messages: Messages) -> Messages:
    raise SystemExit


def forgetful(messages: Messages) -> Messages:
    return messages[1:]


def wasteful(messages: Any) -> Messages:
    messages.clear()
    return []


def sloppy(messages: Messages) -> Any:
    return [each.data for each in messages]


@pytest.mark.parametrize("on_failed", [raising, leaving, forgetful, wasteful, sloppy, print])
def test_if_it_raises_or_gives_others_back_they_are_acknowledged_as_they_were(
    process: Any, on_failed: Any, capsys: Any
) -> None:
    watched = process(fail_odd, [1, 2], on_failed=on_failed)
    assert watched.until_end() == [2]
    assert repr(watched.failed) == "[(1, ValueError(1))]"
    assert watched.stats().failure_handler_errors == 1
    [event] = watched.happened(events.FailureHandlerFailed)
    assert [each.data for each in event.messages] == [1]
    assert isinstance(event.error, (HandlerError, KeyError, SystemExit))
    del capsys  # where print writes


def test_calls_never_overlap(process: Any) -> None:
    inside = threading.Lock()

    def on_failed(messages: Messages) -> Messages:
        assert inside.acquire(blocking=False)
        threading.Event().wait(0.000_1)  # time for another call to come in, if one could
        inside.release()
        return messages

    def handle(message: Message[int]) -> Message[int]:
        threading.Event().wait(0.000_3)  # several at once
        raise ValueError(message.data)

    watched = process(handle, range(200), on_failed=on_failed)
    watched.until_end()
    assert watched.stats().failure_handler_errors == 0
    assert len(watched.failed) == 200


def test_putting_the_status_right_does_not_undo_the_failure(process: Any) -> None:
    def on_failed(messages: Messages) -> Messages:
        return [Message(each.data, acknowledger=each.acknowledger) for each in messages]

    watched = process(fail_odd, [1], on_failed=on_failed)
    assert watched.until_end() == []
    assert repr(watched.failed) == "[(1, ValueError(1))]"


def test_it_is_reported_with_what_it_gave_back(process: Any) -> None:
    def on_failed(messages: Messages) -> Messages:
        return [each.put_data(f"dead {each.data}") for each in messages]

    watched = process(fail_odd, [1], on_failed=on_failed)
    watched.until_end()
    [event] = watched.happened(events.FailureHandled)
    assert [each.data for each in event.messages] == ["dead 1"]
