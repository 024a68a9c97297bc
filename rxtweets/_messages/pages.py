"""Pages of tweets, as X's search answers them and twarc writes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from rxtweets._messages.decoding import Decoded, Unknown
from rxtweets._messages.message import Message, is_tweet
from rxtweets._support.json_objects import object_in

__all__ = ["read_page"]

INCLUDES_OF = {
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
"""The group of includes that a field of a tweet refers to."""

Reference = tuple[str, str]
"""Group of includes, and lower-case id, key or name in it."""


def read_page(page: dict[str, Any], line: bytes, decoded: Decoded) -> None:
    """Add each tweet of a page as a message, with the includes and errors that it refers to.

    Args:
        page: the decoded page.
        line: of the page.
        decoded: receives the messages, and the other parts as unknown.
    """
    payloads = list(_payloads_in(page))
    if not any(map(is_tweet, payloads)):
        decoded.others.append(Unknown(page, line))
        return
    attributed = {id(error) for payload in payloads for error in payload.get("errors", ())}
    if rest := [error for error in _errors_in(page) if id(error) not in attributed]:
        payloads.append({"errors": rest})
    for payload in payloads:
        try:
            raw = orjson.dumps(payload)
        except orjson.JSONEncodeError:  # nested deeper than orjson encodes
            decoded.others.append(Unknown(payload, line))
            continue
        if is_tweet(payload):
            decoded.add(Message.from_payload(payload, raw), payload)
        else:
            decoded.others.append(Unknown(payload, raw))


def _payloads_in(page: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a payload for each tweet, as the line of a stream would have it."""
    groups = object_in(page, "includes")
    positions = _positions(groups)
    for tweet in page["data"]:
        references = _references(tweet)
        for name, index in [positions[key] for key in references if key in positions]:
            if name in {"tweets", "posts"}:  # with its author and media, but without its references
                further = _references(groups[name][index])
                references |= {reference for reference in further if reference[0] != "tweets"}
        payload: dict[str, Any] = {"data": tweet}
        for name, index in sorted({positions[key] for key in references if key in positions}):
            payload.setdefault("includes", {}).setdefault(name, []).append(groups[name][index])
        ids = {identifier for _, identifier in references}
        errors = [error for error in _errors_in(page) if _subject_id(error) in ids]
        yield payload | {"errors": errors} if errors else payload


def _positions(groups: dict[str, Any]) -> dict[Reference, tuple[str, int]]:
    """Return group and index of each include by its references."""
    positions: dict[Reference, tuple[str, int]] = {}
    for name, group in groups.items():
        kind = "tweets" if name == "posts" else name
        for index, part in enumerate(group if isinstance(group, list) else ()):
            for key in ("id", "media_key", "username"):
                if isinstance(part, dict) and key in part:
                    positions[kind, str(part[key]).lower()] = name, index
    return positions


def _references(tweet: Any) -> set[Reference]:
    """Return the references in a tweet, and one to the tweet itself with an empty group."""
    found = {("", str(tweet.get("id")))} if isinstance(tweet, dict) else set()
    left = [("", tweet)]
    while left:
        name, value = left.pop()
        if isinstance(value, dict):
            left += ((name if key == "id" else key, inner) for key, inner in value.items())
        elif isinstance(value, list):
            left += ((name, inner) for inner in value)
        elif name in INCLUDES_OF:
            found.add((INCLUDES_OF[name], str(value).lower()))
    return found


def _errors_in(page: dict[str, Any]) -> list[Any]:
    errors = page.get("errors")
    return errors if isinstance(errors, list) else []


def _subject_id(error: Any) -> str:
    error = error if isinstance(error, dict) else {}
    return str(error.get("resource_id") or error.get("value") or "").lower()
