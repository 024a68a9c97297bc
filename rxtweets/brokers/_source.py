"""A source that takes messages from a queue, keeps their leases, and tells the broker outcomes."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, NamedTuple, get_args

import tenacity

from rxtweets._core.events import AcknowledgementsLost, BrokerLost, DeadLettered
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import Failed, Message
from rxtweets._support.validation import choice, seconds
from rxtweets._support.workers import start_thread
from rxtweets.brokers._engine import (
    Backlog,
    Engine,
    Envelope,
    Receiver,
    Sender,
    Subscription,
    Taken,
)
from rxtweets.brokers._envelopes import KEY, messages_of
from rxtweets.brokers._packs import Unpacker
from rxtweets.errors import (
    AcknowledgerError,
    BrokerError,
    BrokerUnavailable,
    ConfigurationError,
    HandlerTimeout,
    Redelivered,
)
from rxtweets.streams._pull_sources import NO_PAUSE, PullSource

__all__ = ["Delivery", "OnFailure", "QueueSource", "Settling", "delivery_of"]

OnFailure = Literal["retry", "dead_letter", "drop", "release"]

WAIT = 1.0
"""Seconds that one take waits for messages."""

BACKLOG = 5.0
"""Seconds between two looks at the backlog."""

RECONNECT = tenacity.wait_random_exponential(multiplier=0.5, max=30.0)
"""Seconds until the next attempt to reach a broker."""

TOGETHER = 100
"""Messages of one take at most; a take for each message would cost a round trip each."""


@dataclass(frozen=True, slots=True)
class Settling:
    """What becomes of messages: the options of `Queue.source`, checked.

    Attributes:
        on_failure: for a message that failed.
        wait: gives the seconds before the next delivery; a strategy of tenacity.
        max_deliver: deliveries until a message becomes a dead letter.
        max_held: seconds for which a lease is extended.
    """

    on_failure: OnFailure
    wait: Callable[[tenacity.RetryCallState], float]
    max_deliver: int
    max_held: float


class Delivery(NamedTuple):
    """Facts about the delivery of a message; see `delivery_of`.

    Attributes:
        engine: such as ``jetstream``.
        queue: name of the stream, queue or topic.
        group: the worker's group.
        key: of the message.
        attempt: number of this delivery, from 1.
        enqueued_at: when it was published, in seconds since 1970; ``None`` if unknown.
        native_id: the broker's name of the message.
        on_failure: what happens if it fails.
        delay: seconds before the next delivery; ``None`` for the strategy of the source.
    """

    engine: str
    queue: str
    group: str
    key: str
    attempt: int
    enqueued_at: float | None
    native_id: str
    on_failure: OnFailure
    delay: float | None
    taken: Taken

    def __repr__(self) -> str:
        return f"<delivery {self.attempt} of {self.key!r} from {self.engine} {self.queue!r}>"


def delivery_of(message: Message[Any]) -> Delivery:
    """Return the facts about the delivery of a message from a queue.

    Raises:
        AcknowledgerError: the message is not from a queue of `rxtweets.brokers`.
    """
    if not isinstance(message.ack_data, Delivery):
        raise AcknowledgerError(f"{message!r} is not from a queue of rxtweets.brokers")
    return message.ack_data


class QueueSource(PullSource):
    """A source of the messages of a queue; see `Queue.source`."""

    def __init__(
        self,
        engine: Engine,
        groups: tuple[str, ...],
        subscription: Subscription,
        settling: Settling,
    ) -> None:
        super().__init__(
            self.new_session,
            interval=NO_PAUSE,
            most=min(TOGETHER, subscription.max_in_flight),
            name=f"{engine.name}:{engine.queue}",
        )
        self._parts = engine, groups, subscription, settling

    def new_session(self) -> _Session:
        """Return the session of a subscription."""
        return _Session(*self._parts, self.telemetry)


class _Session:
    """One subscription: takes messages, keeps their leases, and is their acknowledger."""

    def __init__(
        self,
        engine: Engine,
        groups: tuple[str, ...],
        subscription: Subscription,
        settling: Settling,
        telemetry: Telemetry,
    ) -> None:
        self._engine = engine
        self._groups = groups
        self._subscription = subscription
        self._settling = settling
        self._telemetry = telemetry
        self._receiver: Receiver | None = None
        self._dead = _DeadLetterSender(engine, subscription.group)
        self._lock = threading.Lock()
        self._held: dict[Taken, float] = {}
        self._room = threading.Event()
        self._stopped = threading.Event()
        self._is_left = False
        self._failures = 0
        self._backlog = Backlog(0, 0)
        self._backlog_at = -math.inf
        telemetry.show("backlog", lambda: self._backlog.pending)
        telemetry.show("backlog_age", lambda: math.ceil(self._backlog.oldest_age or 0.0))

    # Taking.

    def __call__(self, wanted: int) -> list[Message[Any]]:
        """Take up to ``wanted`` messages; wait for the first one for a second at most."""
        try:
            return self._take(wanted)
        finally:
            if self._stopped.is_set():  # perhaps before the connection was made
                self._close_if_idle()

    def _take(self, wanted: int) -> list[Message[Any]]:
        most = min(wanted, self._subscription.max_in_flight - len(self._held))
        if most <= 0:
            self._room.clear()
            if len(self._held) >= self._subscription.max_in_flight:
                self._room.wait(WAIT)
            return []
        try:
            taken = self._connected().take(most, WAIT)
        except BrokerUnavailable as error:
            self._wait_for_broker(error)
            return []
        self._failures = 0
        return self._admit(taken)

    def finish(self) -> None:
        """Take no more; close the connection when all messages are settled."""
        self._stopped.set()
        self._room.set()
        self._close_if_idle()

    def leave(self) -> None:
        """Release all messages that are not settled, and close the connection."""
        with self._lock:
            self._is_left = True
            held, self._held = list(self._held), {}
        self._stopped.set()
        self._room.set()
        if self._receiver is not None and held:
            self._receiver.release(held)
        self._close_if_idle()

    def _connected(self) -> Receiver:
        if self._receiver is None:
            group = self._subscription.group
            self._engine.ensure(tuple(dict.fromkeys((*self._groups, group))))
            receiver = self._engine.receiver(self._subscription)
            self._receiver = Unpacker(receiver, self._engine, group)
            start_thread("rxtweets-lease", self._keep_leases, repeats=True)
        return self._receiver

    def _wait_for_broker(self, error: BrokerUnavailable) -> None:
        self._failures += 1
        delay = RECONNECT(_retry_state(self._failures, error))
        self._telemetry.add(broker_failures=1)
        self._telemetry.publish(BrokerLost(error, self._failures, delay))
        self._stopped.wait(delay)

    def _admit(self, taken: list[Taken]) -> list[Message[Any]]:
        """Hold messages, and return those that can be handled; the others are dead letters."""
        with self._lock:
            if not self._is_left:
                now = time.monotonic()
                self._held.update((one, now) for one in taken)
        if self._is_left:
            if taken and self._receiver is not None:
                self._receiver.release(taken)
            return []
        self._telemetry.add(redelivered=sum(one.attempt > 1 for one in taken))
        messages: list[Message[Any]] = []
        for one, message in zip(taken, messages_of(taken), strict=True):
            if isinstance(message, Exception):
                self._telemetry.add(undecodable=1)
                self._make_dead([(one, message)])
            elif one.attempt > self._settling.max_deliver:
                self._make_dead([(one, _redelivered(one))])
            else:
                messages.append(message.with_acknowledger(self, data=self._delivery(one)))
        return messages

    def _delivery(self, taken: Taken) -> Delivery:
        return Delivery(
            self._engine.name,
            self._engine.queue,
            self._subscription.group,
            taken.headers.get(KEY, taken.key),
            taken.attempt,
            taken.enqueued_at,
            taken.native_id,
            self._settling.on_failure,
            None,
            taken,
        )

    # Outcomes.

    def ack(self, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Tell the broker the outcomes of messages."""
        done = [message.ack_data.taken for message in successful]
        dead: list[tuple[Taken, object]] = []
        again: list[tuple[float, Taken]] = []
        released: list[Taken] = []
        for message in failed:
            delivery: Delivery = message.ack_data
            taken, reason = delivery.taken, _reason(message)
            is_last = taken.attempt >= self._settling.max_deliver
            if delivery.on_failure == "drop":
                done.append(taken)
            elif delivery.on_failure == "release":
                released.append(taken)
            elif delivery.on_failure == "dead_letter" or is_last:
                dead.append((taken, reason))
            else:
                again.append((self._delay(delivery, reason), taken))
        self._settle(lambda receiver: receiver.acknowledge, done)
        for delay, pairs in groupby(sorted(again, key=lambda pair: pair[0]), lambda pair: pair[0]):
            self._retry([taken for _, taken in pairs], delay)
        self._make_dead(dead)
        self._settle(_releasing, released)

    def configure(self, ack_ref: object, ack_data: Delivery, options: Mapping[str, Any]) -> Any:
        """Set ``on_failure`` or ``delay`` of one message.

        Raises:
            ConfigurationError: there is no such option, or no such choice.
        """
        del ack_ref
        unknown = set(options) - {"on_failure", "delay"}
        if unknown:
            raise ConfigurationError(
                f"{', '.join(sorted(unknown))}: the options are on_failure and delay"
            )
        changes: dict[str, Any] = {}
        if "on_failure" in options:
            changes["on_failure"] = choice("on_failure", options["on_failure"], get_args(OnFailure))
        if options.get("delay") is not None:
            changes["delay"] = seconds("delay", options["delay"])
        return ack_data._replace(**changes)

    def _delay(self, delivery: Delivery, reason: object) -> float:
        if delivery.delay is not None:
            return delivery.delay
        return float(self._settling.wait(_retry_state(delivery.attempt, reason)))

    def _retry(self, taken: list[Taken], delay: float) -> None:
        self._settle(lambda receiver: lambda ours: receiver.retry(ours, delay), taken)

    def _settle(
        self,
        settling: Callable[[Receiver], Callable[[Sequence[Taken]], Sequence[Taken]]],
        taken: Sequence[Taken],
    ) -> None:
        """Tell the broker the outcome of messages, and hold them no longer."""
        ours = self._ours(taken)
        lost, error = len(taken) - len(ours), None
        if ours and self._receiver is not None:
            try:
                lost += len(settling(self._receiver)(ours))
            except BrokerError as failure:
                lost, error = lost + len(ours), failure
        self._let_go(ours)
        if lost:
            self._report_lost(lost, error)

    def _make_dead(self, letters: Sequence[tuple[Taken, object]]) -> None:
        """Store dead letters, then acknowledge their messages; retry those that are not stored."""
        if not letters:
            return
        stored: list[Taken] = []
        for (taken, reason), error in zip(letters, self._dead.put(letters), strict=True):
            if error is None:
                stored.append(taken)
                self._telemetry.add(dead_lettered=1)
                self._telemetry.publish(DeadLettered(taken.key, taken.attempt, reason))
            else:
                self._telemetry.publish(AcknowledgementsLost(1, error))
                self._retry([taken], self._settling.wait(_retry_state(taken.attempt, error)))
        self._settle(lambda receiver: receiver.acknowledge, stored)

    def _ours(self, taken: Sequence[Taken]) -> list[Taken]:
        with self._lock:
            return [one for one in taken if one in self._held]

    def _let_go(self, taken: Sequence[Taken]) -> None:
        with self._lock:
            for one in taken:
                self._held.pop(one, None)
        self._room.set()
        self._close_if_idle()

    def _report_lost(self, messages: int, error: Exception | None = None) -> None:
        self._telemetry.add(acks_lost=messages)
        self._telemetry.publish(AcknowledgementsLost(messages, error))

    def _close_if_idle(self) -> None:
        with self._lock:
            if self._held or not self._stopped.is_set():
                return
            receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.close()
        self._dead.close()

    # Leases.

    def _keep_leases(self) -> None:
        """Extend the leases of held messages until all are settled; give up those held too long."""
        interval = min(self._subscription.lease / 3, self._settling.max_held / 3, BACKLOG)
        while (receiver := self._receiver) is not None:
            started = time.monotonic()
            with self._lock:
                since = started - self._settling.max_held
                overdue = [one for one, at in self._held.items() if at <= since]
                held = [one for one, at in self._held.items() if at > since]
            if overdue:
                self._give_up(overdue)
            if held and receiver.has_leases:
                self._extend(receiver, held)
            if started >= self._backlog_at + BACKLOG:
                self._look_at_backlog()
                self._backlog_at = started
            _sleep_until(started + interval, lambda: self._receiver is None)

    def _look_at_backlog(self) -> None:
        with contextlib.suppress(BrokerError):  # the next take reports it
            backlogs = self._engine.backlog()
            self._backlog = backlogs.get(self._subscription.group, self._backlog)

    def _extend(self, receiver: Receiver, held: Collection[Taken]) -> None:
        try:
            lost = receiver.extend(list(held))
        except BrokerError:
            return  # the next take reports it
        self._let_go(lost)  # their outcomes will be counted as lost

    def _give_up(self, overdue: list[Taken]) -> None:
        """Let other workers have messages whose handlers take too long."""
        error = HandlerTimeout(f"held for longer than max_held={self._settling.max_held:g} s")
        last = [one for one in overdue if one.attempt >= self._settling.max_deliver]
        self._make_dead([(one, error) for one in last])
        self._retry([one for one in overdue if one not in last], 0.0)


class _DeadLetterSender:
    """Publishes dead letters; connects with the first one."""

    def __init__(self, engine: Engine, group: str) -> None:
        self._engine = engine
        self._group = group
        self._lock = threading.Lock()
        self._sender: Sender | None = None

    def put(self, letters: Sequence[tuple[Taken, object]]) -> list[Exception | None]:
        """Return an error for each letter that is not stored."""
        try:
            return self._connected().put([self._envelope(*letter) for letter in letters])
        except BrokerError as error:
            return [error] * len(letters)

    def close(self) -> None:
        with self._lock:
            sender, self._sender = self._sender, None
        if sender is not None:
            sender.close()

    def _connected(self) -> Sender:
        with self._lock:
            if self._sender is None:
                dead = self._engine.dead_letters()
                dead.ensure(("dead",))
                self._sender = dead.sender()
            return self._sender

    def _envelope(self, taken: Taken, reason: object) -> Envelope:
        key = taken.headers.get(KEY, taken.key)
        headers = {
            **taken.headers,
            KEY: key,
            "rxt-error": _ascii(f"{type(reason).__name__}: {reason}")[:1000],
            "rxt-attempts": str(taken.attempt),
            "rxt-group": self._group,
            "rxt-queue": self._engine.queue,
            "rxt-worker": f"{socket.gethostname()}:{os.getpid()}",
            "rxt-dead-at": repr(time.time()),
        }
        # A message that is replayed may die again: that is another letter.
        return Envelope(f"{key}:{taken.native_id}:{taken.attempt}", taken.body, headers)


def _releasing(receiver: Receiver) -> Callable[[Sequence[Taken]], Sequence[Taken]]:
    def release(taken: Sequence[Taken]) -> Sequence[Taken]:
        receiver.release(taken)
        return ()

    return release


def _redelivered(taken: Taken) -> Redelivered:
    return Redelivered(
        f"delivered {taken.attempt} times, {taken.attempt - 1} of them without an outcome: its "
        "handler may have ended the process or exceeded max_held"
    )


def _reason(message: Message[Any]) -> object:
    return message.status.reason if isinstance(message.status, Failed) else None


def _retry_state(attempt: int, reason: object) -> tenacity.RetryCallState:
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = attempt
    error = reason if isinstance(reason, BaseException) else Exception(reason)
    state.set_exception((type(error), error, error.__traceback__))
    return state


def _ascii(text: str) -> str:
    return " ".join(text.encode("ascii", "backslashreplace").decode().split())


def _sleep_until(at: float, is_over: Callable[[], bool]) -> None:
    while (rest := at - time.monotonic()) > 0 and not is_over():
        time.sleep(min(rest, 0.2))
