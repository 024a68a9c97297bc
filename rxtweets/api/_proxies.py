"""The proxy between a client and a server: from an option or the environment, and its name."""

from __future__ import annotations

import re
from importlib.util import find_spec
from ipaddress import ip_address, ip_network
from urllib.request import getproxies

import httpx

from rxtweets.errors import ConfigurationError

__all__ = ["check_proxy", "environment_proxy", "host_and_port", "shown_proxy"]

SCHEMES = {"http", "https", "socks5", "socks5h"}
PORTS = {"http": 80, "https": 443}


def check_proxy(text: str, name: str = "proxy") -> None:
    """Refuse the URL of a proxy that cannot be used.

    Args:
        text: the URL; it may hold a password, so no error repeats it.
        name: of the option or the variable.

    Raises:
        ConfigurationError: it is no URL of a proxy, or the library for SOCKS is missing.
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
    if url.port is not None and not 0 < url.port < 65_536:
        raise ConfigurationError(f"{name}: the port is a number from 1 to 65535")
    if url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise ConfigurationError(
            f"{name}: SOCKS needs an extra of httpx; install it with: pip install 'httpx[socks]'"
        )


def environment_proxy(url: httpx.URL) -> str | None:
    """The proxy that ``HTTPS_PROXY`` and its kin name for a URL; ``None`` for none.

    Only the variable that applies is looked at, and none where ``NO_PROXY`` has the host.

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
    """Whether an entry of ``NO_PROXY`` is about a URL; as curl reads it, and httpx.

    A name stands for its subdomains too, ``.name`` for them alone; an address may be a network.
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


def shown_proxy(proxy: str) -> str:
    """The URL of a proxy without user name and password."""
    url = httpx.URL(proxy)
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def host_and_port(url: httpx.URL) -> str:
    """As in ``api.x.com:443``; an address of IPv6 is in brackets."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{host}:{_port(url)}"


def _port(url: httpx.URL) -> int | None:
    return url.port or PORTS.get(url.scheme)
