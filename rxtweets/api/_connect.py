"""Connecting to a server, directly or through a proxy: time limit, socket and errors."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx

from rxtweets.api._options import ConnectionOptions
from rxtweets.api._proxies import host_and_port, origin, proxy_error
from rxtweets.api._raw_body import LONGEST_HEAD
from rxtweets.api._responses import error_of_response, shown
from rxtweets.api._watchdog import Watchdog
from rxtweets.errors import ConnectionLost, HostNotFound, StreamError, TLSError

__all__ = ["ConnectAttempt"]

LATE = {
    "connect_tcp": "did not accept the connection",
    "start_tls": "did not finish the TLS handshake",
    "CONNECT": "did not answer CONNECT",
    "setup_socks5_connection": "did not finish the SOCKS handshake",
    "": "took too long",
}
"""The text for each late step; the last is the request itself."""


class ConnectAttempt:
    """Connects within a time limit as a whole, and translates the errors of httpx.

    A timeout of httpx applies to a single read or write; a slow proxy can send a byte within each.

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
        self._proxy = options.proxy
        where = "" if options.proxy is None else f"the proxy {origin(options.proxy)}"
        self._server = host_and_port(url) + (f" (through {where})" if where else "")
        self._first = self._peer = where or self._server
        self._step = "connect_tcp"
        self._refusal: tuple[int, str, Mapping[str, str]] = (0, "", {})
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_shut = False
        self._is_late = False
        self._watchdog = Watchdog(self._seconds, self._late)

    def __enter__(self) -> None:
        """Start the time limit."""
        self._watchdog.start()

    def __exit__(self, *_: object) -> None:
        """Close the socket; called by the thread that used it."""
        self._watchdog.stop()
        with self._lock:
            if self._socket is not None:
                self._socket.close()

    def shut(self) -> None:
        """Shut the socket down from any thread; a waiting handshake or read fails immediately."""
        self._watchdog.stop()
        with self._lock:
            self._is_shut = True
            self._shut_down()

    def trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Follow the steps: httpcore calls this at the start and the end of each."""
        *_, module, step, phase = name.split(".")
        if phase == "started" and step in LATE:
            self._step = step
            # Behind a proxy, only the inner TLS handshake is with the server.
            is_inner = module in {"proxy", "socks"} and step == "start_tls"
            self._peer = self._server if is_inner else self._first
        if phase == "started" and step == "send_request_headers":
            self._send(info["request"])
        elif phase == "complete" and step in {"connect_tcp", "start_tls"}:
            self._found(info["return_value"], is_first=step == "connect_tcp")
        elif name == "http11.receive_response_headers.complete" and self._step == "CONNECT":
            _, status, reason, headers = info["return_value"]
            self._refusal = status, reason.decode("latin-1"), dict(httpx.Headers(headers))

    def translated(self, error: Exception) -> StreamError:
        """Return the error of httpx as one of ours; it names the server or the proxy."""
        if self._is_late or (self._step and isinstance(error, httpx.TimeoutException)):
            peer = "the server" if self._peer == self._server else self._peer
            return ConnectionLost(
                f"no connection to {self._server} within connect_timeout ({self._seconds:g} s): "
                f"{peer} {LATE[self._step]}"
            )
        if (known := self._from_cause(error)) is not None:
            return known
        if isinstance(error, httpx.ProxyError):
            status, reason, headers = self._refusal
            said = f"{status} {reason}".strip() if status else str(error)
            return proxy_error(self._proxy, self._url, said, status, headers)
        said = shown(str(error) or type(error).__name__)
        if "_SWITCH_UPGRADE" in said:  # h11's text for a 101
            return error_of_response(101, {}, b"")
        # h11's text for a head that exceeds its bound
        said = said.replace("Receive buffer too long", f"more than {LONGEST_HEAD} bytes of a head")
        if isinstance(error, httpx.TimeoutException):
            text = f"no answer of {self._peer} in time ({type(error).__name__})"
        elif isinstance(error, httpx.ConnectError):
            text = f"cannot connect to {self._peer}: {said}"
        elif self._step in {"CONNECT", "setup_socks5_connection"}:
            text = (
                f"{self._peer} did not connect to {host_and_port(self._url)}: {said}. Does the "
                "scheme of its URL match the kind of proxy?"
            )
        else:
            text = f"the connection to {self._peer} broke: {said}"
        return ConnectionLost(text)

    def _from_cause(self, error: Exception) -> StreamError | None:
        is_proxy = self._peer != self._server
        option = "proxy" if is_proxy else "base_url"
        for cause in _causes(error):
            if isinstance(cause, ssl.SSLCertVerificationError):
                own = "verify=ssl.create_default_context(cafile=...)"
                cure = "set SSL_CERT_FILE" if is_proxy else f"pass {own}"
                return TLSError(
                    f"the certificate of {self._peer} was refused: {cause.verify_message}. For a "
                    f"private authority, {cure}"
                )
            if isinstance(cause, socket.gaierror):
                host = httpx.URL(self._proxy or "").host if is_proxy else self._url.host
                return HostNotFound(
                    f"no address for the host {host!r}: {cause.strerror}. Check {option} and the "
                    "network"
                )
            if isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
                return None
            if isinstance(error, httpx.ConnectError) and isinstance(cause, ssl.SSLError):
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
                # A copy: a TLS handshake takes the descriptor out of the first object.
                self._socket = stream.get_extra_info("socket").dup()
            self._on_stream(stream)
            if self._is_shut:
                self._shut_down()

    def _shut_down(self) -> None:
        # `SSLSocket.shutdown` would drop the TLS object while another thread reads.
        if self._socket is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _send(self, request: Any) -> None:
        if self._proxy and ":" in self._url.host:
            _put_in_brackets(request, self._url)
        if request.method == b"CONNECT":
            self._step = "CONNECT"
            return
        self._step, self._peer = "", self._server
        self._watchdog.stop()


def _put_in_brackets(request: Any, url: httpx.URL) -> None:
    """Write an IPv6 address for a proxy as RFC 3986 does; httpcore 1.0.9 omits the brackets.

    Changes the target and the ``Host`` of CONNECT, and the absolute URL of a plain request.
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


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
