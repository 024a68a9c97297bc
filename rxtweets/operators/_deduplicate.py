"""The operator ``deduplicate``."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from reactivex import Observable, abc

from rxtweets._core.deduplication import DEFAULT_WINDOW, Deduplicator, key_of
from rxtweets._core.events import HandlerFailed
from rxtweets._core.observable import MessageStream, subscribe_in_chunks, telemetry_of
from rxtweets._core.subscriber import acknowledge
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import Message
from rxtweets._support.validation import function, whole_number

__all__ = ["deduplicate"]

T = TypeVar("T")


def deduplicate(
    by: Callable[[Message[Any]], Hashable] | None = None, window: int = DEFAULT_WINDOW
) -> Callable[[Observable[Message[T]]], MessageStream[T]]:
    """Let each message through once: after backfill, redundant connections, or a merge.

    Exact for the last ``window`` different keys, and never more than these are held. What is left
    out is counted in ``stats().duplicates`` and acknowledged as successful, as its first copy
    stands for it. A message on which ``by`` raises fails, as one on which a handler does.

    ::

        once = reactivex.merge(a, b).pipe(ops.deduplicate(window=10_000))

    Args:
        by: what makes two messages the same; by default the id, or the line where there is none.
        window: keys that are remembered, 100,000 by default; about 200 bytes each.

    Raises:
        ConfigurationError: ``by`` is no function, or ``window`` no whole number of 1 or more.
    """
    key = key_of if by is None else by
    function("by", key)
    whole_number("window", window)

    def over(source: Observable[Message[T]]) -> MessageStream[T]:
        telemetry = telemetry_of(source)

        def subscribe(
            observer: abc.ObserverBase[list[Message[Any]]], scheduler: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            once = _Once(observer, key, Deduplicator(window), telemetry)
            return subscribe_in_chunks(source, once, scheduler)

        return MessageStream(subscribe, telemetry)

    return over


class _Once(abc.ObserverBase[list[Message[Any]]]):
    def __init__(
        self,
        observer: abc.ObserverBase[list[Message[Any]]],
        by: Callable[[Message[Any]], Hashable],
        seen: Deduplicator,
        telemetry: Telemetry,
    ) -> None:
        self._observer = observer
        self._by = by
        self._seen = seen
        self._telemetry = telemetry

    def on_next(self, value: list[Message[Any]]) -> None:
        fresh: list[Message[Any]] = []
        again: list[Message[Any]] = []
        failed: list[Message[Any]] = []
        for message in value:
            try:
                (fresh if self._seen.is_new(self._by(message)) else again).append(message)
            except BaseException as error:  # noqa: BLE001 - whatever a user's code raises
                failed.append(message.failed(error))
        if again or failed:
            self._leave_out(again, failed)
        if fresh:
            self._observer.on_next(fresh)

    def on_error(self, error: Exception) -> None:
        self._observer.on_error(error)

    def on_completed(self) -> None:
        self._observer.on_completed()

    def _leave_out(self, again: list[Message[Any]], failed: list[Message[Any]]) -> None:
        self._telemetry.add(duplicates=len(again), failed=len(failed))
        for message in failed:
            self._telemetry.publish(HandlerFailed(message))
        acknowledge(again, failed, self._telemetry)
