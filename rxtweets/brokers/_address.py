"""The URL of a queue, taken apart."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from rxtweets.errors import ConfigurationError

__all__ = ["Address"]

ESCAPE = "write # / ? : @ in a user, a password or a name as %23 %2F %3F %3A %40"


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of a URL such as ``nats://user:secret@host:4222/TWEETS?replicas=3``.

    Attributes:
        scheme: names the engine.
        hosts: pairs of host and port, ``None`` for the engine's usual one; empty without a host.
        user: empty without one.
        password: empty without one.
        path: names the stream, queue, topic or file; without the slash at its start if there is a
            host.
        options: of the query, each given once.
    """

    scheme: str
    hosts: tuple[tuple[str, int | None], ...]
    user: str
    password: str = field(repr=False)
    path: str
    options: Mapping[str, str] = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Address:
        """Take a URL apart.

        Raises:
            ConfigurationError: it is no URL of a queue.
        """
        if not isinstance(url, str):
            raise ConfigurationError(f"url={type(url).__name__}: give a URL as text")
        scheme = url.partition(":")[0]
        try:
            parts = urlsplit(url)
            hosts = _hosts_in(parts)
        except ValueError:  # its text may show a part of the password
            raise ConfigurationError(
                f"the URL of a queue ({scheme[:20]!r}…) has an invalid host or port; {ESCAPE}"
            ) from None
        if parts.fragment or (parts.netloc and "@" in parts.path + parts.query):
            raise ConfigurationError(
                f"the URL of a queue ({scheme[:20]!r}…) is ambiguous; {ESCAPE}"
            )
        path = unquote(parts.path.removeprefix("/") if parts.netloc else parts.path)
        if not parts.scheme or not path:
            raise ConfigurationError(
                f"the URL of a queue ({scheme[:20]!r}…) needs a scheme, and a path that names the "
                "queue, as sqlite:tweets.queue or nats://127.0.0.1/TWEETS"
            )
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        return cls(parts.scheme, hosts, user, password, path, options)

    def check_options(self, known: Collection[str]) -> None:
        """Check the names of the options.

        Raises:
            ConfigurationError: one of them is unknown.
        """
        unknown = sorted(set(self.options) - set(known))
        if unknown:
            raise ConfigurationError(
                f"{self}: unknown option {unknown[0]!r}; known are: {', '.join(sorted(known))}"
            )

    def number(self, name: str, default: int, least: int = 1, most: int | None = None) -> int:
        """Return an option that is a whole number.

        Raises:
            ConfigurationError: it is none, or out of range.
        """
        text = self.options.get(name)
        if text is None:
            return default
        if re.fullmatch("[0-9]{1,9}", text) and least <= int(text) <= (most or int(text)):
            return int(text)
        range_ = f"of {least} or more" if most is None else f"from {least} to {most}"
        raise ConfigurationError(f"{self}: {name}={text!r}: give a whole number {range_}")

    def __str__(self) -> str:
        """Return the URL without user, password and options."""
        hosts = ",".join(host if port is None else f"{host}:{port}" for host, port in self.hosts)
        return f"{self.scheme}://{hosts}/{self.path}" if hosts else f"{self.scheme}:{self.path}"


def _hosts_in(parts: SplitResult) -> tuple[tuple[str, int | None], ...]:
    hosts = parts.netloc.rpartition("@")[2]
    pairs = (urlsplit(f"//{host}") for host in hosts.split(",") if host)
    return tuple((pair.hostname or "", pair.port) for pair in pairs)
