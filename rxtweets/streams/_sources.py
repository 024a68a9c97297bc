"""The public sources: X's streams as hot Observables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple, Unpack

from rxtweets._core import events
from rxtweets._core.deduplication import Deduplicator
from rxtweets._core.observable import new_telemetry
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.decoding import Decoder
from rxtweets._messages.payloads import Activity, ComplianceEvent, LabelEvent, Like, reader_for
from rxtweets._support.validation import choice
from rxtweets.api._client import Rest
from rxtweets.api._connection import Connection
from rxtweets.api._endpoints import ENDPOINTS
from rxtweets.api._options import with_options_of
from rxtweets.api._proxies import origin
from rxtweets.api._rules import Rule, check_rules, rule_list, sync_rules
from rxtweets.streams._backoff import Pacer
from rxtweets.streams._base import HotStream
from rxtweets.streams._billing import PostMeter
from rxtweets.streams._config import Partition, StreamConfig, StreamOptions, TweetOptions
from rxtweets.streams._isolated import Isolated
from rxtweets.streams._merged import MergedStream
from rxtweets.streams._reader import LiveParts, Prepare
from rxtweets.streams._single import LiveStream
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


class _Selection(NamedTuple):
    """The stream that a call selects.

    Attributes:
        function: that the user called.
        endpoint: name of X's stream.
        partition: as the user gave it.
        rules: of the filtered stream, which are synced; ``None`` leaves X's rules alone.
    """

    function: str
    endpoint: str
    partition: Partition = None
    rules: list[Rule] | None = None


@with_options_of(StreamConfig.from_options)
def _stream(
    selection: _Selection,
    fields: Mapping[str, Iterable[str]],
    /,
    **options: Unpack[StreamOptions],
) -> HotStream[Any]:
    endpoint = ENDPOINTS[selection.endpoint]
    config = StreamConfig.from_options(endpoint, fields, selection.partition, **options)
    rules = selection.rules
    stream = _connections_of(config, None if rules is None else _rule_sync(config, rules))
    for part in {stream, *stream.parts}:
        part.telemetry.source = selection.function
        part.where = origin(config.connection.base_url)
        part.settings = config.settings
    return stream


@with_options_of(_stream)
def _tweets(
    selection: _Selection,
    /,
    *,
    tweet_fields: Iterable[str] = ("author_id", "created_at", "entities", "lang", "public_metrics"),
    user_fields: Iterable[str] = (),
    media_fields: Iterable[str] = (),
    place_fields: Iterable[str] = (),
    poll_fields: Iterable[str] = (),
    expansions: Iterable[str] = ("author_id",),
    **options: Unpack[StreamOptions],
) -> HotStream[str]:
    fields = {
        "tweet_fields": tweet_fields,
        "user_fields": user_fields,
        "media_fields": media_fields,
        "place_fields": place_fields,
        "poll_fields": poll_fields,
        "expansions": expansions,
    }
    return _stream(selection, fields, **options)


@with_options_of(_tweets)
def sample_stream(**options: Unpack[TweetOptions]) -> HotStream[str]:
    r"""Return the sample stream, about one percent of all public tweets, as a hot Observable.

    It connects on the first subscription and closes with the last; all subscribers share the one
    connection that a token may hold. It reconnects automatically, following X's backoff guidelines.
    A final failure, such as a refused token, reaches ``on_error`` as a typed error.

    X sells this stream to enterprise accounts.

    ::

        tweets = rxtweets.sample_stream()
        with tweets.subscribe(lambda message: print(message.data)):
            input("Enter stops\n")

    To go live, put the app-only bearer token into ``X_BEARER_TOKEN`` and omit ``token=`` and
    ``base_url=``. The token and the credentials of a proxy appear in no log, repr, error, event or
    URL; they are masked where a server sends them back.

    Between two connections X sends messages that no client receives. A `Gap` event reports that
    time with its start, its end and the ids around it, and ``stats().gaps`` counts it.

    All options are keywords, and other streams have them too. The options for fields choose the
    fields that X sends; an empty sequence leaves the choice to X. A name that is not in X's
    description gets an `UnknownNameWarning` with a suggestion, and is sent all the same. Backfill
    and ``connections=2`` need an access level that has them. They are tested against the simulator
    and X's description, not against X.

    Args:
        tweet_fields: X's ``tweet.fields``.
        user_fields: X's ``user.fields``.
        media_fields: X's ``media.fields``.
        place_fields: X's ``place.fields``.
        poll_fields: X's ``poll.fields``.
        expansions: X's ``expansions``.
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
        start_time: replays the time from then on, up to a day ago, on streams that have replay,
            as `filtered_stream`; with ``end_time`` the stream completes there. A datetime with a
            time zone.
        end_time: see ``start_time``.
        limit: completes after this number of messages, or after a `timedelta` (`LimitReached`); X
            bills each post once in a UTC day, and ``stats().posts_today`` counts them. A connection
            reads little more than its limit, or with ``isolated=True`` up to ``buffer_size`` more;
            ``stats().beyond_limit`` counts these messages.
        free_stale_connections: if X refuses because the token's connection is in use, ask it to
            close this stream's connections. This also ends those of other programs and partitions,
            which then reconnect.
        buffer_size: messages that may wait for the subscribers.
        overflow: the policy for more messages: ``drop_oldest``, ``drop_newest``, or ``block``,
            which stops reading; X closes the connection of a client that stops.
        stall_timeout: seconds without a byte until a connection is closed; X sends an empty line
            every 20.
        backoff: when to reconnect; see `Backoff`.
        max_line_mb: the longest line in megabytes, at least 0.001.
        isolated: read in a separate process, which no handler can delay; ``buffer_size`` messages
            may wait there, and as many in the program. On POSIX systems. It passes the authorities
            of a ``verify`` context to the process, but not a client's own certificate.
        reader_cores: numbers of the processor cores for the process of ``isolated``, such as
            ``{0}``; all its connections use them. By default those of the program. On Linux. Keep
            the program on other cores with ``os.sched_setaffinity``; see `HotStream`.
        token: the app-only bearer token; by default from ``X_BEARER_TOKEN`` or
            ``TWITTER_BEARER_TOKEN``.
        base_url: the server; by default from ``RXTWEETS_BASE_URL``, else ``https://api.x.com``.
        connect_timeout: seconds to connect, through a proxy and with TLS. It applies to each
            address of a host, and does not bound the DNS lookup.
        http1: allow HTTP/1.1.
        http2: allow HTTP/2; ``http1=False`` speaks it without negotiation, also over plain TCP.
        compress: ask for gzip.
        verify: ``True`` for the usual authorities, or an `ssl.SSLContext`. Certificates are always
            checked, unless that context disables it.
        proxy: URL of a proxy; by default from ``HTTPS_PROXY``, ``HTTP_PROXY`` or ``ALL_PROXY``,
            except for the hosts in ``NO_PROXY`` (names, addresses, networks). Checked at
            construction. SOCKS needs ``pip install 'httpx[socks]'``.
        fast_paths: parse the bodies of streams here, and find text and id with msgspec (extra
            ``fast``, which most streams do not need). ``False`` leaves them to httpx and orjson,
            to find the cause of a fault; it is many times slower.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``GET /2/tweets/sample/stream`` of X's API v2.
    """
    return _tweets(_Selection("sample_stream", "sample_stream"), **options)


@with_options_of(_tweets)
def sample10_stream(partition: Partition = None, **options: Unpack[TweetOptions]) -> HotStream[str]:
    """Return the decahose, ten percent of all public tweets; for enterprise accounts.

    Args:
        partition: 1 or 2, or ``(1, 2)``; by default both, merged. Each partition has its own
            connection, retry, state and counters (``stream.parts``), and its events name it
            (``event.part``). If one fails for good, the others continue (`PartEnded`).
        **options: those of `sample_stream`.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``GET /2/tweets/sample10/stream`` of X's API v2.
    """
    return _tweets(_Selection("sample10_stream", "sample10_stream", partition), **options)


@with_options_of(_tweets)
def filtered_stream(
    rules: Iterable[Rule | str] | None = None, **options: Unpack[TweetOptions]
) -> HotStream[str]:
    """Return tweets that match the rules of the app; see `Rules` and `Message.matching_rules`.

    X sells it to every account, and bills each post. `rxtweets.streams` has a table of all streams,
    and `HotStream` describes how they behave.

    Args:
        rules: X's rules are synced with this list before the first connection: missing ones are
            added, others deleted. By default X's rules stay as they are.
        **options: those of `sample_stream`.

    Raises:
        RuleSyntaxError: X would refuse one of the rules.
        ConfigurationError: the rules are not a list, or have a value twice; an option cannot work,
            or there is no token.

    Source: ``GET /2/tweets/search/stream`` of X's API v2.
    """
    wanted = None if rules is None else rule_list("rules", rules)
    selection = _Selection("filtered_stream", "filtered_stream", rules=wanted)
    return _tweets(selection, **options)


@with_options_of(_tweets)
def firehose_stream(
    partition: Partition = None,
    lang: Literal["en", "ja", "ko", "pt"] | None = None,
    **options: Unpack[TweetOptions],
) -> HotStream[str]:
    """Return all public tweets, or all of one language; for enterprise accounts.

    Args:
        partition: 1 to 20 (en: 1 to 8; ja, ko, pt: 1 or 2), or several; by default all, merged.
            See `sample10_stream`.
        lang: en, ja, ko or pt; by default all languages.
        **options: those of `sample_stream`.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``GET /2/tweets/firehose/stream`` and ``…/lang/{lang}`` of X's API v2.
    """
    choice("lang", lang, ("en", "ja", "ko", "pt", None))
    endpoint = "firehose_stream" if lang is None else f"firehose_stream_lang_{lang}"
    return _tweets(_Selection("firehose_stream", endpoint, partition), **options)


@with_options_of(_stream)
def likes_stream(
    partition: Partition = None,
    volume: Literal["firehose", "sample10"] = "firehose",
    *,
    like_fields: Iterable[str] = (),
    tweet_fields: Iterable[str] = (),
    user_fields: Iterable[str] = (),
    media_fields: Iterable[str] = (),
    expansions: Iterable[str] = (),
    **options: Unpack[StreamOptions],
) -> HotStream[Like]:
    """Return likes of public tweets; ``message.data`` is a `Like`; for enterprise accounts.

    Args:
        partition: 1 to 20 (sample10: 1 or 2), or several; by default all, merged. See
            `sample10_stream`.
        volume: ``firehose`` for all, ``sample10`` for ten percent.
        like_fields: X's ``like_with_tweet_author.fields``.
        tweet_fields: X's ``tweet.fields``.
        user_fields: X's ``user.fields``.
        media_fields: X's ``media.fields``.
        expansions: X's ``expansions``.
        **options: those of `sample_stream`, from ``backfill_minutes`` on.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``GET /2/likes/firehose/stream`` and ``/2/likes/sample10/stream`` of X's API v2.
    """
    endpoint = f"likes_{choice('volume', volume, ('firehose', 'sample10'))}_stream"
    fields = {
        "like_fields": like_fields,
        "tweet_fields": tweet_fields,
        "user_fields": user_fields,
        "media_fields": media_fields,
        "expansions": expansions,
    }
    return _stream(_Selection("likes_stream", endpoint, partition), fields, **options)


@with_options_of(_stream)
def compliance_stream(
    of: Literal["tweets", "users", "likes"] = "tweets",
    partition: Partition = None,
    **options: Unpack[StreamOptions],
) -> HotStream[ComplianceEvent]:
    """Return the changes and deletions that stored data needs, for enterprise accounts.

    ``message.data`` is a `ComplianceEvent`, ``message.metadata`` all that X sent.

    Args:
        of: ``tweets``, ``users`` or ``likes``.
        partition: 1 to 4, or several; by default all, merged. Likes have none. See
            `sample10_stream`.
        **options: those of `sample_stream`, from ``backfill_minutes`` on.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``GET /2/{tweets,users,likes}/compliance/stream`` of X's API v2.
    """
    endpoint = f"{choice('of', of, ('tweets', 'users', 'likes'))}_compliance_stream"
    return _stream(_Selection("compliance_stream", endpoint, partition), {}, **options)


@with_options_of(_stream)
def labels_stream(**options: Unpack[StreamOptions]) -> HotStream[LabelEvent]:
    """Return added and removed labels of tweets, for enterprise accounts.

    ``message.data`` is a `LabelEvent`, ``message.metadata`` all that X sent.

    Args:
        **options: those of `sample_stream`, from ``backfill_minutes`` on.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``GET /2/tweets/label/stream`` of X's API v2.
    """
    return _stream(_Selection("labels_stream", "tweet_label_stream"), {}, **options)


@with_options_of(_stream)
def activity_stream(**options: Unpack[StreamOptions]) -> HotStream[Activity]:
    """Return events that the app has subscribed to in X's activity API, for every account.

    ``message.data`` is an `Activity`, ``message.metadata`` all that X sent.

    Args:
        **options: those of `sample_stream`, from ``backfill_minutes`` on.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``GET /2/activity/stream`` of X's API v2.
    """
    return _stream(_Selection("activity_stream", "activity_stream"), {}, **options)


def _rule_sync(config: StreamConfig, rules: list[Rule]) -> Prepare:
    check_rules(rules)
    rest = Rest(config.connection)

    def sync() -> events.Event:
        report = sync_rules(rest, rules)
        return events.RulesSynced(len(report.added), len(report.deleted), len(report.kept))

    return sync


def _connections_of(config: StreamConfig, prepare: Prepare | None) -> HotStream[Any]:
    meter = PostMeter() if config.carries_tweets else None
    if not config.is_merged:
        return _single(config, config.partitions[0], "", new_telemetry(), meter, prepare)
    is_redundant = config.connections > 1
    word = "connection" if is_redundant else "partition"
    numbers = range(1, config.connections + 1) if is_redundant else config.partitions
    parts: dict[str, LiveStream] = {}
    for number in numbers:
        partition = config.partitions[0] if is_redundant else number
        part = _single(config, partition, f".{number}", Telemetry(), meter, prepare)
        parts[f"{word} {number}"] = part
        prepare = None  # only the first connection syncs the rules
    return MergedStream(parts, is_redundant=is_redundant, limit=config.limit, meter=meter)


def _single(
    config: StreamConfig,
    partition: int | None,
    suffix: str,
    telemetry: Telemetry,
    meter: PostMeter | None,
    prepare: Prepare | None,
) -> LiveStream:
    endpoint, fixed = config.endpoint, config.params(partition)

    def connect(params: Mapping[str, str], on_quiet: Callable[[], None]) -> Connection:
        return Connection(config.connection, endpoint.path, {**fixed, **params}, on_quiet)

    # A merge deduplicates redundant connections.
    repeats = config.connections == 1 and (config.backfill_minutes or config.is_replay)
    path = config.state_file
    name = endpoint.name if partition is None else f"{endpoint.name}, partition {partition}"
    parts = LiveParts(
        config,
        connect,
        Pacer(config.backoff),
        Decoder(reader_for(endpoint.carries), fast=config.connection.fast_paths),
        Deduplicator() if repeats else None,
        meter,
        None if path is None else StateFile(path + suffix, name),
        prepare,
    )
    if config.isolated:
        isolated = Isolated(config, fixed, telemetry)
        parts = replace(parts, connect=isolated, finish=isolated.finish)
    return LiveStream(parts, telemetry)
