"""`process(executor=…)`: handlers in other processes, in chunks."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from typing import Any

import psutil
import pytest
from reactivex.scheduler import NewThreadScheduler

from rxtweets import (
    Concurrency,
    ConfigurationError,
    Message,
    Pipeline,
    Retry,
    ack_immediately,
    events,
    from_iterable,
)
from rxtweets import operators as ops
from rxtweets.errors import DeadlineExceeded, ExecutorBroken, HandlerError, WorkerLost
from rxtweets.operators._executor import handle_packed
from rxtweets.testing import RecordingAcknowledger

PATIENCE = 20.0

# Forking a program that has threads is deprecated, but only a fork finds the handlers of this
# module, which no other process could import.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def pool(processes: int = 2) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork"))


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    with pool() as executor:
        executor.submit(os.getpid).result(PATIENCE)
        yield executor


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


class Counting(Executor):
    """Counts the calls to another executor."""

    def __init__(self, inner: Executor) -> None:
        self.inner = inner
        self.chunks = 0
        self.was_shut_down = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.chunks += 1
        return self.inner.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.was_shut_down = True
        self.inner.shutdown(wait, cancel_futures=cancel_futures)


class Outstanding(Counting):
    """Counts the open calls, and their maximum."""

    def __init__(self, inner: Executor) -> None:
        super().__init__(inner)
        self.lock = threading.Lock()
        self.out = self.most = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        with self.lock:
            self.out += 1
            self.most = max(self.most, self.out)
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(self.answered)
        return future

    def answered(self, _: Future[Any]) -> None:
        with self.lock:
            self.out -= 1


class Manual(Executor):
    """Leaves its calls to the test."""

    def __init__(self) -> None:
        self.calls: list[Future[Any]] = []
        self.has_two_calls = threading.Event()

    def submit(self, _fn: Callable[..., Any], /, *_args: Any, **_kwargs: Any) -> Future[Any]:
        self.calls.append(Future())
        self.calls[-1].set_running_or_notify_cancel()
        if len(self.calls) == 2:
            self.has_two_calls.set()
        return self.calls[-1]


class Dead(Executor):
    """Takes no calls."""

    def submit(self, _fn: Callable[..., Any], /, *_args: Any, **_kwargs: Any) -> Future[Any]:
        raise RuntimeError("cannot schedule new futures after shutdown")


def identity(message: Message[Any]) -> Message[Any]:
    return message


def with_process(message: Message[Any]) -> Message[Any]:
    return message.put_data((message.data, os.getpid()))


def picky(message: Message[int]) -> Any:
    match message.data % 5:
        case 1:
            raise ValueError(message.data)
        case 2:
            return message.failed("unwanted")
        case 3:
            return message.data
    return message


def dying(message: Message[Any]) -> Message[Any]:
    if message.data == "die":
        os._exit(1)
    return message


def leaving(message: Message[Any]) -> Message[Any]:
    raise SystemExit(message.data)


def unpicklable(message: Message[Any]) -> Message[Any]:
    return message if message.data else message.put_data(threading.Lock())


def raising_unpicklable(message: Message[Any]) -> Message[Any]:
    if message.data:
        return message
    raise ValueError(threading.Lock())


def add(message: Message[int], number: int) -> Message[int]:
    return message.update_data(lambda data: data + number)


def failing_once(message: Message[str]) -> Message[str]:
    """A file remembers the first attempt, in whatever process it was."""
    try:
        with open(message.data, "x", encoding="utf-8"):  # noqa: PTH123 - mode x fails if the file exists
            pass
    except FileExistsError:
        return message
    raise ValueError(message.data)


def test_handlers_run_in_other_processes(process: Any, processes: Any) -> None:
    data = process(with_process, range(100), executor=processes).until_end()
    assert sorted(number for number, _ in data) == list(range(100))
    assert os.getpid() not in {where for _, where in data}


@pytest.mark.parametrize("ordered", [False, True])
def test_message_is_returned_once(process: Any, processes: Any, ordered: bool) -> None:
    watched = process(identity, range(3000), executor=processes, ordered=ordered)
    data = watched.until_end()
    assert (data if ordered else sorted(data)) == list(range(3000))
    assert watched.stats().processed == 3000


def test_messages_are_sent_in_chunks(process: Any, processes: Any) -> None:
    counting = Counting(processes)
    process(identity, range(3000), executor=counting).until_end()
    assert counting.chunks < 1500


def test_no_message_waits_for_a_slow_chunk(process: Any, threads: Any) -> None:
    together = threading.Barrier(4)

    def meet(message: Message[int]) -> Message[int]:
        together.wait(PATIENCE)
        time.sleep(0.02)  # chunks are made by how long calls take: this is a slow one
        return message

    assert len(process(meet, range(40), concurrency=4, executor=threads).until_end()) == 40


def test_chunks_are_sent_up_to_the_concurrency(process: Any, threads: Any) -> None:
    executor, both = Outstanding(threads), threading.Barrier(2)

    def handle(message: Message[int]) -> Message[int]:
        if message.data < 2:
            both.wait(PATIENCE)
        return message

    watched = process(handle, range(1000), concurrency=2, executor=executor)
    assert len(watched.until_end()) == 1000
    assert executor.most == 2
    assert executor.out == 0


def test_more_chunks_are_sent_when_the_limit_grows(process: Any) -> None:
    limit, begun, go = Concurrency(1), threading.Semaphore(0), threading.Event()

    def wait(message: Message[int]) -> Message[int]:
        begun.release()
        assert go.wait(PATIENCE)
        return message

    with ThreadPoolExecutor(3) as executor:
        watched = process(wait, concurrency=limit, executor=executor)
        watched.feed(*range(3))
        assert begun.acquire(timeout=PATIENCE)
        limit.limit = 3
        for _ in range(2):
            assert begun.acquire(timeout=PATIENCE)
        go.set()
        assert sorted(watched.complete()) == [0, 1, 2]


def test_failures_are_returned_with_their_chunk(process: Any, processes: Any) -> None:
    watched = process(picky, range(50), executor=processes)
    assert sorted(number % 5 for number in watched.until_end()) == [0] * 10 + [4] * 10
    reasons = watched.reasons()
    assert isinstance(reasons[1], ValueError)
    assert reasons[2] == "unwanted"
    assert str(reasons[3]) == "picky returned int; return the message"
    assert (watched.stats().processed, watched.stats().failed) == (20, 30)


def test_error_has_the_traceback_of_the_process(process: Any, processes: Any) -> None:
    watched = process(picky, [1], executor=processes)
    watched.until_end()
    [note] = watched.reasons()[1].__notes__
    assert "in picky" in note


def test_process_continues_when_a_handler_exits(process: Any, processes: Any) -> None:
    watched = process(leaving, ["a"], executor=processes)
    watched.until_end()
    assert isinstance(watched.reasons()["a"], SystemExit)
    assert watched.stats().workers_lost == 0


@pytest.mark.parametrize("handler", [unpicklable, raising_unpicklable])
def test_message_fails_alone_when_its_result_is_unpicklable(
    process: Any, processes: Any, handler: Any
) -> None:
    watched = process(handler, range(200), executor=processes)
    assert sorted(watched.until_end()) == list(range(1, 200))
    assert isinstance(watched.reasons()[0], HandlerError)
    assert "cannot be pickled" in str(watched.reasons()[0])


def test_error_is_reported_when_it_cannot_be_unpickled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Late(Exception):
        """Defined here: dask registers all exceptions that exist at its import with pickle."""

        def __init__(self, _one: object, _two: object) -> None:
            super().__init__("one argument")

    def handle(_message: Message[Any]) -> Message[Any]:
        raise Late(1, 2)

    Late.__qualname__ = "Late"
    monkeypatch.setattr(sys.modules[__name__], "Late", Late, raising=False)
    packed = handle_packed(handle, "handle", pickle.dumps([(Message(0), None)]))
    [answer], _ = pickle.loads(packed)  # noqa: S301 - our own pickle
    assert isinstance(answer, HandlerError)
    assert "handle raised a value that cannot be pickled" in str(answer)


def test_message_fails_alone_when_it_is_unpicklable(process: Any, processes: Any) -> None:
    lock = threading.Lock()
    watched = process(identity, [*range(100), lock, *range(100, 200)], executor=processes)
    assert sorted(watched.until_end()) == list(range(200))
    assert isinstance(watched.reasons()[lock], HandlerError)


def test_thread_pool_pickles_nothing(process: Any, threads: Any) -> None:
    lock = threading.Lock()
    assert process(lambda message: message, [lock], executor=threads).until_end() == [lock]


def test_context_is_sent_to_the_process(process: Any, processes: Any) -> None:
    assert process(add, [1], executor=processes, context=10).until_end() == [11]


def test_partitions_keep_their_order(process: Any, processes: Any) -> None:
    data = process(
        identity, range(200), executor=processes, partition_by=lambda message: message.data % 3
    ).until_end()
    for key in range(3):
        assert [number for number in data if number % 3 == key] == list(range(key, 200, 3))


def test_prepare_runs_in_this_process(process: Any, processes: Any) -> None:
    here: set[int] = set()

    def prepare(messages: Any) -> Any:
        here.add(os.getpid())
        return messages

    process(identity, range(10), executor=processes, prepare=prepare).until_end()
    assert here == {os.getpid()}


def test_failed_messages_are_retried(process: Any, processes: Any, tmp_path: Any) -> None:
    names = [str(tmp_path / str(number)) for number in range(5)]
    watched = process(failing_once, names, executor=processes, retry=Retry(wait=lambda _: 0.001))
    assert sorted(watched.until_end()) == sorted(names)
    assert watched.stats().retried == 5


def test_message_past_its_deadline_is_not_handled(process: Any, processes: Any) -> None:
    watched = process(identity, [1], executor=processes, deadline=lambda _: time.time() - 1)
    watched.until_end()
    assert isinstance(watched.reasons()[1], DeadlineExceeded)
    assert watched.stats().expired == 1


# Broken executors.


def test_stream_ends_when_its_pool_breaks(process: Any) -> None:
    with pool(1) as executor:
        watched = process(dying, executor=executor, concurrency=2)
        watched.feed("a")
        watched.until(lambda: watched.data)
        watched.feed("die")
        watched.until_end()
    [error] = watched.end
    assert isinstance(error, ExecutorBroken)
    assert "give executor= a function that makes one" in str(error)
    assert isinstance(watched.reasons()["die"], WorkerLost)


def test_broken_executor_is_counted_once(process: Any) -> None:
    executor = Manual()
    watched = process(identity, executor=executor, concurrency=2)
    watched.feed(*range(7))
    assert executor.has_two_calls.wait(PATIENCE)
    for call in executor.calls:
        call.set_exception(BrokenExecutor("dead"))
    watched.until_end()
    [error] = watched.end
    assert isinstance(error, ExecutorBroken)
    stats = watched.stats()
    assert stats.processed + stats.failed + stats.abandoned == 7
    assert len(watched.data) + len(watched.failed) + stats.abandoned == 7
    assert stats.workers_lost == 1


def test_broken_pool_is_replaced_when_a_function_makes_it(process: Any) -> None:
    made: list[Counting] = []

    def make() -> Executor:
        made.append(Counting(pool(1)))
        return made[-1]

    sent = ["a", "die", "b", *range(50)]
    watched = process(dying, sent, executor=make, concurrency=1)
    data = watched.until_end()
    assert watched.end == ["completed"]
    assert {*data, *watched.reasons()} == set(sent)  # others may fail in the call of "die"
    assert isinstance(watched.reasons()["die"], WorkerLost)
    assert len(data) + len(watched.failed) == 53
    assert len(made) == 2
    assert watched.stats().workers_lost == 1
    [event] = watched.happened(events.WorkerReplaced)
    assert event.worker == "executor"
    assert event.messages == len(watched.failed)


def test_lost_messages_are_retried_in_the_next_pool(process: Any, tmp_path: Any) -> None:
    watched = process(
        DyingOnce(str(tmp_path / "died")),
        ["die", "a"],
        executor=lambda: pool(1),
        retry=Retry(wait=lambda _: 0.001),
    )
    assert sorted(watched.until_end()) == ["a", "die"]
    assert watched.failed == []


class DyingOnce:
    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, message: Message[Any]) -> Message[Any]:
        if message.data == "die" and not os.path.exists(self.path):  # noqa: PTH110 - in a child
            with open(self.path, "x", encoding="utf-8"):  # noqa: PTH123 - in a child
                os._exit(1)
        return message


def test_stream_ends_when_the_executor_takes_no_calls(process: Any) -> None:
    watched = process(identity, range(20), executor=Dead())
    watched.until_end()
    assert isinstance(watched.end[0], ExecutorBroken)
    assert {type(reason) for _, reason in watched.failed} == {ExecutorBroken}
    assert watched.stats().failed == len(watched.failed)
    assert watched.stats().in_flight == 0


def test_stream_ends_when_no_executor_can_be_made(process: Any) -> None:
    def make() -> Executor:
        raise OSError("no more processes")

    watched = process(identity, range(3), executor=make, retry=Retry())
    watched.until_end()
    assert isinstance(watched.end[0], ExecutorBroken)
    assert {type(reason) for _, reason in watched.failed} == {ExecutorBroken}
    assert watched.stats().retried == 0
    assert watched.stats().in_flight == 0


def test_stream_ends_when_new_executors_take_no_calls(process: Any) -> None:
    made: list[Executor] = []

    def make() -> Executor:
        made.append(Dead())
        return made[-1]

    watched = process(identity, range(3), executor=make)
    watched.until_end()
    assert isinstance(watched.end[0], ExecutorBroken)
    assert len(made) == 1


def test_executor_is_not_shut_down_when_given(process: Any, threads: Any) -> None:
    counting = Counting(threads)
    process(identity, range(3), executor=counting).until_end()
    assert not counting.was_shut_down


def test_executor_is_shut_down_when_a_function_makes_it(process: Any) -> None:
    made: list[Counting] = []

    def make() -> Executor:
        made.append(Counting(ThreadPoolExecutor(1)))
        return made[-1]

    process(identity, range(3), executor=make).until_end()
    assert [executor.was_shut_down for executor in made] == [True]


def test_no_process_is_left_after_the_end(process: Any) -> None:
    watched = process(with_process, range(20), executor=lambda: pool(2))
    pids = {where for _, where in watched.until_end()}
    assert pids
    while any(psutil.pid_exists(pid) for pid in pids):  # or the test's own time limit ends it
        time.sleep(0.01)  # the system sends no signal


def test_disposal_cancels_waiting_chunks(process: Any) -> None:
    go, begun, handled = threading.Event(), threading.Event(), []

    def wait(message: Message[int]) -> Message[int]:
        handled.append(message.data)
        begun.set()
        assert go.wait(PATIENCE)
        return message

    with ThreadPoolExecutor(1) as executor:
        watched = process(wait, executor=executor)
        watched.feed(*range(10))
        assert begun.wait(PATIENCE)
        watched.subscription.dispose()
        go.set()
    assert len(handled) == 1
    assert watched.stats().abandoned == 10
    assert watched.data == watched.end == []


async def asynchronous(message: Message[Any]) -> Message[Any]:
    await asyncio.sleep(0)
    return message


@pytest.mark.parametrize(
    ("handler", "options", "words"),
    [
        (identity, {"executor": 3}, "executor=3"),
        (asynchronous, {"executor": Dead()}, "plain functions"),
        (identity, {"executor": Dead(), "time_limit": 1}, "time_limit="),
        (identity, {"executor": Dead(), "scheduler": NewThreadScheduler()}, "scheduler="),
        (asynchronous, {"scheduler": NewThreadScheduler()}, "scheduler="),
    ],
)
def test_contradicting_options_are_refused(handler: Any, options: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        ops.process(handler, **options)


def test_unpicklable_handler_is_refused(processes: Any) -> None:
    with pytest.raises(ConfigurationError, match="define it at the top of a module"):
        ops.process(lambda message: message, executor=processes)
    with pytest.raises(ConfigurationError, match="define it at the top of a module"):
        ops.process(lambda message: message, executor=ProcessPoolExecutor)


def upper(message: Message[str]) -> Message[str]:
    return message.update_data(str.upper).put_batcher("alerts")


@pytest.mark.parametrize("kind", ["processes", "threads"])
def test_acknowledgement_data_is_kept(kind: str, request: pytest.FixtureRequest) -> None:
    acks = RecordingAcknowledger()
    message = Message("a").with_acknowledger(acks, ref="channel", data=17)
    handled: list[Message[str]] = []
    over = threading.Event()
    stream = from_iterable([message]).pipe(
        ops.process(upper, executor=request.getfixturevalue(kind)), ops.acknowledge()
    )
    stream.subscribe(handled.append, on_completed=over.set)
    assert over.wait(PATIENCE)
    [acked] = acks.successful
    assert (acked.data, acked.batcher) == ("A", "alerts")
    assert (acked.ack_ref, acked.ack_data) == ("channel", 17)


@pytest.mark.parametrize("kind", ["processes", "threads"])
def test_message_is_acknowledged_once_when_in_an_executor(
    kind: str, request: pytest.FixtureRequest, process: Any
) -> None:
    executor = request.getfixturevalue(kind)
    kept: list[Message[Any]] = []

    def prepare(messages: Any) -> Any:
        kept.extend(messages)
        ack_immediately([message for message in messages if message.data == "early"])
        return [message.update_data(str) for message in messages]

    data = ["early", "late"]
    watched = process(upper, data, executor=executor, prepare=prepare, then=ops.acknowledge())
    assert sorted(watched.until_end()) == ["EARLY", "LATE"]
    ack_immediately(kept)
    assert sorted(watched.successful) == ["LATE", "early"]
    assert watched.stats().late_acknowledgements == 1


def test_handler_in_a_thread_pool_can_stop_its_pipeline(threads: Any) -> None:
    def stop(message: Message[int]) -> Message[int]:
        pipeline.stop(timeout=PATIENCE)
        return message

    pipeline = Pipeline(from_iterable([1]), handle_message=stop, executor=threads)
    stats = pipeline.run()
    assert (stats.acknowledged, stats.abandoned) == (1, 0)
