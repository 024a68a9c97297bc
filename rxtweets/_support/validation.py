"""Checks of options: each returns the value, or raises a `ConfigurationError` that names it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from rxtweets.errors import ConfigurationError

__all__ = [
    "choice",
    "file_path",
    "flag",
    "function",
    "instance",
    "iterable",
    "no_class",
    "number",
    "optional",
    "path_text",
    "seconds",
    "whole_number",
]

T = TypeVar("T")


def optional(check: Callable[..., T], name: str, value: Any, *args: Any) -> T | None:
    """Apply a check unless the value is ``None``."""
    return None if value is None else check(name, value, *args)


def whole_number(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name}={value!r}: give a whole number of {least} or more")
    return value


def number(name: str, value: Any, least: float = 0) -> float:
    if not _is_finite(value) or value < least:
        raise ConfigurationError(f"{name}={value!r}: give a number, {least:g} or more")
    return float(value)


def seconds(name: str, value: Any) -> float:
    """Check a number above zero; a timedelta is converted to seconds."""
    given = value.total_seconds() if isinstance(value, timedelta) else value
    if not _is_finite(given) or given <= 0:
        raise ConfigurationError(f"{name}={value!r}: give a number above 0")
    return float(given)


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # Not math.isfinite, which raises OverflowError for an int that exceeds a float.
    return is_number and abs(value) <= sys.float_info.max


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name}={value!r}: give True or False")
    return value


def choice(name: str, value: Any, choices: Collection[T]) -> T:
    for known in choices:
        if value == known:
            return known
    raise ConfigurationError(f"{name}={value!r}: choose one of {', '.join(map(str, choices))}")


def instance(name: str, value: Any, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name}={value!r}: give a rxtweets.{kind.__name__}")
    return value


def iterable(name: str, value: Any, example: str) -> Iterable[Any]:
    """Check a value of several items; a text is one item.

    Args:
        name: of the option.
        value: that was given.
        example: a valid value as Python code, for the error.
    """
    if isinstance(value, str | bytes | bytearray) or not isinstance(value, Iterable):
        shown = f"[{value!r}]" if isinstance(value, str) else example
        raise ConfigurationError(f"{name}={value!r}: give a list, such as {shown}")
    return value


def path_text(name: str, value: Any) -> str:
    if not isinstance(value, str | os.PathLike) or isinstance(os.fspath(value), bytes):
        raise ConfigurationError(f"{name}={value!r}: give the path of a file")
    return os.fspath(value)


def file_path(name: str, value: Any) -> Path:
    """Check the path of a file that can be written."""
    text = path_text(name, value)
    path = Path(text)
    shown, directory = f"{name}={text!r}", path.parent
    if not path.name or path.is_dir():
        raise ConfigurationError(f"{shown}: give the name of a file")
    if not directory.is_dir() or not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{shown}: {directory} is no directory that can be written to")
    if path.exists() and not os.access(path, os.W_OK):
        raise ConfigurationError(f"{shown}: this file exists and cannot be written to")
    return path


def function(name: str, value: Any) -> Any:
    if not callable(value):
        raise ConfigurationError(f"{name}={value!r}: give a function")
    return value


def no_class(name: str, value: Any) -> Any:
    """Refuse a class, which would be called, or fail, for each batch."""
    if isinstance(value, type):
        raise ConfigurationError(
            f"{name}={value!r} is a class: give an instance, {value.__name__}(...)"
        )
    return value
