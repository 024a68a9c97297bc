"""What can be closed and opened while messages flow."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Valve"]


class Valve:
    """Whether messages may pass now: see `operators.pausable`; several streams can share one.

    From any thread.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._is_paused = False

    @property
    def is_paused(self) -> bool:
        """Whether messages wait."""
        return self._is_paused

    def pause(self) -> bool:
        """Let nothing pass until `resume`; whether that changed anything."""
        return self._set(paused=True)

    def resume(self) -> bool:
        """Let messages pass again; whether that changed anything."""
        return self._set(paused=False)

    def wait(self, until: Callable[[], bool]) -> None:
        """Wait until messages may pass, or until something else has come true.

        Args:
            until: looked at again after each `wake`.
        """
        if self._is_paused:
            with self._changed:
                self._changed.wait_for(lambda: not self._is_paused or until())

    def wake(self) -> None:
        """Let those who wait look again."""
        with self._changed:
            self._changed.notify_all()
            listeners = self._listeners
        for listener in listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call this whenever something may have changed, until the returned function is called."""
        with self._changed:
            self._listeners += (listener,)

        def remove() -> None:
            with self._changed:
                self._listeners = tuple(each for each in self._listeners if each is not listener)

        return remove

    def _set(self, *, paused: bool) -> bool:
        with self._changed:
            was, self._is_paused = self._is_paused, paused
        self.wake()
        return was is not paused

    def __repr__(self) -> str:
        return f"<Valve, {'paused' if self._is_paused else 'open'}>"
