"""Publishes batches to a queue."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rxtweets._core.subscriber import Subscriber
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets.brokers._engine import SHARD, Engine, Envelope, Sender
from rxtweets.brokers._envelopes import envelopes_of, quoted
from rxtweets.brokers._packs import packs_of
from rxtweets.errors import BrokerUnavailable, HandlerError

__all__ = ["Publisher", "ShardBy"]

ShardBy = Callable[[Message[Any]], int | str]
"""Gives each message the key whose order is kept."""


class Publisher(Subscriber[Any]):
    """Publishes the messages of each batch, and waits until the broker has stored them durably.

    The first batch connects, and creates the queue if it is missing. The publisher connects again
    after a loss, with the next batch. Several threads may publish at the same time.

    ::

        Pipeline(stream, batchers={"default": Batcher(queue.publisher(), size=200, timeout=0.05)})

    Made by `Queue.publisher`.
    """

    def __init__(
        self,
        engine: Engine,
        groups: tuple[str, ...],
        pack: int = 1,
        shard_by: ShardBy | None = None,
    ) -> None:
        super().__init__()
        self._engine = engine
        self._groups = groups
        self._pack = pack
        self._shard_by = shard_by
        self._lock = threading.Lock()
        self._sender: Sender | None = None

    def on_next(self, batch: Batch[Any]) -> Any:
        """Publish a batch.

        Returns:
            ``None`` if all messages are stored; else the messages, those failed that are not, with
            a `BrokerError` as reason, or the error of ``shard_by``.

        Raises:
            BrokerUnavailable: none of them is stored.
            QueueSettingsError: the queue exists with settings that can lose messages.
        """
        envelopes = envelopes_of(batch)
        errors = self._put(envelopes) if self._shard_by is None else self._shard(batch, envelopes)
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

    def _shard(self, batch: Batch[Any], envelopes: list[Envelope]) -> list[Exception | None]:
        """Publish messages with their shards; return the error of each that is not stored."""
        shards = [self._shard_of(message) for message in batch]
        stored = iter(
            self._put(
                [
                    replace(envelope, headers={**envelope.headers, SHARD: shard})
                    for envelope, shard in zip(envelopes, shards, strict=True)
                    if isinstance(shard, str)
                ]
            )
        )
        return [next(stored) if isinstance(shard, str) else shard for shard in shards]

    def _shard_of(self, message: Message[Any]) -> str | Exception:
        try:
            shard = self._shard_by(message) if self._shard_by is not None else ""
        except Exception as error:  # noqa: BLE001 - the message fails with it
            return error
        if isinstance(shard, bool) or not isinstance(shard, int | str) or shard == "":
            return HandlerError(f"shard_by returned {shard!r}; return a whole number or text")
        return quoted(str(shard))

    def _connected(self) -> Sender:
        with self._lock:
            if self._sender is None:
                self._engine.ensure(self._groups)
                self._sender = self._engine.sender()
            return self._sender
