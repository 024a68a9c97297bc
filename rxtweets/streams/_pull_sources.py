"""Sources that can wait: they emit only as many messages as are requested.

X's stream cannot wait. A broker, a queue, a file or a list can: a pipeline that is paused, full or
at its rate limit takes nothing from it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, Literal, Protocol, TypeVar, get_args, overload

from reactivex import abc
from reactivex.scheduler import VirtualTimeScheduler

from rxtweets._core.draining import SourceSubscription
from rxtweets._core.gates import ChunkGate, demand_of
from rxtweets._core.observable import MessageStream, new_telemetry
from rxtweets._messages.message import NOOP, Acknowledger, Message
from rxtweets._support.validation import choice, function, seconds, whole_number
from rxtweets._support.workers import as_exception, is_interrupt, start_thread
from rxtweets.errors import ConfigurationError, HandlerError

__all__ = [
    "NO_PAUSE",
    "PollSession",
    "PullSource",
    "QueueAcknowledger",
    "from_iterable",
    "from_queue",
    "polling_source",
]

T = TypeVar("T")

Poll = Callable[[int], Sequence[Message[Any]] | None]
OnFailure = Literal["discard", "requeue"]

NO_PAUSE = 0.001
"""Seconds between polls that wait for messages themselves."""


class PollSession(Protocol):
    """Polls for one subscription, and learns of its end."""

    def __call__(self, wanted: int) -> Sequence[Message[Any]] | None:
        """Poll; see `polling_source`."""

    def finish(self) -> None:
        """The subscription is drained, or has failed: outcomes of the messages follow."""

    def leave(self) -> None:
        """The subscription is disposed: no outcomes follow."""


class PullSource(MessageStream[Any]):
    """An Observable of messages that asks its observer for its demand before it takes any.

    Each subscription polls independently, on its own thread, or on a `VirtualTimeScheduler` given
    to ``subscribe``.

    Args:
        begin: called for each subscription; returns the function to poll with. See
            `polling_source` for that function.
        interval: seconds until the next poll after one without messages.
        most: messages requested by one poll, at most.
        name: of the source, for reprs.
    """

    def __init__(
        self,
        begin: Callable[[], Poll],
        *,
        interval: float,
        most: int,
        name: str = "polling_source",
    ) -> None:
        super().__init__(self._start, new_telemetry(source=name))
        self.begin = begin
        self.interval = interval
        self.most = most

    def __repr__(self) -> str:
        return f"<{self.telemetry.source}>"

    def new_session(self) -> PollSession | None:
        """Return the session of a subscription; ``None`` for `begin` on the polling thread."""
        return None

    def _start(
        self, observer: abc.ObserverBase[list[Message[Any]]], scheduler: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        puller = _Puller(self, observer, self.new_session())
        # Before any message: a drain that begins meanwhile ends the source in order.
        subscription = SourceSubscription(puller.gate, puller.leave, puller.finish, self.telemetry)
        if isinstance(scheduler, VirtualTimeScheduler):
            puller.run_on(scheduler)
        else:
            start_thread("rxtweets-pull", puller.run, puller.fail)
        return subscription


class _Puller:
    """One subscription to a `PullSource`."""

    def __init__(
        self,
        source: PullSource,
        observer: abc.ObserverBase[list[Message[Any]]],
        session: PollSession | None,
    ) -> None:
        self._source = source
        self._observer = observer
        self._telemetry = source.telemetry
        self.gate = ChunkGate(observer, source.telemetry)
        self._stopped = threading.Event()
        self._session = session
        self._poll: Poll | None = session

    def run(self) -> None:
        with self._telemetry.working():
            while (taken := self._take()) is not None:
                if not taken:
                    self._stopped.wait(self._source.interval)

    def run_on(self, scheduler: abc.SchedulerBase) -> None:
        def step(*_: Any) -> None:
            taken = self._take()
            if taken is not None:
                scheduler.schedule_relative(0.0 if taken else self._source.interval, step)

        scheduler.schedule(step)

    def finish(self, *_: ChunkGate[Any]) -> None:
        """Stop polling; a poll that has begun still emits, then the observer completes."""
        self._stopped.set()
        if self._session is not None:
            self._session.finish()

    def leave(self, gate: ChunkGate[Any]) -> None:
        gate.close()
        self._stopped.set()
        if self._session is not None:
            self._session.leave()

    def fail(self, error: BaseException) -> None:
        self.gate.on_error(as_exception(error))

    def _take(self) -> int | None:
        """Poll and emit once; return the number of messages, or ``None`` at the end."""
        try:
            messages = self._messages()
            if messages is None:
                self.gate.on_completed()
                return None
            if messages:
                self._telemetry.add(received=len(messages), delivered=len(messages))
                self.gate.on_next(messages)
        except BaseException as error:
            self._stopped.set()
            if self._session is not None:
                self._session.finish()
            self.fail(error)
            if is_interrupt(error):
                raise
            return None
        return len(messages)

    def _messages(self) -> list[Message[Any]] | None:
        if self._poll is None:
            self._poll = self._source.begin()
        wanted = 0 if self._stopped.is_set() else demand_of(self._observer, self._source.most)
        if self._stopped.is_set():  # also while the observer was asked
            return None
        messages = self._poll(wanted) if wanted else []
        for message in messages or ():
            if not isinstance(message, Message):
                kind = type(message).__name__
                raise HandlerError(f"poll returned a list with {kind}; return messages")
        return None if messages is None else list(messages)


def polling_source(
    poll: Callable[[int], Sequence[Message[T]] | None],
    *,
    interval: float | timedelta = 1.0,
    most: int = 10,
) -> MessageStream[T]:
    """Make a source that polls a service, such as a queue or a broker, for messages.

    ::

        def receive(wanted):                        # may wait for messages: a long poll
            found = sqs.receive_message(MaxNumberOfMessages=wanted, WaitTimeSeconds=20, ...)
            return [Message(item["Body"]).with_acknowledger(deleting, data=item["ReceiptHandle"])
                    for item in found.get("Messages", [])]

        source = rxtweets.polling_source(receive, interval=5.0, most=10)
        rxtweets.Pipeline(source, handle_message=handle).run()

    A pipeline that is paused, full or at its rate limit does not poll. Each message is acknowledged
    once, and a copy counts as its message; `ack_immediately` acknowledges it before the end of the
    pipeline.

    Args:
        poll: called with the number of messages wanted. Returns at most that many messages, an
            empty list if there are none now, ``None`` to complete the source. It may wait for
            messages. If it raises, the source ends with the error, and a `Pipeline` restarts it
            by its policy.
        interval: seconds until the next poll after one without messages; after messages, the next
            poll follows immediately.
        most: messages requested by one poll, at most.

    Raises:
        ConfigurationError: an argument is invalid.
    """
    function("poll", poll)
    wait = seconds("interval", interval)
    return PullSource(lambda: poll, interval=wait, most=whole_number("most", most))


@overload
def from_iterable(
    items: Iterable[Message[T]], *, acknowledger: Acknowledger = ..., most: int = ...
) -> MessageStream[T]: ...


@overload
def from_iterable(
    items: Iterable[T], *, acknowledger: Acknowledger = ..., most: int = ...
) -> MessageStream[T]: ...


def from_iterable(
    items: Iterable[Any], *, acknowledger: Acknowledger = NOOP, most: int = 10
) -> MessageStream[Any]:
    """Make a source of the items of an iterable, which it takes only as they are wanted.

    Args:
        items: messages, or data of messages; the items of a text are its characters. Each
            subscription iterates from the beginning. If the iterator raises, the source ends with
            the error after the items before it.
        acknowledger: of the messages that are made here.
        most: items taken together, at most.

    Raises:
        ConfigurationError: an argument is invalid.
    """
    if not isinstance(items, Iterable):
        raise ConfigurationError(f"items={items!r}: give something to iterate over")

    def message_of(item: Any) -> Message[Any]:
        if isinstance(item, Message):
            return item
        return Message(item).with_acknowledger(acknowledger)

    def begin() -> Poll:
        iterator = iter(items)
        faults: list[BaseException] = []

        def poll(wanted: int) -> list[Message[Any]] | None:
            if faults:
                raise faults[0]
            taken: list[Message[Any]] = []
            try:
                for item in islice(iterator, wanted):
                    taken.append(message_of(item))  # noqa: PERF401 - kept if the next one raises
            except BaseException as error:
                if not taken:
                    raise
                faults.append(error)
            return taken or None

        return poll

    most = whole_number("most", most)
    return PullSource(begin, interval=NO_PAUSE, most=most, name="from_iterable")


@overload
def from_queue(
    items: queue.Queue[Message[T]],
    *,
    on_failure: OnFailure = ...,
    wait: float | timedelta = ...,
    most: int = ...,
) -> MessageStream[T]: ...


@overload
def from_queue(
    items: queue.Queue[T],
    *,
    on_failure: OnFailure = ...,
    wait: float | timedelta = ...,
    most: int = ...,
) -> MessageStream[T]: ...


def from_queue(
    items: queue.Queue[Any],
    *,
    on_failure: OnFailure = "discard",
    wait: float | timedelta = 0.1,
    most: int = 10,
) -> MessageStream[Any]:
    """Make a source of the items of a `queue.Queue`.

    ``queue.join()`` returns when all items are acknowledged. The source never completes.

    Args:
        items: a queue of messages, or of data of messages.
        on_failure: ``discard`` failed items, or ``requeue`` them at the end of the queue;
            ``message.configure_ack(on_failure="requeue")`` overrides it for one message.
        wait: seconds that one poll waits for an item; stopping takes as long.
        most: items taken together, at most.

    Raises:
        ConfigurationError: an argument is invalid.
    """
    if not callable(getattr(items, "get", None)):
        raise ConfigurationError(f"items={items!r}: give a queue.Queue")
    patience = seconds("wait", wait)
    acknowledger = QueueAcknowledger(items)
    choice("on_failure", on_failure, get_args(OnFailure))

    def message_of(item: Any) -> Message[Any]:
        message = item if isinstance(item, Message) else Message(item)
        return message.with_acknowledger(acknowledger, data=(item, on_failure))

    def poll(wanted: int) -> list[Message[Any]]:
        taken: list[Message[Any]] = []
        try:
            taken.append(message_of(items.get(timeout=patience)))
            while len(taken) < wanted:
                taken.append(message_of(items.get_nowait()))
        except queue.Empty:
            pass
        return taken

    most = whole_number("most", most)
    return PullSource(lambda: poll, interval=NO_PAUSE, most=most, name="from_queue")


class QueueAcknowledger:
    """Marks the items of a queue as done, or puts failed ones back.

    The ``ack_data`` of its messages is ``(item, on_failure)``.

    Args:
        items: the queue.
    """

    def __init__(self, items: queue.Queue[Any]) -> None:
        self._items = items

    def ack(self, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Put failed items with ``on_failure="requeue"`` back, then mark all as done.

        Raises:
            queue.Full: the queue has no room for an item.
        """
        try:
            for message in failed:
                item, on_failure = message.ack_data
                if on_failure == "requeue":
                    self._items.put_nowait(item)
        finally:
            for _ in (*successful, *failed):
                self._items.task_done()

    def configure(self, ack_ref: object, ack_data: Any, options: Mapping[str, Any]) -> Any:
        """Set ``on_failure`` for one message.

        Raises:
            ConfigurationError: there is no such option, or no such choice.
        """
        del ack_ref
        unknown = set(options) - {"on_failure"}
        if unknown:
            raise ConfigurationError(f"{', '.join(sorted(unknown))}: the one option is on_failure")
        item, before = ack_data
        chosen = options.get("on_failure", before)
        return item, choice("on_failure", chosen, get_args(OnFailure))
