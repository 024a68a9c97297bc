"""Messages as rows: the columns of the stores and of tables.

X renames its fields: ``retweet_count`` becomes ``repost_count``. A row has one name for both.
Another event than a tweet has kind, id, times, author and, as JSON, its data; all other fields are
in ``raw``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, get_type_hints

import orjson

from rxtweets._messages.jsonl import key_of
from rxtweets._messages.lenient_json import depth_of, payload_of
from rxtweets._messages.message import Message, is_tweet
from rxtweets._messages.payloads import ComplianceEvent, LabelEvent, Like, carried_by
from rxtweets._support.json_objects import object_in, objects_in
from rxtweets._support.to_json import to_json

__all__ = ["COLUMNS", "ColumnType", "Row", "row_of"]

ColumnType = Literal["text", "time", "integer", "texts", "json"]
Json = Annotated[str, "JSON"]

DEEPEST = 1_000
"""Nesting levels that every database reads as JSON: the limit of SQLite."""


class Row(NamedTuple):
    """A message as a row; likes and other events are rows, too, by their `kind`.

    Attributes:
        id: of the tweet or event; a digest of the line if it has none.
        kind: ``tweet``, ``like``, ``compliance``, ``label``, ``activity`` or ``other``.
        created_at: when it was written or happened, in UTC.
        received_at: when it was received, in UTC.
        author_id: of the tweet, or the user that an event is about.
        author: the author's user name, if the line has it.
        lang: the language that X detected.
        text: the handlers' result if it is text, else the text of the tweet.
        data: the handlers' result as JSON, if it is not text.
        conversation_id: id of the first tweet of the conversation.
        reply_to: id of the tweet that this one answers.
        repost_of: id of the tweet that this one reposts.
        quote_of: id of the tweet that this one quotes.
        like_count: at the time of sending.
        repost_count: at the time of sending.
        reply_count: at the time of sending.
        quote_count: at the time of sending.
        hashtags: without ``#``.
        mentions: user names, without ``@``.
        rules: tags of the matching rules; ids of those without a tag.
        raw: the line, or the metadata as JSON if there was none. A line that is not JSON is a
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
    data: Json | None
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
    raw: Json


COLUMN_TYPES: dict[object, ColumnType] = {
    str: "text",
    str | None: "text",
    datetime | None: "time",
    int | None: "integer",
    list[str]: "texts",
    Json: "json",
    Json | None: "json",
}

COLUMNS: dict[str, ColumnType] = {
    name: COLUMN_TYPES[hint] for name, hint in get_type_hints(Row, include_extras=True).items()
}
"""The fields of a row in their order, with their types."""


def row_of(message: Message[Any]) -> Row:
    """Return a message as a row, whatever shape its parts have.

    A message that cannot be decoded, for example because its line is not JSON, has the kind
    ``other``. Text that a store cannot hold is replaced by a description of it.
    """
    try:
        return _row(message)
    except Exception:  # noqa: BLE001 - data and metadata may be anything, and raise anything
        return _undecoded_row(message)


def _row(message: Message[Any]) -> Row:
    raw, is_strict = message.raw, False
    payload: Any
    if raw:
        try:
            payload, is_strict = orjson.loads(raw), True
        except orjson.JSONDecodeError:
            payload = payload_of(raw)
    else:
        payload = {"data": dict(message.metadata)}
    tweet = object_in(payload, "data")
    metrics = object_in(tweet, "public_metrics")
    entities = object_in(tweet, "entities")
    referenced = objects_in(tweet, "referenced_tweets") or objects_in(tweet, "referenced_posts")
    references = {str(other.get("type")): str(other["id"]) for other in referenced if "id" in other}
    author = _optional_text(tweet.get("author_id")) or _author_of(message.data)
    text, data = _text_and_data(message.data, tweet)
    row = Row(
        key_of(message),
        _kind(message, payload),
        message.created_at,
        _utc(message.received_at),
        author,
        _user_name(author, payload),
        _optional_text(tweet.get("lang")),
        text,
        data,
        _optional_text(tweet.get("conversation_id")),
        references.get("replied_to"),
        references.get("retweeted") or references.get("reposted"),
        references.get("quoted"),
        _integer(metrics.get("like_count")),
        _integer(metrics.get("repost_count", metrics.get("retweet_count"))),
        _integer(metrics.get("reply_count")),
        _integer(metrics.get("quote_count")),
        _texts(objects_in(entities, "hashtags"), "tag"),
        _texts(objects_in(entities, "mentions"), "username"),
        _rules(message, payload),
        raw.decode() if is_strict else _raw(message),
    )
    # Strict JSON has no half surrogate pairs.
    return row if is_strict else Row._make(map(_storable, row))


def _undecoded_row(message: Message[Any]) -> Row:
    nothing: dict[str, Any] = dict.fromkeys(COLUMNS)
    text, data = _text_and_data(message.data, {})
    return Row(
        **nothing
        | {"id": key_of(message), "kind": "other", "received_at": _utc(message.received_at)}
        | {"text": text, "data": data, "hashtags": [], "mentions": [], "rules": []}
        | {"raw": _raw(message)}
    )


def _raw(message: Message[Any]) -> str:
    if not message.raw:
        return to_json(message.metadata).decode()
    text = message.raw.decode(errors="replace")
    try:
        json.loads(text, parse_int=len, parse_constant=_refuse)
    except (ValueError, RecursionError):  # a database would refuse it as JSON
        return to_json(text).decode()
    return text if depth_of(message.raw) <= DEEPEST else to_json(text).decode()


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON (RFC 8259)")


def _kind(message: Message[Any], payload: Any) -> str:
    if not message.raw:
        return "tweet" if message.id else "other"
    return "tweet" if is_tweet(payload) else carried_by(payload).kind


def _text_and_data(data: Any, tweet: dict[str, Any]) -> tuple[str | None, str | None]:
    if isinstance(data, str):
        return _storable(data), None
    return _optional_text(tweet.get("text")), to_json(data).decode()


def _author_of(data: Any) -> str | None:
    # Results of handlers may have any attributes, so only our own types count.
    if not isinstance(data, ComplianceEvent | LabelEvent | Like):
        return None
    user = data.user_id if isinstance(data, ComplianceEvent) else data.author_id
    return _storable(user) or None


def _user_name(author: str | None, payload: Any) -> str | None:
    for user in objects_in(object_in(payload, "includes"), "users"):
        if user.get("id") == author:
            return _optional_text(user.get("username"))
    return None


def _rules(message: Message[Any], payload: Any) -> list[str]:
    parts = payload if message.raw else message.metadata
    if not isinstance(parts, Mapping) or "matching_rules" not in parts:
        return []  # without decoding the metadata
    return [rule.tag or rule.id for rule in message.matching_rules]


def _optional_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


def _storable(value: Any) -> Any:
    """Replace half surrogate pairs, which no store accepts, by question marks."""
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if not isinstance(value, str):
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode(errors="replace").decode()
    return value


def _utc(seconds: float | None) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, TypeError, ValueError):
        return None  # a recording of another program may have any number


def _integer(value: Any) -> int | None:
    is_storable = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return value if is_storable else None


def _texts(values: list[dict[str, Any]], name: str) -> list[str]:
    return [value[name] for value in values if isinstance(value.get(name), str)]
