"""The options of a pipeline, and the operators that they become."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from reactivex import Observable, abc

from rxtweets import operators as ops
from rxtweets._core.concurrency import Concurrency
from rxtweets._core.observable import name_of
from rxtweets._core.subscriber import OnFailed, Settled
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets.errors import ConfigurationError
from rxtweets.operators._calls import is_async
from rxtweets.operators._deliver import delivering, subscriber_of
from rxtweets.pipeline._batcher import AWAITED, Batcher
from rxtweets.pipeline._topology import (
    Topology,
    TopologyBatcher,
    TopologyProcessors,
    TopologySource,
)

__all__ = ["Plan", "batchers_of", "sources_of"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pipeline is made of.

    Attributes:
        sources: of messages.
        handler: of each message; ``None`` leaves them as they are.
        concurrency: of the handler.
        processing: further options of `operators.process`.
        batchers: by name.
        partition_by: of batchers that have none of their own.
        handle_failed: the user's.
        context: the last argument of every function of the user's, in a tuple; else empty.
        settled: told of each batch when its outcome is known.
    """

    sources: tuple[Observable[Message[Any]], ...]
    handler: Callable[..., Any] | None
    concurrency: Concurrency
    processing: Mapping[str, Any]
    batchers: Mapping[str, Batcher]
    partition_by: Callable[[Message[Any]], int] | None
    handle_failed: Callable[..., Any] | None
    context: tuple[Any, ...] = field(default=())
    settled: Settled | None = None

    def stream(
        self,
        messages: Observable[Message[Any]],
        subscribers: Mapping[str, abc.ObserverBase[Batch[Any]]],
    ) -> Any:
        """The operators over the sources.

        Args:
            messages: of all sources.
            subscribers: in place of those of the batchers that have none.
        """
        stream: Any = messages
        if self.handler is not None:
            stream = stream.pipe(self._process())
        if not self.batchers:
            return stream.pipe(ops.acknowledge())
        branches = {
            name: self._branch(name, batcher, subscribers.get(name))
            for name, batcher in self.batchers.items()
        }
        return stream.pipe(ops.route(branches, on_failed=self._on_failed))

    def topology(self) -> Topology:
        """The stages as values."""
        sources = tuple(
            TopologySource(str(number), name_of(source))
            for number, source in enumerate(self.sources)
        )
        processors = None
        if self.handler is not None:
            processors = TopologyProcessors(
                _name_of(self.handler),
                self.concurrency.limit,
                bool(self.processing.get("ordered")),
                self.processing.get("partition_by") is not None,
            )
        batchers = tuple(
            TopologyBatcher(
                name,
                _name_of(each.subscriber),
                each.concurrency,
                None if isinstance(each.size, tuple) else each.size,
                each.timeout,
                self._partition_by(each) is not None,
            )
            for name, each in self.batchers.items()
        )
        return Topology(sources, processors, batchers)

    def _process(self) -> Any:
        options = {"on_failed": self.handle_failed, **self.processing}
        if self.context:
            options["context"] = self.context[0]
        return ops.process(self.handler, self.concurrency, **options)  # type: ignore[arg-type]  # checked there

    @property
    def _on_failed(self) -> OnFailed | None:
        return None if self.handle_failed is None else self._with_context(self.handle_failed)

    def _branch(
        self, name: str, batcher: Batcher, subscriber: abc.ObserverBase[Batch[Any]] | None
    ) -> list[Any]:
        partition_by = self._partition_by(batcher)
        # Alone and one at a time, a batcher needs no threads: nobody waits behind its subscriber.
        is_alone = (
            len(self.batchers) == 1
            and batcher.concurrency == 1
            and batcher.waiting is None
            and subscriber is None
        )
        return [
            ops.batch(
                batcher.size,
                batcher.timeout,
                name=name,
                max_bytes=batcher.max_bytes,
                bytes_of=batcher.bytes_of,
                partition_by=partition_by,
                partitions=batcher.concurrency,
                on_failed=self._on_failed,
            ),
            delivering(
                subscriber or self._subscriber_of(batcher),
                None if is_alone else batcher.concurrency,
                batcher.waiting,
                name,
                self._on_failed,
                self.settled,
            ),
        ]

    def _subscriber_of(self, batcher: Batcher) -> Any:
        subscriber = batcher.subscriber
        if subscriber is AWAITED or callable(getattr(subscriber, "on_next", None)):
            return subscriber_of(subscriber)
        return self._with_context(subscriber)

    def _partition_by(self, batcher: Batcher) -> Callable[[Message[Any]], int] | None:
        return batcher.partition_by or self.partition_by

    def _with_context(self, function: Any) -> Any:
        if not self.context:
            return function
        kind = _AsyncBound if is_async(function) else _Bound
        return kind(function, self.context)


class _Bound:
    """A function with the context as its last argument."""

    def __init__(self, function: Callable[..., Any], context: tuple[Any, ...]) -> None:
        self._function = function
        self._context = context

    def __call__(self, *args: Any) -> Any:
        return self._function(*args, *self._context)


class _AsyncBound(_Bound):
    async def __call__(self, *args: Any) -> Any:
        return await self._function(*args, *self._context)


def sources_of(source: Any) -> tuple[Observable[Message[Any]], ...]:
    """One Observable, or several, as a tuple.

    Raises:
        ConfigurationError: it is neither.
    """
    sources = tuple(source) if isinstance(source, list | tuple) else (source,)
    if not sources or not all(isinstance(each, Observable) for each in sources):
        raise ConfigurationError(
            f"source={source!r}: give an Observable of messages, or a list of them"
        )
    return sources


def batchers_of(batchers: Any) -> dict[str, Batcher]:
    """The batchers by name.

    Raises:
        ConfigurationError: they are something else.
    """
    if batchers is None:
        return {}
    if not isinstance(batchers, Mapping):
        raise ConfigurationError(f"batchers={batchers!r}: give {{'default': Batcher(...)}}")
    for name, batcher in batchers.items():
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"batchers: the name {name!r} is no text")
        if not isinstance(batcher, Batcher):
            raise ConfigurationError(f"batchers[{name!r}]={batcher!r}: give a rxtweets.Batcher")
    return dict(batchers)


def _name_of(part: Any) -> str:
    if part is AWAITED:
        return "abatches"
    if isinstance(part, partial):
        return _name_of(part.func)
    return str(getattr(part, "__name__", type(part).__name__))
