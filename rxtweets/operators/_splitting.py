"""When a batch is full: by number, by bytes, or by a function of the user's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from rxtweets._messages.message import Message
from rxtweets._support.validation import function, whole_number
from rxtweets.errors import ConfigurationError, HandlerError

__all__ = ["Size", "Split", "at_most", "bytes_of", "splitter_for"]

Verdict = Literal["continue", "emit", "before"]
"""``continue``: the message is in the batch, which goes on. ``emit``: it is the batch's last one.
``before``: the batch ends before it, and it begins the next one."""

Split = Callable[[Message[Any], Any], tuple[Verdict, Any]]
Size = int | tuple[Any, Split]


def bytes_of(message: Message[Any]) -> int:
    """How large a message is: its line, or, where it came without one, its data if that is text."""
    line = message.raw
    if line:
        return len(line)
    data = message.data
    if isinstance(data, str):
        return len(data.encode())
    if isinstance(data, bytes):
        return len(data)
    raise HandlerError(f"{type(data).__name__} has no size in bytes: give bytes_of=")


def at_most(count: int | None, limit: int, measure: Callable[[Message[Any]], int]) -> Size:
    """Batches of so many bytes at most; a message that is larger by itself is one by itself."""

    def split(message: Message[Any], so_far: tuple[int, int]) -> tuple[Verdict, tuple[int, int]]:
        messages, size = so_far[0] + 1, so_far[1] + measure(message)
        if size > limit:
            return "before", (messages, size)
        is_full = messages == count or size == limit
        return "emit" if is_full else "continue", (messages, size)

    return (0, 0), split


def splitter_for(
    size: Any, max_bytes: int | None, measure: Callable[[Message[Any]], int] | None
) -> tuple[int, tuple[Any, Split] | None]:
    """The checked options: a number of messages, and a function with its accumulator if needed.

    ``measure`` is `bytes_of` by default.

    Raises:
        ConfigurationError: they cannot work.
    """
    if isinstance(size, tuple):
        if len(size) != 2 or not callable(size[1]):
            raise ConfigurationError(
                f"size={size!r}: give a whole number, or "
                "(accumulator, function(message, accumulator))"
            )
        if max_bytes is not None:
            raise ConfigurationError(
                f"max_bytes={max_bytes!r}: a size that is a function decides alone; leave it out"
            )
        return 1, size
    whole_number("size", size)
    if max_bytes is None:
        return size, None
    measure = bytes_of if measure is None else measure
    function("bytes_of", measure)
    bounded = at_most(size, whole_number("max_bytes", max_bytes), measure)
    assert isinstance(bounded, tuple)  # noqa: S101 - for the type checker
    return size, bounded
