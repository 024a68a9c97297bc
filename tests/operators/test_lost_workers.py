"""Threads that die: they are replaced, and their messages fail."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import reactivex

from rxtweets import Message, events
from rxtweets import operators as ops
from rxtweets.errors import WorkerLost
from rxtweets.operators import _calls, _process

PATIENCE = 20.0


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
@pytest.mark.parametrize("options", [{}, {"ordered": True}, {"time_limit": PATIENCE}])
def test_thread_continues_when_a_handler_raises_anything(
    process: Any, error: type[BaseException], options: dict[str, Any]
) -> None:
    def handle(message: Message[int]) -> Message[int]:
        if message.data % 10 == 3:
            raise error
        return message

    watched = process(handle, range(100), concurrency=2, **options)
    assert len(watched.until_end()) == 90
    assert {type(reason) for _, reason in watched.failed} == {error}
    assert (watched.stats().processed, watched.stats().failed) == (90, 10)
    assert watched.stats().workers_lost == 0


class Deadly(BaseException):
    """Raised outside of a handler, as by a signal handler or a debugger."""


def dying_at(number: int, inner: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A call around the handler's that dies at the given message."""
    calls = iter(range(1, 10**9))

    def call(message: Message[Any]) -> Any:
        if next(calls) == number:
            raise Deadly
        return inner(message)

    return call


@pytest.fixture(params=[1, 250, 5000])
def _thread_dies(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first message, on a thread of many, and on the one thread for quick handlers."""

    def calling(function: Any, name: str) -> Any:
        return dying_at(request.param, _calls.calling(function, name))

    monkeypatch.setattr(_process, "calling", calling)


@pytest.mark.usefixtures("_thread_dies")
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_dead_thread_is_replaced_and_its_message_fails(
    process: Any, ordered: bool, concurrency: int
) -> None:
    watched = process(
        lambda message: message, range(6000), concurrency=concurrency, ordered=ordered
    )
    assert len(watched.until_end()) == 5999
    [(lost, reason)] = watched.failed
    assert isinstance(reason, WorkerLost)
    assert isinstance(reason.__cause__, Deadly)
    assert sorted([*watched.data, lost]) == list(range(6000))
    stats = watched.stats()
    assert (stats.processed, stats.failed, stats.workers_lost) == (5999, 1, 1)
    [event] = watched.happened(events.WorkerReplaced)
    assert (event.worker, event.messages, event.lost) == ("thread", 1, False)


@pytest.mark.parametrize("ordered", [False, True])
def test_stream_continues_when_its_subscriber_exits(ordered: bool) -> None:
    got: list[int] = []
    ended = threading.Event()

    def leave(message: Message[int]) -> None:
        got.append(message.data)
        raise SystemExit

    source: reactivex.Subject[Message[int]] = reactivex.Subject()
    stream = source.pipe(ops.process(lambda message: message, ordered=ordered))
    stream.subscribe(leave, on_completed=ended.set)
    for number in range(10):
        source.on_next(Message(number))
    source.on_completed()
    assert ended.wait(PATIENCE)
    assert got
    assert stream.stats().subscriber_errors == len(got)


def test_stream_continues_when_no_thread_can_start(
    process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        if self.name.startswith("rxtweets-processor"):
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert sorted(process(lambda message: message, range(100)).until_end()) == list(range(100))
