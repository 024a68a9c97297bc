"""Waits for programs and brokers, which send no event to a test, and free ports for them."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable
from random import SystemRandom
from typing import Any

__all__ = ["PATIENCE", "accepts", "eventually", "free_port", "wait_for_server"]

PATIENCE = 20.0
STEP = 0.05
"""Seconds between two looks."""


def eventually(
    condition: Callable[[], object], shown: Callable[[], object], patience: float = PATIENCE
) -> None:
    """Look until the condition holds; fail with what ``shown`` returns."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, shown()
        time.sleep(STEP)


def wait_for_server(
    answers: Callable[[], object], process: subprocess.Popen[Any], patience: float = PATIENCE
) -> None:
    """Look until a server answers; fail when it ends."""

    def has_answered() -> object:
        assert process.poll() is None, f"{process.args!r} has ended"
        return answers()

    eventually(has_answered, lambda: f"{process.args!r} does not answer", patience)


def accepts(port: int) -> bool:
    """Return whether a server takes connections at this port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """Return a port that no server uses now, and no outgoing connection later."""
    while True:
        with contextlib.suppress(OSError), socket.socket() as server:
            server.bind(("127.0.0.1", SystemRandom().randrange(10_000, 32_000)))
            return int(server.getsockname()[1])
