"""Coroutines on an event loop in a thread: ``async def`` handlers and subscribers."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
from time import perf_counter
from typing import Any

from reactivex import abc

from rxtweets._core.concurrency import Concurrency
from rxtweets._core.events import WorkerReplaced
from rxtweets._core.subscriber import FunctionSubscriber
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets._support.workers import Died, start_thread
from rxtweets.errors import HandlerTimeout
from rxtweets.operators._calls import (
    Call,
    Tracing,
    Waiting,
    call_of,
    checked,
    is_async,
    worker_lost,
)
from rxtweets.operators._processor import CallFlow, Processor

__all__ = ["AsyncSubscriber", "LoopRunner", "LoopThread", "is_awaited"]

GRACE = 0.5
"""Seconds that cancelled tasks have to end, when the loop stops."""

Awaited = dict[Future[Any], Coroutine[Any, Any, Any]]


class LoopThread:
    """An event loop in its own thread, from the first use to `stop`.

    So it makes no difference whether the caller's thread runs a loop, as a notebook's does.

    Args:
        working: a context manager that marks the thread as one of the stream.
        telemetry: counters and event bus.
        died: called with the error of a broken loop; the next call starts another loop.
    """

    def __init__(
        self,
        working: Callable[[], contextlib.AbstractContextManager[None]],
        telemetry: Telemetry,
        died: Died | None = None,
    ) -> None:
        self._working = working
        self._telemetry = telemetry
        self._died = died
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False
        self._awaited: Awaited = {}
        self._is_ended = False  # only on the loop's thread

    def call(self, function: Callable[[], object]) -> None:
        """Call a function on the loop soon; after `stop`, do nothing."""
        with self._lock:
            loop = self._started()
            if loop is not None:
                loop.call_soon_threadsafe(function)

    def wait_for(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop, and wait for its result.

        Raises:
            CancelledError: the loop was stopped before the coroutine ended.
            WorkerLost: the loop broke.
        """
        future: Future[Any] | None = None
        try:
            with self._lock:
                if (loop := self._started()) is not None:
                    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
                    self._awaited[future] = coroutine
        finally:
            if future is None:
                coroutine.close()
        if future is None:
            raise CancelledError("the stream was disposed before this call began")
        try:
            return future.result()
        finally:
            with self._lock:
                self._awaited.pop(future, None)

    def stop(self) -> None:
        """Cancel all tasks, and end the thread."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._end)

    def _started(self) -> asyncio.AbstractEventLoop | None:
        if self._stopped:
            return None
        if self._loop is None:
            loop = asyncio.new_event_loop()
            try:
                start_thread("rxtweets-loop", partial(self._run, loop), self._fail)
            except RuntimeError:  # the system starts no more threads: the next call tries again
                loop.close()
                raise
            self._loop = loop
        return self._loop

    def _end(self) -> None:
        self._is_ended = True
        asyncio.get_running_loop().stop()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._working():
            # Until `_end` ran: then each earlier call has become a task, which can be cancelled.
            while not self._is_ended:
                self._run_until_stopped(loop)
            _cancel_all(loop)
            self._release(
                lambda: CancelledError(f"the call did not end within {GRACE} s of its cancellation")
            )
            loop.close()

    def _run_until_stopped(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_forever()
        except Exception:  # no task raises one out of the loop: the loop itself is broken
            raise
        except BaseException as error:  # noqa: BLE001 - a SystemExit of a task
            self._report(error, 0)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            loop, self._loop = self._loop, None
        self._report(
            error, self._release(lambda: worker_lost(f"the event loop died of {error!r}", error))
        )
        if self._died is not None:
            self._died(error)
        if loop is not None:  # last: closing a broken loop may raise
            loop.close()

    def _release(self, error: Callable[[], Exception]) -> int:
        """Fail the coroutines that threads wait for; return their number."""
        with self._lock:
            awaited, self._awaited = self._awaited, {}
        for future, coroutine in awaited.items():
            with contextlib.suppress(BaseException):  # its result came just now; it does not close
                future.set_exception(error())
                coroutine.close()
        return len(awaited)

    def _report(self, error: BaseException, messages: int) -> None:
        self._telemetry.add(workers_lost=1)
        self._telemetry.publish(WorkerReplaced("loop", error, messages))


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    cancelled: set[asyncio.Task[Any]] = set()
    ends = loop.time() + GRACE
    while (tasks := asyncio.all_tasks(loop)) and (rest := ends - loop.time()) > 0:
        for task in tasks - cancelled:
            task.cancel()
        cancelled |= tasks
        with contextlib.suppress(BaseException):  # a SystemExit of one task
            loop.run_until_complete(asyncio.wait(tasks, timeout=rest))
    with contextlib.suppress(BaseException):
        loop.run_until_complete(loop.shutdown_asyncgens())


class LoopRunner:
    """Runs calls as tasks of one loop, up to ``concurrency`` concurrently.

    Each task has a copy of the context (`contextvars`) of the subscription.

    Args:
        handler: an async function of a message.
        name: its name, for errors.
        flow: takes the results.
        processor: emits them.
        concurrency: tasks at most.
        telemetry: counters and event bus.
        loop: runs the tasks.
        time_limit: seconds for a call; then its message fails and its task is cancelled.
    """

    def __init__(
        self,
        handler: Callable[[Message[Any]], Awaitable[Any]],
        name: str,
        flow: CallFlow,
        processor: Processor,
        concurrency: Concurrency,
        telemetry: Telemetry,
        loop: LoopThread,
        time_limit: float | None,
    ) -> None:
        self._handler = handler
        self._name = name
        self._flow = flow
        self._processor = processor
        self._concurrency = concurrency
        self._telemetry = telemetry
        self._loop = loop
        self._time_limit = time_limit
        self._tracing = Tracing(telemetry)
        self._context = contextvars.copy_context()
        self._pending: deque[Waiting] = deque()
        self._is_called = False
        self._stopped = False
        # Only on the loop's thread:
        self._tasks: dict[asyncio.Task[Message[Any]], float] = {}
        self._limits: dict[asyncio.Task[Message[Any]], asyncio.TimerHandle] = {}
        self._busy = 0.0

    def submit(self, calls: Sequence[Waiting]) -> None:
        """Queue calls; return immediately."""
        self._pending.extend(calls)
        self.resize()

    def resize(self) -> None:
        """Let the loop start as many calls as the current limit allows."""
        if self._is_called:
            return
        self._is_called = True
        try:
            self._loop.call(self._begin)
        except RuntimeError as error:  # the system starts no more threads, so there is no loop
            self._is_called = False
            with contextlib.suppress(IndexError):
                while True:
                    call = call_of(self._pending.popleft())
                    self._flow.finish(call, call.message.failed(error))
            self._processor.emit(elsewhere=True)

    def stop(self) -> None:
        """Start no more calls; running tasks are cancelled when the loop stops."""
        self._stopped = True
        self._pending.clear()

    def load(self) -> tuple[int, float]:
        """Return the number of running calls, and the seconds of all calls so far."""
        now = perf_counter()
        began = list(self._tasks.values())
        return len(began), self._busy + sum(now - start for start in began)

    def _begin(self) -> None:
        self._is_called = False  # before the check: a later caller calls again
        while not self._stopped and len(self._tasks) < self._concurrency.limit:
            try:
                call = call_of(self._pending.popleft())
            except IndexError:
                return
            if (expired := self._flow.start(call)) is not None:
                self._finish(call, expired)
            else:
                self._start(call)

    def _start(self, call: Call) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._call(call.message), context=self._context.copy())
        self._tasks[task] = perf_counter()
        task.add_done_callback(partial(self._end, call))
        if self._time_limit is not None:
            self._limits[task] = loop.call_later(self._time_limit, self._time_out, call, task)

    async def _call(self, message: Message[Any]) -> Message[Any]:
        tracing = self._tracing if self._telemetry.bus.is_traced else None
        if tracing is not None:
            processor = tracing.begin()
            span = tracing.called(processor, message)
        try:
            result = checked(await self._handler(message), message, self._name)
        except BaseException as error:  # noqa: BLE001 - a SystemExit would end the loop
            result = message.failed(error)
        if tracing is not None:
            tracing.returned(processor, span, message, result)
            tracing.end(processor, [result])
        return result

    def _time_out(self, call: Call, task: asyncio.Task[Message[Any]]) -> None:
        del self._limits[task]
        self._telemetry.add(timed_out=1)
        error = HandlerTimeout(
            f"{self._name} took longer than its time limit of {self._time_limit:g} s"
        )
        self._finish(call, call.message.failed(error))
        task.cancel()

    def _end(self, call: Call, task: asyncio.Task[Message[Any]]) -> None:
        self._busy += perf_counter() - self._tasks.pop(task)
        limit = self._limits.pop(task, None)
        if limit is not None:
            limit.cancel()
        if limit is not None or self._time_limit is None:  # else it has timed out
            # A task that is cancelled before it starts does not reach its own `except`.
            cancelled = task.cancelled()
            result = call.message.failed(asyncio.CancelledError()) if cancelled else task.result()
            self._finish(call, result)
        self._begin()

    def _finish(self, call: Call, result: Message[Any]) -> None:
        self._flow.finish(call, result)
        self._processor.emit(elsewhere=True)


def is_awaited(subscriber: abc.ObserverBase[Batch[Any]]) -> bool:
    """Return whether the subscriber's ``on_next`` is a coroutine function."""
    if isinstance(subscriber, FunctionSubscriber):
        return subscriber.function is not None and is_async(subscriber.function)
    return is_async(subscriber.on_next)


class AsyncSubscriber(abc.ObserverBase[Batch[Any]]):
    """Runs the coroutines of a subscriber on a loop, and waits for them; from several threads.

    Args:
        subscriber: its ``on_next`` is ``async def``; the other two methods may be.
        telemetry: of the stream.
    """

    def __init__(self, subscriber: abc.ObserverBase[Batch[Any]], telemetry: Telemetry) -> None:
        self._subscriber: Any = subscriber
        self._loop = LoopThread(telemetry.working, telemetry)

    def on_next(self, batch: Batch[Any]) -> Any:
        """Return the result of the subscriber's coroutine.

        Raises:
            CancelledError: the stream was disposed before it ended.
        """
        return self._loop.wait_for(self._subscriber.on_next(batch))

    def on_error(self, error: Exception) -> None:
        """Pass the error on."""
        self._finish(self._subscriber.on_error(error))

    def on_completed(self) -> None:
        """Pass the end on."""
        self._finish(self._subscriber.on_completed())

    def close(self) -> None:
        """Cancel all tasks, and end the loop's thread."""
        self._loop.stop()

    def _finish(self, result: Any) -> None:
        if inspect.iscoroutine(result):
            self._loop.wait_for(result)
