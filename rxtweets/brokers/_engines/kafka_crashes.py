"""Counts crashes of workers in the metadata of a committed position."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Self

__all__ = ["Crashes"]

CAREFUL = 2
"""Crashes in a row, after which one message at a time is taken: the next crash shows its cause."""

MOST_MESSAGES = 100
"""Messages whose crashes are kept: Kafka refuses positions with metadata above 4096 bytes
(``offset.metadata.max.bytes``)."""


@dataclass(slots=True)
class Crashes:
    """The crashes of workers that had a partition.

    Attributes:
        in_a_row: crashes before the position has reached ``until``.
        until: the offset after the last message that can be their cause.
        cause: the offset of the only message in flight at the last crash, if there was only one.
        of_message: all crashes while a message was the only one in flight, by its offset.
    """

    in_a_row: int = 0
    until: int = 0
    cause: int | None = None
    of_message: dict[int, int] = field(default_factory=dict)

    @property
    def is_careful(self) -> bool:
        """``True`` if one message at a time is taken."""
        return self.in_a_row >= CAREFUL

    @classmethod
    def from_metadata(cls, text: str | None, worker: str) -> Self:
        """Count a crash if another worker had the partition and did not leave the group."""
        try:
            found = json.loads(text or "")
            of_message = {int(offset): int(count) for offset, count in found["of_message"].items()}
            cause, suspect = (_offset(found[name]) for name in ("cause", "suspect"))
            crashes = cls(int(found["in_a_row"]), int(found["until"]), cause, of_message)
            holder = found["worker"]
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls()  # there is none, or another program's
        if holder and holder != worker:
            crashes.in_a_row += 1
            crashes.cause = suspect
            if suspect is not None:
                of_message[suspect] = of_message.get(suspect, 0) + 1
        return crashes

    def metadata(self, position: int, worker: str, reached: int, suspect: int | None) -> str:
        """Return the text for a commit.

        Args:
            position: the offset to commit.
            worker: that has the partition; empty if it leaves.
            reached: the offset after the last message that was taken, or can be.
            suspect: the offset of the message that is the only one in flight.
        """
        waiting = sorted(one for one in self.of_message.items() if one[0] >= position)
        return json.dumps(
            {
                "worker": worker,
                "in_a_row": self.in_a_row,
                "until": max(self.until, reached),
                "suspect": suspect,
                "cause": self.cause,
                "of_message": dict(waiting[:MOST_MESSAGES]),
            }
        )


def _offset(found: object) -> int | None:
    return None if found is None else int(str(found))
