"""Events as lines of the standard library's log, under the name ``rxtweets``.

What went wrong is a warning, what ended a stream an error, the rest is for those who ask for more.
Something that happens thousands of times a second is written once a second, with its count; what is
left at the end of a stream is counted there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from rxtweets._core import events
from rxtweets._messages.message import Failed, Message
from rxtweets._support.notebook_shell import is_notebook

__all__ = ["EventLog", "keep_log_out_of_cells", "line_for"]

log = logging.getLogger("rxtweets")
nowhere = logging.NullHandler()

INTERVAL = 1.0


def keep_log_out_of_cells() -> None:
    """In a notebook, let the log go where the user has sent it, and else nowhere.

    Without this, Python prints the warnings of threads into whatever cell runs just then. They
    are in the picture and in ``errors``; ``logging.basicConfig()`` brings them back.
    """
    if is_notebook() and nowhere not in log.handlers:
        log.addHandler(nowhere)


class EventLog:
    """Writes events to the log, each frequent kind at most once an interval.

    Args:
        interval: seconds.
        clock: monotonic seconds.
    """

    def __init__(
        self, interval: float = INTERVAL, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = interval
        self._clock = clock
        self._written: dict[type[events.Event], float] = {}
        self._left_out: dict[type[events.Event], tuple[int, int]] = {}
        self._lock = threading.Lock()

    def __call__(self, event: events.Event) -> None:
        """Write the event, or leave it out for now."""
        if isinstance(event, ENDS):
            self._account_for_the_rest()
        level, text = line_for(event)
        if not log.isEnabledFor(level):
            return
        more = self._due(event, level)
        if more is None:
            return
        line = " ".join(text.split())  # what a server sends cannot forge lines of the log
        where = f"{event.part}: " if event.part else ""
        log.log(level, "%s%s%s", where, line, f" (and {more} more like it)" if more else "")

    def _account_for_the_rest(self) -> None:
        with self._lock:
            rest, self._left_out = self._left_out, {}
        for kind, (level, count) in rest.items():
            log.log(level, "%d more of %s, each left out here", count, kind.__name__)

    def _due(self, event: events.Event, level: int) -> int | None:
        """How many of its kind were left out before this one; ``None`` to leave it out too."""
        kind, now = type(event), self._clock()
        if kind not in FREQUENT:
            return 0
        with self._lock:
            if now - self._written.get(kind, -self._interval) < self._interval:
                self._left_out[kind] = level, self._left_out.get(kind, (level, 0))[1] + 1
                return None
            self._written[kind] = now
            return self._left_out.pop(kind, (level, 0))[1]


ENDS = (events.StreamEnded, events.PipelineEnded)
"""After these, there may be no other line that could say how many were left out."""

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


def line_for(event: events.Event) -> tuple[int, str]:  # noqa: C901, PLR0911, PLR0912, PLR0915 - a line an event
    """The level of the event, and what happened in words."""
    match event:
        case events.Connecting(number, url):
            return logging.DEBUG, f"connection {number}: connecting to {url}"
        case events.Connected(number, version):
            return logging.INFO, f"connection {number}: connected over {version}"
        case events.DisconnectAnnounced(kind, detail):
            return logging.INFO, f"the server announces a disconnect ({kind}): {detail}"
        case events.Disconnected(number, error, lines, seconds):
            why = "closed from here" if error is None else str(error)
            lived = f"over after {lines} lines in {seconds:.1f} s"
            return logging.INFO, f"connection {number}: {lived}: {why}"
        case events.Reconnecting(delay, attempt, error, wait_from):
            count = f"{wait_from}, failure {attempt} in a row"
            return logging.WARNING, f"connecting again in {delay:.2f} s ({count}): {error}"
        case events.StateChanged(state):
            return logging.DEBUG, f"the connection is {state}"
        case events.Gap(start, end):
            missed = f"from {start:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S} UTC"
            return logging.WARNING, f"missed what came {missed} ({(end - start)})"
        case events.BackfillRequested(number, minutes):
            return logging.INFO, f"connection {number}: asked for the last {minutes} minutes too"
        case events.BackfillRefused(error):
            return logging.WARNING, f"this account has no backfill: {error}"
        case events.ConnectionsClosed(count, None):
            return logging.WARNING, f"X gave up {count} connections of this token"
        case events.ConnectionsClosed(_, error):
            return logging.WARNING, f"X could not be asked to give up connections: {error}"
        case events.LimitReached(messages, _):
            return logging.INFO, f"the limit is reached after {messages} messages"
        case events.PartEnded(error):
            ended = "complete" if error is None else f"failed: {error}"
            level = logging.INFO if error is None else logging.ERROR
            return level, f"this connection is {ended}; the others go on"
        case events.StateFileFailed(path, error):
            return logging.WARNING, f"the position was not written to {path}: {error}"
        case events.RulesSynced(added, deleted, kept):
            return logging.INFO, f"rules: {added} added, {deleted} deleted, {kept} kept"
        case events.StreamEnded(error):
            ended = "the stream is complete" if error is None else f"the stream has failed: {error}"
            return logging.INFO if error is None else logging.ERROR, ended
        case events.OverflowStarted(policy, capacity):
            return logging.WARNING, f"{capacity} messages are waiting: dropping ({policy})"
        case events.OverflowEnded(_, dropped):
            return logging.WARNING, f"the burst is over: {dropped} messages dropped"
        case events.UndecodableLine(error, place):
            left_out = f"{_at(place)}a line was left out: {error}"
            return logging.WARNING, f"{left_out}; it begins {error.line[:80]!r}"
        case events.UnknownMessage(_, line, place):
            return logging.WARNING, f"{_at(place)}a message of unknown shape: {line[:200]!r}"
        case events.PartialErrors(message):
            return logging.DEBUG, f"tweet {message.id} came with errors about parts of it"
        case events.HandlerFailed(message):
            return logging.WARNING, f"the handler failed {_named(message)}: {_reason(message)}"
        case events.HandlerRetried(message, attempt, delay):
            again = f"attempt {attempt} failed, again in {delay:.2f} s"
            return logging.INFO, f"{_named(message)}: {again}: {_reason(message)}"
        case events.FailureHandlerFailed(messages, error):
            return logging.WARNING, f"on_failed raised {error!r} on {len(messages)} messages"
        case events.WorkerReplaced(what, error, messages, lost):
            fate = "hangs and is given up" if lost else "died"
            return logging.WARNING, f"{what} {fate} with {messages} messages: {error!r}"
        case events.SubscriberFailed(value, error):
            return logging.WARNING, f"a subscriber raised {error!r} on {str(value)[:80]}"
        case events.PipelineStarted(topology):
            names = ", ".join(each.name for each in topology.batchers) or "none"
            return logging.DEBUG, f"the pipeline has begun; batchers: {names}"
        case events.PipelineEnded(None, seconds):
            return logging.DEBUG, f"the pipeline is over after {seconds:.1f} s"
        case events.PipelineEnded(error, seconds):
            return logging.ERROR, f"the pipeline has failed after {seconds:.1f} s: {error}"
        case events.Paused() | events.Resumed():
            did = "paused" if isinstance(event, events.Paused) else "resumed"
            return logging.INFO, f"the pipeline is {did}"
        case events.SourceRestarting(source, attempt, delay, error):
            count = f"failure {attempt} in a row"
            return (
                logging.WARNING,
                f"source {source} restarts in {delay:.2f} s ({count}): {error!r}",
            )
        case events.SourceFailed(source, error):
            return logging.ERROR, f"source {source} has failed for good: {error}"
        case events.BatchStarted(batch):
            return logging.DEBUG, f"a batch of {len(batch)} is being delivered"
        case events.FailureHandled(messages, seconds):
            return logging.DEBUG, f"{len(messages)} failures were handled in {seconds:.3f} s"
        case events.BatchFailed(batch, error):
            return logging.WARNING, f"a batch of {len(batch)} failed: {error!r}"
        case events.AcknowledgerFailed(messages, error):
            return logging.WARNING, f"{len(messages)} messages not acknowledged: {error!r}"
        case events.DrainUnavailable(number, source):
            return logging.WARNING, (
                f"source {number} ({source}) cannot be drained: an operator subscribes to it later "
                "or on another thread; a stop drops and counts what waits in it"
            )
        case events.Abandoned(count, where):
            return logging.WARNING, f"{count} messages in flight were abandoned in {where}"
        case _:
            return logging.DEBUG, repr(event)


def _at(place: str) -> str:
    return f"{place}: " if place else ""


def _named(message: Message[object]) -> str:
    return f"tweet {message.id}" if message.id else "a message without an id"


def _reason(message: Message[object]) -> str:
    status = message.status
    return repr(status.reason) if isinstance(status, Failed) else "ok"
