from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
import reactivex
from reactivex.subject import Subject

from rxtweets import Message, MessageStream, Stats, events
from rxtweets import operators as ops

PATIENCE = 20.0


class Watched:
    """A stream of messages through `process`, with all results.

    Given data, the source completes after them; without any, `feed` and `complete` drive it.
    """

    def __init__(
        self, handler: Any, data: Iterable[Any] | None, *, then: Any = None, **options: Any
    ) -> None:
        self.changed = threading.Condition()
        self.data: list[Any] = []
        self.end: list[object] = []
        self.successful: list[Any] = []
        self.failed: list[tuple[Any, Any]] = []
        self.events: list[events.Event] = []
        self.source: Subject[Message[Any]] = Subject()
        source: Any = self.source
        if data is not None:
            source = reactivex.from_iterable([self.message(value) for value in data])
        operators = [ops.process(handler, **options), *([] if then is None else [then])]
        self.stream: MessageStream[Any] = source.pipe(*operators)
        self.stream.events.subscribe(self.events.append)
        self.subscription = self.stream.subscribe(
            lambda message: self._note(self.data, message.data),
            lambda error: self._note(self.end, error),
            lambda: self._note(self.end, "completed"),
        )

    def message(self, data: Any) -> Message[Any]:
        return Message(data).with_acknowledger(self)

    def ack(self, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        for message in successful:
            self._note(self.successful, message.data)
        for message in failed:
            self._note(self.failed, (message.data, getattr(message.status, "reason", None)))

    def feed(self, *data: Any) -> None:
        for value in data:
            self.source.on_next(self.message(value))

    def complete(self) -> list[Any]:
        self.source.on_completed()
        return self.until_end()

    def until(self, condition: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE), (self.data, self.failed, self.end)

    def until_end(self) -> list[Any]:
        self.until(lambda: self.end)
        return self.data

    def reasons(self) -> dict[Any, Any]:
        """Why each message failed."""
        return dict(self.failed)

    def happened(self, kind: type[events.Event]) -> list[Any]:
        assert self.stream.telemetry.bus.flush()
        return [message for message in self.events if isinstance(message, kind)]

    def stats(self) -> Stats:
        return self.stream.stats()

    def _note(self, notes: list[Any], value: Any) -> None:
        with self.changed:
            notes.append(value)
            self.changed.notify_all()


@pytest.fixture
def process() -> Iterator[Callable[..., Watched]]:
    """Watches messages go through `process`; disposes the open subscriptions at the end."""
    watched: list[Watched] = []

    def start(handler: Any, data: Iterable[Any] | None = None, **options: Any) -> Watched:
        watched.append(Watched(handler, data, **options))
        return watched[-1]

    yield start
    for stream in watched:
        stream.subscription.dispose()
