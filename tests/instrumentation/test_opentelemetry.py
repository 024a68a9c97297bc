from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import reactivex
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Sum
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from rxtweets import (
    Batcher,
    ConfigurationError,
    Message,
    MessageStream,
    Pipeline,
    Stats,
    from_iterable,
)
from rxtweets import operators as ops
from rxtweets.events import ProcessorStarted
from rxtweets.instrumentation import opentelemetry
from rxtweets.instrumentation._metrics import STATS_METRICS

PATIENCE = 20.0


def handle(message: Message[str]) -> Message[str]:
    if message.data == "bad":
        raise ValueError("not this one")
    return message


class Watched:
    """A stream into which the test pushes, its metrics and its spans."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.exporter = InMemorySpanExporter()
        self.meters = MeterProvider([self.reader])
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.source: reactivex.Subject[Message[str]] = reactivex.Subject()
        self.stream: MessageStream[str] = self.source.pipe(ops.process(handle, 4))
        self.instrumentation = opentelemetry.instrument(
            self.stream, name="mine", meter_provider=self.meters, tracer_provider=self.tracers
        )

    def run(self, *data: str) -> None:
        ended = threading.Event()
        self.stream.subscribe(on_completed=ended.set)
        for value in data:
            self.source.on_next(Message(value))
        self.source.on_completed()
        assert ended.wait(PATIENCE)
        assert self.stream.telemetry.bus.flush()

    def metrics(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def spans(self) -> dict[str, list[Any]]:
        spans: dict[str, list[Any]] = {}
        for span in self.exporter.get_finished_spans():
            spans.setdefault(span.name, []).append(span)
        return spans


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.instrumentation.dispose()
    watched.meters.shutdown()
    watched.tracers.shutdown()


def test_every_metric_is_an_instrument_of_its_kind(watched: Watched) -> None:
    metrics = watched.metrics()
    for metric in STATS_METRICS.values():
        if metric.name != "lag":
            data = metrics[f"rxtweets.{metric.name}"].data
            is_counter = isinstance(data, Sum) and data.is_monotonic
            assert is_counter == metric.is_counter, metric
    assert "rxtweets.lag" not in metrics  # not known yet


def test_values_are_those_of_stats(watched: Watched) -> None:
    watched.run("a", "bad", "b")
    metrics = watched.metrics()
    found = {}
    for name in ("processed", "failed"):
        [point] = metrics[f"rxtweets.{name}"].data.data_points
        assert point.attributes == {"stream": "mine"}
        found[name] = point.value
    assert found == {"processed": 2, "failed": 1}


def test_one_collection_takes_one_snapshot(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Stats] = []
    stats = watched.stream.stats

    def note() -> Stats:
        taken.append(stats())
        return taken[-1]

    monkeypatch.setattr(watched.stream, "stats", note)
    watched.metrics()
    watched.metrics()
    assert len(taken) == 2


def test_stages_have_their_own_attributes(watched: Watched) -> None:
    watched.run("a")
    [point] = watched.metrics()["rxtweets.stage.concurrency"].data.data_points
    named = {"stream": "mine", "stage": "processors", "number": 0}
    assert named.items() <= point.attributes.items()
    assert point.value == 4


def test_message_span_is_within_a_processor_span(watched: Watched) -> None:
    watched.run("a", "b")
    spans = watched.spans()
    assert len(spans["rxtweets.handle"]) == 2
    processors = {span.context.span_id: span for span in spans["rxtweets.process"]}
    for span in spans["rxtweets.handle"]:
        parent = processors[span.parent.span_id]
        assert parent.context.trace_id == span.context.trace_id
        assert parent.start_time <= span.start_time <= span.end_time
    assert sum(span.attributes["successful"] for span in processors.values()) == 2


def test_handler_span_has_the_exception(watched: Watched) -> None:
    watched.run("bad")
    [span] = watched.spans()["rxtweets.handle"]
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "not this one"
    [event] = span.events
    assert event.attributes["exception.type"] == "ValueError"


def test_pipeline_exports_spans_of_all_user_code(watched: Watched) -> None:
    def take(batch: Any) -> None:
        raise OSError(f"no room for {batch}")

    pipeline = Pipeline(
        from_iterable([Message("a"), Message("bad")]),
        prepare_messages=lambda messages: messages,
        handle_message=handle,
        handle_failed=lambda messages: messages,
        batchers={"archive": Batcher(take), "default": Batcher(take)},
    )
    with opentelemetry.instrument(
        pipeline, meter_provider=watched.meters, tracer_provider=watched.tracers
    ):
        pipeline.run()
        assert pipeline.wait(PATIENCE)
        pipeline.stop()  # which waits for the events
    spans = watched.spans()
    assert set(spans) == {
        f"rxtweets.{name}" for name in ("process", "handle", "prepare", "deliver", "handle_failed")
    }
    [delivery] = spans["rxtweets.deliver"]
    assert delivery.attributes["batcher"] == "default"
    assert (delivery.attributes["messages"], delivery.attributes["trigger"]) == (1, "flush")
    assert delivery.status.status_code is StatusCode.ERROR
    assert len(spans["rxtweets.handle_failed"]) == 2  # of the processor and of the batcher
    assert spans["rxtweets.prepare"][0].attributes["messages"] >= 1


def test_batcher_and_subscriber_differ_in_kind() -> None:
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader])
    pipeline = Pipeline(
        from_iterable([]),
        handle_message=lambda message: message,
        batchers={"archive": Batcher(print)},
    )
    with opentelemetry.instrument(pipeline, meter_provider=meters):
        pipeline.run()
        data: Any = reader.get_metrics_data()
    meters.shutdown()
    [scope] = data.resource_metrics[0].scope_metrics
    [metric] = [metric for metric in scope.metrics if metric.name == "rxtweets.stage.received"]
    points = [point.attributes for point in metric.data.data_points]
    assert sorted(
        attributes["kind"] for attributes in points if attributes["stage"] == "archive"
    ) == [
        "batcher",
        "subscribers",
    ]


def processed(reader: InMemoryMetricReader) -> list[int]:
    """What is exported as the number of processed messages."""
    data: Any = reader.get_metrics_data()
    [scope] = data.resource_metrics[0].scope_metrics
    [metric] = [metric for metric in scope.metrics if metric.name == "rxtweets.processed"]
    return [point.value for point in metric.data.data_points]


@pytest.mark.parametrize("was_collected", [False, True])
def test_last_values_are_collected_when_the_block_has_ended(*, was_collected: bool) -> None:
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader])
    pipeline = Pipeline(from_iterable(range(7)), handle_message=lambda message: message)
    with opentelemetry.instrument(pipeline, meter_provider=meters):
        if was_collected:
            assert processed(reader) == [0]
        pipeline.run()
    assert processed(reader) == [7]
    assert processed(reader) == [7]  # for another reader
    meters.shutdown()


def test_last_values_are_replaced_by_a_source_of_the_name() -> None:
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader])
    for count in (7, 3):
        pipeline = Pipeline(from_iterable(range(count)), handle_message=lambda message: message)
        with opentelemetry.instrument(pipeline, meter_provider=meters):
            pipeline.run()
    assert processed(reader) == [3]
    meters.shutdown()


def test_two_streams_have_metrics_when_they_share_a_provider() -> None:
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader])
    pipelines = [
        Pipeline(from_iterable(range(count)), handle_message=lambda message: message)
        for count in (7, 3)
    ]
    with (
        opentelemetry.instrument(pipelines[0], name="a", meter_provider=meters),
        opentelemetry.instrument(pipelines[1], name="b", meter_provider=meters),
    ):
        for pipeline in pipelines:
            pipeline.run()
        assert processed(reader) == [7, 3]
    assert processed(reader) == [7, 3]
    meters.shutdown()


def test_nothing_is_exported_after_the_disposal(watched: Watched) -> None:
    watched.instrumentation.dispose()
    watched.run("a")
    assert watched.spans() == {}
    [point] = watched.metrics()["rxtweets.processed"].data.data_points
    assert point.value == 0


def test_oldest_open_spans_are_dropped(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opentelemetry, "MAX_OPEN_SPANS", 3)
    spans = opentelemetry._SpanExporter("", watched.tracers)
    for number in range(10):
        spans.on_next(ProcessorStarted(number, 1.0))
    assert list(spans._open) == [7, 8, 9]


def test_missing_library_is_named_with_its_extra(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    with pytest.raises(ConfigurationError, match=r"rxtweets\[opentelemetry\]"):
        opentelemetry.instrument(watched.stream)
