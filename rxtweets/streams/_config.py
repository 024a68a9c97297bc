"""The options of a stream, parsed once before its construction."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self, Unpack, get_args

from rxtweets._support.validation import (
    choice,
    flag,
    instance,
    iterable,
    number,
    optional,
    path_text,
    seconds,
    whole_number,
)
from rxtweets.api._endpoints import Endpoint, warn_of_unknown
from rxtweets.api._options import (
    STALL_TIMEOUT,
    ConnectionOptions,
    ServerOptions,
    connection_options,
    refuse_unknown,
    with_options_of,
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

PARAMETERS = {"like_fields": "like_with_tweet_author.fields"}
"""X's names of options; those of the others have a dot for the underscore."""

DEFAULT_BACKOFF = Backoff()
DEFAULT_MAX_LINE_MB = DEFAULT_MAX_LINE / 2**20
MOST_CONNECTIONS = 2
LEAST_LINE_MB = 0.001
SHOWN_IF_GIVEN = (
    "backfill_minutes", "state_file", "start_time", "end_time", "limit", "isolated", "reader_cores",
)  # fmt: skip
DAY = timedelta(hours=24)


class StreamOptions(ServerOptions, total=False):
    """Options of every stream, for annotations; `sample_stream` describes each."""

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
    reader_cores: Iterable[int] | None


class TweetOptions(StreamOptions, total=False):
    """Options of every stream of tweets, for annotations; `sample_stream` describes each."""

    tweet_fields: Iterable[str]
    user_fields: Iterable[str]
    media_fields: Iterable[str]
    place_fields: Iterable[str]
    poll_fields: Iterable[str]
    expansions: Iterable[str]


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """The parsed options of one stream; `sample_stream` describes those of the same name.

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
    backfill_minutes: Backfill
    connections: int
    state_file: str | None
    start_time: datetime | None
    end_time: datetime | None
    limit: Limit
    free_stale_connections: bool
    buffer_size: int
    overflow: Overflow
    backoff: Backoff
    max_line_mb: float
    isolated: bool
    reader_cores: Cores

    @classmethod
    @with_options_of(connection_options)
    def from_options(
        cls,
        endpoint: Endpoint,
        fields: Mapping[str, Iterable[str]],
        partition: Partition,
        /,
        *,
        backfill_minutes: int | Literal["auto"] | None = None,
        connections: int = 1,
        state_file: str | os.PathLike[str] | None = None,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        limit: int | timedelta | None = None,
        free_stale_connections: bool = False,
        buffer_size: int = 10_000,
        overflow: Overflow = "drop_oldest",
        stall_timeout: float | timedelta = STALL_TIMEOUT,
        backoff: Backoff = DEFAULT_BACKOFF,
        max_line_mb: float = DEFAULT_MAX_LINE_MB,
        isolated: bool = False,
        reader_cores: Iterable[int] | None = None,
        **server: Unpack[ServerOptions],
    ) -> Self:
        """Parse the options.

        Raises:
            ConfigurationError: an option is unknown or cannot work, or there is no token.
        """
        refuse_unknown(server, TweetOptions if endpoint.carries == "tweets" else StreamOptions)
        connection = connection_options(**server)
        return cls(
            endpoint,
            replace(connection, stall_timeout=seconds("stall_timeout", stall_timeout)),
            _fields(fields),
            _partitions(endpoint, partition),
            backfill_minutes=_backfill(backfill_minutes),
            connections=whole_number("connections", connections),
            state_file=optional(path_text, "state_file", state_file),
            start_time=optional(_time, "start_time", start_time),
            end_time=optional(_time, "end_time", end_time),
            limit=checked_limit(limit),
            free_stale_connections=flag("free_stale_connections", free_stale_connections),
            buffer_size=whole_number("buffer_size", buffer_size),
            overflow=choice("overflow", overflow, get_args(Overflow)),
            backoff=instance("backoff", backoff, Backoff),
            max_line_mb=number("max_line_mb", max_line_mb, LEAST_LINE_MB),
            isolated=flag("isolated", isolated),
            reader_cores=checked_cores(reader_cores),
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
    def settings(self) -> dict[str, str]:
        """The settings that a dashboard shows; no secrets."""
        buffer = f"{self.buffer_size:,} messages for each connection, {self.overflow}"
        given = {name: str(getattr(self, name) or "") for name in SHOWN_IF_GIVEN}
        texts = {name.replace("_", " "): text for name, text in given.items() if text}
        return {"buffer": buffer, **texts, **self.fields}

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


def _backfill(minutes: Backfill) -> Backfill:
    if minutes is None or minutes == "auto":
        return minutes
    if isinstance(minutes, str):
        raise ConfigurationError(f"backfill_minutes={minutes!r}: give 0 to 5, or 'auto'")
    if whole_number("backfill_minutes", minutes, least=0) > MOST_MINUTES:
        raise ConfigurationError(f"backfill_minutes={minutes}: X gives {MOST_MINUTES} at most")
    return minutes


def _time(name: str, time: datetime) -> datetime:
    if not isinstance(time, datetime) or time.tzinfo is None:
        raise ConfigurationError(
            f"{name}={time!r}: give a datetime with a time zone, as datetime.now(UTC)"
        )
    return time.astimezone(UTC)


def _fields(fields: Mapping[str, Iterable[str]]) -> dict[str, str]:
    params = {}
    for option, value in fields.items():
        names = list(iterable(option, value, "['id', 'text']"))
        if not all(isinstance(name, str) and name for name in names):
            raise ConfigurationError(
                f"{option}={value!r}: give a list of names, such as ['id', 'text']"
            )
        warn_of_unknown(option, names)
        if names:
            parameter = PARAMETERS.get(option, option.replace("_", "."))
            params[parameter] = ",".join(dict.fromkeys(names))
    return params
