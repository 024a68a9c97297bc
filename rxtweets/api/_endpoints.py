"""X's streams, as data: where they are, what they carry, what they can be asked for.

Source: the OpenAPI description of X's API v2, whose streaming operations carry the tag ``Stream``.
"""

from __future__ import annotations

from dataclasses import dataclass

from rxtweets._messages.payloads import Carries

__all__ = ["ENDPOINTS", "Endpoint"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One stream.

    Attributes:
        name: X's id of it, by which the connections API knows it.
        path: below the base URL.
        carries: what its lines are.
        partitions: into how many it is divided; 0 if it is not.
        replays: whether it takes ``start_time`` and ``end_time``.
        lang: the one language of its tweets; empty for all.
    """

    name: str
    path: str
    carries: Carries = "tweets"
    partitions: int = 0
    replays: bool = True
    lang: str = ""

    @property
    def has_fields(self) -> bool:
        """Whether it takes ``*.fields`` and ``expansions``."""
        return self.carries in {"tweets", "likes"}


ENDPOINTS = {
    endpoint.name: endpoint
    for endpoint in (
        Endpoint("sample_stream", "/2/tweets/sample/stream", replays=False),
        Endpoint("sample10_stream", "/2/tweets/sample10/stream", partitions=2),
        Endpoint("filtered_stream", "/2/tweets/search/stream"),
        Endpoint("firehose_stream", "/2/tweets/firehose/stream", partitions=20),
        *(
            Endpoint(
                f"firehose_stream_lang_{lang}",
                f"/2/tweets/firehose/stream/lang/{lang}",
                partitions=partitions,
                lang=lang,
            )
            for lang, partitions in (("en", 8), ("ja", 2), ("ko", 2), ("pt", 2))
        ),
        Endpoint("likes_firehose_stream", "/2/likes/firehose/stream", "likes", 20),
        Endpoint("likes_sample10_stream", "/2/likes/sample10/stream", "likes", 2),
        Endpoint("tweets_compliance_stream", "/2/tweets/compliance/stream", "compliance", 4),
        Endpoint("users_compliance_stream", "/2/users/compliance/stream", "compliance", 4),
        Endpoint("likes_compliance_stream", "/2/likes/compliance/stream", "compliance"),
        Endpoint("tweet_label_stream", "/2/tweets/label/stream", "labels"),
        Endpoint("activity_stream", "/2/activity/stream", "activity"),
    )
}
"""By name."""
