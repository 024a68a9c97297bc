"""The way of a message through `process` when it is more than one call: the options' own steps.

::

    deadline, partition → lanes → prepare → runner → outcome → again, or: lanes, results
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from time import monotonic
from typing import Any

from rxtweets._core.concurrency import Concurrency
from rxtweets._core.events import HandlerRetried
from rxtweets._core.retry import Retry
from rxtweets._core.telemetry import Telemetry
from rxtweets._messages.message import Failed, Message
from rxtweets._support.timers import Timers
from rxtweets.errors import DeadlineExceeded, ExecutorBroken
from rxtweets.operators._calls import Call, Outcome, Runner
from rxtweets.operators._lanes import Lanes
from rxtweets.operators._preparing import Prepare, Preparing
from rxtweets.operators._processor import Processor
from rxtweets.operators._results import InOrder

__all__ = ["Deadline", "Flow"]

Deadline = Callable[[Message[Any]], float | None]


class Flow:
    """Between the processor's books and the runner; it is the runner's job.

    Args:
        processor: gets the results.
        call: gives the outcome of a message on this thread.
        telemetry: where to count and report.
        deadline: of a message, in seconds since 1970, or ``None``.
        clock: seconds since 1970.
        partition_by: the key of a message.
        prepare: the user's, for chunks.
        concurrency: calls at once at most.
        retry: when a failed message is handled again.
        timers: keep the time until then.
        may_race: whether an attempt may have two outcomes, its own and one because of its time.
    """

    def __init__(
        self,
        processor: Processor,
        call: Callable[[Message[Any]], Message[Any]],
        telemetry: Telemetry,
        *,
        deadline: Deadline | None,
        clock: Callable[[], float],
        partition_by: Callable[[Message[Any]], Hashable] | None,
        prepare: Prepare | None,
        concurrency: Concurrency,
        retry: Retry | None,
        timers: Timers,
        may_race: bool,
    ) -> None:
        self._processor = processor
        self._call = call
        self._telemetry = telemetry
        self._deadline = deadline
        self._clock = clock
        self._partition_by = partition_by
        self._lanes = None if partition_by is None else Lanes()
        self._preparing = (
            None
            if prepare is None
            else Preparing(prepare, concurrency, processor.spawn, self._prepared, telemetry)
        )
        self._retry = retry
        self._timers = timers
        self._may_race = may_race
        self._in_order = isinstance(processor.results, InOrder)  # which finds them in the calls
        self._looks_first = retry is not None or deadline is not None
        self._lock = threading.Lock()
        self.runner: Runner | None = None

    # The processor's side.

    def submit(self, messages: list[Message[Any]]) -> None:
        """Take messages; returns at once."""
        calls = [Call(message) for message in messages]
        self._processor.results.expect(calls)
        outcomes: list[Outcome] = []
        if self._deadline is not None or self._partition_by is not None:
            outcomes = [(call, 1, lost) for call in calls if (lost := self._look_at(call))]
        if outcomes:
            lost_calls = {call for call, _, _ in outcomes}
            calls = [call for call in calls if call not in lost_calls]
        self._begin(calls if self._lanes is None else self._lanes.enter(calls))
        if outcomes:
            self._settle(outcomes, elsewhere=True)

    def resize(self) -> None:
        """The concurrency is another."""
        self._running.resize()

    def stop(self) -> None:
        """Begin nothing any more."""
        self._timers.stop()
        if self._preparing is not None:
            self._preparing.clear()
        if self._lanes is not None:
            self._lanes.clear()
        self._running.stop()

    def load(self) -> tuple[int, float]:
        """How many calls run now, and the seconds that calls have taken so far."""
        return self._running.load()

    @property
    def _running(self) -> Runner:
        assert self.runner is not None  # noqa: S101 - set before the first message
        return self.runner

    def _look_at(self, call: Call) -> Message[Any] | None:
        """Ask the user's functions about a message; it has failed if one of them raises."""
        try:
            if self._deadline is not None:
                call.due = self._deadline(call.message)
            if self._partition_by is not None:
                call.key = self._partition_by(call.message)
                hash(call.key)
        except BaseException as error:  # noqa: BLE001 - whatever a user's code raises
            call.key = call  # nobody else's: it enters no lane, so it must leave none
            return call.message.failed(error)
        return None

    def _begin(self, calls: list[Call]) -> None:
        if not calls:
            return
        if self._preparing is None:
            self._running.submit(calls)
        else:
            self._preparing.submit(calls)

    def _prepared(self, results: list[tuple[Call, Message[Any]]]) -> None:
        good = [(call, message) for call, message in results if message.status == "ok"]
        for call, message in good:
            call.message = message
        if good:
            self._running.submit([call for call, _ in good])
        if len(good) < len(results):
            self._settle([(call, 1, each) for call, each in results if each.status != "ok"])

    # The runner's side.

    def begin(self, call: Call) -> Message[Any] | None:
        """A call is about to be made; the message, failed, if it is too late for that."""
        if call.since is None:
            call.since = monotonic()
        if call.due is None or self._clock() < call.due:
            return None
        self._telemetry.add(expired=1)
        return call.message.failed(
            DeadlineExceeded(f"{self._clock() - call.due:.3f} s past its deadline; not handled")
        )

    def handle(self, call: Call) -> Outcome:
        """The outcome of a call on this thread."""
        attempt = call.attempt
        late = self.begin(call) if self._looks_first else None
        return call, attempt, late or self._call(call.message)

    def fail(self, call: Call, error: BaseException) -> Outcome:
        """The outcome of a call that was lost."""
        return call, call.attempt, call.message.failed(error)

    def message_of(self, outcome: Outcome) -> Message[Any]:
        """The message in an outcome."""
        return outcome[2]

    def done(self, outcomes: list[Outcome], *, elsewhere: bool = False) -> None:
        """Take outcomes; those that come too late, as another has taken their place, are left."""
        if self._retry is not None:
            outcomes = [each for each in outcomes if not self._is_for_later(each)]
        self._settle(outcomes, elsewhere=elsewhere)

    def break_off(self, error: Exception) -> None:
        """Take nothing any more, and end with this error when what is in flight has its result."""
        self._processor.break_off(error)

    def _settle(self, outcomes: list[Outcome], *, elsewhere: bool = False) -> None:
        """Make these the results of their messages."""
        if self._may_race:
            outcomes = [each for each in outcomes if self._claim(each[0], each[1])]
        if not outcomes:
            return
        for call, _, outcome in outcomes:
            call.result = outcome
        # Put there before the next of its key can begin, and so before what comes of that.
        if not self._in_order:
            self._processor.results.put([each[2] for each in outcomes])
        if self._lanes is not None:
            self._begin(self._lanes.leave([each[0] for each in outcomes]))
        self._processor.emit([], elsewhere=elsewhere)

    def _claim(self, call: Call, attempt: int) -> bool:
        """Whether this is the first outcome of the attempt; a handler and its limit may race."""
        with self._lock:
            if call.attempt != attempt:
                return False
            call.attempt += 1
            return True

    def _is_for_later(self, outcome: Outcome) -> bool:
        """Whether the message is to be handled again, and will be."""
        call, attempt, message = outcome
        if not isinstance(message.status, Failed) or call.attempt != attempt:
            return False
        if self._processor.is_broken:
            return False
        reason = message.status.reason
        if isinstance(reason, (DeadlineExceeded, ExecutorBroken)):
            return False
        try:
            delay = self._delay(reason, call, attempt)
        except BaseException as error:  # noqa: BLE001 - whatever a strategy of the user raises
            self._settle([(call, attempt, call.message.failed(error))], elsewhere=True)
            return True
        if delay is None or not self._claim(call, attempt):
            return False
        self._telemetry.add(retried=1)
        self._telemetry.publish(HandlerRetried(message, attempt, delay))
        self._timers.after(delay, lambda: self._running.submit([call]))
        return True

    def _delay(self, reason: object, call: Call, attempt: int) -> float | None:
        assert self._retry is not None  # noqa: S101 - else nobody asks
        now = monotonic()
        first = now if call.since is None else call.since
        return self._retry.delay(reason, attempt, first, now)
