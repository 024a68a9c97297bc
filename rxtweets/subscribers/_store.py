"""What all stores have in common: they open with the first batch and close with the last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

from rxtweets._core.subscriber import Subscriber
from rxtweets._messages.batch import Batch
from rxtweets._messages.message import Message

__all__ = ["Store", "each_alone"]

T = TypeVar("T")


def each_alone(
    batch: Batch[Any],
    rows: Sequence[T],
    store: Callable[[T], object],
    refusals: tuple[type[Exception], ...],
) -> Batch[Any]:
    """Store the rows one by one, after the database has refused one of them.

    Returns:
        The batch, with the messages failed whose rows it refused.

    Raises:
        Exception: the last refusal, if it refused all.
    """
    outcome: list[Message[Any]] = []
    last: Exception | None = None
    for message, row in zip(batch, rows, strict=True):
        try:
            store(row)
            outcome.append(message)
        except refusals as error:
            last = error
            outcome.append(message.failed(error))
    if last is not None and all(message.is_failed for message in outcome):
        raise last
    return batch.replaced(outcome)


class Store(Subscriber[Any]):
    """A subscriber that holds something open: a file, a database, a connection.

    It is closed when the stream is over, by `close`, and at the end of a ``with`` block. A
    subscription that is disposed does not close it, as others may feed it too; what was taken is
    stored all the same. A batch that comes after it was closed opens it again.

    An odd message fails no other. What JSON or a column cannot hold is stored as text that
    describes it. If a database refuses rows, only the messages of these rows are failed.

    Those of this package may be called by several threads at once, as with ``concurrency=`` of a
    `Batcher`: they take one batch after the other, the webhook several.
    """

    def __init__(self) -> None:
        super().__init__()
        self._alone = threading.RLock()

    def on_error(self, error: Exception) -> None:  # noqa: ARG002 - closing is all that is left
        """Close it."""
        self.close()

    def on_completed(self) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Complete what was stored, and let go; as often as one likes."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it closes: write close")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
