"""Connections to RabbitMQ: each has one channel of pika, on a thread of its own."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import takewhile
from typing import Any, Generic, NamedTuple, TypeVar

from rxtweets._support.workers import start_thread
from rxtweets.errors import BrokerError, BrokerUnavailable, QueueSettingsError

__all__ = ["LIMIT", "Confirms", "Consumer", "Letter", "Link", "Pushed", "Reconnecting"]

LIMIT = 5.0
"""Seconds for each answer of the broker."""

SILENT = 7
"""Seconds without a byte, after which a connection is lost."""

AT_ONCE = 1000
"""Messages that are published before their confirms are awaited."""

WRITTEN_AT_ONCE = 65_536
"""Bytes of messages that are given to the socket together."""

OUTPUT = "_output_marshaled_frames"
"""Method of pika's connections that writes encoded frames."""

FINAL = ("ACCESS_REFUSED", "NOT_ALLOWED", "CERTIFICATE_VERIFY_FAILED", "message size")
"""Words in the texts of errors that another attempt does not mend."""

CONSUMER = "rxtweets"
"""Name of the consumer on its channel."""


class Link:
    """A connection with one channel. If either of them closes, the link is lost for good.

    Args:
        pika: the module.
        parameters: pika's, of the connection.

    Raises:
        BrokerUnavailable: the broker cannot be reached.
        BrokerError: it refused the user, or is too old.
    """

    def __init__(self, pika: Any, parameters: Any) -> None:
        self.where = f"RabbitMQ at {parameters.host}:{parameters.port}"
        self._lock = threading.Lock()
        self._reason: tuple[type[BrokerError], str] | None = None
        self._answers: set[Future[Any]] = set()
        self._received, self._silent = 0, 0
        self._channel: Any = None
        self._stream_lost = pika.exceptions.StreamLostError
        opened = self.answer()
        self._connection: Any = pika.SelectConnection(
            parameters,
            on_open_callback=lambda _: self._connection.channel(
                on_open_callback=partial(self._open, opened)
            ),
            on_open_error_callback=self._lose,
            on_close_callback=self._lose,
        )
        self._loop = self._connection.ioloop
        self._thread = start_thread("rxtweets-rabbitmq", self._run, self._died)
        self.result(opened)

    @property
    def lost(self) -> BrokerError | None:
        """The error that ended the link."""
        return None if self._reason is None else self._reason[0](self._reason[1])

    def post(self, act: Callable[[Any], object]) -> None:
        """Run a function on the link's thread, with the channel; never, if the link is lost."""
        self._loop.add_callback_threadsafe(lambda: self._channel.is_open and act(self._channel))

    def ask(self, request: str, **arguments: Any) -> Any:
        """Return the broker's answer to a method of the channel.

        Raises:
            BrokerError: it refused the request, or does not answer.
        """
        answer = self.answer()
        method = dict(callback=answer.set_result, **arguments)
        self.post(lambda channel: getattr(channel, request)(**method))
        return self.result(answer)

    def answer(self) -> Future[Any]:
        """Return a future that fails when the link is lost."""
        answer: Future[Any] = Future()
        with self._lock:
            lost = self.lost
            if lost is not None:
                raise lost
            self._answers.add(answer)
        return answer

    def result(self, answer: Future[Any]) -> Any:
        """Wait for an answer; without one in time, the link is lost."""
        try:
            return answer.result(LIMIT)
        except TimeoutError:
            text = f"no answer for {LIMIT:g} s"
            with self._lock:  # at once, so that the next call makes another link
                self._reason = self._reason or (BrokerUnavailable, f"{self.where}: {text}")
            self._loop.add_callback_threadsafe(lambda: self._abort(text))
            raise BrokerUnavailable(f"{self.where}: {text}") from None
        finally:
            with self._lock:
                self._answers.discard(answer)

    def close(self) -> None:
        """Send what was posted, close the connection, and end the thread."""
        self._loop.add_callback_threadsafe(self._close)
        self._thread.join(LIMIT)

    # The rest runs on the thread.

    def on_lost(self) -> None:
        """Do nothing; subclasses wake their waiting threads."""

    def _run(self) -> None:
        try:
            self._watch()
            self._loop.start()
        finally:
            self._loop.close()

    def _open(self, opened: Future[Any], channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._lose)
        version = str(self._connection.server_properties.get("version", ""))
        if _numbers(version) < (3, 10):
            self._abort(f"its version is {version}, and 3.10 is needed", BrokerError)
        elif not opened.done():
            opened.set_result(None)

    def _watch(self) -> None:
        # pika's own check takes up to twice its heartbeat, and ten seconds more.
        received = self._connection.bytes_received
        self._silent = self._silent + 1 if received == self._received else 0
        self._received = received
        if self._silent >= SILENT:
            self._abort(f"no heartbeat for {SILENT} s")
        self._loop.call_later(1.0, self._watch)

    def _close(self) -> None:
        if not (self._connection.is_closing or self._connection.is_closed):
            self._connection.close()
        self._loop.call_later(1.0, lambda: self._abort("no answer to close"))

    def _abort(self, text: str, kind: type[BrokerError] = BrokerUnavailable) -> None:
        self._end(kind, f"{self.where}: {text}")
        if not self._connection.is_closed:
            self._connection._terminate_stream(self._stream_lost(text))  # noqa: SLF001 - close() would wait for the broker

    def _lose(self, _: object, reason: BaseException) -> None:
        self._end(*_refusal(self.where, reason))
        if self._connection.is_open:
            self._close()
        elif self._connection.is_closed:
            self._loop.stop()

    def _died(self, error: BaseException) -> None:
        self._end(BrokerUnavailable, f"{self.where}: the thread died of {error!r}")

    def _end(self, kind: type[BrokerError], text: str) -> None:
        with self._lock:
            self._reason = self._reason or (kind, text)
            answers = [answer for answer in self._answers if not answer.done()]
        for answer in answers:
            answer.set_exception(self.lost)
        self.on_lost()


def _refusal(where: str, reason: BaseException) -> tuple[type[BrokerError], str]:
    """Return kind and text of the error for which a connection or a channel was closed."""
    reason = _innermost(reason)
    text = str(getattr(reason, "reply_text", "") or str(reason) or repr(reason))
    if "inequivalent arg" in text:
        advice = "empty and delete it, or choose another path in the URL"
        return QueueSettingsError, f"{where}: {text}; {advice}"
    is_final = any(word in text for word in FINAL)
    return BrokerError if is_final else BrokerUnavailable, f"{where}: {text}"


def _innermost(error: BaseException) -> BaseException:
    """Return the cause of pika's nested errors."""
    found = [getattr(error, "exception", None), *getattr(error, "exceptions", ()), *error.args]
    inner = [one for one in found if isinstance(one, BaseException)]
    return _innermost(inner[-1]) if inner else error


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


class Letter(NamedTuple):
    """A message to publish; the order is that of ``basic_publish``."""

    exchange: str
    routing_key: str
    body: bytes
    properties: Any


class _Wave:
    """Messages whose confirms are awaited together."""

    def __init__(self, count: int, done: Future[Any]) -> None:
        self.errors: list[Exception | None] = [_UNCONFIRMED] * count
        self.done = done
        self._left = count

    def settle(self, index: int, error: Exception | None) -> None:
        self.errors[index] = error
        self._left -= 1
        if self._left == 0 and not self.done.done():
            self.done.set_result(None)


_UNCONFIRMED = BrokerUnavailable("not confirmed")


class _Writer:
    """Publishes messages on a channel, those of one wave with few writes to the socket.

    pika writes method, header and body of each message on their own: three system calls, and three
    packets that the broker reads. See section 4.2 of
    https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, and "Queues" in the benchmarks.
    """

    def __init__(self, pika: Any, channel: Any) -> None:
        self._pika = pika
        self._channel = channel
        self._number = channel.channel_number
        self._largest = channel.connection.params.frame_max - 8
        self._methods: dict[tuple[str, str], bytes] = {}
        self._pieces: list[bytes] = []
        self._size = 0
        # Not public; without it, pika's own and slower way remains.
        self._output: Any = getattr(channel.connection, OUTPUT, None)

    def add(self, letter: Letter) -> None:
        """Publish a message with the next `flush` at the latest; raise if it cannot be encoded."""
        if self._output is None:
            self._channel.basic_publish(*letter, mandatory=True)
            return
        body = letter.body
        header = self._pika.frame.Header(self._number, len(body), letter.properties).marshal()
        self._pieces += (self._method(letter.exchange, letter.routing_key), header)
        for at in range(0, len(body), self._largest):
            part = body[at : at + self._largest]
            self._pieces += (struct.pack(">BHI", 3, self._number, len(part)), part, b"\xce")
        self._size += len(body)

    def flush(self, least: int = 0) -> None:
        """Write the messages that were added.

        Args:
            least: bytes of their bodies; with fewer, nothing is written.
        """
        if self._pieces and self._size >= least:
            self._output([b"".join(self._pieces)])
            self._pieces.clear()
            self._size = 0

    def _method(self, exchange: str, routing_key: str) -> bytes:
        known = self._methods.get((exchange, routing_key))
        if known is None:
            publish = self._pika.spec.Basic.Publish(
                exchange=exchange, routing_key=routing_key, mandatory=True
            )
            known = self._pika.frame.Method(self._number, publish).marshal()
            self._methods[exchange, routing_key] = known
        return known


class Confirms(Link):
    """A link that publishes, and waits for the broker's confirms."""

    def __init__(self, pika: Any, parameters: Any) -> None:
        self._pika = pika
        self._last_tag = 0
        self._waiting: dict[int, tuple[_Wave, int, Letter]] = {}
        self._returned: Counter[tuple[str, str | None]] = Counter()
        super().__init__(pika, parameters)
        self.post(lambda channel: channel.add_on_return_callback(self._on_return))
        self.ask("confirm_delivery", ack_nack_callback=self._on_confirm)

    def put(self, letters: Sequence[Letter]) -> list[Exception | None]:
        """Publish messages; return an error for each that is not stored."""
        errors: list[Exception | None] = []
        for start in range(0, len(letters), AT_ONCE):
            try:
                errors += self._put(letters[start : start + AT_ONCE])
            except BrokerError as error:
                return errors + [error] * (len(letters) - len(errors))
        return errors

    def _put(self, letters: Sequence[Letter]) -> list[Exception | None]:
        wave = _Wave(len(letters), self.answer())
        self.post(lambda channel: self._publish(channel, letters, wave))
        try:
            self.result(wave.done)
        except BrokerError as lost:
            return [lost if error is _UNCONFIRMED else error for error in list(wave.errors)]
        return wave.errors

    def _publish(self, channel: Any, letters: Sequence[Letter], wave: _Wave) -> None:
        writer = _Writer(self._pika, channel)
        for index, letter in enumerate(letters):
            try:
                writer.add(letter)
            except Exception as error:  # noqa: BLE001 - its errors of encoding have no common class
                text = f"{self.where}: the message cannot be encoded: {error!r}"
                wave.settle(index, BrokerError(text))
                continue
            self._last_tag += 1
            self._waiting[self._last_tag] = wave, index, letter
            writer.flush(WRITTEN_AT_ONCE)
        writer.flush()

    def _on_return(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        del body
        self._returned[method.routing_key, properties.message_id] += 1  # its confirm follows

    def _on_confirm(self, frame: Any) -> None:
        last = frame.method.delivery_tag
        is_stored = frame.method.NAME == "Basic.Ack"
        several = frame.method.multiple
        for tag in list(takewhile(lambda tag: tag <= last, self._waiting)) if several else [last]:
            wave, index, letter = self._waiting.pop(tag)
            wave.settle(index, self._returned_error(letter) or self._nack_error(is_stored))

    def _returned_error(self, letter: Letter) -> Exception | None:
        name = letter.routing_key, letter.properties.message_id
        if not self._returned or name not in self._returned:
            return None
        self._returned -= Counter([name])
        return BrokerError(
            f"{self.where}: no queue gets the messages of {letter.exchange or name[0]!r}: name the "
            "groups, as in connect(url, groups=['workers'])"
        )

    def _nack_error(self, is_stored: bool) -> Exception | None:
        return None if is_stored else BrokerUnavailable(f"{self.where}: it did not store a message")


class Pushed(NamedTuple):
    """A message that the broker has pushed."""

    tag: int
    properties: Any
    body: bytes


class Consumer(Link):
    """A link that is pushed the messages of a queue."""

    def __init__(self, pika: Any, parameters: Any, queue: str, prefetch: int) -> None:
        self._changed = threading.Condition()
        self._ready: deque[Pushed] = deque()
        self._unsettled: dict[int, None] = {}  # in the order of their tags
        self._is_announcing = False
        self._is_stopped = False
        super().__init__(pika, parameters)
        self.post(lambda channel: channel.add_on_cancel_callback(self._on_cancel))
        self.ask("basic_qos", prefetch_count=prefetch)
        self.ask(
            "basic_consume",
            queue=queue,
            on_message_callback=self._on_message,
            consumer_tag=CONSUMER,
        )

    def take(self, most: int, wait: float) -> list[Pushed]:
        """Return messages; none after `stop`.

        Raises:
            BrokerError: the link is lost.
        """
        deadline = time.monotonic() + wait
        with self._changed:
            while not (self._ready or self._is_stopped or self._reason):
                rest = deadline - time.monotonic()
                if rest <= 0:
                    return []
                self._changed.wait(rest)
            if self._is_stopped:
                return []
            if lost := self.lost:
                raise lost
            return [self._ready.popleft() for _ in range(min(most, len(self._ready)))]

    def holds(self, tag: int) -> bool:
        """Return whether a message is still this link's, and not settled."""
        return self._reason is None and tag in self._unsettled

    def settle(self, tags: Collection[int], method: str) -> set[int]:
        """Settle messages with a method such as ``basic_ack``; return the tags that were lost."""
        # A tag that was settled before would close the channel. So would two that are posted in
        # another order than they were removed.
        with self._changed:
            ours = sorted(tag for tag in set(tags) if self.holds(tag))
            heads = list(takewhile(set(ours).__contains__, self._unsettled))
            for tag in ours:
                del self._unsettled[tag]
            if method == "basic_ack" and heads:
                self.post(partial(_ack, heads[-1], ours[len(heads) :]))
            elif ours:
                self.post(lambda channel: [getattr(channel, method)(tag) for tag in ours])
        return set(tags).difference(ours)

    def counts(self) -> tuple[int, int]:
        """Return the numbers of messages that wait here, and that were taken and not settled."""
        with self._changed:
            if self._reason:
                return 0, 0
            return len(self._ready), len(self._unsettled) - len(self._ready)

    def stop(self) -> list[Pushed]:
        """End waiting takes and the pushes; return the messages that were not taken."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        with contextlib.suppress(BrokerError):
            self.ask("basic_cancel", consumer_tag=CONSUMER)  # no message is pushed after its answer
        with self._changed:
            left = list(self._ready)
            self._ready.clear()
        return left

    def on_lost(self) -> None:
        """Wake the waiting threads."""
        with self._changed:
            self._changed.notify_all()

    def _on_message(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        with self._changed:
            self._unsettled[method.delivery_tag] = None
            self._ready.append(Pushed(method.delivery_tag, properties, body))
        # Woken for each message, a thread would take few at a time.
        if not self._is_announcing:
            self._is_announcing = True
            self.post(self._announce)

    def _announce(self, _: Any) -> None:
        """Wake the threads that take, after all messages of one read from the socket."""
        self._is_announcing = False
        with self._changed:
            self._changed.notify_all()

    def _on_cancel(self, _: Any) -> None:
        self._abort("the queue was deleted, or its node ended")


def _ack(last: int, others: Sequence[int], channel: Any) -> None:
    channel.basic_ack(last, multiple=True)
    for tag in others:
        channel.basic_ack(tag)


L = TypeVar("L", bound=Link)


class Reconnecting(Generic[L]):
    """Holds a link, makes it when it is needed, and makes another one after a loss."""

    def __init__(self, connect: Callable[[], L]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self.link: L | None = None
        self.is_closed = False

    def get(self) -> L:
        """Return the link.

        Raises:
            BrokerUnavailable: the broker cannot be reached.
        """
        # Threads would wait for too long, if each tried to connect in its turn.
        if not self._lock.acquire(timeout=LIMIT):
            raise BrokerUnavailable("another thread is still connecting to RabbitMQ")
        try:
            if self.is_closed:
                raise BrokerUnavailable("this process has closed the connection to RabbitMQ")
            if self.link is None or self.link.lost is not None:
                self.link = self._connect()
            return self.link
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the link, for good."""
        self.is_closed = True
        with self._lock:
            link, self.link = self.link, None
        if link is not None:
            link.close()
