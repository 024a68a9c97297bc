"""Text and id of plain tweets, found without decoding the rest of their lines.

orjson decodes a line as a whole. msgspec (``pip install 'rxtweets[fast]'``) checks the syntax of
the other fields and creates no objects for them. ``fast_paths=False`` leaves all lines to orjson,
for debugging.

Both find the same, with two exceptions. msgspec leaves out lines whose id is not text. A number
beyond the range of a double, such as ``1e400``, fails in orjson and not in msgspec.

msgspec refuses deep nesting at the recursion limit of the Python version, orjson at 1,024 levels;
`payload_in` decodes the refused lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import orjson

from rxtweets._messages.lenient_json import payload_in
from rxtweets._messages.payloads import tweet_in

__all__ = ["LookUp", "LookedUp", "look_up", "quick_look_up"]

LookedUp = list[tuple[str, object] | None]
"""Text and id for each line that is a plain tweet; ``None`` for other lines."""

LookUp = Callable[[Iterable[bytes]], LookedUp]


def look_up(lines: Iterable[bytes]) -> LookedUp:
    """Find text and id of plain tweets by orjson."""
    return [_plain_tweet_in(line) for line in lines]


def _plain_tweet_in(line: bytes) -> tuple[str, object] | None:
    try:
        payload = payload_in(line)
    except orjson.JSONDecodeError:
        return None
    tweet = tweet_in(payload)
    return tweet if tweet and "errors" not in payload else None


def quick_look_up() -> LookUp | None:
    """Return the same function by msgspec; ``None`` if it is not installed."""
    try:
        import msgspec  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    text, identifier = ("text", str), ("id", str | None, None)
    tweet = msgspec.defstruct("Tweet", [text, identifier], gc=False)
    errors = ("errors", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET)
    line_type = msgspec.defstruct("Line", [("data", tweet), errors], gc=False)
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(line_type).decode
    unset, refused = msgspec.UNSET, (msgspec.MsgspecError, UnicodeDecodeError)

    def quickly(lines: Iterable[bytes]) -> LookedUp:
        known: LookedUp = []
        add = known.append
        for line in lines:
            try:
                found = decode(line)
                if not line.isascii():
                    line.decode()  # skipped fields may contain bytes that are not UTF-8
            except refused:
                add(None)
            except RecursionError:
                add(_plain_tweet_in(line))
            else:
                add((found.data.text, found.data.id) if found.errors is unset else None)
        return known

    return quickly
