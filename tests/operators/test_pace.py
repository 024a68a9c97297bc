"""One thread for quick handlers, and what it holds when one of them is not quick."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import reactivex
from reactivex.disposable import Disposable

from rxtweets import Message, MessageStream
from rxtweets import operators as ops
from rxtweets.observable import new_telemetry
from rxtweets.operators._pace import Pace, Watch

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
