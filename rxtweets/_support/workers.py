"""The one place that starts threads, and a pool of threads that take tasks."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

from rxtweets.errors import RxTweetsError, StreamError

__all__ = ["Died", "WorkerPool", "as_exception", "is_interrupt", "start_thread", "unexpected"]

log = logging.getLogger("rxtweets")

Task = Callable[[], None]

Died = Callable[[BaseException], object]
"""Tells those who wait for a thread what it died of; called on that thread."""


def start_thread(
    name: str, work: Callable[[], object], died: Died | None = None, *, goes_on: bool = False
) -> threading.Thread:
    """Start a daemon thread that cannot die unseen.

    Python prints what a thread raises, which few programs collect, and of a SystemExit it says
    nothing (`threading.excepthook`).

    Args:
        name: of the thread.
        work: what it does.
        died: tells those who wait for it. Without this there is a warning in the log.
        goes_on: the work begins again after that.

    Raises:
        RuntimeError: the system starts no more threads.
    """

    def run() -> None:
        while True:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - a SystemExit too
                _tell(name, error, died)
                if goes_on:
                    continue
            return

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def _tell(name: str, error: BaseException, died: Died | None) -> None:
    try:
        if died is not None:
            died(error)
            return
    except BaseException as raised:  # noqa: BLE001 - nobody else is left to tell
        error = raised
    with contextlib.suppress(Exception):  # nothing that a log does may end a thread that goes on
        log.warning("the thread %s died of %r", name, error, exc_info=error)


def unexpected(doing: str, error: BaseException) -> RxTweetsError:
    """What ``on_error`` is given where a thread died: the error itself if it is one of ours.

    Args:
        doing: what the thread did, such as ``reading``.
        error: what it died of.
    """
    if isinstance(error, RxTweetsError):
        return error
    died = StreamError(f"{doing} failed unexpectedly: {error!r}")
    died.__cause__ = error
    return died


def as_exception(error: BaseException) -> Exception:
    """Return the error as ``on_error`` takes it; a SystemExit is wrapped."""
    if isinstance(error, Exception):
        return error
    wrapped = RuntimeError(f"{error!r} was raised, where an Exception was expected")
    wrapped.__cause__ = error
    return wrapped


def is_interrupt(error: BaseException) -> bool:
    """Whether this is the user's Ctrl-C: on the main thread, not what some code of theirs raised.

    Only where a source or a scheduler of theirs runs there; a `Pipeline` has threads of its own.
    """
    on_main_thread = threading.current_thread() is threading.main_thread()
    return isinstance(error, KeyboardInterrupt) and on_main_thread


class WorkerPool:
    """Daemon threads for tasks that never raise.

    Handing a task to a parked thread costs one lock, a fifth of a submit to a
    `ThreadPoolExecutor`; and as daemons they do not hold up the end of the program while a
    handler hangs.

    Args:
        name: of the threads, a number is added.
        died: takes what a task raised all the same; its thread ends.
    """

    def __init__(self, name: str, died: Died | None = None) -> None:
        self._name = name
        self._died = died
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
        worker = _Worker(task)
        start_thread(f"{self._name}-{number}", lambda: worker.run(self), self._died)

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
