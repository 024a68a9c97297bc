"""The options that streams and requests share, parsed once: token, server, HTTP and TLS."""

from __future__ import annotations

import difflib
import inspect
import os
import re
import ssl
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypedDict

import httpx

from rxtweets._support.validation import flag, seconds
from rxtweets.api._proxies import check_proxy, environment_proxy, has_valid_port, secrets_of
from rxtweets.errors import ConfigurationError
from rxtweets.errors._redaction import Secret

__all__ = [
    "BASE_URL_VARIABLE",
    "TOKEN_VARIABLES",
    "ConnectionOptions",
    "Parsers",
    "ServerOptions",
    "Token",
    "connection_options",
    "parsed_options",
    "warn_caller",
]

TOKEN_VARIABLES = ("X_BEARER_TOKEN", "TWITTER_BEARER_TOKEN")
"""Environment variables of the token, the first one preferred."""

BASE_URL_VARIABLE = "RXTWEETS_BASE_URL"
"""Environment variable of the server."""

DEFAULT_BASE_URL = "https://api.x.com"


class ServerOptions(TypedDict, total=False):
    """Options of everything that talks to X, all keywords.

    To go live, put the app-only bearer token into ``X_BEARER_TOKEN`` and omit ``token=`` and
    ``base_url=``. The token and the credentials of a proxy appear in no log, repr, error, event or
    URL; they are masked where a server sends them back.

    Attributes:
        token: the app-only bearer token; by default from ``X_BEARER_TOKEN`` or
            ``TWITTER_BEARER_TOKEN``.
        base_url: the server; by default from ``RXTWEETS_BASE_URL``, else ``https://api.x.com``.
        connect_timeout: seconds to connect, through a proxy and with TLS, 10 by default. It applies
            to each address of a host, and does not bound the DNS lookup.
        http1: allow HTTP/1.1, on by default.
        http2: allow HTTP/2, on by default; ``http1=False`` speaks it without negotiation, also over
            plain TCP.
        compress: ask for gzip, on by default.
        verify: ``True`` for the usual authorities, or an `ssl.SSLContext`. Certificates are always
            checked, unless that context disables it.
        proxy: URL of a proxy; by default from ``HTTPS_PROXY``, ``HTTP_PROXY`` or ``ALL_PROXY``,
            except for the hosts in ``NO_PROXY`` (names, addresses, networks). Checked at
            construction. SOCKS needs ``pip install 'httpx[socks]'``.
        fast_paths: parse the bodies of streams here, and find text and id with msgspec (extra
            ``fast``, which most streams do not need), on by default. ``False`` leaves them to httpx
            and orjson, to find the cause of a fault; it is many times slower.
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


class Token:
    """A bearer token whose repr hides its value; it is masked in every text of an error or log.

    Args:
        value: the token; ``None`` looks it up in the environment.

    Raises:
        ConfigurationError: there is no token, or it has a character that tokens do not have.
    """

    __slots__ = ("_secret", "_value")

    def __init__(self, value: str | None = None) -> None:
        source = "token="
        if value is None:
            source = next((name for name in TOKEN_VARIABLES if os.environ.get(name)), "")
            if not source:
                raise ConfigurationError(
                    f"no bearer token: set {' or '.join(TOKEN_VARIABLES)}, or pass token=; "
                    "without one, use the simulator (rxtweets.simulator.serve(), or in a shell "
                    "`rxtweets simulate` and its URL)"
                )
            value = os.environ[source]
        if not isinstance(value, str):
            raise ConfigurationError(
                f"{source}: give the token as text, not {type(value).__name__}"
            )
        if not value:
            raise ConfigurationError(f"{source} is empty: pass the app-only bearer token")
        if not re.fullmatch(r"[\x21-\x7e]+", value):
            raise ConfigurationError(
                f"the token in {source} has a space, a line end or another character that tokens "
                "do not have; strip it, or copy it again"
            )
        self._value = value
        self._secret = Secret(value)

    def header(self) -> str:
        """Return the value of the ``Authorization`` header."""
        return f"Bearer {self._value}"

    def __repr__(self) -> str:
        return "Token(***)"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a token is not pickled; make a new one from the environment")


@dataclass(frozen=True)
class ConnectionOptions:
    """Where and how to connect: `ServerOptions` as parsed values, for all connections of a client.

    Attributes:
        base_url: scheme, host and port, and an optional path before the paths of the API.
        stall_timeout: seconds without a byte until a stream is closed.
        connect_timeout: seconds until the request can be sent: TCP, the proxy and TLS together.
    """

    token: Token
    base_url: httpx.URL
    proxy: str | None = field(default=None, repr=False)
    stall_timeout: float = 30.0
    connect_timeout: float = 10.0
    http1: bool = True
    http2: bool = True
    compress: bool = True
    verify: Literal[True] | ssl.SSLContext = True
    fast_paths: bool = True

    def __post_init__(self) -> None:
        if not self.http1 and not self.http2:
            raise ConfigurationError("http1=False and http2=False: allow one of them")
        # A secret is masked as long as its object exists.
        object.__setattr__(self, "_secrets", secrets_of([self.proxy] if self.proxy else []))


def connection_options(
    options: Mapping[str, Any], known: type = ServerOptions
) -> ConnectionOptions:
    """Parse the options; a missing token, server or proxy comes from the environment.

    Args:
        options: those of `ServerOptions`, and ``stall_timeout``; others of `known` are ignored.
        known: the class of the options, for a hint after a misspelled name.

    Raises:
        ConfigurationError: an option is unknown or cannot work, or there is no token.
    """
    names = list(known.__annotations__)
    for name in options:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {close[0]}?" if close else f"see rxtweets.{known.__name__}"
            raise ConfigurationError(f"unknown option {name!r}: {hint}")
    base_url = options.get("base_url") or os.environ.get(BASE_URL_VARIABLE) or DEFAULT_BASE_URL
    url, proxy = _server(base_url), options.get("proxy")
    if proxy is None:
        proxy = environment_proxy(url)
    else:
        check_proxy(proxy)
    return ConnectionOptions(
        Token(options.get("token")), url, proxy, **parsed_options(options, PARSERS)
    )


Parsers = Mapping[str, Callable[[str, Any], Any]]
"""Functions from the name and the value of an option to its parsed value."""


def parsed_options(options: Mapping[str, Any], parsers: Parsers) -> dict[str, Any]:
    """Return the parsed values of the options that have a parser."""
    return {name: parse(name, options[name]) for name, parse in parsers.items() if name in options}


def warn_caller(text: str, category: type[Warning]) -> None:
    """Issue a warning for the first line outside of rxtweets that led here."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals["__name__"].partition(".")[0] == "rxtweets":
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)


def _verify(name: str, value: object) -> object:
    if value is not True and not isinstance(value, ssl.SSLContext):
        raise ConfigurationError(
            f"{name}={value!r}: give True, or ssl.create_default_context(cafile=...) for an "
            "authority of your own; a context without checks has to be made on purpose"
        )
    return value


PARSERS: Parsers = {
    "stall_timeout": seconds,
    "connect_timeout": seconds,
    "http1": flag,
    "http2": flag,
    "compress": flag,
    "verify": _verify,
    "fast_paths": flag,
}


def _server(text: str) -> httpx.URL:
    shown = f"base_url={text!r}"
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, TypeError) as error:
        raise ConfigurationError(f"{shown}: {error}") from None
    if url.userinfo:  # not shown: it may hold a password
        raise ConfigurationError("base_url: omit the user and the password")
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigurationError(
            f"{shown}: give scheme and host, as in https://api.x.com or http://127.0.0.1:8080"
        )
    if not has_valid_port(url):
        raise ConfigurationError(f"{shown}: the port is a number from 1 to 65535")
    if url.query or url.fragment:
        raise ConfigurationError(f"{shown}: give only scheme, host, port and path")
    return url
