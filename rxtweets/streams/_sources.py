"""The public sources: X's streams as hot Observables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, Unpack, cast

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

    Args:
        **options: see `TweetOptions`.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``GET /2/tweets/sample/stream`` of X's API v2.
    """
    return _stream("sample_stream", None, options)


def sample10_stream(partition: Partition = None, **options: Unpack[TweetOptions]) -> HotStream[str]:
    """Return the decahose, ten percent of all public tweets; for enterprise accounts.

    Args:
        partition: 1 or 2, or ``(1, 2)``; by default both, merged. Each partition has its own
            connection, retry, state and counters (``stream.parts``), and its events name it
            (``event.part``). If one fails for good, the others continue (`PartEnded`).
        **options: see `TweetOptions`.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``GET /2/tweets/sample10/stream`` of X's API v2.
    """
    return _stream("sample10_stream", partition, options)


def filtered_stream(
    rules: Iterable[Rule | str] | None = None, **options: Unpack[TweetOptions]
) -> HotStream[str]:
    """Return tweets that match the rules of the app; see `Rules` and `Message.matching_rules`.

    X sells it to every account, and bills each post. `rxtweets.streams` has a table of all streams:
    `sample_stream`, `sample10_stream`, `firehose_stream`, `likes_stream`, `compliance_stream`,
    `labels_stream`, `activity_stream`. Their options are those of `ServerOptions`, `StreamOptions`
    and, for tweets and likes, `TweetOptions`. `HotStream` describes how streams behave.

    Args:
        rules: X's rules are synced with this list before the first connection: missing ones are
            added, others deleted. By default X's rules stay as they are.
        **options: see `TweetOptions`.

    Raises:
        RuleSyntaxError: X would refuse one of the rules.
        ConfigurationError: the rules are not a list, or have a value twice; an option cannot work,
            or there is no token.

    Source: ``GET /2/tweets/search/stream`` of X's API v2.
    """
    wanted = None if rules is None else rule_list("rules", rules)
    return _stream("filtered_stream", None, options, rules=wanted)


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
        **options: see `TweetOptions`.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``GET /2/tweets/firehose/stream`` and ``…/lang/{lang}`` of X's API v2.
    """
    choice("lang", lang, ("en", "ja", "ko", "pt", None))
    name = "firehose_stream" if lang is None else f"firehose_stream_lang_{lang}"
    return _stream(name, partition, options, function="firehose_stream")


def likes_stream(
    partition: Partition = None,
    volume: Literal["firehose", "sample10"] = "firehose",
    **options: Unpack[TweetOptions],
) -> HotStream[Like]:
    """Return likes of public tweets; ``message.data`` is a `Like`; for enterprise accounts.

    Args:
        partition: 1 to 20 (sample10: 1 or 2), or several; by default all, merged. See
            `sample10_stream`.
        volume: ``firehose`` for all, ``sample10`` for ten percent.
        **options: see `TweetOptions`.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``GET /2/likes/firehose/stream`` and ``/2/likes/sample10/stream`` of X's API v2.
    """
    name = f"likes_{choice('volume', volume, ('firehose', 'sample10'))}_stream"
    return cast("HotStream[Like]", _stream(name, partition, options, function="likes_stream"))


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
        **options: see `StreamOptions`.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``GET /2/{tweets,users,likes}/compliance/stream`` of X's API v2.
    """
    name = f"{choice('of', of, ('tweets', 'users', 'likes'))}_compliance_stream"
    return cast(
        "HotStream[ComplianceEvent]",
        _stream(name, partition, options, function="compliance_stream"),
    )


def labels_stream(**options: Unpack[StreamOptions]) -> HotStream[LabelEvent]:
    """Return added and removed labels of tweets, for enterprise accounts.

    ``message.data`` is a `LabelEvent`, ``message.metadata`` all that X sent.

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
    """Return events that the app has subscribed to in X's activity API, for every account.

    ``message.data`` is an `Activity`, ``message.metadata`` all that X sent.

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
    function: str = "",
    rules: list[Rule] | None = None,
) -> HotStream[Any]:
    config = StreamConfig.from_options(ENDPOINTS[name], options, partition)
    stream = _connections_of(config, None if rules is None else _rule_sync(config, rules))
    for part in {stream, *stream.parts}:
        part.telemetry.source = function or name
        part.where = origin(config.connection.base_url)
    return stream


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
