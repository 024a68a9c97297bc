"""The connections that X holds for a token's app: list them, and close them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Unpack

from rxtweets._support.json_objects import object_in, objects_in
from rxtweets._support.timestamps import moment
from rxtweets._support.validation import choice, iterable
from rxtweets.api._client import Rest
from rxtweets.api._endpoints import ENDPOINTS
from rxtweets.api._options import ServerOptions, connection_options, refuse_unknown, with_options_of
from rxtweets.errors import ConfigurationError

__all__ = ["Connections", "HeldConnection", "free_connections"]

PATH = "/2/connections"
PAGE = 100
MOST_IDS = 100
FIELDS = "client_ip,connected_at,disconnect_reason,disconnected_at,endpoint_name,id"


@dataclass(frozen=True, slots=True)
class HeldConnection:
    """A connection in X's list.

    Attributes:
        id: X's id.
        endpoint: name of the stream, such as ``filtered_stream``.
        client_ip: address of the client.
        connected_at: start; ``None`` if X did not say.
        disconnected_at: end; ``None`` while X regards it as active.
        disconnect_reason: X's reason; empty while it is active.
    """

    id: str
    endpoint: str
    client_ip: str
    connected_at: datetime | None
    disconnected_at: datetime | None
    disconnect_reason: str


class Connections:
    """The connections that X holds for the token's app.

    After a power cut or a killed program, X keeps the lost connection for minutes, and refuses the
    next one with ``TooManyConnections``. Close it here, with ``rxtweets connections free``, or with
    ``free_stale_connections=True`` of a stream.

    A retry waits for 5 s at most; if the server asks for more, the request raises its error.

    Args:
        **options: described at `sample_stream`, from ``token`` on.

    Raises:
        ConfigurationError: an option cannot work, or there is no token.

    Source: ``/2/connections`` of X's API v2.
    """

    @with_options_of(connection_options)
    def __init__(self, **options: Unpack[ServerOptions]) -> None:
        refuse_unknown(options, ServerOptions)
        self._rest = Rest(connection_options(**options))

    def list(
        self,
        status: Literal["active", "inactive", "all"] = "active",
        endpoints: Iterable[str] = (),
    ) -> list[HeldConnection]:
        """Return the connections.

        Args:
            status: ``active``, ``inactive`` or ``all``.
            endpoints: names of streams, such as ``filtered_stream``; none for all.

        Raises:
            StreamError: the network failed, or X refused.
        """
        choice("status", status, ("active", "inactive", "all"))
        params = {"status": status, "max_results": str(PAGE), "connection.fields": FIELDS}
        wanted = iterable("endpoints", endpoints, "['filtered_stream']")
        if names := [_checked(endpoint) for endpoint in wanted]:
            params["endpoints"] = ",".join(names)
        pages = self._rest.pages(PATH, params)
        return [_held(value) for page in pages for value in objects_in(page, "data")]

    def free(self, endpoint: str) -> int:
        """Make X close all connections of one stream, also those in use; return their number.

        Raises:
            StreamError: the network failed, or X refused.
        """
        return free_connections(self._rest, endpoint)

    def free_all(self) -> int:
        """Make X close every connection of the app; return their number.

        Raises:
            StreamError: the network failed, or X refused.
        """
        return _closed(self._rest.send("DELETE", f"{PATH}/all", {}))

    def free_ids(self, ids: Iterable[str]) -> int:
        """Make X close these connections, a hundred a request; return how many it closed.

        Raises:
            StreamError: the network failed, or X refused.
        """
        uuids = [str(identifier) for identifier in iterable("ids", ids, "['1', '2']")]
        parts = (uuids[start : start + MOST_IDS] for start in range(0, len(uuids), MOST_IDS))
        return sum(_closed(self._rest.send("DELETE", PATH, {}, {"uuids": part})) for part in parts)


def free_connections(rest: Rest, endpoint: str) -> int:
    """Make X close all connections of one stream; see `Connections.free`."""
    return _closed(rest.send("DELETE", f"{PATH}/{_checked(endpoint)}", {}))


def _checked(endpoint: str) -> str:
    if not isinstance(endpoint, str) or endpoint not in ENDPOINTS:
        names = ", ".join(ENDPOINTS)
        raise ConfigurationError(f"endpoint {endpoint!r} is no stream; X has {names}")
    return endpoint


def _closed(answer: dict[str, Any]) -> int:
    count = object_in(answer, "data").get("successful_kills")
    return int(count) if isinstance(count, (int, str)) and str(count).isdecimal() else 0


def _held(value: dict[str, Any]) -> HeldConnection:
    return HeldConnection(
        id=str(value.get("id") or ""),
        endpoint=str(value.get("endpoint_name") or ""),
        client_ip=str(value.get("client_ip") or ""),
        connected_at=moment(value.get("connected_at")),
        disconnected_at=moment(value.get("disconnected_at")),
        disconnect_reason=str(value.get("disconnect_reason") or ""),
    )
