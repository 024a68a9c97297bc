"""The thread that reads: connections one after the other, until it is stopped.

It connects, cuts lines, puts them into the buffer, and reconnects when a connection ends. The only
lines that it decodes are the first and last ones of a connection, to classify its end.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from rxtweets._core import events
from rxtweets._core.connection_state import ConnectionState, StateName
from rxtweets._core.deduplication import Deduplicator
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.decoding import Decoded, Decoder, DisconnectNotice, is_strange
from rxtweets._messages.message import Message
from rxtweets._support.workers import start_thread, unexpected
from rxtweets.api._client import Rest
from rxtweets.api._connection import Connection
from rxtweets.api._connections import free_connections
from rxtweets.api._responses import error_in_stream, unexpected_answer
from rxtweets.errors import (
    ConnectionEnded,
    ConnectionLimitError,
    ConnectionLost,
    DecodeError,
    HostNotFound,
    ResponseError,
    RxTweetsError,
    StreamError,
    UnexpectedAnswerError,
)
from rxtweets.errors._redaction import without_secrets
from rxtweets.streams._backoff import Backoff, Pacer
from rxtweets.streams._billing import PostMeter
from rxtweets.streams._buffer import Block, Buffer, Closed, Ended, Opened
from rxtweets.streams._config import StreamConfig
from rxtweets.streams._gaps import GapTracker, Interval
from rxtweets.streams._isolated import IsolatedConnection
from rxtweets.streams._lines import Arrived, Framed, LineFramer, Oversized
from rxtweets.streams._state_file import StateFile

__all__ = ["LiveParts", "Prepare", "Reader"]

FIRST = 20
"""Lines of a connection that an `UnexpectedAnswerError` shows."""

LAST = 3
"""Reads at the end of a connection that are searched for the reason of the end."""

OVERLAP = timedelta(seconds=10)
"""Time before its newest message from which a broken replay continues: tweets come out of order
by some seconds."""


Connect = Callable[[Mapping[str, str], Callable[[], None]], Connection | IsolatedConnection]
"""Makes a connection without opening it, from query parameters beside those of the stream, and
``on_quiet`` as of `Connection`."""

Prepare = Callable[[], events.Event]
"""Prepares the server and returns the event that reports it."""


@dataclass(frozen=True, slots=True)
class LiveParts:
    """The parts of a stream over one connection; they outlive its runs.

    Attributes:
        config: its options.
        connect: makes connections.
        pacer: when to reconnect.
        decoder: decodes the lines.
        deduplicate: drops repeated messages; ``None`` to keep them.
        meter: counts posts; ``None`` for streams without posts.
        state_file: keeps the position; ``None`` for no file.
        prepare: called before the first connection of a run; retried as connecting is.
        finish: called after the last connection of a run.
    """

    config: StreamConfig
    connect: Connect
    pacer: Pacer
    decoder: Decoder
    deduplicate: Deduplicator | None = None
    meter: PostMeter | None = None
    state_file: StateFile | None = None
    prepare: Prepare | None = None
    finish: Callable[[], None] = lambda: None


@dataclass(slots=True)
class _Attempt:
    """One connection, from the attempt to connect to its end.

    Attributes:
        number: of the connection, from 1.
        minutes: requested backfill.
        established: when the server answered, in monotonic seconds.
        ended: when it ended.
        lines: received lines, keep-alives included.
        first: lines of the first read that brought any.
        last: the last reads.
        headers: of the answer.
        error: reason of the end; ``None`` if the stream closed it.
    """

    number: int
    minutes: int
    established: float | None = None
    ended: float = 0.0
    lines: int = 0
    first: list[bytes] = field(default_factory=list)
    last: deque[Block] = field(default_factory=lambda: deque(maxlen=LAST))
    headers: Mapping[str, str] = field(default_factory=dict)
    error: StreamError | None = None

    @property
    def seconds(self) -> float:
        return 0.0 if self.established is None else self.ended - self.established

    def has_proved_itself(self, backoff: Backoff) -> bool:
        return self.lines > 0 and self.seconds >= backoff.proved_after * backoff.scale

    def note(self, block: Block) -> None:
        self.first = self.first or block.lines[:FIRST]
        self.last.append(block)


class Reader:
    """One run of the reading thread.

    Args:
        parts: of the stream.
        telemetry: where to count and report.
        buffer: gets `Opened`, `Block`, `Closed` and at last `Ended`.
        before: the reader of the last run, whose end this one awaits.
        alive_until: time up to which an earlier program has read, in seconds since 1970.
    """

    def __init__(
        self,
        parts: LiveParts,
        telemetry: Telemetry,
        buffer: Buffer,
        before: Reader | None,
        alive_until: float | None,
    ) -> None:
        self._parts = parts
        self._config = config = parts.config
        self._pacer = parts.pacer
        self._telemetry = telemetry
        self._buffer = buffer
        self._before = before
        self._prepare = parts.prepare
        self._newest_at: datetime | None = None
        self._gaps = GapTracker(config.backfill_minutes, alive_until, config.backoff.scale)
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._connection: Connection | IsolatedConnection | None = None
        self._attempt: _Attempt | None = None
        self._is_connected = False
        self._was_connected = False
        self._error: RxTweetsError | None = None
        self.state = ConnectionState("idle")

    def start(self) -> None:
        """Begin to read."""
        self.state = ConnectionState("connecting")  # the thread may wait for the last run
        try:
            self._thread = start_thread("rxtweets-reader", self._work, self._died)
        except BaseException:
            self.state = ConnectionState("idle")
            raise

    def join(self) -> None:
        """Wait for the end of the thread."""
        if self._thread is not None:
            self._thread.join()

    def stop(self) -> None:
        """End immediately: interrupt a wait or a read.

        An attempt to connect ends when TCP has found the server: after ``connect_timeout`` if no
        server answers.
        """
        with self._lock:
            self._stopped.set()
            connection = self._connection
        if connection is not None:
            connection.close()
        self._buffer.lift_quota()

    def disconnect(self, number: int, problem: Mapping[str, Any]) -> None:
        """Close a connection, if it is still the current one, because X announced its end.

        Args:
            number: of the connection.
            problem: X's announcement.
        """
        with self._lock:
            connection, attempt = self._connection, self._attempt
        if connection is not None and attempt is not None and attempt.number == number:
            connection.close(error_in_stream(problem, attempt.headers))

    def _work(self) -> None:
        try:
            # A token holds one connection, so that of the last run must be closed.
            if self._before is not None:
                self._before.join()
                self._before = None
            self._enter("connecting")
            self._wait(self._pacer.wait(), None)
            while not self._stopped.is_set():
                attempt = self._run_connection()
                if attempt is None or attempt.error is None or self._stopped.is_set():
                    continue
                self._recover(attempt, attempt.error)
        except RxTweetsError as error:
            self._error = error
        except BaseException as error:  # noqa: BLE001 - of httpx, or of a user's function
            self._error = unexpected("reading", without_secrets(error))
        self._stopped.set()
        gap = self._last_gap()
        self._parts.finish()
        self._enter("stopped" if self._error is None else "failed", error=self._error)
        self._buffer.put(Ended(self._error, gap))
        self._buffer.close()

    def _died(self, error: BaseException) -> None:
        self._buffer.put(Ended(self._error or unexpected("the end of reading", error)))
        self._buffer.close()

    def _last_gap(self) -> Interval | None:
        """Without a connection, everything since the last byte is missing."""
        since, now = self._gaps.alive_until, time.time()
        is_complete = self._is_connected or self._config.is_replay
        if since is None or since >= now or (is_complete and self._error is None):
            return None
        return Interval(since, now)

    def _run_connection(self) -> _Attempt | None:
        """Connect and read until the connection ends; ``None`` if the reader was stopped before."""
        minutes = self._gaps.minutes(time.time())
        connection = self._parts.connect(self._params(minutes), self._quiet)
        attempt = _Attempt(self._pacer.connecting(), minutes)
        with self._lock:
            if self._stopped.is_set():
                return None
            is_reconnect = self._attempt is not None
            self._connection, self._attempt = connection, attempt
        self._enter("connecting")
        self._telemetry.add(connects=1, reconnects=int(is_reconnect))
        self._telemetry.publish(events.Connecting(attempt.number, str(connection.url)))
        framer = LineFramer(self._config.max_line)
        try:
            if self._prepare is not None:
                self._telemetry.publish(self._prepare())
                self._prepare = None
            connection.open()
            self._opened(connection, attempt)
            for data in connection.blocks():
                if isinstance(data, Arrived):
                    self._take(data, attempt)
                else:
                    framed = framer.feed(data)
                    self._take(Arrived(framed, len(data), time.time(), held=framer.held), attempt)
        except StreamError as error:
            attempt.error = error
            if isinstance(error, ResponseError):
                self._pacer.budget.learn(error.headers)
        finally:
            connection.release()
        self._closed(attempt, framer.finish())
        return attempt

    def _params(self, minutes: int) -> dict[str, str]:
        params = {"backfill_minutes": str(minutes)} if minutes else {}
        if self._config.is_replay and self._newest_at is not None:
            since = self._newest_at - OVERLAP
            if self._config.start_time is not None:
                since = max(since, self._config.start_time)
            params["start_time"] = f"{since:%Y-%m-%dT%H:%M:%SZ}"
        return params

    def _opened(self, connection: Connection | IsolatedConnection, attempt: _Attempt) -> None:
        self._was_connected = self._is_connected = True
        attempt.headers = connection.headers
        attempt.established = time.monotonic()
        self._pacer.budget.learn(connection.headers)
        self._telemetry.publish(events.Connected(attempt.number, connection.http_version))
        self._enter("connected")
        gap = None
        if not self._config.is_replay:
            alive = self._gaps.alive_until
            if attempt.minutes:
                since = None if alive is None else datetime.fromtimestamp(alive, UTC)
                self._telemetry.publish(
                    events.BackfillRequested(attempt.number, attempt.minutes, since)
                )
            gap = self._gaps.gap(time.time(), attempt.minutes)
        self._buffer.put(Opened(gap))

    def _take(self, arrived: Arrived, attempt: _Attempt) -> None:
        framed, size, now, known, held = arrived
        total = len(framed.lines) + framed.keep_alives + len(framed.oversized)
        attempt.lines += total
        self._telemetry.add(
            received=total,
            bytes=size,
            keep_alives=framed.keep_alives,
            undecodable=len(framed.oversized),
        )
        for line in framed.oversized:
            limit = self._config.max_line
            text = f"a line of {line.length} bytes is longer than max_line ({limit})"
            self._telemetry.publish(events.UndecodableLine(DecodeError(text, line.start)))
        if total:
            self._gaps.alive_until = now
            # Keep-alives too: they show the deliverer until when the stream was read.
            block = Block(framed.lines, now, attempt.number, known, held if framed.lines else 0)
            if framed.lines:
                attempt.note(block)
            self._buffer.put(block)
        if self.state.name == "stalled":
            self._enter("connected")

    def _closed(self, attempt: _Attempt, tail: bytes | Oversized) -> None:
        now, by_us = time.time(), self._stopped.is_set()
        if isinstance(tail, Oversized):
            self._take(Arrived(Framed([], 0, (tail,)), 0, now), attempt)
            tail = b""
        if tail.strip():
            attempt.note(Block([tail], now, attempt.number))
            attempt.lines += 1
        attempt.ended = time.monotonic()
        if attempt.established is not None:
            self._buffer.put(Closed(attempt.number, tail, now, by_us))
        if by_us:
            attempt.error = None
        else:
            self._is_connected = False
            attempt.error, newest = classify_end(attempt, self._parts.decoder)
            if newest is not None and newest.created_at is not None:
                self._newest_at = newest.created_at
                self._gaps.lagging(self._newest_at.timestamp(), newest.received_at or now)
        self._telemetry.publish(
            events.Disconnected(attempt.number, attempt.error, attempt.lines, attempt.seconds)
        )

    def _recover(self, attempt: _Attempt, error: StreamError) -> None:
        """Wait for the time of the next connection.

        Raises:
            StreamError: reconnecting cannot help.
        """
        if self._config.is_replay and isinstance(error, ConnectionEnded):
            self._stopped.set()  # the end of the replay
            return
        if error.counter:
            self._telemetry.add(**{error.counter: 1})
        if self._refuses_backfill(attempt, error):
            self._gaps.refuse()
            self._telemetry.publish(events.BackfillRefused(error))
        else:
            self._note_failure(attempt, error)
        self._wait(self._pacer.wait(), error)

    def _note_failure(self, attempt: _Attempt, error: StreamError) -> None:
        is_final = not error.retryable
        if isinstance(error, (HostNotFound, UnexpectedAnswerError)):
            # At first the options are wrong; later the network is broken.
            is_final = not self._was_connected
        if is_final:
            raise error
        wait = self._pacer.failed(
            error,
            established=attempt.established is not None,
            proven=attempt.has_proved_itself(self._config.backoff),
        )
        if self._pacer.exhausted(error):
            raise error
        self._telemetry.publish(
            events.Reconnecting(wait.delay, wait.attempt, error, wait.wait_from)
        )
        if isinstance(error, ConnectionLimitError):
            self._free_connections()

    def _refuses_backfill(self, attempt: _Attempt, error: StreamError) -> bool:
        """X words such refusals in many ways, so try without backfill after any of them."""
        return (
            self._config.backfill_minutes == "auto"
            and attempt.minutes > 0
            and isinstance(error, ResponseError)
            and error.status in {400, 403}
        )

    def _free_connections(self) -> None:
        config = self._config
        if not config.free_stale_connections or self._stopped.is_set():
            return
        try:
            count = free_connections(Rest(config.connection), config.endpoint.name)
            freed = events.ConnectionsClosed(count, None)
        except RxTweetsError as error:
            freed = events.ConnectionsClosed(0, error)
        self._telemetry.publish(freed)

    def _wait(self, delay: float, error: StreamError | None) -> None:
        if delay > 0 and not self._stopped.is_set():
            until = datetime.fromtimestamp(time.time() + delay, UTC)
            self._enter("backing off", until=until, error=error)
            self._stopped.wait(delay)

    def _quiet(self) -> None:
        if self.state.name == "connected":
            self._enter("stalled")

    def _enter(
        self, name: StateName, until: datetime | None = None, error: Exception | None = None
    ) -> None:
        with self._lock:
            if name == self.state.name == "connecting" and self.state.number:
                return
            number = self._telemetry.count_states()
            self.state = ConnectionState(name, until, error, number)
            self._telemetry.publish(events.StateChanged(self.state))


def classify_end(
    attempt: _Attempt, decoder: Decoder
) -> tuple[StreamError | None, Message[Any] | None]:
    """Return the reason of a connection's end, by its first and last lines, and its last message.

    X can announce the reason in the stream: then it replaces a lost connection. An answer of 200
    that holds nothing but an error or a web page is no stream.
    """
    error = attempt.error
    first = decoder.decode(attempt.first)
    last = [decoder.decode(block.lines, block.received_at) for block in attempt.last]
    messages = [message for decoded in last for message in decoded.messages]
    others = [other for decoded in last for other in decoded.others]
    announced = [other.problem for other in others if isinstance(other, DisconnectNotice)]
    if announced and isinstance(error, ConnectionLost):
        error = error_in_stream(announced[-1], attempt.headers)
    elif isinstance(error, ConnectionEnded) and _is_strange([first]) and _is_strange(last):
        advice = "This came in place of a stream: check base_url, the options and the network."
        error = unexpected_answer(200, attempt.headers, b"\n".join(attempt.first), advice)
    return error, messages[-1] if messages else None


def _is_strange(reads: Iterable[Decoded]) -> bool:
    """Return whether no read has a message, and one has a line that no stream of X has."""
    return not any(decoded.messages for decoded in reads) and any(
        is_strange(other) for decoded in reads for other in decoded.others
    )
