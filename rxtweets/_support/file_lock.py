"""Which file it is: locks, which the system lets go of when the process ends, and identities."""

from __future__ import annotations

import os
from typing import Any

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, where two writers are not kept apart
    fcntl = None  # type: ignore[assignment]  # that is how a missing module is written

__all__ = ["Identity", "identity_of", "lock", "name_path"]

Identity = tuple[int, int] | None
"""Of a file or directory, whatever its name; ``None`` if there is none."""


def identity_of(path: str | os.PathLike[str]) -> Identity:
    """The identity of what is at this path now."""
    try:
        there = os.stat(path)  # noqa: PTH116 - once a batch; a Path takes twice as long
    except OSError:
        return None
    return there.st_dev, there.st_ino


def name_path(error: BaseException, path: str | os.PathLike[str]) -> None:
    """Let an error of the system name its file; those of writing into an open one do not."""
    if isinstance(error, OSError) and error.filename is None:
        error.filename = os.fspath(path)


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
