"""Draining: the sources of a consumer end in order, through operators of RxPY.

`events.DrainUnavailable` describes which sources a drain reaches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakMethod

from reactivex import abc
from reactivex.disposable import Disposable

from rxtweets._core.gates import ChunkGate, subscribing, subscribing_for
from rxtweets._core.telemetry import Telemetry

__all__ = ["Drain", "Drained", "SharedSource", "SourceSubscription", "Successor", "current_drain"]

MOST_REFUSALS = 100
"""Sources that complete in turn after the end of a drain; ``repeat()`` would never end."""


class Drained(Exception):
    """Ends an operator that subscribes again after each completion, such as ``repeat``.

    An error passes the operators in order, behind the messages; the consumer takes it for the end.
    """


def current_drain() -> Drain | None:
    """Return the drain that this thread subscribes for."""
    drain: Drain | None = subscribing.drain
    return drain


class Drain:
    """The sources that one consumer is subscribed to, so that they can end in order.

    A stock operator does not expose the subscription to its source. So each source registers with
    the current drain of the thread that subscribes, whatever operators stand between.

    Args:
        give_up: called if sources follow one another without end.

    Attributes:
        has_ended: `finish` was called, and no further source starts.
        found: where the registered sources count.
        delegate: the drain that takes the sources registered from now on, see `capture`.
    """

    def __init__(self, give_up: Callable[[], None] = lambda: None) -> None:
        self.has_ended = False
        self.found: set[Telemetry] = set()
        self.delegate: Drain | None = None
        self._give_up = give_up
        self._lock = threading.Lock()
        self._expected: set[Telemetry] = set()
        self._sources: tuple[SourceSubscription, ...] = ()
        self._lifts: tuple[WeakMethod[Callable[[], None]], ...] = ()
        self._refused = 0

    def expect(self, telemetry: Telemetry) -> None:
        """Note that stock operators stand before a source that counts here."""
        if self.delegate is not None:
            self.delegate.expect(telemetry)
        elif telemetry.source:
            self._expected.add(telemetry)

    def add(self, source: SourceSubscription) -> None:
        """Register a source; it ends immediately if the drain has ended."""
        if self.delegate is not None and source.shared is None:
            self.delegate.add(source)
            return
        with self._lock:
            if source.shared is None:
                self.found.add(source.telemetry)
            still_open = (other for other in self._sources if not other.gate.closed)
            self._sources = (*still_open, source)
            has_ended = self.has_ended
        if has_ended:
            source.finish(source.gate)

    def lift(self, lift: Callable[[], None]) -> None:
        """Call this bound method before the sources end: it releases messages that wait.

        Only a weak reference is kept, since ``retry`` and ``repeat`` make further objects.
        """
        with self._lock:
            alive = (method for method in self._lifts if method() is not None)
            self._lifts = (*alive, WeakMethod(lift))
            has_ended = self.has_ended
        if has_ended:
            lift()

    def misses(self) -> bool:
        """Return whether an expected source did not register."""
        expected, found = set[Telemetry](), set[Telemetry]()
        drains = [self]
        for drain in drains:  # the list grows meanwhile
            expected |= drain._expected  # noqa: SLF001 - of this class
            found |= drain.found
            shared = (source.shared for source in drain._sources)  # noqa: SLF001 - as above
            others = (drain.delegate, *(one.drain for one in shared if one is not None))
            drains += [other for other in others if other is not None and other not in drains]
        return not expected <= found

    def reaches(self) -> bool:
        """Return whether `finish` can end a source."""
        sources = self._sources
        gates = {source.gate for source in sources}
        shares = [source.shared for source in sources]
        return any(shared is None or shared.is_reached(gates) for shared in shares)

    def finish(self) -> bool:
        """End the sources in order; ``False`` if there is none."""
        if not self.reaches():
            return False
        with self._lock:
            self.has_ended = True
            sources, lifts = self._sources, self._lifts
        for method in lifts:
            if (lift := method()) is not None:
                lift()
        # Gates of one source end together, so that the source can end with them.
        gates: dict[Callable[..., None], list[ChunkGate[Any]]] = {}
        for source in sources:
            if not source.gate.closed:
                gates.setdefault(source.finish, []).append(source.gate)
        for finish, together in gates.items():
            finish(*together)
        return True

    def refuse(self, observer: abc.ObserverBase[Any]) -> abc.DisposableBase:
        """Complete the observer of a source that would start after the end."""
        self._refused += 1
        if self._refused <= MOST_REFUSALS:
            observer.on_completed()
        elif self._refused <= 2 * MOST_REFUSALS:
            observer.on_error(Drained())
        else:  # `retry` subscribes again after an error
            self._give_up()
        return Disposable()

    def capture(self, subscribe: Callable[[], Any]) -> Any:
        """Subscribe to sources for this drain, and not for the current one.

        RxPY defers some subscriptions, as those of ``merge``, to the thread's trampoline. They run
        later, under the current drain, so that one passes them on to this drain, its delegate.
        """
        outer = current_drain()
        if outer is not None and outer.has_ended:
            return subscribe()  # that drain counts the sources that it refuses
        with subscribing_for(self):
            result = subscribe()
        delegate = self.delegate if self._sources else self
        if outer is not None and delegate is not None:
            outer.delegate = delegate
        return result


class SourceSubscription(Disposable):
    """The subscription of one observer to a source that several may share.

    It registers with the current drain.

    Args:
        gate: of the observer.
        leave: called with the gate to end the subscription immediately.
        finish: called with the gates of one drain to end them in order.
        telemetry: of the source.
        shared: the shared subscription, if the source merges other sources.
    """

    def __init__(
        self,
        gate: ChunkGate[Any],
        leave: Callable[[ChunkGate[Any]], object],
        finish: Callable[..., None],
        telemetry: Telemetry,
        shared: SharedSource | None = None,
    ) -> None:
        def dispose() -> None:
            leave(gate)

        super().__init__(dispose)
        self.gate = gate
        self.finish = finish
        self.telemetry = telemetry
        self.shared = shared
        if (drain := current_drain()) is not None:
            drain.add(self)


class SharedSource:
    """One subscription to a source, and the gates of the observers that share it.

    Args:
        telemetry: of the source.
        cut: ends the subscription to the source immediately.
    """

    def __init__(self, telemetry: Telemetry, cut: Callable[[], None]) -> None:
        self.telemetry = telemetry
        self.gates: tuple[ChunkGate[Any], ...] = ()
        self.has_ended = False
        self.drain = Drain(self._give_up)
        self._cut = cut
        self._lock = threading.Lock()

    def restart(self) -> Drain:
        """Return the drain of another subscription to the source."""
        self.has_ended = False
        self.drain = Drain(self._give_up)
        return self.drain

    def add(self, gate: ChunkGate[Any]) -> bool:
        """Share the subscription; ``False`` if it has ended."""
        with self._lock:
            if not self.has_ended:
                self.gates += (gate,)
            return not self.has_ended

    def subscription(self, gate: ChunkGate[Any]) -> SourceSubscription:
        return SourceSubscription(gate, self.leave, self.finish, self.telemetry, self)

    def leave(self, gate: ChunkGate[Any]) -> None:
        """Close the gate immediately."""
        gate.close()
        with self._lock:
            self.gates = _without(self.gates, gate)

    def finish(self, *gates: ChunkGate[Any]) -> None:
        """Complete these gates in order; drain the source if there are no others."""
        with self._lock:
            others = _without(self.gates, *gates)
            if others:
                self.gates = others
            else:
                self.has_ended = True  # a later observer gets another subscription
        if others:
            for gate in gates:
                gate.on_completed()
        else:
            self.drain.finish()

    def is_reached(self, gates: set[ChunkGate[Any]]) -> bool:
        """Return whether `finish` can end these gates, with or without the source."""
        return bool(_without(self.gates, *gates)) or self.drain.reaches()

    def end(self) -> tuple[ChunkGate[Any], ...]:
        """Remove and return all gates, and accept no others."""
        with self._lock:
            self.has_ended = True
            gates, self.gates = self.gates, ()
            return gates

    def _give_up(self) -> None:
        self._cut()
        for gate in self.end():
            gate.on_completed()


def _without(
    gates: tuple[ChunkGate[Any], ...], *others: ChunkGate[Any]
) -> tuple[ChunkGate[Any], ...]:
    return tuple(gate for gate in gates if gate not in others)


class Successor(abc.ObserverBase[Any]):
    """An observer that may subscribe to another source at the end, as ``concat`` and ``retry`` do.

    Its next sources belong to the same drain.
    """

    def __init__(self, observer: abc.ObserverBase[Any], drain: Drain) -> None:
        self._observer = observer
        self._drain = drain
        self.on_next = observer.on_next  # type: ignore[method-assign]  # costs nothing for an item

    def on_next(self, value: Any) -> None:
        """Replaced in the constructor."""

    def on_error(self, error: Exception) -> None:
        with subscribing_for(self._drain):
            self._observer.on_error(error)

    def on_completed(self) -> None:
        with subscribing_for(self._drain):
            self._observer.on_completed()
