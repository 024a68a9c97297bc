"""The connections that X holds for a token's app: looked at, and given up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Unpack

from rxtweets._support.timestamps import moment
from rxtweets._support.validation import iterable
from rxtweets.api._client import Rest
from rxtweets.api._endpoints import ENDPOINTS
from rxtweets.api._options import ServerOptions, connection_options
from rxtweets.errors import ConfigurationError

__all__ = ["Connections", "HeldConnection"]

PATH = "/2/connections"
PAGE = 100
MOST_IDS = 100
FIELDS = "client_ip,connected_at,disconnect_reason,disconnected_at,endpoint_name,id"


@dataclass(frozen=True, slots=True)
class HeldConnection:
    """A connection, as X sees it.

    Attributes:
        id: X's.
        endpoint: name of the stream, such as ``filtered_stream``.
        client_ip: where it comes from, as X says it.
        connected_at: when it was made; ``None`` if X did not say.
        disconnected_at: when it ended; ``None`` while X takes it for active.
        disconnect_reason: X's; empty while it is active.
    """

    id: str
    endpoint: str
    client_ip: str
    connected_at: datetime | None
    disconnected_at: datetime | None
    disconnect_reason: str


class Connections:
    """What X holds for the token's app: the cure when it takes a lost connection for a live one.

    Args:
        **options: see `ServerOptions`.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``/2/connections`` of X's API v2.
    """

    def __init__(self, **options: Unpack[ServerOptions]) -> None:
        self._rest = Rest(connection_options(options))

    def list(
        self,
        status: Literal["active", "inactive", "all"] = "active",
        endpoints: Iterable[str] = (),
    ) -> list[HeldConnection]:
        """The connections.

        Args:
            status: ``active``, ``inactive`` or ``all``.
            endpoints: names of streams, such as ``filtered_stream``; none for all.

        Raises:
            StreamError: the network failed, or X refused.
        """
        if status not in {"active", "inactive", "all"}:
            raise ConfigurationError(f"status={status!r}: choose active, inactive or all")
        params = {"status": status, "max_results": str(PAGE), "connection.fields": FIELDS}
        wanted = iterable("endpoints", endpoints, "['filtered_stream']")
        if names := [_checked(endpoint) for endpoint in wanted]:
            params["endpoints"] = ",".join(names)
        return [_held(each) for page in self._rest.pages(PATH, params) for each in _objects(page)]

    def free(self, endpoint: str) -> int:
        """Make X give up all connections of one stream; how many that were.

        It ends those that are in use as well.

        Raises:
            StreamError: the network failed, or X refused.
        """
        return _kills(self._rest.send("DELETE", f"{PATH}/{_checked(endpoint)}", {}))

    def free_all(self) -> int:
        """Make X give up every connection of the app; how many that were.

        Raises:
            StreamError: the network failed, or X refused.
        """
        return _kills(self._rest.send("DELETE", f"{PATH}/all", {}))

    def free_ids(self, ids: Iterable[str]) -> int:
        """Make X give up these connections, a hundred a request; how many it did give up.

        Raises:
            StreamError: the network failed, or X refused.
        """
        uuids = [str(each) for each in iterable("ids", ids, "['1', '2']")]
        return sum(
            _kills(self._rest.send("DELETE", PATH, {}, {"uuids": uuids[start : start + MOST_IDS]}))
            for start in range(0, len(uuids), MOST_IDS)
        )


def _checked(endpoint: str) -> str:
    if not isinstance(endpoint, str) or endpoint not in ENDPOINTS:
        names = ", ".join(ENDPOINTS)
        raise ConfigurationError(f"endpoint {endpoint!r} is no stream; X has {names}")
    return endpoint


def _kills(answer: dict[str, Any]) -> int:
    data = answer.get("data")
    count = data.get("successful_kills") if isinstance(data, dict) else None
    return int(count) if isinstance(count, (int, str)) and str(count).isdecimal() else 0


def _objects(page: dict[str, Any]) -> Sequence[dict[str, Any]]:
    data = page.get("data")
    return [each for each in data if isinstance(each, dict)] if isinstance(data, Sequence) else ()


def _held(value: dict[str, Any]) -> HeldConnection:
    return HeldConnection(
        id=str(value.get("id") or ""),
        endpoint=str(value.get("endpoint_name") or ""),
        client_ip=str(value.get("client_ip") or ""),
        connected_at=moment(value.get("connected_at")),
        disconnected_at=moment(value.get("disconnected_at")),
        disconnect_reason=str(value.get("disconnect_reason") or ""),
    )
