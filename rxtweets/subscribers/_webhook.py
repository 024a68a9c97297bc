"""A webhook: every batch is posted as JSON."""

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

from rxtweets._messages.batch import Batch
from rxtweets._messages.jsonl import keys_of, to_line, to_lines
from rxtweets._support.to_json import to_json
from rxtweets._support.validation import seconds
from rxtweets.api._gzip import BodyError, at_most, decoded
from rxtweets.api._proxies import environment_proxy, secrets_of
from rxtweets.api._server_waits import retry_after
from rxtweets.errors import ConfigurationError, SubscriberError, SubscriberUnavailable
from rxtweets.errors._redaction import Secret, mask, mask_logs, without_secrets
from rxtweets.subscribers._retrying import retry_policy
from rxtweets.subscribers._store import Store

MAX_RETRY_AFTER = 300.0
"""Seconds; a longer Retry-After is cut to it."""

MAX_RESPONSE = 65_536
"""Bytes of a response that are read; the connection of a longer one is closed."""

EXCERPT = 200
"""Characters of a response in an error."""

SECRET_HEADER = re.compile(r"auth|cookie|key|pass|secret|sign|token", re.IGNORECASE)
HEADER_VALUE = re.compile(r"(?:[!-~](?:[ -~\t]*[!-~])?)?")


class _TemporaryFailure(SubscriberUnavailable):
    """The batch was not accepted; the server asks to wait ``after`` seconds."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class WebhookSubscriber(Store):
    """Posts every batch to a URL.

    ::

        POST /hook
        Content-Type: application/json
        Idempotency-Key: 1f0c…                     the same for the same messages

        {"batcher":"default","trigger":"size","messages":[{"id":"212…","received_at":1764028461.25,
         "data":"TEXT","raw":{"data":{…}}}]}

    A status of 2xx accepts the batch. The batch is retried after 408, 425, 429, 5xx and network
    errors, and not before ``Retry-After`` (300 s at most). Any other status fails the batch
    immediately, redirects included. Of a response, at most 64 KB are read, for at most
    ``timeout``. Keys and tokens among ``headers`` are masked in errors. The receiver can detect a
    redelivered batch by its ``Idempotency-Key``.

    Proxies come from ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``. httpcore
    1.0.9 writes an IPv6 address to a proxy without brackets.

    Args:
        url: the URL of the webhook. Only its host and path are ever shown, as the rest can be a
            secret.
        headers: further headers, such as ``Authorization``.
        timeout: seconds for each step of a request; 10 by default.
        stop: when to give up, as in `tenacity.stop`; by default after 5 attempts.
        wait: seconds between attempts, as in `tenacity.wait`; by default 0.5 s, doubled each
            time, up to 30 s, plus up to 1 s by chance.
        sleep: function that waits for a number of seconds; by default ``time.sleep``.

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
        self._url = _webhook_url(url)
        self._where = f"{self._url.host}{self._url.path}"
        added = _checked_headers(headers or {})
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip", **added}
        self._timeout = seconds("timeout", timeout)
        self._proxy = environment_proxy(self._url)
        texts = [
            *(value.split()[-1] for name, value in added.items() if _is_secret(name, value)),
            self._url.userinfo.decode(),
            *self._url.params.values(),
        ]
        # Errors and logs are masked as long as these exist.
        self._secrets = [*map(Secret, texts), *secrets_of([self._proxy] if self._proxy else [])]
        policy = retry_policy(
            tenacity.retry_if_exception_type(_TemporaryFailure), stop=stop, wait=wait, sleep=sleep
        )
        self._policy = policy.copy(wait=_with_retry_after(policy.wait))
        self._client: httpx.Client | None = None

    def on_next(self, batch: Batch[Any]) -> None:
        """Post the batch.

        Raises:
            SubscriberError: it was not accepted.
        """
        body = _request_body(batch, to_lines(batch, b","))
        key = sha256("\n".join(keys_of(batch)).encode()).hexdigest()
        try:
            self._policy(self._post, body, key)
        except SubscriberError:
            # One raw line that is no JSON spoils the whole body; `to_line` makes it a string.
            lines = b"".join(to_line(message)[:-1] + b"," for message in batch)
            escaped_body = _request_body(batch, lines)
            if escaped_body == body:
                raise
            self._policy(self._post, escaped_body, key)

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
            with self._open().stream("POST", self._url, content=body, headers=headers) as response:
                text = _text_of(response, time.monotonic() + self._timeout)
        except httpx.TransportError as error:
            said = mask(f"{self._where}: {type(error).__name__}: {error}")
            raise _TemporaryFailure(said) from without_secrets(error)
        if response.is_success:
            return
        said = f"{self._where} answered {response.status_code}: {text[:EXCERPT]}"
        if response.status_code in {408, 425, 429} or response.status_code >= 500:
            after = retry_after(response.headers, time.time()) or 0.0
            raise _TemporaryFailure(said, min(after, MAX_RETRY_AFTER))
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
                    trust_env=False,  # the proxy is known
                )
            return self._client


def _with_retry_after(
    wait: Callable[[tenacity.RetryCallState], float],
) -> Callable[[tenacity.RetryCallState], float]:
    def longer_wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(error.after if isinstance(error, _TemporaryFailure) else 0.0, wait(state))

    return longer_wait


def _webhook_url(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
        parsed.host.encode("idna")  # an empty or long label raises
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


def _is_secret(name: str, value: str) -> bool:
    return bool(value) and SECRET_HEADER.search(name) is not None


def _text_of(response: httpx.Response, until: float) -> str:
    body = bytearray()
    encoding = response.headers.get("content-encoding", "")
    # The status counts, even if the rest of the response cannot be read.
    with suppress(httpx.RequestError, BodyError, zlib.error):
        for block in at_most(decoded(_read_until(until, response), encoding), MAX_RESPONSE):
            body += block
    return mask(body.decode(errors="replace"))


def _read_until(until: float, response: httpx.Response) -> Iterator[bytes]:
    # Before decompression: compressed blocks can continue forever and contain no bytes.
    for block in response.iter_raw():
        yield block
        if time.monotonic() > until:
            return


def _request_body(batch: Batch[Any], lines: bytes) -> bytes:
    messages = memoryview(lines)[:-1]  # a slice would copy all messages
    info = to_json({"batcher": batch.info.batcher, "trigger": batch.info.trigger})
    return b"".join((info[:-1], b',"messages":[', messages, b"]}"))
