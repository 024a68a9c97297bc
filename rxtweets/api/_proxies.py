"""Proxies: from an option or the environment, with hidden credentials, and their refusals."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from ipaddress import ip_address, ip_network
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

import httpx

from rxtweets.api._responses import shown
from rxtweets.errors import ConfigurationError, ProxyError, ResponseError, StreamError
from rxtweets.errors._redaction import Secret

__all__ = [
    "check_proxy",
    "environment_proxy",
    "has_valid_port",
    "host_and_port",
    "origin",
    "proxy_error",
    "proxy_named",
    "secrets_of",
]

SCHEMES = {"http", "https", "socks5", "socks5h"}
PORTS = {"http": 80, "https": 443}

PASSING = {408, 425, 429}
"""Statuses of a proxy, beside 5xx, after which another attempt can succeed."""

CREDENTIALS = re.compile("username|authentication", re.IGNORECASE)
FORBIDDEN = re.compile("not allowed|not supported|no acceptable", re.IGNORECASE)
"""Texts of httpcore for a SOCKS proxy whose rules are the cause."""


def check_proxy(text: str, name: str = "proxy") -> None:
    """Refuse an unusable URL of a proxy.

    Args:
        text: the URL; no error shows it, because it may hold a password.
        name: of the option or the variable.

    Raises:
        ConfigurationError: it is not a URL of a proxy, or the library for SOCKS is missing.
    """
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, TypeError):
        url = httpx.URL("")
    if url.scheme not in SCHEMES or not url.host or url.query or url.fragment:
        raise ConfigurationError(
            f"{name}: give scheme, host and port of a proxy, as in http://proxy.example:3128; the "
            "scheme is http, https, socks5 or socks5h"
        )
    if not has_valid_port(url):
        raise ConfigurationError(f"{name}: the port is a number from 1 to 65535")
    if url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise ConfigurationError(
            f"{name}: SOCKS needs an extra of httpx; install it with: pip install 'httpx[socks]'"
        )


def environment_proxy(url: httpx.URL) -> str | None:
    """Return the proxy of the environment for a URL; ``None`` for none.

    Reads ``HTTPS_PROXY``, ``HTTP_PROXY`` or ``ALL_PROXY``, unless ``NO_PROXY`` has the host.

    Raises:
        ConfigurationError: that proxy cannot be used.
    """
    named = getproxies()
    if any(_covers(entry, url) for entry in re.split(r"[,\s]+", named.get("no", "").lower())):
        return None
    for scheme in (url.scheme, "all"):
        if text := named.get(scheme, "").strip():
            proxy = text if "://" in text else f"http://{text}"
            check_proxy(proxy, f"{scheme.upper()}_PROXY in the environment")
            return proxy
    return None


def _covers(entry: str, url: httpx.URL) -> bool:
    """Return whether an entry of ``NO_PROXY`` matches a URL, by the rules of curl and httpx.

    A name covers its subdomains too, ``.name`` only these; an address may be a network.
    """
    scheme, _, rest = entry.rpartition("://")
    match = re.fullmatch(r"(\[.*\]|[^:]*):(\d+)", rest)
    host, port = match.groups() if match else (rest, None)
    if scheme not in {"", "all", url.scheme} or port not in {None, str(_port(url))}:
        return False
    try:
        return ip_address(url.host) in ip_network(host.strip("[]"), strict=False)
    except ValueError:
        name = host.removeprefix("*").removeprefix(".")
        is_parent = name not in {"", "localhost"} and url.host.endswith(f".{name}")
        return host in {"*", url.host} or is_parent


def has_valid_port(url: httpx.URL) -> bool:
    """Return whether the port is 1 to 65535, or missing."""
    return url.port is None or 0 < url.port < 65_536


def origin(url: httpx.URL | str) -> str:
    """Return scheme, host and port of a URL: without user, password and path."""
    url = httpx.URL(url)
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def host_and_port(url: httpx.URL) -> str:
    """Return host and port, such as ``api.x.com:443``; brackets enclose an IPv6 address."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{host}:{_port(url)}"


def _port(url: httpx.URL) -> int | None:
    return url.port or PORTS.get(url.scheme)


def secrets_of(urls: Iterable[str]) -> tuple[Secret, ...]:
    """Return the secrets in the URLs of proxies: each password, and its forms on the wire.

    Args:
        urls: with or without a user; an invalid URL has no secrets.
    """
    secrets: list[Secret] = []
    for url in urls:
        with suppress(ValueError):
            parts = urlsplit(url if "://" in url else f"http://{url}")
            user, password = unquote(parts.username or ""), unquote(parts.password or "")
            pair = f"{user}:{password}"
            if user or password:
                forms = (password or user, pair, b64encode(pair.encode()).decode())
                secrets += map(Secret, forms)
    return tuple(secrets)


def proxy_named(error: ResponseError, url: httpx.URL, proxy: str | None) -> StreamError:
    """Return the error of an answer with the proxy that may have sent it instead of the server.

    Args:
        error: of the answer.
        url: of the server.
        proxy: URL of the proxy; ``None`` for none.
    """
    if error.status == 407:
        said = "407 Proxy Authentication Required"
        return proxy_error(proxy, url, said, 407, error.headers)
    if proxy is not None and url.scheme == "http" and proxy.startswith("http"):
        text = f"{error} The proxy {origin(proxy)} may have answered in place of the server."
        return type(error)(text, error.status, error.body, error.headers)
    return error


def proxy_error(
    proxy: str | None, url: httpx.URL, said: str, status: int, headers: Mapping[str, str]
) -> ProxyError:
    """Make the error of a proxy that refused to connect to a server.

    Args:
        proxy: URL of the proxy; ``None`` if none was configured.
        url: of the server.
        said: the proxy's own text.
        status: of its answer; 0 for a SOCKS proxy.
        headers: of its answer.
    """
    is_unknown = status == 407 or (not status and CREDENTIALS.search(said) is not None)
    is_refused = 400 <= status < 500 or (not status and FORBIDDEN.search(said) is not None)
    is_final = is_unknown or (is_refused and status not in PASSING)
    if is_unknown:
        advice = "Check the proxy's user name and password, in proxy= or HTTPS_PROXY."
    elif is_final:
        advice = "Its rules do not allow this, or it is not a proxy: check proxy= or HTTPS_PROXY."
    else:
        advice = "It could not reach the server; trying again later helps."
    where = "" if proxy is None else origin(proxy)
    named = f"the proxy {where}" if where else "a proxy that was not configured"
    said = shown(said).rstrip(".")
    text = f"{named} refused to connect to {host_and_port(url)}: {said}. {advice}"
    return ProxyError(text, where, status, headers, retryable=not is_final)
