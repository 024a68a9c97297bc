"""`Buffered` for slow subscribers, and `Retrying` for failing ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tenacity
from reactivex.subject import Subject

import rxtweets
from rxtweets import Batch, Batcher, Message, Pipeline, events
from rxtweets import operators as ops
from rxtweets._messages.decoding import Decoder
from rxtweets.subscribers import (
    Buffered,
    DeadLetter,
    DeadLetterFile,
    Retrying,
    read_dead_letters,
)

PATIENCE = 20.0
Make = Callable[..., list[Message[Any]]]


class Acks:
    def __init__(self) -> None:
        self.good: list[str] = []
        self.bad: list[str] = []
        self.threads: set[str] = set()
        self.changed = threading.Condition()

    def ack(self, successful: Any, failed: Any) -> None:
        with self.changed:
            self.good += [message.data for message in successful]
            self.bad += [message.data for message in failed]
            self.threads.add(threading.current_thread().name)
            self.changed.notify_all()

    def wait_for(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.good + self.bad) >= count, PATIENCE)


class Gate(rxtweets.Subscriber[Any]):
    """A subscriber that blocks in each batch until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Semaphore(0)
        self.let_on = threading.Semaphore(0)
        self.got: list[str] = []
        self.ends: list[object] = []

    def on_next(self, batch: Batch[Any]) -> None:
        self.entered.release()
        assert self.let_on.acquire(timeout=PATIENCE)
        if batch[0].data == "bad":
            raise ValueError("bad")
        self.got += [message.data for message in batch]

    def on_error(self, error: Exception) -> None:
        self.ends.append(error)

    def on_completed(self) -> None:
        self.ends.append("completed")


class Stage:
    """A subject and its batches of one message."""

    def __init__(self) -> None:
        self.source: Subject[Message[Any]] = Subject()
        self.batches = self.source.pipe(ops.batch(1, 60.0))
        self.acks = Acks()

    def send(self, *texts: str) -> None:
        for text in texts:
            self.source.on_next(Message(text).with_acknowledger(self.acks))

    def stats(self) -> tuple[int, int, int]:
        stats = self.batches.stats()
        return stats.batched, stats.batched_failed, stats.unsettled


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.source.on_completed()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.let_on.release(1000)


# Buffered.


def test_buffered_subscriber_does_not_block_others(stage: Stage, gate: Gate) -> None:
    quick: list[str] = []
    stage.batches.subscribe(Buffered(gate, capacity=10))
    stage.batches.subscribe(lambda batch: quick.append(batch[0].data))
    stage.send("a", "b", "c")
    assert quick == ["a", "b", "c"]
    assert gate.got == []


def test_buffered_batch_is_acknowledged_after_delivery(stage: Stage, gate: Gate) -> None:
    stage.batches.subscribe(Buffered(gate))
    stage.send("a", "b")
    assert gate.entered.acquire(timeout=PATIENCE)
    assert stage.acks.good == []
    assert stage.stats() == (0, 0, 2)
    gate.let_on.release()
    stage.acks.wait_for(1)
    assert gate.entered.acquire(timeout=PATIENCE)
    assert stage.acks.good == ["a"]
    gate.let_on.release()
    stage.acks.wait_for(2)
    assert stage.acks.threads == {"rxtweets-buffered"}
    stage.source.on_completed()
    assert stage.stats() == (2, 0, 0)


def test_buffered_batch_fails_when_the_subscriber_raises(stage: Stage, gate: Gate) -> None:
    failures: list[events.Event] = []
    stage.batches.events.subscribe(failures.append)
    stage.batches.subscribe(Buffered(gate))
    gate.let_on.release(3)
    stage.send("a", "bad", "c")
    stage.source.on_completed()
    assert (stage.acks.good, stage.acks.bad) == (["a", "c"], ["bad"])
    assert stage.stats() == (2, 1, 0)
    assert stage.batches.telemetry.bus.flush()
    assert [
        type(failure.error) for failure in failures if isinstance(failure, events.BatchFailed)
    ] == [ValueError]


def test_buffered_blocks_the_stream_when_full(stage: Stage, gate: Gate) -> None:
    stage.batches.subscribe(Buffered(gate, capacity=2))
    stage.send("a")
    assert gate.entered.acquire(timeout=PATIENCE)
    stage.send("b", "c")
    sent = threading.Event()

    def more() -> None:
        stage.send("d")
        sent.set()

    thread = threading.Thread(target=more)
    thread.start()
    assert not sent.wait(0.05)
    gate.let_on.release()
    assert sent.wait(PATIENCE)
    thread.join()
    gate.let_on.release(10)
    stage.acks.wait_for(4)
    assert gate.got == ["a", "b", "c", "d"]


def test_buffered_fails_the_batch_when_full(stage: Stage, gate: Gate) -> None:
    buffered = Buffered(gate, capacity=2, overflow="fail")
    stage.batches.subscribe(buffered)
    stage.send("a")
    assert gate.entered.acquire(timeout=PATIENCE)
    stage.send("b", "c", "d")
    assert buffered.queued == 2
    assert stage.acks.bad == ["d"]
    gate.let_on.release(10)
    stage.acks.wait_for(4)
    assert stage.acks.good == ["a", "b", "c"]


@pytest.mark.parametrize("fault", [None, ValueError("source")])
def test_queued_batches_are_delivered_before_the_end(
    stage: Stage, gate: Gate, fault: Exception | None
) -> None:
    stage.batches.subscribe(Buffered(gate))
    stage.send("a", "b", "c")
    threading.Timer(0.01, gate.let_on.release, [10]).start()
    if fault is None:
        stage.source.on_completed()
    else:
        stage.source.on_error(fault)
    assert gate.got == ["a", "b", "c"]
    assert gate.ends == [fault or "completed"]
    assert stage.acks.good == ["a", "b", "c"]


def test_queued_batches_are_delivered_after_a_disposal(stage: Stage, gate: Gate) -> None:
    subscription = stage.batches.subscribe(Buffered(gate))
    stage.send("a", "b", "c")
    subscription.dispose()
    assert stage.stats() == (0, 0, 3)
    gate.let_on.release(10)
    stage.acks.wait_for(3)
    assert stage.acks.good == ["a", "b", "c"]


def test_on_completed_waits_for_the_queue_after_a_disposal(stage: Stage, gate: Gate) -> None:
    buffered = Buffered(gate)
    subscription = stage.batches.subscribe(buffered)
    stage.send("a", "b", "c")
    subscription.dispose()
    threading.Timer(0.01, gate.let_on.release, [10]).start()
    buffered.on_completed()
    assert stage.acks.good == ["a", "b", "c"]
    assert gate.ends == ["completed"]


def test_drain_waits_for_the_queue(gate: Gate) -> None:
    source: Subject[Message[Any]] = Subject()
    buffered = Buffered(gate)
    pipeline = Pipeline(source, batchers={"default": Batcher(buffered, size=1)}).start()
    acks = Acks()
    for text in "abc":
        source.on_next(Message(text).with_acknowledger(acks))
    threading.Timer(0.01, gate.let_on.release, [10]).start()
    stats = pipeline.stop()
    assert (stats.batched, stats.unsettled) == (3, 0)
    assert acks.good == ["a", "b", "c"]
    assert gate.ends == ["completed"]


def test_subscriber_can_end_the_stream_from_its_queue(stage: Stage) -> None:
    ended = threading.Event()

    class Ending(rxtweets.Subscriber[Any]):
        def on_next(self, _: Batch[Any]) -> None:
            stage.source.on_completed()

        def on_completed(self) -> None:
            ended.set()

    stage.batches.subscribe(Buffered(Ending()))
    stage.send("a")
    assert ended.wait(PATIENCE)
    stage.acks.wait_for(1)
    assert stage.acks.good == ["a"]


def test_batch_for_two_subscribers_fails_when_one_fails(stage: Stage, gate: Gate) -> None:
    good, picky = Buffered(lambda _: None), Buffered(gate)

    def both(batch: Batch[Any]) -> None:
        good.on_next(batch)
        picky.on_next(batch)

    stage.batches.subscribe(both)
    stage.send("a", "bad")
    assert stage.acks.good == []
    gate.let_on.release(2)
    stage.acks.wait_for(2)
    assert (stage.acks.good, stage.acks.bad) == (["a"], ["bad"])


def test_batch_fails_when_subscriber_raises_after_take_over(stage: Stage) -> None:
    aside = Buffered(lambda _: None)

    def torn(batch: Batch[Any]) -> None:
        aside.on_next(batch)
        raise ValueError("after")

    stage.batches.subscribe(torn)
    stage.send("a")
    stage.acks.wait_for(1)
    assert (stage.acks.good, stage.acks.bad) == ([], ["a"])


def test_error_of_on_completed_is_counted(stage: Stage) -> None:
    class Raising(rxtweets.Subscriber[Any]):
        def on_next(self, batch: Batch[Any]) -> None: ...

        def on_completed(self) -> None:
            raise ValueError("end")

    stage.batches.subscribe(Buffered(Raising()))
    stage.source.on_completed()
    assert stage.batches.stats().subscriber_errors == 1


def test_system_exit_does_not_end_the_queue(stage: Stage) -> None:
    def leaving(batch: Batch[Any]) -> None:
        if batch[0].data == "a":
            raise SystemExit

    stage.batches.subscribe(Buffered(leaving))
    stage.send("a", "b")
    stage.source.on_completed()
    assert (stage.acks.good, stage.acks.bad) == (["b"], ["a"])


def test_batches_are_settled_once_under_races(stage: Stage) -> None:
    flaky = Buffered(Buffered(lambda batch: 1 // (int(batch[0].data) % 3)), capacity=3)
    stage.batches.subscribe(flaky)
    stage.send(*map(str, range(300)))
    stage.source.on_completed()
    assert sorted(map(int, stage.acks.good + stage.acks.bad)) == list(range(300))
    assert stage.stats() == (200, 100, 0)


def test_buffered_refuses_invalid_arguments() -> None:
    wrongs: list[dict[str, Any]] = [{"capacity": 0}, {"overflow": "drop"}]
    for wrong in wrongs:
        with pytest.raises(rxtweets.ConfigurationError):
            Buffered(print, **wrong)
    with pytest.raises(rxtweets.ConfigurationError):
        Buffered("no subscriber")  # type: ignore[arg-type]  # that is the point


# Retrying.


class Flaky(rxtweets.Subscriber[Any]):
    """Raises a number of times."""

    def __init__(self, faults: int) -> None:
        super().__init__()
        self.faults = faults
        self.calls = 0
        self.got: list[str] = []
        self.ended = False

    def on_next(self, batch: Batch[Any]) -> None:
        self.calls += 1
        if self.calls <= self.faults:
            raise TimeoutError(f"call {self.calls}")
        self.got += [message.data for message in batch]

    def on_completed(self) -> None:
        self.ended = True


def test_subscriber_is_retried_by_the_policy(stage: Stage, tmp_path: Path) -> None:
    pauses: list[float] = []
    flaky = Flaky(2)
    retrying = Retrying(
        flaky,
        wait=tenacity.wait_exponential(1),
        dead_letters=tmp_path / "dead.jsonl",
        sleep=pauses.append,
    )
    stage.batches.subscribe(retrying)
    stage.send("a")
    assert flaky.got == stage.acks.good == ["a"]
    assert pauses == [1, 2]
    assert (retrying.retried, retrying.dead_lettered) == (2, 0)
    assert not (tmp_path / "dead.jsonl").exists()
    stage.source.on_completed()
    assert flaky.ended


def test_dead_letter_is_written_before_the_batch_fails(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    flaky = Flaky(3)
    retrying = Retrying(
        flaky, stop=tenacity.stop_after_attempt(3), dead_letters=path, sleep=lambda _: None
    )
    failures: list[events.Event] = []
    stage.batches.events.subscribe(failures.append)
    stage.batches.subscribe(retrying)
    stage.send("a", "b")
    assert (stage.acks.good, stage.acks.bad) == (["b"], ["a"])
    assert stage.stats() == (1, 1, 0)
    assert retrying.dead_lettered == 1
    [letter] = read_dead_letters(path)
    assert [message.data for message in letter.batch] == ["a"]
    assert (letter.error, letter.attempts) == ("TimeoutError: call 3", 3)
    assert stage.batches.telemetry.bus.flush()
    [failed] = [failure for failure in failures if isinstance(failure, events.BatchFailed)]
    assert str(path) in str(failed.error)
    assert isinstance(failed.error.__cause__, TimeoutError)


def test_messages_returned_as_failed_are_a_dead_letter(stage: Stage, tmp_path: Path) -> None:
    def picky(batch: Batch[Any]) -> list[Message[Any]]:
        return [message.failed("bad") if message.data == "bad" else message for message in batch]

    retrying = Retrying(picky, dead_letters=tmp_path / "dead.jsonl")
    stage.batches.subscribe(retrying)
    stage.send("a", "bad", "c")
    assert (stage.acks.good, stage.acks.bad) == (["a", "c"], ["bad"])
    assert retrying.dead_lettered == 1
    [letter] = read_dead_letters(tmp_path / "dead.jsonl")
    assert [message.data for message in letter.batch] == ["bad"]
    assert "reason='bad'" in letter.error


def test_returned_coroutine_fails_the_batch(stage: Stage) -> None:
    async def post(_: Batch[Any], __: str) -> None: ...

    stage.batches.subscribe(Retrying(lambda batch: post(batch, "there")))
    stage.send("a")
    assert (stage.acks.good, stage.acks.bad) == ([], ["a"])


@pytest.mark.parametrize("wrap", [Buffered, Retrying])
def test_async_subscriber_is_refused(wrap: Any) -> None:
    async def post(_: Batch[Any]) -> None: ...

    class Posting(rxtweets.Subscriber[Any]):
        async def on_next(self, batch: Batch[Any]) -> None: ...  # type: ignore[override]  # the point

    for subscriber in (post, Posting()):
        with pytest.raises(rxtweets.ConfigurationError, match="async"):
            wrap(subscriber)


def test_unretried_error_is_a_dead_letter_immediately(stage: Stage) -> None:
    letters: list[DeadLetter] = []
    flaky = Flaky(1)
    policy = tenacity.retry_if_not_exception_type(TimeoutError)
    stage.batches.subscribe(Retrying(flaky, retry=policy, dead_letters=letters.append))
    stage.send("a")
    assert (flaky.calls, letters[0].attempts) == (1, 1)


def test_batch_fails_with_both_errors_when_file_fails(stage: Stage) -> None:
    def full(_: DeadLetter) -> None:
        raise OSError("disk full")

    failures: list[events.Event] = []
    stage.batches.events.subscribe(failures.append)
    stage.batches.subscribe(Retrying(Flaky(9), dead_letters=full, sleep=lambda _: None))
    stage.send("a")
    assert stage.acks.bad == ["a"]
    assert stage.batches.telemetry.bus.flush()
    [failed] = [failure for failure in failures if isinstance(failure, events.BatchFailed)]
    assert "disk full" in str(failed.error)
    assert "TimeoutError" in str(failed.error)


def test_retries_behind_a_queue_block_no_other_subscriber(stage: Stage, tmp_path: Path) -> None:
    waiting, let_on = threading.Event(), threading.Event()

    def sleep(_: float) -> None:
        waiting.set()
        assert let_on.wait(PATIENCE)

    quick: list[str] = []
    flaky = Flaky(1)
    stage.batches.subscribe(
        Buffered(Retrying(flaky, sleep=sleep, dead_letters=tmp_path / "dead.jsonl"))
    )
    stage.batches.subscribe(lambda batch: quick.append(batch[0].data))
    stage.send("a", "b")
    assert waiting.wait(PATIENCE)
    assert quick == ["a", "b"]
    let_on.set()
    stage.source.on_completed()
    assert flaky.got == ["a", "b"]


@pytest.mark.parametrize(
    ("subscriber", "options", "message"),
    [
        (print, {"stop": 3}, r"stop=3: .*tenacity\.stop_after_attempt"),
        (print, {"wait": 0.5}, "wait=0.5"),
        (print, {"retry": ValueError("x")}, "retry="),
        (print, {"stop": tenacity.stop_after_attempt}, "stop=.* is a class"),
        (print, {"sleep": 1}, "sleep=1"),
        (print, {"dead_letters": "missing/where"}, "missing"),
        (print, {"dead_letters": "x.gz"}, "not compressed"),
        (print, {"dead_letters": 7}, "dead_letters=7"),
        (Buffered(print), {}, r"Buffered\(Retrying"),
        (rxtweets.Subscriber, {}, "give an instance"),
    ],
)
def test_retrying_refuses_invalid_arguments(
    subscriber: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(rxtweets.ConfigurationError, match=message):
        Retrying(subscriber, **({"dead_letters": print} | options))


# Dead letters.


def letter_of(messages: list[Message[Any]]) -> DeadLetter:
    from datetime import UTC, datetime

    return DeadLetter(Batch(messages, "timeout", "alerts"), "E: x", 2, datetime.now(UTC))


def test_dead_letters_return_equal_messages(
    tmp_path: Path, tweets: Make, events: list[Message[Any]]
) -> None:
    path = tmp_path / "dead.jsonl"
    file = DeadLetterFile(path)
    changed = [message.update_data(str.upper) for message in tweets(3)]
    letters = [letter_of(changed), letter_of(events)]
    for letter in letters:
        file(letter)
    back = list(read_dead_letters(path))
    assert [(letter.error, letter.attempts, letter.at) for letter in back] == [
        (letter.error, letter.attempts, letter.at) for letter in letters
    ]
    assert [letter.batch.info for letter in back] == [letter.batch.info for letter in letters]
    for one, other in zip(back, letters, strict=True):
        for got, sent in zip(one.batch, other.batch, strict=True):
            assert (got.data, got.id, got.raw, got.received_at) == (
                sent.data,
                sent.id,
                sent.raw,
                sent.received_at,
            )


def test_dead_letters_can_be_replayed(tmp_path: Path, tweets: Make) -> None:
    DeadLetterFile(tmp_path / "dead.jsonl")(letter_of(tweets(3)))
    back = rxtweets.replay(tmp_path / "dead.jsonl", None).to_list().run()
    assert [message.raw for message in back] == [message.raw for message in tweets(3)]


def test_incomplete_dead_letter_is_skipped(tmp_path: Path, tweets: Make) -> None:
    path = tmp_path / "dead.jsonl"
    file = DeadLetterFile(path)
    file(letter_of(tweets(2)))
    path.write_bytes(path.read_bytes() + b'{"id":"1","rec')
    assert len(list(read_dead_letters(path))) == 1
    file(letter_of(tweets(2, 2)))
    assert [letter.batch[0].id for letter in read_dead_letters(path)] == [
        tweets(1)[0].id,
        tweets(1, 2)[0].id,
    ]


def test_removed_dead_letter_file_is_made_again(tmp_path: Path, tweets: Make) -> None:
    file = DeadLetterFile(tmp_path / "dead.jsonl")
    file(letter_of(tweets(1)))
    file.path.unlink()
    file(letter_of(tweets(1, 1)))
    assert [letter.batch[0].id for letter in read_dead_letters(file.path)] == [tweets(1, 1)[0].id]


def test_missing_directory_fails_the_batch_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    retrying = Retrying(Flaky(9), dead_letters=tmp_path / "in" / "dead.jsonl", sleep=lambda _: None)
    (tmp_path / "in").rmdir()
    with pytest.raises(rxtweets.errors.SubscriberError, match=r"No such file.*in/dead\.jsonl"):
        retrying.on_next(Batch([Message("a")]))


def test_other_json_is_no_dead_letter(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"id":"1"}\n')
    with pytest.raises(rxtweets.errors.DecodeError, match="no dead letter"):
        list(read_dead_letters(tmp_path / "x.jsonl"))


@pytest.mark.parametrize("value", [b"1e400", b"[" * 2_000 + b"]" * 2_000])
def test_dead_letter_is_read_when_orjson_refuses_its_line(value: bytes, tmp_path: Path) -> None:
    line = b'{"data":{"id":"1","text":"a","x":%s}}' % value
    [message] = Decoder(fast=True).decode([line]).messages
    letters = DeadLetterFile(tmp_path / "x.jsonl")
    letters(DeadLetter(Batch([message]), "error", 1, datetime.now(UTC)))
    [letter] = read_dead_letters(tmp_path / "x.jsonl")
    assert letter.batch[0].raw == line


def test_jq_reads_dead_letters(tmp_path: Path, tweets: Make, tool: Callable[..., str]) -> None:
    DeadLetterFile(tmp_path / "dead.jsonl")(letter_of(tweets(2)))
    assert tool("jq", "-r", ".failed.error", tmp_path / "dead.jsonl") == "E: x\nE: x"
