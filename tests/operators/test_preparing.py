"""`process(prepare=…, context=…)`."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
import reactivex
from reactivex.disposable import Disposable
from reactivex.testing import ReactiveTest, TestScheduler

from rxtweets import ConfigurationError, Message, MessageStream
from rxtweets import operators as ops
from rxtweets._core.observable import new_telemetry
from rxtweets.errors import HandlerError

PATIENCE = 20.0
Messages = Sequence[Message[Any]]


def identity(message: Message[Any]) -> Message[Any]:
    return message


def in_one_chunk(data: Sequence[Any]) -> MessageStream[Any]:
    def subscribe(observer: Any, _scheduler: Any) -> reactivex.abc.DisposableBase:
        observer.on_next([Message(value) for value in data])
        observer.on_completed()
        return Disposable()

    return MessageStream(subscribe, new_telemetry())


def test_prepare_gets_the_chunk_before_any_handler() -> None:
    log: list[Any] = []
    ended = threading.Event()

    def prepare(messages: Messages) -> Messages:
        log.append([message.data for message in messages])
        return messages

    def handle(message: Message[int]) -> Message[int]:
        log.append(message.data)
        return message

    stream: Any = in_one_chunk(range(5)).pipe(ops.process(handle, 1, prepare=prepare))
    stream.subscribe(on_completed=ended.set)
    assert ended.wait(PATIENCE)
    assert log == [[0, 1, 2, 3, 4], 0, 1, 2, 3, 4]


def test_handlers_get_the_prepared_messages() -> None:
    got: list[Any] = []
    ended = threading.Event()

    def double(messages: Messages) -> Messages:
        return [message.update_data(lambda data: data * 2) for message in messages]

    stream: Any = in_one_chunk(range(4)).pipe(ops.process(identity, prepare=double, ordered=True))
    stream.subscribe(lambda message: got.append(message.data), on_completed=ended.set)
    assert ended.wait(PATIENCE)
    assert got == [0, 2, 4, 6]


def test_chunk_has_a_hundred_messages_at_most() -> None:
    sizes: list[int] = []
    ended = threading.Event()

    def prepare(messages: Messages) -> Messages:
        sizes.append(len(messages))
        return messages

    stream: Any = in_one_chunk(range(250)).pipe(ops.process(identity, prepare=prepare))
    stream.subscribe(on_completed=ended.set)
    assert ended.wait(PATIENCE)
    assert sum(sizes) == 250
    assert max(sizes) == 100


def raising(_messages: Messages) -> Messages:
    raise KeyError("database")


def forgetful(messages: Messages) -> Messages:
    return messages[1:]


def generous(messages: Messages) -> Messages:
    return [*messages, *messages]


def sloppy(messages: Messages) -> Any:
    return [message.data for message in messages]


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (raising, "KeyError('database')"),
        (forgetful, "HandlerError('prepare got 1 messages and returned 0; return all, in order')"),
        (generous, "HandlerError('prepare got 1 messages and returned 2; return all, in order')"),
        (sloppy, "HandlerError('prepare returned str in place of a message')"),
        (lambda _: None, "TypeError(\"'NoneType' object is not iterable\")"),
    ],
)
def test_chunk_fails_when_prepare_fails(process: Any, prepare: Any, reason: str) -> None:
    handled: list[Any] = []

    def sometimes(messages: Messages) -> Any:
        return prepare(messages) if messages[0].data == "bad" else messages

    def handle(message: Message[Any]) -> Message[Any]:
        handled.append(message.data)
        return message

    watched = process(handle, prepare=sometimes)
    watched.feed("bad")
    watched.until(lambda: watched.failed)
    watched.feed("good")
    assert watched.complete() == handled == ["good"]
    assert {data: repr(why) for data, why in watched.failed} == {"bad": reason}
    assert (watched.stats().processed, watched.stats().failed) == (1, 1)


def test_messages_of_a_chunk_fail_with_its_error() -> None:
    ended = threading.Event()
    acks: list[Any] = []

    class Acks:
        def ack(self, _successful: Messages, failed: Messages) -> None:
            acks.extend((message.data, message.status) for message in failed)

    acknowledger = Acks()

    def subscribe(observer: Any, _scheduler: Any) -> reactivex.abc.DisposableBase:
        observer.on_next([Message(n).with_acknowledger(acknowledger) for n in range(3)])
        observer.on_completed()
        return Disposable()

    stream: Any = MessageStream(subscribe, new_telemetry()).pipe(
        ops.process(identity, prepare=raising)
    )
    stream.subscribe(on_completed=ended.set)
    assert ended.wait(PATIENCE)
    assert [data for data, _ in acks] == [0, 1, 2]
    assert len({status for _, status in acks}) == 1


def test_failed_message_gets_no_handler(process: Any) -> None:
    handled: list[Any] = []

    def prepare(messages: Messages) -> Messages:
        return [
            message.failed("unwanted") if message.data == 1 else message for message in messages
        ]

    def handle(message: Message[int]) -> Message[int]:
        handled.append(message.data)
        return message

    watched = process(handle, range(3), prepare=prepare)
    assert sorted(watched.until_end()) == sorted(handled) == [0, 2]
    assert watched.failed == [(1, "unwanted")]


def test_prepare_does_not_wait_for_handlers(process: Any) -> None:
    go, prepared = threading.Event(), threading.Semaphore(0)

    def prepare(messages: Messages) -> Messages:
        for _ in messages:
            prepared.release()
        return messages

    def handle(message: Message[int]) -> Message[int]:
        assert go.wait(PATIENCE)
        return message

    watched = process(handle, concurrency=1, prepare=prepare)
    watched.feed(1, 2, 3)
    for _ in range(3):
        assert prepared.acquire(timeout=PATIENCE)
    go.set()
    assert sorted(watched.complete()) == [1, 2, 3]


def test_partitions_keep_their_order_when_prepared(process: Any) -> None:
    seen: dict[int, list[int]] = {0: [], 1: []}

    def handle(message: Message[int]) -> Message[int]:
        seen[message.data % 2].append(message.data)
        return message

    watched = process(
        handle,
        range(200),
        prepare=lambda messages: messages,
        partition_by=lambda message: message.data % 2,
    )
    watched.until_end()
    assert seen == {0: list(range(0, 200, 2)), 1: list(range(1, 200, 2))}


def test_prepare_takes_no_time_when_time_is_virtual() -> None:
    scheduler = TestScheduler()
    source = scheduler.create_hot_observable(
        ReactiveTest.on_next(210, Message("a")), ReactiveTest.on_completed(250)
    )
    operator: Any = ops.process(identity, prepare=lambda messages: messages)
    observer: Any = scheduler.start(lambda: source.pipe(operator))
    assert [record.time for record in observer.messages] == [210, 250]


# The context.


def test_callbacks_get_the_context_last(process: Any) -> None:
    got: list[tuple[str, Any]] = []

    def prepare(messages: Messages, context: Any) -> Messages:
        got.append(("prepare", context))
        return messages

    def handle(message: Message[int], context: Any) -> Message[int]:
        got.append(("handle", context))
        return message.failed("so")

    def on_failed(messages: Messages, context: Any) -> Messages:
        got.append(("on_failed", context))
        return messages

    context = {"database": 1}
    watched = process(handle, [1], prepare=prepare, on_failed=on_failed, context=context)
    watched.until_end()
    assert got == [("prepare", context), ("handle", context), ("on_failed", context)]


def test_none_is_a_context(process: Any) -> None:
    def handle(message: Message[int], context: Any) -> Message[Any]:
        return message.put_data(context)

    assert process(handle, [1], context=None).until_end() == [None]


def test_handler_with_a_context_is_named_in_errors(process: Any) -> None:
    def handle(message: Message[int], _context: Any) -> Any:
        return message.data

    watched = process(handle, [1], context=0)
    watched.until_end()
    assert isinstance(watched.reasons()[1], HandlerError)
    assert str(watched.reasons()[1]) == "handle returned int; return the message"


async def asynchronous(messages: Messages) -> Messages:
    return messages


@pytest.mark.parametrize("name", ["prepare", "on_failed", "partition_by"])
@pytest.mark.parametrize("value", [3, asynchronous])
def test_async_callback_is_refused(name: str, value: Any) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError, match=name):
        ops.process(identity, **options)
