"""Any value as JSON, so that the results of handlers cannot break a store."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from itertools import chain
from typing import Any

import orjson

__all__ = ["is_deep", "readable", "to_json"]

DEEPEST = 1_000
"""Nesting levels of a ``repr``: Python 3.14 has no fixed limit, and takes quadratic time."""

CONTAINERS = {list, tuple, dict, set, frozenset}


def to_json(value: object) -> bytes:
    """Return the value as JSON, in UTF-8; never raises.

    orjson writes dataclasses, times, dates, enums and UUIDs. Mappings become objects, sets become
    arrays, bytes become text, and other values become their ``repr``. Too deep values are cut.
    """
    try:
        return orjson.dumps(value, _other, orjson.OPT_NON_STR_KEYS)
    except (orjson.JSONEncodeError, RecursionError):
        # Too deep, too large a number, half a surrogate pair: then the whole value is a text.
        return orjson.dumps(readable(value))


def _other(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, AbstractSet):
        return list(value)
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode(errors="replace")
    return readable(value)


def readable(value: object) -> str:
    """Return the ``repr`` in ASCII; of a too deep value its outer levels; never raises."""
    try:
        return _outer_levels(value) if is_deep(value) else ascii(value)
    except RecursionError:
        return _outer_levels(value)
    except Exception as error:  # noqa: BLE001 - a repr may be code of the user
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"


def _outer_levels(value: object) -> str:
    return reprlib.repr(value).encode("ascii", "backslashreplace").decode()


def is_deep(value: object) -> bool:
    """Return whether lists, tuples, dictionaries and sets nest deeper than `DEEPEST` levels."""
    seen: set[int] = set()
    items = [value]
    for _ in range(DEEPEST):
        containers: dict[int, Any] = {
            id(item): item for item in items if type(item) in CONTAINERS and id(item) not in seen
        }
        if not containers:
            return False
        seen |= containers.keys()
        parts = (c.values() if isinstance(c, dict) else c for c in containers.values())
        items = list(chain.from_iterable(parts))
    return True
