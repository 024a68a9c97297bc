"""Clients of other projects read the simulator's streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rxtweets import simulator
from rxtweets.simulator import Simulator
from rxtweets.simulator.script import (
    Abort,
    Close,
    Disconnect,
    Fin,
    KeepAlive,
    Part,
    Serve,
    rate_limited,
    too_many_connections,
    unavailable,
)

SEED = 7
Use = Callable[[Simulator], Any]
Texts = Callable[[int], list[str]]

# twarc logs its exceptions by a method that Python has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")


@pytest.mark.parametrize("gzip", [True, False], ids=["gzip", "plain"])
@pytest.mark.parametrize("chunking", ["frame", "read", 7])
def test_thousand_tweets_arrive_whole_and_in_order(
    use: Use, texts: Texts, chunking: Any, gzip: bool
) -> None:
    with simulator.serve(rate=None, seed=SEED, chunking=chunking, gzip=gzip) as x:
        heard = use(x).sample(1000)
    assert heard.texts == texts(1000)
    assert len({identifier for identifier, _ in heard.tweets}) == 1000


def test_filtered_stream_has_matching_tweets_with_their_rules(use: Use, texts: Texts) -> None:
    with simulator.serve(rate=None, seed=SEED) as x:
        client = use(x)
        client.add(("RT", "again"), ("RT is:retweet", ""))
        heard = client.search(1000)
    wanted = [text for text in texts(8000) if text.startswith("RT ")][:1000]
    assert heard.texts == wanted
    assert heard.tags == {"again", ""}


def statuses(x: Simulator) -> list[int]:
    return [request.status for request in x.requests if request.method == "GET"]


def test_disconnects_of_every_kind_are_lived_through(use: Use, texts: Texts) -> None:
    parts: list[Part] = [
        [Serve(200), Disconnect(), Close()],
        [Serve(200), KeepAlive(), Close()],
        [Serve(200), Fin()],
        unavailable(),
        unavailable(),
        [Serve(200), KeepAlive(), Close()],
    ]
    with simulator.serve(rate=None, seed=SEED, script=parts) as x:
        client = use(x)
        heard = client.sample(1000)
        assert statuses(x) == [200, 200, 200, 503, 503, 200, 200]
    assert heard.texts == texts(1000)
    assert heard.announced == (["OperationalDisconnect"] if client.hears_announcements else [])
    assert len(heard.waits) == 3  # after the cut and each 503; the others are no failures


def test_cut_within_a_tweet_loses_only_tweets_in_transit(use: Use, texts: Texts) -> None:
    parts = [[Serve(500), Abort(mid_frame=True)]]
    with simulator.serve(rate=None, seed=SEED, script=parts) as x:
        heard = use(x).sample(1000)
        assert statuses(x) == [200, 200]
    made = texts(1501)
    assert heard.texts in [made[:n] + made[501 : 1501 - n] for n in range(501)]


@pytest.mark.parametrize(
    ("use", "waits"),
    [("tweepy", [60, 120]), ("tweepy-async", [60, 120])],
    indirect=["use"],
)
def test_tweepy_backs_off_from_429(use: Use, waits: list[float]) -> None:
    with simulator.serve(rate=None, script=[rate_limited(), too_many_connections()]) as x:
        assert use(x).sample(10).waits == waits


@pytest.mark.parametrize("use", ["xdk"], indirect=True)
def test_xdk_backs_off_from_429(use: Use) -> None:
    with simulator.serve(rate=None, script=[rate_limited(), too_many_connections()]) as x:
        first, second = use(x).sample(10).waits
    assert 1 <= first <= 1.25
    assert 2 <= second <= 2.5


@pytest.mark.parametrize("use", ["twarc"], indirect=True)
def test_twarc_tells_the_causes_of_429_apart_by_the_headers(use: Use) -> None:
    parts = [rate_limited(), too_many_connections()]
    with simulator.serve(rate=None, window=300, script=parts) as x:
        until_reset, a_moment = use(x).sample(10).waits
    assert 250 < until_reset <= 311
    assert a_moment == 10


@pytest.mark.parametrize("use", ["twarc"], indirect=True)
def test_twarc_fetches_a_token_around_an_announced_disconnect(use: Use) -> None:
    parts = [[Serve(5), Disconnect(), Close()]]
    with simulator.serve(rate=None, token="only-this", script=parts) as x:
        assert len(use(x).sample(10).tweets) == 10
        assert [request.path for request in x.requests].count("/oauth2/token") == 2


@pytest.mark.parametrize("use", ["tweepy", "tweepy-async", "xdk"], indirect=True)
def test_wrong_token_is_refused_in_every_client(use: Use) -> None:
    with simulator.serve(token="another") as x:
        client = use(x)
        with pytest.raises(client.forbidden, match="401"):
            client.rules()
