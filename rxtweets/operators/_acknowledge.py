"""`acknowledge`: messages are settled where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable, abc

from rxtweets._core.observable import MessageStream, subscribe_in_chunks, telemetry_of
from rxtweets._core.subscriber import acknowledge as tell
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import Message

__all__ = ["acknowledge"]

T = TypeVar("T")


def acknowledge() -> Callable[[Observable[Message[T]]], MessageStream[T]]:
    """Tell the acknowledgers of messages that come here what became of them, and pass them on.

    For pipelines without batches: with `batch`, messages are acknowledged when their subscriber
    is done with them.

    ::

        source         --1--2✗-3--|
        acknowledge()  --1--2✗-3--|     1 and 3 are acknowledged as successful, 2 as failed
    """

    def operator(source: Observable[Message[T]]) -> MessageStream[T]:
        telemetry = telemetry_of(source)

        def subscribe(
            observer: abc.ObserverBase[list[Message[Any]]], scheduler: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            return subscribe_in_chunks(source, _Settling(observer, telemetry), scheduler)

        return MessageStream(subscribe, telemetry)

    return operator


class _Settling(abc.ObserverBase[list[Message[Any]]]):
    def __init__(
        self, observer: abc.ObserverBase[list[Message[Any]]], telemetry: Telemetry
    ) -> None:
        self._observer = observer
        self._telemetry = telemetry

    def on_next(self, chunk: list[Message[Any]]) -> None:
        good = [message for message in chunk if message.status == "ok"]
        failed = [message for message in chunk if message.status != "ok"]
        self._telemetry.add(acknowledged=len(good), failed=len(failed))
        tell(good, failed, self._telemetry)
        self._observer.on_next(chunk)

    def on_error(self, error: Exception) -> None:
        self._observer.on_error(error)

    def on_completed(self) -> None:
        self._observer.on_completed()
