from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxtweets._messages.decoding import Decoded, Disconnect, Undecodable, Unknown, decode
from rxtweets._messages.lookup import look_up
from rxtweets._messages.message import Interest

TWEET = b'{"data":{"id":"1","text":"hello"}}'
OPERATIONAL = {
    "title": "operational-disconnect",
    "disconnect_type": "UpstreamOperationalDisconnect",
    "detail": "This stream has been disconnected upstream for operational reasons.",
    "type": "https://api.x.com/2/problems/operational-disconnect",
}
PARTIAL = {
    "value": "1",
    "detail": "Could not find tweet with referenced_tweets.id: [1].",
    "title": "Not Found Error",
    "resource_type": "tweet",
    "type": "https://api.twitter.com/2/problems/resource-not-found",
}


def one(value: Any) -> Decoded:
    return decode([value if isinstance(value, bytes) else orjson.dumps(value)])


@pytest.mark.parametrize("end", [b"", b"\r", b"\r\n"])
def test_a_tweet_becomes_a_message_with_or_without_its_line_end(end: bytes) -> None:
    decoded = decode([TWEET + end], received_at=7.0)
    [message] = decoded.messages
    assert (message.data, message.id, message.received_at) == ("hello", "1", 7.0)
    assert message.raw == TWEET
    assert decoded.others == []
    assert decoded.partial == []


@pytest.mark.parametrize(
    "line",
    [
        b'{"data":{"id":"1","text":"hel',
        b'{"data":{"id":"1","text":"\xff"}}',
        b'{"data":{"id":"1","text":"a\x00b"}}',
        b"{}{}",
        b"NaN",
        b"<html>",
    ],
)
def test_a_line_that_is_no_json_is_kept_with_the_reason(line: bytes) -> None:
    [other] = one(line).others
    assert isinstance(other, Undecodable)
    assert other.error.line == line
    assert "not JSON" in str(other.error)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        17,
        "text",
        [],
        [{"data": {"id": "1", "text": "x"}}],
        {},
        {"data": None},
        {"data": []},
        {"data": {"id": "1"}},
        {"data": {"id": "1", "text": None}},
        {"data": {"delete": {"tweet": {"id": "1", "author_id": "2"}}}},
        {"type": "connection_metadata", "datacenter": "atla", "timestamp": 1762557264155},
        {"errors": [PARTIAL]},
        {"errors": "what"},
        {"errors": [None, 3]},
    ],
    ids=repr,
)
def test_json_of_another_shape_is_unknown_with_its_value(value: Any) -> None:
    [other] = one(value).others
    assert isinstance(other, Unknown)
    assert other.value == value
    assert other.line == orjson.dumps(value)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"errors": [OPERATIONAL]}, "UpstreamOperationalDisconnect"),
        (OPERATIONAL, "UpstreamOperationalDisconnect"),
        ({"errors": [PARTIAL, OPERATIONAL]}, "UpstreamOperationalDisconnect"),
        ({"data": None, "errors": [OPERATIONAL]}, "UpstreamOperationalDisconnect"),
        ({"errors": [{"connection_issue": "TooManyConnections"}]}, "TooManyConnections"),
        (
            {"errors": [{"type": "https://api.twitter.com/2/problems/client-disconnected"}]},
            "",
        ),
        (
            {
                "errors": [
                    {"title": "x", "type": "https://api.x.com/2/problems/streaming-connection"}
                ]
            },
            "x",
        ),
    ],
)
def test_a_disconnect_is_known_in_every_form_that_was_seen(value: Any, kind: str) -> None:
    [other] = one(value).others
    assert isinstance(other, Disconnect)
    assert other.disconnect_type == kind


def test_a_disconnect_keeps_the_sentence_of_x() -> None:
    [other] = one({"errors": [OPERATIONAL]}).others
    assert isinstance(other, Disconnect)
    assert other.detail == OPERATIONAL["detail"]


@pytest.mark.parametrize("problem", [PARTIAL, OPERATIONAL])
def test_errors_beside_a_tweet_are_about_the_tweet_and_no_disconnect(problem: Any) -> None:
    decoded = one({"data": {"id": "1", "text": "RT"}, "errors": [problem]})
    assert decoded.partial == decoded.messages
    assert decoded.messages[0].metadata["errors"] == [problem]
    assert decoded.others == []


def test_of_duplicate_keys_the_last_counts() -> None:
    [message] = one(b'{"data":{"id":"1","id":"2","text":"a","text":"b"}}').messages
    assert (message.id, message.data) == ("2", "b")


def test_outcomes_keep_their_order() -> None:
    decoded = decode([TWEET, b"null", b"{", TWEET.replace(b"1", b"2"), orjson.dumps(OPERATIONAL)])
    assert [message.id for message in decoded.messages] == ["1", "2"]
    assert [type(other) for other in decoded.others] == [Unknown, Undecodable, Disconnect]


@given(st.binary(min_size=1, max_size=200))
def test_whatever_the_bytes_there_is_one_outcome(line: bytes) -> None:
    decoded = decode([line])
    assert len(decoded.messages) + len(decoded.others) == 1


def test_every_recorded_frame_is_a_tweet(recorded: Path) -> None:
    decoded = decode(recorded.read_bytes().splitlines())
    assert len(decoded.messages) == 1414
    assert decoded.others == []


def test_a_disconnect_of_a_type_that_nobody_knew_is_known_by_its_reason() -> None:
    problem = {"disconnect_type": "ForceDisconnect", "type": "about:blank"}
    [other] = one({"errors": [problem]}).others
    assert other == Disconnect("ForceDisconnect", "")


@pytest.mark.parametrize("prefix", ["https://api.twitter.com", "https://api.x.com"])
@pytest.mark.parametrize(
    "last", ["operational-disconnect", "client-disconnected", "streaming-connection"]
)
def test_a_type_alone_is_a_disconnect_with_its_title_for_want_of_a_sentence(
    prefix: str, last: str
) -> None:
    [other] = one({"title": "t", "type": f"{prefix}/2/problems/{last}"}).others
    assert other == Disconnect("t", "t")


def test_errors_beside_data_that_is_no_tweet_are_no_disconnect() -> None:
    [other] = one({"data": {"id": "1"}, "errors": [OPERATIONAL]}).others
    assert isinstance(other, Unknown)


@pytest.mark.parametrize("errors", [3, True, {"title": "x"}])
def test_errors_that_are_no_list_are_unknown(errors: Any) -> None:
    [other] = one({"errors": errors}).others
    assert isinstance(other, Unknown)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"connection_issue": None, "title": "x"}, Unknown),
        ({"type": "https://api.x.com/2/problems/streaming-connection", "errors": []}, Disconnect),
    ],
)
def test_a_disconnect_has_a_name_or_a_known_type(value: Any, kind: type[object]) -> None:
    [other] = one(value).others
    assert isinstance(other, kind)


texts = st.text(max_size=20)
identifiers = st.one_of(texts, st.integers(0, 2**63), st.none())
values = st.one_of(
    st.builds(lambda text, number: {"data": {"text": text, "id": number}}, texts, identifiers),
    st.builds(lambda text: {"data": {"text": text}}, texts),
    st.builds(lambda text: {"data": {"text": text}, "errors": [{"title": "Not Found"}]}, texts),
    st.dictionaries(texts, texts, max_size=3),
    st.none(),
)
lines_of_all_kinds = st.lists(
    st.one_of(values.map(orjson.dumps), st.binary(min_size=1, max_size=30)), max_size=20
)


@given(lines_of_all_kinds)
def test_lines_that_were_looked_up_elsewhere_are_decoded_to_the_same(lines: list[bytes]) -> None:
    def shown(decoded: Decoded) -> Any:
        messages = [(each.data, each.id, each.raw, each.received_at) for each in decoded.messages]
        partial = [each.raw for each in decoded.partial]
        others = [repr(each) for each in decoded.others]
        return messages, partial, others

    known = look_up(lines)
    assert shown(decode(lines, 7.0, None, known)) == shown(decode(lines, 7.0))


def interest_that_keeps() -> Interest:
    interest = Interest()
    interest.keeps = True
    return interest


@given(lines_of_all_kinds)
def test_metadata_is_the_same_whether_the_decoded_line_was_kept_or_not(lines: list[bytes]) -> None:
    kept = decode(lines, interest=interest_that_keeps()).messages
    fresh = decode(lines).messages
    assert [dict(each.metadata) for each in kept] == [dict(each.metadata) for each in fresh]
    assert [each.update_data(str.upper).metadata for each in kept] == [
        each.metadata for each in fresh
    ]


def test_every_recorded_frame_has_the_same_metadata_kept_or_not(recorded: Path) -> None:
    lines = recorded.read_bytes().splitlines()
    kept = decode(lines, interest=interest_that_keeps()).messages
    assert [dict(each.metadata) for each in kept] == [
        dict(each.metadata) for each in decode(lines).messages
    ]


def test_an_id_beside_a_tweet_without_one_is_not_the_tweets_own() -> None:
    line = b'{"data": {"text": "hello"}, "id": "1"}'
    [message] = decode([line], interest=interest_that_keeps()).messages
    assert message.id == decode([line]).messages[0].id == ""


@pytest.mark.parametrize("keeps", [True, False])
def test_changing_what_is_inside_the_metadata_of_a_message_changes_no_other(*, keeps: bool) -> None:
    interest = Interest()
    interest.keeps = keeps
    line = b'{"data":{"text":"a","metrics":{"likes":1}},"includes":{"users":[]}}'
    one, other = decode([line, line], interest=interest).messages
    one.metadata["metrics"]["likes"] = 2
    one.metadata["includes"]["users"].append("x")
    assert other.metadata == {"metrics": {"likes": 1}, "includes": {"users": []}}
    assert one.raw == line


def keeps_after(interest: Interest, *, read: bool) -> bool:
    """Whether decoded lines are kept after several thousand messages."""
    for _ in range(50):
        messages = decode([TWEET] * 100, interest=interest).messages
        if read:
            assert all(each.metadata == {"id": "1"} for each in messages)
    return interest.keeps


def test_decoded_lines_are_kept_as_long_as_metadata_is_read() -> None:
    interest = Interest()
    assert not keeps_after(interest, read=False)
    assert keeps_after(interest, read=True)
    assert keeps_after(interest, read=True)
    assert not keeps_after(interest, read=False)


def test_lines_that_were_looked_up_elsewhere_count_as_read_too() -> None:
    interest = Interest()
    for _ in range(50):
        for message in decode([TWEET] * 100, None, None, look_up([TWEET] * 100), interest).messages:
            assert message.metadata == {"id": "1"}
    assert interest.keeps


def copies_have_it_after(interest: Interest, *, read: bool) -> bool:
    """Whether copies get the metadata that was read, after several thousand messages."""
    got = False
    for _ in range(400):
        for message in decode([TWEET] * 100, interest=interest).messages:
            metadata = message.metadata
            copy = message.update_data(str.upper).failed("x")
            if read:
                assert copy.metadata == {"id": "1"}
                got = copy.metadata is metadata
            else:
                got = interest.carries
    return got


def test_copies_get_the_metadata_that_was_read_where_it_is_read_of_them_too() -> None:
    interest = Interest()
    assert not copies_have_it_after(interest, read=False)
    assert copies_have_it_after(interest, read=True)
    assert not copies_have_it_after(interest, read=False)


def test_a_copy_made_before_the_reading_has_the_same_metadata() -> None:
    for interest in (Interest(), interest_that_keeps()):
        [message] = decode([TWEET], interest=interest).messages
        before = message.put_batcher("other").update_data(str.upper)
        assert message.metadata == before.metadata == {"id": "1"}
        assert message.put_batcher("other").metadata == {"id": "1"}
        assert message.metadata is message.metadata
