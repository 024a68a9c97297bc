"""Subscribers of batches, and the boundary that settles every batch they get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from reactivex import Observer, abc

from rxtweets.errors import SubscriberError
from rxtweets.events import (
    AcknowledgerFailed,
    BatchDelivered,
    BatchFailed,
    SubscriberFailed,
)
from rxtweets.message import Batch, Message, group_by_acknowledger
from rxtweets.telemetry import Telemetry

__all__ = ["Contained", "Settlement", "Subscriber", "acknowledge"]

T = TypeVar("T")


class Subscriber(Observer[Batch[T]], Generic[T]):
    """The base of custom subscribers: write ``on_next(batch)``, and that is all.

    Returning means that the batch was taken; raising means that it failed: its messages are
    acknowledged as failed, the failure is counted and reported, and the next batch comes. Calls
    never overlap, so a subscriber needs no lock. ``on_completed`` and ``on_error`` are called
    once at the end, at most one of them, and are the places to close what was opened.

    ::

        class Alerts(rxtweets.Subscriber):
            def on_next(self, batch):
                for message in batch:
                    ...
    """

    is_stopped = False
    """`reactivex.Observer` sets this in its constructor; a subclass may forget to call it."""

    def on_next(self, batch: Batch[T]) -> None:
        """Take one batch; raise to fail it."""
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
        except Exception as error:  # noqa: BLE001 - whatever a user's code raises
            self._report(value, error)

    def on_error(self, error: Exception) -> None:
        """Pass the error on."""
        try:
            self._observer.on_error(error)
        except Exception as raised:  # noqa: BLE001 - whatever a user's code raises
            self._report(error, raised)

    def on_completed(self) -> None:
        """Pass the end on."""
        try:
            self._observer.on_completed()
        except Exception as error:  # noqa: BLE001 - whatever a user's code raises
            self._report(None, error)

    def _report(self, value: object, error: BaseException) -> None:
        self._telemetry.add(subscriber_errors=1)
        self._telemetry.publish(SubscriberFailed(value, error))


class Settlement(Contained[Batch[Any]]):
    """Stands before a subscriber of batches, and tells the acknowledgers what became of each."""

    def on_next(self, batch: Batch[Any]) -> None:
        """Pass the batch on, and settle it."""
        telemetry = self._telemetry
        with telemetry.working():
            self._settle(batch, telemetry)

    def _settle(self, batch: Batch[Any], telemetry: Telemetry) -> None:
        try:
            self._observer.on_next(batch)
        except Exception as error:  # noqa: BLE001 - whatever a user's code raises
            telemetry.add(batches_failed=1, batched_failed=len(batch), subscriber_errors=1)
            failed = [message.failed(_reason(batch, error)) for message in batch]
            failed_batch = Batch(failed, batch.info.trigger, batch.info.batcher)
            telemetry.publish(BatchFailed(failed_batch, error))
            acknowledge([], failed, telemetry)
        else:
            telemetry.add(batches=1, batched=len(batch))
            if telemetry.bus.has_observers:
                telemetry.publish(BatchDelivered(batch))
            acknowledge(batch, [], telemetry)


def acknowledge(
    successful: Sequence[Message[Any]], failed: Sequence[Message[Any]], telemetry: Telemetry
) -> None:
    """Tell every acknowledger its part of the outcome; one that raises does not stop the others."""
    for acknowledger, good, bad in group_by_acknowledger(successful, failed):
        try:
            acknowledger.ack(good, bad)
        except Exception as error:  # noqa: BLE001 - whatever a user's code raises
            telemetry.add(acknowledger_errors=1)
            telemetry.publish(AcknowledgerFailed((*good, *bad), error))


def _reason(batch: Batch[Any], error: Exception) -> SubscriberError:
    reason = SubscriberError(
        f"the subscriber raised {type(error).__name__} on a batch of {len(batch)}: {error}"
    )
    reason.__cause__ = error
    return reason
