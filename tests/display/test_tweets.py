from __future__ import annotations

from itertools import islice
from typing import Any

import orjson
import pytest

from rxtweets import Batch, Message, Stats
from rxtweets.display._representations import (
    batch_html,
    batch_text,
    stats_html,
    stats_text,
    tweet_html,
    tweet_text,
)
from rxtweets.simulator import Tweets
from tests.display.reading import HOSTILE, html_text


def tweet(text: str = "hello", **beside: Any) -> Message[str]:
    data = {"id": "1999000000000000000", "text": text, "author_id": "7", "lang": "en"}
    users = [{"id": "7", "name": "Ana 🌻", "username": "ana"}]
    line = orjson.dumps({"data": {**data, **beside}, "includes": {"users": users}})
    return Message.from_line(line, received_at=1_765_430_000.0)


def test_tweet_shows_author_time_language_text_and_id() -> None:
    shown = html_text(tweet_html(tweet()))
    for part in ("Ana 🌻 @ana", "2025-12-11 06:15:14", "UTC", "en", "hello", "1999000000000000000"):
        assert part in shown


def test_tweet_shows_counts_of_either_name() -> None:
    older = tweet(public_metrics={"retweet_count": 1234, "like_count": 5})
    newer = tweet(public_metrics={"repost_count": 1234})
    assert "↻ 1,234 · ♥ 5" in html_text(tweet_html(older))
    assert "↻ 1,234" in html_text(tweet_html(newer))


def test_tweet_has_the_direction_of_its_text() -> None:
    assert '<div dir="auto"' in tweet_html(tweet("صباح الخير"))
    assert "unicode-bidi:isolate" in tweet_html(tweet("צ"))


def test_author_name_does_not_reorder_the_handle() -> None:
    includes = {"users": [{"id": "7", "name": "نور", "username": "noor"}]}
    message = Message("x", {"author_id": "7", "includes": includes})
    for shown in (tweet_html(message), batch_html(Batch([message]))):
        assert '<bdi dir="auto">نور</bdi> <bdi dir="auto">@noor</bdi>' in shown


def test_message_without_author_is_shown() -> None:
    assert html_text(tweet_html(Message("x"))).startswith("a message")


def test_tweet_keeps_its_line_ends() -> None:
    assert "a\nb" in html_text(tweet_html(tweet("a\nb")))
    assert "white-space:pre-wrap" in tweet_html(tweet())


def test_long_tweet_ends_with_an_ellipsis() -> None:
    shown = tweet_html(tweet("x" * 30_000))
    assert len(shown) < 3_000
    assert "x…" in shown


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_escaped_in_html(text: str) -> None:
    message = Message(text, {"id": text, "lang": text, "author_id": text}).failed(ValueError(text))
    named = Message(
        "x", {"author_id": "7", "includes": {"users": [{"id": 7, "name": text, "username": text}]}}
    )
    for page in (
        *(tweet_html(message), batch_html(Batch([message], batcher=text))),
        *(tweet_html(named), batch_html(Batch([named]))),
    ):
        assert html_text(page)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_sanitized_in_text(text: str) -> None:
    message = Message(text, {"lang": text}).failed(text)
    assert tweet_text(message).count("\n") == 2
    assert batch_text(Batch([message])).count("\n") == 1
    for shown in (tweet_text(message), batch_text(Batch([message]))):
        assert not set("\x1b\x00\u202e\ud800") & set(shown)


@pytest.mark.parametrize(
    "beside",
    [
        {"includes": None},
        {"includes": {"users": None}},
        {"includes": {"users": [None, 3, {}]}},
        {"public_metrics": []},
        {"public_metrics": {"like_count": "many"}},
        {"author_id": None, "lang": None},
        {"author_id": ["7"]},
    ],
)
def test_message_of_odd_shape_is_shown(beside: dict[str, Any]) -> None:
    message = tweet(**beside)
    assert "hello" in html_text(tweet_html(message))
    assert "hello" in tweet_text(message)


def test_message_is_shown_when_metadata_cannot_be_read() -> None:
    message = Message.from_event({"a": 1}, "", b"not json")
    assert "{'a': 1}" in html_text(tweet_html(message))


def test_failed_message_shows_its_reason() -> None:
    message = tweet().failed(ValueError("no English"))
    assert "failed: ValueError: no English" in html_text(tweet_html(message))
    assert "failed: ValueError: no English" in tweet_text(message)
    assert "failed: ValueError: no English" in html_text(batch_html(Batch([message])))


def test_batch_is_a_table_with_a_caption() -> None:
    batch = Batch([tweet("one"), tweet("two")], "timeout", "alerts")
    shown = batch_html(batch)
    assert html_text(shown).startswith("2 messages · batcher alerts · by timeout")
    assert shown.count("<tr>") == 3
    assert batch_text(batch).splitlines() == [
        "2 messages · batcher alerts · by timeout",
        "   1  one",
        "   2  two",
    ]


def test_large_batch_shows_its_first_twenty_messages() -> None:
    batch = Batch(Message(str(number)) for number in range(100))
    assert batch_html(batch).count("<tr>") == 21
    assert html_text(batch_html(batch)).endswith("… 80 more")
    assert batch_text(batch).endswith("… 80 more")


def test_simulated_tweets_can_be_shown() -> None:
    for frame in islice(Tweets(seed=3, size="large"), 500):
        message = Message.from_line(frame)
        assert html_text(tweet_html(message))
        assert tweet_text(message)


def test_values_have_html_and_text_in_notebooks() -> None:
    message = tweet()
    assert message._repr_mimebundle_(include=None, exclude=None) == {
        "text/plain": tweet_text(message),
        "text/html": tweet_html(message),
    }
    batch = Batch([message])
    assert batch._repr_mimebundle_()["text/html"] == batch_html(batch)
    assert Stats()._repr_mimebundle_()["text/plain"] == stats_text(Stats())


def test_stats_show_the_main_counters() -> None:
    shown = html_text(stats_html(Stats(state="connected", received=1234, lag=0.5)))
    for part in ("received1,234", "stateconnected", "lag500 ms", "dropped0"):
        assert part in shown


def test_faults_are_red_when_they_are_not_zero() -> None:
    assert "color:#c4183c" not in stats_html(Stats(received=5, processed=5))
    assert stats_html(Stats(dropped=5)).count("color:#c4183c") == 1
    assert "color:#c4183c" not in stats_html(Stats(received=5, unsubscribed=5))


def test_rare_counters_are_shown_when_they_are_not_zero() -> None:
    assert "rate limits" not in stats_text(Stats())
    assert "besides: rate limits 2" in stats_text(Stats(rate_limits=2))
