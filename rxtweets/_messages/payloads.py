"""Payloads of lines: tweets, likes, compliance events, labels, activities.

A typed event is the ``data`` of its message; all fields that X sent are in the ``metadata``.

Source: the OpenAPI description of X's API v2 (``LikeWithPostAuthor``, ``…ComplianceData``,
``PostLabelData``, ``ActivityStreamResponse``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from rxtweets._messages.message import id_text, is_tweet
from rxtweets._support.json_objects import object_in
from rxtweets._support.timestamps import moment

__all__ = [
    "Activity",
    "Carried",
    "Carries",
    "ComplianceEvent",
    "Kind",
    "LabelEvent",
    "Like",
    "Read",
    "carried_by",
    "reader_for",
    "tweet_in",
]

Carries = Literal["tweets", "likes", "compliance", "labels", "activity"]
Kind = Literal["tweet", "like", "compliance", "label", "activity", "other"]


@dataclass(frozen=True, slots=True)
class Like:
    """A user liked a tweet.

    Attributes:
        id: of the like.
        tweet_id: of the liked tweet.
        author_id: of that tweet's author.
        created_at: when; ``None`` if X did not send it.
    """

    id: str
    tweet_id: str
    author_id: str
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class ComplianceEvent:
    """Stored tweets, users or likes must be changed or deleted.

    Attributes:
        action: X's name: ``delete``, ``withheld``, ``drop``, ``undrop``, ``tweet_edit``;
            ``user_delete``, ``user_undelete``, ``user_protect``, ``user_unprotect``,
            ``user_suspend``, ``user_unsuspend``, ``user_withheld``, ``scrub_geo``,
            ``user_profile_modification``.
        event_at: when; ``None`` if X did not send it.
        tweet_id: of the tweet; empty if the event is about a user or a like.
        user_id: of the user, or of the tweet's author; empty if X did not send it.
        like_id: of the like; empty if the event is about a tweet or a user.
        details: all other fields, such as ``withheld_in_countries``, ``edit_tweet_ids``,
            ``up_to_tweet_id``.
    """

    action: str
    event_at: datetime | None
    tweet_id: str = ""
    user_id: str = ""
    like_id: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LabelEvent:
    """A label was put on a tweet or removed from it.

    Attributes:
        label: ``public_tweet_notice`` or ``public_tweet_unviewable``.
        application: ``apply`` or ``remove``.
        event_at: when; ``None`` if X did not send it.
        tweet_id: of the tweet.
        author_id: of its author.
        details: all other fields, such as ``label_title``.
    """

    label: str
    application: str
    event_at: datetime | None
    tweet_id: str
    author_id: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Activity:
    """An event of a subscription in X's activity API.

    Attributes:
        id: of the event.
        event_type: such as ``post.create``, ``follow.follow``, ``profile.update.bio``.
        tag: of the subscription; empty if it has none.
        filter: of the subscription.
        payload: the fields of its type.
    """

    id: str
    event_type: str
    tag: str
    filter: Mapping[str, Any]
    payload: Mapping[str, Any]


Read = Callable[[Any], tuple[object, str] | None]
"""Finds data and id in a decoded line; ``None`` if the line carries something else."""


class Carried(NamedTuple):
    """The content of a line.

    Attributes:
        kind: ``other`` if X sends no such line.
        data: the text of a tweet, the typed event, or the payload itself.
        id: of the tweet or event; empty if it has none.
    """

    kind: Kind
    data: object
    id: str


def reader_for(carries: Carries) -> Read | None:
    """Return the function that finds the events of a stream; ``None`` for tweets."""
    return READERS.get(carries)


def carried_by(payload: Any) -> Carried:
    """Find the content of a decoded line of any stream."""
    kinds: tuple[tuple[Kind, Callable[[Any], tuple[object, object] | None]], ...] = (
        ("tweet", tweet_in),
        ("like", _like),
        ("activity", _activity),
        ("label", _label_event),
        ("compliance", _compliance_event),
    )
    for kind, read in kinds:
        found = read(payload)
        # Labels have the shape of compliance events, and an application besides.
        if found is not None and not (kind == "label" and not getattr(found[0], "application", "")):
            return Carried(kind, found[0], id_text(found[1]))
    return Carried("other", payload, "")


def tweet_in(payload: Any) -> tuple[str, object] | None:
    """Find text and id of a tweet in a decoded line."""
    if not is_tweet(payload):
        return None
    tweet = payload["data"]
    return tweet["text"], tweet.get("id")


def _like(value: Any) -> tuple[Like, str] | None:
    data = object_in(value, "data")
    tweet_id = _first_id(data, "liked_tweet_id", "liked_post_id")
    identifier = _checked_id(data.get("id"))
    if not tweet_id and not identifier:
        return None
    author = _first_id(
        data, "liked_tweet_author_id", "liked_post_author_id", "tweet_author_id", "post_author_id"
    )
    return Like(identifier, tweet_id, author, moment(data.get("created_at"))), identifier


def _compliance_event(value: Any) -> tuple[ComplianceEvent, str] | None:
    found = _only_event(value)
    if found is None:
        return None
    action, event = found
    tweet, user, like = (object_in(event, name) for name in ("tweet", "user", "favorite"))
    author_id = _checked_id(tweet.get("author_id")) or _checked_id(like.get("user_id"))
    return ComplianceEvent(
        action=action,
        event_at=moment(event.get("event_at")),
        tweet_id=_checked_id(tweet.get("id")),
        user_id=_checked_id(user.get("id")) or author_id,
        like_id=_checked_id(like.get("id")),
        details=_without(event, "tweet", "user", "favorite", "event_at"),
    ), ""


def _label_event(value: Any) -> tuple[LabelEvent, str] | None:
    found = _only_event(value)
    if found is None:
        return None
    label, event = found
    tweet = object_in(event, "tweet")
    return LabelEvent(
        label=label,
        application=_checked_id(event.get("application")),
        event_at=moment(event.get("event_at")),
        tweet_id=_checked_id(tweet.get("id")),
        author_id=_checked_id(tweet.get("author_id")),
        details=_without(event, "tweet", "application", "event_at"),
    ), ""


def _activity(value: Any) -> tuple[Activity, str] | None:
    data = object_in(value, "data")
    event_type = data.get("event_type")
    if not isinstance(event_type, str):
        return None
    identifier = _checked_id(data.get("event_uuid"))
    return Activity(
        id=identifier,
        event_type=event_type,
        tag=_checked_id(data.get("tag")),
        filter=object_in(data, "filter"),
        payload=object_in(data, "payload"),
    ), identifier


READERS: Mapping[Carries, Read] = {
    "likes": _like,
    "compliance": _compliance_event,
    "labels": _label_event,
    "activity": _activity,
}


def _only_event(value: Any) -> tuple[str, dict[str, Any]] | None:
    # Some events lack their time, so one known key is enough.
    for name, event in object_in(value, "data").items():
        if isinstance(event, dict) and not event.keys().isdisjoint(EVENT_KEYS):
            return name, event
    return None


EVENT_KEYS = ("event_at", "tweet", "user", "favorite")


def _without(event: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in names}


def _first_id(values: dict[str, Any], *names: str) -> str:
    """Return the first id under one of X's older and newer names."""
    return next((text for name in names if (text := _checked_id(values.get(name)))), "")


def _checked_id(value: object) -> str:
    """Return an id as text, which the wire has as text or number; empty for other values."""
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
