"""`serve`: the page on a port of this machine."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from rxtweets._support.optional_imports import needed
from rxtweets._support.validation import flag, whole_number
from rxtweets._support.workers import start_thread
from rxtweets.dashboard._cards import Card, PipelineCard
from rxtweets.errors import ConfigurationError

__all__ = ["Dashboard", "serve", "serve_cards"]

PATIENCE = 10.0
"""Seconds until the server has started or stopped."""

MAX_PORT = 65_535

GRACE = 1
"""Seconds that open pages may take to close when the server stops."""


class Dashboard:
    """A page that is served until `stop`; leaving a ``with`` block stops it.

    Attributes:
        url: of the page; with ``controls=True`` it holds the token for them.
    """

    def __init__(
        self, server: Any, end: Callable[[], None], opened: socket.socket, url: str
    ) -> None:
        self.url = url
        self._server = server
        self._end = end
        self._opened = opened
        self._thread = start_thread("rxtweets-dashboard", self._run)

    def stop(self) -> None:
        """Show the last moment, and close the port."""
        self._end()
        self._server.should_exit = True
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        with self._opened:
            self._server.run(sockets=[self._opened])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Dashboard at {self.url.partition('#')[0]}>"


def serve(
    *shown: Any, port: int = 8600, host: str = "127.0.0.1", controls: bool = False
) -> Dashboard:
    """Serve a page that shows pipelines and streams; return when its port accepts connections.

    Args:
        *shown: pipelines, or streams of X; also before they start.
        port: of the page; 0 for any free one.
        host: address to bind to; ``0.0.0.0`` shows the page, with its tweets, to the network.
        controls: show buttons that pause, resume and drain. They need the token in ``url``.

    Raises:
        ConfigurationError: an argument is invalid, the port is taken, or starlette or uvicorn is
            missing.
    """
    for thing in shown:
        if not all(hasattr(thing, name) for name in ("stats", "errors", "stop")):
            raise ConfigurationError(f"{thing!r} cannot be shown: give a pipeline or a stream of X")
    if not shown:
        raise ConfigurationError("serve() needs a pipeline or a stream to show")
    cards = [PipelineCard(thing, _name(number, thing)) for number, thing in enumerate(shown, 1)]
    actions: dict[tuple[int, str], Any] = {}
    for number, thing in enumerate(shown):
        actions[number, "drain"] = thing.stop
        if hasattr(thing, "pause"):
            actions[number, "pause"], actions[number, "resume"] = thing.pause, thing.resume
    return serve_cards(cards, port, host, actions if flag("controls", controls) else None)


def serve_cards(
    cards: Sequence[Card], port: int, host: str, actions: dict[tuple[int, str], Any] | None = None
) -> Dashboard:
    """Serve a page of cards; see `serve`."""
    if whole_number("port", port, 0) > MAX_PORT:
        raise ConfigurationError(f"port={port}: give a number of at most {MAX_PORT}")
    if not isinstance(host, str) or not host or "\0" in host:
        raise ConfigurationError(f"host={host!r}: give an address of this machine")
    uvicorn = needed("uvicorn", "dashboard")
    needed("starlette", "dashboard")
    from rxtweets.dashboard import _app, _broadcast  # noqa: PLC0415 - needs an extra

    opened = _listening(host, port)
    token = None if actions is None else secrets.token_urlsafe(16)
    broadcast = _broadcast.Broadcast(cards)
    config = uvicorn.Config(
        _app.page_app(broadcast, actions or {}, token, host),
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE,
        server_header=False,
    )
    address = f"[{host}]" if ":" in host else host
    url = f"http://{address}:{opened.getsockname()[1]}/"
    url += "" if token is None else f"#{token}"
    return Dashboard(uvicorn.Server(config), broadcast.end, opened, url)


def _listening(host: str, port: int) -> socket.socket:
    try:
        host.encode("idna")  # create_server() would leave its socket open
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        opened = socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            f"the page cannot be served on {host}, port {port}: {error}; port=0 takes a free one"
        ) from error
    return opened


def _name(number: int, shown: Any) -> str:
    topology = shown.topology() if hasattr(shown, "topology") else None
    if topology is None:
        source = getattr(getattr(shown, "telemetry", None), "source", "")
        return f"stream {number}: {source}" if source else f"stream {number}"
    kinds = ", ".join(source.kind for source in topology.sources)
    return f"pipeline {number}: {kinds}"
