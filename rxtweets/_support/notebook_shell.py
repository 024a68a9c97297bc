"""Detection of a notebook; IPython is only used if it was imported already."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["is_notebook", "shell"]


def shell() -> Any:
    """Return the IPython shell that runs this program; ``None`` outside."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def is_notebook() -> bool:
    """Return whether a notebook runs this program."""
    return getattr(shell(), "kernel", None) is not None
