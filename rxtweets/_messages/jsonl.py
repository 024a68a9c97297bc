r"""Messages as lines of JSON: the format of recordings and of JSON Lines files.

::

    {"id":"212…","received_at":1764028461.25,"data":"…","raw":{"data":{…},…}}

``data`` is the result of the handlers. ``raw`` is the line of the stream byte for byte, and always
the last key, so ``jq .raw.data.lang`` works. ``received_at`` is in seconds since 1970, or null.
A message without a line has ``metadata`` in place of ``raw``. A line that contains a line feed or
is not JSON is a string; X sends no such lines.

`read_line` reads the recordings of other programs, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import orjson

from rxtweets._messages.decoding import Decoded, Undecodable, Unknown, other_in
from rxtweets._messages.lenient_json import payload_in, payload_of
from rxtweets._messages.message import Message
from rxtweets._messages.pages import read_page
from rxtweets._messages.payloads import Carried, Like, carried_by
from rxtweets._support.to_json import to_json
from rxtweets.errors import DecodeError

__all__ = ["from_line", "is_record", "key_of", "keys_of", "read_line", "to_line", "to_lines"]

RAW = b',"raw":'
CLOSING_BRACE = 0x7D
LINE_FEED = 0x0A  # as a number: a search for bytes is slower
EMPTY: Mapping[str, Any] = MappingProxyType({})


def to_line(message: Message[Any], more: Mapping[str, Any] = EMPTY) -> bytes:
    """Encode a message as a line, with its line feed.

    Args:
        message: any message; values that JSON cannot represent become text.
        more: further keys, which stand before ``raw``.
    """
    raw = message.raw
    value: dict[str, Any] = {
        "id": _storable_id(message),
        "received_at": message.received_at,
        "data": message.data,
        **more,
    }
    if not raw:
        value["metadata"] = orjson.Fragment(to_json(message.metadata))
    elif LINE_FEED in raw or not _is_json(raw, orjson.loads):
        value["raw"] = raw.decode(errors="replace")
    else:
        value["raw"] = orjson.Fragment(raw)
    try:
        return orjson.dumps(value) + b"\n"  # faster than OPT_APPEND_NEWLINE
    except (orjson.JSONEncodeError, RecursionError):
        value["received_at"] = orjson.Fragment(to_json(message.received_at))
        value["data"] = orjson.Fragment(to_json(message.data))
        return orjson.dumps(value) + b"\n"


def to_lines(messages: Iterable[Message[Any]], end: bytes = b"\n") -> bytes:
    """Encode messages as lines, each as `to_line` does.

    Args:
        messages: any messages.
        end: follows each message in place of a line feed.
    """
    # The received line is copied once, into the whole; `to_line` copies it three times.
    pieces: list[bytes] = []
    last = b"}" + end
    for message in messages:
        raw = message._line.rstrip(b"\r\n")  # noqa: SLF001 - `message.raw` without its call
        try:
            start = orjson.dumps(
                {"id": message.id, "received_at": message.received_at, "data": message.data}
            )
        except Exception:  # noqa: BLE001 - metadata may hold an id whose `str` raises
            start = b""
        if start and raw and raw[-1] == CLOSING_BRACE and LINE_FEED not in raw:
            pieces += (start[:-1], RAW, raw, last)
        else:
            pieces += (to_line(message)[:-1], end)
    return b"".join(pieces)


def read_line(line: bytes) -> Decoded:
    """Decode a line of a recording.

    The line is from `to_line`, from X's stream, or a page of tweets from X's search or twarc. Each
    tweet of a page is a message with the includes that it refers to.
    """
    line = line.rstrip(b"\r\n")
    decoded = Decoded()
    try:
        value = _value_in(line)
        if is_record(value):
            _read_record(value, line, decoded)
        elif isinstance(value, dict) and isinstance(value.get("data"), list):
            read_page(value, line, decoded)
        else:
            _read_bare(value, line, decoded)
    except orjson.JSONDecodeError as error:
        decoded.others.append(Undecodable(DecodeError(f"not JSON: {error}", line)))
    except (orjson.JSONEncodeError, RecursionError) as error:
        decoded.others.append(Undecodable(DecodeError(f"nested too deep: {error}", line)))
    return decoded


def from_line(line: bytes) -> Message[Any]:
    """Return the one message of a line; see `read_line`.

    Raises:
        DecodeError: the line has no message, or several.
    """
    decoded = read_line(line)
    if len(decoded.messages) == 1 and not decoded.others:
        return decoded.messages[0]
    for other in decoded.others:
        if isinstance(other, Undecodable):
            raise other.error
    raise DecodeError("neither a recorded message nor a line of the stream", line)


def is_record(value: Any) -> bool:
    """Return whether `to_line` wrote this decoded line."""
    has_time = isinstance(value, dict) and "received_at" in value
    return has_time and ("raw" in value or "metadata" in value)


def key_of(message: Message[Any]) -> str:
    """Return the key by which a store deduplicates: the id.

    A message without an id, such as a compliance event, has a digest of its line; without a line,
    of its data and metadata.
    """
    identifier = _storable_id(message)
    if identifier:
        return identifier
    content = message.raw or to_json([message.data, message.metadata])
    return blake2b(content, digest_size=16).hexdigest()


def keys_of(messages: Sequence[Message[Any]]) -> list[str]:
    """Return the keys of several messages, in their order."""
    try:
        return [  # mostly without a further call
            key if (key := message.id) and key.isascii() else key_of(message)
            for message in messages
        ]
    except Exception:  # noqa: BLE001 - metadata may hold an id whose `str` raises
        return [key_of(message) for message in messages]


def _storable_id(message: Message[Any]) -> str:
    # No store accepts half a surrogate pair, so it is escaped.
    try:
        identifier = message.id
    except Exception:  # noqa: BLE001 - metadata may hold an id whose `str` raises
        return ""
    if identifier.isascii():
        return identifier
    return identifier.encode(errors="backslashreplace").decode()


def _value_in(line: bytes) -> Any:
    try:
        return payload_in(line)
    except orjson.JSONDecodeError:
        # With [fast], a recorded tweet may have a number that orjson refuses.
        if RAW not in line:
            raise
        with contextlib.suppress(ValueError):
            if is_record(value := payload_of(line)):
                return value
        raise


def _read_record(value: dict[str, Any], line: bytes, decoded: Decoded) -> None:
    if "raw" not in value:
        metadata = value.get("metadata")
        if not isinstance(metadata, Mapping):  # `to_line` could not write it as an object
            metadata = {"id": value["id"]} if value.get("id") else {}
        decoded.messages.append(Message(value.get("data"), metadata))
        return
    raw, payload = _raw_in(line, value), value["raw"]
    if isinstance(payload, str):
        payload = payload_in(raw)
    if not isinstance(payload, dict):
        decoded.others.append(Unknown(value, line))
        return
    carried, time = carried_by(payload), value["received_at"]
    if carried.kind == "other":
        carried = carried._replace(id=str(value.get("id") or ""))
    received_at = float(time) if isinstance(time, int | float) else None
    message = _message(carried, payload, raw, received_at)
    decoded.add(_with_data(message, value["data"]) if "data" in value else message, payload)


def _read_bare(payload: Any, line: bytes, decoded: Decoded) -> None:
    carried = carried_by(payload)
    # In a stream of likes an id alone is a like; in a recording any object may have an id.
    is_vague = isinstance(carried.data, Like) and not carried.data.tweet_id
    if carried.kind == "other" or is_vague:
        decoded.others.append(other_in(payload, line))
    else:
        decoded.add(_message(carried, payload, line, None), payload)


def _message(
    carried: Carried, payload: dict[str, Any], line: bytes, received_at: float | None
) -> Message[Any]:
    if carried.kind == "tweet":
        return Message.from_payload(payload, line, received_at)
    return Message.from_event(carried.data, carried.id, line, received_at)


def _with_data(message: Message[Any], data: Any) -> Message[Any]:
    if message.data == data:
        return message
    if not isinstance(message.data, str) and orjson.loads(to_json(message.data)) == data:
        return message
    return message.put_data(data)


def _raw_in(line: bytes, value: dict[str, Any]) -> bytes:
    """Return the bytes of ``raw``, the last key; ``data`` may contain the same key."""
    if isinstance(value["raw"], str):
        return value["raw"].encode()
    if next(reversed(value)) == "raw":
        start, end = line.find(RAW), len(line.rstrip()) - 1
        while start >= 0:
            data_is_plain = not isinstance(value.get("data"), dict | list)
            if data_is_plain or _is_json(line[:start] + b"}", payload_of):
                return line[start + len(RAW) : end]
            start = line.find(RAW, start + 1)
    return orjson.dumps(value["raw"])  # another program has rewritten the line


def _is_json(text: bytes, loads: Any) -> bool:
    try:
        loads(text)
    except ValueError:
        return False
    return True
