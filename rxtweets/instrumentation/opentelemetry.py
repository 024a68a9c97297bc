"""Metrics and spans for OpenTelemetry; needs the extra ``opentelemetry``.

::

    with instrument(pipeline):
        pipeline.run()

Only the API is needed here; which SDK and exporters get the figures is the program's choice.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

from reactivex import abc
from reactivex.disposable import CompositeDisposable, Disposable

from rxtweets._core.events import (
    BatchDelivered,
    BatchFailed,
    Event,
    FailureHandled,
    FailureHandlerFailed,
    HandlerRaised,
    HandlerStarted,
    HandlerStopped,
    Prepared,
    ProcessorStarted,
    ProcessorStopped,
    Span,
)
from rxtweets._core.telemetry import StageStats, Stats
from rxtweets._messages.batch import BatchInfo
from rxtweets._support.optional_imports import needed
from rxtweets.instrumentation._metrics import (
    GAUGES,
    STAGE_COUNTERS,
    Source,
    check_source,
    labels,
    meanings,
    numbers,
    stages_of,
)

__all__ = ["instrument"]

MOST_OPEN = 10_000
"""Spans that wait for their end at most: where events are lost, an end may never come."""


def instrument(
    source: Source, *, name: str = "", meter_provider: Any = None, tracer_provider: Any = None
) -> abc.DisposableBase:
    """Give the figures of a stream or a pipeline to OpenTelemetry, and spans of its work.

    The metrics are observable instruments ``rxtweets.received`` and its kin, and
    ``rxtweets.stage.…`` by ``stage`` and ``kind``. Spans are ``rxtweets.process`` for what a
    processor takes up, and ``rxtweets.handle`` within it for each message, which cost some 50 µs
    a message; and ``rxtweets.prepare``, ``rxtweets.deliver`` for each batch that a subscriber is
    given, and ``rxtweets.handle_failed``.

    Args:
        source: the stream, or the pipeline.
        name: the attribute ``stream``.
        meter_provider: of the OpenTelemetry API; the global one by default.
        tracer_provider: likewise.

    Returns:
        What ends it, by ``dispose()`` or at the end of a ``with`` block. The metrics keep their
        last values, so that the next collection exports them; those of a later call for the same
        ``stream`` take their place.

    Raises:
        ConfigurationError: the extra is not installed.
    """
    check_source(source)
    metrics = needed("opentelemetry.metrics", "opentelemetry")
    needed("opentelemetry.trace", "opentelemetry")
    measures = _Measures(source, metrics, name)
    _instruments_of(meter_provider, metrics).add(measures)
    parts: list[abc.DisposableBase] = [Disposable(measures.close)]
    spans = getattr(source, "spans", None)
    if spans is not None:
        made = _Spans(name, tracer_provider)
        parts.append(spans.subscribe(made))
        parts.append(source.events.subscribe(made.on_event))
    return CompositeDisposable(parts)


class _Instruments:
    """The instruments of one provider, for all sources: an SDK takes each name once."""

    def __init__(self, meter: Any) -> None:
        self._sources: list[_Measures] = []
        whole = numbers(Stats(lag=0.0))
        for name in whole:
            self._make(meter, name, name not in GAUGES, meanings(Stats), _Measures.whole)
        for name in numbers(StageStats("", 1, 0, 0, 0.0, 0.0)):
            text = {f"stage.{each}": line for each, line in meanings(StageStats).items()}
            self._make(meter, f"stage.{name}", name in STAGE_COUNTERS, text, _Measures.stages)

    def add(self, measures: _Measures) -> None:
        """Observe these too, in place of those of the name that have ended."""
        others = [each for each in self._sources if each.is_live or each.name != measures.name]
        self._sources = [*others, measures]

    def _make(
        self,
        meter: Any,
        name: str,
        is_counter: bool,
        text: dict[str, str],
        read: Callable[[_Measures, str], Iterable[Any]],
    ) -> None:
        make = meter.create_observable_counter if is_counter else meter.create_observable_gauge
        unit = "s" if name == "lag" or name.endswith("_seconds") else "1"
        make(
            f"rxtweets.{name}",
            [lambda _options: [point for each in self._sources for point in read(each, name)]],
            unit=unit,
            description=text.get(name, ""),
        )


_instruments: WeakKeyDictionary[Any, _Instruments] = WeakKeyDictionary()


def _instruments_of(provider: Any, metrics: Any) -> _Instruments:
    # Without a provider, the module stands for the global one, which may be set later.
    key = metrics if provider is None else provider
    if key not in _instruments:
        _instruments[key] = _Instruments(metrics.get_meter("rxtweets", meter_provider=provider))
    return _instruments[key]


class _Measures:
    """A source, a snapshot of it for each collection, so that figures add up, and its last one."""

    def __init__(self, source: Source, metrics: Any, name: str) -> None:
        self._source: Source | None = source
        self._observation = metrics.Observation
        self.name = name
        self._snapshot: tuple[Stats, tuple[StageStats, ...]] | None = None
        self._read: set[str] = set()

    @property
    def is_live(self) -> bool:
        """Return whether it is open."""
        return self._source is not None

    def close(self) -> None:
        """Keep the last values: what came since the last collection is still to be exported."""
        if self._source is not None:
            self._snapshot = self._source.stats(), stages_of(self._source)
            self._source = None

    def whole(self, name: str) -> Iterable[Any]:
        """A figure of the source as a whole."""
        value = numbers(self._snapshot_for(name)[0]).get(name)
        if value is not None:
            yield self._observation(value, {"stream": self.name})

    def stages(self, name: str) -> Iterable[Any]:
        """A figure of each of its stages."""
        for number, stage in enumerate(self._snapshot_for(name)[1]):
            attributes = {"stream": self.name, **labels(stage), "number": number}
            value = numbers(stage)[name.removeprefix("stage.")]
            yield self._observation(value, attributes)

    def _snapshot_for(self, name: str) -> tuple[Stats, tuple[StageStats, ...]]:
        """The one of this collection: a figure that is read again begins the next."""
        source = self._source
        if source is not None and (self._snapshot is None or name in self._read):
            self._snapshot = source.stats(), stages_of(source)
            self._read.clear()
        self._read.add(name)
        assert self._snapshot is not None  # noqa: S101 - there is one when the source has gone
        return self._snapshot


class _Spans(abc.ObserverBase[Span]):
    """Makes spans of OpenTelemetry from ours; called on one thread."""

    def __init__(self, name: str, provider: Any) -> None:
        self._trace = needed("opentelemetry.trace", "opentelemetry")
        self._tracer = self._trace.get_tracer("rxtweets", tracer_provider=provider)
        self._attributes: dict[str, Any] = {"stream": name}
        self._open: OrderedDict[int, Any] = OrderedDict()

    def on_next(self, value: Span) -> None:
        """Take one of ours."""
        match value:
            case ProcessorStarted():
                self._begin(value, "rxtweets.process", None)
            case HandlerStarted():
                self._begin(value, "rxtweets.handle", self._open.get(value.parent))
            case HandlerStopped():
                self._end(value, value.duration)
            case HandlerRaised():
                self._end(value, value.duration, value.error)
            case ProcessorStopped():
                counts = {"successful": len(value.successful), "failed": len(value.failed)}
                self._end(value, value.duration, attributes=counts)
            case Prepared():
                self._begin(value, "rxtweets.prepare", None)
                count = {"messages": len(value.messages)}
                self._end(value, value.duration, value.error, count)

    def on_event(self, event: Event) -> None:
        """Make a span of what an event says is over."""
        match event:
            case BatchDelivered():
                self._over("rxtweets.deliver", event.seconds, len(event.batch), event.batch.info)
            case BatchFailed():
                batch = event.batch
                self._over("rxtweets.deliver", event.seconds, len(batch), batch.info, event.error)
            case FailureHandled():
                self._over("rxtweets.handle_failed", event.seconds, len(event.messages))
            case FailureHandlerFailed():
                count = len(event.messages)
                self._over("rxtweets.handle_failed", event.seconds, count, error=event.error)

    def on_error(self, error: Exception) -> None:
        """Never called: spans are hot and do not end."""

    def on_completed(self) -> None:
        """Never called: spans are hot and do not end."""

    def _over(
        self,
        name: str,
        seconds: float,
        count: int,
        info: BatchInfo | None = None,
        error: BaseException | None = None,
    ) -> None:
        end = time.time()
        attributes = {**self._attributes, "messages": count}
        if info is not None:
            attributes |= {"batcher": info.batcher, "trigger": info.trigger}
        span = self._tracer.start_span(
            name, attributes=attributes, start_time=_nanoseconds(end - seconds)
        )
        self._finish(span, end, error)

    def _begin(self, ours: Span, name: str, parent: Any) -> None:
        context = None if parent is None else self._trace.set_span_in_context(parent)
        self._open[ours.number] = self._tracer.start_span(
            name, context, attributes=self._attributes, start_time=_nanoseconds(ours.started)
        )
        if len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)

    def _end(
        self,
        ours: Span,
        duration: float,
        error: BaseException | None = None,
        attributes: dict[str, int] | None = None,
    ) -> None:
        span = self._open.pop(ours.number, None)
        if span is None:
            return
        if attributes:
            span.set_attributes(attributes)
        self._finish(span, ours.started + duration, error)

    def _finish(self, span: Any, end: float, error: BaseException | None) -> None:
        if error is not None:
            span.record_exception(error)
            span.set_status(self._trace.StatusCode.ERROR, str(error))
        span.end(_nanoseconds(end))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
