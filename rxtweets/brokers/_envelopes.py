"""Messages on the wire.

The body is X's line byte for byte, so other consumers read X's own JSON. Messages without a line,
or with the result of a handler as ``data``, travel in the format of recordings; a header says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar
from urllib.parse import quote, unquote

from rxtweets._messages.jsonl import from_line, keys_of, to_line
from rxtweets._messages.lookup import look_up, quick_look_up
from rxtweets._messages.message import Message, has_received_text, new_message
from rxtweets.brokers._engine import Envelope, Taken
from rxtweets.errors import DecodeError

__all__ = [
    "FORMAT",
    "KEY",
    "PACK",
    "RECEIVED_AT",
    "batches_of",
    "envelopes_of",
    "key_in",
    "messages_of",
    "number_in",
    "quoted",
]

RECEIVED_AT = "rxt-received-at"
"""Header: when the line was read from X, in seconds since 1970."""

FORMAT = "rxt-format"
"""Header: ``record`` if the body is in the format of recordings; or `PACK`."""

PACK = "pack"
"""The value of the header `FORMAT` of a pack: one line for each message."""

KEY = "rxt-key"
"""Header: the key of the message as in URLs, where the broker has got another one."""

T = TypeVar("T")
Messages = Sequence[Message[object]]

_look_up = quick_look_up() or look_up


def envelopes_of(messages: Messages) -> list[Envelope]:
    """Return the envelopes of messages, in their order."""
    return [
        Envelope(key, *_written(message))
        for message, key in zip(messages, keys_of(messages), strict=True)
    ]


def messages_of(taken: Sequence[Taken]) -> list[Message[object] | Exception]:
    """Return the message of each envelope, or the error for which it has none."""
    # An empty line stands for one that is not looked up.
    lines = [one.body if FORMAT not in one.headers else b"" for one in taken]
    known = [found if line else None for line, found in zip(lines, _look_up(lines), strict=True)]
    return [_decoded(one, found) for one, found in zip(taken, known, strict=True)]


def batches_of(
    items: Iterable[T], size_of: Callable[[T], int], most: int, most_bytes: int
) -> Iterator[list[T]]:
    """Yield items in batches for one request each; an item that is too large has its own."""
    batch: list[T] = []
    total = 0
    for item in items:
        size = size_of(item)
        if batch and (len(batch) == most or total + size > most_bytes):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size
    if batch:
        yield batch


def _written(message: Message[object]) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a message."""
    line = message.raw
    headers: dict[str, str] = {}
    if message.received_at is not None:
        headers[RECEIVED_AT] = repr(message.received_at)
    # A line with a line feed cannot be in a pack; X sends no such lines.
    if line and b"\n" not in line and _is_unchanged(message, line):
        return line, headers
    return to_line(message)[:-1], headers | {FORMAT: "record"}


def _is_unchanged(message: Message[object], line: bytes) -> bool:
    if has_received_text(message):
        return True
    [known] = _look_up([line])
    if known is not None:
        return bool(known[0] == message.data)
    try:
        return bool(from_line(line).data == message.data)
    except ValueError:
        return False


def _decoded(taken: Taken, known: tuple[str, object] | None) -> Message[object] | Exception:
    if taken.headers.get(FORMAT) == PACK:
        return DecodeError("a pack whose headers do not fit its lines", taken.body)
    received_at = _received_at(taken.headers)
    if known is not None:
        return new_message(known[0], known[1], taken.body, received_at, has_received_text=True)
    try:
        message = from_line(taken.body)
    except ValueError as error:
        return error
    if not message.raw:
        return message
    return new_message(message.data, message._id, message._line, received_at)  # noqa: SLF001 - a copy with another time


def quoted(key: str) -> str:
    """Return a key as the text of a header: ids of other sources may have any characters."""
    return key if key.isalnum() and key.isascii() else quote(key, safe="")


def key_in(taken: Taken) -> str:
    """Return the key of a message, whatever key the broker has got."""
    return unquote(taken.headers[KEY]) if KEY in taken.headers else taken.key


def number_in(headers: Mapping[str, str], name: str) -> float:
    """Return a header that strangers may have written; 0 without a finite number."""
    try:
        number = float(headers.get(name, 0.0))
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0


def _received_at(headers: Mapping[str, str]) -> float | None:
    return number_in(headers, RECEIVED_AT) or None
