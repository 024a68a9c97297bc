"""A source that takes messages from a queue, keeps their leases, and tells the broker outcomes."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, NamedTuple, get_args

import tenacity

from rxtweets._core.events import AcknowledgementsLost, BrokerLost, BrokerReconnected, DeadLettered
from rxtweets._core.retry import call_state, seconds_until_retry
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import Failed, Message, give_acknowledger
from rxtweets._support.validation import choice, seconds
from rxtweets._support.workers import start_thread
from rxtweets.brokers._dead_letters import DeadLetterSender
from rxtweets.brokers._engine import Backlog, Engine, Receiver, Subscription, Taken
from rxtweets.brokers._envelopes import key_in, messages_of
from rxtweets.brokers._packs import Unpacker
from rxtweets.errors import (
    AcknowledgerError,
    BrokerError,
    ConfigurationError,
    HandlerTimeout,
    QueueSettingsError,
    Redelivered,
)
from rxtweets.streams._pull_sources import NO_PAUSE, PullSource

__all__ = ["RECONNECT", "Delivery", "OnFailure", "QueueSource", "Settling", "delivery_of"]

log = logging.getLogger("rxtweets")

OnFailure = Literal["retry", "dead_letter", "drop", "release"]

WAIT = 1.0
"""Seconds that one take waits for messages."""

CLOSING = 1.0
"""Seconds that the end waits for the answer to a request for the backlog."""

LOOK = 5.0
"""Seconds between two looks at the backlog, and at messages that are held too long, at most."""

RECONNECT = tenacity.wait_random_exponential(multiplier=0.5, max=4.0)
"""Seconds until the next attempt to reach a broker: traffic resumes within 5 s of its return."""

SETTLING = math.inf
"""In place of the time at which a message was taken: the broker is being told its outcome."""

TOGETHER = 200
"""Messages of one take at most; a take for each message would cost a round trip each."""


@dataclass(frozen=True, slots=True)
class Settling:
    """The options of `Queue.source` that decide about failed and slow messages.

    Attributes:
        on_failure: for a message that failed.
        wait: gives the seconds before the next delivery; a strategy of tenacity.
        max_deliver: deliveries until a message becomes a dead letter.
        max_lease: seconds for which a lease is extended.
    """

    on_failure: OnFailure
    wait: Callable[[tenacity.RetryCallState], float]
    max_deliver: int
    max_lease: float


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
        taken: for the acknowledger alone.
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
        self._receiver: Unpacker | None = None
        self._dead = DeadLetterSender(engine, subscription.group)
        self._lock = threading.Lock()
        self._held: dict[Taken, float] = {}
        self._room = threading.Event()
        self._stopped = threading.Event()
        self._closed = threading.Event()
        self._asking = threading.Lock()
        self._is_taking = False
        self._is_watched = False
        self._is_left = False
        self._failures = 0
        self._lost_at = 0.0
        self._backlog = Backlog(0, 0)
        telemetry.show("backlog", lambda: self._backlog.pending)
        telemetry.show("backlog_age", lambda: math.ceil(self._backlog.oldest_age or 0.0))

    # Taking.

    def __call__(self, wanted: int) -> list[Message[Any]]:
        """Take up to ``wanted`` messages; wait for the first one for a second at most."""
        most = min(wanted, self._subscription.max_in_flight - len(self._held))
        if most <= 0:
            self._room.clear()
            if len(self._held) >= self._subscription.max_in_flight:
                self._room.wait(WAIT)
            return []
        with self._lock:
            if self._stopped.is_set():
                return []
            self._is_taking = True
        try:
            return self._take(most)
        finally:
            self._is_taking = False
            self._close_if_idle()

    def finish(self) -> None:
        """Take no more; close the connection when all messages are settled."""
        self._stopped.set()
        self._room.set()
        self._close_if_idle()

    def leave(self) -> None:
        """Release all messages that are not settled, and close the connection."""
        with self._lock:
            self._is_left = True
            held = list(self._held)
        self._stopped.set()
        self._release(held)

    def _take(self, most: int) -> list[Message[Any]]:
        try:
            taken = self._connected().take(most, WAIT)
        except (ConfigurationError, QueueSettingsError):
            raise  # trying again does not help
        except Exception as error:  # noqa: BLE001 - a client raises more than its engine expects
            self._wait_for_broker(error)
            return []
        if self._failures:
            self._failures = 0
            self._telemetry.publish(BrokerReconnected(time.monotonic() - self._lost_at))
        return self._admit(taken)

    def _connected(self) -> Unpacker:
        if self._receiver is None:
            group = self._subscription.group
            self._engine.ensure(tuple(dict.fromkeys((*self._groups, group))))
            if not self._is_watched:
                start_thread("rxtweets-backlog", self._watch_backlog, repeats=True)
                start_thread("rxtweets-lease", self._keep_leases, repeats=True)
                self._is_watched = True
            receiver = self._engine.receiver(self._subscription)
            self._receiver = Unpacker(receiver, self._engine, group)
        return self._receiver

    def _wait_for_broker(self, error: Exception) -> None:
        if not self._failures:
            self._lost_at = time.monotonic()
        self._failures += 1
        delay = RECONNECT(call_state(error, self._failures, 0.0, 0.0))
        self._telemetry.add(broker_failures=1)
        self._telemetry.publish(BrokerLost(error, self._failures, delay))
        self._stopped.wait(delay)

    def _admit(self, taken: list[Taken]) -> list[Message[Any]]:
        """Hold messages, and return those that can be handled; the others are dead letters."""
        with self._lock:
            now = time.monotonic()
            self._held.update((one, now) for one in taken)
            is_left = self._is_left
        if is_left:
            self._release(taken)
            return []
        self._telemetry.add(redelivered=sum(one.attempt > 1 for one in taken))
        messages: list[Message[Any]] = []
        dead: list[tuple[Taken, object]] = []
        for one, message in zip(taken, messages_of(taken), strict=True):
            if isinstance(message, Exception):
                self._telemetry.add(undecodable=1)
                dead.append((one, message))
            elif one.attempt > self._settling.max_deliver:
                dead.append((one, _redelivered(one)))
            else:
                give_acknowledger(message, self, self._delivery(one))
                messages.append(message)
        self._bury(dead)
        return messages

    def _delivery(self, taken: Taken) -> Delivery:
        return Delivery(
            self._engine.name,
            self._engine.queue,
            self._subscription.group,
            key_in(taken),
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
        ours = self._claim(message.ack_data.taken for message in (*successful, *failed))
        if lost := len(successful) + len(failed) - len(ours):
            self._report_lost(lost)
        try:
            self._settle_all(
                [taken for message in successful if (taken := message.ack_data.taken) in ours],
                [message for message in failed if message.ack_data.taken in ours],
            )
        finally:
            self._let_go(ours)

    def _settle_all(self, done: list[Taken], failed: Sequence[Message[Any]]) -> None:
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
        self._settle(_acknowledging, done)
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
        return self._wait_after(delivery.attempt, reason)

    def _wait_after(self, attempt: int, reason: object) -> float:
        error = reason if isinstance(reason, BaseException) else Exception(reason)
        return seconds_until_retry(self._settling.wait, error, attempt, self._engine.queue)

    def _claim(self, taken: Iterable[Taken]) -> set[Taken]:
        """Return the messages that are held and not being settled; no other thread settles them."""
        with self._lock:
            ours = {one for one in taken if self._held.get(one, SETTLING) != SETTLING}
            self._held.update(dict.fromkeys(ours, SETTLING))
        return ours

    def _let_go(self, taken: Iterable[Taken]) -> None:
        with self._lock:
            for one in taken:
                self._held.pop(one, None)
        self._room.set()
        self._close_if_idle()

    def _release(self, taken: Iterable[Taken]) -> None:
        ours = self._claim(taken)
        self._settle(_releasing, list(ours))
        self._let_go(ours)

    def _retry(self, taken: list[Taken], delay: float) -> None:
        self._settle(lambda receiver: lambda ours: receiver.retry(ours, delay), taken)

    def _settle(self, settling: _Settle, taken: Sequence[Taken]) -> None:
        """Tell the broker the outcome of messages that were claimed."""
        if not taken:
            return
        receiver = self._receiver
        try:
            if lost := len(taken if receiver is None else settling(receiver)(taken)):
                self._report_lost(lost)
        except Exception as error:  # noqa: BLE001 - the other messages are settled all the same
            self._report_lost(len(taken), error)

    def _make_dead(self, letters: Sequence[tuple[Taken, object]]) -> None:
        """Store dead letters, then acknowledge their messages; retry those that are not stored."""
        if not letters:
            return
        stored: list[Taken] = []
        for (taken, reason), error in zip(letters, self._dead.put(letters), strict=True):
            if error is None:
                stored.append(taken)
                self._telemetry.add(dead_lettered=1)
                self._telemetry.publish(DeadLettered(key_in(taken), taken.attempt, reason))
            else:
                self._report_lost(1, error)
                self._retry([taken], self._wait_after(taken.attempt, error))
        self._settle(_acknowledging, stored)

    def _bury(self, letters: Sequence[tuple[Taken, object]]) -> None:
        """Make dead letters of messages that have no handler."""
        ours = self._claim(taken for taken, _ in letters)
        try:
            self._make_dead([letter for letter in letters if letter[0] in ours])
        finally:
            self._let_go(ours)

    def _report_lost(self, messages: int, error: Exception | None = None) -> None:
        self._telemetry.add(acks_lost=messages)
        self._telemetry.publish(AcknowledgementsLost(messages, error))

    def _close_if_idle(self) -> None:
        with self._lock:
            if self._is_taking or not self._stopped.is_set():
                return
            is_idle, receiver = not self._held, self._receiver
            if is_idle:
                self._receiver = None
        try:
            if receiver is not None:
                receiver.close() if is_idle else receiver.give_back()
            if is_idle:
                self._dead.close()
        except Exception as error:  # noqa: BLE001 - the thread that ends the source continues
            log.warning("the connection to %s did not close: %r", self._engine.queue, error)
        if is_idle:
            self._closed.set()
            # The request for the backlog would open a connection after `Queue.close`.
            if self._asking.acquire(timeout=CLOSING):
                self._asking.release()

    # Leases.

    def _keep_leases(self) -> None:
        """Extend the leases of held messages until all are settled; give up those held too long."""
        interval = min(self._subscription.lease / 3, self._settling.max_lease / 3, LOOK)
        while not self._closed.is_set():
            started = time.monotonic()
            try:
                if (receiver := self._receiver) is not None:
                    self._keep_leases_once(receiver, started)
            except Exception as error:
                log.warning("leases of %s: %r", self._engine.queue, error, exc_info=error)
            self._closed.wait(max(0.0, started + interval - time.monotonic()))

    def _keep_leases_once(self, receiver: Unpacker, now: float) -> None:
        since = now - self._settling.max_lease
        with self._lock:
            overdue = [one for one, at in self._held.items() if at <= since]
            held = [one for one, at in self._held.items() if at > since]
        if overdue:
            self._give_up(overdue)
        if receiver.has_leases:
            self._extend(receiver, held)

    def _watch_backlog(self) -> None:
        """Look at the backlog; a slow answer on the thread of the leases would end them."""
        while not self._closed.is_set():
            with self._asking:
                if self._closed.is_set():
                    return
                self._look_at_backlog()
            self._closed.wait(LOOK)

    def _look_at_backlog(self) -> None:
        try:
            backlogs = self._engine.backlog()
            self._backlog = backlogs.get(self._subscription.group, self._backlog)
        except BrokerError:
            pass  # the next take reports it
        except Exception as error:
            log.warning("backlog of %s: %r", self._engine.queue, error, exc_info=error)

    def _extend(self, receiver: Unpacker, held: Sequence[Taken]) -> None:
        try:
            lost = receiver.extend(held)
        except BrokerError:
            return  # the next take reports it
        self._let_go(lost)  # their outcomes will be counted as lost

    def _give_up(self, overdue: list[Taken]) -> None:
        """Let other workers have messages whose handlers take too long."""
        error = HandlerTimeout(f"held for longer than max_lease={self._settling.max_lease:g} s")
        ours = self._claim(overdue)
        last = [one for one in ours if one.attempt >= self._settling.max_deliver]
        try:
            self._make_dead([(one, error) for one in last])
            self._retry([one for one in ours if one not in last], 0.0)
        finally:
            self._let_go(ours)


_Settle = Callable[[Receiver], Callable[[Sequence[Taken]], Sequence[Taken]]]
"""Returns the function of a receiver that tells the broker an outcome."""


def _acknowledging(receiver: Receiver) -> Callable[[Sequence[Taken]], Sequence[Taken]]:
    return receiver.acknowledge


def _releasing(receiver: Receiver) -> Callable[[Sequence[Taken]], Sequence[Taken]]:
    def release(taken: Sequence[Taken]) -> Sequence[Taken]:
        receiver.release(taken)
        return ()

    return release


def _redelivered(taken: Taken) -> Redelivered:
    return Redelivered(
        f"delivered {taken.attempt} times, {taken.attempt - 1} of them without an outcome: its "
        "handler may have ended the process or exceeded max_lease"
    )


def _reason(message: Message[Any]) -> object:
    return message.status.reason if isinstance(message.status, Failed) else None
