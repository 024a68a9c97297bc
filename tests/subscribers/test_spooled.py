"""`Spooled`: batches on disk while a subscriber is away."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tenacity

from rxtweets import Batch, Batcher, Message, Pipeline, brokers, from_iterable
from rxtweets._messages.jsonl import to_lines
from rxtweets.errors import BrokerUnavailable, ConfigurationError, SubscriberError
from rxtweets.subscribers import (
    Buffered,
    PostgresSubscriber,
    Spooled,
    WebhookSubscriber,
    read_dead_letters,
)

PATIENCE = 20.0


class Store:
    """A subscriber that is away until it is back."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.error: Exception | None = None
        self.got: list[Any] = []
        self.calls = 0
        self.ends = 0
        self.refused: dict[Any, Exception] = {}

    def __call__(self, batch: Batch[Any]) -> Any:
        with self.changed:
            self.calls += 1
            self.changed.notify_all()
            if self.error is not None:
                raise self.error
            self.got += [one.data for one in batch if one.data not in self.refused]
            if any(one.data in self.refused for one in batch):
                return [
                    one.failed(self.refused[one.data]) if one.data in self.refused else one
                    for one in batch
                ]
        return None

    def on_completed(self) -> None:
        self.ends += 1

    on_next = __call__

    def is_away(self, error: Exception | None) -> None:
        with self.changed:
            self.error = error

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def spooled(store: Store, tmp_path: Path) -> Iterator[Spooled]:
    spooled = Spooled(store, tmp_path / "spool", wait=tenacity.wait_fixed(0.01))
    yield spooled
    spooled.on_completed()


def batch(*data: Any) -> Batch[Any]:
    return Batch([Message(one, {"id": str(one)}) for one in data])


def test_batches_pass_while_the_subscriber_is_there(store: Store, spooled: Spooled) -> None:
    spooled.on_next(batch(1, 2))
    assert (store.got, spooled.spooled) == ([1, 2], 0)


def test_batches_of_an_outage_arrive_in_order(store: Store, spooled: Spooled) -> None:
    spooled.on_next(batch(0))
    store.is_away(ConnectionError("away"))
    for number in range(1, 6):
        assert spooled.on_next(batch(number)) is None
    assert spooled.spooled == 5
    assert spooled.spooled_bytes > 0
    store.is_away(None)
    spooled.on_next(batch(6))
    store.wait_for(lambda: len(store.got) == 7)
    assert store.got == list(range(7))


def test_outage_and_its_end_are_reported_once(
    store: Store, spooled: Spooled, caplog: pytest.LogCaptureFixture
) -> None:
    store.is_away(ConnectionError("away"))
    spooled.on_next(batch(1))
    spooled.on_next(batch(2))
    store.wait_for(lambda: store.calls > 3)
    store.is_away(None)
    spooled.on_completed()
    lost, back = caplog.messages
    assert "is away, batches go to" in lost
    assert "is back, and has the batches of" in back


def test_spool_is_empty_after_the_end(store: Store, spooled: Spooled) -> None:
    store.is_away(ConnectionError("away"))
    spooled.on_next(batch(1))
    store.is_away(None)
    spooled.on_completed()
    assert (store.got, store.ends, spooled.spooled) == ([1], 1, 0)


def test_end_makes_a_last_attempt(store: Store, tmp_path: Path) -> None:
    store.is_away(ConnectionError("away"))
    spooled = Spooled(store, tmp_path, wait=tenacity.wait_fixed(600.0))
    spooled.on_next(batch(1))
    store.wait_for(lambda: store.calls == 2)
    store.is_away(None)
    spooled.on_completed()
    assert (store.got, spooled.spooled) == ([1], 0)


def test_end_does_not_wait_for_an_absent_subscriber(store: Store, spooled: Spooled) -> None:
    store.is_away(ConnectionError("away"))
    spooled.on_next(batch(1))
    spooled.on_completed()
    assert (store.got, spooled.spooled) == ([], 1)


def test_next_run_delivers_spooled_batches_first(store: Store, tmp_path: Path) -> None:
    store.is_away(ConnectionError("away"))
    first = Spooled(store, tmp_path)
    first.on_next(batch("a", "é"))
    first.on_completed()
    store.is_away(None)
    second = Spooled(store, tmp_path)
    second.on_next(batch("c"))
    second.on_completed()
    assert store.got == ["a", "é", "c"]


def test_messages_keep_line_time_and_metadata(tmp_path: Path) -> None:
    line = b'{"data":{"id":"7","text":"hola","lang":"es"},\r"x":1}'
    got: list[Message[Any]] = []
    away = [ConnectionError("away")]

    def take(batch: Batch[Any]) -> None:
        if away:
            raise away[0]
        got.extend(batch)

    spooled = Spooled(take, tmp_path, wait=tenacity.wait_fixed(0.01))
    spooled.on_next(Batch([Message.from_line(line, 12.5).update_data(str.upper)]))
    away.clear()
    spooled.on_completed()
    [message] = got
    assert (message.data, message.raw, message.received_at) == ("HOLA", line, 12.5)
    assert message.metadata["lang"] == "es"


def test_batch_beyond_the_bound_fails(store: Store, tmp_path: Path) -> None:
    store.is_away(ConnectionError("away"))
    spooled = Spooled(store, tmp_path, max_bytes=100)
    spooled.on_next(batch(1))
    with pytest.raises(SubscriberError, match="is full"):
        spooled.on_next(batch(*range(100)))
    assert spooled.spooled == 1
    spooled.on_completed()


def test_other_errors_fail_the_batch(store: Store, spooled: Spooled) -> None:
    store.is_away(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        spooled.on_next(batch(1))
    assert spooled.spooled == 0


def test_refused_spooled_batch_becomes_a_dead_letter(
    store: Store, spooled: Spooled, tmp_path: Path
) -> None:
    store.is_away(ConnectionError("away"))
    spooled.on_next(batch(1, 2))
    store.is_away(ValueError("no"))
    spooled.on_completed()
    [letter] = read_dead_letters(tmp_path / "spool" / "dead-letters.jsonl")
    assert [message.data for message in letter.batch] == [1, 2]
    assert letter.error == "ValueError: no"
    assert (spooled.spooled, spooled.dead_lettered) == (0, 2)


def test_refused_spooled_message_becomes_a_dead_letter(
    store: Store, spooled: Spooled, tmp_path: Path
) -> None:
    store.is_away(ConnectionError("away"))
    spooled.on_next(batch(1, 2, 3))
    store.refused = {2: ValueError("no")}
    store.is_away(None)
    spooled.on_completed()
    [letter] = read_dead_letters(tmp_path / "spool" / "dead-letters.jsonl")
    assert [message.data for message in letter.batch] == [2]
    assert store.got == [1, 3]


def test_messages_that_met_no_broker_are_spooled(store: Store, spooled: Spooled) -> None:
    store.refused = {2: BrokerUnavailable("away"), 3: ValueError("no")}
    returned = spooled.on_next(batch(1, 2, 3))
    assert [one.is_failed for one in returned] == [False, False, True]
    assert spooled.spooled == 1
    store.refused = {}
    store.wait_for(lambda: store.got == [1, 2])


@pytest.mark.parametrize(
    "kind",
    [
        lambda once: PostgresSubscriber("postgresql://u@127.0.0.1:1/x", stop=once),
        lambda once: WebhookSubscriber("http://127.0.0.1:1/hook", stop=once),
    ],
    ids=["postgres", "webhook"],
)
def test_stores_that_cannot_be_reached_are_away(kind: Any, tmp_path: Path) -> None:
    spooled = Spooled(kind(tenacity.stop_after_attempt(1)), tmp_path / "spool")
    assert spooled.on_next(Batch([Message("a")])) is None
    assert spooled.spooled == 1
    spooled.on_completed()


def test_partial_failure_keeps_the_order(store: Store, spooled: Spooled) -> None:
    store.is_away(ConnectionError("away"))
    for number in range(4):
        spooled.on_next(batch(2 * number, 2 * number + 1))
    store.refused = {0: BrokerUnavailable("away"), 1: ValueError("no")}
    store.is_away(None)
    store.wait_for(lambda: store.calls > 7)
    with store.changed:
        store.refused = {}
    spooled.on_completed()
    assert store.got == [0, 2, 3, 4, 5, 6, 7]
    assert (spooled.spooled, spooled.spooled_bytes, spooled.dead_lettered) == (0, 0, 1)


def test_partial_failure_fits_into_a_full_spool(store: Store, tmp_path: Path) -> None:
    store.is_away(ConnectionError("away"))
    size = len(to_lines(batch(1, 2)))
    spooled = Spooled(store, tmp_path, max_bytes=size, wait=tenacity.wait_fixed(0.01))
    spooled.on_next(batch(1, 2))
    store.refused = {2: BrokerUnavailable("away")}
    store.is_away(None)
    store.wait_for(lambda: store.got == [1])
    with store.changed:
        store.refused = {}
    spooled.on_completed()
    assert store.got == [1, 2]


@pytest.mark.parametrize("wait", [ZeroDivisionError(), math.inf, math.nan, -1.0, "soon"])
def test_end_is_reached_whatever_the_strategy_returns(
    store: Store, tmp_path: Path, wait: Any
) -> None:
    def strategy(_: tenacity.RetryCallState) -> Any:
        if isinstance(wait, Exception):
            raise wait
        return wait

    store.is_away(ConnectionError("away"))
    spooled = Spooled(store, tmp_path, wait=strategy)
    spooled.on_next(batch(1))
    spooled.on_completed()
    assert spooled.spooled == 1


def test_later_batch_follows_those_of_an_earlier_run(store: Store, spooled: Spooled) -> None:
    store.is_away(ConnectionError("away"))
    spooled.on_next(batch(1))
    spooled.on_completed()
    spooled.on_completed()
    store.is_away(None)
    spooled.on_next(batch(2))
    spooled.on_completed()
    assert store.got == [1, 2]


def test_subclass_of_a_driver_error_means_away(store: Store, spooled: Spooled) -> None:
    class OperationalError(Exception):
        pass

    class AdminShutdown(OperationalError):
        pass

    store.is_away(AdminShutdown("terminating connection"))
    assert spooled.on_next(batch(1)) is None
    assert spooled.spooled == 1


def test_spool_delivers_later_when_no_thread_starts(
    store: Store, spooled: Spooled, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("can't start new thread")

    store.is_away(ConnectionError("away"))
    monkeypatch.setattr("rxtweets.subscribers._spooled.start_thread", refuse)
    with pytest.raises(RuntimeError):
        spooled.on_next(batch(1))
    spooled.on_completed()  # does not wait for a thread that does not run
    monkeypatch.undo()
    store.is_away(None)
    spooled.on_next(batch(2))
    spooled.on_completed()
    assert store.got == [1, 2]


def test_second_process_is_refused_the_directory(tmp_path: Path, spooled: Spooled) -> None:
    program = "import sys; from rxtweets.subscribers import Spooled; Spooled(print, sys.argv[1])"
    command = [sys.executable, "-c", program, str(tmp_path / "spool")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "another process uses this spool" in ran.stderr
    del spooled


def test_killed_process_leaves_its_batches(tmp_path: Path) -> None:
    program = """
import os, sys
from rxtweets import Batch, Message
from rxtweets.subscribers import Spooled

def take(batch):
    raise ConnectionError

spooled = Spooled(take, sys.argv[1])
for number in range(50):
    spooled.on_next(Batch([Message(number, {"id": str(number)})]))
os._exit(9)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    assert subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 9
    got: list[Any] = []
    spooled = Spooled(lambda batch: got.extend(one.data for one in batch), tmp_path)
    spooled.on_completed()
    assert got == list(range(50))


def test_directory_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="no spool can be kept"):
        Spooled(print, tmp_path / "file")
    with pytest.raises(ConfigurationError, match="Buffered"):
        Spooled(Buffered(print), tmp_path)


def test_pipeline_loses_nothing_in_an_outage(store: Store, tmp_path: Path) -> None:
    store.is_away(ConnectionError("away"))
    spooled = Spooled(store, tmp_path, wait=tenacity.wait_fixed(0.01))
    stats = Pipeline(
        from_iterable(range(500)), batchers={"default": Batcher(spooled, size=10, timeout=0.1)}
    ).run()
    assert (stats.batched, stats.batched_failed) == (500, 0)
    assert spooled.spooled == 500
    store.is_away(None)
    Spooled(store, tmp_path).on_completed()
    assert store.got == list(range(500))


def test_publisher_spools_while_its_broker_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = brokers.connect(f"memory:{tmp_path.name}")
    ensure = queue.engine.ensure

    def refused(*_: object) -> None:
        raise BrokerUnavailable("away")

    monkeypatch.setattr(queue.engine, "ensure", refused)
    publisher = queue.publisher(spool=tmp_path)
    publisher.on_next(batch(1, 2))
    assert isinstance(publisher, Spooled)
    assert publisher.spooled == 2
    monkeypatch.setattr(queue.engine, "ensure", ensure)
    publisher.on_completed()
    assert queue.backlog()[""].pending == 2
