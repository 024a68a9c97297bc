"""Whether a notebook runs this program; IPython is asked only where it runs already."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["is_notebook", "shell"]


def shell() -> Any:
    """The IPython that this program runs in; ``None`` outside."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def is_notebook() -> bool:
    """Whether this program is the kernel of a notebook, and no terminal, script or test."""
    return getattr(shell(), "kernel", None) is not None
