r"""A message as one line of JSON, and back: the format of recordings and of JSON Lines.

::

    {"id":"212…","received_at":1764028461.25,"data":"what handlers made","raw":{"data":{…},…}}

``raw`` is the line of the stream byte for byte, always the last key, so that nothing of it is
lost and every tool can look into it (``jq .raw.data.lang``). ``received_at`` is in seconds since
1970, or null. A message without a line has ``metadata`` instead of ``raw``; a line that holds a
raw line feed, or is no JSON, which X's never do or are, is a string.

Recordings of others are read too: see `read_line`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import orjson

from rxtweets._messages.decoding import Decoded, Undecodable, Unknown, other_in
from rxtweets._messages.event_kinds import Carried, carried_by
from rxtweets._messages.message import Message, is_tweet, payload_in, payload_of
from rxtweets._messages.payloads import Like
from rxtweets._support.to_json import to_json
from rxtweets.errors import DecodeError

__all__ = ["from_line", "is_record", "key_of", "keys_of", "read_line", "to_line", "to_lines"]

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
    elif LINE_FEED in raw or not _is_strict_json(raw):
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


def read_line(line: bytes) -> Decoded:
    """What a line of a recording holds, ours or of others.

    A line is what `to_line` wrote, a line of X's stream without anything around it, or a page of
    tweets as X's search answers and twarc writes it. Everything else is read as it is in a stream.
    """
    line = line.rstrip(b"\r\n")
    decoded = Decoded([], [], [])
    try:
        _read(line, decoded)
    except orjson.JSONDecodeError as error:
        decoded.others.append(Undecodable(DecodeError(f"not JSON: {error}", line)))
    except (orjson.JSONEncodeError, RecursionError) as error:
        decoded.others.append(Undecodable(DecodeError(f"nested too deep: {error}", line)))
    return decoded


def from_line(line: bytes) -> Message[Any]:
    """The one message that a line holds; see `read_line`.

    Raises:
        DecodeError: it holds none, or several.
    """
    decoded = read_line(line)
    if len(decoded.messages) == 1 and not decoded.others:
        return decoded.messages[0]
    for other in decoded.others:
        if isinstance(other, Undecodable):
            raise other.error
    raise DecodeError("neither a recorded message nor a line of the stream", line)


def is_record(value: Any) -> bool:
    """Whether a decoded line was written by `to_line`."""
    has_time = isinstance(value, dict) and "received_at" in value
    return has_time and ("raw" in value or "metadata" in value)


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


def _read(line: bytes, decoded: Decoded) -> None:
    value = _value_in(line)
    if is_record(value):
        _read_record(value, line, decoded)
    elif isinstance(value, dict) and isinstance(value.get("data"), list):
        _read_page(value, line, decoded)
    else:
        _read_bare(value, line, decoded)


def _value_in(line: bytes) -> Any:
    try:
        return payload_in(line)
    except orjson.JSONDecodeError:
        # With [fast], a tweet may have a number that orjson refuses; it was recorded all the same.
        if RAW not in line:
            raise
        with contextlib.suppress(ValueError):
            if is_record(value := payload_of(line)):
                return value
        raise


def _read_record(value: dict[str, Any], line: bytes, decoded: Decoded) -> None:
    if "raw" not in value:
        decoded.messages.append(_without_line(value))
        return
    raw, payload = _raw_in(line, value), value["raw"]
    if isinstance(payload, str):
        payload = payload_in(raw)
    if not isinstance(payload, dict):
        decoded.others.append(Unknown(value, line))
        return
    carried, time = carried_by(payload), value["received_at"]
    identifier = carried.id if carried.kind != "other" else str(value.get("id") or "")
    received_at = float(time) if isinstance(time, int | float) else None
    message = _message(carried._replace(id=identifier), payload, raw, received_at)
    _add(_with_data(message, value["data"]) if "data" in value else message, payload, decoded)


def _read_bare(payload: Any, line: bytes, decoded: Decoded) -> None:
    carried = carried_by(payload)
    # In a stream of likes, an id is enough; here any object has one.
    is_vague = isinstance(carried.data, Like) and not carried.data.tweet_id
    if carried.kind == "other" or is_vague:
        decoded.others.append(other_in(payload, line))
    else:
        _add(_message(carried, payload, line, None), payload, decoded)


def _message(
    carried: Carried, payload: dict[str, Any], line: bytes, received_at: float | None
) -> Message[Any]:
    if carried.kind == "tweet":
        return Message.from_payload(payload, line, received_at)
    return Message.from_event(carried.data, carried.id, line, received_at)


def _add(message: Message[Any], payload: dict[str, Any], decoded: Decoded) -> None:
    decoded.messages.append(message)
    if "errors" in payload:
        decoded.partial.append(message)


def _without_line(value: dict[str, Any]) -> Message[Any]:
    metadata = value.get("metadata")
    if not isinstance(metadata, Mapping):  # it could not be written as an object
        metadata = {"id": value["id"]} if value.get("id") else {}
    return Message(value.get("data"), metadata)


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
    if next(reversed(value)) == "raw":
        at, end = line.find(RAW), len(line.rstrip()) - 1
        while at >= 0:
            raw = line[at + len(RAW) : end]
            if not isinstance(value.get("data"), dict | list) or _is_json(line[:at] + b"}"):
                return raw
            at = line.find(RAW, at + 1)
    return orjson.dumps(value["raw"])  # somebody else has written the line anew


def _is_json(text: bytes) -> bool:
    try:
        payload_of(text)
    except ValueError:
        return False
    return True


def _is_strict_json(text: bytes) -> bool:
    """Whether others can read the text within a line of ours; `payload_of` reads more."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


# Pages.


def _read_page(page: dict[str, Any], line: bytes, decoded: Decoded) -> None:
    payloads = list(_tweets_in(page))
    if not any(map(is_tweet, payloads)):
        decoded.others.append(Unknown(page, line))
        return
    passed_on = {id(error) for payload in payloads for error in payload.get("errors", ())}
    if rest := [error for error in _errors_in(page) if id(error) not in passed_on]:
        payloads.append({"errors": rest})
    for payload in payloads:
        try:
            raw = orjson.dumps(payload)
        except orjson.JSONEncodeError:  # nested deeper than orjson writes
            decoded.others.append(Unknown(payload, line))
            continue
        if is_tweet(payload):
            _add(Message.from_payload(payload, raw), payload, decoded)
        else:
            decoded.others.append(Unknown(payload, raw))


KINDS = {
    "author_id": "users",
    "in_reply_to_user_id": "users",
    "mentions": "users",
    "username": "users",
    "referenced_tweets": "tweets",
    "referenced_posts": "tweets",
    "edit_history_tweet_ids": "tweets",
    "edit_history_post_ids": "tweets",
    "media_source_tweet_id": "tweets",
    "media_source_post_id": "tweets",
    "media_keys": "media",
    "cover_media": "media",
    "media_entities": "media",
    "poll_ids": "polls",
    "place_id": "places",
}
"""Which includes the fields of a tweet refer to."""


def _tweets_in(page: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The lines of a stream that the page would be: each tweet, with what it refers to."""
    includes = page.get("includes")
    groups = includes if isinstance(includes, dict) else {}
    places: dict[tuple[str, str], tuple[str, int]] = {}
    for name, group in groups.items():
        for position, part in enumerate(group if isinstance(group, list) else ()):
            for key in ("id", "media_key", "username"):
                if isinstance(part, dict) and key in part:
                    kind = "tweets" if name == "posts" else name
                    places[kind, str(part[key]).lower()] = name, position
    for tweet in page["data"]:
        references = _references(tweet)
        for name, position in [places[each] for each in references if each in places]:
            if name in {"tweets", "posts"}:  # with its author and media, but no third tweet
                further = _references(groups[name][position])
                references |= {each for each in further if each[0] != "tweets"}
        found = {places[each] for each in references if each in places}
        payload: dict[str, Any] = {"data": tweet}
        for name, position in sorted(found):
            payload.setdefault("includes", {}).setdefault(name, []).append(groups[name][position])
        ids = {identifier for _, identifier in references}
        about = [error for error in _errors_in(page) if _subject(error) in ids]
        yield payload | {"errors": about} if about else payload


def _references(tweet: Any) -> set[tuple[str, str]]:
    """Kind and id, key or name of whatever a tweet refers to; itself as well."""
    found = {("", str(tweet.get("id")))} if isinstance(tweet, dict) else set()
    left = [("", tweet)]
    while left:
        name, value = left.pop()
        if isinstance(value, dict):
            left += ((name if key == "id" else key, inner) for key, inner in value.items())
        elif isinstance(value, list):
            left += ((name, inner) for inner in value)
        elif name in KINDS:
            found.add((KINDS[name], str(value).lower()))
    return found


def _errors_in(page: dict[str, Any]) -> list[Any]:
    errors = page.get("errors")
    return errors if isinstance(errors, list) else []


def _subject(error: Any) -> str:
    """The id of what a partial error is about."""
    error = error if isinstance(error, dict) else {}
    return str(error.get("resource_id") or error.get("value") or "").lower()
