"""Acknowledgement: each message is acknowledged exactly once.

`claim_by_acknowledger` lets the first outcome of a message pass and counts later ones. Every stage
that settles a message calls `acknowledge`, mostly through `settle`:

- `Settlement`: the messages of a batch, when its subscriber has returned or raised,
- `process`, `batch`, `route` and `partition`: messages that fail before a batch,
- `deduplicate`: duplicates, and messages whose key could not be computed,
- `acknowledge` and `collect`: messages of streams without batches.

`ack_immediately`, for handlers and subscribers, claims messages in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from rxtweets._core.events import (
    AcknowledgerFailed,
    FailureHandled,
    FailureHandlerFailed,
    HandlerFailed,
)
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message, claim_by_acknowledger
from rxtweets._support.workers import is_interrupt
from rxtweets.errors import HandlerError

__all__ = ["OnFailed", "acknowledge", "fail", "handle_failed", "returned_messages", "settle"]

Messages = Sequence[Message[Any]]

OnFailed = Callable[[list[Message[Any]]], Messages]
"""Takes failed messages before they are acknowledged, and returns the same number."""


def acknowledge(successful: Messages, failed: Messages, telemetry: Telemetry) -> None:
    """Call each acknowledger with its messages; one that raises does not stop the others."""
    interrupt: BaseException | None = None
    count_late = partial(telemetry.add, late_acknowledgements=1)
    for acknowledger, good, bad in claim_by_acknowledger(successful, failed, count_late):
        try:
            acknowledger.ack(good, bad)
        except BaseException as error:  # noqa: BLE001 - the other acknowledgers are still called
            telemetry.add(acknowledger_errors=1)
            telemetry.publish(AcknowledgerFailed((*good, *bad), error))
            if is_interrupt(error):
                interrupt = error
    if interrupt is not None:
        raise interrupt


def settle(
    successful: Messages,
    failed: list[Message[Any]],
    on_failed: OnFailed | None,
    telemetry: Telemetry,
) -> list[Message[Any]]:
    """Publish and handle failed messages, acknowledge all, and return the failed ones."""
    for message in failed:
        telemetry.publish(HandlerFailed(message))
    handled = handle_failed(failed, on_failed, telemetry)
    acknowledge(successful, handled, telemetry)
    return handled


def fail(
    failed: list[Message[Any]], on_failed: OnFailed | None, telemetry: Telemetry
) -> list[Message[Any]]:
    """Count and settle messages that failed before a batch."""
    telemetry.add(failed=len(failed))
    return settle((), failed, on_failed, telemetry)


def handle_failed(
    failed: list[Message[Any]], on_failed: OnFailed | None, telemetry: Telemetry
) -> list[Message[Any]]:
    """Return the messages that ``on_failed`` returns: the same number, and all failed."""
    if on_failed is None or not failed:
        return failed
    started = perf_counter()
    try:
        with telemetry.working():
            returned = returned_messages(on_failed(list(failed)), len(failed))
    except BaseException as error:  # noqa: BLE001 - the messages are still acknowledged
        telemetry.add(failure_handler_errors=1)
        took = perf_counter() - started
        telemetry.publish(FailureHandlerFailed(tuple(failed), error, took))
        return failed
    handled = [
        message if message.status != "ok" else message.failed(given.status.reason)  # type: ignore[union-attr]  # it has failed
        for given, message in zip(failed, returned, strict=True)
    ]
    if telemetry.bus.has_observers:
        telemetry.publish(FailureHandled(tuple(handled), perf_counter() - started))
    return handled


def returned_messages(returned: Any, count: int) -> list[Message[Any]]:
    """Check messages that a function of the user returned.

    Raises:
        HandlerError: they are not a list of ``count`` messages.
    """
    if not isinstance(returned, list | tuple | Batch):
        raise HandlerError(f"returned {type(returned).__name__}; return a list of the messages")
    wrong = next((value for value in returned if not isinstance(value, Message)), None)
    if wrong is not None:
        raise HandlerError(f"returned a list with {type(wrong).__name__}; return the messages")
    if len(returned) != count:
        raise HandlerError(f"was given {count} messages and returned {len(returned)}; return all")
    return list(returned)
