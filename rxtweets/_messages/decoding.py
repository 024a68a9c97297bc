"""Decoding of lines into messages, notices, and lines that are neither.

X's documentation: "new message types may appear at any time". So a line has one of four outcomes:
a message, perhaps with partial errors; an announced disconnect; unknown JSON; not JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from rxtweets._messages.lenient_json import payload_in
from rxtweets._messages.lookup import LookedUp, look_up, quick_look_up
from rxtweets._messages.message import Message, new_message
from rxtweets._messages.payloads import Read, tweet_in
from rxtweets.errors import DecodeError
from rxtweets.errors._redaction import mask

__all__ = [
    "Decoded",
    "Decoder",
    "DisconnectNotice",
    "Undecodable",
    "Unknown",
    "decode",
    "is_strange",
    "other_in",
]

ENDING = {
    "client-disconnected",
    "client-forbidden",
    "operational-disconnect",
    "rate-limit-exceeded",
    "streaming-connection",
    "unsupported-authentication",
    "usage-capped",
}
"""Last segments of the problem types that are about the connection, not about a tweet."""


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A line that is not JSON, with the reason."""

    error: DecodeError


@dataclass(frozen=True, slots=True)
class Unknown:
    """JSON of an unknown shape: a new message type, or a problem of another kind."""

    value: Any
    line: bytes


@dataclass(frozen=True, slots=True)
class DisconnectNotice:
    """The server announces that it closes the connection.

    Attributes:
        disconnect_type: such as ``OperationalDisconnect``, ``SlowReader``.
        detail: X's sentence about it.
        problem: all fields that X sent.
    """

    disconnect_type: str
    detail: str
    problem: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(slots=True)
class Decoded:
    """The outcomes of some lines.

    Attributes:
        messages: the tweets or events, in order.
        others: the other outcomes, in order.
        partial: the messages with errors about parts of them.
    """

    messages: list[Message[Any]] = field(default_factory=list)
    others: list[Undecodable | Unknown | DisconnectNotice] = field(default_factory=list)
    partial: list[Message[Any]] = field(default_factory=list)

    def add(self, message: Message[Any], payload: Mapping[str, Any]) -> None:
        """Add a message, and note whether its payload has partial errors."""
        self.messages.append(message)
        if "errors" in payload:
            self.partial.append(message)


class Decoder:
    """Decodes the lines of one stream; safe for several threads.

    Args:
        read: finds the event in a payload; ``None`` for tweets.
        fast: use msgspec (extra ``fast``) if it is installed.
    """

    def __init__(self, read: Read | None = None, *, fast: bool = False) -> None:
        self._read: Callable[[Any], tuple[object, object] | None] = read or tweet_in
        self._has_tweets = read is None
        self._quick = quick_look_up() if fast and read is None else None

    def look_up(self, lines: Sequence[bytes]) -> LookedUp | None:
        """Find text and id of plain tweets, for a later `decode`; ``None`` for other streams."""
        return (self._quick or look_up)(lines) if self._has_tweets else None

    def decode(
        self,
        lines: Sequence[bytes],
        received_at: float | None = None,
        known: LookedUp | None = None,
    ) -> Decoded:
        """Decode whole lines.

        Args:
            lines: with or without line ends; none of them empty.
            received_at: when they were read, in seconds since 1970.
            known: the result of `look_up` for these lines, if it was called.
        """
        decoded = Decoded()
        if known is None and self._quick is not None:
            known = self._quick(lines)
        if known is None:
            known = [None] * len(lines)
        add = decoded.messages.append
        for line, tweet in zip(lines, known, strict=True):
            if tweet is None:
                self._decode_line(line, received_at, decoded)
            else:
                text, identifier = tweet
                add(new_message(text, identifier, line, received_at, has_received_text=True))
        return decoded

    def _decode_line(self, line: bytes, received_at: float | None, decoded: Decoded) -> None:
        try:
            payload = payload_in(line)
        except orjson.JSONDecodeError as error:
            decoded.others.append(Undecodable(DecodeError(f"not JSON: {error}", line)))
            return
        found = self._read(payload)
        if found is None:
            decoded.others.append(other_in(payload, line))
        else:
            decoded.add(new_message(found[0], found[1], line, received_at), payload)


def decode(
    lines: Sequence[bytes], received_at: float | None = None, read: Read | None = None
) -> Decoded:
    """Decode whole lines by orjson; see `Decoder.decode`."""
    return Decoder(read).decode(lines, received_at)


def other_in(value: Any, line: bytes) -> DisconnectNotice | Unknown:
    """Classify a decoded line without a tweet or event; secrets in it are masked."""
    masked = mask(line)
    if masked is not line:
        line, value = masked, _masked_value(masked)
    if isinstance(value, dict) and not value.get("data"):
        errors = value.get("errors")
        # X sends a problem without the wrapper, too.
        for problem in (*(errors if isinstance(errors, list) else ()), value):
            if isinstance(problem, dict) and _ends_connection(problem):
                kind = problem.get("disconnect_type") or problem.get("connection_issue")
                detail = problem.get("detail") or problem.get("title") or ""
                return DisconnectNotice(
                    str(kind or problem.get("title") or ""), str(detail), problem
                )
    return Unknown(value, line)


def is_strange(other: Undecodable | Unknown | DisconnectNotice) -> bool:
    """Return whether no stream of X begins like this: not JSON, or an error without a message."""
    if isinstance(other, Unknown):
        is_object = isinstance(other.value, dict) and not other.value.get("data")
        return is_object and any(name in other.value for name in ("errors", "error", "title"))
    return isinstance(other, Undecodable)


def _masked_value(masked: bytes) -> Any:
    try:
        return orjson.loads(masked)
    except orjson.JSONDecodeError:  # the secret was a number
        return masked.decode(errors="replace")


def _ends_connection(problem: dict[str, Any]) -> bool:
    # Problem types have one of two prefixes, so only their last segment counts. The body of a
    # refused request can follow a status 200; its own status shows that.
    last = str(problem.get("type", "")).rsplit("/", 1)[-1]
    named = problem.get("disconnect_type") or problem.get("connection_issue")
    status = problem.get("status")
    is_answer = last == "about:blank" and isinstance(status, int) and status >= 400
    return bool(named) or last in ENDING or is_answer
