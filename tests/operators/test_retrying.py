"""`process(retry=…)`: failed messages are handled again."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest
import tenacity
from reactivex.testing import ReactiveTest, TestScheduler

from rxtweets import ConfigurationError, Message, Retry, events
from rxtweets import operators as ops
from rxtweets.errors import HandlerTimeout

PATIENCE = 20.0
LIMIT = 0.3
"""Seconds: much longer than a quick call takes on a busy machine."""
SOON = Retry(wait=lambda _: 0.001)


class Flaky:
    """Fails the first attempts of each message."""

    def __init__(self, failures: int, error: type[BaseException] = ValueError) -> None:
        self.failures = failures
        self.error = error
        self.attempts: Counter[Any] = Counter()

    def __call__(self, message: Message[Any]) -> Message[Any]:
        self.attempts[message.data] += 1
        if self.attempts[message.data] <= self.failures:
            raise self.error(message.data)
        return message


@pytest.mark.parametrize("ordered", [False, True])
def test_message_is_emitted_when_a_retry_succeeds(process: Any, ordered: bool) -> None:
    handler = Flaky(2)
    watched = process(handler, range(20), retry=SOON, ordered=ordered)
    data = watched.until_end()
    assert (data if ordered else sorted(data)) == list(range(20))
    assert set(handler.attempts.values()) == {3}
    stats = watched.stats()
    assert (stats.processed, stats.failed, stats.retried) == (20, 0, 40)


def test_message_fails_with_the_last_error(process: Any) -> None:
    handler = Flaky(5)
    watched = process(handler, ["a"], retry=SOON)
    assert watched.until_end() == []
    assert handler.attempts["a"] == 3
    assert repr(watched.failed) == "[('a', ValueError('a'))]"
    assert (watched.stats().failed, watched.stats().retried) == (1, 2)


def test_retry_is_an_event(process: Any) -> None:
    retry = Retry(wait=lambda state: state.attempt_number / 1000)
    watched = process(Flaky(2), ["a"], retry=retry)
    watched.until_end()
    retried = watched.happened(events.HandlerRetried)
    assert [(event.attempt, event.delay) for event in retried] == [(1, 0.001), (2, 0.002)]
    assert all(event.message.is_failed for event in retried)


def test_returned_failure_is_retried(process: Any) -> None:
    attempts: list[int] = []

    def handle(message: Message[str]) -> Message[str]:
        attempts.append(1)
        return message.failed("not yet") if len(attempts) < 3 else message

    assert process(handle, ["a"], retry=SOON).until_end() == ["a"]


def test_no_thread_waits_for_the_next_attempt(process: Any) -> None:
    handler = Flaky(1)
    watched = process(handler, concurrency=1, retry=Retry(wait=lambda _: PATIENCE))
    handler.attempts.update({"b": 1, "c": 1})  # these succeed at the first attempt
    watched.feed("a", "b", "c")
    watched.until(lambda: len(watched.data) == 2)
    assert sorted(watched.data) == ["b", "c"]
    assert watched.stats().in_flight == 1


def test_completion_waits_for_the_last_attempt(process: Any) -> None:
    watched = process(Flaky(1), retry=Retry(wait=lambda _: 0.05))
    watched.feed("a")
    assert watched.complete() == ["a"]


def test_disposal_abandons_waiting_retries(process: Any) -> None:
    watched = process(Flaky(1), retry=Retry(wait=lambda _: PATIENCE))
    watched.feed("a")
    while not watched.stats().retried:
        threading.Event().wait(0.001)
    watched.subscription.dispose()
    assert watched.stats().abandoned == 1
    assert watched.stats().in_flight == 0


def test_failure_is_not_retried_when_refused(process: Any) -> None:
    handler = Flaky(1, KeyError)
    retry = Retry(wait=lambda _: 0.001, when=lambda reason: isinstance(reason, OSError))
    watched = process(handler, ["a"], retry=retry)
    watched.until_end()
    assert handler.attempts["a"] == 1
    assert watched.stats().retried == 0


def test_system_exit_is_not_retried(process: Any) -> None:
    handler = Flaky(1, SystemExit)
    process(handler, ["a"], retry=SOON).until_end()
    assert handler.attempts["a"] == 1


@pytest.mark.parametrize("part", ["stop", "wait", "when"])
def test_message_fails_when_a_strategy_raises(process: Any, part: str) -> None:
    def broken(_: object) -> Any:
        raise KeyError(part)

    options: dict[str, Any] = {"wait": lambda _: 0.001, part: broken}
    watched = process(Flaky(1), ["a", "b"], retry=Retry(**options))
    assert watched.until_end() == []
    assert [repr(reason) for _, reason in watched.failed] == [f"KeyError('{part}')"] * 2


def test_strategies_get_the_state_of_tenacity(process: Any) -> None:
    seen: list[tuple[int, str, bool]] = []

    def stop(state: tenacity.RetryCallState) -> bool:
        assert state.outcome is not None
        since = state.seconds_since_start
        seen.append((state.attempt_number, repr(state.outcome.exception()), since is not None))
        return state.attempt_number >= 2

    process(Flaky(9), ["a"], retry=Retry(stop=stop, wait=tenacity.wait_fixed(0.001))).until_end()
    assert seen == [(1, "ValueError('a')", True), (2, "ValueError('a')", True)]


def test_time_counts_from_the_first_attempt(process: Any) -> None:
    retry = Retry(stop=tenacity.stop_after_delay(0.02), wait=tenacity.wait_fixed(0.01))
    handler = Flaky(10_000)
    process(handler, ["a"], retry=retry).until_end()
    assert 2 <= handler.attempts["a"] <= 4


def test_retry_waits_in_virtual_time() -> None:
    scheduler = TestScheduler()
    source = scheduler.create_hot_observable(
        ReactiveTest.on_next(210, Message("a")), ReactiveTest.on_completed(220)
    )
    retry = Retry(wait=lambda state: 10.0 * state.attempt_number)
    operator: Any = ops.process(Flaky(2), retry=retry)
    observer: Any = scheduler.start(lambda: source.pipe(operator))
    assert [record.time for record in observer.messages] == [240, 240]


def test_async_handler_is_retried(process: Any) -> None:
    flaky = Flaky(2)

    async def handle(message: Message[Any]) -> Message[Any]:
        await asyncio.sleep(0)
        return flaky(message)

    watched = process(handle, range(5), retry=SOON)
    assert sorted(watched.until_end()) == list(range(5))
    assert watched.stats().retried == 10


def test_overdue_call_is_retried(process: Any) -> None:
    go, attempts = threading.Event(), []

    def hang_once(message: Message[Any]) -> Message[Any]:
        attempts.append(1)
        if len(attempts) == 1:
            go.wait(PATIENCE)
            return message.put_data("too late")
        return message

    watched = process(hang_once, ["a"], retry=SOON, time_limit=LIMIT)
    assert watched.until_end() == ["a"]
    go.set()
    [retried] = watched.happened(events.HandlerRetried)
    assert isinstance(retried.message.status.reason, HandlerTimeout)
    assert watched.stats().processed == 1


@pytest.mark.parametrize("retry", [3, tenacity.stop_after_attempt(3)])
def test_wrong_retry_is_refused(retry: Any) -> None:
    with pytest.raises(ConfigurationError, match="give a rxtweets"):
        ops.process(Flaky(1), retry=retry)


@pytest.mark.parametrize("part", ["stop", "wait", "when"])
def test_wrong_strategy_is_refused(part: str) -> None:
    options: dict[str, Any] = {part: 3}
    with pytest.raises(ConfigurationError, match=f"{part}=3"):
        Retry(**options)


def test_default_waits_double_for_three_attempts() -> None:
    delays = [Retry().delay(ValueError(), attempt, 0.0, 0.0) for attempt in (1, 2, 3)]
    first, second, last = delays
    assert first is not None
    assert second is not None
    assert 0.1 <= first <= 0.2 <= second <= 0.3
    assert last is None
