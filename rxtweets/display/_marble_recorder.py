"""What Observables do and when, recorded for a marble diagram, by a real or a virtual clock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from reactivex import Observable, Observer, abc
from reactivex.disposable import CompositeDisposable
from reactivex.scheduler import TimeoutScheduler, VirtualTimeScheduler

from rxtweets._messages.message import Message
from rxtweets._support.validation import seconds as checked_seconds
from rxtweets.display._html import shortened
from rxtweets.display._marbles import Marbles, Mark, Strand
from rxtweets.errors import ConfigurationError

__all__ = ["record"]

MOST = 10_000
"""Marks that are kept of a stream; a diagram of more is a bar."""

LONGEST = 80


def record(
    streams: Mapping[str, Observable[Any]],
    seconds: float | timedelta | None = None,
    *,
    scheduler: abc.SchedulerBase | None = None,
    label: Callable[[Any], str] | None = None,
    title: str = "",
) -> Marbles:
    """Subscribe to all streams, and note what comes and when.

    It returns when all have ended or the time is over, and disposes of every subscription,
    however it ends. The streams are subscribed in their order; of a hot source put first, all
    that come from it share what it emits.

    ::

        draw.record({"tweets": tweets, "batches": tweets.pipe(ops.batch(20, 0.5))}, seconds=3)

        clock = TestScheduler()                      # virtual seconds: no waiting, exact times
        source = reactivex.cold("-a--b-|", timespan=0.1, scheduler=clock)
        draw.record({"source": source, "late": source.pipe(stock.delay(0.3))}, scheduler=clock)

    Args:
        streams: by the name that the diagram shows.
        seconds: how long at most; ``None`` until all have ended, which hot streams do not.
        scheduler: whose clock is used, and that the streams are subscribed with; one with virtual
            time is run by this call. By default the real clock.
        label: of a value; by default its text, or the size of a batch or another list.
        title: above the diagram.

    Raises:
        ConfigurationError: there is no stream, or ``seconds`` cannot work.
        Exception: what ``label`` raised.
    """
    if not isinstance(streams, Mapping) or not streams:
        raise ConfigurationError("streams: give Observables by their names, at least one")
    limit = None if seconds is None else checked_seconds("seconds", seconds)
    clock = scheduler or TimeoutScheduler.singleton()
    recorder = _Recorder(clock, label or _label, list(streams))
    subscriptions = CompositeDisposable()
    with subscriptions:
        for name, stream in streams.items():
            subscriptions.add(stream.subscribe(recorder.observer(name), scheduler=scheduler))
        if isinstance(clock, VirtualTimeScheduler):
            _run(clock, recorder, limit)
        else:
            recorder.over.wait(limit)
    return recorder.marbles(limit, title)


def _run(clock: VirtualTimeScheduler, recorder: _Recorder, limit: float | None) -> None:
    if limit is None:
        clock.start()
    else:
        clock.advance_to(recorder.began + limit)


class _Recorder:
    """Notes marks by their streams; several threads may bring them."""

    def __init__(
        self, clock: abc.SchedulerBase, label: Callable[[Any], str], names: Sequence[str]
    ) -> None:
        self._clock = clock
        self._label = label
        self._lock = threading.Lock()
        self._marks: dict[str, list[Mark]] = {name: [] for name in names}
        self._running = set(names)
        self._error: Exception | None = None
        self.over = threading.Event()
        self.began = self._now()

    def observer(self, name: str) -> abc.ObserverBase[Any]:
        """Notes what this stream does."""
        return Observer(
            partial(self._value, name),
            lambda error: self._ended(name, "error", f"{type(error).__name__}: {error}"),
            lambda: self._ended(name, "completed", ""),
        )

    def marbles(self, limit: float | None, title: str) -> Marbles:
        """What was noted so far."""
        if self._error is not None:
            raise self._error
        with self._lock:
            strands = tuple(Strand(name, tuple(marks)) for name, marks in self._marks.items())
        last = max((strand.marks[-1].at for strand in strands if strand.marks), default=0.0)
        return Marbles(strands, last if limit is None else limit, title)

    def _value(self, name: str, value: Any) -> None:
        is_list = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
        count = len(value) if is_list else None
        try:
            label = self._label(value)
        except Exception as error:  # noqa: BLE001 - of the user; raised where it can be seen
            self._error = self._error or error
            self.over.set()
        else:
            self._note(name, Mark(self._now() - self.began, "next", label, count))

    def _ended(self, name: str, kind: Any, said: str) -> None:
        self._note(name, Mark(self._now() - self.began, kind, said))
        with self._lock:
            self._running.discard(name)
            if not self._running:
                self.over.set()

    def _note(self, name: str, mark: Mark) -> None:
        with self._lock:
            marks = self._marks[name]
            if len(marks) < MOST or mark.kind != "next":
                marks.append(mark)

    def _now(self) -> float:
        return self._clock.to_seconds(self._clock.now)


def _label(value: Any) -> str:
    if isinstance(value, Message):
        value = value.data
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return str(len(value))
    return shortened(str(value), LONGEST)
