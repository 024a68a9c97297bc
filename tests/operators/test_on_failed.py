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


def test_on_failed_gets_failed_messages_only(process: Any) -> None:
    got: list[Any] = []

    def on_failed(messages: Messages) -> Messages:
        got.extend(message.data for message in messages)
        assert all(message.is_failed for message in messages)
        return messages

    watched = process(fail_odd, range(6), on_failed=on_failed)
    assert sorted(watched.until_end()) == [0, 2, 4]
    assert sorted(got) == [1, 3, 5]


def test_on_failed_gets_raised_and_returned_failures(process: Any) -> None:
    got: list[Any] = []

    def handle(message: Message[str]) -> Message[str]:
        return message.failed("not today")

    def on_failed(messages: Messages) -> Messages:
        got.extend(message.status for message in messages)
        return messages

    process(handle, ["a"], on_failed=on_failed).until_end()
    assert [status.reason for status in got] == ["not today"]


def test_returned_messages_are_acknowledged_as_failed(process: Any) -> None:
    def on_failed(messages: Messages) -> Messages:
        return [message.put_data(f"dead {message.data}") for message in messages]

    watched = process(fail_odd, [1], on_failed=on_failed)
    watched.until_end()
    assert [data for data, _ in watched.failed] == ["dead 1"]
    assert watched.successful == []


def test_on_failed_runs_before_the_acknowledgement(process: Any) -> None:
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
    return [message.data for message in messages]


@pytest.mark.parametrize("on_failed", [raising, leaving, forgetful, wasteful, sloppy, print])
def test_original_messages_are_acknowledged_when_it_fails(
    process: Any, on_failed: Any, capsys: Any
) -> None:
    watched = process(fail_odd, [1, 2], on_failed=on_failed)
    assert watched.until_end() == [2]
    assert repr(watched.failed) == "[(1, ValueError(1))]"
    assert watched.stats().failure_handler_errors == 1
    [event] = watched.happened(events.FailureHandlerFailed)
    assert [message.data for message in event.messages] == [1]
    assert isinstance(event.error, (HandlerError, KeyError, SystemExit))
    del capsys  # where print writes


def test_calls_of_on_failed_never_overlap(process: Any) -> None:
    inside = threading.Lock()

    def on_failed(messages: Messages) -> Messages:
        assert inside.acquire(blocking=False)
        threading.Event().wait(0.000_1)  # time for another call to come in, if one could
        inside.release()
        return messages

    def handle(message: Message[int]) -> Message[int]:
        threading.Event().wait(0.000_3)  # several together
        raise ValueError(message.data)

    watched = process(handle, range(200), on_failed=on_failed)
    watched.until_end()
    assert watched.stats().failure_handler_errors == 0
    assert len(watched.failed) == 200


def test_message_stays_failed_when_its_status_is_reset(process: Any) -> None:
    def on_failed(messages: Messages) -> Messages:
        return [Message(message.data, acknowledger=message.acknowledger) for message in messages]

    watched = process(fail_odd, [1], on_failed=on_failed)
    assert watched.until_end() == []
    assert repr(watched.failed) == "[(1, ValueError(1))]"


def test_event_has_the_returned_messages(process: Any) -> None:
    def on_failed(messages: Messages) -> Messages:
        return [message.put_data(f"dead {message.data}") for message in messages]

    watched = process(fail_odd, [1], on_failed=on_failed)
    watched.until_end()
    [event] = watched.happened(events.FailureHandled)
    assert [message.data for message in event.messages] == ["dead 1"]
