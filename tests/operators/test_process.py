from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import reactivex
from reactivex import operators as stock
from reactivex.scheduler import NewThreadScheduler
from reactivex.subject import Subject
from reactivex.testing import ReactiveTest, TestScheduler

import rxtweets
from rxtweets import Message, events
from rxtweets import operators as ops

PATIENCE = 20.0
on_next, on_error, on_completed = (
    ReactiveTest.on_next,
    ReactiveTest.on_error,
    ReactiveTest.on_completed,
)
Source = Subject[Message[Any]]


def message(data: Any) -> Message[Any]:
    return Message(data)


def upcase(message: Message[str]) -> Message[str]:
    return message.update_data(str.upper)


def as_number(message: Message[str]) -> Message[int]:
    return message.update_data(int)


class Sink(reactivex.Observer[Message[Any]]):
    """Records the items of the stream, and waits for them."""

    def __init__(self) -> None:
        super().__init__(self._next, self._error, self._completed)
        self.changed = threading.Condition()
        self.data: list[Any] = []
        self.end: list[object] = []

    def _next(self, message: Message[Any]) -> None:
        with self.changed:
            self.data.append(message.data)
            self.changed.notify_all()

    def _error(self, error: Exception) -> None:
        with self.changed:
            self.end.append(error)
            self.changed.notify_all()

    def _completed(self) -> None:
        with self.changed:
            self.end.append("completed")
            self.changed.notify_all()

    def until(self, condition: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE), (len(self.data), self.end)

    def until_end(self) -> list[Any]:
        self.until(lambda: self.end)
        return self.data


def run(
    handler: Callable[[Message[Any]], Message[Any]], data: Sequence[Any], **options: Any
) -> tuple[list[Any], rxtweets.Stats]:
    """All results of a source that completes."""
    stream = reactivex.from_iterable(map(message, data)).pipe(ops.process(handler, **options))
    sink = Sink()
    stream.subscribe(sink)
    sink.until_end()
    assert sink.end == ["completed"]
    return sink.data, stream.stats()


# In virtual time.


@pytest.mark.parametrize("ordered", [False, True])
def test_results_equal_flat_map_when_handlers_are_quick(ordered: bool) -> None:
    messages = [message(data) for data in "abc"]

    def times(operator: Any) -> list[tuple[float, str]]:
        scheduler = TestScheduler()
        source = scheduler.create_hot_observable(
            *(on_next(210 + 20 * at, given) for at, given in enumerate(messages)), on_completed(300)
        )
        observer: Any = scheduler.start(lambda: source.pipe(operator))
        return [
            (record.time, record.value.value.data if record.value.kind == "N" else "completed")
            for record in observer.messages
        ]

    ours = times(ops.process(upcase, ordered=ordered))
    theirs = times(stock.flat_map(lambda message: reactivex.just(upcase(message))))
    assert ours == theirs == [(210, "A"), (230, "B"), (250, "C"), (300, "completed")]


def test_source_error_is_emitted_at_its_time() -> None:
    scheduler = TestScheduler()
    fault = ValueError("source")
    source = scheduler.create_hot_observable(on_next(210, message("a")), on_error(250, fault))
    observer = scheduler.start(lambda: source.pipe(ops.process(upcase)))
    assert observer.messages[1:] == [on_error(250, fault)]


def test_nothing_is_emitted_after_disposal() -> None:
    scheduler = TestScheduler()
    source = scheduler.create_hot_observable(
        on_next(210, message("a")), on_next(400, message("b")), on_completed(500)
    )
    observer = scheduler.start(lambda: source.pipe(ops.process(upcase)), disposed=300)
    assert [record.time for record in observer.messages] == [210]
    assert [subscription.unsubscribe for subscription in source.subscriptions] == [300]


# Concurrency.


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("concurrency", [1, 2, 50])
def test_handlers_run_up_to_the_concurrency(concurrency: int, ordered: bool) -> None:
    together = threading.Barrier(concurrency)
    lock = threading.Lock()
    running, most = 0, 0

    def meet(message: Message[int]) -> Message[int]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(PATIENCE)
        with lock:
            running -= 1
        return message

    data, _ = run(meet, range(concurrency * 3), concurrency=concurrency, ordered=ordered)
    assert sorted(data) == list(range(concurrency * 3))
    assert most == concurrency


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_message_is_emitted_once_when_handlers_are_quick(ordered: bool, concurrency: int) -> None:
    data, stats = run(
        lambda message: message, range(20_000), concurrency=concurrency, ordered=ordered
    )
    assert (data if ordered else sorted(data)) == list(range(20_000))
    assert stats.processed == 20_000
    assert stats.in_flight == 0


def test_ordered_result_waits_for_earlier_results() -> None:
    first = threading.Event()
    started = threading.Semaphore(0)

    def hold_the_first(message: Message[int]) -> Message[int]:
        started.release()
        if message.data == 0:
            assert first.wait(PATIENCE)
        return message

    source, sink = Source(), Sink()
    source.pipe(ops.process(hold_the_first, 4, ordered=True)).subscribe(sink)
    for number in range(4):
        source.on_next(message(number))
    for _ in range(4):
        assert started.acquire(timeout=PATIENCE)
    assert sink.data == []
    first.set()
    source.on_completed()
    assert sink.until_end() == [0, 1, 2, 3]


def test_unordered_result_does_not_wait() -> None:
    first = threading.Event()

    def hold_the_first(message: Message[int]) -> Message[int]:
        if message.data == 0:
            assert first.wait(PATIENCE)
        return message

    source, sink = Source(), Sink()
    source.pipe(ops.process(hold_the_first, 2)).subscribe(sink)
    for number in range(10):
        source.on_next(message(number))
    sink.until(lambda: len(sink.data) == 9)
    first.set()
    source.on_completed()
    assert sink.until_end()[-1] == 0


def learn_that_handlers_are_quick(source: Source, sink: Sink) -> None:
    for number in range(5000):
        source.on_next(message(number))
    sink.until(lambda: len(sink.data) == 5000)


@pytest.mark.parametrize("ordered", [False, True])
def test_others_are_handled_when_one_blocks_after_quick_ones(ordered: bool) -> None:
    go, stuck = threading.Event(), threading.Event()

    def sometimes_stuck(message: Message[Any]) -> Message[Any]:
        if message.data == "stuck":
            stuck.set()
            assert go.wait(PATIENCE)
        return message

    source, sink = Source(), Sink()
    stream = source.pipe(ops.process(sometimes_stuck, 4, ordered=ordered))
    stream.subscribe(sink)
    learn_that_handlers_are_quick(source, sink)
    source.on_next(message("stuck"))
    assert stuck.wait(PATIENCE)
    for number in range(20):
        source.on_next(message(number))
    if not ordered:
        sink.until(lambda: len(sink.data) == 5020)
    go.set()
    source.on_completed()
    assert len(sink.until_end()) == 5021


def test_handler_can_wait_for_another_after_quick_ones() -> None:
    met = threading.Barrier(2)

    def sometimes_meeting(message: Message[Any]) -> Message[Any]:
        if message.data == "meet":
            met.wait(PATIENCE)
        return message

    source, sink = Source(), Sink()
    source.pipe(ops.process(sometimes_meeting, 4)).subscribe(sink)
    learn_that_handlers_are_quick(source, sink)
    source.on_next(message("meet"))
    source.on_next(message("meet"))
    sink.until(lambda: len(sink.data) == 5002)
    source.on_completed()
    sink.until_end()


def test_source_waits_when_too_many_are_in_flight() -> None:
    go = threading.Event()
    taken = 0

    def wait(message: Message[int]) -> Message[int]:
        assert go.wait(PATIENCE)
        return message

    def feed() -> Iterator[Message[int]]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield message(number)

    stream = reactivex.from_iterable(feed(), NewThreadScheduler()).pipe(ops.process(wait, 2))
    sink = Sink()
    stream.subscribe(sink)
    deadline = threading.Event()
    while stream.stats().in_flight < 20:
        deadline.wait(0.01)
    deadline.wait(0.05)  # time for messages that must not come
    assert taken <= 21
    go.set()
    assert sorted(sink.until_end()) == list(range(1000))


def test_slow_observer_blocks_one_worker_only() -> None:
    go = threading.Event()
    handled = threading.Semaphore(0)

    def note(message: Message[int]) -> Message[int]:
        handled.release()
        return message

    source, got = Source(), []

    def slow(message: Message[int]) -> None:
        assert go.wait(PATIENCE)
        got.append(message.data)

    ended = threading.Event()
    source.pipe(ops.process(note, 3)).subscribe(slow, on_completed=ended.set)
    for number in range(10):
        source.on_next(message(number))
    for _ in range(10):
        assert handled.acquire(timeout=PATIENCE)
    go.set()
    source.on_completed()
    assert ended.wait(PATIENCE)
    assert sorted(got) == list(range(10))


# Failures.


class Acks:
    def __init__(self) -> None:
        self.successful: list[Any] = []
        self.failed: list[Any] = []

    def ack(self, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        self.successful += [message.data for message in successful]
        self.failed += [message.status for message in failed]


def raising(message: Message[str]) -> Message[str]:
    raise ValueError(message.data)


def failing(message: Message[str]) -> Message[str]:
    return message.failed("not today")


def forgetful(message: Message[str]) -> Any:
    return message.data


def leaving(message: Message[str]) -> Message[str]:
    raise SystemExit(message.data)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (raising, "ValueError('bad')"),
        (failing, "'not today'"),
        (forgetful, "HandlerError('sometimes returned str; return the message')"),
        (leaving, "SystemExit('bad')"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_failed_message_is_acknowledged_and_not_emitted(
    handler: Any, reason: str, ordered: bool
) -> None:
    acks = Acks()

    def sometimes(message: Message[str]) -> Any:
        return handler(message) if message.data == "bad" else message

    messages = [message(data).with_acknowledger(acks) for data in ("a", "bad", "b")]
    stream = reactivex.from_iterable(messages).pipe(ops.process(sometimes, ordered=ordered))
    reported: list[events.Event] = []
    stream.events.subscribe(reported.append)
    sink = Sink()
    stream.subscribe(sink)
    assert sorted(sink.until_end()) == ["a", "b"]
    assert sink.end == ["completed"]
    assert stream.telemetry.bus.flush()
    [event] = reported
    assert isinstance(event, events.HandlerFailed)
    assert isinstance(event.message.status, rxtweets.Failed)
    assert repr(event.message.status.reason) == reason
    assert (stream.stats().processed, stream.stats().failed) == (2, 1)
    assert acks.failed == [event.message.status]
    assert acks.successful == []


def test_raising_observer_is_counted_and_gets_the_rest() -> None:
    got = []
    ended = threading.Event()

    def bad(message: Message[int]) -> None:
        got.append(message.data)
        raise ValueError(message.data)

    stream = reactivex.from_iterable(map(message, range(50))).pipe(
        ops.process(lambda message: message)
    )
    stream.subscribe(bad, on_completed=ended.set)
    assert ended.wait(PATIENCE)
    assert sorted(got) == list(range(50))
    assert stream.stats().subscriber_errors == 50


# Ends.


def test_empty_source_completes() -> None:
    assert run(upcase, []) == ([], rxtweets.Stats())


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("fault", [None, ValueError("source")])
def test_completion_waits_for_messages_in_flight(ordered: bool, fault: Exception | None) -> None:
    go = threading.Event()

    def wait(message: Message[str]) -> Message[str]:
        assert go.wait(PATIENCE)
        return message

    source, sink = Source(), Sink()
    source.pipe(ops.process(wait, ordered=ordered)).subscribe(sink)
    source.on_next(message("in flight"))
    if fault is None:
        source.on_completed()
    else:
        source.on_error(fault)
    assert sink.end == []
    go.set()
    assert sink.until_end() == ["in flight"]
    assert sink.end == ["completed" if fault is None else fault]


def test_disposal_counts_messages_in_flight_as_abandoned() -> None:
    go, started = threading.Event(), threading.Semaphore(0)

    def wait(message: Message[int]) -> Message[int]:
        started.release()
        assert go.wait(PATIENCE)
        return message

    source, sink = Source(), Sink()
    stream = source.pipe(ops.process(wait, 2))
    reported: list[events.Event] = []
    stream.events.subscribe(reported.append)
    subscription = stream.subscribe(sink)
    for number in range(5):
        source.on_next(message(number))
    for _ in range(2):
        assert started.acquire(timeout=PATIENCE)
    subscription.dispose()
    go.set()
    assert stream.telemetry.bus.flush()
    assert reported == [events.Abandoned(5, "processors")]
    assert stream.stats().abandoned == 5
    assert stream.stats().in_flight == 0
    assert sink.data == sink.end == []


@pytest.mark.parametrize("ordered", [False, True])
def test_stream_can_be_disposed_in_on_next(ordered: bool) -> None:
    source = Source()
    got: list[Any] = []
    done = threading.Event()
    holder: list[reactivex.abc.DisposableBase] = []

    def once(message: Message[int]) -> None:
        got.append(message.data)
        holder[0].dispose()
        done.set()

    stream = source.pipe(ops.process(lambda message: message, ordered=ordered))
    holder.append(stream.subscribe(once))
    for number in range(100):
        source.on_next(message(number))
    assert done.wait(PATIENCE)
    assert len(got) == 1
    stats = stream.stats()
    assert stats.in_flight == 0


def test_take_ends_the_stream() -> None:
    sink = Sink()
    reactivex.from_iterable(map(message, range(1000))).pipe(
        ops.process(lambda message: message, ordered=True), stock.take(3)
    ).subscribe(sink)
    assert sink.until_end() == [0, 1, 2]


# Composition.


def test_subscribers_of_a_cold_source_are_independent() -> None:
    messages = [message("a"), message("b")]
    stream = reactivex.from_iterable(messages).pipe(ops.process(upcase, ordered=True))
    one, two = Sink(), Sink()
    stream.subscribe(one)
    stream.subscribe(two)
    assert one.until_end() == two.until_end() == ["A", "B"]


def test_process_works_between_stock_operators() -> None:
    sink = Sink()
    source: Any = reactivex.from_iterable(map(message, range(10)))
    source.filter(lambda message: message.data % 2).pipe(
        ops.process(lambda message: message.update_data(str), ordered=True),
        stock.map(upcase),
        ops.process(as_number, ordered=True),
    ).subscribe(sink)
    assert sink.until_end() == [1, 3, 5, 7, 9]


def test_handler_can_feed_its_own_source() -> None:
    source, sink = Source(), Sink()

    def again(given: Message[int]) -> Message[int]:
        if given.data < 500:
            source.on_next(message(given.data + 1))
        return given

    source.pipe(ops.process(again, 1)).subscribe(sink)
    source.on_next(message(0))
    sink.until(lambda: len(sink.data) == 501)
    source.on_completed()
    assert sorted(sink.until_end()) == list(range(501))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((3,), "handler=3"), ((upcase, 0), "concurrency=0"), ((upcase, 1.5), "concurrency=1.5")],
)
def test_wrong_arguments_are_refused(arguments: Any, words: str) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match=words):
        ops.process(*arguments)


@pytest.mark.parametrize(("most", "least"), [(1, None), (6, 0), (6, 2), (6, 5)])
def test_pull_source_gives_the_demand_of_each_processor(most: int, least: int | None) -> None:
    held, over, full = threading.Semaphore(0), threading.Event(), threading.Event()
    excess: list[int] = []
    given = 0

    def poll(count: int) -> list[Message[int]] | None:
        nonlocal given
        excess.append(stream.stats().in_flight + count - 2 * most)
        given += count
        if given >= 2 * most:
            full.set()
        return [message(0)] * count if given < 100 else None

    def handle(message: Message[int]) -> Message[int]:
        held.acquire()
        return message

    stream = rxtweets.polling_source(poll, most=10).pipe(
        ops.process(handle, 2, max_demand=most, min_demand=least)
    )
    stream.subscribe(on_completed=over.set)
    assert full.wait(PATIENCE)
    assert not over.wait(0.05)
    assert given == 2 * most
    held.release(given + 100)
    assert over.wait(PATIENCE)
    assert max(excess) == 0


@pytest.mark.parametrize("options", [{"max_demand": 0}, {"min_demand": -1}, {"min_demand": 10}])
def test_wrong_demand_is_refused(options: Any) -> None:
    [name] = options
    with pytest.raises(rxtweets.ConfigurationError, match=name):
        ops.process(upcase, **options)
