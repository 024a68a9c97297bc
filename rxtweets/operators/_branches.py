"""What `route` and `partition` have in common: a stream that branches, and comes together again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable

from rxtweets._core.observable import (
    BatchStream,
    ChunkGate,
    MessageStream,
    SettledStream,
    subscribe_in_chunks,
    telemetry_of,
)
from rxtweets._core.subscriber import OnFailed, acknowledge, fail
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets.errors import ConfigurationError

__all__ = ["Operators", "branching", "operators_of"]

Operator = Callable[[Any], Any]
Operators = Operator | Sequence[Operator]
Chunk = list[Message[Any]]
Sort = Callable[[Chunk], tuple[Mapping[Any, Chunk], Chunk]]
"""Says which branch gets which messages, and which messages failed because there is none."""


def operators_of(name: str, branch: Any) -> tuple[Operator, ...]:
    """One operator, or several, as a tuple.

    Raises:
        ConfigurationError: it is neither.
    """
    operators = tuple(branch) if isinstance(branch, Iterable) else (branch,)
    if not operators or not all(callable(each) for each in operators):
        raise ConfigurationError(f"{name}: give an operator, or a list of operators")
    return operators


def branching(
    branches: Mapping[Any, tuple[Operator, ...]], sort: Sort, on_failed: OnFailed | None
) -> Callable[[Observable[Message[Any]]], Any]:
    """An operator that sends messages through branches, and merges what these emit."""

    def operator(source: Observable[Message[Any]]) -> Any:
        telemetry = telemetry_of(source)
        heads = [_Head(telemetry).through(operators) for operators in branches.values()]
        kinds = {type(stream) for stream in heads}
        if len(kinds) != 1 or not kinds <= {MessageStream, BatchStream, SettledStream}:
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise ConfigurationError(
                "all branches end in the same kind of operator, in process and its like, in batch, "
                f"or in deliver; these end in {names}"
            )

        def subscribe(
            observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            fork = _Fork(branches, sort, on_failed, observer, telemetry)
            fork.listen(source, scheduler)
            return fork

        return kinds.pop()(subscribe, telemetry)

    return operator


class _Head:
    """The beginning of a branch, from which it is fed."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self.feed: ChunkGate[Chunk] | None = None

    def through(self, operators: tuple[Operator, ...]) -> Any:
        stream: Any = MessageStream(self._attach, self._telemetry)
        return stream.pipe(*operators)

    def _attach(
        self, observer: abc.ObserverBase[Chunk], _: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        if self.feed is not None:
            raise ConfigurationError("a branch can be subscribed to once")
        self.feed = ChunkGate(observer)
        return Disposable()  # what still comes is for the branch to count as abandoned


class _Fork(abc.ObserverBase[Chunk], abc.DisposableBase):
    """One subscription: the branches, what feeds them, and what they come together in."""

    def __init__(
        self,
        branches: Mapping[Any, tuple[Operator, ...]],
        sort: Sort,
        on_failed: OnFailed | None,
        observer: abc.ObserverBase[Any],
        telemetry: Telemetry,
    ) -> None:
        self._heads = {name: _Head(telemetry) for name in branches}
        self._streams = [self._heads[name].through(each) for name, each in branches.items()]
        self._sort = sort
        self._on_failed = on_failed
        self._telemetry = telemetry
        self._confluence = _Confluence(observer, len(self._streams))
        self._subscriptions = CompositeDisposable()

    def listen(self, source: Observable[Message[Any]], scheduler: abc.SchedulerBase | None) -> None:
        for stream in self._streams:
            part = _Part(self._confluence)
            self._subscriptions.add(_subscribe(stream, part, scheduler))
        self._subscriptions.add(subscribe_in_chunks(source, self, scheduler))

    def on_next(self, chunk: Chunk) -> None:
        good = [message for message in chunk if message.status == "ok"]
        if len(good) < len(chunk):
            before = [message for message in chunk if message.status != "ok"]
            acknowledge([], before, self._telemetry)
        parts, failed = self._sort(good)
        if failed:
            fail(failed, self._on_failed, self._telemetry)
        for name, part in parts.items():
            feed = self._heads[name].feed
            if feed is not None:
                feed.on_next(part)

    def on_error(self, error: Exception) -> None:
        for head in self._heads.values():
            if head.feed is not None:
                head.feed.on_error(error)

    def on_completed(self) -> None:
        for head in self._heads.values():
            if head.feed is not None:
                head.feed.on_completed()

    def dispose(self) -> None:
        # What is under way comes through, for those who are subscribed to count as abandoned.
        self._subscriptions.dispose()


class _Confluence:
    """Where branches come together: one call at a time, and one end when all have ended."""

    def __init__(self, observer: abc.ObserverBase[Any], branches: int) -> None:
        self._gate = ChunkGate(observer)
        self._emitting = threading.RLock()
        self._left = branches
        self._error: Exception | None = None

    def emit(self, value: Any) -> None:
        with self._emitting:
            self._gate.on_next(value)

    def end(self, error: Exception | None) -> None:
        with self._emitting:
            self._left -= 1
            self._error = self._error or error
            if self._left:
                return
            if self._error is None:
                self._gate.on_completed()
            else:
                self._gate.on_error(self._error)


class _Part(abc.ObserverBase[Any]):
    def __init__(self, confluence: _Confluence) -> None:
        self._confluence = confluence

    def on_next(self, value: Any) -> None:
        self._confluence.emit(value)

    def on_error(self, error: Exception) -> None:
        self._confluence.end(error)

    def on_completed(self) -> None:
        self._confluence.end(None)


def _subscribe(
    stream: Any, observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None
) -> abc.DisposableBase:
    if isinstance(stream, MessageStream):
        return stream.subscribe_chunks(observer, scheduler)
    if isinstance(stream, BatchStream):
        return stream.subscribe_batches(observer, scheduler)
    settled: SettledStream[Batch[Any]] = stream
    return settled.subscribe(observer, scheduler=scheduler)
