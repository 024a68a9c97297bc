"""Where a server is and how it is reached: the options that streams and requests share."""

from __future__ import annotations

import difflib
import os
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypedDict

from rxtweets._support.validation import seconds
from rxtweets.api._connection import ConnectionOptions
from rxtweets.api._proxies import environment_proxy
from rxtweets.api._token import Token
from rxtweets.errors import ConfigurationError

__all__ = ["DEFAULT_BASE_URL", "ServerOptions", "connection_options", "refuse_unknown"]

DEFAULT_BASE_URL = "https://api.x.com"


class ServerOptions(TypedDict, total=False):
    """Options of everything that talks to X, all keywords.

    Attributes:
        token: the app-only bearer token; by default from ``X_BEARER_TOKEN`` or
            ``TWITTER_BEARER_TOKEN``.
        base_url: another server; by default from ``RXTWEETS_BASE_URL``, else
            ``https://api.x.com``.
        connect_timeout: seconds to connect, through a proxy and with TLS, 10 by default.
        http1: allow HTTP/1.1, on by default.
        http2: allow HTTP/2, on by default.
        compress: ask for gzip, on by default.
        verify: ``True`` for the usual authorities, or an `ssl.SSLContext`. Certificates are always
            checked, unless that context says otherwise.
        proxy: URL of a proxy; by default from ``HTTPS_PROXY`` and its kin, except for the hosts in
            ``NO_PROXY``.
        fast_paths: take the bodies of streams apart with code of our own, and look up text and id
            with msgspec where that is installed (extra ``fast``), on by default; ``False`` leaves
            it to httpx and orjson, which is many times slower: the way to find out whose fault it
            is.
    """

    token: str | None
    base_url: str | None
    connect_timeout: float | timedelta
    http1: bool
    http2: bool
    compress: bool
    verify: bool | ssl.SSLContext
    proxy: str | None
    fast_paths: bool


def connection_options(
    options: ServerOptions, stall_timeout: float | timedelta = 30.0
) -> ConnectionOptions:
    """The options, checked.

    Raises:
        ConfigurationError: one of them is unknown or cannot work, or there is no token.
    """
    refuse_unknown(options, ServerOptions.__annotations__, "rxtweets.ServerOptions")
    base_url = options.get("base_url") or os.environ.get("RXTWEETS_BASE_URL") or DEFAULT_BASE_URL
    verify = options.get("verify", True)
    if verify is not True and not isinstance(verify, ssl.SSLContext):
        raise ConfigurationError(
            f"verify={verify!r}: give True, or ssl.create_default_context(cafile=...) for an "
            "authority of your own; a context that checks nothing has to be made on purpose"
        )
    made = ConnectionOptions(
        token=Token(options.get("token")),
        base_url=base_url,
        stall_timeout=seconds("stall_timeout", stall_timeout),
        connect_timeout=seconds("connect_timeout", options.get("connect_timeout", 10.0)),
        http1=options.get("http1", True),
        http2=options.get("http2", True),
        compress=options.get("compress", True),
        verify=verify,
        proxy=options.get("proxy"),
        fast_paths=options.get("fast_paths", True),
    )
    return made if made.proxy is not None else replace(made, proxy=environment_proxy(made.url))


def refuse_unknown(options: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Refuse options that are none, with the name that was perhaps meant.

    Raises:
        ConfigurationError: there is one.
    """
    known = list(known)
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"see {where}"
            raise ConfigurationError(f"unknown option {name!r}: {hint}")
