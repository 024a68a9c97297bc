"""`rxtweets ingest`, `backlog` and `dead`."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from rxtweets import Batch, Batcher, Message, Pipeline, brokers, from_iterable, simulator
from rxtweets.brokers._engines import memory
from rxtweets.cli import _screen, main
from rxtweets.errors import BrokerUnavailable, QueueMissing

COMMAND = [sys.executable, "-m", "rxtweets"]
PATIENCE = 30.0
FAST = ("--rate", "2000")


@pytest.fixture
def url() -> str:
    return f"memory:{uuid4().hex}"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A file with three tweets and a line that is no JSON."""
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\n".join([*map(line_of, "123"), b"nonsense", b""]))
    return path


@pytest.fixture
def long_recording() -> Path:
    return Path(__file__).parents[2] / "notebooks" / "sample.jsonl.gz"


@pytest.fixture
def away() -> Iterator[pytest.MonkeyPatch]:
    """The broker of queues in memory is away until ``away.undo()``."""

    def fail(*_: object) -> None:
        raise BrokerUnavailable("no route to the broker")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory._MemorySender, "put", fail)
        yield patch


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def pending(url: str) -> dict[str, int]:
    return {name: backlog.pending for name, backlog in brokers.connect(url).backlog().items()}


# Ingest.


def test_ingest_stores_the_requested_number(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    groups = ("--group", "store", "--group", "alerts")
    assert main(["ingest", url, *FAST, "--limit", "40", *groups]) == 0
    assert pending(url) == {"store": 40, "alerts": 40}
    assert said(capsys).startswith("stored 40 in the memory queue ")


@pytest.mark.parametrize("limit", [1, 100, 119])
def test_ingest_stops_a_recording_at_its_limit(url: str, long_recording: Path, limit: int) -> None:
    arguments = ("--source", str(long_recording), "--speed", "max", "--limit", str(limit))
    assert main(["ingest", url, *arguments]) == 0
    assert pending(url) == {"": limit}


def test_ingest_ends_with_1_when_a_line_is_lost(
    url: str, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest", url, "--source", str(recording), "--speed", "max"]) == 1
    assert pending(url) == {"": 3}
    assert said(capsys).endswith("not stored: 1 undecodable")


def test_ingest_prints_an_object_for_programs(
    url: str, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest", url, "--source", str(recording), "--speed", "max", "--json"]) == 1
    end = json.loads(capsys.readouterr().out)
    assert (end["stored"], end["not_stored"]) == (3, {"undecodable": 1})
    assert end["stats"]["delivered"] == 3


@pytest.mark.usefixtures("away")
def test_ingest_counts_messages_that_were_not_taken(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest", url, *FAST, "--limit", "40"]) == 1
    line = said(capsys)
    assert line.startswith("stored 0 ")
    assert line.endswith("not stored: 40 failed")


def test_ingest_spools_while_the_broker_is_away(
    url: str, tmp_path: Path, away: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["ingest", url, *FAST, "--limit", "40", "--spool", str(tmp_path / "spool")]
    assert main(arguments) == 1
    assert said(capsys).endswith("not stored: 40 in the spool")
    away.undo()
    assert main([*arguments, "--seed", "1"]) == 0
    assert said(capsys).startswith("stored 80 ")
    assert pending(url) == {"": 80}


def test_summary_counts_messages_in_the_spool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_screen, "INTERVAL", 0.01)
    lines: SimpleQueue[str] = SimpleQueue()
    screen: Any = SimpleNamespace(is_live=False, write=lines.put, show=lambda _: None)
    pipeline = Pipeline(from_iterable([]), batchers={"default": Batcher(print)})
    with _screen.summaries(pipeline, screen, is_json=False, spooled=lambda: 7):
        assert lines.get(timeout=PATIENCE).endswith(" · in the spool 7\n")


def test_ingest_reads_nothing_when_the_queue_is_away(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise BrokerUnavailable("no route to the broker")

    monkeypatch.setattr(memory.MemoryEngine, "ensure", fail)
    with simulator.serve(rate=None) as x:
        assert main(["ingest", url, "--source", x.url]) == 1
    assert x.requests == []
    assert capsys.readouterr().err == "rxtweets: no route to the broker\n"


def test_ingest_takes_the_token_of_the_environment(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with simulator.serve(rate=None, token="secret") as x:
        monkeypatch.setenv("X_BEARER_TOKEN", "secret")
        assert main(["ingest", url, "--source", x.url, "--limit", "5"]) == 0
    assert [request.status for request in x.requests] == [200]


def test_ingest_stores_messages_in_flight_at_ctrl_c(tmp_path: Path) -> None:
    queue = f"sqlite:{tmp_path / 'q'}"
    with (
        simulator.serve(rate=500) as x,
        subprocess.Popen(
            [*COMMAND, "ingest", queue, "--source", x.url, "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process,
    ):  # fmt: skip
        try:
            while process.poll() is None and not stored(queue):
                pass
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    end = json.loads(out)
    assert process.returncode == 0
    assert stored(queue) == end["stored"] == end["stats"]["delivered"]


def stored(url: str) -> int:
    queue = brokers.connect(url)
    try:
        return sum(backlog.pending for backlog in queue.backlog().values())
    except QueueMissing:
        return 0
    finally:
        queue.close()


# Backlog.


def publish(url: str, *texts: str) -> brokers.Queue:
    queue = brokers.connect(url, groups=["store"])
    publisher = queue.publisher()
    publisher.on_next(Batch([Message.from_line(line_of(text)) for text in texts]))
    publisher.on_completed()
    return queue


def line_of(text: str) -> bytes:
    return json.dumps({"data": {"id": text, "text": text}}).encode()


def test_backlog_prints_a_table(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    publish(url, "1", "2")
    assert main(["backlog", url]) == 0
    head, row, dead = capsys.readouterr().out.splitlines()
    assert head.split() == ["group", "pending", "in", "flight", "oldest"]
    assert row.split()[:3] == ["store", "2", "0"]
    assert dead == "dead letters 0"


def test_backlog_prints_an_object(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    publish(url, "1", "2")
    assert main(["backlog", url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dead_letters"] == 0
    store = found["groups"]["store"]
    assert (store["pending"], store["in_flight"]) == (2, 0)
    assert store["oldest_age"] >= 0


def test_backlog_refuses_a_group_that_is_missing(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(url, "1")
    assert main(["backlog", url, "--group", "store"]) == 0
    assert main(["backlog", url, "--group", "stroe"]) == 2
    assert "no group stroe" in said(capsys)
    assert pending(url) == {"store": 1}


def test_backlog_names_a_queue_without_groups(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    brokers.connect(url).ensure()
    assert main(["backlog", url]) == 0
    assert "(no group yet)" in capsys.readouterr().out


# Dead letters.


@pytest.fixture
def dead(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a queue with two dead letters."""
    publish(url, "1", "2")
    monkeypatch.syspath_prepend(tmp_path)
    name = f"handlers_{uuid4().hex}"
    text = "def poison(message):\n    raise ValueError('poi\\x1bson')\n"
    (tmp_path / f"{name}.py").write_text(text)
    options = ("--group", "store", "--on-failure", "dead_letter", "--until-empty")
    assert main(["work", url, f"{name}:poison", *options]) == 0
    return url


def test_list_prints_a_line_a_letter(dead: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dead", dead, "list"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert sorted(line[0] for line in lines) == ["1", "2"]
    assert {line[1] for line in lines} == {"attempts 1"}
    assert {line[2] for line in lines} == {"ValueError: poi son"}
    assert all(line[3].endswith(f":{os.getpid()}") for line in lines)


def test_list_prints_bodies_for_programs(dead: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dead", dead, "list", "--json"]) == 0
    letters = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(json.loads(letter["body"])["data"]["id"] for letter in letters) == ["1", "2"]
    assert {letter["group"] for letter in letters} == {"store"}
    assert len(brokers.connect(dead).dead_letters) == 2


def test_replay_publishes_dead_letters_again(dead: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dead", dead, "replay"]) == 0
    assert capsys.readouterr().out == "2 replayed\n"
    assert pending(dead) == {"store": 2}
    assert len(brokers.connect(dead).dead_letters) == 0


@pytest.mark.parametrize(("flags", "group"), [([], "store"), (["--to-all-groups"], None)])
def test_replay_reaches_the_group_unless_asked(
    dead: str, flags: list[str], group: str | None
) -> None:
    assert main(["dead", dead, "replay", *flags]) == 0
    receiver = brokers.connect(dead).engine.receiver(brokers.Subscription("store", 30.0, 10, 5))
    assert {one.headers.get("rxt-for-group") for one in receiver.take(10, 1.0)} == {group}


def test_purge_asks_for_yes_without_a_terminal(
    dead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dead", dead, "purge"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert main(["dead", dead, "purge", "--yes"]) == 0
    assert capsys.readouterr().out == "2 removed\n"
    assert len(brokers.connect(dead).dead_letters) == 0


@pytest.mark.parametrize(("answer", "removed"), [("y\n", 2), ("n\n", 0), ("", 0)])
def test_purge_asks_on_a_terminal(
    answer: str,
    removed: int,
    dead: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal: Any = io.StringIO(answer)
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    assert main(["dead", dead, "purge"]) == 0
    question, last = capsys.readouterr().out.splitlines()
    assert question == "remove 2 dead letters for good? [y/N] "
    assert last == f"{removed} removed"
    assert len(brokers.connect(dead).dead_letters) == 2 - removed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ingest", "carrier:pigeon"], "no engine for carrier:"),
        (["ingest", "tweets"], "needs a scheme"),
        (["ingest", "memory:q", "--group", "a b"], "group='a b'"),
        (["ingest", "memory:q", "--limit", "0"], "limit=0"),
        (["ingest", "memory:q", "--batch-size", "0"], "size=0"),
        (["ingest", "memory:q", "--overflow", "spill"], "drop_oldest, drop_newest, block"),
        (["ingest", "memory:q", "--source", "nothing.jsonl"], "nothing.jsonl"),
        (["ingest", "memory:q", "--source", "x"], "X_BEARER_TOKEN"),
        (["backlog", "carrier:pigeon"], "no engine for carrier:"),
        (["backlog", "memory:mistyped"], "no memory queue 'mistyped'"),
        (["dead", "memory:mistyped", "list"], "no memory queue 'mistyped'"),
        (["dead", "memory:mistyped", "replay"], "no memory queue 'mistyped'"),
        (["dead", "memory:mistyped", "purge", "--yes"], "no memory queue 'mistyped'"),
        (["dead", "memory:q"], "COMMAND"),
        (["dead", "memory:q", "bury"], "bury"),
        (["backlog", "nats://u:hushhush@host/q", "--nonsense"], "--nonsense"),
        (["backlog", "memory:q", "nats://u:hushhush@host/q"], "nats://***@host/q"),
        (["nats://u:hushhush@host/q"], "nats://***@host/q"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_option_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(arguments)
    except SystemExit as refused:
        code = refused.code
    shown = capsys.readouterr()
    assert code == 2
    assert shown.err.count("\n") == 1
    assert words in shown.err
    assert "hushhush" not in shown.err
    assert shown.out == ""
