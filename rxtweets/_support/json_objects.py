"""Objects within decoded JSON that may have any shape."""

from __future__ import annotations

from typing import Any

import orjson

__all__ = ["object_in", "objects_in", "parsed_object"]


def object_in(value: Any, name: str) -> dict[str, Any]:
    """Return the object of this name in another one; empty if there is none."""
    part = value.get(name) if isinstance(value, dict) else None
    return part if isinstance(part, dict) else {}


def objects_in(value: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the objects in the list of this name; X omits an empty list."""
    parts = value.get(name)
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def parsed_object(text: str | bytes) -> dict[str, Any]:
    """Decode an object; empty if the text is something else."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
