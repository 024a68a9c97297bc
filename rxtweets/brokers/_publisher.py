"""Publishes batches to a queue."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from rxtweets._core.subscriber import Subscriber
from rxtweets._messages.batch import Batch
from rxtweets.brokers._engine import Engine, Envelope, Sender
from rxtweets.brokers._envelopes import envelopes_of
from rxtweets.brokers._packs import packs_of
from rxtweets.errors import BrokerUnavailable

__all__ = ["Publisher"]


class Publisher(Subscriber[Any]):
    """Publishes the messages of each batch, and waits until the broker has stored them durably.

    The first batch connects, and creates the queue if it is missing. The publisher connects again
    after a loss, with the next batch. Several threads may publish at the same time.

    ::

        Pipeline(stream, batchers={"default": Batcher(queue.publisher(), size=200, timeout=0.05)})

    Made by `Queue.publisher`.
    """

    def __init__(self, engine: Engine, groups: tuple[str, ...], pack: int = 1) -> None:
        super().__init__()
        self._engine = engine
        self._groups = groups
        self._pack = pack
        self._lock = threading.Lock()
        self._sender: Sender | None = None

    def on_next(self, batch: Batch[Any]) -> Any:
        """Publish a batch.

        Returns:
            ``None`` if all messages are stored; else the messages, those failed that are not, with
            a `BrokerError` as reason.

        Raises:
            BrokerUnavailable: none of them is stored.
            QueueSettingsError: the queue exists with settings that can lose messages.
        """
        errors = self._put(envelopes_of(batch))
        if not any(errors):
            return None
        if all(isinstance(error, BrokerUnavailable) for error in errors):
            raise errors[0] or BrokerUnavailable
        return [
            message if error is None else message.failed(error)
            for message, error in zip(batch, errors, strict=True)
        ]

    def on_error(self, error: Exception) -> None:
        """Close the connection."""
        del error
        self.on_completed()

    def on_completed(self) -> None:
        """Close the connection; a later batch opens another one."""
        with self._lock:
            sender, self._sender = self._sender, None
        if sender is not None:
            sender.close()

    def __repr__(self) -> str:
        return f"<Publisher to {self._engine.name} {self._engine.queue!r}>"

    def _put(self, envelopes: Sequence[Envelope]) -> list[Exception | None]:
        sender = self._connected()
        if self._pack == 1:
            return sender.put(envelopes)
        packs = packs_of(envelopes, self._pack)
        errors: list[Exception | None] = [None] * len(envelopes)
        for (_, positions), error in zip(packs, sender.put([one for one, _ in packs]), strict=True):
            for position in positions:
                errors[position] = error
        return errors

    def _connected(self) -> Sender:
        with self._lock:
            if self._sender is None:
                self._engine.ensure(self._groups)
                self._sender = self._engine.sender()
            return self._sender
