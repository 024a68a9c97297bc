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

FREQUENT = {
    events.AcknowledgerFailed,
    events.BatchDelivered,
    events.BatchFailed,
    events.BatchStarted,
    events.FailureHandled,
    events.FailureHandlerFailed,
    events.HandlerFailed,
    events.HandlerRetried,
    events.PartialErrors,
    events.SubscriberFailed,
    events.UndecodableLine,
    events.UnknownMessage,
    events.WorkerReplaced,
}

ENDS = (events.StreamEnded, events.PipelineEnded, events.PartEnded)
"""Errors if they have one. Few lines follow them, so they count the events left out."""


def keep_log_out_of_cells() -> None:
    """In a notebook, log only where the user has configured it.

    Otherwise Python prints warnings of threads into the cell that runs. They are in the picture
    and in ``errors`` anyway; ``logging.basicConfig()`` prints them again.
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
        level, describe = LINES.get(type(event), (DEBUG, repr))
        if isinstance(event, ENDS) and event.error is not None:
            level = ERROR
        is_logged = log.isEnabledFor(level)
        if level < WARNING and not is_logged:
            return
        # Split and joined, so that text of a server cannot forge lines of the log.
        text = " ".join(describe(event).split())
        text = f"{event.part}: {text}" if event.part else text
        if level >= WARNING:
            self.failures.add(Failure(time.time(), text, event))
        if is_logged and (left_out := self._due(event, level)) is not None:
            log.log(level, "%s%s", text, f" (and {left_out} more like it)" if left_out else "")

    def _count_left_out(self) -> None:
        with self._lock:
            left_out, self._left_out = self._left_out, {}
        for kind, (level, count) in left_out.items():
            log.log(level, "%d more of %s, each left out here", count, kind.__name__)

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


def _ended(event: events.StreamEnded | events.PipelineEnded | events.PartEnded) -> str:
    return "completed" if event.error is None else f"failed: {event.error}"


def _place(event: events.UndecodableLine | events.UnknownMessage) -> str:
    return f"{event.place}: " if event.place else ""


def _named(message: Message[Any]) -> str:
    return f"tweet {message.id}" if message.id else "a message without an id"


def _reason(message: Message[Any]) -> str:
    return repr(message.status.reason) if isinstance(message.status, Failed) else "ok"


LINES: dict[type[events.Event], tuple[int, Callable[[Any], str]]] = {
    # Connections.
    events.StateChanged: (DEBUG, lambda e: f"the connection is {e.state}"),
    events.Connecting: (DEBUG, lambda e: f"connection {e.number}: connecting to {e.url}"),
    events.Connected: (INFO, lambda e: f"connection {e.number}: connected over {e.http_version}"),
    events.DisconnectAnnounced: (
        INFO,
        lambda e: f"the server announces a disconnect ({e.disconnect_type}): {e.detail}",
    ),
    events.Disconnected: (
        INFO,
        lambda e: (
            f"connection {e.number}: ended after {e.lines} lines in {e.seconds:.1f} s: "
            f"{'closed by rxtweets' if e.error is None else e.error}"
        ),
    ),
    events.Reconnecting: (
        WARNING,
        lambda e: (
            f"reconnecting in {e.delay:.2f} s ({e.wait_from}, failure {e.attempt} in a row): "
            f"{e.error}"
        ),
    ),
    events.ConnectionsClosed: (
        WARNING,
        lambda e: (
            f"X closed {e.count} connections of this token"
            if e.error is None
            else f"the request to close connections of this token failed: {e.error}"
        ),
    ),
    events.PartEnded: (INFO, lambda e: f"this connection {_ended(e)}; the others continue"),
    events.StreamEnded: (INFO, lambda e: f"the stream {_ended(e)}"),
    events.LimitReached: (INFO, lambda e: f"the limit is reached after {e.messages} messages"),
    events.RulesSynced: (
        INFO,
        lambda e: f"rules: {e.added} added, {e.deleted} deleted, {e.kept} kept",
    ),
    # Gaps.
    events.Gap: (
        WARNING,
        lambda e: (
            f"gap from {e.start:%Y-%m-%d %H:%M:%S} to {e.end:%H:%M:%S} UTC ({e.end - e.start})"
        ),
    ),
    events.BackfillRequested: (
        INFO,
        lambda e: f"connection {e.number}: requested a backfill of {e.minutes} minutes",
    ),
    events.BackfillRefused: (WARNING, lambda e: f"this account has no backfill: {e.error}"),
    events.StateFileFailed: (
        WARNING,
        lambda e: f"the state file {e.path} could not be written: {e.error}",
    ),
    # Lines and messages of a stream.
    events.OverflowStarted: (
        WARNING,
        lambda e: f"the buffer is full with {e.capacity} messages: dropping ({e.policy})",
    ),
    events.OverflowEnded: (
        WARNING,
        lambda e: f"the buffer has room again: {e.dropped} messages dropped",
    ),
    events.UndecodableLine: (
        WARNING,
        lambda e: f"{_place(e)}a line was left out: {e.error}; it begins {e.error.line[:80]!r}",
    ),
    events.UnknownMessage: (
        WARNING,
        lambda e: f"{_place(e)}a message of unknown shape: {e.line[:200]!r}",
    ),
    events.PartialErrors: (
        DEBUG,
        lambda e: f"{_named(e.message)} carries errors about parts of it",
    ),
    # Handlers.
    events.HandlerFailed: (
        WARNING,
        lambda e: f"the handler failed {_named(e.message)}: {_reason(e.message)}",
    ),
    events.HandlerRetried: (
        INFO,
        lambda e: (
            f"{_named(e.message)}: attempt {e.attempt} failed, next one in {e.delay:.2f} s: "
            f"{_reason(e.message)}"
        ),
    ),
    events.WorkerReplaced: (
        WARNING,
        lambda e: (
            f"{e.what} {'hangs' if e.lost else 'died'} with {e.messages} messages and was "
            f"replaced: {e.error!r}"
        ),
    ),
    events.FailureHandled: (
        DEBUG,
        lambda e: f"on_failed handled {len(e.messages)} messages in {e.seconds:.3f} s",
    ),
    events.FailureHandlerFailed: (
        WARNING,
        lambda e: f"on_failed raised {e.error!r} on {len(e.messages)} messages",
    ),
    # Subscribers and acknowledgers.
    events.BatchStarted: (DEBUG, lambda e: f"delivering a batch of {len(e.batch)}"),
    events.BatchDelivered: (
        DEBUG,
        lambda e: f"a batch of {len(e.batch)} was delivered in {e.seconds:.3f} s",
    ),
    events.BatchFailed: (WARNING, lambda e: f"a batch of {len(e.batch)} failed: {e.error!r}"),
    events.SubscriberFailed: (
        WARNING,
        lambda e: f"a subscriber raised {e.error!r} on {str(e.value)[:80]}",
    ),
    events.AcknowledgerFailed: (
        WARNING,
        lambda e: f"{len(e.messages)} messages were not acknowledged: {e.error!r}",
    ),
    events.Abandoned: (
        WARNING,
        lambda e: f"{e.count} messages in flight were abandoned in {e.where}",
    ),
    # Pipelines.
    events.PipelineStarted: (
        DEBUG,
        lambda e: (
            "the pipeline started; batchers: "
            f"{', '.join(stage.name for stage in e.topology.batchers) or 'none'}"
        ),
    ),
    events.PipelineEnded: (DEBUG, lambda e: f"after {e.seconds:.1f} s the pipeline {_ended(e)}"),
    events.Paused: (INFO, lambda _: "the pipeline is paused"),
    events.Resumed: (INFO, lambda _: "the pipeline is resumed"),
    events.SourceRestarting: (
        WARNING,
        lambda e: (
            f"source {e.source} restarts in {e.delay:.2f} s (failure {e.attempt} in a row): "
            f"{e.error!r}"
        ),
    ),
    events.SourceFailed: (ERROR, lambda e: f"source {e.source} failed for good: {e.error}"),
    events.DrainUnavailable: (
        WARNING,
        lambda e: (
            f"source {e.number} ({e.source}) cannot be drained: an operator subscribes to it "
            "later or on another thread; a stop drops and counts the messages that wait in it"
        ),
    ),
}
