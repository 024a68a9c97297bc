"""`route` and `partition`: send messages through branches, and merge the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, overload

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable

from rxtweets._core.acknowledgement import OnFailed, acknowledge, fail
from rxtweets._core.gates import ChunkGate
from rxtweets._core.observable import (
    BatchStream,
    MessageStream,
    SettledStream,
    subscribe_in_chunks,
    telemetry_of,
)
from rxtweets._core.serial import SerialObserver
from rxtweets._core.subscriber import ForwardingObserver
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import Chunk, Message, are_plain
from rxtweets._support.validation import function, whole_number
from rxtweets.errors import ConfigurationError, HandlerError
from rxtweets.operators._batching_observer import partition_number

__all__ = ["partition", "route"]

T = TypeVar("T")
U = TypeVar("U")
Items = TypeVar("Items", bound=Observable[Any])

Operator = Callable[[Any], Any]
Sort = Callable[[Chunk], tuple[Mapping[Any, Chunk], Chunk]]
"""Returns the messages of each branch, and the failed messages that belong to none."""


@overload
def route(
    branches: Mapping[str, Callable[[Observable[Message[T]]], Items]],
    *,
    on_failed: OnFailed | None = None,
) -> Callable[[Observable[Message[T]]], Items]: ...


@overload
def route(
    branches: Mapping[str, Operator | Sequence[Operator]], *, on_failed: OnFailed | None = None
) -> Callable[[Observable[Message[Any]]], Any]: ...


def route(
    branches: Mapping[str, Operator | Sequence[Operator]], *, on_failed: OnFailed | None = None
) -> Callable[[Observable[Message[Any]]], Any]:
    """Send each message through the branch that it names (`Message.put_batcher`).

    It is a bounded ``group_by`` and ``flat_map``: the branches are known from the start, and their
    items are merged, one at a time.

    ::

        source                    --1--2a-3--4a-5b-|       2 and 4 name the branch a, 5 names b
        route({"default": f,      --f--g--f--g-----|       there is no branch b: 5 fails
               "a": g})

    ::

        tweets.pipe(
            ops.process(handler),
            ops.route({
                "default": [ops.batch(20, 2.0), ops.deliver(database, 2)],
                "alerts": [ops.batch(1, name="alerts"), ops.deliver(post, 1)],
            }),
        )

    A message goes to ``default`` unless it names a branch. A message that names a branch which does
    not exist fails: it is counted, reported (`events.HandlerFailed`) and acknowledged as failed,
    and the stream continues. A branch that blocks its source blocks the others too, since nothing
    here is unbounded. A pull source gets the least demand of the branches. Give a slow branch
    ``deliver(…, 1, waiting=100)``, which has its own thread and queue.

    Args:
        branches: an operator, or a list of them, for each name. All branches end in the same kind
            of operator: in `process` or another operator of messages, in `batch`, or in `deliver`.
        on_failed: takes the messages whose branch does not exist, before they are acknowledged as
            failed, and returns the same number of messages.

    Returns:
        An operator from messages to the items of the branches.

    Raises:
        ConfigurationError: an argument is invalid.
    """
    if not isinstance(branches, Mapping) or not branches:
        raise ConfigurationError(f"branches={branches!r}: give at least one operator by name")
    named = {name: _operators(f"branches[{name!r}]", branch) for name, branch in branches.items()}
    known = ", ".join(map(repr, named))
    advice = "" if "default" in named else "; a handler chooses by message.put_batcher(name)"

    def sort(chunk: Chunk) -> tuple[dict[str, Chunk], Chunk]:
        parts: dict[str, Chunk] = {}
        failed: Chunk = []
        if "default" in named and are_plain(chunk):
            return {"default": chunk}, failed
        for message in chunk:
            name = message.batcher
            if name in named:
                parts.setdefault(name, []).append(message)
            else:
                reason = f"there is no batcher {name!r}; known: {known}{advice}"
                failed.append(message.failed(HandlerError(reason)))
        return parts, failed

    return _branching(named, sort, on_failed)


@overload
def partition(
    by: Callable[[Message[T]], int],
    n: int,
    operator: Callable[[Observable[Message[T]]], Items],
    /,
    *,
    on_failed: OnFailed | None = None,
) -> Callable[[Observable[Message[T]]], Items]: ...


@overload
def partition(
    by: Callable[[Message[T]], int],
    n: int,
    first: Callable[[Observable[Message[T]]], U],
    second: Callable[[U], Items],
    /,
    *,
    on_failed: OnFailed | None = None,
) -> Callable[[Observable[Message[T]]], Items]: ...


@overload
def partition(
    by: Callable[[Message[Any]], int],
    n: int,
    *operators: Operator,
    on_failed: OnFailed | None = None,
) -> Callable[[Observable[Message[Any]]], Any]: ...


def partition(
    by: Callable[[Message[Any]], int],
    n: int,
    *operators: Operator,
    on_failed: OnFailed | None = None,
) -> Callable[[Observable[Message[Any]]], Any]:
    """Send messages through ``n`` equal branches, those of one number through the same branch.

    ::

        source                                   --1--2--3--4--5--|
        partition(lambda m: m.data, 2, ops.f)    --1f----3f----5f-|     one branch
                                                 -----2f----4f----|     the other one

    Each branch has its own operators. So an operator that keeps the order of its source keeps
    it for each number: ``ops.partition(author, 4, ops.process(handler, 1, ordered=True))``.

    Args:
        by: gives each message a whole number from 0; its branch is that number modulo ``n``. If it
            raises or returns something else, its message fails.
        n: number of branches.
        operators: of each branch.
        on_failed: takes the messages on which ``by`` failed, before they are acknowledged as
            failed, and returns the same number of messages.

    Returns:
        An operator from messages to the items of the branches.

    Raises:
        ConfigurationError: an argument is invalid.
    """
    function("by", by)
    whole_number("n", n)
    if not operators:
        raise ConfigurationError("partition: give the operators of each branch")
    branch = _operators("operators", operators)

    def sort(chunk: Chunk) -> tuple[dict[int, Chunk], Chunk]:
        parts: dict[int, Chunk] = {}
        failed: Chunk = []
        for message in chunk:
            try:
                number = partition_number("by", by(message))
            except BaseException as error:  # noqa: BLE001 - a user's function raises anything
                failed.append(message.failed(error))
            else:
                parts.setdefault(number % n, []).append(message)
        return parts, failed

    return _branching(dict.fromkeys(range(n), branch), sort, on_failed)


def _operators(option: str, branch: Any) -> tuple[Operator, ...]:
    operators = tuple(branch) if isinstance(branch, Iterable) else (branch,)
    if not operators or not all(callable(operator) for operator in operators):
        raise ConfigurationError(f"{option}: give an operator, or a list of operators")
    return operators


def _branching(
    branches: Mapping[Any, tuple[Operator, ...]], sort: Sort, on_failed: OnFailed | None
) -> Callable[[Observable[Message[Any]]], Any]:
    def operator(source: Observable[Message[Any]]) -> Any:
        telemetry = telemetry_of(source)
        kinds = {type(_Branch(operators, telemetry).stream) for operators in branches.values()}
        if len(kinds) != 1 or not kinds <= {MessageStream, BatchStream, SettledStream}:
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise ConfigurationError(
                "all branches must end in the same kind of operator: of messages (process), "
                f"batches (batch) or settled batches (deliver); these end in {names}"
            )

        def subscribe(
            observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            subscribed = {name: _Branch(branch, telemetry) for name, branch in branches.items()}
            router = _Router(subscribed, sort, on_failed, telemetry)
            merged = SerialObserver(observer, len(subscribed))
            subscriptions = [
                branch.subscribe(merged, observer, scheduler) for branch in subscribed.values()
            ]
            return CompositeDisposable(
                *subscriptions, subscribe_in_chunks(source, router, scheduler)
            )

        return kinds.pop()(subscribe, telemetry)

    return operator


class _Branch:
    """One branch of one subscription: the stream of its operators, and the entry to it."""

    def __init__(self, operators: tuple[Operator, ...], telemetry: Telemetry) -> None:
        self.entry: ChunkGate[Chunk] | None = None
        self.has_ended = False
        self.stream: Any = MessageStream(self._attach, telemetry).pipe(*operators)

    def subscribe(
        self,
        merged: SerialObserver,
        downstream: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None,
    ) -> abc.DisposableBase:
        def end(error: Exception | None = None) -> None:
            self.has_ended = True
            merged.source_ended(error)

        observer: ForwardingObserver[Any] = ForwardingObserver(merged.on_next, downstream, end)
        if isinstance(self.stream, MessageStream):
            return self.stream.subscribe_chunks(observer, scheduler)
        if isinstance(self.stream, BatchStream):
            return self.stream.subscribe_batches(observer, scheduler)
        subscription: abc.DisposableBase = self.stream.subscribe(observer, scheduler=scheduler)
        return subscription

    def _attach(
        self, observer: abc.ObserverBase[Chunk], _: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        if self.entry is not None:
            raise ConfigurationError("a branch can be subscribed to once")
        self.entry = ChunkGate(observer)
        # The entry stays open: messages that come later are counted by the operators behind it.
        return Disposable()


class _Router(abc.ObserverBase[Chunk]):
    def __init__(
        self,
        branches: Mapping[Any, _Branch],
        sort: Sort,
        on_failed: OnFailed | None,
        telemetry: Telemetry,
    ) -> None:
        self._branches = branches
        self._sort = sort
        self._on_failed = on_failed
        self._telemetry = telemetry

    def demand(self, most: int) -> int:
        """Return the least demand of the branches; each branch may block."""
        # A branch that has ended wants no messages, but the others continue.
        branches = [branch for branch in self._branches.values() if not branch.has_ended]
        if not branches:
            return 0
        for branch in branches:
            if most and branch.entry is not None:
                most = min(most, branch.entry.demand(most))
        return most

    def on_next(self, chunk: Chunk) -> None:
        good = [message for message in chunk if message.status == "ok"]
        if len(good) < len(chunk):
            failed_before = [message for message in chunk if message.status != "ok"]
            acknowledge([], failed_before, self._telemetry)
        parts, failed = self._sort(good)
        if failed:
            fail(failed, self._on_failed, self._telemetry)
        for name, part in parts.items():
            entry = self._branches[name].entry
            if entry is not None:
                entry.on_next(part)

    def on_error(self, error: Exception) -> None:
        for entry in self._entries():
            entry.on_error(error)

    def on_completed(self) -> None:
        for entry in self._entries():
            entry.on_completed()

    def _entries(self) -> list[ChunkGate[Chunk]]:
        return [branch.entry for branch in self._branches.values() if branch.entry is not None]
