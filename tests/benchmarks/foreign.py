"""Clients of other projects, unmodified: each reads the id and upcases the text of every tweet.

If a client insists on X's host, an adapter on its session sends the requests to the server.
`requests` reads the trusted authority from ``REQUESTS_CA_BUNDLE``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

__all__ = ["CLIENTS", "version_of"]

Use = Callable[[str, str], None]
"""Called with the id and the upper-case text of each tweet."""


def version_of(name: str) -> str | None:
    """Return the version of a client; ``None`` without the extra ``foreign``."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def tweepy(url: str, use: Use) -> None:
    """Run a subclass of `tweepy.StreamingClient`, as in its documentation."""
    from tweepy import StreamingClient

    class Listener(StreamingClient):  # type: ignore[misc]  # it has no types
        def on_tweet(self, tweet: Any) -> None:
            use(str(tweet.id), tweet.text.upper())

        def on_exception(self, exception: Exception) -> None:
            raise exception

    client = Listener("any")
    _send_to(url, client.session)
    client.sample()


def xdk(url: str, use: Use) -> None:
    """Run X's own client."""
    from xdk import Client

    for answer in Client(base_url=url, bearer_token="any").stream.posts_sample():
        use(answer.data.id, answer.data.text.upper())


def twarc(url: str, use: Use) -> None:
    """Run `twarc.Twarc2`."""
    from twarc import Twarc2

    client = Twarc2(bearer_token="any", metadata=False)
    client.connect()
    _send_to(url, client.client)
    for frame in client.sample():
        use(frame["data"]["id"], frame["data"]["text"].upper())


def _send_to(url: str, session: Any) -> None:
    from requests.adapters import HTTPAdapter

    class Elsewhere(HTTPAdapter):  # type: ignore[misc]  # it has no types
        def send(self, request: Any, *args: Any, **options: Any) -> Any:
            address = urlsplit(request.url)
            request.url = url + address._replace(scheme="", netloc="").geturl()
            return super().send(request, *args, **options)

    session.mount("https://", Elsewhere())


CLIENTS: dict[str, Callable[[str, Use], None]] = {"tweepy": tweepy, "xdk": xdk, "twarc": twarc}
