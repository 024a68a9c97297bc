"""Threads that take tasks, started when they are first needed and parked between tasks."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["WorkerPool"]

Task = Callable[[], None]


class WorkerPool:
    """Daemon threads for tasks that never raise.

    Handing a task to a parked thread costs one lock, a fifth of a submit to a
    `ThreadPoolExecutor`; and as daemons they do not hold up the end of the program while a
    handler hangs.

    Args:
        name: of the threads, a number is added.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._parked: list[_Worker] = []
        self._count = 0
        self._closed = False

    def submit(self, task: Task) -> None:
        """Run the task on a parked thread, or on a new one."""
        with self._lock:
            if self._parked:
                self._parked.pop().wake(task)
                return
            self._count += 1
            number = self._count
        name = f"{self._name}-{number}"
        threading.Thread(target=_Worker(task).run, args=(self,), name=name, daemon=True).start()

    def close(self) -> None:
        """Let parked threads end, and the others after their tasks."""
        with self._lock:
            self._closed = True
            parked, self._parked = self._parked, []
            for worker in parked:
                worker.wake(None)

    def park(self, worker: _Worker) -> bool:
        """Keep the worker for later; ``False`` if the pool is closed."""
        with self._lock:
            if not self._closed:
                self._parked.append(worker)
            return not self._closed

    def bury(self, worker: _Worker) -> None:
        """The worker's thread dies: a task that it was given and has not begun goes to another."""
        with self._lock:
            if worker in self._parked:
                self._parked.remove(worker)
            task = worker.take()
        if task is not None:
            self.submit(task)


class _Worker:
    def __init__(self, task: Task) -> None:
        self._task: Task | None = task
        self._woken = threading.Lock()
        self._woken.acquire()

    def wake(self, task: Task | None) -> None:
        """Only with the pool's lock, so that no thread dies in the middle of it unnoticed."""
        self._task = task
        self._woken.release()

    def take(self) -> Task | None:
        task, self._task = self._task, None
        return task

    def run(self, pool: WorkerPool) -> None:
        try:
            while (task := self.take()) is not None:
                task()
                if not pool.park(self):
                    return
                self._woken.acquire()
        except BaseException:
            pool.bury(self)
            raise
