"""The current state of a pipeline or a stream, as a frozen value that pictures are drawn from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from rxtweets._core.stats import Stats
from rxtweets.errors import PipelineError

MOMENT = 1e-6
"""Seconds; `Pipeline.wait` refuses 0."""

RESTING = {"idle", "stopped", "failed"}
NOTED = ("reconnects", "gaps", "stalls", "undecodable", "unknown", "duplicates", "abandoned")
STAGE_KINDS = ("sources", "processors", "batchers", "subscribers")


@dataclass(frozen=True, slots=True)
class Stage:
    """One box of the picture.

    Attributes:
        name: of the source, the handler, the batcher or the subscriber.
        detail: its settings, in a few words.
        state: of a source's connection; empty for other stages.
        passed: messages that went through.
        batches: batches that went through; ``None`` for a stage without batches.
        queued: messages that wait here.
        in_flight: messages, or calls, in progress.
        dropped: messages dropped because too many waited.
        failed: messages that failed here.
        lag: seconds between writing and arrival of the newest tweet, if known.
        rate: messages a second, recently.
    """

    name: str
    detail: str = ""
    state: str = ""
    passed: int = 0
    batches: int | None = None
    queued: int = 0
    in_flight: int = 0
    dropped: int = 0
    failed: int = 0
    lag: float | None = None
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All stages at one moment, from the sources to the subscribers.

    Attributes:
        state: of all connections together, or of the pipeline.
        sources: of the messages.
        processors: the stage that calls the handler; empty without one.
        batchers: by name; empty without any.
        subscribers: the one of each batcher, in the same order.
        rates: messages a second that came in, from the oldest to the latest.
        notes: further counters that are not 0, such as ``reconnects 2``.
        errors: the latest failures, the last one last.
        is_over: whether the pipeline or stream has ended.
    """

    state: str
    sources: tuple[Stage, ...]
    processors: tuple[Stage, ...] = ()
    batchers: tuple[Stage, ...] = ()
    subscribers: tuple[Stage, ...] = ()
    rates: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    is_over: bool = False

    @property
    def columns(self) -> tuple[tuple[Stage, ...], ...]:
        """The stages by their kind, from sources to subscribers, without empty kinds."""
        return tuple(stages for kind in STAGE_KINDS if (stages := getattr(self, kind)))


class Shown(Protocol):
    """A pipeline, a hot stream, or another object with counters."""

    @property
    def errors(self) -> Sequence[object]:
        """The latest failures."""

    def stats(self) -> Stats:
        """Return a snapshot of the counters."""


def snapshot_of(shown: Shown) -> Snapshot:
    """Return the current state of a pipeline or a stream, without rates.

    A pipeline has the stages of its ``topology()``; a stream has those that its counters show.
    """
    stats = shown.stats()
    over = has_ended(shown)
    snapshot = Snapshot(
        state=_state(shown, stats),
        sources=_connections(shown) or (_stream_stage(shown, stats),),
        notes=tuple(f"{name} {getattr(stats, name):,}" for name in NOTED if getattr(stats, name)),
        errors=tuple(str(error) for error in shown.errors),
        is_over=over,
    )
    if hasattr(shown, "topology"):
        return _with_topology(snapshot, shown, stats)
    if stats.processed + stats.failed + stats.in_flight:
        stages = sum(stage.kind == "processors" for stage in getattr(shown, "stages", tuple)())
        detail = f"{stages} stages" if stages > 1 else ""
        processors = replace(_processors(stats, "processors"), detail=detail)
        snapshot = replace(snapshot, processors=(processors,))
    if done := stats.batched + stats.batched_failed:
        batcher = Stage("batcher", passed=done, batches=stats.batches + stats.batches_failed)
        subscribers = (_subscriber(stats, "subscriber"),)
        snapshot = replace(snapshot, batchers=(batcher,), subscribers=subscribers)
    return snapshot


def with_rates(
    now: Snapshot, before: Snapshot | None, seconds: float, rates: Iterable[float] = ()
) -> Snapshot:
    """Return the later of two snapshots with the rates between them.

    Args:
        now: the later one.
        before: the earlier one, if there is one.
        seconds: between them.
        rates: earlier messages a second that came in; the new rate is appended.
    """
    if before is None:
        return replace(now, rates=tuple(rates))
    rated: dict[str, Any] = {}
    for kind in STAGE_KINDS:
        stages, earlier = getattr(now, kind), getattr(before, kind)
        if len(stages) == len(earlier) and seconds > 0:
            rated[kind] = tuple(
                replace(stage, rate=max(0.0, (stage.passed - old.passed) / seconds))
                for stage, old in zip(stages, earlier, strict=True)
            )
    latest = replace(now, **rated)
    return replace(latest, rates=(*rates, sum(source.rate for source in latest.sources)))


def has_ended(shown: object) -> bool:
    """Return whether a pipeline has ended, or a stream is not connected."""
    return _phase(shown) in {"stopped", "failed"}


def is_running(shown: object) -> bool:
    """Return whether a pipeline was started and has not ended, or a stream is connected."""
    return _phase(shown) == "running"


def _state(shown: object, stats: Stats) -> str:
    """Return the state of the connections, unless that of the pipeline says more."""
    phase = _phase(shown) if hasattr(shown, "wait") else "new"
    if phase == "running":
        if getattr(shown, "is_paused", False):
            return "paused"
        return "running" if stats.state == "idle" else stats.state
    return stats.state if phase == "new" else phase


def _phase(shown: object) -> Literal["new", "running", "stopped", "failed"]:
    wait = getattr(shown, "wait", None)
    if wait is None:  # a stream
        states = [part.state.name for part in getattr(shown, "parts", ())]
        return "stopped" if RESTING.issuperset(states) else "running"
    try:
        return "stopped" if wait(MOMENT) else "running"
    except PipelineError:
        return "new"
    except Exception:  # noqa: BLE001 - any error may have ended it
        return "failed"


def _connections(stream: object, prefix: str = "") -> tuple[Stage, ...]:
    parts = getattr(stream, "parts", ())
    if len(parts) < 2:
        return ()
    return tuple(
        _source(f"connection {prefix}{number}", part.stats(), str(part.state))
        for number, part in enumerate(parts, 1)
    )


def _stream_stage(shown: object, stats: Stats) -> Stage:
    name = getattr(getattr(shown, "telemetry", None), "source", "") or "source"
    return _source(name, stats, str(getattr(shown, "state", stats.state)))


def _source(name: str, stats: Stats, state: str) -> Stage:
    return Stage(
        name,
        state=state,
        passed=stats.delivered,
        queued=stats.queued,
        dropped=stats.dropped,
        lag=stats.lag,
    )


def _processors(stats: Stats, name: str) -> Stage:
    return Stage(name, passed=stats.processed, in_flight=stats.in_flight, failed=stats.failed)


def _subscriber(stats: Stats, name: str) -> Stage:
    return Stage(name, passed=stats.batched, batches=stats.batches, failed=stats.batched_failed)


def _with_topology(snapshot: Snapshot, pipeline: Any, stats: Stats) -> Snapshot:
    topology = pipeline.topology()
    loads = {(load.kind, load.name): load for load in pipeline.stages()}
    batchers, subscribers = [], []
    for batcher in topology.batchers:
        size = "by its function" if batcher.size is None else batcher.size
        stage = Stage(batcher.name, f"{size} or {batcher.timeout:g} s")
        batchers.append(_with_load(stage, loads.get(("batcher", batcher.name))))
        load = loads.get(("subscribers", batcher.name))
        subscribers.append(_with_load(Stage(batcher.subscriber), load))
    if len(subscribers) == 1:  # the counters also know its batches
        subscribers = [_subscriber(stats, subscribers[0].name)]
    processors: tuple[Stage, ...] = ()
    if topology.processors is not None:
        handling = [load for (kind, _), load in loads.items() if kind == "processors"]
        running = sum(load.running for load in handling)
        stage = replace(
            _processors(stats, topology.processors.handler),
            detail=f"{topology.processors.concurrency} at once",
            in_flight=running,
            queued=max(0, sum(load.in_flight for load in handling) - running),
        )
        processors = (stage,)
    return replace(
        snapshot,
        sources=_pipeline_sources(snapshot.sources, topology.sources, pipeline, loads),
        processors=processors,
        batchers=tuple(batchers),
        subscribers=tuple(subscribers),
    )


def _pipeline_sources(
    whole: tuple[Stage, ...], named: Sequence[Any], pipeline: Any, loads: Mapping[Any, Any]
) -> tuple[Stage, ...]:
    streams = getattr(pipeline, "sources", (None,) * len(named))
    if len(named) == 1:
        has_state = hasattr(streams[0], "parts") or whole[0].state != "idle"
        state = whole[0].state if has_state else ""
        return _connections(streams[0]) or (replace(whole[0], name=named[0].kind, state=state),)
    stages: list[Stage] = []
    for source, stream in zip(named, streams, strict=True):
        name = f"{source.kind} {source.name}"
        if hasattr(stream, "parts"):
            stage = _source(name, stream.stats(), str(stream.state))
            stages += _connections(stream, f"{source.name}.") or (stage,)
        else:
            stages.append(_with_load(Stage(name), loads.get(("source", source.name))))
    return tuple(stages) or whole


def _with_load(stage: Stage, load: Any) -> Stage:
    if load is None:
        return stage
    return replace(
        stage, passed=load.done, queued=load.queued, in_flight=load.running, failed=load.failed
    )
