"""What all stores have in common: they open with the first batch and close with the last."""

from __future__ import annotations

import threading
from typing import Any, Self

from rxtweets.subscriber import Subscriber

__all__ = ["Store"]


class Store(Subscriber[Any]):
    """A subscriber that holds something open: a file, a database, a connection.

    It is closed when the stream is over, by `close`, and at the end of a ``with`` block. A
    subscription that is disposed does not close it, as others may feed it too; what was taken is
    stored all the same. A batch that comes after it was closed opens it again.

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
