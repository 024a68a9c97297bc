"""X's own client, whose models come from X's description, reads every stream of the simulator."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest

from rxtweets import simulator
from rxtweets.api._endpoints import ENDPOINTS
from rxtweets.simulator import Simulator

pytestmark = pytest.mark.parametrize("use", ["xdk"], indirect=True)
Use = Callable[[Simulator], Any]
STREAMS = {
    "activity": "activity_stream",
    "labels_compliance": "tweet_label_stream",
    "likes_compliance": "likes_compliance_stream",
    "likes_firehose": "likes_firehose_stream",
    "likes_sample10": "likes_sample10_stream",
    "posts": "filtered_stream",
    "posts_compliance": "tweets_compliance_stream",
    "posts_firehose": "firehose_stream",
    "posts_firehose_en": "firehose_stream_lang_en",
    "posts_firehose_ja": "firehose_stream_lang_ja",
    "posts_firehose_ko": "firehose_stream_lang_ko",
    "posts_firehose_pt": "firehose_stream_lang_pt",
    "posts_sample": "sample_stream",
    "posts_sample10": "sample10_stream",
    "users_compliance": "users_compliance_stream",
}


@pytest.fixture
def x() -> Iterator[Simulator]:
    with simulator.serve(rate=None, names="post", size="large", rules=["RT"]) as x:
        yield x


def test_it_has_all_the_streams_that_there_are(use: Use) -> None:
    del use
    assert sorted(STREAMS.values()) == sorted(ENDPOINTS)


@pytest.mark.parametrize("method", STREAMS)
def test_every_line_of_every_stream_fits_its_model(
    use: Use, x: Simulator, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    caplog.set_level(logging.DEBUG, "xdk.streaming")
    options = {"partition": 1} if ENDPOINTS[STREAMS[method]].partitions else {}
    with contextlib.closing(getattr(use(x).api.stream, method)(**options)) as stream:
        read = [answer.model_dump(exclude_unset=True) for answer in islice(stream, 200)]
    assert len(read) == 200
    assert all(item["data"] for item in read)
    assert not caplog.messages  # the client logs the lines that it leaves out


def test_it_finds_and_ends_connections(use: Use, x: Simulator) -> None:
    client = use(x)
    with contextlib.closing(client.api.stream.posts_sample()) as stream:
        next(stream)
        [page] = client.api.connections.get_connection_history(status="active")
        assert [held.endpoint_name for held in page.data] == ["sample_stream"]
        ended = client.api.connections.delete_by_endpoint("sample_stream")
        assert ended.data.successful_kills == 1
    [page] = client.api.connections.get_connection_history(status="inactive")
    assert [held.id for held in page.data] == [ended.data.results[0].uuid]


def test_it_counts_rules(use: Use, x: Simulator) -> None:
    counted = use(x).api.stream.get_rule_counts().data
    assert counted.project_rules_count == "1"
    assert counted.client_app_rules_count.rule_count == 1


def test_it_pages_through_rules(use: Use) -> None:
    with simulator.serve(rules=[f"cat{number}" for number in range(25)]) as x:
        pages = list(use(x).api.stream.get_rules(max_results=10))
    assert [len(page.data) for page in pages] == [10, 10, 5]
