"""One hot stream: a thread that reads, a bounded hand-off, a thread that delivers.

The delivering thread decodes what was handed over and passes it to the subscribers. So nothing
that a subscriber does can keep the bytes from being read, which is what makes X cut off slow
clients; what cannot be delivered in time is dropped by a declared policy, and counted.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from reactivex import abc

from rxtweets._core import events
from rxtweets._core.connection_state import ConnectionState
from rxtweets._core.deduplication import Deduplicator
from rxtweets._core.observable import ChunkGate, SourceSubscription
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.decoding import Decoded, Decoder, Disconnect, is_strange
from rxtweets._messages.message import Message
from rxtweets._support.workers import start_thread, unexpected
from rxtweets.api._responses import error_in_stream
from rxtweets.display._notebook import started
from rxtweets.display._snapshot import has_ended
from rxtweets.errors import RxTweetsError
from rxtweets.streams._backoff import Pacer
from rxtweets.streams._base import Gate, HotStream, end_all, give_all, report_lines
from rxtweets.streams._billing import Limit, PostMeter
from rxtweets.streams._buffer import Block, Handoff, Overflow
from rxtweets.streams._reader import Connect, LastWords, Reader, ReadingOptions
from rxtweets.streams._state_file import Position, StateFile

__all__ = ["LiveOptions", "LiveStream"]

CHUNK = 128
"""Messages delivered together at most, give or take a network read. Bounds the decoded tweets
alive at one time: ten thousand of them make decoding three times slower, by the garbage
collector. With half as many, threads wake one another more often: 97 % of the rate."""


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How a stream buffers, decodes and ends; see `rxtweets.StreamOptions` for each.

    Attributes:
        buffer_size: lines that may wait.
        overflow: what happens when there are more.
        reading: how it is read.
        decoder: of the lines.
        deduplicate: lets each message through once; ``None`` lets all through.
        state_file: where the position is kept; ``None`` for nowhere.
        replay_from: where a replay began, in UTC; ``None`` if it is none, or began with the day.
        limit: after what it completes.
        meter: counts posts; ``None`` where there are none.
    """

    buffer_size: int
    overflow: Overflow
    reading: ReadingOptions
    decoder: Decoder = field(default_factory=Decoder)
    deduplicate: Deduplicator | None = None
    state_file: StateFile | None = None
    replay_from: datetime | None = None
    limit: Limit = field(default_factory=Limit)
    meter: PostMeter | None = None


class LiveStream(HotStream[Any]):
    """A hot Observable over one connection.

    Any number of subscribers share the connection. It is made for the first of them, made again
    whenever it ends, and closed with the last. A subscriber that blocks makes the others wait;
    beyond ``buffer_size`` waiting messages, the overflow policy decides what is lost.

    Args:
        connect: makes connections.
        options: how.
        telemetry: where to count and report.
    """

    def __init__(self, connect: Connect, options: LiveOptions, telemetry: Telemetry) -> None:
        super().__init__(self._join, telemetry)
        self._connect = connect
        self._options = options
        self._pacer = Pacer(options.reading.backoff)
        self._lock = threading.Lock()
        self._run: _Run | None = None
        self.wanted: Callable[[], int] | None = None
        """How many messages a limit over this stream and others lets through yet."""
        telemetry.show("state", lambda: self.state.name)
        if options.meter is not None:
            telemetry.show("posts_today", options.meter.today)

    @property
    def state(self) -> ConnectionState:
        """What the connection is at now."""
        run = self._run
        return ConnectionState("idle") if run is None else run.reader.state

    def stop(self) -> None:
        """Disconnect, deliver what was received, complete the subscribers; at once back.

        Without a subscriber it does nothing.
        """
        with self._lock:
            run = self._run
        if run is not None:
            run.finish()

    def _join(
        self, observer: abc.ObserverBase[list[Message[Any]]], _: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        gate = ChunkGate(observer, self.telemetry, "stream")
        if has_ended(self):
            started(self)
        with self._lock:
            if self._run is None or not self._run.add(gate):
                before = self._run
                self._run = _Run(
                    self._connect, self._options, self._pacer, self.telemetry, before, self.wanted
                )
                self._run.add(gate)
                self._run.start(gate)
            run = self._run
        return SourceSubscription(gate, run.remove, run.finish, self.telemetry)


class _Run:
    """From the first subscription to the last, or to the end of the stream."""

    def __init__(
        self,
        connect: Connect,
        options: LiveOptions,
        pacer: Pacer,
        telemetry: Telemetry,
        before: _Run | None,
        wanted: Callable[[], int] | None,
    ) -> None:
        self._options = options
        self._wanted_of_all = wanted
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._gates: tuple[Gate, ...] = ()
        self._leaving: set[Gate] = set()
        self._over = False
        self._is_deserted = False
        self._fault: RxTweetsError | None = None
        self._newest: Message[Any] | None = None
        self._delivered = 0
        self._is_full = False
        self._handoff = Handoff(
            options.buffer_size,
            options.overflow,
            self._dropped,
            self._burst,
            # X bills what it has sent, so no more is read than the limit lets through.
            wanted=self._wanted if wanted or options.limit.messages else None,
            longest=options.reading.max_line,
        )
        position = None if options.state_file is None else options.state_file.load()
        self._newest_id = "" if position is None else position.newest_id
        self._alive_until = 0.0 if position is None else position.alive_until
        self.reader: Reader = Reader(
            connect,
            options.reading,
            pacer,
            telemetry,
            self._handoff,
            None if before is None else before.reader,
            alive_until=None if position is None else position.alive_until,
            resume=self._resume,
            look=self._look,
        )
        telemetry.show("queued", lambda: len(self._handoff))
        telemetry.show("lag", lambda: self._newest.lag if self._newest else None)

    def start(self, gate: Gate) -> None:
        try:
            self.reader.start()
            start_thread("rxtweets-deliver", self._deliver, self._delivery_died)
            if self._options.limit.seconds is not None:
                start_thread("rxtweets-limit", self._end_in_time, self._limit_died)
        except RuntimeError:  # no more threads can be started
            self.remove(gate)
            raise

    def add(self, gate: Gate) -> bool:
        """Take part in this run; ``False`` if it is over."""
        with self._lock:
            if not self._over:
                self._gates += (gate,)
            return not self._over

    def remove(self, gate: Gate) -> None:
        """Leave; the last one closes the connection, and what waits for it is counted."""
        gate.close()
        with self._lock:
            if gate not in self._gates:
                return
            self._gates = tuple(each for each in self._gates if each is not gate)
            self._leaving.discard(gate)
            is_last = not self._gates
            self._is_deserted = is_last
            self._over = self._over or self._leaving.issuperset(self._gates)
            is_over = self._over
        if is_last:
            self._handoff.close(discard=True)
        if is_over:
            self.reader.stop()

    def finish(self, *gates: Gate) -> None:
        """Complete everybody, or some, in order: what was received is delivered first.

        The connection is closed if there are no others; else these are completed at the next chunk.
        """
        with self._lock:
            self._leaving.update(gates)
            if not gates or self._leaving.issuperset(self._gates):
                self._over = True
                self._leaving.clear()  # all get what comes until the end
            is_over = self._over
        if is_over:
            self.reader.stop()
        else:
            self._handoff.put(Block([], 0.0, 0))  # wakes the delivering thread

    def _deliver(self) -> None:
        with self._telemetry.working():
            self._deliver_all()

    def _deliver_all(self) -> None:
        while blocks := self._handoff.get(CHUNK):
            self._pass_on(blocks)
            self._handoff.in_hand = 0
        if not self._is_full:  # what comes after a limit is not missed
            self._report_gaps(None, self._newest_id, "")
        self._save(now=True)
        self._end(self._fault or self.reader.error)

    def _end(self, error: RxTweetsError | None) -> None:
        with self._lock:
            self._over = True
            gates, self._gates = self._gates, ()
        if gates:
            self._telemetry.publish(events.StreamEnded(error))
        end_all(gates, error, self._telemetry)

    def _delivery_died(self, error: BaseException) -> None:
        """Nothing can be delivered any more: end, and count what was in hand and what waits."""
        with self._telemetry.working():
            self._handoff.close(discard=True)
            self._dropped(self._handoff.in_hand)
            self.reader.stop()
            self._end(unexpected("delivering", error))

    def _limit_died(self, error: BaseException) -> None:
        """Time has no end any more, and X bills it: deliver what has come, and end."""
        self._fault = unexpected("keeping the time of the limit", error)
        self.finish()

    def _pass_on(self, blocks: list[Block]) -> None:
        messages: list[Message[Any]] = []
        options = self._options
        for block in blocks:
            if block.connection:
                self._alive_until = block.received_at
            if not block.lines and not self.reader.gaps:
                continue
            decoded = options.decoder.decode(block.lines, block.received_at, block.known)
            if self.reader.gaps and block.connection >= self.reader.gaps[0][0]:
                last = messages[-1].id if messages else self._newest_id
                first = decoded.messages[0].id if decoded.messages else ""
                self._report_gaps(block.connection, last, first)
            messages += decoded.messages
            if decoded.others or decoded.partial:
                self._report(decoded, block.connection)
        if messages:
            self._newest = messages[-1]
            self._newest_id = messages[-1].id
            self._hand_on(messages)
        if self._leaving:
            self._let_go()
        self._save()

    def _hand_on(self, messages: list[Message[Any]]) -> None:
        gates = self._gates
        if self._options.meter is not None:
            self._options.meter.count(messages)
        if not gates or self._is_full:
            self._dropped(len(messages))
            return
        fresh = messages
        if self._options.deduplicate is not None:
            fresh = self._options.deduplicate.fresh(messages)
        kept = self._within_limit(fresh)
        self._telemetry.add(
            delivered=len(messages) - len(fresh) + len(kept),
            beyond_limit=len(fresh) - len(kept),
            duplicates=len(messages) - len(fresh),
        )
        self._handoff.in_hand = 0
        if self._is_full:
            self.reader.stop()  # subscribers may take long, and X bills what it sends meanwhile
        if kept:
            give_all(gates, kept, self.remove, self._telemetry)
        if self._is_full:
            self.finish()

    def _within_limit(self, messages: list[Message[Any]]) -> list[Message[Any]]:
        most = self._options.limit.messages
        if most is None:
            return messages
        kept = messages[: most - self._delivered]
        self._delivered += len(kept)
        if self._delivered >= most:
            self._is_full = True
            left_out = len(messages) - len(kept)
            self._telemetry.publish(events.LimitReached(self._delivered, left_out))
        return kept

    def _end_in_time(self) -> None:
        if not self.reader.wait_for_stop(self._options.limit.seconds):
            delivered = self._telemetry.stats().delivered
            self._telemetry.publish(events.LimitReached(delivered, 0))
            self.finish()

    def _let_go(self) -> None:
        with self._lock:
            leaving, self._leaving = self._leaving, set()
            self._gates = tuple(gate for gate in self._gates if gate not in leaving)
        end_all(tuple(leaving), None, self._telemetry)

    def _report(self, decoded: Decoded, connection: int) -> None:
        self._handoff.in_hand -= len(decoded.others)  # these are counted here
        report_lines(self._telemetry, decoded)
        for other in decoded.others:
            if isinstance(other, Disconnect):
                self.reader.disconnect(connection, _error_from(other.problem))

    def _report_gaps(self, connection: int | None, last: str, first: str) -> None:
        """Report what was missed before this connection, or before any, and the ids around it."""
        gaps = self.reader.gaps
        while gaps and (connection is None or gaps[0][0] <= connection):
            _, interval = gaps.popleft()
            self._telemetry.add(gaps=1)
            start, end = (datetime.fromtimestamp(at, UTC) for at in (interval.start, interval.end))
            self._telemetry.publish(events.Gap(start, end, last, first))

    def _resume(self) -> Mapping[str, str]:
        """From where a replay that broke goes on: a little before its newest message."""
        newest = self._newest.created_at if self._newest else None
        if not self._options.reading.is_replay or newest is None:
            return {}
        since = newest - OVERLAP
        if self._options.replay_from is not None:
            since = max(since, self._options.replay_from)
        return {"start_time": f"{since:%Y-%m-%dT%H:%M:%SZ}"}

    def _look(self, lines: list[bytes]) -> LastWords:
        decoded = self._options.decoder.decode(lines)
        ends = [each for each in decoded.others if isinstance(each, Disconnect)]
        created = decoded.messages[-1].created_at if decoded.messages else None
        return LastWords(
            written=None if created is None else created.timestamp(),
            error_of=_error_from(ends[-1].problem) if ends else None,
            is_strange=not decoded.messages and any(map(is_strange, decoded.others)),
        )

    def _save(self, *, now: bool = False) -> None:
        file = self._options.state_file
        if file is None or not self._alive_until:
            return
        try:
            file.save(Position(self._alive_until, self._newest_id), now=now)
        except Exception as error:  # noqa: BLE001 - whatever it is, the stream goes on
            self._telemetry.publish(events.StateFileFailed(str(file.path), error))

    def _wanted(self) -> int:
        """Lines up to the limit; of what comes beyond it, all are taken, and counted as such."""
        if self.reader.is_stopped:
            return sys.maxsize
        in_hand = self._handoff.in_hand  # first: else what is delivered meanwhile is in neither
        if self._wanted_of_all is None:
            return (self._options.limit.messages or 0) - in_hand - self._delivered
        left = self._wanted_of_all()
        return left - in_hand if left > 0 else sys.maxsize

    def _dropped(self, lines: int) -> None:
        if self._is_full:
            self._telemetry.add(beyond_limit=lines)
        elif self._is_deserted:
            self._telemetry.add(unsubscribed=lines)
        else:
            self._telemetry.add(dropped=lines)

    def _burst(self, phase: Literal["began", "ended"], dropped: int) -> None:
        policy, capacity = self._options.overflow, self._options.buffer_size
        self._telemetry.publish(
            events.OverflowStarted(policy, capacity)
            if phase == "began"
            else events.OverflowEnded(policy, dropped)
        )


OVERLAP = timedelta(seconds=10)
"""Tweets come out of order by some seconds."""


def _error_from(problem: Mapping[str, Any]) -> Callable[[Mapping[str, str]], Any]:
    return lambda headers: error_in_stream(problem, headers)
