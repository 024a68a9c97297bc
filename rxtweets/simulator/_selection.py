"""Which frames a connection gets: its partition, its language, its rules."""

from __future__ import annotations

from typing import Any

import orjson

from rxtweets.api._endpoints import Endpoint
from rxtweets.simulator._ruleset import Ruleset

__all__ = ["Selection"]


class Selection:
    """Chooses frames for one connection; see `tapes.Select`.

    What is no tweet, as the blank and broken lines and the notices of a recording, passes.

    Args:
        endpoint: the stream.
        partition: 1 to so many, where positions are shared out among partitions; else ``None``.
        rules: of the filtered stream; ``None`` for others.
        period: after how many positions texts come round again, so that each is looked at once;
            0 if they do not.
    """

    def __init__(
        self, endpoint: Endpoint, partition: int | None, rules: Ruleset | None, period: int
    ) -> None:
        self._lang = endpoint.lang
        self._partition = partition
        self._partitions = endpoint.partitions
        self._rules = rules
        self._period = period
        self._known: dict[int, bytes | None] = {}
        self._version = -1

    def __call__(self, position: int, frame: bytes) -> bytes | None:
        """The frame as the connection gets it, if it does."""
        if self._partition is not None and position % self._partitions != self._partition - 1:
            return None
        if not self._lang and self._rules is None:
            return frame
        ending = self._ending(position, frame)
        if not ending:
            return None if ending is None else frame
        if RULES_OF_OLD in frame:
            frame = _without_rules(frame)
        return frame.rstrip()[:-1] + ending

    def _ending(self, position: int, frame: bytes) -> bytes | None:
        """What replaces the frame's last brace; empty for nothing, ``None`` to leave it out."""
        if self._rules is not None and self._rules.version != self._version:
            self._version = self._rules.version
            self._known.clear()
        if not self._period:
            return self._look(frame)
        place = position % self._period
        if place not in self._known:
            self._known[place] = self._look(frame)
        return self._known[place]

    def _look(self, frame: bytes) -> bytes | None:
        payload = _tweet(frame)
        if payload is None:
            return b""
        if self._lang and payload["data"].get("lang") != self._lang:
            return None
        if self._rules is None:
            return b""
        matching = self._rules.matching(payload)
        return b',"matching_rules":' + orjson.dumps(matching) + b"}" if matching else None


RULES_OF_OLD = b'"matching_rules"'


def _tweet(frame: bytes) -> dict[str, Any] | None:
    """The frame decoded; ``None`` if it is something else, which recordings have too."""
    try:
        payload = orjson.loads(frame)
    except orjson.JSONDecodeError:
        return None
    has_tweet = isinstance(payload, dict) and isinstance(payload.get("data"), dict)
    return payload if has_tweet else None


def _without_rules(frame: bytes) -> bytes:
    """A recorded frame without the rules of its time."""
    payload: dict[str, Any] = orjson.loads(frame)
    payload.pop("matching_rules", None)
    return orjson.dumps(payload)
