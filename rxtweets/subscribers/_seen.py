"""Which messages a file has already, for formats that cannot be asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Self

from rxtweets._messages.jsonl import keys_of
from rxtweets._messages.message import Message

__all__ = ["WINDOW", "Seen"]

WINDOW = 100_000
"""Messages. What comes again, after a failure or a start, was sent shortly before."""


class Seen:
    """The keys of at least the last ``window`` messages, and of twice as many at most.

    Unlike a `Deduplicator` it is told after the fact: what could not be stored must not be taken
    for stored when it comes again.

    Args:
        window: keys that are remembered, at about 100 bytes each.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._recent: set[str] = set()
        self._before: set[str] = set()

    @classmethod
    def in_files(cls, window: int, newest_first: Iterable[Iterable[str]]) -> Self:
        """What earlier runs stored; no more files are read, and keys kept, than are needed.

        Args:
            window: keys that are remembered.
            newest_first: the keys of each file, in their order.
        """
        needed: list[deque[str]] = []
        for keys in newest_first:
            needed.append(deque(keys, window))
            if sum(map(len, needed)) >= window:
                break
        seen = cls(window)
        for keys in reversed(needed):
            seen.remember(keys)
        return seen

    def fresh(self, messages: Sequence[Message[Any]]) -> dict[str, Message[Any]]:
        """Those that were not stored, by their keys; of each only one."""
        found = dict(zip(keys_of(messages), messages, strict=True))
        for stored in (self._recent, self._before):
            if not stored.isdisjoint(found):  # which is rare, and told without a loop of ours
                found = {key: found[key] for key in found if key not in stored}
        return found

    def remember(self, keys: Iterable[str]) -> None:
        """These are stored."""
        self._recent.update(keys)
        if len(self._recent) >= self._window:
            self._before, self._recent = self._recent, set()
