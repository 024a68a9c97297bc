"""X's streams on your desk: a server on loopback, for programs, tests and notebooks."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
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

from rxtweets._support.validation import iterable
from rxtweets._support.workers import start_thread
from rxtweets.errors import ConfigurationError
from rxtweets.simulator._access import Gate
from rxtweets.simulator._api import Api, Content, Stream, address_of
from rxtweets.simulator._feed import Recording, SimulatedTweets
from rxtweets.simulator._player import Chunking, Delivery, Playing
from rxtweets.simulator._ruleset import Ruleset
from rxtweets.simulator._timeline import Timeline
from rxtweets.simulator._transport import Gone, Head, Headers, ResponseGone, Transport, accept
from rxtweets.simulator._tweets import DIFFERENT, Names, Size, Tweets
from rxtweets.simulator.script import Part, Reply, Step

__all__ = ["Request", "Script", "Simulator", "serve"]

log = logging.getLogger("rxtweets")

KEPT_REQUESTS = 10_000
API_VERSION = "2.167"
"""Of X's description that the answers follow."""

EMPTY: Mapping[str, Any] = MappingProxyType({})


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


Pace = Literal["rate", "recorded"]
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
    size: Size = "small",
    names: Names = "both",
    source: Path | str | Iterable[bytes] | None = None,
    loop: bool = False,
    pace: Pace = "rate",
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
    r"""Start a server that speaks X's streams, rules and connections; it listens at once.

    ::

        with rxtweets.simulator.serve(rate=1000, seed=7) as x:
            tweets = rxtweets.sample_stream(token="any", base_url=x.url)

    Frames come on demand: each is given once, and nothing happens while nobody listens. With
    ``live=True`` they come by the clock, as on X: what nobody reads is missed, unless backfill or
    a replay brings it, and all connections to a stream get the same. A replay gives what happened
    from ``start_time`` on and before ``end_time``, and ends the connection then.

    Fields and expansions that a request asks for are looked at, but not applied: frames are as
    they were recorded or made.

    Args:
        host: address to listen on.
        port: 0 takes a free one.
        rate: tweets a second; ``None`` for as many as the client takes.
        burst: tweets that come together, at the same rate; not if ``live``.
        live: by the clock.
        history: seconds of the stream that lie before the start, if ``live``.
        seed: of the simulated tweets; the same seed gives the same texts.
        size: of the simulated tweets, ``small`` (1 KB) or ``large`` (2.5 KB).
        names: generation of field names: ``both``, ``tweet`` (older) or ``post`` (newer).
        source: the path of a recording of tweets, as `rxtweets.replay` reads it, or frames; instead
            of simulated tweets. A last line that is not whole is left out (`Simulator.left_out`).
        loop: begin a recording anew when it is over; else silence follows, with keep-alives.
        pace: ``rate``, or ``recorded`` for the pauses between the arrivals of a recording, times
            ``time_scale``. They begin with the first connection; frames that become due while none
            is open come with the next. Not if ``live``.
        rules: of the filtered stream, to begin with; without any it answers with 409.
        chunking: how the body is cut into HTTP chunks or DATA frames: ``frame`` (one a tweet),
            ``read`` (what is due together, in 16 KB), a number of bytes, or a function from the
            bytes of a tweet to pieces.
        packet: bytes that are sent at a time, such as 1; 0 for as many as there are.
        script: what happens on each connection; see `rxtweets.simulator.script`.
        token: the only bearer token that is accepted; by default any is.
        connections: streams that a token may hold of an endpoint and partition at a time.
        connects: requests for a stream allowed in a window, beyond which the answer is 429; by
            default X's numbers, 50 for most streams.
        window: seconds.
        forget_after: seconds for which a connection that broke without X noticing is held yet, so
            that a new one is refused (`script.Stall`, `script.Abort`); on X it is minutes.
        backfill: whether the account has backfill; else asking for it is answered with 400.
        buffer: tweets that wait for a client that is too slow, before it is cut off; if ``live``.
        strict: whether parameters, fields and expansions that X was not known to have are answered
            with 400, as by X; else they are left unread.
        keep_alive: seconds of silence after which an empty line is sent.
        time_scale: factor for ``window``, ``forget_after``, ``keep_alive``, minutes of backfill
            and `script.Stall`, to rehearse minutes in seconds.
        http2: speak HTTP/2 too, by ALPN or prior knowledge; else HTTP/1.1 only.
        gzip: compress for clients that accept it.
        tls: paths of certificate and key, or a context.
        line_end: of the frames.
        headers: of the streams, beside the usual ones or in their place; ``None`` leaves one out.

    Raises:
        ConfigurationError: an option cannot work, or the address is taken.
    """
    for name, value in (("keep_alive", keep_alive), ("window", window), ("time_scale", time_scale)):
        _above_zero(name, value)
    if rate is not None and not (rate >= 0):
        raise ConfigurationError(f"rate={rate!r}: give tweets a second, 0 or more, or None")
    for name, number in (
        ("burst", burst),
        ("connections", connections),
        ("connects", 1 if connects is None else connects),
        ("buffer", buffer),
    ):
        if number < 1:
            raise ConfigurationError(f"{name}={number!r}: give 1 or more")
    for name, value in (("history", history), ("forget_after", forget_after), ("packet", packet)):
        if not value >= 0:
            raise ConfigurationError(f"{name}={value!r}: give 0 or more")
    if not 0 <= port < 65_536:
        raise ConfigurationError(f"port={port!r}: give 0 (a free one) to 65535")
    if history and not live:
        raise ConfigurationError(f"history={history!r}: a past needs live=True")
    if live and rate is None:
        raise ConfigurationError("live=True needs a rate: what happens by the clock has one")
    ruleset = Ruleset()
    ruleset.start_with(rules)
    recording = _recording(source, loop=loop, pace=pace, live=live)
    content = Content(
        tweets=recording or SimulatedTweets(Tweets(seed, size, names)),
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
    delivery = Delivery(
        chunking=_checked_chunking(chunking),
        keep_alive=keep_alive * time_scale,
        time_scale=time_scale,
        line_end=line_end,
        buffer=buffer if live else None,
        patience=max(SHORTEST_PATIENCE, buffer / rate) if live and rate else None,
        packet=packet,
    )
    parts = _in_turn(script)
    gate = Gate(token, connections, window * time_scale, forget_after * time_scale)
    api = Api(gate, ruleset, content, connects, token or "simulated")
    context = _tls_context(tls, http2=http2)
    listener = _listen(host, port)
    return Simulator(
        listener,
        context,
        api,
        delivery,
        gate,
        parts,
        http2=http2,
        gzip=gzip,
        headers=headers,
        recording=recording,
    )


PAUSE = 0.05
"""Seconds until the next try to accept a connection after one that failed."""

SHORTEST_PATIENCE = 1.0
"""Seconds that a client may take to make room for more, however small the buffer is."""


class Simulator:
    """A running server; made by `serve`, closed by ``close()`` or at the end of a ``with`` block.

    Attributes:
        url: to be given as ``base_url``.
        left_out: lines of the ``source`` that are not served: file, number, and why.
    """

    def __init__(
        self,
        listener: socket.socket,
        tls: ssl.SSLContext | None,
        api: Api,
        delivery: Delivery,
        gate: Gate,
        script: Callable[[Request], Part],
        *,
        http2: bool,
        gzip: bool,
        headers: Mapping[str, str | None],
        recording: Recording | None,
    ) -> None:
        self._headers = headers
        self.left_out = () if recording is None else tuple(recording.left_out)
        self._listener = listener
        self._tls = tls
        self._api = api
        self._delivery = delivery
        self._gate = gate
        self._script = script
        self._http2 = http2
        self._gzip = gzip
        host, self.port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'http' if tls is None else 'https'}://{shown}:{self.port}"
        self._changed = threading.Condition()
        self._requests: deque[Request] = deque(maxlen=KEPT_REQUESTS)
        self._answered = 0
        self._sent = 0
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
            except Exception as error:  # noqa: BLE001 - whatever it is, the next may be accepted
                if self._closed:
                    return
                log.warning("the simulator could not accept a connection: %r", error)
                time.sleep(PAUSE)  # such as too many open files: others may close some

    def _converse(self, raw: socket.socket) -> None:
        with contextlib.suppress(Gone):
            transport = self._welcome(raw)
            try:
                for head in transport.requests():
                    with contextlib.suppress(ResponseGone):
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
        answer = self._api.answer(head, transport.client_ip, transport.kill)
        if isinstance(answer, Reply):
            self._reply(transport, head, answer)
            return False
        reason, unnoticed = "client closed", False
        try:
            part = _steps(self._script(self._request(head, 200, self._answered + 1)))
            if part and isinstance(part[0], Reply):
                # Before the answer: who has it must find that the refused one holds nothing.
                self._gate.leave(answer.slot, "refused", unnoticed=False)
                self._reply(transport, head, part[0], answer.headers)
                return False
            playing = self._begin(transport, head, answer)
            try:
                return playing.play(part)
            finally:
                reason = playing.reason or reason
                unnoticed = playing.is_unnoticed and not self._closed
        finally:
            self._gate.leave(answer.slot, reason, unnoticed=unnoticed)

    def _reply(
        self, transport: Transport, head: Head, reply: Reply, headers: Mapping[str, str] = EMPTY
    ) -> None:
        self._note(head, reply.status)
        body = b"" if head.method == "HEAD" else reply.payload()
        transport.reply(reply.status, _headers(headers, reply.headers), body)

    def _begin(self, transport: Transport, head: Head, stream: Stream) -> Playing:
        compress = self._gzip and "gzip" in head.headers.get("accept-encoding", "")
        encoding = {"content-encoding": "gzip"} if compress else {}
        self._note(head, 200)
        transport.begin(_headers(stream.headers, encoding, self._headers))
        return Playing(
            transport, stream.tape, self._delivery, compress=compress, on_sent=self._count
        )

    def _count(self, tweets: int) -> None:
        with self._changed:
            self._sent += tweets

    def _note(self, head: Head, status: int) -> None:
        with self._changed:
            self._answered += 1
            self._requests.append(self._request(head, status, self._answered))
            self._changed.notify_all()

    def _request(self, head: Head, status: int, number: int) -> Request:
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


def _in_turn(script: Script) -> Callable[[Request], Part]:
    """A part for each connection, in turn; then nothing but streaming."""
    if callable(script):
        return script
    lock = threading.Lock()
    left = iter(list(iterable("script", script, "[Serve(10), Close()]")))

    def part(_: Request) -> Part:
        with lock:
            return next(left, ())

    return part


def _steps(part: Part) -> tuple[Step, ...]:
    return (part,) if isinstance(part, Step) else tuple(part)


def _recording(
    source: Path | str | Iterable[bytes] | None, *, loop: bool, pace: Pace, live: bool
) -> Recording | None:
    if pace not in {"rate", "recorded"}:
        raise ConfigurationError(f"pace={pace!r}: choose one of rate, recorded")
    is_timed = pace == "recorded"
    if is_timed and (live or source is None):
        raise ConfigurationError("pace='recorded' needs a recording as source, and live=False")
    if source is None:
        return None
    recorded = Path(source) if isinstance(source, str) else source
    if not isinstance(recorded, Path):
        recorded = iterable("source", recorded, "[frame]")
    return Recording(recorded, loop=loop, is_timed=is_timed)


def _shut(live: socket.socket) -> None:
    with contextlib.suppress(OSError):
        live.shutdown(socket.SHUT_RDWR)


def _headers(*parts: Mapping[str, str | None]) -> Headers:
    """The headers that X sends with every answer, and others beside them or in their place."""
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
        is_port = error.errno in {errno.EADDRINUSE, errno.EACCES}
        advice = "another port, or 0 for a free one" if is_port else "an address of this machine"
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {reason}; give {advice}"
        ) from None
