"""Messages on the wire: X's line, as long as the message has its text."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from rxtweets import Message
from rxtweets._messages.decoding import Decoder
from rxtweets.brokers import Envelope, Taken
from rxtweets.brokers._envelopes import FORMAT, envelopes_of, messages_of

LINE = b'{"data":{"id":"1","text":"hola"},"includes":{"tweets":[{"id":"2","text":"HOLA"}]}}'

Same = Callable[[Message[Any]], Message[Any]]


@pytest.fixture(params=["from_line", "fast", "slow", "taken"])
def message(request: pytest.FixtureRequest) -> Message[Any]:
    """The message of `LINE`, from each of the places that make messages."""
    if request.param == "from_line":
        return Message.from_line(LINE)
    if request.param == "taken":
        [taken] = messages_of([delivered(envelope_of(Message.from_line(LINE)))])
        assert isinstance(taken, Message)
        return taken
    [decoded] = Decoder(fast=request.param == "fast").decode([LINE]).messages
    return decoded


def envelope_of(message: Message[Any]) -> Envelope:
    [envelope] = envelopes_of([message])
    return envelope


def delivered(envelope: Envelope) -> Taken:
    return Taken(envelope.key, envelope.body, envelope.headers, 1, None, "", None)


def is_line(envelope: Envelope) -> bool:
    return envelope.body == LINE and FORMAT not in envelope.headers


@pytest.mark.parametrize(
    "same",
    [
        lambda message: message,
        lambda message: message.put_batcher("other"),
        lambda message: message.failed("reason"),
        lambda message: message.put_data("hola"),
        lambda message: message.update_data(str.upper).update_data(str.lower),
        lambda message: pickle.loads(pickle.dumps(message)),  # noqa: S301 - its own
    ],
)
def test_line_travels_while_the_text_is_that_of_the_line(message: Message[Any], same: Same) -> None:
    assert is_line(envelope_of(same(message)))


@pytest.mark.parametrize(
    "change",
    [
        lambda message: message.update_data(str.upper),
        lambda message: message.put_data({"text": "hola"}),
        lambda message: message.update_data(str.upper).put_batcher("other"),
        lambda message: pickle.loads(pickle.dumps(message.update_data(str.upper))),  # noqa: S301 - its own
        lambda message: Message.from_payload({"data": {"id": "1", "text": "HOLA"}}, message.raw),
    ],
)
def test_changed_data_travels_as_a_record(message: Message[Any], change: Same) -> None:
    changed = change(message)
    envelope = envelope_of(changed)
    assert envelope.headers[FORMAT] == "record"
    [taken] = messages_of([delivered(envelope)])
    assert isinstance(taken, Message)
    assert (taken.data, taken.raw) == (changed.data, LINE)
