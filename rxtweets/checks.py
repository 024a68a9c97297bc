"""Checks of options: they fail where the option is given, and name it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from rxtweets.errors import ConfigurationError

__all__ = ["function", "iterable", "no_class", "seconds", "whole_number"]


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """The value, if it is a whole number that is not too small.

    Raises:
        ConfigurationError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name}={value!r}: give a whole number of {least} or more")
    return value


def seconds(name: str, value: Any) -> float:
    """The value as a number above zero, if it is one; a timedelta in seconds.

    Raises:
        ConfigurationError: it is not.
    """
    number = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
    if not is_number or not math.isfinite(number) or number <= 0:
        raise ConfigurationError(f"{name}={value!r}: give a number above 0")
    return float(number)


def iterable(name: str, value: Any, example: str) -> Iterable[Any]:
    """The value, if it has several items; a text is one item, not a list of its letters.

    Args:
        name: of the option.
        value: that was given.
        example: a value that works, as it is written in a program.

    Raises:
        ConfigurationError: it is a text, or cannot be iterated over.
    """
    if isinstance(value, (str, bytes, bytearray)) or not isinstance(value, Iterable):
        shown = f"[{value!r}]" if isinstance(value, str) else example
        raise ConfigurationError(f"{name}={value!r}: give a list, such as {shown}")
    return value


def function(name: str, value: Any) -> None:
    """Refuse what cannot be called.

    Raises:
        ConfigurationError: it is not callable.
    """
    if not callable(value):
        raise ConfigurationError(f"{name}={value!r}: give a function")


def no_class(name: str, value: Any) -> None:
    """Refuse a class where an instance is meant; it would be called, or fail, for each batch.

    Raises:
        ConfigurationError: it is a class.
    """
    if isinstance(value, type):
        raise ConfigurationError(
            f"{name}={value!r} is a class: give an instance, {value.__name__}(...)"
        )
