from __future__ import annotations

import sys
import threading
import urllib.request
from typing import Any

import httpx
import pytest
import reactivex
from prometheus_client.parser import text_string_to_metric_families

from rxtweets import ConfigurationError, Message, MessageStream, events
from rxtweets import operators as ops
from rxtweets.instrumentation._metrics import METRICS
from rxtweets.instrumentation.prometheus import StreamCollector, serve_metrics

PATIENCE = 20.0


def handle(message: Message[int]) -> Message[int]:
    if message.data % 10 == 3:
        raise ValueError(message.data)
    return message


class Feed:
    """A stream into which the test pushes."""

    def __init__(self) -> None:
        self.source: reactivex.Subject[Message[int]] = reactivex.Subject()
        self.stream: MessageStream[int] = self.source.pipe(ops.process(handle, 4))
        self.seen = threading.Semaphore(0)
        self.stream.subscribe(lambda _: self.seen.release())

    def give(self, numbers: range) -> None:
        for number in numbers:
            self.source.on_next(Message(number))
        for _ in [number for number in numbers if number % 10 != 3]:
            assert self.seen.acquire(timeout=PATIENCE)
        assert self.stream.telemetry.bus.flush()

    def end(self) -> None:
        self.source.on_completed()


@pytest.fixture
def feed() -> Any:
    feed = Feed()
    yield feed
    feed.end()


def scrape(port: int) -> dict[str, Any]:
    """The families by name, as Prometheus's own parser reads them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = answer.read().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(family: Any) -> dict[tuple[str, ...], float]:
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for sample in family.samples
    }


def test_every_metric_is_served_with_type_and_description(feed: Feed) -> None:
    with serve_metrics(feed.stream) as server:
        families = scrape(server.port)
    for metric in METRICS:
        if metric.name != "lag":
            family = families[f"rxtweets_{metric.name.replace('.', '_')}"]
            assert family.type == ("counter" if metric.is_counter else "gauge"), metric
            assert family.documentation == metric.description
    assert values(families["rxtweets_state"]) == {("idle", ""): 1.0}
    assert "rxtweets_lag" not in families  # not known yet


def test_counters_are_those_of_stats_and_only_grow(feed: Feed) -> None:
    with serve_metrics(feed.stream) as server:
        before: dict[str, float] = {}
        for start in (0, 10, 20):
            feed.give(range(start, start + 10))
            families = scrape(server.port)
            now = {
                name: sum(values(family).values())
                for name, family in families.items()
                if family.type == "counter"
            }
            assert all(now[name] >= value for name, value in before.items())
            before = now
    assert before["rxtweets_processed"] == 27
    assert before["rxtweets_failed"] == 3


def test_events_are_counted_by_kind(feed: Feed) -> None:
    with serve_metrics(feed.stream) as server:
        feed.give(range(20))
        counted = scrape(server.port)["rxtweets_events"]
    assert counted.type == "counter"
    assert values(counted) == {("HandlerFailed", "", ""): 2.0}


@pytest.mark.parametrize("part", ['quo"te', "back\\slash", "new\nline", "日本語", '{a="b"}'])
def test_labels_of_any_text_are_served(feed: Feed, part: str) -> None:
    with serve_metrics(feed.stream, name=part) as server:
        feed.stream.telemetry.publish(events.PartEnded(None, part=part))
        assert feed.stream.telemetry.bus.flush()
        [sample] = scrape(server.port)["rxtweets_events"].samples
    assert sample.labels == {"event": "PartEnded", "part": part, "stream": part}


def test_stages_have_their_own_metrics(feed: Feed) -> None:
    with serve_metrics(feed.stream) as server:
        feed.give(range(10))
        families = scrape(server.port)
    assert families["rxtweets_stage_busy_seconds"].type == "counter"
    [sample] = families["rxtweets_stage_concurrency"].samples
    assert (sample.labels["stage"], sample.value) == ("processors", 4.0)


def test_closed_server_listens_and_counts_no_more(feed: Feed) -> None:
    server = serve_metrics(feed.stream)
    assert feed.stream.telemetry.bus.has_observers
    server.close()
    assert not feed.stream.telemetry.bus.has_observers
    with pytest.raises(OSError, match="refused"):
        scrape(server.port)


def test_port_is_refused_by_its_number_when_it_is_taken(feed: Feed) -> None:
    with (
        serve_metrics(feed.stream) as server,
        pytest.raises(ConfigurationError, match=f"port={server.port}.*in use.*another port"),
    ):
        serve_metrics(feed.stream, server.port)
    assert not feed.stream.telemetry.bus.has_observers


@pytest.mark.parametrize(("port", "host"), [(65_536, "127.0.0.1"), (0, "203.0.113.1")])
def test_address_is_refused_when_nothing_can_listen_there(feed: Feed, port: int, host: str) -> None:
    with pytest.raises(ConfigurationError, match=f"port={port}"):
        serve_metrics(feed.stream, port, host)
    assert not feed.stream.telemetry.bus.has_observers


def test_scrape_that_fails_is_logged_and_answered_with_500(
    feed: Feed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serve_metrics(feed.stream) as server:
        monkeypatch.setattr(feed.stream.telemetry, "stats", lambda: 1 // 0)
        answer = httpx.get(f"http://127.0.0.1:{server.port}/metrics")
        monkeypatch.undo()
        assert answer.status_code == 500
        assert "could not be collected" in caplog.text
        assert scrape(server.port)


def test_server_listens_on_this_machine_only_by_default(feed: Feed) -> None:
    with serve_metrics(feed.stream) as server:
        assert server._server.server_address[0] == "127.0.0.1"


def test_registry_takes_two_streams(feed: Feed) -> None:
    one, two = StreamCollector(feed.stream, "one"), StreamCollector(feed.stream, "two")
    assert len(list(one.collect())) == len(list(two.collect()))
    one.close()
    two.close()


def test_missing_library_is_named_with_its_extra(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    with pytest.raises(ConfigurationError, match=r"rxtweets\[prometheus\]"):
        serve_metrics(feed.stream)


@pytest.mark.parametrize("port", [-1, "80", None])
def test_invalid_port_is_refused(feed: Feed, port: Any) -> None:
    with pytest.raises(ConfigurationError, match="port="):
        serve_metrics(feed.stream, port)
