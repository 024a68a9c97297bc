from __future__ import annotations

import json
import statistics
import unicodedata
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest

import rxtweets
from rxtweets.simulator import Tweets
from rxtweets.simulator._tweets import DIFFERENT


def payloads(count: int = 500, **options: Any) -> list[dict[str, Any]]:
    return [orjson.loads(frame) for frame in Tweets(**options).frames(0, count)]


def texts(count: int = 500, **options: Any) -> list[str]:
    return [payload["data"]["text"] for payload in payloads(count, **options)]


def validator(description: Path, schema: str) -> Any:
    document = json.loads(description.read_bytes())
    target = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
    return jsonschema.Draft7Validator(
        target, format_checker=jsonschema.Draft7Validator.FORMAT_CHECKER
    )


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("names", ["both", "post"])
def test_tweets_are_valid_by_the_newer_description(
    newer_description: Path, size: str, names: str
) -> None:
    check = validator(newer_description, "StreamPostsSampleResponse")
    for payload in payloads(size=size, names=names):
        check.validate(payload)


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("names", ["both", "tweet"])
def test_tweets_are_valid_by_the_older_description(
    older_description: Path, size: str, names: str
) -> None:
    check = validator(older_description, "StreamingTweetResponse")
    for payload in payloads(size=size, names=names):
        check.validate(payload)


def test_frame_without_a_required_field_is_invalid(newer_description: Path) -> None:
    check = validator(newer_description, "StreamPostsSampleResponse")
    [payload] = payloads(1)
    del payload["data"]["public_metrics"]["repost_count"]
    assert not check.is_valid(payload)


def test_by_default_every_field_has_both_its_names() -> None:
    for payload in payloads():
        data = payload["data"]
        metrics = data["public_metrics"]
        assert metrics["retweet_count"] == metrics["repost_count"]
        assert data["edit_history_tweet_ids"] == data["edit_history_post_ids"]
        assert data.get("referenced_tweets") == data.get("referenced_posts")


def test_same_seed_gives_the_same_texts() -> None:
    assert texts(seed=7) == texts(seed=7)
    assert texts(seed=7) != texts(seed=8)


def test_texts_do_not_depend_on_the_requested_number() -> None:
    tweets = Tweets(seed=3)
    one_by_one = [orjson.loads(tweets.frames(at, 1)[0])["data"]["text"] for at in range(100)]
    assert one_by_one == texts(100, seed=3)


def test_ids_are_new_rising_and_hold_the_time() -> None:
    tweets = Tweets(clock=lambda: 1_700_000_000.123)
    messages = [rxtweets.Message.from_line(frame) for frame in tweets.frames(0, 5000)]
    ids = [int(message.id) for message in messages]
    assert ids == sorted(set(ids))
    created = messages[0].created_at
    assert created is not None
    assert created.timestamp() == 1_700_000_000.123
    assert messages[0].metadata["created_at"] == "2023-11-14T22:13:20.123Z"


def test_texts_repeat_under_new_ids() -> None:
    tweets = Tweets()
    first = rxtweets.Message.from_line(tweets.frames(0, 1)[0])
    again = rxtweets.Message.from_line(tweets.frames(DIFFERENT, 1)[0])
    assert first.data == again.data
    assert first.id != again.id


@pytest.mark.parametrize(("size", "low", "high"), [("small", 900, 1100), ("large", 2300, 2700)])
def test_frames_have_the_size_that_they_are_named_for(size: Any, low: int, high: int) -> None:
    mean = statistics.mean(len(frame) for frame in Tweets(size=size).frames(0, DIFFERENT))
    assert low < mean < high


def test_entities_point_at_their_places_in_code_points() -> None:
    found = 0
    for payload in payloads(1000):
        text = payload["data"]["text"]
        for kind, entities in payload["data"].get("entities", {}).items():
            for entity in entities:
                found += 1
                written = text[entity["start"] : entity["end"]]
                assert (
                    written
                    == {
                        "hashtags": f"#{entity.get('tag')}",
                        "mentions": f"@{entity.get('username')}",
                        "urls": entity.get("url"),
                    }[kind]
                )
    assert found > 500


def test_texts_are_of_many_languages_and_scripts() -> None:
    data = [payload["data"] for payload in payloads(2000)]
    letters = "".join(tweet["text"] for tweet in data)
    scripts = {unicodedata.name(letter, "?").split()[0] for letter in letters if letter.isalpha()}
    assert len({tweet["lang"] for tweet in data}) >= 15
    assert {"LATIN", "CJK", "HIRAGANA", "HANGUL", "ARABIC", "HEBREW", "THAI"} <= scripts
    assert "\u200d" in letters
    assert any(ord(letter) > 0xFFFF for letter in letters)
    assert "\n" in letters


def test_authors_are_in_the_includes() -> None:
    for payload in payloads():
        users = {user["id"] for user in payload["includes"]["users"]}
        assert payload["data"]["author_id"] in users


def test_there_are_retweets_quotes_and_replies() -> None:
    kinds = {
        reference["type"]
        for payload in payloads()
        for reference in payload["data"].get("referenced_tweets", ())
    }
    assert kinds == {"retweeted", "quoted", "replied_to"}


@pytest.mark.parametrize("options", [{"size": "huge"}, {"names": "older"}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match=next(iter(options))):
        Tweets(**options)
