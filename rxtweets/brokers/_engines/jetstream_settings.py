"""Settings of streams and consumers of JetStream that lose messages."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from rxtweets.errors import QueueSettingsError

__all__ = ["check_consumer", "check_stream"]


def check_stream(config: Any, where: str, groups: Collection[str], replicas: int) -> None:
    """Check a stream that exists.

    Args:
        config: a ``StreamConfig`` of nats-py.
        where: names the stream in errors.
        groups: those that exist, and those that are to be created.
        replicas: wanted at least.

    Raises:
        QueueSettingsError: it can lose messages, or keeps all for ever.
    """
    retention, per_subject = config.retention, config.max_msgs_per_subject
    is_limited = max(config.max_msgs or 0, config.max_bytes or 0, per_subject) > 0
    discards = config.discard != "new" or (per_subject > 0 and not config.discard_new_per_subject)
    fewer = f"set it to {replicas}, or give a smaller ?replicas=... in the URL"
    one_group = (
        f"such a stream has one group, not {', '.join(sorted(groups))}; delete it when it is "
        "empty, and name all groups in connect(groups=[...])"
    )
    _refuse(
        f"{where}: the stream",
        [
            (retention not in {"workqueue", "interest"}, "retention", retention, "delete it"),
            (config.storage != "file", "storage", config.storage, "use file"),
            (bool(config.max_age), "max_age", config.max_age, "set it to 0"),
            (is_limited and discards, "discard", config.discard, "use new, or remove the limits"),
            (bool(config.no_ack), "no_ack", True, "set it to false"),
            (config.persist_mode == "async", "persist_mode", "async", "use default"),
            (config.num_replicas < replicas, "num_replicas", config.num_replicas, fewer),
            (retention == "workqueue" and len(groups) > 1, "retention", retention, one_group),
            (
                retention == "interest" and not groups,
                "retention",
                retention,
                "without a group it drops all messages; name groups in connect(groups=[...])",
            ),
        ],
    )


def check_consumer(config: Any, where: str, subject: str) -> None:
    """Check the consumer of a group.

    Args:
        config: a ``ConsumerConfig`` of nats-py.
        where: names the consumer in errors.
        subject: to which messages are published.

    Raises:
        QueueSettingsError: it can lose messages.
    """
    limit, threshold = config.max_deliver, config.inactive_threshold
    filters = [*filter(None, [config.filter_subject]), *(config.filter_subjects or ())]
    is_filtered = bool(filters) and not any(_covers(one, subject) for one in filters)
    _refuse(
        f"{where}: the consumer",
        [
            (config.ack_policy != "explicit", "ack_policy", config.ack_policy, "use explicit"),
            (bool(config.deliver_subject), "deliver_subject", config.deliver_subject, "remove it"),
            (limit is not None and limit > 0, "max_deliver", limit, "set it to -1"),
            (bool(threshold), "inactive_threshold", threshold, "set it to 0"),
            (is_filtered, "filter_subject", ",".join(filters), f"remove it, or add {subject!r}"),
            (bool(config.headers_only), "headers_only", True, "set it to false"),
        ],
    )


def _covers(pattern: str, subject: str) -> bool:
    """Return whether a filter of JetStream passes a subject."""
    parts = {"*": "[^.]+", ">": ".+"}
    wanted = r"\.".join(parts.get(part, re.escape(part)) for part in pattern.split("."))
    return re.fullmatch(wanted, subject) is not None


def _refuse(what: str, faults: list[tuple[bool, str, object, str]]) -> None:
    for is_fault, name, value, remedy in faults:
        if is_fault:
            raise QueueSettingsError(
                f"{what} has {name}={value}, which can lose messages: {remedy}"
            )
