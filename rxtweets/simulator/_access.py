"""Access: tokens, the streams that they hold, and their requests in a window."""

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

from rxtweets._support.json_objects import parsed_object
from rxtweets.api._endpoints import ENDPOINTS
from rxtweets.simulator import script
from rxtweets.simulator.script import Reply

__all__ = ["Access", "Slot"]

GRACE = 0.5
"""Seconds to wait for the end of a token's old connection before a new one is refused."""

STATUSES = ("active", "inactive", "all")

MOST_KILLED = 100
"""Connections that one request may end by their ids."""

KEPT_SLOTS = 1_000
"""Ended connections that the API lists."""


@dataclass(eq=False)
class Slot:
    """A stream that a token holds.

    Attributes:
        key: token, endpoint and partition; the number of slots of a key is limited.
        endpoint: name of the stream.
        client_ip: address of the client.
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

    def as_json(self, *, with_end: bool = True) -> dict[str, str]:
        """Return the connection as X's API shows it."""
        shown = {
            "id": self.id,
            "endpoint_name": self.endpoint,
            "client_ip": self.client_ip,
            "connected_at": _stamp(self.connected_at),
        }
        if with_end and self.disconnected_at is not None:
            shown["disconnected_at"] = _stamp(self.disconnected_at)
            shown["disconnect_reason"] = self.reason
        return shown


class Access:
    """Checks tokens, connection limits and rate limits; from any thread.

    Args:
        token: the only accepted one; ``None`` for any.
        most: streams of one endpoint and partition that a token may hold.
        window: of the rate limits, in seconds.
        forget_after: seconds for which a connection is held after an unnoticed end.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        token: str | None,
        most: int,
        window: float,
        forget_after: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._token = token
        self._most = most
        self._window = window
        self._forget_after = forget_after
        self._clock = clock
        self._changed = threading.Condition()
        self._held: list[Slot] = []
        self._ended: deque[Slot] = deque(maxlen=KEPT_SLOTS)
        self._budgets: dict[tuple[str, str], _Budget] = {}

    def token_of(self, headers: Mapping[str, str]) -> str | None:
        """Return the token of a request; ``None`` if it is not accepted."""
        match = re.fullmatch(r"Bearer (\S+)", headers.get("authorization", ""))
        if match is None:
            return None
        token, wanted = match[1], self._token
        if wanted is None or hmac.compare_digest(token.encode(), wanted.encode()):
            return token
        return None

    def spend(self, token: str, resource: str, limit: int) -> Reply | None:
        """Count a request; return a refusal if the window had ``limit`` of them before."""
        with self._changed:
            budget = self._budgets.get((token, resource))
            if budget is None or self._clock() >= budget.reset:
                budget = self._budgets[token, resource] = _Budget(
                    limit, self._clock() + self._window
                )
            budget.used += 1
            if budget.used <= budget.limit:
                return None
            return script.rate_limited(math.ceil(budget.reset))

    def hold(self, slot: Slot) -> Reply | None:
        """Hold one more stream; return a refusal if the token is at its limit."""
        with self._changed:
            self._changed.wait_for(lambda: not self._may_get_room(slot), GRACE)
            if not self._has_room(slot):
                return script.too_many_connections()
            slot.connected_at = self._clock()
            self._held.append(slot)
            return None

    def release(self, slot: Slot, reason: str, *, unnoticed: bool) -> None:
        """End a connection; after an unnoticed end it is held for some time."""
        with self._changed:
            slot.reason = slot.reason or reason
            if unnoticed and self._forget_after and not slot.disconnected_at:
                slot.disconnected_at = self._clock() + self._forget_after
                return
            self._drop(slot)

    def headers(self, token: str, resource: str) -> dict[str, str]:
        """Return the rate limit headers, after `spend`."""
        with self._changed:
            budget = self._budgets[token, resource]
            return {
                "x-rate-limit-limit": str(budget.limit),
                "x-rate-limit-remaining": str(max(0, budget.limit - budget.used)),
                "x-rate-limit-reset": str(math.ceil(budget.reset)),
            }

    def connections(self, token: str, query: Mapping[str, str]) -> Reply:
        """Answer ``GET /2/connections``."""
        names = [name for name in query.get("endpoints", "").split(",") if name]
        status = query.get("status", "active")
        if status not in STATUSES:
            return _unknown("status", status, STATUSES)
        for name in names:
            if name not in ENDPOINTS:
                return _unknown("endpoints", name, tuple(ENDPOINTS))
        with self._changed:
            self._drop_forgotten()
            # A connection whose end X has not noticed is active.
            active = [(slot, slot.as_json(with_end=False)) for slot in self._held]
            ended = [(slot, slot.as_json()) for slot in self._ended]
        chosen = {"active": active, "inactive": ended, "all": active + ended}[status]
        data = [
            shown
            for slot, shown in chosen
            if slot.key[0] == token and (not names or slot.endpoint in names)
        ]
        return Reply(200, {**({"data": data} if data else {}), "meta": {"result_count": len(data)}})

    def kill(self, token: str, which: str, body: bytes) -> Reply:
        """Answer ``DELETE /2/connections/WHICH``: all, an endpoint's, or the ids of the body."""
        ids = [] if which else _ids(body)
        if ids is None:
            text = f"The `uuids` of the body must be a list of 1 to {MOST_KILLED} ids"
            return script.invalid_request("uuids", "", text)
        if which and which != "all" and which not in ENDPOINTS:
            return _unknown("endpoint_id", which, tuple(ENDPOINTS))
        with self._changed:
            chosen = [
                slot
                for slot in self._held
                if slot.key[0] == token and (which in {"all", slot.endpoint} or slot.id in ids)
            ]
            for slot in chosen:
                slot.reason = "operator_disconnect"
                self._drop(slot)
        for slot in chosen:
            slot.kill()
        killed = [slot.id for slot in chosen]
        results = [{"uuid": id_, "success": True} for id_ in killed]
        results += [{"uuid": id_, "success": False} for id_ in ids if id_ not in killed]
        failed = len(results) - len(killed)
        data = {"successful_kills": len(killed), "failed_kills": failed, "results": results}
        return Reply(200, {"data": data})

    def _has_room(self, slot: Slot) -> bool:
        self._drop_forgotten()
        return sum(held.key == slot.key for held in self._held) < self._most

    def _may_get_room(self, slot: Slot) -> bool:
        own = [held for held in self._held if held.key == slot.key]
        return not self._has_room(slot) and any(held.disconnected_at is None for held in own)

    def _drop_forgotten(self) -> None:
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
    ids = parsed_object(body).get("uuids")
    if not isinstance(ids, list) or not 1 <= len(ids) <= MOST_KILLED:
        return None
    return list(dict.fromkeys(ids)) if all(isinstance(id_, str) for id_ in ids) else None


def _unknown(parameter: str, value: str, known: Sequence[str]) -> Reply:
    text = f"The `{parameter}` query parameter value [{value}] is not one of [{','.join(known)}]"
    return script.invalid_request(parameter, value, text)


def _stamp(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.000Z"
