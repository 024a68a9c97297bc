"""A stream that records its messages, events and end, and waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Self

import orjson

import rxtweets
from rxtweets import Backoff, events, simulator

PATIENCE = 20.0
FAST = Backoff(scale=0.001, proved_after=1e6)
"""X's schedules, a thousand times as fast; no connection proves itself."""


class Watched:
    """Records the messages, events and end of a stream."""

    def __init__(
        self,
        x: simulator.Simulator | None = None,
        source: Callable[..., rxtweets.HotStream[Any]] = rxtweets.sample_stream,
        **options: Any,
    ) -> None:
        settings: dict[str, Any] = {"token": "any", "backoff": FAST}
        if x is not None:
            settings["base_url"] = x.url
        self.stream = source(**(settings | options))
        self._changed = threading.Condition()
        self.messages: list[rxtweets.Message[Any]] = []
        self.events: list[events.Event] = []
        self.times: list[float] = []
        """Times of the events, in monotonic seconds."""
        self.error: Exception | None = None
        self.is_completed = False
        self.patience = PATIENCE
        self.stream.events.subscribe(self._note)

    def __enter__(self) -> Self:
        self._subscription = self.stream.subscribe(self._take, self._fail, self._complete)
        return self

    def __exit__(self, *_: object) -> None:
        self._subscription.dispose()

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition; counters change without notice, so it is polled, too."""
        deadline = time.monotonic() + self.patience
        with self._changed:
            while not self._changed.wait_for(condition, 0.02):
                assert time.monotonic() < deadline, (self.events[-9:], self.stream.stats())

    def until_messages(self, count: int) -> list[rxtweets.Message[Any]]:
        self.until(lambda: len(self.messages) >= count)
        return self.messages

    def until_event(self, kind: type[events.Event], count: int = 1) -> list[Any]:
        self.until(lambda: len(self._noted(kind)) >= count)
        return self.of(kind)

    def until_error(self) -> Exception:
        self.until(lambda: self.error is not None)
        assert self.error is not None
        return self.error

    def until_completed(self) -> None:
        self.until(lambda: self.is_completed)

    def of(self, kind: type[events.Event]) -> list[Any]:
        """Return the events of this kind that were published so far."""
        self.stream.telemetry.bus.flush()
        return self._noted(kind)

    def _noted(self, kind: type[events.Event]) -> list[Any]:
        return [event for event in list(self.events) if isinstance(event, kind)]

    def _take(self, message: rxtweets.Message[Any]) -> None:
        self._tell(self.messages.append, message)

    def _note(self, event: events.Event) -> None:
        self._tell(self.events.append, event)
        self.times.append(time.monotonic())

    def _fail(self, error: Exception) -> None:
        self._tell(lambda value: setattr(self, "error", value), error)

    def _complete(self) -> None:
        self._tell(lambda value: setattr(self, "is_completed", value), True)  # noqa: FBT003 - the value to set

    def _tell(self, note: Callable[[Any], object], value: object) -> None:
        with self._changed:
            note(value)
            self._changed.notify_all()


def line(identifier: int, text: str = "hello") -> bytes:
    return orjson.dumps({"data": {"id": str(identifier), "text": text}})
