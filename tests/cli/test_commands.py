"""`rxtweets record`, `replay` and `tail` in a shell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import rxtweets

COMMAND = [sys.executable, "-m", "rxtweets"]
PATIENCE = 30.0


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | environment,
        check=False,
    )


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "t.jsonl.gz"
    done = run("record", path, "--rate", 2000, "--limit", 100)
    assert done.returncode == 0, done.stderr
    assert "delivered 1" in done.stderr
    return path


def test_record_writes_as_many_as_were_asked_for(recording: Path) -> None:
    messages = rxtweets.replay(recording, None).to_list().run()
    assert len(messages) == 100
    assert all(message.received_at and message.lag is not None for message in messages)


def test_record_completes_the_file_at_ctrl_c(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with (
        rxtweets.simulator.serve(rate=2000) as x,
        subprocess.Popen(
            [*COMMAND, "record", str(path), x.url], stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        part = path.with_name("t.jsonl.part")
        while process.poll() is None and not (part.exists() and part.stat().st_size):
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["t.jsonl"]
    assert rxtweets.replay(path, None).to_list().run()


def test_replay_writes_the_lines_as_they_came(recording: Path) -> None:
    done = run("replay", recording, recording, "--speed", "max")
    assert done.returncode == 0
    lines = [message.raw.decode() for message in rxtweets.replay(recording, None).to_list().run()]
    assert done.stdout.splitlines() == lines * 2


def test_replay_ends_without_the_figures_of_a_connection(recording: Path) -> None:
    done = run("replay", recording, "--speed", "max")
    assert done.stderr.splitlines() == ["delivered 100 · dropped 0"]


def test_permanent_failure_is_reported_once() -> None:
    with rxtweets.simulator.serve(token="another") as x:
        done = run("tail", x.url, X_BEARER_TOKEN="any")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("rxtweets: 401")


def test_replay_counts_undecodable_lines(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("nonsense\n")
    done = run("replay", tmp_path / "t.jsonl")
    assert done.returncode == 1
    assert "undecodable 1" in done.stderr


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A file with two tweets, and lines of other kinds."""
    lines = [
        '{"data":[{"id":"1","text":"one"},{"id":"2","text":"two"}]}',
        '{"id":"3","text":"flat"}',
        "nonsense",
        '{"errors":[{"disconnect_type":"OperationalDisconnect"}]}',
        '{"id":"4","received_at":null,"data":"made","metadata":{"id":"4"}}',
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_replay_counts_lines_that_it_left_out(foreign: Path) -> None:
    done = run("replay", foreign, "--speed", "max")
    assert done.returncode == 0
    assert [json.loads(line)["data"]["text"] for line in done.stdout.splitlines()] == ["one", "two"]
    *log, summary = done.stderr.splitlines()
    assert summary == (
        "delivered 3 · dropped 0 · disconnect notices 1 · undecodable 1 · unknown 1"
        " · messages without a line 1"
    )
    assert [f"{foreign}:{number}: " in line for number, line in zip((2, 3), log, strict=True)]


@pytest.mark.parametrize(("arguments", "texts"), [((), 3), (("--json",), 2)])
def test_tail_counts_lines_that_it_left_out(
    foreign: Path, arguments: tuple[str, ...], texts: int
) -> None:
    done = run("tail", foreign, "--speed", "max", *arguments)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == texts
    assert "undecodable 1 · unknown 1" in done.stderr.splitlines()[-1]


def test_tail_fails_when_no_line_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("nonsense\n{}\n")
    done = run("tail", tmp_path / "t.jsonl")
    assert (done.returncode, done.stdout) == (1, "")


def test_tail_prints_a_line_a_tweet(recording: Path) -> None:
    done = run("tail", recording, "--speed", "max", "--limit", 7, COLUMNS="80")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) == 7
    assert all(line[2] == line[5] == ":" and "│" in line for line in lines)


def test_tail_prints_lines_for_programs(recording: Path) -> None:
    done = run("tail", recording, "--speed", "max", "--json")
    assert len([json.loads(line)["data"]["id"] for line in done.stdout.splitlines()]) == 100


def test_tail_reads_a_simulator_by_itself() -> None:
    done = run("tail", "--rate", 2000, "--limit", 3)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3)


def test_tail_shows_the_figures_of_a_notebook(recording: Path) -> None:
    done = run("tail", recording, "--speed", "max", "--live", COLUMNS="100", LINES="30")
    assert done.returncode == 0, done.stderr
    for kind in ("source", "batcher", "subscriber"):
        [line] = [line_ for line_ in done.stdout.splitlines() if line_.startswith(f"│ {kind}")]
        assert "100 messages" in line
    assert done.stdout.splitlines()[1].startswith("│ stopped")


@pytest.mark.parametrize(
    "arguments",
    [
        ("record", "no/where/t.jsonl"),
        ("record", "t.jsonl", "nothing"),
        ("replay", "nothing.jsonl"),
        ("replay", "."),
        ("replay", "/"),
        ("replay", "nothing.jsonl", "--speed", "fast"),
        ("tail", "nothing.jsonl"),
        ("tail", "--live", "--json"),
        ("tail", "--duration", "0"),
        ("tail", "--duration", "nan"),
        ("tail", "--duration", "inf"),
        ("tail", "x"),
    ],
)
def test_invalid_argument_is_reported_in_one_line(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    unset = {"X_BEARER_TOKEN": "", "TWITTER_BEARER_TOKEN": ""}
    done = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=tmp_path,
        env=os.environ | unset,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("rxtweets: ")
