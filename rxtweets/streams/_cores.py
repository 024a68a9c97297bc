"""Processor cores that a process is kept to."""

from __future__ import annotations

import os
from collections.abc import Iterable

from rxtweets.errors import ConfigurationError

__all__ = ["Cores", "checked_cores"]

Cores = frozenset[int] | None
"""Their numbers; ``None`` for whatever the system chooses."""

MOST_CORES = 8192
"""As many as Linux can be built for."""


def checked_cores(cores: Iterable[int] | None) -> Cores:
    """The cores, if a process can be kept to all of them.

    Raises:
        ConfigurationError: it cannot.
    """
    if cores is None:
        return None
    if not hasattr(os, "sched_setaffinity"):
        raise ConfigurationError("reader_cores works on Linux only")
    given = list(cores) if isinstance(cores, Iterable) else []
    if not given or not all(type(each) is int and 0 <= each < MOST_CORES for each in given):
        raise ConfigurationError(f"reader_cores={cores!r}: give numbers of cores, as {{0}}")
    wanted = frozenset(given)
    refused = wanted - _usable(wanted)
    if refused:
        raise ConfigurationError(
            f"reader_cores={sorted(wanted)}: the system refuses {sorted(refused)}; of the "
            f"{os.cpu_count()} cores of the machine, give some that this program may use"
        )
    return wanted


def _usable(wanted: frozenset[int]) -> set[int]:
    """Those that the system lets this thread have; it knows best, so the thread tries it."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, wanted)
        return os.sched_getaffinity(0)
    except OSError:  # none of them
        return set()
    finally:
        os.sched_setaffinity(0, before)
