"""Keys seen of late: exact within a window, bounded in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from rxtweets._messages.message import Message

__all__ = ["DEFAULT_WINDOW", "Deduplicator", "key_of"]

DEFAULT_WINDOW = 100_000
"""Keys. At the 250 posts a second that X delivers at most to most accounts, more than the five
minutes that a backfill reaches back."""


def key_of(message: Message[Any]) -> Hashable:
    """The id; where there is none, as in compliance events, the line itself."""
    return message.id or message.raw


class Deduplicator:
    """Lets each key through once, as long as it is among the last ``window`` different ones.

    From any thread.

    Args:
        window: keys that are remembered.
        by: the key of a message.
    """

    def __init__(
        self, window: int = DEFAULT_WINDOW, by: Callable[[Message[Any]], Hashable] = key_of
    ) -> None:
        self._window = window
        self._by = by
        # Not a dict: taking the oldest of one costs more with each that was taken before.
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._lock = threading.Lock()

    def fresh(self, messages: list[Message[Any]]) -> list[Message[Any]]:
        """Those that were not seen, in their order; they are, from now on."""
        by = self._by
        with self._lock:
            return [message for message in messages if self._is_new(by(message))]

    def is_new(self, key: Hashable) -> bool:
        """Whether the key was not seen; it is, from now on."""
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
