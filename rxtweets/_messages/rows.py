"""A message as a row: the fields of a tweet that people ask for, under names that stay.

X is renaming its fields (``retweet_count`` becomes ``repost_count``); a row has one of them. What
is no tweet has kind, id, times, author and, as JSON, its data; everything else is in ``raw``.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, NoReturn

import orjson

from rxtweets._messages.event_kinds import carried_by
from rxtweets._messages.jsonl import key_of
from rxtweets._messages.message import Message, is_tweet, payload_of
from rxtweets._messages.payloads import ComplianceEvent, LabelEvent, Like
from rxtweets._support.to_json import to_json

__all__ = ["COLUMNS", "ColumnType", "Row", "row_of"]

ColumnType = Literal["text", "time", "integer", "texts", "json"]


class Row(NamedTuple):
    """One message.

    Attributes:
        id: of the tweet or event; a digest of the line where there is none.
        kind: ``tweet``, ``like``, ``compliance``, ``label``, ``activity`` or ``other``.
        created_at: when it was written or happened, in UTC.
        received_at: when it came, in UTC.
        author_id: of the tweet, or the user that an event is about.
        author: their user name, where the line has it.
        lang: X's guess of the language.
        text: what handlers made of it where that is text, else the text of the tweet.
        data: what handlers made of it, as JSON, where that is no text.
        conversation_id: of the tweet that began it.
        reply_to: id of the tweet that this one answers.
        repost_of: id of the tweet that this one reposts.
        quote_of: id of the tweet that this one quotes.
        like_count: when it was sent.
        repost_count: when it was sent.
        reply_count: when it was sent.
        quote_count: when it was sent.
        hashtags: without ``#``.
        mentions: user names, without ``@``.
        rules: tags of the rules that it matched, and ids of those without one.
        raw: the line, or the metadata as JSON where there was none. A line that is no JSON is a
            string of JSON.
    """

    id: str
    kind: str
    created_at: datetime | None
    received_at: datetime | None
    author_id: str | None
    author: str | None
    lang: str | None
    text: str | None
    data: str | None
    conversation_id: str | None
    reply_to: str | None
    repost_of: str | None
    quote_of: str | None
    like_count: int | None
    repost_count: int | None
    reply_count: int | None
    quote_count: int | None
    hashtags: list[str]
    mentions: list[str]
    rules: list[str]
    raw: str


COLUMNS: dict[str, ColumnType] = {
    "id": "text",
    "kind": "text",
    "created_at": "time",
    "received_at": "time",
    "author_id": "text",
    "author": "text",
    "lang": "text",
    "text": "text",
    "data": "json",
    "conversation_id": "text",
    "reply_to": "text",
    "repost_of": "text",
    "quote_of": "text",
    "like_count": "integer",
    "repost_count": "integer",
    "reply_count": "integer",
    "quote_count": "integer",
    "hashtags": "texts",
    "mentions": "texts",
    "rules": "texts",
    "raw": "json",
}
"""The fields of a row in their order, with what they hold."""


def row_of(message: Message[Any]) -> Row:
    """The message as a row; whatever shape its parts have, it does not raise.

    A message that cannot be read, because its line is no JSON for one, has the kind ``other``.
    """
    try:
        return _row(message)
    except Exception:  # noqa: BLE001 - data and metadata are anything, and so is what they raise
        return _unread(message)


def _row(message: Message[Any]) -> Row:
    raw = message.raw
    payload, is_plain = _payload(raw) if raw else ({"data": dict(message.metadata)}, False)
    tweet = _object(payload["data"]) if isinstance(payload, dict) and "data" in payload else {}
    metrics = _object(tweet.get("public_metrics"))
    entities = _object(tweet.get("entities"))
    referenced = _referenced(tweet.get("referenced_tweets") or tweet.get("referenced_posts"))
    author = _text(tweet.get("author_id")) or _author_in(message.data)
    text, data = _text_and_data(message.data, tweet)
    row = Row(
        key_of(message),
        _kind(message, payload),
        message.created_at,
        _time(message.received_at),
        author,
        _name_of(author, payload),
        _text(tweet.get("lang")),
        text,
        data,
        _text(tweet.get("conversation_id")),
        referenced.get("replied_to"),
        referenced.get("retweeted") or referenced.get("reposted"),
        referenced.get("quoted"),
        _count(metrics.get("like_count")),
        _count(metrics.get("repost_count", metrics.get("retweet_count"))),
        _count(metrics.get("reply_count")),
        _count(metrics.get("quote_count")),
        _texts(entities.get("hashtags"), "tag"),
        _texts(entities.get("mentions"), "username"),
        _rules(message, payload),
        raw.decode() if is_plain else _raw(message),
    )
    return row if is_plain else Row._make(map(_storable, row))


def _payload(raw: bytes) -> tuple[Any, bool]:
    """The decoded line, and whether every store takes it, and all its texts, as they are."""
    try:
        return orjson.loads(raw), True
    except orjson.JSONDecodeError:
        return payload_of(raw), False


def _unread(message: Message[Any]) -> Row:
    nothing: dict[str, Any] = dict.fromkeys(COLUMNS)
    text, data = _text_and_data(message.data, {})
    return Row(
        **nothing
        | {"id": key_of(message), "kind": "other", "received_at": _time(message.received_at)}
        | {"text": text, "data": data, "hashtags": [], "mentions": [], "rules": []}
        | {"raw": _raw(message)}
    )


def _raw(message: Message[Any]) -> str:
    """The line, as a string of JSON if a database would not take it for JSON; else the metadata."""
    if not message.raw:
        return to_json(message.metadata).decode()
    text = message.raw.decode(errors="replace")
    try:
        json.loads(text, parse_int=len, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return to_json(text).decode()
    return text


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON (RFC 8259)")


def _kind(message: Message[Any], payload: Any) -> str:
    if not message.raw:
        return "tweet" if message.id else "other"
    return "tweet" if is_tweet(payload) else carried_by(payload).kind


def _text_and_data(data: Any, tweet: dict[str, Any]) -> tuple[str | None, str | None]:
    """What handlers made, as text where it is text, else as JSON beside the text of the tweet."""
    if isinstance(data, str):
        return _whole(data), None
    return _text(tweet.get("text")), to_json(data).decode()


def _author_in(event: Any) -> str | None:
    """The user that one of our events is about; what handlers made can have any such attribute."""
    if not isinstance(event, ComplianceEvent | LabelEvent | Like):
        return None
    user = event.user_id if isinstance(event, ComplianceEvent) else event.author_id
    return _whole(user) or None


def _name_of(author: str | None, payload: Any) -> str | None:
    includes = _object(payload.get("includes")) if isinstance(payload, dict) else {}
    users = includes.get("users")
    for user in users if isinstance(users, list) else ():
        if isinstance(user, dict) and user.get("id") == author:
            return _text(user.get("username"))
    return None


def _rules(message: Message[Any], payload: Any) -> list[str]:
    parts = (payload if isinstance(payload, dict) else {}) if message.raw else message.metadata
    has_rules = "matching_rules" in parts
    return [rule.tag or rule.id for rule in message.matching_rules] if has_rules else []


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


def _whole(text: str) -> str:
    """The text; half a surrogate pair, which no store can hold, becomes a question mark."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def _storable(value: Any) -> Any:
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return _whole(value) if isinstance(value, str) else value


def _time(seconds: float | None) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, TypeError, ValueError):
        return None  # somebody else's recording can have any number there


def _count(value: Any) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return value if is_count else None


def _texts(values: Any, name: str) -> list[str]:
    if not isinstance(values, list):
        return []
    return [
        each[name] for each in values if isinstance(each, dict) and isinstance(each.get(name), str)
    ]


def _referenced(references: Any) -> dict[str, str]:
    if not isinstance(references, list):
        return {}
    return {
        str(each.get("type")): str(each["id"])
        for each in references
        if isinstance(each, dict) and "id" in each
    }
