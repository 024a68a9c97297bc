"""Files that appear whole or not at all; what a killed process was writing is removed later."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from rxtweets._support.file_lock import lock, name_path

__all__ = ["remove_leftovers", "write_whole"]

PART = re.compile(r"\..+\.[0-9a-f]{32}\.part")


def write_whole(path: Path, content: Any) -> None:
    """Write a file, in the place of one that is there; the disk confirms its content.

    Until it is complete it is ``.NAME.UNIQUE.part``: most readers pass over hidden files, and two
    who write the same file at once do not meet.

    Args:
        path: of the file; its directory is made.
        content: anything with a buffer.

    Raises:
        OSError: it cannot be written; nothing of it is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part, file = _begin(path)
    with file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)  # under the lock: unlocked, it could be taken for a leftover
        except OSError as error:
            name_path(error, path)
            raise
        finally:
            part.unlink(missing_ok=True)


def remove_leftovers(directory: Path) -> None:
    """Remove the parts in a directory, and below, whose writers are dead.

    Those are the ones that can be locked. What cannot be removed stays, and harms nobody.
    """
    for part in directory.rglob(".*.part"):
        if PART.fullmatch(part.name):
            with contextlib.suppress(OSError), part.open("r+b") as file:
                if lock(file):
                    part.unlink()


def _begin(path: Path) -> tuple[Path, BinaryIO]:
    """A part of its own for a file, locked as long as it is open."""
    while True:
        part = path.with_name(f".{path.name}.{uuid4().hex}.part")
        file = part.open("xb")
        with contextlib.suppress(OSError):  # where nothing can be locked, nothing is removed
            lock(file, wait=True)
        if os.fstat(file.fileno()).st_nlink:
            return part, file
        file.close()  # somebody cleaned up before it was locked
