"""X's sample stream on your desk: a server on loopback, for programs, tests and notebooks."""

from __future__ import annotations

import contextlib
import hmac
import math
import re
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from rxtweets.errors import ConfigurationError
from rxtweets.simulator import script as steps
from rxtweets.simulator.feed import Feed
from rxtweets.simulator.playing import Chunking, Delivery, Playing
from rxtweets.simulator.script import Part, Reply, Step
from rxtweets.simulator.transport import Gone, Head, Headers, Transport, accept
from rxtweets.simulator.tweets import Names, Size, Tweets

__all__ = ["Request", "Simulator", "serve"]

STREAM = "/2/tweets/sample/stream"
KEPT_REQUESTS = 10_000
GRACE = 0.5
"""Seconds in which the end of a token's old connection is awaited before a new one is refused."""


@dataclass(frozen=True)
class Request:
    """A request that the simulator answered.

    Attributes:
        number: from 1, over all connections.
        method: such as ``GET``.
        path: without the query.
        query: parameters by name.
        headers: names in lower case; not shown in the repr, as one of them is the token.
        http_version: ``HTTP/1.1`` or ``HTTP/2``.
        status: of the answer.
        at: monotonic seconds.
    """

    number: int
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str] = field(repr=False)
    http_version: str
    status: int
    at: float


def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    rate: float | None = 50.0,
    burst: int = 1,
    seed: int = 0,
    size: Size = "small",
    names: Names = "both",
    source: Path | str | Iterable[bytes] | None = None,
    loop: bool = False,
    chunking: Chunking = "frame",
    script: Sequence[Part] = (),
    token: str | None = None,
    connections: int = 1,
    connects: int = 50,
    window: float = 900.0,
    keep_alive: float = 20.0,
    time_scale: float = 1.0,
    http2: bool = True,
    gzip: bool = True,
    tls: ssl.SSLContext | tuple[str, str] | None = None,
    line_end: bytes = b"\r\n",
) -> Simulator:
    r"""Start a server that speaks X's sample stream; it listens when this returns.

    ::

        with rxtweets.simulator.serve(rate=1000, seed=7) as x:
            tweets = rxtweets.sample_stream(token="any", base_url=x.url)

    Fields and expansions that a request asks for are not applied: frames are as they were
    recorded or made.

    Args:
        host: address to listen on.
        port: 0 takes a free one.
        rate: tweets a second; ``None`` for as many as the client takes.
        burst: tweets that come together, at the same rate.
        seed: of the simulated tweets; the same seed gives the same texts.
        size: of the simulated tweets, ``small`` (1 KB) or ``large`` (2.5 KB).
        names: generation of field names: ``both``, ``tweet`` (older) or ``post`` (newer).
        source: a file of recorded frames, one a line, or frames; instead of simulated tweets.
        loop: begin a recording anew when it is over; else silence follows, with keep-alives.
        chunking: how the body is cut into HTTP chunks or DATA frames: ``frame`` (one a tweet),
            ``read`` (what is due together, in 16 KB), a number of bytes, or a function from the
            bytes of a tweet to pieces.
        script: what happens on each connection; see `rxtweets.simulator.script`.
        token: the only bearer token that is accepted; by default any is.
        connections: streams that a token may hold at a time.
        connects: stream requests allowed in a window, beyond which the answer is 429.
        window: seconds.
        keep_alive: seconds of silence after which an empty line is sent.
        time_scale: factor for ``window``, ``keep_alive`` and `script.Stall`, to rehearse minutes
            in seconds.
        http2: speak HTTP/2 too, by ALPN or prior knowledge; else HTTP/1.1 only.
        gzip: compress for clients that accept it.
        tls: paths of certificate and key, or a context.
        line_end: of the frames.

    Raises:
        ConfigurationError: an option cannot work, or the address is taken.
    """
    for name, value in (("keep_alive", keep_alive), ("window", window), ("time_scale", time_scale)):
        _above_zero(name, value)
    if rate is not None and not (rate >= 0):
        raise ConfigurationError(f"rate={rate!r}: give tweets a second, 0 or more, or None")
    for name, number in (("burst", burst), ("connections", connections), ("connects", connects)):
        if number < 1:
            raise ConfigurationError(f"{name}={number!r}: give 1 or more")
    if not 0 <= port < 65_536:
        raise ConfigurationError(f"port={port!r}: give 0 (a free one) to 65535")
    delivery = Delivery(
        rate=math.inf if rate is None else rate,
        burst=burst,
        chunking=_checked_chunking(chunking),
        keep_alive=keep_alive * time_scale,
        time_scale=time_scale,
        line_end=line_end,
    )
    if isinstance(source, str):
        source = Path(source)
    feed = Feed(Tweets(seed, size, names) if source is None else source, loop=loop)
    gate = _Gate(token, connections, connects, window * time_scale)
    context = _tls_context(tls, http2=http2)
    listener = _listen(host, port)
    return Simulator(listener, context, feed, delivery, gate, script, http2=http2, gzip=gzip)


class Simulator:
    """A running server; made by `serve`, closed by ``close()`` or at the end of a ``with`` block.

    Attributes:
        url: to be given as ``base_url``.
    """

    def __init__(
        self,
        listener: socket.socket,
        tls: ssl.SSLContext | None,
        feed: Feed,
        delivery: Delivery,
        gate: _Gate,
        script: Sequence[Part],
        *,
        http2: bool,
        gzip: bool,
    ) -> None:
        self._listener = listener
        self._tls = tls
        self._feed = feed
        self._delivery = delivery
        self._gate = gate
        self._parts = [(part,) if isinstance(part, Step) else tuple(part) for part in script]
        self._http2 = http2
        self._gzip = gzip
        host, self.port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'http' if tls is None else 'https'}://{shown}:{self.port}"
        self._changed = threading.Condition()
        self._requests: deque[Request] = deque(maxlen=KEPT_REQUESTS)
        self._answered = 0
        self._sent = 0
        self._streams = 0
        self._closed = False
        self._transports: set[Transport] = set()
        self._newcomers: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._spawn(self._accept)

    @property
    def requests(self) -> list[Request]:
        """The requests answered so far, in order; of very many, the last 10,000."""
        with self._changed:
            return list(self._requests)

    @property
    def answered(self) -> int:
        """How many requests were answered so far."""
        return self._answered

    @property
    def sent(self) -> int:
        """Tweets sent so far, over all connections."""
        return self._sent

    def wait_for_requests(self, count: int, timeout: float = 10.0) -> bool:
        """Wait until so many requests were answered.

        Args:
            count: requests.
            timeout: seconds to wait at most.

        Returns:
            Whether it came to that.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._answered >= count, timeout)

    def close(self) -> None:
        """Break all connections off and wait until every thread has ended."""
        with self._changed:
            self._closed = True
            for transport in self._transports:
                transport.kill()
            for raw in self._newcomers:
                _shut(raw)
        _shut(self._listener)
        self._listener.close()
        while threads := self._live_threads():
            for thread in threads:
                thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Simulator({self.url})"

    def _spawn(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            finally:
                with self._changed:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name="simulator", daemon=True)
        with self._changed:
            self._threads.add(thread)
            thread.start()

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            self._spawn(partial(self._converse, raw))

    def _converse(self, raw: socket.socket) -> None:
        with contextlib.suppress(Gone):
            transport = self._welcome(raw)
            try:
                for head in transport.requests():
                    if self._answer(transport, head):
                        break
            finally:
                transport.close()
                with self._changed:
                    self._transports.discard(transport)

    def _welcome(self, raw: socket.socket) -> Transport:
        """Shake hands; `close` can end that too."""
        with self._changed:
            if self._closed:
                raw.close()
                raise Gone
            self._newcomers.add(raw)
        try:
            transport = accept(raw, self._tls, http2=self._http2)
        finally:
            with self._changed:
                self._newcomers.discard(raw)
        with self._changed:
            self._transports.add(transport)
            if self._closed:
                transport.kill()
        return transport

    def _live_threads(self) -> list[threading.Thread]:
        with self._changed:
            return list(self._threads)

    def _answer(self, transport: Transport, head: Head) -> bool:
        """Answer one request; whether the connection is over with it."""
        address = urlsplit(head.target)
        with contextlib.ExitStack() as held:
            refusal = _refusal(head, address.path) or self._gate.enter(head.headers, held)
            if refusal is None:
                part = self._next_part()
                refusal = part[0] if part and isinstance(part[0], Reply) else None
            if refusal is not None:
                headers = _headers(self._gate.headers(), refusal.headers)
                self._note(head, refusal.status)
                transport.reply(refusal.status, headers, refusal.payload())
                return False
            compress = self._gzip and "gzip" in head.headers.get("accept-encoding", "")
            encoding = {"content-encoding": "gzip"} if compress else {}
            transport.begin(_headers(self._gate.headers(), encoding))
            self._note(head, 200)
            playing = Playing(
                transport,
                self._feed,
                self._delivery,
                compress=compress,
                on_sent=self._count,
            )
            return playing.play(part)

    def _next_part(self) -> tuple[Step, ...]:
        with self._changed:
            self._streams += 1
            return self._parts[self._streams - 1] if self._streams <= len(self._parts) else ()

    def _count(self, tweets: int) -> None:
        with self._changed:
            self._sent += tweets

    def _note(self, head: Head, status: int) -> None:
        address = urlsplit(head.target)
        query = dict(parse_qsl(address.query, keep_blank_values=True))
        with self._changed:
            self._answered += 1
            request = Request(
                self._answered,
                head.method,
                address.path,
                query,
                head.headers,
                head.http_version,
                status,
                time.monotonic(),
            )
            self._requests.append(request)
            self._changed.notify_all()


class _Gate:
    """Who may come in: the token, so many streams at a time, so many requests in a window."""

    def __init__(self, token: str | None, connections: int, connects: int, window: float) -> None:
        self._token = token
        self._most = connections
        self._connects = connects
        self._window = window
        self._changed = threading.Condition()
        self._streaming: dict[str, int] = {}
        self._used = 0
        self._reset = 0.0

    def enter(self, headers: dict[str, str], held: contextlib.ExitStack) -> Reply | None:
        """Let a request in for as long as ``held``, or say why not."""
        match = re.fullmatch(r"Bearer (\S+)", headers.get("authorization", ""))
        if match is None or not self._accepts(match[1]):
            return steps.unauthorized()
        token = match[1]
        with self._changed:
            self._renew()
            self._used += 1
            if self._used > self._connects:
                return steps.rate_limited(self._reset)
            if not self._changed.wait_for(lambda: self._has_room(token), GRACE):
                return steps.too_many_connections()
            self._streaming[token] = self._streaming.get(token, 0) + 1
            held.callback(self._leave, token)
            return None

    def headers(self) -> dict[str, str]:
        """What X says about the window with every answer."""
        with self._changed:
            self._renew()
            return {
                "x-rate-limit-limit": str(self._connects),
                "x-rate-limit-remaining": str(max(0, self._connects - self._used)),
                "x-rate-limit-reset": str(math.ceil(self._reset)),
            }

    def _accepts(self, token: str) -> bool:
        return self._token is None or hmac.compare_digest(token.encode(), self._token.encode())

    def _has_room(self, token: str) -> bool:
        return self._streaming.get(token, 0) < self._most

    def _leave(self, token: str) -> None:
        with self._changed:
            self._streaming[token] -= 1
            self._changed.notify_all()

    def _renew(self) -> None:
        now = time.time()
        if now >= self._reset:
            self._used, self._reset = 0, now + self._window


def _shut(live: socket.socket) -> None:
    with contextlib.suppress(OSError):
        live.shutdown(socket.SHUT_RDWR)


def _refusal(head: Head, path: str) -> Reply | None:
    if path != STREAM:
        return steps.not_found()
    if head.method != "GET":
        return Reply(405, {"title": "Method Not Allowed", "type": "about:blank", "status": 405})
    return None


def _headers(*parts: Mapping[str, str]) -> Headers:
    usual = {
        "content-type": "application/json; charset=utf-8",
        "server": "rxtweets-simulator",
    }
    for part in parts:
        usual.update(part)
    return list(usual.items())


def _checked_chunking(chunking: Chunking) -> Chunking:
    number = isinstance(chunking, int) and not isinstance(chunking, bool) and chunking >= 1
    if number or callable(chunking) or chunking in {"frame", "read"}:
        return chunking
    raise ConfigurationError(
        f"chunking={chunking!r}: give 'frame', 'read', a number of bytes, or a function"
    )


def _above_zero(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigurationError(f"{name}={value!r}: give seconds above 0")


def _tls_context(
    tls: ssl.SSLContext | tuple[str, str] | None, *, http2: bool
) -> ssl.SSLContext | None:
    if isinstance(tls, tuple):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(*tls)
        except OSError as error:  # an SSLError is one
            raise ConfigurationError(f"tls={tls!r}: {error.strerror or error}") from None
        tls = context
    if tls is not None:
        tls.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    return tls


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {reason}; give another port, or 0 for a free one"
        ) from None
