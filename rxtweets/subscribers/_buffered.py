"""A bounded queue and a thread of its own before a subscriber, so that others need not wait."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, cast, get_args

from reactivex import abc

from rxtweets._core.subscriber import Subscriber, take_over
from rxtweets._messages.batch import Batch
from rxtweets._support.validation import function, no_class, whole_number
from rxtweets._support.workers import start_thread
from rxtweets.errors import ConfigurationError, SubscriberError
from rxtweets.operators._calls import is_async

__all__ = ["AnySubscriber", "Buffered", "Overflow", "function_of"]

Overflow = Literal["block", "fail"]

AnySubscriber = abc.ObserverBase[Batch[Any]] | Callable[[Batch[Any]], object]

log = logging.getLogger("rxtweets")

LINGER = 0.2
"""Seconds that the thread waits for another batch before it ends."""


class Buffered(Subscriber[Any]):
    """Gives a subscriber a queue and a thread of its own: a slow one holds back nobody else.

    ``on_next`` returns when the batch is queued. The batch is settled when the subscriber has
    returned or raised, on the thread of the queue: acknowledgements and counters are as exact as
    without it, only later. Until then its messages are in ``stats().unsettled``.

    When the stream is over, what is queued is delivered first, then the end is passed on, and
    only then does the stream's thread go on; so a pipeline that drains waits for it. After a
    subscription is disposed, what is queued is delivered and settled all the same, as long as the
    program runs: before it ends, call ``on_completed()``, which waits.

    Args:
        subscriber: a `Subscriber`, any observer, or a function of one batch.
        capacity: batches that may wait, 1 or more.
        overflow: what happens to one more: ``block`` makes the stream's thread wait for room,
            ``fail`` fails the batch at once (wrap this in `Retrying` for a dead-letter file).

    Raises:
        ConfigurationError: an argument cannot work.
    """

    def __init__(
        self, subscriber: AnySubscriber, capacity: int = 100, overflow: Overflow = "block"
    ) -> None:
        super().__init__()
        if overflow not in get_args(Overflow):
            raise ConfigurationError(f"overflow={overflow!r}: choose block or fail")
        self._subscriber = subscriber
        self._take = function_of(subscriber)
        self._capacity = whole_number("capacity", capacity)
        self._overflow = overflow
        self._changed = threading.Condition()
        self._tasks: deque[Callable[[], object]] = deque()
        self._waiting = 0
        self._thread: threading.Thread | None = None

    @property
    def queued(self) -> int:
        """Batches that wait now."""
        return self._waiting

    def on_next(self, batch: Batch[Any]) -> None:
        """Queue the batch."""
        with self._changed:
            if self._waiting >= self._capacity and not self._is_own_thread():
                self._make_room(batch)
            share = take_over()

            def deliver() -> None:
                with self._changed:
                    self._waiting -= 1
                    self._changed.notify_all()
                share.deliver(lambda: self._take(batch))

            self._waiting += 1
            self._put(deliver)

    def on_error(self, error: Exception) -> None:
        """Deliver what is queued, then pass the error on."""
        on_error = getattr(self._subscriber, "on_error", lambda _: None)
        self._put_and_wait(lambda: on_error(error))

    def on_completed(self) -> None:
        """Deliver what is queued, then pass the end on."""
        self._put_and_wait(getattr(self._subscriber, "on_completed", lambda: None))

    def __repr__(self) -> str:
        return f"Buffered({self._subscriber!r}, {self._capacity}, {self._overflow!r})"

    def _make_room(self, batch: Batch[Any]) -> None:
        if self._overflow == "fail":
            raise SubscriberError(
                f"{self._waiting} batches wait for {self._subscriber!r}, which is its capacity; "
                f"there is no room for this one of {len(batch)} messages"
            )
        self._changed.wait_for(lambda: self._waiting < self._capacity)

    def _put(self, task: Callable[[], object]) -> None:
        """Queue a task, under the lock."""
        self._tasks.append(task)
        self._changed.notify_all()
        if self._thread is None:
            self._thread = start_thread("rxtweets-buffered", self._run, goes_on=True)

    def _put_and_wait(self, end: Callable[[], object]) -> None:
        over = threading.Event()
        faults: list[BaseException] = []

        def finish() -> None:
            try:
                end()
            except BaseException as error:  # noqa: BLE001 - raised again where somebody counts it
                faults.append(error)
            over.set()

        with self._changed:
            self._put(finish)
        if self._is_own_thread():
            return  # the end came out of a delivery: waiting would be for ourselves
        over.wait()
        if faults:
            raise faults[0]

    def _is_own_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        while (task := self._next()) is not None:
            try:
                task()
            except BaseException:
                # Within a stream it is settled by now, or raised where the stream ends. Nothing
                # that a log or a repr does may end this thread: somebody waits for it.
                with contextlib.suppress(Exception):
                    log.exception("%r raised, and no stream waits for it", self._subscriber)

    def _next(self) -> Callable[[], object] | None:
        with self._changed:
            if not self._tasks:
                self._changed.wait_for(lambda: bool(self._tasks), LINGER)
            if not self._tasks:
                self._thread = None
                return None
            return self._tasks.popleft()


def function_of(subscriber: AnySubscriber) -> Callable[[Batch[Any]], object]:
    """What takes the batches of a subscriber.

    Raises:
        ConfigurationError: it is none, or a class, or async.
    """
    no_class("subscriber", subscriber)
    on_next = getattr(subscriber, "on_next", None)
    take = on_next if callable(on_next) else subscriber
    function("subscriber", take)
    if is_async(cast("Callable[..., Any]", take)):
        raise ConfigurationError(
            f"subscriber={subscriber!r} is async, and would be called on a thread without a loop: "
            "give it to a Batcher as it is, and let it retry by itself (tenacity.retry can)"
        )
    return cast("Callable[[Batch[Any]], object]", take)
