"""The event loop of the caller, of asyncio or of trio, as other threads use it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from rxtweets._support.workers import start_thread

__all__ = ["CallerLoop", "LoopEvent", "call_in_thread"]

T = TypeVar("T")


class CallerLoop:
    """The event loop that runs the current task.

    Raises:
        RuntimeError: this thread runs neither a loop of asyncio nor of trio.

    Attributes:
        identity: the loop of asyncio, or the token of trio.
        call_soon: calls a function on the loop; from any thread, and from a signal handler.
            Raises RuntimeError if the loop is closed.
        new_event: makes an event of the loop's library.
        let_others_run: a coroutine function that lets other tasks of the loop run.
    """

    identity: object
    call_soon: Callable[[Callable[[], object]], object]
    new_event: Callable[[], Any]
    let_others_run: Callable[[], Awaitable[object]]

    def __init__(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            if (trio := sys.modules.get("trio")) is None:
                raise
            self.identity = trio.lowlevel.current_trio_token()
            self.call_soon = trio.lowlevel.current_trio_token().run_sync_soon
            self.new_event = trio.Event
            self.let_others_run = trio.lowlevel.checkpoint
        else:
            self.identity = loop
            self.call_soon = loop.call_soon_threadsafe
            self.new_event = asyncio.Event
            self.let_others_run = partial(asyncio.sleep, 0)

    def check_is_running(self) -> None:
        """Raise a RuntimeError if another loop runs the current task."""
        if CallerLoop().identity is not self.identity:
            raise RuntimeError("another event loop requested the first item; use a new iterator")

    @property
    def is_closed(self) -> bool:
        """Whether the loop is closed."""
        try:
            self.call_soon(bool)
        except RuntimeError:
            return True
        return False


class LoopEvent:
    """An event that any thread sets, and that tasks of one loop wait for."""

    def __init__(self, loop: CallerLoop) -> None:
        self._loop = loop
        self._event = loop.new_event()

    def set(self) -> None:
        """Let the tasks continue; does nothing if their loop is closed."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon(self._event.set)

    async def wait(self) -> None:
        """Wait until the event is set."""
        await self._event.wait()


async def call_in_thread(
    name: str, function: Callable[[], T], cancelled: Callable[[], object] = bool
) -> T:
    """Call a function on a thread of its own, and wait for its result.

    The default executor of the loop would not do: calls of the user may occupy all of its threads.

    Args:
        name: of the thread.
        function: called with the context of the task.
        cancelled: called if the task is cancelled meanwhile, which does not end the call.
    """
    over, result = LoopEvent(CallerLoop()), Future[T]()
    context = copy_context()

    def work() -> None:
        try:
            result.set_result(context.run(function))
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            result.set_exception(error)
        over.set()

    start_thread(name, work)
    try:
        await over.wait()
    except BaseException:  # a cancellation
        cancelled()
        raise
    return result.result()
