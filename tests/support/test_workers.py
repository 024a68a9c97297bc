from __future__ import annotations

import ctypes
import threading

import pytest

from rxtweets._support.workers import WorkerPool

PATIENCE = 20.0

dies = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


def names() -> set[str]:
    return {
        name
        for thread in threading.enumerate()
        if (name := thread.name).startswith("rxtweets-test")
    }


def test_pool_runs_tasks_concurrently() -> None:
    pool = WorkerPool("rxtweets-test")
    together = threading.Barrier(6)

    def meet() -> None:
        together.wait(PATIENCE)

    for _ in range(5):
        pool.submit(meet)
    together.wait(PATIENCE)
    pool.close()


def test_pool_reuses_a_parked_thread() -> None:
    pool = WorkerPool("rxtweets-test")
    for _ in range(50):
        done = threading.Event()
        pool.submit(done.set)
        assert done.wait(PATIENCE)
        while len(pool._parked) < 1:
            threading.Event().wait(0.001)
    assert names() == {"rxtweets-test-1"}
    pool.close()


def test_pool_starts_no_thread_before_the_first_task() -> None:
    WorkerPool("rxtweets-test")
    assert names() == set()


def kill(thread: threading.Thread) -> None:
    """Raise SystemExit in the thread, as soon as it runs again."""
    assert thread.ident is not None
    number = ctypes.c_ulong(thread.ident)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(SystemExit)) == 1


@dies
def test_pool_runs_the_task_of_a_thread_that_dies_on_another() -> None:
    pool = WorkerPool("rxtweets-test")
    first = threading.Event()
    pool.submit(first.set)
    assert first.wait(PATIENCE)
    while len(pool._parked) < 1:
        threading.Event().wait(0.001)
    [thread] = [thread for thread in threading.enumerate() if thread.name == "rxtweets-test-1"]
    threading.Event().wait(0.05)  # until it is parked
    kill(thread)
    done = threading.Event()
    by: list[str] = []

    def note() -> None:
        by.append(threading.current_thread().name)
        done.set()

    pool.submit(note)
    assert done.wait(PATIENCE)
    assert by == ["rxtweets-test-2"]
    pool.close()


@dies
def test_pool_runs_a_task_that_raises_once() -> None:
    pool = WorkerPool("rxtweets-test")
    calls: list[int] = []

    def leave() -> None:
        calls.append(1)
        raise SystemExit

    pool.submit(leave)
    done = threading.Event()
    pool.submit(done.set)
    assert done.wait(PATIENCE)
    pool.close()
    while names():
        threading.Event().wait(0.001)
    assert calls == [1]


def test_close_lets_running_tasks_end() -> None:
    pool = WorkerPool("rxtweets-test")
    go, ended = threading.Event(), threading.Event()

    def finish() -> None:
        go.wait(PATIENCE)
        ended.set()

    pool.submit(finish)
    pool.close()
    go.set()
    assert ended.wait(PATIENCE)


def test_pool_threads_are_daemons() -> None:
    pool = WorkerPool("rxtweets-test")
    daemon: list[bool] = []
    done = threading.Event()

    def look() -> None:
        daemon.append(threading.current_thread().daemon)
        done.set()

    pool.submit(look)
    assert done.wait(PATIENCE)
    assert daemon == [True]
    pool.close()
