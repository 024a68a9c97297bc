"""Takes messages from the partitions of a consumer group, and commits what is settled."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote
from uuid import uuid4

from rxtweets._support.workers import start_thread
from rxtweets.brokers._engine import SHARD, Envelope, Receiver, Subscription, Taken
from rxtweets.brokers._engines.kafka_client import WAIT, KafkaClient, KafkaSender
from rxtweets.brokers._engines.kafka_crashes import Crashes
from rxtweets.brokers._envelopes import KEY
from rxtweets.errors import BrokerError, BrokerUnavailable, ConfigurationError, RxTweetsError

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

__all__ = ["KafkaReceiver"]

log = logging.getLogger("rxtweets")

QUIET = 2.0
"""Seconds without a word from the broker, after which a receiver asks whether it is there."""

PROBE = 3.0
"""Seconds that this question, and one for positions, waits."""

JOIN = 10.0
"""Seconds that a new receiver waits for its partitions."""

TICK = 0.1
"""Seconds that one poll of the consumer waits for a message."""

BRIEF = 0.01
"""Seconds that it waits while messages are in flight, whose acknowledgements wait for it."""

HANDOVER = 5.0
"""Seconds that a rebalance waits for the handlers of messages with a shard."""

STALL = 1.0
"""Seconds without room, after which the partitions pause; a pause throws fetched messages away."""

MOST_DELAYED = 10_000
"""Retries that wait in memory until they are due; beyond it, the partitions of retries pause."""

LEAST_TRACKED = 1_000
"""Messages of a partition after its oldest unsettled one, after which it pauses, at least."""

ATTEMPT, NOT_BEFORE, PUBLISHED_AT = "rxt-attempt", "rxt-not-before", "rxt-published-at"
"""Headers of a retry: its attempt, when it is due, and when the message was first published."""


@dataclass(slots=True, eq=False)
class _Entry:
    """A message of a partition; the receipt of `Taken`.

    Attributes:
        taken: the delivery that counts now; ``None`` when the message is settled.
        is_out: the delivery was taken.
        due: when it can be taken, in seconds since 1970.
        shard: of the message; empty if it has none.
    """

    partition: _Partition
    offset: int
    due: float = 0.0
    taken: Taken | None = None
    is_out: bool = False
    shard: str = ""


@dataclass(slots=True, eq=False)
class _Partition:
    """A partition, from its assignment to its revocation.

    Attributes:
        position: the offset after the last one that is settled without a gap.
        committed: the position that the broker knows; -1 if it knows none.
        is_positioned: its first message or its end was read.
        shards: unsettled messages of each shard; only the first one can be taken.
        crashes: of the workers that had it before.
        is_held: it had a message, and is not being revoked.
        suspect: the only message in flight, where the crashes require that.
        noted: both of them, as the broker knows them.
    """

    topic: str
    number: int
    is_retry: bool
    committed: int
    position: int = -1
    is_ours: bool = True
    is_positioned: bool = False
    entries: deque[_Entry] = field(default_factory=deque)
    shards: dict[str, deque[_Entry]] = field(default_factory=dict)
    crashes: Crashes = field(default_factory=Crashes)
    is_held: bool = False
    suspect: _Entry | None = None
    noted: tuple[bool, _Entry | None] = (False, None)

    def advance(self) -> None:
        while self.entries and self.entries[0].taken is None:
            self.position = self.entries.popleft().offset + 1
        if self.position >= self.crashes.until:
            self.crashes.in_a_row = 0

    @property
    def is_stale(self) -> bool:
        """``True`` if the broker has an older position, holder or suspect."""
        return self.position > self.committed or self.noted != (self.is_held, self.suspect)

    def metadata(self, worker: str) -> str:
        suspect = self.suspect.offset if self.suspect else None
        if not self.is_held:
            return self.crashes.metadata(self.position, "", 0, suspect)
        can_take_all = self.entries and not self.crashes.is_careful
        reached = self.entries[-1].offset + 1 if can_take_all else 0
        return self.crashes.metadata(self.position, worker, reached, suspect)

    def is_blocked(self, entry: _Entry) -> bool:
        """Return whether an earlier message of the shard is not settled."""
        if not entry.shard:
            return False
        waiting = self.shards.setdefault(entry.shard, deque())
        waiting.append(entry)
        return len(waiting) > 1

    def next_of_shard(self, settled: _Entry) -> _Entry | None:
        """Return the message that a settled one has blocked."""
        if not settled.shard:
            return None
        waiting = self.shards[settled.shard]
        waiting.popleft()
        if not waiting:
            del self.shards[settled.shard]
        return waiting[0] if waiting else None

    @property
    def has_shards_out(self) -> bool:
        return any(entry.is_out and entry.shard for entry in self.entries)


class KafkaReceiver(Receiver):
    """One member of a consumer group; its own thread polls the consumer always.

    The partitions are this member's until a rebalance, so there are no leases.
    """

    has_leases: ClassVar[bool] = False

    def __init__(
        self,
        client: KafkaClient,
        topic: str,
        retries: str,
        group_id: str,
        subscription: Subscription,
    ) -> None:
        self.group = subscription.group
        self._client = client
        self._topics = topic, retries
        self._group_id = group_id
        self._worker = uuid4().hex[:12]
        self._most = subscription.max_in_flight
        self._most_tracked = max(LEAST_TRACKED, subscription.max_in_flight)
        self._retries = KafkaSender(client, retries)
        self._changed = threading.Condition()  # its lock is re-entrant: callbacks need it too
        self._partitions: dict[tuple[str, int], _Partition] = {}
        self._paused: set[_Partition] = set()
        self._ready: deque[_Entry] = deque()
        self._suspects: deque[_Entry] = deque()  # ready, one at a time
        self._delayed: list[tuple[float, int, _Entry]] = []
        self._numbers = itertools.count()
        self._taken = 0
        self._is_assigned = False
        self._is_closed = False
        self._is_leaving = False
        self._commit_after = 0.0
        self._heard_at = time.monotonic()
        self._error: RxTweetsError | None = None
        self._thread = start_thread("rxtweets-kafka", self._run)

    def wait_for_partitions(self) -> None:
        """Wait until each partition has a message or none; a slow rebalance continues later.

        Raises:
            BrokerUnavailable: the broker cannot be reached; the receiver is closed.
        """
        deadline = time.monotonic() + JOIN
        with self._changed:
            while not self._is_positioned() and self._error is None and not self._is_closed:
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    return
            error = self._error
        if error is not None:
            self.close()
            raise error

    def take(self, most: int, wait: float) -> list[Taken]:
        """Take messages that the thread has read."""
        deadline = time.monotonic() + wait
        with self._changed:
            while not self._is_closed:
                self._wake_delayed()
                if taken := self._pop(most):
                    return taken
                if self._error is not None:
                    raise self._error.with_traceback(None)  # it may be raised again
                rest = deadline - time.monotonic()
                if rest <= 0:
                    return []
                if self._delayed:
                    rest = min(rest, max(0.001, self._delayed[0][0] - time.time()))
                self._changed.wait(rest)
            return []

    def acknowledge(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        """Settle messages, and commit the positions that change by it.

        Raises:
            BrokerUnavailable: the positions are not committed; that is tried again until a
                rebalance.
        """
        with self._changed:
            lost = [one for one in taken if not self._is_ours(one)]
            ours = [one for one in taken if self._is_ours(one)]
            for one in ours:
                self._settle(one.receipt)
            self._changed.notify_all()  # there is room
            self._wait_for_commit({one.receipt.partition for one in ours})
            for one in ours:
                entry: _Entry = one.receipt
                if not entry.partition.is_ours and entry.partition.committed <= entry.offset:
                    lost.append(one)
            return lost

    def retry(self, taken: Sequence[Taken], delay: float) -> Sequence[Taken]:
        """Publish messages to the retry topic; keep those with a shard, and those not stored."""
        due = time.time() + delay
        with self._changed:
            lost = [one for one in taken if one.shard and not self._is_ours(one)]
            for one in taken:
                if one.shard and self._is_ours(one):
                    self._keep(one, due, 1)
            self._changed.notify_all()
        return [*lost, *self._give_back([one for one in taken if not one.shard], due, 1)]

    def release(self, taken: Sequence[Taken]) -> None:
        """Put messages before those that wait here; no other worker can get their partition."""
        with self._changed:
            for one in reversed(taken):
                if self._is_ours(one):
                    self._keep(one, 0.0, 0)
            self._changed.notify_all()

    def extend(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        """Return those whose partition was revoked; there is nothing to extend."""
        with self._changed:
            return [one for one in taken if not self._is_ours(one)]

    def close(self) -> None:
        """Leave the group; messages that block the position are stored as retries before."""
        with self._changed:
            stuck = [] if self._error or self._is_closed else self._stuck()
        with suppress(BrokerUnavailable):  # then settled messages are delivered again
            for due, taken in stuck:
                self._give_back(taken, due, 0)
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(WAIT)
        self._retries.close()

    def held(self) -> tuple[int, int]:
        """Return the numbers of messages in flight, and of settled ones behind unsettled ones."""
        with self._changed:
            entries = [entry for part in self._partitions.values() for entry in part.entries]
            settled = sum(entry.taken is None for entry in entries)
            return sum(entry.is_out for entry in entries), settled

    # Messages; callers hold the lock.

    def _is_ours(self, taken: Taken) -> bool:
        entry: _Entry = taken.receipt
        return entry.taken is taken and entry.is_out and entry.partition.is_ours

    def _settle(self, entry: _Entry) -> None:
        self._taken -= entry.is_out
        entry.taken, entry.is_out = None, False
        self._clear_suspect(entry)
        if (following := entry.partition.next_of_shard(entry)) is not None:
            self._make_ready(following)
        entry.partition.advance()
        if entry.offset == entry.partition.crashes.cause:
            for partition in self._partitions.values():
                partition.crashes.in_a_row = 0  # a partition shares its workers with the others

    def _keep(self, taken: Taken, due: float, attempts: int) -> None:
        """Deliver a message from here again, at this time."""
        entry: _Entry = taken.receipt
        self._taken -= entry.is_out
        entry.is_out, entry.due = False, due
        entry.taken = replace(taken, attempt=taken.attempt + attempts)  # the other one is stale
        self._clear_suspect(entry)
        if due <= time.time():
            self._ready_in(entry.partition).appendleft(entry)
        else:
            heapq.heappush(self._delayed, (due, next(self._numbers), entry))

    def _ready_in(self, partition: _Partition) -> deque[_Entry]:
        return self._suspects if partition.crashes.is_careful else self._ready

    def _make_ready(self, entry: _Entry) -> None:
        self._ready_in(entry.partition).append(entry)

    def _clear_suspect(self, entry: _Entry) -> None:
        if entry.partition.suspect is entry:
            entry.partition.suspect = None

    def _can_choose(self) -> bool:
        """Return whether suspects wait, and none is in flight in any partition."""
        if not self._suspects or self._is_leaving:
            return False
        return not any(one.suspect for one in self._partitions.values())

    def _choose_suspect(self) -> None:
        while self._can_choose():
            entry = self._suspects.popleft()
            is_careful = entry.partition.crashes.is_careful
            entry.partition.suspect = entry if is_careful else None
            if not is_careful or entry is entry.partition.noted[1]:
                self._ready.append(entry)

    def _room(self) -> int:
        return self._most - self._taken - len(self._ready)

    def _wake_delayed(self) -> None:
        now = time.time()
        while self._delayed and self._delayed[0][0] <= now and self._room() > 0:
            entry = heapq.heappop(self._delayed)[2]
            if entry.partition.is_ours and entry.taken is not None:
                self._make_ready(entry)

    def _pop(self, most: int) -> list[Taken]:
        taken: list[Taken] = []
        while self._can_take() and len(taken) < most:
            entry = self._ready.popleft()
            if entry.taken is not None:
                entry.is_out = True
                self._taken += 1
                taken.append(entry.taken)
        if taken:
            self._changed.notify_all()
        return taken

    def _can_take(self) -> bool:
        return bool(self._ready) and self._taken < self._most and not self._is_leaving

    def _stuck(self) -> list[tuple[float, list[Taken]]]:
        """Take the unsettled messages that settled ones follow; return them by their times.

        Those of shards stay, as they would lose their places.
        """
        stuck: dict[float, list[Taken]] = {}
        for partition in self._partitions.values():
            entries = list(partition.entries)
            while entries and entries[-1].taken is not None:
                entries.pop()
            for entry in entries:
                if entry.taken is not None and not entry.shard:
                    self._taken += not entry.is_out
                    entry.is_out = True
                    stuck.setdefault(entry.due, []).append(entry.taken)
        self._ready = deque(entry for entry in self._ready if not entry.is_out)
        self._suspects = deque(entry for entry in self._suspects if not entry.is_out)
        return list(stuck.items())

    def _is_positioned(self) -> bool:
        partitions = self._partitions.values()
        return self._is_assigned and (
            self._room() <= 0 or all(one.is_positioned for one in partitions)
        )

    # Retries.

    def _give_back(self, taken: Sequence[Taken], due: float, attempts: int) -> Sequence[Taken]:
        with self._changed:
            lost = [one for one in taken if not self._is_ours(one)]
            ours = [one for one in taken if self._is_ours(one)]
        if not ours:
            return lost
        stored = self._store([_retry_of(one, due, attempts) for one in ours])
        with self._changed:
            for one, is_stored in zip(ours, stored, strict=True):
                if not is_stored and self._is_ours(one):
                    self._keep(one, due, attempts)
            self._changed.notify_all()
        moved = [one for one, is_stored in zip(ours, stored, strict=True) if is_stored]
        return [*lost, *self.acknowledge(moved)]

    def _store(self, envelopes: Sequence[Envelope]) -> list[bool]:
        try:
            errors = self._retries.put(envelopes)
        except BrokerError as error:
            errors = [error] * len(envelopes)
        if failures := [error for error in errors if error is not None]:
            log.warning(
                "%d retries wait in the memory of their worker, as they are not stored: %s",
                len(failures),
                failures[0],
            )
        return [error is None for error in errors]

    # Commits.

    def _wait_for_commit(self, partitions: Iterable[_Partition]) -> None:
        """Wait until the thread has committed the positions; the caller holds the lock."""
        wanted = {partition: partition.position for partition in partitions}
        deadline = time.monotonic() + WAIT
        while any(one.is_ours and one.committed < at for one, at in wanted.items()):
            rest = deadline - time.monotonic()
            if rest <= 0:
                self._error = self._client.unavailable("commit", f"no answer within {WAIT:g} s")
                raise self._error.with_traceback(None)
            self._changed.wait(rest)

    def _has_to_commit(self) -> bool:
        return time.monotonic() >= self._commit_after and (
            self._can_choose() or any(one.is_stale for one in self._partitions.values())
        )

    def _commit(self, consumer: Consumer, partitions: Iterable[_Partition]) -> bool:
        """Commit positions on the thread of the consumer, one request at a time.

        The client lets one thread at a time use a consumer, and a poll can starve the others. An
        answer to `on_commit` would wait behind all messages that the client has fetched.
        """
        place = self._client.kafka.TopicPartition
        with self._changed:
            self._choose_suspect()
            stale = {one: (one.is_held, one.suspect) for one in partitions if one.is_stale}
            positions = [
                place(one.topic, one.number, one.position, one.metadata(self._worker))
                for one in stale
            ]
        if not positions:
            return True
        try:
            committed = consumer.commit(offsets=positions, asynchronous=False)
        except self._client.kafka.KafkaException as error:
            log.info("kafka: a commit failed, as in a rebalance: %s", error.args[0].str())
            self._commit_after = time.monotonic() + TICK
            return False
        with self._changed:
            self._heard_at = time.monotonic()
            for one in committed:
                partition = self._partitions.get((one.topic, one.partition))
                if one.error is not None:
                    self._commit_after = time.monotonic() + TICK
                elif partition is not None:
                    partition.committed = max(partition.committed, one.offset)
                    self._note(partition, *stale[partition])
            self._changed.notify_all()
        return all(one.error is None for one in committed)

    def _note(self, partition: _Partition, is_held: bool, suspect: _Entry | None) -> None:
        """Let a suspect be taken, as the broker knows it now."""
        is_new = suspect is not partition.noted[1]
        partition.noted = is_held, suspect
        if suspect is not None and is_new and suspect is partition.suspect and not suspect.is_out:
            self._ready.append(suspect)

    # The thread of the consumer, and its callbacks.

    def _run(self) -> None:
        while not self._is_closed:
            try:
                self._consume()
            except self._client.kafka.KafkaException as error:
                self._fail(error.args[0])
            except ConfigurationError as error:
                self._error = error
            except BaseException as error:  # noqa: BLE001 - takes report it; the next attempt follows
                self._error = BrokerUnavailable(f"the thread of a Kafka consumer failed: {error!r}")
            with self._changed:
                self._changed.notify_all()
                if not self._is_closed:
                    self._changed.wait(STALL)

    def _consume(self) -> None:
        consumer: Consumer = self._client.new(
            "Consumer",
            {
                "group.id": self._group_id,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "fetch.queue.backoff.ms": 50,  # a fast worker would wait a second for more
                "fetch.wait.max.ms": 100,
                "heartbeat.interval.ms": 500,
                "max.poll.interval.ms": 300_000,
                # Each worker gets partitions of both topics. The cooperative strategy gave all
                # messages to one worker of two, and all retries to the other one.
                "partition.assignment.strategy": "range",
                "queued.max.messages.kbytes": 16_384,
                "session.timeout.ms": 10_000,
                "topic.metadata.refresh.interval.ms": 30_000,
            },
        )
        try:
            consumer.subscribe(
                list(self._topics),
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )
            while not self._is_closed:
                self._poll(consumer)
        finally:
            consumer.close()
            self._lose(list(self._partitions))

    def _poll(self, consumer: Consumer) -> None:
        room = self._wait_for_room()
        if self._has_to_commit():
            self._commit(consumer, list(self._partitions.values()))
            if room <= 0:
                return
        self._pause(consumer, is_full=room <= 0)
        arrived: list[_Entry] = []
        message = consumer.poll(BRIEF if self._taken or self._suspects else TICK)
        while message is not None:
            self._read(message, arrived)
            if len(arrived) >= room:
                break
            message = consumer.poll(0)
        self._admit(consumer, arrived)
        if time.monotonic() - self._heard_at > QUIET:
            self._probe(consumer)

    def _wait_for_room(self) -> int:
        deadline = time.monotonic() + STALL
        with self._changed:
            self._wake_delayed()
            while self._room() <= 0 and not self._has_to_commit() and not self._is_closed:
                rest = deadline - time.monotonic()
                if rest <= 0:
                    break
                self._changed.wait(rest)
            return self._room()

    def _pause(self, consumer: Consumer, *, is_full: bool) -> None:
        with self._changed:
            has_many = len(self._delayed) >= MOST_DELAYED
            paused = {
                one
                for one in self._partitions.values()
                if is_full
                or len(one.entries) >= (MOST_DELAYED if one.is_retry else self._most_tracked)
                or (one.is_retry and has_many)
            }
            known = {one for one in self._paused if one.is_ours}
            self._paused = paused
        place = self._client.kafka.TopicPartition
        if paused != known:
            consumer.pause([place(one.topic, one.number) for one in paused])
        if known - paused:
            consumer.resume([place(one.topic, one.number) for one in known - paused])

    def _read(self, message: Message, arrived: list[_Entry]) -> None:
        partition = self._partitions.get((message.topic() or "", message.partition() or 0))
        error = message.error()
        if error is None and partition is not None:
            self._heard_at = time.monotonic()
            arrived.append(self._entry(partition, message))
        elif error is not None and error.name() == "_PARTITION_EOF":
            if partition is not None:
                if not partition.is_positioned:
                    partition.crashes.in_a_row = 0  # no message of it was in flight
                partition.is_positioned = True
        elif error is not None:
            self._fail(error)

    def _entry(self, partition: _Partition, message: Message) -> _Entry:
        offset = message.offset() or 0
        if not partition.is_positioned and 0 <= partition.committed < offset:
            log.warning(
                "kafka topic %s, partition %d: offsets %d to %d are missing; the retention has "
                "deleted them before group %s got them, unless they are marks of transactions",
                partition.topic,
                partition.number,
                partition.committed,
                offset - 1,
                self.group,
            )
        partition.is_positioned = True
        entry = _Entry(partition, offset)
        entry.taken = _taken(message, entry)
        entry.shard = entry.taken.shard
        return entry

    def _admit(self, consumer: Consumer, arrived: list[_Entry]) -> None:
        with self._changed:
            # A later poll may have revoked partitions.
            arrived = [entry for entry in arrived if entry.partition.is_ours]
            partitions = {entry.partition for entry in arrived}
            for entry in arrived:
                entry.partition.entries.append(entry)
            for partition in partitions:
                if not partition.is_held:
                    partition.is_held, partition.position = True, partition.entries[0].offset
        if any(not one.noted[0] for one in partitions):
            self._commit(consumer, partitions)  # first: a message may crash this worker
        with self._changed:
            for entry in arrived:
                if entry.partition.is_blocked(entry):
                    continue
                if entry.due > time.time():
                    heapq.heappush(self._delayed, (entry.due, next(self._numbers), entry))
                else:
                    self._make_ready(entry)
            if arrived:
                self._error = None
            self._changed.notify_all()

    def _probe(self, consumer: Consumer) -> None:
        try:
            consumer.list_topics(self._topics[0], timeout=PROBE)
        except self._client.kafka.KafkaException as error:
            self._fail(error.args[0])
            return
        self._heard_at = time.monotonic()
        with self._changed:
            self._error = None

    def _fail(self, error: KafkaError) -> None:
        with self._changed:
            self._error = self._client.unavailable("take messages", error.str())
            self._changed.notify_all()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        found = partitions
        try:
            found = consumer.committed(partitions, timeout=PROBE) if partitions else []
        except self._client.kafka.KafkaException as error:
            self._fail(error.args[0])  # unknown positions are committed anew
        with self._changed:
            for one in found:
                at, is_retry = (one.topic, one.partition), one.topic == self._topics[1]
                crashes = Crashes.from_metadata(one.metadata, self._worker)
                partition = _Partition(*at, is_retry, max(-1, one.offset), crashes=crashes)
                self._partitions[at] = partition
                self._paused.add(partition)  # perhaps it was, before a rebalance
                if crashes.is_careful:
                    log.warning(
                        "kafka topic %s, partition %d: %d workers of group %s crashed in a row; "
                        "one message at a time is taken until offset %d",
                        *at,
                        crashes.in_a_row,
                        self.group,
                        crashes.until,
                    )
            self._is_assigned = True
            self._changed.notify_all()

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Wait for handlers of shards, commit what is settled, then lose the partitions."""
        found = [self._partitions.get((one.topic, one.partition)) for one in partitions]
        given_up = [one for one in found if one is not None]
        self._is_leaving = True
        try:
            self._hand_over(consumer, given_up)
            with self._changed:
                for one in given_up:
                    one.is_held, one.suspect = False, None  # the worker leaves without a crash
            if not self._commit(consumer, given_up):
                log.warning("settled messages of group %s will be delivered again", self.group)
            self._on_lost(consumer, partitions)
        finally:
            self._is_leaving = False

    def _hand_over(self, consumer: Consumer, partitions: Sequence[_Partition]) -> None:
        """Wait until no handler has a message of a shard: the next worker gets it at once."""
        deadline = time.monotonic() + HANDOVER
        while not self._is_closed and time.monotonic() < deadline:
            with self._changed:
                if not any(one.has_shards_out for one in partitions):
                    return
                self._changed.wait(TICK)
            self._commit(consumer, partitions)  # acknowledgements wait for it

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._lose([(one.topic, one.partition) for one in partitions])

    def _lose(self, places: Sequence[tuple[str, int]]) -> None:
        with self._changed:
            for place in places:
                if (partition := self._partitions.pop(place, None)) is not None:
                    partition.is_ours = False
                    self._taken -= sum(entry.is_out for entry in partition.entries)
            self._ready = deque(entry for entry in self._ready if entry.partition.is_ours)
            self._suspects = deque(entry for entry in self._suspects if entry.partition.is_ours)
            self._delayed = [one for one in self._delayed if one[2].partition.is_ours]
            heapq.heapify(self._delayed)
            self._changed.notify_all()


def _taken(message: Message, entry: _Entry) -> Taken:
    headers = _headers(message)
    kind, at = message.timestamp()
    enqueued_at: float | None = at / 1000 if kind else None
    attempt = 1
    if entry.partition.is_retry:
        try:
            attempt = int(headers.pop(ATTEMPT, 1))
            entry.due = float(headers.pop(NOT_BEFORE, 0.0))
            enqueued_at = float(headers.pop(PUBLISHED_AT, enqueued_at or 0.0)) or None
        except ValueError:
            log.warning("a retry in %s has headers of another program", message.topic())
    attempt += entry.partition.crashes.of_message.get(entry.offset, 0)
    native_id = f"{entry.partition.topic}/{entry.partition.number}/{entry.offset}"
    body, key = message.value() or b"", _text(message.key() or b"")
    if SHARD in headers:  # which is the key of Kafka
        key = unquote(headers.get(KEY, key))
    return Taken(key, _bytes(body), headers, attempt, enqueued_at, native_id, entry)


def _headers(message: Message) -> dict[str, str]:
    headers = {}
    pairs: Any = message.headers() or ()
    for name, value in pairs:
        try:
            headers[name] = _bytes(value or b"").decode()
        except UnicodeDecodeError:
            continue
    return headers


def _bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _retry_of(taken: Taken, due: float, attempts: int) -> Envelope:
    headers = {
        **taken.headers,
        ATTEMPT: str(taken.attempt + attempts),
        NOT_BEFORE: repr(due),
    }
    if taken.enqueued_at is not None:
        headers[PUBLISHED_AT] = repr(taken.enqueued_at)
    return Envelope(taken.key, taken.body, headers)
