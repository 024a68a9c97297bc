"""Metrics and spans for OpenTelemetry; needs the extra ``opentelemetry``.

::

    with instrument(pipeline):
        pipeline.run()

Only OpenTelemetry's API is needed here; the program chooses the SDK and its exporters.
`rxtweets.instrumentation` lists the metrics.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any
from weakref import WeakKeyDictionary

from reactivex import abc
from reactivex.disposable import CompositeDisposable, Disposable

from rxtweets._core import events
from rxtweets._support.optional_imports import needed
from rxtweets.instrumentation._metrics import (
    METRICS,
    Metric,
    Source,
    check_source,
    readings,
    stages_of,
)

__all__ = ["instrument"]

MAX_OPEN_SPANS = 10_000
"""The oldest open spans beyond this number are dropped: a lost event never ends its span."""


def instrument(
    source: Source, *, name: str = "", meter_provider: Any = None, tracer_provider: Any = None
) -> abc.DisposableBase:
    """Export the metrics of a stream or a pipeline to OpenTelemetry, and spans of its work.

    ========================== ===================================================================
    span                       covers
    ========================== ===================================================================
    ``rxtweets.process``       the messages that a processor takes together
    ``rxtweets.handle``        one message within it; most of the cost of tracing
    ``rxtweets.prepare``       one call of ``prepare``
    ``rxtweets.deliver``       one batch that a subscriber is given
    ``rxtweets.handle_failed`` one call of ``on_failed`` or ``handle_failed``
    ========================== ===================================================================

    Args:
        source: a stream or a pipeline.
        name: the attribute ``stream``.
        meter_provider: a provider of the OpenTelemetry API; by default the global one.
        tracer_provider: a provider of the OpenTelemetry API; by default the global one.

    Returns:
        A disposable that stops the export, by ``dispose()`` or at the end of a ``with`` block.
        The metrics keep their last values, so that the next collection exports them. A later
        call with the same ``name`` replaces them.

    Raises:
        ConfigurationError: the extra is not installed.
    """
    check_source(source)
    metrics = needed("opentelemetry.metrics", "opentelemetry")
    needed("opentelemetry.trace", "opentelemetry")
    measured = _MeasuredSource(source, metrics.Observation, name)
    _instruments_of(meter_provider, metrics).add(measured)
    parts: list[abc.DisposableBase] = [Disposable(measured.close)]
    spans = getattr(source, "spans", None)
    if spans is not None:
        exporter = _SpanExporter(name, tracer_provider)
        parts.append(spans.subscribe(exporter))
        parts.append(source.events.subscribe(exporter.on_event))
    return CompositeDisposable(parts)


class _Instruments:
    """The instruments of one provider, for all sources: an SDK takes each name once."""

    def __init__(self, meter: Any) -> None:
        self._sources: list[_MeasuredSource] = []
        for metric in METRICS:
            kind = "counter" if metric.is_counter else "gauge"
            getattr(meter, f"create_observable_{kind}")(
                f"rxtweets.{metric.name}",
                [lambda _options, metric=metric: self._observations(metric)],
                unit="s" if metric.name == "lag" or metric.name.endswith("_seconds") else "1",
                description=metric.description,
            )

    def add(self, added: _MeasuredSource) -> None:
        """Observe a source in place of the closed ones of its name."""
        others = [source for source in self._sources if source.is_live or source.name != added.name]
        self._sources = [*others, added]

    def _observations(self, metric: Metric) -> list[Any]:
        return [point for source in self._sources for point in source.observations(metric)]


_instruments: WeakKeyDictionary[Any, _Instruments] = WeakKeyDictionary()


def _instruments_of(provider: Any, metrics: Any) -> _Instruments:
    # Without a provider, the module stands for the global one, which may be set later.
    key = metrics if provider is None else provider
    if key not in _instruments:
        _instruments[key] = _Instruments(metrics.get_meter("rxtweets", meter_provider=provider))
    return _instruments[key]


class _MeasuredSource:
    """A source with one snapshot for each collection, so that its metrics add up."""

    def __init__(self, source: Source, observation: Any, name: str) -> None:
        self._source: Source | None = source
        self._observation = observation
        self.name = name
        self._observations: dict[Metric, list[Any]] = {}
        self._uncollected: set[Metric] = set()

    @property
    def is_live(self) -> bool:
        return self._source is not None

    def close(self) -> None:
        """Keep the last values: the next collection exports them."""
        if self._source is not None:
            self._observe(self._source)
            self._source = None

    def observations(self, metric: Metric) -> list[Any]:
        """Return the values; the second request for a metric begins a new collection."""
        if self._source is not None and metric not in self._uncollected:
            self._observe(self._source)
        self._uncollected.discard(metric)
        return self._observations.get(metric, [])

    def _observe(self, source: Source) -> None:
        observations: dict[Metric, list[Any]] = {}
        for metric, value, labels in readings(source.stats(), stages_of(source)):
            point = self._observation(value, {"stream": self.name, **labels})
            observations.setdefault(metric, []).append(point)
        self._observations, self._uncollected = observations, set(METRICS)


class _SpanExporter(abc.ObserverBase[events.Span]):
    """Makes spans of OpenTelemetry from spans and events of rxtweets, on one thread."""

    def __init__(self, name: str, provider: Any) -> None:
        self._trace = needed("opentelemetry.trace", "opentelemetry")
        self._tracer = self._trace.get_tracer("rxtweets", tracer_provider=provider)
        self._attributes: dict[str, Any] = {"stream": name}
        self._open: OrderedDict[int, Any] = OrderedDict()

    def on_next(self, value: events.Span) -> None:
        match value:
            case events.ProcessorStarted():
                self._start(value, "rxtweets.process")
            case events.ProcessorStopped():
                self._stop(value, successful=len(value.successful), failed=len(value.failed))
            case events.HandlerStarted():
                self._start(value, "rxtweets.handle", self._open.get(value.parent))
            case events.HandlerStopped() | events.HandlerRaised():
                self._stop(value)
            case events.Prepared():
                self._start(value, "rxtweets.prepare")
                self._stop(value, messages=len(value.messages))

    def on_event(self, event: events.Event) -> None:
        """Export a span for an event that reports a finished call."""
        match event:
            case events.BatchDelivered() | events.BatchFailed():
                info = event.batch.info
                attributes = {"batcher": info.batcher, "trigger": info.trigger}
                self._export("rxtweets.deliver", event, attributes | {"messages": info.size})
            case events.FailureHandled() | events.FailureHandlerFailed():
                self._export("rxtweets.handle_failed", event, {"messages": len(event.messages)})

    def on_error(self, error: Exception) -> None:
        """Do nothing: the Observable of spans does not end."""

    def on_completed(self) -> None:
        """Do nothing: the Observable of spans does not end."""

    def _export(self, name: str, event: Any, attributes: dict[str, Any]) -> None:
        end = time.time()
        start = _nanoseconds(end - event.seconds)
        attributes = self._attributes | attributes
        span = self._tracer.start_span(name, attributes=attributes, start_time=start)
        self._finish(span, end, getattr(event, "error", None))

    def _start(self, ours: events.Span, name: str, parent: Any = None) -> None:
        context = None if parent is None else self._trace.set_span_in_context(parent)
        self._open[ours.number] = self._tracer.start_span(
            name, context, attributes=self._attributes, start_time=_nanoseconds(ours.started)
        )
        if len(self._open) > MAX_OPEN_SPANS:
            self._open.popitem(last=False)

    def _stop(self, ours: Any, **attributes: int) -> None:
        span = self._open.pop(ours.number, None)
        if span is not None:
            span.set_attributes(attributes)
            self._finish(span, ours.started + ours.duration, getattr(ours, "error", None))

    def _finish(self, span: Any, end: float, error: BaseException | None) -> None:
        if error is not None:
            span.record_exception(error)
            span.set_status(self._trace.StatusCode.ERROR, str(error))
        span.end(_nanoseconds(end))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
