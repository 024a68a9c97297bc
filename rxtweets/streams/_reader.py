"""The thread that reads: connections one after the other, until it is stopped.

It connects, cuts lines, hands them over, and connects again when a connection ends. It runs no
code of the user, and does not look into the lines.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from rxtweets._core import events
from rxtweets._core.connection_state import ConnectionState, StateName
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.decoding import Undecodable, decode
from rxtweets._support.workers import start_thread, unexpected
from rxtweets.api._connection import Connection
from rxtweets.api._responses import unexpected_answer
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
from rxtweets.streams._buffer import Block, Handoff
from rxtweets.streams._gaps import Backfill, Continuity, Interval
from rxtweets.streams._isolated import IsolatedConnection
from rxtweets.streams._lines import Arrived, Framed, LineFramer, Oversized

__all__ = ["Connect", "LastWords", "Reader", "ReadingOptions"]

BEGIN = 20
"""Lines of a connection that are kept until its end, to show what came in place of a stream."""


class Connect(Protocol):
    """Makes the connections of one stream, without opening them."""

    def __call__(
        self, params: Mapping[str, str], on_quiet: Callable[[], None]
    ) -> Connection | IsolatedConnection:
        """One more connection.

        Args:
            params: beside those of the stream.
            on_quiet: as `Connection` has it.
        """


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """How a stream is read and recovers; see `rxtweets.StreamOptions` for each.

    Attributes:
        max_line: bytes.
        backoff: schedules.
        backfill: what is asked for after a gap.
        free: makes X give up the token's connections, and says how many; ``None`` not to.
        is_replay: the stream has an end, and reading on from ``resume`` needs no backfill.
        prepare: done before the first connection; tried again as connecting is.
        finish: done after the last connection of a run.
    """

    max_line: int
    backoff: Backoff
    backfill: Backfill = None
    free: Callable[[], int] | None = None
    is_replay: bool = False
    prepare: Callable[[], events.Event] | None = None
    finish: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class LastWords:
    """What the last lines of a connection said.

    Attributes:
        written: when the last message was written, in seconds since 1970, if it was a message.
        error_of: if X announced the end, from the headers of the answer to the error that it is.
        is_strange: none of them is a message, and one is nothing that X sends in a stream.
    """

    written: float | None = None
    error_of: Callable[[Mapping[str, str]], StreamError] | None = None
    is_strange: bool = False


class Reader:
    """One run of the reading thread.

    Args:
        connect: makes connections.
        options: how.
        pacer: when; outlives runs.
        telemetry: where to count and report.
        handoff: where the lines go.
        before: the last run of the same stream, whose end is awaited.
        alive_until: until when an earlier program has read the stream, in seconds since 1970.
        look: what the last lines of a connection said.
        resume: what a replay that broke is asked for beside its parameters.
    """

    def __init__(
        self,
        connect: Connect,
        options: ReadingOptions,
        pacer: Pacer,
        telemetry: Telemetry,
        handoff: Handoff,
        before: Reader | None,
        alive_until: float | None = None,
        resume: Callable[[], Mapping[str, str]] = dict,
        look: Callable[[list[bytes]], LastWords] = lambda _: LastWords(),
    ) -> None:
        self._connect = connect
        self._options = options
        self._pacer = pacer
        self._telemetry = telemetry
        self._handoff = handoff
        self._before = before
        self._resume = resume
        self._look = look
        self._first_lines: list[bytes] = []
        self._last_lines: list[bytes] = []
        self._last_read = 0.0
        self._continuity = Continuity(options.backfill, alive_until, options.backoff.scale)
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._connection: Connection | IsolatedConnection | None = None
        self._headers: Mapping[str, str] = {}
        self._number = 0
        self._ever_connected = False
        self._is_connected = False
        self._is_prepared = False
        self.gaps: deque[tuple[int, Interval]] = deque()
        """What was missed before which connection; taken by the thread that delivers."""
        self.error: RxTweetsError | None = None
        self.state = ConnectionState("idle")

    @property
    def is_stopped(self) -> bool:
        """Whether its end is wanted."""
        return self._stopped.is_set()

    def start(self) -> None:
        """Begin to read."""
        self._thread = start_thread("rxtweets-reader", self._work, self._died)

    def join(self) -> None:
        """Wait until it has ended."""
        if self._thread is not None:
            self._thread.join()

    def wait_for_stop(self, timeout: float | None) -> bool:
        """Wait until its end is wanted, for so many seconds; whether it is."""
        return self._stopped.wait(timeout)

    def stop(self) -> None:
        """End at once: a wait or a read is interrupted.

        So is an attempt to connect, but not before TCP has found the other side, which takes as
        long as ``connect_timeout`` where nobody answers.
        """
        with self._lock:
            self._stopped.set()
            live = self._connection
        if live is not None:
            live.close()
        self._handoff.wake()  # it may be waiting until more is wanted

    def disconnect(self, number: int, error_of: Callable[[Mapping[str, str]], StreamError]) -> None:
        """End this connection, if it is still the one, because the server said so.

        Args:
            number: of the connection.
            error_of: from the headers of the answer to the error that it ends with.
        """
        with self._lock:
            live = self._connection if self._number == number else None
            headers = self._headers
        if live is not None:
            live.close(error_of(headers))

    def _work(self) -> None:
        try:
            # A token holds one connection: the next is made only when the last run's is closed.
            if self._before is not None:
                self._before.join()
                self._before = None
            self._enter("connecting")
            self._wait(self._pacer.wait(), None)
            while not self._stopped.is_set():
                end = self._one_connection()
                if end.error is not None and not self._is_over(end.error):
                    self._note_failure(end.error, end)
                    self._wait(self._pacer.wait(), end.error)
        except RxTweetsError as error:
            self.error = error
        except BaseException as error:  # noqa: BLE001 - of httpx, of a user's function
            self.error = unexpected("reading", without_secrets(error))
        self._stopped.set()
        self._note_the_rest()
        self._options.finish()
        self._enter("stopped" if self.error is None else "failed", error=self.error)
        self._handoff.close()

    def _died(self, error: BaseException) -> None:
        """Its end failed: those who wait for what it has read must not wait for ever."""
        self.error = self.error or unexpected("the end of reading", error)
        self._handoff.close()

    def _note_the_rest(self) -> None:
        """A stream that ends without a connection has missed what came since it last spoke."""
        since, now = self._continuity.alive_until, time.time()
        missed = self.error is not None or not (self._is_connected or self._options.is_replay)
        if missed and since is not None and since < now:
            self.gaps.append((self._number, Interval(since, now)))

    def _prepare(self) -> None:
        if self._options.prepare is not None and not self._is_prepared:
            self._telemetry.publish(self._options.prepare())
            self._is_prepared = True

    def _is_over(self, error: StreamError) -> bool:
        """Whether a replay has come to its end."""
        if self._options.is_replay and isinstance(error, ConnectionEnded):
            self._stopped.set()
        return self._stopped.is_set()

    def _one_connection(self) -> _End:
        minutes = self._continuity.minutes(time.time())
        asked = {"backfill_minutes": str(minutes)} if minutes else {}
        connection = self._connect({**asked, **self._resume()}, self._quiet)
        number = self._pacer.connecting()
        with self._lock:
            if self._stopped.is_set():
                return _End(None)
            follows_another = self._number > 0
            self._connection, self._number = connection, number
        self._enter("connecting")
        self._telemetry.add(connects=1, reconnects=int(follows_another))
        self._telemetry.publish(events.Connecting(number, str(connection.url)))
        end = _End(None, minutes=minutes)
        framer = LineFramer(self._options.max_line)
        try:
            self._prepare()
            connection.open()
            self._opened(connection, number, minutes)
            end.established = time.monotonic()
            for data in connection.blocks():
                if not isinstance(data, Arrived):
                    data = Arrived(framer.feed(data), len(data), time.time(), held=framer.held)  # noqa: PLW2901 - the same, framed
                end.lines += self._take(data, number)
        except StreamError as error:
            end.error = error
            if isinstance(error, ResponseError):
                self._pacer.budget.learn(error.headers)
        finally:
            connection.release()
        end.lines += self._take_tail(framer.finish(), number)
        end.over = time.monotonic()
        self._heed_last_words(end)
        if self._stopped.is_set():
            end.error = None
        else:
            self._is_connected = False
        self._telemetry.publish(events.Disconnected(number, end.error, end.lines, end.seconds))
        return end

    def _opened(
        self, connection: Connection | IsolatedConnection, number: int, minutes: int
    ) -> None:
        self._ever_connected = self._is_connected = True
        self._headers = connection.headers
        self._pacer.budget.learn(connection.headers)
        self._telemetry.publish(events.Connected(number, connection.http_version))
        self._enter("connected")
        if self._options.is_replay:
            return
        if minutes:
            alive = self._continuity.alive_until
            since = None if alive is None else datetime.fromtimestamp(alive, UTC)
            self._telemetry.publish(events.BackfillRequested(number, minutes, since))
        gap = self._continuity.gap(time.time(), minutes)
        if gap is not None:
            self.gaps.append((number, gap))

    def _take(self, arrived: Arrived, number: int) -> int:
        """Count what one read completed and hand it over; the number of its lines."""
        framed, size, now, known, held = arrived
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
        if total:
            self._continuity.alive(now)
            if framed.lines:
                self._first_lines = self._first_lines or framed.lines[:BEGIN]
                self._last_lines, self._last_read = framed.lines, now
            # Without lines too: so those behind know until when there was nothing to read.
            self._handoff.put(Block(framed.lines, now, number, known, held if framed.lines else 0))
        if self.state.name == "stalled":
            self._enter("connected")
        return total

    def _heed_last_words(self, end: _End) -> None:
        """Learn why the connection ended, if X said so, and how far behind it was.

        The thread that delivers will come upon this too, but perhaps long after.
        """
        first, last = self._look(self._first_lines), self._look(self._last_lines)
        begin, self._first_lines, self._last_lines = self._first_lines, [], []
        if last.written is not None:
            self._continuity.lagging(last.written, self._last_read)
        if last.error_of is not None and isinstance(end.error, ConnectionLost):
            end.error = last.error_of(self._headers)
        elif (
            first.is_strange
            and last.is_strange
            and isinstance(end.error, ConnectionEnded)
            and not self._is_proven(end)
        ):
            advice = "This came in place of a stream: check base_url, the options and the network."
            end.error = unexpected_answer(200, self._headers, b"\n".join(begin), advice)

    def _is_proven(self, end: _End) -> bool:
        backoff = self._options.backoff
        return end.lines > 0 and end.seconds >= backoff.proved_after * backoff.scale

    def _take_tail(self, tail: bytes | Oversized, number: int) -> int:
        """A line without its end: whole if it is JSON (then only the line end is missing)."""
        if isinstance(tail, Oversized):
            return self._take(Arrived(Framed([], 0, (tail,)), 0, time.time()), number)
        if not tail.strip():
            return 0
        decoded = decode([tail])
        if any(isinstance(other, Undecodable) for other in decoded.others):
            if self._stopped.is_set():
                return 0  # the stop has cut the line off, not the server
            self._telemetry.add(received=1, undecodable=1)
            text = f"the end of the connection cut this line off after {len(tail)} bytes"
            self._telemetry.publish(events.UndecodableLine(DecodeError(text, tail)))
            if not self._first_lines:
                self._first_lines = self._last_lines = [tail]
        else:
            self._telemetry.add(received=1)
            self._first_lines = self._first_lines or [tail]
            self._last_lines, self._last_read = [tail], time.time()
            self._handoff.put(Block([tail], time.time(), number, size=len(tail)))
        return 1

    def _note_failure(self, error: StreamError, end: _End) -> None:
        """Set the time of the next connection; raise the error if another cannot help."""
        if error.counter:
            self._telemetry.add(**{error.counter: 1})
        if self._is_refused_backfill(error, end):
            self._continuity.refuse()
            self._telemetry.publish(events.BackfillRefused(error))
            return
        final = not error.retryable
        if isinstance(error, (HostNotFound, UnexpectedAnswerError)):
            # A name that never had an address is a typing error; one that lost it is the network.
            # So it is with what answers in X's place.
            final = not self._ever_connected
        if final:
            raise error
        wait = self._pacer.failed(
            error, established=end.established is not None, proven=self._is_proven(end)
        )
        if self._pacer.exhausted(error):
            raise error
        self._telemetry.publish(
            events.Reconnecting(wait.delay, wait.attempt, error, wait.wait_from)
        )
        if isinstance(error, ConnectionLimitError):
            self._free_connections()

    def _is_refused_backfill(self, error: StreamError, end: _End) -> bool:
        """Whether it may be for the backfill, which only we asked for, that the answer is no.

        Whatever its words are: a connection without it shows.
        """
        return (
            self._options.backfill == "auto"
            and end.minutes > 0
            and isinstance(error, ResponseError)
            and error.status in {400, 403}
        )

    def _free_connections(self) -> None:
        """Let X forget the connection that it takes for a live one, before the next try."""
        if self._options.free is None or self._stopped.is_set():
            return
        try:
            freed = events.ConnectionsClosed(self._options.free(), None)
        except RxTweetsError as error:
            freed = events.ConnectionsClosed(0, error)
        self._telemetry.publish(freed)

    def _wait(self, delay: float, error: StreamError | None) -> None:
        if delay > 0 and not self._stopped.is_set():
            until = datetime.fromtimestamp(time.time() + delay, UTC)
            self._enter("backing off", until=until, error=error)
            self._stopped.wait(delay)

    def _quiet(self) -> None:
        """Called by the watchdog."""
        if self.state.name == "connected":
            self._enter("stalled")

    def _enter(
        self, name: StateName, until: datetime | None = None, error: Exception | None = None
    ) -> None:
        with self._lock:
            if name == self.state.name == "connecting":
                return
            number = self._telemetry.count_states()
            self.state = ConnectionState(name, until, error, number)
            self._telemetry.publish(events.StateChanged(self.state))


@dataclass(slots=True)
class _End:
    """How one connection ended."""

    error: StreamError | None
    lines: int = 0
    established: float | None = None
    over: float = 0.0
    minutes: int = 0

    @property
    def seconds(self) -> float:
        return 0.0 if self.established is None else self.over - self.established
