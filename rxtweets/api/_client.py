"""Requests to X's other endpoints: one JSON answer, or a typed error."""

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

from rxtweets._support.json_objects import object_in
from rxtweets.api._connection import ConnectionOptions, request
from rxtweets.api._proxies import proxy_named
from rxtweets.api._responses import error_of_response, is_web_page, unexpected_answer
from rxtweets.api._server_waits import asked_wait
from rxtweets.errors import ConnectionLost, ResponseError, ServerError

__all__ = ["Rest"]

ATTEMPTS = 3
PAUSE = 0.25
"""Seconds before the second attempt; twice that before the third."""

LONGEST_PAUSE = 5.0
"""Seconds. If the server asks for a longer wait, the request fails immediately."""

MOST_PAGES = 1_000
MOST_OF_PAGES = 64 * 1024 * 1024
"""Bytes of all pages of a list. X's longest has 25,000 rules of 2,048 characters on 25 pages."""


class Rest:
    """Requests with the token to the server of the streams.

    A request that only reads is tried three times if the network or the server fails, and not
    before its ``Retry-After``. A request that changes data is tried once. Redirects are not
    followed.

    Args:
        options: where and how to connect.
        sleep: called with the seconds to wait.
    """

    def __init__(
        self, options: ConnectionOptions, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._options = options
        self._sleep = sleep

    def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Read an object.

        Raises:
            StreamError: the network failed, or the server refused.
        """
        return self._get(path, params or {})[0]

    def pages(self, path: str, params: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """Read all pages of a list, one after the other.

        Raises:
            StreamError: the network failed, the server refused, or its pages do not end.
        """
        token, total = "", 0
        known: set[str] = set()
        while token not in known:
            known.add(token)
            more = {"pagination_token": token} if token else {}
            page, size = self._get(path, {**params, **more})
            total += size
            if len(known) > MOST_PAGES or total > MOST_OF_PAGES:
                most = f"{MOST_PAGES} pages of {path}, or {MOST_OF_PAGES} bytes"
                raise ResponseError(f"more than {most}; is base_url X's?", 200, "", {})
            yield page
            token = str(object_in(page, "meta").get("next_token") or "")
            if not token:
                return
        text = f"the pages of {path} repeat after {len(known)} of them; is base_url X's?"
        raise ResponseError(text, 200, "", {})

    def send(
        self, method: str, path: str, params: Mapping[str, str], body: object = None
    ) -> dict[str, Any]:
        """Change data.

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
        # Errors alone are a failure, not an empty answer.
        if answer.get("errors") and not answer.get("data"):
            raise error_of_response(200, {}, orjson.dumps(answer))
        return answer, size

    def _ask(
        self, method: str, path: str, params: Mapping[str, str], body: object
    ) -> tuple[dict[str, Any], int]:
        options, content = self._options, None if body is None else orjson.dumps(body)
        status, headers, answer = request(options, method, path, params, content)
        if not 200 <= status < 300:
            error = error_of_response(status, headers, answer)
            raise proxy_named(error, options.base_url, options.proxy)
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
