"""Figures and events for Prometheus; needs the extra ``prometheus``.

::

    with serve_metrics(pipeline, port=9100):
        pipeline.run()
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any, Self

from rxtweets._core.events import Event
from rxtweets._core.telemetry import StageStats, Stats
from rxtweets._support.optional_imports import needed
from rxtweets._support.validation import whole_number
from rxtweets.errors import ConfigurationError
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

__all__ = ["MetricsServer", "StreamCollector", "serve_metrics"]

log = logging.getLogger("rxtweets")


class StreamCollector:
    """A collector for ``registry.register``: the figures of a snapshot at each scrape.

    ``rxtweets_received_total`` and its kin are `Stats`; ``rxtweets_stage_…`` are `StageStats`, by
    ``stage``; ``rxtweets_events_total`` counts events, by ``event`` and ``part``;
    ``rxtweets_state`` is 1 for the state of the connection.

    Args:
        source: a stream or a pipeline.
        name: the label ``stream``, to tell several in one registry apart.

    Raises:
        ConfigurationError: the extra is not installed.
    """

    def __init__(self, source: Source, name: str = "") -> None:
        check_source(source)
        self._core = needed("prometheus_client.core", "prometheus")
        self._source = source
        self._name = name
        self._lock = threading.Lock()
        self._events: Counter[tuple[str, str]] = Counter()
        self._subscription = source.events.subscribe(self._count)

    def collect(self) -> Iterator[Any]:
        """The metric families of now."""
        try:
            yield from self._collected()
        except Exception:  # the server answers with 500, and says nothing here
            log.exception("the figures could not be collected for Prometheus")
            raise

    def _collected(self) -> Iterator[Any]:
        stats, texts = self._source.stats(), meanings(Stats)
        for name, value in numbers(stats).items():
            family = self._family(name, texts.get(name, name), grows=name not in GAUGES)
            family.add_metric([self._name], value)
            yield family
        yield self._state(stats)
        yield from self._stages()
        yield self._counted_events()

    def close(self) -> None:
        """Count no events any more."""
        self._subscription.dispose()

    def _count(self, event: Event) -> None:
        with self._lock:
            self._events[type(event).__name__, event.part] += 1

    def _family(self, name: str, text: str, *words: str, grows: bool) -> Any:
        core = self._core
        kind = core.CounterMetricFamily if grows else core.GaugeMetricFamily
        return kind(f"rxtweets_{name}", text, labels=["stream", *words])

    def _state(self, stats: Stats) -> Any:
        family = self._family("state", "1 for the state of the connection.", "state", grows=False)
        family.add_metric([self._name, str(stats.state)], 1)
        return family

    def _stages(self) -> Iterator[Any]:
        families: dict[str, Any] = {}
        for number, stage in enumerate(stages_of(self._source)):
            words = {**labels(stage), "number": str(number)}
            for name, value in numbers(stage).items():
                if name not in families:
                    families[name] = self._stage_family(name, *words)
                families[name].add_metric([self._name, *words.values()], value)
        yield from families.values()

    def _stage_family(self, name: str, *words: str) -> Any:
        text = meanings(StageStats).get(name, name)
        grows = name in STAGE_COUNTERS
        return self._family(f"stage_{name}", text, *words, grows=grows)

    def _counted_events(self) -> Any:
        family = self._family("events", "Events, by their kind.", "event", "part", grows=True)
        with self._lock:
            counted = dict(self._events)
        for (event, part), count in counted.items():
            family.add_metric([self._name, event, part], count)
        return family


class MetricsServer:
    """An endpoint that Prometheus scrapes; ``close()`` or the end of a ``with`` block ends it.

    Attributes:
        port: that it listens on.
    """

    def __init__(self, collector: StreamCollector, port: int, host: str) -> None:
        client = needed("prometheus_client", "prometheus")
        registry = client.CollectorRegistry()
        registry.register(collector)
        self._collector = collector
        try:
            self._server, self._thread = client.start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigurationError(
                f"port={port}, host={host!r}: the metrics cannot be served there "
                f"({error.strerror or error}); give another port, 0 for a free one, or another host"
            ) from error
        self.port: int = self._server.server_port

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._collector.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve_metrics(
    source: Source, port: int = 0, host: str = "127.0.0.1", *, name: str = ""
) -> MetricsServer:
    """Serve the figures and events of a stream or a pipeline at ``http://host:port/metrics``.

    Args:
        source: the stream, or the pipeline.
        port: to listen on; 0 for one that is free, see `MetricsServer.port`.
        host: to listen on; only this machine by default.
        name: the label ``stream``.

    Raises:
        ConfigurationError: the extra is not installed, or nothing can listen on the port, as on
            one that is taken.
    """
    if whole_number("port", port, least=0) > 65_535:
        raise ConfigurationError(f"port={port}: give 0 (a free one) to 65535")
    collector = StreamCollector(source, name)
    try:
        return MetricsServer(collector, port, host)
    except BaseException:
        collector.close()
        raise
