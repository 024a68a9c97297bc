"""The options of a stream, parsed once before its construction."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self, cast

from rxtweets._support.validation import iterable, path_text, seconds, whole_number
from rxtweets.api._endpoints import KNOWN, Endpoint, warn_of_unknown
from rxtweets.api._options import (
    STALL_TIMEOUT,
    ConnectionOptions,
    ServerOptions,
    boolean,
    connection_options,
)
from rxtweets.errors import ConfigurationError
from rxtweets.streams._backoff import Backoff
from rxtweets.streams._billing import Limit, checked_limit
from rxtweets.streams._buffer import Overflow, check_overflow
from rxtweets.streams._cores import Cores, checked_cores
from rxtweets.streams._gaps import MOST_MINUTES, Backfill
from rxtweets.streams._lines import DEFAULT_MAX_LINE

__all__ = ["Partition", "StreamConfig", "StreamOptions", "TweetOptions"]

Partition = int | Iterable[int] | None

DEFAULT_NAMES: Mapping[str, Sequence[str]] = {
    "tweet_fields": ("author_id", "created_at", "entities", "lang", "public_metrics"),
    "expansions": ("author_id",),
}
PARAMETERS = {"like_fields": "like_with_tweet_author.fields"}
"""X's names of options; those of the others have a dot for the underscore."""

MOST_CONNECTIONS = 2
DAY = timedelta(hours=24)


class StreamOptions(ServerOptions, total=False):
    """Options of every stream beside those of `ServerOptions`, all keywords.

    Attributes:
        backfill_minutes: minutes before a connection that X sends again, for access levels that
            have backfill: 0 to 5. ``"auto"`` asks after each gap for as many as it needs, and stops
            asking when X refuses (`BackfillRefused`). Each message is delivered once, and a `Gap`
            reports the rest.
        connections: 2 holds a second connection with the same content, for access levels that
            allow it; each message is delivered once, and a gap is what both missed.
        state_file: a file in which the stream notes every second until when it has been read. The
            next run of the program asks for what it missed and reports the rest.
        start_time: replays the time from then on, up to a day ago, on streams that have replay;
            with `end_time` the stream completes there. Datetimes with a time zone.
        end_time: see `start_time`.
        limit: completes after this number of messages, or after a `timedelta` (`LimitReached`); X
            bills each post once in a UTC day, and ``stats().posts_today`` counts them. A connection
            reads little more than its limit; ``stats().beyond_limit`` counts the rest.
        free_stale_connections: if X refuses because the token's connection is in use, ask it to
            close this stream's connections. This also ends those of other programs and partitions,
            which then reconnect. Off by default.
        buffer_size: messages that may wait for the subscribers; 10,000 by default.
        overflow: the policy for more messages: ``drop_oldest`` (default), ``drop_newest``, or
            ``block``, which stops reading; X closes the connection of a client that stops.
        stall_timeout: seconds without a byte until a connection is closed, 30 by default; X sends
            an empty line every 20.
        backoff: when to reconnect; see `Backoff`.
        max_line_mb: the longest line in megabytes, 16 by default.
        isolated: read in a separate process, which no handler can delay; ``buffer_size`` messages
            may wait there too. Off by default; on POSIX systems. It passes the authorities of a
            `verify` context to the process, but not a client's own certificate.
        reader_cores: numbers of the processor cores for the process of ``isolated``, such as
            ``{0}``; all its connections use them. By default those of the program. On Linux.
    """

    backfill_minutes: int | Literal["auto"] | None
    connections: int
    state_file: str | os.PathLike[str] | None
    start_time: datetime | None
    end_time: datetime | None
    limit: int | timedelta | None
    free_stale_connections: bool
    buffer_size: int
    overflow: Overflow
    stall_timeout: float | timedelta
    backoff: Backoff
    max_line_mb: float
    isolated: bool
    reader_cores: Iterable[int]


class TweetOptions(StreamOptions, total=False):
    """Options of streams of tweets and likes, beside those of `StreamOptions`.

    They choose the fields that X sends; an empty sequence leaves the choice to X. A name that is
    not in X's description gets an `UnknownNameWarning` with a suggestion, and is sent all the same.

    Attributes:
        tweet_fields: X's ``tweet.fields``; by default author_id, created_at, entities, lang and
            public_metrics.
        user_fields: X's ``user.fields``.
        media_fields: X's ``media.fields``.
        place_fields: X's ``place.fields``.
        poll_fields: X's ``poll.fields``.
        like_fields: X's ``like_with_tweet_author.fields``, of streams of likes.
        expansions: X's ``expansions``; by default author_id.
    """

    tweet_fields: Iterable[str]
    user_fields: Iterable[str]
    media_fields: Iterable[str]
    place_fields: Iterable[str]
    poll_fields: Iterable[str]
    like_fields: Iterable[str]
    expansions: Iterable[str]


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """The parsed options of one stream.

    Attributes:
        endpoint: the stream of X.
        connection: where and how to connect.
        params: of the query, on every connection.
        partitions: numbers of the partitions; ``None`` for a stream without partitions.
        connections: connections with the same content.
        backfill: minutes, ``"auto"`` or ``None``.
        replay_from: the start of a replay, in UTC.
        is_replay: the stream has a start or an end.
        limit: of messages or time.
        free_stale_connections: whether X may close this stream's connections.
        state_file: path of the file; ``None`` for none.
        buffer_size: lines.
        overflow: policy for more lines.
        backoff: schedules.
        max_line: bytes.
        isolated: read in a separate process.
        reader_cores: of that process.
    """

    endpoint: Endpoint
    connection: ConnectionOptions
    params: Mapping[str, str]
    partitions: Sequence[int | None]
    connections: int
    backfill: Backfill
    replay_from: datetime | None
    is_replay: bool
    limit: Limit
    free_stale_connections: bool
    state_file: str | None
    buffer_size: int
    overflow: Overflow
    backoff: Backoff
    max_line: int
    isolated: bool
    reader_cores: Cores

    @classmethod
    def from_options(
        cls, endpoint: Endpoint, options: StreamOptions, partition: Partition = None
    ) -> Self:
        """Parse the options.

        Raises:
            ConfigurationError: an option is unknown or cannot work, or there is no token.
        """
        known = TweetOptions if endpoint.has_fields else StreamOptions
        connection = connection_options(options, known, options.get("stall_timeout", STALL_TIMEOUT))
        names = _names(endpoint, options) if endpoint.has_fields else {}
        times = _times(endpoint, options)
        path, cores = options.get("state_file"), options.get("reader_cores")
        megabytes = seconds("max_line_mb", options.get("max_line_mb", DEFAULT_MAX_LINE / 2**20))
        config = cls(
            endpoint=endpoint,
            connection=connection,
            params={
                **names,
                **{name: f"{time:%Y-%m-%dT%H:%M:%SZ}" for name, time in times.items()},
            },
            partitions=_partitions(endpoint, partition),
            connections=whole_number("connections", options.get("connections", 1)),
            backfill=_backfill(options.get("backfill_minutes")),
            replay_from=times.get("start_time"),
            is_replay=bool(times),
            limit=checked_limit(options.get("limit")),
            free_stale_connections=boolean(
                "free_stale_connections", options.get("free_stale_connections", False)
            ),
            state_file=None if path is None else path_text("state_file", path),
            buffer_size=whole_number("buffer_size", options.get("buffer_size", 10_000)),
            overflow=check_overflow(options.get("overflow", "drop_oldest")),
            backoff=options.get("backoff", Backoff()),
            max_line=int(megabytes * 2**20),
            isolated=boolean("isolated", options.get("isolated", False)),
            reader_cores=checked_cores(cores),
        )
        config._check(cores)
        return config

    def _check(self, cores: Iterable[int] | None) -> None:
        if not isinstance(self.backoff, Backoff):
            raise ConfigurationError(f"backoff={self.backoff!r}: give a rxtweets.Backoff")
        if cores is not None and not self.isolated:
            raise ConfigurationError("reader_cores is for isolated=True: give both, or none")
        if self.connections > MOST_CONNECTIONS:
            raise ConfigurationError(
                f"connections={self.connections}: X allows {MOST_CONNECTIONS} at most"
            )
        if self.connections > 1 and len(self.partitions) > 1:
            raise ConfigurationError(
                f"connections={self.connections} needs one partition; make a stream for each"
            )


def _partitions(endpoint: Endpoint, partition: Partition) -> list[int | None]:
    most = endpoint.partitions
    if partition is None:
        return list(range(1, most + 1)) if most else [None]
    if not most:
        raise ConfigurationError(f"partition={partition!r}: {endpoint.name} has no partitions")
    is_one = isinstance(partition, int | str)
    given: list[Any] = [partition] if is_one else list(iterable("partition", partition, "[1, 2]"))
    for number in given:
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= most:
            raise ConfigurationError(f"partition={number!r}: {endpoint.name} has 1 to {most}")
    if not given or len(set(given)) < len(given):
        raise ConfigurationError(f"partition={partition!r}: give each partition once")
    return given


def _backfill(minutes: Backfill) -> Backfill:
    if minutes is None or minutes == "auto":
        return minutes
    if isinstance(minutes, str):
        raise ConfigurationError(f"backfill_minutes={minutes!r}: give 0 to 5, or 'auto'")
    whole_number("backfill_minutes", minutes, least=0)
    if minutes > MOST_MINUTES:
        raise ConfigurationError(f"backfill_minutes={minutes}: X gives {MOST_MINUTES} at most")
    return minutes


def _times(endpoint: Endpoint, options: StreamOptions) -> dict[str, datetime]:
    given = {"start_time": options.get("start_time"), "end_time": options.get("end_time")}
    times: dict[str, datetime] = {}
    for name, time in given.items():
        if time is None:
            continue
        if not endpoint.replays:
            raise ConfigurationError(f"{name}: {endpoint.name} has no replay")
        if not isinstance(time, datetime) or time.tzinfo is None:
            raise ConfigurationError(
                f"{name}={time!r}: give a datetime with a time zone, as datetime.now(UTC)"
            )
        times[name] = time.astimezone(UTC)
    start, end = times.get("start_time"), times.get("end_time")
    if start is not None and start < datetime.now(UTC) - DAY:
        raise ConfigurationError(f"start_time={given['start_time']}: X replays the last 24 hours")
    if start is not None and end is not None and end <= start:
        raise ConfigurationError(
            f"end_time={given['end_time']} is not after start_time={given['start_time']}"
        )
    return times


def _names(endpoint: Endpoint, options: StreamOptions) -> dict[str, str]:
    is_likes = endpoint.carries == "likes"
    params = {}
    for option in KNOWN:
        default = () if is_likes else DEFAULT_NAMES.get(option, ())
        value = cast("Mapping[str, Any]", options).get(option, default)
        names = list(iterable(option, value, "['id', 'text']"))
        if not all(isinstance(name, str) and name for name in names):
            raise ConfigurationError(
                f"{option}={value!r}: give a list of names, such as ['id', 'text']"
            )
        if option == "like_fields" and names and not is_likes:
            raise ConfigurationError(f"like_fields: {endpoint.name} carries no likes")
        warn_of_unknown(option, names)
        if names:
            parameter = PARAMETERS.get(option, option.replace("_", "."))
            params[parameter] = ",".join(dict.fromkeys(names))
    return params
