"""A web app that streams tweets to browsers, by server-sent events.

Run it, and open http://127.0.0.1:8000; it needs starlette and uvicorn::

    python tests/web/live_tweets.py
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

import rxtweets

PAGE = """<!doctype html>
<title>Tweets</title>
<ul id="tweets"></ul>
<script>
new EventSource("/tweets").onmessage = event => {
  const item = document.createElement("li");
  item.textContent = JSON.parse(event.data);
  document.getElementById("tweets").prepend(item);
};
</script>
"""


class ClosingStream(StreamingResponse):
    """Closes its generator when the browser leaves, also while it is too slow to be sent more."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        generator: Any = self.body_iterator
        async with aclosing(generator):
            await super().__call__(scope, receive, send)


def streamed(tweets: rxtweets.HotStream[str]) -> Response:
    """Return the response that never ends."""

    async def events() -> AsyncIterator[str]:
        async for message in tweets:
            yield f"id: {message.id}\ndata: {json.dumps(message.data)}\n\n"

    return ClosingStream(events(), media_type="text/event-stream")


def app_of(tweets: rxtweets.HotStream[str]) -> Starlette:
    """Return the app; all browsers share the one connection to X, which closes with the last."""

    async def stream(_: Request) -> Response:
        return streamed(tweets)

    async def page(_: Request) -> Response:
        return HTMLResponse(PAGE)

    return Starlette(routes=[Route("/", page), Route("/tweets", stream)])


if __name__ == "__main__":
    with rxtweets.simulator.serve(rate=5) as x:
        uvicorn.run(app_of(rxtweets.sample_stream(token="any", base_url=x.url)))
