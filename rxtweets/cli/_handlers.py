"""Handlers of the user, by ``MODULE:NAME``."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, cast

from rxtweets.errors import ConfigurationError

__all__ = ["SOURCE", "load_handler", "makes_pipeline"]

SOURCE = "source"
"""The name of the parameter by which a function that makes a pipeline is known."""


def load_handler(text: str) -> Callable[..., Any]:
    """Import a function; modules of the current directory are found.

    Args:
        text: module and name, such as ``tweets:score``; the name may have dots.

    Raises:
        ConfigurationError: it cannot be imported, or cannot be called.
    """
    module_name, colon, name = text.partition(":")
    if not (module_name and colon and name):
        raise ConfigurationError(f"{text!r}: give MODULE:NAME, such as tweets:score")
    directory = os.getcwd()  # noqa: PTH109 - a text, as all of sys.path
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise ConfigurationError(
            f"{text!r} cannot be imported: {type(error).__name__}: {error} "
            f"({place.filename}, line {place.lineno})"
        ) from error
    try:
        found = functools.reduce(getattr, name.split("."), module)
    except AttributeError as error:
        raise ConfigurationError(f"{text!r}: {error} ({module.__file__})") from None
    if not callable(found):
        raise ConfigurationError(f"{text!r} is no function, but {type(found).__name__}")
    return cast("Callable[..., Any]", found)


def makes_pipeline(function: Callable[..., Any]) -> bool:
    """Return whether the one parameter of a function is called ``source``."""
    try:
        return list(inspect.signature(function).parameters) == [SOURCE]
    except (TypeError, ValueError):  # some functions of C have no signature
        return False
