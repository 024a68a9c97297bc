"""The states of a connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

__all__ = ["ConnectionState", "StateName"]

StateName = Literal[
    "connected", "stalled", "connecting", "backing off", "idle", "stopped", "failed"
]
"""In the order of their distance from ``connected``."""


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """The state of a connection.

    Attributes:
        name: ``idle`` (without a subscriber), ``connecting``, ``connected``, ``stalled`` (silent
            for three quarters of the stall timeout), ``backing off`` (until the next connect),
            ``stopped`` or ``failed``.
        until: time of the next connect, in UTC, while backing off; else ``None``.
        error: the reason of the state, if it is an error.
        number: increases with each change.
    """

    name: StateName
    until: datetime | None = None
    error: Exception | None = None
    number: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return self.name if self.until is None else f"{self.name} until {self.until:%H:%M:%S}"
