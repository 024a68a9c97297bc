"""Subscribers of batches, and the boundary that settles each batch."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Generic, TypeVar

from reactivex import Observer, abc
from reactivex.internal import noop

from rxtweets._core.acknowledgement import (
    OnFailed,
    acknowledge,
    handle_failed,
    returned_messages,
    settle,
)
from rxtweets._core.events import BatchDelivered, BatchFailed, BatchStarted, SubscriberFailed
from rxtweets._core.gates import demand_of
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets._support.workers import is_interrupt
from rxtweets.errors import HandlerError, SubscriberError

__all__ = [
    "Contained",
    "DetachedBatch",
    "ForwardingObserver",
    "FunctionSubscriber",
    "PendingBatch",
    "Settled",
    "Settlement",
    "Subscriber",
    "is_settling",
    "take_over",
]

T = TypeVar("T")

Settled = Callable[[Batch[Any], BaseException | None], None]
"""Takes a settled batch, and the error that its subscriber raised."""


class Subscriber(Observer[Batch[T]], Generic[T]):
    """The base of custom subscribers; write ``on_next(batch)``.

    Give it to ``subscribe`` behind ``ops.batch``, to ``ops.deliver``, or to a `Batcher`. A plain
    function of one batch and any `reactivex.Observer` work as well.

    - Returning means success; raising fails the whole batch. Its messages are acknowledged as
      failed, the failure is counted and reported, and the next batch follows.
    - If only some messages failed, return a list of all, those with ``message.failed(reason)``.
    - A source may redeliver a failed batch: make writes idempotent, as the stores of
      `rxtweets.subscribers` do.
    - Calls never overlap, but come from different threads. So a subscriber needs no lock, unless
      ``concurrency`` of a `Batcher` or of ``ops.deliver`` is above 1.
    - ``on_completed`` or ``on_error`` is called once at the end: close your resources there.
    - ``async def on_next`` is awaited behind ``ops.deliver`` and in a `Pipeline`.
    - RxPY declares that ``on_next`` returns ``None``. For a list or a coroutine, mypy needs
      ``# type: ignore[override]``.

    A slow subscriber blocks the others of the same stream: `rxtweets.subscribers.Buffered` gives it
    a queue and a thread. `rxtweets.subscribers.Retrying` calls one again that fails at times.

    ::

        class Languages(rxtweets.Subscriber):
            def __init__(self):
                super().__init__()
                self.seen = set()

            def on_next(self, batch):
                self.seen.update(message.metadata["lang"] for message in batch)

        Languages().on_next(Batch([Message("hola", {"id": "1", "lang": "es"})]))  # a test
    """

    is_stopped = False
    """Set by the constructor of `reactivex.Observer`, which a subclass may not call."""

    def on_next(self, batch: Batch[T]) -> Any:
        """Take one batch; raise to fail it, or return its messages to fail some of them."""
        raise NotImplementedError(f"{type(self).__name__} has no on_next(batch): write on_next")

    def on_error(self, error: Exception) -> None:
        """The stream failed for good; called once, after the last batch."""

    def on_completed(self) -> None:
        """The stream completed, and every batch was delivered; called once."""


class FunctionSubscriber(Observer[T]):
    """Functions as an observer that returns their results; the one of RxPY does not."""

    def __init__(
        self,
        on_next: Callable[[T], object] | None,
        on_error: abc.OnError | None = None,
        on_completed: abc.OnCompleted | None = None,
    ) -> None:
        # Without on_error, RxPY raises; the end of a stream is an event and in the log.
        super().__init__(None, on_error or noop, on_completed)
        self.function = on_next

    def on_next(self, value: T) -> Any:
        return None if self.function is None else self.function(value)


class ForwardingObserver(FunctionSubscriber[T]):
    """A function as the observer of an operator; forwards demand and end of the one downstream.

    Args:
        on_next: takes the values.
        observer: the observer downstream, whose demand counts.
        on_end: takes the error, or nothing, instead of the observer.
    """

    def __init__(
        self,
        on_next: Callable[[T], object],
        observer: abc.ObserverBase[Any],
        on_end: Callable[..., None] | None = None,
    ) -> None:
        super().__init__(on_next, on_end or observer.on_error, on_end or observer.on_completed)
        self._downstream = observer

    def demand(self, most: int) -> int:
        return demand_of(self._downstream, most)


class _Current(threading.local):
    # Not an argument of on_next: observers of RxPY between us and the user would not pass it on.
    batch: PendingBatch | None = None


_current = _Current()


def take_over() -> PendingBatch | DetachedBatch:
    """Settle the batch of this thread's ``on_next`` later, from any thread.

    For subscribers that pass batches to another thread, as `subscribers.Buffered` does: call
    ``deliver(function)`` on the result, once. The function's result or exception is the outcome.
    Until then the batch is counted in ``stats().unsettled``, and it is not acknowledged. Several
    subscribers may take over one batch: it fails if it fails for one of them.
    """
    batch = _current.batch
    if batch is None:
        return DetachedBatch()
    batch.join()
    return batch


def is_settling() -> bool:
    """Return whether this thread is in the ``on_next`` of a batch that it settles afterwards."""
    return _current.batch is not None


class Contained(abc.ObserverBase[T]):
    """An observer of the user whose exceptions are counted and reported, not raised."""

    def __init__(self, observer: abc.ObserverBase[T], telemetry: Telemetry) -> None:
        self._observer = observer
        self._telemetry = telemetry

    def on_next(self, value: T) -> None:
        try:
            self._observer.on_next(value)
        except BaseException as error:  # noqa: BLE001 - a SystemExit would end a thread silently
            # Operators between, such as share, return normally: so the batch fails here.
            batch = _current.batch
            is_reported = batch is not None and batch.fail(value, error)
            if is_interrupt(error) or not is_reported:
                self._report(value, error)

    def on_error(self, error: Exception) -> None:
        try:
            self._observer.on_error(error)
        except BaseException as raised:  # noqa: BLE001 - a SystemExit would suppress the end
            self._report(error, raised)

    def on_completed(self) -> None:
        try:
            self._observer.on_completed()
        except BaseException as error:  # noqa: BLE001 - a SystemExit would suppress the end
            self._report(None, error)

    def _report(self, value: object, error: BaseException) -> None:
        self._telemetry.add(subscriber_errors=1)
        self._telemetry.publish(SubscriberFailed(value, error))
        if is_interrupt(error):
            raise error


class Settlement(Contained[Batch[Any]]):
    """A subscriber of batches, each of which is settled once.

    That is when the subscriber has returned or raised, and everyone who took the batch over has
    delivered it.

    Args:
        observer: the subscriber.
        telemetry: where to count and report.
        on_failed: takes the failed messages of a batch.
        settled: called with each settled batch.
    """

    def __init__(
        self,
        observer: abc.ObserverBase[Batch[Any]],
        telemetry: Telemetry,
        on_failed: OnFailed | None = None,
        settled: Settled | None = None,
    ) -> None:
        super().__init__(observer, telemetry)
        self._on_failed = on_failed
        self._settled = settled

    def on_next(self, batch: Batch[Any]) -> None:
        self.settle(batch)

    def settle(self, batch: Batch[Any]) -> Batch[Any]:
        """Deliver the batch, settle it, and return it with the status of each message.

        A batch that was taken over is returned with the outcome that is known by now.
        """
        if self._telemetry.bus.has_observers:
            self._telemetry.publish(BatchStarted(batch))
        pending = PendingBatch(batch, self, self._telemetry, outcome=batch)
        pending.deliver(self._observer.on_next, batch)
        return pending.outcome

    def finish(
        self, batch: Batch[Any], outcome: Batch[Any], error: BaseException | None, took: float
    ) -> Batch[Any]:
        """Count, report and acknowledge a batch; return it with the status of each message."""
        if error is None:
            settled = self._succeed(batch, outcome, took)
        else:
            settled = self._fail(batch, error, took)
        if self._settled is not None:
            self._settled(settled, error)
        return settled

    def _succeed(self, batch: Batch[Any], outcome: Batch[Any], took: float) -> Batch[Any]:
        # No failed message gets into a batch, so an unchanged batch has succeeded.
        failed = [] if outcome is batch else [one for one in outcome if one.status != "ok"]
        good = [one for one in outcome if one.status == "ok"] if failed else outcome
        self._telemetry.add(batches=1, batched=len(good), batched_failed=len(failed))
        if self._telemetry.bus.has_observers:
            self._telemetry.publish(BatchDelivered(outcome, took))
        if not failed:
            acknowledge(good, failed, self._telemetry)
            return outcome
        handled = iter(settle(good, failed, self._on_failed, self._telemetry))
        return outcome.replaced(one if one.status == "ok" else next(handled) for one in outcome)

    def _fail(self, batch: Batch[Any], error: BaseException, took: float) -> Batch[Any]:
        self._telemetry.add(batches_failed=1, batched_failed=len(batch), subscriber_errors=1)
        reason = SubscriberError(
            f"the subscriber raised {type(error).__name__} on a batch of {len(batch)}: {error}"
        )
        reason.__cause__ = error
        failed = [message.failed(reason) for message in batch]
        self._telemetry.publish(BatchFailed(batch.replaced(failed), error, took))
        handled = handle_failed(failed, self._on_failed, self._telemetry)
        acknowledge((), handled, self._telemetry)
        return batch.replaced(handled)


@dataclass(slots=True, eq=False)
class PendingBatch:
    """A batch without a final outcome, and the number of deliveries that are still to end.

    The first delivery is the one of the thread that brings the batch; `take_over` adds others.
    """

    batch: Batch[Any]
    settlement: Settlement
    telemetry: Telemetry
    outcome: Batch[Any]
    deliveries: int = 1
    is_counted: bool = False
    error: BaseException | None = None
    started: float = field(default_factory=perf_counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def join(self) -> None:
        with self.lock:
            self.deliveries += 1

    def deliver(self, take: Callable[..., object], *args: object) -> None:
        """Call the function; its result or exception is the outcome of one delivery."""
        outer, _current.batch = _current.batch, self
        returned, error = None, None
        with self.telemetry.working():
            try:
                returned = take(*args)
            except BaseException as raised:  # a SystemExit would end a thread silently
                error = raised
                if is_interrupt(raised):
                    raise
            finally:
                _current.batch = outer
                self._end(returned, error)

    def fail(self, batch: object, error: BaseException) -> bool:
        """Fail the batch by an observer downstream; ``False`` if it has failed already."""
        with self.lock:
            is_first = batch is self.batch and self.error is None
            if is_first:
                self.error = error
        return is_first

    def _end(self, returned: object, error: BaseException | None) -> None:
        with self.lock:
            self.deliveries -= 1
            if returned is not None or error is not None:
                self._note(returned, error)
            is_pending = self.deliveries > 0
            if is_pending is not self.is_counted:
                self.is_counted = is_pending
                count = len(self.batch)
                self.telemetry.add(unsettled=count if is_pending else -count)
            if is_pending:
                return
        took = perf_counter() - self.started
        self.outcome = self.settlement.finish(self.batch, self.outcome, self.error, took)

    def _note(self, returned: object, error: BaseException | None) -> None:
        outcome = self.batch
        if error is None:
            try:
                outcome = _outcome(self.batch, returned)
            except HandlerError as wrong:
                error = wrong
        self.error = self.error or error
        if self.outcome is self.batch:
            self.outcome = outcome
        elif outcome is not self.batch:
            pairs = zip(self.outcome, outcome, strict=True)
            self.outcome = self.batch.replaced(a if a.status != "ok" else b for a, b in pairs)


class DetachedBatch:
    """A batch outside of a stream, which no acknowledger waits for."""

    def deliver(self, take: Callable[..., object], *args: object) -> None:
        take(*args)


def _outcome(batch: Batch[Any], returned: object) -> Batch[Any]:
    # The batch with the statuses of the messages returned, if its subscriber returned messages.
    if inspect.iscoroutine(returned):
        returned.close()
        raise HandlerError("the subscriber is async: give it to ops.deliver, or to a Pipeline")
    if not isinstance(returned, list | tuple | Batch):
        return batch
    if not any(isinstance(value, Message) for value in returned):
        return batch
    return batch.replaced(returned_messages(returned, len(batch)))
