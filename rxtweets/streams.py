"""The public sources: X's streams as hot Observables."""

from __future__ import annotations

import difflib
import os
import ssl
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, TypedDict, Unpack

from rxtweets.backoff import Backoff
from rxtweets.checks import seconds, whole_number
from rxtweets.connection import Connection, ConnectionOptions
from rxtweets.credentials import Token
from rxtweets.errors import ConfigurationError
from rxtweets.framing import DEFAULT_MAX_LINE
from rxtweets.handoff import Overflow, check_overflow
from rxtweets.live import LiveOptions, LiveStream

__all__ = ["StreamOptions", "sample_stream"]

DEFAULT_BASE_URL = "https://api.x.com"
DEFAULT_TWEET_FIELDS = ("author_id", "created_at", "entities", "lang", "public_metrics")
DEFAULT_EXPANSIONS = ("author_id",)


class StreamOptions(TypedDict, total=False):
    """Options that every stream takes, all keywords.

    Attributes:
        token: the app-only bearer token; by default from ``X_BEARER_TOKEN`` or
            ``TWITTER_BEARER_TOKEN``.
        base_url: another server; by default from ``RXTWEETS_BASE_URL``, else
            ``https://api.x.com``.
        tweet_fields: X's ``tweet.fields``; by default author_id, created_at, entities, lang and
            public_metrics. An empty sequence leaves the choice to X.
        user_fields: X's ``user.fields``.
        media_fields: X's ``media.fields``.
        place_fields: X's ``place.fields``.
        poll_fields: X's ``poll.fields``.
        expansions: X's ``expansions``; by default author_id.
        backfill_minutes: 0 to 5, for access levels that have it.
        buffer_size: tweets that may wait for the subscribers; 10,000 by default.
        overflow: what happens when there are more: ``drop_oldest`` (default), ``drop_newest``,
            or ``block``, which stops reading, and after a while X cuts a client off that does.
        stall_timeout: seconds without a byte until a connection is given up, 30 by default; X
            sends an empty line every 20.
        connect_timeout: seconds to connect, 10 by default.
        backoff: when to connect again; see `Backoff`.
        max_line_mb: the longest line in megabytes, 16 by default.
        http1: allow HTTP/1.1, on by default.
        http2: allow HTTP/2, on by default.
        compress: ask for gzip, on by default.
        verify: ``True`` for the usual authorities, or an `ssl.SSLContext`.
        proxy: URL of a proxy; by default from ``HTTPS_PROXY`` and its kin.
    """

    token: str | None
    base_url: str | None
    tweet_fields: Iterable[str]
    user_fields: Iterable[str]
    media_fields: Iterable[str]
    place_fields: Iterable[str]
    poll_fields: Iterable[str]
    expansions: Iterable[str]
    backfill_minutes: int | None
    buffer_size: int
    overflow: Overflow
    stall_timeout: float | timedelta
    connect_timeout: float | timedelta
    backoff: Backoff
    max_line_mb: float
    http1: bool
    http2: bool
    compress: bool
    verify: bool | ssl.SSLContext
    proxy: str | None


def sample_stream(**options: Unpack[StreamOptions]) -> LiveStream:
    r"""The sample stream, about one percent of all public tweets, as a hot Observable.

    It connects on the first subscription and closes with the last; all subscribers share the one
    connection that a token may hold. A connection that ends is made again, by X's schedules; what
    cannot be mended (a refused token, no access) comes to ``on_error`` as a typed error.

    ::

        tweets = rxtweets.sample_stream()
        with tweets.subscribe(lambda message: print(message.data)):
            input("Enter stops\n")

    Args:
        **options: see `StreamOptions`.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``GET /2/tweets/sample/stream`` of X's API v2.
    """
    return _stream("/2/tweets/sample/stream", options)


def _stream(path: str, options: StreamOptions) -> LiveStream:
    _refuse_unknown(options)
    connection = _connection_options(options)
    params = _params(options)
    return LiveStream(lambda: Connection(connection, path, params), _live_options(options))


def _refuse_unknown(options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in StreamOptions.__annotations__:
            close = difflib.get_close_matches(name, StreamOptions.__annotations__, 1)
            hint = f"did you mean {close[0]}?" if close else "see rxtweets.StreamOptions"
            raise ConfigurationError(f"unknown option {name!r}: {hint}")


def _connection_options(options: StreamOptions) -> ConnectionOptions:
    base_url = options.get("base_url") or os.environ.get("RXTWEETS_BASE_URL") or DEFAULT_BASE_URL
    verify = options.get("verify", True)
    if not isinstance(verify, (bool, ssl.SSLContext)):
        raise ConfigurationError(
            f"verify={verify!r}: give True, False, or ssl.create_default_context(cafile=...)"
        )
    return ConnectionOptions(
        token=Token(options.get("token")),
        base_url=base_url,
        stall_timeout=seconds("stall_timeout", options.get("stall_timeout", 30.0)),
        connect_timeout=seconds("connect_timeout", options.get("connect_timeout", 10.0)),
        http1=options.get("http1", True),
        http2=options.get("http2", True),
        compress=options.get("compress", True),
        verify=verify,
        proxy=options.get("proxy"),
    )


def _live_options(options: StreamOptions) -> LiveOptions:
    max_line = seconds("max_line_mb", options.get("max_line_mb", DEFAULT_MAX_LINE / 2**20))
    backoff = options.get("backoff", Backoff())
    if not isinstance(backoff, Backoff):
        raise ConfigurationError(f"backoff={backoff!r}: give a rxtweets.Backoff")
    return LiveOptions(
        buffer_size=whole_number("buffer_size", options.get("buffer_size", 10_000)),
        overflow=check_overflow(options.get("overflow", "drop_oldest")),
        max_line=int(max_line * 2**20),
        backoff=backoff,
    )


def _params(options: StreamOptions) -> dict[str, str]:
    """X's names for our options; lists are joined by commas."""
    lists: dict[str, object] = {
        "tweet_fields": DEFAULT_TWEET_FIELDS,
        "user_fields": (),
        "media_fields": (),
        "place_fields": (),
        "poll_fields": (),
        "expansions": DEFAULT_EXPANSIONS,
    }
    lists.update((name, names) for name, names in options.items() if name in lists)
    params = {name.replace("_", "."): _joined(name, names) for name, names in lists.items()}
    minutes = options.get("backfill_minutes")
    if minutes is not None:
        most = 5
        whole_number("backfill_minutes", minutes, least=0)
        if minutes > most:
            raise ConfigurationError(f"backfill_minutes={minutes}: X gives {most} at most")
        params["backfill_minutes"] = str(minutes)
    return {name: value for name, value in params.items() if value}


def _joined(name: str, names: object) -> str:
    if isinstance(names, Iterable) and not isinstance(names, (str, bytes)):
        several = list(names)
        if all(isinstance(each, str) and each for each in several):
            return ",".join(dict.fromkeys(several))
    raise ConfigurationError(f"{name}={names!r}: give a sequence of names, as ('id', 'text')")
