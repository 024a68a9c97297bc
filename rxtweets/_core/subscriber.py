"""Subscribers of batches, and the boundary that settles every batch they get."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any, Generic, TypeVar

from reactivex import Observer, abc

from rxtweets._core.events import (
    AcknowledgerFailed,
    BatchDelivered,
    BatchFailed,
    BatchStarted,
    FailureHandled,
    FailureHandlerFailed,
    HandlerFailed,
    SubscriberFailed,
)
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message, claim_by_acknowledger
from rxtweets._support.workers import is_interrupt
from rxtweets.errors import HandlerError, SubscriberError

__all__ = [
    "Contained",
    "FunctionSubscriber",
    "OnFailed",
    "Settled",
    "Settlement",
    "Share",
    "Subscriber",
    "acknowledge",
    "as_exception",
    "fail",
    "handle_failed",
    "is_interrupt",
    "take_over",
]

T = TypeVar("T")

OnFailed = Callable[[list[Message[Any]]], Sequence[Message[Any]]]
"""Is given failed messages before they are acknowledged, and returns as many."""

Settled = Callable[[Batch[Any], BaseException | None], None]
"""Is told of a batch, its messages with their status, and what its subscriber raised."""


class Subscriber(Observer[Batch[T]], Generic[T]):
    """The base of custom subscribers: write ``on_next(batch)``, and that is all.

    Returning means that the batch was taken; raising means that it failed: its messages are
    acknowledged as failed, the failure is counted and reported, and the next batch comes. If only
    some messages failed, return a list of all of them, those with ``message.failed(reason)``. Calls
    never overlap, so a subscriber needs no lock, unless a `Batcher` or `operators.deliver` was told
    to deliver several batches at once. ``on_completed`` and ``on_error`` are called once at the
    end, at most one of them, and are the places to close what was opened.

    ::

        class Alerts(rxtweets.Subscriber):
            def on_next(self, batch):
                for message in batch:
                    ...
    """

    is_stopped = False
    """`reactivex.Observer` sets this in its constructor; a subclass may forget to call it."""

    def on_next(self, batch: Batch[T]) -> Any:
        """Take one batch; raise to fail it, return its messages to fail some of them."""
        raise NotImplementedError(f"{type(self).__name__} does not say what to do: write on_next")

    def on_error(self, error: Exception) -> None:
        """The stream has failed for good; nothing comes any more."""

    def on_completed(self) -> None:
        """The stream is over, and every batch was delivered."""


class Contained(abc.ObserverBase[T]):
    """Stands before an observer of the user: what it raises is counted and reported, not thrown.

    Args:
        observer: the user's.
        telemetry: where to count and report.
    """

    def __init__(self, observer: abc.ObserverBase[T], telemetry: Telemetry) -> None:
        self._observer = observer
        self._telemetry = telemetry

    def on_next(self, value: T) -> None:
        """Pass the value on."""
        try:
            self._observer.on_next(value)
        except BaseException as error:  # noqa: BLE001 - a SystemExit would end a thread silently
            if is_interrupt(error) or not _fails_here(value, error):
                self._report(value, error)

    def on_error(self, error: Exception) -> None:
        """Pass the error on."""
        try:
            self._observer.on_error(error)
        except BaseException as raised:  # noqa: BLE001 - a SystemExit would keep back the end
            self._report(error, raised)

    def on_completed(self) -> None:
        """Pass the end on."""
        try:
            self._observer.on_completed()
        except BaseException as error:  # noqa: BLE001 - a SystemExit would keep back the end
            self._report(None, error)

    def _report(self, value: object, error: BaseException) -> None:
        self._telemetry.add(subscriber_errors=1)
        self._telemetry.publish(SubscriberFailed(value, error))
        if is_interrupt(error):
            raise error


class FunctionSubscriber(abc.ObserverBase[T]):
    """Functions as an observer that says what they return; RxPY's own keeps that to itself.

    Args:
        on_next: called with each item.
        on_error: called with the error that ended the stream.
        on_completed: called when the stream is over.
    """

    def __init__(
        self,
        on_next: Callable[[T], object] | None,
        on_error: Callable[[Exception], object] | None = None,
        on_completed: Callable[[], object] | None = None,
    ) -> None:
        self.function = on_next
        self._error = on_error
        self._completed = on_completed

    def on_next(self, value: T) -> Any:
        """Call the function; what it returns."""
        return None if self.function is None else self.function(value)

    def on_error(self, error: Exception) -> None:
        """Call the function, if there is one."""
        if self._error is not None:
            self._error(error)

    def on_completed(self) -> None:
        """Call the function, if there is one."""
        if self._completed is not None:
            self._completed()


class Settlement(Contained[Batch[Any]]):
    """Stands before a subscriber of batches, and tells the acknowledgers what became of each.

    A batch is settled once: when the subscriber has returned or raised, and everybody who has
    taken the batch over (`take_over`) has delivered it.

    Args:
        observer: the subscriber.
        telemetry: where to count and report.
        on_failed: is given the messages of a batch that failed.
        settled: told of each batch when its outcome is known, with what the subscriber raised.
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
        """Pass the batch on, and settle it."""
        self.settle(batch)

    def settle(self, batch: Batch[Any]) -> Batch[Any]:
        """Pass the batch on and settle it.

        Returns:
            What became of its messages; of a batch that was taken over, what is known by now.
        """
        telemetry = self._telemetry
        if telemetry.bus.has_observers:
            telemetry.publish(BatchStarted(batch))
        pending = _Pending(batch, self, telemetry)
        pending.deliver(self._observer.on_next, batch)
        return pending.outcome

    def settled(
        self, batch: Batch[Any], outcome: Batch[Any], error: BaseException | None, took: float
    ) -> Batch[Any]:
        """Count, report and acknowledge a batch whose outcome is known; what became of it."""
        if error is not None:
            settled = self._failed(batch, error, took)
        else:
            # Nothing that failed is batched, so a batch that came back as it was has succeeded.
            changed = () if outcome is batch else outcome
            failed = [each for each in changed if each.status != "ok"]
            settled = self._taken(outcome, failed, took)
        if self._settled is not None:
            self._settled(settled, error)
        return settled

    def _taken(self, batch: Batch[Any], failed: list[Message[Any]], took: float) -> Batch[Any]:
        telemetry = self._telemetry
        telemetry.add(batches=1, batched=len(batch) - len(failed), batched_failed=len(failed))
        if telemetry.bus.has_observers:
            telemetry.publish(BatchDelivered(batch, took))
        if not failed:
            acknowledge(batch, [], telemetry)
            return batch
        for message in failed:
            telemetry.publish(HandlerFailed(message))
        good = [message for message in batch if message.status == "ok"]
        handled = handle_failed(failed, self._on_failed, telemetry)
        acknowledge(good, handled, telemetry)
        rest = iter(handled)
        return batch.replaced(each if each.status == "ok" else next(rest) for each in batch)

    def _failed(self, batch: Batch[Any], error: BaseException, took: float) -> Batch[Any]:
        telemetry = self._telemetry
        telemetry.add(batches_failed=1, batched_failed=len(batch), subscriber_errors=1)
        reason = _reason(batch, error)
        failed = [message.failed(reason) for message in batch]
        telemetry.publish(BatchFailed(batch.replaced(failed), error, took))
        handled = handle_failed(failed, self._on_failed, telemetry)
        acknowledge([], handled, telemetry)
        return batch.replaced(handled)


class _Pending:
    """A batch that is not settled yet, and how many have yet to say how it ended for them.

    At first that is one, the thread that brings it.
    """

    __slots__ = (
        "_batch",
        "_error",
        "_lock",
        "_open",
        "_settlement",
        "_started",
        "_unsettled",
        "outcome",
        "telemetry",
    )

    def __init__(self, batch: Batch[Any], settlement: Settlement, telemetry: Telemetry) -> None:
        self.telemetry = telemetry
        self.outcome = batch
        self._batch = batch
        self._settlement = settlement
        self._started = perf_counter()
        self._lock = threading.Lock()
        self._open = 1
        self._unsettled = 0
        self._error: BaseException | None = None

    def open(self) -> None:
        with self._lock:
            self._open += 1

    def deliver(self, take: Callable[..., object], *args: object) -> None:
        """Call the function: what it returns or raises is the outcome for one of those."""
        outside, _here.pending = getattr(_here, "pending", None), self
        returned, error = None, None
        with self.telemetry.working():
            try:
                returned = take(*args)
            except BaseException as raised:  # a SystemExit would end a thread silently
                error = raised
                if is_interrupt(raised):
                    raise
            finally:
                _here.pending = outside
                self.close(returned, error)

    def close(self, returned: object, error: BaseException | None) -> None:
        with self._lock:
            self._open -= 1
            self._note(returned, error)
            before = self._unsettled
            self._unsettled = len(self._batch) if self._open else 0
            if before != self._unsettled:
                self.telemetry.add(unsettled=self._unsettled - before)
            if self._open:
                return
        took = perf_counter() - self._started
        self.outcome = self._settlement.settled(self._batch, self.outcome, self._error, took)

    def fail(self, batch: object, error: BaseException) -> bool:
        """Note that somebody to whom the batch went on raised; whether it is this one's reason."""
        with self._lock:
            is_reason = batch is self._batch and self._error is None
            if is_reason:
                self._error = error
        return is_reason

    def _note(self, returned: object, error: BaseException | None) -> None:
        try:
            outcome = self._batch if error is not None else _outcome(self._batch, returned)
        except HandlerError as wrong:
            outcome, error = self._batch, wrong
        self._error = self._error or error
        if outcome is not self._batch:
            self.outcome = outcome if self.outcome is self._batch else _worst(self.outcome, outcome)


class Share:
    """One part in the outcome of a batch; what `take_over` gives.

    Args:
        pending: the batch; ``None`` outside of a stream, where nobody waits for the outcome.
    """

    def __init__(self, pending: _Pending | None) -> None:
        self._pending = pending
        if pending is not None:
            pending.open()

    def deliver(self, take: Callable[[], object]) -> None:
        """Call the function: what it returns or raises is the outcome. Once, on any thread."""
        if self._pending is None:
            take()
        else:
            self._pending.deliver(take)


_here = threading.local()
"""The batch that this thread is delivering. Not an argument of ``on_next``: an observer of RxPY
that stands between would not pass it on."""


def _fails_here(value: object, error: BaseException) -> bool:
    """Whether the batch that this thread is delivering has failed by the error.

    A stock operator that stands between, such as ``share``, returns as if all had gone well.
    """
    pending: _Pending | None = getattr(_here, "pending", None)
    return pending is not None and pending.fail(value, error)


def take_over() -> Share:
    """Answer for the batch that this thread's ``on_next`` was called with.

    For subscribers that hand batches to another thread, as `subscribers.Buffered` does. The batch
    is settled when ``deliver`` was called on the result, which must come, and is counted in
    ``stats().unsettled`` until then. Several may take over one batch: what failed for one of them
    has failed.
    """
    return Share(getattr(_here, "pending", None))


def acknowledge(
    successful: Sequence[Message[Any]], failed: Sequence[Message[Any]], telemetry: Telemetry
) -> None:
    """Tell every acknowledger its part of the outcome; one that raises does not stop the others."""
    interrupt: BaseException | None = None
    count_late = partial(telemetry.add, late_acknowledgements=1)
    for acknowledger, good, bad in claim_by_acknowledger(successful, failed, count_late):
        try:
            acknowledger.ack(good, bad)
        except BaseException as error:  # noqa: BLE001 - the others must be told in any case
            telemetry.add(acknowledger_errors=1)
            telemetry.publish(AcknowledgerFailed((*good, *bad), error))
            if is_interrupt(error):
                interrupt = error
    if interrupt is not None:
        raise interrupt


def fail(
    failed: list[Message[Any]], on_failed: OnFailed | None, telemetry: Telemetry
) -> list[Message[Any]]:
    """Count, report and acknowledge messages that failed before any batch; what became of them."""
    telemetry.add(failed=len(failed))
    for message in failed:
        telemetry.publish(HandlerFailed(message))
    handled = handle_failed(failed, on_failed, telemetry)
    acknowledge([], handled, telemetry)
    return handled


def handle_failed(
    failed: list[Message[Any]], on_failed: OnFailed | None, telemetry: Telemetry
) -> list[Message[Any]]:
    """What the user's function makes of failed messages: as many, and failed they remain."""
    if on_failed is None or not failed:
        return failed
    started = perf_counter()
    try:
        with telemetry.working():
            answer = _checked(on_failed(list(failed)), len(failed))
    except BaseException as error:  # noqa: BLE001 - they must be acknowledged in any case
        telemetry.add(failure_handler_errors=1)
        took = perf_counter() - started
        telemetry.publish(FailureHandlerFailed(tuple(failed), error, took))
        return failed
    handled = [
        after if after.status != "ok" else _still_failed(before, after)
        for before, after in zip(failed, answer, strict=True)
    ]
    if telemetry.bus.has_observers:
        telemetry.publish(FailureHandled(tuple(handled), perf_counter() - started))
    return handled


def as_exception(error: BaseException) -> Exception:
    """The error as ``on_error`` takes it; a SystemExit is none that ends a program there."""
    if isinstance(error, Exception):
        return error
    wrapped = RuntimeError(f"{error!r} was raised, where an Exception was expected")
    wrapped.__cause__ = error
    return wrapped


def _still_failed(before: Message[Any], after: Message[Any]) -> Message[Any]:
    reason = before.status.reason if not isinstance(before.status, str) else None
    return after.failed(reason)


def _worst(one: Batch[Any], other: Batch[Any]) -> Batch[Any]:
    """The messages, each failed if it is in one of two outcomes of a batch."""
    pairs = zip(one, other, strict=True)
    return one.replaced(first if first.status != "ok" else second for first, second in pairs)


def _outcome(batch: Batch[Any], returned: object) -> Batch[Any]:
    """The batch with the statuses that its subscriber returned, if it returned messages."""
    if returned is None:
        return batch
    if inspect.iscoroutine(returned):
        returned.close()
        raise HandlerError("the subscriber is async: give it to ops.deliver, or to a Pipeline")
    if not isinstance(returned, list | tuple | Batch):
        return batch
    if not any(isinstance(each, Message) for each in returned):
        return batch
    return batch.replaced(_checked(returned, len(batch)))


def _checked(returned: Any, count: int) -> list[Message[Any]]:
    if not isinstance(returned, list | tuple | Batch):
        raise HandlerError(f"returned {type(returned).__name__}; return a list of the messages")
    wrong = next((each for each in returned if not isinstance(each, Message)), None)
    if wrong is not None:
        raise HandlerError(f"returned a list with {type(wrong).__name__}; return the messages")
    if len(returned) != count:
        raise HandlerError(f"was given {count} messages and returned {len(returned)}; return all")
    return list(returned)


def _reason(batch: Batch[Any], error: BaseException) -> SubscriberError:
    reason = SubscriberError(
        f"the subscriber raised {type(error).__name__} on a batch of {len(batch)}: {error}"
    )
    reason.__cause__ = error
    return reason
