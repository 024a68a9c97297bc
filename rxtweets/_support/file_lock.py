"""Identities and locks of files."""

from __future__ import annotations

import os
from typing import Any

try:
    import fcntl
except ImportError:  # pragma: no cover - on Windows two writers are not kept apart
    fcntl = None  # type: ignore[assignment]  # that is how a missing module is written

__all__ = ["Identity", "identity_of", "lock", "name_path"]

Identity = tuple[int, int] | None
"""Device and inode of a file, whatever its name; ``None`` if there is no file."""


def identity_of(path: str | os.PathLike[str]) -> Identity:
    """Return the identity of the file that is at this path now."""
    try:
        there = os.stat(path)  # noqa: PTH116 - once per batch, and a Path is slower
    except OSError:
        return None
    return there.st_dev, there.st_ino


def name_path(error: BaseException, path: str | os.PathLike[str]) -> None:
    """Add the path to an error of the system; errors of writing into an open file have none."""
    if isinstance(error, OSError) and error.filename is None:
        error.filename = os.fspath(path)


def lock(file: Any, *, wait: bool = False) -> bool:
    """Lock an open file until it is closed or the process ends.

    Args:
        file: of the system, with a ``fileno``.
        wait: until another process unlocks it.

    Returns:
        ``False`` if another process has locked it.

    Raises:
        OSError: the file system has no locks.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
    return True
