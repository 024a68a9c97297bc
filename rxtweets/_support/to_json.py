"""Any value as JSON: what handlers make of a message must not break a store."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import orjson

__all__ = ["readable", "to_json"]

OPTIONS = orjson.OPT_NON_STR_KEYS


def to_json(value: object) -> bytes:
    """The value as JSON, in UTF-8.

    Dataclasses, times, dates, enums and UUIDs are written as orjson does it, mappings as objects,
    sets as arrays, bytes as text, and whatever JSON cannot hold as its ``repr``; of what is nested
    deeper than that can be written, the outer levels. It never raises: of a value whose ``repr``
    raises, the type is named.
    """
    try:
        return orjson.dumps(value, _other, OPTIONS)
    except (orjson.JSONEncodeError, RecursionError):
        # Too deep, too large a number, half a surrogate pair: the value as a whole, readable.
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
    """The ``repr`` in ASCII; of what is nested too deep even for that, its outer levels."""
    try:
        return ascii(value)
    except RecursionError:
        return reprlib.repr(value).encode("ascii", "backslashreplace").decode()
    except Exception as error:  # noqa: BLE001 - a repr is anybody's code
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
