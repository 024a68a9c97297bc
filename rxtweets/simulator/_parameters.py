"""What a stream can be asked for: parameters, and the names that some of them take."""

from __future__ import annotations

from collections.abc import Mapping

from rxtweets.api._endpoints import KNOWN, Endpoint
from rxtweets.simulator.script import Reply, invalid_request

__all__ = ["names_refusal"]

OF_ALL = {"backfill_minutes", "partition", "start_time", "end_time"}
"""Whether the stream takes them is looked at with their values."""

OF_TWEETS = {
    "tweet.fields": "tweet_fields",
    "user.fields": "user_fields",
    "media.fields": "media_fields",
    "place.fields": "place_fields",
    "poll.fields": "poll_fields",
    "expansions": "expansions",
}
OF_LIKES = {
    "like_with_tweet_author.fields": "like_fields",
    "tweet.fields": "tweet_fields",
    "user.fields": "user_fields",
    "media.fields": "media_fields",
    "expansions": "expansions",
}
LISTS = {"tweets": OF_TWEETS, "likes": OF_LIKES}
"""Keys of `KNOWN` by X's names, by what a stream carries."""


def names_refusal(endpoint: Endpoint, query: Mapping[str, str]) -> Reply | None:
    """The answer to parameters, fields and expansions that X does not have, if any is there."""
    lists = LISTS.get(endpoint.carries, {})
    for name, given in query.items():
        if name not in lists:
            if name not in OF_ALL:
                choice = ",".join(sorted(OF_ALL | lists.keys()))
                text = f"The query parameter [{name}] is not one of [{choice}]"
                return invalid_request(name, given, text)
            continue
        known = KNOWN[lists[name]]
        for each in given.split(","):
            if each not in known:
                text = f"The `{name}` query parameter value [{each}] is not one of "
                return invalid_request(name, each, f"{text}[{','.join(sorted(known))}]")
    return None
