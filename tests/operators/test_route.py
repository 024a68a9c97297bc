from __future__ import annotations

import threading
from typing import Any

import pytest
import reactivex
from reactivex.subject import Subject
from reactivex.testing import ReactiveTest, TestScheduler

import rxtweets
from rxtweets import Batch, BatchStream, Message, MessageStream
from rxtweets import operators as ops
from rxtweets._core.observable import SettledStream
from rxtweets.testing import RecordingAcknowledger

PATIENCE = 20.0
on_next, on_error, on_completed = (
    ReactiveTest.on_next,
    ReactiveTest.on_error,
    ReactiveTest.on_completed,
)


def shown(observer: Any) -> list[tuple[float, Any]]:
    result = []
    for item in observer.messages:
        note = item.value
        if note.kind == "N":
            value = note.value
            data = [m.data for m in value] if isinstance(value, Batch) else value.data
            result.append((item.time, data))
        else:
            result.append((item.time, "completed" if note.kind == "C" else note.exception))
    return result


def to(name: str, data: Any) -> Message[Any]:
    return Message(data).put_batcher(name)


# route


def test_message_passes_the_branch_that_it_names() -> None:
    scheduler = TestScheduler()
    source: Any = scheduler.create_hot_observable(
        on_next(210, Message(1)),
        on_next(220, to("a", 2)),
        on_next(230, Message(3)),
        on_next(240, to("a", 4)),
        on_completed(250),
    )
    observer: Any = scheduler.start(
        lambda: source.pipe(
            ops.route({"default": ops.batch(2, 100.0), "a": ops.batch(9, 15.0, name="a")})
        )
    )
    assert shown(observer) == [
        (230, [1, 3]),
        (235, [2]),
        (250, [4]),
        (250, "completed"),
    ]


def test_route_flushes_branches_before_error() -> None:
    scheduler = TestScheduler()
    fault = ValueError("source")
    source: Any = scheduler.create_hot_observable(
        on_next(210, Message(1)), on_next(220, to("a", 2)), on_error(250, fault)
    )
    observer: Any = scheduler.start(
        lambda: source.pipe(ops.route({"default": ops.batch(), "a": ops.batch()})), disposed=900.0
    )
    assert shown(observer)[-1][1] is fault
    assert sorted(data for _, data in shown(observer)[:-1]) == [[1], [2]]


def test_route_emits_nothing_after_disposal() -> None:
    scheduler = TestScheduler()
    source: Any = scheduler.create_hot_observable(on_next(210, Message(1)))
    observer: Any = scheduler.start(
        lambda: source.pipe(ops.route({"default": ops.batch(5, 500.0)})), disposed=300.0
    )
    assert observer.messages == []


def test_route_emits_items_of_branches() -> None:
    source: Subject[Message[Any]] = Subject()
    assert isinstance(source.pipe(ops.route({"a": ops.acknowledge()})), MessageStream)
    assert isinstance(source.pipe(ops.route({"a": ops.batch()})), BatchStream)
    delivered = source.pipe(ops.route({"a": [ops.batch(), ops.deliver(print)]}))
    assert isinstance(delivered, SettledStream)


@pytest.mark.parametrize(
    "branches",
    [
        None,
        {},
        [ops.batch()],
        {"a": []},
        {"a": 5},
        {"a": [ops.batch(), None]},
    ],
)
def test_route_refuses_invalid_branches(branches: Any) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match="branches"):
        ops.route(branches)


def test_route_refuses_branches_of_different_kinds() -> None:
    with pytest.raises(rxtweets.ConfigurationError, match="BatchStream, MessageStream"):
        reactivex.never().pipe(ops.route({"a": ops.batch(), "b": ops.acknowledge()}))


def test_route_asks_for_least_demand_of_branches() -> None:
    asked: list[int] = []
    over = threading.Event()

    def poll(wanted: int) -> None:
        asked.append(wanted)

    branches: dict[str, Any] = {
        "default": ops.acknowledge(),
        "a": ops.process(lambda message: message, 1, max_demand=3),
        "b": ops.process(lambda message: message, 1, max_demand=5),
    }
    stream = rxtweets.polling_source(poll, most=8).pipe(ops.route(branches))
    stream.subscribe(on_completed=over.set)
    assert over.wait(PATIENCE)
    assert asked == [3]


class Breaking(reactivex.abc.ObserverBase[Any]):
    """Ends its stream with an error at the first chunk; wants no messages after it."""

    def __init__(self, observer: Any, fault: Exception) -> None:
        self.observer = observer
        self.fault = fault
        self.is_broken = False

    def demand(self, most: int) -> int:
        return 0 if self.is_broken else most

    def on_next(self, _: Any) -> None:
        self.is_broken = True
        self.observer.on_error(self.fault)

    def on_error(self, _: Exception) -> None: ...

    def on_completed(self) -> None: ...


def test_route_polls_for_branches_that_continue() -> None:
    scheduler = TestScheduler()
    fault = ValueError("branch")

    def breaking(source: MessageStream[Any]) -> MessageStream[Any]:
        return MessageStream(
            lambda observer, given: source.subscribe_chunks(Breaking(observer, fault), given),
            source.telemetry,
        )

    source = rxtweets.from_iterable([Message(1), to("a", 2), Message(3), Message(4)], most=1)
    branches = {"default": ops.acknowledge(), "a": breaking}
    observer = scheduler.start(lambda: source.pipe(ops.route(branches)))
    assert [value for _, value in shown(observer)] == [1, 3, 4, fault]


def test_route_acknowledges_failed_messages() -> None:
    acks = RecordingAcknowledger()
    got: list[Any] = []
    source: Subject[Message[Any]] = Subject()
    source.pipe(ops.route({"default": ops.acknowledge()})).subscribe(got.append)
    source.on_next(Message(1).with_acknowledger(acks).failed("before"))
    assert (got, len(acks.failed)) == ([], 1)


def test_route_has_branches_per_subscription() -> None:
    source: Subject[Message[Any]] = Subject()
    stream = source.pipe(ops.route({"default": ops.batch(2, 600.0)}))
    first: list[Any] = []
    second: list[Any] = []
    one = stream.subscribe(first.append)
    source.on_next(Message(1))
    two = stream.subscribe(second.append)
    source.on_next(Message(2))
    assert ([len(b) for b in first], second) == ([2], [])
    one.dispose()
    two.dispose()


# partition


def test_messages_of_one_number_pass_one_branch() -> None:
    source: Subject[Message[int]] = Subject()
    batches: list[list[int]] = []
    source.pipe(ops.partition(lambda m: m.data, 2, ops.batch(2, 600.0))).subscribe(
        lambda batch: batches.append([message.data for message in batch])
    )
    for number in range(8):
        source.on_next(Message(number))
    source.on_completed()
    assert batches == [[0, 2], [1, 3], [4, 6], [5, 7]]


@pytest.mark.parametrize("number", [-1, "a", None, 1.5, True])
def test_message_fails_when_number_is_invalid(number: Any) -> None:
    acks = RecordingAcknowledger()
    failed: list[Any] = []

    def on_failed(messages: list[Message[Any]]) -> list[Message[Any]]:
        failed.extend(messages)
        return messages

    source: Subject[Message[int]] = Subject()
    stream = source.pipe(ops.partition(lambda _: number, 2, ops.acknowledge(), on_failed=on_failed))
    stream.subscribe()
    source.on_next(Message(1).with_acknowledger(acks))
    assert (len(acks.failed), len(failed), stream.stats().failed) == (1, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((5, 2, ops.batch()), "by="), ((abs, 0, ops.batch()), "n="), ((abs, 2), "operators")],
)
def test_partition_refuses_invalid_arguments(arguments: Any, words: str) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match=words):
        ops.partition(*arguments)


# acknowledge


def test_acknowledge_follows_status_and_passes_on() -> None:
    acks = RecordingAcknowledger()
    got: list[Any] = []
    source: Subject[Message[Any]] = Subject()
    stream = source.pipe(ops.acknowledge())
    stream.subscribe(got.append)
    source.on_next(Message(1).with_acknowledger(acks))
    source.on_next(Message(2).with_acknowledger(acks).failed("odd"))
    assert [message.data for message in got] == [1, 2]
    assert ([m.data for m in acks.successful], [m.data for m in acks.failed]) == ([1], [2])
    assert (stream.stats().acknowledged, stream.stats().failed) == (1, 1)


# deliver


def test_deliver_emits_batch_with_statuses() -> None:
    def subscriber(batch: Batch[int]) -> list[Message[int]]:
        return [item.failed("odd") if item.data % 2 else item for item in batch]

    settled: list[Batch[int]] = []
    source: Subject[Message[int]] = Subject()
    source.pipe(ops.batch(3, 600.0), ops.deliver(subscriber)).subscribe(settled.append)
    for number in range(3):
        source.on_next(Message(number))
    source.on_completed()
    assert [(message.data, message.is_failed) for message in settled[0]] == [
        (0, False),
        (1, True),
        (2, False),
    ]
    assert settled[0].info == rxtweets.BatchInfo("default", 3, "size")


@pytest.mark.parametrize("concurrency", [None, 1, 3])
def test_deliver_ends_subscriber_after_last_batch(concurrency: int | None) -> None:
    received: list[Any] = []
    over = threading.Event()

    class Teller(rxtweets.Subscriber[Any]):
        def on_next(self, batch: Batch[Any]) -> None:
            received.append(len(batch))

        def on_completed(self) -> None:
            received.append("completed")

    source = reactivex.from_iterable([Message(number) for number in range(5)])
    source.pipe(ops.batch(2, 600.0), ops.deliver(Teller(), concurrency)).subscribe(
        on_completed=over.set
    )
    assert over.wait(PATIENCE)
    assert (sorted(received[:-1]), received[-1]) == ([1, 2, 2], "completed")


def test_full_queue_blocks_source_until_disposal() -> None:
    held = threading.Event()
    source: Subject[Message[int]] = Subject()
    stream = source.pipe(ops.batch(1, 600.0), ops.deliver(lambda _: held.wait(PATIENCE), 1))
    subscription = stream.subscribe()
    sent: list[int] = []
    second_sent = threading.Event()

    def emit() -> None:
        for number in range(10):
            source.on_next(Message(number))
            sent.append(number)
            if number == 1:
                second_sent.set()

    emitter = threading.Thread(target=emit)
    emitter.start()
    assert second_sent.wait(PATIENCE)
    emitter.join(0.05)  # would end, or send more, without the block
    assert emitter.is_alive()
    assert len(sent) == 2  # one is being delivered, one waits
    subscription.dispose()
    emitter.join(PATIENCE)
    held.set()
    assert stream.stats().abandoned == 2  # the waiting one, and the one of the blocked thread


def test_deliver_uses_thread_of_source_when_none_can_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        if self.name.startswith("rxtweets-subscriber"):
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    threads: list[threading.Thread] = []
    source: Subject[Message[int]] = Subject()
    stream = source.pipe(
        ops.batch(2, 600.0), ops.deliver(lambda _: threads.append(threading.current_thread()), 2)
    )
    stream.subscribe()
    for number in range(4):
        source.on_next(Message(number))
    source.on_completed()
    assert threads == [threading.current_thread()] * 2
    assert stream.stats().batched == 4


def test_deliver_refuses_source_other_than_batch() -> None:
    with pytest.raises(rxtweets.ConfigurationError, match="right after batch"):
        reactivex.never().pipe(ops.deliver(print))


@pytest.mark.parametrize(("arguments", "words"), [((5,), "subscriber"), ((print, 0), "concurr")])
def test_deliver_refuses_invalid_arguments(arguments: Any, words: str) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match=words):
        ops.deliver(*arguments)
