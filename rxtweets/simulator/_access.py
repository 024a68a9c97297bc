"""Who may come in: the token, so many streams at a time, so many requests in a window."""

from __future__ import annotations

import hmac
import math
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from rxtweets.api._endpoints import ENDPOINTS
from rxtweets.simulator import script
from rxtweets.simulator.script import Reply

__all__ = ["Gate", "Slot"]

GRACE = 0.5
"""Seconds in which the end of a token's old connection is awaited before a new one is refused."""

STATUSES = ("active", "inactive", "all")

MOST_IDS = 100
"""Connections that a request may name."""

KEPT = 1_000
"""Connections that are remembered after their end."""

MOST_IDS = 100
"""Of connections that one request may end."""


@dataclass(eq=False)
class Slot:
    """A stream that a token holds.

    Attributes:
        key: what may be held only so many times.
        endpoint: name of the stream.
        client_ip: where the client is.
        kill: ends the connection.
    """

    key: tuple[str, str, str]
    endpoint: str
    client_ip: str
    kill: Callable[[], None]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    connected_at: float = field(default_factory=time.time)
    disconnected_at: float | None = None
    reason: str = ""

    def shown(self) -> dict[str, Any]:
        """As the connections API shows it."""
        shown = {
            "id": self.id,
            "endpoint_name": self.endpoint,
            "client_ip": self.client_ip,
            "connected_at": _stamp(self.connected_at),
        }
        if self.disconnected_at is not None:
            ended = {"disconnected_at": _stamp(self.disconnected_at)}
            shown |= {**ended, "disconnect_reason": self.reason}
        return shown


class Gate:
    """Knows tokens, what they hold, and what they have used up; from any thread.

    Args:
        token: the only one that is accepted; ``None`` for any.
        most: streams that a token may hold of one endpoint and partition.
        window: seconds.
        forget: seconds for which a connection whose end was not noticed is held yet.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        token: str | None,
        most: int,
        window: float,
        forget: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._token = token
        self._most = most
        self._window = window
        self._forget = forget
        self._clock = clock
        self._changed = threading.Condition()
        self._held: list[Slot] = []
        self._ended: deque[Slot] = deque(maxlen=KEPT)
        self._budgets: dict[tuple[str, str], _Budget] = {}

    def token_of(self, headers: Mapping[str, str]) -> str | None:
        """The token of a request, if it is accepted."""
        match = re.fullmatch(r"Bearer (\S+)", headers.get("authorization", ""))
        if match is None:
            return None
        wanted = self._token
        accepted = wanted is None or hmac.compare_digest(match[1].encode(), wanted.encode())
        return match[1] if accepted else None

    def spend(self, token: str, what: str, limit: int) -> Reply | None:
        """Count a request; says no when there were more than ``limit`` in the window."""
        with self._changed:
            budget = self._budgets.get((token, what))
            if budget is None or self._clock() >= budget.reset:
                budget = self._budgets[token, what] = _Budget(limit, self._clock() + self._window)
            budget.used += 1
            if budget.used <= budget.limit:
                return None
            return script.rate_limited(math.ceil(budget.reset))

    def hold(self, slot: Slot) -> Reply | None:
        """Let a token hold one more stream; says no when it holds as many as it may."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_room_awaited(slot), GRACE)
            if not self._has_room(slot):
                return script.too_many_connections()
            slot.connected_at = self._clock()
            self._held.append(slot)
            return None

    def leave(self, slot: Slot, reason: str, *, unnoticed: bool) -> None:
        """The connection is over; if that goes unnoticed, it is held for a while yet."""
        with self._changed:
            slot.reason = slot.reason or reason
            if unnoticed and self._forget and not slot.disconnected_at:
                slot.disconnected_at = self._clock() + self._forget
                return
            self._drop(slot)

    def headers(self, token: str, what: str) -> dict[str, str]:
        """What X says about the window with every answer, after `spend`."""
        with self._changed:
            budget = self._budgets[token, what]
            return {
                "x-rate-limit-limit": str(budget.limit),
                "x-rate-limit-remaining": str(max(0, budget.limit - budget.used)),
                "x-rate-limit-reset": str(math.ceil(budget.reset)),
            }

    def connections(self, token: str, query: Mapping[str, str]) -> Reply:
        """`GET /2/connections`."""
        names = [name for name in query.get("endpoints", "").split(",") if name]
        status = query.get("status", "active")
        for parameter, given, known in (
            ("status", [status], STATUSES),
            ("endpoints", names, tuple(ENDPOINTS)),
        ):
            for each in given:
                if each not in known:
                    return _unknown(parameter, each, known)
        with self._changed:
            self._forget_the_vanished()
            # One that vanished is active in X's eyes: it has no end yet.
            active = [(slot, _active(slot)) for slot in self._held]
            ended = [(slot, slot.shown()) for slot in self._ended]
        chosen = {"active": active, "inactive": ended, "all": active + ended}[status]
        data = [
            shown
            for slot, shown in chosen
            if slot.key[0] == token and (not names or slot.endpoint in names)
        ]
        return Reply(200, {**({"data": data} if data else {}), "meta": {"result_count": len(data)}})

    def give_up(self, token: str, path_end: str, body: bytes) -> Reply:
        """`DELETE /2/connections/…`: all, an endpoint's, or those with the ids of the body."""
        ids = [] if path_end else _ids(body)
        if ids is None:
            text = "The `uuids` of the body must be a list of 1 to 100 ids"
            return script.invalid_request("uuids", "", text)
        if path_end and path_end != "all" and path_end not in ENDPOINTS:
            return _unknown("endpoint_id", path_end, tuple(ENDPOINTS))
        with self._changed:
            own = [slot for slot in self._held if slot.key[0] == token]
            if path_end == "all":
                chosen = own
            elif path_end:
                chosen = [slot for slot in own if slot.endpoint == path_end]
            else:
                chosen = [slot for slot in own if slot.id in ids]
            for slot in chosen:
                slot.reason = "operator_disconnect"
                self._drop(slot)
        for slot in chosen:
            slot.kill()
        known = [slot.id for slot in chosen]
        results = [{"uuid": each, "success": True} for each in known]
        results += [{"uuid": each, "success": False} for each in ids if each not in known]
        failed = len(results) - len(known)
        data = {"successful_kills": len(known), "failed_kills": failed, "results": results}
        return Reply(200, {"data": data})

    def _has_room(self, slot: Slot) -> bool:
        self._forget_the_vanished()
        return sum(held.key == slot.key for held in self._held) < self._most

    def _is_room_awaited(self, slot: Slot) -> bool:
        """Whether there is none yet, and a connection that is just being closed may make some."""
        own = [held for held in self._held if held.key == slot.key]
        return not self._has_room(slot) and any(held.disconnected_at is None for held in own)

    def _forget_the_vanished(self) -> None:
        now = self._clock()
        for slot in list(self._held):
            if slot.disconnected_at is not None and slot.disconnected_at <= now:
                self._drop(slot)

    def _drop(self, slot: Slot) -> None:
        if slot in self._held:
            self._held.remove(slot)
            slot.disconnected_at = self._clock()
            self._ended.append(slot)
            self._changed.notify_all()


@dataclass
class _Budget:
    limit: int
    reset: float
    used: int = 0


def _ids(body: bytes) -> list[str] | None:
    """The ids in the body of a request, each once; ``None`` if it is not as it must be."""
    try:
        ids = orjson.loads(body)["uuids"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    if not isinstance(ids, list) or not 1 <= len(ids) <= MOST_IDS:
        return None
    return list(dict.fromkeys(ids)) if all(isinstance(each, str) for each in ids) else None


def _unknown(parameter: str, value: str, known: Sequence[str]) -> Reply:
    text = f"The `{parameter}` query parameter value [{value}] is not one of [{','.join(known)}]"
    return script.invalid_request(parameter, value, text)


def _active(slot: Slot) -> dict[str, Any]:
    shown = slot.shown()
    return {name: shown[name] for name in ("id", "endpoint_name", "client_ip", "connected_at")}


def _stamp(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.000Z"
