"""Calls of ``async def`` handlers: on one event loop, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from functools import partial
from time import perf_counter
from typing import Any

from rxtweets._core.concurrency import Concurrency
from rxtweets._core.events import WorkerReplaced
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import Message
from rxtweets._support.workers import Died, start_thread
from rxtweets.errors import HandlerTimeout, WorkerLost
from rxtweets.operators._calls import Call, Outcome, checked
from rxtweets.operators._flow import Flow
from rxtweets.operators._tracing import SpanStart, Tracing

__all__ = ["LoopRunner", "OwnLoop"]

GRACE = 0.5
"""Seconds that cancelled tasks have to end in, when the loop ends."""

Working = Callable[[], contextlib.AbstractContextManager[None]]


class OwnLoop:
    """An event loop in a thread of its own, there from the first use to `stop`.

    So it does not matter whether the caller has a loop, as a notebook does.

    Args:
        working: a context that marks the thread.
        telemetry: where to report what ends the loop: a task of the user's may raise SystemExit.
        died: takes what broke the loop, and all tasks with it; the next call makes another.
    """

    def __init__(self, working: Working, telemetry: Telemetry, died: Died | None = None) -> None:
        self._working = working
        self._telemetry = telemetry
        self._died = died
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False
        self._awaited: dict[Future[Any], Coroutine[Any, Any, Any]] = {}
        self._is_over = False  # of the loop's thread alone

    def call(self, function: Callable[[], object]) -> bool:
        """Call a function on the loop soon; ``False`` if the loop has ended."""
        with self._lock:
            loop = self._running()
            if loop is not None:
                loop.call_soon_threadsafe(function)
            return loop is not None

    def wait_for(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop, and wait for its result.

        Raises:
            CancelledError: the loop was stopped before the coroutine ended.
            WorkerLost: the loop died.
        """
        future: Future[Any] | None = None
        try:
            with self._lock:
                if (loop := self._running()) is not None:
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
        """Cancel what runs, and let the thread end."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._end)

    def _running(self) -> asyncio.AbstractEventLoop | None:
        """The loop, started if need be; ``None`` after `stop`. With the lock."""
        if self._stopped:
            return None
        if self._loop is None:
            loop = asyncio.new_event_loop()
            try:
                start_thread("rxtweets-loop", partial(self._run, loop), self._fail)
            except RuntimeError:  # no more threads can be started: the next call tries again
                loop.close()
                raise
            self._loop = loop
        return self._loop

    def _end(self) -> None:
        self._is_over = True
        asyncio.get_running_loop().stop()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._working():
            # Until `_end` was called: then each earlier call has become a task to cancel.
            while not self._is_over:
                self._run_until_stopped(loop)
            _cancel_all(loop)
            late = f"the call did not end within {GRACE} s of its cancellation"
            with self._lock:
                awaited, self._awaited = self._awaited, {}
            _release(awaited, lambda: CancelledError(late))
            loop.close()

    def _run_until_stopped(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_forever()
        except Exception:  # no task leaves one so: the loop itself is broken
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit and its kin leave a task so
            self._report(error, 0)

    def _fail(self, error: BaseException) -> None:
        """The loop is broken: the calls on it fail, and the next call makes another loop."""
        with self._lock:
            loop, self._loop = self._loop, None
            awaited, self._awaited = self._awaited, {}
        _release(awaited, lambda: _lost(error))
        self._report(error, len(awaited))
        if self._died is not None:
            self._died(error)
        if loop is not None:  # last: a broken one may raise here
            loop.close()

    def _report(self, error: BaseException, messages: int) -> None:
        self._telemetry.add(workers_lost=1)
        self._telemetry.publish(WorkerReplaced("loop", error, messages))


def _release(
    awaited: dict[Future[Any], Coroutine[Any, Any, Any]], error: Callable[[], Exception]
) -> None:
    """Let no thread wait for a call on a loop that has ended."""
    for future, coroutine in awaited.items():
        with contextlib.suppress(BaseException):  # its result came just now; it does not close
            future.set_exception(error())
            coroutine.close()


def _lost(error: BaseException) -> WorkerLost:
    lost = WorkerLost(f"the event loop died of {error!r}")
    lost.__cause__ = error
    return lost


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel all tasks, and give them time to end; a SystemExit of one does not end the others."""
    cancelled: set[asyncio.Task[Any]] = set()
    ends = loop.time() + GRACE
    while (tasks := asyncio.all_tasks(loop)) and (rest := ends - loop.time()) > 0:
        for task in tasks - cancelled:
            task.cancel()
        cancelled |= tasks
        with contextlib.suppress(BaseException):
            loop.run_until_complete(asyncio.wait(tasks, timeout=rest))
    with contextlib.suppress(BaseException):
        loop.run_until_complete(loop.shutdown_asyncgens())


class LoopRunner:
    """Runs calls as tasks, up to the concurrency at once.

    Each task has a copy of the context (`contextvars`) of the subscription.

    Args:
        handler: an async function of a message.
        name: of it, for errors.
        flow: whose calls these are.
        concurrency: calls at once at most.
        telemetry: where to count and report.
        loop: where tasks run.
        time_limit: seconds for a call; then its message fails, and it is cancelled.
    """

    def __init__(
        self,
        handler: Callable[[Message[Any]], Awaitable[Any]],
        name: str,
        flow: Flow,
        concurrency: Concurrency,
        telemetry: Telemetry,
        loop: OwnLoop,
        time_limit: float | None,
    ) -> None:
        self._handler = handler
        self._name = name
        self._flow = flow
        self._concurrency = concurrency
        self._telemetry = telemetry
        self._loop = loop
        self._time_limit = time_limit
        self._tracing = Tracing(telemetry)
        self._context = contextvars.copy_context()
        self._pending: deque[Call] = deque()
        self._is_called = False
        self._stopped = False
        # Of the loop's thread alone:
        self._tasks: dict[asyncio.Task[Message[Any]], float] = {}
        self._limits: dict[asyncio.Task[Message[Any]], asyncio.TimerHandle] = {}
        self._busy = 0.0

    def submit(self, items: list[Call]) -> None:
        """Take calls; returns at once."""
        self._pending.extend(items)
        self.resize()

    def resize(self) -> None:
        """Let the loop look for what it may begin."""
        if self._is_called:
            return
        self._is_called = True
        try:
            self._loop.call(self._begin)
        except RuntimeError as error:  # there is no loop, as no more threads can be started
            self._is_called = False
            outcomes: list[Outcome] = []
            with contextlib.suppress(IndexError):
                while True:
                    outcomes.append(self._flow.fail(self._pending.popleft(), error))
            self._flow.done(outcomes, elsewhere=True)

    def stop(self) -> None:
        """Begin nothing any more; what runs is cancelled when the loop ends."""
        self._stopped = True
        self._pending.clear()

    def load(self) -> tuple[int, float]:
        """How many calls run now, and the seconds that calls have taken so far."""
        now = perf_counter()
        began = list(self._tasks.values())
        return len(began), self._busy + sum(now - each for each in began)

    def _begin(self) -> None:
        self._is_called = False  # before the look: who comes after it calls again
        loop = asyncio.get_running_loop()
        while not self._stopped and len(self._tasks) < self._concurrency.limit:
            try:
                call = self._pending.popleft()
            except IndexError:
                return
            attempt = call.attempt
            late = self._flow.begin(call)
            if late is not None:
                self._flow.done([(call, attempt, late)], elsewhere=True)
                continue
            self._start(loop, call, attempt)

    def _start(self, loop: asyncio.AbstractEventLoop, call: Call, attempt: int) -> None:
        task = loop.create_task(self._call(call.message), context=self._context.copy())
        self._tasks[task] = perf_counter()
        task.add_done_callback(lambda task: self._over(task, call, attempt))
        if self._time_limit is not None:
            self._limits[task] = loop.call_later(
                self._time_limit, self._overdue, call, attempt, task
            )

    async def _call(self, message: Message[Any]) -> Message[Any]:
        span = self._span(message)
        try:
            result = checked(await self._handler(message), message, self._name)
        except BaseException as error:  # noqa: BLE001 - a SystemExit would end the loop
            result = message.failed(error)
        if span is not None:
            self._tracing.returned(span[0], span[1], message, result)
            self._tracing.end(span[0], [result])
        return result

    def _span(self, message: Message[Any]) -> tuple[SpanStart, SpanStart] | None:
        if not self._telemetry.bus.is_traced:
            return None
        processor = self._tracing.begin()
        return processor, self._tracing.called(processor, message)

    def _overdue(self, call: Call, attempt: int, task: asyncio.Task[Message[Any]]) -> None:
        error = HandlerTimeout(
            f"{self._name} took longer than its time limit of {self._time_limit:g} s"
        )
        self._telemetry.add(timed_out=1)
        self._flow.done([(call, attempt, call.message.failed(error))], elsewhere=True)
        task.cancel()

    def _over(self, task: asyncio.Task[Message[Any]], call: Call, attempt: int) -> None:
        self._busy += perf_counter() - self._tasks.pop(task)
        if self._time_limit is not None:
            self._limits.pop(task).cancel()
        # One that is cancelled before it has begun never comes to its own `except`.
        cancelled = task.cancelled()
        result = call.message.failed(asyncio.CancelledError()) if cancelled else task.result()
        self._flow.done([(call, attempt, result)], elsewhere=True)
        self._begin()
