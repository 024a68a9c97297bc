"""What a pipeline or a stream is doing, as a frozen value that pictures are drawn from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from rxtweets._core.telemetry import Stats
from rxtweets.errors import PipelineError

__all__ = ["Shown", "Snapshot", "Stage", "has_ended", "is_running", "snapshot_of", "with_rates"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One box of the picture.

    Attributes:
        name: of the source, the handler, the batcher or the subscriber.
        detail: how it is set up, in a few words.
        state: of a source's connection; empty for other stages.
        passed: messages that have come through.
        batches: batches that have come through; ``None`` where there are none.
        queued: messages that wait here.
        in_flight: messages, or calls, that are being worked on.
        dropped: messages given up because too many waited.
        failed: messages that failed here.
        lag: seconds between writing and arrival of the newest tweet, if it is known here.
        rate: messages a second of late.
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
        state: of the connections together, or of the pipeline.
        sources: of the messages.
        processors: that call the handler; empty if there is none.
        batchers: by name; empty if there are none.
        subscribers: the one of each batcher, in the same order.
        rates: messages a second that came in, from the oldest to the latest.
        notes: further figures that are not nought, such as ``reconnects 2``.
        errors: the latest things that went wrong, the last one last.
        is_over: nothing more will happen.
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
        """The stages in the order of the way, empty ones left out."""
        return tuple(
            stages
            for stages in (self.sources, self.processors, self.batchers, self.subscribers)
            if stages
        )


class Shown(Protocol):
    """What can be shown: a pipeline, a hot stream, or whatever counts as they do."""

    @property
    def errors(self) -> Sequence[object]:
        """The latest things that went wrong."""

    def stats(self) -> Stats:
        """All counters."""


RESTING = {"idle", "stopped", "failed"}
NOTED = ("reconnects", "gaps", "stalls", "undecodable", "unknown", "duplicates", "abandoned")


def snapshot_of(shown: Shown) -> Snapshot:
    """What it is doing now; rates are not known from one look, see `with_rates`.

    A pipeline that can name its stages (``topology()`` and ``stages()``) is shown by these; of
    others, all that is known are the counters.
    """
    stats = shown.stats()
    over = has_ended(shown)
    picture = Snapshot(
        state=_state(shown, stats, over=over),
        sources=_sources(shown, stats),
        notes=tuple(f"{name} {getattr(stats, name):,}" for name in NOTED if getattr(stats, name)),
        errors=tuple(str(error) for error in shown.errors),
        is_over=over,
    )
    if hasattr(shown, "topology"):
        return _with_stages(picture, shown, stats)
    is_pipeline, handled = hasattr(shown, "wait"), stats.processed + stats.failed + stats.in_flight
    done = stats.batched + stats.batched_failed
    if handled or (is_pipeline and not done):  # what was batched and not handled had no handler
        picture = replace(picture, processors=(_processors(stats),))
    if is_pipeline or done:
        batcher = Stage("batcher", passed=done, batches=stats.batches + stats.batches_failed)
        picture = replace(picture, batchers=(batcher,), subscribers=(_subscriber(stats),))
    return picture


def with_rates(
    now: Snapshot, before: Snapshot | None, seconds: float, rates: Iterable[float] = ()
) -> Snapshot:
    """The later of two snapshots, with the rates that lie between them.

    Args:
        now: the later one.
        before: the earlier one, if there is one.
        seconds: between them.
        rates: earlier messages a second that came in; the new one is put behind them.
    """

    def rated(stages: tuple[Stage, ...], earlier: tuple[Stage, ...]) -> tuple[Stage, ...]:
        if len(stages) != len(earlier) or seconds <= 0:
            return stages
        return tuple(
            replace(stage, rate=max(0.0, (stage.passed - old.passed) / seconds))
            for stage, old in zip(stages, earlier, strict=True)
        )

    if before is None:
        return replace(now, rates=tuple(rates))
    fresh = replace(
        now,
        sources=rated(now.sources, before.sources),
        processors=rated(now.processors, before.processors),
        batchers=rated(now.batchers, before.batchers),
        subscribers=rated(now.subscribers, before.subscribers),
    )
    return replace(fresh, rates=(*rates, sum(source.rate for source in fresh.sources)))


def has_ended(shown: object) -> bool:
    """Whether a pipeline is over, or a stream at rest; a pipeline that never began is not over."""
    wait = getattr(shown, "wait", None)
    if wait is None:
        return all(part.state.name in RESTING for part in getattr(shown, "parts", ()))
    try:
        return bool(wait(A_MOMENT))
    except PipelineError:
        return False
    except Exception:  # noqa: BLE001 - whatever ended it
        return True


A_MOMENT = 1e-6
"""Seconds; `Pipeline.wait` wants more than none."""


def is_running(shown: object) -> bool:
    """Whether it has begun and is not over."""
    wait = getattr(shown, "wait", None)
    if wait is None:
        return not has_ended(shown)
    try:
        return not wait(A_MOMENT)
    except Exception:  # noqa: BLE001 - not begun, or ended by an error
        return False


def _state(shown: object, stats: Stats, *, over: bool) -> str:
    """A pipeline that is over is so whatever its source does, which others may have too."""
    if not hasattr(shown, "wait") or not over:
        return stats.state
    try:
        shown.wait(A_MOMENT)
    except Exception:  # noqa: BLE001 - whatever ended it
        return "failed"
    return "stopped"


def _sources(shown: object, stats: Stats) -> tuple[Stage, ...]:
    if connections := _connections(shown):
        return connections
    name = getattr(getattr(shown, "telemetry", None), "source", "") or "source"
    return (_source(name, stats, str(getattr(shown, "state", stats.state))),)


def _connections(stream: object, of: str = "") -> tuple[Stage, ...]:
    """The single connections of a stream that has several."""
    parts = getattr(stream, "parts", ())
    if len(parts) < 2:
        return ()
    return tuple(
        _source(f"connection {of}{number}", part.stats(), str(part.state))
        for number, part in enumerate(parts, 1)
    )


def _source(name: str, stats: Stats, state: str) -> Stage:
    return Stage(
        name,
        state=state,
        passed=stats.delivered,
        queued=stats.queued,
        dropped=stats.dropped,
        lag=stats.lag,
    )


def _processors(stats: Stats) -> Stage:
    return Stage(
        "processors", passed=stats.processed, in_flight=stats.in_flight, failed=stats.failed
    )


def _subscriber(stats: Stats) -> Stage:
    return Stage(
        "subscriber", passed=stats.batched, batches=stats.batches, failed=stats.batched_failed
    )


def _with_stages(picture: Snapshot, shown: Any, stats: Stats) -> Snapshot:
    """The stages by their own names and figures."""
    topology = shown.topology()
    figures = {(each.kind, each.name): each for each in shown.stages()}
    batchers = topology.batchers
    subscribers = [
        _measured(Stage(each.subscriber), figures.get(("subscribers", each.name)))
        for each in batchers
    ]
    if len(batchers) == 1:  # of a single one, the counters say more
        subscribers = [replace(_subscriber(stats), name=batchers[0].subscriber)]
    return replace(
        picture,
        sources=_named_sources(picture.sources, topology.sources, shown, figures),
        processors=_handlers(topology.processors, figures, stats),
        batchers=tuple(
            _measured(Stage(each.name, _batching(each)), figures.get(("batcher", each.name)))
            for each in batchers
        ),
        subscribers=tuple(subscribers),
    )


def _named_sources(
    whole: tuple[Stage, ...], named: Sequence[Any], shown: Any, figures: Mapping[Any, Any]
) -> tuple[Stage, ...]:
    """What feeds a pipeline, each connection by itself, with its own state and lag."""
    streams = getattr(shown, "sources", (None,) * len(named))
    if len(named) == 1:
        return _connections(streams[0]) or (replace(whole[0], name=named[0].kind),)
    stages: list[Stage] = []
    for each, stream in zip(named, streams, strict=True):
        name = f"{each.kind} {each.name}"
        if hasattr(stream, "parts"):
            one = _source(name, stream.stats(), str(stream.state))
            stages += _connections(stream, f"{each.name}.") or (one,)
        else:
            stages.append(_measured(Stage(name), figures.get(("source", each.name))))
    return tuple(stages) or whole


def _measured(stage: Stage, figures: Any) -> Stage:
    """The stage with the figures that are known of it, if there are any."""
    if figures is None:
        return stage
    return replace(
        stage,
        passed=figures.done,
        queued=figures.queued,
        in_flight=figures.running,
        failed=figures.failed,
    )


def _handlers(
    processors: Any, figures: Mapping[tuple[str, str], Any], stats: Stats
) -> tuple[Stage, ...]:
    if processors is None:
        return ()
    load = [each for (kind, _), each in figures.items() if kind == "processors"]
    running = sum(each.running for each in load)
    waiting = sum(each.in_flight for each in load) - running
    detail = f"{processors.concurrency} at once"
    stage = replace(_processors(stats), name=processors.handler, detail=detail)
    return (replace(stage, in_flight=running, queued=max(0, waiting)),)


def _batching(batcher: Any) -> str:
    size = "by its function" if batcher.size is None else f"{batcher.size}"
    return f"{size} or {batcher.timeout:g} s"
