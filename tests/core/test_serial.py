"""`SerialTask`: a step on one thread at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from rxtweets._core.serial import SerialTask

PATIENCE = 20.0


def refuse(_: Callable[[], None]) -> NoReturn:
    raise RuntimeError("can't start new thread")


def test_thread_returns_when_another_is_at_the_step() -> None:
    work, done = deque([1]), list[int]()
    inside, go = threading.Event(), threading.Event()

    def step() -> None:
        inside.set()
        assert go.wait(PATIENCE)
        while work:
            done.append(work.popleft())

    task = SerialTask(lambda: work, step, refuse)
    thread = threading.Thread(target=task.run)
    thread.start()
    assert inside.wait(PATIENCE)
    work.append(2)
    task.run()
    assert done == []
    go.set()
    thread.join(PATIENCE)
    assert done == [1, 2]


def test_work_is_done_when_it_comes_at_the_end_of_a_step() -> None:
    work, done = deque([1]), list[int]()

    def step() -> None:
        done.append(work.popleft())
        if done == [1]:
            work.append(2)
            task.run()  # finds this thread at the step

    task = SerialTask(lambda: work, step, refuse)
    task.run()
    assert done == [1, 2]


def test_step_is_spawned_once_when_it_waits_for_its_thread() -> None:
    work, done = deque([1, 2]), list[int]()
    spawned: list[Callable[[], None]] = []
    task = SerialTask(lambda: work, lambda: done.append(work.popleft()), spawned.append)
    task.spawn()
    task.spawn()
    [run] = spawned
    run()
    assert done == [1, 2]
    task.spawn()
    assert len(spawned) == 2


def test_step_runs_here_when_no_thread_can_start() -> None:
    work, done = deque([1]), list[int]()
    SerialTask(lambda: work, lambda: done.append(work.popleft()), refuse).spawn()
    assert done == [1]
