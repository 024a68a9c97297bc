"""Subscribers that are ``async def``: on one event loop, in a thread of its own."""

from __future__ import annotations

import inspect
from typing import Any

from reactivex import abc

from rxtweets._core.subscriber import FunctionSubscriber
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.batch import Batch
from rxtweets.operators._calls import is_async
from rxtweets.operators._loop import OwnLoop

__all__ = ["AwaitingSubscriber", "is_awaited"]


def is_awaited(subscriber: abc.ObserverBase[Batch[Any]]) -> bool:
    """Whether what a subscriber does with a batch is to be awaited."""
    if isinstance(subscriber, FunctionSubscriber):
        return subscriber.function is not None and is_async(subscriber.function)
    return is_async(subscriber.on_next)


class AwaitingSubscriber(abc.ObserverBase[Batch[Any]]):
    """Lets a subscriber run on a loop, and waits for it: several threads may, each with a batch.

    Args:
        subscriber: whose ``on_next`` gives something to await; the other two may.
        telemetry: of the stream.
    """

    def __init__(self, subscriber: abc.ObserverBase[Batch[Any]], telemetry: Telemetry) -> None:
        self._subscriber = subscriber
        self._loop = OwnLoop(telemetry.working, telemetry)

    def on_next(self, batch: Batch[Any]) -> Any:
        """What the subscriber gives in the end.

        Raises:
            CancelledError: the stream was disposed before that.
        """
        take: Any = self._subscriber.on_next
        return self._loop.wait_for(take(batch))

    def on_error(self, error: Exception) -> None:
        """Tell the subscriber."""
        tell: Any = self._subscriber.on_error
        self._finish(tell(error))

    def on_completed(self) -> None:
        """Tell the subscriber."""
        tell: Any = self._subscriber.on_completed
        self._finish(tell())

    def close(self) -> None:
        """Cancel what runs, and let the loop's thread end."""
        self._loop.stop()

    def _finish(self, result: Any) -> None:
        if inspect.iscoroutine(result):
            self._loop.wait_for(result)
