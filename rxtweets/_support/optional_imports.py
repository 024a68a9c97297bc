"""Libraries that only some need: imported when they are needed, and named when they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from rxtweets.errors import ConfigurationError

__all__ = ["needed"]


def needed(module: str, extra: str) -> Any:
    """The module, imported now.

    Args:
        module: its name.
        extra: of rxtweets that brings it.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"this needs {module}, which cannot be imported ({error}); "
            f"install it with: pip install 'rxtweets[{extra}]'"
        ) from error
