"""The bearer token: where it comes from, and where it does not go."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

from rxtweets.errors import ConfigurationError
from rxtweets.errors._redaction import Secret

__all__ = ["Token", "secrets_of"]


class Token:
    """A bearer token that does not show itself, and is masked where a server sends it back.

    Args:
        value: the token; ``None`` takes it from ``X_BEARER_TOKEN`` or ``TWITTER_BEARER_TOKEN``.

    Raises:
        ConfigurationError: there is none, or it has characters that no token has.
    """

    __slots__ = ("_secret", "_value")

    def __init__(self, value: str | None = None) -> None:
        names = ("X_BEARER_TOKEN", "TWITTER_BEARER_TOKEN")
        source = "token="
        if value is None:
            source = next((name for name in names if os.environ.get(name)), "")
            value = os.environ.get(source, "") if source else ""
            if not value:
                raise ConfigurationError(
                    "no bearer token: set X_BEARER_TOKEN or TWITTER_BEARER_TOKEN, or pass token=; "
                    "without one, use the simulator (rxtweets.simulator.serve(), or in a shell "
                    "`rxtweets simulate` and its URL)"
                )
        if not isinstance(value, str):
            raise ConfigurationError(
                f"{source}: give the token as text, not {type(value).__name__}"
            )
        if not value:
            raise ConfigurationError(f"{source} is empty: pass the app-only bearer token")
        if not re.fullmatch(r"[\x21-\x7e]+", value):
            raise ConfigurationError(
                f"the token in {source} has a space, a line end or another character that no "
                "token has; strip it, or copy it again"
            )
        self._value = value
        self._secret = Secret(value)

    def header(self) -> str:
        """The value of the ``Authorization`` header."""
        return f"Bearer {self._value}"

    def __repr__(self) -> str:
        return "Token(***)"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a token is not pickled; make it anew from the environment")


def secrets_of(urls: Iterable[str]) -> tuple[Secret, ...]:
    """The secrets in the URLs of proxies: the password, and its forms on the wire.

    Args:
        urls: with or without a user; what cannot be read has none.
    """
    secrets: list[Secret] = []
    for url in urls:
        with suppress(ValueError):
            parts = urlsplit(url if "://" in url else f"http://{url}")
            user, password = unquote(parts.username or ""), unquote(parts.password or "")
            pair = f"{user}:{password}"
            basic = b64encode(pair.encode()).decode()
            if user or password:
                secrets += [Secret(password or user), Secret(pair), Secret(basic)]
    return tuple(secrets)
