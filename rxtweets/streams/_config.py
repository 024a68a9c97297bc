"""The options of a stream, parsed once before its construction."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self, get_args

from rxtweets._support.validation import (
    choice,
    flag,
    instance,
    iterable,
    number,
    path_text,
    whole_number,
)
from rxtweets.api._endpoints import KNOWN, Endpoint, warn_of_unknown
from rxtweets.api._options import (
    ConnectionOptions,
    Parsers,
    ServerOptions,
    connection_options,
    parsed_options,
)
from rxtweets.errors import ConfigurationError
from rxtweets.streams._backoff import Backoff
from rxtweets.streams._billing import Limit, checked_limit
from rxtweets.streams._buffer import Overflow
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
LEAST_LINE_MB = 0.001
DAY = timedelta(hours=24)


class StreamOptions(ServerOptions, total=False):
    """Options of every stream beside those of `ServerOptions`, all keywords.

    Between two connections X sends messages that no client receives. A `Gap` event reports that
    time with its start, its end and the ids around it, and ``stats().gaps`` counts it.

    Backfill, ``connections=2``, and all streams except `filtered_stream` and `activity_stream` need
    an access level that has them. They are tested against the simulator and X's description, not
    against X.

    Attributes:
        backfill_minutes: minutes before a connection that X sends again, 0 to 5, each message
            delivered once. ``"auto"`` requests the minutes that each gap needs; a `Gap` reports
            the rest. After a refusal (400 or 403), no later connection requests it
            (`BackfillRefused`).
        connections: 2 holds a second connection with the same content. Each message is delivered
            once, and a gap is the time that both missed.
        state_file: a file in which the stream records every second the time up to which the
            subscribers have received it. The next run of the program requests the missed time
            plus half a minute, and reports the time that backfill does not reach. Messages that a
            killed program was processing are redelivered only within that backfill.
        start_time: replays the time from then on, up to a day ago, on streams that have replay;
            with `end_time` the stream completes there. Datetimes with a time zone.
        end_time: see `start_time`.
        limit: completes after this number of messages, or after a `timedelta` (`LimitReached`); X
            bills each post once in a UTC day, and ``stats().posts_today`` counts them. A connection
            reads little more than its limit, or with ``isolated=True`` up to ``buffer_size`` more;
            ``stats().beyond_limit`` counts these messages.
        free_stale_connections: if X refuses because the token's connection is in use, ask it to
            close this stream's connections. This also ends those of other programs and partitions,
            which then reconnect. Off by default.
        buffer_size: messages that may wait for the subscribers; 10,000 by default.
        overflow: the policy for more messages: ``drop_oldest`` (default), ``drop_newest``, or
            ``block``, which stops reading; X closes the connection of a client that stops.
        stall_timeout: seconds without a byte until a connection is closed, 30 by default; X sends
            an empty line every 20.
        backoff: when to reconnect; see `Backoff`.
        max_line_mb: the longest line in megabytes, at least 0.001; 16 by default.
        isolated: read in a separate process, which no handler can delay; ``buffer_size`` messages
            may wait there, and as many in the program. Off by default; on POSIX systems. It passes
            the authorities of a `verify` context to the process, but not a client's own
            certificate.
        reader_cores: numbers of the processor cores for the process of ``isolated``, such as
            ``{0}``; all its connections use them. By default those of the program. On Linux. Keep
            the program on other cores with ``os.sched_setaffinity``; see `HotStream`.
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
    """The parsed options of one stream; see `StreamOptions` for those of the same name.

    Attributes:
        endpoint: the stream of X.
        connection: where and how to connect.
        fields: X's parameters for fields and expansions.
        partitions: numbers of the partitions; ``None`` for a stream without partitions.
    """

    endpoint: Endpoint
    connection: ConnectionOptions
    fields: Mapping[str, str]
    partitions: Sequence[int | None]
    backfill_minutes: Backfill = None
    connections: int = 1
    state_file: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    limit: Limit = field(default_factory=Limit)
    free_stale_connections: bool = False
    buffer_size: int = 10_000
    overflow: Overflow = "drop_oldest"
    backoff: Backoff = field(default_factory=Backoff)
    max_line_mb: float = DEFAULT_MAX_LINE / 2**20
    isolated: bool = False
    reader_cores: Cores = None

    @classmethod
    def from_options(
        cls, endpoint: Endpoint, options: Mapping[str, Any], partition: Partition = None
    ) -> Self:
        """Parse the options.

        Raises:
            ConfigurationError: an option is unknown or cannot work, or there is no token.
        """
        known = TweetOptions if endpoint.has_fields else StreamOptions
        return cls(
            endpoint,
            connection_options(options, known),
            _fields(endpoint, options) if endpoint.has_fields else {},
            _partitions(endpoint, partition),
            **parsed_options(options, PARSERS),
        )

    def __post_init__(self) -> None:
        start, end = self.start_time, self.end_time
        if self.is_replay and not self.endpoint.replays:
            raise ConfigurationError(f"start_time, end_time: {self.endpoint.name} has no replay")
        if start is not None and start < datetime.now(UTC) - DAY:
            raise ConfigurationError(f"start_time={start}: X replays the last 24 hours")
        if start is not None and end is not None and end <= start:
            raise ConfigurationError(f"end_time={end} is not after start_time={start}")
        if self.connections > MOST_CONNECTIONS:
            raise ConfigurationError(
                f"connections={self.connections}: X allows {MOST_CONNECTIONS} at most"
            )
        if self.connections > 1 and len(self.partitions) > 1:
            raise ConfigurationError(
                f"connections={self.connections} needs one partition; make a stream for each"
            )
        if self.reader_cores is not None and not self.isolated:
            raise ConfigurationError("reader_cores is for isolated=True: give both, or none")

    @property
    def is_replay(self) -> bool:
        """``True`` if the stream has a start or an end."""
        return bool(self.start_time or self.end_time)

    @property
    def max_line(self) -> int:
        """Bytes of a line at most."""
        return int(self.max_line_mb * 2**20)

    @property
    def carries_tweets(self) -> bool:
        """``True`` if X bills each message as a post."""
        return self.endpoint.carries == "tweets"

    @property
    def is_merged(self) -> bool:
        """``True`` if the stream has several connections."""
        return self.connections > 1 or len(self.partitions) > 1

    def params(self, partition: int | None) -> dict[str, str]:
        """Return the parameters of the query for every connection of a partition."""
        given = {"start_time": self.start_time, "end_time": self.end_time}
        times = {name: f"{time:%Y-%m-%dT%H:%M:%SZ}" for name, time in given.items() if time}
        own = {} if partition is None else {"partition": str(partition)}
        return {**self.fields, **times, **own}


def _partitions(endpoint: Endpoint, partition: Partition) -> list[int | None]:
    most = endpoint.partitions
    if partition is None:
        return list(range(1, most + 1)) if most else [None]
    if not most:
        raise ConfigurationError(f"partition={partition!r}: {endpoint.name} has no partitions")
    is_one = isinstance(partition, int | str)
    given: list[Any] = [partition] if is_one else list(iterable("partition", partition, "[1, 2]"))
    for chosen in given:
        if isinstance(chosen, bool) or not isinstance(chosen, int) or not 1 <= chosen <= most:
            raise ConfigurationError(f"partition={chosen!r}: {endpoint.name} has 1 to {most}")
    if not given or len(set(given)) < len(given):
        raise ConfigurationError(f"partition={partition!r}: give each partition once")
    return given


def _backfill(name: str, minutes: Backfill) -> Backfill:
    if minutes is None or minutes == "auto":
        return minutes
    if isinstance(minutes, str):
        raise ConfigurationError(f"{name}={minutes!r}: give 0 to 5, or 'auto'")
    if whole_number(name, minutes, least=0) > MOST_MINUTES:
        raise ConfigurationError(f"{name}={minutes}: X gives {MOST_MINUTES} at most")
    return minutes


def _time(name: str, time: datetime | None) -> datetime | None:
    if time is None:
        return None
    if not isinstance(time, datetime) or time.tzinfo is None:
        raise ConfigurationError(
            f"{name}={time!r}: give a datetime with a time zone, as datetime.now(UTC)"
        )
    return time.astimezone(UTC)


PARSERS: Parsers = {
    "backfill_minutes": _backfill,
    "connections": whole_number,
    "state_file": lambda name, path: None if path is None else path_text(name, path),
    "start_time": _time,
    "end_time": _time,
    "limit": lambda _, limit: checked_limit(limit),
    "free_stale_connections": flag,
    "buffer_size": whole_number,
    "overflow": lambda name, policy: choice(name, policy, get_args(Overflow)),
    "backoff": lambda name, backoff: instance(name, backoff, Backoff),
    "max_line_mb": lambda name, megabytes: number(name, megabytes, LEAST_LINE_MB),
    "isolated": flag,
    "reader_cores": lambda _, cores: checked_cores(cores),
}


def _fields(endpoint: Endpoint, options: Mapping[str, Any]) -> dict[str, str]:
    is_likes = endpoint.carries == "likes"
    params = {}
    for option in KNOWN:
        default = () if is_likes else DEFAULT_NAMES.get(option, ())
        value = options.get(option, default)
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
