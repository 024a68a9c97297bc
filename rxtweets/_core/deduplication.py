"""A window of the keys that were seen: exact within it, bounded in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from rxtweets._messages.jsonl import key_of
from rxtweets._messages.message import Message

__all__ = ["DEFAULT_WINDOW", "Deduplicator", "default_key"]

DEFAULT_WINDOW = 100_000
"""Keys. More than X delivers to most accounts, at 250 posts a second, in the five minutes of a
backfill."""


def default_key(message: Message[Any]) -> Hashable:
    """Return the id of a message, which is its key.

    Without an id, as in a compliance event, the key is the line. Without a line, it is the digest
    of `key_of`.
    """
    return message.id or message.raw or key_of(message)


class Deduplicator:
    """Remembers the last ``window`` different keys; thread-safe.

    Args:
        window: number of keys.
        by: gives the key of a message.
    """

    def __init__(
        self, window: int = DEFAULT_WINDOW, by: Callable[[Message[Any]], Hashable] = default_key
    ) -> None:
        self._window = window
        self._by = by
        # Not a dict: removing its oldest key takes longer with each key that was removed before.
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._lock = threading.Lock()

    def fresh(self, messages: list[Message[Any]]) -> list[Message[Any]]:
        """Return the messages whose keys are new, in order, and remember these keys."""
        by = self._by
        with self._lock:
            return [message for message in messages if self._is_new(by(message))]

    def is_new(self, key: Hashable) -> bool:
        """Return whether the key is new, and remember it."""
        with self._lock:
            return self._is_new(key)

    def _is_new(self, key: Hashable) -> bool:
        seen = self._seen
        if key in seen:
            return False
        seen[key] = None
        if len(seen) > self._window:
            seen.popitem(last=False)
        return True
