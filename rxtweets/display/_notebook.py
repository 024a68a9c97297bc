"""What is different in a notebook; IPython is asked only where it runs already."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from dataclasses import dataclass
from typing import Any, Protocol

from rxtweets._support.notebook_shell import is_notebook, shell
from rxtweets.display._snapshot import is_running

__all__ = ["Startable", "started"]

STOP_TIMEOUT = 10.0
"""Seconds that what an earlier run of a cell has started gets to end."""

log = logging.getLogger("rxtweets")


class Startable(Protocol):
    """What a cell can start."""

    def stop(self) -> object:
        """End it in order; at once back, or when it has ended."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of a cell: the same cell run again has the same key and another number."""

    cell: str
    number: str


_lock = threading.Lock()
_begun: list[tuple[_Run, weakref.ref[Any]]] = []


def started(thing: Startable) -> None:
    """Note that the cell that runs now starts this; end what its earlier runs have started.

    Called before the thing connects, so that a cell that is run again never holds two
    connections. Only things of the same kind end: a new pipeline ends the cell's old pipelines,
    and a new stream that connects ends its old streams. What other cells have started goes on,
    and so does what the same run of the cell has started before. Outside of notebooks nothing
    happens.
    """
    run = _current_run()
    if run is None:
        return
    with _lock:
        alive = [(other, found) for other, ref in _begun if (found := ref()) is not None]
        kept = [(run, thing)]
        earlier = []
        for other, each in alive:
            again = other.cell == run.cell and other.number != run.number
            if again and isinstance(each, type(thing)):
                earlier.append(each)
            elif each is not thing:
                kept.append((other, each))
        _begun[:] = [(other, weakref.ref(each)) for other, each in kept]
    for each in earlier:
        if each is not thing:
            _end(each)


def _current_run() -> _Run | None:
    """By the id that JupyterLab gives to a cell; by its text where it has none."""
    if not is_notebook():
        return None
    parent = shell().get_parent()
    cell = parent.get("metadata", {}).get("cellId") or parent.get("content", {}).get("code")
    number = parent.get("header", {}).get("msg_id")
    return _Run(str(cell), str(number)) if cell and number else None


def _end(thing: Startable) -> None:
    """Stop it, and wait until its connection is closed."""
    try:
        thing.stop()
    except Exception as error:  # noqa: BLE001 - whatever it is, the new one has to begin
        log.warning("what an earlier run of this cell has started did not stop: %r", error)
    deadline = time.monotonic() + STOP_TIMEOUT
    while is_running(thing) and time.monotonic() < deadline:
        time.sleep(0.01)  # a stream tells its subscribers of its end, and nobody else
