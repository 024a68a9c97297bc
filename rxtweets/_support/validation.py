"""Checks of options: they fail where the option is given, and name it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from rxtweets.errors import ConfigurationError

__all__ = ["file_path", "function", "iterable", "no_class", "seconds", "whole_number"]


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


def path_text(name: str, value: Any) -> str:
    """The value as the text of a path.

    Raises:
        ConfigurationError: it is neither a text nor a path.
    """
    if not isinstance(value, (str, os.PathLike)) or isinstance(os.fspath(value), bytes):
        raise ConfigurationError(f"{name}={value!r}: give the path of a file")
    return os.fspath(value)


def file_path(name: str, value: Any) -> Path:
    """The value as the path of a file, if one can be written there.

    Raises:
        ConfigurationError: it cannot.
    """
    text = path_text(name, value)
    path = Path(text)
    shown, directory = f"{name}={text!r}", path.parent
    if not path.name or path.is_dir():
        raise ConfigurationError(f"{shown}: give the name of a file")
    if not directory.is_dir() or not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{shown}: {directory} is no directory that can be written to")
    if path.exists() and not os.access(path, os.W_OK):
        raise ConfigurationError(f"{shown}: the file that is there cannot be written to")
    return path


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
