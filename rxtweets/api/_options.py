"""The options that streams and requests share, parsed once: token, server, HTTP and TLS."""

from __future__ import annotations

import difflib
import inspect
import os
import re
import ssl
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypedDict, TypeVar

import httpx

from rxtweets._support.validation import flag, seconds
from rxtweets.api._proxies import check_proxy, environment_proxy, has_valid_port, secrets_of
from rxtweets.errors import ConfigurationError
from rxtweets.errors._redaction import Secret

__all__ = [
    "BASE_URL_VARIABLE",
    "STALL_TIMEOUT",
    "TOKEN_VARIABLES",
    "ConnectionOptions",
    "ServerOptions",
    "Token",
    "connection_options",
    "refuse_unknown",
    "warn_caller",
    "with_options_of",
]

F = TypeVar("F", bound=Callable[..., Any])

TOKEN_VARIABLES = ("X_BEARER_TOKEN", "TWITTER_BEARER_TOKEN")
"""Environment variables of the token, the first one preferred."""

BASE_URL_VARIABLE = "RXTWEETS_BASE_URL"
"""Environment variable of the server."""

DEFAULT_BASE_URL = "https://api.x.com"
STALL_TIMEOUT = 30.0
"""Seconds without a byte until a connection is closed; X sends an empty line every 20."""


class ServerOptions(TypedDict, total=False):
    """Options of everything that talks to X, for annotations; `sample_stream` describes each."""

    token: str | None
    base_url: str | None
    connect_timeout: float | timedelta
    http1: bool
    http2: bool
    compress: bool
    verify: Literal[True] | ssl.SSLContext
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
    proxy: str | None = field(repr=False)
    stall_timeout: float
    connect_timeout: float
    http1: bool
    http2: bool
    compress: bool
    verify: Literal[True] | ssl.SSLContext
    fast_paths: bool

    def __post_init__(self) -> None:
        if not self.http1 and not self.http2:
            raise ConfigurationError("http1=False and http2=False: allow one of them")
        # A secret is masked as long as its object exists.
        object.__setattr__(self, "_secrets", secrets_of([self.proxy] if self.proxy else []))


def connection_options(
    *,
    token: str | None = None,
    base_url: str | None = None,
    connect_timeout: float | timedelta = 10.0,
    http1: bool = True,
    http2: bool = True,
    compress: bool = True,
    verify: Literal[True] | ssl.SSLContext = True,
    proxy: str | None = None,
    fast_paths: bool = True,
) -> ConnectionOptions:
    """Parse the options; a missing token, server or proxy comes from the environment.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.
    """
    url = _server(base_url or os.environ.get(BASE_URL_VARIABLE) or DEFAULT_BASE_URL)
    if proxy is None:
        proxy = environment_proxy(url)
    else:
        check_proxy(proxy)
    return ConnectionOptions(
        Token(token),
        url,
        proxy,
        stall_timeout=STALL_TIMEOUT,
        connect_timeout=seconds("connect_timeout", connect_timeout),
        http1=flag("http1", http1),
        http2=flag("http2", http2),
        compress=flag("compress", compress),
        verify=_verify(verify),
        fast_paths=flag("fast_paths", fast_paths),
    )


def refuse_unknown(names: Iterable[str], known: type) -> None:
    """Refuse options that are not among those of the class `known`.

    Raises:
        ConfigurationError: an option is unknown.
    """
    options = list(known.__annotations__)
    for name in names:
        if name not in options:
            close = difflib.get_close_matches(name, options, 1)
            hint = f"did you mean {close[0]}?" if close else "see help(rxtweets.sample_stream)"
            raise ConfigurationError(f"unknown option {name!r}: {hint}")


def with_options_of(model: Callable[..., Any]) -> Callable[[F], F]:
    """Show the keywords of `model` in place of ``**options``, in ``help`` and `inspect`.

    Type checkers read ``Unpack`` instead, and Jedi follows the call that passes ``**options`` on.
    """

    def show(function: F) -> F:
        shown = inspect.signature(function)
        own = [part for part in shown.parameters.values() if part.kind is not part.VAR_KEYWORD]
        names = {part.name for part in own}
        options = [
            part
            for part in inspect.signature(model).parameters.values()
            if part.kind is part.KEYWORD_ONLY and part.name not in names
        ]
        signature = shown.replace(parameters=own + options)
        setattr(function, "__signature__", signature)  # noqa: B010 - type checkers know no such one
        return function

    return show


def warn_caller(text: str, category: type[Warning]) -> None:
    """Issue a warning for the first line outside of rxtweets that led here."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals["__name__"].partition(".")[0] == "rxtweets":
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)


def _verify(value: Literal[True] | ssl.SSLContext) -> Literal[True] | ssl.SSLContext:
    if value is not True and not isinstance(value, ssl.SSLContext):
        raise ConfigurationError(
            f"verify={value!r}: give True, or ssl.create_default_context(cafile=...) for an "
            "authority of your own; a context without checks has to be made on purpose"
        )
    return value


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
