"""X's streams, and the names of fields and expansions that they take.

Sources: the OpenAPI description of X's API v2, whose streaming operations have the tag ``Stream``;
for the newer names also its other operations.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from rxtweets._messages.payloads import Carries
from rxtweets.api._options import warn_caller

__all__ = ["ENDPOINTS", "KNOWN", "Endpoint", "UnknownNameWarning", "warn_of_unknown"]


class UnknownNameWarning(UserWarning):
    """A field or an expansion that is not in X's description; X is asked for it all the same."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One stream.

    Attributes:
        name: X's id of the stream, also in the connections API.
        path: below the base URL.
        carries: the kind of its messages.
        partitions: number of its partitions; 0 for none.
        replays: whether it takes ``start_time`` and ``end_time``.
        lang: the language of its tweets; empty for all.
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


def _of_language(lang: str, partitions: int) -> Endpoint:
    name, path = f"firehose_stream_lang_{lang}", f"/2/tweets/firehose/stream/lang/{lang}"
    return Endpoint(name, path, partitions=partitions, lang=lang)


ENDPOINTS = {
    endpoint.name: endpoint
    for endpoint in (
        Endpoint("sample_stream", "/2/tweets/sample/stream", replays=False),
        Endpoint("sample10_stream", "/2/tweets/sample10/stream", partitions=2),
        Endpoint("filtered_stream", "/2/tweets/search/stream"),
        Endpoint("firehose_stream", "/2/tweets/firehose/stream", partitions=20),
        _of_language("en", 8),
        _of_language("ja", 2),
        _of_language("ko", 2),
        _of_language("pt", 2),
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

KNOWN = {
    option: frozenset(names.split())
    for option, names in {
        "tweet_fields": """
            article article_title attachments author_id card_uri community_id context_annotations
            conversation_id created_at display_text_range edit_controls edit_history_post_ids
            edit_history_tweet_ids entities geo id in_reply_to_user_id lang matched_media_notes
            media_metadata non_public_metrics note_post note_request_suggestions note_tweet
            organic_metrics paid_partnership possibly_sensitive promoted_metrics public_metrics
            referenced_posts referenced_tweets reply_settings scopes source
            suggested_source_links suggested_source_links_with_counts text withheld""",
        "user_fields": """
            affiliation confirmed_email connection_status created_at description entities id
            is_identity_verified location most_recent_post_id most_recent_tweet_id name parody
            pinned_post_id pinned_tweet_id profile_banner_url profile_image_url protected
            public_metrics receives_your_dm subscribes_to_you subscription subscription_type url
            username verified verified_followers_count verified_type withheld""",
        "media_fields": """
            alt_text duration_ms height media_key non_public_metrics organic_metrics
            preview_image_url promoted_metrics public_metrics type url variants width""",
        "place_fields": "contained_within country country_code full_name geo id name place_type",
        "poll_fields": "duration_minutes end_datetime id options voting_status",
        "like_fields": """
            attachments_media_keys created_at id liked_tweet_author_id liked_tweet_id
            timestamp_ms""",
        "expansions": """
            article.cover_media article.media_entities attachments.media_keys
            attachments.media_source_tweet attachments.poll_ids author_id edit_history_post_ids
            edit_history_tweet_ids entities.mentions.username entities.note.mentions.username
            geo.place_id in_reply_to_user_id liked_tweet_author_id liked_tweet_id
            referenced_posts referenced_tweets.id referenced_tweets.id.attachments.media_keys
            referenced_tweets.id.author_id""",
    }.items()
}
"""By option of the streams. X adds and renames fields, so other names get only a warning."""


def warn_of_unknown(option: str, names: Iterable[str]) -> None:
    """Warn about names that are not in X's description, with the closest one that is.

    Args:
        option: a key of `KNOWN`.
        names: the names of the option.
    """
    for name in names:
        if name not in KNOWN[option]:
            close = difflib.get_close_matches(name, KNOWN[option], 1)
            hint = f"; did you mean {close[0]}?" if close else "."
            text = f"{option}: X was not known to have {name!r}{hint} It is asked for all the same."
            warn_caller(text, UnknownNameWarning)
