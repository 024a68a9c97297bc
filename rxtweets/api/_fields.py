"""The names that X's streams can be asked for: fields of each object, and expansions.

They are data, not a fence: X adds and renames fields (``tweet`` becomes ``post``), so a name that
is not here is warned about and sent all the same.

Source: the OpenAPI description of X's API v2, its streaming operations and, for the newer names,
its others.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable

__all__ = ["KNOWN", "UnknownNameWarning", "warn_of_unknown"]


class UnknownNameWarning(UserWarning):
    """A field or an expansion that X was not known to have; it is asked for all the same."""


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
"""By option of the streams."""


def warn_of_unknown(option: str, names: Iterable[str], stacklevel: int) -> None:
    """Warn about names that the option is not known to take.

    Args:
        option: a key of `KNOWN`.
        names: those that were given.
        stacklevel: of `warnings.warn`, seen from here.
    """
    for name in names:
        if name not in KNOWN[option]:
            close = difflib.get_close_matches(name, KNOWN[option], 1)
            hint = f"; did you mean {close[0]}?" if close else "."
            text = f"{option}: X was not known to have {name!r}{hint} It is asked for all the same."
            warnings.warn(text, UnknownNameWarning, stacklevel=stacklevel + 1)
