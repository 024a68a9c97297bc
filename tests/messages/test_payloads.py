"""Events of other streams: the examples of X's documentation, missing and renamed fields."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxtweets import Activity, ComplianceEvent, LabelEvent, Like
from rxtweets._messages.decoding import Unknown, decode
from rxtweets._messages.payloads import Carries, reader_for
from rxtweets._support.timestamps import moment

KINDS: list[Carries] = ["likes", "compliance", "labels", "activity"]
TIME = "2022-12-23T12:34:56.789Z"
AT = datetime(2022, 12, 23, 12, 34, 56, 789_000, UTC)
TWEET = {"id": "601430178305220608", "author_id": "3198576760"}


def read(carries: Carries, value: Any) -> tuple[Any, str]:
    reader = reader_for(carries)
    assert reader is not None
    found = reader(value)
    assert found is not None
    return found


def event(action: str, **parts: Any) -> ComplianceEvent:
    return cast("ComplianceEvent", read("compliance", {"data": {action: parts}})[0])


def test_tweets_have_no_reader() -> None:
    assert reader_for("tweets") is None


def test_like_is_read() -> None:
    like, identifier = read("likes", {"data": {
        "id": "8ba4f34e6235d905a46bac021d98e923", "liked_tweet_id": "1346889436626259968",
        "tweet_author_id": "2244994945", "created_at": "2025-11-26T21:30:10.000Z",
        "timestamp_ms": 464,
    }})  # fmt: skip
    assert identifier == "8ba4f34e6235d905a46bac021d98e923"
    assert like == Like(
        identifier,
        "1346889436626259968",
        "2244994945",
        datetime(2025, 11, 26, 21, 30, 10, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("tweet", "author"),
    [
        ("liked_tweet_id", "liked_tweet_author_id"),
        ("liked_tweet_id", "tweet_author_id"),
        ("liked_post_id", "liked_post_author_id"),
        ("liked_post_id", "post_author_id"),
    ],
)
def test_like_is_read_with_older_and_newer_names(tweet: str, author: str) -> None:
    like, _ = read("likes", {"data": {"id": "a", tweet: 1, author: 2}})
    assert like == Like("a", "1", "2", None)


@pytest.mark.parametrize("data", [{"id": "a"}, {"id": "a", "liked_tweet_id": None}])
def test_like_is_read_when_it_has_only_an_id(data: dict[str, Any]) -> None:
    assert read("likes", {"data": data}) == (Like("a", "", "", None), "a")


def test_deleted_tweet_is_read() -> None:
    assert event("delete", tweet=TWEET, event_at=TIME) == ComplianceEvent(
        "delete", AT, tweet_id="601430178305220608", user_id="3198576760"
    )


def test_deleted_quote_has_the_quoted_tweet() -> None:
    deleted = event("delete", tweet={"id": "1", "author_id": "2"}, quote_tweet_id="3")
    assert (deleted.tweet_id, deleted.details) == ("1", {"quote_tweet_id": "3"})


def test_edit_has_all_versions() -> None:
    versions = ["1567233844205453313", "1567233994734948354"]
    edit = event("tweet_edit", tweet={"id": versions[1]}, initial_tweet_id=versions[0],
                 edit_tweet_ids=versions, event_at="2022-09-06T19:31:16.801Z")  # fmt: skip
    assert edit == ComplianceEvent(
        "tweet_edit",
        datetime(2022, 9, 6, 19, 31, 16, 801_000, UTC),
        tweet_id=versions[1],
        details={"initial_tweet_id": versions[0], "edit_tweet_ids": versions},
    )


def test_withheld_tweet_has_the_countries() -> None:
    withheld = event("withheld", tweet=TWEET, withheld_in_countries=["DE", "FR"], event_at=TIME)
    assert withheld.details == {"withheld_in_countries": ["DE", "FR"]}


@pytest.mark.parametrize("action", ["drop", "undrop"])
def test_drop_and_undrop_are_read(action: str) -> None:
    dropped = event(action, tweet=TWEET, event_at=TIME)
    assert (dropped.action, dropped.tweet_id, dropped.event_at) == (action, TWEET["id"], AT)


@pytest.mark.parametrize(
    "action",
    ["user_delete", "user_undelete", "user_protect", "user_unprotect", "user_suspend",
     "user_unsuspend"],
)  # fmt: skip
def test_event_of_a_user_is_read(action: str) -> None:
    expected = ComplianceEvent(action, AT, user_id="1")
    assert event(action, user={"id": "1"}, event_at=TIME) == expected


@pytest.mark.parametrize(
    ("action", "details"),
    [
        ("user_withheld", {"withheld_in_countries": ["DE"]}),
        ("scrub_geo", {"up_to_tweet_id": "99"}),
        ("user_profile_modification", {"profile_field": "name", "new_value": "x"}),
    ],
)
def test_event_of_a_user_has_details(action: str, details: Any) -> None:
    assert event(action, user={"id": "1"}, event_at=TIME, **details) == ComplianceEvent(
        action, AT, user_id="1", details=details
    )


def test_deleted_like_is_read() -> None:
    deleted = event("delete", favorite={"id": "1", "user_id": "2"}, event_at=TIME)
    assert deleted == ComplianceEvent("delete", AT, like_id="1", user_id="2")


def test_compliance_event_has_no_id() -> None:
    assert read("compliance", {"data": {"drop": {"tweet": TWEET}}})[1] == ""


@pytest.mark.parametrize("subject", ["tweet", "user", "favorite"])
def test_event_is_read_when_it_has_no_time(subject: str) -> None:
    found = event("some_day_new", **{subject: {"id": 1}})
    assert found.event_at is None
    assert "1" in {found.tweet_id, found.user_id, found.like_id}


def test_notice_on_a_tweet_is_read() -> None:
    label, identifier = read("labels", {"data": {"public_tweet_notice": {
        "tweet": TWEET, "event_type": "misleading", "application": "apply", "details": "why",
        "label_title": "Misleading", "extended_details_url": "https://x.com", "event_at": TIME,
    }}})  # fmt: skip
    assert identifier == ""
    assert label == LabelEvent(
        "public_tweet_notice",
        "apply",
        AT,
        TWEET["id"],
        TWEET["author_id"],
        {"event_type": "misleading", "details": "why", "label_title": "Misleading",
         "extended_details_url": "https://x.com"},
    )  # fmt: skip


def test_removed_label_is_read() -> None:
    value = {"public_tweet_unviewable": {"tweet": TWEET, "application": "remove", "event_at": TIME}}
    label, _ = read("labels", {"data": value})
    assert (label.label, label.application, label.details) == (
        "public_tweet_unviewable", "remove", {},
    )  # fmt: skip


def test_activity_is_read() -> None:
    activity, identifier = read("activity", {"data": {
        "event_uuid": "2080761390344937796", "filter": {"user_id": "1111111111111111111"},
        "event_type": "post.create", "tag": "posts",
        "payload": {"id": "2080761390344937796", "public_metrics": {"retweet_count": 0}},
        "includes": {},
    }})  # fmt: skip
    assert identifier == "2080761390344937796"
    assert activity == Activity(
        identifier,
        "post.create",
        "posts",
        {"user_id": "1111111111111111111"},
        {"id": "2080761390344937796", "public_metrics": {"retweet_count": 0}},
    )


@pytest.mark.parametrize("tag", [None, ""])
def test_activity_has_an_empty_tag_when_x_sends_none(tag: str | None) -> None:
    value = {"data": {"event_uuid": 7, "event_type": "follow.follow", "tag": tag, "filter": None}}
    assert read("activity", value) == (Activity("7", "follow.follow", "", {}, {}), "7")


@pytest.mark.parametrize("carries", KINDS)
@pytest.mark.parametrize(
    "value",
    [
        None, 5, "text", [], {}, {"data": None}, {"data": []}, {"data": {}}, {"data": "text"},
        {"data": {"delete": None}}, {"data": {"delete": {}}}, {"data": {"event_type": 5}},
        {"errors": [{"title": "x"}]},
        {"type": "connection_metadata", "datacenter": "atla", "timestamp": 1762557264155},
    ],
)  # fmt: skip
def test_other_line_is_not_read(carries: Carries, value: Any) -> None:
    reader = reader_for(carries)
    assert reader is not None
    assert reader(value) is None


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 2**62), st.text(max_size=3), st.just(TIME)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["data", "id", "tweet", "user", "favorite", "event_at", "delete", "liked_tweet_id",
                 "author_id", "event_type", "created_at", "public_tweet_notice", "payload", "tag"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)  # fmt: skip


@given(JSON, st.sampled_from(KINDS))
def test_any_shape_has_one_outcome(value: Any, carries: Carries) -> None:
    decoded = decode([orjson.dumps({"data": value})], 0.0, reader_for(carries))
    assert len(decoded.messages) + len(decoded.others) == 1
    for message in decoded.messages:
        assert isinstance(message.id, str)
        assert message.created_at is None or message.created_at.tzinfo is not None


def test_event_becomes_a_message_with_all_fields_as_metadata() -> None:
    line = orjson.dumps({"data": {"drop": {"tweet": TWEET, "event_at": TIME}}})
    (message,) = decode([line], AT.timestamp() + 2, reader_for("compliance")).messages
    assert isinstance(message.data, ComplianceEvent)
    assert message.metadata["drop"]["tweet"] == TWEET
    assert (message.created_at, message.raw) == (AT, line)
    assert message.lag == pytest.approx(2.0)


def test_event_with_errors_is_partial() -> None:
    line = orjson.dumps({"data": {"id": "a", "liked_tweet_id": "1"}, "errors": [{"title": "x"}]})
    decoded = decode([line], 0.0, reader_for("likes"))
    assert decoded.partial == decoded.messages
    assert len(decoded.messages) == 1


def test_other_line_is_unknown() -> None:
    line = b'{"type":"connection_metadata"}'
    assert decode([line], 0.0, reader_for("likes")).others == [
        Unknown({"type": "connection_metadata"}, line)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TIME, AT),
        ("2022-12-23T12:34:56.789+00:00", AT),
        ("2022-12-23T14:34:56.789+02:00", AT),
        ("2022-12-23T12:34:56.789", AT),
        ("2022-12-23T12:34:56Z", AT.replace(microsecond=0)),
        ("2022-12-23T12:34:56.789123456Z", AT.replace(microsecond=789_123)),
    ],
)
def test_time_is_read_with_its_zone(text: str, expected: datetime) -> None:
    found = moment(text)
    assert found == expected
    assert found is not None
    assert found.tzinfo is not None


@pytest.mark.parametrize("value", [None, "", "yesterday", 1_762_557_264, "2022-13-01T00:00:00Z"])
def test_other_text_is_no_time(value: object) -> None:
    assert moment(value) is None
