"""A handler for tests that stop a pipeline while it works."""

from __future__ import annotations

import threading
from typing import Any

from rxtweets import Message

__all__ = ["Held"]

PATIENCE = 20.0


class Held:
    """A handler that blocks until it is released."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.released = threading.Event()

    def __call__(self, message: Message[Any]) -> Message[Any]:
        self.entered.set()
        assert self.released.wait(PATIENCE)
        return message
