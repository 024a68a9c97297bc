"""A hot stream over one connection: a thread that reads, a buffer, a thread that delivers.

The delivering thread decodes the lines and passes the messages to the subscribers. A slow
subscriber cannot stop the reading, which would make X cut off the client. Messages that cannot be
delivered in time are dropped by a declared policy, and counted.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from reactivex import abc

from rxtweets._core import events
from rxtweets._core.connection_state import ConnectionState
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.decoding import Decoded, DisconnectNotice, Undecodable
from rxtweets._messages.message import Message
from rxtweets._support.workers import start_thread, unexpected
from rxtweets.display._notebook import started
from rxtweets.display._snapshot import has_ended
from rxtweets.errors import DecodeError, RxTweetsError
from rxtweets.streams._base import report_lines
from rxtweets.streams._billing import Quota
from rxtweets.streams._buffer import Block, Buffer, Burst, Closed, Ended, Opened, overflow_event
from rxtweets.streams._gaps import Interval
from rxtweets.streams._reader import LiveParts, Reader
from rxtweets.streams._run import SharedStream, StreamRun
from rxtweets.streams._state_file import Position

__all__ = ["LiveStream"]

CHUNK = 128
"""Messages of a chunk, about. It bounds the decoded tweets alive at one time, on which the garbage
collector spends its time; a smaller chunk makes threads wake one another more often."""


class LiveStream(SharedStream):
    """A hot Observable over one connection; see `HotStream`.

    It reconnects whenever the connection ends. Beyond ``buffer_size`` waiting messages, the
    overflow policy decides which are dropped.

    Args:
        parts: its parts.
        telemetry: where to count and report.

    Attributes:
        quota: of a limit over this stream and others.
    """

    def __init__(self, parts: LiveParts, telemetry: Telemetry) -> None:
        super().__init__(telemetry)
        self._parts = parts
        self.quota: Quota | None = None
        telemetry.show("state", lambda: self.state.name)
        if parts.meter is not None:
            telemetry.show("posts_today", parts.meter.today)

    @property
    def state(self) -> ConnectionState:
        """The state of the connection."""
        run = self._run
        return ConnectionState("idle") if run is None else run.reader.state

    def _join(
        self, observer: abc.ObserverBase[list[Message[Any]]], scheduler: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        if has_ended(self):
            started(self)
        return super()._join(observer, scheduler)

    def _new_run(self, before: _LiveRun | None, scheduler: abc.SchedulerBase | None) -> StreamRun:
        del scheduler
        reader = None if before is None else before.reader
        return _LiveRun(self._parts, self.telemetry, reader, self.quota)


class _LiveRun(StreamRun):
    """Reader, buffer and delivering thread.

    Args:
        before: the reader of the last run.
        quota: of a limit over this stream and others.
    """

    def __init__(
        self, parts: LiveParts, telemetry: Telemetry, before: Reader | None, quota: Quota | None
    ) -> None:
        config = parts.config
        super().__init__(telemetry, None if config.is_merged else config.limit, parts.deduplicate)
        self._parts = parts
        self._total_quota = quota or self.quota
        self._newest: Message[Any] | None = None
        self._gaps: list[Interval] = []
        self._error: RxTweetsError | None = None
        file = parts.state_file
        position = None if file is None else file.load()
        self._alive_until = 0.0 if position is None else position.alive_until
        self._newest_id = "" if position is None else position.newest_id
        self._buffer = Buffer(
            config.buffer_size,
            config.overflow,
            self._count_lost,
            self._report_overflow,
            self._total_quota,
            config.max_line,
        )
        self.reader = Reader(
            parts,
            telemetry,
            self._buffer,
            before,
            None if position is None else position.alive_until,
        )
        telemetry.show("queued", lambda: len(self._buffer))
        telemetry.show("lag", lambda: self._newest.lag if self._newest else None)

    def _begin(self) -> None:
        self.reader.start()
        start_thread("rxtweets-deliver", self._deliver, self._delivery_died)

    def _stop(self) -> None:
        self.reader.stop()

    def _discard(self) -> None:
        self._buffer.close(discard=True)
        self.reader.stop()

    def _deliver(self) -> None:
        with self._telemetry.working():
            while blocks := self._buffer.get(CHUNK):
                self._deliver_blocks(blocks)
            if not self._is_limit_reached:  # messages after a limit are not missing
                self._report_gaps(self._newest_id, "")
            self._save(now=True)
            self.end(self._error)

    def _deliver_blocks(self, blocks: list[Any]) -> None:
        messages: list[Message[Any]] = []
        for block in blocks:
            if isinstance(block, Block):
                messages += self._decode(block, messages)
            elif isinstance(block, Opened) and block.gap is not None:
                self._gaps.append(block.gap)
            elif isinstance(block, Closed) and block.tail.strip():
                messages += self._decode_tail(block, messages)
            elif isinstance(block, Ended):
                self._error = block.error
                self._gaps += [] if block.gap is None else [block.gap]
        if messages:
            self._newest = messages[-1]
            self._newest_id = messages[-1].id
            if self._parts.meter is not None:
                self._parts.meter.count(messages)
            self.emit(messages)
        self._save()

    def _decode(self, block: Block, before: list[Message[Any]]) -> list[Message[Any]]:
        if not block.lines and not self._gaps:
            self._alive_until = block.received_at
            return []
        decoded = self._parts.decoder.decode(block.lines, block.received_at, block.known)
        return self._report(decoded, block.received_at, block.connection, before)

    def _decode_tail(self, closed: Closed, before: list[Message[Any]]) -> list[Message[Any]]:
        """Decode a last line without a line feed: it is whole if it is JSON."""
        decoded = self._parts.decoder.decode([closed.tail], closed.at)
        if any(isinstance(other, Undecodable) for other in decoded.others):
            if not closed.by_us:
                self._telemetry.add(received=1, undecodable=1)
                text = f"the end of the connection cut this line off after {len(closed.tail)} bytes"
                self._telemetry.publish(events.UndecodableLine(DecodeError(text, closed.tail)))
            return []
        self._telemetry.add(received=1)
        self._buffer.in_hand += 1
        return self._report(decoded, closed.at, closed.connection, before)

    def _report(
        self, decoded: Decoded, at: float, connection: int, before: list[Message[Any]]
    ) -> list[Message[Any]]:
        """Report gaps, and lines without a message; return the messages."""
        self._alive_until = at
        if self._gaps:
            last = before[-1].id if before else self._newest_id
            self._report_gaps(last, decoded.messages[0].id if decoded.messages else "")
        if decoded.others or decoded.partial:
            self._buffer.in_hand -= len(decoded.others)  # counted here
            report_lines(self._telemetry, decoded)
        for other in decoded.others:
            if isinstance(other, DisconnectNotice):
                self.reader.disconnect(connection, other.problem)
        return decoded.messages

    def _report_gaps(self, last: str, first: str) -> None:
        gaps, self._gaps = self._gaps, []
        for gap in gaps:
            self._telemetry.add(gaps=1)
            start, end = (datetime.fromtimestamp(at, UTC) for at in gap)
            self._telemetry.publish(events.Gap(start, end, last, first))

    def _admit(self, messages: list[Message[Any]]) -> list[Message[Any]]:
        kept = super()._admit(messages)
        self._buffer.in_hand = 0
        return kept

    def _save(self, *, now: bool = False) -> None:
        file = self._parts.state_file
        if file is None or not self._alive_until:
            return
        try:
            file.save(Position(self._alive_until, self._newest_id), now=now)
        except Exception as error:  # noqa: BLE001 - the stream continues without it
            self._telemetry.publish(events.StateFileFailed(str(file.path), error))

    def _delivery_died(self, error: BaseException) -> None:
        with self._telemetry.working():
            self._buffer.close(discard=True)
            self._count_lost(self._buffer.in_hand)
            self.reader.stop()
            self.end(unexpected("delivering", error))

    @property
    def _is_limit_reached(self) -> bool:
        return self._total_quota is not None and self._total_quota.left <= 0

    def _count_lost(self, lines: int) -> None:
        if self._is_limit_reached:
            self._telemetry.add(beyond_limit=lines)
        elif not self._gates:
            self._telemetry.add(unsubscribed=lines)
        else:
            self._telemetry.add(dropped=lines)

    def _report_overflow(self, phase: Burst, dropped: int) -> None:
        config = self._parts.config
        event = overflow_event(phase, config.overflow, config.buffer_size, dropped)
        self._telemetry.publish(event)
