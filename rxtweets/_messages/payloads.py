"""What streams carry beside tweets, typed: likes, compliance events, labels, activities.

Each is the ``data`` of its message; everything that X sent is in the message's ``metadata``.

Source: the OpenAPI description of X's API v2 (``LikeWithPostAuthor``, ``…ComplianceData``,
``PostLabelData``, ``ActivityStreamResponse``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from rxtweets._support.timestamps import moment

__all__ = ["Activity", "Carries", "ComplianceEvent", "LabelEvent", "Like", "Read", "reader_for"]

Carries = Literal["tweets", "likes", "compliance", "labels", "activity"]


@dataclass(frozen=True, slots=True)
class Like:
    """A tweet was liked.

    Attributes:
        id: of the like.
        tweet_id: of the tweet that was liked.
        author_id: of that tweet's author.
        created_at: when; ``None`` if X did not say.
    """

    id: str
    tweet_id: str
    author_id: str
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class ComplianceEvent:
    """Stored tweets, users or likes are to be changed or deleted.

    Attributes:
        action: X's name: ``delete``, ``withheld``, ``drop``, ``undrop``, ``tweet_edit``;
            ``user_delete``, ``user_undelete``, ``user_protect``, ``user_unprotect``,
            ``user_suspend``, ``user_unsuspend``, ``user_withheld``, ``scrub_geo``,
            ``user_profile_modification``.
        event_at: when; ``None`` if X did not say.
        tweet_id: of the tweet that it is about; empty if it is about no tweet.
        user_id: of the user, or of the author of the tweet; empty if X did not say.
        like_id: of the like; empty if it is about no like.
        details: whatever else X sent of it, such as ``withheld_in_countries``,
            ``edit_tweet_ids``, ``up_to_tweet_id``.
    """

    action: str
    event_at: datetime | None
    tweet_id: str = ""
    user_id: str = ""
    like_id: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LabelEvent:
    """A label is put on a tweet, or taken off it.

    Attributes:
        label: ``public_tweet_notice`` or ``public_tweet_unviewable``.
        application: ``apply`` or ``remove``.
        event_at: when; ``None`` if X did not say.
        tweet_id: of the tweet.
        author_id: of its author.
        details: whatever else X sent of it, such as ``label_title``.
    """

    label: str
    application: str
    event_at: datetime | None
    tweet_id: str
    author_id: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Activity:
    """Something happened that was subscribed to in X's activity API.

    Attributes:
        id: of the event.
        event_type: such as ``post.create``, ``follow.follow``, ``profile.update.bio``.
        tag: of the subscription; empty if it has none.
        filter: of the subscription.
        payload: what happened, in the shape of its type.
    """

    id: str
    event_type: str
    tag: str
    filter: Mapping[str, Any]
    payload: Mapping[str, Any]


Read = Callable[[Any], tuple[object, str] | None]
"""From a decoded line to what it carries and its id; ``None`` if the line is something else."""


def reader_for(carries: Carries) -> Read | None:
    """How lines of such a stream are read; ``None`` for tweets, which messages read themselves."""
    readers: dict[Carries, Read] = {
        "likes": _like,
        "compliance": _compliance_event,
        "labels": _label_event,
        "activity": _activity,
    }
    return readers.get(carries)


def _like(value: Any) -> tuple[Like, str] | None:
    data = _data_of(value)
    tweet_id = _first(data, "liked_tweet_id", "liked_post_id")
    identifier = _text(data.get("id"))
    if not tweet_id and not identifier:
        return None
    author = _first(
        data, "liked_tweet_author_id", "liked_post_author_id", "tweet_author_id", "post_author_id"
    )
    return Like(identifier, tweet_id, author, moment(data.get("created_at"))), identifier


def _compliance_event(value: Any) -> tuple[ComplianceEvent, str] | None:
    found = _only_event(value)
    if found is None:
        return None
    action, event = found
    tweet, user, like = _part(event, "tweet"), _part(event, "user"), _part(event, "favorite")
    user_id = _text(user.get("id")) or _first(tweet, "author_id") or _first(like, "user_id")
    return ComplianceEvent(
        action=action,
        event_at=moment(event.get("event_at")),
        tweet_id=_text(tweet.get("id")),
        user_id=user_id,
        like_id=_text(like.get("id")),
        details=_rest(event, "tweet", "user", "favorite", "event_at"),
    ), ""


def _label_event(value: Any) -> tuple[LabelEvent, str] | None:
    found = _only_event(value)
    if found is None:
        return None
    label, event = found
    tweet = _part(event, "tweet")
    return LabelEvent(
        label=label,
        application=_text(event.get("application")),
        event_at=moment(event.get("event_at")),
        tweet_id=_text(tweet.get("id")),
        author_id=_text(tweet.get("author_id")),
        details=_rest(event, "tweet", "application", "event_at"),
    ), ""


def _activity(value: Any) -> tuple[Activity, str] | None:
    data = _data_of(value)
    event_type = data.get("event_type")
    if not isinstance(event_type, str):
        return None
    identifier = _text(data.get("event_uuid"))
    return Activity(
        id=identifier,
        event_type=event_type,
        tag=_text(data.get("tag")),
        filter=_part(data, "filter"),
        payload=_part(data, "payload"),
    ), identifier


def _data_of(value: Any) -> dict[str, Any]:
    return _part(value, "data") if isinstance(value, dict) else {}


def _only_event(value: Any) -> tuple[str, dict[str, Any]] | None:
    """The one event of a compliance line, with its name; some may lack their time."""
    for name, event in _data_of(value).items():
        if isinstance(event, dict) and not SUBJECTS.isdisjoint(event):
            return name, event
    return None


SUBJECTS = frozenset({"event_at", "tweet", "user", "favorite"})


def _part(value: dict[str, Any], name: str) -> dict[str, Any]:
    part = value.get(name)
    return part if isinstance(part, dict) else {}


def _rest(event: dict[str, Any], *known: str) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in known}


def _first(values: dict[str, Any], *names: str) -> str:
    """What is there under one of these names, of the generations of X's."""
    return next((text for name in names if (text := _text(values.get(name)))), "")


def _text(value: object) -> str:
    """Ids came as text, as numbers and as null over the years; what is neither is no id."""
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
