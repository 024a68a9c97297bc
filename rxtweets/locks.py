"""Locks on files, which the system lets go of when the process ends, however it ends."""

from __future__ import annotations

from typing import Any

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, where two writers are not kept apart
    fcntl = None  # type: ignore[assignment]  # that is how a missing module is written

__all__ = ["lock"]


def lock(file: Any, *, wait: bool = False) -> bool:
    """Take an open file for us alone, until it is closed; ``False`` if somebody else has it.

    Args:
        file: of the system, with a ``fileno``.
        wait: until the other lets go.

    Raises:
        OSError: its file system has no locks.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
    return True
