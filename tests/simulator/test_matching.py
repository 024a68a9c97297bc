"""The tweets that a rule matches."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from rxtweets import simulator
from rxtweets.api._rule_syntax import parse
from rxtweets.simulator._matching import Tweet, matches


def is_match(rule: str, payload: dict[str, Any]) -> bool:
    return matches(parse(rule), Tweet(payload))


def written(text: str, **fields: Any) -> dict[str, Any]:
    return {"data": {"id": "1", "text": text, **fields}}


CASES = [
    # a keyword is a whole word
    ("cat", "a cat sat", True),
    ("cat", "cats sat", False),
    ("cat", "concat", False),
    ("cat", "(cat),", True),
    ("cat", "CAT", True),
    ("CAT", "cat", True),
    ("it's", "IT'S fine", True),
    # accents matter
    ("café", "un café", True),
    ("cafe", "un café", False),
    ("STRASSE", "die Straße", True),
    # without spaces between words, a keyword matches within words
    ("電車", "今日の電車が遅れてる", True),
    ("飛行機", "今日の電車が遅れてる", False),
    ("ฝน", "วันนี้ฝนตกทั้งวันเลย", True),
    ("하늘", "오늘 하늘 진짜", True),
    ("كتاب", "چای داغ و یک كتاب خوب", True),
    # emoji
    ("🔥", "so🔥hot", True),
    ("🔥", "so hot", False),
    ("👩‍💻", "at work 👩‍💻 again", True),
    ("🇯🇵", "go 🇯🇵", True),
    ("🇯🇵", "go 🇧🇷", False),
    # phrases
    ('"night bus"', "the Night bus left", True),
    ('"night bus"', "the bus at night", False),
    ('"night bus"', "night, bus", True),
    ('"の電車"', "今日の電車が", True),
    ('"night bus"~2', "night and day bus", True),
    ('"night bus"~1', "night and day bus", False),
    ('"night bus"~2', "bus of the night", True),
    ('"night bus"~1', "night train", False),
    ('"bus bus"~1', "a bus and a bus", False),
    ('"bus bus"~2', "a bus and a bus", True),
    (r'"the \"night\" bus"', 'the "night" bus', True),
    (r'"the \"night\" bus"', "the bus", False),
    # tags of a frame without entities are those in its text
    ("#bus", "late #Bus", True),
    ("＃bus", "late ＃bus", True),
    ("#bus", "late bus #busses", False),
    ("@bob", "hi @Bob", True),
    ("@bob", "mail bob@bob.com @bobby", False),
    ("$twtr", "buy $TWTR.", True),
    ("$twtr", "text$TWTR", False),
    ("late has:hashtags", "late #bus", True),
    ("late has:hashtags", "late #1", False),
    ("late has:cashtags", "late $TWTR", True),
    ("late has:cashtags", "late $123", False),
    ("late has:mentions", "late @bob", True),
    ("late has:mentions", "late bob@bob.com", False),
    # grouping, OR and negation; AND binds tighter
    ("cat dog", "dog and cat", True),
    ("cat dog", "dog", False),
    ("cat OR dog", "dog", True),
    ("cat OR dog bird", "cat", True),
    ("cat OR dog bird", "dog", False),
    ("(cat OR dog) bird", "cat", False),
    ("(cat OR dog) bird", "bird dog", True),
    ("cat -dog", "cat", True),
    ("cat -dog", "cat dog", False),
    ('cat -"night bus"', "cat in a night bus", False),
    ("(cat (dog OR -bird))", "cat", True),
    ("(cat (dog OR -bird))", "cat bird", False),
]


@pytest.mark.parametrize(("rule", "text", "expected"), CASES)
def test_rules_match_texts(rule: str, text: str, expected: bool) -> None:
    assert is_match(rule, written(text)) is expected


@pytest.mark.timeout(60)
def test_words_that_occur_often_are_compared_in_linear_time() -> None:
    often = 50_000
    apart = "a " * often + "c " * 7 + "b " * often
    assert not is_match('"a b"~6', written(apart))
    assert is_match('"a b"~6', written(apart.replace("c ", "", 1)))


@pytest.mark.parametrize(("text", "expected"), [("a", True), ("b", False)])
def test_deeply_nested_rule_matches(text: str, expected: bool) -> None:
    depth = 5_000
    assert is_match("(a" * depth + " a" + ")" * depth, written(text)) is expected
    assert is_match("(c OR (a " * depth + "a" + "))" * depth, written(text)) is expected


TWEET: dict[str, Any] = {
    "data": {
        "id": "1790000000000000001",
        "text": "@bob look #Python $TWTR https://t.co/x",
        "author_id": "11",
        "lang": "pt",
        "conversation_id": "77",
        "in_reply_to_user_id": "22",
        "referenced_tweets": [{"type": "replied_to", "id": "5"}],
        "entities": {
            "hashtags": [{"tag": "Python"}, {"tag": "猫"}],
            "cashtags": [{"tag": "TWTR"}],
            "mentions": [{"username": "Bob", "id": "22"}],
            "urls": [
                {
                    "url": "https://t.co/x",
                    "expanded_url": "https://Example.com/news/1",
                    "title": "Rain all week",
                    "description": "Bring an umbrella",
                }
            ],
        },
    },
    "includes": {
        "users": [
            {
                "id": "11",
                "username": "Ann",
                "name": "Ann of York",
                "description": "I read books",
                "location": "York",
                "verified": True,
            },
            {"id": "22", "username": "Bob"},
        ],
    },
}
RETWEET: dict[str, Any] = {
    "data": {
        "id": "2",
        "text": "RT @Bob: hello",
        "author_id": "11",
        "referenced_tweets": [{"type": "retweeted", "id": "5"}],
        "entities": {"mentions": [{"username": "Bob", "id": "22"}]},
    }
}
QUOTE: dict[str, Any] = {
    "data": {
        "id": "3",
        "text": "so true",
        "author_id": "11",
        "referenced_tweets": [{"type": "quoted", "id": "5"}],
    },
    "includes": {
        "tweets": [
            {"id": "5", "text": "the oven clock is fast", "author_id": "22"},
            {"id": "6", "text": "another one", "author_id": "22"},
        ]
    },
}
MEDIA: dict[str, Any] = {
    "data": {
        "id": "4",
        "text": "look",
        "attachments": {"media_keys": ["3_1"]},
        "geo": {"place_id": "x"},
    }
}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("#python", True),
        ("#PYTHON", True),
        ("#pyth", False),
        ("#猫", True),
        ("@bob", True),
        ("@bo", False),
        ("$twtr", True),
        ("$tw", False),
        ("from:ann", True),
        ("from:@ANN", True),
        ("from:11", True),
        ("from:bob", False),
        ("to:bob", True),
        ("to:22", True),
        ("to:ann", False),
        ("retweets_of:bob", False),
        ("url:example", True),
        ('url:"https://example.com/news"', True),
        ("url:elsewhere", False),
        ("url_title:rain", True),
        ("url_description:umbrella", True),
        ("url_title:umbrella", False),
        ("conversation_id:77", True),
        ("conversation_id:78", False),
        ("in_reply_to_tweet_id:5", True),
        ("in_reply_to_tweet_id:6", False),
        ("bio:books", True),
        ("bio:book", False),
        ('bio_name:"of york"', True),
        ("bio_location:york", True),
        ("look lang:pt", True),
        ("look lang:PT", True),
        ("look lang:en", False),
        ("look -lang:en", True),
        ("look has:hashtags", True),
        ("look has:cashtags", True),
        ("look has:mentions", True),
        ("look has:links", True),
        ("look has:media", False),
        ("look has:geo", False),
        ("look is:reply", True),
        ("look is:quote", False),
        ("look is:retweet", False),
        ("look is:verified", True),
        ("look -is:nullcast", True),
        ("look sample:100", True),
    ],
)
def test_operators_match_their_fields(rule: str, expected: bool) -> None:
    assert is_match(rule, TWEET) is expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("retweets_of:bob", True),
        ("retweets_of:ann", False),
        ("retweets_of_tweet_id:5", True),
        ("retweets_of_tweet_id:6", False),
        ("hello is:retweet", True),
        ("to:bob", False),
    ],
)
def test_retweets_match_by_the_retweeted_tweet(rule: str, expected: bool) -> None:
    assert is_match(rule, RETWEET) is expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("true", True),
        ('"oven clock"', True),
        ("another", False),
        ("oven is:quote", True),
        ('"true the"', False),
    ],
)
def test_quote_tweet_matches_on_both_texts(rule: str, expected: bool) -> None:
    assert is_match(rule, QUOTE) is expected


def test_tags_of_a_quoted_tweet_match_too() -> None:
    quote = {"data": QUOTE["data"], "includes": {"tweets": [{"id": "5", "text": "#oven @bob"}]}}
    assert is_match("#oven @bob has:hashtags", quote)


def test_where_x_recognised_tags_the_text_does_not_count() -> None:
    payload = written("#one #two", entities={"hashtags": [{"tag": "one"}], "mentions": None})
    assert is_match("#one -#two -@three", payload)


@pytest.mark.parametrize("kind", ["media", "media_link", "images", "video_link", "geo"])
def test_attachments_are_found(kind: str) -> None:
    assert is_match(f"look has:{kind}", MEDIA)


def test_newer_names_are_read_too() -> None:
    data = {"id": "1", "text": "so true", "referenced_posts": [{"type": "quoted", "id": "5"}]}
    payload = {"data": data, "includes": {"posts": [{"id": "5", "text": "the oven"}]}}
    assert is_match("oven is:quote", payload)


def test_tweet_without_an_author_matches_no_from() -> None:
    for rule in ("from:none", "to:none", "from:null", "retweets_of:none"):
        assert not is_match(rule, RETWEET | {"data": {"id": "1", "text": "none"}})


def test_sample_has_its_share_and_is_always_the_same() -> None:
    ids = [str(1_790_000_000_000_000_000 + number * 7919) for number in range(5_000)]
    chosen = [[is_match("x sample:10", {"data": {"id": id_, "text": "x"}}) for id_ in ids]] * 2
    assert chosen[0] == chosen[1]
    assert 400 < sum(chosen[0]) < 600


def test_larger_sample_contains_the_smaller() -> None:
    for number in range(2_000):
        payload = {"data": {"id": str(number), "text": "x"}}
        assert is_match("x sample:40", payload) or not is_match("x sample:10", payload)


RULES: dict[str, Any] = {
    # rule: a matcher by X's documentation, independent of the simulator's
    "python": lambda t: "python" in words(t),
    "#python": lambda t: "python" in tags(t),
    "電車": lambda t: "電車" in t["data"]["text"],
    "🔥": lambda t: "🔥" in t["data"]["text"],
    "lang:ja カレー": lambda t: t["data"]["lang"] == "ja" and "カレー" in t["data"]["text"],
    "(music OR art) -is:retweet": lambda t: (
        bool({"music", "art"} & set(words(t))) and "retweeted" not in kinds(t)
    ),
    "from:thenightbus": lambda t: author(t) == "thenightbus",
    "to:noor_w": lambda t: "replied_to" in kinds(t) and mentioned(t)[:1] == ["noor_w"],
    "retweets_of:ploycat": lambda t: "retweeted" in kinds(t) and mentioned(t)[:1] == ["ploycat"],
    "@ana_sofia": lambda t: "ana_sofia" in mentioned(t),
    "url:example.com/news has:hashtags": lambda t: (
        bool(tags(t)) and any("example.com/news" in link for link in links(t))
    ),
    "soup OR oven OR album": lambda t: bool({"soup", "oven", "album"} & set(words(t))),
    '"four minutes fast"': lambda t: "four minutes fast" in t["data"]["text"],
}


def entities(payload: dict[str, Any], kind: str, name: str) -> list[str]:
    found = payload["data"].get("entities", {}).get(kind, [])
    return [entity.get(name, "").lower() for entity in found]


def words(payload: dict[str, Any]) -> list[str]:
    text = payload["data"]["text"].lower()
    return "".join(letter if letter.isalnum() else " " for letter in text).split()


def tags(payload: dict[str, Any]) -> list[str]:
    return entities(payload, "hashtags", "tag")


def mentioned(payload: dict[str, Any]) -> list[str]:
    return entities(payload, "mentions", "username")


def links(payload: dict[str, Any]) -> list[str]:
    return entities(payload, "urls", "expanded_url")


def kinds(payload: dict[str, Any]) -> set[str]:
    return {reference["type"] for reference in payload["data"].get("referenced_tweets", ())}


def author(payload: dict[str, Any]) -> str:
    users = {user["id"]: user["username"] for user in payload["includes"]["users"]}
    return str(users[payload["data"]["author_id"]])


def test_filtered_stream_agrees_with_an_independent_matcher(client: Any) -> None:
    count, seed = 2_000, 5
    all_of_them = [orjson.loads(f) for f in simulator.Tweets(seed).frames(0, count)]
    expected = []
    for payload in all_of_them:
        matching = {rule for rule, chooses in RULES.items() if chooses(payload)}
        if matching:
            expected.append((payload["data"]["text"], matching))
    assert len({rule for _, matching in expected for rule in matching}) == len(RULES)

    got: list[tuple[str, set[str]]] = []
    with simulator.serve(rate=None, seed=seed) as x:
        http = client(x)
        rules = [{"value": rule, "tag": rule} for rule in RULES]
        http.post("/2/tweets/search/stream/rules", json={"add": rules})
        with http.stream("GET", "/2/tweets/search/stream") as response:
            for line in response.iter_lines():
                payload = orjson.loads(line)
                got.append((payload["data"]["text"], {r["tag"] for r in payload["matching_rules"]}))
                if len(got) == len(expected):
                    break
    assert got == expected
