"""An engine in memory whose receivers do as a test wants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from uuid import uuid4

from rxtweets.brokers import Address, Queue, Receiver, Subscription, Taken
from rxtweets.brokers._engines.memory import MemoryEngine

__all__ = ["FaultyEngine", "faulty_queue"]


class FaultyEngine(MemoryEngine):
    """An engine in memory.

    Attributes:
        faults: raised by the methods of these names of a receiver, the first one first.
        after_take: called when a take has its messages, before it returns.
        calls: of the methods of receivers, by their names.
        open: receivers that are not closed.
        extended: messages of the last `Receiver.extend`.
    """

    def __init__(self) -> None:
        super().__init__(Address.parse(f"memory:{uuid4().hex}"))
        self.faults: dict[str, list[Exception]] = {}
        self.after_take: Callable[[], object] = lambda: None
        self.calls: Counter[str] = Counter()
        self.open = 0
        self.extended: Sequence[Taken] = ()

    def receiver(self, subscription: Subscription) -> Receiver:
        self.open += 1
        return _FaultyReceiver(self, super().receiver(subscription))

    def called(self, name: str) -> None:
        self.calls[name] += 1
        if faults := self.faults.get(name):
            raise faults.pop(0)


class _FaultyReceiver(Receiver):
    def __init__(self, engine: FaultyEngine, receiver: Receiver) -> None:
        self._engine = engine
        self._receiver = receiver
        self._is_closed = False

    def take(self, most: int, wait: float) -> list[Taken]:
        self._engine.called("take")
        taken = self._receiver.take(most, wait)
        self._engine.after_take()
        return taken

    def acknowledge(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        self._engine.called("acknowledge")
        return [] if self._is_closed else self._receiver.acknowledge(taken)

    def retry(self, taken: Sequence[Taken], delay: float) -> Sequence[Taken]:
        self._engine.called("retry")
        return [] if self._is_closed else self._receiver.retry(taken, delay)

    def release(self, taken: Sequence[Taken]) -> None:
        self._engine.called("release")
        if not self._is_closed:  # as those of a connection that is gone
            self._receiver.release(taken)

    def extend(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        self._engine.called("extend")
        self._engine.extended = taken
        return self._receiver.extend(taken)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._engine.open -= 1
        self._receiver.close()


def faulty_queue() -> tuple[Queue, FaultyEngine]:
    """Return a queue with one group, and its engine."""
    engine = FaultyEngine()
    engine.ensure(["workers"])
    return Queue(engine, ["workers"]), engine
