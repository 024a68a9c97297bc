"""URLs of queues, and names of groups."""

from __future__ import annotations

import pytest

from rxtweets import brokers
from rxtweets.errors import ConfigurationError


@pytest.mark.parametrize(
    "url",
    [
        "amqp://me:hunter/2secret@127.0.0.1/tweets",
        "amqp://me:12/2secret@127.0.0.1/tweets",
        "amqp://me:hunter#2secret@127.0.0.1/tweets",
        "amqp://me:12?2secret@127.0.0.1/tweets",
        "amqp://me:hunter℀2secret@127.0.0.1/tweets",
        "nats://me:hunter2secret@[::1/TWEETS",
        "redis://me:hunter2secret@127.0.0.1:port/tweets",
    ],
)
def test_password_of_an_invalid_url_is_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        brokers.Address.parse(url)
    assert "secret" not in str(raised.value)
    assert "hunter" not in str(raised.value)


def test_fragment_of_a_url_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="%23"):
        brokers.connect("sqlite:tweets#1.queue")
    assert brokers.Address.parse("sqlite:tweets%231.queue").path == "tweets#1.queue"


def test_text_is_refused_in_place_of_groups() -> None:
    with pytest.raises(ConfigurationError, match="groups='sentiment'"):
        brokers.connect("memory:tweets", groups="sentiment")
