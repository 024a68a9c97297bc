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


def test_a_tweet_shows_its_author_time_language_text_and_id() -> None:
    shown = html_text(tweet_html(tweet()))
    for part in ("Ana 🌻 @ana", "2025-12-11 06:15:14", "UTC", "en", "hello", "1999000000000000000"):
        assert part in shown


def test_a_tweet_shows_the_counts_it_has_under_either_name() -> None:
    older = tweet(public_metrics={"retweet_count": 1234, "like_count": 5})
    newer = tweet(public_metrics={"repost_count": 1234})
    assert "↻ 1,234 · ♥ 5" in html_text(tweet_html(older))
    assert "↻ 1,234" in html_text(tweet_html(newer))


def test_a_tweet_takes_the_direction_of_its_own_text() -> None:
    assert '<div dir="auto"' in tweet_html(tweet("صباح الخير"))
    assert "unicode-bidi:isolate" in tweet_html(tweet("צ"))


def test_a_name_from_right_to_left_does_not_turn_the_handle() -> None:
    includes = {"users": [{"id": "7", "name": "نور", "username": "noor"}]}
    message = Message("x", {"author_id": "7", "includes": includes})
    for shown in (tweet_html(message), batch_html(Batch([message]))):
        assert '<bdi dir="auto">نور</bdi> <bdi dir="auto">@noor</bdi>' in shown


def test_a_message_of_nobody_begins_without_an_author() -> None:
    assert html_text(tweet_html(Message("x"))).startswith("a message")


def test_the_lines_of_a_tweet_stay_lines() -> None:
    assert "a\nb" in html_text(tweet_html(tweet("a\nb")))
    assert "white-space:pre-wrap" in tweet_html(tweet())


def test_a_very_long_tweet_is_cut_visibly() -> None:
    shown = tweet_html(tweet("x" * 30_000))
    assert len(shown) < 3_000
    assert "x…" in shown


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_does_no_harm_anywhere(text: str) -> None:
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
def test_hostile_text_does_no_harm_to_a_terminal(text: str) -> None:
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
def test_a_line_of_an_odd_shape_is_shown_all_the_same(beside: dict[str, Any]) -> None:
    message = tweet(**beside)
    assert "hello" in html_text(tweet_html(message))
    assert "hello" in tweet_text(message)


def test_a_message_whose_metadata_cannot_be_read_is_shown_all_the_same() -> None:
    message = Message.from_event({"a": 1}, "", b"not json")
    assert "{'a': 1}" in html_text(tweet_html(message))


def test_a_failed_message_says_why() -> None:
    message = tweet().failed(ValueError("no English"))
    assert "failed: ValueError: no English" in html_text(tweet_html(message))
    assert "failed: ValueError: no English" in tweet_text(message)
    assert "failed: ValueError: no English" in html_text(batch_html(Batch([message])))


def test_a_batch_is_a_table_with_its_origin_above() -> None:
    batch = Batch([tweet("one"), tweet("two")], "timeout", "alerts")
    shown = batch_html(batch)
    assert html_text(shown).startswith("2 messages · batcher alerts · by timeout")
    assert shown.count("<tr>") == 3
    assert batch_text(batch).splitlines() == [
        "2 messages · batcher alerts · by timeout",
        "   1  one",
        "   2  two",
    ]


def test_of_a_large_batch_the_first_twenty_are_shown_and_the_rest_is_counted() -> None:
    batch = Batch(Message(str(number)) for number in range(100))
    assert batch_html(batch).count("<tr>") == 21
    assert html_text(batch_html(batch)).endswith("… 80 more")
    assert batch_text(batch).endswith("… 80 more")


def test_every_simulated_tweet_can_be_shown() -> None:
    for frame in islice(Tweets(seed=3, size="large"), 500):
        message = Message.from_line(frame)
        assert html_text(tweet_html(message))
        assert tweet_text(message)


def test_a_notebook_gets_text_and_html_of_messages_batches_and_stats() -> None:
    message = tweet()
    assert message._repr_mimebundle_(include=None, exclude=None) == {
        "text/plain": tweet_text(message),
        "text/html": tweet_html(message),
    }
    batch = Batch([message])
    assert batch._repr_mimebundle_()["text/html"] == batch_html(batch)
    assert Stats()._repr_mimebundle_()["text/plain"] == stats_text(Stats())


def test_stats_show_what_one_always_watches() -> None:
    shown = html_text(stats_html(Stats(state="connected", received=1234, lag=0.5)))
    for part in ("received1,234", "stateconnected", "lag500 ms", "dropped0"):
        assert part in shown


def test_trouble_is_red_only_if_there_is_some() -> None:
    assert "color:#c4183c" not in stats_html(Stats(received=5, processed=5))
    assert stats_html(Stats(dropped=5)).count("color:#c4183c") == 1
    assert "color:#c4183c" not in stats_html(Stats(received=5, unsubscribed=5))


def test_rare_counters_are_shown_when_they_are_not_nought() -> None:
    assert "rate limits" not in stats_text(Stats())
    assert "besides: rate limits 2" in stats_text(Stats(rate_limits=2))
