"""Simulated likes, compliance events, labels and activities: deterministic by seed and position."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from rxtweets.simulator._tweets import snowflake, stamp

__all__ = ["SampleEvents"]


class SampleEvents:
    """The frames of a stream that has no tweets: likes, compliance events, labels, activities.

    Args:
        stream: name of the endpoint.
        seed: the same seed gives the same frames, with other times.
    """

    def __init__(self, stream: str, seed: int) -> None:
        self._stream = stream
        self._write = WRITERS[stream]
        self._seed = seed

    def frames(self, start: int, count: int) -> list[bytes]:
        """Return the frames from position ``start`` on, written now."""
        now = time.time()
        return [self.at(position, now) for position in range(start, start + count)]

    def at(self, position: int, seconds: float) -> bytes:
        """Return the frame of a position, written at that time."""
        rng = random.Random(f"{self._seed} {self._stream} {position}")
        return orjson.dumps({"data": self._write(rng, position, seconds)})


def _like_event(rng: random.Random, _: int, seconds: float) -> dict[str, Any]:
    return {
        "id": f"{rng.getrandbits(128):032x}",
        "liked_tweet_id": _id(rng),
        "tweet_author_id": _id(rng),
        "created_at": stamp(int(seconds * 1000)),
        "timestamp_ms": int(seconds * 1000) % 1000,
    }


def _tweet_compliance(rng: random.Random, _: int, seconds: float) -> dict[str, Any]:
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


def _user_compliance(rng: random.Random, _: int, seconds: float) -> dict[str, Any]:
    action = rng.choice(USER_ACTIONS)
    event: dict[str, Any] = {"user": {"id": _id(rng)}}
    if action == "user_withheld":
        event["withheld_in_countries"] = rng.sample(COUNTRIES, 1)
    elif action == "scrub_geo":
        event["up_to_tweet_id"] = _id(rng)
    elif action == "user_profile_modification":
        event |= {"profile_field": "name", "new_value": rng.choice(("Ada", "María", "真由美"))}
    return {action: {**event, "event_at": stamp(int(seconds * 1000))}}


def _like_compliance(rng: random.Random, _: int, seconds: float) -> dict[str, Any]:
    favorite = {"id": _id(rng), "user_id": _id(rng)}
    return {"delete": {"favorite": favorite, "event_at": stamp(int(seconds * 1000))}}


def _tweet_label(rng: random.Random, _: int, seconds: float) -> dict[str, Any]:
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


def _activity_event(rng: random.Random, position: int, seconds: float) -> dict[str, Any]:
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
    *("user_delete", "user_undelete", "user_protect", "user_unprotect", "user_suspend"),
    *("user_unsuspend", "user_withheld", "scrub_geo", "user_profile_modification"),
)
WRITERS: dict[str, Callable[[random.Random, int, float], dict[str, Any]]] = {
    "likes_firehose_stream": _like_event,
    "likes_sample10_stream": _like_event,
    "tweets_compliance_stream": _tweet_compliance,
    "users_compliance_stream": _user_compliance,
    "likes_compliance_stream": _like_compliance,
    "tweet_label_stream": _tweet_label,
    "activity_stream": _activity_event,
}
