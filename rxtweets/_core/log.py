"""Events as lines of the log ``rxtweets``.

A failure is a warning, the final error of a stream is an error, the rest is info or debug. A
frequent event is logged once a second, with the number of events left out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from logging import DEBUG, ERROR, INFO, WARNING
from typing import Any

from rxtweets._core import events
from rxtweets._core.failures import Failure, Failures
from rxtweets._messages.message import Failed, Message
from rxtweets._support.notebook_shell import is_notebook

__all__ = ["EventLog", "keep_log_out_of_cells"]

log = logging.getLogger("rxtweets")
nowhere = logging.NullHandler()

INTERVAL = 1.0
"""Seconds between two lines of a frequent event."""

REMINDER = 8
"""Attempts to reach a broker until the next line about it: each worker writes one."""

ENDS = (events.StreamEnded, events.PipelineEnded, events.PartEnded)
"""Errors if they have one. Few lines follow them, so they count the events left out."""


def keep_log_out_of_cells() -> None:
    """In a notebook, log only where the user has configured it.

    Otherwise Python prints warnings of threads into the cell that runs. They are in the picture
    and in ``errors``; ``logging.basicConfig()`` prints them again.
    """
    if is_notebook() and nowhere not in log.handlers:
        log.addHandler(nowhere)


class EventLog:
    """Writes events to the log, and keeps failures.

    Args:
        interval: seconds between two lines of a frequent event.
        clock: monotonic seconds.
    """

    def __init__(
        self, interval: float = INTERVAL, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.failures = Failures()
        self._interval = interval
        self._clock = clock
        self._written: dict[type[events.Event], float] = {}
        self._left_out: dict[type[events.Event], tuple[int, int]] = {}
        self._lock = threading.Lock()

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, ENDS):
            self._count_left_out()
        level, line = LINES.get(type(event), (DEBUG, "{0!r}"))
        if isinstance(event, ENDS) and event.error is not None:
            level = ERROR
        if isinstance(event, events.BrokerLost) and event.attempt > 1 and event.attempt % REMINDER:
            level = INFO
        is_logged = log.isEnabledFor(level)
        if level < WARNING and not is_logged:
            return
        # Split and joined, so that text of a server cannot forge lines of the log.
        text = " ".join((line.format(event) if isinstance(line, str) else line(event)).split())
        text = f"{event.part}: {text}" if event.part else text
        if level >= WARNING:
            self.failures.add(Failure(time.time(), text, event))
        if is_logged and (left_out := self._due(event, level)) is not None:
            log.log(level, "%s%s", text, f" (and {left_out} more like it)" if left_out else "")

    def _count_left_out(self) -> None:
        with self._lock:
            left_out, self._left_out = self._left_out, {}
        for kind, (level, count) in left_out.items():
            log.log(level, "%d more of %s were left out", count, kind.__name__)

    def _due(self, event: events.Event, level: int) -> int | None:
        # The number left out before this event; None to leave this one out as well.
        kind, now = type(event), self._clock()
        if kind not in FREQUENT:
            return 0
        with self._lock:
            if now - self._written.get(kind, -self._interval) < self._interval:
                self._left_out[kind] = level, self._left_out.get(kind, (level, 0))[1] + 1
                return None
            self._written[kind] = now
            return self._left_out.pop(kind, (level, 0))[1]


def _named(message: Message[Any]) -> str:
    return f"tweet {message.id}" if message.id else "a message without an id"


def _reason(message: Message[Any]) -> str:
    return repr(message.status.reason) if isinstance(message.status, Failed) else "ok"


def _ended(event: events.StreamEnded | events.PipelineEnded | events.PartEnded) -> str:
    return "completed" if event.error is None else f"failed: {event.error}"


def _disconnected(event: events.Disconnected) -> str:
    why = "closed by rxtweets" if event.error is None else str(event.error)
    lived = f"ended after {event.lines} lines in {event.seconds:.1f} s"
    return f"connection {event.number}: {lived}: {why}"


def _connections_closed(event: events.ConnectionsClosed) -> str:
    if event.error is None:
        return f"X closed {event.count} connections of this token"
    return f"the request to close connections of this token failed: {event.error}"


def _left_out(event: events.UndecodableLine | events.UnknownMessage) -> str:
    place = f"{event.place}: " if event.place else ""
    if isinstance(event, events.UnknownMessage):
        return f"{place}a message of unknown shape: {event.line[:200]!r}"
    return f"{place}a line was left out: {event.error}; it begins {event.error.line[:80]!r}"


def _retried(event: events.HandlerRetried) -> str:
    then = f"attempt {event.attempt} failed, next one in {event.delay:.2f} s"
    return f"{_named(event.message)}: {then}: {_reason(event.message)}"


def _replaced(event: events.WorkerReplaced) -> str:
    fate = "hangs" if event.lost else "died"
    return f"{event.worker} {fate} with {event.messages} messages and was replaced: {event.error!r}"


def _pipeline_started(event: events.PipelineStarted) -> str:
    names = ", ".join(stage.name for stage in event.topology.batchers)
    return f"the pipeline started; batchers: {names or 'none'}"


Line = tuple[int, str | Callable[[Any], str]]
"""The level, and a template for the event or a function of it."""

RARE: dict[type[events.Event], Line] = {
    events.StateChanged: (DEBUG, "the connection is {0.state}"),
    events.Connecting: (DEBUG, "connection {0.number}: connecting to {0.url}"),
    events.Connected: (INFO, "connection {0.number}: connected over {0.http_version}"),
    events.DisconnectAnnounced: (
        INFO,
        "the server announces a disconnect ({0.disconnect_type}): {0.detail}",
    ),
    events.Disconnected: (INFO, _disconnected),
    events.Reconnecting: (
        WARNING,
        "reconnecting in {0.delay:.2f} s ({0.wait_from}, failure {0.attempt} in a row): {0.error}",
    ),
    events.ConnectionsClosed: (WARNING, _connections_closed),
    events.PartEnded: (INFO, lambda event: f"this connection {_ended(event)}; the others continue"),
    events.StreamEnded: (INFO, lambda event: f"the stream {_ended(event)}"),
    events.LimitReached: (INFO, "the limit is reached after {0.messages} messages"),
    events.RulesSynced: (INFO, "rules: {0.added} added, {0.deleted} deleted, {0.kept} kept"),
    events.Gap: (
        WARNING,
        lambda event: f"gap of {event.end - event.start} from {event.start:%Y-%m-%d %H:%M:%S} UTC",
    ),
    events.BackfillRequested: (
        INFO,
        "connection {0.number}: requested a backfill of {0.minutes} minutes",
    ),
    events.BackfillRefused: (WARNING, "this account has no backfill: {0.error}"),
    events.StateFileFailed: (WARNING, "the state file {0.path} could not be written: {0.error}"),
    events.OverflowStarted: (
        WARNING,
        "the buffer is full with {0.capacity} messages: dropping ({0.policy})",
    ),
    events.OverflowEnded: (WARNING, "the buffer has room again: {0.dropped} messages dropped"),
    events.Abandoned: (WARNING, "{0.count} messages in flight were abandoned in {0.where}"),
    events.PipelineStarted: (DEBUG, _pipeline_started),
    events.PipelineEnded: (
        DEBUG,
        lambda event: f"after {event.seconds:.1f} s the pipeline {_ended(event)}",
    ),
    events.BrokerReconnected: (WARNING, "the broker is back after {0.seconds:.1f} s"),
    events.Paused: (INFO, "the pipeline is paused"),
    events.Resumed: (INFO, "the pipeline is resumed"),
    events.SourceRestarting: (
        WARNING,
        "source {0.source} restarts in {0.delay:.2f} s (failure {0.attempt} in a row): {0.error!r}",
    ),
    events.SourceFailed: (ERROR, "source {0.source} failed for good: {0.error}"),
    events.DrainUnavailable: (
        WARNING,
        (
            "source {0.number} ({0.source}) cannot be drained: an operator subscribes to it later "
            "or on another thread; a stop drops and counts the messages that wait in it"
        ),
    ),
}

FREQUENT: dict[type[events.Event], Line] = {
    events.BrokerLost: (
        WARNING,
        "the broker is lost, next attempt in {0.delay:.2f} s (failure {0.attempt}): {0.error}",
    ),
    events.AcknowledgementsLost: (
        WARNING,
        lambda event: (
            f"{event.messages} messages will be delivered again: "
            f"{event.error or 'their lease had ended'}"
        ),
    ),
    events.DeadLettered: (
        WARNING,
        "message {0.key} is a dead letter after {0.attempts} deliveries: {0.reason!r}",
    ),
    events.UndecodableLine: (WARNING, _left_out),
    events.UnknownMessage: (WARNING, _left_out),
    events.PartialErrors: (DEBUG, "tweet {0.message.id} carries errors about parts of it"),
    events.HandlerFailed: (
        WARNING,
        lambda event: f"the handler failed {_named(event.message)}: {_reason(event.message)}",
    ),
    events.HandlerRetried: (INFO, _retried),
    events.WorkerReplaced: (WARNING, _replaced),
    events.FailureHandled: (
        DEBUG,
        lambda event: f"on_failed handled {len(event.messages)} messages in {event.seconds:.3f} s",
    ),
    events.FailureHandlerFailed: (
        WARNING,
        lambda event: f"on_failed raised {event.error!r} on {len(event.messages)} messages",
    ),
    events.BatchStarted: (DEBUG, "delivering a batch of {0.batch.info.size}"),
    events.BatchDelivered: (
        DEBUG,
        "a batch of {0.batch.info.size} was delivered in {0.seconds:.3f} s",
    ),
    events.BatchFailed: (WARNING, "a batch of {0.batch.info.size} failed: {0.error!r}"),
    events.SubscriberFailed: (
        WARNING,
        lambda event: f"a subscriber raised {event.error!r} on {str(event.value)[:80]}",
    ),
    events.AcknowledgerFailed: (
        WARNING,
        lambda event: f"{len(event.messages)} messages were not acknowledged: {event.error!r}",
    ),
}

LINES = RARE | FREQUENT
