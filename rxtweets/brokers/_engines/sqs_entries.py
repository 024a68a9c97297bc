"""Messages as entries of requests to SQS."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from typing import Any
from uuid import uuid4

from rxtweets.brokers._engine import Envelope
from rxtweets.errors import BrokerError

__all__ = [
    "ATTRIBUTE",
    "LARGEST",
    "TOGETHER",
    "entry_of",
    "facts_in",
    "message_group",
    "refusal_of",
    "size_of",
    "waves_of",
]

LARGEST = 256 * 1024
"""Bytes of a message, and of a batch. AWS takes more today, but not on queues made before that."""

TOGETHER = 10
"""Messages of a request."""

ATTRIBUTE = "rxtweets"
"""Attribute with key and headers as JSON, as SQS takes ten attributes at most."""

FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def entry_of(number: int, envelope: Envelope, is_fifo: bool) -> dict[str, Any]:
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


def message_group(entry: dict[str, Any]) -> str:
    return str(entry.get("MessageGroupId", entry["Id"]))


def waves_of(entries: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return messages in waves, each with one message of a message group at most.

    SQS may store a part of a request, and requests of a wave are sent at the same time.
    """
    waves: list[list[dict[str, Any]]] = []
    sizes: Counter[str] = Counter()
    for entry in entries:
        group = message_group(entry)
        if sizes[group] == len(waves):
            waves.append([])
        waves[sizes[group]].append(entry)
        sizes[group] += 1
    return waves


def size_of(entry: dict[str, Any]) -> int:
    facts = entry["MessageAttributes"][ATTRIBUTE]
    attribute = len(ATTRIBUTE) + len(facts["DataType"]) + len(facts["StringValue"])
    return len(entry["MessageBody"].encode()) + attribute


def refusal_of(entry: dict[str, Any]) -> BrokerError | None:
    if not entry["MessageBody"]:
        return BrokerError("SQS stores no empty messages")
    if (size := size_of(entry)) > LARGEST:
        return BrokerError(f"a message of {size} bytes: SQS stores {LARGEST} at most")
    return None


def facts_in(text: str) -> dict[str, Any]:
    try:
        facts = json.loads(text)
    except ValueError:
        facts = None
    return facts if isinstance(facts, dict) else {}
