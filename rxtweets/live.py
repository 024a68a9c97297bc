"""One hot stream: a thread that reads, a bounded hand-off, a thread that delivers.

The reading thread connects, cuts lines, hands them over, and connects again when a connection
ends. The delivering thread decodes what was handed over and passes it to the subscribers. So
nothing that a subscriber does can keep the bytes from being read, which is what makes X cut off
slow clients; what cannot be delivered in time is dropped by a declared policy, and counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from reactivex import abc
from reactivex.disposable import Disposable

from rxtweets import events
from rxtweets.backoff import Backoff, Pacer
from rxtweets.connection import Connection
from rxtweets.decoding import Decoded, Disconnect, Undecodable, decode
from rxtweets.errors import (
    DecodeError,
    HostNotFound,
    ResponseError,
    RxTweetsError,
    ServerDisconnect,
    StreamError,
)
from rxtweets.framing import Framed, LineFramer
from rxtweets.handoff import Block, Handoff, Overflow
from rxtweets.message import Message
from rxtweets.observable import ChunkGate, MessageStream, new_telemetry
from rxtweets.telemetry import Telemetry

__all__ = ["LiveOptions", "LiveStream"]

T = TypeVar("T")

CHUNK = 128
"""Messages delivered together at most, give or take a network read. Bounds the decoded tweets
alive at one time: ten thousand of them make decoding three times slower, by the garbage
collector."""


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How a stream buffers, decodes and recovers; see `rxtweets.sample_stream` for each."""

    buffer_size: int
    overflow: Overflow
    max_line: int
    backoff: Backoff


class LiveStream(MessageStream[str]):
    """A hot Observable of tweets over one connection.

    Any number of subscribers share the connection. It is made for the first of them, made again
    whenever it ends, and closed with the last. A subscriber that blocks makes the others wait;
    beyond ``buffer_size`` waiting messages, the overflow policy decides what is lost.

    ``on_completed`` comes after `stop`, ``on_error`` when connecting again cannot help; after
    either, a new subscription starts a new run, with the schedules of the backoff still in force.
    """

    def __init__(self, connect: Callable[[], Connection], options: LiveOptions) -> None:
        super().__init__(self._join, new_telemetry())
        self._connect = connect
        self._options = options
        self._pacer = Pacer(options.backoff)
        self._lock = threading.Lock()
        self._run: _Run | None = None

    def stop(self) -> None:
        """Close the connection, deliver what was received, complete the subscribers; at once back.

        Without a subscriber it does nothing.
        """
        with self._lock:
            run = self._run
        if run is not None:
            run.finish()

    def _join(
        self, observer: abc.ObserverBase[list[Message[Any]]], _: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        gate = ChunkGate(observer)
        with self._lock:
            if self._run is None or not self._run.add(gate):
                before = self._run
                self._run = _Run(self._connect, self._options, self._pacer, self.telemetry, before)
                self._run.add(gate)
                self._run.start()
            run = self._run
        return Subscription(run, gate)


class Subscription(Disposable):
    """One observer's part in a run."""

    def __init__(self, run: _Run, gate: ChunkGate[list[Message[Any]]]) -> None:
        super().__init__(lambda: run.remove(gate))
        self._run = run
        self._gate = gate

    def finish(self) -> None:
        """End in order: what was received is delivered, then the observer is completed.

        The connection is closed if this is its only subscriber; else the others go on, and this
        one is completed at the next chunk.
        """
        self._run.finish(self._gate)


class _Run:
    """From the first subscription to the last, or to the end of the stream."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        options: LiveOptions,
        pacer: Pacer,
        telemetry: Telemetry,
        before: _Run | None,
    ) -> None:
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._gates: tuple[ChunkGate[list[Message[Any]]], ...] = ()
        self._leaving: set[ChunkGate[list[Message[Any]]]] = set()
        self._over = False
        self._newest: Message[str] | None = None
        self._handoff = Handoff(
            options.buffer_size, options.overflow, self._dropped, self._burst(options)
        )
        previous = None if before is None else before.reader
        self.reader: _Reader = _Reader(connect, options, pacer, telemetry, self._handoff, previous)
        telemetry.show("queued", lambda: len(self._handoff))
        telemetry.show("state", lambda: self.reader.state)
        telemetry.show("lag", lambda: self._newest.lag if self._newest else None)

    def start(self) -> None:
        self.reader.start()
        threading.Thread(target=self._deliver, name="rxtweets-deliver", daemon=True).start()

    def add(self, gate: ChunkGate[list[Message[Any]]]) -> bool:
        """Take part in this run; ``False`` if it is over."""
        with self._lock:
            if not self._over:
                self._gates += (gate,)
            return not self._over

    def remove(self, gate: ChunkGate[list[Message[Any]]]) -> None:
        """Leave; the last one closes the connection, and what it left behind is dropped."""
        gate.close()
        with self._lock:
            if gate not in self._gates:
                return
            self._gates = tuple(each for each in self._gates if each is not gate)
            self._over = self._over or not self._gates
            last = not self._gates
        if last:
            self._handoff.close(discard=True)
            self.reader.stop()

    def finish(self, gate: ChunkGate[list[Message[Any]]] | None = None) -> None:
        """Complete in order: everybody, or one of several."""
        with self._lock:
            others = gate is not None and any(each is not gate for each in self._gates)
            if gate is not None and others:
                self._leaving.add(gate)
            else:
                self._over = True
        if gate is not None and others:
            self._handoff.put(Block([], 0.0, 0))  # wakes the delivering thread
        else:
            self.reader.stop()

    def _deliver(self) -> None:
        with self._telemetry.working():
            self._deliver_all()

    def _deliver_all(self) -> None:
        while blocks := self._handoff.get(CHUNK):
            self._pass_on(blocks)
        with self._lock:
            self._over = True
            gates, self._gates = self._gates, ()
        error = self.reader.error
        if gates:
            self._telemetry.publish(events.StreamEnded(error))
        for gate in gates:
            if error is None:
                gate.on_completed()
            else:
                gate.on_error(error)

    def _pass_on(self, blocks: list[Block]) -> None:
        messages: list[Message[str]] = []
        for block in blocks:
            decoded = decode(block.lines, block.received_at)
            messages += decoded.messages
            if decoded.others or decoded.partial:
                self._report(decoded, block.connection)
        if messages:
            self._newest = messages[-1]
            gates = self._gates
            self._telemetry.add(**{"delivered" if gates else "dropped": len(messages)})
            for gate in gates:
                gate.on_next(messages)
        if self._leaving:
            self._let_go()

    def _let_go(self) -> None:
        with self._lock:
            leaving, self._leaving = self._leaving, set()
            self._gates = tuple(gate for gate in self._gates if gate not in leaving)
        for gate in leaving:
            gate.on_completed()

    def _report(self, decoded: Decoded, connection: int) -> None:
        telemetry = self._telemetry
        for message in decoded.partial:
            telemetry.add(partial=1)
            telemetry.publish(events.PartialErrors(message))
        for other in decoded.others:
            if isinstance(other, Undecodable):
                telemetry.add(undecodable=1)
                telemetry.publish(events.UndecodableLine(other.error))
            elif isinstance(other, Disconnect):
                telemetry.add(disconnects=1)
                announced = events.DisconnectAnnounced(other.disconnect_type, other.detail)
                telemetry.publish(announced)
                said = f"the server disconnects ({other.disconnect_type}): {other.detail}"
                self.reader.disconnect(connection, ServerDisconnect(said, other.disconnect_type))
            else:
                telemetry.add(unknown=1)
                telemetry.publish(events.UnknownMessage(other.value, other.line))

    def _dropped(self, lines: int) -> None:
        self._telemetry.add(dropped=lines)

    def _burst(self, options: LiveOptions) -> Callable[[Literal["began", "ended"], int], None]:
        def report(phase: Literal["began", "ended"], dropped: int) -> None:
            policy, capacity = options.overflow, options.buffer_size
            event = (
                events.OverflowBegan(policy, capacity)
                if phase == "began"
                else events.OverflowEnded(policy, dropped)
            )
            self._telemetry.publish(event)

        return report


class _Reader:
    """The thread that reads: connections one after the other, until it is stopped."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        options: LiveOptions,
        pacer: Pacer,
        telemetry: Telemetry,
        handoff: Handoff,
        before: _Reader | None,
    ) -> None:
        self._connect = connect
        self._options = options
        self._pacer = pacer
        self._telemetry = telemetry
        self._handoff = handoff
        self._before = before
        self._thread = threading.Thread(target=self._work, name="rxtweets-reader", daemon=True)
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._number = 0
        self._ever_connected = False
        self.error: RxTweetsError | None = None
        self.state = "connecting"

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join()

    def stop(self) -> None:
        """End at once: a wait, a connection attempt or a read is interrupted."""
        with self._lock:
            self._stopped.set()
            live = self._connection
        if live is not None:
            live.close()

    def disconnect(self, number: int, error: ServerDisconnect) -> None:
        """End this connection, if it is still the one, because the server said so."""
        with self._lock:
            live = self._connection if self._number == number else None
        if live is not None:
            live.close(error)

    def _work(self) -> None:
        # A token holds one connection: the next is made only when the last run's is closed.
        if self._before is not None:
            self._before.join()
            self._before = None
        try:
            self._wait(self._pacer.wait())
            while not self._stopped.is_set():
                end = self._one_connection()
                if end.error is not None:
                    self._note_failure(end.error, end)
                    self._wait(self._pacer.wait())
        except RxTweetsError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001 - a fault of ours or of httpx must be seen too
            self.error = StreamError(f"reading failed unexpectedly: {error!r}")
            self.error.__cause__ = error
        finally:
            self.state = "stopped" if self.error is None else "failed"
            self._handoff.close()

    def _one_connection(self) -> _End:
        connection = self._connect()
        number = self._pacer.connecting()
        with self._lock:
            if self._stopped.is_set():
                return _End(None)
            self._connection, self._number = connection, number
        self.state = "connecting"
        self._telemetry.add(connects=1, reconnects=int(number > 1))
        self._telemetry.publish(events.Connecting(number, str(connection.url)))
        end = _End(None)
        framer = LineFramer(self._options.max_line)
        try:
            connection.open()
            self._opened(connection, number)
            end.established = time.monotonic()
            for data in connection.blocks():
                end.lines += self._take(framer.feed(data), len(data), number)
        except StreamError as error:
            end.error = error
            if isinstance(error, ResponseError):
                self._pacer.budget.learn(error.headers)
        finally:
            connection.release()
        end.lines += self._take_tail(framer.finish(), number)
        end.over = time.monotonic()
        if self._stopped.is_set():
            end.error = None
        self._telemetry.publish(events.Disconnected(number, end.error, end.lines, end.seconds))
        return end

    def _opened(self, connection: Connection, number: int) -> None:
        self._ever_connected = True
        self.state = "connected"
        self._pacer.budget.learn(connection.headers)
        self._telemetry.publish(events.Connected(number, connection.http_version))

    def _take(self, framed: Framed, size: int, number: int) -> int:
        """Count what one read completed and hand it over; the number of its lines."""
        total = len(framed.lines) + framed.keep_alives + len(framed.oversized)
        self._telemetry.add(
            received=total,
            bytes=size,
            keep_alives=framed.keep_alives,
            undecodable=len(framed.oversized),
        )
        for line in framed.oversized:
            limit = self._options.max_line
            text = f"a line of {line.length} bytes is longer than max_line ({limit})"
            self._telemetry.publish(events.UndecodableLine(DecodeError(text, line.start)))
        if framed.lines:
            self._handoff.put(Block(framed.lines, time.time(), number))
        return total

    def _take_tail(self, tail: bytes, number: int) -> int:
        """A line without its end: whole if it is JSON (then only the line end is missing)."""
        if not tail.strip():
            return 0
        decoded = decode([tail])
        if any(isinstance(other, Undecodable) for other in decoded.others):
            self._telemetry.add(received=1, undecodable=1)
            text = f"the end of the connection cut this line off after {len(tail)} bytes"
            self._telemetry.publish(events.UndecodableLine(DecodeError(text, tail)))
        else:
            self._telemetry.add(received=1)
            self._handoff.put(Block([tail], time.time(), number))
        return 1

    def _note_failure(self, error: StreamError, end: _End) -> None:
        """Set the time of the next connection; raise the error if another cannot help."""
        final = not error.retryable
        if isinstance(error, HostNotFound):
            # A name that never had an address is a typing error; one that lost it is the network.
            final = not self._ever_connected
        if final:
            raise error
        backoff = self._options.backoff
        proven = end.lines > 0 and end.seconds >= backoff.proved_after * backoff.scale
        attempt, delay = self._pacer.failed(
            error, established=end.established is not None, proven=proven
        )
        if self._pacer.exhausted(error):
            raise error
        self._telemetry.publish(events.Reconnecting(delay, attempt, error))

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self.state = "waiting"
            self._stopped.wait(seconds)


@dataclass(slots=True)
class _End:
    """How one connection ended."""

    error: StreamError | None
    lines: int = 0
    established: float | None = None
    over: float = 0.0

    @property
    def seconds(self) -> float:
        return 0.0 if self.established is None else self.over - self.established
