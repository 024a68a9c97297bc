"""A server with a low CPU cost: prepared frames, sent in large pieces.

One response a connection: HTTP/1.1 with one tweet a chunk, or HTTP/2 with one tweet a DATA frame,
over TLS or plain TCP. The frames are those of the simulator's generator, or of a file. It prints a
JSON object with its port when it listens. For each line on standard input it prints its figures:
tweets sent, seconds spent waiting for the client, CPU seconds, bytes waiting in the send buffer.

Usage: server.py [--size small|large] [--bytes N] [--from FILE] [--http2] [--cert PEM] [--rate N]
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import socket
import ssl
import struct
import sys
import termios
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from rxtweets.simulator._tweets import Tweets

DISTINCT = 4_000
PIECE = 64
"""Tweets of one write, each in one chunk or frame."""

PREFACE = b"PRI * HTTP/2.0"
PREFACE_LENGTH = 24
HEAD_1 = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n"
    b"connection: close\r\n\r\n"
)
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
SETTINGS_ACK = b"\0\0\0\x04\x01\0\0\0\0"
HEAD_2 = (
    b"\0\0\x01\x01\x04\0\0\0\x01\x88"  # status 200, index 8 of HPACK's static table (RFC 7541, A)
)
LONGEST = 16_384


class Piece:
    """Several encoded tweets."""

    def __init__(self, data: bytes, tweets: int) -> None:
        self.data = data
        self.tweets = tweets


def frames_of(size: str, source: str | None, least: int = 0) -> list[bytes]:
    """Return frames with line ends; those below ``least`` bytes include other tweets."""
    if source:
        return [line + b"\r\n" for line in Path(source).read_bytes().splitlines() if line]
    frames = Tweets(size="large" if size == "large" else "small").frames(0, DISTINCT)
    return [_grown(frames, number, least) + b"\r\n" for number in range(DISTINCT)]


def _grown(frames: list[bytes], number: int, least: int) -> bytes:
    """Enlarge a frame as X does, with expanded tweets in ``includes``."""
    frame = frames[number]
    included: list[bytes] = []
    while len(frame) + sum(map(len, included)) < least:
        other = json.loads(frames[(number + 1 + len(included)) % len(frames)])["data"]
        included.append(json.dumps(other, ensure_ascii=False, separators=(",", ":")).encode())
    if not included:
        return frame
    whole = json.loads(frame)
    whole.setdefault("includes", {})["tweets"] = [json.loads(tweet) for tweet in included]
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


def chunked(frame: bytes) -> bytes:
    """Encode a frame as a chunk of HTTP/1.1."""
    return b"%x\r\n%b\r\n" % (len(frame), frame)


def framed(frame: bytes) -> bytes:
    """Encode a frame as one DATA frame of HTTP/2, or several."""
    parts = [frame[start : start + LONGEST] for start in range(0, len(frame), LONGEST)]
    return b"".join(struct.pack(">I", len(part))[1:] + b"\0\0\0\0\0\x01" + part for part in parts)


def pieces_of(frames: list[bytes], *, http2: bool, count: int) -> list[Piece]:
    """Encode the frames in groups of ``count``."""
    encode = framed if http2 else chunked
    source = iter(frames)
    pieces = []
    while group := list(islice(source, count)):
        pieces.append(Piece(b"".join(map(encode, group)), len(group)))
    return pieces


class Server:
    """Serves one client at a time, from the first frame."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._rate = options.rate
        # With a rate, the tweets of one millisecond share a piece.
        count = PIECE if not self._rate else max(1, min(PIECE, int(self._rate / 1000)))
        frames = frames_of(options.size, options.source, options.bytes)
        self._http1 = pieces_of(frames, http2=False, count=count)
        self._http2 = pieces_of(frames, http2=True, count=count)
        self.mean = sum(map(len, frames)) / len(frames)
        self._tls: ssl.SSLContext | None = None
        if options.cert:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(options.cert)
            self._tls.set_alpn_protocols(["h2", "http/1.1"] if options.http2 else ["http/1.1"])
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.sent = 0
        self.waited = 0.0
        self.late = 0.0
        self._live: socket.socket | None = None
        self._room = threading.Condition()
        self._window = 0

    def run(self) -> None:
        """Accept connections without end."""
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def unsent(self) -> int:
        """Return the sent bytes that the client has not acknowledged."""
        live = self._live
        if live is None:
            return 0
        with contextlib.suppress(OSError, ValueError):  # the connection was closed
            return int.from_bytes(fcntl.ioctl(live, termios.TIOCOUTQ, b"\0" * 4), sys.byteorder)
        return 0

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError), client:
            connection = self._tls.wrap_socket(client, server_side=True) if self._tls else client
            with connection:
                self._live = connection
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        asked = connection.recv(65_536)
        if asked.startswith(PREFACE):
            self._window = 2**16 - 1
            connection.sendall(SETTINGS + SETTINGS_ACK + HEAD_2)
            rest = asked[PREFACE_LENGTH:]
            reading = threading.Thread(
                target=self._read_windows, args=(connection, rest), daemon=True
            )
            reading.start()
            self._stream(connection, self._http2, windowed=True)
        else:
            connection.sendall(HEAD_1)
            self._stream(connection, self._http1, windowed=False)

    def _stream(self, connection: socket.socket, pieces: list[Piece], *, windowed: bool) -> None:
        for due, piece in self._paced(pieces):
            before = time.perf_counter()
            if windowed:
                self._take_window(len(piece.data))
            connection.sendall(piece.data)
            after = time.perf_counter()
            self.waited += after - before
            self.late = max(self.late, after - due)
            self.sent += piece.tweets

    def _paced(self, pieces: list[Piece]) -> Iterator[tuple[float, Piece]]:
        due = time.perf_counter()
        while True:
            for piece in pieces:
                if self._rate:
                    due += piece.tweets / self._rate
                    if (rest := due - time.perf_counter()) > 0:
                        time.sleep(rest)
                yield due, piece

    def _take_window(self, size: int) -> None:
        with self._room:
            self._room.wait_for(lambda: self._window >= size)
            self._window -= size

    def _read_windows(self, connection: socket.socket, rest: bytes) -> None:
        """Read WINDOW_UPDATE frames; clients update both windows alike."""
        data = b"\0"
        with contextlib.suppress(OSError):
            while data:
                while len(rest) >= 9 + (size := int.from_bytes(rest[:3], "big")):
                    if rest[3] == 8 and rest[5:9] == b"\0\0\0\0":
                        with self._room:
                            self._window += int.from_bytes(rest[9:13], "big")
                            self._room.notify_all()
                    rest = rest[9 + size :]
                data = connection.recv(65_536)
                rest += data


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="small")
    parser.add_argument("--bytes", type=int, default=0)
    parser.add_argument("--from", dest="source")
    parser.add_argument("--http2", action="store_true")
    parser.add_argument("--cert")
    parser.add_argument("--rate", type=float, default=0.0)
    server = Server(parser.parse_args())
    threading.Thread(target=server.run, daemon=True).start()
    port = server.listener.getsockname()[1]
    print(json.dumps({"port": port, "mean_bytes": server.mean}), flush=True)
    for _ in sys.stdin:
        figures = {
            "sent": server.sent,
            "waited": server.waited,
            "late": server.late,
            "cpu": time.process_time(),
            "unsent": server.unsent(),
        }
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
