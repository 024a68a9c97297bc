"""The simulator: a server on this machine that speaks X's streams."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import re
import socket
import ssl
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

from rxtweets._support.validation import choice, iterable, whole_number
from rxtweets._support.workers import start_thread
from rxtweets.errors import ConfigurationError
from rxtweets.simulator._access import Access
from rxtweets.simulator._api import Api, Content, OpenedStream, address_of
from rxtweets.simulator._frames import FrameSource, GeneratedFrames, Recording, open_source
from rxtweets.simulator._player import Chunking, Player, PlayerOptions
from rxtweets.simulator._ruleset import Ruleset
from rxtweets.simulator._timeline import Timeline
from rxtweets.simulator._transport import Gone, Head, Headers, ResponseGone, Transport, accept
from rxtweets.simulator._tweets import DIFFERENT, Names, Tweets, TweetSize
from rxtweets.simulator.script import Part, Reply, Step

__all__ = ["Request", "Script", "Simulator", "serve"]

log = logging.getLogger("rxtweets")

KEPT_REQUESTS = 10_000
API_VERSION = "2.167"
"""The version of X's API description that the answers follow."""

ACCEPT_PAUSE = 0.05
"""Seconds until the next try after a connection could not be accepted."""

SHORTEST_PATIENCE = 1.0
"""Seconds that a slow client has at least, however small the buffer is."""

EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Request:
    """A request that the simulator answered.

    Attributes:
        number: from 1, over all connections.
        method: such as ``GET``.
        path: without the query.
        query: parameters by name.
        headers: names in lower case; the repr hides them, as one of them has the token.
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


Script = Sequence[Part] | Callable[[Request], Part]


def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    rate: float | None = 50.0,
    burst: int = 1,
    live: bool = False,
    history: float = 0.0,
    seed: int = 0,
    size: TweetSize = "small",
    names: Names = "both",
    source: Path | str | Iterable[bytes] | None = None,
    loop: bool = False,
    pace: Literal["rate", "recorded"] = "rate",
    rules: Iterable[str] = (),
    chunking: Chunking = "frame",
    packet: int = 0,
    script: Script = (),
    token: str | None = None,
    connections: int = 1,
    connects: int | None = None,
    window: float = 900.0,
    forget_after: float = 0.0,
    backfill: bool = True,
    buffer: int = 10_000,
    strict: bool = True,
    keep_alive: float = 20.0,
    time_scale: float = 1.0,
    http2: bool = True,
    gzip: bool = True,
    tls: ssl.SSLContext | tuple[str, str] | None = None,
    line_end: bytes = b"\r\n",
    headers: Mapping[str, str | None] = EMPTY,
) -> Simulator:
    r"""Start a server with X's streams, rules and connections API; it listens on return.

    ::

        with rxtweets.simulator.serve(rate=1000, seed=7) as x:
            tweets = rxtweets.sample_stream(token="any", base_url=x.url)

    By default, frames come on demand: each frame goes to one connection, and the stream waits
    while no client is connected. With ``live=True`` they come by the clock, as on X: all
    connections to a stream get the same frames. A client misses the frames of the time without a
    connection, unless it requests backfill or a replay. A replay has the frames from ``start_time``
    until before ``end_time``, and then ends the connection.

    The server checks the fields and expansions of a request, but does not apply them: frames are
    as they were recorded or generated.

    Args:
        host: address to listen on.
        port: 0 takes a free one.
        rate: tweets a second; ``None`` for as many as the client takes.
        burst: tweets sent together, at the same rate; ignored if ``live``.
        live: frames come by the clock.
        history: seconds of the stream before the start; only if ``live``.
        seed: of the simulated tweets; the same seed gives the same texts.
        size: of the simulated tweets: ``small`` (1 KB) or ``large`` (2.5 KB).
        names: generation of field names: ``both``, ``tweet`` (older) or ``post`` (newer).
        source: instead of simulated tweets, the path of a recording as `rxtweets.replay` reads it
            (plain, gzip or zstd, one file or several), or frames. A last line that is not whole is
            left out (`Simulator.left_out`).
        loop: start the recording again at its end; else keep-alives follow.
        pace: ``rate``, or ``recorded`` for the pauses of the recording, times ``time_scale``. They
            begin with the first connection. Frames that become due while no client is connected go
            to the next one. Not if ``live``.
        rules: of the filtered stream at the start; without rules it answers 409.
        chunking: cuts the body into HTTP chunks or DATA frames. ``frame`` sends one a tweet,
            ``read`` all due tweets together, in 16 KB. Or a number of bytes, or a function from
            the bytes of a tweet to pieces.
        packet: bytes that are sent at a time; 0 for no limit.
        script: the steps of each connection; see `rxtweets.simulator.script`.
        token: the only accepted bearer token; ``None`` accepts any.
        connections: connections of one endpoint and partition that a token may hold.
        connects: requests for a stream in a window, above which the answer is 429; ``None`` for
            X's numbers, which are 50 for most streams.
        window: of the rate limits, in seconds.
        forget_after: seconds for which a connection counts as open if it broke without X noticing
            (`script.Stall`, `script.Abort`), so that X refuses a new one; on X it is minutes.
        backfill: whether the account has backfill; else a request for it is answered with 400.
        buffer: tweets that wait for a slow client before it is disconnected; only if ``live``.
        strict: answer 400 to parameters, fields and expansions that X does not have; else ignore
            them.
        keep_alive: seconds of silence until an empty line is sent.
        time_scale: factor for ``window``, ``forget_after``, ``keep_alive``, minutes of backfill
            and `script.Stall`, so that minutes pass in seconds.
        http2: speak HTTP/2 too, by ALPN or prior knowledge; else HTTP/1.1 only.
        gzip: compress for clients that accept it.
        tls: paths of certificate and key, or a context.
        line_end: of the frames.
        headers: of the streams, added to the usual ones or in their place; ``None`` drops one.

    Raises:
        ConfigurationError: an option is invalid, or the address is in use.
    """
    for name, number, least in (
        ("burst", burst, 1),
        ("connections", connections, 1),
        ("connects", 1 if connects is None else connects, 1),
        ("buffer", buffer, 1),
        ("packet", packet, 0),
        ("port", port, 0),
    ):
        whole_number(name, number, least)
    for name, value, is_valid, advice in (
        ("keep_alive", keep_alive, keep_alive > 0, "seconds above 0"),
        ("window", window, 0 < window < math.inf, "seconds above 0"),
        ("time_scale", time_scale, 0 < time_scale < math.inf, "a factor above 0"),
        ("forget_after", forget_after, forget_after >= 0, "seconds, 0 or more"),
        ("history", history, 0 <= history < math.inf, "seconds, 0 or more"),
        ("history", history, live or not history, "0, or a past with live=True"),
        ("rate", rate, rate is None or rate >= 0, "tweets a second, 0 or more, or None"),
        ("rate", rate, not live or rate not in {None, math.inf}, "tweets a second for live=True"),
        ("port", port, port <= 65_535, "0 (a free one) to 65535"),
    ):
        if not is_valid:
            raise ConfigurationError(f"{name}={value!r}: give {advice}")
    if token is not None and not re.fullmatch(r"\S+", token):
        raise ConfigurationError("token: it is empty or has white space; give another, or None")
    ruleset = Ruleset()
    ruleset.start_with(rules)
    make_source, left_out = _tweet_sources(
        source, Tweets(seed, size, names), loop=loop, live=live, pace=pace, time_scale=time_scale
    )
    content = Content(
        tweets=make_source,
        period=DIFFERENT if source is None else 0,
        seed=seed,
        rate=math.inf if rate is None else rate,
        burst=burst,
        timeline=Timeline(rate or 0.0, history) if live else None,
        backfill=backfill,
        time_scale=time_scale,
        strict=strict,
        is_paced=pace == "recorded",
    )
    options = PlayerOptions(
        chunking=_checked_chunking(chunking),
        keep_alive=keep_alive * time_scale,
        time_scale=time_scale,
        line_end=line_end,
        buffer=buffer if live else None,
        patience=max(SHORTEST_PATIENCE, buffer / rate) if live and rate else None,
        packet=packet,
    )
    next_part = _in_turn(script)
    access = Access(token, connections, window * time_scale, forget_after * time_scale)
    api = Api(access, ruleset, content, connects, token or "simulated")
    context = _tls_context(tls, http2=http2)
    return Simulator(
        _listen(host, port),
        context,
        api,
        access,
        options,
        next_part,
        http2=http2,
        gzip=gzip,
        headers=headers,
        left_out=left_out,
    )


class Simulator:
    """A running server; `serve` starts it, ``close()`` or the end of a ``with`` block ends it.

    Attributes:
        url: for ``base_url``.
        port: the port that it listens on.
        left_out: the lines of ``source`` that are not served: file, number and reason.
    """

    def __init__(
        self,
        listener: socket.socket,
        tls: ssl.SSLContext | None,
        api: Api,
        access: Access,
        options: PlayerOptions,
        next_part: Callable[[Request], Part],
        *,
        http2: bool,
        gzip: bool,
        headers: Mapping[str, str | None],
        left_out: Sequence[str],
    ) -> None:
        self._listener = listener
        self._tls = tls
        self._api = api
        self._access = access
        self._options = options
        self._next_part = next_part
        self._http2 = http2
        self._gzip = gzip
        self._headers = headers
        self.left_out: tuple[str, ...] = tuple(left_out)
        self.port: int
        host, self.port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self.url: str = f"{'http' if tls is None else 'https'}://{shown}:{self.port}"
        self._changed = threading.Condition()
        self._requests: deque[Request] = deque(maxlen=KEPT_REQUESTS)
        self._answered = 0
        self._sent = 0
        self._closed = False
        self._handshakes: set[socket.socket] = set()
        self._transports: set[Transport] = set()
        self._threads: set[threading.Thread] = set()
        self._spawn(self._accept)

    @property
    def requests(self) -> list[Request]:
        """The requests answered so far, in order; the last 10,000 of them."""
        with self._changed:
            return list(self._requests)

    @property
    def answered(self) -> int:
        """Number of requests answered so far."""
        return self._answered

    @property
    def sent(self) -> int:
        """Number of tweets sent so far, over all connections."""
        return self._sent

    def wait_for_requests(self, count: int, timeout: float = 10.0) -> bool:
        """Wait until ``count`` requests were answered, since the start.

        Args:
            count: of requests.
            timeout: in seconds.

        Returns:
            ``False`` after the timeout.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._answered >= count, timeout)

    def close(self) -> None:
        """End all connections, and wait for every thread."""
        with self._changed:
            self._closed = True
            for transport in self._transports:
                transport.kill()
            for raw in self._handshakes:
                _shut(raw)
        _shut(self._listener)
        self._listener.close()
        while True:
            with self._changed:
                threads = list(self._threads)
            if not threads:
                return
            for thread in threads:
                thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
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

        with self._changed:
            self._threads.add(start_thread("simulator", run))

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
                self._spawn(partial(self._converse, raw))
            except Exception as error:  # noqa: BLE001 - such as too many open files
                if self._closed:
                    return
                log.warning("the simulator could not accept a connection: %r", error)
                time.sleep(ACCEPT_PAUSE)

    def _converse(self, raw: socket.socket) -> None:
        with contextlib.suppress(Gone):
            transport = self._shake_hands(raw)
            try:
                for head in transport.requests():
                    with contextlib.suppress(ResponseGone):
                        if self._answer(transport, head):
                            break
            finally:
                transport.close()
                with self._changed:
                    self._transports.discard(transport)

    def _shake_hands(self, raw: socket.socket) -> Transport:
        with self._changed:
            if self._closed:
                raw.close()
                raise Gone
            self._handshakes.add(raw)  # for `close`
        try:
            transport = accept(raw, self._tls, http2=self._http2)
        finally:
            with self._changed:
                self._handshakes.discard(raw)
        with self._changed:
            self._transports.add(transport)
            if self._closed:
                transport.kill()
        return transport

    def _answer(self, transport: Transport, head: Head) -> bool:
        """Answer one request; return whether the connection has ended."""
        answer = self._api.answer(head, transport.client_ip, transport.kill)
        if isinstance(answer, Reply):
            self._reply(transport, head, answer)
            return False
        reason, is_unnoticed = "client closed", False
        try:
            part = self._next_part(_request(head, 200, self._answered + 1))
            steps = (part,) if isinstance(part, Step) else tuple(part)
            if steps and isinstance(steps[0], Reply):
                # Before the reply: a client that has it may connect again immediately.
                self._access.release(answer.slot, "refused", unnoticed=False)
                self._reply(transport, head, steps[0], answer.headers)
                return False
            player = self._begin(transport, head, answer)
            try:
                return player.play(steps)
            finally:
                reason = player.reason or reason
                is_unnoticed = player.is_unnoticed and not self._closed
        finally:
            self._access.release(answer.slot, reason, unnoticed=is_unnoticed)

    def _reply(
        self, transport: Transport, head: Head, reply: Reply, headers: Mapping[str, str] = EMPTY
    ) -> None:
        self._record(head, reply.status)
        body = b"" if head.method == "HEAD" else reply.payload()
        transport.reply(reply.status, _headers(headers, reply.headers), body)

    def _begin(self, transport: Transport, head: Head, stream: OpenedStream) -> Player:
        compress = self._gzip and "gzip" in head.headers.get("accept-encoding", "")
        encoding = {"content-encoding": "gzip"} if compress else {}
        self._record(head, 200)
        transport.begin(_headers(stream.headers, encoding, self._headers))
        return Player(
            transport, stream.cursor, self._options, compress=compress, on_sent=self._count
        )

    def _count(self, tweets: int) -> None:
        with self._changed:
            self._sent += tweets

    def _record(self, head: Head, status: int) -> None:
        with self._changed:
            self._answered += 1
            self._requests.append(_request(head, status, self._answered))
            self._changed.notify_all()


def _request(head: Head, status: int, number: int) -> Request:
    path, query = address_of(head)
    return Request(
        number=number,
        method=head.method,
        path=path,
        query=query,
        headers=head.headers,
        http_version=head.http_version,
        status=status,
        at=time.monotonic(),
    )


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _headers(*parts: Mapping[str, str | None]) -> Headers:
    """X's usual headers, and others added to them or in their place."""
    usual: dict[str, str | None] = {
        "date": formatdate(usegmt=True),
        "content-type": "application/json; charset=utf-8",
        "server": "rxtweets-simulator",
        "api-version": API_VERSION,
        "x-access-level": "read",
        "x-transaction-id": uuid.uuid4().hex[:16],
    }
    for part in parts:
        usual.update({name.lower(): value for name, value in part.items()})
    return [(name, value) for name, value in usual.items() if value is not None]


def _in_turn(script: Script) -> Callable[[Request], Part]:
    if callable(script):
        return script
    lock = threading.Lock()
    left = iter(list(iterable("script", script, "[Serve(10), Close()]")))

    def part(_: Request) -> Part:
        with lock:
            return next(left, ())

    return part


def _tweet_sources(
    source: Path | str | Iterable[bytes] | None,
    generator: Tweets,
    *,
    loop: bool,
    live: bool,
    pace: str,
    time_scale: float,
) -> tuple[Callable[[], FrameSource], Sequence[str]]:
    """A function that makes the source of one stream, and the lines that are left out."""
    is_timed = choice("pace", pace, ("rate", "recorded")) == "recorded"
    if is_timed and (live or source is None):
        raise ConfigurationError("pace='recorded' needs a recording as source, and live=False")
    if source is None:
        return lambda: GeneratedFrames(generator), ()
    recorded = Path(source) if isinstance(source, str) else source
    if not isinstance(recorded, Path):
        recorded = iterable("source", recorded, "[frame]")
    read, left_out = open_source(recorded, loop=loop, is_timed=is_timed)
    if live:
        shared = Recording(read, loop=loop)
        return lambda: shared, left_out
    return lambda: Recording(read, loop=loop, scale=time_scale if is_timed else 0.0), left_out


def _checked_chunking(chunking: Chunking) -> Chunking:
    number = isinstance(chunking, int) and not isinstance(chunking, bool) and chunking >= 1
    if number or callable(chunking) or chunking in {"frame", "read"}:
        return chunking
    raise ConfigurationError(
        f"chunking={chunking!r}: give 'frame', 'read', a number of bytes, or a function"
    )


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
        is_port = error.errno in {errno.EADDRINUSE, errno.EACCES}
        advice = "another port, or 0 for a free one" if is_port else "an address of this machine"
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {reason}; give {advice}"
        ) from None
