"""`deduplicate`: lets each message pass once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from reactivex import Observable, abc

from rxtweets._core.acknowledgement import acknowledge
from rxtweets._core.deduplication import DEFAULT_WINDOW, Deduplicator, default_key
from rxtweets._core.events import HandlerFailed
from rxtweets._core.observable import MessageStream, subscribe_in_chunks, telemetry_of
from rxtweets._core.subscriber import ForwardingObserver
from rxtweets._messages.message import Message
from rxtweets._support.validation import function, whole_number

__all__ = ["deduplicate"]

T = TypeVar("T")


def deduplicate(
    by: Callable[[Message[Any]], Hashable] | None = None, window: int = DEFAULT_WINDOW
) -> Callable[[Observable[Message[T]]], MessageStream[T]]:
    """Let each message pass once: after backfill, redundant connections, or a merge.

    It is exact for the last ``window`` different keys, and holds no others. Duplicates are counted
    in ``stats().duplicates`` and acknowledged as successful, since their first copy stands for
    them. A message on which ``by`` raises fails, as if its handler had raised.

    ::

        once = reactivex.merge(a, b).pipe(ops.deduplicate(window=10_000))

    Args:
        by: gives the key of a message; by default its id; without an id its line; without a line a
            digest of its data and metadata.
        window: number of keys, 100,000 by default; each takes about 200 bytes.

    Returns:
        An operator.

    Raises:
        ConfigurationError: ``by`` is no function, or ``window`` no whole number of 1 or more.
    """
    key_of_message = default_key if by is None else by
    function("by", key_of_message)
    whole_number("window", window)

    def operator(source: Observable[Message[T]]) -> MessageStream[T]:
        telemetry = telemetry_of(source)

        def subscribe(
            observer: abc.ObserverBase[list[Message[Any]]], scheduler: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            seen = Deduplicator(window)

            def on_next(chunk: list[Message[Any]]) -> None:
                fresh: list[Message[Any]] = []
                duplicates: list[Message[Any]] = []
                failed: list[Message[Any]] = []
                for message in chunk:
                    try:
                        is_new = seen.is_new(key_of_message(message))
                        (fresh if is_new else duplicates).append(message)
                    except BaseException as error:  # noqa: BLE001 - a user's function raises anything
                        failed.append(message.failed(error))
                if duplicates or failed:
                    telemetry.add(duplicates=len(duplicates), failed=len(failed))
                    for message in failed:
                        telemetry.publish(HandlerFailed(message))
                    acknowledge(duplicates, failed, telemetry)
                if fresh:
                    observer.on_next(fresh)

            once = ForwardingObserver(on_next, observer)
            return subscribe_in_chunks(source, once, scheduler)

        return MessageStream(subscribe, telemetry)

    return operator
