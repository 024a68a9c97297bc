"""SIGINT and SIGTERM as something to wait for."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["signals"]


@contextlib.contextmanager
def signals(asked: threading.Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM set the event, for the time of the block; on the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(_number: int, _frame: FrameType | None) -> None:
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
