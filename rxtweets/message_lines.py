r"""A message as one line of JSON, and back: the format of recordings and of JSON Lines.

::

    {"id":"212…","received_at":1764028461.25,"data":"what handlers made","raw":{"data":{…},…}}

``raw`` is the line of the stream byte for byte, always the last key, so that nothing of it is
lost and every tool can look into it (``jq .raw.data.lang``). ``received_at`` is in seconds since
1970, or null. A message without a line has ``metadata`` instead of ``raw``; a line that holds a
raw line feed, or is no JSON, which X's never do or are, is a string.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import orjson

from rxtweets.errors import DecodeError
from rxtweets.jsonable import to_json
from rxtweets.kinds import carried_by
from rxtweets.message import Message

__all__ = ["from_line", "key_of", "keys_of", "to_line", "to_lines"]

RAW = b',"raw":'
CLOSING = 0x7D  # the brace at the end of every object; a line without it is cut off, or no object
LINE_FEED = 0x0A  # looked for as a number, as bytes look for bytes eight times slower
EMPTY: Mapping[str, Any] = MappingProxyType({})


def to_line(message: Message[Any], more: Mapping[str, Any] = EMPTY) -> bytes:
    """The message as a line, with its line feed.

    Args:
        message: the message.
        more: further keys, which stand before ``raw``.
    """
    raw = message.raw
    value: dict[str, Any] = {
        "id": _id_of(message),
        "received_at": message.received_at,
        "data": message.data,
    }
    if more:
        value.update(more)
    if not raw:
        value["metadata"] = orjson.Fragment(to_json(message.metadata))
    elif LINE_FEED in raw or not _is_json(raw):
        value["raw"] = raw.decode(errors="replace")
    else:
        value["raw"] = orjson.Fragment(raw)
    try:
        return orjson.dumps(value) + b"\n"  # its option for this takes half as long again
    except (orjson.JSONEncodeError, RecursionError):
        value["received_at"] = orjson.Fragment(to_json(message.received_at))
        value["data"] = orjson.Fragment(to_json(message.data))
        return orjson.dumps(value) + b"\n"


def to_lines(messages: Iterable[Message[Any]], end: bytes = b"\n") -> bytes:
    """The messages as lines, each as `to_line` makes it.

    What the stream sent is copied once, into the whole, where lines made one by one copy it three
    times, which takes about a tenth longer.

    Args:
        messages: the messages.
        end: what comes after each instead of a line feed.
    """
    pieces: list[bytes] = []
    last = b"}" + end
    for message in messages:
        raw = message._line.rstrip(b"\r\n")  # noqa: SLF001 - `message.raw` without its call
        try:
            start = orjson.dumps(
                {"id": message.id, "received_at": message.received_at, "data": message.data}
            )
        except Exception:  # noqa: BLE001 - metadata can hold an id whose `str` raises
            start = b""
        if start and raw and raw[-1] == CLOSING and LINE_FEED not in raw:
            pieces += (start[:-1], RAW, raw, last)
        else:
            pieces += (to_line(message)[:-1], end)
    return b"".join(pieces)


def from_line(line: bytes) -> Message[Any]:
    """The message that was written as this line.

    A line of X's stream without anything around it is read as well; its time is not known.

    Raises:
        DecodeError: it is neither.
    """
    line = line.rstrip(b"\r\n")
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise DecodeError(f"not JSON: {error}", line) from None
    if not isinstance(value, dict):
        raise DecodeError("neither a recorded message nor a line of the stream", line)
    if "received_at" not in value:
        return _message(value, line, None)
    received_at = value["received_at"]
    time = float(received_at) if isinstance(received_at, int | float) else None
    if "raw" not in value:
        return _bare(value)
    raw = _raw_in(line, value)
    payload = orjson.loads(raw) if isinstance(value["raw"], str) else value["raw"]
    message = _message(payload, raw, time)
    return _with_data(message, value.get("data"))


def key_of(message: Message[Any]) -> str:
    """What makes two messages the same for a store: the id.

    Where there is none, as in compliance events, a digest of the line; and of data and metadata
    where there is no line either.
    """
    identifier = _id_of(message)
    if identifier:
        return identifier
    content = message.raw or to_json([message.data, message.metadata])
    return blake2b(content, digest_size=16).hexdigest()


def keys_of(messages: Sequence[Message[Any]]) -> list[str]:
    """The keys of several messages, in their order."""
    try:
        return [  # mostly without a further call
            key if (key := message.id) and key.isascii() else key_of(message)
            for message in messages
        ]
    except Exception:  # noqa: BLE001 - metadata can hold an id whose `str` raises
        return [key_of(message) for message in messages]


def _id_of(message: Message[Any]) -> str:
    """The id; half a surrogate pair, which no store can hold, is escaped."""
    try:
        identifier = message.id
    except Exception:  # noqa: BLE001 - metadata can hold an id whose `str` raises
        return ""
    if identifier.isascii():
        return identifier
    return identifier.encode(errors="backslashreplace").decode()


def _bare(value: dict[str, Any]) -> Message[Any]:
    metadata = value.get("metadata")
    if not isinstance(metadata, Mapping):  # it could not be written as an object
        metadata = {"id": value["id"]} if value.get("id") else {}
    return Message(value.get("data"), metadata)


def _message(payload: Any, line: bytes, received_at: float | None) -> Message[Any]:
    carried = carried_by(payload)
    if carried.kind == "tweet":
        return Message.from_payload(payload, line, received_at)
    return Message.from_event(carried.data, carried.id, line, received_at)


def _with_data(message: Message[Any], data: Any) -> Message[Any]:
    """The data as it was recorded, where it is not what the source made of the line."""
    if message.data == data:
        return message
    if not isinstance(message.data, str) and orjson.loads(to_json(message.data)) == data:
        return message
    return message.put_data(data)


def _raw_in(line: bytes, value: dict[str, Any]) -> bytes:
    """The bytes of ``raw``; it is the last key, but data that is an object can have one as well."""
    if isinstance(value["raw"], str):
        return value["raw"].encode()
    at = line.find(RAW)
    while at >= 0:
        candidate = line[at + len(RAW) : -1]
        if not isinstance(value.get("data"), dict | list) or _is(candidate, value["raw"]):
            return candidate
        at = line.find(RAW, at + 1)
    return orjson.dumps(value["raw"])  # somebody else has written the line anew


def _is(text: bytes, value: object) -> bool:
    try:
        return bool(orjson.loads(text) == value)
    except orjson.JSONDecodeError:
        return False


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
