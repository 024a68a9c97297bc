"""A worker process that another process watches: its signals, its reports and its end.

It drains at SIGTERM, also at a second one: systemd sends it to each process of a service, and the
parent sends it too. It stops immediately at SIGINT, which only its parent sends, since it is in a
process group of its own. It drains when its parent was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

from rxtweets._core.stats import Stats
from rxtweets._support.workers import start_thread
from rxtweets.cli._command import repeating
from rxtweets.cli._figures import figures_of
from rxtweets.dashboard._cards import PipelineCard, Values, problem_of
from rxtweets.pipeline import Pipeline

__all__ = ["Place", "run_watched"]

POLL = 0.1
"""Seconds between checks for signals and for the parent process."""

REPORT = 0.5
"""Seconds between two reports; the figures since the last one of a killed process are lost."""


class Place(NamedTuple):
    """The place of a worker process; travels as text in its command line.

    Attributes:
        number: of the worker, from 1; a process that replaces it has the same one.
        parent: id of the process that watches.
        pipe: descriptor to write reports to.
    """

    number: int
    parent: int
    pipe: int

    @classmethod
    def parse(cls, text: str) -> Place:
        """Return the place of a text.

        Raises:
            ValueError: it is none.
        """
        number, parent, pipe = map(int, text.split(":"))
        return cls(number, parent, pipe)

    def __str__(self) -> str:
        return ":".join(map(str, self))


def run_watched(
    place: Place,
    pipeline: Pipeline,
    *,
    with_card: bool = False,
    is_idle: Callable[[], bool] = lambda: False,
) -> Stats:
    """Run a pipeline until it ends, a signal, or the end of the parent process.

    Args:
        place: of this process.
        pipeline: to run.
        with_card: report also what a dashboard shows of it.
        is_idle: tells whether no message waits and this process holds none; reported too.

    Raises:
        RxTweetsError: the error that ended the pipeline.
    """
    signals: list[int] = []  # a handler appends: it may interrupt another one

    def handle(number: int, _: object) -> None:
        signals.append(number)

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    pipeline.start()
    card = PipelineCard(pipeline, "") if with_card else None
    with _reports(place.pipe, pipeline, card, is_idle):
        is_draining = False
        while not pipeline.wait(POLL) and signal.SIGINT not in signals:
            # Not the end of a pipe: a process that a handler started can hold it open.
            is_orphan = os.getppid() != place.parent
            if not is_draining and (signals or is_orphan):
                is_draining = True
                _drain(pipeline)
        return pipeline.stop(drain=False)


def _drain(pipeline: Pipeline) -> None:
    start_thread("rxtweets-drain", pipeline.stop, repeats=True)


@contextlib.contextmanager
def _reports(
    pipe: int,
    pipeline: Pipeline,
    card: PipelineCard | None = None,
    is_idle: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Write the figures again and again, as lines of JSON, and a last time at the end."""
    os.set_inheritable(pipe, False)  # noqa: FBT003 - it has no name
    report = _reporter(pipe, pipeline, card)
    report()  # the parent process learns that the worker is ready
    try:
        with repeating("rxtweets-report", REPORT, lambda: report(is_idle=is_idle())):
            yield
    finally:
        report()
        os.close(pipe)


def _reporter(pipe: int, pipeline: Pipeline, card: PipelineCard | None) -> Callable[..., None]:
    def report(*, is_idle: bool = False) -> None:
        stats = pipeline.stats()
        values: dict[str, Any] = {"figures": figures_of(stats), "is_idle": is_idle}
        if card is not None:
            values |= {"stats": asdict(stats), "card": _shown(card)}
        with contextlib.suppress(OSError), open(pipe, "wb", closefd=False) as lines:
            lines.write(json.dumps(values).encode() + b"\n")  # OSError: the parent was killed

    return report


def _shown(card: PipelineCard) -> Values:
    try:
        return card.values()
    except Exception as error:  # noqa: BLE001 - the worker outlives its page
        return problem_of(error)
