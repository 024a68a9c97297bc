"""One streaming response as blocks of bytes; the only file that knows httpx."""

from __future__ import annotations

import contextlib
import functools
import re
import socket
import ssl
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from rxtweets.api._gzip import BodyError, at_most, decoded
from rxtweets.api._http1 import Dechunker
from rxtweets.api._http2 import Deframer, whole_frames
from rxtweets.api._proxies import check_proxy, host_and_port, shown_proxy
from rxtweets.api._responses import error_of_response, is_web_page, shown
from rxtweets.api._tls import burst
from rxtweets.api._token import Token, secrets_of
from rxtweets.api._watchdog import Watchdog
from rxtweets.errors import (
    ConfigurationError,
    ConnectionEnded,
    ConnectionLost,
    HostNotFound,
    ProxyError,
    ResponseError,
    StreamError,
    StreamStalled,
    TLSError,
)
from rxtweets.errors._redaction import LONG, mask, mask_logs, without_secrets

__all__ = ["Connection", "ConnectionOptions", "proxy_named", "request", "url_of"]

MAX_ERROR_BODY = 65_536

MAX_ANSWER = 16 * 1024 * 1024
"""Bytes of an answer, decompressed. A page of 1,000 rules of 2,048 characters has at most 8 MB."""

LONGEST_ANSWER = 6.0
"""Connect timeouts that a whole answer may take."""

LONGEST_HEAD = 102_400
"""The most bytes of an incomplete HTTP/2 head; httpx has the same bound for HTTP/1.1."""

READ = 65_536
HEAD_END = re.compile(rb"\n\r?\n")
"""Where h11 takes the head for ended: servers may end lines by line feeds alone."""

BROKEN = (httpx.HTTPError, httpx.StreamError, OSError, zlib.error)
"""Exceptions of httpx when a connection breaks, and of zlib when a body is damaged."""

PASSED_ON = {"h2.exceptions": "H2Error", "socksio": "SOCKSError"}
"""What it does not translate, by module: in the body of a response, and of a SOCKS proxy."""

USER_AGENT = "rxtweets (+https://docs.x.com/x-api; Python)"


@dataclass(frozen=True)
class ConnectionOptions:
    """Where and how to connect; checked when made.

    Attributes:
        token: the bearer token.
        base_url: scheme, host and port, perhaps a path before the API's own.
        stall_timeout: seconds without a byte until the connection is given up.
        connect_timeout: seconds until the request can be sent: TCP, the proxy and TLS together.
        http1: allow HTTP/1.1.
        http2: allow HTTP/2; with ``http1=False`` it is spoken without asking, over plain TCP too.
        compress: ask for gzip.
        verify: ``True`` for the usual authorities, or an `ssl.SSLContext`.
        proxy: a proxy's URL; ``None`` for none.
        fast_paths: read the bodies of streams here; else httpx reads them.
    """

    token: Token
    base_url: str
    stall_timeout: float
    connect_timeout: float
    http1: bool
    http2: bool
    compress: bool
    verify: bool | ssl.SSLContext
    proxy: str | None = field(repr=False)
    fast_paths: bool = True
    url: httpx.URL = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _checked_url(self.base_url))
        for name in ("http1", "http2", "compress", "fast_paths"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name}={getattr(self, name)!r}: give True or False")
        if not self.http1 and not self.http2:
            raise ConfigurationError("http1=False and http2=False: allow one of them")
        if self.proxy is not None:
            check_proxy(self.proxy)
        object.__setattr__(self, "_secrets", secrets_of([self.proxy] if self.proxy else []))

    def context(self) -> ssl.SSLContext | bool:
        """What the server's certificate is checked with."""
        return _authorities(self.http1, self.http2) if self.verify is True else self.verify


@functools.cache
def _authorities(http1: bool, http2: bool) -> ssl.SSLContext:
    """The usual ones; reading them takes 25 ms, so it is done once, not for every connection.

    A context of its own for each choice of protocols, which are set on it for a handshake.
    """
    del http1, http2
    return httpx.create_ssl_context()


def _checked_url(text: str) -> httpx.URL:
    """The URL, if it can be one."""
    shown = f"base_url={text!r}"
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, TypeError) as error:
        raise ConfigurationError(f"{shown}: {error}") from None
    if url.userinfo:  # not shown, as it may hold a password
        raise ConfigurationError("base_url: a user or a password does not belong here")
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigurationError(
            f"{shown}: give scheme and host, as in https://api.x.com or http://127.0.0.1:8080"
        )
    if url.port is not None and not 0 < url.port < 65_536:
        raise ConfigurationError(f"{shown}: the port is a number from 1 to 65535")
    if url.query or url.fragment:
        raise ConfigurationError(f"{shown}: only scheme, host, port and path belong here")
    return url


class Connection:
    """One connection of one token: open it, iterate its blocks, close it from any thread.

    Args:
        options: where and how.
        path: of the endpoint, such as ``/2/tweets/sample/stream``.
        params: of the query.
        on_quiet: called when it has been silent for three quarters of the stall timeout, from a
            thread of its own.
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
        self._way = _Way(options, self.url, self._found)
        self._wire: _Wire | None = None
        self._reason: StreamError | None = None
        self._watchdog = Watchdog(options.stall_timeout, self._stalled, on_quiet, self._unwatched)
        self._response: httpx.Response | None = None
        self._blocks: Iterator[bytes] | None = None
        self.closed = False

    @property
    def http_version(self) -> str:
        """Of the answer: ``HTTP/1.1`` or ``HTTP/2``."""
        return self._response.http_version if self._response else ""

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the answer, names in lower case."""
        return {} if self._response is None else _fields(self._response)

    def open(self) -> None:
        """Connect, and read the head of the answer.

        Raises:
            ConnectionLost: the network failed, or somebody closed the connection meanwhile.
            ProxyError: a proxy refused the way to the server.
            TLSError: the certificate or the handshake was refused.
            ResponseError: the server answered with something else than a stream, or in an encoding
                that was not asked for.
        """
        options = self._options
        with self._translated():
            client = self._exit.enter_context(_client(options, None))
            request = client.build_request("GET", self.url, params=self._params)
            request.extensions["trace"] = self._way.trace
            self._watchdog.start()
            self._way.start()
            response = client.send(request, stream=True)
            self._response = response
            self._exit.callback(response.close)
            if response.status_code != 200 or is_web_page(self.headers):
                raise proxy_named(
                    error_of_response(response.status_code, self.headers, _body_of(response)),
                    options,
                )
            self._blocks = self._body(response)

    def blocks(self) -> Iterator[bytes]:
        """The body as it arrives, decompressed; blocks fall on no particular bounds.

        Returns when the connection was closed from this side.

        Raises:
            ConnectionLost: the server or the network ended it.
            StreamStalled: no byte of the body arrived for the stall timeout.
            ResponseError: the body is not in the encoding that its header names.
        """
        blocks = self._blocks
        if blocks is None:
            raise RuntimeError("open() comes first")
        watchdog = self._watchdog
        with self._translated():
            for block in blocks:
                watchdog.hold()  # who takes the block may have to wait, for a slow subscriber
                yield block
                watchdog.touch()
            if not self.closed:
                raise self._reason or ConnectionEnded("the server ended the response")

    def close(self, reason: StreamError | None = None) -> None:
        """End it from any thread, at once; a reader that waits wakes up.

        Args:
            reason: raised by the reader; ``None`` if the end is wanted, then it just returns.
        """
        with self._lock:
            if reason is None:
                self.closed = True
            elif self._reason is None:
                self._reason = reason
        self._watchdog.stop()
        self._way.shut()

    def release(self) -> None:
        """Give back what the connection held; called by the thread that read it."""
        self._watchdog.stop()
        # The socket is shut already, or the server gone: a goodbye that fails says nothing new.
        with contextlib.suppress(*_broken()):
            self._exit.close()
        self._way.release()

    def _body(self, response: httpx.Response) -> Iterator[bytes]:
        """The body by the short way where there is one, else by httpx; decompressed."""
        raw = self._short_way(response) or response.iter_raw()
        return decoded(raw, response.headers.get("content-encoding", ""))

    def _short_way(self, response: httpx.Response) -> Iterator[bytes] | None:
        """The body as it was sent, read here; ``None`` if httpx has to."""
        wire = self._wire
        if wire is None or not wire.is_apart:
            return None
        if response.http_version == "HTTP/2" and wire.is_http2:
            if "content-length" in response.headers:
                return None  # a stream has none; else h2 knows whether the body was cut short
            return _deframed(wire, response.extensions["stream_id"])
        chunked = response.headers.get("transfer-encoding", "").lower() == "chunked"
        return _dechunked(wire) if chunked and not wire.is_http2 else None

    def _found(self, stream: Any) -> None:
        self._wire = _Wire(stream) if self._options.fast_paths else None

    def _stalled(self) -> None:
        seconds = self._options.stall_timeout
        silence = f"no byte of the body for {seconds:g} s, keep-alives included"
        slow = f"no head of an answer within {seconds:g} s"
        self.close(StreamStalled(slow if self._response is None else silence))

    def _unwatched(self, error: BaseException) -> None:
        """Nobody would notice its silence any more."""
        self.close(StreamError(f"the watch over the connection failed unexpectedly: {error!r}"))

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of httpx become ours, unless we ended the connection ourselves."""
        try:
            yield
        except BodyError as error:
            text = f"200: {error}"
            raise ResponseError(text, 200, "", self.headers) from without_secrets(error)
        except _broken() as error:
            if self._reason is not None:
                raise self._reason from without_secrets(error)
            if not self.closed:
                raise self._way.translated(error) from without_secrets(error)
            if self._response is None:
                raise ConnectionLost("closed before the server answered") from without_secrets(
                    error
                )


def request(
    options: ConnectionOptions,
    method: str,
    path: str,
    params: Mapping[str, str],
    content: bytes | None,
) -> tuple[int, Mapping[str, str], bytes]:
    """One request with a JSON body or none; status, headers (names in lower case) and body.

    Raises:
        ConnectionLost: the network failed, or took too long.
        ProxyError: a proxy refused the way to the server.
        TLSError: the certificate or the handshake was refused.
        ResponseError: the answer is longer than any of X's, or in an encoding that was not asked
            for. Of one that refuses, the first 64 KB are taken.
    """
    url = url_of(options, path)
    kind = {} if content is None else {"content-type": "application/json"}
    way = _Way(options, url)
    seconds = options.connect_timeout * LONGEST_ANSWER
    late = threading.Event()

    def end() -> None:
        late.set()
        way.shut()

    deadline = Watchdog(seconds, end)
    deadline.start()
    try:
        with (
            way,
            _client(options, options.connect_timeout * 3) as client,
            client.stream(
                method,
                url,
                params=params,
                content=content,
                headers=kind,
                extensions={"trace": way.trace},
            ) as response,
        ):
            answer = _answer_of(response, path)
            if late.is_set() and response.is_success:
                # Where a body ends with the connection, our own end looks like the server's.
                raise httpx.ReadError("the deadline has cut the answer off")
            return response.status_code, _fields(response), answer
    except _broken() as error:
        if late.is_set():
            text = f"no whole answer of {url.host} within {seconds:g} s"
            raise ConnectionLost(text) from without_secrets(error)
        raise way.translated(error) from without_secrets(error)
    finally:
        deadline.stop()


def _answer_of(response: httpx.Response, path: str) -> bytes:
    status, headers = response.status_code, _fields(response)
    if not response.is_success:
        return _body_of(response)
    body = bytearray()
    try:
        blocks = decoded(response.iter_raw(), response.headers.get("content-encoding", ""))
        for block in at_most(blocks, MAX_ANSWER + 1):
            body += block
    except BodyError as error:
        text = f"{status}: {error}"
        raise ResponseError(text, status, "", headers) from without_secrets(error)
    if len(body) > MAX_ANSWER:
        raise ResponseError(
            f"{status}: the answer of {path} is longer than {MAX_ANSWER} bytes; is base_url X's?",
            status,
            body[:MAX_ERROR_BODY].decode(errors="replace"),
            headers,
        )
    return mask(bytes(body), LONG)


def url_of(options: ConnectionOptions, path: str) -> httpx.URL:
    """Where a path of the API is."""
    return options.url.copy_with(path=options.url.path.rstrip("/") + path)


def _client(options: ConnectionOptions, read_timeout: float | None) -> httpx.Client:
    mask_logs()
    return httpx.Client(
        http1=options.http1,
        http2=options.http2,
        verify=options.context(),
        proxy=options.proxy,
        trust_env=False,  # of proxies: the one that applies is among the options
        timeout=httpx.Timeout(options.connect_timeout, read=read_timeout),
        headers={
            "authorization": options.token.header(),
            "accept-encoding": "gzip" if options.compress else "identity",
            "user-agent": USER_AGENT,
        },
    )


class _Way:
    """The way to a server, perhaps through a proxy: bounded in time as a whole, and cut by `shut`.

    The time limits of httpx are for a single read or write, so a proxy that sends a byte now and
    then never exceeds them.

    Args:
        options: where and how.
        url: of the request.
        on_stream: called with each stream of httpcore, the innermost last.
    """

    def __init__(
        self,
        options: ConnectionOptions,
        url: httpx.URL,
        on_stream: Callable[[Any], None] = lambda _: None,
    ) -> None:
        self._url = url
        self._seconds = options.connect_timeout
        self._on_stream = on_stream
        self._proxy = "" if options.proxy is None else shown_proxy(options.proxy)
        through = f" (through the proxy {self._proxy})" if self._proxy else ""
        self._server = f"{host_and_port(url)}{through}"
        self._peer = f"the proxy {self._proxy}" if self._proxy else self._server
        self._step = "connect_tcp"
        self._refusal: tuple[int, str, Mapping[str, str]] = (0, "", {})
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_shut = False
        self._is_late = False
        self._watchdog = Watchdog(self._seconds, self._late)

    def start(self) -> None:
        """Begin to measure the time."""
        self._watchdog.start()

    def shut(self) -> None:
        """End it from any thread; a handshake or a read that waits fails at once."""
        self._watchdog.stop()
        with self._lock:
            self._is_shut = True
            if self._socket is not None:
                _shut(self._socket)

    def release(self) -> None:
        """Give back what it holds; called by the thread that used the way."""
        self._watchdog.stop()
        with self._lock:
            if self._socket is not None:
                self._socket.close()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.release()

    def trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Called by httpcore at the begin and the end of each step."""
        *_, module, step, phase = name.split(".")
        if phase == "started" and step in LATE:
            self._step = step
            # To the proxy go all steps of a module that knows no proxy, and the talk with it.
            is_inner = module in {"proxy", "socks"} and step == "start_tls"
            self._peer = self._server if is_inner or not self._proxy else f"the proxy {self._proxy}"
        if phase == "started" and step == "send_request_headers":
            self._send(info["request"])
        elif phase == "complete" and step in {"connect_tcp", "start_tls"}:
            self._found(info["return_value"], is_first=step == "connect_tcp")
        elif name == "http11.receive_response_headers.complete" and self._step == "CONNECT":
            _, status, reason, headers = info["return_value"]
            self._refusal = status, reason.decode("latin-1"), dict(httpx.Headers(headers))

    def translated(self, error: Exception) -> StreamError:  # noqa: PLR0911 - a return a cause
        """The error of httpx as one of ours, that names the peer: the server, or the proxy."""
        if self._is_late or (self._step and isinstance(error, httpx.TimeoutException)):
            return ConnectionLost(
                f"no connection to {self._server} within connect_timeout ({self._seconds:g} s): "
                f"{self._peer if self._peer != self._server else 'the server'} {LATE[self._step]}"
            )
        if (known := self._from_cause(error)) is not None:
            return known
        if isinstance(error, httpx.ProxyError):
            return self._refused(str(error))
        said = shown(str(error) or type(error).__name__)
        # h11's text for a head that exceeds its bound
        said = said.replace("Receive buffer too long", f"more than {LONGEST_HEAD} bytes of a head")
        if "_SWITCH_UPGRADE" in said:  # so h11 names a 101 that was not asked for
            return error_of_response(101, {}, b"")
        if isinstance(error, httpx.TimeoutException):
            return ConnectionLost(f"no answer of {self._peer} in time ({type(error).__name__})")
        if isinstance(error, httpx.ConnectError):
            return ConnectionLost(f"cannot connect to {self._peer}: {said}")
        if self._step in {"CONNECT", "setup_socks5_connection"}:
            return ConnectionLost(
                f"{self._peer} opened no way to {host_and_port(self._url)}: {said}. Does the "
                "scheme of its URL say what kind of proxy it is?"
            )
        return ConnectionLost(f"the connection to {self._peer} broke: {said}")

    def _from_cause(self, error: Exception) -> StreamError | None:
        """By what is behind the error of httpx, where that says more."""
        is_proxy = self._peer != self._server
        option = "proxy" if is_proxy else "base_url"
        for cause in _causes(error):
            if isinstance(cause, ssl.SSLCertVerificationError):
                cure = "set SSL_CERT_FILE" if is_proxy else "pass verify=" + OWN_AUTHORITY
                return TLSError(
                    f"the certificate of {self._peer} was refused: {cause.verify_message}. For a "
                    f"private authority, {cure}"
                )
            if isinstance(cause, socket.gaierror):
                host = httpx.URL(self._proxy).host if is_proxy else self._url.host
                return HostNotFound(
                    f"no address for the host {host!r}: {cause.strerror}. Check {option} and the "
                    "network"
                )
            if isinstance(error, httpx.ConnectError) and isinstance(cause, ssl.SSLError):
                if isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
                    return None
                return TLSError(
                    f"the TLS handshake with {self._peer} failed: {cause.reason}. Does it speak "
                    f"TLS on this port? If not, use http:// in {option}"
                )
        return None

    def _late(self) -> None:
        self._is_late = True
        self.shut()

    def _found(self, stream: Any, *, is_first: bool) -> None:
        with self._lock:
            if is_first:
                # A copy, because a TLS handshake takes the descriptor out of the first object.
                self._socket = stream.get_extra_info("socket").dup()
            self._on_stream(stream)
            if self._is_shut and self._socket is not None:
                _shut(self._socket)

    def _send(self, request: Any) -> None:
        """A request is about to be sent, to the proxy or at last to the server."""
        if self._proxy and ":" in self._url.host:
            _put_in_brackets(request, self._url)
        if request.method == b"CONNECT":
            self._step = "CONNECT"
            return
        self._step, self._peer = "", self._server
        self._watchdog.stop()

    def _refused(self, said: str) -> ProxyError:
        status, reason, headers = self._refusal
        said = f"{status} {reason}".strip() if status else said
        return _proxy_error(self._proxy, host_and_port(self._url), said, status, headers)


OWN_AUTHORITY = "ssl.create_default_context(cafile=...)"

LATE = {
    "connect_tcp": "did not accept the connection",
    "start_tls": "did not finish the TLS handshake",
    "CONNECT": "did not answer CONNECT",
    "setup_socks5_connection": "did not finish the SOCKS handshake",
    "": "took too long",
}
"""The text for each step of the way; the last is the request itself."""

PASSING = {408, 425, 429}
"""Statuses of a proxy, beside 5xx, after which another try can help."""

CREDENTIALS = re.compile("username|authentication", re.IGNORECASE)
FORBIDDEN = re.compile("not allowed|not supported|no acceptable", re.IGNORECASE)
"""Texts of httpcore for a SOCKS proxy whose rules are the cause."""


def proxy_named(error: ResponseError, options: ConnectionOptions) -> StreamError:
    """The error of an answer; it names the proxy that may have given it, as plain HTTP allows."""
    proxy = options.proxy or ""
    if error.status == 407:
        where = host_and_port(options.url)
        said = "407 Proxy Authentication Required"
        return _proxy_error(proxy and shown_proxy(proxy), where, said, 407, error.headers)
    if options.url.scheme == "http" and proxy.startswith("http"):
        text = f"{error} The proxy {shown_proxy(proxy)} may have answered in place of the server."
        return type(error)(text, error.status, error.body, error.headers)
    return error


def _proxy_error(
    proxy: str, where: str, said: str, status: int, headers: Mapping[str, str]
) -> ProxyError:
    is_unknown = status == 407 or (not status and CREDENTIALS.search(said) is not None)
    is_refused = 400 <= status < 500 or (not status and FORBIDDEN.search(said) is not None)
    is_final = is_unknown or (is_refused and status not in PASSING)
    if is_unknown:
        advice = "Check the proxy's user name and password, in proxy= or HTTPS_PROXY."
    elif is_final:
        advice = "Its rules do not allow this, or it is no proxy: check proxy= or HTTPS_PROXY."
    else:
        advice = "It could not reach the server; trying again later helps."
    named = f"the proxy {proxy}" if proxy else "a proxy that was not configured"
    text = f"{named} refused the way to {where}: {shown(said).rstrip('.')}. {advice}"
    return ProxyError(text, proxy, status, headers, retryable=not is_final)


def _put_in_brackets(request: Any, url: httpx.URL) -> None:
    """Write an address of IPv6 as RFC 3986 has it; httpcore 1.0.9 leaves the brackets out.

    That concerns what a proxy is asked for: the target of CONNECT with its ``Host``, and the
    absolute URL of a plain request.
    """
    bare, right = url.raw_host, b"[%b]" % url.raw_host
    if request.method == b"CONNECT":
        request.url.target = request.url.target.replace(bare, right, 1)
        request.headers = [
            (name, request.url.target if name.lower() == b"host" else value)
            for name, value in request.headers
        ]
    elif request.url.target.startswith(b"http://" + bare):
        request.url.target = request.url.target.replace(bare, right, 1)


class _Wire:
    """The bytes of a connection, the body of a response apart from its head.

    Stands between httpx and its stream: httpx is given the heads of responses and not a byte
    more at a time, so that the body can be read from here (see `rxtweets.api._http1` and
    `rxtweets.api._http2` for why).

    Attributes:
        is_http2: what the server speaks, known from its first byte behind a proxy's.
        is_apart: the last thing that was given to httpx is the end of a head.
    """

    def __init__(self, stream: Any) -> None:
        self._read: Callable[..., bytes] = stream.read
        self._write: Callable[..., None] = stream.write
        # With TLS within the TLS of a proxy, the socket is not what the stream reads from.
        is_within = isinstance(stream.get_extra_info("ssl_object"), ssl.SSLObject)
        self._socket: Any = None if is_within else stream.get_extra_info("socket")
        self._rest = b""
        self._before = b""
        self._is_fresh = True
        self.is_http2 = False
        self.is_apart = False
        stream.read = self.read_head

    def read_head(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Like the stream's own `read`, but nothing from behind the end of a head."""
        if self._is_fresh:
            first = self._read(max_bytes, timeout)
            # A frame of HTTP/2 begins with its length, of three bytes; HTTP/1.1 with its name. What
            # begins otherwise is for httpx alone, as the words of a SOCKS proxy.
            if first[:1] not in {b"\0", b"H"}:
                return first
            self._rest, self._is_fresh, self.is_http2 = first, False, first[:1] == b"\0"
        if self.is_http2:
            return self._read_frames(max_bytes, timeout)
        data = self._rest or self._read(max_bytes, timeout)
        self._rest = b""
        found = HEAD_END.search(self._before + data)
        self.is_apart = found is not None
        if found is None:
            self._before = (self._before + data)[-2:]
            return data
        end = found.end() - len(self._before)
        self._rest, self._before = data[end:], b""
        return data[:end]

    def _read_frames(self, max_bytes: int, timeout: float | None) -> bytes:
        """Whole frames, the end of a head the last of them; what is left at the end as it is."""
        data = self._rest
        while True:
            end, self.is_apart = whole_frames(data)
            if end:
                self._rest = data[end:]
                return data[:end]
            if len(data) > LONGEST_HEAD:
                raise httpx.RemoteProtocolError(f"a head of more than {LONGEST_HEAD} bytes")
            more = self._read(max_bytes, timeout)
            data += more
            if not more:
                self._rest = b""
                return data

    def __iter__(self) -> Iterator[bytes]:
        """The bytes after the head, as they come, until the server closes."""
        data, self._rest = self._rest, b""
        while data or (data := self._receive()):
            yield data
            data = b""

    def send(self, data: bytes) -> None:
        """Send bytes to the server."""
        try:
            self._write(data, None)
        except _wire_errors() as error:
            raise httpx.WriteError(str(error)) from error

    def _receive(self) -> bytes:
        try:
            return burst(self._read(READ, None), self._socket)
        except _wire_errors() as error:
            raise httpx.ReadError(str(error)) from error


def _wire_errors() -> tuple[type[Exception], ...]:
    """What the stream of a `_Wire` raises."""
    import httpcore  # noqa: PLC0415 - as httpx does: with its protocols it takes 25 ms

    return httpcore.NetworkError, httpcore.TimeoutException


def _dechunked(wire: Iterable[bytes]) -> Iterator[bytes]:
    """What the chunks of a body hold; nothing for bytes between them, no sign of its life."""
    dechunker = Dechunker()
    for data in wire:
        if body := dechunker.feed(data):
            yield body
        if dechunker.fault is not None:
            raise httpx.RemoteProtocolError(f"the body cannot be read: {dechunker.fault}")
        if dechunker.ended:
            return
    # Not the end of a replay, whose rest has to be asked for.
    raise httpx.RemoteProtocolError("the server closed the connection in the response")


def _deframed(wire: _Wire, stream: int) -> Iterator[bytes]:
    """What the DATA frames of a response hold; answers what has to be answered.

    Nothing for frames without data: a proxy may ping long after the stream has fallen silent.
    """
    deframer = Deframer(stream)
    for data in wire:
        if body := deframer.feed(data):
            yield body
        if deframer.fault is not None:
            raise httpx.RemoteProtocolError(str(deframer.fault))
        if deframer.ended:
            return
        if deframer.reply:
            reply, deframer.reply = bytes(deframer.reply), bytearray()
            wire.send(reply)
    raise httpx.RemoteProtocolError("the server closed the connection in the response")


def _shut(live: socket.socket) -> None:
    """End both directions; `SSLSocket.shutdown` would drop the TLS object under the reader."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(live, socket.SHUT_RDWR)


def _body_of(response: httpx.Response) -> bytes:
    """As much of it as can be had: the status says most, also where the rest never comes."""
    body = bytearray()
    encoding = response.headers.get("content-encoding", "")
    with contextlib.suppress(*_broken(), BodyError):
        for block in at_most(decoded(response.iter_raw(), encoding), MAX_ERROR_BODY):
            body += block
    return mask(bytes(body))


def _fields(response: httpx.Response) -> dict[str, str]:
    return {mask(name): mask(value) for name, value in response.headers.items()}


def _broken() -> tuple[type[Exception], ...]:
    """`BROKEN`, and what comes from modules that httpx imports when it needs them."""
    used = ((sys.modules.get(module), name) for module, name in PASSED_ON.items())
    return (*BROKEN, *(getattr(module, name) for module, name in used if module is not None))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
