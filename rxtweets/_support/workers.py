"""Threads: the function that starts them all, and a pool."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

from rxtweets.errors import RxTweetsError, StreamError

__all__ = ["Died", "WorkerPool", "as_exception", "is_interrupt", "start_thread", "unexpected"]

log = logging.getLogger("rxtweets")

Died = Callable[[BaseException], object]
"""Takes the exception that ended a thread; called on that thread."""


def start_thread(
    name: str, work: Callable[[], object], died: Died | None = None, *, repeats: bool = False
) -> threading.Thread:
    """Start a daemon thread whose exceptions are reported.

    Python prints exceptions of a thread, and ignores a SystemExit (`threading.excepthook`).

    Args:
        name: of the thread.
        work: the function to run.
        died: called with an exception of the work; without it, or if it raises, it is logged.
        repeats: run the work again after an exception.

    Raises:
        RuntimeError: the system starts no more threads.
    """

    def run() -> None:
        while True:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - a SystemExit too
                _report(name, error, died)
                if repeats:
                    continue
            return

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def _report(name: str, error: BaseException, died: Died | None) -> None:
    try:
        if died is not None:
            died(error)
            return
    except BaseException as raised:  # noqa: BLE001 - then it is logged
        error = raised
    with contextlib.suppress(Exception):  # a log must not end the thread
        log.warning("the thread %s died of %r", name, error, exc_info=error)


def unexpected(doing: str, error: BaseException) -> RxTweetsError:
    """Return the error for ``on_error`` of observers whose thread died.

    Args:
        doing: activity of the thread, such as ``reading``.
        error: raised by the thread; returned as it is, if it is an error of rxtweets.
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
    """Return whether the error is Ctrl-C, raised on the main thread.

    That happens if a source or a scheduler of the user runs there, not in a `Pipeline`.
    """
    on_main_thread = threading.current_thread() is threading.main_thread()
    return isinstance(error, KeyboardInterrupt) and on_main_thread


class WorkerPool:
    """Daemon threads for tasks that never raise.

    Waking a parked thread costs one lock, less than a submit to a `ThreadPoolExecutor`. Daemons do
    not delay the exit of the program while a handler hangs.

    Args:
        name: of the threads, followed by a number.
        died: called with an exception of a task, whose thread ends.
    """

    def __init__(self, name: str, died: Died | None = None) -> None:
        self._name = name
        self._died = died
        self._lock = threading.Lock()
        self._parked: list[_PoolThread] = []
        self._count = 0
        self._closed = False

    def submit(self, task: Callable[[], None]) -> None:
        """Run the task on a parked thread, or on a new one."""
        with self._lock:
            if self._parked:
                self._parked.pop().wake(task)
                return
            self._count += 1
            name = f"{self._name}-{self._count}"
        worker = _PoolThread(task)
        start_thread(name, lambda: self._work(worker), self._died)

    def close(self) -> None:
        """End parked threads now, and the others after their tasks."""
        with self._lock:
            self._closed = True
            for worker in self._parked:
                worker.wake(None)
            self._parked.clear()

    def _work(self, worker: _PoolThread) -> None:
        try:
            while (task := worker.take()) is not None:
                task()
                with self._lock:
                    if self._closed:
                        return
                    self._parked.append(worker)
                worker.woken.acquire()
        except BaseException:
            # The thread dies: another one runs the task that this one was given and did not start.
            with self._lock:
                if worker in self._parked:
                    self._parked.remove(worker)
                task = worker.take()
            if task is not None:
                self.submit(task)
            raise


class _PoolThread:
    def __init__(self, task: Callable[[], None]) -> None:
        self._task: Callable[[], None] | None = task
        self.woken = threading.Lock()
        self.woken.acquire()

    def wake(self, task: Callable[[], None] | None) -> None:
        # Called with the lock of the pool, so that the thread cannot die unnoticed meanwhile.
        self._task = task
        self.woken.release()

    def take(self) -> Callable[[], None] | None:
        task, self._task = self._task, None
        return task
