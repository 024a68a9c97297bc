"""What is special about a queue in a file: its faults, its size, and processes that are killed."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from rxtweets import Batch, Message, brokers
from rxtweets.brokers import Engine, Envelope, Receiver, Sender, Subscription
from rxtweets.brokers._engines import sqlite, sqlite_file
from rxtweets.errors import BrokerUnavailable, ConfigurationError, QueueSettingsError
from rxtweets.subscribers import SQLiteSubscriber
from tests.brokers.engine_contract import envelopes, take
from tests.brokers.waiting import eventually


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tweets.queue"


@pytest.fixture
def engine(path: Path) -> Engine:
    engine = brokers.connect(f"sqlite:{path}").engine
    engine.ensure(["workers"])
    return engine


@contextmanager
def sending(engine: Engine) -> Iterator[Sender]:
    sender = engine.sender()
    try:
        yield sender
    finally:
        sender.close()


@contextmanager
def receiving(engine: Engine, group: str = "workers", lease: float = 30.0) -> Iterator[Receiver]:
    receiver = engine.receiver(Subscription(group, lease, 1000, 5))
    try:
        yield receiver
    finally:
        receiver.close()


@contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of another program."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0.0)) as connection:
        yield connection


def connection_of(part: Any) -> sqlite3.Connection:
    connection = part._file._connection
    assert isinstance(connection, sqlite3.Connection)
    return connection


# The URL.


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite:q?sync=fast", "sync='fast'"),
        ("sqlite:q?dedupe=soon", "dedupe='soon'"),
        ("sqlite:q?dedupe=-1", "dedupe='-1'"),
        ("sqlite:q?replicas=3", "replicas"),
        ("sqlite://host/q", "no host"),
        ("sqlite:missing/q", "existing directory"),
        ("sqlite:.", "name of a file"),
    ],
)
def test_invalid_url_is_refused(
    url: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=reason):
        brokers.connect(url)


def test_password_in_the_url_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        brokers.connect("sqlite://user:secret@host/q")
    assert "secret" not in str(caught.value)


def test_relative_path_stays_after_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    engine = brokers.connect("sqlite:tweets.queue").engine
    monkeypatch.chdir("/")
    engine.ensure()
    assert (tmp_path / "tweets.queue").exists()


# Files that are no queue, or cannot be used.


def test_database_of_another_program_is_refused(path: Path) -> None:
    with SQLiteSubscriber(path, search=False) as store:
        store.on_next(Batch([Message("text")]))
    before = path.read_bytes()
    with pytest.raises(QueueSettingsError, match=rf"{path}: application_id is 0, .* no queue"):
        brokers.connect(f"sqlite:{path}").engine.ensure()
    assert path.read_bytes() == before


def test_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b'{"data":{"id":"1","text":"a recording"}}\n' * 100)
    before = path.read_bytes()
    with pytest.raises(QueueSettingsError, match=rf"{path}: file is not a database"):
        brokers.connect(f"sqlite:{path}").engine.ensure()
    assert path.read_bytes() == before


def test_queue_of_another_version_is_refused(engine: Engine, path: Path) -> None:
    with raw(path) as connection:
        connection.execute("PRAGMA user_version = 3")
    with pytest.raises(QueueSettingsError, match=rf"{path}: user_version is 3, .* needs 2"):
        engine.ensure()


def test_damaged_file_is_refused(engine: Engine, path: Path) -> None:
    with sending(engine) as sender:
        sender.put(envelopes(500))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with (
        pytest.raises(QueueSettingsError, match=rf"{path}: .*malformed"),
        sending(engine) as sender,
    ):
        sender.put(envelopes(1, 500))


def test_empty_file_becomes_a_queue(path: Path) -> None:
    path.touch()
    engine = brokers.connect(f"sqlite:{path}").engine
    engine.ensure()
    assert engine.backlog()[""].pending == 0


def test_locked_file_is_unavailable_until_it_is_unlocked(
    engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "PATIENCE", 0.1)
    with sending(engine) as sender, receiving(engine) as receiver, raw(path) as other:
        sender.put(envelopes(5))
        [first] = receiver.take(1, 1.0)
        other.execute("BEGIN IMMEDIATE")
        for call in (
            lambda: sender.put(envelopes(1, 5)),
            lambda: receiver.take(1, 0.0),
            lambda: receiver.acknowledge([first]),
        ):
            with pytest.raises(BrokerUnavailable, match=rf"{path}: database is locked; another"):
                call()
        receiver.release([first])  # raises nothing
        other.execute("ROLLBACK")
        assert sender.put(envelopes(1, 5)) == [None]
        assert receiver.acknowledge([first, *take(receiver, 5)]) == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("PRAGMA max_page_count = 1", "database or disk is full"),
        ("PRAGMA query_only = 1", "attempt to write a readonly database"),
    ],
)
def test_file_that_cannot_be_written_is_unavailable(
    engine: Engine, path: Path, fault: str, reason: str
) -> None:
    with sending(engine) as sender, receiving(engine) as receiver:
        sender.put(envelopes(5))
        connection_of(sender).execute(fault)
        with pytest.raises(BrokerUnavailable, match=rf"{path}: {reason}"):
            sender.put(envelopes(500, 5))
        assert len(receiver.take(1000, 0.0)) == 5
        assert sender.put(envelopes(500, 5)) == [None] * 500
        assert len(take(receiver, 500)) == 500


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no directory in which root cannot write")
def test_directory_without_permission_is_named() -> None:
    with (
        closing(brokers.connect("sqlite:/proc/tweets.queue")) as queue,  # no user may write there
        pytest.raises(BrokerUnavailable, match=r"^/proc/tweets\.queue: .*write in its directory"),
    ):
        queue.ensure()


def test_removed_file_is_created_again(
    engine: Engine, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with sending(engine) as sender, receiving(engine) as receiver:
        sender.put(envelopes(5))
        [old] = receiver.take(1, 1.0)
        for file in path.parent.glob("tweets.queue*"):
            file.unlink()
        assert sender.put(envelopes(3, 5)) == [None] * 3
        assert receiver.acknowledge([old]) == [old]
        assert {one.key for one in take(receiver, 3)} == {"key5", "key6", "key7"}
    assert f"{path} was removed or replaced" in caplog.text


def test_closed_sender_is_unavailable(engine: Engine, path: Path) -> None:
    with sending(engine) as sender:
        sender.put(envelopes(1))
    sender.close()
    with pytest.raises(BrokerUnavailable, match=rf"{path}: .*closed"):
        sender.put(envelopes(1, 1))


# What is kept, and for how long.


def rows(path: Path, *tables: str) -> dict[str, int]:
    with raw(path) as connection:
        return {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in tables
        }


def test_acknowledged_messages_leave_no_rows(engine: Engine, path: Path) -> None:
    engine.ensure(["a", "b"])
    with sending(engine) as sender:
        sender.put(envelopes(20))
    for group, left in (("workers", 20), ("a", 20), ("b", 0)):
        with receiving(engine, group) as receiver:
            assert receiver.acknowledge(take(receiver, 20)) == []
        assert rows(path, "messages", "held") == {"messages": left, "held": 0}


def test_later_group_starts_where_the_slowest_is(engine: Engine) -> None:
    with sending(engine) as sender:
        sender.put(envelopes(10))
    with receiving(engine) as receiver:
        receiver.acknowledge(take(receiver, 4))
    engine.ensure(["late"])
    assert {name: one.pending for name, one in engine.backlog().items()} == {
        "workers": 6,
        "late": 6,
    }
    with receiving(engine, "late") as receiver:
        assert [one.key for one in take(receiver, 6)] == [f"key{n}" for n in range(4, 10)]


def test_numbers_are_not_used_again_after_a_restart(engine: Engine) -> None:
    for start in (0, 5):
        with sending(engine) as sender, receiving(engine) as receiver:
            sender.put(envelopes(5, start))
            taken = take(receiver, 5)
            assert [one.native_id for one in taken] == [str(start + n) for n in range(1, 6)]
            receiver.acknowledge(taken)


def test_messages_after_a_purge_are_delivered(engine: Engine) -> None:
    with sending(engine) as sender, receiving(engine) as receiver:
        sender.put(envelopes(10))
        taken = take(receiver, 4)
        assert engine.purge() == 10
        assert receiver.acknowledge(taken) == taken
        sender.put(envelopes(3, 10))
        assert engine.backlog()["workers"].pending == 3
        assert receiver.acknowledge(take(receiver, 3)) == []


def test_backlog_without_a_group_counts_all_messages(path: Path) -> None:
    engine = brokers.connect(f"sqlite:{path}").engine
    engine.ensure()
    with sending(engine) as sender:
        sender.put(envelopes(7))
    [(name, backlog)] = engine.backlog().items()
    assert (name, backlog.pending, backlog.in_flight) == ("", 7, 0)
    assert backlog.oldest_age is not None


def test_key_is_forgotten_after_its_time(
    engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = time.time()
    with sending(engine) as sender:
        for elapsed, stored in ((0.0, 5), (599.0, 5), (601.0, 10)):
            monkeypatch.setattr(time, "time", lambda elapsed=elapsed: start + elapsed)
            sender.put(envelopes(5))
            assert engine.backlog()["workers"].pending == stored
        monkeypatch.setattr(time, "time", lambda: start + 2000.0)
        sender.put(envelopes(5, 5))
    assert rows(path, "keys") == {"keys": 5}


def test_equal_keys_of_one_batch_are_stored_once(engine: Engine) -> None:
    first, second = envelopes(2)
    with sending(engine) as sender, receiving(engine) as receiver:
        copy = Envelope(first.key, b"another body", {})
        assert sender.put([first, second, copy]) == [None] * 3
        assert [one.body for one in take(receiver, 2)] == [first.body, second.body]


def test_all_copies_are_stored_without_dedupe(path: Path) -> None:
    engine = brokers.connect(f"sqlite:{path}?dedupe=0").engine
    engine.ensure(["workers"])
    with sending(engine) as sender:
        sender.put(envelopes(5))
        sender.put(envelopes(5))
    assert engine.backlog()["workers"].pending == 10


def test_dead_letters_are_in_a_file_beside(engine: Engine, path: Path) -> None:
    dead = engine.dead_letters()
    dead.ensure(["dead"])
    assert dead.queue == "tweets.queue.dead"
    assert path.with_name("tweets.queue.dead").exists()


def test_log_stays_short_while_messages_pass(
    engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "LONG_LOG", 2**18)
    monkeypatch.setattr(sqlite_file, "SHORTEN_EVERY", 0.0)
    log = Path(f"{path}-wal")
    with sending(engine) as sender, receiving(engine) as receiver:
        for start in range(0, 10_000, 100):
            sender.put(envelopes(100, start))
            receiver.acknowledge(take(receiver, 100))
            assert log.stat().st_size < 2**20
    with raw(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# Synchronisation with the disk.


@pytest.mark.parametrize(("options", "level"), [("", 2), ("?sync=full", 2), ("?sync=normal", 1)])
def test_publishing_waits_for_the_disk(path: Path, options: str, level: int) -> None:
    engine = brokers.connect(f"sqlite:{path}{options}").engine
    engine.ensure(["workers"])
    with sending(engine) as sender, receiving(engine) as receiver:
        sender.put(envelopes(1))
        take(receiver, 1)
        assert connection_of(sender).execute("PRAGMA synchronous").fetchone() == (level,)
        assert connection_of(receiver).execute("PRAGMA synchronous").fetchone() == (1,)
        assert connection_of(sender).execute("PRAGMA journal_mode").fetchone() == ("wal",)


# Leases.


def test_expired_lease_is_acknowledged_if_none_took_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = time.time()
    with sending(engine) as sender, receiving(engine) as first, receiving(engine) as second:
        sender.put(envelopes(2))
        taken = take(first, 2)
        monkeypatch.setattr(time, "time", lambda: start + 60.0)
        [again] = second.take(1, 0.0)
        assert first.acknowledge(taken) == taken[:1]
        assert second.acknowledge([again]) == []


def test_same_attempt_of_another_worker_is_not_acknowledged(engine: Engine) -> None:
    with sending(engine) as sender, receiving(engine) as first, receiving(engine) as second:
        sender.put(envelopes(1))
        stale = take(first, 1)
        first.release(stale)
        [taken] = take(second, 1)
        assert taken.attempt == stale[0].attempt
        assert first.acknowledge(stale) == stale
        assert second.acknowledge([taken]) == []


# Processes that are killed.

SETUP = """
import itertools, sys
from rxtweets import brokers
from rxtweets.brokers import Envelope, Subscription
from rxtweets.brokers._engines import sqlite_file

sqlite_file.LONG_LOG, sqlite_file.SHORTEN_EVERY = 2**18, 0.0
engine = brokers.connect(sys.argv[1]).engine
engine.ensure(["workers"])
"""
PUBLISH = f"""{SETUP}
sender = engine.sender()
for batch in itertools.count(int(sys.argv[2])):
    keys = [f"{{batch}}-{{number}}" for number in range(20)]
    assert not any(sender.put([Envelope(key, bytes(1000), {{}}) for key in keys]))
    print(batch, flush=True)
"""
WORK = f"""{SETUP}
receiver = engine.receiver(Subscription("workers", 1.0, 1000, 5))
while True:
    taken = receiver.take(30, 1.0)
    print(*(f"{{one.key}}:{{one.native_id}}" for one in taken), flush=True)
    receiver.acknowledge(taken)
"""


class Processes:
    """Programs that publish to a queue, and take from it."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._path = path
        self._stack = stack
        self.outputs: list[Path] = []

    def start(self, program: str, *arguments: object, output: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, f"sqlite:{self._path}", *map(str, arguments)]
        process = subprocess.Popen(command, stdout=output, text=True)
        self._stack.callback(end, process)
        return process

    def worker(self) -> subprocess.Popen[str]:
        self.outputs.append(self._path.with_name(f"worker{len(self.outputs)}"))
        with self.outputs[-1].open("w") as output:
            return self.start(WORK, output=output)

    def publisher(self, first: int) -> subprocess.Popen[str]:
        return self.start(PUBLISH, first, output=subprocess.PIPE)

    def taken(self) -> set[tuple[str, str]]:
        """Keys and numbers of all messages that workers had before they acknowledged them."""
        lines = [
            line for output in self.outputs for line in output.read_text().splitlines(keepends=True)
        ]
        # A line without its end is of a worker that was killed before it acknowledged.
        pairs = [one.partition(":") for line in lines if line[-1] == "\n" for one in line.split()]
        return {(key, number) for key, _, number in pairs}


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def kill_soon(process: subprocess.Popen[str], moments: random.Random) -> None:
    time.sleep(moments.uniform(0.0, 0.005))  # into a transaction, or between two
    end(process)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_message_is_missing_after_kills(engine: Engine, path: Path, seed: int) -> None:
    moments, confirmed = random.Random(seed), 0
    with ExitStack() as stack:
        processes = Processes(path, stack)
        workers = [processes.worker(), processes.worker()]
        for _ in range(4):
            confirmed = publish_until_killed(processes, workers, confirmed, moments)
        eventually(lambda: is_empty(engine), engine.backlog)
    taken = processes.taken()
    keys = [key for key, _ in taken]
    assert {f"{batch}-{number}" for batch in range(confirmed) for number in range(20)} <= set(keys)
    assert len(keys) == len(set(keys)), "a batch that was published again is stored once"
    with raw(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def publish_until_killed(
    processes: Processes,
    workers: list[subprocess.Popen[str]],
    first: int,
    moments: random.Random,
) -> int:
    """Publish from this batch on; kill a worker, then the publisher; return the next batch."""
    last_at = first + moments.randrange(20, 60)
    worker_at = moments.randrange(first, last_at)
    publisher = processes.publisher(first)
    assert publisher.stdout is not None
    batch = first - 1
    for line in publisher.stdout:
        batch = int(line)
        if batch == worker_at:
            kill_soon(workers.pop(0), moments)
            workers.append(processes.worker())
        if batch == last_at:
            time.sleep(moments.uniform(0.0, 0.005))
            publisher.send_signal(signal.SIGKILL)
    assert batch >= last_at
    return batch + 1


def is_empty(engine: Engine) -> bool:
    backlog = engine.backlog()["workers"]
    return (backlog.pending, backlog.in_flight) == (0, 0)


def test_backlog_of_one_key_does_not_hide_others(engine: Engine) -> None:
    behind = sqlite.SCAN // 2
    with sending(engine) as sender, receiving(engine) as receiver:
        key = [Envelope(f"a{n}", b"a", {"rxt-shard": "a"}) for n in range(behind)]
        sender.put([*key, Envelope("b", b"b", {"rxt-shard": "b"})])
        assert [one.body for one in receiver.take(1, 0.0)] == [b"a"]
        assert [one.body for one in receiver.take(1, 0.0)] == [b"b"]
        assert engine.backlog()["workers"].pending == behind - 1


def test_stale_ack_does_not_let_the_shard_continue(engine: Engine) -> None:
    with sending(engine) as sender, receiving(engine, lease=0.2) as first:
        sender.put([Envelope(f"key{n}", b"%d" % n, {"rxt-shard": "a"}) for n in range(3)])
        [stale] = take(first, 1)
        with receiving(engine) as second:
            [again] = take(second, 1)
            assert (again.body, again.attempt) == (stale.body, 2)
            assert first.acknowledge([stale]) == [stale]
            assert second.take(10, 0.0) == []
            second.acknowledge([again])
            assert [one.body for one in second.take(10, 0.0)] == [b"1"]


@pytest.mark.parametrize("statement", ["BUSY_SHARDS", "FREE_NEXT"])
def test_shards_are_looked_up_in_an_index(engine: Engine, path: Path, statement: str) -> None:
    del engine  # has made the file
    names = {"group": 1, "shards": "[]", "now": 0.0, "blocked": sqlite.BLOCKED}
    with raw(path) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {getattr(sqlite, statement)}", names)
        steps = [row[3].replace(" EXISTS", "") for row in plan]  # newer SQLite adds it
    assert "SEARCH held USING COVERING INDEX held_shard (grp=? AND shard=?)" in steps
    assert not any(step.startswith("SCAN held") for step in steps)
