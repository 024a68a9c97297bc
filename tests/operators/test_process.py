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


def upcase(each: Message[str]) -> Message[str]:
    return each.update_data(str.upper)


def as_number(each: Message[str]) -> Message[int]:
    return each.update_data(int)


class Sink(reactivex.Observer[Message[Any]]):
    """Remembers what came, and waits for it."""

    def __init__(self) -> None:
        super().__init__(self._next, self._error, self._completed)
        self.changed = threading.Condition()
        self.data: list[Any] = []
        self.end: list[object] = []

    def _next(self, each: Message[Any]) -> None:
        with self.changed:
            self.data.append(each.data)
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
    """All that comes out of a source that completes."""
    stream = reactivex.from_iterable(map(message, data)).pipe(ops.process(handler, **options))
    sink = Sink()
    stream.subscribe(sink)
    sink.until_end()
    assert sink.end == ["completed"]
    return sink.data, stream.stats()


# In virtual time.


@pytest.mark.parametrize("ordered", [False, True])
def test_quick_handlers_give_what_flat_map_gives_at_the_same_times(ordered: bool) -> None:
    messages = [message(data) for data in "abc"]

    def times(operator: Any) -> list[tuple[float, str]]:
        scheduler = TestScheduler()
        source = scheduler.create_hot_observable(
            *(on_next(210 + 20 * at, each) for at, each in enumerate(messages)), on_completed(300)
        )
        observer: Any = scheduler.start(lambda: source.pipe(operator))
        return [
            (each.time, each.value.value.data if each.value.kind == "N" else "completed")
            for each in observer.messages
        ]

    ours = times(ops.process(upcase, ordered=ordered))
    theirs = times(stock.flat_map(lambda each: reactivex.just(upcase(each))))
    assert ours == theirs == [(210, "A"), (230, "B"), (250, "C"), (300, "completed")]


def test_an_error_of_the_source_comes_at_its_time() -> None:
    scheduler = TestScheduler()
    fault = ValueError("source")
    source = scheduler.create_hot_observable(on_next(210, message("a")), on_error(250, fault))
    observer = scheduler.start(lambda: source.pipe(ops.process(upcase)))
    assert observer.messages[1:] == [on_error(250, fault)]


def test_nothing_comes_after_the_disposal() -> None:
    scheduler = TestScheduler()
    source = scheduler.create_hot_observable(
        on_next(210, message("a")), on_next(400, message("b")), on_completed(500)
    )
    observer = scheduler.start(lambda: source.pipe(ops.process(upcase)), disposed=300)
    assert [each.time for each in observer.messages] == [210]
    assert [each.unsubscribe for each in source.subscriptions] == [300]


# Concurrency.


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("concurrency", [1, 2, 50])
def test_so_many_handlers_run_at_once_and_never_more(concurrency: int, ordered: bool) -> None:
    together = threading.Barrier(concurrency)
    lock = threading.Lock()
    running, most = 0, 0

    def meet(each: Message[int]) -> Message[int]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(PATIENCE)
        with lock:
            running -= 1
        return each

    data, _ = run(meet, range(concurrency * 3), concurrency=concurrency, ordered=ordered)
    assert sorted(data) == list(range(concurrency * 3))
    assert most == concurrency


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_quick_messages_come_exactly_once(ordered: bool, concurrency: int) -> None:
    data, stats = run(lambda each: each, range(20_000), concurrency=concurrency, ordered=ordered)
    assert (data if ordered else sorted(data)) == list(range(20_000))
    assert stats.processed == 20_000
    assert stats.in_flight == 0


def test_ordered_results_wait_for_those_before_them() -> None:
    first = threading.Event()
    started = threading.Semaphore(0)

    def hold_the_first(each: Message[int]) -> Message[int]:
        started.release()
        if each.data == 0:
            assert first.wait(PATIENCE)
        return each

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


def test_unordered_results_do_not_wait() -> None:
    first = threading.Event()

    def hold_the_first(each: Message[int]) -> Message[int]:
        if each.data == 0:
            assert first.wait(PATIENCE)
        return each

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
def test_a_handler_that_blocks_after_thousands_of_quick_ones_holds_up_nobody(ordered: bool) -> None:
    go, stuck = threading.Event(), threading.Event()

    def sometimes_stuck(each: Message[Any]) -> Message[Any]:
        if each.data == "stuck":
            stuck.set()
            assert go.wait(PATIENCE)
        return each

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


def test_a_handler_may_wait_for_another_one_after_thousands_of_quick_ones() -> None:
    met = threading.Barrier(2)

    def sometimes_meeting(each: Message[Any]) -> Message[Any]:
        if each.data == "meet":
            met.wait(PATIENCE)
        return each

    source, sink = Source(), Sink()
    source.pipe(ops.process(sometimes_meeting, 4)).subscribe(sink)
    learn_that_handlers_are_quick(source, sink)
    source.on_next(message("meet"))
    source.on_next(message("meet"))
    sink.until(lambda: len(sink.data) == 5002)
    source.on_completed()
    sink.until_end()


def test_a_source_waits_while_too_many_are_in_flight() -> None:
    go = threading.Event()
    handed = 0

    def wait(each: Message[int]) -> Message[int]:
        assert go.wait(PATIENCE)
        return each

    def feed() -> Iterator[Message[int]]:
        nonlocal handed
        for number in range(1000):
            handed += 1
            yield message(number)

    stream = reactivex.from_iterable(feed(), NewThreadScheduler()).pipe(ops.process(wait, 2))
    sink = Sink()
    stream.subscribe(sink)
    deadline = threading.Event()
    while stream.stats().in_flight < 20:
        deadline.wait(0.01)
    deadline.wait(0.05)  # time for what must not happen
    assert handed <= 21
    go.set()
    assert sorted(sink.until_end()) == list(range(1000))


def test_a_slow_observer_keeps_one_worker_not_all_of_them() -> None:
    go = threading.Event()
    handled = threading.Semaphore(0)

    def note(each: Message[int]) -> Message[int]:
        handled.release()
        return each

    source, got = Source(), []

    def slow(each: Message[int]) -> None:
        assert go.wait(PATIENCE)
        got.append(each.data)

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
        self.successful += [each.data for each in successful]
        self.failed += [each.status for each in failed]


def raising(each: Message[str]) -> Message[str]:
    raise ValueError(each.data)


def failing(each: Message[str]) -> Message[str]:
    return each.failed("not today")


def forgetful(each: Message[str]) -> Any:
    return each.data


def leaving(each: Message[str]) -> Message[str]:
    raise SystemExit(each.data)


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
def test_a_failed_message_is_counted_reported_acknowledged_and_left_out(
    handler: Any, reason: str, ordered: bool
) -> None:
    acks = Acks()

    def sometimes(each: Message[str]) -> Any:
        return handler(each) if each.data == "bad" else each

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


def test_a_raising_observer_is_counted_and_gets_the_rest() -> None:
    got = []
    ended = threading.Event()

    def bad(each: Message[int]) -> None:
        got.append(each.data)
        raise ValueError(each.data)

    stream = reactivex.from_iterable(map(message, range(50))).pipe(ops.process(lambda each: each))
    stream.subscribe(bad, on_completed=ended.set)
    assert ended.wait(PATIENCE)
    assert sorted(got) == list(range(50))
    assert stream.stats().subscriber_errors == 50


# Ends.


def test_an_empty_source_completes() -> None:
    assert run(upcase, []) == ([], rxtweets.Stats())


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("fault", [None, ValueError("source")])
def test_the_end_waits_for_what_is_in_flight(ordered: bool, fault: Exception | None) -> None:
    go = threading.Event()

    def wait(each: Message[str]) -> Message[str]:
        assert go.wait(PATIENCE)
        return each

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


def test_disposing_abandons_what_is_in_flight_and_counts_it() -> None:
    go, started = threading.Event(), threading.Semaphore(0)

    def wait(each: Message[int]) -> Message[int]:
        started.release()
        assert go.wait(PATIENCE)
        return each

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
def test_disposing_from_inside_on_next_ends_it(ordered: bool) -> None:
    source = Source()
    got: list[Any] = []
    done = threading.Event()
    holder: list[reactivex.abc.DisposableBase] = []

    def once(each: Message[int]) -> None:
        got.append(each.data)
        holder[0].dispose()
        done.set()

    stream = source.pipe(ops.process(lambda each: each, ordered=ordered))
    holder.append(stream.subscribe(once))
    for number in range(100):
        source.on_next(message(number))
    assert done.wait(PATIENCE)
    assert len(got) == 1
    stats = stream.stats()
    assert stats.in_flight == 0


def test_taking_enough_ends_it() -> None:
    sink = Sink()
    reactivex.from_iterable(map(message, range(1000))).pipe(
        ops.process(lambda each: each, ordered=True), stock.take(3)
    ).subscribe(sink)
    assert sink.until_end() == [0, 1, 2]


# Composition.


def test_two_subscribers_of_a_cold_source_run_apart() -> None:
    messages = [message("a"), message("b")]
    stream = reactivex.from_iterable(messages).pipe(ops.process(upcase, ordered=True))
    one, two = Sink(), Sink()
    stream.subscribe(one)
    stream.subscribe(two)
    assert one.until_end() == two.until_end() == ["A", "B"]


def test_stock_operators_may_stand_before_and_behind() -> None:
    sink = Sink()
    source: Any = reactivex.from_iterable(map(message, range(10)))
    source.filter(lambda each: each.data % 2).pipe(
        ops.process(lambda each: each.update_data(str), ordered=True),
        stock.map(upcase),
        ops.process(as_number, ordered=True),
    ).subscribe(sink)
    assert sink.until_end() == [1, 3, 5, 7, 9]


def test_a_handler_may_feed_its_own_source() -> None:
    source, sink = Source(), Sink()

    def again(each: Message[int]) -> Message[int]:
        if each.data < 500:
            source.on_next(message(each.data + 1))
        return each

    source.pipe(ops.process(again, 1)).subscribe(sink)
    source.on_next(message(0))
    sink.until(lambda: len(sink.data) == 501)
    source.on_completed()
    assert sorted(sink.until_end()) == list(range(501))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((3,), "handler=3"), ((upcase, 0), "concurrency=0"), ((upcase, 1.5), "concurrency=1.5")],
)
def test_arguments_that_cannot_work_are_refused_at_once(arguments: Any, words: str) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match=words):
        ops.process(*arguments)


@pytest.mark.parametrize(("most", "least"), [(1, None), (6, 0), (6, 2), (6, 5)])
def test_a_source_that_is_asked_gives_so_many_for_each_processor(
    most: int, least: int | None
) -> None:
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

    def handle(each: Message[int]) -> Message[int]:
        held.acquire()
        return each

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
def test_a_demand_that_cannot_work_is_refused(options: Any) -> None:
    [name] = options
    with pytest.raises(rxtweets.ConfigurationError, match=name):
        ops.process(upcase, **options)
