"""Lines decoded into messages, disconnects, unknown JSON, and lines that are not JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxtweets._messages.decoding import (
    Decoded,
    Decoder,
    DisconnectNotice,
    Undecodable,
    Unknown,
    decode,
    is_strange,
)
from rxtweets._messages.lookup import look_up

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


# Tweets.


@pytest.mark.parametrize("end", [b"", b"\r", b"\r\n"])
def test_tweet_becomes_a_message_with_any_line_end(end: bytes) -> None:
    decoded = decode([TWEET + end], received_at=7.0)
    [message] = decoded.messages
    assert (message.data, message.id, message.received_at) == ("hello", "1", 7.0)
    assert message.raw == TWEET
    assert decoded.others == []
    assert decoded.partial == []


def test_last_of_duplicate_keys_counts() -> None:
    [message] = one(b'{"data":{"id":"1","id":"2","text":"a","text":"b"}}').messages
    assert (message.id, message.data) == ("2", "b")


def test_id_beside_a_tweet_is_not_its_id() -> None:
    [message] = decode([b'{"data": {"text": "hello"}, "id": "1"}']).messages
    assert message.id == ""


@pytest.mark.parametrize("problem", [PARTIAL, OPERATIONAL])
def test_errors_beside_a_tweet_are_partial(problem: Any) -> None:
    decoded = one({"data": {"id": "1", "text": "RT"}, "errors": [problem]})
    assert decoded.partial == decoded.messages
    assert decoded.messages[0].metadata["errors"] == [problem]
    assert decoded.others == []


def test_recorded_frames_are_tweets(recorded: Path) -> None:
    decoded = decode(recorded.read_bytes().splitlines())
    assert len(decoded.messages) == 1414
    assert decoded.others == []


# Other lines.


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
def test_line_that_is_not_json_is_undecodable(line: bytes) -> None:
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
        {"errors": 3},
        {"errors": True},
        {"errors": {"title": "x"}},
        {"connection_issue": None, "title": "x"},
        {"data": {"id": "1"}, "errors": [OPERATIONAL]},
    ],
    ids=repr,
)
def test_json_of_another_shape_is_unknown(value: Any) -> None:
    [other] = one(value).others
    assert isinstance(other, Unknown)
    assert other.value == value
    assert other.line == orjson.dumps(value)


STREAMING = "https://api.x.com/2/problems/streaming-connection"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"errors": [OPERATIONAL]}, "UpstreamOperationalDisconnect"),
        (OPERATIONAL, "UpstreamOperationalDisconnect"),
        ({"errors": [PARTIAL, OPERATIONAL]}, "UpstreamOperationalDisconnect"),
        ({"data": None, "errors": [OPERATIONAL]}, "UpstreamOperationalDisconnect"),
        ({"errors": [{"connection_issue": "TooManyConnections"}]}, "TooManyConnections"),
        ({"errors": [{"type": "https://api.twitter.com/2/problems/client-disconnected"}]}, ""),
        ({"errors": [{"title": "x", "type": STREAMING}]}, "x"),
        (
            {"errors": [{"disconnect_type": "NewDisconnect", "type": "about:blank"}]},
            "NewDisconnect",
        ),
        ({"type": STREAMING, "errors": []}, ""),
    ],
)
def test_disconnect_is_recognized_in_every_form(value: Any, kind: str) -> None:
    [other] = one(value).others
    assert isinstance(other, DisconnectNotice)
    assert other.disconnect_type == kind


@pytest.mark.parametrize("prefix", ["https://api.twitter.com", "https://api.x.com"])
@pytest.mark.parametrize(
    "last", ["operational-disconnect", "client-disconnected", "streaming-connection"]
)
def test_disconnect_is_recognized_by_its_type(prefix: str, last: str) -> None:
    [other] = one({"title": "t", "type": f"{prefix}/2/problems/{last}"}).others
    assert other == DisconnectNotice("t", "t")


def test_disconnect_has_the_detail_of_x() -> None:
    [other] = one({"errors": [OPERATIONAL]}).others
    assert isinstance(other, DisconnectNotice)
    assert other.detail == OPERATIONAL["detail"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"<html>", True),
        (b'{"title":"Unauthorized"}', True),
        (b'{"errors":[{"title":"x"}]}', True),
        (b'{"type":"connection_metadata"}', False),
        (b"17", False),
        (orjson.dumps(OPERATIONAL), False),
    ],
)
def test_strange_line_cannot_begin_a_stream(line: bytes, expected: bool) -> None:
    [other] = one(line).others
    assert is_strange(other) is expected


# Any lines.

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


def test_outcomes_keep_their_order() -> None:
    decoded = decode([TWEET, b"null", b"{", TWEET.replace(b"1", b"2"), orjson.dumps(OPERATIONAL)])
    assert [message.id for message in decoded.messages] == ["1", "2"]
    assert [type(other) for other in decoded.others] == [Unknown, Undecodable, DisconnectNotice]


@given(st.binary(min_size=1, max_size=200))
def test_any_line_has_one_outcome(line: bytes) -> None:
    decoded = decode([line])
    assert len(decoded.messages) + len(decoded.others) == 1


@given(lines_of_all_kinds)
def test_looked_up_lines_are_decoded_to_the_same(lines: list[bytes]) -> None:
    def shown(decoded: Decoded) -> Any:
        messages = [
            (message.data, message.id, message.raw, message.received_at)
            for message in decoded.messages
        ]
        partial = [message.raw for message in decoded.partial]
        return messages, partial, list(map(repr, decoded.others))

    assert shown(Decoder().decode(lines, 7.0, look_up(lines))) == shown(decode(lines, 7.0))


# Metadata.


def test_metadata_of_one_message_is_not_shared_with_another() -> None:
    line = b'{"data":{"text":"a","metrics":{"likes":1}},"includes":{"users":[]}}'
    first, second = decode([line, line]).messages
    first.metadata["metrics"]["likes"] = 2
    first.metadata["includes"]["users"].append("x")
    assert second.metadata == {"metrics": {"likes": 1}, "includes": {"users": []}}
    assert first.raw == line


def test_copies_have_the_same_metadata() -> None:
    [message] = decode([TWEET]).messages
    before = message.put_batcher("other").update_data(str.upper)
    assert message.metadata == before.metadata == {"id": "1"}
    assert message.put_batcher("other").metadata == {"id": "1"}
    assert message.metadata is message.metadata
