"""One thread for quick handlers, and what it holds when one of them is not quick."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import reactivex
from reactivex.disposable import Disposable

from rxtweets import Concurrency, Message, MessageStream
from rxtweets import operators as ops
from rxtweets._core.observable import new_telemetry
from rxtweets._core.telemetry import Telemetry
from rxtweets.operators._pace import Pace, Watch
from rxtweets.operators._threads import ThreadRunner

PATIENCE = 20.0


class Chunks:
    """A source of lists."""

    def __init__(self) -> None:
        self.observer: Any = None
        self.stream: MessageStream[Any] = MessageStream(self._subscribe, new_telemetry())

    def give(self, *data: Any) -> None:
        self.observer.on_next([Message(each) for each in data])

    def _subscribe(self, observer: Any, _scheduler: Any) -> reactivex.abc.DisposableBase:
        self.observer = observer
        return Disposable()


@pytest.mark.parametrize("behind", [0, 10])
@pytest.mark.parametrize("options", [{}, {"ordered": True}, {"time_limit": PATIENCE}])
def test_what_was_done_before_a_call_that_blocks_does_not_wait_for_it(
    options: Any, behind: int
) -> None:
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


def test_work_that_comes_as_the_watch_goes_to_sleep_is_watched() -> None:
    brought = threading.Event()
    pace = Pace()
    pace.is_quick = True

    came = threading.Event()

    def is_stuck(_: int) -> tuple[bool, int]:
        if not watch._needed.is_set():  # it has just gone to sleep
            came.set()
        return came.is_set(), 0

    watch = Watch(pace, is_stuck, brought.set)
    watch.look()
    try:
        assert brought.wait(PATIENCE)
    finally:
        watch.stop()


def test_a_watch_that_is_stopped_as_it_goes_to_sleep_ends() -> None:
    looks: list[int] = []
    pace = Pace()
    pace.is_quick = True

    def is_stuck(_: int) -> tuple[bool, int]:
        looks.append(1)
        if len(looks) == 3:  # nothing has come for long enough: this is its last look
            watch.stop()
        return False, 0

    watch = Watch(pace, is_stuck, lambda: None)
    watch.look()
    [thread] = [each for each in threading.enumerate() if each.name == "rxtweets-watch"]
    thread.join(PATIENCE)
    assert not thread.is_alive()


class Stuck:
    """A handler of one thread that blocks at one message, and what came out."""

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


def test_what_comes_when_the_watch_sleeps_does_not_wait_for_a_call_that_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watches: list[Watch] = []
    original = Watch.__init__

    def note(watch: Watch, *args: Any) -> None:
        watches.append(watch)
        original(watch, *args)

    monkeypatch.setattr(Watch, "__init__", note)
    stuck = Stuck()
    watches[0]._pace.is_quick = True
    stuck.source.give("stuck")
    assert stuck.inside.wait(PATIENCE)
    while watches[0]._needed.is_set():  # nothing else waits, so it goes to sleep
        threading.Event().wait(0.001)
    stuck.source.give(*range(20))
    stuck.until(20)
    stuck.end()


def test_a_thread_that_has_become_the_only_one_is_watched_at_once() -> None:
    stuck = Stuck()
    stuck.source.give(*range(350), "stuck", *range(1000))
    stuck.until(1350)
    stuck.end()


def test_results_of_many_quick_calls_are_passed_on_when_they_add_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = 0.0
    passed_on: list[int] = []

    class Calls:
        def handle(self, item: int) -> int:
            nonlocal seconds
            seconds += 0.000_15
            return item

        def done(self, outcomes: list[int], *, elsewhere: bool = False) -> None:
            del elsewhere
            passed_on.append(len(outcomes))

    monkeypatch.setattr("rxtweets.operators._threads.perf_counter", lambda: seconds)
    calls: Any = Calls()
    runner = ThreadRunner(calls, Concurrency(4), Telemetry(), lambda task: task(), may_wait=False)
    runner._pace.is_quick = True
    runner.submit(list(range(100)))
    assert passed_on == [34, 34, 32]  # 5 ms each, but for the last
