"""The options of a pipeline, and the operators that they become."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from reactivex import Observable, abc

from rxtweets import operators as ops
from rxtweets._core.concurrency import Concurrency
from rxtweets._core.observable import source_name
from rxtweets._core.subscriber import Settled
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets._support.validation import function
from rxtweets.errors import ConfigurationError
from rxtweets.operators._batch import batching
from rxtweets.operators._calls import with_context
from rxtweets.operators._deliver import delivering
from rxtweets.pipeline._batcher import Batcher, name_of_part
from rxtweets.pipeline._topology import (
    Topology,
    TopologyBatcher,
    TopologyProcessors,
    TopologySource,
)
from rxtweets.streams._base import HotStream

__all__ = ["MAX_DEMAND", "PipelinePlan", "batchers_of", "sources_of"]

MAX_DEMAND = 10


@dataclass(frozen=True, slots=True)
class PipelinePlan:
    """The validated options of a pipeline.

    Attributes:
        processing: further options of `operators.process`.
        on_settled: called with each settled batch.

    Raises:
        ConfigurationError: an option is invalid, or two contradict each other.
    """

    sources: tuple[Observable[Message[Any]], ...]
    handler: Callable[..., Any] | None
    concurrency: Concurrency
    processing: Mapping[str, Any]
    batchers: Mapping[str, Batcher]
    partition_by: Callable[[Message[Any]], int] | None
    handle_failed: Callable[..., Any] | None
    context: Any
    on_settled: Settled | None

    def __post_init__(self) -> None:
        for option in ("handle_failed", "partition_by"):
            if getattr(self, option) is not None:
                function(option, getattr(self, option))
        if self.handler is None:
            self._refuse_options_of_handlers()

    def _refuse_options_of_handlers(self) -> None:
        if not self.batchers:
            raise ConfigurationError(
                "batchers: without handle_message= and without batchers= there is nothing to do"
            )
        usual = {"partition_by": self.partition_by, "max_demand": MAX_DEMAND}
        for option, value in self.processing.items():
            if value and value != usual.get(option):
                raise ConfigurationError(f"{option}= is for handlers: give handle_message= too")
        # A source that is composed of operators, or is the user's own, may name batchers itself.
        is_unrouted = all(isinstance(source, HotStream) for source in self.sources)
        if is_unrouted and "default" not in self.batchers:
            raise ConfigurationError(
                "batchers: without handle_message= every message goes to 'default', which is none "
                f"of {', '.join(map(repr, self.batchers))}: name one of them 'default', or give a "
                "handle_message= that calls message.put_batcher(name)"
            )

    def stream(
        self,
        messages: Observable[Message[Any]],
        awaited: Mapping[str, abc.ObserverBase[Batch[Any]]],
    ) -> Any:
        """Return the operators over the messages of all sources.

        Args:
            messages: of all sources.
            awaited: the subscribers of batchers that have none, by name.
        """
        stream: Any = messages
        if self.handler is not None:
            stream = stream.pipe(
                ops.process(
                    self.handler,
                    self.concurrency,
                    context=self.context,
                    on_failed=self.handle_failed,
                    **self.processing,
                )
            )
        if not self.batchers:
            return stream.pipe(ops.acknowledge())
        branches = {
            name: self._branch(name, batcher, awaited.get(name))
            for name, batcher in self.batchers.items()
        }
        return stream.pipe(
            ops.route(branches, on_failed=with_context(self.handle_failed, self.context))
        )

    def topology(self) -> Topology:
        """Return the stages as values."""
        processors = None
        if self.handler is not None:
            processors = TopologyProcessors(
                name_of_part(self.handler),
                self.concurrency.limit,
                bool(self.processing.get("ordered")),
                self.processing.get("partition_by") is not None,
            )
        return Topology(
            tuple(
                TopologySource(str(number), source_name(source))
                for number, source in enumerate(self.sources)
            ),
            processors,
            tuple(
                TopologyBatcher(
                    name,
                    batcher.subscriber_name,
                    batcher.concurrency,
                    None if isinstance(batcher.size, tuple) else batcher.size,
                    batcher.timeout,
                    (batcher.partition_by or self.partition_by) is not None,
                )
                for name, batcher in self.batchers.items()
            ),
        )

    def _branch(
        self, name: str, batcher: Batcher, awaited: abc.ObserverBase[Batch[Any]] | None
    ) -> list[Any]:
        on_failed = with_context(self.handle_failed, self.context)
        subscriber: Any = awaited or batcher.subscriber
        if not batcher.is_awaited and not callable(getattr(subscriber, "on_next", None)):
            subscriber = with_context(subscriber, self.context)
        # One batcher that delivers one batch at a time needs no thread: no other branch waits.
        is_inline = (
            len(self.batchers) == 1
            and batcher.concurrency == 1
            and batcher.waiting is None
            and awaited is None
        )
        options = replace(
            batcher.options,
            name=name,
            partition_by=batcher.partition_by or self.partition_by,
            on_failed=on_failed,
        )
        return [
            batching(options),
            delivering(
                subscriber,
                None if is_inline else batcher.concurrency,
                batcher.waiting,
                name,
                on_failed,
                self.on_settled,
            ),
        ]


def sources_of(source: Any) -> tuple[Observable[Message[Any]], ...]:
    """Return one Observable, or several, as a tuple.

    Raises:
        ConfigurationError: it is neither.
    """
    sources = tuple(source) if isinstance(source, list | tuple) else (source,)
    if not sources or not all(isinstance(part, Observable) for part in sources):
        raise ConfigurationError(
            f"source={source!r}: give an Observable of messages, or a list of them"
        )
    return sources


def batchers_of(batchers: Any) -> dict[str, Batcher]:
    """Return the batchers by name.

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
