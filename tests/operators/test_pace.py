"""One thread for quick handlers, and the others when one of them blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
import reactivex
from reactivex.disposable import Disposable

from rxtweets import Concurrency, Message, MessageStream
from rxtweets import operators as ops
from rxtweets._core.observable import new_telemetry
from rxtweets._core.telemetry import Telemetry
from rxtweets.operators._threads import Pace, RepeatedCheck, ThreadRunner

PATIENCE = 20.0


class Chunks:
    """A source of lists."""

    def __init__(self) -> None:
        self.observer: Any = None
        self.stream: MessageStream[Any] = MessageStream(self._subscribe, new_telemetry())

    def give(self, *data: Any) -> None:
        self.observer.on_next([Message(value) for value in data])

    def _subscribe(self, observer: Any, _scheduler: Any) -> reactivex.abc.DisposableBase:
        self.observer = observer
        return Disposable()


@pytest.mark.parametrize("behind", [0, 10])
@pytest.mark.parametrize("options", [{}, {"ordered": True}, {"time_limit": PATIENCE}])
def test_earlier_results_do_not_wait_for_a_blocked_call(options: Any, behind: int) -> None:
    go, changed = threading.Event(), threading.Condition()
    got: list[Any] = []
    ended = threading.Event()

    def handle(message: Message[Any]) -> Message[Any]:
        if message.data == "stuck":
            assert go.wait(PATIENCE)
        return message

    def note(message: Message[Any]) -> None:
        with changed:
            got.append(message.data)
            changed.notify_all()

    def until(count: int) -> None:
        with changed:
            assert changed.wait_for(lambda: len(got) == count, PATIENCE), len(got)

    source = Chunks()
    stream = source.stream.pipe(ops.process(handle, 4, **options))
    stream.subscribe(note, on_completed=ended.set)
    for _ in range(50):
        source.give(*range(100))
    until(5000)
    source.give(*range(10), "stuck", *range(behind))
    until(5010 if options.get("ordered") else 5010 + behind)
    go.set()
    source.observer.on_completed()
    assert ended.wait(PATIENCE)
    assert len(got) == 5011 + behind
    assert got.count("stuck") == 1


class Timers:
    """Delays and functions, called when the test says so."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []

    def after(self, delay: float, function: Callable[[], None]) -> None:
        self.due.append((delay, function))

    def run(self) -> None:
        (_, function), *self.due = self.due
        function()


def repeated(answers: Iterator[float | None]) -> tuple[Timers, RepeatedCheck]:
    timers: Any = Timers()
    return timers, RepeatedCheck(timers, lambda: next(answers))


def test_check_is_repeated_while_it_returns_a_delay() -> None:
    timers, check = repeated(iter([2.0, 3.0, None]))
    check.arm(1.0)
    delays = []
    while timers.due:
        delays.append(timers.due[0][0])
        timers.run()
    assert delays == [1.0, 2.0, 3.0]


def test_check_is_due_once_when_armed_twice() -> None:
    timers, check = repeated(iter([None, None]))
    for _ in range(2):
        check.arm(1.0)
        check.arm(1.0)
        assert len(timers.due) == 1
        timers.run()
    assert timers.due == []


def test_check_is_due_again_when_armed_while_it_runs() -> None:
    timers: Any = Timers()

    def arm_again() -> None:
        check.arm(1.0)

    check = RepeatedCheck(timers, arm_again)
    check.arm(1.0)
    timers.run()
    assert len(timers.due) == 1


def test_check_can_be_armed_again_when_no_thread_started() -> None:
    def refuse(*_: Any) -> NoReturn:
        raise RuntimeError("can't start new thread")

    timers: Any = Timers()
    check = RepeatedCheck(timers, lambda: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timers, "after", refuse)
        with pytest.raises(RuntimeError):
            check.arm(1.0)
    check.arm(1.0)
    assert len(timers.due) == 1


# Whether handlers are quick.

QUICK, SLOW = 0.000_002, 0.005


def test_handlers_are_quick_after_many_quick_calls() -> None:
    pace = Pace()
    noted = 0
    while not pace.is_quick:
        pace.note(1, QUICK)
        noted += 1
    assert 100 < noted < 300


@pytest.mark.parametrize("every", [100, 300])
def test_handlers_stay_quick_when_a_call_waits_for_a_core(every: int) -> None:
    pace = Pace()
    pace.note(1000, 1000 * QUICK)
    for _ in range(100):
        pace.note(every, every * QUICK + SLOW)
    assert pace.is_quick


def test_handlers_are_slow_after_a_few_calls_that_block() -> None:
    pace = Pace()
    pace.note(1000, 1000 * QUICK)
    assert pace.is_quick
    for _ in range(5):
        pace.note(1, SLOW)
    assert not pace.is_quick


def test_one_thread_is_not_tried_again_immediately(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("rxtweets.operators._threads.perf_counter", lambda: now)
    pace = Pace()
    pace.leave()
    pace.note(1000, 1000 * QUICK)
    assert not pace.is_quick
    now += 2 * Pace.FIRST_HOLD
    pace.note(1, QUICK)
    assert pace.is_quick


# A call that blocks.


class Stuck:
    """A handler that blocks at one message, and the count of results."""

    def __init__(self) -> None:
        self.go, self.inside, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.source = Chunks()
        self._count, self._changed = 0, threading.Condition()
        stream = self.source.stream.pipe(ops.process(self._handle, 4))
        stream.subscribe(self._note, on_completed=self.ended.set)

    def _handle(self, message: Message[Any]) -> Message[Any]:
        if message.data == "stuck":
            self.inside.set()
            assert self.go.wait(2 * PATIENCE)
        return message

    def _note(self, _: Message[Any]) -> None:
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def until(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._count == count, PATIENCE), self._count

    def end(self) -> None:
        self.go.set()
        self.source.observer.on_completed()
        assert self.ended.wait(PATIENCE)


def test_later_messages_do_not_wait_for_a_blocked_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runners: list[ThreadRunner] = []
    original = ThreadRunner.__init__

    def note(runner: ThreadRunner, *args: Any) -> None:
        runners.append(runner)
        original(runner, *args)

    monkeypatch.setattr(ThreadRunner, "__init__", note)
    stuck = Stuck()
    runners[0]._pace.is_quick = True
    stuck.source.give("stuck")
    assert stuck.inside.wait(PATIENCE)
    while runners[0]._stuck_check._is_armed:  # nothing else waits, so it is not repeated
        threading.Event().wait(0.001)
    stuck.source.give(*range(20))
    stuck.until(20)
    stuck.end()


def test_thread_is_watched_when_it_becomes_the_only_one() -> None:
    stuck = Stuck()
    stuck.source.give(*range(350), "stuck", *range(1000))
    stuck.until(1350)
    stuck.end()


def test_results_are_emitted_when_a_run_takes_five_ms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = 0.0
    finished: list[int] = []
    emitted: list[int] = []

    class Flow:
        handle = finish = None

        def handle_message(self, message: int) -> None:
            nonlocal seconds
            seconds += 0.000_15
            finished.append(message)

    class Processor:
        may_wait = False

        def spawn(self, task: Callable[[], None]) -> None:
            task()

        def emit(self) -> None:
            emitted.append(len(finished) - sum(emitted))

    flow: Any = Flow()
    processor: Any = Processor()
    monkeypatch.setattr("rxtweets.operators._threads.perf_counter", lambda: seconds)
    runner = ThreadRunner(flow, processor, Concurrency(4), Telemetry())
    runner._pace.note(1000, 1000 * QUICK)
    calls: Any = list(range(100))
    runner.submit(calls)
    assert emitted == [34, 34, 32]  # 5 ms each, but for the last
