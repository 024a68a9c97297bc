"""The interface of all hot streams."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from reactivex import Observable, abc

from rxtweets._core.connection_state import ConnectionState
from rxtweets._core.events import (
    DisconnectAnnounced,
    Event,
    PartialErrors,
    StateChanged,
    UndecodableLine,
    UnknownMessage,
)
from rxtweets._core.observable import MessageStream, source_name
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.decoding import Decoded, DisconnectNotice, Undecodable
from rxtweets.display import _live as live

__all__ = ["HotStream", "report_lines"]

T_co = TypeVar("T_co", covariant=True)


class HotStream(MessageStream[T_co]):
    """A hot Observable of messages over one connection, or over several.

    **Subscriptions.** The first subscriber connects the stream, the last one to leave disconnects
    it, and all share its messages. Lines that wait when the last one leaves count in
    ``stats().unsubscribed``. If a subscriber leaves in the middle of a list (`take`, `dispose`),
    the rest of the list counts in ``stats().abandoned``. A subscriber that blocks makes the others
    wait; wrap it in `subscribers.Buffered` to give it its own queue and thread.

    **Overflow.** A slow subscriber never stops the reading: 10,000 messages wait (or 160 MB), then
    the oldest are dropped, with `events.OverflowStarted`, `events.OverflowEnded` and
    ``stats().dropped``. Only ``overflow="block"`` stops the reading; X cuts off clients that stop.

    **Reconnects.** The stream reconnects by the schedules of `Backoff` (`events.Reconnecting`,
    ``stats().reconnects``). If X announces a disconnect (`events.DisconnectAnnounced`), the stream
    closes the connection and reconnects.

    **Gaps.** Messages that X sends between two connections are missing. Each such time is an
    `events.Gap` with its start and end and the ids around it, and counts in ``stats().gaps``.
    Backfill closes it as far as it reaches (`events.BackfillRequested`); if X refuses backfill with
    400 or 403, the stream requests no more (`events.BackfillRefused`). With two connections
    of the same content, a gap is a time that both missed.

    **End.** ``on_completed`` follows `stop`, a ``limit`` (`events.LimitReached`), and the end of a
    replay. ``on_error`` follows if reconnecting cannot help, or if a thread of the stream dies: the
    messages before it are delivered first. After either, the next subscription connects again. A
    drain of a `Pipeline` completes its own subscriptions as `stop` does; the stream continues for
    other subscribers.

    **Limits.** With a limit of messages the stream reads little further than the limit (with
    ``isolated=True``, as far as its buffers hold). Messages that X had sent by then count in
    ``stats().beyond_limit``; ``stats().posts_today`` counts the distinct posts since midnight UTC.

    **Speed.** Most streams need none of this. The extra ``fast`` installs msgspec, which finds the
    text and the id of a tweet without decoding the rest. ``isolated=True`` keeps reading in a
    separate process while handlers compute. On Linux, ``os.sched_setaffinity(0, {1})`` before the
    subscription keeps the program on core 1, and ``reader_cores={0}`` keeps the isolated reader on
    core 0. That saves wake-ups, because threads on different cores wake each other for each
    exchange of the interpreter lock. Do not use it if handlers compute without that lock.
    ``rxtweets bench`` measures this machine.

    Attributes:
        where: the server or the file that it reads.
        settings: the options of its buffer, and others that were given, as text; no secrets.
    """

    where: str = ""
    settings: Mapping[str, str] = MappingProxyType({})

    def __repr__(self) -> str:
        of = f" of {self.where}" if self.where else ""
        return f"<{source_name(self)}{of}: {self.state}>"

    @property
    def parts(self) -> tuple[HotStream[T_co], ...]:
        """The streams of the single connections, each with its own state, events and counters.

        A stream with one connection is its only part. Of several, each reconnects
        independently. One that fails for good ends alone (`events.PartEnded`); `Event.part` names
        it.
        """
        return (self,)

    @property
    @abstractmethod
    def state(self) -> ConnectionState:
        """The state of the connection; of several, the one furthest from ``connected``.

        See `ConnectionState` for the names: ``idle``, ``connecting``, ``connected``, ``stalled``,
        ``backing off`` (``until`` a time), ``stopped`` or ``failed``.
        """

    @property
    def states(self) -> Observable[ConnectionState]:
        """The current state, and every later one; never completes."""

        def follow(
            observer: abc.ObserverBase[ConnectionState], _: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            return _Follower(observer).begin(self)

        return Observable(follow)

    @abstractmethod
    def stop(self) -> None:
        """Disconnect, deliver the received messages, complete the subscribers.

        Returns immediately. Does nothing without a subscriber.
        """

    def _ipython_display_(self) -> None:
        live.show(self)


def report_lines(telemetry: Telemetry, decoded: Decoded, place: str = "") -> None:
    """Count and report lines without a message, and messages with partial errors.

    Args:
        telemetry: of the stream.
        decoded: the lines.
        place: file and line number, for a recording.
    """
    for message in decoded.partial:
        telemetry.add(partial=1)
        telemetry.publish(PartialErrors(message))
    for other in decoded.others:
        if isinstance(other, Undecodable):
            telemetry.add(undecodable=1)
            telemetry.publish(UndecodableLine(other.error, place))
        elif isinstance(other, DisconnectNotice):
            telemetry.add(disconnects=1)
            telemetry.publish(DisconnectAnnounced(other.disconnect_type, other.detail))
        else:
            telemetry.add(unknown=1)
            telemetry.publish(UnknownMessage(other.value, other.line, place))


class _Follower:
    """Emits states in order, the current one first."""

    def __init__(self, observer: abc.ObserverBase[ConnectionState]) -> None:
        self._observer = observer
        self._last = ConnectionState("idle", number=-1)
        self._lock = threading.RLock()

    def begin(self, stream: HotStream[Any]) -> abc.DisposableBase:
        with self._lock:
            # Subscribe first: a change before the state is read comes as an event.
            subscription = stream.telemetry.bus.events.subscribe(self._take)
            self._emit(stream.state)
        return subscription

    def _take(self, event: Event) -> None:
        if not isinstance(event, StateChanged) or event.part:
            return
        with self._lock:
            if event.state.number > self._last.number and event.state != self._last:
                self._emit(event.state)

    def _emit(self, state: ConnectionState) -> None:
        self._last = state
        self._observer.on_next(state)
