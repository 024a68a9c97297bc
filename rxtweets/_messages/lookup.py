"""Text and id of plain tweets: all that a message needs of its line at first.

orjson can only decode a line as a whole; msgspec (extra ``fast``) checks the syntax of what was not
asked for without making anything of it. That takes 2.7 µs instead of 3.4 for a tweet of 1 KB, 4.7
instead of 7.3 for one of 2.5 KB, and leaves nothing to the garbage collector; in one process, 5 to
35 % more tweets a second, the most where metadata is read, since decoding a line twice in this way
costs less than keeping what was decoded. Figures in ``tests/benchmarks/README.md``.

Both ways find the same, or the quick one leaves a line to `decoding.decode`: where the id is no
text, say. But for one kind of line: with a number that no double holds, such as ``1e400``, orjson
refuses it, and msgspec does not. ``tests/test_peeking.py`` compares them.
``fast_paths=False`` leaves all lines to orjson.

orjson reads 1,024 levels of nesting; msgspec reads as many as the recursion limit of the Python
version allows. Counting brackets in each line would take half as long again, so lines that are
nested deeper are read too: where a library refuses one, `message.read_again` reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import orjson

from rxtweets._messages.message import read_again

__all__ = ["Known", "LookUp", "look_up", "quick_look_up"]

Known = list[tuple[str, object] | None]
"""Of some lines, text and id of those that were found to be plain tweets."""

LookUp = Callable[[Iterable[bytes]], Known]


def look_up(lines: Iterable[bytes]) -> Known:
    """What `decoding.decode` needs to know of plain tweets, so that it need not be done there."""
    known: Known = []
    loads, add = orjson.loads, known.append
    for line in lines:
        try:
            try:
                payload = loads(line)
            except orjson.JSONDecodeError as error:
                payload = read_again(line, error)
            tweet = payload["data"]
            text = tweet["text"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            add(None)
            continue
        is_plain = type(text) is str and "errors" not in payload
        add((text, tweet.get("id")) if is_plain else None)
    return known


def quick_look_up() -> LookUp | None:
    """The same by msgspec; ``None`` where that is not installed."""
    try:
        import msgspec  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    text, identifier = ("text", str), ("id", str | None, None)
    tweet = msgspec.defstruct("Tweet", [text, identifier], gc=False)
    errors = ("errors", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET)
    line_type = msgspec.defstruct("Line", [("data", tweet), errors], gc=False)
    peek: Callable[[bytes], Any] = msgspec.json.Decoder(line_type).decode
    unset, refused = msgspec.UNSET, (msgspec.MsgspecError, UnicodeDecodeError)

    def quickly(lines: Iterable[bytes]) -> Known:
        known: Known = []
        add = known.append
        for line in lines:
            try:
                found = peek(line)
                if not line.isascii():
                    line.decode()  # what was passed over may hold bytes that are no UTF-8
            except refused:
                add(None)  # whatever it is, `decode` looks at it again
                continue
            except RecursionError:
                known += look_up((line,))
                continue
            plain = found.data
            add((plain.text, plain.id) if found.errors is unset else None)
        return known

    return quickly
