from __future__ import annotations

import contextlib
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxtweets import ConfigurationError
from rxtweets.api._rule_syntax import (
    CONJUNCTION,
    LONGEST,
    NAMES,
    STANDALONE,
    AllOf,
    AnyOf,
    Node,
    Not,
    Term,
    check,
    doubts,
    parse,
    terms,
)
from rxtweets.errors import RuleSyntaxError

DEEP = 10_000


def shape(node: Node) -> object:
    """The tree without positions: a term as a text, a group as a list of its kind and parts."""
    if isinstance(node, Term):
        far = f"~{node.distance}" if node.distance else ""
        return f"{node.operator}:{node.value}{far}"
    if isinstance(node, Not):
        return ["not", shape(node.part)]
    return ["and" if isinstance(node, AllOf) else "or", *map(shape, node.parts)]


def refused(rule: str, longest: int = LONGEST) -> RuleSyntaxError:
    with pytest.raises(RuleSyntaxError) as caught:
        check(rule, longest)
    return caught.value


@pytest.mark.parametrize(
    ("rule", "tree"),
    [
        ("cat", "keyword:cat"),
        ("  cat\t", "keyword:cat"),
        ("🐱", "keyword:🐱"),
        ("#cat", "hashtag:cat"),
        ("@cat", "mention:cat"),
        ("$CAT", "cashtag:CAT"),
        ("$9.99", "cashtag:9.99"),
        ("#", "keyword:#"),
        ("12:30", "keyword:12:30"),
        ("well-known", "keyword:well-known"),
        ('"grumpy cat"', "phrase:grumpy cat"),
        ('"(not a group) OR"', "phrase:(not a group) OR"),
        ('"grumpy cat"~3', "phrase:grumpy cat~3"),
        ('"cat"dog', ["and", "phrase:cat", "keyword:dog"]),
        ("from:XDevelopers", "from:XDevelopers"),
        ("FROM:XDevelopers", "from:XDevelopers"),
        ('context:"10.799022225751871488"', "context:10.799022225751871488"),
        ('url:"https://x.com/a b"', "url:https://x.com/a b"),
        ("url:x.com/a-b?c=d", "url:x.com/a-b?c=d"),
        ("point_radius:[2.35 48.85 16km]", "point_radius:[2.35 48.85 16km]"),
        ("followers_count:10..500", "followers_count:10..500"),
        (r'"Toys \"R\" Us"', 'phrase:Toys "R" Us'),
        (r'"a \\ b" c', ["and", "phrase:a \\ b", "keyword:c"]),
        (r'"a\b"', r"phrase:a\b"),
        (r'bio:"a \"big\" cat"', 'bio:a "big" cat'),
        ("＃cat", "hashtag:cat"),
        ("＠cat", "mention:cat"),
        ("retweets_of_user:XDevelopers", "retweets_of:XDevelopers"),
        ("user_bio:cat", "bio:cat"),
        ("user_bio_location:paris", "bio_location:paris"),
        ("geo_bounding_box:[1 2 1.1 2.1]", "bounding_box:[1 2 1.1 2.1]"),
        ("statuses_count:1000", "tweets_count:1000"),
        ("friends_count:1000", "following_count:1000"),
        ("user_in_lists_count:10..100", "listed_count:10..100"),
        ("within_url_title:snow", "url_title:snow"),
        ("within_url_description:weather", "url_description:weather"),
        ("in_reply_to_status_id:1", "in_reply_to_tweet_id:1"),
        ("retweets_of_status_id:1", "retweets_of_tweet_id:1"),
    ],
)
def test_term_is_parsed(rule: str, tree: object) -> None:
    assert shape(parse(rule)) == tree


@pytest.mark.parametrize(
    ("rule", "tree"),
    [
        ("a b", ["and", "keyword:a", "keyword:b"]),
        ("a OR b", ["or", "keyword:a", "keyword:b"]),
        ("a b OR c", ["or", ["and", "keyword:a", "keyword:b"], "keyword:c"]),
        ("a OR b c", ["or", "keyword:a", ["and", "keyword:b", "keyword:c"]]),
        ("a (b OR c)", ["and", "keyword:a", ["or", "keyword:b", "keyword:c"]]),
        ("(a OR b)(c OR d)", [
            "and", ["or", "keyword:a", "keyword:b"], ["or", "keyword:c", "keyword:d"],
        ]),
        ("((a))", "keyword:a"),
        ("a OR b OR c", ["or", "keyword:a", "keyword:b", "keyword:c"]),
    ],
)  # fmt: skip
def test_space_binds_tighter_than_or(rule: str, tree: object) -> None:
    assert shape(parse(rule)) == tree


@pytest.mark.parametrize(
    ("rule", "tree"),
    [
        ("a -b", ["and", "keyword:a", ["not", "keyword:b"]]),
        ("a -is:retweet c", ["and", "keyword:a", ["not", "is:retweet"], "keyword:c"]),
        ('a -"b c"', ["and", "keyword:a", ["not", "phrase:b c"]]),
        ("a (b OR -#c)", ["and", "keyword:a", ["or", "keyword:b", ["not", "hashtag:c"]]]),
    ],
)
def test_minus_negates_the_next_term(rule: str, tree: object) -> None:
    assert shape(parse(rule)) == tree


def test_term_has_its_position() -> None:
    found = [(term.value, term.position) for term, _ in terms(parse('a (b OR -#c) "d e"'))]
    assert found == [("a", 0), ("b", 3), ("c", 9), ("d e", 13)]


def test_terms_come_in_order_with_their_negation() -> None:
    found = [(term.value, negated) for term, negated in terms(parse("a -b (c OR -d)"))]
    assert found == [("a", False), ("b", True), ("c", False), ("d", True)]


VALID = {
    "from": "from:XDevelopers",
    "to": "to:@XDevelopers",
    "retweets_of": "retweets_of:2244994945",
    "from_affiliate_of": "from_affiliate_of:X",
    "to_affiliate_of": "to_affiliate_of:X",
    "url": "url:x.com",
    "context": "context:10.799022225751871488",
    "entity": 'entity:"Michael Jordan"',
    "conversation_id": "conversation_id:1334987486343299072",
    "bio": "bio:developer",
    "bio_name": "bio_name:cat",
    "bio_location": 'bio_location:"new york"',
    "place": "place:07d9cd6afd884001",
    "place_country": "place_country:FR",
    "point_radius": "point_radius:[-105.27346517 40.01924738 16km]",
    "bounding_box": "bounding_box:[-105.301758 39.964069 -105.178505 40.09455]",
    "embedding": 'embedding:"kittens at play"',
    "url_title": "url_title:cats",
    "url_description": "url_description:cats",
    "url_contains": "url_contains:photos",
    "in_reply_to_tweet_id": "in_reply_to_tweet_id:1539382664746020864",
    "retweets_of_tweet_id": "retweets_of_tweet_id:1539382664746020864",
    "source": 'source:"Twitter Web App"',
    "is": "is:verified",
    "has": "has:video_link",
    "sample": "sample:100",
    "lang": "lang:zh-CN",
    "embedding_threshold": "embedding_threshold:0.7",
    "min_followers": "min_followers:100",
    "followers_count": "followers_count:10..500",
    "tweets_count": "tweets_count:1000",
    "following_count": "following_count:0..5",
    "listed_count": "listed_count:3",
}


def test_examples_cover_every_operator() -> None:
    assert VALID.keys() == NAMES


@pytest.mark.parametrize("name", sorted(VALID))
def test_operator_is_valid_beside_a_keyword(name: str) -> None:
    check(f"cat {VALID[name]}")


@pytest.mark.parametrize("name", sorted(STANDALONE & NAMES))
def test_standalone_operator_is_valid_alone(name: str) -> None:
    check(VALID[name])


@pytest.mark.parametrize("rule", ["cat", "#cat", "@cat", "$CAT", '"grumpy cat"', "🐱"])
def test_word_is_valid_alone(rule: str) -> None:
    check(rule)


@pytest.mark.parametrize("name", sorted(CONJUNCTION))
def test_conjunction_operator_is_refused_alone(name: str) -> None:
    assert "stands alone" in str(refused(VALID[name]))


@pytest.mark.parametrize("rule", ["-cat", "-from:X lang:en", "(-a OR -b) has:links"])
def test_rule_is_refused_when_all_standalone_terms_are_negated(rule: str) -> None:
    assert "not negated" in str(refused(rule))


@pytest.mark.parametrize(
    ("rule", "position", "reason"),
    [
        ("cat has:legs", 4, "has: takes cashtags, geo, hashtags"),
        ("cat is:good", 4, "is: takes nullcast, quote, reply, retweet, verified"),
        ("cat is:nullcast", 4, "only taken negated"),
        ("cat sample:0", 4, "from 1 to 100"),
        ("cat sample:101", 4, "from 1 to 100"),
        ("cat sample:١٠", 4, "from 1 to 100"),
        ("cat -sample:10", 5, "cannot be negated"),
        ('cat -embedding:"x"', 5, "cannot be negated"),
        ("cat lang:english", 4, "as lang:en"),
        ("cat place_country:FRA", 4, "two letters"),
        ("conversation_id:x", 0, "the id of a tweet"),
        ("from:", 0, "a user name or id"),
        ('from:"two words"', 0, "a user name or id"),
        ("url:", 0, "a value"),
        ("point_radius:[1 2 3]", 0, "mi or km"),
        ("point_radius:[1..2 2 3km]", 0, "mi or km"),
        ("bounding_box:[1 2 3]", 0, "west south east north"),
        ("cat followers_count:many", 4, "a range as 10..500"),
        ('"a b"~7', 0, "6 at most"),
        ('"a b"~' + "9" * 900, 0, "6 at most"),
        ('cat "a b"~', 9, "a number from 1 to 6"),
        ("cat fro:X", 4, "did you mean from:?"),
        ("cat form:X", 4, "did you mean from:?"),
        ("cat https://x.com", 4, "quote it"),
        ("cat keyword:dog", 4, "no operator keyword: is known"),
        ("cat )", 4, "a ) without its ("),
        ("cat (dog", 4, "not closed"),
        ("cat (dog OR (cow", 12, "not closed"),
        ('cat "dog', 4, "quotation mark is not closed"),
        ('cat url:"dog', 8, "quotation mark is not closed"),
        ("cat ()", 5, "missing here"),
        ("cat OR", 6, "missing here"),
        ("OR cat", 0, "missing here"),
        ("cat OR OR dog", 7, "missing here"),
        ("(cat OR ) dog", 8, "missing here"),
        ("cat or dog", 4, "write OR"),
        ("cat and dog", 4, "write a space"),
        ("cat AND dog", 4, "write a space"),
        ("cat -(dog cow)", 4, "negate its parts"),
        ("cat -OR dog)", 4, "OR cannot be negated"),
        ("cat - dog", 4, "nothing follows"),
        ("cat -", 4, "nothing follows"),
        ('cat ""', 4, "an empty phrase"),
        ("cat \ud83d dog", 4, "half of a character"),
    ],
)
def test_mistake_is_named_with_its_position(rule: str, position: int, reason: str) -> None:
    error = refused(rule)
    assert reason in str(error)
    assert f"at character {position + 1}:" in str(error)
    assert (error.rule, error.position) == (rule, position)


BUILD = "https://docs.x.com/x-api/posts/filtered-stream/integrate/build-a-rule"
OPERATORS = "https://docs.x.com/x-api/posts/filtered-stream/integrate/operators"
OLDER = "https://developer.x.com/en/docs/x-api/tweets/filtered-stream/integrate/build-a-rule"
ENTERPRISE = "https://docs.x.com/x-api/enterprise-gnip-2.0/fundamentals/rules-filtering"
ERRORS = (
    "https://developer.twitter.com/en/docs/tweets/filter-realtime/api-reference/powertrack-rules"
)
GNIP = "https://github.com/jeroenr/gnip-rule-validator/blob/master/README.md"
# Texts of X's errors, as programs received them
QUOTES = (
    "https://github.com/Datura-ai/smart-scrape/blob/main/datura/services/twitter_prompt_analyzer.py"
)
SIGNS = "https://github.com/Femstar08/prospector/blob/main/QUICK_FIX_SUMMARY.md"
NAMES_SEEN = (
    "https://github.com/felixdorn/twitter-stream-api/blob/main/tests/TwitterExceptionTest.php"
)

TAKEN = {
    BUILD: [
        "#xapiv2",
        '"X data" has:mentions (has:media OR has:links)',
        "snow day #NoSchool",
        "grumpy OR cat OR #meme",
        "cat #meme -grumpy",
        "(grumpy cat) OR (#meme has:images)",
        "skiing -snow -day -noschool",
        "apple OR iphone ipad",
        "(apple OR iphone) ipad",
        "iphone (ipad OR android)",
        "diacrítica",
        "happy",
        "(happy OR happiness) place_country:GB -birthday -is:retweet",
        "(happy OR happiness OR excited OR elated) lang:en -birthday -is:retweet -holidays",
        "cat has:media -grumpy",
        "-is:retweet has:geo (from:NWSNHC OR from:NHC_Atlantic OR from:NWSHouston)",
        "#nowplaying (happy OR fav) (place_country:US OR place_country:MX) -horrible -worst",
        "context:65.852262932607926273 -context:66.852262932607926273 -is:retweet has:images",
        'embedding:"climate change policy" embedding_threshold:0.4',
        'embedding:"quarterly earnings surprises" lang:en has:links -is:retweet',
    ],
    OPERATORS: [
        'pepsi OR cola OR "coca cola"',
        "(😃 OR 😡) 😬",
        '("X API" OR #v2) -"filtered stream"',
        '"social media"~5',
        "(@XDevelopers OR @api) -@x",
        "$twtr OR @XDevelopers -$fb",
        "from:XDevelopers OR from:api",
        "from_affiliate_of:XDevelopers",
        'url:"https://developer.x.com"',
        "url_contains:photos",
        "context:47.*",
        'entity:"Michael Jordan"',
        'bio:developer OR bio:"data engineer"',
        'bio_location:"big apple" OR bio_location:nyc',
        'place:"new york city" OR place:seattle',
        "point_radius:[2.355128 48.861118 16km]",
        "bounding_box:[-105.301758 39.964069 -105.178505 40.09455]",
        '"mobile games" -is:nullcast',
        "#icebucketchallenge has:video_link",
        "#nowplaying @spotify sample:15",
        "recommend #paris lang:en",
        "cat followers_count:1000..10000",
        "cat listed_count:10..100",
        'source:"X for iPhone"',
        'embedding:"renewable energy" embedding_threshold:0.4 OR embedding:"solar power"',
    ],
    OLDER: [
        "#thankunext #fanart OR @arianagrande",
        "from:XDevelopers OR from:api -from:X",
        'from:XDevelopers url:"https://t.co"',
        'url:"/developer"',
        "context:*.799022225751871488",
        "conversation_id:1334987486343299072 (from:XDevelopers OR from:api)",
        "bio:developer OR user_bio:academic",
        "place:fd70c22040963ac7",
        "retweets_of_user:XDevelopers",
        "(kittens OR puppies) has:media_link",
        "#cumpleaños",
    ],
    ENTERPRISE: [
        "social -personality",
        "(social OR data) (academic OR research) -personality -information -university",
        "(social OR data) point_radius:[-105.27346517 40.01924738 10.0mi] lang:en -personality",
        '"social data" @XDevelopers',
        r'"Toys \"R\" Us"',
    ],
    ERRORS: [
        '(#snow OR snowday OR "snow day" OR from:noaa) lang:en',
        "robot OR 🤖",
        "fish 🐟",
        "(term1 OR term2) sample:10",
        "from:jack",
    ],
    GNIP: ["the boat", '"on the roof"', "these OR -that bla OR these", "ORbit", "it OR cat"],
}
REFUSED = {
    BUILD: [
        "has:media",
        "has:links OR is:retweet",
        "embedding_threshold:0.45",
        "skiing -(snow OR day OR noschool)",
        "cat is:nullcast",
        'cat -embedding:"query"',
        "cat -sample:10",
        "-birthday -is:retweet",
    ],
    OPERATORS: [
        '"social media"~7',
        "cat sample:0",
        "cat sample:101",
        'embedding:"tea" embedding_threshold:1.1',
        'embedding:"tea" embedding_threshold:-0.1',
        "cat min_followers:10..20",
        "cat has:polls",
    ],
    OLDER: [
        "tea OR milk sample:50",
        "context:domain_id.entity_id",
        "point_radius:[2.355128 48.861118 26mi]",
        "point_radius:[2.355128 48.861118 41km]",
        "point_radius:[181 48.861118 16km]",
        # An example there that contradicts its text: latitudes are from -90 to 90.
        "point_radius:[-41.287336 174.761070 20mi]",
        "bounding_box:[-106 39.964069 -105 40.09455]",
        "bounding_box:[-105.301758 39.5 -105.178505 40.5]",
        "bounding_box:[-105.301758 89 -105.178505 91]",
        "bounding_box:[-105.301758 40.09455 -105.178505 39.964069]",
        "url:https://developer.twitter.com",
    ],
    ENTERPRISE: ["apple OR -ipad", "-ipad OR apple", "apple OR (-ipad -mac)", "(apple OR -ipad)"],
    ERRORS: [
        'Pizza OR 🍕 OR "🍕" sample:100',
        "Pizza (🍕 OR sample:100)",
        "from:contains:heart",
        "fish AND bird",
        '((("#quotedhashtag"',
        "bounding_box:[-71.199636,42.230046,-70.979909,42.398619]",
        "streaming AND lang:en",
        "-follow",
        "streaming url_contains:$twtr",
    ],
    QUOTES: [
        "(tea OR milk OR 'oat milk')",
        "[(tea OR milk) (#tea OR #milk)]",
        "has:polls",
        "(funny AND (film OR movies)) -is:retweet lang:en",
        "(bad OR worse) (place_country:US OR place_country:MX",
    ],
    SIGNS: ["cashflow ? -is:retweet"],
    NAMES_SEEN: ["h:m"],
    GNIP: ["a", "you", "A", "a OR you", "-cat -dog", "!hello", "'hello'", "hello @",
           "hello + world", "<tea>", "“hello”", "hello [world]", "12:30", "apple OR -lang:en"],
}  # fmt: skip


def listed(table: dict[str, list[str]]) -> list[Any]:
    """Each rule with its source in the name of the test."""
    return [
        pytest.param(rule, id=f"{rule} ({source})") for source in table for rule in table[source]
    ]


@pytest.mark.parametrize("rule", listed(TAKEN))
def test_valid_rule_of_x_is_valid_without_doubt(rule: str) -> None:
    check(rule)
    assert doubts(rule) == []


@pytest.mark.parametrize("rule", listed(REFUSED))
def test_invalid_rule_of_x_is_refused(rule: str) -> None:
    refused(rule)


@pytest.mark.parametrize(
    ("rule", "position", "reason"),
    [
        ("(tea OR 'oat milk')", 8, 'write a phrase as "two words"'),
        ("tea [milk]", 4, "quote the word"),
        ("cat 12:30", 4, "quote the word"),
        ("tea url:https://x.com", 13, 'as url:"…"'),
        ("tea OR milk sample:50", 12, "(a OR b) sample:10"),
        ("tea OR -milk", 8, "only negated"),
        ("(a OR you) -cat", 1, "a is a stop word"),
        ("cat #1", 4, "no hashtag"),
        ("cat $123", 4, "no cashtag"),
        ("cat @a-b", 4, "no user name"),
        ("cat followers_count:9..1", 4, "smaller number comes first"),
        ("point_radius:[0 91 1km]", 0, "latitudes are from -90 to 90"),
        ("point_radius:[0 9 99km]", 0, "25 miles"),
        ("bounding_box:[0 2 0.1 1]", 0, "south comes before"),
        ("bounding_box:[0 0 1 0.1]", 0, "25 miles"),
    ],
)
def test_refusal_is_explained_with_its_position(rule: str, position: int, reason: str) -> None:
    error = refused(rule)
    assert reason in error.reason
    assert error.position == position


@pytest.mark.parametrize(
    "rule",
    [
        *("it's tea", "tea!", "well-known", "tea'", "a/b"),  # punctuation after the first letter
        *("tea (milk OR -sugar)", "tea OR milk -sugar"),  # a negated alternative beside a word
        *("cat -is:nullcast", "cat has:LINKS -is:Retweet"),
        "bounding_box:[179.9 0 -179.9 0.2]",  # over the date line
    ],
)
def test_rule_is_valid(rule: str) -> None:
    check(rule)


@pytest.mark.parametrize(
    ("rule", "doubt"),
    [
        ("the", "stop word"),
        ("a an", "stop word"),
        ("it -cat", "stop word"),
        ("tea ❤️", "quoted"),
        ("👍🏽", "quoted"),
    ],
)
def test_rule_is_doubted_when_only_x_can_decide(rule: str, doubt: str) -> None:
    check(rule)
    (found,) = doubts(rule)
    assert doubt in found


def test_quoted_variant_of_an_emoji_is_not_doubted() -> None:
    assert doubts('"❤️"') == []


def test_box_near_a_pole_may_span_more_degrees() -> None:
    check("bounding_box:[0 80 1.5 80.2]")
    refused("bounding_box:[0 0 1.5 0.2]")


@pytest.mark.parametrize("rule", ["", "   ", "\n", 5])
def test_rule_is_refused_when_it_is_not_a_text_or_empty(rule: Any) -> None:
    assert "give a text that is not empty" in str(refused(rule))


def test_rule_is_refused_beyond_1024_characters() -> None:
    check("x" * 1_024)
    error = refused("x" * 1_025)
    assert "1025 characters, X takes 1024 at most" in str(error)
    assert error.position == 1_024


def test_error_shows_the_start_of_a_long_rule() -> None:
    error = refused("cat " * 300)
    assert len(str(error)) < 300
    assert error.rule == "cat " * 300


def test_enterprise_rule_may_be_longer() -> None:
    check("x" * 2_048, longest=2_048)
    assert "2048 at most" in str(refused("x" * 2_049, longest=2_048))


def test_syntax_error_is_a_configuration_error() -> None:
    error = refused("cat (dog")
    assert isinstance(error, ConfigurationError)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (str(again), again.rule, again.position) == (str(error), error.rule, error.position)
    assert again.reason == error.reason


@pytest.mark.parametrize(
    "rule",
    [
        "(" * DEEP + "cat" + ")" * DEEP,
        "(a " * DEEP + "cat" + ")" * DEEP,
        "(a OR (b " * DEEP + "cat" + "))" * DEEP,
        "(cat OR (-b " * DEEP + "cat" + "))" * DEEP,
    ],
)
def test_groups_may_nest_ten_thousand_deep(rule: str) -> None:
    check(rule, longest=len(rule))


@pytest.mark.parametrize("rule", ["(" * DEEP, "(" * DEEP + "a", "-" * DEEP + "(", "(a OR " * DEEP])
def test_deep_group_is_refused_when_invalid(rule: str) -> None:
    refused(rule, longest=len(rule))


PIECES = st.sampled_from(
    ["(", ")", "OR", "-", '"', '"a b"', "~3", "~", " ", "cat", "#tag", "from:", "lang:en", "has:",
     "point_radius:[", "[1 2 3km]", "]", ":", "@", "$", "\\", "and", "\x00", "\u2028", "é", "🐱",
     '\\"', "bounding_box:[0 0 9 9]", "followers_count:9..1", "sample:10", "'", "＃", "the", "1"]
)  # fmt: skip


@given(st.one_of(st.text(), st.lists(PIECES).map("".join)))
def test_any_text_gives_a_tree_or_a_syntax_error(rule: str) -> None:
    for read in (parse, check):
        with contextlib.suppress(RuleSyntaxError):
            read(rule)


def written(node: Node) -> str:
    """The rule of a tree, with the necessary parentheses."""
    if isinstance(node, Term):
        if node.operator == "phrase":
            value = node.value.replace("\\", r"\\").replace('"', r"\"")
            return f'"{value}"' + (f"~{node.distance}" if node.distance else "")
        sigils = {"keyword": "", "hashtag": "#", "mention": "@", "cashtag": "$"}
        return sigils.get(node.operator, f"{node.operator}:") + node.value
    if isinstance(node, Not):
        return f"-{written(node.part)}"
    inner = [f"({written(part)})" if _is_group(part) else written(part) for part in node.parts]
    return (" " if isinstance(node, AllOf) else " OR ").join(inner)


def _is_group(node: Node) -> bool:
    return isinstance(node, (AllOf, AnyOf))


WORDS = st.text("abcxyzé", min_size=1, max_size=5)
TERMS = st.one_of(
    st.builds(Term, st.sampled_from(["keyword", "hashtag", "mention", "from", "lang"]), WORDS),
    st.builds(Term, st.just("phrase"), st.text('ab (:-"\\', min_size=1).filter(str.strip),
              st.integers(0, 6)),
)  # fmt: skip
TREES = st.recursive(
    st.one_of(TERMS, st.builds(Not, TERMS)),
    lambda parts: st.lists(parts, min_size=2, max_size=4).flatmap(
        lambda several: st.sampled_from([AllOf(tuple(several)), AnyOf(tuple(several))])
    ),
    max_leaves=12,
)


@given(TREES)
def test_written_tree_is_parsed_back(tree: Node) -> None:
    assert shape(parse(written(tree))) == shape(tree)


@given(TREES, st.sampled_from([" ", "\t", "  \n "]))
def test_kind_of_white_space_is_ignored(tree: Node, space: str) -> None:
    rule = written(tree)
    spread = rule if '"' in rule else rule.replace(" ", space)
    assert shape(parse(spread)) == shape(tree)
