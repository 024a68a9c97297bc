"""X's other endpoints: one request, one JSON answer, or a typed error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
)

from rxtweets.api._connection import ConnectionOptions, proxy_named, request
from rxtweets.api._responses import error_of_response, is_web_page, unexpected_answer
from rxtweets.api._server_waits import asked_wait
from rxtweets.errors import ConnectionLost, ResponseError, ServerError

__all__ = ["Rest"]

ATTEMPTS = 3
PAUSE = 0.25
"""Seconds before the second attempt; twice that before the third."""

LONGEST_PAUSE = 5.0
"""Seconds. If the server asks for a longer wait, the request fails at once: the caller decides."""
MOST_PAGES = 1_000
MOST_OF_PAGES = 64 * 1024 * 1024
"""Bytes of all pages of something. X's most are 25,000 rules of 2,048 characters, on 25 pages."""


class Rest:
    """Requests with the token, to the server of the streams.

    What only reads is tried three times when the network or the server fails, not before its
    ``Retry-After``; what changes something is tried once. Redirects are not followed.

    Args:
        options: where and how to connect.
        sleep: waits for the seconds that it is given.
    """

    def __init__(
        self, options: ConnectionOptions, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._options = options
        self._sleep = sleep

    def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Ask for something.

        Raises:
            StreamError: the network failed, or the server refused.
        """
        return self._get(path, params or {})[0]

    def pages(self, path: str, params: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """Ask for all pages of something, one after the other.

        Raises:
            StreamError: the network failed, or the server refused, or it names pages in a circle or
                without an end.
        """
        token, total = "", 0
        known: set[str] = set()
        while token not in known:
            known.add(token)
            more = {"pagination_token": token} if token else {}
            page, size = self._get(path, {**params, **more})
            total += size
            if len(known) > MOST_PAGES or total > MOST_OF_PAGES:
                text = (
                    f"more than {MOST_PAGES} pages of {path}, or {MOST_OF_PAGES} bytes; is "
                    "base_url X's?"
                )
                raise ResponseError(text, 200, "", {})
            yield page
            meta = page.get("meta")
            token = str(meta.get("next_token") or "") if isinstance(meta, dict) else ""
            if not token:
                return
        text = f"the pages of {path} go in a circle, after {len(known)} of them; is base_url X's?"
        raise ResponseError(text, 200, "", {})

    def send(
        self, method: str, path: str, params: Mapping[str, str], body: object = None
    ) -> dict[str, Any]:
        """Change something.

        Raises:
            StreamError: the network failed, or the server refused.
        """
        return self._ask(method, path, params, body)[0]

    def _get(self, path: str, params: Mapping[str, str]) -> tuple[dict[str, Any], int]:
        trying = Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=_pause,
            retry=retry_if_exception(_is_passing),
            sleep=self._sleep,
            reraise=True,
        )
        return trying(self._read, path, params)

    def _read(self, path: str, params: Mapping[str, str]) -> tuple[dict[str, Any], int]:
        answer, size = self._ask("GET", path, params, None)
        # Nothing but errors is not the same as nothing.
        if answer.get("errors") and not answer.get("data"):
            raise error_of_response(200, {}, orjson.dumps(answer))
        return answer, size

    def _ask(
        self, method: str, path: str, params: Mapping[str, str], body: object
    ) -> tuple[dict[str, Any], int]:
        """What the server answers, and its size in bytes."""
        content = None if body is None else orjson.dumps(body)
        status, headers, answer = request(self._options, method, path, params, content)
        if not 200 <= status < 300:
            raise proxy_named(error_of_response(status, headers, answer), self._options)
        try:
            value = orjson.loads(answer)
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            advice = f"The answer of {path} is no JSON object; is base_url X's?"
            if is_web_page(headers):
                advice += " A web page may be the login page of this network."
            raise unexpected_answer(status, headers, answer, advice)
        return value, len(answer)


def _is_passing(error: BaseException) -> bool:
    is_passing = isinstance(error, (ConnectionLost, ServerError)) and error.retryable
    return is_passing and asked_wait(error, time.time()) <= LONGEST_PAUSE


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = asked_wait(error, time.time()) if error else 0.0
    return max(asked, wait_exponential(multiplier=PAUSE)(state))
