"""Messages, batches and acknowledgers."""

from __future__ import annotations

import copy
import gc
import pickle
import queue
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson
import pytest

import rxtweets
from rxtweets import Batch, Failed, MatchingRule, Message
from rxtweets._messages.message import are_plain, claim_by_acknowledger, is_tweet

LINE = (
    b'{"data":{"id":"1377650090978992134","text":"Fury","lang":"en"},'
    b'"includes":{"users":[{"id":"7"}]},"matching_rules":[{"id":"1","tag":"a"}]}'
)


def of(payload: dict[str, Any], received_at: float | None = None) -> Message[str]:
    return Message.from_line(orjson.dumps(payload), received_at)


def tweet(**data: Any) -> Message[str]:
    return of({"data": {"text": "x"} | data})


def test_tweet_has_its_text_as_data_and_the_rest_as_metadata() -> None:
    message = Message.from_line(LINE)
    assert message.data == "Fury"
    assert message.id == "1377650090978992134"
    assert dict(message.metadata) == {
        "id": "1377650090978992134",
        "lang": "en",
        "includes": {"users": [{"id": "7"}]},
        "matching_rules": [{"id": "1", "tag": "a"}],
    }


def test_metadata_is_decoded_once() -> None:
    message = Message.from_line(LINE)
    assert message.metadata is message.metadata


@pytest.mark.parametrize(
    "message", [Message.from_line(LINE), Message("x", {"lang": "en"})], ids=["line", "no line"]
)
def test_metadata_cannot_be_changed(message: Message[str]) -> None:
    metadata: Any = message.metadata
    with pytest.raises(TypeError):
        metadata["lang"] = "de"


@pytest.mark.parametrize("end", [b"", b"\r", b"\n", b"\r\n"])
def test_raw_has_no_line_end(end: bytes) -> None:
    assert Message.from_line(LINE + end).raw == LINE


@pytest.mark.parametrize(
    "name", ["data", "status", "acknowledger", "received_at", "_route", "anything"]
)
@pytest.mark.parametrize(
    "message",
    [Message("x"), Message("x").failed("for a test"), Message("x").put_batch_key(1)],
    ids=["unchanged", "failed", "routed"],
)
def test_message_is_immutable(message: Message[str], name: str) -> None:
    with pytest.raises(AttributeError, match="immutable"):
        setattr(message, name, None)
    with pytest.raises(AttributeError, match="immutable"):
        delattr(message, name)


def test_update_data_returns_a_copy_with_other_data() -> None:
    message = Message.from_line(LINE, received_at=3.0)
    upper = message.update_data(str.upper)
    assert (message.data, upper.data) == ("Fury", "FURY")
    assert (upper.id, upper.metadata, upper.raw) == (message.id, message.metadata, message.raw)
    assert upper.received_at == 3.0
    assert message.put_data(4).data == 4


def test_failed_returns_a_copy_with_the_reason() -> None:
    message = Message("x")
    failed = message.failed("why")
    assert (message.is_failed, message.status) == (False, "ok")
    assert (failed.is_failed, failed.status) == (True, Failed("why"))
    assert failed.data == "x"


def test_message_without_a_line_has_its_arguments() -> None:
    message = Message(5, {"id": "9", "lang": "ja"})
    assert (message.data, message.id, message.metadata["lang"]) == (5, "9", "ja")
    assert (message.raw, message.received_at, message.lag) == (b"", None, None)


# Ids and times.


def test_created_at_is_read_from_the_id() -> None:
    message = tweet(id="1377650090978992134")
    assert message.created_at == datetime(2021, 4, 1, 15, 52, 31, 847000, tzinfo=UTC)


def test_created_at_agrees_with_the_field_in_recorded_frames(recorded: Path) -> None:
    compared = 0
    for line in recorded.read_bytes().splitlines():
        message = Message.from_line(line)
        written = message.metadata.get("created_at")
        if written and message.created_at:
            field = datetime.fromisoformat(written)
            compared += 1
            assert abs((message.created_at - field).total_seconds()) <= 1
    assert compared > 1000


def test_created_at_is_read_from_the_field_when_the_id_is_old() -> None:
    message = tweet(id="20", created_at="2006-03-21T20:50:14.000Z")
    assert message.created_at == datetime(2006, 3, 21, 20, 50, 14, tzinfo=UTC)


@pytest.mark.parametrize(
    "written",
    ["9999-12-31T23:59:59-12:00", "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00+12:00"],
)
def test_created_at_is_none_when_no_datetime_can_represent_it(written: str) -> None:
    message = tweet(id="20", created_at=written)
    assert message.created_at is None
    assert message.lag is None


@pytest.mark.parametrize("data", [{}, {"id": "20"}, {"id": "x"}, {"id": "20", "created_at": 3}])
def test_created_at_is_none_when_it_is_unknown(data: dict[str, Any]) -> None:
    message = tweet(**data)
    assert message.created_at is None
    assert message.lag is None


def test_lag_is_the_time_between_writing_and_arrival() -> None:
    message = of({"data": {"id": "1377650090978992134", "text": "x"}}, 1617292351.847 + 5)
    assert message.lag == pytest.approx(5.0)


@pytest.mark.parametrize(("given", "shown"), [(17, "17"), ("17", "17"), (None, "")])
def test_id_is_text_for_every_type_on_the_wire(given: Any, shown: str) -> None:
    assert tweet(id=given).id == shown


@pytest.mark.parametrize(
    ("rules", "shown"),
    [
        ([{"id": 1377649934414049282, "tag": None}], [("1377649934414049282", "")]),
        ([{"id": "1", "tag": ""}, {"id": "2"}], [("1", ""), ("2", "")]),
        ([{"id": "1", "tag": "cats"}, "odd"], [("1", "cats")]),
        ([{"id": None, "tag": 7}], [("", "7")]),
        (17, []),
        (None, []),
    ],
)
def test_matching_rules_have_id_and_tag(rules: Any, shown: list[tuple[str, str]]) -> None:
    message = of({"data": {"id": "1", "text": "x"}, "matching_rules": rules})
    assert message.matching_rules == tuple(MatchingRule(*rule) for rule in shown)


def test_matching_rules_are_empty_without_rules() -> None:
    assert tweet(id="1").matching_rules == ()


@pytest.mark.parametrize("line", [b"", b"{", b"null", b"[]", b'{"data":{"id":"1"}}'])
def test_from_line_raises_without_a_tweet(line: bytes) -> None:
    with pytest.raises(rxtweets.errors.DecodeError) as caught:
        Message.from_line(line)
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"data": {"text": ""}}, True),
        ({"data": {"text": 3}}, False),
        ({"data": {}}, False),
        ({"data": "text"}, False),
        ({}, False),
        ([], False),
        (None, False),
    ],
)
def test_tweet_is_an_object_with_a_text(payload: Any, expected: bool) -> None:
    assert is_tweet(payload) is expected


# Copies.


@pytest.mark.parametrize(
    "message",
    [
        Message.from_line(LINE, 3.0),
        Message.from_line(LINE).update_data(str.upper),
        Message.from_line(LINE).failed("why"),
        Message.from_line(LINE).put_batcher("alerts").put_batch_key((1, "a")).failed("why"),
        Message(5, {"id": "9", "lang": "ja"}),
    ],
    ids=repr,
)
def test_message_can_be_pickled_and_copied(message: Message[Any]) -> None:
    for again in (pickle.loads(pickle.dumps(message)), copy.deepcopy(message)):  # noqa: S301 - our own bytes
        assert (again.data, again.id, again.status) == (message.data, message.id, message.status)
        assert (again.batcher, again.batch_key) == (message.batcher, message.batch_key)
        assert again.metadata == message.metadata
        assert (again.raw, again.received_at) == (message.raw, message.received_at)


def test_message_with_an_error_can_be_pickled() -> None:
    message = Message("x").failed(rxtweets.errors.DecodeError("m", b"l"))
    assert pickle.loads(pickle.dumps(message)).is_failed  # noqa: S301 - our own bytes


def test_pickled_message_keeps_the_default_route() -> None:
    assert are_plain([pickle.loads(pickle.dumps(Message("x")))])  # noqa: S301 - our own bytes


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (Message("x", {"id": "9"}), "Message('x', id='9')"),
        (Message("x").failed(3), "Message('x', id='', status=Failed(reason=3))"),
        (Message("x").put_batcher("a"), "Message('x', id='', batcher='a')"),
    ],
)
def test_repr_has_data_id_batcher_and_failure(message: Message[str], shown: str) -> None:
    assert repr(message) == shown


# Batches and acknowledgers.


class Acks:
    def ack(self, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        raise AssertionError(f"unexpected call: {successful}, {failed}")


def test_outcomes_are_grouped_by_acknowledger_in_order() -> None:
    one, two = Acks(), Acks()
    a, b = Message("a").with_acknowledger(one), Message("b").with_acknowledger(two)
    c, d = Message("c").with_acknowledger(one), Message("d")
    assert claim_by_acknowledger([a, b, d], [c]) == [(one, [a], [c]), (two, [b], [])]


def test_caller_acknowledger_calls_its_function() -> None:
    outcomes: list[Any] = []
    acknowledger = rxtweets.CallerAcknowledger(lambda *outcome: outcomes.append(outcome))
    acknowledger.ack(["a"], ["b"])  # type: ignore[list-item]  # anything does
    assert outcomes == [(["a"], ["b"])]


def test_batch_is_a_sequence_with_info() -> None:
    messages = [Message(text) for text in "abc"]
    batch = Batch(messages, "timeout", "mine")
    assert list(batch) == messages
    assert (len(batch), batch[0], list(batch[1:])) == (3, messages[0], messages[1:])
    assert messages[1] in batch
    assert batch.info == rxtweets.BatchInfo("mine", 3, "timeout")
    assert repr(batch) == "Batch(3 messages, trigger='timeout': 'a', …)"
    assert repr(Batch(messages[:1])) == "Batch(1 messages, trigger='size': 'a')"


def test_created_at_is_none_when_the_id_is_too_large() -> None:
    message = Message.from_line(b'{"data":{"text":"x","id":"' + b"9" * 30 + b'"}}', 1.0)
    assert message.created_at is None
    assert message.lag is None


def test_copies_without_acknowledger_have_no_outcomes() -> None:
    again = pickle.loads(pickle.dumps(Message("x")))  # noqa: S301 - our own bytes
    assert claim_by_acknowledger([again, copy.deepcopy(again)], []) == []


def test_no_decoded_value_is_kept_before_metadata_is_read() -> None:
    held = gc.get_referents(Message.from_line(LINE))
    assert not any(isinstance(value, dict | list | MappingProxyType) for value in held)


def test_put_data_keeps_metadata_without_a_line() -> None:
    assert Message("x", {"lang": "ja"}).put_data(4).metadata == {"lang": "ja"}


def test_created_at_is_read_from_the_first_snowflakes() -> None:
    message = Message("x", {"id": "29700859248"})
    assert message.created_at is not None
    assert message.created_at.isoformat(timespec="seconds") == "2010-11-04T01:43:01+00:00"


def test_created_at_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        message = tweet(id="20", created_at="2006-03-21T20:50:14")
        assert message.created_at == datetime(2006, 3, 21, 20, 50, 14, tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_fields_of_a_tweet_hide_those_beside_it() -> None:
    message = of({"data": {"id": "1", "text": "x"}, "id": "beside"})
    assert message.id == message.metadata["id"] == "1"


# Routes.


def test_message_has_the_default_route_until_it_is_changed() -> None:
    message = Message.from_line(LINE)
    assert (message.batcher, message.batch_key, message.batch_mode) == (
        "default",
        "default",
        "bulk",
    )
    sent = message.put_batcher("alerts").put_batch_key(5).put_batch_mode("flush")
    assert (sent.batcher, sent.batch_key, sent.batch_mode) == ("alerts", 5, "flush")
    assert (sent.data, sent.id, sent.raw) == (message.data, message.id, message.raw)
    assert message.batcher == "default"


def test_copies_keep_the_route() -> None:
    sent = Message("x").put_batcher("alerts").with_acknowledger(Acks(), ref=1, data=2)
    for copied in (sent.update_data(str.upper), sent.failed("why"), sent.put_batch_key("k")):
        assert (copied.batcher, copied.ack_ref, copied.ack_data) == ("alerts", 1, 2)


def test_acknowledger_without_reference_keeps_the_default_route() -> None:
    assert are_plain([Message("x").with_acknowledger(Acks())])
    assert not are_plain([Message("x").with_acknowledger(Acks(), ref=1)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.put_batch_key([]), "batch_key"),
        (lambda m: m.put_batch_mode("later"), "batch_mode='later'"),
        (lambda m: m.with_acknowledger(Acks(), ref=[]), "ref="),
    ],
)
def test_route_is_refused_when_it_cannot_work(change: Any, words: str) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match=words):
        change(Message("x"))


def test_outcomes_are_grouped_by_reference() -> None:
    acks = Acks()
    a, b, c = (Message(n).with_acknowledger(acks, ref=n % 2) for n in range(3))
    assert claim_by_acknowledger([a, b], [c]) == [(acks, [a], [c]), (acks, [b], [])]


def test_ack_immediately_acknowledges_once() -> None:
    outcomes: list[Any] = []
    acks = rxtweets.CallerAcknowledger(lambda *outcome: outcomes.append(outcome))
    good, bad = Message(1).with_acknowledger(acks), Message(2).with_acknowledger(acks).failed("why")
    assert rxtweets.ack_immediately([good, bad]) == [good, bad]
    assert outcomes == [([good], [bad])]
    assert rxtweets.ack_immediately(good) is good
    assert claim_by_acknowledger([good], [bad]) == []
    assert len(outcomes) == 1


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        lambda message: message.put_data("x"),
        lambda message: message.failed("why"),
        lambda message: message.put_batcher("other").update_data(str),
    ],
)
def test_message_and_its_copies_are_acknowledged_once(copied: Any) -> None:
    outcomes: list[Any] = []
    message = Message(1).with_acknowledger(
        rxtweets.CallerAcknowledger(lambda good, bad: outcomes.append((good, bad)))
    )
    copies = [copied(message), copied(message)]
    for one in (copies[0], message, copies[1], copied(message)):
        rxtweets.ack_immediately(one)
    assert [(*good, *bad) for good, bad in outcomes] == [(copies[0],)]


@pytest.mark.parametrize(
    "rebuilt",
    [
        lambda message: Message(message.data, acknowledger=message.acknowledger),
        lambda message: pickle.loads(pickle.dumps(message)),  # noqa: S301 - our own bytes
    ],
)
def test_acknowledged_message_has_no_outcome_when_rebuilt(rebuilt: Any) -> None:
    message = Message(1).with_acknowledger(rxtweets.CallerAcknowledger(print))
    rxtweets.ack_immediately(message)
    assert claim_by_acknowledger([rebuilt(message)], []) == []


def test_message_can_be_configured_after_it_was_acknowledged() -> None:
    acknowledger = rxtweets.streams.QueueAcknowledger(queue.Queue())
    message = Message(1).with_acknowledger(acknowledger, data=(1, "discard"))
    assert claim_by_acknowledger([message], []) != []
    assert message.configure_ack(on_failure="requeue").ack_data == (1, "requeue")


def test_ack_immediately_raises_after_calling_all() -> None:
    outcomes: list[Any] = []
    fine = rxtweets.CallerAcknowledger(lambda good, _bad: outcomes.extend(good))
    messages = [Message(1).with_acknowledger(Acks()), Message(2).with_acknowledger(fine)]
    with pytest.raises(AssertionError, match="unexpected call"):
        rxtweets.ack_immediately(messages)
    assert [message.data for message in outcomes] == [2]


def test_replaced_batch_keeps_its_info() -> None:
    batch = Batch([Message(1)], "timeout", "mine", "key", 3)
    again = batch.replaced([Message(2)])
    assert (again.info, again[0].data) == (batch.info, 2)
