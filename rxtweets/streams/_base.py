"""A hot stream: what all of X's streams have in common for those who use them."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from reactivex import Observable, abc

from rxtweets._core.connection_state import ConnectionState
from rxtweets._core.events import (
    DisconnectAnnounced,
    Event,
    PartialErrors,
    StateChanged,
    SubscriberFailed,
    UndecodableLine,
    UnknownMessage,
)
from rxtweets._core.observable import ChunkGate, MessageStream, name_of
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.decoding import Decoded, Disconnect, Undecodable
from rxtweets._messages.message import Message
from rxtweets._support.workers import unexpected
from rxtweets.display import _live as live

__all__ = ["Gate", "HotStream", "end_all", "give_all", "report_lines"]

Gate = ChunkGate[list[Message[Any]]]

T_co = TypeVar("T_co", covariant=True)


class HotStream(MessageStream[T_co]):
    """A hot Observable of messages over one connection, or over several.

    It connects for the first subscriber and disconnects with the last; all share what comes.
    ``on_completed`` comes after `stop` and at a ``limit``, ``on_error`` when connecting again
    cannot help; after either, a new subscription starts a new run.

    Attributes:
        where: the server, or the file, that it comes from.
    """

    where = ""

    def __repr__(self) -> str:
        of = f" of {self.where}" if self.where else ""
        return f"<{name_of(self)}{of}: {self.state}>"

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

        def follow(
            observer: abc.ObserverBase[ConnectionState], _: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            return _Follower(observer).begin(self)

        return Observable(follow)

    @abstractmethod
    def stop(self) -> None:
        """Disconnect, deliver what was received, complete the subscribers; at once back.

        Without a subscriber it does nothing.
        """

    def _ipython_display_(self) -> None:
        live.show(self)


def report_lines(telemetry: Telemetry, decoded: Decoded, place: str = "") -> None:
    """Count and report the lines that carry no message, and the messages with partial errors.

    Args:
        telemetry: of the stream.
        decoded: the lines.
        place: of a recording, the file and the number of the line.
    """
    for message in decoded.partial:
        telemetry.add(partial=1)
        telemetry.publish(PartialErrors(message))
    for other in decoded.others:
        if isinstance(other, Undecodable):
            telemetry.add(undecodable=1)
            telemetry.publish(UndecodableLine(other.error, place))
        elif isinstance(other, Disconnect):
            telemetry.add(disconnects=1)
            telemetry.publish(DisconnectAnnounced(other.disconnect_type, other.detail))
        else:
            telemetry.add(unknown=1)
            telemetry.publish(UnknownMessage(other.value, other.line, place))


def give_all(
    gates: Sequence[Gate],
    chunk: list[Message[Any]],
    remove: Callable[[Gate], None],
    telemetry: Telemetry,
) -> None:
    """Pass a chunk to every gate; one that raises ends with that error, and the others go on.

    Observers of users are contained before: this is for faults of operators, and out of memory.

    Args:
        gates: in their order.
        chunk: never empty.
        remove: takes a gate that raised out of the stream.
        telemetry: where to count and report.
    """
    for gate in gates:
        try:
            gate.on_next(chunk)
        except BaseException as error:  # noqa: BLE001 - a SystemExit too
            _failed(chunk, error, telemetry)
            end_all([gate], unexpected("a subscriber", error), telemetry)
            remove(gate)


def end_all(gates: Sequence[Gate], error: Exception | None, telemetry: Telemetry) -> None:
    """Complete every gate, or end it with the error, whatever another one raises."""
    for gate in gates:
        try:
            if error is None:
                gate.on_completed()
            else:
                gate.on_error(error)
        except BaseException as raised:  # noqa: BLE001 - a SystemExit too
            _failed(error, raised, telemetry)


def _failed(value: object, error: BaseException, telemetry: Telemetry) -> None:
    telemetry.add(subscriber_errors=1)
    telemetry.publish(SubscriberFailed(value, error))


class _Follower:
    """Passes states on in their order, first the one that is when it begins."""

    def __init__(self, observer: abc.ObserverBase[ConnectionState]) -> None:
        self._observer = observer
        self._last = ConnectionState("idle", number=-1)
        self._lock = threading.RLock()

    def begin(self, stream: HotStream[Any]) -> abc.DisposableBase:
        # Listening begins before the state is read: so no change falls between the two.
        with self._lock:
            listening = stream.telemetry.bus.events.subscribe(self._take)
            self._pass_on(stream.state)
        return listening

    def _take(self, event: Event) -> None:
        if not isinstance(event, StateChanged) or event.part:
            return
        with self._lock:
            if event.state.number > self._last.number and event.state != self._last:
                self._pass_on(event.state)

    def _pass_on(self, state: ConnectionState) -> None:
        self._last = state
        self._observer.on_next(state)
