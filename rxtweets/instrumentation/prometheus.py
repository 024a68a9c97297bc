"""Metrics and event counts for Prometheus; needs the extra ``prometheus``.

::

    with serve_metrics(pipeline, port=9100):
        pipeline.run()

`rxtweets.instrumentation` lists the metrics.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any, Self

from rxtweets._core.events import Event
from rxtweets._support.optional_imports import needed
from rxtweets._support.validation import whole_number
from rxtweets.errors import ConfigurationError
from rxtweets.instrumentation._metrics import Source, check_source, readings, stages_of

__all__ = ["MetricsServer", "StreamCollector", "serve_metrics"]

_log = logging.getLogger("rxtweets")


class StreamCollector:
    """A collector for ``registry.register``, which takes one snapshot for each scrape.

    It exports the metrics that `rxtweets.instrumentation` lists. ``rxtweets_events_total`` counts
    events by ``event`` and ``part``, from the creation of the collector to `close`.

    Args:
        source: a stream or a pipeline.
        name: the label ``stream``; it distinguishes several collectors in one registry.

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
        """Yield the metric families with their current values."""
        try:
            yield from self._families()
        except Exception:  # the server answers with 500 and logs nothing
            _log.exception("the metrics could not be collected for Prometheus")
            raise

    def close(self) -> None:
        """Stop counting events."""
        self._subscription.dispose()

    def _count(self, event: Event) -> None:
        with self._lock:
            self._events[type(event).__name__, event.part] += 1

    def _families(self) -> Iterator[Any]:
        stats = self._source.stats()
        families: dict[str, Any] = {}
        for metric, value, labels in readings(stats, stages_of(self._source)):
            if metric.name not in families:
                families[metric.name] = self._family(
                    metric.name.replace(".", "_"),
                    metric.description,
                    *labels,
                    is_counter=metric.is_counter,
                )
            self._add(families[metric.name], value, *labels.values())
        yield from families.values()

        state = self._family("state", "1 for the state of the connection.", "state")
        self._add(state, 1, stats.state)
        yield state

        events = self._family("events", "Events by their type.", "event", "part", is_counter=True)
        with self._lock:
            counts = dict(self._events)
        for labels_of_event, count in counts.items():
            self._add(events, count, *labels_of_event)
        yield events

    def _family(self, name: str, text: str, *labels: str, is_counter: bool = False) -> Any:
        core = self._core
        kind = core.CounterMetricFamily if is_counter else core.GaugeMetricFamily
        return kind(f"rxtweets_{name}", text, labels=["stream", *labels])

    def _add(self, family: Any, value: float, *labels: object) -> None:
        family.add_metric([self._name, *map(str, labels)], value)


class MetricsServer:
    """An HTTP endpoint that Prometheus scrapes, until `close` or the end of a ``with`` block.

    Attributes:
        port: the port that it listens on.
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
        """Stop listening and counting events."""
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
    """Serve the metrics of a stream or a pipeline at ``http://host:port/metrics``.

    Args:
        source: a stream or a pipeline.
        port: the port to listen on; 0, the default, takes a free one (`MetricsServer.port`).
        host: the address to listen on; by default only this machine can connect.
        name: the label ``stream``.

    Returns:
        The running server.

    Raises:
        ConfigurationError: the extra is not installed, or the port is taken or not usable.
    """
    if whole_number("port", port, least=0) > 65_535:
        raise ConfigurationError(f"port={port}: give 0 (a free one) to 65535")
    collector = StreamCollector(source, name)
    try:
        return MetricsServer(collector, port, host)
    except BaseException:
        collector.close()
        raise
