"""Batches for an event loop that is the caller's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from typing import Any

from reactivex import abc

from rxtweets._messages.batch import Batch
from rxtweets.errors import PipelineError

__all__ = ["LoopSubscriber"]


class _Handed:
    """A batch in the hands of the loop."""

    def __init__(self, batch: Batch[Any]) -> None:
        self.batch = batch
        self.done = threading.Event()
        self.error: Exception | None = None

    def settle(self, error: Exception | None) -> None:
        self.error = error
        self.done.set()


class LoopSubscriber(abc.ObserverBase[Batch[Any]]):
    """Hands one batch after the other to an event loop, and waits for each."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrivals: asyncio.Queue[_Handed | None] = asyncio.Queue()
        self._left = threading.Event()

    def on_next(self, batch: Batch[Any]) -> None:
        """Wait until the loop is done with the batch.

        Raises:
            PipelineError: the loop will not take it.
        """
        handed = _Handed(batch)
        self._tell(handed)
        while not handed.done.wait(0.05):
            if self._left.is_set() or self._loop.is_closed():
                raise PipelineError("nobody takes batches from abatches() any more")
        if handed.error is not None:
            raise handed.error

    def on_error(self, error: Exception) -> None:
        """The loop gets the error from the pipeline."""
        del error
        self._tell(None)

    def on_completed(self) -> None:
        """There will be no more batches."""
        self._tell(None)

    def leave(self) -> None:
        """The loop takes no more."""
        self._left.set()

    async def batches(self, is_over: Callable[[], bool]) -> AsyncGenerator[Batch[Any], None]:
        """Each batch; it is taken when the next one is asked for, and failed if none is."""
        while (handed := await self._next(is_over)) is not None:
            left = PipelineError("the loop over abatches() was left with this batch in its hands")
            try:
                yield handed.batch
                left = None  # type: ignore[assignment]  # the batch was taken
            finally:
                handed.settle(left)

    async def _next(self, is_over: Callable[[], bool]) -> _Handed | None:
        while True:
            try:
                return await asyncio.wait_for(self._arrivals.get(), 0.05)
            except TimeoutError:
                if is_over() and self._arrivals.empty():
                    return None

    def _tell(self, handed: _Handed | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._arrivals.put_nowait, handed)
        except RuntimeError:  # the loop is closed
            self._left.set()
