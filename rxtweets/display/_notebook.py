"""The pipelines and streams that a cell has started, which end when it runs again."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import Any

from rxtweets._support.notebook_shell import is_notebook, shell
from rxtweets.display._snapshot import is_running

STOP_TIMEOUT = 10.0
"""Seconds that a started object may take to stop."""

log = logging.getLogger("rxtweets")


CellRun = tuple[str, str]
"""A cell, and the id of one run of it."""

_started_lock = threading.Lock()
_started: list[tuple[CellRun, weakref.ref[Any]]] = []


def started(thing: Any) -> None:
    """Note that the running cell starts an object, and stop those of its earlier runs.

    Call it before the object connects, so that a cell that runs again never holds two
    connections. Only objects of the same type are stopped: a new pipeline stops the cell's old
    pipelines, and a new stream that connects stops its old streams. Objects of other cells, and
    of the same run, continue. Outside of notebooks this does nothing.

    Args:
        thing: a pipeline or a stream, with a ``stop()``.
    """
    run = _current_run()
    if run is None:
        return
    with _started_lock:
        kept, earlier = [(run, weakref.ref(thing))], []
        for other_run, ref in _started:
            other = ref()
            if other is None or other is thing:
                continue
            is_rerun = other_run[0] == run[0] and other_run[1] != run[1]
            if is_rerun and isinstance(other, type(thing)):
                earlier.append(other)
            else:
                kept.append((other_run, ref))
        _started[:] = kept
    for other in earlier:
        _stop(other)


def _current_run() -> CellRun | None:
    """Return the cell by the id that JupyterLab gives it, else by its text."""
    if not is_notebook():
        return None
    parent = shell().get_parent()
    cell = parent.get("metadata", {}).get("cellId") or parent.get("content", {}).get("code")
    number = parent.get("header", {}).get("msg_id")
    return (str(cell), str(number)) if cell and number else None


def _stop(thing: Any) -> None:
    try:
        thing.stop()
    except Exception as error:  # noqa: BLE001 - the new object must start
        log.warning("%r, which an earlier run of this cell started, did not stop: %r", thing, error)
    deadline = time.monotonic() + STOP_TIMEOUT
    while is_running(thing) and time.monotonic() < deadline:
        time.sleep(0.01)  # the end of a stream is visible only in its state
