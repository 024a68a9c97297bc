"""The processor stage of `process`.

::

    on_next → CallFlow: handler → emit → failed: on_failed, acknowledge
                                       → good: the observer
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from time import monotonic, perf_counter
from typing import Any, NamedTuple

from reactivex import abc

from rxtweets._core.acknowledgement import OnFailed, settle
from rxtweets._core.concurrency import Concurrency
from rxtweets._core.events import Abandoned, HandlerRetried, SubscriberFailed
from rxtweets._core.retry import Retry
from rxtweets._core.serial import SerialTask
from rxtweets._core.stats import StageStats
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import Failed, Message, are_plain
from rxtweets._support.rate_meter import Throughput
from rxtweets._support.timers import Timers
from rxtweets._support.workers import is_interrupt, unexpected
from rxtweets.errors import DeadlineExceeded, ExecutorBroken
from rxtweets.operators._calls import Call, Preparation, Prepare, Runner, past_deadline

__all__ = ["CallFlow", "Demand", "Processor"]

Task = Callable[[], None]


class Demand(NamedTuple):
    """Messages in flight per concurrent handler.

    Attributes:
        most: the source waits at this number.
        least: the source continues at this number.
    """

    most: int
    least: int


class Processor(abc.ObserverBase[list[Message[Any]]], abc.DisposableBase):
    """Takes chunks of messages, has them handled, and emits chunks of results.

    Args:
        observer: of the results; must not raise.
        telemetry: counters and event bus.
        concurrency: concurrent calls at most.
        spawn: runs a task on some thread.
        may_wait: whether the source's thread may wait for room.
        on_failed: the user's function for failed messages, before they are acknowledged.
        demand: bounds of the messages in flight.
    """

    flow: CallFlow

    def __init__(
        self,
        observer: abc.ObserverBase[list[Message[Any]]],
        telemetry: Telemetry,
        concurrency: Concurrency,
        spawn: Callable[[Task], None],
        *,
        may_wait: bool,
        on_failed: OnFailed | None,
        demand: Demand,
    ) -> None:
        self._observer = observer
        self._telemetry = telemetry
        self._concurrency = concurrency
        self._spawn = spawn
        self.may_wait = may_wait
        self._on_failed = on_failed
        self._demand = demand
        self._most = demand.most * concurrency.limit
        self._least = demand.least * concurrency.limit
        self._capacity = _Capacity(concurrency)

        self._emission = SerialTask(self._can_emit, self._emit_ready, self.spawn)
        self._counts = threading.Lock()
        self._room = threading.Condition(self._counts)
        self._waiting = 0
        self._submitted = 0
        self._settled = 0
        self._failed = 0
        self._meter = Throughput()

        self._source: abc.DisposableBase | None = None
        self._ended = False
        self._error: Exception | None = None
        self._finished = False
        self._disposed = False
        self.is_broken = False
        self._is_lossy = False
        self._here = threading.local()
        self._closing: list[Task] = []
        self._unwatch: list[Task] = []

    def connect(
        self,
        flow: CallFlow,
        subscribe: Callable[[abc.ObserverBase[list[Message[Any]]]], abc.DisposableBase],
    ) -> None:
        """Subscribe to the source, which may emit before ``subscribe`` returns."""
        self.flow = flow
        self._unwatch += [
            self._telemetry.gauge("in_flight", self._in_flight),
            self._telemetry.stage(self._stage),
            self._concurrency.watch(self._resize),
        ]
        self._source = source = subscribe(self)
        if self._disposed or self.is_broken:
            source.dispose()

    def at_end(self, close: Task) -> None:
        """Call a function when the stage has ended."""
        self._closing.append(close)

    # From the source.

    def demand(self, most: int) -> int:
        """Wait for room; return how many messages a pull source may deliver now."""
        self._wait_for_room()
        if self._disposed or self.is_broken:
            return 0
        return max(0, min(most, self._most - self._in_flight()))

    def on_next(self, chunk: list[Message[Any]]) -> None:
        """Queue messages; wait first while there is no room."""
        self._wait_for_room()
        with self._counts:
            if self._disposed or self.is_broken:
                self._abandon(len(chunk))
                return
            self._submitted += len(chunk)
            self._meter.add(len(chunk))
        self.flow.submit(chunk)

    def on_error(self, error: Exception) -> None:
        """Handle the messages in flight, then emit the error."""
        if not self.is_broken:
            self._error = error
        self._ended = True
        self._emission.run()

    def on_completed(self) -> None:
        """Handle the messages in flight, then complete."""
        self._ended = True
        self._emission.run()

    def dispose(self) -> None:
        """Stop immediately; messages in flight are counted as abandoned."""
        with self._counts:
            if self._disposed:
                return
            self._abandon(self._in_flight())
            self._disposed = True
            self._room.notify_all()
        if self._source is not None:
            self._source.dispose()
        self._release()

    def break_off(self, error: Exception) -> None:
        """Take no more messages; end with this error after the messages in flight."""
        with self._counts:
            if self.is_broken:
                return
            self.is_broken = True
            self._error = error
            self._ended = True
            self._room.notify_all()
        if self._source is not None:
            self._source.dispose()
        self._emission.spawn()

    def died(self, error: BaseException) -> None:
        """End with the error of a thread; messages without a result are counted as abandoned."""
        self._is_lossy = True
        self.break_off(unexpected("handling", error))
        self._emission.run()

    def _wait_for_room(self) -> None:
        if not self.may_wait or self._in_flight() < self._most:
            return
        if getattr(self._here, "is_working", False):
            return  # a result reached the source again: this thread would wait for itself
        with self._counts:
            self._waiting += 1
            self._room.wait_for(
                lambda: self._disposed or self.is_broken or self._in_flight() <= self._least
            )
            self._waiting -= 1

    def _in_flight(self) -> int:
        return 0 if self._disposed else self._submitted - self._settled

    def _abandon(self, count: int) -> None:
        if count:
            self._telemetry.add(abandoned=count)
            self._telemetry.publish(Abandoned(count, "processors"))

    # From the runner.

    def spawn(self, task: Task) -> None:
        """Run a task on a thread of this stage."""

        def work() -> None:
            try:
                with self.working():
                    task()
            except BaseException as error:
                self.died(error)
                if is_interrupt(error):
                    raise

        self._spawn(work)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Mark this thread: it waits neither for the end of the stream nor for room."""
        outside = getattr(self._here, "is_working", False)
        self._here.is_working = True
        try:
            with self._telemetry.working():
                yield
        finally:
            self._here.is_working = outside

    def emit(self, *, elsewhere: bool = False) -> None:
        """Emit the results of the flow: on this thread, or on another if this one must not wait."""
        if elsewhere:
            self._emission.spawn()
        else:
            self._emission.run()

    # To the observer. A slow observer keeps one thread: the others leave their results and return.

    def _can_emit(self) -> bool:
        return self.flow.is_ready() or self._is_due()

    def _emit_ready(self) -> None:
        while results := self.flow.take():
            self._emit(results)
        if self._is_due():
            self._finish()

    def _emit(self, results: list[Message[Any]]) -> None:
        good, failed = results, []
        if not are_plain(results):
            good = [message for message in results if message.status == "ok"]
            failed = [message for message in results if message.status != "ok"]
        if not self._settle(len(good), len(failed)):
            return
        if failed:
            settle((), failed, self._on_failed, self._telemetry)
        if good:
            try:
                self._observer.on_next(good)
            except BaseException as error:  # a SystemExit: later results must still be emitted
                self._telemetry.add(subscriber_errors=1)
                self._telemetry.publish(SubscriberFailed(good, error))
                if isinstance(error, KeyboardInterrupt) and not self.may_wait:
                    raise  # Ctrl-C on the user's own thread

    def _settle(self, good: int, failed: int) -> bool:
        """Count results before they are emitted; ``False`` if they were abandoned."""
        with self._counts:
            if self._disposed or self._finished:
                return False
            self._settled += good + failed
            self._failed += failed
            self._telemetry.add(processed=good, failed=failed)
            # At the lower bound, not for each message: waking the source's thread is slow.
            if self._waiting and self._in_flight() <= self._least:
                self._room.notify_all()
            return True

    def _is_due(self) -> bool:
        return (
            self._ended
            and (self._settled == self._submitted or self._is_lossy)
            and not self._finished
            and not self._disposed
        )

    def _finish(self) -> None:
        self._finished = True
        with self._counts:
            self._abandon(self._in_flight())
            self._settled = self._submitted
        try:
            self._release()
        finally:
            if self._error is None:
                self._observer.on_completed()
            else:
                self._observer.on_error(self._error)

    def _release(self) -> None:
        for unwatch in self._unwatch:
            unwatch()
        self._capacity.stop()
        self.flow.stop()
        for close in self._closing:
            close()

    # Figures.

    def _resize(self) -> None:
        limit = self._concurrency.limit
        self._capacity.resize(limit)
        with self._counts:
            self._most = self._demand.most * limit
            self._least = self._demand.least * limit
            self._room.notify_all()
        self.flow.runner.resize()

    def _stage(self) -> StageStats:
        running, busy = self.flow.runner.load()
        return StageStats(
            "processors",
            self._concurrency.limit,
            running,
            self._in_flight(),
            busy,
            self._capacity.seconds(),
            received=self._submitted,
            done=self._settled - self._failed,
            failed=self._failed,
            queued=max(0, self._in_flight() - running),
            rate=self._meter.rate(),
        )


class CallFlow:
    """The steps between the processor's counts and the runner.

    Args:
        processor: counts and emits the results.
        handle: runs the handler of a message on this thread, and returns the result.
        telemetry: counters and event bus.
        ordered: whether results keep the order of the source.
        deadline: deadline of a message in seconds since 1970, or ``None``.
        clock: seconds since 1970.
        partition_by: partition key of a message.
        prepare: the user's function for chunks.
        concurrency: concurrent calls of ``prepare`` at most.
        retry: when a failed message is handled again.
        timers: keep the time until then.
    """

    runner: Runner

    def __init__(
        self,
        processor: Processor,
        handle: Callable[[Message[Any]], Message[Any]],
        telemetry: Telemetry,
        *,
        ordered: bool,
        deadline: Callable[[Message[Any]], float | None] | None,
        clock: Callable[[], float],
        partition_by: Callable[[Message[Any]], Hashable] | None,
        prepare: Prepare | None,
        concurrency: Concurrency,
        retry: Retry | None,
        timers: Timers,
    ) -> None:
        self._processor = processor
        self._telemetry = telemetry
        self._deadline = deadline
        self._clock = clock
        self._partition_by = partition_by
        self._partitions = None if partition_by is None else _Partitions()
        self._preparation = (
            None
            if prepare is None
            else Preparation(prepare, concurrency, processor.spawn, self._prepared, telemetry)
        )
        self._retry = retry
        self._timers = timers
        self._results: list[Message[Any]] = []
        self._in_order: deque[Call] | None = deque() if ordered else None
        options = (self._in_order, deadline, partition_by, prepare)
        self._needs_calls = any(option is not None for option in options)
        self._handle = handle
        needs_start = retry is not None or deadline is not None
        self.handle = self._start_and_handle if needs_start else self._handle_now
        self.finish = self._settle if retry is None else self._retry_or_settle
        self.handle_message: Callable[[Message[Any]], None] | None = None
        if retry is None and not self._needs_calls:
            add = self._results.append
            self.handle_message = lambda message: add(handle(message))

    # For the processor.

    def submit(self, messages: list[Message[Any]]) -> None:
        """Queue messages; return immediately."""
        if not self._needs_calls:
            self.runner.submit(messages)
            return
        calls = list(map(Call, messages))
        if self._in_order is not None:
            self._in_order.extend(calls)
        failed: list[tuple[Call, Message[Any]]] = []
        if self._deadline is not None or self._partition_by is not None:
            failed = [(call, result) for call in calls if (result := self._examine(call))]
            if failed:
                lost = {call for call, _ in failed}
                calls = [call for call in calls if call not in lost]
        self._begin(calls if self._partitions is None else self._partitions.enter(calls))
        for call, result in failed:
            self._settle(call, result)
        if failed:
            self._processor.emit(elsewhere=True)

    def stop(self) -> None:
        """Start no more calls."""
        self._timers.stop()
        if self._preparation is not None:
            self._preparation.clear()
        if self._partitions is not None:
            self._partitions.clear()
        self.runner.stop()

    def is_ready(self) -> bool:
        if self._in_order is None:
            return bool(self._results)
        try:
            return self._in_order[0].result is not None
        except IndexError:
            return False

    def take(self) -> list[Message[Any]]:
        """Return the results that can be emitted; for one thread at a time."""
        calls, results = self._in_order, self._results
        if calls is None:
            ready = results[:]
            del results[: len(ready)]  # not all: other threads append meanwhile
            return ready
        ready = []
        while calls and (result := calls[0].result) is not None:
            calls.popleft()
            ready.append(result)
        return ready

    # For the runner.

    def start(self, call: Call) -> Message[Any] | None:
        """Note the start of an attempt; return the failed message if its deadline has passed."""
        if call.since is None:
            call.since = monotonic()
        if call.due is None or (late := self._clock() - call.due) < 0.0:
            return None
        self._telemetry.add(expired=1)
        return call.message.failed(past_deadline(late))

    def _start_and_handle(self, call: Call) -> Message[Any]:
        return self.start(call) or self._handle(call.message)

    def _handle_now(self, call: Call) -> Message[Any]:
        return self._handle(call.message)

    def _examine(self, call: Call) -> Message[Any] | None:
        try:
            if self._deadline is not None:
                call.due = self._deadline(call.message)
            if self._partition_by is not None:
                call.key = self._partition_by(call.message)
                hash(call.key)
        except BaseException as error:  # noqa: BLE001 - users' code may raise anything
            call.key = call  # a unique key: it enters no partition, so it leaves none
            return call.message.failed(error)
        return None

    def _begin(self, calls: list[Call]) -> None:
        if calls:
            (self._preparation or self.runner).submit(calls)

    def _prepared(self, calls: list[Call], messages: list[Message[Any]]) -> None:
        good: list[Call] = []
        failed: list[tuple[Call, Message[Any]]] = []
        for call, message in zip(calls, messages, strict=True):
            if message.status == "ok":
                call.message = message
                good.append(call)
            else:
                failed.append((call, message))
        if good:
            self.runner.submit(good)
        for call, message in failed:
            self._settle(call, message)
        if failed:
            self._processor.emit()

    def _retry_or_settle(self, call: Call, result: Message[Any]) -> None:
        if isinstance(result.status, Failed):
            try:
                delay = self._delay(call, result.status.reason)
            except BaseException as error:  # noqa: BLE001 - users' strategies may raise anything
                result, delay = call.message.failed(error), None
            if delay is not None:
                self._telemetry.add(retried=1)
                self._telemetry.publish(HandlerRetried(result, call.attempt, delay))
                call.attempt += 1
                self._timers.after(delay, lambda: self.runner.submit([call]))
                return
        self._settle(call, result)

    def _delay(self, call: Call, reason: object) -> float | None:
        if self._retry is None or self._processor.is_broken:
            return None
        if isinstance(reason, (DeadlineExceeded, ExecutorBroken)):
            return None
        now = monotonic()
        since = now if call.since is None else call.since
        return self._retry.delay(reason, call.attempt, since, now)

    def _settle(self, call: Call, result: Message[Any]) -> None:
        call.result = result
        if self._in_order is None:
            self._results.append(result)
        # After the result is stored: results of a partition keep their order.
        if self._partitions is not None and (following := self._partitions.leave(call)):
            self._begin([following])


class _Partitions:
    """A queue for each key that has a running call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, deque[Call]] = {}

    def enter(self, calls: list[Call]) -> list[Call]:
        """Queue calls; return those that may start now."""
        begin: list[Call] = []
        with self._lock:
            for call in calls:
                queue = self._waiting.get(call.key)
                if queue is None:
                    self._waiting[call.key] = deque()
                    begin.append(call)
                else:
                    queue.append(call)
        return begin

    def leave(self, call: Call) -> Call | None:
        """Remove a call that has its result; return the call that may start now."""
        with self._lock:
            queue = self._waiting.get(call.key)
            if queue:
                return queue.popleft()
            if queue is not None:
                del self._waiting[call.key]
            return None

    def clear(self) -> None:
        with self._lock:
            self._waiting.clear()


class _Capacity:
    """The sum of the concurrency limit over time, in seconds."""

    def __init__(self, concurrency: Concurrency) -> None:
        self._lock = threading.Lock()
        self._limit = concurrency.limit
        self._since = perf_counter()
        self._seconds = 0.0

    def seconds(self) -> float:
        with self._lock:
            return self._seconds + self._limit * (perf_counter() - self._since)

    def resize(self, limit: int) -> None:
        with self._lock:
            now = perf_counter()
            self._seconds += self._limit * (now - self._since)
            self._since, self._limit = now, limit

    def stop(self) -> None:
        self.resize(0)
