"""Simulated likes, compliance events, labels and activities: deterministic by seed and position."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from rxtweets.api._endpoints import Endpoint
from rxtweets.simulator._tweets import snowflake, stamp

__all__ = ["happenings"]

Frame = Callable[[int, float], bytes]
"""From a position in the stream and a time, in seconds since 1970, to the frame."""


def happenings(endpoint: Endpoint, seed: int) -> Frame:
    """What such a stream carries at each position; not for streams of tweets."""
    write = WRITERS[endpoint.name]

    def frame(position: int, seconds: float) -> bytes:
        rng = random.Random(f"{seed} {endpoint.name} {position}")
        return orjson.dumps({"data": write(rng, position, seconds)})

    return frame


def _like(rng: random.Random, _: int, seconds: float) -> dict[str, Any]:
    return {
        "id": f"{rng.getrandbits(128):032x}",
        "liked_tweet_id": _id(rng),
        "tweet_author_id": _id(rng),
        "created_at": stamp(int(seconds * 1000)),
        "timestamp_ms": int(seconds * 1000) % 1000,
    }


def _of_tweets(rng: random.Random, _: int, seconds: float) -> dict[str, Any]:
    action = rng.choice(("delete", "delete", "withheld", "drop", "undrop", "tweet_edit"))
    event: dict[str, Any] = {"tweet": {"id": _id(rng), "author_id": _id(rng)}}
    if action == "withheld":
        event["withheld_in_countries"] = rng.sample(COUNTRIES, 2)
    elif action == "tweet_edit":
        first = _id(rng)
        event = {"tweet": {"id": _id(rng)}, "initial_tweet_id": first}
        event["edit_tweet_ids"] = [first, event["tweet"]["id"]]
    elif rng.random() < 0.2:
        event["quote_tweet_id"] = _id(rng)
    return {action: {**event, "event_at": stamp(int(seconds * 1000))}}


def _of_users(rng: random.Random, _: int, seconds: float) -> dict[str, Any]:
    action = rng.choice(USER_ACTIONS)
    event: dict[str, Any] = {"user": {"id": _id(rng)}}
    if action == "user_withheld":
        event["withheld_in_countries"] = rng.sample(COUNTRIES, 1)
    elif action == "scrub_geo":
        event["up_to_tweet_id"] = _id(rng)
    elif action == "user_profile_modification":
        event |= {"profile_field": "name", "new_value": rng.choice(("Ada", "María", "真由美"))}
    return {action: {**event, "event_at": stamp(int(seconds * 1000))}}


def _of_likes(rng: random.Random, _: int, seconds: float) -> dict[str, Any]:
    favorite = {"id": _id(rng), "user_id": _id(rng)}
    return {"delete": {"favorite": favorite, "event_at": stamp(int(seconds * 1000))}}


def _label(rng: random.Random, _: int, seconds: float) -> dict[str, Any]:
    event: dict[str, Any] = {
        "tweet": {"id": _id(rng), "author_id": _id(rng)},
        "application": rng.choice(("apply", "remove")),
        "event_at": stamp(int(seconds * 1000)),
    }
    if rng.random() < 0.3:
        return {"public_tweet_unviewable": event}
    event |= {
        "event_type": "misleading",
        "label_title": "Get the facts",
        "details": "Find out more about this",
        "extended_details_url": "https://example.com/facts",
    }
    return {"public_tweet_notice": event}


def _activity(rng: random.Random, position: int, seconds: float) -> dict[str, Any]:
    kind = rng.choice(("profile.update.bio", "post.create", "post.delete", "follow.follow"))
    payloads: dict[str, dict[str, Any]] = {
        "profile.update.bio": {"before": "I read.", "after": "I write."},
        "post.create": {"id": _id(rng), "text": "hello"},
        "post.delete": {"id": _id(rng), "author_id": _id(rng)},
        "follow.follow": {"source": _user(rng, "ada"), "target": _user(rng, "kofi")},
    }
    return {
        "event_uuid": str(snowflake(seconds, position)),
        "filter": {"user_id": _id(rng)},
        "event_type": kind,
        "tag": kind.split(".", 1)[0],
        "payload": payloads[kind],
    }


def _user(rng: random.Random, name: str) -> dict[str, str]:
    return {"id": _id(rng), "name": name.title(), "username": name}


def _id(rng: random.Random) -> str:
    return str(rng.randint(1_700_000_000_000_000_000, 1_790_000_000_000_000_000))


COUNTRIES: Sequence[str] = ("BR", "DE", "FR", "IN", "TR")
USER_ACTIONS = (
    "user_delete",
    "user_undelete",
    "user_protect",
    "user_unprotect",
    "user_suspend",
    "user_unsuspend",
    "user_withheld",
    "scrub_geo",
    "user_profile_modification",
)
WRITERS: dict[str, Callable[[random.Random, int, float], dict[str, Any]]] = {
    "likes_firehose_stream": _like,
    "likes_sample10_stream": _like,
    "tweets_compliance_stream": _of_tweets,
    "users_compliance_stream": _of_users,
    "likes_compliance_stream": _of_likes,
    "tweet_label_stream": _label,
    "activity_stream": _activity,
}
