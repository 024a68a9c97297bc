"""`AsyncItems`: the items of a stream in an ``async for``.

::

    thread of the source     on_next: append a chunk, wake the loop once; block while it is full
            │  at most 128 items and a chunk
    event loop of the user   __anext__: take the items that wait, let other tasks run between
            │  left: break, error, cancellation, aclose()
    thread rxtweets-leave    dispose of the subscription
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from reactivex import abc
from reactivex.disposable import SingleAssignmentDisposable
from reactivex.scheduler import CurrentThreadScheduler

from rxtweets._core.gates import abandon
from rxtweets._core.subscriber import DetachedBatch, PendingBatch, is_settling, take_over
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import Message
from rxtweets._support.caller_loop import CallerLoop, LoopEvent, call_in_thread
from rxtweets._support.workers import as_exception, start_thread
from rxtweets.errors import SubscriberError

__all__ = ["AsyncItems", "Feed"]

T_co = TypeVar("T_co", covariant=True)

CAPACITY = 128
"""Items that wait for the loop; then the source blocks."""

AT_ONCE = 32
"""Items after which other tasks of the loop run; a turn of the loop costs as much as some items."""

CONNECTING = 30.0
"""Most seconds that the end of a loop waits for a subscription that has begun."""

PATIENCE = 0.5
"""Seconds after which a blocked source checks whether the loop is closed."""


class AsyncItems(AsyncIterator[T_co], Generic[T_co]):
    """The iterator of an ``async for`` over a stream, on asyncio and on trio.

    ::

        async for message in tweets:
            await store(message)

    It subscribes when the first item is requested. Leaving the loop by ``break``, an error or a
    cancellation disposes of the subscription at once, since CPython then deletes the iterator. On
    other interpreters, or if the iterator has a name, close it::

        from contextlib import aclosing

        async with aclosing(aiter(tweets)) as messages:
            async for message in messages:
                await store(message)

    Args:
        feed: brings the items.
    """

    def __init__(self, feed: Feed[T_co]) -> None:
        self._feed = feed

    def __aiter__(self) -> AsyncItems[T_co]:
        return self

    async def __anext__(self) -> T_co:
        try:
            return await self._feed.next()
        finally:
            # The traceback of an error or a cancellation keeps this frame, and so would keep the
            # subscription.
            del self

    async def aclose(self) -> None:
        """Leave the loop: dispose of the subscription, and wait until that is done."""
        await self._feed.aclose()

    def __del__(self) -> None:
        self._feed.leave()


class Feed(abc.ObserverBase[Sequence[Any]], Generic[T_co]):
    """Takes lists of items on the thread of the source, and gives them to a loop one by one.

    Nothing in it refers to its `AsyncItems`, whose end is the end of the subscription.

    Args:
        subscribe: subscribes this observer; called on a thread of its own.
        telemetry: counts messages that the loop did not take.
        shut: called when the loop is left, if the disposal of the subscription drains it. Then
            batches that come later fail at once; otherwise they wait for the disposal, as the
            source may bring the same messages again until then.
    """

    def __init__(
        self,
        subscribe: Callable[[Feed[T_co]], abc.DisposableBase],
        telemetry: Telemetry,
        shut: Callable[[], None] | None = None,
    ) -> None:
        self._subscribe = subscribe
        self._telemetry = telemetry
        self._subscription = SingleAssignmentDisposable()
        self._shut = shut
        self._releasing = threading.Lock()
        self._is_released = threading.Event()
        self._has_connected = threading.Event()
        self._loop: CallerLoop | None = None
        self._thread = 0
        self._taken: deque[Any] = deque()  # a few items at a time, so that next() takes no lock
        # The rest is guarded by this condition.
        self._changed = threading.Condition()
        self._waiting: deque[Any] = deque()
        self._request: LoopEvent | None = None
        self._given: _Offer | None = None
        self._has_ended = False
        self._error: Exception | None = None
        self._is_left = False

    # The loop.

    async def next(self) -> T_co:
        """Return the next item; wait for it.

        Raises:
            StopAsyncIteration: the stream completed, or the loop was left.
            RuntimeError: another event loop has requested items before.
            Exception: the error that ended the stream.
        """
        loop = self._loop or self._begin()
        if self._given is not None:
            self._settle(is_taken=True)
        while not self._taken:
            loop.check_is_running()
            request = self._request_more(loop)
            if request is None:
                await loop.let_others_run()
            else:
                await request.wait()
            self._take()
        item = self._taken.popleft()
        if isinstance(item, _Offer):
            self._given = item
            item = item.item
        result: T_co = item
        return result

    def leave(self) -> None:
        """Dispose of the subscription on another thread, as a disposal may call a broker.

        It takes no lock: the garbage collector calls it on any thread.
        """
        if not self._is_left:
            self._is_left = True
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):  # the interpreter ends
                    start_thread("rxtweets-leave", self._release)

    async def aclose(self) -> None:
        """Dispose of the subscription, and wait until that is done."""
        self._is_left = True
        await call_in_thread("rxtweets-leave", self._release)

    def _begin(self) -> CallerLoop:
        self._thread = threading.get_ident()
        self._loop = loop = CallerLoop()
        # Inside the trampoline, RxPY's own sources emit after subscribe() has returned. So their
        # subscription can be disposed of while they emit. They must not block the loop's thread.
        schedule = CurrentThreadScheduler.singleton().schedule
        work = partial(copy_context().run, schedule, self._connect)
        try:
            start_thread("rxtweets-subscribe", work, self._could_not_connect)
        except RuntimeError:  # the system starts no more threads
            self._has_connected.set()
            raise
        return loop

    def _connect(self, *_: object) -> None:
        try:
            if not self._is_left:
                self._subscription.disposable = self._subscribe(self)
        finally:
            self._has_connected.set()

    def _could_not_connect(self, error: BaseException) -> None:
        self._has_connected.set()
        self.on_error(as_exception(error))

    def _request_more(self, loop: CallerLoop) -> LoopEvent | None:
        """Return an event for the next items; ``None`` if some are there."""
        with self._changed:
            if self._waiting and not self._is_left:
                return None
            if self._has_ended or self._is_left:
                self._stop()
            if self._request is None:
                self._request = LoopEvent(loop)
                self._changed.notify_all()
            return self._request

    def _stop(self) -> None:
        error, self._error = self._error, None
        self.leave()
        if error is not None:
            raise error
        raise StopAsyncIteration

    def _take(self) -> None:
        with self._changed:
            while self._waiting and len(self._taken) < AT_ONCE:
                self._taken.append(self._waiting.popleft())
            self._changed.notify_all()

    def _release(self) -> None:
        with self._changed:
            left = [*_pop_all(self._taken), *_pop_all(self._waiting)]
            self._wake()
            self._changed.notify_all()
        if self._shut is not None:
            self._shut()
            self._is_released.set()
        self._settle(is_taken=False)
        self._give_up(left)
        with self._releasing:  # a later caller waits until it is done
            self._subscription.dispose()
            if self._loop is not None:
                # The loop may have been left before subscribe() has returned; then that thread
                # disposes of the subscription.
                self._has_connected.wait(CONNECTING)
        self._is_released.set()

    def _settle(self, *, is_taken: bool) -> None:
        """Settle the batch that the loop was given."""
        with self._changed:
            offer, self._given = self._given, None
            if offer is None:
                return
            offer.is_taken = is_taken
            self._changed.notify_all()
        offer.settle()

    def _give_up(self, items: Sequence[Any]) -> None:
        for item in items:
            if isinstance(item, _Offer):
                item.settle()
        messages = [item for item in items if isinstance(item, Message)]
        if messages:
            abandon(messages, self._telemetry, "subscription")

    # The source.

    def demand(self, most: int) -> int:
        """Block until the loop waits for an item; a source that can wait brings none before."""
        with self._changed:
            self._wait_until(lambda: self._request is not None)
            return 0 if self._is_left else most

    def on_next(self, chunk: Sequence[Any]) -> None:
        with self._changed:
            is_accepted = self._put(chunk)
            if not self._is_on_loop():
                self._wait_until(lambda: len(self._waiting) < CAPACITY)
        if not is_accepted:
            self._give_up(chunk)

    def take_item(self, item: Any) -> None:
        """Take a single item; one that is settled waits until the loop requests the next one.

        On the thread of the loop, it is settled then too, and nothing waits.

        Raises:
            SubscriberError: the loop was left before.
        """
        if not is_settling():
            self.on_next((item,))
            return
        on_loop = self._is_on_loop()
        offer = _Offer(item, take_over() if on_loop else None)
        with self._changed:
            is_accepted = self._put((offer,))
            if not on_loop:
                self._wait_until(lambda: offer.is_taken)
        if on_loop:
            if not is_accepted:
                offer.settle()
            return
        if not is_accepted:
            self._is_released.wait(PATIENCE)
        offer.check()

    def on_error(self, error: Exception) -> None:
        self._end(error)

    def on_completed(self) -> None:
        self._end(None)

    def _is_on_loop(self) -> bool:
        """Return whether the source emits on the thread of the loop, which would block itself."""
        return threading.get_ident() == self._thread

    def _put(self, items: Sequence[Any]) -> bool:
        if not self._is_left:
            self._waiting.extend(items)
            self._wake()
        return not self._is_left

    def _end(self, error: Exception | None) -> None:
        with self._changed:
            if not self._has_ended:
                self._has_ended, self._error = True, error
                self._wake()

    def _wake(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            request.set()

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, or until the loop is left, or closed."""
        while not self._changed.wait_for(lambda: self._is_left or condition(), PATIENCE):
            if self._loop is not None and self._loop.is_closed:
                self.leave()


@dataclass(slots=True, eq=False)
class _Offer:
    """A batch, or an item made of one, that is settled by the loop.

    Attributes:
        delivery: settles it later; ``None`` if the thread of the source waits, and settles it.
        is_taken: the loop has requested the next item.
    """

    item: Any
    delivery: PendingBatch | DetachedBatch | None
    is_taken: bool = False

    def settle(self) -> None:
        if self.delivery is not None:
            self.delivery.deliver(self.check)

    def check(self) -> None:
        if not self.is_taken:
            raise SubscriberError("the async for loop was left while it had this batch")


def _pop_all(items: deque[Any]) -> list[Any]:
    # Not a copy and a clear: the loop may take an item meanwhile.
    popped: list[Any] = []
    with contextlib.suppress(IndexError):
        while True:
            popped.append(items.popleft())
    return popped
