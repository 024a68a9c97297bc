"""A webhook: every batch is posted as JSON, and tried again where that can help."""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from hashlib import sha256
from typing import Any

import httpx
import tenacity
from tenacity import retry_if_exception_type

from rxtweets._messages.batch import Batch
from rxtweets._messages.jsonl import keys_of, to_line, to_lines
from rxtweets._support.to_json import to_json
from rxtweets._support.validation import seconds
from rxtweets.api._gzip import BodyError, at_most, decoded
from rxtweets.api._proxies import environment_proxy, secrets_of
from rxtweets.api._server_waits import retry_after
from rxtweets.errors import ConfigurationError, SubscriberError
from rxtweets.errors._redaction import Secret, mask, mask_logs, without_secrets
from rxtweets.subscribers._policy import STOP, WAIT, check_strategies
from rxtweets.subscribers._store import Store

__all__ = ["WebhookSubscriber"]

LONGEST = 300.0
"""Seconds of a Retry-After that are waited at most."""

SHOWN = 200
"""Characters of an answer that are put into an error."""

MAX_ANSWER = 65_536
"""Bytes of an answer that are read; the connection of a longer one is not used again."""

SECRET = re.compile(r"auth|cookie|key|pass|secret|sign|token", re.IGNORECASE).search
"""In the names of headers whose values are secrets."""

HEADER_VALUE = re.compile(r"(?:[!-~](?:[ -~\t]*[!-~])?)?")


class _Again(SubscriberError):
    """The batch was not taken, and may be later; ``after`` are the seconds that were asked for."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class WebhookSubscriber(Store):
    """Posts every batch to a URL.

    ::

        POST /hook
        Content-Type: application/json
        Idempotency-Key: 1f0c…                     the same whenever the same messages come

        {"batcher":"default","trigger":"size","messages":[{"id":"212…","received_at":1764028461.25,
         "data":"TEXT","raw":{"data":{…}}}]}

    A status of 2xx means that the batch was taken. 408, 425, 429, 5xx, and what the network does,
    are tried again, by ``Retry-After`` where the answer has it (300 s at most); any other status
    fails the batch at once, redirects too. Of an answer, 64 KB at most are read, for ``timeout``
    at most; a key or token among ``headers`` is masked where an answer sends it back. Whoever
    receives can tell by ``Idempotency-Key`` whether he has a batch already.

    Args:
        url: where to; only its host and path are shown anywhere, as the rest can be a secret.
        headers: to add, such as ``Authorization``.
        timeout: seconds for each step of a request.
        stop: when to give up, as in `tenacity.stop`; by default after 5 attempts.
        wait: how long to wait, as in `tenacity.wait`; by default 0.5 s, doubled each time, to
            30 s, and up to a second more by chance.
        sleep: waits for the seconds that it is given.

    Raises:
        ConfigurationError: an argument cannot work.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | timedelta = 10.0,
        stop: tenacity.stop.stop_base | None = None,
        wait: tenacity.wait.wait_base | None = None,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        super().__init__()
        self._url = _checked(url)
        self._where = f"{self._url.host}{self._url.path}"
        added = _checked_headers(headers or {})
        keys = [value.split()[-1] for name, value in added.items() if SECRET(name) and value]
        keys += [self._url.userinfo.decode(), *self._url.params.values()]
        self._secrets = [Secret(text) for text in keys]
        self._headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "gzip",
            **added,
        }
        self._timeout = seconds("timeout", timeout)
        self._proxy = environment_proxy(self._url)
        self._secrets += secrets_of([self._proxy] if self._proxy else [])
        check_strategies(stop=stop, wait=wait, sleep=sleep)
        self._wait = wait or WAIT
        self._policy = tenacity.Retrying(
            stop=stop or STOP,
            wait=self._pause,
            retry=retry_if_exception_type(_Again),
            sleep=sleep or tenacity.nap.sleep,
            reraise=True,
        )
        self._client: httpx.Client | None = None

    def on_next(self, batch: Batch[Any]) -> None:
        """Post the batch.

        Raises:
            SubscriberError: it was not taken.
        """
        body, key = _body(batch, to_lines(batch, b",")), _key(batch)
        try:
            self._policy(self._post, body, key)
        except SubscriberError:
            # A line that is no JSON makes all of the body unreadable; `to_line` makes it a string.
            careful = _body(batch, b"".join(to_line(each)[:-1] + b"," for each in batch))
            if careful == body:
                raise
            self._policy(self._post, careful, key)

    def close(self) -> None:
        """Close the connections."""
        with self._alone:
            client, self._client = self._client, None
            if client is not None:
                client.close()

    def __repr__(self) -> str:
        return f"WebhookSubscriber({self._where!r})"

    def _post(self, body: bytes, key: str) -> None:
        headers = {"Idempotency-Key": key}
        try:
            with self._open().stream("POST", self._url, content=body, headers=headers) as answer:
                text = _text_of(answer, time.monotonic() + self._timeout)
        except httpx.TransportError as error:
            text = mask(f"{self._where}: {type(error).__name__}: {error}")
            raise _Again(text) from without_secrets(error)
        if answer.is_success:
            return
        said = f"{self._where} answered {answer.status_code}: {text[:SHOWN]}"
        if answer.status_code in {408, 425, 429} or answer.status_code >= 500:
            raise _Again(said, min(retry_after(answer.headers, time.time()) or 0.0, LONGEST))
        raise SubscriberError(said)

    def _open(self) -> httpx.Client:
        with self._alone:
            if self._client is None:
                mask_logs()
                self._client = httpx.Client(
                    timeout=self._timeout,
                    headers=self._headers,
                    verify=httpx.create_ssl_context(),
                    proxy=self._proxy,
                    trust_env=False,  # of proxies: the one that applies is known
                )
            return self._client

    def _pause(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.after if isinstance(error, _Again) else 0.0
        return max(asked, self._wait(state))


def _checked(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
        parsed.host.encode("idna")  # as it is resolved: an empty or long label raises
    except (httpx.InvalidURL, TypeError, UnicodeError):
        parsed = httpx.URL("")
    has_host = re.fullmatch(r"[^%\s]+", parsed.host) is not None
    if parsed.scheme not in {"http", "https"} or not has_host:
        raise ConfigurationError("url: give an http or https URL with a host")
    if not 0 < (parsed.port or 80) < 2**16:
        raise ConfigurationError("url: give a port from 1 to 65535")
    return parsed


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not isinstance(value, str) or not HEADER_VALUE.fullmatch(value):
            raise ConfigurationError(  # without the value, which can be a secret
                f"headers[{name!r}]: its value has to be printable ASCII, without spaces or a line "
                "end around it"
            )
    return dict(headers)


def _text_of(answer: httpx.Response, until: float) -> str:
    """What the answer says besides its status; that counts, even if the rest cannot be read."""
    body = bytearray()
    encoding = answer.headers.get("content-encoding", "")
    with suppress(httpx.RequestError, BodyError, zlib.error):
        for block in at_most(decoded(_until(until, answer.iter_raw()), encoding), MAX_ANSWER):
            body += block
    return mask(body.decode(errors="replace"))


def _until(until: float, raw: Iterator[bytes]) -> Iterator[bytes]:
    """The blocks as they were sent: compressed, they can go on for ever and hold nothing."""
    for block in raw:
        yield block
        if time.monotonic() > until:
            return


def _body(batch: Batch[Any], lines: bytes) -> bytes:
    messages = memoryview(lines)[:-1]  # a view, as a slice would copy it all
    info = to_json({"batcher": batch.info.batcher, "trigger": batch.info.trigger})
    return b"".join((info[:-1], b',"messages":[', messages, b"]}"))


def _key(batch: Batch[Any]) -> str:
    return sha256("\n".join(keys_of(batch)).encode()).hexdigest()
