"""`acknowledge`: acknowledges messages in streams without batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable, abc

from rxtweets._core.acknowledgement import acknowledge as acknowledge_messages
from rxtweets._core.observable import MessageStream, subscribe_in_chunks, telemetry_of
from rxtweets._core.subscriber import ForwardingObserver
from rxtweets._messages.message import Message

__all__ = ["acknowledge"]

T = TypeVar("T")


def acknowledge() -> Callable[[Observable[Message[T]]], MessageStream[T]]:
    """Acknowledge each message by its status, and pass it on.

    It is for streams without batches: `batch` acknowledges messages when their subscriber returns
    or raises.

    ::

        source         --1--2✗-3--|
        acknowledge()  --1--2✗-3--|     1 and 3 are acknowledged as successful, 2 as failed

    Returns:
        An operator.
    """

    def operator(source: Observable[Message[T]]) -> MessageStream[T]:
        telemetry = telemetry_of(source)

        def subscribe(
            observer: abc.ObserverBase[list[Message[Any]]], scheduler: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            def on_next(chunk: list[Message[Any]]) -> None:
                good = [message for message in chunk if message.status == "ok"]
                failed = [message for message in chunk if message.status != "ok"]
                telemetry.add(acknowledged=len(good), failed=len(failed))
                acknowledge_messages(good, failed, telemetry)
                observer.on_next(chunk)

            settling = ForwardingObserver(on_next, observer)
            return subscribe_in_chunks(source, settling, scheduler)

        return MessageStream(subscribe, telemetry)

    return operator
