"""`rxtweets work`: handlers, stores, and several processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO
from uuid import uuid4

import psutil
import pytest

from rxtweets import Batch, Message, brokers
from rxtweets.brokers._engines.memory import MemoryEngine
from rxtweets.cli import _work, main
from rxtweets.cli._stores import STORES, report_spools_left, spooled, store_of
from rxtweets.errors import BacklogUnknown, ConfigurationError
from rxtweets.subscribers import Store

COMMAND = [sys.executable, "-m", "rxtweets"]
PATIENCE = 30.0

HANDLERS = '''
import os, sys, time
from pathlib import Path

import rxtweets
from rxtweets import brokers

AT_ONCE = 2


def upcase(message):
    return message.update_data(str.upper)


async def reverse(message):
    return message.update_data(lambda text: text[::-1])


def poison(message):
    if int(message.id) % 2:
        raise ValueError("poison")
    return message


def pipeline(source):
    return rxtweets.Pipeline(source, handle_message=upcase, batchers={
        "default": rxtweets.Batcher(lambda batch: write(*(one.data for one in batch)))})


def nothing(source):
    return None


def count_taken(message):
    """Say how many messages are in flight."""
    queue = brokers.connect(f"memory:{brokers.delivery_of(message).queue}")
    write(queue.backlog()["g"].in_flight)
    return message


def waiting(message):
    """Say which process it is, and wait for a file."""
    write(os.getpid())
    until = time.monotonic() + 40
    while not Path("go").exists() and time.monotonic() < until:
        time.sleep(0.01)
    return message


def warning(message):
    """Wait for a file, and write to standard error."""
    while not Path("go").exists():
        time.sleep(0.01)
    os.write(2, b"look here\\n")
    return message


def write(*items):
    os.write(1, "".join(f"{item}\\n" for item in items).encode())
'''


@pytest.fixture(autouse=True)
def _backlog_is_checked_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_work, "CHECK", 0.05)


@pytest.fixture
def handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module in the current directory."""
    monkeypatch.chdir(tmp_path)
    name = f"handlers_{uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(HANDLERS)
    before = list(sys.path)
    yield name
    sys.path[:] = before
    sys.modules.pop(name, None)


@pytest.fixture
def memory() -> str:
    """The URL of a queue with six messages."""
    url = f"memory:{uuid4().hex}"
    publish(url, 6)
    return url


@pytest.fixture
def queue(tmp_path: Path) -> str:
    """The URL of a queue for several processes, with 400 messages."""
    url = f"sqlite:{tmp_path / 'q'}"
    publish(url, 400)
    return url


def publish(url: str, count: int) -> None:
    lines = [b'{"data":{"id":"%d","text":"text %d"}}' % (n, n) for n in range(count)]
    queue = brokers.connect(url, groups=["g"])
    publisher = queue.publisher()
    assert publisher.on_next(Batch([Message.from_line(line) for line in lines])) is None
    publisher.on_completed()
    queue.close()


def work(url: str, *arguments: str) -> int:
    return main(["work", url, *arguments, "--group", "g", "--until-empty"])


def test_until_empty_is_refused_when_the_backlog_is_unknown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(_: object) -> None:
        raise BacklogUnknown("Pub/Sub tells no backlog")

    monkeypatch.setattr(MemoryEngine, "backlog", unknown)
    assert work(f"memory:{uuid4().hex}", "operator:neg") == 1
    assert "Pub/Sub tells no backlog" in capsys.readouterr().err


def backlog(url: str) -> tuple[int, int, int]:
    """The messages that wait, that are in flight, and that are dead letters."""
    queue = brokers.connect(url)
    try:
        found = queue.backlog()["g"]
        return found.pending, found.in_flight, len(queue.dead_letters)
    finally:
        queue.close()


def texts(directory: Path) -> list[str]:
    return sorted(text for path in directory.glob("out*.jsonl") for text in texts_in(path))


def texts_in(path: Path) -> list[str]:
    return [json.loads(line)["data"] for line in path.read_text().splitlines()]


# In one process.


def test_messages_go_straight_to_the_store(
    memory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert work(memory, "--store", f"jsonl:{tmp_path / 'out.jsonl'}") == 0
    assert texts(tmp_path) == [f"text {n}" for n in range(6)]
    assert capsys.readouterr().err == (
        "workers 1 · delivered 6 · processed 0 · failed 0 · batches 1 · redelivered 0 · dead 0 · "
        "lost acks 0 · restarts 0\n"
    )


@pytest.mark.parametrize(("name", "first"), [("upcase", "TEXT 0"), ("reverse", "0 txet")])
def test_handler_of_the_current_directory_is_called(
    memory: str, handlers: str, tmp_path: Path, name: str, first: str
) -> None:
    assert work(memory, f"{handlers}:{name}", "--store", f"jsonl:{tmp_path / 'out.jsonl'}") == 0
    assert texts(tmp_path)[0] == first


def test_handler_works_without_a_store(memory: str, handlers: str) -> None:
    assert work(memory, f"{handlers}:upcase") == 0
    assert backlog(memory) == (0, 0, 0)


def test_function_of_a_source_makes_the_pipeline(
    memory: str, handlers: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert work(memory, f"{handlers}:pipeline") == 0
    assert sorted(capfd.readouterr().out.splitlines()) == [f"TEXT {n}" for n in range(6)]


def test_poison_becomes_a_dead_letter_and_is_replayed(
    memory: str, handlers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"jsonl:{tmp_path / 'out.jsonl'}"
    options = ("--on-failure", "dead_letter", "--store", store)
    assert work(memory, f"{handlers}:poison", *options) == 0
    assert "failed 3 " in capsys.readouterr().err.splitlines()[-1]
    assert backlog(memory) == (0, 0, 3)
    assert texts(tmp_path) == ["text 0", "text 2", "text 4"]
    assert main(["dead", memory, "replay"]) == 0
    assert work(memory, "--store", store) == 0
    assert backlog(memory) == (0, 0, 0)
    assert texts(tmp_path) == [f"text {n}" for n in range(6)]


def test_options_may_stand_before_the_handler(memory: str, handlers: str) -> None:
    assert work(memory, "--concurrency", "2", f"{handlers}:upcase") == 0


def test_failed_message_is_dead_after_max_deliver(memory: str, handlers: str) -> None:
    assert work(memory, f"{handlers}:poison", "--max-deliver", "1") == 0
    assert backlog(memory) == (0, 0, 3)


def test_messages_in_flight_have_a_limit(
    memory: str, handlers: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store = ("--store", f"jsonl:{tmp_path / 'out.jsonl'}", "--batch-timeout", "600")
    assert work(memory, f"{handlers}:count_taken", *store, "--max-in-flight", "1") == 0
    assert capfd.readouterr().out.split() == ["1"] * 6


def test_spool_keeps_batches_while_the_store_is_away(memory: str, tmp_path: Path) -> None:
    spool = ("--spool", str(tmp_path / "spool"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STORES, "console", STORES["console"]._replace(make=lambda _: Unreachable()))
        assert work(memory, "--store", "console", *spool) == 0
    assert backlog(memory) == (0, 0, 0)
    publish(memory, 7)  # six of them are known
    assert work(memory, "--store", f"jsonl:{tmp_path / 'out.jsonl'}", *spool) == 0
    assert texts(tmp_path) == [f"text {n}" for n in range(7)]


class Unreachable(Store):
    def on_next(self, batch: Batch[object]) -> None:
        del batch
        raise ConnectionRefusedError("away")

    def close(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give MODULE:NAME, --store, or both"),
        (["HANDLERS"], "give MODULE:NAME"),
        (["no_such_module:f"], "No module named 'no_such_module'"),
        (["HANDLERS:absent"], "no attribute 'absent'"),
        (["HANDLERS:AT_ONCE"], "is no function, but int"),
        (["HANDLERS:nothing"], "returned NoneType"),
        (["HANDLERS:pipeline", "--store", "console"], "--store: "),
        (["HANDLERS:pipeline", "--batch-size", "7"], "--batch-size: "),
        (["HANDLERS:upcase", "--spool", "s"], "give --store too"),
        (["--store", "out.jsonl"], "give one of jsonl:PATH, sqlite:PATH"),
        (["--store", "jsonl:"], "--store (jsonl:): give one of"),
        (["--store", "jsonl:no/where.jsonl"], "no/where.jsonl"),
        (["--store", "console:x"], "--store (console:): give one of"),
        (["--store", "console", "--processes", "0"], "--processes=0"),
        (["--store", "console", "--processes", "2"], "a queue in memory is in one process"),
        (["--store", "console", "--lease", "0"], "lease=0.0"),
        (["--store", "console", "--max-lease", "0"], "max_lease=0.0"),
        (["--store", "console", "--max-deliver", "0"], "max_deliver=0"),
        (["--store", "console", "--max-in-flight", "0"], "max_in_flight=0"),
        (["--store", "console", "--batch-size", "0"], "size=0"),
        (["--store", "console", "--on-failure", "shrug"], "shrug"),
        (["--store", "http://u:hushhush@/"], "url: give an http or https URL"),
        (["--store", "postgresql://u:hush hush@h:port/d"], "libpq cannot read it"),
        (["--stores=postgresql://u:hushhush@h/d"], "postgresql://***@h/d"),
        (["a:b", "postgresql://u:hushhush@h/d"], "postgresql://***@h/d"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_option_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, handlers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [argument.replace("HANDLERS", handlers) for argument in arguments]
    try:
        code: object = work("memory:wrong", *arguments)
    except SystemExit as refused:
        code = refused.code
    said = capsys.readouterr()
    assert code == 2
    assert said.err.count("\n") == 1
    assert words in said.err
    assert "hush" not in said.err
    assert said.out == ""


# Stores.


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("jsonl:out.jsonl.gz", "JSONLinesSubscriber"),
        ("sqlite:out.db", "SQLiteSubscriber"),
        ("parquet:out", "ParquetSubscriber"),
        ("postgresql://u:hushhush@127.0.0.1:1/d", "PostgresSubscriber"),
        ("postgres://u:hushhush@127.0.0.1:1/d", "PostgresSubscriber"),
        ("https://u:hushhush@host/hook", "WebhookSubscriber"),
        ("http://host/hook?key=hushhush", "WebhookSubscriber"),
        ("console", "ConsoleSubscriber"),
    ],
)
def test_store_has_a_name(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = store_of(name)
    assert type(store).__name__ == kind
    assert "hushhush" not in repr(store)
    assert name.partition(":")[0] in STORES


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("jsonl:out.jsonl", "out-w2.jsonl"),
        ("jsonl:out.jsonl.gz", "out-w2.jsonl.gz"),
        ("jsonl:out", "out-w2"),
        ("sqlite:out.db", "out.db"),
        ("parquet:out", "out"),
    ],
)
def test_worker_has_its_own_file_for_one_writer(
    name: str, own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert repr(own) in repr(store_of(name, 2))


@pytest.mark.parametrize("name", ["", "out.jsonl", "jsonl", "jsonl:", "console:x", "mysql://h/d"])
def test_unknown_store_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="give one of jsonl:PATH"):
        store_of(name)


def test_spools_of_other_workers_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2, 3):
        store = spooled(Unreachable(), str(tmp_path), number)
        if number != 2:
            store.on_next(Batch([Message("a")]))
        store.on_completed()
    report_spools_left(str(tmp_path), 1)
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("w3: a run with --processes 3 stores them")
    assert "1 messages wait" in line


# In several processes.


@contextlib.contextmanager
def running(url: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Two workers, which end when the test ends."""
    with subprocess.Popen(
        [*COMMAND, "work", url, *arguments, "--group", "g", "--processes", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        children: list[psutil.Process] = []
        try:
            yield process
        finally:
            with contextlib.suppress(psutil.Error):
                children = psutil.Process(process.pid).children(recursive=True)
            for child in children:
                with contextlib.suppress(psutil.Error):
                    child.kill()
            process.kill()


def line_of(pipe: IO[str] | None) -> str:
    assert pipe is not None
    return pipe.readline().rstrip()


def wait_until_draining(process: subprocess.Popen[str]) -> None:
    while "drain" not in (line := line_of(process.stderr)):  # after lines of figures
        assert line, "the workers ended"


def pids_in(process: subprocess.Popen[str], count: int) -> set[int]:
    """The process ids that handlers have said, until there are so many different ones."""
    found: set[int] = set()
    while len(found) < count:
        line = line_of(process.stdout)
        assert line, "the workers ended"
        found.add(int(line))
    return found


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


ALL = sorted(f"text {n}" for n in range(400))


@pytest.mark.parametrize("store", ["jsonl:out.jsonl", "sqlite:out.db"])
def test_processes_share_the_messages(
    store: str, queue: str, handlers: str, tmp_path: Path
) -> None:
    arguments = (f"{handlers}:waiting", "--store", store, "--concurrency", "2")
    with running(queue, *arguments, "--batch-size", "20", "--until-empty") as process:
        pids_in(process, 2)
        (tmp_path / "go").touch()
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert stored(tmp_path) == ALL
    figures = said.splitlines()[-1]
    assert "delivered 400 · processed 400 · failed 0 " in figures
    assert figures.endswith("redelivered 0 · dead 0 · lost acks 0 · restarts 0")


def stored(directory: Path) -> list[str]:
    database = directory / "out.db"
    if not database.exists():
        assert sorted(path.name for path in directory.glob("out*")) == [
            "out-w1.jsonl",
            "out-w2.jsonl",
        ]
        return texts(directory)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return sorted(text for (text,) in connection.execute("SELECT text FROM tweets"))


def test_worker_ignores_modules_named_as_those_of_python(
    queue: str, handlers: str, tmp_path: Path
) -> None:
    (tmp_path / "queue.py").write_text("raise RuntimeError('not the queue of Python')")
    program = "import sys; from rxtweets.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, "work", queue, f"{handlers}:upcase", "--group", "g",
         "--processes", "2", "--until-empty"],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_killed_worker_is_replaced_and_nothing_is_lost(
    queue: str, handlers: str, tmp_path: Path
) -> None:
    arguments = (f"{handlers}:waiting", "--store", "jsonl:out.jsonl", "--concurrency", "4")
    with running(queue, *arguments, "--until-empty", "--lease", "1") as process:
        victim = pids_in(process, 2).pop()
        os.kill(victim, signal.SIGKILL)
        (tmp_path / "go").touch()
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert "ended by signal 9; another one starts in 0.5 s" in said
    assert said.splitlines()[-1].endswith("restarts 1")
    assert sorted(set(texts(tmp_path))) == ALL
    assert backlog(queue) == (0, 0, 0)


def handler_that_dies(start: int) -> str:
    """The name of a module that ends the process that imports it at this start."""
    name = f"handlers_{uuid4().hex}"
    Path(f"{name}.py").write_text(
        "import os, signal\n"
        "from pathlib import Path\n\n"
        "start = len(list(Path().glob('start-*')))\n"
        "Path(f'start-{start}').touch()\n"
        f"if start == {start}:\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n\n\n"
        "def handle(message):\n"
        "    return message\n"
    )
    return f"{name}:handle"


def test_worker_killed_before_it_is_ready_is_replaced(
    queue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with running(queue, handler_that_dies(start=1)) as process:
        eventually((tmp_path / "start-2").exists)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert "rxtweets: worker 2 ended by signal 9; another one starts in 0.5 s\n" in said
    assert said.splitlines()[-1].endswith("restarts 1")


def test_first_worker_killed_before_it_is_ready_is_reported(
    queue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with running(queue, handler_that_dies(start=0)) as process:
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "rxtweets: worker 1 ended by signal 9 before it was ready\n" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_drains_all_workers(
    number: signal.Signals, queue: str, handlers: str, tmp_path: Path
) -> None:
    arguments = (f"{handlers}:waiting", "--store", "jsonl:out.jsonl", "--concurrency", "2")
    with running(queue, *arguments) as process:
        pids_in(process, 2)
        process.send_signal(number)
        wait_until_draining(process)
        (tmp_path / "go").touch()
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    pending, in_flight, dead = backlog(queue)
    assert (in_flight, dead) == (0, 0)
    assert pending + len(texts(tmp_path)) == 400
    assert "abandoned" not in said
    assert "lost acks 0 · restarts 0" in said.splitlines()[-1]


def test_worker_that_is_signalled_twice_still_drains(
    queue: str, handlers: str, tmp_path: Path
) -> None:
    arguments = (f"{handlers}:waiting", "--store", "jsonl:out.jsonl", "--concurrency", "2")
    with running(queue, *arguments) as process:
        workers = pids_in(process, 2)
        for pid in workers:  # as systemd does
            os.kill(pid, signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        wait_until_draining(process)
        (tmp_path / "go").touch()
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    pending, in_flight, _ = backlog(queue)
    assert (in_flight, pending + len(texts(tmp_path))) == (0, 400)


def test_second_signal_stops_all_workers(queue: str, handlers: str) -> None:
    with running(queue, f"{handlers}:waiting", "--concurrency", "2") as process:
        workers = pids_in(process, 2)
        process.send_signal(signal.SIGINT)
        wait_until_draining(process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, said
    assert all(map(has_ended, workers))


def test_workers_drain_when_their_parent_is_killed(
    queue: str, handlers: str, tmp_path: Path
) -> None:
    arguments = (f"{handlers}:waiting", "--store", "jsonl:out.jsonl", "--concurrency", "2")
    with running(queue, *arguments) as process:
        workers = pids_in(process, 2)
        process.kill()
        process.wait()
        (tmp_path / "go").touch()
        try:
            eventually(lambda: all(map(has_ended, workers)))
        finally:
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    pending, in_flight, _ = backlog(queue)
    assert (in_flight, pending + len(texts(tmp_path))) == (0, 400)


def test_workers_write_above_the_status_line(queue: str, handlers: str, tmp_path: Path) -> None:
    terminal, end = os.openpty()
    command = [*COMMAND, "work", queue, f"{handlers}:warning", "--group", "g", "--processes", "2"]
    with subprocess.Popen([*command, "--until-empty"], stdout=subprocess.DEVNULL, stderr=end):
        os.close(end)
        said = b""
        while chunk := read(terminal):
            said += chunk
            if b"workers 2" in said:
                (tmp_path / "go").touch()
        os.close(terminal)
    assert said.count(b"look here") == 400
    assert re.findall(rb"(?<!\n)(?<!\x1b\[K)look here", said) == []


def read(terminal: int) -> bytes:
    """Read what is there, or nothing at the end."""
    try:
        return os.read(terminal, 65536)
    except OSError:  # of Linux, when the last program has closed it
        return b""


def test_workers_that_cannot_start_report_it_once(queue: str) -> None:
    with running(queue, "no_such_module:f") as process:
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    [line] = (line for line in said.splitlines() if not line.startswith("workers "))
    assert "No module named 'no_such_module'" in line
