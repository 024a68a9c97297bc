"""The bounded buffer between the thread that reads and the thread that delivers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from rxtweets._core.events import OverflowEnded, OverflowStarted
from rxtweets._messages.lookup import LookedUp
from rxtweets.errors import RxTweetsError
from rxtweets.streams._billing import Quota
from rxtweets.streams._gaps import Interval

__all__ = ["Block", "Buffer", "Closed", "Ended", "Opened", "Overflow", "overflow_event"]

Overflow = Literal["drop_oldest", "drop_newest", "block"]
Burst = Literal["began", "ended"]

LINE = 16_384
"""Bytes of buffer for each line of the capacity; tweets with all fields have about a third."""

AT_ONCE = 16 * 1024 * 1024
"""Bytes after which `Buffer.get` takes no further block, and that fit in any case."""


class Block(NamedTuple):
    """The lines of one read; none if it brought keep-alives only.

    Attributes:
        lines: without their line feeds.
        received_at: seconds since 1970.
        connection: number of the connection.
        known: text and id of the lines, if the reader looked them up.
        size: bytes of the lines, at least.
    """

    lines: list[bytes]
    received_at: float
    connection: int
    known: LookedUp | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class _Signal:
    lines: ClassVar[Sequence[bytes]] = ()
    size: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Opened(_Signal):
    """A connection was established.

    Attributes:
        gap: time before it that stays missing.
    """

    gap: Interval | None


@dataclass(frozen=True, slots=True)
class Closed(_Signal):
    """A connection ended.

    Attributes:
        connection: its number.
        tail: its last line, if that has no line feed.
        at: when it ended, in seconds since 1970.
        by_us: the stream closed it, not the server.
    """

    connection: int
    tail: bytes
    at: float
    by_us: bool


@dataclass(frozen=True, slots=True)
class Ended(_Signal):
    """The reader makes no more connections.

    Attributes:
        error: the reason; ``None`` after a stop.
        gap: time up to now that stays missing.
    """

    error: RxTweetsError | None
    gap: Interval | None = None


def overflow_event(
    phase: Burst, policy: Overflow, capacity: int, dropped: int
) -> OverflowStarted | OverflowEnded:
    """Return the event of one call of ``on_burst``."""
    if phase == "began":
        return OverflowStarted(policy, capacity)
    return OverflowEnded(policy, dropped)


class Buffer:
    """A queue of blocks, bounded in lines, and in bytes: 16 KB for each line of the capacity.

    The longest line fits in any case, with the lines of its read.

    The reading side waits only with the policy ``block``, or when a quota is used up. Otherwise
    lines above the capacity are dropped: the oldest (``drop_oldest``, as in GenStage's buffer) or
    the newest (``drop_newest``). Tweets are dropped before lines about the stream.

    Args:
        capacity: lines.
        policy: for a full buffer.
        on_drop: called with the number of lines of every drop.
        on_burst: called with ``("began", 0)`` at the first drop, and with ``("ended", dropped)``
            when the buffer is half empty again, or was closed.
        quota: the reading side waits while as many lines are buffered and in delivery as the quota
            admits. ``None`` for no quota.
        longest: bytes of the longest line.

    Attributes:
        in_hand: lines of the last `get` that are not counted yet; set here, so that a quota never
            misses them, and reduced by the thread that took them.
    """

    def __init__(
        self,
        capacity: int,
        policy: Overflow,
        on_drop: Callable[[int], None],
        on_burst: Callable[[Burst, int], None],
        quota: Quota | None = None,
        longest: int = 0,
    ) -> None:
        self._capacity = capacity
        self._policy = policy
        self._on_drop = on_drop
        self._on_burst = on_burst
        self._quota = quota
        self._blocks: deque[Any] = deque()
        self._changed = threading.Condition()
        self._lines = 0
        self._bytes = 0
        # The text of the longest line may be in memory twice.
        self._most_bytes = max(capacity * LINE, AT_ONCE + 2 * longest)
        self._burst = 0
        self._closed = False
        self.in_hand = 0

    def __len__(self) -> int:
        """Lines waiting."""
        return self._lines

    def put(self, block: Block | Opened | Closed | Ended) -> None:
        """Append a block; drop and count it after `close`.

        A block without lines never waits, and replaces another one at the end of the buffer.
        """
        with self._changed:
            if self._policy == "block" and block.lines:
                self._changed.wait_for(lambda: self._closed or self._has_room())
            if self._closed:
                self._on_drop(len(block.lines))
                return
            if not block.lines and self._blocks and _are_keep_alives(block, self._blocks[-1]):
                self._blocks.pop()
            self._blocks.append(block)
            self._lines += len(block.lines)
            self._bytes += block.size
            if self._is_too_full() and self._policy != "block":
                self._drop()
            self._changed.notify_all()
            if self._quota is not None and block.lines:
                # Now, not before the next block: X bills lines that were read by then.
                self._changed.wait_for(lambda: self._closed or self._is_within_quota())

    def get(self, most: int) -> list[Any]:
        """Wait for blocks and signals and take them; an empty list means closed and drained.

        Args:
            most: lines after which no further block is taken.
        """
        with self._changed:
            self.in_hand = 0
            if self._quota is not None:
                self._changed.notify_all()  # the quota may admit more
            self._changed.wait_for(lambda: self._closed or bool(self._blocks))
            taken: list[Any] = []
            lines = size = 0
            while self._blocks and lines < most and size < AT_ONCE:
                block = self._blocks.popleft()
                lines += len(block.lines)
                size += block.size
                taken.append(block)
            self._lines -= lines
            self._bytes -= size
            self.in_hand = lines
            if self._burst and self._lines <= self._capacity // 2:
                self._end_burst()
            self._changed.notify_all()
            return taken

    def close(self, *, discard: bool = False) -> None:
        """Accept no more blocks; with ``discard``, drop and count the lines that wait."""
        with self._changed:
            self._closed = True
            if discard:
                self._on_drop(self._lines)
                self._blocks.clear()
                self._lines = self._bytes = 0
            if self._burst:
                self._end_burst()
            self._changed.notify_all()

    def lift_quota(self) -> None:
        """Let the reading side continue: its connection is closed, and X bills no more."""
        with self._changed:
            self._quota = None
            self._changed.notify_all()

    def _is_within_quota(self) -> bool:
        return self._quota is None or self._lines + self.in_hand < self._quota.left

    def _has_room(self) -> bool:
        return self._lines < self._capacity and self._bytes < self._most_bytes

    def _is_too_full(self) -> bool:
        return self._lines > self._capacity or self._bytes > self._most_bytes

    def _drop(self) -> None:
        before = self._lines
        self._drop_lines(b'"data"')
        self._drop_lines(b"")  # a flood of lines about the stream
        dropped = before - self._lines
        if not self._burst:
            self._on_burst("began", 0)
        self._burst += dropped
        self._on_drop(dropped)

    def _drop_lines(self, mark: bytes) -> None:
        """Drop lines that contain the mark, from one end, until the capacity holds."""
        is_newest = self._policy == "drop_newest"
        kept: list[Any] = []
        while self._blocks and self._is_too_full():
            block = self._blocks.pop() if is_newest else self._blocks.popleft()
            if isinstance(block, _Signal):
                kept.append(block)
                continue
            lines: list[bytes] = []
            size = block.size
            for line in reversed(block.lines) if is_newest else block.lines:
                if self._is_too_full() and mark in line:
                    self._lines -= 1
                    self._bytes -= len(line)
                    size -= len(line)
                else:
                    lines.append(line)
            if is_newest:
                lines.reverse()
            if lines:
                kept.append(block._replace(lines=lines, known=None, size=size))
            else:
                self._bytes -= size
        if is_newest:
            self._blocks.extend(reversed(kept))
        else:
            self._blocks.extendleft(reversed(kept))

    def _end_burst(self) -> None:
        dropped, self._burst = self._burst, 0
        self._on_burst("ended", dropped)


def _are_keep_alives(*blocks: Any) -> bool:
    return all(isinstance(block, Block) and not block.lines for block in blocks)
