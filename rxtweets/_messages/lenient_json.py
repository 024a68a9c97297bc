"""JSON decoding of lines that orjson refuses: deep nesting and large numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import orjson

__all__ = ["depth_of", "payload_in", "payload_of"]

LONGEST_INTEGER = 300
"""Digits of a decoded integer; a longer one becomes a float, which may be infinite."""

DEEPEST = 500
"""Nesting levels. orjson decodes 1,024, the standard library fewer than 1,000."""

NESTING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
"""A string, which may contain brackets, or a bracket."""


def payload_in(line: bytes) -> Any:
    """Decode strict JSON; parts nested deeper than `DEEPEST` levels become ``null``.

    Raises:
        JSONDecodeError: the line is not JSON.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        # Counting brackets costs too much to do it for every line.
        if line.count(b"[") + line.count(b"{") <= DEEPEST:
            raise
        try:
            return orjson.loads(_without_deep_parts(line, orjson.loads))
        except orjson.JSONDecodeError:
            raise error from None


def payload_of(line: bytes) -> Any:
    """Decode the line of a message, which msgspec may have accepted where orjson does not.

    Numbers beyond the range of a double become infinite; deep parts become ``null``.

    Raises:
        ValueError: the line is not JSON.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(_without_deep_parts(line, len), parse_int=_integer)


def depth_of(line: bytes) -> int:
    """Return the nesting levels of a JSON text."""
    depth = deepest = 0
    for token in NESTING.finditer(line):
        if token[0] in {b"[", b"{"}:
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in {b"]", b"}"}:
            depth -= 1
    return deepest


def _without_deep_parts(line: bytes, check: Callable[[bytes], object]) -> bytes:
    """Replace each part nested deeper than `DEEPEST` levels by ``null``.

    Args:
        line: the JSON text.
        check: called with each replaced part, which has at most `DEEPEST` levels.
    """
    pieces: list[list[bytes]] = [[]]
    depth = start = 0
    for token in NESTING.finditer(line):
        if token[0] in {b"[", b"{"}:
            if depth and not depth % DEEPEST:
                pieces[-1].append(line[start : token.start()])
                pieces.append([])
                start = token.start()
            depth += 1
        elif token[0] in {b"]", b"}"}:
            depth -= 1
            if depth > 0 and not depth % DEEPEST:
                pieces[-1].append(line[start : token.end()])
                check(b"".join(pieces.pop()))
                pieces[-1].append(b"null")
                start = token.end()
    return line if depth else b"".join((*pieces[0], line[start:]))


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < LONGEST_INTEGER else float(digits)
