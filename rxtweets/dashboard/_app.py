"""The page as an ASGI application that pages of other sites cannot use.

Such a page can send requests here through the browser of the user. DNS rebinding gives them a
foreign name as ``Host``, so the host must be an IP address or a name of this machine. An action
also needs the token of the URL, in a header that a foreign page cannot send, and no foreign origin.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rxtweets._support.workers import start_thread
from rxtweets.dashboard._broadcast import Broadcast

__all__ = ["Action", "page_app"]

Action = Callable[[], object]

MAX_VIEWERS = 100
TOKEN_HEADER = "X-Rxtweets-Token"  # noqa: S105 - the name of a header

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

FILES = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}


def page_app(
    broadcast: Broadcast, actions: Mapping[tuple[int, str], Action], token: str | None, host: str
) -> ASGIApp:
    """Return the application.

    Args:
        broadcast: of the moments.
        actions: by the number of a card and a name; they may block.
        token: required by each action; ``None`` refuses all actions.
        host: a further name of this machine.
    """

    async def moments(_: Request) -> Response:
        if broadcast.viewers >= MAX_VIEWERS:
            text = f"{MAX_VIEWERS} browsers show this page; close one of them"
            return PlainTextResponse(text, 503)
        return _Viewing(broadcast)

    async def act(request: Request) -> Response:
        given = request.headers.get(TOKEN_HEADER, "")
        if token is None or not secrets.compare_digest(given.encode(), token.encode()):
            return PlainTextResponse("the URL of the page has no valid token", 403)
        action = actions.get((request.path_params["card"], request.path_params["name"]))
        if action is None:
            return PlainTextResponse("unknown action", 404)
        start_thread("rxtweets-dashboard-action", action)
        return JSONResponse({}, 202)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        running = asyncio.create_task(broadcast.run())
        try:
            yield
        finally:
            broadcast.end()
            await running

    routes = [Route(path, _file(*content)) for path, content in FILES.items()]
    routes.append(Route("/moments", moments))
    routes.append(Route("/cards/{card:int}/{name}", act, methods=["POST"]))
    return _Guarded(Starlette(routes=routes, lifespan=lifespan), host)


class _Viewing(StreamingResponse):
    """The moments for one viewer, counted from its request on, as many can arrive at once."""

    def __init__(self, broadcast: Broadcast) -> None:
        super().__init__(broadcast.moments(), media_type="text/event-stream")
        self._broadcast = broadcast

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._broadcast.viewers += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._broadcast.viewers -= 1


class _Guarded:
    """Refuses foreign hosts and origins, and adds the headers of `HEADERS`."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._names = {"localhost", host.lower(), socket.gethostname().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if scope["type"] == "http" and (problem := self._problem(Request(scope))):
            await PlainTextResponse(problem, 403)(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _problem(self, request: Request) -> str:
        host = request.headers.get("host", "")
        name = request.url.hostname or ""
        if not (name in self._names or _is_address(name)):
            return f"the host {name!r} is not this machine; use its IP address"
        origin = request.headers.get("origin")
        if request.method == "POST" and origin not in (None, f"{request.url.scheme}://{host}"):
            return "the request comes from a page of another site"
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _file(name: str, media_type: str) -> Callable[[Request], Any]:
    content = files("rxtweets.dashboard").joinpath("page", name).read_bytes()

    async def send(_: Request) -> Response:
        return Response(content, media_type=media_type)

    return send
