"""The machine inside `process`: few threads when handlers are quick, many when they block."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any

from reactivex import abc

from rxtweets.errors import HandlerError
from rxtweets.events import Abandoned, HandlerFailed
from rxtweets.message import Message
from rxtweets.subscriber import acknowledge
from rxtweets.telemetry import Telemetry

__all__ = ["OrderedProcessor", "Processor"]

AHEAD = 10
"""Messages taken from the source for each processor, as Broadway's default demand."""

QUICK = 0.000_2
"""Seconds. Waking a thread for a call shorter than this costs more than the call."""

STREAK = 200
"""Quick calls, nearly in a row, after which one thread does it all."""

SETBACK = 50
"""Quick calls that one slow call takes back."""

PATIENCE = 0.015
"""Seconds that the one thread may spend in slow calls, each counted as a hundredth at most, before
the others come back. A quick call seems slow when another thread takes the interpreter away from
it, for 5 ms at a time, but that happens once in hundreds of calls."""

FORGIVEN = 0.000_02
"""Seconds of these that every quick call makes good for."""

RUN = 64
"""Messages that one thread handles before it passes them on."""

WATCH = 0.005
"""Seconds between two looks at whether the one thread is stuck in a call."""

LOOKS = 3
"""Looks in a row that find it so: a thread that waits for the interpreter seems stuck as well."""

FIRST_HOLD, LAST_HOLD = 0.1, 30.0
"""Seconds before one thread may do it all again, doubled each time that proved wrong."""


class Processor(abc.ObserverBase[list[Message[Any]]], abc.DisposableBase):
    """Takes chunks of messages, calls the handler for each, passes chunks of results on.

    Args:
        handler: the user's.
        concurrency: calls at once at most.
        observer: of the results; must not raise.
        telemetry: where to count and report.
        spawn: runs a task on some thread; asked for ``concurrency`` tasks at once at most.
        close: gives the threads back.
        may_wait: whether the source's thread may be made to wait for room.
    """

    def __init__(
        self,
        handler: Callable[[Message[Any]], Message[Any]],
        concurrency: int,
        observer: abc.ObserverBase[list[Message[Any]]],
        telemetry: Telemetry,
        spawn: Callable[[Callable[[], None]], None],
        close: Callable[[], None],
        may_wait: bool,
    ) -> None:
        self._handler = handler
        self._concurrency = concurrency
        self._observer = observer
        self._telemetry = telemetry
        self._spawn = spawn
        self._close = close
        self._may_wait = may_wait
        self._limit = AHEAD * concurrency
        self._pace = _Pace()
        self._watch = _Watch(self._pace, self._is_stuck, self._wake)

        self._lock = threading.Lock()
        self._pending: deque[Any] = deque()
        self._workers = 0
        self._taken = 0

        self._emitting = threading.Lock()
        self._results: deque[list[Message[Any]]] = deque()
        self._books = threading.Lock()
        self._room = threading.Condition(self._books)
        self._submitted = 0
        self._settled = 0

        self._source: abc.DisposableBase | None = None
        self._ended = False
        self._error: Exception | None = None
        self._finished = False
        self._disposed = False
        self._inside = threading.local()
        self._forget = telemetry.gauge("in_flight", self._in_flight)

    def listen(
        self, subscribe: Callable[[abc.ObserverBase[list[Message[Any]]]], abc.DisposableBase]
    ) -> None:
        """Subscribe to the source; what it gives before that returns is taken too."""
        source = subscribe(self)
        self._source = source
        if self._disposed:
            source.dispose()

    # The source's side.

    def on_next(self, chunk: list[Message[Any]]) -> None:
        """Take messages; wait first while there are too many in flight."""
        if self._may_wait and self._in_flight() >= self._limit:
            self._wait_for_room()
        with self._books:
            if self._disposed:
                self._abandon(len(chunk))
                return
            self._submitted += len(chunk)
        self._admit(chunk)
        self._wake()

    def on_error(self, error: Exception) -> None:
        """Handle what is in flight, then pass the error on."""
        self._error = error
        self._ended = True
        self._emit_ready()

    def on_completed(self) -> None:
        """Handle what is in flight, then complete."""
        self._ended = True
        self._emit_ready()

    def dispose(self) -> None:
        """Stop at once: nothing is emitted any more, what is in flight is counted abandoned."""
        with self._books:
            if self._disposed:
                return
            self._abandon(self._in_flight())
            self._disposed = True
            self._room.notify_all()
        if self._source is not None:
            self._source.dispose()
        self._pending.clear()
        self._release()

    def _wait_for_room(self) -> None:
        if getattr(self._inside, "working", False):
            return  # a handler's result came round to the source: waiting would be for ourselves
        with self._books:
            self._room.wait_for(lambda: self._disposed or self._in_flight() <= self._limit // 2)

    def _admit(self, chunk: list[Message[Any]]) -> None:
        self._pending.extend(chunk)

    def _in_flight(self) -> int:
        return 0 if self._disposed else self._submitted - self._settled

    def _abandon(self, count: int) -> None:
        if count:
            self._telemetry.add(abandoned=count)
            self._telemetry.publish(Abandoned(count, "processors"))

    # The workers' side.

    def _wake(self) -> None:
        """Bring in a worker if there is something to do and one may come."""
        with self._lock:
            most = 1 if self._pace.is_quick else self._concurrency
            if self._workers >= most or not self._pending:
                return
            self._workers += 1
        if self._pace.is_quick and self._may_wait:
            self._watch.look()
        self._spawn(self._work)

    def _work(self) -> None:
        self._inside.working = True
        try:
            with self._telemetry.working():
                while not self._may_leave():
                    if self._pace.is_quick:
                        self._handle_many()
                    else:
                        self._handle_one()
        finally:
            self._inside.working = False

    def _may_leave(self) -> bool:
        """Leave when nothing is left, or when one worker is enough and another is there."""
        if self._disposed:
            self._pending.clear()
        with self._lock:
            if self._pending and not (self._pace.is_quick and self._workers > 1):
                return False
            self._workers -= 1
            return True

    def _handle_one(self) -> None:
        """One message, others called in for the rest: nothing waits behind a slow neighbour."""
        try:
            item = self._pending.popleft()
        except IndexError:
            return
        if self._pending:
            self._wake()
        started = perf_counter()
        result = self._call(item)
        self._pace.note(perf_counter() - started)
        self._taken += 1
        self._emit([result])

    def _handle_many(self) -> None:
        results: list[Message[Any]] = []
        pending, call, pace = self._pending.popleft, self._call, self._pace
        started = perf_counter()
        for _ in range(RUN):
            try:
                item = pending()
            except IndexError:
                break
            results.append(call(item))
            self._taken += 1
            now = perf_counter()
            if now - started > QUICK and pace.was_slow(now - started):
                break
            started = now
            if not pace.is_quick:
                break
        pace.were_quick(len(results))
        if results:
            self._emit(results)
        if not pace.is_quick:
            self._wake()

    def _is_stuck(self, taken_before: int) -> tuple[bool, int]:
        """Whether messages wait and none was taken since the last look."""
        return bool(self._pending) and self._taken == taken_before, self._taken

    def _call(self, message: Message[Any]) -> Message[Any]:
        try:
            result = self._handler(message)
        except BaseException as error:  # a SystemExit would end a worker silently
            if isinstance(error, KeyboardInterrupt) and _on_main_thread():
                raise
            return message.failed(error)
        if isinstance(result, Message):
            return result
        name = getattr(self._handler, "__name__", repr(self._handler))
        return message.failed(
            HandlerError(f"{name} returned {type(result).__name__}; return the message")
        )

    # The observer's side.

    def _emit(self, results: list[Message[Any]]) -> None:
        self._results.append(results)
        self._emit_ready()

    def _emit_ready(self) -> None:
        """Pass results on, one thread at a time; a thread that finds another at it just leaves.

        So a slow observer keeps one worker, not all of them. The one that is at it looks again
        after it let go, so that nothing is left lying.
        """
        while (self._results or self._is_due()) and self._emitting.acquire(blocking=False):
            try:
                while self._results:
                    self._pass_on(self._results.popleft())
                if self._is_due():
                    self._finish()
            finally:
                self._emitting.release()

    def _pass_on(self, results: list[Message[Any]]) -> None:
        failed = [message for message in results if message.status != "ok"]
        good = [message for message in results if message.status == "ok"] if failed else results
        if not self._settle(len(good), len(failed)):
            return
        if failed:
            for message in failed:
                self._telemetry.publish(HandlerFailed(message))
            acknowledge([], failed, self._telemetry)
        if good:
            self._observer.on_next(good)

    def _settle(self, good: int, failed: int) -> bool:
        """Count results, before they are passed on; ``False`` if they were abandoned before."""
        with self._books:
            if self._disposed:
                return False
            self._settled += good + failed
            self._telemetry.add(processed=good, failed=failed)
            # Waking the source's thread at half the room, not at every message.
            if self._in_flight() <= self._limit // 2:
                self._room.notify_all()
            return True

    def _is_due(self) -> bool:
        return (
            self._ended
            and self._settled == self._submitted
            and not self._finished
            and not self._disposed
        )

    def _finish(self) -> None:
        self._finished = True
        self._release()
        if self._error is None:
            self._observer.on_completed()
        else:
            self._observer.on_error(self._error)

    def _release(self) -> None:
        self._watch.stop()
        self._close()
        self._forget()


class OrderedProcessor(Processor):
    """Emits in the order of the source: results wait for those before them."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._slots: deque[_Slot] = deque()

    def _admit(self, chunk: list[Message[Any]]) -> None:
        slots = [_Slot(message) for message in chunk]
        self._slots.extend(slots)
        self._pending.extend(slots)

    def _call(self, item: Any) -> Any:
        item.result = super()._call(item.message)
        return item

    def _emit(self, results: list[Any]) -> None:
        del results  # they lie in their slots
        self._emit_ready()

    def _emit_ready(self) -> None:
        while (self._is_first_ready() or self._is_due()) and self._emitting.acquire(blocking=False):
            try:
                ready: list[Message[Any]] = []
                while self._is_first_ready():
                    result = self._slots.popleft().result
                    assert result is not None  # noqa: S101 - that is what ready means
                    ready.append(result)
                if ready:
                    self._pass_on(ready)
                if self._is_due():
                    self._finish()
            finally:
                self._emitting.release()

    def _is_first_ready(self) -> bool:
        try:
            return self._slots[0].result is not None
        except IndexError:  # none there, or another thread has just emitted it
            return False


def _on_main_thread() -> bool:
    """Where a KeyboardInterrupt is the user's, not the handler's: with a scheduler of their own."""
    return threading.current_thread() is threading.main_thread()


class _Slot:
    __slots__ = ("message", "result")

    def __init__(self, message: Message[Any]) -> None:
        self.message = message
        self.result: Message[Any] | None = None


class _Pace:
    """Learns whether handlers are quick: then one thread is faster than fifty."""

    def __init__(self) -> None:
        self.is_quick = False
        self._streak = 0
        self._lost = 0.0
        self._since = 0.0
        self._not_before = 0.0
        self._hold = FIRST_HOLD

    def note(self, seconds: float) -> None:
        """A call that one of many threads has made."""
        if seconds > QUICK:
            self._streak = max(0, self._streak - SETBACK)
            return
        self._streak += 1
        if self._streak >= STREAK and perf_counter() >= self._not_before:
            self._streak, self._lost = 0, 0.0
            self._since = perf_counter()
            self.is_quick = True

    def was_slow(self, seconds: float) -> bool:
        """A call of the one thread that was not quick; whether its time is over."""
        self._lost += min(seconds, 0.01)
        if self._lost > PATIENCE:
            self.leave()
        return not self.is_quick

    def were_quick(self, calls: int) -> None:
        """Calls of the one thread, most of them quick."""
        self._lost = max(0.0, self._lost - calls * FORGIVEN)

    def leave(self) -> None:
        """Handlers block: many threads again, for a while that grows if this happens often."""
        self.is_quick = False
        now = perf_counter()
        lasted = now - self._since > LAST_HOLD
        self._hold = FIRST_HOLD if lasted else min(LAST_HOLD, self._hold * 2)
        self._not_before = now + self._hold


class _Watch:
    """Looks after the one thread: if it is stuck in a call, the others are brought in.

    A thread of its own, since nobody else may come by: the source can be silent, and the stuck
    call can take for ever. It runs only while there is one thread at work.
    """

    def __init__(
        self,
        pace: _Pace,
        is_stuck: Callable[[int], tuple[bool, int]],
        wake: Callable[[], None],
    ) -> None:
        self._pace = pace
        self._is_stuck = is_stuck
        self._wake = wake
        self._needed = threading.Event()
        self._stopped = threading.Event()
        self._started = False

    def look(self) -> None:
        """The one thread has begun to work."""
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, name="rxtweets-watch", daemon=True).start()
        self._needed.set()

    def stop(self) -> None:
        self._stopped.set()
        self._needed.set()

    def _run(self) -> None:
        taken, quiet, looks = -1, 0, 0
        while self._needed.wait() and not self._stopped.wait(WATCH):
            before = taken
            stuck, taken = self._is_stuck(taken)
            looks = looks + 1 if stuck else 0
            if looks >= LOOKS and self._pace.is_quick:
                self._pace.leave()
                self._wake()
            quiet = quiet + 1 if taken == before else 0
            if quiet > 1 and not stuck:
                self._needed.clear()
                quiet = 0
