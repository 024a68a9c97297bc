"""A bounded queue and a thread in front of a subscriber."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal, cast, get_args

from rxtweets._core.subscriber import DetachedBatch, PendingBatch, Subscriber, take_over
from rxtweets._messages.batch import Batch
from rxtweets._support.validation import choice, function, no_class, whole_number
from rxtweets._support.workers import start_thread
from rxtweets.errors import ConfigurationError, SubscriberError
from rxtweets.operators._calls import is_async
from rxtweets.operators._deliver import SubscriberOrFunction

Overflow = Literal["block", "fail"]

log = logging.getLogger("rxtweets")

IDLE_SECONDS = 0.2
"""Seconds without a batch after which the thread ends."""


class Buffered(Subscriber[Any]):
    """Gives a subscriber its own queue and thread, so that a slow one does not block the others.

    ::

        batches.subscribe(Buffered(SQLiteSubscriber("tweets.db"), capacity=100))

    ``on_next`` returns when the batch is queued. The batch is settled when the subscriber has
    returned or raised, on the thread of the queue: acknowledgements and counters are as exact as
    without `Buffered`, only later. Until then its messages are in ``stats().unsettled``. A
    subscriber of yours that passes batches to other threads does the same with `take_over`.

    When the stream ends, queued batches are delivered first, then the end is passed on. The
    stream's thread waits for both, and so does a draining pipeline. After the disposal of a
    subscription, queued batches are still delivered and settled, as long as the program runs.
    Call ``on_completed()`` before the program ends: it waits for them.

    Args:
        subscriber: a `Subscriber`, any observer, or a function of one batch.
        capacity: batches that may wait, 1 or more; 100 by default.
        overflow: reaction to a batch beyond the capacity: ``block``, the default, makes the
            stream's thread wait for room; ``fail`` fails the batch immediately, and `Retrying`
            around this writes it to a dead-letter file.

    Raises:
        ConfigurationError: an argument cannot work.
    """

    def __init__(
        self, subscriber: SubscriberOrFunction, capacity: int = 100, overflow: Overflow = "block"
    ) -> None:
        super().__init__()
        self._subscriber = subscriber
        self._take = function_of(subscriber)
        self._capacity = whole_number("capacity", capacity)
        self._overflow = choice("overflow", overflow, get_args(Overflow))
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
            self._waiting += 1
            self._put(lambda: self._deliver(batch, share))

    def on_error(self, error: Exception) -> None:
        """Deliver the queued batches, then pass the error on."""
        on_error = getattr(self._subscriber, "on_error", lambda _: None)
        self._put_and_wait(lambda: on_error(error))

    def on_completed(self) -> None:
        """Deliver the queued batches, then pass the completion on."""
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

    def _deliver(self, batch: Batch[Any], share: PendingBatch | DetachedBatch) -> None:
        with self._changed:
            self._waiting -= 1
            self._changed.notify_all()
        share.deliver(lambda: self._take(batch))

    def _put(self, task: Callable[[], object]) -> None:
        """Queue a task; the caller holds the lock."""
        self._tasks.append(task)
        self._changed.notify_all()
        if self._thread is None:
            self._thread = start_thread("rxtweets-buffered", self._run, repeats=True)

    def _put_and_wait(self, task: Callable[[], object]) -> None:
        done: Future[object] = Future()

        def finish() -> None:
            try:
                done.set_result(task())
            except BaseException as error:  # noqa: BLE001 - raised again in the stream's thread
                done.set_exception(error)

        with self._changed:
            self._put(finish)
        if not self._is_own_thread():  # a delivery that ends the stream cannot wait for itself
            done.result()

    def _is_own_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        while (task := self._next()) is not None:
            try:
                task()
            except BaseException:
                # A stream has settled or raised it. An error of a log handler or a repr must not
                # end this thread either: on_completed waits for it.
                with contextlib.suppress(Exception):
                    log.exception("%r raised, and no stream waits for it", self._subscriber)

    def _next(self) -> Callable[[], object] | None:
        with self._changed:
            if self._changed.wait_for(lambda: bool(self._tasks), IDLE_SECONDS):
                return self._tasks.popleft()
            self._thread = None
            return None


def function_of(subscriber: SubscriberOrFunction) -> Callable[[Batch[Any]], object]:
    """Return the function of a subscriber that takes a batch.

    Raises:
        ConfigurationError: there is none, or it is a class, or async.
    """
    no_class("subscriber", subscriber)
    on_next = getattr(subscriber, "on_next", None)
    take = on_next if callable(on_next) else subscriber
    function("subscriber", take)
    if is_async(cast("Callable[..., Any]", take)):
        raise ConfigurationError(
            f"subscriber={subscriber!r} is async, and would be called on a thread without a loop: "
            "give it to a Batcher as it is, and retry inside it, as with tenacity.retry"
        )
    return cast("Callable[[Batch[Any]], object]", take)
