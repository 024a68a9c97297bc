"""`Permit` limits how many messages pass; `Valve` pauses them."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

__all__ = ["Permit", "Valve"]


class Permit(ABC):
    """Limits how many messages pass; thread-safe, and shared by several streams.

    The operators `operators.pausable` and `operators.rate_limit` use it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._listeners: tuple[Callable[[], None], ...] = ()

    @abstractmethod
    def room(self, now: float) -> tuple[int | None, float | None]:
        """Return how many messages may pass, and when to ask again if none may.

        Args:
            now: seconds of a clock that all streams of the permit use.

        Returns:
            A number, or ``None`` for any number; and a time of the same clock, or ``None`` if it
            is not known.
        """

    def take(self, wanted: int, now: float) -> tuple[int, float | None]:
        """Take room for messages that pass now.

        Args:
            wanted: messages, 1 or more.
            now: seconds of a clock that all streams of the permit use.

        Returns:
            How many may pass, and when to ask again if none may.
        """
        room, again_at = self.room(now)
        return wanted if room is None else min(wanted, room), again_at

    def wait(self, until: Callable[[], bool]) -> None:
        """Block until a message may pass, or ``until()`` is true at a `wake`."""
        with self._changed:
            while not until():
                now = time.monotonic()
                room, again_at = self.room(now)
                if room != 0:
                    return
                self._changed.wait(None if again_at is None else max(0.0, again_at - now))

    def wake(self) -> None:
        """Let all threads in `wait` look again, and call the listeners."""
        with self._changed:
            self._changed.notify_all()
            listeners = self._listeners
        for listener in listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call the listener after each change; the returned function removes it."""
        with self._changed:
            self._listeners += (listener,)

        def remove() -> None:
            with self._changed:
                self._listeners = tuple(other for other in self._listeners if other is not listener)

        return remove


class Valve(Permit):
    """Pauses and resumes the streams that pass it: see `operators.pausable`.

    Several streams can share one valve. All methods are thread-safe.

    ::

        valve = rxtweets.Valve()
        batches = tweets.pipe(ops.pausable(valve), ops.batch(20, 2.0))
        valve.pause()
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_paused = False

    @property
    def is_paused(self) -> bool:
        """``True`` while the valve holds messages back."""
        return self._is_paused

    def pause(self) -> bool:
        """Let no messages pass until `resume`; return whether it was open."""
        return self._set(paused=True)

    def resume(self) -> bool:
        """Let messages pass; return whether it was paused."""
        return self._set(paused=False)

    def room(self, _: float) -> tuple[int | None, float | None]:
        """Return ``None`` for any number of messages, or 0 while it is paused."""
        return (0 if self._is_paused else None), None

    def _set(self, *, paused: bool) -> bool:
        with self._changed:
            was, self._is_paused = self._is_paused, paused
        self.wake()
        return was is not paused

    def __repr__(self) -> str:
        return f"<Valve, {'paused' if self._is_paused else 'open'}>"
