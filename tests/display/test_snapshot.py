from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from reactivex import Observable
from reactivex.subject import Subject

import rxtweets
from rxtweets import Batcher, Message, Pipeline, RxTweetsError, Stats
from rxtweets import operators as ops
from rxtweets.display._snapshot import (
    Snapshot,
    Stage,
    has_ended,
    is_running,
    snapshot_of,
    with_rates,
)


def pipeline_of(source: Observable[Any], **options: Any) -> Pipeline:
    return Pipeline(source, batchers={"default": Batcher(lambda _: None, 2)}, **options)


def test_pipeline_has_all_stages_before_the_first_message() -> None:
    snapshot = snapshot_of(pipeline_of(Subject(), handle_message=lambda message: message))
    assert [len(stages) for stages in snapshot.columns] == [1, 1, 1, 1]
    assert not snapshot.is_over


def test_pipeline_snapshot_has_the_counters_of_stats() -> None:
    subject: Subject[Message[str]] = Subject()
    pipeline = pipeline_of(subject)
    with pipeline:
        for number in range(4):
            subject.on_next(Message(str(number)))
        subject.on_completed()
        assert pipeline.wait(10)
        snapshot = snapshot_of(pipeline)
    (subscriber,) = snapshot.subscribers
    assert (subscriber.batches, subscriber.passed) == (2, 4)
    assert snapshot.processors == ()  # there was no handler
    assert snapshot.is_over
    assert snapshot.state == "stopped"


def test_pipeline_snapshot_is_failed_after_an_error() -> None:
    subject: Subject[Message[str]] = Subject()
    pipeline = pipeline_of(subject).start()
    subject.on_error(ValueError("no"))
    with pytest.raises((ValueError, RxTweetsError), match="no"):
        pipeline.wait(10)
    assert snapshot_of(pipeline).state == "failed"
    assert has_ended(pipeline)


def test_pipeline_snapshot_tells_that_it_runs_or_is_paused() -> None:
    pipeline = pipeline_of(Subject())
    assert snapshot_of(pipeline).state == "idle"
    with pipeline:
        snapshot = snapshot_of(pipeline)
        assert (snapshot.state, snapshot.sources[0].state) == ("running", "")
        pipeline.pause()
        assert snapshot_of(pipeline).state == "paused"
        pipeline.resume()
        assert snapshot_of(pipeline).state == "running"


def test_is_running_and_has_ended_follow_the_pipeline() -> None:
    pipeline = pipeline_of(Subject())
    assert (is_running(pipeline), has_ended(pipeline)) == (False, False)
    pipeline.start()
    assert (is_running(pipeline), has_ended(pipeline)) == (True, False)
    pipeline.stop()
    assert (is_running(pipeline), has_ended(pipeline)) == (False, True)


def test_stream_is_one_stage_with_its_state() -> None:
    with rxtweets.simulator.serve(rate=100) as x:
        tweets = rxtweets.sample_stream(token="any", base_url=x.url)
        assert snapshot_of(tweets).state == "idle"
        assert not is_running(tweets)
        tweets.take(5).run()
    snapshot = snapshot_of(tweets)
    assert [len(stages) for stages in snapshot.columns] == [1]
    assert snapshot.sources[0].passed >= 5
    assert snapshot.sources[0].lag is not None


@pytest.mark.parametrize(("count", "detail"), [(1, ""), (3, "3 stages")])
def test_processors_of_a_stream_have_the_number_of_stages(count: int, detail: str) -> None:
    handlers = (ops.process(lambda message: message) for _ in range(count))
    stream = rxtweets.from_iterable(["one", "two"]).pipe(*handlers)
    stream.to_list().run()
    (processors,) = snapshot_of(stream).processors
    assert (processors.passed, processors.detail) == (2 * count, detail)


def test_stream_has_a_stage_for_each_connection() -> None:
    with rxtweets.simulator.serve(rate=100) as x:
        tweets = rxtweets.sample10_stream(token="any", base_url=x.url, partition=(1, 2))
        names = [stage.name for stage in snapshot_of(tweets).sources]
    assert names == ["connection 1", "connection 2"]


def test_pipeline_has_a_stage_for_each_connection() -> None:
    stream = rxtweets.sample10_stream(token="any", base_url="http://127.0.0.1:1", partition=(1, 2))
    sources = snapshot_of(pipeline_of(stream)).sources
    assert [(stage.name, stage.state) for stage in sources] == [
        ("connection 1", "idle"),
        ("connection 2", "idle"),
    ]


def test_pipeline_streams_have_their_own_state_and_lag() -> None:
    lagging = rxtweets.sample_stream(token="any", base_url="http://127.0.0.1:1")
    lagging.telemetry.show("lag", lambda: 1.5)
    divided = rxtweets.sample10_stream(token="any", base_url="http://127.0.0.1:1")
    pipeline = Pipeline(
        [Subject(), lagging, divided], batchers={"default": Batcher(lambda _: None)}
    )
    assert [(stage.name, stage.state, stage.lag) for stage in snapshot_of(pipeline).sources] == [
        ("Subject 0", "", None),
        ("sample_stream 1", "idle", 1.5),
        ("connection 2.1", "idle", None),
        ("connection 2.2", "idle", None),
    ]


def test_snapshot_has_errors_and_notes() -> None:
    shown = SimpleNamespace(errors=("a", "b"), stats=lambda: Stats(gaps=1, reconnects=2000))
    snapshot = snapshot_of(shown)
    assert snapshot.errors == ("a", "b")
    assert snapshot.notes == ("reconnects 2,000", "gaps 1")


def test_rates_are_measured_between_two_snapshots() -> None:
    before = Snapshot("connected", (Stage("s", passed=100),), (Stage("p", passed=90),))
    now = Snapshot("connected", (Stage("s", passed=200),), (Stage("p", passed=100),))
    rated = with_rates(now, before, 2.0, (7.0,))
    assert (rated.sources[0].rate, rated.processors[0].rate) == (50.0, 5.0)
    assert rated.rates == (7.0, 50.0)


def test_first_snapshot_has_no_rates() -> None:
    now = Snapshot("connected", (Stage("s", passed=200),))
    assert with_rates(now, None, 0.0).rates == ()
    assert with_rates(now, None, 0.0).sources == now.sources


def test_new_stage_has_no_rate() -> None:
    before = Snapshot("connected", (Stage("s"),))
    now = Snapshot("connected", (Stage("s", passed=4),), (Stage("p", passed=3),))
    assert with_rates(now, before, 1.0).processors[0].rate == 0.0


def test_rate_is_not_negative_when_counters_restart() -> None:
    before, now = (Snapshot("connected", (Stage("s", passed=n),)) for n in (9, 2))
    assert with_rates(now, before, 1.0).sources[0].rate == 0.0


@dataclass
class Named:
    """A pipeline that names its stages."""

    topology_: Any
    stages_: tuple[Any, ...]
    errors: tuple[str, ...] = ()

    def topology(self) -> Any:
        return self.topology_

    def stages(self) -> tuple[Any, ...]:
        return self.stages_

    def stats(self) -> Stats:
        return Stats(processed=40, failed=2, batches=3, batched=30)

    def wait(self, _: float) -> bool:
        return False


def figures(kind: str, name: str, **values: int) -> Any:
    known = {"running": 0, "in_flight": 0, "done": 0, "failed": 0, "queued": 0}
    return SimpleNamespace(kind=kind, name=name, **(known | values))


def topology(sources: int, batchers: dict[str, str]) -> Any:
    return SimpleNamespace(
        sources=tuple(SimpleNamespace(name=str(n), kind="LiveStream") for n in range(sources)),
        processors=SimpleNamespace(handler="upcase", concurrency=50),
        batchers=tuple(
            SimpleNamespace(name=name, subscriber=subscriber, size=20, timeout=2.0)
            for name, subscriber in batchers.items()
        ),
    )


def test_snapshot_has_the_stages_of_the_topology() -> None:
    shown = Named(
        topology(2, {"default": "Database", "alerts": "post"}),
        (
            figures("source", "0", done=7),
            figures("source", "1", done=8),
            figures("processors", "processors", running=5, in_flight=9),
            figures("batcher", "alerts", done=4, queued=2),
            figures("subscribers", "default", done=9, failed=1),
        ),
    )
    snapshot = snapshot_of(shown)
    assert [(stage.name, stage.passed) for stage in snapshot.sources] == [
        ("LiveStream 0", 7),
        ("LiveStream 1", 8),
    ]
    assert snapshot.processors == (
        Stage("upcase", "50 at once", passed=40, queued=4, in_flight=5, failed=2),
    )
    assert [(stage.name, stage.detail, stage.queued) for stage in snapshot.batchers] == [
        ("default", "20 or 2 s", 0),
        ("alerts", "20 or 2 s", 2),
    ]
    assert [(stage.name, stage.passed, stage.failed) for stage in snapshot.subscribers] == [
        ("Database", 9, 1),
        ("post", 0, 0),
    ]


def test_single_subscriber_has_the_counters_of_stats() -> None:
    (subscriber,) = snapshot_of(Named(topology(1, {"default": "Database"}), ())).subscribers
    assert (subscriber.name, subscriber.batches, subscriber.passed) == ("Database", 3, 30)
