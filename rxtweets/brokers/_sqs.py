"""Queues on Amazon SQS."""

from __future__ import annotations

import base64
import json
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

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
from rxtweets.brokers._shards import ShardReceiver
from rxtweets.errors import BrokerError, BrokerUnavailable, ConfigurationError, QueueSettingsError

__all__ = ["SqsEngine"]

T = TypeVar("T")
R = TypeVar("R")

DAYS = 14
"""Longest retention that SQS offers."""

LONGEST = 12 * 3600
"""Seconds from its delivery for which a message can be invisible."""

LARGEST = 256 * 1024
"""Bytes of a message, and of a batch. AWS takes more today, but not on queues made before that."""

TOGETHER = 10
"""Messages of a request."""

PARALLEL = 8
"""Requests of a sender or receiver at the same time."""

MOST_RECEIVES = 1000
"""Highest limit of deliveries that SQS takes."""

POLL = 2
"""Seconds of one long poll; `close` waits for its end."""

NEWS = 60.0
"""Seconds until a sender looks for groups of other processes."""

TAG = "rxtweets-queue"
"""Tag of each queue: the queue whose group it is, as names alone do not tell."""

ATTRIBUTE = "rxtweets"
"""Attribute with key and headers as JSON, as SQS takes ten attributes at most."""

FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
NAME = re.compile(r"([A-Za-z0-9_-]+?)(\.fifo)?")
REGION = re.compile(r"[a-z]+(-[a-z]+)+-[0-9]+")
NO_QUEUE = {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}
BUSY = {"OverLimit", "RequestThrottled", "Throttling", "ThrottlingException", "SlowDown"}
STALE = {"ReceiptHandleIsInvalid", "InvalidParameterValue", "MessageNotInflight"}


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

    def __init__(self, address: Address, client: _Client | None = None) -> None:
        address.check_options(("region", "retention"))
        match = NAME.fullmatch(address.path)
        if match is None:
            raise ConfigurationError(f"{address}: give the queue letters, digits, - and _")
        self.queue = address.path
        self._base, self._suffix = match[1], match[2] or ""
        self.no_shards = "" if self._suffix else "standard queues have no order, so name it *.fifo"
        self._days = _days(address)
        self._address = address
        self._client = client or _Client(address)
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
            return all([self._has(group) for group in groups])
        prefix = f"{self._base}-"
        return any(self._owner(url) == self.queue for url in self._listed(prefix))

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
        except _NoQueue:
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
    def __init__(self, engine: SqsEngine, client: _Client) -> None:
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
        entries = [_entry(number, one, is_fifo) for number, one in enumerate(envelopes)]
        errors: list[Exception | None] = [_refusal(entry) for entry in entries]
        lost: dict[str, BrokerUnavailable] = {}
        for wave in _waves([one for one, error in zip(entries, errors, strict=True) if not error]):
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
            errors[int(entry["Id"])] = lost.get(_message_group(entry))
        batches = list(_batches([one for one in wave if _message_group(one) not in lost]))
        jobs = [(url, batch) for batch in batches for url in urls]
        for (_, batch), result in zip(jobs, self._requests.run(self._send, jobs), strict=True):
            for entry in batch:
                number = int(entry["Id"])
                found = result if isinstance(result, Exception) else result.get(number)
                errors[number] = errors[number] or found
                if isinstance(found, BrokerUnavailable):
                    lost[_message_group(entry)] = found

    def close(self) -> None:
        self._requests.close()

    def _send(self, job: tuple[str, list[dict[str, Any]]]) -> dict[int, Exception]:
        url, entries = job
        try:
            answer = self._client.call("send_message_batch", QueueUrl=url, Entries=entries)
        except _NoQueue as error:
            self._engine.forget()
            raise BrokerUnavailable(f"{error} The next batch finds or makes it.") from None
        return {int(one["Id"]): _failure(one) for one in answer.get("Failed", ())}


class _SqsReceiver(Receiver):
    def __init__(self, client: _Client, url: str, lease: float) -> None:
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
            except _Stale:  # of a test server, which refuses all for the sake of one
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


class _NoQueue(BrokerError):
    """The queue does not exist."""


class _Stale(BrokerError):
    """A receipt is no longer valid."""


class _Client:
    """The client of boto3, made by the first request; its errors are those of rxtweets."""

    def __init__(self, address: Address) -> None:
        self._boto3 = needed("boto3", "sqs")
        self._botocore = needed("botocore", "sqs")
        self._options = _client_options(address)
        self._lock = threading.Lock()
        self._made: Any = None

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        errors = self._botocore.exceptions
        try:
            client = self._ready()
            try:
                return dict(getattr(client, operation)(**parameters))
            except errors.ClientError as error:
                if not _is_busy(error):
                    raise
                time.sleep(0.2)
                return dict(getattr(client, operation)(**parameters))
        except errors.ClientError as error:
            self._raise_refused(operation, error)
        except (
            errors.ConnectionError,
            errors.HTTPClientError,
            self._botocore.parsers.ResponseParserError,
        ) as error:
            raise BrokerUnavailable(f"SQS at {self._host()}: {operation}: {error}") from None
        except errors.BotoCoreError as error:
            raise BrokerError(f"SQS at {self._host()}: {operation}: {error}") from None

    def close(self) -> None:
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.close()

    def _ready(self) -> Any:
        with self._lock:
            if self._made is None:
                config = needed("botocore.config", "sqs").Config(
                    connect_timeout=3,
                    read_timeout=6,
                    retries={"mode": "standard", "total_max_attempts": 1},
                    max_pool_connections=4 * PARALLEL,
                    tcp_keepalive=True,
                )
                session = self._boto3.session.Session()  # the common one is not thread-safe
                self._made = session.client("sqs", config=config, **self._options)
            return self._made

    def _host(self) -> str:
        """Return host and port without any credentials."""
        endpoint = self._made.meta.endpoint_url if self._made else self._options.get("endpoint_url")
        parts = urlsplit(endpoint or f"https://{self._options['region_name']}")
        return f"{parts.hostname}:{parts.port or (80 if parts.scheme == 'http' else 443)}"

    def _raise_refused(self, operation: str, error: Any) -> NoReturn:
        found = error.response.get("Error", {})
        code = str(found.get("Code"))
        text = f"SQS at {self._host()}: {operation}: {code}: {found.get('Message', '')}"
        if code in NO_QUEUE:
            raise _NoQueue(text) from None
        if code in STALE:
            raise _Stale(text) from None
        if _is_busy(error) or "Deleted" in code:
            raise BrokerUnavailable(text) from None
        raise BrokerError(text) from None


def _is_busy(error: Any) -> bool:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500 or error.response.get("Error", {}).get("Code") in BUSY


def _client_options(address: Address) -> dict[str, Any]:
    if address.user or address.password:
        raise ConfigurationError(f"{address}: give credentials in the environment, as for boto3")
    if len(address.hosts) != 1:
        raise ConfigurationError(f"{address}: give a region, as sqs://eu-west-1/tweets")
    [(host, port)] = address.hosts
    if port is None:
        if not REGION.fullmatch(host) or "region" in address.options:
            raise ConfigurationError(
                f"{address}: give a region, as sqs://eu-west-1/tweets, or host and port of a test "
                "server, as sqs://127.0.0.1:15000/tweets?region=us-east-1"
            )
        return {"region_name": host}
    shown = f"[{host}]" if ":" in host else host
    return {
        "endpoint_url": f"http://{shown}:{port}",
        "region_name": address.options.get("region", "us-east-1"),
    }


def _days(address: Address) -> int:
    text = address.options.get("retention", str(DAYS))
    if not text.isdecimal() or not 1 <= int(text) <= DAYS:
        raise ConfigurationError(f"{address}: retention={text!r}: give days from 1 to {DAYS}")
    return int(text)


def _entry(number: int, envelope: Envelope, is_fifo: bool) -> dict[str, Any]:
    facts: dict[str, object] = {"key": envelope.key, "headers": dict(envelope.headers)}
    try:
        text = envelope.body.decode()
        is_text = FORBIDDEN.search(text) is None
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        text = base64.b64encode(envelope.body).decode()
        facts["encoding"] = "base64"
    attribute = {"DataType": "String", "StringValue": json.dumps(facts)}
    entry = {"Id": str(number), "MessageBody": text, "MessageAttributes": {ATTRIBUTE: attribute}}
    if is_fifo:
        key = envelope.key or uuid4().hex
        entry["MessageGroupId"] = _digest(envelope.shard or key)
        entry["MessageDeduplicationId"] = _digest(key)
    return entry


def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def _message_group(entry: dict[str, Any]) -> str:
    return str(entry.get("MessageGroupId", entry["Id"]))


def _waves(entries: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return messages in waves, each with one message of a message group at most.

    SQS may store a part of a request, and requests of a wave are sent at the same time.
    """
    waves: list[list[dict[str, Any]]] = []
    sizes: Counter[str] = Counter()
    for entry in entries:
        group = _message_group(entry)
        if sizes[group] == len(waves):
            waves.append([])
        waves[sizes[group]].append(entry)
        sizes[group] += 1
    return waves


def _size(entry: dict[str, Any]) -> int:
    facts = entry["MessageAttributes"][ATTRIBUTE]
    attribute = len(ATTRIBUTE) + len(facts["DataType"]) + len(facts["StringValue"])
    return len(entry["MessageBody"].encode()) + attribute


def _refusal(entry: dict[str, Any]) -> BrokerError | None:
    if not entry["MessageBody"]:
        return BrokerError("SQS stores no empty messages")
    if (size := _size(entry)) > LARGEST:
        return BrokerError(f"a message of {size} bytes: SQS stores {LARGEST} at most")
    return None


def _batches(entries: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    total = 0
    for entry in entries:
        size = _size(entry)
        if batch and (len(batch) == TOGETHER or total + size > LARGEST):
            yield batch
            batch, total = [], 0
        batch.append(entry)
        total += size
    if batch:
        yield batch


def _failure(failed: dict[str, Any]) -> BrokerError:
    text = f"SQS did not store the message: {failed.get('Code')}: {failed.get('Message', '')}"
    return BrokerError(text) if failed.get("SenderFault") else BrokerUnavailable(text)


def _taken(message: dict[str, Any], now: float, until: float) -> Taken:
    attributes = message.get("MessageAttributes", {})
    texts = {name: one["StringValue"] for name, one in attributes.items() if "StringValue" in one}
    facts = _facts(texts.pop(ATTRIBUTE, "{}"))
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


def _facts(text: str) -> dict[str, Any]:
    try:
        facts = json.loads(text)
    except ValueError:
        facts = None
    return facts if isinstance(facts, dict) else {}


def _unexpired(taken: Sequence[Taken]) -> list[Taken]:
    now = time.monotonic()
    return [one for one in taken if now < one.receipt.until]
