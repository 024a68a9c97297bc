"""Bases of the stores: one that holds something open, and one for files."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Self

from rxtweets._core.subscriber import Subscriber
from rxtweets._messages.batch import Batch
from rxtweets._messages.jsonl import keys_of
from rxtweets._messages.message import Message
from rxtweets._support.validation import whole_number

REMEMBERED_MESSAGES = 100_000
"""Messages. A redelivered message was stored shortly before, in this run or the last."""


class Store(Subscriber[Any]):
    """A subscriber that holds a resource open: a file, a database, a connection.

    `close` closes it; so do the end of the stream and the end of a ``with`` block. Disposing of a
    subscription does not, as the store may have other subscriptions; delivered batches are stored
    all the same. The next batch opens a closed store again.

    A refused message fails alone. Data that JSON or a column cannot hold is stored as text that
    describes it. If a database refuses rows, only their messages fail.

    The stores of this package may be called by several threads, as with ``concurrency=`` of a
    `Batcher`. They store one batch after the other; the webhook sends several concurrently.
    """

    def __init__(self) -> None:
        super().__init__()
        self._alone = threading.RLock()

    def on_error(self, error: Exception) -> None:  # noqa: ARG002 - only closing is left to do
        """Close the store."""
        self.close()

    def on_completed(self) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Complete the stored data and release the resource; may be called several times."""
        raise NotImplementedError(f"{type(self).__name__} does not define how it closes: add close")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class FileStore(Store):
    """A store of files, which cannot replace a message: it leaves out the messages that it has.

    It knows the keys of at least the last ``window`` messages, and of twice as many at most.
    Unlike a `Deduplicator` it learns a key after the write: a message that could not be stored is
    stored when it is redelivered.

    Args:
        window: messages that are remembered, at about 100 bytes each.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self._window = whole_number("window", window)
        self._recent: set[str] = set()
        self._before: set[str] = set()
        self._knows_files = False

    def on_next(self, batch: Batch[Any]) -> None:
        """Write the messages that are not stored yet."""
        with self._alone:
            if self._is_replaced():
                self._knows_files = False
            if not self._knows_files:
                self._read_keys()
            missing = self._missing(batch)
            if missing:
                self._write(missing)

    @abstractmethod
    def _is_replaced(self) -> bool:
        """Return whether the files are not those of the last call."""

    @abstractmethod
    def _keys_in_files(self) -> Iterable[Iterable[str]]:
        """Yield the keys in each file, the newest file first."""

    @abstractmethod
    def _write(self, messages: dict[str, Message[Any]]) -> None:
        """Write messages, and `_remember` the keys of written ones."""

    def _remember(self, keys: Iterable[str]) -> None:
        self._recent.update(keys)
        if len(self._recent) >= self._window:
            self._before, self._recent = self._recent, set()

    def _missing(self, messages: Sequence[Message[Any]]) -> dict[str, Message[Any]]:
        found = dict(zip(keys_of(messages), messages, strict=True))
        for stored in (self._recent, self._before):
            if not stored.isdisjoint(found):  # rarely true, and checked without a Python loop
                found = {key: found[key] for key in found if key not in stored}
        return found

    def _read_keys(self) -> None:
        """Read the keys in the files, the newest first, until there are ``window`` of them."""
        self._recent, self._before = set(), set()
        files: list[deque[str]] = []
        for keys in self._keys_in_files():
            files.append(deque(keys, self._window))
            if sum(map(len, files)) >= self._window:
                break
        for file in reversed(files):
            self._remember(file)
        self._knows_files = True
