"""Tries a subscriber again by a declared policy, and keeps what cannot be delivered."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NoReturn

import tenacity
from tenacity import retry_if_exception_type

from rxtweets._core.subscriber import Subscriber
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets._support.validation import function
from rxtweets.errors import ConfigurationError, SubscriberError
from rxtweets.subscribers._buffered import AnySubscriber, Buffered, function_of
from rxtweets.subscribers._dead_letters import DeadLetter, DeadLetterFile
from rxtweets.subscribers._policy import STOP, WAIT, check_strategies

__all__ = ["Retrying"]

ALL = retry_if_exception_type()
FILE = "dead-letters.jsonl"


class Retrying(Subscriber[Any]):
    """Calls a subscriber again when it raised; what cannot be delivered goes to a file.

    A batch that the policy gives up, or does not retry, is a dead letter: it is written to
    ``dead_letters`` first, and is failed then, so its messages are acknowledged as failed and
    counted, with an error that says where they are. Nothing vanishes: if the dead letter cannot
    be written either, the batch fails with both errors. Messages that the subscriber returns as
    failed are not tried again: they are a dead letter of their own.

    While it waits, the stream's thread waits. With `Buffered` around it only this subscriber
    does: ``Buffered(Retrying(subscriber))``.

    Args:
        subscriber: a `Subscriber`, any observer, or a function of one batch. It should not mind a
            batch of which it has taken a part before; the stores do not.
        stop: when to give up, as in `tenacity.stop`; by default after 5 attempts.
        wait: how long to wait, as in `tenacity.wait`; by default 0.5 s, doubled each time, to
            30 s, and up to a second more by chance.
        retry: which exceptions to try again after, as in `tenacity.retry`; by default all.
        dead_letters: path of a file, by default ``dead-letters.jsonl`` where the program runs, or
            a function that takes a `DeadLetter`.
        sleep: waits for the seconds that it is given.

    Raises:
        ConfigurationError: an argument cannot work.
    """

    def __init__(
        self,
        subscriber: AnySubscriber,
        *,
        stop: tenacity.stop.stop_base | None = None,
        wait: tenacity.wait.wait_base | None = None,
        retry: tenacity.retry_base | None = None,
        dead_letters: str | os.PathLike[str] | Callable[[DeadLetter], object] = FILE,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(subscriber, Buffered):
            raise ConfigurationError(
                "Retrying(Buffered(…)) could not see a failure: write Buffered(Retrying(…))"
            )
        self._subscriber = subscriber
        self._take = function_of(subscriber)
        check_strategies(stop=stop, wait=wait, retry=retry, sleep=sleep)
        self._bury: Callable[[DeadLetter], object]
        if isinstance(dead_letters, str | os.PathLike):
            self._bury = DeadLetterFile(dead_letters)
        else:
            function("dead_letters", dead_letters)
            self._bury = dead_letters
        self._policy = tenacity.Retrying(
            stop=stop or STOP,
            wait=wait or WAIT,
            retry=retry or ALL,
            sleep=sleep or tenacity.nap.sleep,
            reraise=True,
        )
        self._counting = threading.Lock()
        self.retried = 0
        self.dead_lettered = 0

    def on_next(self, batch: Batch[Any]) -> Any:
        """Deliver the batch, or make it a dead letter and raise.

        Returns:
            What the subscriber returned at last.

        Raises:
            SubscriberError: it is a dead letter; the last exception is its cause.
        """
        attempts = 0

        def attempt() -> object:
            nonlocal attempts
            attempts += 1
            if attempts > 1:
                self._count(retried=1)
            return self._take(batch)

        try:
            returned = self._policy(attempt)
        except Exception as error:  # noqa: BLE001 - whatever a user's code raises
            self._give_up(batch, error, attempts)
        failed = _failed_in(batch, returned)
        if failed:
            reasons = ", ".join(sorted({str(after.status) for _, after in failed})[:3])
            refused = SubscriberError(f"the subscriber returned {len(failed)} failed: {reasons}")
            self._keep(batch.replaced(before for before, _ in failed), refused, attempts)
        return returned

    def on_error(self, error: Exception) -> None:
        """Pass the error on."""
        getattr(self._subscriber, "on_error", lambda _: None)(error)

    def on_completed(self) -> None:
        """Pass the end on."""
        getattr(self._subscriber, "on_completed", lambda: None)()

    def __repr__(self) -> str:
        return f"Retrying({self._subscriber!r})"

    def _count(self, *, retried: int = 0, dead_lettered: int = 0) -> None:
        with self._counting:  # batches may come on several threads
            self.retried += retried
            self.dead_lettered += dead_lettered

    def _give_up(self, batch: Batch[Any], error: Exception, attempts: int) -> NoReturn:
        what = self._keep(batch, error, attempts)
        raise SubscriberError(f"{what}; the batch is kept by {self._bury!r}") from error

    def _keep(self, batch: Batch[Any], error: Exception, attempts: int) -> str:
        what = f"{type(error).__name__} at attempt {attempts}, the last: {error}"
        at = datetime.now(UTC)
        letter = DeadLetter(batch, f"{type(error).__name__}: {error}", attempts, at)
        try:
            self._bury(letter)
        except Exception as trouble:  # noqa: BLE001 - whatever keeps dead letters raises
            raise SubscriberError(
                f"{what}; and the dead letter could not be kept by {self._bury!r}: {trouble}"
            ) from error
        self._count(dead_lettered=len(batch))
        return what


def _failed_in(batch: Batch[Any], returned: object) -> list[tuple[Message[Any], Message[Any]]]:
    """The messages that the subscriber got and returned as failed, each before and after."""
    messages = returned if isinstance(returned, list | tuple | Batch) else ()
    pairs = zip(batch, messages, strict=False)
    return [(one, each) for one, each in pairs if isinstance(each, Message) and each.is_failed]
