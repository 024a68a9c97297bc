from __future__ import annotations

import threading
from typing import Any

import pytest
from reactivex.testing import TestScheduler

from rxtweets._support.timers import SchedulerTimers, ThreadTimers

PATIENCE = 20.0
NAME = "rxtweets-test-timers"


@pytest.fixture
def timers() -> Any:
    timers = ThreadTimers(NAME)
    yield timers
    timers.stop()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def test_functions_are_called_in_order_of_due_times(
    timers: ThreadTimers, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, called, done = [0.0], list[str](), threading.Event()
    monkeypatch.setattr("rxtweets._support.timers.monotonic", lambda: now[0])
    timers.after(0.03, done.set)
    timers.after(0.02, lambda: called.append("second"))
    timers.after(0.01, lambda: called.append("first"))
    now[0] = 1.0
    assert done.wait(PATIENCE)
    assert called == ["first", "second"]


def test_functions_of_one_time_are_called_in_order(
    timers: ThreadTimers,
) -> None:
    called: list[int] = []
    done = threading.Event()
    for number in range(100):
        timers.after(0.0, lambda number=number: called.append(number))  # type: ignore[misc]  # a default is an argument
    timers.after(0.0, done.set)
    assert done.wait(PATIENCE)
    assert called == list(range(100))


def test_sooner_function_does_not_wait_for_others(timers: ThreadTimers) -> None:
    done = threading.Event()
    timers.after(3600.0, lambda: None)
    timers.after(0.0, done.set)
    assert done.wait(PATIENCE)


def test_thread_starts_with_first_function(timers: ThreadTimers) -> None:
    assert threads() == []
    timers.after(3600.0, lambda: None)
    assert len(threads()) == 1


def test_stop_cancels_functions_and_ends_thread(timers: ThreadTimers) -> None:
    called = threading.Event()
    timers.after(0.05, called.set)
    [thread] = threads()
    timers.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    timers.after(0.0, called.set)
    assert not called.wait(0.1)


def test_scheduler_timers_follow_virtual_time() -> None:
    scheduler, called = TestScheduler(), list[float]()
    timers = SchedulerTimers(scheduler)
    timers.after(10.0, lambda: called.append(scheduler.clock))
    timers.after(20.0, lambda: called.append(scheduler.clock))
    scheduler.advance_to(15.0)
    timers.stop()
    scheduler.advance_to(30.0)
    assert called == [10.0]
