"""Which messages a file has already, for formats that cannot be asked."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from rxtweets.message import Message
from rxtweets.message_lines import key_of

__all__ = ["WINDOW", "Seen"]

WINDOW = 100_000
"""Messages. What comes again, after a failure or a start, was sent shortly before."""


class Seen:
    """The keys of the last ``window`` messages; unlike a `Deduplicator`, told after the fact.

    What could not be stored must not be taken for stored when it comes again.

    Args:
        window: keys that are remembered, at about 200 bytes each.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._keys: OrderedDict[str, None] = OrderedDict()

    def fresh(self, messages: Sequence[Message[Any]]) -> dict[str, Message[Any]]:
        """Those that were not stored, by their keys; of each only one."""
        keys = self._keys
        return {key: message for message in messages if (key := key_of(message)) not in keys}

    def remember(self, keys: Iterable[str]) -> None:
        """These are stored."""
        seen = self._keys
        seen.update(dict.fromkeys(keys))
        while len(seen) > self._window:
            seen.popitem(last=False)
