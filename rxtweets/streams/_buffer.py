"""The bounded hand-off between the thread that reads and the thread that delivers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

from rxtweets._messages.lookup import Known
from rxtweets.errors import ConfigurationError

__all__ = ["Block", "Handoff", "Overflow", "check_overflow"]

Overflow = Literal["drop_oldest", "drop_newest", "block"]

LINE = 16_384
"""Bytes that a line of the capacity may have on average; tweets with all fields have a third."""

AT_ONCE = 16 * 1024 * 1024
"""Bytes after which `Handoff.get` takes no further block, and that wait in any case."""


def check_overflow(policy: str) -> Overflow:
    """The policy, if it is one.

    Raises:
        ConfigurationError: it is none.
    """
    for known in get_args(Overflow):
        if policy == known:
            return known  # type: ignore[no-any-return]  # get_args forgets the type
    choice = ", ".join(get_args(Overflow))
    raise ConfigurationError(f"overflow={policy!r}: choose one of {choice}")


class Block(NamedTuple):
    """Lines of one read.

    Attributes:
        lines: without their line feeds.
        received_at: seconds since 1970.
        connection: the number of the connection that brought them.
        known: what `peeking.look_up` has found in the lines, if it was asked.
        size: bytes of the lines, give or take their ends.
    """

    lines: list[bytes]
    received_at: float
    connection: int
    known: Known | None = None
    size: int = 0


class Handoff:
    """A queue of blocks, bounded in lines, and in bytes: 16 KB for each line of the capacity.

    Of bytes there is always room for the longest line and for what comes with it.

    The reading side never waits, unless the policy is ``block`` or enough waits. When there are
    more lines than the capacity, lines are dropped one by one until it holds again, the oldest
    (``drop_oldest``, as GenStage's buffer) or those that just came (``drop_newest``); what is
    dropped is counted to the line. Lines that are about the stream, not tweets, are kept.

    Args:
        capacity: lines.
        policy: what to do when it is full.
        on_burst: told ``("began", 0)`` with a burst's first drop and ``("ended", dropped)`` when it
            is over: the queue has come down to half its capacity, or was closed.
        on_drop: told of every drop, with the number of lines.
        wanted: how many lines will be taken yet at most; while so many wait, the reading side
            waits as well, whatever the policy. Asked with every `put`, `get` and `wake`. ``None``
            for no such bound.
        longest: bytes of a line.

    Attributes:
        in_hand: lines of the last `get`, until who took them sets it to 0. Set here, as the reading
            side may ask what is wanted before `get` has returned.
    """

    def __init__(
        self,
        capacity: int,
        policy: Overflow,
        on_drop: Callable[[int], None],
        on_burst: Callable[[Literal["began", "ended"], int], None],
        wanted: Callable[[], int] | None = None,
        longest: int = 0,
    ) -> None:
        self._wanted = wanted
        self._capacity = capacity
        self._policy = policy
        self._on_drop = on_drop
        self._on_burst = on_burst
        self._blocks: deque[Block] = deque()
        self._changed = threading.Condition()
        self._lines = 0
        self._bytes = 0
        self._most_bytes = max(capacity * LINE, AT_ONCE + 2 * longest)  # its text may come apart
        self._burst = 0
        self._closed = False
        self.in_hand = 0

    def __len__(self) -> int:
        """Lines waiting."""
        return self._lines

    def put(self, block: Block) -> None:
        """Hand over a block; after `close` it is dropped.

        One without lines never waits, and takes the place of another that came just before.
        """
        with self._changed:
            if self._policy == "block" and block.lines:
                self._changed.wait_for(lambda: self._closed or self._has_room())
            if self._closed:
                self._on_drop(len(block.lines))
                return
            if not block.lines and self._blocks and _follows(block, self._blocks[-1]):
                self._blocks.pop()
            self._blocks.append(block)
            self._lines += len(block.lines)
            self._bytes += block.size
            if self._is_too_full() and self._policy != "block":
                self._drop()
            self._changed.notify_all()
            if self._wanted is not None and block.lines:
                # Here, and not before the next block: that would have been read by then.
                self._changed.wait_for(lambda: self._closed or self._is_more_wanted())

    def get(self, most: int) -> list[Block]:
        """Wait for blocks; an empty list says that the hand-off was closed and is drained.

        Args:
            most: take no further block once there are so many lines.
        """
        with self._changed:
            if self._wanted is not None:
                self._changed.notify_all()  # more may be wanted than when the last were taken
            self._changed.wait_for(lambda: self._closed or bool(self._blocks))
            taken: list[Block] = []
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
        """Take no more; what waits is still given out, or dropped and counted if ``discard``."""
        with self._changed:
            self._closed = True
            if discard and self._lines:
                self._on_drop(self._lines)
                self._blocks.clear()
                self._lines = self._bytes = 0
            if self._burst:
                self._end_burst()
            self._changed.notify_all()

    def wake(self) -> None:
        """Let a reading side that waits ask again what is wanted."""
        with self._changed:
            self._changed.notify_all()

    def _is_more_wanted(self) -> bool:
        return self._wanted is None or self._lines < self._wanted()

    def _has_room(self) -> bool:
        return self._lines < self._capacity and self._bytes < self._most_bytes

    def _is_too_full(self) -> bool:
        return self._lines > self._capacity or self._bytes > self._most_bytes

    def _drop(self) -> None:
        # Tweets first; only if that does not do, a flood of something else is cut as well.
        dropped = self._drop_lines(tweets_only=True)
        if self._is_too_full():
            dropped += self._drop_lines(tweets_only=False)
        if not self._burst:
            self._on_burst("began", 0)
        self._burst += dropped
        self._on_drop(dropped)

    def _drop_lines(self, *, tweets_only: bool) -> int:
        before = self._lines
        passed: list[Block] = []
        newest = self._policy == "drop_newest"
        while self._blocks and self._is_too_full():
            block = self._blocks.pop() if newest else self._blocks.popleft()
            excess = self._lines - self._capacity, self._bytes - self._most_bytes
            rest = _without(block, *excess, newest, tweets_only)
            self._lines -= len(block.lines) - len(rest.lines)
            self._bytes -= block.size - rest.size
            if rest.lines:
                passed.append(rest)
        if newest:
            self._blocks.extend(reversed(passed))
        else:
            self._blocks.extendleft(reversed(passed))
        return before - self._lines

    def _end_burst(self) -> None:
        dropped, self._burst = self._burst, 0
        self._on_burst("ended", dropped)


def _follows(block: Block, last: Block) -> bool:
    return not last.lines and last.connection == block.connection


def _without(block: Block, lines: int, size: int, newest: bool, tweets_only: bool) -> Block:
    """Remove lines and bytes from the end of the block if ``newest``, else from its start."""
    kept: list[bytes] = []
    left = block.size
    for line in reversed(block.lines) if newest else block.lines:
        if (lines > 0 or size > 0) and not (tweets_only and b'"data"' not in line):
            lines -= 1
            size -= len(line)
            left -= len(line)
        else:
            kept.append(line)
    if newest:
        kept.reverse()
    return block._replace(lines=kept, known=None, size=left if kept else 0)
