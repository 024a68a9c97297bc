"""Snapshots of counters and of stages."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from rxtweets._messages.representation import representation

__all__ = ["StageStats", "Stats"]


def _figure(meaning: str, default: Any = 0) -> Any:
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True, slots=True)
class Stats:
    """A snapshot of all counters, which add up once a stream is at rest.

    ``received == delivered + dropped + unsubscribed + beyond_limit + undecodable + control``,
    where ``control`` is ``keep_alives + disconnects + unknown``. ``processed + failed`` is the
    number of messages that handlers were given.
    """

    state: str = _figure(
        "state of the connection, see `ConnectionState`; of several the one furthest from "
        "``connected``",
        "idle",
    )
    received: int = _figure("lines received, keep-alives included")
    bytes: int = _figure("bytes of all lines, after decompression")
    delivered: int = _figure("tweets delivered to the subscribers of the stream")
    dropped: int = _figure("lines dropped because the buffer was full")
    unsubscribed: int = _figure("lines that waited when the last subscriber disposed")
    beyond_limit: int = _figure("tweets received beyond the ``limit``; X bills them")
    undecodable: int = _figure("lines that are not JSON, too long, or cut off")
    keep_alives: int = _figure("empty lines")
    disconnects: int = _figure("disconnects that the server announced")
    unknown: int = _figure("lines with JSON that is neither a tweet nor a disconnect")
    partial: int = _figure("delivered tweets that carry errors about parts of them")
    connects: int = _figure("connections requested")
    reconnects: int = _figure("connects that follow another one of the same subscription")
    rate_limits: int = _figure("connects refused: too many in the window")
    connection_limits: int = _figure("connects refused: the token's connection is taken")
    usage_caps: int = _figure("connects refused: the cap of posts is reached")
    server_errors: int = _figure("connects refused: an error of the server or a proxy")
    stalls: int = _figure("connections closed because they were silent for too long")
    reader_crashes: int = _figure("unexpected exits of the process of an isolated reader")
    gaps: int = _figure("times that were missed and that backfill did not cover")
    duplicates: int = _figure("delivered tweets that deduplication left out")
    posts_today: int = _figure("distinct posts since midnight UTC, as X bills them")
    queued: int = _figure("lines that wait in the buffer now")
    in_flight: int = _figure("messages in processors now")
    processed: int = _figure("messages that handlers returned")
    failed: int = _figure("messages that handlers failed")
    retried: int = _figure("attempts of handlers beyond the first one of each message")
    timed_out: int = _figure("calls of handlers that exceeded their time limit")
    expired: int = _figure("messages that exceeded their deadline before their handler started")
    workers_lost: int = _figure("threads, event loops and executors replaced")
    threads_lost: int = _figure("threads that hang now in a call past its time limit")
    failure_handler_errors: int = _figure(
        "calls of ``on_failed`` that raised or broke its contract"
    )
    batches: int = _figure("batches that subscribers took")
    batches_failed: int = _figure("batches on which a subscriber raised")
    batched: int = _figure("messages of batches that subscribers took")
    batched_failed: int = _figure("messages that subscribers failed, singly or by raising")
    unsettled: int = _figure("messages in batches that a subscriber took over and not yet settled")
    subscriber_errors: int = _figure("exceptions of subscribers")
    acknowledger_errors: int = _figure("exceptions of acknowledgers")
    late_acknowledgements: int = _figure(
        "messages acknowledged again, as after a time limit; the first outcome stands"
    )
    acknowledged: int = _figure("messages acknowledged as successful without a batcher")
    redelivered: int = _figure("messages that a broker delivered again")
    dead_lettered: int = _figure("messages stored in a queue for dead letters")
    acks_lost: int = _figure(
        "outcomes that a broker did not get: a lease or a connection had ended; it redelivers"
    )
    broker_failures: int = _figure("losses of the connection to a broker")
    backlog: int = _figure("messages of the group that wait at a broker, as of some seconds ago")
    backlog_age: int = _figure(
        "age of the oldest of them in seconds; 0 if there is none, or the broker cannot tell"
    )
    restarts: int = _figure("sources that failed and were subscribed to again")
    abandoned: int = _figure(
        "messages in flight when a stage was stopped or one of its threads died, and the rest "
        "of a list whose subscriber disposed"
    )
    events_lost: int = _figure("events lost because their observers were too slow")
    lag: float | None = _figure(
        "seconds between writing and arrival of the newest tweet; ``None`` before the first", None
    )

    @property
    def control(self) -> int:
        """Lines about the stream, not in it."""
        return self.keep_alives + self.disconnects + self.unknown

    def as_dict(self) -> dict[str, Any]:
        """Return all figures by name, ``control`` included."""
        return {**asdict(self), "control": self.control}

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return representation(self)


@dataclass(frozen=True, slots=True)
class StageStats:
    """A snapshot of one stage."""

    name: str = _figure("of the stage", MISSING)
    concurrency: int = _figure("limit of concurrent calls, now", MISSING)
    running: int = _figure("calls that run now", MISSING)
    in_flight: int = _figure("messages in the stage now, waiting ones included", MISSING)
    busy_seconds: float = _figure("time spent in calls, running ones included", MISSING)
    capacity_seconds: float = _figure(
        "the concurrency over the life of the stage: the most that calls could have spent", MISSING
    )
    kind: str = _figure("``source``, ``processors``, ``batcher`` or ``subscribers``", "processors")
    received: int = _figure("messages that came in")
    done: int = _figure("messages that were passed on, or succeeded")
    failed: int = _figure("messages that failed here")
    queued: int = _figure("messages that wait here")
    rate: float = _figure("messages per second that came in, over the last ten seconds", 0.0)
    partitions: tuple[int, ...] = _figure(
        "messages that came in, by partition, where the stage has partitions", ()
    )

    @property
    def busy(self) -> float:
        """The share of the capacity that was used, from 0 to 1."""
        return _ratio(self.busy_seconds, self.capacity_seconds)

    def busy_since(self, earlier: StageStats) -> float:
        """Return the share that was used since an earlier snapshot, from 0 to 1."""
        return _ratio(
            self.busy_seconds - earlier.busy_seconds,
            self.capacity_seconds - earlier.capacity_seconds,
        )


for _kind in (Stats, StageStats):
    if _kind.__doc__ is not None:  # python -OO
        _kind.__doc__ = (
            _kind.__doc__.rstrip()
            + "\n\n    Attributes:\n"
            + "".join(
                f"        {figure.name}: {figure.metadata['meaning']}.\n"
                for figure in fields(_kind)
            )
        )


def _ratio(used: float, capacity: float) -> float:
    return min(1.0, max(0.0, used / capacity)) if capacity > 0 else 0.0
