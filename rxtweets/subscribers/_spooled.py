"""Keeps batches on disk while a subscriber is away."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tenacity

from rxtweets._core.retry import call_state, seconds_until_retry
from rxtweets._core.subscriber import Subscriber
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Failed, Message
from rxtweets._support.validation import path_text, whole_number
from rxtweets._support.workers import start_thread
from rxtweets.errors import BrokerUnavailable, ConfigurationError, SubscriberUnavailable
from rxtweets.operators._deliver import SubscriberOrFunction
from rxtweets.subscribers._buffered import Buffered, function_of
from rxtweets.subscribers._dead_letters import DeadLetter, DeadLetterFile, text_of
from rxtweets.subscribers._spool import Spool

log = logging.getLogger("rxtweets")

SERVICES_AWAY = (OSError, BrokerUnavailable, SubscriberUnavailable)

AWAY = {"OperationalError", "InterfaceError"}
"""Names of the errors by which drivers of databases report a lost connection (PEP 249)."""


def is_away(error: BaseException) -> bool:
    """Return whether an error shows that a service cannot be reached now."""
    # By name, since drivers are not imported here; psycopg raises subclasses of its errors.
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, SERVICES_AWAY) or not names.isdisjoint(AWAY)


class Spooled(Subscriber[Any]):
    """Keeps batches in a directory while a subscriber is away, and delivers them when it is back.

    X's stream cannot wait: a database or a broker that is away for an hour would lose an hour. ::

        store = Spooled(PostgresSubscriber("postgresql://…"), "spool")
        Pipeline(tweets, batchers={"default": Batcher(store, size=200)}).run()

    A batch on which the subscriber raises such an error is written to the directory, as safe from a
    loss of power as the disk is, and counts as delivered. While batches wait there, further ones
    are appended, so the order is kept. A thread delivers them when the subscriber is back; the next
    run of the program delivers them first. A batch may be delivered twice: make writes idempotent,
    as the stores are.

    Messages are kept in the format of recordings: results of handlers that JSON cannot hold become
    text.

    Another error fails the batch as it does without `Spooled`. If it is raised on a batch from the
    directory, whose messages are acknowledged already, the batch goes to ``dead-letters.jsonl``
    there; so do messages that the subscriber returns as failed. See `read_dead_letters`. Messages
    that fail because the subscriber is away stay in their place.

    Args:
        subscriber: a `Subscriber`, any observer, or a function of one batch.
        directory: of this subscriber and process alone; created if it is missing.
        max_bytes: of the batches that wait, 1 GiB by default; a batch beyond it fails.
        retry: errors that mean that the subscriber is away, as in `tenacity.retry`; by default
            `OSError`, `BrokerUnavailable`, `SubscriberUnavailable`, and the ``OperationalError``
            and ``InterfaceError`` of drivers of databases.
        wait: seconds between attempts, as in `tenacity.wait`; by default 0.5 s, doubled each time,
            up to 30 s.

    Attributes:
        dead_lettered: messages in ``dead-letters.jsonl``, of this process.

    Raises:
        ConfigurationError: an argument cannot work, or another process uses the directory.
    """

    def __init__(
        self,
        subscriber: SubscriberOrFunction,
        directory: str | os.PathLike[str],
        *,
        max_bytes: int = 2**30,
        retry: Callable[[tenacity.RetryCallState], bool] | None = None,
        wait: Callable[[tenacity.RetryCallState], float] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(subscriber, Buffered):
            raise ConfigurationError(
                "Spooled(Buffered(…)) could not see a failure: write Buffered(Spooled(…))"
            )
        for name, strategy in (("retry", retry), ("wait", wait)):
            if strategy is not None and not callable(strategy):
                raise ConfigurationError(f"{name}={strategy!r}: give a strategy of tenacity")
        self._subscriber = subscriber
        self._take = function_of(subscriber)
        self._directory = Path(path_text("directory", directory))
        self._max_bytes = whole_number("max_bytes", max_bytes)
        self._spool = Spool(self._directory, self._max_bytes)
        self._letters = DeadLetterFile(self._directory / "dead-letters.jsonl")
        self._retry = retry or tenacity.retry_if_exception(is_away)
        self._wait = wait or tenacity.wait_exponential(multiplier=0.5, max=30.0)
        self._changed = threading.Condition(threading.RLock())
        self._is_delivering = False
        self._is_closing = False
        self._is_closed = False
        self.dead_lettered: int = 0
        if self._spool.messages:
            self._start()

    @property
    def spooled(self) -> int:
        """Messages that wait in the directory now."""
        return self._spool.messages

    @property
    def spooled_bytes(self) -> int:
        """Bytes of these messages."""
        return self._spool.bytes

    def on_next(self, batch: Batch[Any]) -> Any:
        """Deliver the batch, or write it to the directory.

        Raises:
            SubscriberError: the spool is full.
            OSError: the spool cannot be written.
        """
        with self._changed:
            if self._is_closed:
                self._spool, self._is_closed = Spool(self._directory, self._max_bytes), False
                if self._spool.messages:
                    self._start()
            if self._is_delivering:
                self._spool.put(batch)
                return None
        try:
            returned = self._take(batch)
        except Exception as error:
            if not self._means_away(error):
                raise
            self._keep(batch, error)
            return None
        return self._keep_unavailable(batch, returned)

    def on_error(self, error: Exception) -> None:
        """Deliver the batches that wait, while the subscriber takes them; pass the error on."""
        self._finish()
        getattr(self._subscriber, "on_error", lambda _: None)(error)

    def on_completed(self) -> None:
        """Deliver the batches that wait, while the subscriber takes them; pass the completion on.

        The rest stays in the directory for the next run of the program.
        """
        self._finish()
        getattr(self._subscriber, "on_completed", lambda: None)()

    def __repr__(self) -> str:
        return f"Spooled({self._subscriber!r}, {os.fspath(self._directory)!r})"

    def _means_away(self, error: BaseException) -> bool:
        return bool(self._retry(call_state(error, 1, 0.0, 0.0)))

    def _keep(self, batch: Batch[Any], error: BaseException) -> None:
        with self._changed:
            self._spool.put(batch)
            if not self._is_delivering:
                text = "%r is away, batches go to %s: %s"
                log.warning(text, self._subscriber, self._directory, error)
                self._start(is_reported=True)

    def _keep_unavailable(self, batch: Batch[Any], returned: Any) -> Any:
        """Keep the messages that failed because the subscriber is away; the others pass."""
        waiting = self._unavailable(batch, returned)
        if not waiting:
            return returned
        self._keep(batch.replaced(batch[at] for at in waiting), next(iter(waiting.values())))
        return [
            before if at in waiting else after
            for at, (before, after) in enumerate(zip(batch, returned, strict=True))
        ]

    def _unavailable(self, batch: Batch[Any], returned: Any) -> dict[int, BaseException]:
        """Return positions of messages that failed because the subscriber is away, with reasons."""
        return {
            at: reason
            for at, reason in _failed(batch, returned).items()
            if isinstance(reason, BaseException) and self._means_away(reason)
        }

    # The thread that delivers.

    def _start(self, *, is_reported: bool = False) -> None:
        with self._changed:  # the thread waits for this lock
            start_thread("rxtweets-spool", lambda: self._deliver_all(is_reported), repeats=True)
            self._is_delivering = True

    def _deliver_all(self, is_reported: bool) -> None:
        attempt = 0
        while self._has_more(is_reported):
            is_last = self._is_closing  # an attempt that begins after the end
            try:
                self._deliver_first()
                attempt = 0
            except BaseException as error:  # noqa: BLE001 - the subscriber or the disk is away
                attempt += 1
                if not is_reported:
                    log.warning("%d messages wait in %s: %r", self.spooled, self._directory, error)
                    is_reported = True
                if is_last:
                    self._stop_delivering()
                    return
                self._pause(error, attempt)

    def _has_more(self, is_reported: bool) -> bool:
        with self._changed:
            if not self._spool.messages:
                if is_reported:
                    text = "%r is back, and has the batches of %s"
                    log.warning(text, self._subscriber, self._directory)
                self._stop_delivering()
            return self._is_delivering

    def _stop_delivering(self) -> None:
        with self._changed:
            self._is_delivering = False
            self._changed.notify_all()

    def _deliver_first(self) -> None:
        """Deliver the oldest batch and remove it; raise if the subscriber is away."""
        found = self._spool.first()
        if found is None:
            return
        number, batch = found
        try:
            returned = self._take(batch)
        except Exception as error:
            if self._means_away(error):
                raise
            self._write_letter(batch, error)
        else:
            self._settle_first(number, batch, returned)
        self._spool.remove(number)

    def _settle_first(self, number: int, batch: Batch[Any], returned: Any) -> None:
        """Write letters of failed messages; raise if the subscriber was away for some of them."""
        waiting = self._unavailable(batch, returned)
        for at, reason in _failed(batch, returned).items():
            if at not in waiting:
                self._write_letter(batch.replaced([batch[at]]), reason)
        if waiting:  # they keep their place
            self._spool.replace(number, batch.replaced(batch[at] for at in waiting))
        for error in waiting.values():
            raise error

    def _write_letter(self, batch: Batch[Any], reason: object) -> None:
        text = text_of(reason)
        self._letters(DeadLetter(batch, text, 1, datetime.now(UTC)))
        self.dead_lettered += len(batch)
        log.warning("%d messages went to %s: %s", len(batch), self._letters.path, text)

    def _pause(self, error: BaseException, attempt: int) -> None:
        seconds = seconds_until_retry(self._wait, error, attempt, self)
        with self._changed:
            self._changed.wait_for(lambda: self._is_closing, seconds)

    def _finish(self) -> None:
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._is_delivering)
            self._is_closing, self._is_closed = False, True
            self._spool.close()
        if self.spooled:
            log.warning("%d messages wait in %s for the next run", self.spooled, self._directory)


def _failed(batch: Batch[Any], returned: Any) -> dict[int, object]:
    """Return the positions of failed messages that a subscriber returned, with their reasons."""
    if not isinstance(returned, list | tuple | Batch) or len(returned) != len(batch):
        return {}
    return {
        at: message.status.reason
        for at, message in enumerate(returned)
        if isinstance(message, Message) and isinstance(message.status, Failed)
    }
