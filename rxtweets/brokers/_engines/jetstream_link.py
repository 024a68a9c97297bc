"""A connection to NATS with a thread and an event loop of its own, which end with it.

nats-py can reconnect by itself. But then futures of messages in flight never end, and requests of
the old connection stay open. Here a lost connection ends with all its tasks, and the next call
makes another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from rxtweets._support.workers import start_thread
from rxtweets.brokers._address import Address
from rxtweets.errors import BrokerError, BrokerUnavailable

__all__ = ["ANSWER", "Connection", "Link"]

log = logging.getLogger("rxtweets")

T = TypeVar("T")

ANSWER = 4.0
"""Seconds within which a server has to answer."""

CONNECT = 3.0
"""Seconds for a connection, to all hosts together."""

TURN = CONNECT
"""Seconds to wait for another thread that connects: each would try again after it."""

HEARTBEAT = 1.0
"""Seconds between pings."""

CLOSE = 1.0
"""Seconds for a client to close; a server that does not read would hold it up."""

PORT = 4222


class Link:
    """The connection of a sender or receiver; another one after a loss.

    Args:
        nats: the module.
        address: of the queue.
        set_up: awaited on each new connection.
    """

    def __init__(
        self,
        nats: Any,
        address: Address,
        set_up: Callable[[Connection], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._nats = nats
        self._address = address
        self._set_up = set_up
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self.is_closed = False

    @property
    def is_lost(self) -> bool:
        """``True`` if the next call has to connect."""
        connection = self._connection
        return connection is None or connection.is_over

    def call(self, work: Callable[[Connection], Coroutine[Any, Any, T]], limit: float) -> T:
        """Run a coroutine on the loop of the connection, and return its result.

        Raises:
            BrokerUnavailable: the broker cannot be reached, or does not answer within the limit.
            BrokerError: it refused the request.
        """
        return self._connected().run(work, limit)

    def close(self) -> None:
        """End the connection, with all calls that wait."""
        self.is_closed = True
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self) -> Connection:
        if not self._lock.acquire(timeout=TURN):
            raise BrokerUnavailable(f"{self._address}: another thread is still connecting")
        try:
            if self.is_closed:
                raise BrokerUnavailable(f"{self._address}: this sender or receiver is closed")
            if self._connection is None or self._connection.is_over:
                self._connection = self._new_connection()
            return self._connection
        finally:
            self._lock.release()

    def _new_connection(self) -> Connection:
        connection = Connection(self._nats, self._address)
        try:
            if self._set_up is not None:
                connection.run(self._set_up, 2 * ANSWER)
        except BaseException:
            connection.close()
            raise
        return connection


class Connection:
    """One connection.

    Attributes:
        client: of nats-py.
        jetstream: its context.
        where: hosts and stream, for errors.
    """

    client: Any
    jetstream: Any

    def __init__(self, nats: Any, address: Address) -> None:
        self._nats = nats
        self._address = address
        hosts = ",".join(f"{host}:{port or PORT}" for host, port in address.hosts)
        self.where = f"nats://{hosts}/{address.path}"
        self._lock = threading.Lock()
        self.is_over = False
        self._failure: Exception | None = None
        self._ready: Future[None] = Future()
        self._thread = start_thread(
            "rxtweets-jetstream", lambda: asyncio.run(self._live()), self._died
        )
        try:
            self._ready.result()
        except BaseException:
            self._thread.join(CLOSE)
            raise

    def run(self, work: Callable[[Connection], Coroutine[Any, Any, T]], limit: float) -> T:
        """Run a coroutine on the loop, and return its result; see `Link.call`."""
        with self._lock:
            if self.is_over:
                raise self.unavailable("the connection was lost")
            future = asyncio.run_coroutine_threadsafe(work(self), self._loop)
        try:
            return future.result(limit)
        except CancelledError:
            raise self.unavailable("the connection was lost") from None
        except BrokerError:
            raise
        except Exception as error:  # noqa: BLE001 - of a client that may be closed meanwhile
            if isinstance(error, TimeoutError):
                future.cancel()
                self.end()  # messages that arrive later would have no taker
            raise self.error_for(error) from None

    def end(self) -> None:
        """End the connection soon."""
        with self._lock:
            if not self.is_over:
                self._loop.call_soon_threadsafe(self._ending.set)

    def close(self) -> None:
        """End the connection, and wait for its thread."""
        self.end()
        self._thread.join(CLOSE + ANSWER)

    def unavailable(self, reason: str) -> BrokerUnavailable:
        """Return the error for a call that may succeed later."""
        return BrokerUnavailable(f"{self.where}: {reason}")

    def error_for(self, error: BaseException | None) -> BrokerError:
        """Return the error of rxtweets for one of nats-py."""
        if isinstance(error, TimeoutError):
            return self.unavailable("the server does not answer")
        if isinstance(error, self._nats.js.errors.APIError) and (error.code or 0) < 500:
            return BrokerError(f"{self.where}: {error.description} ({error.err_code})")
        return self.unavailable(str(error) or type(error).__name__)

    @contextlib.asynccontextmanager
    async def inbox(self, answered: Callable[[Any], None]) -> AsyncIterator[str]:
        """Call a function with each message to subjects below a new one, until the block ends.

        So no answer can be taken for that to another request.
        """

        async def on_message(message: Any) -> None:
            answered(message)

        inbox = self.client.new_inbox()
        # Without a limit: at one, the client would drop messages.
        subscription = await self.client.subscribe(
            f"{inbox}.*", cb=on_message, pending_msgs_limit=0, pending_bytes_limit=0
        )
        try:
            yield inbox
        finally:
            with contextlib.suppress(Exception):  # the connection may be lost
                await subscription.unsubscribe()

    # On the thread of the connection.

    def _died(self, error: BaseException) -> None:
        with self._lock:
            self.is_over = True
        if not self._ready.done():
            self._ready.set_exception(self.unavailable(f"no event loop: {error!r}"))
        log.debug("%s: the connection died of %r", self.where, error, exc_info=error)

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_ignore)
        self._ending = asyncio.Event()
        try:
            self.client = await self._connect()
        except BaseException as error:  # noqa: BLE001 - raised by the thread that waits
            self._ready.set_exception(error)
            return
        self.jetstream = self.client.jetstream(timeout=ANSWER)
        pings = asyncio.create_task(self._ping())
        self._ready.set_result(None)
        await self._ending.wait()
        with self._lock:
            self.is_over = True
        await asyncio.sleep(0)  # calls that were made just now become tasks
        await _close(self.client)
        pings.cancel()
        # asyncio.run cancels all calls that wait, and tasks that the client has left.

    async def _connect(self) -> Any:
        """Return a client that is connected to one of the hosts."""
        hosts = random.sample(self._address.hosts, len(self._address.hosts))
        for host, port in hosts:
            shown = f"[{host}]" if ":" in host else host
            client = self._nats.aio.client.Client()
            connecting = self._connect_client(client, f"nats://{shown}:{port or PORT}")
            self._failure = None
            self._ending.clear()  # the last client may have set it as it was closed
            try:
                await asyncio.wait_for(connecting, CONNECT / len(hosts))
            except Exception as error:  # noqa: BLE001 - the next host may be there
                self._failure = self._failure or error  # the client's own names no reason
                await _close(client)
            else:
                return client
        if "authorization" in str(self._failure).lower():
            raise BrokerError(f"{self.where}: the server refuses the user or the password")
        raise self.error_for(self._failure)

    def _connect_client(self, client: Any, server: str) -> Awaitable[None]:
        user, password = self._address.user, self._address.password
        connecting: Awaitable[None] = client.connect(
            server,
            name="rxtweets",
            user=user if password else None,
            password=password or None,
            token=None if password else user or None,
            connect_timeout=CONNECT,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            ping_interval=3600,  # our own pings notice a loss
            flush_timeout=CLOSE,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnect,
        )
        return connecting

    async def _ping(self) -> None:
        with contextlib.suppress(Exception):  # whatever it raises, this client is of no more use
            while True:
                await self.client.rtt(ANSWER)
                await asyncio.sleep(HEARTBEAT)
        self._ending.set()

    async def _on_error(self, error: Exception) -> None:
        self._failure = error
        log.debug("%s: %r", self.where, error)

    async def _on_disconnect(self) -> None:
        self._ending.set()


async def _close(client: Any) -> None:
    with contextlib.suppress(Exception):
        await asyncio.wait_for(client.close(), CLOSE)
    transport = client._transport  # noqa: SLF001 - the client cannot abort
    writer = getattr(transport, "_io_writer", None)
    if writer is not None:
        writer.transport.abort()
        await asyncio.sleep(0)


def _ignore(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Do not print errors of tasks of a client that was lost: calls and pings report the loss."""
    log.debug("nats: %s", context.get("message"), exc_info=context.get("exception"))
