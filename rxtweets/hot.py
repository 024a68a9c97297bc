"""A hot stream: what all of X's streams have in common for those who use them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeVar

import reactivex
from reactivex import Observable
from reactivex import operators as ops

from rxtweets.display import pictures
from rxtweets.events import Event, StateChanged
from rxtweets.observable import MessageStream
from rxtweets.states import ConnectionState

__all__ = ["HotStream"]

T_co = TypeVar("T_co", covariant=True)


class HotStream(MessageStream[T_co]):
    """A hot Observable of messages over one connection, or over several.

    It connects for the first subscriber and disconnects with the last; all share what comes.
    ``on_completed`` comes after `stop` and at a ``limit``, ``on_error`` when connecting again
    cannot help; after either, a new subscription starts a new run.
    """

    @property
    def parts(self) -> tuple[HotStream[T_co], ...]:
        """The streams of the single connections, each with its own state, events and counters."""
        return (self,)

    @property
    @abstractmethod
    def state(self) -> ConnectionState:
        """What the connection is at now; of several, the one furthest from ``connected``."""

    @property
    def states(self) -> Observable[ConnectionState]:
        """The state now, and each one from now on; never completes."""

        def current(_: Any) -> Observable[ConnectionState]:
            now = self.state

            def is_later(event: Event) -> bool:
                return _is_later(event, now)

            return self.telemetry.bus.events.pipe(
                ops.filter(is_later), ops.map(_state_of), ops.start_with(now)
            )

        return reactivex.defer(current)

    @abstractmethod
    def stop(self) -> None:
        """Disconnect, deliver what was received, complete the subscribers; at once back.

        Without a subscriber it does nothing.
        """

    def _ipython_display_(self) -> None:
        pictures.show(self)


def _is_later(event: Event, now: ConnectionState) -> bool:
    return isinstance(event, StateChanged) and event.state.number > now.number and not event.part


def _state_of(event: Event) -> ConnectionState:
    return event.state if isinstance(event, StateChanged) else ConnectionState("idle")
