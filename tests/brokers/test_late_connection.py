"""A connection that is made after its source was disposed."""

from __future__ import annotations

import threading
from uuid import uuid4

from rxtweets.brokers import Address, Queue, Receiver, Subscription
from rxtweets.brokers._engines.memory import MemoryEngine
from tests.brokers.waiting import PATIENCE


class SlowEngine(MemoryEngine):
    """Connects a receiver when it is told to, and knows when that is closed."""

    def __init__(self) -> None:
        super().__init__(Address.parse(f"memory:{uuid4().hex}"))
        self.connecting, self.connect = threading.Event(), threading.Event()
        self.closed = threading.Event()

    def receiver(self, subscription: Subscription) -> Receiver:
        self.connecting.set()
        assert self.connect.wait(PATIENCE)
        receiver = super().receiver(subscription)
        close = receiver.close

        def closing() -> None:
            close()
            self.closed.set()

        receiver.close = closing  # type: ignore[method-assign]
        return receiver


def test_late_connection_is_closed_when_source_is_disposed() -> None:
    engine = SlowEngine()
    subscription = Queue(engine).source().subscribe()
    assert engine.connecting.wait(PATIENCE)
    subscription.dispose()
    engine.connect.set()
    assert engine.closed.wait(PATIENCE)
