"""Lines become messages, or one of the other things that X sends.

Five outcomes, none of which ends the stream by accident: a tweet (perhaps with partial errors),
an announced disconnect, a message of a shape that we do not know ("new message types may appear
at any time", X's documentation), a line that is not JSON, and the keep-alive, which the framing
has already taken out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from rxtweets._messages.lookup import Known, LookUp
from rxtweets._messages.message import (
    Interest,
    Message,
    metadata_in,
    payload_in,
    read_again,
    tweet_message,
)
from rxtweets._messages.payloads import Read
from rxtweets.errors import DecodeError
from rxtweets.errors._redaction import mask

__all__ = ["Decoded", "Disconnect", "Undecodable", "Unknown", "decode", "is_strange", "other_in"]

ENDING = {
    "client-disconnected",
    "client-forbidden",
    "operational-disconnect",
    "rate-limit-exceeded",
    "streaming-connection",
    "unsupported-authentication",
    "usage-capped",
}
"""Last segments of the problem types that are about the whole connection, not about a tweet."""


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
        problem: all that X said.
    """

    disconnect_type: str
    detail: str
    problem: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(slots=True)
class Decoded:
    """What a run of lines held.

    Attributes:
        messages: the tweets or events, in order.
        others: everything else, in order.
        partial: those of the messages that carry errors about parts of them.
    """

    messages: list[Message[Any]]
    others: list[Undecodable | Unknown | Disconnect]
    partial: list[Message[Any]]


def decode(
    lines: Sequence[bytes],
    received_at: float | None = None,
    read: Read | None = None,
    known: Known | None = None,
    interest: Interest | None = None,
    look_up: LookUp | None = None,
) -> Decoded:
    """Decode whole lines; line ends may be on them.

    Args:
        lines: none of them empty.
        received_at: when they were read, in seconds since 1970.
        read: for streams that carry something else than tweets.
        known: what `peeking.look_up` has found in these lines, if it was asked.
        interest: in the metadata of the messages.
        look_up: quicker than decoding whole lines; where nothing is known yet.
    """
    decoded = Decoded([], [], [])
    if read is not None:
        _decode_events(lines, received_at, read, decoded)
        return decoded
    if interest is not None:
        interest.made(len(lines))
    keeping = None
    if look_up is None:
        keeping = interest if interest is not None and interest.keeps else None
    elif known is None:
        known = look_up(lines)  # and to decode a line later costs less than to keep it
    if known is None:
        _decode_tweets(lines, received_at, interest, keeping, decoded)
        return decoded
    add = decoded.messages.append
    for line, found in zip(lines, known, strict=True):
        if found is None:
            _decode_tweets([line], received_at, interest, keeping, decoded)
        else:
            add(tweet_message(found[0], found[1], line, received_at, interest))
    return decoded


def _decode_tweets(
    lines: Sequence[bytes],
    received_at: float | None,
    interest: Interest | None,
    keeping: Interest | None,
    decoded: Decoded,
) -> None:
    loads, make, add = orjson.loads, tweet_message, decoded.messages.append
    for line in lines:
        # A call of `is_tweet`, and one of `Message.from_payload`, would cost a tenth of all this.
        try:
            try:
                payload = loads(line)
            except orjson.JSONDecodeError as error:
                payload = read_again(line, error)
            tweet = payload["data"]
            text = tweet["text"]
        except orjson.JSONDecodeError as error:
            decoded.others.append(Undecodable(DecodeError(f"not JSON: {error}", line)))
            continue
        except (KeyError, TypeError):
            decoded.others.append(other_in(payload, line))
            continue
        if type(text) is not str:
            decoded.others.append(other_in(payload, line))
            continue
        identifier = tweet.get("id")  # before what stands beside the tweet is put into it
        kept = interest if keeping is None else (metadata_in(payload), keeping)
        message = make(text, identifier, line, received_at, kept)
        add(message)
        if "errors" in payload:
            decoded.partial.append(message)


def _decode_events(
    lines: Sequence[bytes], received_at: float | None, read: Read, decoded: Decoded
) -> None:
    for line in lines:
        try:
            payload = payload_in(line)
        except orjson.JSONDecodeError as error:
            decoded.others.append(Undecodable(DecodeError(f"not JSON: {error}", line)))
            continue
        message = _event(read, payload, line, received_at)
        if message is None:
            decoded.others.append(other_in(payload, line))
            continue
        decoded.messages.append(message)
        if "errors" in payload:
            decoded.partial.append(message)


def _event(read: Read, payload: Any, line: bytes, received_at: float | None) -> Message[Any] | None:
    found = read(payload)
    return None if found is None else Message.from_event(*found, line, received_at)


def other_in(value: Any, line: bytes) -> Disconnect | Unknown:
    """Classify a decoded line that carries no tweet and no event."""
    masked = mask(line)
    if masked is not line:
        line, value = masked, _value_of(masked)
    if isinstance(value, dict) and not value.get("data"):
        errors = value.get("errors")
        # Seen without the wrapper too: a bare problem object.
        for problem in (*(errors if isinstance(errors, list) else ()), value):
            if isinstance(problem, dict) and _ends_the_connection(problem):
                kind = problem.get("disconnect_type") or problem.get("connection_issue")
                detail = problem.get("detail") or problem.get("title") or ""
                return Disconnect(str(kind or problem.get("title") or ""), str(detail), problem)
    return Unknown(value, line)


def is_strange(other: Undecodable | Unknown | Disconnect) -> bool:
    """Return whether it cannot begin a stream of X: no JSON, or an error instead of a message."""
    if isinstance(other, Unknown):
        is_object = isinstance(other.value, dict) and not other.value.get("data")
        return is_object and any(name in other.value for name in ("errors", "error", "title"))
    return isinstance(other, Undecodable)


def _value_of(masked: bytes) -> Any:
    try:
        return orjson.loads(masked)
    except orjson.JSONDecodeError:  # the secret was a number
        return masked.decode(errors="replace")


def _ends_the_connection(problem: dict[str, Any]) -> bool:
    """Problem types come under two prefixes, so only their last segment counts.

    An answer of 200 can have the body of another one: that is known by the status in it.
    """
    last = str(problem.get("type", "")).rsplit("/", 1)[-1]
    named = problem.get("disconnect_type") or problem.get("connection_issue")
    status = problem.get("status")
    is_answer = last == "about:blank" and isinstance(status, int) and status >= 400
    return bool(named) or last in ENDING or is_answer
