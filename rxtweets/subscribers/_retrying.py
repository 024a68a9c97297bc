"""Retries of a subscriber by a policy; a failed batch becomes a dead letter."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import tenacity

from rxtweets._core.subscriber import Subscriber
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets._support.validation import function, no_class
from rxtweets.errors import ConfigurationError, SubscriberError
from rxtweets.operators._deliver import SubscriberOrFunction
from rxtweets.subscribers._buffered import Buffered, function_of
from rxtweets.subscribers._dead_letters import DeadLetter, DeadLetterFile

EXAMPLES = {
    "stop": "tenacity.stop_after_attempt(3)",
    "wait": "tenacity.wait_fixed(1)",
    "retry": "tenacity.retry_if_exception_type(OSError)",
    "sleep": "time.sleep",
}


def retry_policy(
    retry: tenacity.retry_base | None = None,
    *,
    stop: tenacity.stop.stop_base | None = None,
    wait: tenacity.wait.wait_base | None = None,
    sleep: Callable[[float], None] | None = None,
) -> tenacity.Retrying:
    """Return a policy that calls a function again, and raises its last error.

    Args:
        retry: exceptions to retry after; by default all.
        stop: when to give up; by default after 5 attempts.
        wait: seconds between attempts; by default 0.5 s, doubled each time, up to 30 s, plus up
            to 1 s by chance, which spreads the retries of many programs.
        sleep: function that waits for a number of seconds; by default ``time.sleep``.

    Raises:
        ConfigurationError: a strategy is a class, or cannot be called.
    """
    for name, given in {"stop": stop, "wait": wait, "retry": retry, "sleep": sleep}.items():
        no_class(name, given)
        if given is not None and not callable(given):
            example = EXAMPLES[name]
            raise ConfigurationError(f"{name}={given!r}: give a strategy, such as {example}")
    default_wait = tenacity.wait_exponential(multiplier=0.5, max=30.0)
    return tenacity.Retrying(
        stop=stop or tenacity.stop_after_attempt(5),
        wait=wait or default_wait + tenacity.wait_random(0.0, 1.0),
        retry=retry or tenacity.retry_if_exception_type(),
        sleep=sleep or tenacity.nap.sleep,
        reraise=True,
    )


class Retrying(Subscriber[Any]):
    """Calls a subscriber again when it raises; a batch that cannot be delivered goes to a file.

    ::

        careful = Retrying(subscriber, dead_letters="dead-letters.jsonl")
        batches.subscribe(Buffered(careful))

    A batch that the policy gives up, or does not retry, is a dead letter: it is first written to
    ``dead_letters``. Then it fails, with an error that names the file: its messages are
    acknowledged as failed and counted. If the dead letter cannot be written either, the batch
    fails with both errors. Messages that the subscriber returns as failed are not retried; they
    form another dead letter.

    The stream's thread waits between attempts. With `Buffered` around it, only this subscriber
    waits: ``Buffered(Retrying(subscriber))``.

    Args:
        subscriber: a `Subscriber`, any observer, or a function of one batch. It may receive a
            batch of which it has taken a part before: make its writes idempotent, as the stores'
            are.
        stop: when to give up, as in `tenacity.stop`; by default after 5 attempts.
        wait: seconds between attempts, as in `tenacity.wait`; by default 0.5 s, doubled each
            time, up to 30 s, plus up to 1 s by chance.
        retry: exceptions to retry after, as in `tenacity.retry`; by default all.
        dead_letters: path of a file, by default ``dead-letters.jsonl`` in the working directory,
            or a function that takes a `DeadLetter`.
        sleep: function that waits for a number of seconds; by default ``time.sleep``.

    Attributes:
        retried: attempts after the first one of each batch.
        dead_lettered: messages in dead letters.

    Raises:
        ConfigurationError: an argument cannot work.
    """

    def __init__(
        self,
        subscriber: SubscriberOrFunction,
        *,
        stop: tenacity.stop.stop_base | None = None,
        wait: tenacity.wait.wait_base | None = None,
        retry: tenacity.retry_base | None = None,
        dead_letters: str | os.PathLike[str] | Callable[[DeadLetter], object] = (
            "dead-letters.jsonl"
        ),
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(subscriber, Buffered):
            raise ConfigurationError(
                "Retrying(Buffered(…)) could not see a failure: write Buffered(Retrying(…))"
            )
        self._subscriber = subscriber
        self._take = function_of(subscriber)
        self._policy = retry_policy(retry, stop=stop, wait=wait, sleep=sleep)
        self._write_letter: Callable[[DeadLetter], object]
        if isinstance(dead_letters, str | os.PathLike):
            self._write_letter = DeadLetterFile(dead_letters)
        else:
            function("dead_letters", dead_letters)
            self._write_letter = dead_letters
        self._counting = threading.Lock()
        self.retried: int = 0
        self.dead_lettered: int = 0

    def on_next(self, batch: Batch[Any]) -> Any:
        """Deliver the batch, or make it a dead letter and raise.

        Returns:
            The subscriber's last result.

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
        except Exception as error:
            said = self._make_dead_letter(batch, error, attempts)
            raise SubscriberError(f"{said}; the batch is kept by {self._write_letter!r}") from error
        failed = _failed_in(batch, returned)
        if failed:
            reasons = ", ".join(sorted({str(after.status) for _, after in failed})[:3])
            refused = SubscriberError(f"the subscriber returned {len(failed)} failed: {reasons}")
            rest = batch.replaced(before for before, _ in failed)
            self._make_dead_letter(rest, refused, attempts)
        return returned

    def on_error(self, error: Exception) -> None:
        """Pass the error on."""
        getattr(self._subscriber, "on_error", lambda _: None)(error)

    def on_completed(self) -> None:
        """Pass the completion on."""
        getattr(self._subscriber, "on_completed", lambda: None)()

    def __repr__(self) -> str:
        return f"Retrying({self._subscriber!r})"

    def _count(self, *, retried: int = 0, dead_lettered: int = 0) -> None:
        with self._counting:  # several threads may deliver batches
            self.retried += retried
            self.dead_lettered += dead_lettered

    def _make_dead_letter(self, batch: Batch[Any], error: Exception, attempts: int) -> str:
        name = type(error).__name__
        said = f"{name} at attempt {attempts}, the last: {error}"
        try:
            self._write_letter(DeadLetter(batch, f"{name}: {error}", attempts, datetime.now(UTC)))
        except Exception as trouble:  # noqa: BLE001 - user code raises anything
            raise SubscriberError(
                f"{said}; and the dead letter could not be kept by {self._write_letter!r}: "
                f"{trouble}"
            ) from error
        self._count(dead_lettered=len(batch))
        return said


def _failed_in(batch: Batch[Any], returned: object) -> list[tuple[Message[Any], Message[Any]]]:
    """Return pairs of the messages that failed, as the subscriber got and returned them."""
    messages = returned if isinstance(returned, list | tuple | Batch) else ()
    pairs = zip(batch, messages, strict=False)
    return [
        (before, after) for before, after in pairs if isinstance(after, Message) and after.is_failed
    ]
