"""Imports of optional dependencies, when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from rxtweets.errors import ConfigurationError

__all__ = ["needed"]


def needed(module: str, extra: str) -> Any:
    """Import a module of an extra of rxtweets.

    Raises:
        ConfigurationError: it is not installed; the error names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"this needs {module}, which cannot be imported ({error}); "
            f"install it with: pip install 'rxtweets[{extra}]'"
        ) from error
