"""The stages of a pipeline as values."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Topology", "TopologyBatcher", "TopologyProcessors", "TopologySource"]


@dataclass(frozen=True, slots=True)
class TopologySource:
    """A source.

    Attributes:
        name: its number, from 0.
        kind: the function that made the stream, such as ``sample_stream``; else its class.
    """

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class TopologyProcessors:
    """The processors.

    Attributes:
        handler: the name of the function.
        concurrency: most handlers that run concurrently, now.
        ordered: whether the order of the source is kept.
        partitioned: whether the order of each partition is kept.
    """

    handler: str
    concurrency: int
    ordered: bool
    partitioned: bool


@dataclass(frozen=True, slots=True)
class TopologyBatcher:
    """A batcher and its subscriber.

    Attributes:
        name: of the batcher.
        subscriber: the name of its class, or of the function.
        concurrency: most batches that are delivered concurrently.
        size: most messages in a batch; ``None`` if a function decides.
        timeout: seconds.
        partitioned: whether each batch has one partition.
    """

    name: str
    subscriber: str
    concurrency: int
    size: int | None
    timeout: float
    partitioned: bool


@dataclass(frozen=True, slots=True)
class Topology:
    """The stages of a pipeline, in the order in which messages pass them.

    Attributes:
        sources: of the messages.
        processors: ``None`` without a handler.
        batchers: empty if the processors acknowledge the messages.
    """

    sources: tuple[TopologySource, ...]
    processors: TopologyProcessors | None
    batchers: tuple[TopologyBatcher, ...]
