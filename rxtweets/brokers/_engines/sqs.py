"""Queues on Amazon SQS."""

from __future__ import annotations

import base64
import json
import math
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

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
from rxtweets.brokers._engines.sqs_client import PARALLEL, NoQueue, SqsClient, Stale
from rxtweets.brokers._engines.sqs_entries import (
    ATTRIBUTE,
    LARGEST,
    TOGETHER,
    entry_of,
    facts_in,
    message_group,
    refusal_of,
    size_of,
    waves_of,
)
from rxtweets.brokers._envelopes import batches_of
from rxtweets.brokers._shards import ShardReceiver
from rxtweets.errors import BrokerError, BrokerUnavailable, ConfigurationError, QueueSettingsError

__all__ = ["SqsEngine"]

T = TypeVar("T")
R = TypeVar("R")

DAYS = 14
"""Longest retention that SQS offers."""

LONGEST = 12 * 3600
"""Seconds from its delivery for which a message can be invisible."""

MOST_RECEIVES = 1000
"""Highest limit of deliveries that SQS takes."""

POLL = 2
"""Seconds of one long poll; `close` waits for its end."""

NEWS = 60.0
"""Seconds until a sender looks for groups of other processes."""

TAG = "rxtweets-queue"
"""Tag of each queue: the queue whose group it is, as names alone do not tell."""

NAME = re.compile(r"([A-Za-z0-9_-]+?)(\.fifo)?")


class SqsEngine(Engine):
    """Queues on Amazon SQS: ``sqs://REGION/queue``, or ``sqs://HOST:PORT/queue`` for a test server.

    ::

        queue = brokers.connect("sqs://eu-west-1/tweets", groups=["sentiment", "archive"])

    Credentials come from the environment, as boto3 finds them. A server given as HOST:PORT is
    reached by HTTP; the option ``region`` (default ``us-east-1``) is for its signatures.

    SQS has no groups: each is a queue of its own, named ``queue-group``. A message is sent to the
    queue of every group, and is stored when all have it. A sender knows the groups of its `ensure`,
    and finds those of other processes within 60 s, by a tag on their queues. So name all groups in
    `connect` where messages are published; without any group, messages are refused. To remove a
    group, delete its queue and name it no longer.

    Guarantees and limits:

    - At least once, in no order. A message that one of the groups has not stored is sent to all of
      them again. SQS itself delivers a message twice at times.
    - ``queue.fifo`` makes FIFO queues, which drop copies of a key for 5 minutes. Each key is a
      message group of its own, so there is no order either, except by key (``shard_by``).
    - The order by key: each shard is a message group of FIFO queues; standard queues refuse it.
      Retries wait in the memory of the worker, so their attempts are forgotten when it ends. It
      holds the next messages of the shard too, whose deliveries count as attempts. The order holds
      until a worker exceeds its lease.
    - By AWS's documentation, a confirmed message is stored in several data centers.
    - SQS deletes messages after ``retention`` days (option, 14 at most, and by default), even
      those that a group has not acknowledged, and dead letters.
    - A message has 256 KB at most, headers included; larger and empty ones are refused.
    - A body that is text travels as it is; another one in base64, which the attribute says.
    - A message is invisible for 12 hours at most, so leases end then, and delays are cut.
    - A take waits whole seconds. A release counts as an attempt. A delayed retry is in flight.
    - SQS may ignore that an acknowledgement is late. So those after the end of the lease, by the
      clock of this process, are returned as lost too.
    - Backlogs are estimates of SQS, without an age. It purges a queue once in 60 s.
    - After ``max_deliver + 2`` deliveries, SQS moves a message to the queue of dead letters, which
      is named ``queue_dead``. The limit is raised for a new worker, and never lowered; there is
      none for ``max_deliver`` above 998.

    Permissions: GetQueueUrl, GetQueueAttributes, SendMessage, ReceiveMessage, DeleteMessage and
    ChangeMessageVisibility; CreateQueue, TagQueue and SetQueueAttributes to make queues, ListQueues
    and ListQueueTags to find groups of other processes, PurgeQueue to purge.
    """

    name = "sqs"
    listing = "aws sqs list-queues"

    def __init__(self, address: Address, client: SqsClient | None = None) -> None:
        address.check_options(("region", "retention"))
        match = NAME.fullmatch(address.path)
        if match is None:
            raise ConfigurationError(f"{address}: give the queue letters, digits, - and _")
        self.queue = address.path
        self._base, self._suffix = match[1], match[2] or ""
        self.no_shards = "" if self._suffix else "standard queues have no order, so name it *.fifo"
        self._days = address.number("retention", DAYS, most=DAYS)
        self._address = address
        self._client = client or SqsClient(address)
        self._lock = threading.Lock()
        self._named: set[str] = set()
        self._urls: dict[str, str] = {}
        self._known_until = 0.0

    def exists(self, groups: Sequence[str] = ()) -> bool:
        """Return whether these groups exist, or any: each of them is a queue on SQS.

        Raises:
            BrokerError: groups are not named, and SQS refuses to list queues.
        """
        if groups:
            return all(self._has(group) for group in groups)
        with self._lock:
            known = {*self._named, *self._urls}
            self._known_until = 0.0  # `backlog` has to find what this finds
        return any(self._has(group) for group in known) or any(
            self._owner(url) == self.queue for url in self._listed(f"{self._base}-")
        )

    def ensure(self, groups: Sequence[str] = ()) -> None:
        """Create the queues of the groups."""
        with self._lock:
            self._named.update(groups)
            self._ensure_named()

    def sender(self) -> Sender:
        """Return a sender to the queues of all groups."""
        return _SqsSender(self, self._client)

    def receiver(self, subscription: Subscription) -> Receiver:
        """Return a receiver; SQS gets the limit of deliveries.

        Raises:
            ConfigurationError: the lease is longer than 12 hours.
            QueueSettingsError: the limit of deliveries of another program is too low.
        """
        if subscription.lease > LONGEST:
            raise ConfigurationError(f"lease={subscription.lease:g}: SQS has 12 hours at most")
        self.ensure((subscription.group,))
        url = self.urls()[subscription.group]
        self._limit_deliveries(url, subscription.max_deliver + 2)
        receiver = _SqsReceiver(self._client, url, subscription.lease)
        if not self._suffix:
            return receiver
        return ShardReceiver(receiver, subscription.max_in_flight)

    def backlog(self) -> dict[str, Backlog]:
        """Return the backlog of each known group, as SQS estimates it."""
        urls = self.urls()
        return {group: self._backlog(url) for group, url in urls.items()} or {"": Backlog(0, 0)}

    def dead_letters(self) -> SqsEngine:
        """Return the queue of the same name with ``_dead`` at its end."""
        path = f"{self._base}_dead{self._suffix}"
        return SqsEngine(replace(self._address, path=path), self._client)

    def purge(self) -> int:
        """Remove all messages; return their number, a copy of each group for itself."""
        count = 0
        for url in self.urls().values():
            backlog = self._backlog(url)
            self._client.call("purge_queue", QueueUrl=url)
            count += backlog.pending + backlog.in_flight
        return count

    def close(self) -> None:
        """Close the connections of this queue, and of its dead letters."""
        self._client.close()

    def urls(self) -> dict[str, str]:
        """Return the URL of the queue of each known group."""
        with self._lock:
            self._ensure_named()
            if time.monotonic() >= self._known_until:
                self._find_groups()
                self._known_until = time.monotonic() + NEWS
            return dict(self._urls)

    def forget(self) -> None:
        """Find or make all queues again: one of them was deleted."""
        with self._lock:
            self._urls.clear()
            self._known_until = 0.0

    def attributes(self, url: str, *names: str) -> dict[str, str]:
        """Return attributes of a queue, as SQS names them."""
        call = self._client.call
        found = call("get_queue_attributes", QueueUrl=url, AttributeNames=list(names))
        return dict(found.get("Attributes", {}))

    # Groups.

    def _has(self, group: str) -> bool:
        url = self._url(self._name_of(group))
        is_there = bool(url) and self._owner(url) in {"", self.queue}
        with self._lock:
            if is_there:
                self._urls[group] = url
            else:  # another process may make it soon
                self._urls.pop(group, None)
        return is_there

    def _ensure_named(self) -> None:
        for group in sorted(self._named - self._urls.keys()):
            self._urls[group] = self._ensured(self._name_of(group))

    def _name_of(self, group: str) -> str:
        name = f"{self._base}-{group}{self._suffix}"
        if len(name) > 80:
            raise ConfigurationError(f"{name!r} is the queue of the group: SQS takes 80 letters")
        return name

    def _ensured(self, name: str) -> str:
        url = self._url(name)
        if not url:
            return self._created(name)
        self._check(name, url)
        return url

    def _url(self, name: str) -> str:
        """Return the URL of a queue; an empty text if there is none."""
        try:
            return str(self._client.call("get_queue_url", QueueName=name)["QueueUrl"])
        except NoQueue:
            return ""

    def _created(self, name: str) -> str:
        attributes = {"MessageRetentionPeriod": str(self._days * 86400)}
        if self._suffix:
            # Each key is a message group: they need not wait for one another.
            attributes |= {
                "FifoQueue": "true",
                "DeduplicationScope": "messageGroup",
                "FifoThroughputLimit": "perMessageGroupId",
            }
        tags = {TAG: self.queue}
        made = self._client.call("create_queue", QueueName=name, Attributes=attributes, tags=tags)
        return str(made["QueueUrl"])

    def _check(self, name: str, url: str) -> None:
        retention = int(self.attributes(url, "MessageRetentionPeriod")["MessageRetentionPeriod"])
        if retention < self._days * 86400:
            raise QueueSettingsError(
                f"the SQS queue {name!r} has MessageRetentionPeriod={retention} s, so it deletes "
                f"messages earlier than after {self._days} days: raise it, or give the URL "
                f"?retention={max(1, retention // 86400)}"
            )
        owner = self._owner(url)
        if owner not in {"", self.queue}:
            raise QueueSettingsError(
                f"the SQS queue {name!r} has the tag {TAG}={owner!r}, so it is of another queue "
                f"than {self.queue!r}: choose another name of the queue or the group"
            )

    def _find_groups(self) -> None:
        prefix = f"{self._base}-"
        try:
            urls = self._listed(prefix)
        except BrokerUnavailable:
            raise
        except BrokerError:
            return  # no permission: only named groups are known
        for url in urls:
            name = url.rpartition("/")[2]
            group = name.removesuffix(self._suffix).removeprefix(prefix)
            if group not in self._urls and self._owner(url) == self.queue:
                self._urls[group] = url

    def _listed(self, prefix: str) -> list[str]:
        urls: list[str] = []
        token: dict[str, str] = {}
        while True:
            page = self._client.call(
                "list_queues", QueueNamePrefix=prefix, MaxResults=1000, **token
            )
            urls += page.get("QueueUrls", ())
            if "NextToken" not in page:
                return urls
            token = {"NextToken": page["NextToken"]}

    def _owner(self, url: str) -> str:
        try:
            return str(self._client.call("list_queue_tags", QueueUrl=url).get("Tags", {})[TAG])
        except BrokerUnavailable:
            raise
        except (BrokerError, KeyError):
            return ""  # made by hand or by another program, or deleted and still listed

    def _backlog(self, url: str) -> Backlog:
        names = [f"ApproximateNumberOfMessages{state}" for state in ("", "Delayed", "NotVisible")]
        found = self.attributes(url, *names)
        visible, delayed, taken = (int(found[name]) for name in names)
        return Backlog(visible + delayed, taken)

    def _limit_deliveries(self, url: str, most: int) -> None:
        if self._base.endswith("_dead") or most > MOST_RECEIVES:
            return
        dead = self.dead_letters()
        dead.ensure(("dead",))
        target = dead.attributes(dead.urls()["dead"], "QueueArn")["QueueArn"]
        policy = json.loads(self.attributes(url, "RedrivePolicy").get("RedrivePolicy", "{}"))
        present = int(policy.get("maxReceiveCount", 0))
        if present >= most:
            return
        if policy and policy.get("deadLetterTargetArn") != target:
            raise QueueSettingsError(
                f"the SQS queue {url!r} has a RedrivePolicy with maxReceiveCount={present}, so SQS "
                f"moves messages away before max_deliver={most - 2}: raise it to {most}, remove "
                "it, or lower max_deliver"
            )
        policy = json.dumps({"deadLetterTargetArn": target, "maxReceiveCount": str(most)})
        self._client.call(
            "set_queue_attributes", QueueUrl=url, Attributes={"RedrivePolicy": policy}
        )


class _SqsSender(Sender):
    def __init__(self, engine: SqsEngine, client: SqsClient) -> None:
        self._engine = engine
        self._client = client
        self._requests = _Requests()

    def put(self, envelopes: Sequence[Envelope]) -> list[Exception | None]:
        urls = self._engine.urls()
        if not urls:
            refused = BrokerError(
                f"SQS queue {self._engine.queue!r} has no group, so there is no queue to store "
                "messages in: name the groups in connect(url, groups=[...])"
            )
            return [refused] * len(envelopes)
        is_fifo = self._engine.queue.endswith(".fifo")
        entries = [entry_of(number, one, is_fifo) for number, one in enumerate(envelopes)]
        errors: list[Exception | None] = [refusal_of(entry) for entry in entries]
        lost: dict[str, BrokerUnavailable] = {}
        for wave in waves_of(
            [one for one, error in zip(entries, errors, strict=True) if not error]
        ):
            self._put(wave, [*urls.values()], errors, lost)
        return errors

    def _put(
        self,
        wave: Sequence[dict[str, Any]],
        urls: Sequence[str],
        errors: list[Exception | None],
        lost: dict[str, BrokerUnavailable],
    ) -> None:
        """Send messages of different message groups, but none after a lost one of its group."""
        for entry in wave:
            errors[int(entry["Id"])] = lost.get(message_group(entry))
        sent = [one for one in wave if message_group(one) not in lost]
        batches = list(batches_of(sent, size_of, TOGETHER, LARGEST))
        jobs = [(url, batch) for batch in batches for url in urls]
        for (_, batch), result in zip(jobs, self._requests.run(self._send, jobs), strict=True):
            for entry in batch:
                number = int(entry["Id"])
                found = result if isinstance(result, Exception) else result.get(number)
                errors[number] = errors[number] or found
                if isinstance(found, BrokerUnavailable):
                    lost[message_group(entry)] = found

    def close(self) -> None:
        self._requests.close()

    def _send(self, job: tuple[str, list[dict[str, Any]]]) -> dict[int, Exception]:
        url, entries = job
        try:
            answer = self._client.call("send_message_batch", QueueUrl=url, Entries=entries)
        except NoQueue as error:
            self._engine.forget()
            raise BrokerUnavailable(f"{error} The next batch finds or makes it.") from None
        return {int(one["Id"]): _failure(one) for one in answer.get("Failed", ())}


class _SqsReceiver(Receiver):
    def __init__(self, client: SqsClient, url: str, lease: float) -> None:
        self._client = client
        self._url = url
        self._lease = max(1, math.ceil(lease))
        self._requests = _Requests()
        self._closed = threading.Event()

    def take(self, most: int, wait: float) -> list[Taken]:
        deadline = time.monotonic() + wait
        taken: list[Taken] = []
        while not taken and not self._closed.is_set():
            rest = max(0.0, deadline - time.monotonic())
            taken = self._received((min(most, TOGETHER), min(math.ceil(rest), POLL)))
            if time.monotonic() >= deadline:
                break
        if len(taken) == TOGETHER < most:
            taken += self._more(most - TOGETHER)
        if self._closed.is_set():
            self.release(taken)
            return []
        return taken

    def acknowledge(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        late = set(taken) - set(_unexpired(taken))
        lost = set(self._settled("delete_message_batch", taken, None))
        return [one for one in taken if one in late or one in lost]

    def retry(self, taken: Sequence[Taken], delay: float) -> Sequence[Taken]:
        return self._set_visibility(taken, delay)

    def release(self, taken: Sequence[Taken]) -> None:
        try:
            self._set_visibility(taken, 0.0)
        except BrokerError:
            return

    def extend(self, taken: Sequence[Taken]) -> Sequence[Taken]:
        until = time.monotonic() + self._lease
        lost = self._set_visibility(taken, self._lease)
        for one in set(taken) - set(lost):
            one.receipt.until = until
        return lost

    def close(self) -> None:
        self._closed.set()
        self._requests.close()

    def _received(self, request: tuple[int, int]) -> list[Taken]:
        most, wait = request
        now = time.monotonic()
        answer = self._client.call(
            "receive_message",
            QueueUrl=self._url,
            MaxNumberOfMessages=most,
            WaitTimeSeconds=wait,
            VisibilityTimeout=self._lease,
            MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
            MessageAttributeNames=["All"],
        )
        return [_taken(one, now, now + self._lease) for one in answer.get("Messages", ())]

    def _more(self, most: int) -> list[Taken]:
        """Take more messages without waiting, several requests at a time."""
        sizes = [min(TOGETHER, most - start) for start in range(0, most, TOGETHER)]
        results = self._requests.run(self._received, [(size, 0) for size in sizes])
        return [one for part in results if not isinstance(part, Exception) for one in part]

    def _set_visibility(self, taken: Sequence[Taken], seconds: float) -> Sequence[Taken]:
        ours = _unexpired(taken)
        lost = self._settled("change_message_visibility_batch", ours, math.ceil(seconds))
        return [*(set(taken) - set(ours)), *lost]

    def _settled(
        self, operation: str, taken: Sequence[Taken], seconds: int | None
    ) -> Sequence[Taken]:
        """Settle messages; return those for which it failed."""

        def settle(batch: Sequence[Taken]) -> Sequence[Taken]:
            entries: list[dict[str, Any]] = [
                {"Id": str(number), "ReceiptHandle": one.receipt.handle}
                for number, one in enumerate(batch)
            ]
            if seconds is not None:
                for one, entry in zip(batch, entries, strict=True):
                    entry["VisibilityTimeout"] = one.receipt.cut(seconds)
            try:
                answer = self._client.call(operation, QueueUrl=self._url, Entries=entries)
            except Stale:  # of a test server, which refuses all for the sake of one
                if len(batch) == 1:
                    return batch
                return [lost for one in batch for lost in settle([one])]
            return [batch[int(failed["Id"])] for failed in answer.get("Failed", ())]

        batches = [taken[start : start + TOGETHER] for start in range(0, len(taken), TOGETHER)]
        results = self._requests.run(settle, batches)
        errors = [result for result in results if isinstance(result, Exception)]
        if errors and len(errors) == len(batches):
            raise errors[0]
        return [
            one
            for batch, result in zip(batches, results, strict=True)
            for one in (batch if isinstance(result, Exception) else result)
        ]


@dataclass(slots=True)
class _Receipt:
    handle: str
    taken_at: float
    until: float

    def cut(self, seconds: int) -> int:
        """Return the seconds that SQS takes, as the whole time has a limit."""
        return max(0, min(seconds, LONGEST - 1 - math.ceil(time.monotonic() - self.taken_at)))


class _Requests:
    """Sends requests in parallel; a loss of the broker ends those that have not begun."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(PARALLEL, "rxtweets-sqs")

    def run(self, request: Callable[[T], R], items: Sequence[T]) -> list[R | BrokerError]:
        """Return the result or the error of each item."""
        lost: list[BrokerUnavailable] = []

        def one(item: T) -> R | BrokerError:
            if lost:
                return lost[0]
            try:
                return request(item)
            except BrokerUnavailable as error:
                lost.append(error)
                return error
            except BrokerError as error:
                return error

        if len(items) > 1:
            try:
                return list(self._pool.map(one, items))
            except RuntimeError:  # closed
                pass
        return [one(item) for item in items]

    def close(self) -> None:
        self._pool.shutdown(wait=False)


def _failure(failed: dict[str, Any]) -> BrokerError:
    text = f"SQS did not store the message: {failed.get('Code')}: {failed.get('Message', '')}"
    return BrokerError(text) if failed.get("SenderFault") else BrokerUnavailable(text)


def _taken(message: dict[str, Any], now: float, until: float) -> Taken:
    attributes = message.get("MessageAttributes", {})
    texts = {name: one["StringValue"] for name, one in attributes.items() if "StringValue" in one}
    facts = facts_in(texts.pop(ATTRIBUTE, "{}"))
    body = message["Body"].encode()
    system = message.get("Attributes", {})
    sent = system.get("SentTimestamp")
    return Taken(
        facts.get("key", ""),
        base64.b64decode(body) if facts.get("encoding") == "base64" else body,
        {**texts, **facts.get("headers", {})},
        int(system.get("ApproximateReceiveCount", 1)),
        None if sent is None else int(sent) / 1000,
        message["MessageId"],
        _Receipt(message["ReceiptHandle"], now, until),
    )


def _unexpired(taken: Sequence[Taken]) -> list[Taken]:
    now = time.monotonic()
    return [one for one in taken if now < one.receipt.until]
