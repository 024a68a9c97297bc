"""Lines become messages, or one of the other things that X sends.

Five outcomes, none of which ends the stream by accident: a tweet (perhaps with partial errors),
an announced disconnect, a message of a shape that we do not know ("new message types may appear
at any time", X's documentation), a line that is not JSON, and the keep-alive, which the framing
has already taken out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from rxtweets.errors import DecodeError
from rxtweets.message import Message, is_tweet

__all__ = ["Decoded", "Disconnect", "Undecodable", "Unknown", "decode"]

DISCONNECT_TYPES = ("operational-disconnect", "client-disconnected", "streaming-connection")


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A line that is not JSON, with the reason."""

    error: DecodeError


@dataclass(frozen=True, slots=True)
class Unknown:
    """JSON, but no tweet and no disconnect: a new message type, or a problem of another kind."""

    value: Any
    line: bytes


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The server announces that it closes the connection.

    Attributes:
        disconnect_type: such as ``OperationalDisconnect``, ``SlowReader``.
        detail: X's sentence about it.
    """

    disconnect_type: str
    detail: str


@dataclass(slots=True)
class Decoded:
    """What a run of lines held.

    Attributes:
        messages: the tweets, in order.
        others: everything else, in order.
        partial: those of the messages that carry errors about parts of them.
    """

    messages: list[Message[str]]
    others: list[Undecodable | Unknown | Disconnect]
    partial: list[Message[str]]


def decode(lines: Iterable[bytes], received_at: float | None = None) -> Decoded:
    """Decode whole lines; line ends may be on them.

    Args:
        lines: none of them empty.
        received_at: when they were read, in seconds since 1970.
    """
    loads, make = orjson.loads, Message.from_payload
    decoded = Decoded([], [], [])
    add = decoded.messages.append
    for line in lines:
        try:
            payload = loads(line)
        except orjson.JSONDecodeError as error:
            decoded.others.append(Undecodable(DecodeError(f"not JSON: {error}", line)))
            continue
        if not is_tweet(payload):
            decoded.others.append(_other(payload, line))
            continue
        message = make(payload, line, received_at)
        add(message)
        if "errors" in payload:
            decoded.partial.append(message)
    return decoded


def _other(value: Any, line: bytes) -> Disconnect | Unknown:
    if isinstance(value, dict) and not value.get("data"):
        errors = value.get("errors")
        # Seen without the wrapper too: a bare problem object.
        for problem in (*(errors if isinstance(errors, list) else ()), value):
            if isinstance(problem, dict) and _is_disconnect(problem):
                kind = problem.get("disconnect_type") or problem.get("connection_issue")
                detail = problem.get("detail") or problem.get("title") or ""
                return Disconnect(str(kind or problem.get("title") or ""), str(detail))
    return Unknown(value, line)


def _is_disconnect(problem: dict[str, Any]) -> bool:
    """Problem types come under two prefixes, so only their last segment counts."""
    last = str(problem.get("type", "")).rsplit("/", 1)[-1]
    named = problem.get("disconnect_type") or problem.get("connection_issue")
    return bool(named) or last in DISCONNECT_TYPES
