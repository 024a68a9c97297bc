"""Queues in streams of NATS JetStream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rxtweets._support.optional_imports import needed
from rxtweets.brokers._address import Address
from rxtweets.brokers._engine import (
    Backlog,
    Engine,
    Envelope,
    Receiver,
    Sender,
    Subscription,
    Taken,
)
from rxtweets.brokers._engines.jetstream_link import ANSWER, Connection, Link
from rxtweets.brokers._engines.jetstream_settings import check_consumer, check_stream
from rxtweets.errors import BrokerError, BrokerUnavailable, ConfigurationError, QueueSettingsError

__all__ = ["JetStreamEngine"]

log = logging.getLogger("rxtweets")

LEASE = 30.0
"""Seconds of the lease of a group, until its first receiver sets its own."""

WAVE = 500
"""Messages that are published before their confirmations are awaited."""


class JetStreamEngine(Engine):
    """A stream of NATS JetStream: ``nats://user:password@host:4222,host2/TWEETS?replicas=3``.

    Several hosts are servers of one cluster. A user without a password is a token. TLS is used if
    the server requires it. Options:

    - ``replicas``: servers that store each message, by default 1.
    - ``dedupe``: seconds for which the server remembers keys, by default 600.
    - ``subject``: the subject to publish to, by default the name of the stream.

    `ensure` creates the stream, in files and without a limit. If it is to create it for one group
    or none, its retention is ``workqueue``: a message waits for the first group, whenever it
    comes, and a second group is refused. For several groups it is ``interest``: a message is kept
    until each of them has acknowledged it. Retention cannot change later, so name all groups in
    ``connect(groups=[...])``. A group that never comes keeps its messages for ever, until its
    consumer is deleted.

    Each message is delivered at least once, in order until the first retry. A consumer delivers
    later messages while an earlier one waits for a retry, so ``shard_by`` is refused. A message is
    published once for each key, in the window of ``dedupe``; a server that restarts remembers only
    the keys of messages that are still stored. A crash of the server loses nothing, but can reset
    attempts. A power failure of the machine can lose the messages of the last two minutes, or of
    ``sync_interval`` in the server's configuration, and a broken disk all of them. With three
    replicas, only a failure of several servers at once can.

    A full disk ends JetStream on a server until it is started again, and can then lose positions
    in the stream; a publisher that connects creates its group anew. Set ``max_file_store`` in its
    configuration below the room of the disk: then publishing fails, and recovers by itself. After
    a crash, a server of version 2.9 can count messages as in flight that were acknowledged. A
    worker creates its group anew if the consumer was deleted, but not a stream that was deleted.

    All workers of a group have one lease, as the last receiver has set it: give them equal ones.
    The broker limits neither deliveries nor messages in flight. Releases count as attempts, and
    messages that wait for a retry count as in flight, as JetStream cannot tell them apart. An
    acknowledgement after the end of a lease still counts.
    """

    name = "jetstream"
    listing = "nats stream ls"
    no_shards = "a consumer delivers later messages while an earlier one waits for a retry"

    def __init__(self, address: Address) -> None:
        self._nats = needed("nats", "jetstream")
        address.check_options(("dedupe", "replicas", "subject"))
        if not address.hosts or re.search(r"[\s.*>/\\]", address.path):
            raise ConfigurationError(
                f"{address}: give a host, and a name of a stream without spaces and . * > / \\, "
                "as nats://127.0.0.1/TWEETS"
            )
        self._address = address
        self.queue = address.path
        self.subject = address.options.get("subject") or self.queue
        self._replicas = address.number("replicas", 1)
        self._dedupe = address.number("dedupe", 600)

    def exists(self, groups: Sequence[str] = ()) -> bool:
        """Return whether the stream and the consumers of groups exist."""
        with self._connected() as link:
            found = link.call(lambda connection: self._found(connection.jetstream), 4 * ANSWER)
        return found is not None and set(groups) <= found

    def ensure(self, groups: Sequence[str] = ()) -> None:
        """Create the stream and the consumers of groups, if they are missing."""
        with self._connected() as link:
            link.call(lambda connection: self._prepare(connection.jetstream, groups), 4 * ANSWER)

    def sender(self) -> Sender:
        """Return a sender with a connection of its own."""
        link = Link(self._nats, self._address, self._repair)
        return _JetStreamSender(self.queue, self.subject, link)

    def receiver(self, subscription: Subscription) -> Receiver:
        """Return a receiver with a connection of its own."""
        group = self._consumer(subscription.group)
        return _JetStreamReceiver(self.queue, self._nats, self._address, subscription, group)

    def backlog(self) -> dict[str, Backlog]:
        """Return the backlog of each consumer of the stream."""
        with self._connected() as link:
            return link.call(lambda connection: self._backlog(connection.jetstream), 4 * ANSWER)

    def dead_letters(self) -> Engine:
        """Return the stream of the same name with ``-dead`` at its end; names have no dots."""
        options = {key: text for key, text in self._address.options.items() if key != "subject"}
        path = f"{self.queue}-dead"
        return JetStreamEngine(replace(self._address, path=path, options=options))

    def purge(self) -> int:
        """Remove all messages."""
        with self._connected() as link:
            return link.call(lambda connection: self._purge(connection.jetstream), 4 * ANSWER)

    def close(self) -> None:
        """Do nothing: senders and receivers have connections of their own."""

    @contextmanager
    def _connected(self) -> Iterator[Link]:
        link = Link(self._nats, self._address)
        try:
            yield link
        finally:
            link.close()

    async def _found(self, jetstream: Any) -> set[str] | None:
        """Return the names of the consumers; ``None`` without the stream."""
        with contextlib.suppress(self._nats.js.errors.NotFoundError):
            await jetstream.stream_info(self.queue)
            return {consumer.name for consumer in await jetstream.consumers_info(self.queue)}
        return None

    async def _prepare(self, jetstream: Any, groups: Sequence[str]) -> None:
        config = await self._stream_config(jetstream, groups)
        found = await jetstream.consumers_info(self.queue)
        consumers = {consumer.name: consumer.config for consumer in found}
        check_stream(config, str(self._address), {*consumers, *groups}, self._replicas)
        await self._check_subject(jetstream, config)
        for group in dict.fromkeys(groups):
            if group in consumers:
                where = f"{self._address}, group {group!r}"
                check_consumer(consumers[group], where, self.subject)
            else:
                await jetstream.add_consumer(self.queue, self._consumer(group))

    async def _stream_config(self, jetstream: Any, groups: Sequence[str]) -> Any:
        """Return the settings of the stream; create it if it is missing."""
        errors = self._nats.js.errors
        with contextlib.suppress(errors.NotFoundError):
            return (await jetstream.stream_info(self.queue)).config
        config = self._nats.js.api.StreamConfig(
            name=self.queue,
            subjects=[self.subject],
            retention="interest" if len(set(groups)) > 1 else "workqueue",
            storage="file",
            discard="new",
            num_replicas=self._replicas,
            duplicate_window=self._dedupe,
        )
        try:
            return (await jetstream.add_stream(config)).config
        except errors.BadRequestError as error:
            if error.err_code != NAME_IN_USE:
                raise
            return (await jetstream.stream_info(self.queue)).config  # another process was faster

    async def _check_subject(self, jetstream: Any, config: Any) -> None:
        with contextlib.suppress(self._nats.js.errors.NotFoundError):
            if await jetstream.find_stream_name_by_subject(self.subject) == self.queue:
                return
        raise QueueSettingsError(
            f"{self._address}: the stream has subjects={config.subjects}, and messages are "
            f"published to {self.subject!r}: add it there, or give ?subject=... in the URL"
        )

    def _consumer(self, group: str) -> Any:
        return self._nats.js.api.ConsumerConfig(
            name=group,
            durable_name=group,
            ack_policy="explicit",
            ack_wait=LEASE,
            # At a limit, JetStream would keep a message for ever, and never deliver it.
            max_deliver=-1,
            # It would count for all workers, and include messages that wait for a retry.
            max_ack_pending=-1,
        )

    async def _repair(self, connection: Connection) -> None:
        """Create a group anew that would skip messages, before messages are published.

        A server that was killed while its disk was full can begin the sequence of a stream anew,
        while the group is at its old position. With the retention ``interest``, it moves groups
        itself.
        """
        jetstream, errors = connection.jetstream, self._nats.js.errors
        try:
            # In this order: a message that is delivered between the two is in the latter.
            consumers = await jetstream.consumers_info(self.queue)
            stream = await jetstream.stream_info(self.queue)
        except errors.NotFoundError:
            return
        if stream.config.retention != "workqueue":  # it would remove the messages of a group
            return
        for one in consumers:
            if one.delivered.stream_seq <= stream.state.last_seq:
                continue
            log.warning(
                "%s: the server has lost messages, and group %r would skip new ones; it is created "
                "anew",
                connection.where,
                one.name,
            )
            with contextlib.suppress(errors.NotFoundError):
                await jetstream.delete_consumer(self.queue, one.name)
            await jetstream.add_consumer(self.queue, one.config)

    async def _backlog(self, jetstream: Any) -> dict[str, Backlog]:
        state = (await jetstream.stream_info(self.queue)).state
        consumers = await jetstream.consumers_info(self.queue)
        if not consumers:
            age = await self._age(jetstream, state.first_seq) if state.messages else None
            return {"": Backlog(state.messages, 0, age)}
        backlogs = {}
        for consumer in consumers:
            pending, in_flight = consumer.num_pending or 0, consumer.num_ack_pending or 0
            oldest = max(state.first_seq, consumer.ack_floor.stream_seq + 1)
            age = await self._age(jetstream, oldest) if pending or in_flight else None
            backlogs[consumer.name] = Backlog(pending, in_flight, age)
        return backlogs

    async def _age(self, jetstream: Any, sequence: int) -> float | None:
        with contextlib.suppress(self._nats.js.errors.NotFoundError):
            message = await jetstream.get_msg(self.queue, sequence)
            return float(max(0.0, time.time() - message.time.timestamp()))
        return None

    async def _purge(self, jetstream: Any) -> int:
        count = (await jetstream.stream_info(self.queue)).state.messages
        await jetstream.purge_stream(self.queue)
        return int(count)


NAME_IN_USE = 10058
"""The server's code for a stream that exists with other settings."""

NO_CONSUMER = 10014
"""The server's code for a consumer that does not exist, in a stream that does."""


class _JetStreamSender(Sender):
    def __init__(self, stream: str, subject: str, link: Link) -> None:
        self._stream = stream
        self._subject = subject
        self._link = link

    def put(self, envelopes: Sequence[Envelope]) -> list[Exception | None]:
        errors: list[Exception | None] = []
        for start in range(0, len(envelopes), WAVE):
            wave = envelopes[start : start + WAVE]
            errors += self._put_wave(wave)
            if isinstance(errors[-1], BrokerUnavailable):  # so the rest would fail, after a wait
                errors += [errors[-1]] * (len(envelopes) - len(errors))
                break
        if errors and all(isinstance(error, BrokerUnavailable) for error in errors):
            raise errors[0] or BrokerUnavailable
        return errors

    def close(self) -> None:
        self._link.close()

    def _put_wave(self, wave: Sequence[Envelope]) -> list[Exception | None]:
        errors = self._published(wave)
        unsure = [at for at, error in enumerate(errors) if isinstance(error, BrokerUnavailable)]
        if unsure and self._link.is_lost:
            # Another server may be there. The keys are the same, so none is stored twice.
            again = self._published([wave[at] for at in unsure])
            for at, error in zip(unsure, again, strict=True):
                errors[at] = error
        return errors

    def _published(self, wave: Sequence[Envelope]) -> list[Exception | None]:
        try:
            return self._link.call(lambda connection: self._publish(connection, wave), 3 * ANSWER)
        except BrokerUnavailable as error:
            return [error] * len(wave)

    async def _publish(
        self, connection: Connection, wave: Sequence[Envelope]
    ) -> list[Exception | None]:
        """Send messages, and return their outcomes.

        The client's own ``publish_async`` is left aside: its futures never end when the connection
        is lost, nor when the server refuses a message.
        """
        deadline = time.monotonic() + ANSWER
        outcomes: dict[int, Exception | None] = {}
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def answered(message: Any) -> None:
            number = int(message.subject.rpartition(".")[2])
            outcomes[number] = _outcome(connection, message)
            if len(outcomes) == len(wave) and not ended.done():
                ended.set_result(None)

        async with connection.inbox(answered) as inbox:
            for number, envelope in enumerate(wave):
                if time.monotonic() > deadline:
                    break
                try:
                    await self._send(connection, envelope, f"{inbox}.{number}")
                except BrokerError as error:
                    outcomes[number] = error
            # Cancelled, if the connection is lost: what is confirmed by now counts.
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                if len(outcomes) < len(wave):
                    await asyncio.wait_for(ended, max(0.0, deadline - time.monotonic()))
        unsure = connection.unavailable("the message was not confirmed")
        return [outcomes.get(number, unsure) for number in range(len(wave))]

    async def _send(self, connection: Connection, envelope: Envelope, inbox: str) -> None:
        headers = {**envelope.headers, "Nats-Expected-Stream": self._stream}
        if envelope.key:
            headers["Nats-Msg-Id"] = envelope.key
        size = len(envelope.body) + sum(len(name) + len(text) + 4 for name, text in headers.items())
        if size + 12 > connection.client.max_payload:  # the server would end the connection
            raise BrokerError(
                f"{connection.where}: message {envelope.key!r} has {size} bytes, and the server "
                f"takes {connection.client.max_payload}; raise its max_payload"
            )
        try:
            await connection.client.publish(self._subject, envelope.body, inbox, headers)
        except Exception as error:  # noqa: BLE001 - of a client that may be closed meanwhile
            raise connection.error_for(error) from None


def _outcome(connection: Connection, message: Any) -> Exception | None:
    """Return ``None`` for a confirmation; another copy with the same key is one too."""
    if not message.data:
        return connection.unavailable("no stream takes the subject")
    error = json.loads(message.data).get("error")
    if error is None:
        return None
    text = f"{error.get('description')} ({error.get('err_code')})"
    is_refused = error.get("code", 0) < 500
    return (
        BrokerError(f"{connection.where}: {text}") if is_refused else connection.unavailable(text)
    )


class _JetStreamReceiver(Receiver):
    def __init__(
        self, stream: str, nats: Any, address: Address, subscription: Subscription, consumer: Any
    ) -> None:
        self._missing = nats.js.errors.NotFoundError
        self._stream = stream
        self._group = subscription.group
        self._consumer = consumer
        self._lease = subscription.lease
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{subscription.group}"
        self._link = Link(nats, address, self._prepare)

    def take(self, most: int, wait: float) -> list[Taken]:
        try:
            found = self._link.call(
                lambda connection: self._take(connection, most, wait), wait + 3 * ANSWER
            )
        except BrokerUnavailable:
            if self._link.is_closed:
                return []
            raise
        return [_taken(message) for message in found]

    def acknowledge(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        return self._settle(taken, b"+ACK")

    def retry(self, taken: Sequence[Taken], delay: float) -> Sequence[Taken]:
        nanoseconds = round(delay * 1e9)
        return self._settle(taken, b'-NAK {"delay": %d}' % nanoseconds if nanoseconds else b"-NAK")

    def release(self, taken: Sequence[Taken]) -> None:
        with contextlib.suppress(BrokerError):
            self._settle(taken, b"-NAK")

    def extend(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        return self._settle(taken, b"+WPI") if taken else ()

    def close(self) -> None:
        self._link.close()

    def _settle(self, taken: Sequence[Taken], outcome: bytes) -> Sequence[Taken]:
        """Tell the server an outcome. It belongs to no connection, so none is lost with one."""

        async def settle(connection: Connection) -> None:
            for one in taken[:-1]:
                await connection.client.publish(one.receipt, outcome)
            # The server handles them in order, so its answer to the last one is for all.
            await connection.client.request(taken[-1].receipt, outcome, timeout=ANSWER)

        if taken:
            self._link.call(settle, 3 * ANSWER)
        return []

    async def _prepare(self, connection: Connection) -> None:
        """Set the lease of the group; create a group that was deleted."""
        jetstream = connection.jetstream
        try:
            config = (await jetstream.consumer_info(self._stream, self._group)).config
        except self._missing as error:
            if error.err_code != NO_CONSUMER:
                raise
            log.warning(
                "%s: group %r was deleted; it is created anew", connection.where, self._group
            )
            config = (await jetstream.add_consumer(self._stream, self._consumer)).config
        if abs(config.ack_wait - self._lease) > 1e-6:
            await jetstream.add_consumer(self._stream, config.evolve(ack_wait=self._lease))

    async def _take(self, connection: Connection, most: int, wait: float) -> list[Any]:
        """Take what is there, or wait for one message.

        A request for more would stay open on the server, and get messages without a take.
        """
        found = await self._pull(connection, {"batch": most, "no_wait": True}, ANSWER)
        if not found and wait > 0:
            one = {"batch": 1, "expires": max(1_000_000, round(wait * 1e9))}
            found = await self._pull(connection, one, wait + ANSWER)
            if found and most > 1:
                rest = {"batch": most - 1, "no_wait": True}
                found += await self._pull(connection, rest, ANSWER)
        return found

    async def _pull(
        self, connection: Connection, request: dict[str, Any], limit: float
    ) -> list[Any]:
        """Send one request, and return the messages until it ends."""
        messages: list[Any] = []
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def answered(message: Any) -> None:
            if message.reply:
                messages.append(message)
            if (not message.reply or len(messages) == request["batch"]) and not ended.done():
                ended.set_result(None if message.reply else dict(message.headers or {}))

        async with connection.inbox(answered) as inbox:
            body = json.dumps(request).encode()
            await connection.client.publish(self._next, body, f"{inbox}.0")
            status = await asyncio.wait_for(ended, limit)
        if not messages and status["Status"] not in NOTHING_THERE:
            if status["Status"] == NOT_SERVED:  # the next connection creates a missing group
                connection.end()
            raise connection.unavailable(" ".join(map(str, status.values())))
        return messages


NOTHING_THERE = ("404", "408")
"""Statuses of requests that found no message, or not as many as they asked for."""

NOT_SERVED = "503"
"""Status of a request that no consumer gets."""


def _taken(message: Any) -> Taken:
    facts = message.metadata
    headers = {str(name): text for name, text in (message.headers or {}).items()}
    key = headers.get("Nats-Msg-Id", "")
    return Taken(
        key,
        message.data,
        {name: text for name, text in headers.items() if not name.startswith("Nats-")},
        facts.num_delivered,
        facts.timestamp.timestamp(),
        str(facts.sequence.stream),
        message.reply,
    )
