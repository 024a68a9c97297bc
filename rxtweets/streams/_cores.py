"""The processor cores of the process that reads an isolated stream."""

from __future__ import annotations

import os
from collections.abc import Iterable

from rxtweets.errors import ConfigurationError

__all__ = ["Cores", "checked_cores"]

Cores = frozenset[int] | None
"""Numbers of processor cores; ``None`` for all."""

MOST_CORES = 8192
"""The most cores that a Linux kernel supports."""


def checked_cores(cores: Iterable[int] | None) -> Cores:
    """Validate the option ``reader_cores``.

    Raises:
        ConfigurationError: a process cannot run on these cores.
    """
    if cores is None:
        return None
    if not hasattr(os, "sched_setaffinity"):
        raise ConfigurationError("reader_cores works on Linux only")
    given = list(cores) if isinstance(cores, Iterable) else []
    if not given or not all(type(core) is int and 0 <= core < MOST_CORES for core in given):
        raise ConfigurationError(f"reader_cores={cores!r}: give numbers of cores, as {{0}}")
    wanted = frozenset(given)
    before = os.sched_getaffinity(0)
    try:  # a container may allow fewer cores than the machine has
        os.sched_setaffinity(0, wanted)
        refused = wanted - os.sched_getaffinity(0)
    except OSError:
        refused = wanted
    finally:
        os.sched_setaffinity(0, before)
    if refused:
        raise ConfigurationError(
            f"reader_cores={sorted(wanted)}: the system refuses {sorted(refused)}; of the "
            f"{os.cpu_count()} cores of the machine, give some that this program may use"
        )
    return wanted
