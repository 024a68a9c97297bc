from __future__ import annotations

import threading

from rxtweets.workers import WorkerPool

PATIENCE = 20.0


def names() -> set[str]:
    return {each.name for each in threading.enumerate() if each.name.startswith("rxtweets-test")}


def test_tasks_run_at_once_each_on_a_thread() -> None:
    pool = WorkerPool("rxtweets-test")
    together = threading.Barrier(6)

    def meet() -> None:
        together.wait(PATIENCE)

    for _ in range(5):
        pool.submit(meet)
    together.wait(PATIENCE)
    pool.close()


def test_a_parked_thread_takes_the_next_task() -> None:
    pool = WorkerPool("rxtweets-test")
    for _ in range(50):
        done = threading.Event()
        pool.submit(done.set)
        assert done.wait(PATIENCE)
        while len(pool._parked) < 1:
            threading.Event().wait(0.001)
    assert names() == {"rxtweets-test-1"}
    pool.close()


def test_no_thread_starts_before_the_first_task() -> None:
    WorkerPool("rxtweets-test")
    assert names() == set()


def test_closing_lets_running_tasks_end() -> None:
    pool = WorkerPool("rxtweets-test")
    go, ended = threading.Event(), threading.Event()

    def finish() -> None:
        go.wait(PATIENCE)
        ended.set()

    pool.submit(finish)
    pool.close()
    go.set()
    assert ended.wait(PATIENCE)


def test_threads_are_daemons_that_hold_up_nobody() -> None:
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
