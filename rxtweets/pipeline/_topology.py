"""What a pipeline is made of."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Topology", "TopologyBatcher", "TopologyProcessors", "TopologySource"]


@dataclass(frozen=True, slots=True)
class TopologySource:
    """A source.

    Attributes:
        name: its number, from 0.
        kind: the function that made its stream, such as ``sample_stream``; else its class.
    """

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class TopologyProcessors:
    """The processors.

    Attributes:
        handler: the name of the function.
        concurrency: handlers at once at most, now.
        ordered: whether they keep the order of the source.
        partitioned: whether they keep the order of each partition.
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
        concurrency: batches that are delivered at once at most.
        size: messages in a batch at most; ``None`` if a function decides.
        timeout: seconds.
        partitioned: whether batches are of one partition each.
    """

    name: str
    subscriber: str
    concurrency: int
    size: int | None
    timeout: float
    partitioned: bool


@dataclass(frozen=True, slots=True)
class Topology:
    """The stages of a pipeline, in the order in which messages go through them.

    Attributes:
        sources: of the messages.
        processors: ``None`` if there is no handler.
        batchers: empty if messages are acknowledged by the processors.
    """

    sources: tuple[TopologySource, ...]
    processors: TopologyProcessors | None
    batchers: tuple[TopologyBatcher, ...]
