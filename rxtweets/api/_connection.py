"""Streams and single requests over HTTP, with typed errors."""

from __future__ import annotations

import contextlib
import functools
import ssl
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx

from rxtweets.api._connect import ConnectAttempt
from rxtweets.api._gzip import BodyError, at_most, decoded
from rxtweets.api._options import ConnectionOptions
from rxtweets.api._proxies import proxy_named
from rxtweets.api._raw_body import Wire
from rxtweets.api._responses import error_of_response, is_web_page
from rxtweets.api._watchdog import Watchdog
from rxtweets.errors import (
    ConnectionEnded,
    ConnectionLost,
    ResponseError,
    StreamError,
    StreamStalled,
)
from rxtweets.errors._redaction import LONG, mask, mask_logs, without_secrets

__all__ = ["Connection", "ConnectionOptions", "request", "url_of"]

MAX_ERROR_BODY = 65_536

MAX_ANSWER = 16 * 1024 * 1024
"""Bytes of an answer, decompressed. A page of 1,000 rules of 2,048 characters has at most 8 MB."""

LONGEST_ANSWER = 6.0
"""Connect timeouts that a whole answer may take."""

BROKEN = (httpx.HTTPError, httpx.StreamError, OSError, zlib.error)
"""Exceptions of a broken connection, or of a damaged body."""

PASSED_ON = {"h2.exceptions": "H2Error", "socksio": "SOCKSError"}
"""Exceptions that httpx does not translate, by modules that it imports on demand."""

USER_AGENT = "rxtweets (+https://docs.x.com/x-api; Python)"


class Connection:
    """One streaming response: open it, iterate its blocks, close it from any thread.

    Args:
        options: where and how.
        path: of the endpoint, such as ``/2/tweets/sample/stream``.
        params: of the query.
        on_quiet: called after three quarters of the stall timeout without a byte, on
            another thread.
    """

    def __init__(
        self,
        options: ConnectionOptions,
        path: str,
        params: Mapping[str, str],
        on_quiet: Callable[[], None] = lambda: None,
    ) -> None:
        self._options = options
        self.url = url_of(options, path)
        self._params = dict(params)
        self._exit = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._attempt = ConnectAttempt(options, self.url, self._found)
        self._wire: Wire | None = None
        self._reason: StreamError | None = None
        self._watchdog = Watchdog(options.stall_timeout, self._stalled, on_quiet, self._unwatched)
        self._response: httpx.Response | None = None
        self._blocks: Iterator[bytes] | None = None
        self.closed = False

    @property
    def http_version(self) -> str:
        """``HTTP/1.1`` or ``HTTP/2``; empty before the answer."""
        return self._response.http_version if self._response else ""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the answer, names in lower case."""
        return {} if self._response is None else _fields(self._response)

    def open(self) -> None:
        """Connect, and read the head of the answer.

        Raises:
            ConnectionLost: the network failed, or another thread closed the connection.
            ProxyError: a proxy refused to connect to the server.
            TLSError: the certificate or the handshake was refused.
            ResponseError: the server did not answer with a stream, or used an encoding that was not
                asked for.
        """
        options = self._options
        with self._translated():
            client = self._exit.enter_context(_client(options, None))
            request = client.build_request("GET", self.url, params=self._params)
            request.extensions["trace"] = self._attempt.trace
            self._watchdog.start()
            self._exit.enter_context(self._attempt)
            response = client.send(request, stream=True)
            self._response = response
            self._exit.callback(response.close)
            if response.status_code != 200 or is_web_page(self.headers):
                error = error_of_response(response.status_code, self.headers, _body_of(response))
                raise proxy_named(error, options.base_url, options.proxy)
            raw = self._wire.body(response) if self._wire is not None else None
            self._blocks = decoded(raw or response.iter_raw(), _encoding(response))

    def blocks(self) -> Iterator[bytes]:
        """Iterate the body as it arrives, decompressed; blocks end anywhere.

        Returns after `close` from this side.

        Raises:
            ConnectionLost: the server or the network ended the connection.
            StreamStalled: no byte of the body arrived for the stall timeout.
            ResponseError: the body is not in the encoding that its header names.
        """
        blocks = self._blocks
        if blocks is None:
            raise RuntimeError("open() comes first")
        watchdog = self._watchdog
        with self._translated():
            for block in blocks:
                watchdog.hold()  # the consumer may wait for a slow subscriber
                yield block
                watchdog.touch()
            if not self.closed:
                raise self._reason or ConnectionEnded("the server ended the response")

    def close(self, reason: StreamError | None = None) -> None:
        """Close the connection from any thread; a waiting reader wakes up.

        Args:
            reason: the error that the reader raises; with ``None`` it returns.
        """
        with self._lock:
            if reason is None:
                self.closed = True
            elif self._reason is None:
                self._reason = reason
        self._watchdog.stop()
        self._attempt.shut()

    def release(self) -> None:
        """Release the resources of the connection; called by the thread that read it."""
        self._watchdog.stop()
        # The socket may be shut already, so a goodbye of TLS or HTTP/2 may fail.
        with contextlib.suppress(*_broken()):
            self._exit.close()

    def _found(self, stream: Any) -> None:
        self._wire = Wire(stream) if self._options.fast_paths else None

    def _stalled(self) -> None:
        seconds = self._options.stall_timeout
        silence = f"no byte of the body for {seconds:g} s, keep-alives included"
        slow = f"no head of an answer within {seconds:g} s"
        self.close(StreamStalled(slow if self._response is None else silence))

    def _unwatched(self, error: BaseException) -> None:
        # Without its watchdog the connection could stall forever.
        self.close(StreamError(f"the watchdog of the connection failed unexpectedly: {error!r}"))

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except BodyError as error:
            text = f"200: {error}"
            raise ResponseError(text, 200, "", self.headers) from without_secrets(error)
        except _broken() as error:
            cause = without_secrets(error)
            if self._reason is not None:
                raise self._reason from cause
            if not self.closed:
                raise self._attempt.translated(error) from cause
            if self._response is None:
                raise ConnectionLost("closed before the server answered") from cause


def request(
    options: ConnectionOptions,
    method: str,
    path: str,
    params: Mapping[str, str],
    content: bytes | None,
) -> tuple[int, Mapping[str, str], bytes]:
    """Send one request, and return status, headers (names in lower case) and body.

    Args:
        options: where and how.
        method: of HTTP.
        path: of the endpoint.
        params: of the query.
        content: a JSON body; ``None`` for none.

    Raises:
        ConnectionLost: the network failed, or the answer took too long.
        ProxyError: a proxy refused to connect to the server.
        TLSError: the certificate or the handshake was refused.
        ResponseError: the answer is longer than X's answers, or in an encoding that was not asked
            for. Of a refusal, only the first 64 KB are returned.
    """
    url = url_of(options, path)
    attempt = ConnectAttempt(options, url)
    seconds = options.connect_timeout * LONGEST_ANSWER
    late = threading.Event()

    def end() -> None:
        late.set()
        attempt.shut()

    deadline = Watchdog(seconds, end)
    deadline.start()
    try:
        with (
            attempt,
            _client(options, options.connect_timeout * 3) as client,
            client.stream(
                method,
                url,
                params=params,
                content=content,
                headers={} if content is None else {"content-type": "application/json"},
                extensions={"trace": attempt.trace},
            ) as response,
        ):
            answer = _answer_of(response, path)
            if late.is_set() and response.is_success:
                # A body without a length ends with the connection, also when this side closes it.
                raise httpx.ReadError("the deadline has cut the answer off")
            return response.status_code, _fields(response), answer
    except _broken() as error:
        cause = without_secrets(error)
        if late.is_set():
            text = f"no whole answer of {url.host} within {seconds:g} s"
            raise ConnectionLost(text) from cause
        raise attempt.translated(error) from cause
    finally:
        deadline.stop()


def url_of(options: ConnectionOptions, path: str) -> httpx.URL:
    """Return the URL of a path of the API."""
    return options.base_url.copy_with(path=options.base_url.path.rstrip("/") + path)


def _client(options: ConnectionOptions, read_timeout: float | None) -> httpx.Client:
    mask_logs()
    is_usual = options.verify is True
    return httpx.Client(
        http1=options.http1,
        http2=options.http2,
        verify=_ssl_context_for(options.http1, options.http2) if is_usual else options.verify,
        proxy=options.proxy,
        trust_env=False,  # the options have the proxy of the environment
        timeout=httpx.Timeout(options.connect_timeout, read=read_timeout),
        headers={
            "authorization": options.token.header(),
            "accept-encoding": "gzip" if options.compress else "identity",
            "user-agent": USER_AGENT,
        },
    )


@functools.cache
def _ssl_context_for(http1: bool, http2: bool) -> ssl.SSLContext:
    # Reading the authorities is slow. httpx sets the protocols on the context for each handshake,
    # so each choice of protocols has one context.
    del http1, http2
    return httpx.create_ssl_context()


def _answer_of(response: httpx.Response, path: str) -> bytes:
    if not response.is_success:
        return _body_of(response)
    status, headers = response.status_code, _fields(response)
    try:
        blocks = decoded(response.iter_raw(), _encoding(response))
        body = b"".join(at_most(blocks, MAX_ANSWER + 1))
    except BodyError as error:
        text = f"{status}: {error}"
        raise ResponseError(text, status, "", headers) from without_secrets(error)
    if len(body) > MAX_ANSWER:
        text = f"{status}: the answer of {path} is longer than {MAX_ANSWER} bytes; is base_url X's?"
        start = body[:MAX_ERROR_BODY].decode(errors="replace")
        raise ResponseError(text, status, start, headers)
    return mask(body, LONG)


def _body_of(response: httpx.Response) -> bytes:
    # The status says most, so a body that breaks off is cut there.
    body = bytearray()
    with contextlib.suppress(*_broken(), BodyError):
        for block in at_most(decoded(response.iter_raw(), _encoding(response)), MAX_ERROR_BODY):
            body += block
    return mask(bytes(body))


def _encoding(response: httpx.Response) -> str:
    return str(response.headers.get("content-encoding", ""))


def _fields(response: httpx.Response) -> dict[str, str]:
    return {mask(name): mask(value) for name, value in response.headers.items()}


def _broken() -> tuple[type[Exception], ...]:
    used = ((sys.modules.get(module), name) for module, name in PASSED_ON.items())
    return (*BROKEN, *(getattr(module, name) for module, name in used if module is not None))
