"""Representations of values in notebooks."""

from __future__ import annotations

from functools import singledispatch

__all__ = ["representation"]


@singledispatch
def representation(value: object) -> dict[str, str]:
    """Return the representations of a value by media type; `rxtweets.display` registers more."""
    return {"text/plain": repr(value)}
