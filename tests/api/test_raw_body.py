from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest
import trustme

from rxtweets.api._raw_body import MOST, RECORD, WHOLE, burst

Pair = tuple[ssl.SSLSocket, ssl.SSLSocket]


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """The sender and the reader of one TLS connection."""
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    trusted.maximum_version = request.param
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        client = stack.enter_context(socket.create_connection(listener.getsockname()))
        accepted = stack.enter_context(listener.accept()[0])
        for end in (client, accepted):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        ends: list[ssl.SSLSocket] = []
        shaking = threading.Thread(
            target=lambda: ends.append(served.wrap_socket(accepted, server_side=True))
        )
        shaking.start()
        reader = stack.enter_context(trusted.wrap_socket(client, server_hostname="127.0.0.1"))
        shaking.join()
        yield stack.enter_context(ends[0]), reader


def arrived(reader: ssl.SSLSocket, at_least: int) -> None:
    """Wait until the socket has this number of undecrypted bytes."""
    while len(_peek(reader, at_least)) < at_least:
        pass


def _peek(reader: ssl.SSLSocket, size: int) -> bytes:
    # The method of SSLSocket refuses flags; that of the plain socket reads the same bytes.
    return socket.socket.recv(reader, size, socket.MSG_PEEK | socket.MSG_WAITALL)


def read_all(size: int, read: Callable[[], bytes]) -> list[bytes]:
    reads: list[bytes] = []
    while sum(map(len, reads)) < size:
        reads.append(read())
    return reads


def test_bursts_equal_single_reads(pair: Pair) -> None:
    sender, reader = pair
    data = bytes(range(256)) * 4_000  # a million bytes: twelve bursts and more
    sending = threading.Thread(target=sender.sendall, args=(data,))
    sending.start()
    reads = read_all(len(data), lambda: burst(reader.recv(MOST), reader))
    sending.join()
    assert b"".join(reads) == data
    assert max(map(len, reads)) <= MOST + RECORD


def test_burst_returns_waiting_records_together(pair: Pair) -> None:
    sender, reader = pair
    sender.sendall(b"x" * (MOST + 2 * RECORD))
    arrived(reader, MOST + 2 * RECORD)
    assert len(burst(reader.recv(MOST), reader)) == MOST


def test_burst_does_not_wait_for_a_partial_record(pair: Pair) -> None:
    sender, reader = pair
    sender.sendall(b"x" * RECORD)
    sender.sendall(b"y" * (RECORD // 2))
    arrived(reader, RECORD + RECORD // 2)
    assert burst(reader.recv(MOST), reader) == b"x" * RECORD
    assert reader.recv(MOST) == b"y" * (RECORD // 2)


def test_end_after_a_burst_comes_with_the_next_read(pair: Pair) -> None:
    sender, reader = pair
    sender.sendall(b"x" * 2 * RECORD)
    arrived(reader, 2 * RECORD)
    sender.close()
    got = burst(reader.recv(MOST), reader)
    while more := reader.recv(MOST):
        got += more
    assert got == b"x" * 2 * RECORD


def test_short_read_is_returned_as_it_is(pair: Pair) -> None:
    sender, reader = pair
    sender.sendall(b"x" * 4 * RECORD)
    arrived(reader, WHOLE)
    assert burst(b"short", reader) == b"short"


def test_plain_socket_is_not_read_further() -> None:
    one, other = socket.socketpair()
    with one, other:
        other.sendall(b"x" * (WHOLE + 1))
        assert burst(b"y" * RECORD, one) == b"y" * RECORD
