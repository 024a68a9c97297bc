"""The public sources: X's streams as hot Observables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Unpack, cast

from rxtweets._core import events
from rxtweets._core.deduplication import Deduplicator
from rxtweets._core.observable import new_telemetry
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.decoding import Decoder
from rxtweets._messages.payloads import Activity, ComplianceEvent, LabelEvent, Like, reader_for
from rxtweets._support.validation import iterable, path_text, seconds, whole_number
from rxtweets.api._connection import Connection, ConnectionOptions
from rxtweets.api._connections import Connections
from rxtweets.api._endpoints import ENDPOINTS, Endpoint
from rxtweets.api._fields import KNOWN, warn_of_unknown
from rxtweets.api._options import ServerOptions, connection_options, refuse_unknown
from rxtweets.api._rules import Rule, Rules, rule_list
from rxtweets.errors import ConfigurationError
from rxtweets.streams._backoff import Backoff
from rxtweets.streams._base import HotStream
from rxtweets.streams._billing import Limit, PostMeter, checked_limit
from rxtweets.streams._buffer import Overflow, check_overflow
from rxtweets.streams._gaps import MOST_MINUTES, Backfill
from rxtweets.streams._isolated import Buffer, Isolated, checked_cores
from rxtweets.streams._lines import DEFAULT_MAX_LINE
from rxtweets.streams._merged import MergedStream
from rxtweets.streams._reader import Connect, ReadingOptions
from rxtweets.streams._single import LiveOptions, LiveStream
from rxtweets.streams._state_file import StateFile

__all__ = [
    "StreamOptions",
    "TweetOptions",
    "activity_stream",
    "compliance_stream",
    "filtered_stream",
    "firehose_stream",
    "labels_stream",
    "likes_stream",
    "sample10_stream",
    "sample_stream",
]

DEFAULTS: Mapping[str, Sequence[str]] = {
    "tweet_fields": ("author_id", "created_at", "entities", "lang", "public_metrics"),
    "expansions": ("author_id",),
}
MOST_REDUNDANT = 2
DAY = timedelta(hours=24)

Partition = int | Iterable[int] | None


class StreamOptions(ServerOptions, total=False):
    """Options that every stream takes beside those of `ServerOptions`, all keywords.

    Attributes:
        backfill_minutes: what X sends again of the time before a connection, for access levels
            that have it: 0 to 5, or ``"auto"``, which asks after each gap for as much as it needs,
            and stops asking when X refuses. With either, each message is delivered once.
        connections: 2 holds a second connection with the same content, for access levels that
            allow it; each message is delivered once, and a gap is what both missed.
        state_file: a file in which the stream notes until when it has been read, so that the next
            run of the program can ask for what it missed and report the rest.
        start_time: replays what X sent from then on, up to a day ago; with `end_time` it ends
            there and completes. Datetimes with a time zone.
        end_time: see there.
        limit: completes after so many messages, or after a `timedelta`: posts cost money.
        free_stale_connections: when X refuses because the token's connection is taken, ask it to
            give up this stream's connections; those of other programs too, and of other partitions,
            which connect again then. Off by default.
        buffer_size: messages that may wait for the subscribers; 10,000 by default.
        overflow: what happens when there are more: ``drop_oldest`` (default), ``drop_newest``,
            or ``block``, which stops reading, and after a while X cuts a client off that does.
        stall_timeout: seconds without a byte until a connection is given up, 30 by default; X
            sends an empty line every 20.
        backoff: when to connect again; see `Backoff`.
        max_line_mb: the longest line in megabytes, 16 by default.
        isolated: read in a process of its own, which no handler can keep waiting; there, as much
            again as ``buffer_size`` may wait. Off by default; on POSIX systems.
        reader_cores: numbers of the processor cores that the process of ``isolated`` keeps to, as
            ``{0}``, with several connections all of their processes; by default those of the
            program. On Linux.
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

    An empty sequence leaves the choice to X; names that X was not known to have are warned about
    (`UnknownNameWarning`) and asked for all the same.

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


def sample_stream(**options: Unpack[TweetOptions]) -> HotStream[str]:
    r"""The sample stream, about one percent of all public tweets, as a hot Observable.

    It connects on the first subscription and closes with the last; all subscribers share the one
    connection that a token may hold. A connection that ends is made again, by X's schedules; what
    cannot be mended (a refused token, no access) comes to ``on_error`` as a typed error.

    ::

        tweets = rxtweets.sample_stream()
        with tweets.subscribe(lambda message: print(message.data)):
            input("Enter stops\n")

    Args:
        **options: see `TweetOptions`.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``GET /2/tweets/sample/stream`` of X's API v2.
    """
    return _stream("sample_stream", None, options)


def sample10_stream(partition: Partition = None, **options: Unpack[TweetOptions]) -> HotStream[str]:
    """The decahose, ten percent of all public tweets.

    Args:
        partition: 1 or 2, or several; by default both, merged.
        **options: see `TweetOptions`.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``GET /2/tweets/sample10/stream`` of X's API v2.
    """
    return _stream("sample10_stream", partition, options)


def filtered_stream(
    rules: Iterable[Rule | str] | None = None, **options: Unpack[TweetOptions]
) -> HotStream[str]:
    """Tweets that match the rules which X keeps for the app; see `Message.matching_rules`.

    Args:
        rules: made X's rules before the first connection: those that are missing are added,
            others are deleted. A list, not one text. By default X's rules stay as they are.
        **options: see `TweetOptions`.

    Raises:
        RuleSyntaxError: X would refuse one of the rules.
        ConfigurationError: the rules are no list, or have a value twice; an option cannot work, or
            there is no token.

    Source: ``GET /2/tweets/search/stream`` of X's API v2.
    """
    prepare = None if rules is None else _syncing(rule_list("rules", rules), options)
    return _stream("filtered_stream", None, options, prepare=prepare)


def firehose_stream(
    partition: Partition = None,
    lang: Literal["en", "ja", "ko", "pt"] | None = None,
    **options: Unpack[TweetOptions],
) -> HotStream[str]:
    """All public tweets, or all of one language.

    Args:
        partition: 1 to 20 (en: 1 to 8; ja, ko, pt: 1 or 2), or several; by default all, merged.
        lang: en, ja, ko or pt; by default all languages.
        **options: see `TweetOptions`.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``GET /2/tweets/firehose/stream`` and ``…/lang/{lang}`` of X's API v2.
    """
    name = "firehose_stream" if lang is None else f"firehose_stream_lang_{lang}"
    if name not in ENDPOINTS:
        raise ConfigurationError(f"lang={lang!r}: choose en, ja, ko, pt or None")
    return _stream(name, partition, options, function="firehose_stream")


def likes_stream(
    partition: Partition = None,
    volume: Literal["firehose", "sample10"] = "firehose",
    **options: Unpack[TweetOptions],
) -> HotStream[Like]:
    """Likes of public tweets; ``message.data`` is a `Like`.

    Args:
        partition: 1 to 20 (sample10: 1 or 2), or several; by default all, merged.
        volume: ``firehose`` for all, ``sample10`` for ten percent.
        **options: see `TweetOptions`.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``GET /2/likes/firehose/stream`` and ``/2/likes/sample10/stream`` of X's API v2.
    """
    name = f"likes_{volume}_stream"
    if name not in ENDPOINTS:
        raise ConfigurationError(f"volume={volume!r}: choose firehose or sample10")
    return cast("HotStream[Like]", _stream(name, partition, options, function="likes_stream"))


def compliance_stream(
    of: Literal["tweets", "users", "likes"] = "tweets",
    partition: Partition = None,
    **options: Unpack[StreamOptions],
) -> HotStream[ComplianceEvent]:
    """What has to be changed or deleted in stored data; ``message.data`` is a `ComplianceEvent`.

    Args:
        of: ``tweets``, ``users`` or ``likes``.
        partition: 1 to 4, or several; by default all, merged. Likes have none.
        **options: see `StreamOptions`.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``GET /2/{tweets,users,likes}/compliance/stream`` of X's API v2.
    """
    name = f"{of}_compliance_stream"
    if name not in ENDPOINTS:
        raise ConfigurationError(f"of={of!r}: choose tweets, users or likes")
    return cast(
        "HotStream[ComplianceEvent]",
        _stream(name, partition, options, function="compliance_stream"),
    )


def labels_stream(**options: Unpack[StreamOptions]) -> HotStream[LabelEvent]:
    """Labels that are put on tweets or taken off; ``message.data`` is a `LabelEvent`.

    Args:
        **options: see `StreamOptions`.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``GET /2/tweets/label/stream`` of X's API v2.
    """
    return cast(
        "HotStream[LabelEvent]",
        _stream("tweet_label_stream", None, options, function="labels_stream"),
    )


def activity_stream(**options: Unpack[StreamOptions]) -> HotStream[Activity]:
    """Events that the app has subscribed to in X's activity API; ``message.data`` is an `Activity`.

    Args:
        **options: see `StreamOptions`.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``GET /2/activity/stream`` of X's API v2.
    """
    return cast("HotStream[Activity]", _stream("activity_stream", None, options))


def _stream(
    name: str,
    partition: Partition,
    options: StreamOptions,
    prepare: Callable[[], events.Event] | None = None,
    function: str = "",
) -> HotStream[Any]:
    endpoint = ENDPOINTS[name]
    known = TweetOptions if endpoint.has_fields else StreamOptions
    refuse_unknown(options, known.__annotations__, f"rxtweets.{known.__name__}")
    builder = _Builder(endpoint, options, prepare)
    stream = builder.stream(partition)
    for each in {stream, *stream.parts}:
        each.telemetry.source = function or name
        each.where = builder.where
    return stream


class _Builder:
    """Options become a stream."""

    def __init__(
        self,
        endpoint: Endpoint,
        options: StreamOptions,
        prepare: Callable[[], events.Event] | None,
    ) -> None:
        self._endpoint = endpoint
        self._options = options
        self._connection = _connection_options(options)
        self._params = {**_names(endpoint, options), **_replay(endpoint, options)}
        self._backfill = _backfill(options)
        self._limit = checked_limit(options.get("limit"))
        self._meter = PostMeter() if endpoint.carries == "tweets" else None
        self._connections = whole_number("connections", options.get("connections", 1))
        if self._connections > MOST_REDUNDANT:
            raise ConfigurationError(
                f"connections={self._connections}: X allows {MOST_REDUNDANT} at most"
            )
        self._is_isolated = options.get("isolated", False)
        if not isinstance(self._is_isolated, bool):
            raise ConfigurationError(f"isolated={self._is_isolated!r}: give True or False")
        cores = options.get("reader_cores")
        if cores is not None and not self._is_isolated:
            raise ConfigurationError("reader_cores is for isolated=True: give both, or none")
        self._cores = checked_cores(cores)
        self._live = self._live_options(prepare)

    @property
    def where(self) -> str:
        """The server."""
        url = self._connection.url
        return f"{url.scheme}://{url.netloc.decode('ascii')}"

    def stream(self, partition: Partition) -> HotStream[Any]:
        """One connection, or the merge of several."""
        partitions = self._checked_partitions(partition)
        if self._connections > 1:
            if len(partitions) > 1:
                raise ConfigurationError(
                    f"connections={self._connections} needs one partition; make a stream for each"
                )
            return self._redundant(partitions[0])
        if isinstance(partition, int) or len(partitions) == 1:
            return self._single(partitions[0])
        parts = {
            f"partition {number}": self._part(number, f".{number}", limited=False)
            for number in partitions
        }
        return self._merged(parts, None, is_redundant=False)

    def _single(self, partition: int | None) -> LiveStream:
        return self._part(partition, "", limited=True, telemetry=new_telemetry())

    def _redundant(self, partition: int | None) -> MergedStream:
        parts = {
            f"connection {number}": self._part(
                partition, f".{number}", limited=False, first=number == 1
            )
            for number in range(1, self._connections + 1)
        }
        return self._merged(parts, Deduplicator(), is_redundant=True)

    def _merged(
        self, parts: Mapping[str, LiveStream], once: Deduplicator | None, *, is_redundant: bool
    ) -> MergedStream:
        return MergedStream(
            parts,
            deduplicate=once,
            is_redundant=is_redundant,
            limit=self._limit,
            meter=self._meter,
        )

    def _part(
        self,
        partition: int | None,
        suffix: str,
        *,
        limited: bool,
        first: bool = True,
        telemetry: Telemetry | None = None,
    ) -> LiveStream:
        """The stream of one connection."""
        own = {} if partition is None else {"partition": str(partition)}
        fixed = {**self._params, **own}
        where, path = self._connection, self._endpoint.path

        def connect(params: Mapping[str, str], on_quiet: Callable[[], None]) -> Connection:
            return Connection(where, path, {**fixed, **params}, on_quiet)

        live = self._live
        telemetry = telemetry or Telemetry()
        reading = live.reading if first else replace(live.reading, prepare=None)
        make: Connect = connect
        if self._is_isolated:
            isolated = self._isolated(fixed, telemetry)
            make, reading = isolated, replace(reading, finish=isolated.finish)
        # Of redundant connections the merge lets each message through once.
        alone = self._connections == 1 and (bool(self._backfill) or reading.is_replay)
        part = replace(
            live,
            reading=reading,
            deduplicate=Deduplicator() if alone else None,
            state_file=self._state_file(suffix, own),
            limit=self._limit if limited else Limit(),
        )
        return LiveStream(make, part, telemetry)

    def _isolated(self, fixed: Mapping[str, str], telemetry: Telemetry) -> Isolated:
        """The same connections, in a process of their own."""
        size, overflow = self._live.buffer_size, self._live.overflow

        def dropped(lines: int) -> None:
            telemetry.add(received=lines, dropped=lines)

        def burst(phase: Literal["began", "ended"], lines: int) -> None:
            began = events.OverflowStarted(overflow, size)
            telemetry.publish(began if phase == "began" else events.OverflowEnded(overflow, lines))

        tweets = self._endpoint.carries == "tweets"
        buffer = Buffer(size, overflow, self._live.reading.max_line, tweets, dropped, burst)
        return Isolated(self._connection, self._endpoint.path, fixed, buffer, self._cores)

    def _live_options(self, prepare: Callable[[], events.Event] | None) -> LiveOptions:
        options = self._options
        max_line = seconds("max_line_mb", options.get("max_line_mb", DEFAULT_MAX_LINE / 2**20))
        backoff = options.get("backoff", Backoff())
        if not isinstance(backoff, Backoff):
            raise ConfigurationError(f"backoff={backoff!r}: give a rxtweets.Backoff")
        start = options.get("start_time")
        return LiveOptions(
            buffer_size=whole_number("buffer_size", options.get("buffer_size", 10_000)),
            overflow=check_overflow(options.get("overflow", "drop_oldest")),
            reading=ReadingOptions(
                max_line=int(max_line * 2**20),
                backoff=backoff,
                backfill=self._backfill,
                free=self._freeing(),
                is_replay=bool(options.get("start_time") or options.get("end_time")),
                prepare=prepare,
            ),
            decoder=Decoder(reader_for(self._endpoint.carries), fast=self._connection.fast_paths),
            replay_from=None if start is None else start.astimezone(UTC),
            meter=self._meter,
        )

    def _freeing(self) -> Callable[[], int] | None:
        wanted = self._options.get("free_stale_connections", False)
        if not isinstance(wanted, bool):
            raise ConfigurationError(f"free_stale_connections={wanted!r}: give True or False")
        if not wanted:
            return None
        connections = Connections(**_server_options(self._options))
        return lambda: connections.free(self._endpoint.name)

    def _state_file(self, suffix: str, own: Mapping[str, str]) -> StateFile | None:
        path = self._options.get("state_file")
        if path is None:
            return None
        partition = f", partition {own['partition']}" if own else ""
        return StateFile(path_text("state_file", path) + suffix, self._endpoint.name + partition)

    def _checked_partitions(self, partition: Partition) -> list[int | None]:
        most = self._endpoint.partitions
        if not most:
            if partition is not None:
                raise ConfigurationError(
                    f"partition={partition!r}: {self._endpoint.name} has no partitions"
                )
            return [None]
        if partition is None:
            return list(range(1, most + 1))
        is_one = isinstance(partition, int | str)
        several: Any = [partition] if is_one else iterable("partition", partition, "[1, 2]")
        given: list[int | None] = list(several)
        for number in given:
            if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= most:
                raise ConfigurationError(
                    f"partition={number!r}: {self._endpoint.name} has 1 to {most}"
                )
        if not given or len(set(given)) < len(given):
            raise ConfigurationError(f"partition={partition!r}: give each partition once")
        return given


def _syncing(rules: list[Rule], options: TweetOptions) -> Callable[[], events.Event]:
    client = Rules(**_server_options(options))
    client.check(*rules)

    def sync() -> events.Event:
        report = client.sync(rules)
        return events.RulesSynced(len(report.added), len(report.deleted), len(report.kept))

    return sync


def _server_options(options: StreamOptions) -> ServerOptions:
    own = {name: each for name, each in options.items() if name in ServerOptions.__annotations__}
    return cast("ServerOptions", own)


def _connection_options(options: StreamOptions) -> ConnectionOptions:
    return connection_options(_server_options(options), options.get("stall_timeout", 30.0))


def _backfill(options: StreamOptions) -> Backfill:
    minutes = options.get("backfill_minutes")
    if minutes is None or minutes == "auto":
        return minutes
    if isinstance(minutes, str):
        raise ConfigurationError(f"backfill_minutes={minutes!r}: give 0 to 5, or 'auto'")
    whole_number("backfill_minutes", minutes, least=0)
    if minutes > MOST_MINUTES:
        raise ConfigurationError(f"backfill_minutes={minutes}: X gives {MOST_MINUTES} at most")
    return minutes


def _replay(endpoint: Endpoint, options: StreamOptions) -> dict[str, str]:
    """X's start_time and end_time."""
    times: dict[str, datetime] = {}
    for name in ("start_time", "end_time"):
        moment = options.get(name)
        if moment is None:
            continue
        if not endpoint.replays:
            raise ConfigurationError(f"{name}: {endpoint.name} has no replay")
        if not isinstance(moment, datetime) or moment.tzinfo is None:
            raise ConfigurationError(
                f"{name}={moment!r}: give a datetime with a time zone, as datetime.now(UTC)"
            )
        times[name] = moment
    start, end = times.get("start_time"), times.get("end_time")
    if start is not None and start < datetime.now(UTC) - DAY:
        raise ConfigurationError(f"start_time={start}: X replays the last 24 hours")
    if start is not None and end is not None and end <= start:
        raise ConfigurationError(f"end_time={end} is not after start_time={start}")
    return {name: f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" for name, moment in times.items()}


def _names(endpoint: Endpoint, options: StreamOptions) -> dict[str, str]:
    """X's names for our options; lists are joined by commas."""
    if not endpoint.has_fields:
        return {}
    likes = endpoint.carries == "likes"
    params = {}
    for option in KNOWN:
        default = () if likes else DEFAULTS.get(option, ())
        given = _checked_names(option, cast("Mapping[str, Any]", options).get(option, default))
        warn_of_unknown(option, given, stacklevel=STACK)
        if option == "like_fields" and given and not likes:
            raise ConfigurationError(f"like_fields: {endpoint.name} carries no likes")
        if given:
            params[PARAMETERS.get(option, option.replace("_", "."))] = ",".join(given)
    return params


PARAMETERS = {"like_fields": "like_with_tweet_author.fields"}
STACK = 5
"""Calls between the user's line and a warning."""


def _checked_names(name: str, names: object) -> list[str]:
    several = list(iterable(name, names, "['id', 'text']"))
    if not all(isinstance(each, str) and each for each in several):
        raise ConfigurationError(f"{name}={names!r}: give a list of names, such as ['id', 'text']")
    return list(dict.fromkeys(several))
