"""A broker and a pipeline under random operations, in virtual time.

At every moment each message is exactly one of queued, in flight, acknowledged or dead, and no
delivery is ever acknowledged twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import rxtweets
from rxtweets import Batch, Batcher, Message, Pipeline, RateLimit
from rxtweets.operators import _calls, _process, _threads
from rxtweets.testing import VirtualTime

TRIES = 2
KINDS = [
    "ok",
    "ok",
    "alerts",
    "fail",
    "raise",
    "crash",
    "kill",
    "wrong",
    "nowhere",
    "early",
    "key",
    "flush",
]


class StubBroker:
    """Gives messages and takes acknowledgements; a message that failed twice is dead."""

    def __init__(self) -> None:
        self.queued: deque[tuple[int, str]] = deque()
        self.in_flight: dict[int, str] = {}
        self.acknowledged: set[int] = set()
        self.dead: set[int] = set()
        self.tries: dict[int, int] = {}
        self.published = 0
        self.killers: list[int] = []
        self.is_down = False

    def publish(self, kind: str) -> None:
        self.queued.append((self.published, kind))
        if kind == "kill":
            self.killers.append(self.published)
        self.published += 1

    def poll(self, wanted: int) -> list[Message[str]]:
        if self.is_down:
            raise OSError("the broker is down")
        taken = [self.queued.popleft() for _ in range(min(wanted, len(self.queued)))]
        for tag, kind in taken:
            self.in_flight[tag] = kind
            self.tries[tag] = self.tries.get(tag, 0) + 1
        return [Message(kind).with_acknowledger(self, data=tag) for tag, kind in taken]

    def ack(self, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        for message in successful:
            del self.in_flight[message.ack_data]  # KeyError: it was acknowledged before
            self.acknowledged.add(message.ack_data)
        for message in failed:
            kind = self.in_flight.pop(message.ack_data)
            if self.tries[message.ack_data] < TRIES:
                self.queued.append((message.ack_data, kind))
            else:
                self.dead.add(message.ack_data)


class Deadly(BaseException):
    """Ends a worker outside of a handler."""


class MortalRunner(_threads.ThreadRunner):
    """Its workers die of certain messages instead of calling the handler."""

    def _step_of(self, *args: Any) -> Callable[[Any], None]:
        step = super()._step_of(*args)

        def mortal_step(waiting: Any) -> None:
            if _calls.call_of(waiting).message.data == "kill":
                raise Deadly
            step(waiting)

        return mortal_step


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(_process, "ThreadRunner", MortalRunner)
        self.broker = StubBroker()
        self.is_broken = False
        self.limit = RateLimit(None, 5.0)
        self.pipeline = Pipeline(
            [rxtweets.polling_source(self.broker.poll, interval=1.0, most=3) for _ in range(2)],
            handle_message=self.handle,
            concurrency=2,
            handle_failed=self.handle_failed,
            rate_limit=self.limit,
            restart=rxtweets.Restart(stop=lambda _: False),
            batchers={
                "default": Batcher(self.take, 3, 2.0),
                "alerts": Batcher(self.take, 2, 1.0, concurrency=2),
            },
        )
        self.clock = VirtualTime(self.pipeline)
        self.clock.__enter__()
        self.has_ended = False

    def handle(self, message: Message[str]) -> Any:
        kind = message.data
        if kind == "fail":
            return message.failed("asked for")
        if kind == "raise":
            raise ValueError(kind)
        if kind == "crash":
            raise SystemExit(1)
        if kind == "wrong":
            return kind
        if kind == "early":
            return rxtweets.ack_immediately(message)
        if kind == "key":
            return message.put_batch_key("other")
        if kind == "flush":
            return message.put_batch_mode("flush")
        return message if kind == "ok" else message.put_batcher(kind)

    def handle_failed(self, failed: list[Message[str]]) -> list[Message[str]]:
        if self.is_broken:
            raise ValueError("cannot help")
        return failed

    def take(self, batch: Batch[str]) -> Any:
        if self.is_broken:
            raise ValueError("no room")
        return [
            message.failed("picky") if message.data == "flush" else message for message in batch
        ]

    running = precondition(lambda self: not self.has_ended)

    @rule(
        kind=st.sampled_from(KINDS),
        count=st.integers(1, 7),
    )
    def publish(self, kind: str, count: int) -> None:
        for _ in range(count):
            self.broker.publish(kind)

    @running
    @rule(time=st.sampled_from([0.001, 0.5, 1.0, 3.0, 20.0]))
    def time_passes(self, time: float) -> None:
        self.clock.advance(time)

    @running
    @rule()
    def pause(self) -> None:
        self.pipeline.pause()
        before = dict(self.broker.tries)
        self.clock.advance(5.0)
        assert self.broker.tries == before  # nothing was taken

    @running
    @rule()
    def resume(self) -> None:
        self.pipeline.resume()

    @running
    @rule(allowed=st.integers(1, 5), reset=st.booleans())
    def change_rate(self, allowed: int, *, reset: bool) -> None:
        self.limit.update(allowed=allowed, reset=reset)

    @running
    @rule()
    def lift_rate(self) -> None:
        self.limit.lift()

    @running
    @rule()
    def break_or_repair_subscribers(self) -> None:
        self.is_broken = not self.is_broken

    @running
    @rule()
    def break_or_repair_the_broker(self) -> None:
        self.broker.is_down = not self.broker.is_down

    @running
    @rule()
    def drain(self) -> None:
        self.clock.__exit__(None, None, None)
        self.has_ended = True
        assert self.broker.in_flight == {}
        assert self.pipeline.stats().abandoned == 0
        killed = sum(self.broker.tries.get(tag, 0) for tag in self.broker.killers)
        assert self.pipeline.stats().workers_lost == killed

    @invariant()
    def every_message_is_in_one_place(self) -> None:
        broker = self.broker
        places = [
            [tag for tag, _ in broker.queued],
            list(broker.in_flight),
            list(broker.acknowledged),
            list(broker.dead),
        ]
        assert sorted(chain.from_iterable(places)) == list(range(broker.published))

    @invariant()
    def acknowledgers_were_never_wrong(self) -> None:
        assert self.pipeline.stats().acknowledger_errors == 0

    def teardown(self) -> None:
        if not self.has_ended:
            self.drain()
        self.patch.undo()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
