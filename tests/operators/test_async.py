"""`process(async def …)`: handlers on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import selectors
import threading
from typing import Any

import pytest
import reactivex
from reactivex.testing import ReactiveTest, TestScheduler

from rxtweets import Batch, Message, ack_immediately, events
from rxtweets import operators as ops
from rxtweets._core.subscriber import FunctionSubscriber, Settlement
from rxtweets._core.telemetry import Telemetry
from rxtweets.errors import HandlerError, HandlerTimeout
from rxtweets.operators import _event_loop
from rxtweets.operators._event_loop import AsyncSubscriber
from rxtweets.testing import RecordingAcknowledger

PATIENCE = 20.0
LIMIT = 0.3
"""Seconds: much longer than a quick call takes on a busy machine."""


def loops() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "rxtweets-loop"]


async def upcase(message: Message[str]) -> Message[str]:
    await asyncio.sleep(0)
    return message.update_data(str.upper)


async def identity(message: Message[Any]) -> Message[Any]:
    await asyncio.sleep(0)
    return message


@pytest.mark.parametrize("ordered", [False, True])
def test_message_is_awaited_once(process: Any, ordered: bool) -> None:
    data = process(identity, range(2000), ordered=ordered).until_end()
    assert (data if ordered else sorted(data)) == list(range(2000))


@pytest.mark.parametrize("concurrency", [1, 7, 50])
def test_coroutines_run_up_to_the_concurrency(process: Any, concurrency: int) -> None:
    running, most, together = 0, 0, asyncio.Barrier(concurrency)

    async def meet(message: Message[int]) -> Message[int]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        async with asyncio.timeout(PATIENCE):
            await together.wait()
        running -= 1
        return message

    data = process(meet, range(3 * concurrency), concurrency=concurrency).until_end()
    assert len(data) == 3 * concurrency
    assert most == concurrency


def test_calls_run_on_one_loop_in_one_thread(process: Any) -> None:
    seen: set[tuple[int, str]] = set()

    async def handle(message: Message[int]) -> Message[int]:
        seen.add((id(asyncio.get_running_loop()), threading.current_thread().name))
        return message

    process(handle, range(100)).until_end()
    [(_, name)] = seen
    assert name == "rxtweets-loop"


def test_loop_starts_with_the_first_message(process: Any) -> None:
    before = len(loops())
    watched = process(identity)
    assert len(loops()) == before
    watched.feed(1)
    watched.complete()


def test_loop_ends_with_the_stream(process: Any) -> None:
    before = set(loops())
    process(identity, range(10)).until_end()
    for thread in set(loops()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_handlers_run_when_the_caller_runs_a_loop(process: Any) -> None:
    async def main() -> list[str]:
        watched = process(upcase, ["a", "b"], ordered=True)
        data: list[str] = await asyncio.to_thread(watched.until_end)
        return data

    assert asyncio.run(main()) == ["A", "B"]


class Upcase:
    async def __call__(self, message: Message[str]) -> Message[str]:
        return message.update_data(str.upper)


async def with_suffix(message: Message[str], suffix: str) -> Message[str]:
    return message.put_data(message.data + suffix)


def test_object_with_async_call_is_a_handler(process: Any) -> None:
    assert process(Upcase(), ["a"]).until_end() == ["A"]


def test_partial_of_an_async_function_is_a_handler(process: Any) -> None:
    assert process(functools.partial(with_suffix, suffix="!"), ["a"]).until_end() == ["a!"]


def test_context_is_the_last_argument(process: Any) -> None:
    assert process(with_suffix, ["a"], context="?").until_end() == ["a?"]


async def raising(_: Message[Any]) -> Message[Any]:
    raise ValueError("no")


async def leaving(_: Message[Any]) -> Message[Any]:
    raise SystemExit("bye")


async def interrupted(_: Message[Any]) -> Message[Any]:
    raise KeyboardInterrupt


async def cancelled(_: Message[Any]) -> Message[Any]:
    raise asyncio.CancelledError("itself")


async def forgetful(message: Message[Any]) -> Any:
    return message.data


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (raising, "ValueError('no')"),
        (leaving, "SystemExit('bye')"),
        (interrupted, "KeyboardInterrupt()"),
        (cancelled, "CancelledError('itself')"),
        (forgetful, "HandlerError('sometimes returned str; return the message')"),
    ],
)
def test_message_fails_alone_when_its_coroutine_raises(
    process: Any, handler: Any, reason: str
) -> None:
    async def sometimes(message: Message[str]) -> Any:
        return await handler(message) if message.data == "bad" else message

    watched = process(sometimes, ["a", "bad", "b"])
    assert sorted(watched.until_end()) == ["a", "b"]
    assert {data: repr(why) for data, why in watched.failed} == {"bad": reason}
    assert (watched.stats().processed, watched.stats().failed) == (2, 1)


def test_error_explains_a_coroutine_of_a_plain_function(process: Any) -> None:
    watched = process(lambda message: upcase(message), ["a"])  # noqa: PLW0108 - hides the async
    watched.until_end()
    assert isinstance(watched.reasons()["a"], HandlerError)
    assert "declare it with async def" in str(watched.reasons()["a"])


def test_disposal_cancels_running_calls(process: Any) -> None:
    started, stopped = threading.Event(), threading.Event()

    async def wait(message: Message[int]) -> Message[int]:
        started.set()
        try:
            await asyncio.Event().wait()  # without end
        finally:
            stopped.set()
        return message

    watched = process(wait)
    watched.feed(1, 2)
    assert started.wait(PATIENCE)
    watched.subscription.dispose()
    assert stopped.wait(PATIENCE)
    assert watched.stats().abandoned == 2
    assert watched.failed == watched.end == []


def test_slow_observer_delays_no_handler() -> None:
    go, handled = threading.Event(), threading.Semaphore(0)

    async def note(message: Message[int]) -> Message[int]:
        handled.release()
        return message

    def wait_for_it(_message: Message[int]) -> None:
        assert go.wait(PATIENCE)

    source: reactivex.Subject[Message[int]] = reactivex.Subject()
    ended = threading.Event()
    source.pipe(ops.process(note)).subscribe(wait_for_it, on_completed=ended.set)
    for number in range(10):
        source.on_next(Message(number))
    for _ in range(10):
        assert handled.acquire(timeout=PATIENCE)
    go.set()
    source.on_completed()
    assert ended.wait(PATIENCE)


def test_loop_continues_when_a_user_task_exits(process: Any) -> None:
    async def leave() -> None:
        raise SystemExit("task")

    async def handle(message: Message[int]) -> Message[int]:
        if message.data == 0:
            task = asyncio.create_task(leave())
            await asyncio.wait([task])
            task.exception()
        return message

    watched = process(handle, range(3))
    assert sorted(watched.until_end()) == [0, 1, 2]
    assert watched.stats().workers_lost == 1
    [event] = watched.happened(events.WorkerReplaced)
    assert (event.worker, repr(event.error)) == ("loop", "SystemExit('task')")


# Context variables.

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_call_has_the_context_of_the_subscription(process: Any) -> None:
    async def read(message: Message[Any]) -> Message[Any]:
        return message.put_data(variable.get())

    token = variable.set("subscribed")
    watched = process(read)
    variable.reset(token)
    watched.feed(1)
    assert watched.complete() == ["subscribed"]


def test_context_change_is_not_seen_by_other_calls(process: Any) -> None:
    async def read_and_set(message: Message[Any]) -> Message[Any]:
        before = variable.get()
        variable.set("set")
        await asyncio.sleep(0)
        return message.put_data((before, variable.get()))

    assert process(read_and_set, range(5)).until_end() == [("unset", "set")] * 5


# Time limits.


def test_overdue_call_is_cancelled_and_its_message_fails(process: Any) -> None:
    cancelled_at = threading.Event()

    async def hang(message: Message[int]) -> Message[int]:
        if message.data == 0:
            try:
                await asyncio.Event().wait()  # without end
            except asyncio.CancelledError:
                cancelled_at.set()
                raise
        return message

    watched = process(hang, range(3), time_limit=LIMIT)
    assert sorted(watched.until_end()) == [1, 2]
    assert isinstance(watched.reasons()[0], HandlerTimeout)
    assert cancelled_at.wait(PATIENCE)
    assert (watched.stats().timed_out, watched.stats().failed) == (1, 1)


def test_result_is_discarded_when_after_the_time_limit(process: Any) -> None:
    async def stubborn(message: Message[int]) -> Message[int]:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()  # without end
        return message

    watched = process(stubborn, [1], time_limit=LIMIT)
    assert watched.until_end() == []
    assert isinstance(watched.reasons()[1], HandlerTimeout)
    assert watched.stats().processed == 0


def test_acknowledgement_is_counted_when_its_call_was_cancelled(process: Any) -> None:
    acknowledged = threading.Event()

    async def stubborn(message: Message[int]) -> Message[int]:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()  # without end
        await asyncio.to_thread(watched.until, lambda: watched.failed)
        ack_immediately(message)
        acknowledged.set()
        return message

    watched = process(stubborn, time_limit=LIMIT)
    watched.feed(1)
    assert acknowledged.wait(PATIENCE)
    watched.complete()
    assert watched.successful == []
    assert isinstance(watched.reasons()[1], HandlerTimeout)
    assert watched.stats().late_acknowledgements == 1


def test_call_is_not_cancelled_when_within_its_limit(process: Any) -> None:
    watched = process(identity, range(100), time_limit=PATIENCE)
    assert len(watched.until_end()) == 100
    assert watched.stats().timed_out == 0


# Virtual time.


def test_call_takes_no_time_when_time_is_virtual() -> None:
    scheduler = TestScheduler()
    source = scheduler.create_hot_observable(
        ReactiveTest.on_next(210, Message("a")),
        ReactiveTest.on_next(230, Message("b")),
        ReactiveTest.on_completed(250),
    )
    operator: Any = ops.process(upcase)
    observer: Any = scheduler.start(lambda: source.pipe(operator))
    assert [record.time for record in observer.messages] == [210, 230, 250]
    assert [record.value.value.data for record in observer.messages[:2]] == ["A", "B"]


def test_source_waits_when_too_many_coroutines_run(process: Any) -> None:
    go, taken = threading.Event(), 0

    async def wait(message: Message[int]) -> Message[int]:
        assert await asyncio.to_thread(go.wait, PATIENCE)
        return message

    def emit() -> None:
        nonlocal taken
        for number in range(100):
            watched.feed(number)
            taken += 1

    watched = process(wait, concurrency=2)
    feeder = threading.Thread(target=emit)
    feeder.start()
    while watched.stats().in_flight < 20:
        threading.Event().wait(0.001)
    threading.Event().wait(0.05)  # time for calls that must not happen
    assert taken <= 21
    go.set()
    feeder.join(PATIENCE)
    assert sorted(watched.complete()) == list(range(100))


def test_messages_fail_when_the_loop_gets_no_thread(
    process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start
    refused: list[str] = []

    def refuse_first(self: threading.Thread) -> None:
        if self.name == "rxtweets-loop" and not refused:
            refused.append(self.name)
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse_first)
    watched = process(upcase)
    watched.feed("a")
    watched.until(lambda: watched.failed)
    watched.feed("b")
    assert watched.complete() == ["B"]
    assert repr(watched.reasons()["a"]) == 'RuntimeError("can\'t start new thread")'


# Subscribers, and the end of their loop.


class Cleaning:
    """Waits for its cancellation, and then for an event."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.cancelled = threading.Event()
        self.go = threading.Event()
        self.cleaned = threading.Event()

    async def __call__(self, _: Batch[Any]) -> None:
        self.started.set()
        try:
            await asyncio.Event().wait()  # without end
        finally:
            self.cancelled.set()
            await asyncio.to_thread(self.go.wait, PATIENCE)
            self.cleaned.set()


class Delivering:
    """Delivers batches of one message to an async subscriber, each on a separate thread."""

    def __init__(self, subscriber: Any) -> None:
        self.telemetry = Telemetry()
        self.acks = RecordingAcknowledger()
        self.awaiting = AsyncSubscriber(FunctionSubscriber(subscriber), self.telemetry)
        self.settlement = Settlement(self.awaiting, self.telemetry)
        self.threads: list[threading.Thread] = []

    def deliver(self, data: Any) -> None:
        batch = Batch([Message(data).with_acknowledger(self.acks)])
        # A daemon, so that a blocked thread does not delay the end of the tests.
        self.threads.append(
            threading.Thread(target=self.settlement.on_next, args=(batch,), daemon=True)
        )
        self.threads[-1].start()

    def reasons(self) -> dict[Any, str]:
        """Why each message failed, when all are settled."""
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert self.acks.successful == []
        failures: Any = self.acks.failed
        return {message.data: repr(message.status.reason.__cause__) for message in failures}


def test_batch_fails_when_the_loop_still_cancels_another_call() -> None:
    cleaning = Cleaning()
    delivering = Delivering(cleaning)
    delivering.deliver("before")
    assert cleaning.started.wait(PATIENCE)
    delivering.awaiting.close()
    assert cleaning.cancelled.wait(PATIENCE)
    delivering.deliver("after")
    assert delivering.acks.wait_for(1)
    cleaning.go.set()
    reasons = delivering.reasons()
    assert reasons["before"] == "CancelledError()"
    assert reasons["after"] == ("CancelledError('the stream was disposed before this call began')")


def test_batch_fails_when_its_loop_never_began() -> None:
    delivering = Delivering(Cleaning())
    delivering.awaiting.close()
    delivering.deliver("after")
    assert "disposed" in delivering.reasons()["after"]


def test_batch_fails_when_its_cancelled_call_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_event_loop, "GRACE", 0.01)
    cleaning = Cleaning()
    delivering = Delivering(cleaning)
    delivering.deliver("stuck")
    assert cleaning.started.wait(PATIENCE)
    delivering.awaiting.close()
    assert "did not end within 0.01 s" in delivering.reasons()["stuck"]
    cleaning.go.set()


def test_batch_fails_when_its_broken_loop_cannot_be_closed() -> None:
    loops: list[Any] = []
    refused = threading.Event()

    def refuse() -> None:
        refused.set()
        raise RuntimeError("the loop is broken")

    async def break_the_loop(_: Any) -> None:
        loops.append(asyncio.get_running_loop())
        loops[0].close = refuse
        loops[0]._selector.close()
        await asyncio.Event().wait()  # without end

    delivering = Delivering(break_the_loop)
    delivering.deliver("lost")
    assert "WorkerLost" in delivering.reasons()["lost"]
    assert refused.wait(PATIENCE)
    del loops[0].close
    loops[0]._selector = selectors.DefaultSelector()
    loops[0].close()


async def leave_at_once() -> None:
    raise SystemExit("asked for")


async def leave_when_cancelled() -> None:
    try:
        await asyncio.Event().wait()  # without end
    except asyncio.CancelledError:
        raise SystemExit("asked for") from None


@pytest.mark.parametrize("leave", [leave_at_once, leave_when_cancelled])
def test_call_can_clean_up_when_another_one_leaves(
    leave: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_event_loop, "GRACE", PATIENCE)
    cleaning = Cleaning()
    cleaning.go.set()

    async def take(batch: Batch[Any]) -> None:
        if batch[0].data == "clean":
            await cleaning(batch)
        delivering.awaiting.close()
        await leave()

    delivering = Delivering(take)
    delivering.deliver("clean")
    assert cleaning.started.wait(PATIENCE)
    delivering.deliver("leave")
    assert delivering.reasons() == {
        "clean": "CancelledError()",
        "leave": "SystemExit('asked for')",
    }
    assert cleaning.cleaned.is_set()
