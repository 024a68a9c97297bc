"""What a line carries, known from the line alone: a tweet, a like, or another event."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from rxtweets._messages.message import is_tweet
from rxtweets._messages.payloads import Carries, reader_for

__all__ = ["Carried", "Kind", "carried_by"]

Kind = Literal["tweet", "like", "compliance", "label", "activity", "other"]


class Carried(NamedTuple):
    """What a line carries.

    Attributes:
        kind: of what.
        data: what the source made of it; for a tweet its text.
        id: of it; empty where there is none.
    """

    kind: Kind
    data: object
    id: str


EVENTS: tuple[tuple[Kind, Carries], ...] = (
    ("like", "likes"),
    ("activity", "activity"),
    ("label", "labels"),
    ("compliance", "compliance"),
)


def carried_by(payload: Any) -> Carried:
    """What a decoded line carries; of kind ``other``, the payload itself, if it is none of X's."""
    if is_tweet(payload):
        tweet = payload["data"]
        identifier = tweet.get("id")
        return Carried("tweet", tweet["text"], "" if identifier is None else str(identifier))
    for kind, carries in EVENTS:
        read = reader_for(carries)
        found = read(payload) if read is not None else None
        # Labels have the form of compliance events, and say whether they are put on or taken off.
        if found is not None and not (kind == "label" and not getattr(found[0], "application", "")):
            return Carried(kind, *found)
    return Carried("other", payload, "")
