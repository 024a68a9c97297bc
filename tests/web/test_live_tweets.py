"""The web app, with HTTP clients over sockets and the simulator as X."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
import uvicorn
import uvloop
from fastapi import FastAPI
from starlette.responses import HTMLResponse, Response

import rxtweets
from rxtweets import simulator
from tests.web.live_tweets import PAGE, app_of, streamed

PATIENCE = 20.0


def fastapi_of(tweets: rxtweets.HotStream[str]) -> FastAPI:
    """The same app by FastAPI."""
    app = FastAPI()

    @app.get("/tweets")
    async def stream() -> Response:
        return streamed(tweets)

    @app.get("/")
    async def page() -> HTMLResponse:
        return HTMLResponse(PAGE)

    return app


APPS = {"starlette": (app_of, asyncio.run), "fastapi": (fastapi_of, uvloop.run)}
"""The app and its event loop."""


@pytest.fixture
def x() -> Iterator[simulator.Simulator]:
    with simulator.serve(rate=200) as server:
        yield server


@pytest.fixture(params=APPS)
def url(x: simulator.Simulator, request: pytest.FixtureRequest) -> Iterator[str]:
    """The web app, on an event loop in a thread."""
    make, run = APPS[request.param]
    tweets = rxtweets.sample_stream(token="any", base_url=x.url)
    config = uvicorn.Config(make(tweets), port=0, ws="none", lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: run(server.serve()))
    thread.start()
    while not server.started:
        threading.Event().wait(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(PATIENCE)
    assert not thread.is_alive()


class Browser:
    """A client that reads server-sent events."""

    def __init__(self, url: str, closing: ExitStack) -> None:
        client = closing.enter_context(httpx.Client(timeout=PATIENCE))
        self.response = closing.enter_context(client.stream("GET", f"{url}/tweets"))
        self._lines = self.response.iter_lines()

    def read(self, count: int) -> list[str]:
        """Return the next texts."""
        texts: list[str] = []
        while len(texts) < count:
            line = next(self._lines)
            if line.startswith("data: "):
                texts.append(json.loads(line.removeprefix("data: ")))
        return texts


def wait_for_connections(x: simulator.Simulator, count: int) -> None:
    while len(x._access._held) != count:  # its API has a rate limit
        threading.Event().wait(0.005)


def test_page_reads_the_stream(url: str) -> None:
    assert 'EventSource("/tweets")' in httpx.get(url).text


def test_browser_gets_tweets_as_server_sent_events(url: str) -> None:
    with ExitStack() as closing:
        browser = Browser(url, closing)
        assert browser.response.headers["content-type"].startswith("text/event-stream")
        assert len(browser.read(5)) == 5


def test_browsers_share_one_connection_to_x(x: simulator.Simulator, url: str) -> None:
    with ExitStack() as closing:
        for browser in [Browser(url, closing) for _ in range(3)]:
            browser.read(1)
        wait_for_connections(x, 1)
    wait_for_connections(x, 0)
    streams = [request for request in x.requests if request.path.endswith("/stream")]
    assert len(streams) == 1


def test_browser_that_leaves_ends_its_subscription(x: simulator.Simulator, url: str) -> None:
    with ExitStack() as closing:
        staying = Browser(url, closing)
        with ExitStack() as leaving:
            browser = Browser(url, leaving)
            browser.read(1)
        assert len(staying.read(100)) == 100
        assert len(x._access._held) == 1
    wait_for_connections(x, 0)
    with ExitStack() as closing:
        later = Browser(url, closing)
        assert later.read(1)
