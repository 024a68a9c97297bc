"""`Batcher`: the options of one batcher."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Protocol, Self

from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message
from rxtweets._support.validation import whole_number
from rxtweets.errors import PipelineError
from rxtweets.operators._batch import BatchSize, batch_options
from rxtweets.operators._batching_observer import BatchOptions
from rxtweets.operators._deliver import SubscriberOrFunction, subscriber_of

__all__ = ["Batcher", "name_of_part"]


def AWAITED(batch: Batch[Any]) -> None:  # noqa: N802 - a value, not a function to call
    """Stands for the subscriber of a batcher whose batches are taken with `Pipeline.abatches`."""
    raise PipelineError(f"no loop over abatches() takes the batches of {batch.info.batcher!r}")


class WithContext(Protocol):
    # A Callable[[Batch[Any], Any], object] beside that of one argument hides the type of a lambda's
    # argument from mypy, and Callable[..., object] from pyright.
    def __call__(self, batch: Batch[Any], context: Any, /) -> object: ...


class Batcher:
    """A batcher of a pipeline: the size of batches, and their subscriber.

    To give the batches to several subscribers, subscribe them to a `reactivex.subject.Subject`, and
    each in `subscribers.Buffered`, so that none blocks another. A batch is settled when all of them
    have returned, and fails if it fails for one::

        stores = Subject()
        stores.subscribe(Buffered(JSONLinesSubscriber("tweets.jsonl")))
        stores.subscribe(Buffered(Retrying(SQLiteSubscriber("tweets.db"))))
        Pipeline(tweets, batchers={"default": Batcher(stores, size=20)})

    Args:
        subscriber: a `Subscriber`, any observer, or a function of one batch (and of the context of
            the pipeline, if it has one); each may be ``async def``. If it returns, the batch
            succeeds; if it raises, the batch fails; if it returns a list of the messages, each is
            settled by its status.
        size: most messages in a batch, or ``(accumulator, function)``: see `operators.batch`.
        timeout: most seconds from the first message of a batch to its emission.
        concurrency: most batches that are delivered concurrently; above 1, calls of the subscriber
            overlap. Batches of one partition, or of one batch key, are still delivered in order.
        waiting: most batches that wait for delivery. Then the processors wait, and with them the
            other batchers. By default the same as ``concurrency``. Each of several batchers has
            threads of its own. A single one has them only with ``waiting``, or with a
            ``concurrency`` above 1.
        max_bytes: most bytes in a batch; no limit by default.
        bytes_of: gives the size of a message; by default of its line, or of its data if that is
            text.
        partition_by: gives each message a whole number from 0. Messages whose numbers are equal
            modulo ``concurrency`` share batches, which are delivered in order. By default that of
            the pipeline.

    Raises:
        ConfigurationError: an argument is invalid.
    """

    def __init__(
        self,
        subscriber: SubscriberOrFunction | WithContext,
        size: BatchSize = 100,
        timeout: float | timedelta = 1.0,
        *,
        concurrency: int = 1,
        waiting: int | None = None,
        max_bytes: int | None = None,
        bytes_of: Callable[[Message[Any]], int] | None = None,
        partition_by: Callable[[Message[Any]], int] | None = None,
    ) -> None:
        subscriber_of(subscriber)
        self.concurrency: int = whole_number("concurrency", concurrency)
        self.options: BatchOptions = batch_options(
            size, timeout, "default", max_bytes, bytes_of, partition_by, concurrency, None
        )
        self.subscriber = subscriber
        self.is_awaited: bool = subscriber is AWAITED
        self.size = size
        self.timeout: float = self.options.timeout
        self.waiting: int | None = None if waiting is None else whole_number("waiting", waiting)
        self.partition_by = partition_by

    @classmethod
    def awaited(
        cls,
        size: BatchSize = 100,
        timeout: float | timedelta = 1.0,
        *,
        max_bytes: int | None = None,
        bytes_of: Callable[[Message[Any]], int] | None = None,
    ) -> Self:
        """Return a batcher whose batches `Pipeline.abatches` gives to an event loop of the user.

        Args:
            size: see `Batcher`.
            timeout: see `Batcher`.
            max_bytes: see `Batcher`.
            bytes_of: see `Batcher`.

        Raises:
            ConfigurationError: an argument is invalid.
        """
        return cls(AWAITED, size, timeout, max_bytes=max_bytes, bytes_of=bytes_of)

    @property
    def subscriber_name(self) -> str:
        """The name of the function, or of the class of the subscriber."""
        return "abatches" if self.is_awaited else name_of_part(self.subscriber)

    def __repr__(self) -> str:
        # Not the repr of the subscriber, which may have credentials in it.
        size = "(...)" if isinstance(self.size, tuple) else self.size
        options = f"size={size}, timeout={self.timeout:g}, concurrency={self.concurrency}"
        return f"Batcher({self.subscriber_name}, {options})"


def name_of_part(part: Any) -> str:
    """Return the name of a function, or of the class of an object."""
    if isinstance(part, partial):
        return name_of_part(part.func)
    return str(getattr(part, "__name__", type(part).__name__))
