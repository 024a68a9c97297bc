"""Sources that can wait: they are asked for messages, and give no more than was asked for.

X's stream comes whether anybody is ready or not. A broker, a queue, a file or a list can wait, so
it is asked: a pipeline that is paused, full or at its rate limit takes nothing from it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, Literal, TypeVar

from reactivex import abc
from reactivex.scheduler import VirtualTimeScheduler

from rxtweets._core.observable import (
    ChunkGate,
    MessageStream,
    SourceSubscription,
    demand_of,
    new_telemetry,
)
from rxtweets._core.subscriber import as_exception, is_interrupt
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import NOOP, Acknowledger, Message
from rxtweets._support.validation import function, seconds, whole_number
from rxtweets._support.workers import start_thread
from rxtweets.errors import ConfigurationError, HandlerError

__all__ = ["PullSource", "QueueAcknowledger", "from_iterable", "from_queue", "polling_source"]

T = TypeVar("T")

Poll = Callable[[int], Sequence[Message[Any]] | None]
OnFailure = Literal["discard", "requeue"]


class PullSource(MessageStream[Any]):
    """An Observable of messages that asks its observer before it takes any.

    Each subscription takes for itself, on a thread of its own, or on a scheduler of virtual time
    given to ``subscribe``.

    Args:
        begin: called for each subscription; gives the function that takes messages. That is
            called with the number of messages wanted, may wait for them, and returns so many at
            most; none if there are none now, ``None`` if there will be none any more.
        interval: seconds before it is called again after it had none.
        most: messages that are asked for at once at most.
        name: of the function that made it.
    """

    def __init__(
        self,
        begin: Callable[[], Poll],
        *,
        interval: float,
        most: int,
        name: str = "polling_source",
    ) -> None:
        telemetry = new_telemetry(source=name)

        def subscribe(
            observer: abc.ObserverBase[list[Message[Any]]], scheduler: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            puller = _Puller(begin, interval, most, observer, telemetry)
            if isinstance(scheduler, VirtualTimeScheduler):
                puller.run_on(scheduler)
            else:
                start_thread("rxtweets-pull", puller.run, puller.fail)
            return SourceSubscription(puller.gate, puller.leave, puller.finish, telemetry)

        super().__init__(subscribe, telemetry)

    def __repr__(self) -> str:
        return f"<{self.telemetry.source}>"


class _Puller:
    """One subscription."""

    def __init__(
        self,
        begin: Callable[[], Poll],
        interval: float,
        most: int,
        observer: abc.ObserverBase[list[Message[Any]]],
        telemetry: Telemetry,
    ) -> None:
        self._begin = begin
        self._interval = interval
        self._most = most
        self._observer = observer
        self.gate = ChunkGate(observer, telemetry)
        self._telemetry = telemetry
        self._stopped = threading.Event()
        self._poll: Poll | None = None

    def run(self) -> None:
        """Take until somebody stops this, or there is nothing more."""
        with self._telemetry.working():
            while (taken := self._take()) is not None:
                if not taken:
                    self._stopped.wait(self._interval)

    def run_on(self, scheduler: abc.SchedulerBase) -> None:
        """The same, step by step on a scheduler."""

        def step(*_: Any) -> None:
            taken = self._take()
            if taken is not None:
                scheduler.schedule_relative(0.0 if taken else self._interval, step)

        scheduler.schedule(step)

    def finish(self, *_: ChunkGate[Any]) -> None:
        """Take no more; what is being taken is still given, then the observer is completed."""
        self._stopped.set()

    def leave(self, gate: ChunkGate[Any]) -> None:
        """Stop at once."""
        gate.close()
        self._stopped.set()

    def fail(self, error: BaseException) -> None:
        """End with the error."""
        self.gate.on_error(as_exception(error))

    def _take(self) -> int | None:
        """Ask, take and give once: how many messages; ``None`` at the end."""
        try:
            if self._poll is None:
                self._poll = self._begin()
            wanted = 0 if self._stopped.is_set() else demand_of(self._observer, self._most)
            if self._stopped.is_set():
                self.gate.on_completed()
                return None
            messages = self._poll(wanted) if wanted else []
            if messages is None:
                self.gate.on_completed()
                return None
            self._give(_checked(messages))
        except BaseException as error:
            self.fail(error)
            if is_interrupt(error):
                raise
            return None
        return len(messages)

    def _give(self, messages: list[Message[Any]]) -> None:
        if messages:
            self._telemetry.add(received=len(messages), delivered=len(messages))
            self.gate.on_next(messages)


def polling_source(
    poll: Poll, *, interval: float | timedelta = 1.0, most: int = 10
) -> MessageStream[Any]:
    """A source that asks a service for messages from time to time, as one does with a queue.

    ::

        def receive(wanted):                        # may wait for messages: a long poll
            found = sqs.receive_message(MaxNumberOfMessages=wanted, WaitTimeSeconds=20, ...)
            return [Message(each["Body"]).with_acknowledger(deleting, data=each["ReceiptHandle"])
                    for each in found.get("Messages", [])]

        rxtweets.polling_source(receive, interval=5.0, most=10)

    Args:
        poll: called with the number of messages wanted; returns so many at most, an empty list if
            there are none now, ``None`` if there will be none any more. What it raises ends the
            source, and a `Pipeline` restarts it by its policy.
        interval: seconds before it is called again after it had none; after some, it is called
            again at once.
        most: messages that are asked for at once at most.

    Raises:
        ConfigurationError: an argument cannot work.
    """
    function("poll", poll)
    wait = seconds("interval", interval)
    return PullSource(lambda: poll, interval=wait, most=whole_number("most", most))


def from_iterable(
    items: Iterable[Any], *, acknowledger: Acknowledger = NOOP, most: int = 10
) -> MessageStream[Any]:
    """A source of the items of an iterable, taken only as they are wanted.

    Args:
        items: messages, or what messages are to be made of; a text gives its characters. Each
            subscription iterates anew. What its iterator raises ends the source, after the items
            before.
        acknowledger: told what became of messages that are made here.
        most: items that are taken at once at most.

    Raises:
        ConfigurationError: an argument cannot work.
    """
    if not isinstance(items, Iterable):
        raise ConfigurationError(f"items={items!r}: give something to iterate over")

    def message_of(item: Any) -> Message[Any]:
        if isinstance(item, Message):
            return item
        return Message(item).with_acknowledger(acknowledger)

    def begin() -> Poll:
        iterator = iter(items)
        fault: list[BaseException] = []

        def poll(wanted: int) -> list[Message[Any]] | None:
            if fault:
                raise fault[0]
            taken = list(_until_fault(islice(iterator, wanted), fault))
            return [message_of(item) for item in taken] or ([] if fault else None)

        return poll

    most = whole_number("most", most)
    return PullSource(begin, interval=0.001, most=most, name="from_iterable")


def from_queue(
    items: queue.Queue[Any],
    *,
    on_failure: OnFailure = "discard",
    wait: float | timedelta = 0.1,
    most: int = 10,
) -> MessageStream[Any]:
    """A source of what comes into a `queue.Queue`, which knows when each item is done.

    ``queue.join()`` returns when every item was acknowledged. The source never completes.

    Args:
        items: the queue, of messages or of anything.
        on_failure: ``discard`` what failed, or ``requeue`` it at the end of the queue; for single
            messages ``message.configure_ack(on_failure=...)``.
        wait: seconds that one look waits for an item; so long may stopping take.
        most: items that are taken at once at most.

    Raises:
        ConfigurationError: an argument cannot work.
    """
    if not callable(getattr(items, "get", None)):
        raise ConfigurationError(f"items={items!r}: give a queue.Queue")
    patience = seconds("wait", wait)
    acknowledger = QueueAcknowledger(items)
    check_on_failure(on_failure)

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
    return PullSource(lambda: poll, interval=0.001, most=most, name="from_queue")


class QueueAcknowledger:
    """Tells a queue that its items are done, or puts them back into it.

    Its messages have ``(item, on_failure)`` as ``ack_data``.

    Args:
        items: the queue.
    """

    def __init__(self, items: queue.Queue[Any]) -> None:
        self._items = items

    def ack(self, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Put back what failed and is to be put back, then mark all as done.

        Raises:
            queue.Full: there was no room to put an item back.
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
        return item, check_on_failure(options.get("on_failure", before))


def check_on_failure(choice: Any) -> OnFailure:
    """The choice, if it is one.

    Raises:
        ConfigurationError: it is none.
    """
    if choice == "discard" or choice == "requeue":  # noqa: PLR1714 - so that the type is known
        return choice  # type: ignore[no-any-return]  # it has been compared
    raise ConfigurationError(f"on_failure={choice!r}: choose one of discard, requeue")


def _until_fault(items: Iterator[T], fault: list[BaseException]) -> Iterator[T]:
    """The items; what their iterator raises is kept, so that those before it are not lost."""
    try:
        yield from items
    except BaseException as error:  # noqa: BLE001 - whatever a source of the user raises
        fault.append(error)


def _checked(messages: Sequence[Any]) -> list[Message[Any]]:
    wrong = next((each for each in messages if not isinstance(each, Message)), None)
    if wrong is not None:
        raise HandlerError(f"poll returned a list with {type(wrong).__name__}; return messages")
    return list(messages)
